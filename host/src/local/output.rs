//! A local file as an output: complete under its name, or not there at all.
//!
//! Everything is written to `NAME.part`, mode 0600, and renamed when it is
//! whole. Until then an earlier `NAME` stays as it is. Only one job at a time
//! holds a `.part`: it is locked.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{
    FileExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt,
};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::error::{Error, ErrorKind, Result};
use crate::output::{OutputFile, OutputStream};
use crate::source::FileIdentity;
use crate::units::{ByteCount, ByteOffset};

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
    file: File,
    path: PathBuf,
    part: PathBuf,
    overwrite: bool,
    sync: bool,
    finished: bool,
}

impl LocalOutput {
    /// Starts `path` as `path.part`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Refused`] when `path` is one of the sources, exists (and
    /// may not be replaced), is no ordinary file, or another process is
    /// writing it; [`ErrorKind::LocalIo`] when it cannot be made.
    pub fn create(path: &Path, options: OutputOptions<'_>) -> Result<Self> {
        refuse_bad_target(path, options)?;
        let part = beside(path, ".part");
        refuse_bad_part(&part, options)?;
        let name = part.display();
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
            .open(&part)
            .map_err(|e| Error::io(format!("cannot create {name}"), e))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::new(
                    ErrorKind::Refused,
                    format!("another process is writing {name}"),
                )
                .intact("nothing was written"));
            }
            Err(TryLockError::Error(error)) => {
                return Err(Error::io(format!("cannot lock {name}"), error));
            }
        }
        // Between opening and locking, its last owner may have given it its
        // name: then what we hold is a finished image, not a part.
        if !is_still(&part, &file) {
            return Err(Error::new(
                ErrorKind::Refused,
                format!("another process has just finished {name}"),
            )
            .intact("nothing was written")
            .hint("look at what it wrote, then run the command again"));
        }
        // Only now: until it was locked it could have been somebody's. Not
        // when it is empty already: ext4 writes a file that was truncated to
        // nothing out to the disk when it is closed.
        let stale = file.metadata().is_ok_and(|old| old.len() > 0);
        let emptied = if stale { file.set_len(0) } else { Ok(()) };
        emptied
            .and_then(|()| {
                file.set_permissions(PermissionsExt::from_mode(0o600))
            })
            .map_err(|e| Error::io(format!("cannot empty {name}"), e))?;
        Ok(Self {
            file,
            path: path.to_owned(),
            part,
            overwrite: options.overwrite,
            sync: options.sync,
            finished: false,
        })
    }

    /// The name that it will have.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file's identity, for the header of a normal image.
    ///
    /// # Errors
    ///
    /// When the system cannot say.
    pub fn identity(&self) -> Result<FileIdentity> {
        let metadata = self.file.metadata().map_err(|e| {
            Error::io(format!("cannot look at {}", self.part.display()), e)
        })?;
        Ok(FileIdentity {
            device: metadata.dev(),
            inode: metadata.ino(),
            raw_device: metadata.rdev(),
        })
    }

    /// The file is whole: syncs it (unless told not to) and gives it its
    /// name.
    ///
    /// # Errors
    ///
    /// When the system refuses; the `.part` file is gone then, an earlier
    /// file of that name is intact.
    pub fn publish(mut self) -> Result<()> {
        let name = self.path.display().to_string();
        if self.sync {
            self.file.sync_all().map_err(|e| {
                Error::io(format!("cannot bring {name} to the disk"), e)
            })?;
        }
        let renamed = if self.overwrite {
            fs::rename(&self.part, &self.path)
        } else {
            rename_new(&self.part, &self.path)
        };
        renamed.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => exists(&self.path),
            _ => Error::io(format!("cannot rename to {name}"), error),
        })?;
        self.finished = true;
        if self.sync {
            sync_folder(&self.path)?;
        }
        Ok(())
    }
}

impl Drop for LocalOutput {
    fn drop(&mut self) {
        if !self.finished {
            // Nothing can go on from it, so it would only mislead.
            let _ = fs::remove_file(&self.part);
        }
    }
}

impl OutputFile for LocalOutput {
    fn write_at(&mut self, at: ByteOffset, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, at.0)
    }

    fn read_at(&self, at: ByteOffset, into: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(into, at.0)
    }

    fn set_length(&mut self, length: ByteCount) -> io::Result<()> {
        self.file.set_len(length.0)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn starts_zeroed(&self) -> bool {
        true
    }
}

/// A file that stays under its own name until it is removed: what a job that
/// was interrupted goes on from. Mode 0600, and locked.
#[derive(Debug)]
pub struct KeptFile {
    file: File,
}

