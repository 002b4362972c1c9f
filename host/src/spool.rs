//! What arrived from a slow source, kept: a sparse file with every block at
//! its place, and a map of what is in it.
//!
//! A spool stands between a [`Supply`] and everything that reads: blocks come
//! over the line once, whatever is read twice. A job that was interrupted
//! opens its [`Store`] again and goes on. A raw image is its own store:
//! [`InPlace`] makes the one of the other, and [`Resumed`] is what a local
//! job goes on with. Nothing here knows a line.

mod duplicates;
mod in_place;
mod map;
mod resumed;
mod store;

#[cfg(test)]
mod tests;

use std::ops::ControlFlow;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::range_set::RangeSet;
use crate::source::{
    BlockSource, Comparer, Duplicates, Each, Found, Payload, Piece, Priority,
    ReadFault, Search, SourceFacts,
};
use crate::units::{ByteCount, ByteOffset, ByteRange};
pub use in_place::InPlace;
pub use map::Identity;
pub use resumed::Resumed;
use store::READ_BYTES_MAX;
pub use store::{SharedStore, Store, StoreOptions};

/// A source that delivers when it can, not when it is asked.
pub trait Supply: Sync {
    /// What the source is.
    fn facts(&self) -> &SourceFacts;

    /// The time, counted from any moment.
    fn now(&self) -> Duration;

    /// Announces what is needed: whole ranges within the source. Asking for
    /// the same twice is harmless.
    fn want(&self, ranges: &[ByteRange], priority: Priority);

