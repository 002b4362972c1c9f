//! A file or block device of this machine as a source.
//!
//! Opened read-only. Ranges are read with large calls; where one fails it is
//! halved down to the sector, so that a bad sector costs itself and nothing
//! around it. Who skims gets what comes before an error and what comes some
//! way behind it, and no sector is asked for twice.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{SeekFrom, ioctl_blksszget, seek};
use rustix::io::Errno;

use crate::batch::{Batch, Filled};
use crate::error::{Error, ErrorKind, Result};
use crate::local::mounts;
use crate::source::{
    BlockSource, DiskIdentity, Each, FileIdentity, ReadFault, SourceFacts,
    SourceKind,
};
use crate::units::{ByteCount, ByteOffset, ByteRange};

/// One read call at most; larger ranges are cut at multiples of it.
const READ_BYTES_MAX: u64 = 1 << 20;

/// So much is left out behind an error when a range is skimmed, and twice as
/// much when there is the next error at once: a scratch is long, and each
/// attempt costs seconds.
const JUMP_BYTES: u64 = 64 * 1024;

/// So many reads of a range may fail before the rest of it is skipped in
/// larger steps: a dying disk takes seconds for each.
const FAILURES_MAX: u32 = 64;

/// A step that is skipped whole then.
const SKIP_BYTES: usize = 64 * 1024;

/// Below this a hole is not looked for: reading is as cheap as asking.
const HOLE_BYTES_MIN: u64 = 64 * 1024;

/// A file or block device, from an offset to its end.
#[derive(Debug)]
pub struct LocalSource {
    file: File,
    base: ByteOffset,
    facts: SourceFacts,
    /// The file has holes, so asking where they are may save reading.
    sparse: bool,
}

impl LocalSource {
    /// Opens `path` for reading; the source's byte 0 is the file's byte
    /// `base`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NoFilesystem`] when there is no such file or device or it
    /// is neither; [`ErrorKind::LocalIo`] when it cannot be opened.
    pub fn open(path: &Path, base: ByteOffset) -> Result<Self> {
        let name = path.display();
        // O_NONBLOCK: a FIFO named by mistake must not hang the open.
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(nonblocking())
            .open(path)
            .map_err(|error| open_error(path, error))?;
        let metadata = file
            .metadata()
            .map_err(|e| Error::io(format!("cannot look at {name}"), e))?;
        let kind = if metadata.file_type().is_block_device() {
            SourceKind::BlockDevice
        } else if metadata.is_file() {
            SourceKind::File
        } else {
            return Err(Error::new(
                ErrorKind::NoFilesystem,
                format!("{name} is neither a file nor a block device"),
            ));
        };
        let whole = seek(&file, SeekFrom::End(0)).map_err(|e| {
            Error::io(format!("cannot find the length of {name}"), e.into())
        })?;
        let Some(length) = whole.checked_sub(base.0) else {
            return Err(Error::new(
                ErrorKind::Usage,
                format!(
                    "offset {base} lies beyond the end of {name} \
                     ({whole} bytes)"
                ),
            ));
        };
        let sector_bytes = match kind {
            SourceKind::BlockDevice => ioctl_blksszget(&file).unwrap_or(512),
            _ => 512,
        };
        let allocated = metadata.blocks().saturating_mul(512);
        Ok(Self {
            sparse: kind == SourceKind::File && allocated < whole,
            facts: SourceFacts {
                name: name.to_string(),
                kind,
                length: ByteCount(length),
                sector_bytes: sector_bytes.max(512),
                file: Some(FileIdentity {
                    device: metadata.dev(),
                    inode: metadata.ino(),
                    raw_device: metadata.rdev(),
                }),
                disk: DiskIdentity::default(),
                mounted_rw: mounts::is_mounted_rw(path, &metadata),
            },
            file,
            base,
        })
    }

