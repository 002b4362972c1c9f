//! Where images are written to.
//!
//! Every byte that e2wire writes locally goes through one of these two
//! traits, so that the tests can wrap them with faults: a full disk, a power
//! cut after any write.

use std::io;

use crate::units::{ByteCount, ByteOffset, ByteRange};

/// How many zeros are written at a time.
const ZERO_BYTES_MAX: u64 = 64 << 10;

static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// An output that can be written at any place, and read back.
pub trait OutputFile: Send {
    /// Writes all of `bytes` at `at`.
    ///
    /// # Errors
    ///
    /// As the system says; nothing is known of the stretch then.
    fn write_at(&mut self, at: ByteOffset, bytes: &[u8]) -> io::Result<()>;

    /// Reads back what was written; holes read as zeros.
    ///
    /// # Errors
    ///
    /// As the system says, or `UnexpectedEof` beyond the end.
    fn read_at(&self, at: ByteOffset, into: &mut [u8]) -> io::Result<()>;

    /// How long it is now.
    ///
    /// # Errors
    ///
    /// As the system says.
    fn length(&self) -> io::Result<ByteCount>;

    /// Makes `range` read as zeros, as a hole where that can be.
    ///
    /// # Errors
    ///
    /// As the system says; nothing is known of the stretch then.
    fn discard(&mut self, range: ByteRange) -> io::Result<()> {
        let mut all = zeros(range);
        all.try_for_each(|(at, bytes)| self.write_at(at, bytes))
    }

    /// Makes the output exactly this long; a block device refuses.
    ///
    /// # Errors
    ///
    /// As the system says.
    fn set_length(&mut self, length: ByteCount) -> io::Result<()>;

    /// Brings everything written so far to the disk.
    ///
    /// # Errors
    ///
    /// As the system says.
    fn sync(&mut self) -> io::Result<()>;

    /// Whether places never written read as zeros (a fresh file), so that
    /// zeros need not be written.
    fn starts_zeroed(&self) -> bool;
}

/// An output that can only be written front to back: a pipe.
pub trait OutputStream: Send {
    /// Writes all of `bytes` behind what was written before.
    ///
    /// # Errors
    ///
    /// As the system says.
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()>;
}

/// The zeros that fill `range`, and where they go.
pub fn zeros(
    range: ByteRange,
) -> impl Iterator<Item = (ByteOffset, &'static [u8])> {
    range.cut(ZERO_BYTES_MAX).map(|part| {
        let length = usize::try_from(part.length().0).unwrap_or(0);
        (part.start(), ZEROS.get(..length).unwrap_or(&ZEROS))
    })
}