impl KeptFile {
    /// Opens `path`, or makes it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Refused`] when another process has it or it is no
    /// ordinary file; [`ErrorKind::LocalIo`] when it cannot be opened.
    pub fn open(path: &Path) -> Result<Self> {
        let name = path.display();
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
            .open(path)
            .map_err(|e| Error::io(format!("cannot open {name}"), e))?;
        let is_file = file.metadata().is_ok_and(|data| data.is_file());
        if !is_file || file.try_lock().is_err() || !is_still(path, &file) {
            return Err(Error::new(
                ErrorKind::Refused,
                format!("{name} is in use, or no ordinary file"),
            )
            .intact("nothing was written")
            .hint("is the same command still running?"));
        }
        Ok(Self { file })
    }

    /// A file without a name, gone with this value.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::LocalIo`] when it cannot be made.
    pub fn temporary() -> Result<Self> {
        let folder = std::env::temp_dir();
        let flags = rustix::fs::OFlags::TMPFILE.bits().cast_signed();
        OpenOptions::new()
            .read(true)
            .write(true)
            .mode(0o600)
            .custom_flags(flags)
            .open(&folder)
            .map(|file| Self { file })
            .map_err(|e| {
                Error::io(
                    format!("cannot make a file in {}", folder.display()),
                    e,
                )
                .hint("TMPDIR names another place")
            })
    }

    /// How long it is now.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::LocalIo`] when the system cannot say.
    pub fn length(&self) -> Result<ByteCount> {
        let metadata = self.file.metadata();
        metadata
            .map(|metadata| ByteCount(metadata.len()))
            .map_err(|e| Error::io("cannot look at a file", e))
    }
}

impl OutputFile for KeptFile {
    fn write_at(&mut self, at: ByteOffset, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, at.0)
    }

    fn read_at(&self, at: ByteOffset, into: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(into, at.0)
    }

    fn set_length(&mut self, length: ByteCount) -> io::Result<()> {
        self.file.set_len(length.0)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn starts_zeroed(&self) -> bool {
        true
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

/// Writes a small file (a manifest) whole or not at all.
///
/// # Errors
///
/// As [`LocalOutput::create`] and [`LocalOutput::publish`].
pub fn write_whole(
    path: &Path,
    options: OutputOptions<'_>,
    bytes: &[u8],
) -> Result<()> {
    let mut output = LocalOutput::create(path, options)?;
    output.write_at(ByteOffset(0), bytes).map_err(|e| {
        Error::io(format!("cannot write {}", path.display()), e)
    })?;
    output.publish()
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

/// Whether `path` still names the open `file`.
fn is_still(path: &Path, file: &File) -> bool {
    match (fs::symlink_metadata(path), file.metadata()) {
        (Ok(named), Ok(open)) => {
            named.dev() == open.dev() && named.ino() == open.ino()
        }
        _ => false,
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
mod tests {
    use super::*;

    fn options(overwrite: bool) -> OutputOptions<'static> {
        OutputOptions { overwrite, sync: false, sources: &[] }
    }

    #[test]
    fn an_earlier_file_is_intact_until_the_new_one_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.raw");
        fs::write(&path, b"old").unwrap();
        let refused = LocalOutput::create(&path, options(false)).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Refused);

        let mut output = LocalOutput::create(&path, options(true)).unwrap();
        output.write_at(ByteOffset(0), b"new!").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"old");
        drop(output);
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);

        let mut output = LocalOutput::create(&path, options(true)).unwrap();
        output.write_at(ByteOffset(0), b"new!").unwrap();
        output.publish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new!");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_file_that_appears_meanwhile_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.raw");
        let output = LocalOutput::create(&path, options(false)).unwrap();
        fs::write(&path, b"somebody else's").unwrap();
        let refused = output.publish().unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Refused);
        assert_eq!(fs::read(&path).unwrap(), b"somebody else's");
    }

    #[test]
    fn only_one_writes_and_the_source_is_never_the_output() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.raw");
        let first = LocalOutput::create(&path, options(false)).unwrap();
        let second = LocalOutput::create(&path, options(false)).unwrap_err();
        assert_eq!(second.kind(), ErrorKind::Refused);
        let sources = [first.identity().unwrap()];
        first.publish().unwrap();
        let link = folder.path().join("link");
        fs::hard_link(&path, &link).unwrap();
        let same =
            OutputOptions { overwrite: true, sync: false, sources: &sources };
        let refused = LocalOutput::create(&link, same).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Refused);
    }
}
