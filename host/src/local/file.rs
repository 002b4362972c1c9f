//! An open local file: the one place that writes local bytes.
//!
//! Whoever opens one for writing holds it alone: it is locked.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{FallocateFlags, OFlags, fallocate};

use crate::error::{Error, ErrorKind, Result};
use crate::output::{OutputFile, zeros};
use crate::source::FileIdentity;
use crate::units::{ByteCount, ByteOffset, ByteRange};

/// An ordinary file, locked, mode 0600.
#[derive(Debug)]
pub struct LocalFile {
    file: File,
}

impl LocalFile {
    /// Opens `path`, or makes it. What it holds stays.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Refused`] when another process has it or it is no
    /// ordinary file; [`ErrorKind::LocalIo`] when it cannot be opened.
    pub fn open(path: &Path) -> Result<Self> {
        let name = path.display();
        let refused = |what: String| {
            Error::new(ErrorKind::Refused, what).intact("nothing was written")
        };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(flags(OFlags::NOFOLLOW | OFlags::NONBLOCK))
            .open(path)
            .map_err(|e| Error::io(format!("cannot open {name}"), e))?;
        if !file.metadata().is_ok_and(|data| data.is_file()) {
            return Err(refused(format!("{name} is no ordinary file")));
        }
        match file.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                return Err(refused(format!(
                    "another process is writing {name}"
                ))
                .hint("is the same command still running?"));
            }
            Err(fs::TryLockError::Error(error)) => {
                return Err(Error::io(format!("cannot lock {name}"), error));
            }
        }
        // Between opening and locking, its last owner may have given it
        // another name: then what we hold is no longer what was meant.
        if !is_still(path, &file) {
            return Err(refused(format!(
                "another process has just finished {name}"
            ))
            .hint("look at what it wrote, then run the command again"));
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
        OpenOptions::new()
            .read(true)
            .write(true)
            .mode(0o600)
            .custom_flags(flags(OFlags::TMPFILE))
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

    /// The same open file once more; both share the lock.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::LocalIo`] when the system refuses.
    pub fn again(&self) -> Result<Self> {
        let file = self.file.try_clone();
        file.map(|file| Self { file })
            .map_err(|e| Error::io("cannot share an open file", e))
    }

    /// Which file it is.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::LocalIo`] when the system cannot say.
    pub fn identity(&self) -> Result<FileIdentity> {
        let metadata = self
            .file
            .metadata()
            .map_err(|e| Error::io("cannot look at an open file", e))?;
        Ok(FileIdentity {
            device: metadata.dev(),
            inode: metadata.ino(),
            raw_device: metadata.rdev(),
        })
    }

    /// Brings everything to the disk, its length too.
    pub(super) fn sync_all(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    pub(super) const fn file(&self) -> &File {
        &self.file
    }
}

impl OutputFile for LocalFile {
    fn write_at(&mut self, at: ByteOffset, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, at.0)
    }

    fn read_at(&self, at: ByteOffset, into: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(into, at.0)
    }

    fn length(&self) -> io::Result<ByteCount> {
        self.file.metadata().map(|metadata| ByteCount(metadata.len()))
    }

    fn discard(&mut self, range: ByteRange) -> io::Result<()> {
        let (start, end) = (range.start().0, range.end().0);
        let end = end.min(self.length()?.0);
        let Some(range) =
            ByteRange::between(ByteOffset(start), ByteOffset(end))
                .filter(|inside| !inside.is_empty())
        else {
            return Ok(());
        };
        let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match fallocate(&self.file, how, start, range.length().0) {
            Ok(()) => Ok(()),
            // A filesystem that knows no holes.
            Err(_) => zeros(range)
                .try_for_each(|(at, bytes)| self.write_at(at, bytes)),
        }
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

fn flags(flags: OFlags) -> i32 {
    flags.bits().cast_signed()
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
