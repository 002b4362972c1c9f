//! A file or block device of this machine, open for writing and armed for
//! one plan.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{
    Advice, FlockOperation, OFlags, SeekFrom, fadvise, fcntl_lock, seek,
};
use rustix::io::Errno;

use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};
use crate::install::Arming;
use crate::install::target::{SECTOR_BYTES, WriteTarget, Written};
use crate::units::{ByteCount, ByteOffset, ByteRange, u64_from};

/// Holds the device as long as it lives: nobody can mount it meanwhile.
#[derive(Debug)]
pub struct LocalWriter {
    file: File,
    name: String,
    armed: Vec<ByteRange>,
}

impl LocalWriter {
    /// Opens `path`, for itself alone.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Refused`] when somebody else has it, it cannot be written
    /// to, or it is too short for the plan; [`ErrorKind::LocalIo`] when it
    /// cannot be opened.
    pub fn open(path: &Path, arming: &Arming) -> Result<Self> {
        let name = path.display().to_string();
        let is_device = std::fs::metadata(path)
            .is_ok_and(|data| data.file_type().is_block_device());
        let mut flags = OFlags::NONBLOCK;
        if is_device {
            // open(2): a block device in use by the system, e.g. mounted, is
            // EBUSY then.
            flags |= OFlags::EXCL;
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(flags.bits().cast_signed())
            .open(path)
            .map_err(|error| refused(&name, error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(in_use(&name)),
            Err(TryLockError::Error(error)) => {
                return Err(Error::io(format!("cannot lock {name}"), error));
            }
        }
        // QEMU tells by such locks that a machine runs on the file. A
        // filesystem that knows none has no such user, either.
        let lock = FlockOperation::NonBlockingLockExclusive;
        if let Err(Errno::AGAIN | Errno::ACCESS) = fcntl_lock(&file, lock) {
            return Err(in_use(&name));
        }
        // What is compared and replaced has to come from the medium: an
        // earlier write that failed may still be in the cache.
        let _ = fadvise(&file, 0, None, Advice::DontNeed);
        let length = seek(&file, SeekFrom::End(0)).map_err(|e| {
            Error::io(format!("cannot find the length of {name}"), e.into())
        })?;
        if arming.ranges.iter().any(|range| range.end().0 > length) {
            return Err(Error::new(
                ErrorKind::Refused,
                format!("{name} is shorter than what is to be written"),
            )
            .intact("nothing was written"));
        }
        Ok(Self { file, name, armed: arming.ranges.clone() })
    }

    /// The range, if it is a part of the plan.
    fn armed(&self, at: ByteOffset, bytes: &[u8]) -> Result<ByteRange> {
        let length = ByteCount(u64_from(bytes.len()));
        let range = ByteRange::new(at, length).filter(|range| {
            self.armed.iter().any(|armed| {
                armed.start() <= range.start() && range.end() <= armed.end()
            })
        });
        range.ok_or_else(|| {
            Error::new(
                ErrorKind::Internal,
                format!("a write at byte {at} is not part of the plan"),
            )
        })
    }

    /// What lies there; `None` when the device cannot read it.
    fn readable(&mut self, range: ByteRange) -> Result<Option<Vec<u8>>> {
        match self.read(range) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if is_medium_error(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn put(&self, bytes: &[u8], at: ByteOffset) -> Result<Written> {
        self.file
            .write_all_at(bytes, at.0)
            .map_err(|error| self.failed("write", at, error))?;
        Ok(Written::Written)
    }

    fn failed(&self, what: &str, at: ByteOffset, error: io::Error) -> Error {
        Error::io(format!("cannot {what} {} at byte {at}", self.name), error)
    }
}

impl WriteTarget for LocalWriter {
    fn read(&mut self, range: ByteRange) -> Result<Vec<u8>> {
        let length = usize::try_from(range.length().0).map_err(|_| {
            Error::new(ErrorKind::Internal, "a read that fits no memory")
        })?;
        let mut bytes = vec![0; length];
        self.file
            .read_exact_at(&mut bytes, range.start().0)
            .map_err(|error| self.failed("read", range.start(), error))?;
        Ok(bytes)
    }

    fn write(
        &mut self,
        at: ByteOffset,
        bytes: &[u8],
        old: &Digest,
    ) -> Result<Written> {
        let range = self.armed(at, bytes)?;
        match self.readable(range)? {
            Some(now) if now == bytes => Ok(Written::AlreadyThere),
            Some(now) if blake3::hash(&now) == *old => self.put(bytes, at),
            _ => Ok(Written::Conflict),
        }
    }

    fn digests(&mut self, ranges: &[ByteRange]) -> Result<Vec<Digest>> {
        let digest = |now: Option<Vec<u8>>| {
            now.map_or([0; 32], |now| *blake3::hash(&now).as_bytes())
        };
        ranges.iter().map(|r| self.readable(*r).map(digest)).collect()
    }

    fn mend(
        &mut self,
        at: ByteOffset,
        old: &[u8],
        new: &[u8],
    ) -> Result<Written> {
        let range = self.armed(at, new)?;
        let sides = old.chunks(SECTOR_BYTES).zip(new.chunks(SECTOR_BYTES));
        for (sector, (old, new)) in range.cut(SECTOR_BYTES as u64).zip(sides) {
            let now = self.readable(sector)?;
            if now.is_some_and(|now| now != old && now != new) {
                return Ok(Written::Conflict);
            }
        }
        match old.len() == new.len() {
            true => self.put(new, at),
            false => Ok(Written::Conflict),
        }
    }

    fn flush(&mut self) -> Result<()> {
        self.file.sync_all().map_err(|error| {
            Error::io(
                format!("cannot bring {} to its medium", self.name),
                error,
            )
        })?;
        // What is read back has to come from the medium. Not every
        // filesystem can forget, and then it says nothing either.
        let _ = fadvise(&self.file, 0, None, Advice::DontNeed);
        Ok(())
    }
}

/// Whether the device itself could not read: a bad sector.
fn is_medium_error(error: &Error) -> bool {
    let cause = std::error::Error::source(error);
    let cause = cause.and_then(|cause| cause.downcast_ref::<io::Error>());
    let number = cause.and_then(io::Error::raw_os_error);
    matches!(
        number.map(Errno::from_raw_os_error),
        Some(Errno::IO | Errno::NODATA | Errno::ILSEQ)
    )
}

fn refused(name: &str, error: io::Error) -> Error {
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::BUSY) => in_use(name),
        Some(Errno::ROFS | Errno::ACCESS | Errno::PERM) => Error::new(
            ErrorKind::Refused,
            format!("{name} cannot be written to"),
        )
        .because(error)
        .intact("nothing was written"),
        _ => Error::io(format!("cannot open {name} for writing"), error)
            .intact("nothing was written"),
    }
}

fn in_use(name: &str) -> Error {
    Error::new(
        ErrorKind::Refused,
        format!("{name} is in use: the system or another process holds it"),
    )
    .intact("nothing was written")
    .hint("unmount it, stop what uses it, then run the command again")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::range;

    fn file() -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(8192).unwrap();
        file
    }

    fn arming(ranges: Vec<ByteRange>) -> Arming {
        Arming { plan: [0; 32], bytes: ByteCount(0), ranges }
    }

    #[test]
    fn only_what_is_armed_and_proven_is_written() {
        let file = file();
        let mut writer =
            LocalWriter::open(file.path(), &arming(vec![range(0, 1024)]))
                .unwrap();
        let zeros = *blake3::hash(&[0; 512]).as_bytes();
        let at = |n| ByteOffset(n);
        assert_eq!(
            writer.write(at(512), &[1; 512], &[9; 32]).unwrap(),
            Written::Conflict
        );
        assert_eq!(
            writer.write(at(512), &[1; 512], &zeros).unwrap(),
            Written::Written
        );
        assert_eq!(
            writer.write(at(512), &[1; 512], &zeros).unwrap(),
            Written::AlreadyThere
        );
        assert!(writer.write(at(1024), &[1; 512], &zeros).is_err());
        writer.flush().unwrap();
        assert_eq!(writer.read(range(512, 512)).unwrap(), [1; 512]);
        let whole = std::fs::read(file.path()).unwrap();
        assert_eq!(whole.iter().filter(|byte| **byte != 0).count(), 512);
    }

    #[test]
    fn nobody_else_writes_at_the_same_time_and_nothing_grows() {
        let file = file();
        let held = LocalWriter::open(file.path(), &arming(Vec::new())).unwrap();
        let other = LocalWriter::open(file.path(), &arming(Vec::new()));
        assert_eq!(other.unwrap_err().kind(), ErrorKind::Refused);
        drop(held);
        let long = arming(vec![range(8192, 512)]);
        let error = LocalWriter::open(file.path(), &long).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused);
    }
}
