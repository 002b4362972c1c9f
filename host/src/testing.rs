//! What unit tests of many rooms need.

use crate::units::{ByteCount, ByteOffset, ByteRange};

/// The range of `length` bytes from `start` on.
pub(crate) fn range(start: u64, length: u64) -> ByteRange {
    ByteRange::new(ByteOffset(start), ByteCount(length)).unwrap()
}