    /// Reads one range into its room of the batch, by `read`.
    fn read_range(
        &self,
        index: usize,
        range: ByteRange,
        batch: &mut Batch,
        read: impl Fn(&Self, ByteOffset, &mut [u8], &mut Faults),
    ) {
        let end = ByteOffset(self.facts.length.0);
        let inside = match range.end() > end {
            false => range,
            true => {
                let cut = range.start().max(end);
                if let Some(beyond) = ByteRange::between(cut, range.end()) {
                    batch.set_fault(beyond, ReadFault::BeyondEnd);
                }
                match ByteRange::between(range.start(), cut) {
                    Some(inside) if !inside.is_empty() => inside,
                    _ => return,
                }
            }
        };
        if self.is_hole(inside) {
            if inside == range {
                batch.set_zero(index);
            } else if let Ok(length) = usize::try_from(inside.length().0) {
                batch.room(index)[..length].fill(0);
            }
            return;
        }
        let mut bad = Vec::new();
        if let Ok(length) = usize::try_from(inside.length().0) {
            let room = &mut batch.room(index)[..length];
            read(self, inside.start(), room, &mut bad);
        }
        for (part, fault) in bad {
            batch.set_fault(part, fault);
        }
    }

    /// Reads what is easy to read of `room`, from its beginning on; what is
    /// not is noted in `bad`.
    fn skim_range(&self, at: ByteOffset, room: &mut [u8], bad: &mut Faults) {
        let sector = self.facts.sector_bytes as usize;
        let length = room.len();
        let (mut done, mut jump) = (0, JUMP_BYTES);
        while done < length {
            let here = at.0.saturating_add(done as u64);
            let Some(place) = self.base.0.checked_add(here) else { return };
            let fault = match self.file.read_at(&mut room[done..], place) {
                Ok(0) => ReadFault::BeyondEnd,
                Ok(count) => {
                    done += count;
                    jump = JUMP_BYTES;
                    continue;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) if length - done <= sector => ReadFault::Medium,
                Err(_) => ReadFault::Skipped,
            };
            let behind = match fault {
                ReadFault::Skipped => {
                    here.saturating_add(jump) / JUMP_BYTES * JUMP_BYTES
                }
                _ => u64::MAX,
            };
            let left = (length - done) as u64;
            let lost = behind.saturating_sub(here).min(left);
            let part = ByteRange::new(ByteOffset(here), ByteCount(lost));
            bad.extend(part.map(|part| (part, fault)));
            done += usize::try_from(lost).unwrap_or(length);
            jump = jump.saturating_mul(2);
        }
    }

    /// Whether the file has no data in all of `range`.
    fn is_hole(&self, range: ByteRange) -> bool {
        if !self.sparse || range.length().0 < HOLE_BYTES_MIN {
            return false;
        }
        let Some(start) = self.base.0.checked_add(range.start().0) else {
            return false;
        };
        match seek(&self.file, SeekFrom::Data(start)) {
            Ok(data) => data.saturating_sub(self.base.0) >= range.end().0,
            Err(error) => error == Errno::NXIO,
        }
    }

    /// Reads all of `room`, in ever smaller pieces where that fails; what
    /// cannot be read is noted in `bad`. After `left` failures what fails is
    /// skipped in steps.
    fn read_down(
        &self,
        at: ByteOffset,
        room: &mut [u8],
        left: &mut u32,
        bad: &mut Faults,
    ) {
        let Some(place) = self.base.0.checked_add(at.0) else {
            return;
        };
        let Err(error) = self.file.read_exact_at(room, place) else { return };
        *left = left.saturating_sub(1);
        let length = ByteCount(room.len() as u64);
        let sector = self.facts.sector_bytes as usize;
        let fault = match error.kind() {
            // The file shrank under us.
            io::ErrorKind::UnexpectedEof => ReadFault::BeyondEnd,
            _ if room.len() <= sector => ReadFault::Medium,
            _ => ReadFault::Skipped,
        };
        let last = if *left == 0 { SKIP_BYTES.max(sector) } else { sector };
        if room.len() <= last {
            bad.extend(ByteRange::new(at, length).map(|r| (r, fault)));
            return;
        }
        let half = (room.len() / 2).next_multiple_of(sector);
        let (low, high) = room.split_at_mut(half);
        self.read_down(at, low, left, bad);
        if let Some(at) = at.checked_add(ByteCount(half as u64)) {
            self.read_down(at, high, left, bad);
        }
    }
}

