//! Where images are written to.
//!
//! Every byte that e2wire writes locally goes through one of these two
//! traits, so that the tests can wrap them with faults: a full disk, a power
//! cut after any write.

use std::io;

use crate::units::{ByteCount, ByteOffset};

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
