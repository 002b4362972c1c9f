//! Some ranges of a source in one buffer: the unit of work that threads pass
//! from reading to digesting to writing.
//!
//! Holes and unreadable parts are zeros in the buffer, and known beside it.

#![cfg_attr(
    not(test),
    warn(clippy::arithmetic_side_effects, clippy::as_conversions)
)]

use crate::source::{Payload, Piece, ReadFault};
use crate::units::{ByteOffset, ByteRange};

/// What a batch usually holds at most.
pub const READ_MAX: u64 = 1 << 20;

/// Some ranges of a source, read into one buffer.
#[derive(Debug, Default)]
pub struct Batch {
    buffer: Vec<u8>,
    spans: Vec<Span>,
    faults: Vec<(ByteRange, ReadFault)>,
}

/// One range of a [`Batch`].
#[derive(Clone, Copy, Debug)]
struct Span {
    range: ByteRange,
    /// Where its bytes start in the buffer.
    start: usize,
    /// Known to be zero without a look.
    zero: bool,
}

/// One range of a batch, with what was read.
#[derive(Clone, Copy, Debug)]
pub struct Filled<'a> {
    /// Where it lies in the source.
    pub range: ByteRange,
    /// Its bytes; zeros where it could not be read.
    pub bytes: &'a [u8],
    /// Known to be zero without a look.
    pub zero: bool,
    /// The parts that could not be read, ascending, disjoint.
    pub faults: &'a [(ByteRange, ReadFault)],
}

impl Batch {
    /// Clears the batch and makes room for `ranges`. The room holds what the
    /// last batch left there: whoever fills it fills all of it.
    pub fn prepare(&mut self, ranges: &[ByteRange]) {
        self.spans.clear();
        self.faults.clear();
        let mut start = 0_usize;
        for &range in ranges {
            self.spans.push(Span { range, start, zero: false });
            let length =
                usize::try_from(range.length().0).unwrap_or(usize::MAX);
            start = start.saturating_add(length);
        }
        if self.buffer.len() < start {
            self.buffer.resize(start, 0);
        }
    }

    /// How many ranges the batch has.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether the batch has no range.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// The room for range `index`, to read into.
    pub fn room(&mut self, index: usize) -> &mut [u8] {
        match self.spans.get(index).copied() {
            Some(span) => slice_mut(&mut self.buffer, span),
            None => &mut [],
        }
    }

    /// Range `index` is a hole: its room is zeroed.
    pub fn set_zero(&mut self, index: usize) {
        self.room(index).fill(0);
        if let Some(span) = self.spans.get_mut(index) {
            span.zero = true;
        }
    }

    /// A part of a range could not be read: its room is zeroed. What was
    /// said of it before is forgotten.
    pub fn set_fault(&mut self, part: ByteRange, fault: ReadFault) {
        self.forget_faults(part);
        if let Some(room) = self.room_of(part) {
            room.fill(0);
        }
        let place =
            self.faults.partition_point(|(f, _)| f.start() < part.start());
        let before = place.checked_sub(1);
        match before.and_then(|index| self.faults.get_mut(index)) {
            Some((last, why))
                if *why == fault && last.end() == part.start() =>
            {
                if let Some(joined) =
                    ByteRange::between(last.start(), part.end())
                {
                    *last = joined;
                }
            }
            _ => self.faults.insert(place, (part, fault)),
        }
    }

    /// Whether a part could not be read.
    #[must_use]
    pub const fn has_faults(&self) -> bool {
        !self.faults.is_empty()
    }

    /// Takes over bytes of what could not be read before.
    pub fn restore(&mut self, piece: Piece<'_>) {
        let Some(range) = ByteRange::new(piece.at, piece.what.length()) else {
            return;
        };
        self.forget_faults(range);
        self.fill(piece);
    }

    /// Nothing is known to be wrong in `range` any more.
    fn forget_faults(&mut self, range: ByteRange) {
        if self.faults_in(range).is_empty() {
            return;
        }
        let faults = std::mem::take(&mut self.faults);
        for (bad, fault) in faults {
            let before = (bad.start(), bad.end().min(range.start()));
            let behind = (bad.start().max(range.end()), bad.end());
            for (start, end) in [before, behind] {
                if let Some(rest) = ByteRange::between(start, end)
                    && !rest.is_empty()
                {
                    self.faults.push((rest, fault));
                }
            }
        }
    }

    /// Takes over a piece of one of the ranges.
    pub fn fill(&mut self, piece: Piece<'_>) {
        let Some(range) = ByteRange::new(piece.at, piece.what.length()) else {
            return;
        };
        match piece.what {
            Payload::Bytes(bytes) => {
                if let Some(room) = self.room_of(range) {
                    room.copy_from_slice(bytes);
                }
            }
            Payload::Zero(_) => {
                let whole = self.spans.iter().position(|s| s.range == range);
                match whole {
                    Some(index) => self.set_zero(index),
                    None => {
                        if let Some(room) = self.room_of(range) {
                            room.fill(0);
                        }
                    }
                }
            }
            Payload::Unreadable(_, fault) => self.set_fault(range, fault),
        }
    }

