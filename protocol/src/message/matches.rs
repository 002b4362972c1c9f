//! The body that answers a search.
//!
//! A varint (of up to five bytes) of the number of cells that were looked at,
//! then entries in the order of their cells, each a varint
//! `skipped << 1 | kind` where `skipped` counts the cells since the last
//! entry that did not match:
//!
//! - kind 0, a match: the returned bytes of the cell follow;
//! - kind 1, unreadable: a varint of how many cells in a row follows.
//!
//! Fewer cells than asked for were looked at when the body is full; the
//! search goes on by asking again from there.

use core::fmt;

/// What a search came upon.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Match<'a> {
    /// The pattern, in the cell of this index; what was to be returned of it.
    At(u32, &'a [u8]),
    /// So many cells from this index on could not be read.
    Unreadable(u32, u32),
}

/// A search's body is none.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BadMatches;

impl fmt::Display for BadMatches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the result of a search does not follow its format")
    }
}

impl core::error::Error for BadMatches {}

/// Reads the body that answers a search.
#[derive(Clone, Copy, Debug)]
pub struct Matches<'a> {
    rest: &'a [u8],
    return_length: usize,
    searched: u32,
    cell: u32,
}

impl<'a> Matches<'a> {
    /// Of a search of `cells` that returns `return_length` bytes each.
    ///
    /// # Errors
    ///
    /// When the body is none, or says that more cells were looked at.
    pub fn new(
        body: &'a [u8],
        cells: u32,
        return_length: u16,
    ) -> Result<Self, BadMatches> {
        let mut rest = body;
        let searched = take_varint(&mut rest).ok_or(BadMatches)?;
        if searched > cells {
            return Err(BadMatches);
        }
        let return_length = usize::from(return_length);
        Ok(Self { rest, return_length, searched, cell: 0 })
    }

    /// How many cells were looked at.
    #[must_use]
    pub const fn searched(&self) -> u32 {
        self.searched
    }

    fn take(&mut self) -> Option<Match<'a>> {
        let entry = take_varint(&mut self.rest)?;
        let index = self.cell.checked_add(entry.wrapping_shr(1))?;
        let (found, count) = if entry & 1 == 0 {
            let (bytes, rest) =
                self.rest.split_at_checked(self.return_length)?;
            self.rest = rest;
            (Match::At(index, bytes), 1)
        } else {
            let count = take_varint(&mut self.rest)?;
            (Match::Unreadable(index, count), count)
        };
        self.cell = index.checked_add(count)?;
        (count > 0 && self.cell <= self.searched).then_some(found)
    }
}

impl<'a> Iterator for Matches<'a> {
    type Item = Result<Match<'a>, BadMatches>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let found = self.take();
        if found.is_none() {
            self.rest = &[];
        }
        Some(found.ok_or(BadMatches))
    }
}

/// The longest varint of 32 bits.
pub const VARINT_BYTES_MAX: usize = 5;

/// Writes `value` into `out`, seven bits a byte, the low ones first.
pub fn put_varint(value: u32, out: &mut [u8; VARINT_BYTES_MAX]) -> &[u8] {
    let mut rest = value;
    let mut length = 0_usize;
    for place in out.iter_mut() {
        length = length.wrapping_add(1);
        let low = u8::try_from(rest & 0x7f).unwrap_or(0);
        rest = rest.wrapping_shr(7);
        *place = if rest == 0 { low } else { low | 0x80 };
        if rest == 0 {
            break;
        }
    }
    out.get(..length).unwrap_or(&[])
}

/// Takes a varint of 32 bits off the front of `bytes`.
pub(crate) fn take_varint(bytes: &mut &[u8]) -> Option<u32> {
    let mut value = 0_u64;
    for shift in [0_u32, 7, 14, 21, 28] {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(*byte & 0x7f).wrapping_shl(shift);
        if *byte & 0x80 == 0 {
            return u32::try_from(value).ok();
        }
    }
    None
}
