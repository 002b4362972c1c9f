//! What arms a session, and what is written in it.
//!
//! What is longer than a line bears in one frame is an *upload*: put slice by
//! slice, named by its tag, kept by the agent like any other cache. A request
//! that names one which is not there whole is told so and asked again.

use core::fmt;

use serde::{Deserialize, Serialize};

use crate::chunk::SectorRange;
use crate::digest::{DeviceId, PlanId, RangeDigest, Tag};
use crate::limits::{
    ARMED_RANGES_MAX, SECTOR_BYTES, UPLOAD_BYTES_MAX, UPLOAD_UNIT_BYTES,
};
use crate::units::{u64_from, usize_from};

/// Names what a host sends in slices.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Deserialize, Serialize)]
pub struct Upload {
    /// See [`Tag::of_upload`].
    pub tag: Tag,
    /// Its length in bytes.
    pub length: u32,
}

impl Upload {
    /// Of `bytes`; `None` when they are none, or too many.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Option<Self> {
        let length = u32::try_from(bytes.len()).ok()?;
        (1..=UPLOAD_BYTES_MAX)
            .contains(&bytes.len())
            .then(|| Self { tag: Tag::of_upload(bytes), length })
    }
}

/// A slice of an upload, which is the tail.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Deserialize, Serialize)]
pub struct Put {
    /// Of which upload.
    pub upload: Upload,
    /// Where the slice starts, in bytes: a multiple of 256.
    pub at: u32,
}

impl Put {
    /// Whether a slice of `length` bytes may be put there: it is not empty,
    /// starts at a multiple of 256 bytes, and ends at one or at the end of
    /// the upload.
    #[must_use]
    pub fn fits(&self, length: usize) -> bool {
        let unit = |at: usize| at.checked_rem(UPLOAD_UNIT_BYTES) == Some(0);
        let (at, whole) = (usize_from(self.at), usize_from(self.upload.length));
        at.checked_add(length).is_some_and(|end| {
            let ends = end == whole || (unit(length) && end < whole);
            length > 0 && unit(at) && ends && whole <= UPLOAD_BYTES_MAX
        })
    }
}

/// Lets a session write what a plan covers.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Deserialize, Serialize)]
pub struct Arm {
    /// Where.
    pub device: DeviceId,
    /// For which plan.
    pub plan: PlanId,
    /// The most bytes that may be written until it is armed again.
    pub bytes: u64,
    /// The ranges, see [`ArmedRanges`].
    pub ranges: Upload,
}

/// Writes one range.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Deserialize, Serialize)]
pub struct Write {
    /// Where.
    pub device: DeviceId,
    /// The plan that it is a part of, which must be armed.
    pub plan: PlanId,
    /// The range, at most 256 KiB.
    pub range: SectorRange,
    /// The digest of what lies there; zeros when some of it cannot be read.
    pub old: RangeDigest,
    /// The digest of what shall lie there.
    pub new: RangeDigest,
    /// What makes the one of the other, see [`patch`](crate::patch).
    pub patch: Upload,
}

/// Something else lies where a write was to go.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Deserialize, Serialize)]
pub struct Conflict {
    /// Where.
    pub range: SectorRange,
    /// The digest of what lies there; zeros when some of it cannot be read.
    pub now: RangeDigest,
}

/// How a device is used. Append-only.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Deserialize, Serialize)]
pub enum InUse {
    /// A filesystem on it, or on a partition of it, is mounted.
    Mounted,
    /// It, or a partition of it, is swap.
    Swap,
    /// Another device is made of it: device mapper, md.
    Held,
    /// Somebody has opened it for himself alone.
    Exclusive,
}

impl fmt::Display for InUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mounted => "it is mounted",
            Self::Swap => "it is swap",
            Self::Held => "another device is made of it (LVM, md, LUKS)",
            Self::Exclusive => "a program has opened it for itself alone",
        })
    }
}

/// A range that may be written, in sectors of 512 bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ArmedRange {
    /// The first sector.
    pub first: u64,
    /// How many, at least one.
    pub count: u64,
}

impl ArmedRange {
    /// The sector behind the last one; `None` when that is beyond any device.
    #[must_use]
    pub fn end(self) -> Option<u64> {
        let end = self.first.checked_add(self.count)?;
        end.checked_mul(u64_from(SECTOR_BYTES)).map(|_| end)
    }
}

/// Appends a range to a list of which the last one ends at sector `end` (0
/// for the first); its length in bytes. `None` when it does not lie behind,
/// or does not fit.
pub fn put_armed_range(
    range: ArmedRange,
    end: u64,
    out: &mut [u8],
) -> Option<usize> {
    range.end()?;
    let gap = range.first.checked_sub(end)?;
    postcard::to_slice(&(gap, range.count), out).ok().map(|bytes| bytes.len())
}

/// The ranges that a plan covers: for each a varint of the sectors between
/// the end of the one before and its start, and a varint of its sectors.
#[derive(Clone, Copy, Debug)]
pub struct ArmedRanges<'a> {
    rest: &'a [u8],
    end: u64,
}

/// A list of ranges is none.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BadRanges;

impl fmt::Display for BadRanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of ranges does not follow its format")
    }
}

impl core::error::Error for BadRanges {}

impl<'a> ArmedRanges<'a> {
    /// Reads a list.
    ///
    /// # Errors
    ///
    /// When it is none, or holds no range or more than
    /// [`ARMED_RANGES_MAX`].
    pub fn check(list: &'a [u8]) -> Result<Self, BadRanges> {
        let all = Self { rest: list, end: 0 };
        let mut ranges = all;
        let count = ranges.by_ref().count();
        if ranges.rest.is_empty() && (1..=ARMED_RANGES_MAX).contains(&count) {
            Ok(all)
        } else {
            Err(BadRanges)
        }
    }
}

impl Iterator for ArmedRanges<'_> {
    type Item = ArmedRange;

    fn next(&mut self) -> Option<ArmedRange> {
        let ((gap, count), rest) =
            postcard::take_from_bytes::<(u64, u64)>(self.rest).ok()?;
        let first = self.end.checked_add(gap)?;
        let range = ArmedRange { first, count };
        self.end = range.end().filter(|_| count > 0)?;
        self.rest = rest;
        Some(range)
    }
}
