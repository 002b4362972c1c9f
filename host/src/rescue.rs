//! A source with bad sectors, read as far as it goes.
//!
//! A disk that dies is first asked for all that it gives easily, and only
//! then for the rest: [`Rescue::skim`] leaves out what fails and notes it,
//! [`Rescue::strive`] comes back to it, as often and in the order that its
//! caller wants. One sector is tried
//!
//! 1. as a part of whatever was wanted,
//! 2. as a part of a piece of 4 KiB, if that was larger,
//! 3. alone,
//! 4. and alone once more in each retry pass;
//!
//! never more often, however often it is asked for: what is given up stays
//! given up, and what came at last is kept, so that whoever reads twice is
//! told the same. Who reads without skimming has all of it tried at once.
//! These are the states of a mapfile of GNU ddrescue, which may tell them of an
//! earlier run: areas that it calls bad are not touched.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::batch::{Batch, Filled, READ_MAX};
use crate::digest::Digest;
use crate::error::Result;
use crate::range_set::RangeSet;
use crate::source::{
    BlockSource, Duplicates, Each, Effort, Found, Payload, Piece, Priority,
    ReadFault, Search, SourceFacts, SourceKind,
};
use crate::units::{ByteCount, ByteOffset, ByteRange, u64_from};

/// How often a sector that failed alone is tried again, unless somebody says
/// otherwise.
pub const RETRIES: u32 = 1;

/// Nobody needs more: a disk takes seconds for each attempt.
pub const RETRIES_MAX: u32 = 100;

/// How many attempts of a job may fail, beside the first one at each place: a
/// disk that is dying takes seconds for each.
const FAILURES_MAX: u64 = 8192;

/// What came only when it was tried again is kept up to this size.
const SAVED_BYTES_MAX: usize = 64 << 20;

/// What failed in a larger read is tried in pieces of this size: a page, and
/// the physical sector of nearly every disk.
const PIECE_BYTES: u64 = 4096;

/// Attempts under way at a time over a line, whose round trips cost more.
const REMOTE_ATTEMPTS: usize = 64;

/// Places in [`State::failed`]: failed in a large read, in a piece, alone.
const IN_LARGE: usize = 0;
const IN_PIECE: usize = 1;
const ALONE: usize = 2;

/// See the module.
pub struct Rescue<'a> {
    source: &'a dyn BlockSource,
    state: Mutex<State>,
}

struct State {
    /// Listed as bad by a map, and not to be touched.
    known: RangeSet,
    /// What failed, by how hard it was tried: in a large read, in a piece,
    /// alone, and alone in each retry pass. In one of them at most.
    failed: Vec<RangeSet>,
    /// What came at last.
    saved: BTreeMap<u64, Vec<u8>>,
    saved_bytes: usize,
    /// What came at last and found no room: if it fails again, it is bad.
    shaky: RangeSet,
    /// How many attempts failed.
    failures: u64,
    recovered: u64,
}

/// What could not be read of a source.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct BadAreas {
    /// Failed in a large read, and not tried in smaller pieces.
    pub untrimmed: RangeSet,
    /// Failed in a piece, and not tried sector by sector.
    pub unscraped: RangeSet,
    /// Failed sector by sector, and what was known to be bad before.
    pub bad: RangeSet,
}

impl<'a> Rescue<'a> {
    /// Reads `source`, but nothing of `known`.
    #[must_use]
    pub fn new(source: &'a dyn BlockSource, known: RangeSet) -> Self {
        let areas = BadAreas { bad: known, ..BadAreas::default() };
        Self::resumed(source, areas, None)
    }

    /// Reads `source`, and goes on from what an earlier run knew of it, with
    /// so many retry passes; these leave out what was bad before, unless
    /// their number was asked for.
    #[must_use]
    pub fn resumed(
        source: &'a dyn BlockSource,
        before: BadAreas,
        retries: Option<u32>,
    ) -> Self {
        let passes = retries.unwrap_or(RETRIES).min(RETRIES_MAX);
        let (known, bad) = match passes {
            1.. if retries.is_some() => (RangeSet::new(), before.bad),
            _ => (before.bad, RangeSet::new()),
        };
        let mut failed = vec![before.untrimmed, before.unscraped, bad];
        failed.extend((0..passes).map(|_| RangeSet::new()));
        let state = State {
            known,
            failed,
            saved: BTreeMap::new(),
            saved_bytes: 0,
            shaky: RangeSet::new(),
            failures: 0,
            recovered: 0,
        };
        Self { source, state: Mutex::new(state) }
    }