/// What could not be read.
type Faults = Vec<(ByteRange, ReadFault)>;

impl BlockSource for LocalSource {
    fn facts(&self) -> &SourceFacts {
        &self.facts
    }

    fn read(&self, ranges: &[ByteRange], each: Each<'_>) -> Result<()> {
        let mut batch = Batch::default();
        for &range in ranges {
            for part in range.cut(READ_BYTES_MAX) {
                self.read_batch(&[part], &mut batch)?;
                for piece in batch.filled().flat_map(Filled::pieces) {
                    if each(piece).is_break() {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    /// The one that writes, and two that read: with one reader a cold disk
    /// waits for its digests, with more the writer waits for a processor.
    fn readers(&self) -> usize {
        3
    }

    fn read_batch(
        &self,
        ranges: &[ByteRange],
        batch: &mut Batch,
    ) -> Result<()> {
        batch.prepare(ranges);
        for (index, &range) in ranges.iter().enumerate() {
            self.read_range(index, range, batch, |source, at, room, bad| {
                let mut left = FAILURES_MAX;
                source.read_down(at, room, &mut left, bad);
            });
        }
        Ok(())
    }

    fn skim(&self, ranges: &[ByteRange], batch: &mut Batch) -> Result<()> {
        batch.prepare(ranges);
        for (index, &range) in ranges.iter().enumerate() {
            self.read_range(index, range, batch, Self::skim_range);
        }
        Ok(())
    }
}

fn nonblocking() -> i32 {
    rustix::fs::OFlags::NONBLOCK.bits().cast_signed()
}

fn open_error(path: &Path, error: io::Error) -> Error {
    let name = path.display();
    match error.kind() {
        io::ErrorKind::NotFound => {
            Error::new(ErrorKind::NoFilesystem, format!("there is no {name}"))
                .hint("`e2wire ls` lists the devices of this machine")
        }
        io::ErrorKind::PermissionDenied => {
            Error::io(format!("cannot open {name} for reading"), error)
                .hint("devices can be read by root, or by group `disk`")
        }
        _ => Error::io(format!("cannot open {name} for reading"), error),
    }
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use super::*;
    use crate::testing::range;
    use std::io::Write;

    #[test]
    fn what_lies_beyond_the_end_is_unreadable_and_the_rest_is_not() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&[7; 5000]).unwrap();
        let source = LocalSource::open(file.path(), ByteOffset(904)).unwrap();
        let mut batch = Batch::default();
        source
            .read_batch(&[range(0, 1024), range(3072, 2048)], &mut batch)
            .unwrap();
        let filled: Vec<_> = batch.filled().collect();
        assert!(filled[0].faults.is_empty());
        assert_eq!(
            filled[1].faults,
            [(range(4096, 1024), ReadFault::BeyondEnd)]
        );
        assert_eq!(filled[1].bytes[..1024], [7; 1024]);
        assert_eq!(filled[1].bytes[1024..], [0; 1024]);
    }

    #[test]
    fn holes_of_a_file_are_zero_without_being_read() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&[7; 4096]).unwrap();
        file.as_file().set_len(4 << 20).unwrap();
        let source = LocalSource::open(file.path(), ByteOffset(0)).unwrap();
        let mut zeros = 0;
        source
            .read(&[range(0, 4 << 20)], &mut |piece| {
                if let crate::source::Payload::Zero(length) = piece.what {
                    zeros += length.0;
                }
                ControlFlow::Continue(())
            })
            .unwrap();
        assert_eq!(zeros, 3 << 20);
    }
}
