//! A source of which an earlier run has saved a part.

use std::ops::ControlFlow;
use std::sync::{Mutex, PoisonError};

use crate::batch::{Batch, Filled};
use crate::digest::Digest;
use crate::error::Result;
use crate::range_set::RangeSet;
use crate::source::{BlockSource, Each, Piece, Priority, SourceFacts};
use crate::spool::SharedStore;
use crate::units::{ByteOffset, ByteRange};

/// What a store holds is read from there, the rest from the source itself.
pub struct Resumed<'a> {
    source: &'a dyn BlockSource,
    store: SharedStore,
    /// What an earlier run has saved.
    saved: RangeSet,
    /// What the job wants to see as it is now.
    live: Mutex<RangeSet>,
}

impl<'a> Resumed<'a> {
    /// `source` with what `store` has of it, if the source still holds the
    /// same; if not, the store is emptied.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::LocalIo`](crate::error::ErrorKind::LocalIo) when the store
    /// cannot be emptied; and what the source answers.
    pub fn new(
        source: &'a dyn BlockSource,
        store: &SharedStore,
    ) -> Result<Self> {
        store.lock().check(1, |held| changed(source, held))?;
        let saved = store.lock().known().clone();
        Ok(Self { source, store: store.clone(), saved, live: Mutex::default() })
    }

    /// Whether the store has nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.saved.is_empty()
    }

    /// Hands over `part`, all of which the store has.
    fn stored(
        &self,
        part: ByteRange,
        buffer: &mut Vec<u8>,
        each: Each<'_>,
    ) -> Result<ControlFlow<()>> {
        let mut at = part.start();
        while let Some(rest) = ByteRange::between(at, part.end())
            && !rest.is_empty()
        {
            let piece = self.store.lock().piece(rest, buffer)?;
            at = behind(&piece, part.end());
            if each(piece).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// The parts of `range` that the store has, and those that it has not.
    fn split(&self, range: ByteRange) -> (Vec<ByteRange>, Vec<ByteRange>) {
        let live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        let mut saved = RangeSet::new();
        for part in self.saved.within(range) {
            saved.extend(live.missing(part));
        }
        (saved.iter().collect(), saved.missing(range))
    }
}

impl BlockSource for Resumed<'_> {
    fn facts(&self) -> &SourceFacts {
        self.source.facts()
    }

    fn read(&self, ranges: &[ByteRange], each: Each<'_>) -> Result<()> {
        let mut buffer = Vec::new();
        for &range in ranges {
            let (saved, missing) = self.split(range);
            for part in saved {
                if self.stored(part, &mut buffer, each)?.is_break() {
                    return Ok(());
                }
            }
            let mut over = false;
            if !missing.is_empty() {
                self.source.read(&missing, &mut |piece| {
                    let flow = each(piece);
                    over = flow.is_break();
                    flow
                })?;
            }
            if over {
                return Ok(());
            }
        }
        Ok(())
    }

    fn expect(&self, ranges: &[ByteRange], priority: Priority) {
        self.source.expect(ranges, priority);
    }

    fn recheck(&self, ranges: &[ByteRange]) -> Result<()> {
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        live.extend(ranges.iter().copied());
        drop(live);
        self.source.recheck(ranges)
    }

    fn again(&self, ranges: &[ByteRange]) {
        self.source.again(ranges);
    }

    fn skim(&self, ranges: &[ByteRange], batch: &mut Batch) -> Result<()> {
        if ranges.iter().all(|range| self.split(*range).0.is_empty()) {
            return self.source.skim(ranges, batch);
        }
        batch.prepare(ranges);
        let mut buffer = Vec::new();
        let mut fresh = Batch::default();
        for range in ranges.iter().flat_map(|r| r.cut(super::READ_BYTES_MAX)) {
            let (saved, missing) = self.split(range);
            for part in saved {
                let _ = self.stored(part, &mut buffer, &mut |piece| {
                    batch.fill(piece);
                    ControlFlow::Continue(())
                })?;
            }
            self.source.skim(&missing, &mut fresh)?;
            fresh.filled().flat_map(Filled::pieces).for_each(|piece| {
                batch.fill(piece);
            });
        }
        Ok(())
    }

    fn readers(&self) -> usize {
        self.source.readers()
    }

    fn read_batch(
        &self,
        ranges: &[ByteRange],
        batch: &mut Batch,
    ) -> Result<()> {
        if ranges.iter().all(|range| self.split(*range).0.is_empty()) {
            return self.source.read_batch(ranges, batch);
        }
        batch.prepare(ranges);
        self.read(ranges, &mut |piece| {
            batch.fill(piece);
            ControlFlow::Continue(())
        })
    }
}

/// Those of `held` that `source` holds otherwise now, or cannot read.
fn changed(
    source: &dyn BlockSource,
    held: &[(ByteRange, Digest)],
) -> Result<Vec<ByteRange>> {
    let mut changed = Vec::new();
    for (range, digest) in held {
        let mut hasher = blake3::Hasher::new();
        let mut batch = Batch::default();
        let mut whole = true;
        for part in range.cut(super::READ_BYTES_MAX) {
            source.read_batch(&[part], &mut batch)?;
            for filled in batch.filled() {
                whole &= filled.faults.is_empty();
                hasher.update(filled.bytes);
            }
        }
        if !whole || hasher.finalize().as_bytes() != digest {
            changed.push(*range);
        }
    }
    Ok(changed)
}

/// Where a piece ends.
fn behind(piece: &Piece<'_>, end: ByteOffset) -> ByteOffset {
    piece.at.checked_add(piece.what.length()).unwrap_or(end)
}
