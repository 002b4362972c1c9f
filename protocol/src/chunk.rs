//! Chunks, and the fragments they travel in.
//!
//! A *chunk* is what one request asks for: up to 256 KiB of a device, from
//! one range or gathered from several, or the result of a digest, comparison
//! or search. Its *body* (for a read: a layout and the bytes that are neither
//! zero nor unreadable) is encoded with a codec, named by a tag, and cut into
//! *fragments*, the unit of loss. A *grant* permits to send so many of them.

use core::fmt;

use serde::de::{self, SeqAccess, Visitor};
use serde::ser::SerializeSeq;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::limits::{
    CHUNK_SECTORS_MAX, FRAGMENT_BYTES_MAX, FRAGMENT_BYTES_MIN, RANGES_MAX,
    SECTOR_BYTES,
};
use crate::units::{ByteCount, ByteOffset, ByteRange, u64_from, usize_from};

mod columns;
mod layout;

pub use columns::{from_columns, to_columns};
pub use layout::{Layout, LayoutError, Run, RunKind, write_layout};

const SECTOR: u64 = u64_from(SECTOR_BYTES);

/// A range of a device in sectors of 512 bytes, never empty, whose end in
/// bytes fits 64 bits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SectorRange {
    first: u64,
    count: u32,
}

impl SectorRange {
    /// `count` sectors from `first`, unless they are none or too far out.
    #[must_use]
    pub const fn new(first: u64, count: u32) -> Option<Self> {
        let Some(end) = first.checked_add(wide(count)) else { return None };
        if count == 0 || end.checked_mul(SECTOR).is_none() {
            return None;
        }
        Some(Self { first, count })
    }

    /// The sectors that make up `range`: `None` when it is empty, does not
    /// start and end at a sector, or has 2^32 sectors or more.
    #[must_use]
    pub fn from_bytes(range: ByteRange) -> Option<Self> {
        let start = range.start().0;
        let length = range.length().0;
        if start.checked_rem(SECTOR)? != 0 || length.checked_rem(SECTOR)? != 0 {
            return None;
        }
        let count = u32::try_from(length.checked_div(SECTOR)?).ok()?;
        Self::new(start.checked_div(SECTOR)?, count)
    }

    /// The first sector.
    #[must_use]
    pub const fn first(self) -> u64 {
        self.first
    }

    /// How many sectors.
    #[must_use]
    pub const fn count(self) -> u32 {
        self.count
    }

    /// The sector behind the last one.
    #[must_use]
    pub const fn end(self) -> u64 {
        // `new` has proven that this does not wrap.
        self.first.wrapping_add(wide(self.count))
    }

    /// The same range in bytes.
    #[must_use]
    pub const fn bytes(self) -> ByteRange {
        // `new` has proven that neither wraps.
        let start = ByteOffset(self.first.wrapping_mul(SECTOR));
        let end = ByteOffset(self.end().wrapping_mul(SECTOR));
        match ByteRange::between(start, end) {
            Some(range) => range,
            // Unreachable: the end is behind the start.
            None => ZERO_RANGE,
        }
    }
}

const ZERO_RANGE: ByteRange = match ByteRange::new(ByteOffset(0), ByteCount(0))
{
    Some(range) => range,
    None => panic!("an empty range at zero exists"),
};

const fn wide(count: u32) -> u64 {
    u64_from(usize_from(count))
}

impl Serialize for SectorRange {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        (self.first, self.count).serialize(s)
    }
}

impl<'de> Deserialize<'de> for SectorRange {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let (first, count) = <(u64, u32)>::deserialize(d)?;
        Self::new(first, count).ok_or_else(|| {
            de::Error::custom("a range is empty or beyond any device")
        })
    }
}

/// The ranges that one chunk is gathered from: 1 to 64, ascending, disjoint,
/// together at most 256 KiB.
///
/// On the wire each is its distance from the end of the one before, and its
/// count: whatever else cannot be written down.
#[derive(Clone, Default, Eq, PartialEq)]
pub struct Ranges {
    // Apart, since a count fits 16 bits: the agent keeps many of these.
    firsts: heapless::Vec<u64, RANGES_MAX>,
    counts: heapless::Vec<u16, RANGES_MAX>,
    sectors: u32,
}

/// Why a range cannot join others in one chunk.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RangesError {
    /// There are 64 already, or it is longer than what is left of 256 KiB.
    Full,
    /// It starts before the end of the one before.
    Order,
}

impl fmt::Display for RangesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "a chunk has no room for another range",
            Self::Order => "the ranges of a chunk are not ascending",
        })
    }
}

impl core::error::Error for RangesError {}

