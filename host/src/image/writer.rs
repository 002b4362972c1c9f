//! Writing an image with few, large calls.

use crate::error::{Error, ErrorKind, Result};
use crate::output::{OutputFile, OutputStream};
use crate::units::{BlockSize, ByteCount, ByteOffset, u64_from};

/// Neighbouring writes are gathered up to this many bytes.
const GATHER_BYTES_MAX: usize = 1 << 20;

/// A write of this size is not copied first.
const DIRECT_BYTES_MIN: usize = 16 << 10;

/// How much of a stretch of zeros is written at a time.
const ZERO_BYTES_MAX: usize = 256 << 10;

static ZEROS: [u8; ZERO_BYTES_MAX] = [0; ZERO_BYTES_MAX];

/// Where an image is written to.
pub enum Target<'a> {
    /// A file, or a device: any place at any time.
    File(&'a mut dyn OutputFile),
    /// A pipe: front to back.
    Stream(&'a mut dyn OutputStream),
}

/// Gathers neighbouring writes to an [`OutputFile`].
pub(super) struct Writer<'a> {
    out: &'a mut dyn OutputFile,
    name: String,
    gathered: Vec<u8>,
    /// Where the first gathered byte belongs.
    at: u64,
    /// Whether anything was ever written through here.
    dirty: bool,
}

impl<'a> Writer<'a> {
    /// `name` is what errors call the output.
    pub(super) fn new(out: &'a mut dyn OutputFile, name: &str) -> Self {
        Self {
            out,
            name: name.to_owned(),
            gathered: Vec::new(),
            at: 0,
            dirty: false,
        }
    }

    /// Whether places that were never written read as zeros.
    pub(super) fn starts_zeroed(&self) -> bool {
        self.out.starts_zeroed()
    }

    /// Throws away what was written, so that the output is again as fresh as
    /// it was; what a device held before cannot be brought back.
    pub(super) fn start_over(&mut self) -> Result<()> {
        self.gathered.clear();
        if self.dirty && self.out.starts_zeroed() {
            self.out.set_length(ByteCount(0)).map_err(|e| self.failed(e))?;
        }
        self.dirty = false;
        Ok(())
    }

    pub(super) fn write(&mut self, at: u64, bytes: &[u8]) -> Result<()> {
        self.dirty = true;
        let next = self.at.checked_add(u64_from(self.gathered.len()));
        let room = GATHER_BYTES_MAX.saturating_sub(self.gathered.len());
        if !self.gathered.is_empty() && (next != Some(at) || bytes.len() > room)
        {
            self.flush()?;
        }
        if bytes.len() >= DIRECT_BYTES_MIN && self.gathered.is_empty() {
            return self
                .out
                .write_at(ByteOffset(at), bytes)
                .map_err(|e| self.failed(e));
        }
        if self.gathered.is_empty() {
            self.at = at;
        }
        self.gathered.extend_from_slice(bytes);
        Ok(())
    }

    /// Makes `length` bytes at `at` read as zeros; free where they do.
    pub(super) fn zero(&mut self, at: u64, length: u64) -> Result<()> {
        if self.out.starts_zeroed() {
            return Ok(());
        }
        self.write_zeros(at, length)
    }

    /// Writes `length` zeros at `at`.
    pub(super) fn write_zeros(&mut self, at: u64, length: u64) -> Result<()> {
        let mut at = at;
        for piece in zeros(length) {
            self.write(at, piece)?;
            at = at.checked_add(u64_from(piece.len())).ok_or_else(too_far)?;
        }
        Ok(())
    }

    pub(super) fn flush(&mut self) -> Result<()> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let written = self.out.write_at(ByteOffset(self.at), &self.gathered);
        self.gathered.clear();
        written.map_err(|e| self.failed(e))
    }

    /// Writes what is gathered and makes the output this long.
    pub(super) fn set_length(&mut self, length: u64) -> Result<()> {
        self.flush()?;
        self.out.set_length(ByteCount(length)).map_err(|e| self.failed(e))
    }

    fn failed(&self, error: std::io::Error) -> Error {
        Error::io(format!("cannot write {}", self.name), error)
    }
}

/// Gathers what goes to an [`OutputStream`], and knows how far it is.
pub(super) struct StreamWriter<'a> {
    out: &'a mut dyn OutputStream,
    name: String,
    gathered: Vec<u8>,
    position: u64,
}

impl<'a> StreamWriter<'a> {
    /// `name` is what errors call the output.
    pub(super) fn new(out: &'a mut dyn OutputStream, name: &str) -> Self {
        Self { out, name: name.to_owned(), gathered: Vec::new(), position: 0 }
    }

