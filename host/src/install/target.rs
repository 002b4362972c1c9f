//! What a plan is written to.

use crate::digest::Digest;
use crate::error::Result;
use crate::units::{ByteOffset, ByteRange};

/// A device that may be written: armed for exactly one plan.
///
/// Faulty targets of the tests wrap this trait.
pub trait WriteTarget {
    /// Reads what the device holds now, not what a cache remembers.
    ///
    /// # Errors
    ///
    /// When the device or the link fails.
    fn read(&mut self, range: ByteRange) -> Result<Vec<u8>>;

    /// Writes `bytes` at `at` if the device holds there what `old` proves, or
    /// if it holds them already. Writes nothing otherwise.
    ///
    /// # Errors
    ///
    /// When the device or the link fails: nothing is known of the stretch
    /// then.
    fn write(
        &mut self,
        at: ByteOffset,
        bytes: &[u8],
        old: &Digest,
    ) -> Result<Written>;

    /// Brings everything that was written to the medium.
    ///
    /// # Errors
    ///
    /// When the device or the link fails.
    fn flush(&mut self) -> Result<()>;
}

/// What came of a write.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Written {
    /// The bytes were written.
    Written,
    /// They were there already.
    AlreadyThere,
    /// Something else lies there; nothing was written.
    Conflict,
}
