//! A local file as an output: complete under its name, or not there at all.
//!
//! Everything is written to `NAME.part`, mode 0600, and renamed when it is
//! whole. Until then an earlier `NAME` stays as it is. Only one job at a time
//! holds a `.part`: it is locked. Where a job can go on from it, the `.part`
//! outlives whoever wrote it, with a `NAME.part.map` beside it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::error::{Error, ErrorKind, Result};
use crate::local::LocalFile;
use crate::output::{OutputFile, OutputStream};
use crate::source::FileIdentity;
use crate::units::ByteCount;

/// What is appended to the name of an output that is not whole yet.
pub const PART_SUFFIX: &str = ".part";
/// What is appended to it for the map of what an unfinished run has.
pub const MAP_SUFFIX: &str = ".part.map";

/// How an output file comes to be.
#[derive(Clone, Copy, Debug)]
pub struct OutputOptions<'a> {
    /// An existing file of that name may be replaced.
    pub overwrite: bool,
    /// Bring the data to the disk before it gets its name.
    pub sync: bool,
    /// What is being read: an output that is the same file is refused.
    pub sources: &'a [FileIdentity],
}

/// A file in the making.
#[derive(Debug)]
pub struct LocalOutput {
    file: LocalFile,
    path: PathBuf,
    part: PathBuf,
    overwrite: bool,
    sync: bool,
    /// The `.part` file goes when this does.
    transient: bool,
}

impl LocalOutput {
    /// Starts `path` as `path.part`, which begins empty and goes when this
    /// does.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Refused`] when `path` is one of the sources, exists (and
    /// may not be replaced), is no ordinary file, another process is writing
    /// it, or an unfinished run can go on from its `.part`;
    /// [`ErrorKind::LocalIo`] when it cannot be made.
    pub fn create(path: &Path, options: OutputOptions<'_>) -> Result<Self> {
        refuse_bad_target(path, options)?;
        let map = beside(path, MAP_SUFFIX);
        if map.exists() && beside(path, PART_SUFFIX).exists() {
            return Err(Error::new(
                ErrorKind::Refused,
                format!(
                    "an unfinished raw image lies in {}",
                    beside(path, PART_SUFFIX).display()
                ),
            )
            .intact("it was left as it is")
            .hint(format!(
                "finish it with the command that began it, give another \
                 name, or delete it and {}",
                map.display()
            )));
        }
        let mut output = Self::resume(path, options)?;
        output.transient = true;
        // Not when it is empty already: ext4 writes a file that was
        // truncated to nothing out to the disk when it is closed.
        let stale = output.file.length().map_or(true, |old| old.0 > 0);
        if stale {
            output.file.set_length(ByteCount(0)).map_err(|e| {
                let part = output.part.display();
                Error::io(format!("cannot empty {part}"), e)
            })?;
        }
        Ok(output)
    }

    /// Opens `path.part` as it is, or makes it; it stays until it is
    /// published or [`Self::abandon`]ed.
    ///
    /// # Errors
    ///
    /// As [`Self::create`].
    pub fn resume(path: &Path, options: OutputOptions<'_>) -> Result<Self> {
        refuse_bad_target(path, options)?;
        let part = beside(path, PART_SUFFIX);
        refuse_bad_part(&part, options)?;
        let file = LocalFile::open(&part)?;
        file.file().set_permissions(PermissionsExt::from_mode(0o600)).map_err(
            |e| Error::io(format!("cannot protect {}", part.display()), e),
        )?;
        Ok(Self {
            file,
            path: path.to_owned(),
            part,
            overwrite: options.overwrite,
            sync: options.sync,
            transient: false,
        })
    }

    /// The name that it will have.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The name that it has until then.
    #[must_use]
    pub fn part(&self) -> &Path {
        &self.part
    }

    /// What is written.
    pub const fn file(&mut self) -> &mut LocalFile {
        &mut self.file
    }

    /// Nothing can go on from the `.part` file: it goes.
    pub fn abandon(mut self) {
        self.transient = true;
    }

    /// The file is whole: syncs it (unless told not to) and gives it its
    /// name.
    ///
    /// # Errors
    ///
    /// When the system refuses; an earlier file of that name is intact.
    pub fn publish(self) -> Result<()> {
        publish_together(vec![self], &[])
    }

    /// Brings the bytes to the disk, unless told not to.
    fn settle(&self) -> Result<()> {
        if !self.sync {
            return Ok(());
        }
        self.file.sync_all().map_err(|e| {
            let name = self.path.display();
            Error::io(format!("cannot bring {name} to the disk"), e)
        })
    }

    fn rename(mut self) -> Result<()> {
        let renamed = if self.overwrite {
            fs::rename(&self.part, &self.path)
        } else {
            rename_new(&self.part, &self.path)
        };
        renamed.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => exists(&self.path),
            _ => Error::io(
                format!("cannot rename to {}", self.path.display()),
                error,
            ),
        })?;
        self.transient = false;
        Ok(())
    }
}

impl Drop for LocalOutput {
    fn drop(&mut self) {
        if self.transient {
            // Nothing can go on from it, so it would only mislead.
            let _ = fs::remove_file(&self.part);
        }
    }
}

