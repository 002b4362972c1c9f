//! Looking at places of a source: a few areas are read at once, the rest
//! when somebody asks.

use std::ops::ControlFlow;

use crate::error::Result;
use crate::source::{BlockSource, Each, Payload, Piece, SourceFacts};
use crate::units::{ByteCount, ByteOffset, ByteRange};

/// One look reads at most this much.
const LOOK_BYTES_MAX: u64 = 1 << 20;

/// A source and what was read of it so far.
pub(super) struct Look<'a> {
    source: &'a dyn BlockSource,
    areas: Vec<Area>,
}

struct Area {
    range: ByteRange,
    bytes: Vec<u8>,
    /// What could not be read, in offsets of the source.
    lost: Vec<ByteRange>,
}

impl<'a> Look<'a> {
    /// Reads `areas` (start and length), as far as they lie in the source, in
    /// one go.
    pub(super) fn at(
        source: &'a dyn BlockSource,
        areas: &[(u64, u64)],
    ) -> Result<Self> {
        let mut look = Self { source, areas: Vec::new() };
        let mut starts: Vec<(u64, u64)> = areas.to_vec();
        starts.sort_unstable();
        let mut ranges: Vec<ByteRange> = Vec::new();
        for (start, length) in starts {
            let end = start.saturating_add(length).min(look.length());
            let start = ranges.last().map_or(start, |r| r.end().0.max(start));
            let range = ByteRange::between(ByteOffset(start), ByteOffset(end));
            ranges.extend(range.filter(|range| !range.is_empty()));
        }
        look.areas = read(source, &ranges)?;
        Ok(look)
    }

    pub(super) fn length(&self) -> u64 {
        self.source.facts().length.0
    }

    pub(super) fn facts(&self) -> &SourceFacts {
        self.source.facts()
    }

    /// The bytes from `at`, if all of them can be read.
    pub(super) fn bytes(&self, at: u64, length: u64) -> Option<Vec<u8>> {
        let range = ByteRange::new(ByteOffset(at), ByteCount(length))?;
        if range.end().0 > self.length() || length > LOOK_BYTES_MAX {
            return None;
        }
        match self.areas.iter().find(|area| area.holds(range)) {
            Some(area) => area.cut(range),
            // A source that is gone altogether has said so before.
            None => read(self.source, &[range]).ok()?.first()?.cut(range),
        }
    }
}

impl Area {
    fn holds(&self, range: ByteRange) -> bool {
        self.range.start() <= range.start() && range.end() <= self.range.end()
    }

    fn cut(&self, range: ByteRange) -> Option<Vec<u8>> {
        let overlaps = |lost: &ByteRange| {
            lost.start() < range.end() && range.start() < lost.end()
        };
        if self.lost.iter().any(overlaps) {
            return None;
        }
        let from = range.start().checked_since(self.range.start())?.0;
        let until = range.end().checked_since(self.range.start())?.0;
        let part = usize::try_from(from).ok()?..usize::try_from(until).ok()?;
        self.bytes.get(part).map(<[u8]>::to_vec)
    }

    fn take(&mut self, piece: &Piece<'_>) -> Option<()> {
        match piece.what {
            Payload::Bytes(bytes) => {
                let from = piece.at.checked_since(self.range.start())?.0;
                let from = usize::try_from(from).ok()?;
                let until = from.checked_add(bytes.len())?;
                self.bytes.get_mut(from..until)?.copy_from_slice(bytes);
            }
            Payload::Zero(_) => {}
            Payload::Unreadable(length, _) => {
                self.lost.extend(ByteRange::new(piece.at, length));
            }
        }
        Some(())
    }
}

fn read(source: &dyn BlockSource, ranges: &[ByteRange]) -> Result<Vec<Area>> {
    let mut areas: Vec<Area> = ranges
        .iter()
        .filter_map(|range| {
            let length = usize::try_from(range.length().0).ok()?;
            Some(Area {
                range: *range,
                bytes: vec![0; length],
                lost: Vec::new(),
            })
        })
        .collect();
    source.read(ranges, &mut |piece| {
        let area = areas.iter_mut().find(|area| {
            area.range.start() <= piece.at && piece.at < area.range.end()
        });
        if let Some(area) = area {
            area.take(&piece);
        }
        ControlFlow::Continue(())
    })?;
    Ok(areas)
}

/// A part of a source as a source of its own: a partition of a disk that the
/// system has not taken apart.
pub struct Window<'a> {
    source: &'a dyn BlockSource,
    start: ByteOffset,
    facts: SourceFacts,
}

impl<'a> Window<'a> {
    /// The part of `source` in `range`, as far as the source reaches.
    #[must_use]
    pub fn new(source: &'a dyn BlockSource, range: ByteRange) -> Self {
        let whole = source.facts();
        let inside = whole.length.0.saturating_sub(range.start().0);
        let facts = SourceFacts {
            length: ByteCount(range.length().0.min(inside)),
            ..whole.clone()
        };
        Self { source, start: range.start(), facts }
    }
}

impl BlockSource for Window<'_> {
    fn facts(&self) -> &SourceFacts {
        &self.facts
    }

    fn read(&self, ranges: &[ByteRange], each: Each<'_>) -> Result<()> {
        let mut outer = Vec::with_capacity(ranges.len());
        for range in ranges {
            let end = range.end().0.min(self.facts.length.0);
            let start = range.start().0.min(end);
            let inner = (start, end.saturating_sub(start));
            if let Some(moved) = moved(self.start, inner) {
                outer.push(moved);
            }
            let beyond = range.end().0.saturating_sub(end.max(range.start().0));
            if beyond > 0 {
                let at = ByteOffset(end.max(range.start().0));
                let what = Payload::Unreadable(
                    ByteCount(beyond),
                    crate::source::ReadFault::BeyondEnd,
                );
                if each(Piece { at, what }).is_break() {
                    return Ok(());
                }
            }
        }
        self.source.read(&outer, &mut |piece| {
            let at = piece.at.0.saturating_sub(self.start.0);
            each(Piece { at: ByteOffset(at), what: piece.what })
        })
    }
}

fn moved(by: ByteOffset, (start, length): (u64, u64)) -> Option<ByteRange> {
    let start = by.checked_add(ByteCount(start))?;
    ByteRange::new(start, ByteCount(length)).filter(|range| !range.is_empty())
}