    /// A stream cannot be begun twice.
    pub(super) fn must_be_fresh(&self) -> Result<()> {
        if self.position == 0 {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Internal,
            format!("{} was begun already and is no file", self.name),
        ))
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.position = self
            .position
            .checked_add(u64_from(bytes.len()))
            .ok_or_else(too_far)?;
        let room = GATHER_BYTES_MAX.saturating_sub(self.gathered.len());
        if bytes.len() > room {
            self.flush()?;
        }
        if bytes.len() >= DIRECT_BYTES_MIN && self.gathered.is_empty() {
            return self.out.write_all(bytes).map_err(|e| self.failed(e));
        }
        self.gathered.extend_from_slice(bytes);
        Ok(())
    }

    /// Writes zeros until `position` is reached.
    pub(super) fn zeros_to(&mut self, position: u64) -> Result<()> {
        let Some(length) = position.checked_sub(self.position) else {
            return Err(Error::new(
                ErrorKind::Internal,
                format!(
                    "{} is at byte {}, too far for byte {position}",
                    self.name, self.position
                ),
            ));
        };
        self.zeros(length)
    }

    /// Writes `length` zeros.
    pub(super) fn zeros(&mut self, length: u64) -> Result<()> {
        for piece in zeros(length) {
            self.write(piece)?;
        }
        Ok(())
    }

    pub(super) fn flush(&mut self) -> Result<()> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let written = self.out.write_all(&self.gathered);
        self.gathered.clear();
        written.map_err(|e| self.failed(e))
    }

    fn failed(&self, error: std::io::Error) -> Error {
        Error::io(format!("cannot write {}", self.name), error)
    }
}

/// `length` zeros in pieces.
fn zeros(length: u64) -> impl Iterator<Item = &'static [u8]> {
    let mut left = length;
    std::iter::from_fn(move || {
        let now =
            usize::try_from(left).unwrap_or(ZERO_BYTES_MAX).min(ZERO_BYTES_MAX);
        left = left.checked_sub(u64_from(now))?;
        (now > 0).then(|| ZEROS.get(..now)).flatten()
    })
}

/// A place beyond what 64 bits can name.
pub(super) fn too_far() -> Error {
    Error::new(ErrorKind::Internal, "a place in the image exceeds 64 bits")
}

/// What a whole number of blocks is made of: stretches of blocks with
/// something in them, and stretches of zero blocks.
pub(super) fn stretches(
    bytes: &[u8],
    size: BlockSize,
) -> impl Iterator<Item = Stretch<'_>> {
    let mut rest = bytes;
    let mut block = 0_u64;
    std::iter::from_fn(move || {
        let first = rest.get(..size.bytes())?;
        let zero = is_zero(first);
        let count = rest
            .chunks_exact(size.bytes())
            .skip(1)
            .take_while(|next| is_zero(next) == zero)
            .count()
            .saturating_add(1);
        let (now, behind) =
            rest.split_at_checked(count.saturating_mul(size.bytes()))?;
        rest = behind;
        let stretch =
            Stretch { block, count: u64_from(count), bytes: now, zero };
        block = block.saturating_add(stretch.count);
        Some(stretch)
    })
}

/// Some neighbouring blocks that are all zero or all not zero.
pub(super) struct Stretch<'a> {
    /// The first block, counted from the start of what was cut up.
    pub(super) block: u64,
    /// How many blocks.
    pub(super) count: u64,
    /// Their bytes.
    pub(super) bytes: &'a [u8],
    /// Whether every one of them is zero.
    pub(super) zero: bool,
}

/// Whether there is no other byte than zero.
pub(super) fn is_zero(bytes: &[u8]) -> bool {
    // Most blocks show within the first bytes that they are not.
    bytes.chunks(1024).all(|chunk| chunk.iter().fold(0, |a, b| a | b) == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::tests::MemoryFile;

    #[test]
    fn neighbouring_writes_become_one_call() {
        let mut file = MemoryFile::default();
        let mut writer = Writer::new(&mut file, "x");
        for block in 0..64_u64 {
            writer.write(block * 4096, &[1; 4096]).unwrap();
        }
        writer.write(1 << 20, &[2; 4096]).unwrap();
        writer.flush().unwrap();
        assert_eq!(file.calls, 2);
        assert_eq!(file.bytes.len(), (1 << 20) + 4096);
        assert!(file.bytes[..64 * 4096].iter().all(|b| *b == 1));
        assert!(is_zero(&file.bytes[64 * 4096..1 << 20]));
    }

    #[test]
    fn stretches_cover_everything_once_and_alternate() {
        let size = BlockSize::from_bytes(1024).unwrap();
        let mut bytes = vec![0; 8 * 1024];
        bytes[2 * 1024 + 1023] = 1;
        bytes[3 * 1024] = 1;
        bytes[7 * 1024 + 500] = 1;
        let seen: Vec<_> = stretches(&bytes, size)
            .map(|s| (s.block, s.count, s.zero, s.bytes.len()))
            .collect();
        assert_eq!(
            seen,
            [
                (0, 2, true, 2048),
                (2, 2, false, 2048),
                (4, 3, true, 3072),
                (7, 1, false, 1024)
            ]
        );
    }
}