/// Gives several files of one folder their names in this order, once those
/// that `stale` names are gone: what an earlier run left beside them. Wherever
/// this is cut off, nothing of the earlier run stands beside a file of this
/// one that it could contradict.
///
/// # Errors
///
/// When the system refuses. What has its name by then keeps it.
pub fn publish_together(
    outputs: Vec<LocalOutput>,
    stale: &[PathBuf],
) -> Result<()> {
    for output in &outputs {
        output.settle()?;
    }
    let mut whole = None;
    for step in steps(outputs, stale) {
        let name = step.names();
        step.run().map_err(|error| match &whole {
            Some(name) => error.intact(format!("{name} is complete")),
            None => error,
        })?;
        whole = whole.or(name);
    }
    Ok(())
}

fn steps(outputs: Vec<LocalOutput>, stale: &[PathBuf]) -> Vec<Step> {
    let sync = outputs.iter().any(|output| output.sync);
    let folder = outputs.first().map(|output| output.path.clone());
    let folder = folder.filter(|_| sync);
    let gone = stale.iter().filter(|path| fs::symlink_metadata(path).is_ok());
    let mut steps: Vec<Step> = gone.cloned().map(Step::Remove).collect();
    if !steps.is_empty() {
        // The order on the disk is that of the steps only across a sync.
        steps.extend(folder.clone().map(Step::SyncFolder));
    }
    for output in outputs {
        steps.push(Step::Rename(output));
        steps.extend(folder.clone().map(Step::SyncFolder));
    }
    steps
}

/// What giving names is made of.
#[derive(Debug)]
enum Step {
    Remove(PathBuf),
    Rename(LocalOutput),
    /// Brings the names in this file's folder to the disk.
    SyncFolder(PathBuf),
}

impl Step {
    fn names(&self) -> Option<String> {
        match self {
            Self::Rename(output) => Some(output.path.display().to_string()),
            Self::Remove(_) | Self::SyncFolder(_) => None,
        }
    }

    fn run(self) -> Result<()> {
        match self {
            Self::Rename(output) => output.rename(),
            Self::SyncFolder(path) => sync_folder(&path),
            Self::Remove(path) => match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    Err(Error::io(
                        format!("{} is in the way", path.display()),
                        error,
                    ))
                }
                _ => Ok(()),
            },
        }
    }
}

/// Standard output as an output.
#[derive(Debug)]
pub struct StdoutStream {
    out: io::Stdout,
}

impl StdoutStream {
    /// Standard output.
    #[must_use]
    pub fn new() -> Self {
        Self { out: io::stdout() }
    }
}

impl Default for StdoutStream {
    fn default() -> Self {
        Self::new()
    }
}

impl OutputStream for StdoutStream {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut out = self.out.lock();
        out.write_all(bytes)?;
        out.flush()
    }
}

/// `path` with `suffix` behind its name.
#[must_use]
pub fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Refuses `path` if writing there would hurt: checked before anything is
/// read, so that hours of work do not end in a refusal.
///
/// # Errors
///
/// [`ErrorKind::Refused`] as for [`LocalOutput::create`].
pub fn refuse_bad_target(
    path: &Path,
    options: OutputOptions<'_>,
) -> Result<()> {
    let name = path.display();
    if path.file_name().is_none() {
        return Err(Error::new(
            ErrorKind::Usage,
            format!("{name} is no name for an output"),
        ));
    }
    let Ok(metadata) = fs::metadata(path) else {
        return Ok(());
    };
    if is_one_of(&metadata, options.sources) {
        return Err(Error::new(
            ErrorKind::Refused,
            format!("{name} is the very thing that is to be read"),
        )
        .intact("nothing was written")
        .hint("give the output another name"));
    }
    if metadata.file_type().is_block_device() {
        return Err(Error::new(
            ErrorKind::Refused,
            format!("{name} is a block device, not a place for an image"),
        )
        .intact("nothing was written")
        .hint("write the image to a file"));
    }
    if !metadata.is_file() {
        return Err(Error::new(
            ErrorKind::Refused,
            format!("{name} exists and is no ordinary file"),
        )
        .intact("nothing was written"));
    }
    if !options.overwrite {
        return Err(exists(path));
    }
    Ok(())
}

fn refuse_bad_part(part: &Path, options: OutputOptions<'_>) -> Result<()> {
    match fs::symlink_metadata(part) {
        Ok(metadata)
            if !metadata.is_file() || is_one_of(&metadata, options.sources) =>
        {
            Err(Error::new(
                ErrorKind::Refused,
                format!(
                    "{} is in the way: it is not an unfinished output",
                    part.display()
                ),
            )
            .intact("nothing was written")
            .hint("move it, or give the output another name"))
        }
        _ => Ok(()),
    }
}

fn is_one_of(metadata: &fs::Metadata, sources: &[FileIdentity]) -> bool {
    sources.iter().any(|source| {
        let same_file =
            source.device == metadata.dev() && source.inode == metadata.ino();
        let same_device =
            source.raw_device != 0 && source.raw_device == metadata.rdev();
        same_file || same_device
    })
}

fn exists(path: &Path) -> Error {
    Error::new(ErrorKind::Refused, format!("{} exists already", path.display()))
        .intact("it was left as it is")
        .hint("give another name, or --overwrite to replace it when done")
}

/// Renames without ever replacing; where the filesystem cannot promise that,
/// by a hard link.
fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
            fs::hard_link(from, to)?;
            fs::remove_file(from)
        }
        Err(error) => Err(error.into()),
    }
}

fn sync_folder(path: &Path) -> Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|e| {
        Error::io(
            format!("cannot bring the name of {} to the disk", path.display()),
            e,
        )
    })
}

#[cfg(test)]
mod tests;
