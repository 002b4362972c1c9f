//! A source with bad sectors, read as far as it goes.
//!
//! What could not be read is tried again, sector by sector, a bounded number
//! of times: in the order in which a walk asks, which is that of importance.
//! What is given up stays given up, and what came at last is kept, so that
//! whoever reads twice is told the same. Areas that a map calls bad are never
//! touched.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::batch::{Batch, Filled};
use crate::digest::Digest;
use crate::error::Result;
use crate::range_set::RangeSet;
use crate::source::{
    BlockSource, Duplicates, Each, Found, Payload, Piece, Priority, ReadFault,
    Search, SourceFacts,
};
use crate::units::{ByteCount, ByteOffset, ByteRange, u64_from};

/// How often a sector is tried again.
const ATTEMPTS: u32 = 2;

/// How many sectors may fail again in a job. A disk that is dying takes
/// seconds for each.
const FAILURES_MAX: u64 = 8192;

/// A sector.
const SECTOR_BYTES: u64 = 512;

/// What came only when it was tried again is kept up to this size.
const SAVED_BYTES_MAX: usize = 64 << 20;

/// What was skipped among many errors is tried in pieces of this size.
const STEP_BYTES: u64 = 4096;

/// See the module.
pub struct Rescue<'a> {
    source: &'a dyn BlockSource,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Listed as bad by a map.
    known: RangeSet,
    /// Tried often enough.
    bad: RangeSet,
    /// Not tried often enough.
    skipped: RangeSet,
    /// What came at last.
    saved: BTreeMap<u64, Vec<u8>>,
    saved_bytes: usize,
    failures: u64,
}

/// What could not be read of a source.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct BadAreas {
    /// Read errors, and what was known to be bad before.
    pub bad: RangeSet,
    /// Left out among many errors.
    pub skipped: RangeSet,
}

impl<'a> Rescue<'a> {
    /// Reads `source`, but nothing of `known`.
    #[must_use]
    pub fn new(source: &'a dyn BlockSource, known: RangeSet) -> Self {
        let state = State { known, ..State::default() };
        Self { source, state: Mutex::new(state) }
    }

