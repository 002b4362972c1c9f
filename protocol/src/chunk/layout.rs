//! The layout of a body: which of its sectors follow as bytes, which are
//! zero, and which could not be read.
//!
//! One varint for each run of sectors: `count << 2 | kind`. The runs together
//! are exactly the sectors that were asked for, so the layout needs no length
//! of its own. The bytes of the runs of data follow, one behind the other.

use core::fmt;

use crate::limits::{CHUNK_SECTORS_MAX, SECTOR_BYTES};
use crate::units::usize_from;

/// What the sectors of a run are. Append-only; two bits on the wire.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RunKind {
    /// Their bytes follow the layout.
    Data,
    /// Zeros.
    Zero,
    /// The device reports an error for them.
    Unreadable,
}

impl RunKind {
    const fn bits(self) -> u32 {
        match self {
            Self::Data => 0,
            Self::Zero => 1,
            Self::Unreadable => 2,
        }
    }

    const fn from_bits(bits: u32) -> Option<Self> {
        match bits {
            0 => Some(Self::Data),
            1 => Some(Self::Zero),
            2 => Some(Self::Unreadable),
            _ => None,
        }
    }
}

/// Sectors of one kind in a row.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Run<'a> {
    /// How many, at least one.
    pub sectors: u32,
    /// What they are.
    pub kind: RunKind,
    /// Their bytes, if they are data; empty otherwise.
    pub bytes: &'a [u8],
}

/// Why a body is none.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LayoutError {
    /// A run is empty, of no known kind, or cut short.
    Run,
    /// The runs are not exactly the sectors that were asked for.
    Sectors,
    /// There are fewer or more bytes than the runs of data call for.
    Bytes,
}

impl fmt::Display for LayoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Run => "a chunk's layout holds no valid run",
            Self::Sectors => "a chunk covers other sectors than asked for",
            Self::Bytes => "a chunk holds more or fewer bytes than it says",
        })
    }
}

impl core::error::Error for LayoutError {}

/// A body whose layout has been checked whole.
#[derive(Clone, Copy, Debug)]
pub struct Layout<'a> {
    runs: &'a [u8],
    bytes: &'a [u8],
}

impl<'a> Layout<'a> {
    /// Checks `body`, which shall cover exactly `sectors`.
    ///
    /// # Errors
    ///
    /// When it does not, or is no body at all.
    pub fn check(body: &'a [u8], sectors: u32) -> Result<Self, LayoutError> {
        let mut rest = body;
        let mut covered = 0_u32;
        let mut data = 0_u32;
        while covered < sectors {
            let (count, kind) = take_run(&mut rest).ok_or(LayoutError::Run)?;
            covered = covered.checked_add(count).ok_or(LayoutError::Sectors)?;
            if kind == RunKind::Data {
                data = data.checked_add(count).ok_or(LayoutError::Sectors)?;
            }
        }
        if covered != sectors {
            return Err(LayoutError::Sectors);
        }
        if usize_from(data).checked_mul(SECTOR_BYTES) != Some(rest.len()) {
            return Err(LayoutError::Bytes);
        }
        let end = body.len().saturating_sub(rest.len());
        Ok(Self { runs: body.get(..end).unwrap_or(&[]), bytes: rest })
    }
}

impl<'a> Iterator for Layout<'a> {
    type Item = Run<'a>;

    fn next(&mut self) -> Option<Run<'a>> {
        // `check` has proven that every run is whole.
        let (sectors, kind) = take_run(&mut self.runs)?;
        let length = match kind {
            RunKind::Data => usize_from(sectors).checked_mul(SECTOR_BYTES)?,
            RunKind::Zero | RunKind::Unreadable => 0,
        };
        let (bytes, rest) = self.bytes.split_at_checked(length)?;
        self.bytes = rest;
        Some(Run { sectors, kind, bytes })
    }
}

/// Takes a run off the front: a varint of one or two bytes, little end
/// first, in its shortest form.
fn take_run(bytes: &mut &[u8]) -> Option<(u32, RunKind)> {
    let (low, rest) = bytes.split_first()?;
    let mut value = u32::from(*low & 0x7f);
    *bytes = rest;
    if *low & 0x80 != 0 {
        let (high, rest) = bytes.split_first()?;
        if *high == 0 || *high & 0x80 != 0 {
            return None;
        }
        value |= u32::from(*high).wrapping_shl(7);
        *bytes = rest;
    }
    let count = value.wrapping_shr(2);
    (1..=CHUNK_SECTORS_MAX).contains(&count).then_some(())?;
    Some((count, RunKind::from_bits(value & 3)?))
}

/// Writes the layout of `runs` into `out` and returns its length; `None`
/// when it does not fit or a run is empty or longer than a chunk.
pub fn write_layout(
    runs: impl Iterator<Item = (u32, RunKind)>,
    out: &mut [u8],
) -> Option<usize> {
    let mut length = 0_usize;
    for (count, kind) in runs {
        (1..=CHUNK_SECTORS_MAX).contains(&count).then_some(())?;
        let value = count.wrapping_shl(2) | kind.bits();
        let low = u8::try_from(value & 0x7f).ok()?;
        let high = u8::try_from(value.wrapping_shr(7)).ok()?;
        let more = if high == 0 { 0 } else { 0x80 };
        *out.get_mut(length)? = low | more;
        length = length.checked_add(1)?;
        if high != 0 {
            *out.get_mut(length)? = high;
            length = length.checked_add(1)?;
        }
    }
    Some(length)
}
