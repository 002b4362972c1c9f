//! A raw image that is its own store: what a later run needs to go on is
//! noted while it is written.

use std::time::{Duration, Instant};

use crate::digest::RangeRecord;
use crate::error::Result;
use crate::image::raw::RawSink;
use crate::image::{ImagePlan, ImageSink, WriteOrder};
use crate::range_set::RangeSet;
use crate::spool::SharedStore;
use crate::units::{BlockCount, BlockNumber, BlockRun, BlockSize, u64_from};

/// A raw image in the file of a store. What the store holds is in its place
/// already; all else is written, and noted in the store's map.
pub struct InPlace<'a> {
    raw: RawSink<'a>,
    store: SharedStore,
    /// The store itself is filled by whoever reads.
    is_spool: bool,
    begun: Option<BlockSize>,
    /// What belongs to the image, where the store may hold more.
    keep: RangeSet,
    started: Instant,
    /// Nothing more is worth noting: the image is whole, or not written.
    over: bool,
}

impl<'a> InPlace<'a> {
    /// `raw` writes to the same file as `store`; `is_spool` when everything
    /// that is put comes from there.
    #[must_use]
    pub fn new(raw: RawSink<'a>, store: SharedStore, is_spool: bool) -> Self {
        Self {
            raw,
            store,
            is_spool,
            begun: None,
            keep: RangeSet::new(),
            started: Instant::now(),
            over: false,
        }
    }

    /// Whether the store may hold what does not belong to the image.
    fn sorts_out(&self) -> bool {
        self.is_spool || self.store.lock().resumed().0 > 0
    }

    /// Whether `run` is in its place already.
    fn holds(&mut self, run: BlockRun) -> bool {
        let Some(range) = self.begun.and_then(|size| run.bytes(size)) else {
            return false;
        };
        if !self.sorts_out() {
            return false;
        }
        self.keep.insert(range);
        self.is_spool || self.store.lock().known().contains(range)
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn note(&mut self) -> Result<()> {
        self.raw.flush()?;
        let now = self.now();
        self.store.lock().note(now)
    }

    /// Remembers that the output can no longer be trusted.
    fn seen(&mut self, result: Result<()>) -> Result<()> {
        self.over |= result.is_err();
        result
    }
}

impl ImageSink for InPlace<'_> {
    fn order(&self) -> WriteOrder {
        self.raw.order()
    }

    fn begin(&mut self, plan: &ImagePlan<'_>) -> Result<()> {
        let again = self.begun.is_some();
        self.begun = Some(plan.geometry.block_size);
        self.keep.clear();
        if again && !self.is_spool {
            // The walk begins anew, with another selection.
            self.store.lock().start_over()?;
        }
        if !again || !self.is_spool {
            let begun = self.raw.begin(plan);
            return self.seen(begun);
        }
        Ok(())
    }

    fn put(&mut self, at: BlockNumber, bytes: &[u8]) -> Result<()> {
        let size = self.begun.map_or(1, BlockSize::bytes);
        let count = u64_from(bytes.len() / size.max(1));
        let run = BlockRun::new(at, BlockCount(count));
        if run.is_some_and(|run| self.holds(run)) {
            return Ok(());
        }
        let put = self.raw.put(at, bytes);
        self.seen(put)
    }

    fn zero(&mut self, run: BlockRun) -> Result<()> {
        if self.holds(run) {
            return Ok(());
        }
        let zeroed = self.raw.zero(run);
        self.seen(zeroed)
    }

    fn hole(&mut self, run: BlockRun) -> Result<()> {
        let left = self.raw.hole(run);
        self.seen(left)
    }

    fn stored(&mut self, record: &RangeRecord, is_zero: bool) -> Result<()> {
        let range = self.begun.and_then(|size| record.run.bytes(size));
        let Some(range) = range.filter(|_| !self.is_spool) else {
            return Ok(());
        };
        let now = self.now();
        let mut store = self.store.lock();
        if !store.known().contains(range) {
            store.add_written(range, (!is_zero).then_some(record.digest));
        }
        let is_due = store.is_due(now);
        drop(store);
        if is_due {
            let noted = self.note();
            return self.seen(noted);
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        if self.sorts_out() {
            let kept = self.store.lock().keep_only(&self.keep);
            self.seen(kept)?;
        }
        self.over = true;
        self.raw.finish()
    }
}

impl Drop for InPlace<'_> {
    fn drop(&mut self) {
        // A job that ended early: a later one goes on from here.
        if !self.over {
            let _ = self.note();
        }
    }
}
