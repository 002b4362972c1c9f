//! Units that must never be mixed: byte offsets, block numbers and counts of
//! either.
//!
//! Every number that names a place on a disk came from a disk, a wire or a
//! person, so all arithmetic is checked: an operation that would overflow
//! returns `None`.

use core::fmt;

macro_rules! unit {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd,
        )]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

unit! {
    /// A place on a device, in bytes from its start.
    ByteOffset
}
unit! {
    /// A number of bytes.
    ByteCount
}
unit! {
    /// A filesystem block, counted from the start of the filesystem.
    BlockNumber
}
unit! {
    /// A number of filesystem blocks.
    BlockCount
}

impl ByteOffset {
    /// The offset `count` bytes further on.
    #[must_use]
    pub const fn checked_add(self, count: ByteCount) -> Option<Self> {
        match self.0.checked_add(count.0) {
            Some(sum) => Some(Self(sum)),
            None => None,
        }
    }

    /// How many bytes lie between `earlier` and here.
    #[must_use]
    pub const fn checked_since(self, earlier: Self) -> Option<ByteCount> {
        match self.0.checked_sub(earlier.0) {
            Some(count) => Some(ByteCount(count)),
            None => None,
        }
    }
}

impl BlockNumber {
    /// The block `count` blocks further on.
    #[must_use]
    pub const fn checked_add(self, count: BlockCount) -> Option<Self> {
        match self.0.checked_add(count.0) {
            Some(sum) => Some(Self(sum)),
            None => None,
        }
    }

    /// How many blocks lie between `earlier` and here.
    #[must_use]
    pub const fn checked_since(self, earlier: Self) -> Option<BlockCount> {
        match self.0.checked_sub(earlier.0) {
            Some(count) => Some(BlockCount(count)),
            None => None,
        }
    }

    /// Where the block starts on the device.
    #[must_use]
    pub const fn offset(self, size: BlockSize) -> Option<ByteOffset> {
        match self.0.checked_mul(size.bytes_u64()) {
            Some(offset) => Some(ByteOffset(offset)),
            None => None,
        }
    }
}

/// The size of a filesystem block: a power of two from 1 KiB to 64 KiB.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct BlockSize {
    log2: u8,
}

impl BlockSize {
    /// The smallest block of ext2/3/4.
    pub const MIN: Self = Self { log2: 10 };
    /// The largest block of ext2/3/4.
    pub const MAX: Self = Self { log2: 16 };

    /// From the base-2 logarithm of the size in bytes (10 to 16).
    #[must_use]
    pub const fn from_log2(log2: u32) -> Option<Self> {
        match log2 {
            10 => Some(Self { log2: 10 }),
            11 => Some(Self { log2: 11 }),
            12 => Some(Self { log2: 12 }),
            13 => Some(Self { log2: 13 }),
            14 => Some(Self { log2: 14 }),
            15 => Some(Self { log2: 15 }),
            16 => Some(Self { log2: 16 }),
            _ => None,
        }
    }

    /// From the size in bytes.
    #[must_use]
    pub const fn from_bytes(bytes: u64) -> Option<Self> {
        if bytes.is_power_of_two() {
            Self::from_log2(bytes.trailing_zeros())
        } else {
            None
        }
    }

    /// The base-2 logarithm of the size in bytes.
    #[must_use]
    pub const fn log2(self) -> u32 {
        match self.log2 {
            10 => 10,
            11 => 11,
            12 => 12,
            13 => 13,
            14 => 14,
            15 => 15,
            _ => 16,
        }
    }

    /// The size in bytes.
    #[must_use]
    pub const fn bytes(self) -> usize {
        1_usize.wrapping_shl(self.log2())
    }

    /// The size in bytes, for arithmetic on offsets.
    #[must_use]
    pub const fn bytes_u64(self) -> u64 {
        1_u64.wrapping_shl(self.log2())
    }

    /// The block that holds the byte at `offset`.
    #[must_use]
    pub const fn block_of(self, offset: ByteOffset) -> BlockNumber {
        BlockNumber(offset.0.wrapping_shr(self.log2()))
    }

    /// How many blocks `bytes` fill, the last one perhaps in part.
    #[must_use]
    pub const fn blocks_for(self, bytes: ByteCount) -> BlockCount {
        BlockCount(bytes.0.div_ceil(self.bytes_u64()))
    }

    /// How many bytes `count` blocks hold.
    #[must_use]
    pub const fn bytes_of(self, count: BlockCount) -> Option<ByteCount> {
        match count.0.checked_mul(self.bytes_u64()) {
            Some(bytes) => Some(ByteCount(bytes)),
            None => None,
        }
    }
}

impl fmt::Display for BlockSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.bytes().fmt(f)
    }
}

/// A stretch of a device that does not wrap: `start + length` fits in 64
/// bits.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ByteRange {
    start: ByteOffset,
    length: ByteCount,
}

impl ByteRange {
    /// `length` bytes from `start`, unless they would wrap.
    #[must_use]
    pub const fn new(start: ByteOffset, length: ByteCount) -> Option<Self> {
        match start.checked_add(length) {
            Some(_) => Some(Self { start, length }),
            None => None,
        }
    }