    /// The ranges in the order in which they were asked for.
    pub fn filled(&self) -> impl Iterator<Item = Filled<'_>> {
        self.spans.iter().map(|&span| Filled {
            range: span.range,
            bytes: slice(&self.buffer, span),
            zero: span.zero,
            faults: self.faults_in(span.range),
        })
    }

    fn faults_in(&self, range: ByteRange) -> &[(ByteRange, ReadFault)] {
        let first =
            self.faults.partition_point(|(f, _)| f.end() <= range.start());
        let behind =
            self.faults.partition_point(|(f, _)| f.start() < range.end());
        self.faults.get(first..behind).unwrap_or(&[])
    }

    fn room_of(&mut self, part: ByteRange) -> Option<&mut [u8]> {
        let index =
            self.spans.partition_point(|span| span.range.end() <= part.start());
        let span = *self.spans.get(index)?;
        let skip = part.start().checked_since(span.range.start())?;
        let skip = usize::try_from(skip.0).ok()?;
        let length = usize::try_from(part.length().0).ok()?;
        let end = skip.checked_add(length)?;
        slice_mut(&mut self.buffer, span).get_mut(skip..end)
    }
}

impl<'a> Filled<'a> {
    /// The range as pieces: readable and unreadable stretches in turn.
    pub fn pieces(self) -> impl Iterator<Item = Piece<'a>> {
        let mut at = self.range.start();
        let mut faults = self.faults.iter();
        let mut fault = faults.next();
        std::iter::from_fn(move || {
            if at >= self.range.end() {
                return None;
            }
            let piece = match fault {
                Some(&(bad, why)) if bad.start() <= at => {
                    fault = faults.next();
                    let length = bad.end().checked_since(at)?;
                    Piece { at, what: Payload::Unreadable(length, why) }
                }
                next => {
                    let end = next.map_or(self.range.end(), |f| f.0.start());
                    self.readable(at, end)?
                }
            };
            at = at.checked_add(piece.what.length())?;
            Some(piece)
        })
    }

    fn readable(&self, at: ByteOffset, end: ByteOffset) -> Option<Piece<'a>> {
        let length = end.checked_since(at)?;
        if self.zero {
            return Some(Piece { at, what: Payload::Zero(length) });
        }
        let skip = at.checked_since(self.range.start())?;
        let skip = usize::try_from(skip.0).ok()?;
        let stop = skip.checked_add(usize::try_from(length.0).ok()?)?;
        let bytes = self.bytes.get(skip..stop)?;
        Some(Piece { at, what: Payload::Bytes(bytes) })
    }
}

fn slice(buffer: &[u8], span: Span) -> &[u8] {
    let length = usize::try_from(span.range.length().0).unwrap_or(usize::MAX);
    let end = span.start.saturating_add(length);
    buffer.get(span.start..end).unwrap_or(&[])
}

fn slice_mut(buffer: &mut [u8], span: Span) -> &mut [u8] {
    let length = usize::try_from(span.range.length().0).unwrap_or(usize::MAX);
    let end = span.start.saturating_add(length);
    buffer.get_mut(span.start..end).unwrap_or(&mut [])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::range;

    #[test]
    fn pieces_alternate_between_readable_and_unreadable() {
        let mut batch = Batch::default();
        batch.prepare(&[range(0, 4096), range(8192, 4096)]);
        batch.room(0).fill(1);
        batch.room(1).fill(2);
        batch.set_fault(range(9216, 512), ReadFault::Medium);
        batch.set_fault(range(8704, 512), ReadFault::Medium);
        batch.set_fault(range(11776, 512), ReadFault::BeyondEnd);
        let seen: Vec<(u64, u64, bool)> = batch
            .filled()
            .flat_map(Filled::pieces)
            .map(|piece| {
                let good = match piece.what {
                    Payload::Bytes(bytes) => bytes.iter().all(|&b| b != 0),
                    _ => false,
                };
                (piece.at.0, piece.what.length().0, good)
            })
            .collect();
        assert_eq!(
            seen,
            [
                (0, 4096, true),
                (8192, 512, true),
                (8704, 512, false),
                (9216, 512, false),
                (9728, 2048, true),
                (11776, 512, false),
            ]
        );
    }

    #[test]
    fn what_is_lost_twice_counts_once() {
        let mut batch = Batch::default();
        batch.prepare(&[range(0, 4096)]);
        batch.set_fault(range(512, 1024), ReadFault::Medium);
        batch.set_fault(range(512, 1024), ReadFault::Medium);
        batch.set_fault(range(1024, 1024), ReadFault::KnownBad);
        let filled = batch.filled().next().unwrap();
        assert_eq!(
            filled.faults,
            [
                (range(512, 512), ReadFault::Medium),
                (range(1024, 1024), ReadFault::KnownBad),
            ]
        );
    }

    #[test]
    fn a_batch_used_again_forgets_holes_and_faults() {
        let mut batch = Batch::default();
        batch.prepare(&[range(0, 1024)]);
        batch.set_zero(0);
        batch.set_fault(range(512, 512), ReadFault::Medium);
        batch.prepare(&[range(0, 1024)]);
        let filled = batch.filled().next().unwrap();
        assert!(!filled.zero && filled.faults.is_empty());
    }
}