    /// What could not be read so far.
    #[must_use]
    pub fn bad_areas(&self) -> BadAreas {
        let state = self.lock();
        let mut areas = BadAreas {
            untrimmed: state.failed[IN_LARGE].clone(),
            unscraped: state.failed[IN_PIECE].clone(),
            bad: state.known.clone(),
        };
        let alone = state.failed.iter().skip(ALONE);
        areas.bad.extend(alone.flat_map(RangeSet::iter));
        areas
    }

    /// What failed at first and came at last.
    #[must_use]
    pub fn recovered(&self) -> ByteCount {
        ByteCount(self.lock().recovered)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The smallest piece that is tried.
    fn sector(&self) -> u64 {
        u64::from(self.source.facts().sector_bytes).max(1)
    }

    /// Reads around what is known already.
    fn skim_around(
        &self,
        ranges: &[ByteRange],
        batch: &mut Batch,
    ) -> Result<()> {
        batch.prepare(ranges);
        let mut open = Vec::new();
        {
            let state = self.lock();
            for &range in ranges {
                open.extend(state.settle(range, false, batch));
            }
        }
        self.fill_in(open, batch)
    }

    /// Reads `open` into its places in `batch`.
    fn fill_in(&self, open: Vec<ByteRange>, batch: &mut Batch) -> Result<()> {
        let mut fresh = Batch::default();
        for part in open.into_iter().flat_map(|part| part.cut(READ_MAX)) {
            self.source.skim(&[part], &mut fresh)?;
            for piece in fresh.filled().flat_map(Filled::pieces) {
                batch.fill(piece);
            }
        }
        Ok(())
    }

    /// Notes what failed in `batch` for the first time, and says so of all
    /// that will be tried again.
    fn note(&self, batch: &mut Batch) {
        let mut state = self.lock();
        for (range, fault) in hard(batch) {
            for part in state.untold(range) {
                let place = match fault {
                    _ if state.shaky.within(part).next().is_some() => {
                        state.last()
                    }
                    ReadFault::Skipped if range.length().0 > PIECE_BYTES => {
                        IN_LARGE
                    }
                    _ => IN_PIECE,
                };
                state.failed[place].insert(part);
            }
            let _ = state.settle(range, false, batch);
        }
    }

    /// Tries each piece of `ranges` that failed as `place` says, and no
    /// harder, once.
    fn attempt(
        &self,
        ranges: &[ByteRange],
        place: usize,
        tried: &mut dyn FnMut(ByteCount) -> Result<()>,
    ) -> Result<bool> {
        let mut areas: Vec<ByteRange> = {
            let state = self.lock();
            let Some(failed) = state.failed.get(place) else {
                return Ok(false);
            };
            ranges.iter().flat_map(|range| failed.within(*range)).collect()
        };
        // Each retry pass runs against the one before, as ddrescue's do.
        let backwards = place >= ALONE && place.is_multiple_of(2);
        if backwards {
            areas.reverse();
        }
        let piece = match place {
            IN_LARGE => PIECE_BYTES.max(self.sector()),
            _ => self.sector(),
        };
        let at_once = match self.source.facts().kind {
            SourceKind::Remote => REMOTE_ATTEMPTS,
            _ => 1,
        };
        let mut any = false;
        let mut parts = areas
            .into_iter()
            .flat_map(|area| Pieces { rest: area, piece, backwards })
            .peekable();
        while parts.peek().is_some() {
            if self.lock().is_worn_out() {
                break;
            }
            any = true;
            let now: Vec<ByteRange> = parts.by_ref().take(at_once).collect();
            // No two neighbours at a time: a source may join them.
            for turn in 0..2 {
                let mut of_turn: Vec<ByteRange> =
                    now.iter().copied().skip(turn).step_by(2).collect();
                of_turn.sort_unstable();
                if !of_turn.is_empty() {
                    self.try_once(&of_turn, place)?;
                }
            }
            tried(ByteCount(now.iter().map(|part| part.length().0).sum()))?;
        }
        Ok(any)
    }

    /// One attempt for each of `parts`, which failed as `place` says.
    fn try_once(&self, parts: &[ByteRange], place: usize) -> Result<()> {
        let mut batch = Batch::default();
        self.source.again(parts);
        self.source.skim(parts, &mut batch)?;
        let mut state = self.lock();
        for filled in batch.filled() {
            let mut is_bad = false;
            for piece in filled.pieces() {
                let Some(range) = ByteRange::new(piece.at, piece.what.length())
                else {
                    continue;
                };
                match piece.what {
                    Payload::Bytes(bytes) => state.recover(range, bytes),
                    Payload::Zero(length) => {
                        let length = usize::try_from(length.0).unwrap_or(0);
                        state.recover(range, &vec![0; length]);
                    }
                    // Sector by sector, as the source says: that is alone.
                    Payload::Unreadable(_, ReadFault::Medium) => {
                        is_bad = true;
                        state.demote(range, place.saturating_add(1).max(ALONE));
                    }
                    Payload::Unreadable(..) => {
                        is_bad = true;
                        state.demote(range, place.saturating_add(1));
                    }
                }
            }
            state.failures = state.failures.saturating_add(is_bad.into());
        }
        Ok(())
    }
}

/// What of `batch` may be had by trying harder.
fn hard(batch: &Batch) -> Vec<(ByteRange, ReadFault)> {
    let faults = batch.filled().flat_map(|filled| filled.faults.to_vec());
    let is_hard =
        |fault| matches!(fault, ReadFault::Medium | ReadFault::Skipped);
    faults.filter(|(_, fault)| is_hard(*fault)).collect()
}

/// An area in pieces, from its beginning on or from its end.
struct Pieces {
    rest: ByteRange,
    piece: u64,
    backwards: bool,
}

impl Iterator for Pieces {
    type Item = ByteRange;