impl Ranges {
    /// None yet; a request needs one at least.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            firsts: heapless::Vec::new(),
            counts: heapless::Vec::new(),
            sectors: 0,
        }
    }

    /// Just one.
    ///
    /// # Errors
    ///
    /// When it is longer than a chunk.
    pub fn one(range: SectorRange) -> Result<Self, RangesError> {
        let mut ranges = Self::new();
        ranges.push(range)?;
        Ok(ranges)
    }

    /// Adds `range` behind the others.
    ///
    /// # Errors
    ///
    /// When there is no room, or it is not behind the others. Nothing is
    /// changed then.
    pub fn push(&mut self, range: SectorRange) -> Result<(), RangesError> {
        if range.first() < self.end() {
            return Err(RangesError::Order);
        }
        let sectors = self
            .sectors
            .checked_add(range.count())
            .filter(|sum| *sum <= CHUNK_SECTORS_MAX)
            .ok_or(RangesError::Full)?;
        let count =
            u16::try_from(range.count()).map_err(|_| RangesError::Full)?;
        self.firsts.push(range.first()).map_err(|_| RangesError::Full)?;
        self.counts.push(count).map_err(|_| RangesError::Full)?;
        self.sectors = sectors;
        Ok(())
    }

    /// All of them, ascending.
    #[must_use]
    pub fn iter(&self) -> impl ExactSizeIterator<Item = SectorRange> {
        let both = self.firsts.iter().zip(&self.counts);
        both.map(|(first, count)| SectorRange {
            first: *first,
            count: u32::from(*count),
        })
    }

    /// How many ranges.
    #[must_use]
    pub fn len(&self) -> usize {
        self.firsts.len()
    }

    /// Whether there is none yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.firsts.is_empty()
    }

    /// The sector behind the last one; 0 when there is none.
    #[must_use]
    pub fn end(&self) -> u64 {
        match (self.firsts.last(), self.counts.last()) {
            // `push` has proven that this does not wrap.
            (Some(first), Some(count)) => first.wrapping_add(u64::from(*count)),
            _ => 0,
        }
    }

    /// Together, in sectors.
    #[must_use]
    pub const fn sectors(&self) -> u32 {
        self.sectors
    }

    /// Together, in bytes.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        usize_from(self.sectors).wrapping_mul(SECTOR_BYTES)
    }
}

impl fmt::Debug for Ranges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl Serialize for Ranges {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut list = s.serialize_seq(Some(self.len()))?;
        let mut end = 0_u64;
        for range in self.iter() {
            let gap = range.first().wrapping_sub(end);
            list.serialize_element(&(gap, range.count()))?;
            end = range.end();
        }
        list.end()
    }
}

impl<'de> Deserialize<'de> for Ranges {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Ranges;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the ranges of a chunk")
            }

            fn visit_seq<A: SeqAccess<'de>>(
                self,
                mut list: A,
            ) -> Result<Ranges, A::Error> {
                let mut ranges = Ranges::new();
                while let Some((gap, count)) =
                    list.next_element::<(u64, u32)>()?
                {
                    let range = ranges
                        .end()
                        .checked_add(gap)
                        .and_then(|first| SectorRange::new(first, count));
                    let range = range.ok_or_else(|| {
                        de::Error::custom("a range beyond any device")
                    })?;
                    ranges.push(range).map_err(de::Error::custom)?;
                }
                if ranges.sectors == 0 {
                    return Err(de::Error::custom("a chunk of no range"));
                }
                Ok(ranges)
            }
        }
        d.deserialize_seq(List)
    }
}

/// How the body of a chunk is encoded. Append-only.
///
/// A request names what it wishes; a fragment names what was done, which is
/// `Stored` where the wish would have made it longer.
#[derive(
    Clone, Copy, Debug, Default, Eq, PartialEq, Deserialize, Serialize,
)]
pub enum Codec {
    /// As it is: for links that outrun the processor.
    #[default]
    Stored,
    /// One zstd frame (RFC 8878) of this level, without checksum.
    Zstd(u8),
    /// The same, of a body in columns (see [`to_columns`]): for tables of
    /// records. A fragment names `Zstd` where that came out shorter.
    ZstdColumns {
        /// The level.
        level: u8,
        /// How long a record is, in bytes.
        stride: u16,
    },
}

/// Permission to send the fragments `first` up to `first + count` of a chunk
/// that is cut every `payload` bytes; those that do not exist are not sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Grant {
    payload: u16,
    first: u16,
    count: u16,
}

impl Grant {
    /// `None` when there is nothing to send, the fragments would lie beyond
    /// any chunk, or their payload is not 256 bytes to 16 KiB.
    #[must_use]
    pub const fn new(payload: u16, first: u16, count: u16) -> Option<Self> {
        if payload < FRAGMENT_BYTES_MIN
            || payload > FRAGMENT_BYTES_MAX
            || count == 0
            || first.checked_add(count).is_none()
        {
            return None;
        }
        Some(Self { payload, first, count })
    }

    /// Bytes of a fragment.
    #[must_use]
    pub const fn payload(self) -> u16 {
        self.payload
    }

    /// The first fragment.
    #[must_use]
    pub const fn first(self) -> u16 {
        self.first
    }

    /// How many fragments.
    #[must_use]
    pub const fn count(self) -> u16 {
        self.count
    }

    /// The encoded bytes that the fragment `index` holds, of a chunk of
    /// `encoded` bytes: start and length. `None` when it has no such
    /// fragment or `index` is not granted.
    #[must_use]
    pub fn fragment(self, index: u16, encoded: u32) -> Option<(u32, u32)> {
        let granted = index.checked_sub(self.first)? < self.count;
        let payload = u32::from(self.payload);
        let start = u32::from(index).checked_mul(payload)?;
        let length = encoded.checked_sub(start)?.min(payload);
        (granted && length > 0).then_some((start, length))
    }

    /// The most bytes of payload that it permits.
    #[must_use]
    pub fn bytes(self) -> u64 {
        u64::from(self.payload).wrapping_mul(u64::from(self.count))
    }
}

impl Serialize for Grant {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        (self.payload, self.first, self.count).serialize(s)
    }
}

impl<'de> Deserialize<'de> for Grant {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let (payload, first, count) = <(u16, u16, u16)>::deserialize(d)?;
        Self::new(payload, first, count)
            .ok_or_else(|| de::Error::custom("a grant of nothing"))
    }
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "tests may panic")]
mod tests;