    /// Waits for some of what was announced and hands it over, perhaps with
    /// neighbours that came along.
    ///
    /// # Errors
    ///
    /// When the source is gone, or the job shall end.
    fn arrive(&self, each: &mut dyn FnMut(Piece<'_>)) -> Result<()>;

    /// Those of `ranges` whose digest is another one now.
    ///
    /// # Errors
    ///
    /// As [`Self::arrive`].
    fn changed(&self, ranges: &[(ByteRange, Digest)])
    -> Result<Vec<ByteRange>>;

    /// Where something lies, as [`BlockSource::search`].
    ///
    /// # Errors
    ///
    /// As [`Self::arrive`].
    fn search(&self, search: Search<'_>) -> Result<Option<Found>> {
        let _ = search;
        Ok(None)
    }

    /// Who looks for duplicates at the far end, where that pays.
    fn comparer(&self) -> Option<&dyn Comparer> {
        None
    }
}

/// A spool in front of a supply; see the module.
pub struct Spool<S> {
    supply: S,
    store: SharedStore,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// What cannot be read.
    bad: RangeSet,
    /// What turned out to be another one than what is stored.
    changed: RangeSet,
    /// What it is now: few, and never stored.
    newer: Vec<(ByteOffset, Vec<u8>)>,
    /// Writing failed: nothing is taken in any more.
    failed: Option<Error>,
}

impl<S: Supply> Spool<S> {
    /// A spool that keeps what arrives in `store`. What an earlier run left
    /// there is taken over if the device still holds the same; bad sectors
    /// are tried again.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::LocalIo`](crate::error::ErrorKind::LocalIo) when the store
    /// cannot be emptied; and what the supply answers.
    pub fn open(supply: S, mut store: Store) -> Result<Self> {
        let sector = u64::from(supply.facts().sector_bytes).max(1);
        store.check(sector, |held| supply.changed(held))?;
        let store = SharedStore::new(store);
        Ok(Self { supply, store, inner: Mutex::default() })
    }

    /// What has arrived.
    #[must_use]
    pub const fn store(&self) -> &SharedStore {
        &self.store
    }

    /// The supply.
    pub const fn supply(&self) -> &S {
        &self.supply
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The parts of `ranges` that lie within the source and are not here.
    fn missing(&self, inner: &Inner, ranges: &[ByteRange]) -> Vec<ByteRange> {
        let end = ByteOffset(self.supply.facts().length.0);
        let store = self.store.lock();
        ranges
            .iter()
            .filter_map(|range| within(*range, end))
            .flat_map(|range| inner.missing(&store, range))
            .collect()
    }

    /// Hands over what is here of `range`: all of it.
    fn deliver(
        &self,
        inner: &Inner,
        range: ByteRange,
        each: Each<'_>,
    ) -> Result<ControlFlow<()>> {
        let mut buffer = Vec::new();
        let mut at = range.start();
        while let Some(rest) = ByteRange::between(at, range.end())
            && !rest.is_empty()
        {
            let piece = match inner.newest(rest) {
                Ok(piece) => piece,
                Err(stored) => self.store.lock().piece(stored, &mut buffer)?,
            };
            at = at.checked_add(piece.what.length()).unwrap_or(range.end());
            if each(piece).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

impl<S> Drop for Spool<S> {
    fn drop(&mut self) {
        // Whoever cared has called `note` and seen the error.
        let _ = self.store.lock().note(Duration::ZERO);
    }
}

impl<S: Supply> BlockSource for Spool<S> {
    fn facts(&self) -> &SourceFacts {
        self.supply.facts()
    }

    fn read(&self, ranges: &[ByteRange], each: Each<'_>) -> Result<()> {
        let mut inner = self.lock();
        let missing = self.missing(&inner, ranges);
        if !missing.is_empty() {
            self.supply.want(&missing, Priority::Structure);
            while !self.missing(&inner, &missing).is_empty() {
                self.supply.arrive(&mut |piece| {
                    inner.take_in(&mut self.store.lock(), piece);
                })?;
                if let Some(error) = inner.failed.take() {
                    return Err(error);
                }
                let now = self.supply.now();
                let mut store = self.store.lock();
                if store.is_due(now) {
                    store.note(now)?;
                }
            }
        }
        let end = ByteOffset(self.supply.facts().length.0);
        for &range in ranges {
            if let Some(inside) = within(range, end)
                && self.deliver(&inner, inside, each)?.is_break()
            {
                return Ok(());
            }
            let cut = range.start().max(end);
            if let Some(beyond) = ByteRange::between(cut, range.end())
                && !beyond.is_empty()
            {
                let what =
                    Payload::Unreadable(beyond.length(), ReadFault::BeyondEnd);
                if each(Piece { at: cut, what }).is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn expect(&self, ranges: &[ByteRange], priority: Priority) {
        let missing = self.missing(&self.lock(), ranges);
        if !missing.is_empty() {
            self.supply.want(&missing, priority);
        }
    }

    fn recheck(&self, ranges: &[ByteRange]) -> Result<()> {
        let mut inner = self.lock();
        inner.changed.clear();
        inner.newer.clear();
        let mut held = Vec::new();
        for range in ranges.iter().flat_map(|r| r.cut(READ_BYTES_MAX)) {
            let store = self.store.lock();
            if store.known().contains(range) {
                held.push((range, store.digest(range)?));
            }
        }
        let changed = self.supply.changed(&held)?;
        inner.changed.extend(changed);
        Ok(())
    }

    fn search(&self, search: Search<'_>) -> Result<Option<Found>> {
        self.supply.search(search)
    }

    fn again(&self, ranges: &[ByteRange]) {
        let mut inner = self.lock();
        for range in ranges {
            inner.bad.remove(*range);
        }
    }

    fn duplicates(&self) -> Option<&dyn Duplicates> {
        self.supply.comparer().is_some().then_some(self)
    }
}

impl Inner {
    /// The parts of `range` that were not delivered yet.
    fn missing(&self, store: &Store, range: ByteRange) -> Vec<ByteRange> {
        let mut missing = RangeSet::new();
        missing.extend(store.known().missing(range));
        missing.extend(self.changed.within(range));
        for bad in self.bad.within(range) {
            missing.remove(bad);
        }
        for (at, bytes) in &self.newer {
            let length = ByteCount(crate::units::u64_from(bytes.len()));
            if let Some(newer) = ByteRange::new(*at, length) {
                missing.remove(newer);
            }
        }
        missing.iter().collect()
    }

    /// Takes in what arrived; trouble is kept for whoever reads.
    fn take_in(&mut self, store: &mut Store, piece: Piece<'_>) {
        if self.failed.is_none()
            && let Err(error) = self.try_take_in(store, piece)
        {
            self.failed = Some(error);
        }
    }

    fn try_take_in(
        &mut self,
        store: &mut Store,
        piece: Piece<'_>,
    ) -> Result<()> {
        let Some(range) = ByteRange::new(piece.at, piece.what.length()) else {
            return Ok(());
        };
        for part in self.missing(store, range) {
            // What is stored already stays: it may be an image by now.
            for newer in self.changed.within(part) {
                let mut bytes = match piece.what {
                    Payload::Bytes(bytes) => {
                        slice(bytes, range, newer).to_vec()
                    }
                    _ => Vec::new(),
                };
                let length = usize::try_from(newer.length().0).unwrap_or(0);
                bytes.resize(length, 0);
                self.newer.push((newer.start(), bytes));
            }
            for part in self.changed.missing(part) {
                match piece.what {
                    Payload::Bytes(bytes) => {
                        store.put(part.start(), slice(bytes, range, part))?;
                    }
                    Payload::Zero(_) => store.put_zero(part),
                    Payload::Unreadable(..) => self.bad.insert(part),
                }
            }
        }
        Ok(())
    }

    /// The first piece of `range` if it is not stored; else how much is.
    fn newest(&self, range: ByteRange) -> Result<Piece<'_>, ByteRange> {
        let at = range.start();
        let mut end = range.end();
        if let Some(bad) = self.bad.within(range).next() {
            if bad.start() == at {
                let what = Payload::Unreadable(bad.length(), ReadFault::Medium);
                return Ok(Piece { at, what });
            }
            end = end.min(bad.start());
        }
        for (start, bytes) in &self.newer {
            let length = ByteCount(crate::units::u64_from(bytes.len()));
            let Some(newer) = ByteRange::new(*start, length) else { continue };
            if newer.start() > at {
                end = end.min(newer.start());
            } else if let Some(part) =
                ByteRange::between(at, newer.end().min(end))
                && !part.is_empty()
            {
                let what = Payload::Bytes(slice(bytes, newer, part));
                return Ok(Piece { at, what });
            }
        }
        Err(ByteRange::between(at, end).unwrap_or(range))
    }
}

/// The part of `range` before `end`.
fn within(range: ByteRange, end: ByteOffset) -> Option<ByteRange> {
    ByteRange::between(range.start(), range.end().min(end))
        .filter(|inside| !inside.is_empty())
}

/// The bytes of `part` out of those of `whole`.
fn slice(bytes: &[u8], whole: ByteRange, part: ByteRange) -> &[u8] {
    span(whole, part).and_then(|span| bytes.get(span)).unwrap_or(&[])
}

fn span(whole: ByteRange, part: ByteRange) -> Option<std::ops::Range<usize>> {
    let start = part.start().checked_since(whole.start())?;
    let start = usize::try_from(start.0).ok()?;
    let length = usize::try_from(part.length().0).ok()?;
    Some(start..start.checked_add(length)?)
}