    fn next(&mut self) -> Option<ByteRange> {
        let (start, end) = (self.rest.start(), self.rest.end());
        let (next, rest) = if self.backwards {
            let edge = end.0.checked_sub(1)? / self.piece * self.piece;
            let cut = ByteOffset(edge).max(start);
            (ByteRange::between(cut, end)?, ByteRange::between(start, cut)?)
        } else {
            let next = self.rest.cut(self.piece).next()?;
            (next, ByteRange::between(next.end(), end)?)
        };
        self.rest = rest;
        (!next.is_empty()).then_some(next)
    }
}

impl State {
    /// Whether nothing was ever bad.
    fn is_clean(&self) -> bool {
        self.known.is_empty()
            && self.saved.is_empty()
            && self.failed.iter().all(RangeSet::is_empty)
    }

    const fn is_worn_out(&self) -> bool {
        self.failures >= FAILURES_MAX
    }

    /// Where those are that were tried as hard as can be.
    fn last(&self) -> usize {
        self.failed.len().saturating_sub(1)
    }

    /// The parts of `range` that never failed.
    fn untold(&self, range: ByteRange) -> Vec<ByteRange> {
        let mut open: RangeSet = std::iter::once(range).collect();
        for set in &self.failed {
            for part in set.within(range) {
                open.remove(part);
            }
        }
        open.iter().collect()
    }

    /// `range` failed again.
    fn demote(&mut self, range: ByteRange, place: usize) {
        for set in &mut self.failed {
            set.remove(range);
        }
        let place = place.min(self.last());
        self.failed[place].insert(range);
    }

    /// `range` came after all.
    fn recover(&mut self, range: ByteRange, bytes: &[u8]) {
        for set in &mut self.failed {
            set.remove(range);
        }
        self.recovered = self.recovered.saturating_add(range.length().0);
        let total = self.saved_bytes.saturating_add(bytes.len());
        if total > SAVED_BYTES_MAX {
            self.shaky.insert(range);
        } else {
            self.saved_bytes = total;
            self.saved.insert(range.start().0, bytes.to_vec());
        }
    }

