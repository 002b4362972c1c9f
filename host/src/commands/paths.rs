//! The names of inodes, as far as the directories that are known tell.

use std::collections::HashMap;

use crate::commands::writing::read_bytes;
use crate::error::{ErrorKind, Result};
use crate::ext::BlockKind;
use crate::ext::claims::Claim;
use crate::ext::directory::Entries;
use crate::source::BlockSource;
use crate::text;
use crate::units::{BlockCount, BlockNumber, BlockRun, BlockSize};

/// The inode of the root directory.
const ROOT: u32 = 2;

/// So many directories deep at most: damaged ones can lead in a circle.
const DEPTH_MAX: usize = 256;

/// No more names than this are kept.
const NAMES_MAX: usize = 4 << 20;

/// A stretch of a directory: its inode, and blocks of it.
pub(super) type DirectoryRun = (u32, BlockRun);

/// One name of each inode, and the directory that it stands in.
#[derive(Debug, Default)]
pub(super) struct Paths {
    names: HashMap<u32, (u32, Vec<u8>)>,
}

impl Paths {
    /// Reads the blocks of directories, in an image or on a device.
    ///
    /// # Errors
    ///
    /// When the source cannot be read at all.
    pub(super) fn of(
        source: &dyn BlockSource,
        size: BlockSize,
        directories: impl IntoIterator<Item = DirectoryRun>,
    ) -> Result<Self> {
        let mut names = HashMap::new();
        for (inode, run) in directories {
            each_entry(source, size, run, &mut |entry, name| {
                if names.len() < NAMES_MAX {
                    names
                        .entry(entry)
                        .or_insert_with(|| (inode, name.to_vec()));
                }
            })?;
        }
        Ok(Self { names })
    }

    /// The path of an inode from the root, if all of it is known.
    pub(super) fn path(&self, inode: u32) -> Option<String> {
        let mut parts = Vec::new();
        let mut at = inode;
        while at != ROOT {
            let (parent, name) = self.names.get(&at)?;
            parts.push(text::from_bytes(name));
            at = *parent;
            if parts.len() > DEPTH_MAX {
                return None;
            }
        }
        parts.reverse();
        Some(format!("/{}", parts.join("/")))
    }

    /// An inode as people know it.
    pub(super) fn describe(&self, inode: u32) -> String {
        match self.path(inode) {
            Some(path) => format!("inode {inode} ({path})"),
            None => format!("inode {inode}"),
        }
    }
}

/// The blocks of directories among what inodes claim.
pub(super) fn directories(
    claims: &[Claim],
) -> impl Iterator<Item = DirectoryRun> + '_ {
    claims
        .iter()
        .filter(|claim| claim.kind == BlockKind::Directory)
        .map(|claim| (claim.inode, claim.run))
}

/// The inode that has the path `path` from the root, if all of it is known.
///
/// # Errors
///
/// When the source cannot be read at all.
pub(super) fn find(
    path: &str,
    source: &dyn BlockSource,
    size: BlockSize,
    claims: &[Claim],
) -> Result<Option<u32>> {
    let mut at = ROOT;
    for part in path.split('/').filter(|part| !part.is_empty()) {
        let mut found = None;
        for (inode, run) in directories(claims) {
            if inode != at {
                continue;
            }
            each_entry(source, size, run, &mut |entry, name| {
                if name == part.as_bytes() {
                    found = found.or(Some(entry));
                }
            })?;
        }
        let Some(next) = found else { return Ok(None) };
        at = next;
    }
    Ok(Some(at))
}

/// Hands over every entry of a directory's blocks, but for the directory
/// itself and its parent.
fn each_entry(
    source: &dyn BlockSource,
    size: BlockSize,
    run: BlockRun,
    each: &mut dyn FnMut(u32, &[u8]),
) -> Result<()> {
    for block in run.first().0..run.end().0 {
        let run = BlockRun::new(BlockNumber(block), BlockCount(1));
        let Some(place) = run.and_then(|run| run.bytes(size)) else {
            continue;
        };
        let bytes = match read_bytes(source, place) {
            Ok(bytes) => bytes,
            // What cannot be read tells no names.
            Err(error) if error.kind() == ErrorKind::Refused => continue,
            Err(error) => return Err(error),
        };
        for entry in Entries::new(&bytes) {
            if !matches!(entry.name, b"." | b"..") {
                each(entry.inode, entry.name);
            }
        }
    }
    Ok(())
}
