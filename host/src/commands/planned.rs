//! What a plan fetched over a line, kept for the image that follows it.
//!
//! It lies in the user's cache, one spool for each device. An image takes
//! over what is there, if the device still holds the same, and clears it away
//! when it is done; what nobody came for is cleared away by a later plan.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::Result;
use crate::local::{LocalFile, places};
use crate::spool::{Identity, Store, StoreOptions};
use crate::units::ByteOffset;

/// What a plan left longer ago is cleared away.
const KEPT_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// The spool of a plan, and its map.
pub(super) struct Planned {
    files: [PathBuf; 2],
}

impl Planned {
    /// Of the device with this identity; `None` where a user has no place for
    /// such files.
    pub(super) fn of(identity: &Identity) -> Option<Self> {
        let folder = places::of_user("XDG_CACHE_HOME", ".cache")?;
        let folder = folder.join("e2wire");
        let digest = blake3::hash(identity.text().as_bytes()).to_hex();
        let name = |suffix: &str| {
            let short = digest.get(..32).unwrap_or(&digest);
            folder.join(format!("plan-{short}{suffix}"))
        };
        Some(Self { files: [name(".spool"), name(".spool.map")] })
    }

    /// Opens the files for a plan; `None` where that cannot be: the plan goes
    /// on without.
    pub(super) fn open(&self) -> Option<(LocalFile, LocalFile)> {
        let [data, map] = &self.files;
        let folder = data.parent()?;
        std::fs::create_dir_all(folder).ok()?;
        clear_old(folder);
        Some((LocalFile::open(data).ok()?, LocalFile::open(map).ok()?))
    }

    /// Takes over into `store` what a plan has fetched, if it has nothing
    /// yet. All of it is still to be compared with the device.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::LocalIo`](crate::error::ErrorKind::LocalIo) when the store
    /// cannot be written.
    pub(super) fn take_over(
        &self,
        identity: &Identity,
        store: &mut Store,
    ) -> Result<()> {
        if !store.known().is_empty() || !self.files.iter().all(|f| f.is_file())
        {
            return Ok(());
        }
        let Some((data, map)) = self.open() else { return Ok(()) };
        let options = StoreOptions::new(ByteOffset(0), false);
        let (data, map) = (Box::new(data), Box::new(map));
        match Store::open(data, map, identity, options) {
            Ok(planned) => store.adopt(&planned),
            // Of another version, or broken: it is fetched again.
            Err(_) => Ok(()),
        }
    }

    /// Nobody needs them any more.
    pub(super) fn forget(&self) {
        for file in &self.files {
            // What is left over is cleared away by a later plan.
            let _ = std::fs::remove_file(file);
        }
    }
}

/// Clears away what was left long ago.
fn clear_old(folder: &Path) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let is_ours =
            name.to_str().is_some_and(|name| name.starts_with("plan-"));
        let written = entry.metadata().and_then(|data| data.modified());
        let is_old = written
            .is_ok_and(|at| at.elapsed().is_ok_and(|age| age > KEPT_MAX));
        if is_ours && is_old {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}