    /// What was saved of `range`, in the order of the places.
    fn saved_in(
        &self,
        range: ByteRange,
    ) -> impl Iterator<Item = (ByteRange, &[u8])> {
        // Nothing was saved in a larger part than was tried at once.
        let first = range.start().0.saturating_sub(READ_MAX);
        let near = self.saved.range(first..range.end().0);
        near.filter_map(|(at, bytes)| {
            let length = ByteCount(u64_from(bytes.len()));
            Some((ByteRange::new(ByteOffset(*at), length)?, bytes.as_slice()))
        })
    }

    /// Fills in what is known of `range`; answers what is not. What may still
    /// be tried counts as skipped, unless this is `final`.
    fn settle(
        &self,
        range: ByteRange,
        is_final: bool,
        batch: &mut Batch,
    ) -> Vec<ByteRange> {
        let mut open: RangeSet = std::iter::once(range).collect();
        let mut fill = |set: &RangeSet, fault| {
            for part in set.within(range) {
                open.remove(part);
                let what = Payload::Unreadable(part.length(), fault);
                batch.fill(Piece { at: part.start(), what });
            }
        };
        fill(&self.known, ReadFault::KnownBad);
        for (place, set) in self.failed.iter().enumerate() {
            let is_bad = place == self.last() || (is_final && place >= ALONE);
            fill(
                set,
                match is_bad {
                    true => ReadFault::Medium,
                    false => ReadFault::Skipped,
                },
            );
        }
        for (saved, bytes) in self.saved_in(range) {
            let parts: Vec<ByteRange> = open.within(saved).collect();
            for part in parts {
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

    /// Whether anything is known of a part of `range`.
    fn touches(&self, range: ByteRange) -> bool {
        std::iter::once(&self.known)
            .chain(&self.failed)
            .any(|set| set.within(range).next().is_some())
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
        for part in ranges.iter().flat_map(|r| r.cut(READ_MAX)) {
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
        let left: Vec<ByteRange> = {
            let state = self.lock();
            let ranges = search.ranges.iter();
            let unknown = ranges.flat_map(|r| state.known.missing(*r));
            unknown.flat_map(|part| state.untold(part)).collect()
        };
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
        self.skim(ranges, batch)?;
        let hard: Vec<ByteRange> =
            hard(batch).into_iter().map(|(range, _)| range).collect();
        if hard.is_empty() {
            return Ok(());
        }
        for effort in 0..self.efforts() {
            self.strive(&hard, Effort(effort), &mut |_| Ok(()))?;
        }
        let mut open = Vec::new();
        {
            let state = self.lock();
            for range in hard {
                open.extend(state.settle(range, true, batch));
            }
        }
        self.fill_in(open, batch)
    }

    fn skim(&self, ranges: &[ByteRange], batch: &mut Batch) -> Result<()> {
        let touches = {
            let state = self.lock();
            !state.is_clean() && ranges.iter().any(|r| state.touches(*r))
        };
        if touches {
            self.skim_around(ranges, batch)?;
        } else {
            self.source.skim(ranges, batch)?;
        }
        if batch.has_faults() {
            self.note(batch);
        }
        Ok(())
    }

    fn efforts(&self) -> u32 {
        let passes = self.lock().last().saturating_sub(ALONE);
        u32::try_from(passes).unwrap_or(u32::MAX).saturating_add(1)
    }

    fn strive(
        &self,
        ranges: &[ByteRange],
        effort: Effort,
        tried: &mut dyn FnMut(ByteCount) -> Result<()>,
    ) -> Result<bool> {
        if effort.0 == 0 {
            let large = self.attempt(ranges, IN_LARGE, tried)?;
            return Ok(self.attempt(ranges, IN_PIECE, tried)? || large);
        }
        let pass = usize::try_from(effort.0).unwrap_or(usize::MAX);
        let place = ALONE.saturating_add(pass).saturating_sub(1);
        // The last place is of those that nothing more is tried with.
        let is_pass = place < self.lock().last();
        Ok(is_pass && self.attempt(ranges, place, tried)?)
    }
}