    /// What could not be read so far.
    #[must_use]
    pub fn bad_areas(&self) -> BadAreas {
        let state = self.lock();
        let mut bad = state.known.clone();
        bad.extend(state.bad.iter());
        BadAreas { bad, skipped: state.skipped.clone() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads around what is settled already.
    fn read_around(
        &self,
        ranges: &[ByteRange],
        batch: &mut Batch,
    ) -> Result<()> {
        batch.prepare(ranges);
        let mut open = Vec::new();
        {
            let state = self.lock();
            for &range in ranges {
                open.extend(state.settle(range, batch));
            }
        }
        if open.is_empty() {
            return Ok(());
        }
        self.source.read(&open, &mut |piece| {
            batch.fill(piece);
            ControlFlow::Continue(())
        })
    }

    /// Tries again what is bad in `batch`.
    fn try_again(&self, batch: &mut Batch) -> Result<()> {
        let mut faults: Vec<(ByteRange, ReadFault)> = Vec::new();
        for filled in batch.filled() {
            let open = filled.faults.iter().filter(|(_, fault)| {
                matches!(fault, ReadFault::Medium | ReadFault::Skipped)
            });
            faults.extend(open);
        }
        for (range, fault) in faults {
            if self.lock().is_settled(range) {
                continue;
            }
            let mut left: Vec<ByteRange> = match fault {
                ReadFault::Skipped => range.cut(STEP_BYTES).collect(),
                _ => vec![range],
            };
            for _ in 0..ATTEMPTS {
                left = self.attempt(&left)?;
                if left.is_empty() {
                    break;
                }
            }
            let mut state = self.lock();
            let worn_out = state.is_worn_out();
            for part in left {
                match fault {
                    ReadFault::Skipped if worn_out => &mut state.skipped,
                    _ => &mut state.bad,
                }
                .insert(part);
            }
            state.settle(range, batch);
        }
        Ok(())
    }

    /// One more attempt for each of `parts`; what failed again.
    fn attempt(&self, parts: &[ByteRange]) -> Result<Vec<ByteRange>> {
        let mut left = Vec::new();
        let mut batch = Batch::default();
        for &part in parts {
            if self.lock().is_worn_out() {
                left.push(part);
                continue;
            }
            self.source.again(&[part]);
            self.source.read_batch(&[part], &mut batch)?;
            let mut state = self.lock();
            for piece in batch.filled().flat_map(Filled::pieces) {
                match piece.what {
                    Payload::Bytes(bytes) => state.save(piece.at, bytes),
                    Payload::Zero(length) => {
                        let length = usize::try_from(length.0).unwrap_or(0);
                        state.save(piece.at, &vec![0; length]);
                    }
                    Payload::Unreadable(length, _) => {
                        let sectors = length.0.div_ceil(SECTOR_BYTES);
                        state.failures = state.failures.saturating_add(sectors);
                        left.extend(ByteRange::new(piece.at, length));
                    }
                }
            }
        }
        Ok(left)
    }
}

impl State {
    /// Whether nothing was ever bad.
    fn is_clean(&self) -> bool {
        self.known.is_empty()
            && self.bad.is_empty()
            && self.skipped.is_empty()
            && self.saved.is_empty()
    }

    const fn is_worn_out(&self) -> bool {
        self.failures >= FAILURES_MAX || self.saved_bytes >= SAVED_BYTES_MAX
    }

    fn save(&mut self, at: ByteOffset, bytes: &[u8]) {
        self.saved_bytes = self.saved_bytes.saturating_add(bytes.len());
        self.saved.insert(at.0, bytes.to_vec());
    }

    /// What was saved of `range`, in the order of the places.
    fn saved_in(
        &self,
        range: ByteRange,
    ) -> impl Iterator<Item = (ByteRange, &[u8])> {
        // Nothing was saved in a piece longer than was asked for at once.
        let first = range.start().0.saturating_sub(crate::batch::READ_MAX);
        let near = self.saved.range(first..range.end().0);
        near.filter_map(|(at, bytes)| {
            let length = ByteCount(u64_from(bytes.len()));
            Some((ByteRange::new(ByteOffset(*at), length)?, bytes.as_slice()))
        })
    }

    /// Whether all of `range` was dealt with.
    fn is_settled(&self, range: ByteRange) -> bool {
        let mut open = RangeSet::new();
        open.insert(range);
        for (saved, _) in self.saved_in(range) {
            open.remove(saved);
        }
        for set in [&self.known, &self.bad, &self.skipped] {
            for part in set.within(range) {
                open.remove(part);
            }
        }
        open.is_empty()
    }

    /// Fills in what is settled of `range`; answers what is not.
    fn settle(&self, range: ByteRange, batch: &mut Batch) -> Vec<ByteRange> {
        let mut open = RangeSet::new();
        open.insert(range);
        let sets = [
            (&self.known, ReadFault::KnownBad),
            (&self.bad, ReadFault::Medium),
            (&self.skipped, ReadFault::Skipped),
        ];
        for (set, fault) in sets {
            for part in set.within(range) {
                open.remove(part);
                let length = part.length();
                let what = Payload::Unreadable(length, fault);
                batch.fill(Piece { at: part.start(), what });
            }
        }
        for (saved, bytes) in self.saved_in(range) {
            for part in open.clone().within(saved) {
                let skip = part.start().0.saturating_sub(saved.start().0);
                let start = usize::try_from(skip).unwrap_or(usize::MAX);
                let length = usize::try_from(part.length().0).unwrap_or(0);
                let bytes = bytes.get(start..start.saturating_add(length));
                let what = Payload::Bytes(bytes.unwrap_or(&[]));
                batch.restore(Piece { at: part.start(), what });
                open.remove(part);
            }
        }
        open.iter().collect()
    }

    /// Whether a part of `range` is settled.
    fn touches(&self, range: ByteRange) -> bool {
        let sets = [&self.known, &self.bad, &self.skipped];
        sets.iter().any(|set| set.within(range).next().is_some())
            || self
                .saved_in(range)
                .any(|(saved, _)| saved.end() > range.start())
    }
}

impl BlockSource for Rescue<'_> {
    fn facts(&self) -> &SourceFacts {
        self.source.facts()
    }

    fn read(&self, ranges: &[ByteRange], each: Each<'_>) -> Result<()> {
        let mut batch = Batch::default();
        for part in ranges.iter().flat_map(|r| r.cut(crate::batch::READ_MAX)) {
            self.read_batch(&[part], &mut batch)?;
            for piece in batch.filled().flat_map(Filled::pieces) {
                if each(piece).is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn expect(&self, ranges: &[ByteRange], priority: Priority) {
        self.source.expect(ranges, priority);
    }

    fn recheck(&self, ranges: &[ByteRange]) -> Result<()> {
        self.source.recheck(ranges)
    }

    fn differing(
        &self,
        ranges: &[(ByteRange, Digest)],
    ) -> Result<Vec<ByteRange>> {
        self.source.differing(ranges)
    }

    fn search(&self, search: Search<'_>) -> Result<Option<Found>> {
        let known = self.lock().known.clone();
        let ranges = search.ranges.iter();
        let left: Vec<ByteRange> =
            ranges.flat_map(|range| known.missing(*range)).collect();
        let Search { sought, progress, .. } = search;
        self.source.search(Search { ranges: &left, sought, progress })
    }

    /// Whoever compares touches whatever he compares: not where something
    /// is bad.
    fn duplicates(&self) -> Option<&dyn Duplicates> {
        let clean = self.lock().is_clean();
        clean.then(|| self.source.duplicates()).flatten()
    }

    fn readers(&self) -> usize {
        self.source.readers()
    }

    fn read_batch(
        &self,
        ranges: &[ByteRange],
        batch: &mut Batch,
    ) -> Result<()> {
        let touches = {
            let state = self.lock();
            !state.is_clean() && ranges.iter().any(|r| state.touches(*r))
        };
        if touches {
            self.read_around(ranges, batch)?;
        } else {
            self.source.read_batch(ranges, batch)?;
        }
        if batch.has_faults() {
            self.try_again(batch)?;
        }
        Ok(())
    }
}