    /// From `start` up to and without `end`.
    #[must_use]
    pub const fn between(start: ByteOffset, end: ByteOffset) -> Option<Self> {
        match end.checked_since(start) {
            Some(length) => Some(Self { start, length }),
            None => None,
        }
    }

    /// The first byte's offset.
    #[must_use]
    pub const fn start(self) -> ByteOffset {
        self.start
    }

    /// How many bytes.
    #[must_use]
    pub const fn length(self) -> ByteCount {
        self.length
    }

    /// The offset behind the last byte.
    #[must_use]
    pub const fn end(self) -> ByteOffset {
        // `new` has proven that this does not wrap.
        ByteOffset(self.start.0.wrapping_add(self.length.0))
    }

    /// Whether there is no byte in it.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.length.0 == 0
    }
}

/// The parts of a range, cut at the multiples of a step.
#[derive(Clone, Debug)]
pub struct Cuts {
    rest: ByteRange,
    step: u64,
}

impl ByteRange {
    /// The range cut at the multiples of `step` bytes; whole when `step` is
    /// 0.
    #[must_use]
    pub const fn cut(self, step: u64) -> Cuts {
        Cuts { rest: self, step }
    }
}

impl Iterator for Cuts {
    type Item = ByteRange;

    fn next(&mut self) -> Option<ByteRange> {
        if self.rest.is_empty() {
            return None;
        }
        let start = self.rest.start();
        let edge = start
            .0
            .checked_add(1)
            .filter(|_| self.step > 0)
            .and_then(|behind| behind.checked_next_multiple_of(self.step));
        let end = edge.map_or(self.rest.end(), |edge| {
            ByteOffset(edge).min(self.rest.end())
        });
        let part = ByteRange::between(start, end)?;
        self.rest = ByteRange::between(end, self.rest.end())?;
        Some(part)
    }
}

/// A run of blocks that does not wrap.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct BlockRun {
    first: BlockNumber,
    count: BlockCount,
}

impl BlockRun {
    /// `count` blocks from `first`, unless they would wrap.
    #[must_use]
    pub const fn new(first: BlockNumber, count: BlockCount) -> Option<Self> {
        match first.checked_add(count) {
            Some(_) => Some(Self { first, count }),
            None => None,
        }
    }

    /// The first block.
    #[must_use]
    pub const fn first(self) -> BlockNumber {
        self.first
    }

    /// How many blocks.
    #[must_use]
    pub const fn count(self) -> BlockCount {
        self.count
    }

    /// The block behind the last one.
    #[must_use]
    pub const fn end(self) -> BlockNumber {
        // `new` has proven that this does not wrap.
        BlockNumber(self.first.0.wrapping_add(self.count.0))
    }

    /// The bytes of the run, unless they lie beyond 64 bits.
    #[must_use]
    pub const fn bytes(self, size: BlockSize) -> Option<ByteRange> {
        match (self.first.offset(size), size.bytes_of(self.count)) {
            (Some(start), Some(length)) => ByteRange::new(start, length),
            _ => None,
        }
    }
}

// A 32-bit number always fits, and so does a size in memory on every machine
// that this is built for.
const _: () = assert!(size_of::<usize>() >= size_of::<u32>());
const _: () = assert!(size_of::<usize>() <= size_of::<u64>());

/// A 32-bit number as a size in memory.
#[must_use]
#[expect(clippy::as_conversions, reason = "usize holds 32 bits, see above")]
pub const fn usize_from(value: u32) -> usize {
    value as usize
}

/// A size in memory as a 64-bit number.
#[must_use]
#[expect(clippy::as_conversions, reason = "usize is 64 bits at most")]
pub const fn u64_from(value: usize) -> u64 {
    value as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: u64, length: u64) -> ByteRange {
        ByteRange::new(ByteOffset(start), ByteCount(length)).unwrap()
    }

    #[test]
    fn a_range_is_cut_at_multiples_of_the_step() {
        let mut parts = range(700, 1000).cut(512);
        assert_eq!(parts.next(), Some(range(700, 324)));
        assert_eq!(parts.next(), Some(range(1024, 512)));
        assert_eq!(parts.next(), Some(range(1536, 164)));
        assert_eq!(parts.next(), None);
        let top = range(u64::MAX - 5, 5);
        assert_eq!(top.cut(512).last(), Some(top));
    }

    #[test]
    fn nothing_wraps() {
        assert_eq!(ByteRange::new(ByteOffset(2), ByteCount(u64::MAX)), None);
        assert_eq!(BlockRun::new(BlockNumber(u64::MAX), BlockCount(1)), None);
        let top = BlockNumber(u64::MAX);
        assert_eq!(top.offset(BlockSize::MIN), None);
        assert_eq!(BlockSize::from_bytes(3000), None);
        assert_eq!(BlockSize::from_bytes(512), None);
        assert_eq!(BlockSize::from_bytes(65536).map(BlockSize::log2), Some(16));
    }
}
