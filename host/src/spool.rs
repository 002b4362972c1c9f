//! What arrived from a slow source, kept: a sparse file with every block at
//! its place, and a map of what is in it.
//!
//! A spool stands between a [`Supply`] and everything that reads: blocks come
//! over the line once, whatever is read twice. A job that was interrupted
//! opens its spool again and goes on. Nothing here knows a line.

mod map;

#[cfg(test)]
mod tests;

use std::ops::ControlFlow;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};
use crate::output::OutputFile;
use crate::range_set::RangeSet;
use crate::source::{
    BlockSource, PIECE_ALIGN, Payload, Piece, Priority, ReadFault, SourceFacts,
};
use crate::units::{ByteCount, ByteOffset, ByteRange};
pub use map::Identity;
use map::{Map, Record, State};

/// One piece at most that is read back at once.
const READ_BYTES_MAX: u64 = 1 << 20;

/// What has arrived is noted in the map at least so often, and whenever so
/// much is not noted yet.
const NOTE_INTERVAL: Duration = Duration::from_secs(2);
const NOTE_BYTES: u64 = 64 << 20;

/// When a spool is opened again, so much from its beginning is compared with
/// the device: a filesystem that was used since has another superblock.
const CHECK_BYTES: u64 = 256 << 10;

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
}

/// How a spool writes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SpoolOptions {
    /// Where in the file the source's first byte lies.
    pub offset: ByteOffset,
    /// Bring data to the disk before the map says that it is there.
    pub sync: bool,
}

/// A spool in front of a supply; see the module.
pub struct Spool<S> {
    supply: S,
    inner: Mutex<Inner>,
}

struct Inner {
    data: Box<dyn OutputFile>,
    map: Map,
    options: SpoolOptions,
    /// All that is known, and of that: what is zero, what cannot be read.
    known: RangeSet,
    zero: RangeSet,
    bad: RangeSet,
    /// When the map was written last.
    noted: Duration,
    unnoted_bytes: u64,
    /// Writing failed: nothing is taken in any more.
    failed: Option<Error>,
    resumed: u64,
}

impl<S: Supply> Spool<S> {
    /// A spool in `data` with its map in `map`, `map_length` bytes of which
    /// are there already. What an earlier run left is taken over as far as
    /// its digests prove it and the device still holds the same; bad sectors
    /// are tried again.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Refused`] when the map is of another device or of a job
    /// with other options; [`ErrorKind::LocalIo`] when a file cannot be
    /// read or written.
    pub fn open(
        supply: S,
        data: Box<dyn OutputFile>,
        map: Box<dyn OutputFile>,
        map_length: ByteCount,
        identity: &Identity,
        options: SpoolOptions,
    ) -> Result<Self> {
        let (map, records) = Map::open(map, map_length, identity)?;
        let mut inner = Inner {
            data,
            map,
            options,
            known: RangeSet::new(),
            zero: RangeSet::new(),
            bad: RangeSet::new(),
            noted: supply.now(),
            unnoted_bytes: 0,
            failed: None,
            resumed: 0,
        };
        let mut first = Vec::new();
        let mut budget = CHECK_BYTES;
        let mut proven: Vec<Record> = Vec::new();
        for record in records {
            if inner.proves(&record) {
                proven.push(record);
            }
        }
        proven.sort_by_key(|record| record.range.start());
        for record in &proven {
            let sector = u64::from(supply.facts().sector_bytes);
            let whole = record.range.start().0 % sector == 0
                && record.range.end().0 % sector == 0;
            if budget > 0 && whole && record.state == State::Data {
                budget = budget.saturating_sub(record.range.length().0);
                first.push((record.range, record.digest));
            }
        }
        if !first.is_empty() && !supply.changed(&first)?.is_empty() {
            // The filesystem was used since: old and new must not mix.
            proven.clear();
            inner.map.start_over(identity)?;
            inner
                .data
                .set_length(ByteCount(0))
                .map_err(|error| write_error("empty the spool", error))?;
        }
        for record in proven {
            inner.known.insert(record.range);
            match record.state {
                State::Data => inner.zero.remove(record.range),
                State::Zero => inner.zero.insert(record.range),
            }
        }
        inner.resumed = inner.known.bytes();
        Ok(Self { supply, inner: Mutex::new(inner) })
    }

    /// Bytes that an earlier run had left.
    #[must_use]
    pub fn resumed(&self) -> ByteCount {
        ByteCount(self.lock().resumed)
    }

    /// Notes all that has arrived, so that a later run finds it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::LocalIo`] when that cannot be written.
    pub fn note(&self) -> Result<()> {
        self.lock().note(self.supply.now())
    }

    /// The supply.
    pub const fn supply(&self) -> &S {
        &self.supply
    }

    /// Makes the file a raw image of `keep`: everything else in it becomes
    /// zero again, and it gets this length.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::LocalIo`] when the file cannot be written.
    pub fn make_raw(&self, keep: &RangeSet, length: ByteCount) -> Result<()> {
        let mut inner = self.lock();
        inner.note(self.supply.now())?;
        let zeros = vec![0; 64 * 1024];
        let held: Vec<ByteRange> = inner.known.iter().collect();
        for range in held.into_iter().flat_map(|r| keep.missing(r)) {
            for part in range.cut(zeros.len() as u64) {
                let bytes = usize::try_from(part.length().0)
                    .ok()
                    .and_then(|length| zeros.get(..length))
                    .unwrap_or(&[]);
                let at = inner.place(part.start())?;
                inner
                    .data
                    .write_at(at, bytes)
                    .map_err(|error| write_error("write the image", error))?;
            }
        }
        let end = inner.place(ByteOffset(length.0))?;
        inner
            .data
            .set_length(ByteCount(end.0))
            .map_err(|error| write_error("end the image", error))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The parts of `range` that lie within the source and are not here.
    fn missing(&self, inner: &Inner, ranges: &[ByteRange]) -> Vec<ByteRange> {
        let end = ByteOffset(self.supply.facts().length.0);
        ranges
            .iter()
            .filter_map(|range| within(*range, end))
            .flat_map(|range| inner.known.missing(range))
            .collect()
    }
}

impl<S> Drop for Spool<S> {
    fn drop(&mut self) {
        let inner =
            self.inner.get_mut().unwrap_or_else(PoisonError::into_inner);
        // Whoever cared has called `note` and seen the error.
        let _ = inner.note(Duration::ZERO);
    }
}

impl<S: Supply> BlockSource for Spool<S> {
    fn facts(&self) -> &SourceFacts {
        self.supply.facts()
    }

    fn read(
        &self,
        ranges: &[ByteRange],
        each: &mut dyn FnMut(Piece<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        let mut inner = self.lock();
        let missing = self.missing(&inner, ranges);
        if !missing.is_empty() {
            self.supply.want(&missing, Priority::Structure);
            while missing.iter().any(|&range| !inner.known.contains(range)) {
                self.supply.arrive(&mut |piece| inner.take_in(piece))?;
                if let Some(error) = inner.failed.take() {
                    return Err(error);
                }
                inner.note_if_due(self.supply.now())?;
            }
        }
        let end = ByteOffset(self.supply.facts().length.0);
        for &range in ranges {
            if let Some(inside) = within(range, end)
                && inner.deliver(inside, each)?.is_break()
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
        let mut held = Vec::new();
        for range in ranges.iter().flat_map(|r| r.cut(READ_BYTES_MAX)) {
            if inner.known.contains(range)
                && inner.bad.within(range).next().is_none()
            {
                held.push((range, inner.digest(range)?));
            }
        }
        for range in self.supply.changed(&held)? {
            inner.known.remove(range);
            inner.zero.remove(range);
        }
        Ok(())
    }
}

impl Inner {
    fn place(&self, at: ByteOffset) -> Result<ByteOffset> {
        at.checked_add(ByteCount(self.options.offset.0)).ok_or_else(|| {
            Error::new(
                ErrorKind::Internal,
                "a place in the spool exceeds 64 bits",
            )
        })
    }

    /// Takes in what arrived; trouble is kept for whoever reads.
    fn take_in(&mut self, piece: Piece<'_>) {
        if self.failed.is_none()
            && let Err(error) = self.try_take_in(piece)
        {
            self.failed = Some(error);
        }
    }

    fn try_take_in(&mut self, piece: Piece<'_>) -> Result<()> {
        let Some(range) = ByteRange::new(piece.at, piece.what.length()) else {
            return Ok(());
        };
        for part in self.known.missing(range) {
            match piece.what {
                Payload::Bytes(bytes) => {
                    let bytes = slice(bytes, range, part);
                    let at = self.place(part.start())?;
                    self.data.write_at(at, bytes).map_err(|error| {
                        write_error("write the spool", error)
                    })?;
                    self.map.add(Record::data(part, bytes));
                }
                Payload::Zero(_) => {
                    // The place may hold what an earlier run could not
                    // prove.
                    self.zero.insert(part);
                    self.blank(part)?;
                    self.map.add(Record::zero(part));
                }
                Payload::Unreadable(..) => self.bad.insert(part),
            }
            self.known.insert(part);
            self.unnoted_bytes =
                self.unnoted_bytes.saturating_add(part.length().0);
        }
        Ok(())
    }

    /// Makes a part of the file zero, if anything may be there.
    fn blank(&mut self, part: ByteRange) -> Result<()> {
        if !self.map.may_have_leftovers() {
            return Ok(());
        }
        let zeros = vec![0; 64 * 1024];
        for part in part.cut(zeros.len() as u64) {
            let at = self.place(part.start())?;
            let length = usize::try_from(part.length().0).unwrap_or(0);
            self.data
                .write_at(at, zeros.get(..length).unwrap_or(&[]))
                .map_err(|error| write_error("write the spool", error))?;
        }
        Ok(())
    }

    fn note_if_due(&mut self, now: Duration) -> Result<()> {
        if self.unnoted_bytes >= NOTE_BYTES
            || now.saturating_sub(self.noted) >= NOTE_INTERVAL
        {
            self.note(now)?;
        }
        Ok(())
    }

    fn note(&mut self, now: Duration) -> Result<()> {
        if self.map.has_pending() {
            if self.options.sync {
                self.data
                    .sync()
                    .map_err(|error| write_error("sync the spool", error))?;
            }
            self.map.write(self.options.sync)?;
        }
        self.noted = now;
        self.unnoted_bytes = 0;
        Ok(())
    }

    /// Whether the file holds what `record` says.
    fn proves(&self, record: &Record) -> bool {
        match record.state {
            State::Zero => true,
            State::Data => {
                self.digest(record.range).is_ok_and(|d| d == record.digest)
            }
        }
    }

    fn digest(&self, range: ByteRange) -> Result<Digest> {
        let mut hasher = blake3::Hasher::new();
        let mut buffer = Vec::new();
        for part in range.cut(READ_BYTES_MAX) {
            hasher.update(self.read_back(part, &mut buffer)?);
        }
        Ok(*hasher.finalize().as_bytes())
    }

    fn read_back<'b>(
        &self,
        part: ByteRange,
        buffer: &'b mut Vec<u8>,
    ) -> Result<&'b [u8]> {
        let length = usize::try_from(part.length().0).unwrap_or(usize::MAX);
        buffer.resize(length, 0);
        // A part known to be zero may lie behind the end of the file.
        if self.zero.contains(part) {
            buffer.fill(0);
            return Ok(buffer);
        }
        let zeros: Vec<ByteRange> = self.zero.within(part).collect();
        let mut at = part.start();
        let ends = zeros
            .iter()
            .copied()
            .chain(ByteRange::between(part.end(), part.end()));
        for zero in ends {
            if let Some(data) = ByteRange::between(at, zero.start())
                && !data.is_empty()
            {
                let place = self.place(data.start())?;
                let room = slice_mut(buffer, part, data);
                self.data.read_at(place, room).map_err(|error| {
                    Error::io("cannot read back the spool", error)
                })?;
            }
            slice_mut(buffer, part, zero).fill(0);
            at = zero.end();
        }
        Ok(buffer)
    }

    /// Hands over what is known of `range`.
    fn deliver(
        &self,
        range: ByteRange,
        each: &mut dyn FnMut(Piece<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>> {
        let mut buffer = Vec::new();
        let bad: Vec<ByteRange> = self.bad.within(range).collect();
        let mut at = range.start();
        let ends =
            bad.into_iter().chain(ByteRange::between(range.end(), range.end()));
        for bad in ends {
            let good = ByteRange::between(at, bad.start());
            for part in good.into_iter().flat_map(|g| g.cut(READ_BYTES_MAX)) {
                if self.deliver_good(part, &mut buffer, each)?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
            if !bad.is_empty() {
                let what = Payload::Unreadable(bad.length(), ReadFault::Medium);
                if each(Piece { at: bad.start(), what }).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
            at = bad.end();
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Readable bytes: as zeros where all of a piece is known to be.
    fn deliver_good(
        &self,
        part: ByteRange,
        buffer: &mut Vec<u8>,
        each: &mut dyn FnMut(Piece<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>> {
        let zero = |range: ByteRange| self.zero.contains(range);
        let mut pieces = part.cut(PIECE_ALIGN).peekable();
        while let Some(first) = pieces.next() {
            let is_zero = zero(first);
            let mut end = first.end();
            while let Some(next) = pieces.next_if(|p| zero(*p) == is_zero) {
                end = next.end();
            }
            let Some(run) = ByteRange::between(first.start(), end) else {
                continue;
            };
            let what = if is_zero {
                Payload::Zero(run.length())
            } else {
                Payload::Bytes(self.read_back(run, buffer)?)
            };
            if each(Piece { at: run.start(), what }).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
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

fn slice_mut(bytes: &mut [u8], whole: ByteRange, part: ByteRange) -> &mut [u8] {
    match span(whole, part).and_then(|span| bytes.get_mut(span)) {
        Some(bytes) => bytes,
        None => &mut [],
    }
}

fn span(whole: ByteRange, part: ByteRange) -> Option<std::ops::Range<usize>> {
    let start = part.start().checked_since(whole.start())?;
    let start = usize::try_from(start.0).ok()?;
    let length = usize::try_from(part.length().0).ok()?;
    Some(start..start.checked_add(length)?)
}

fn write_error(what: &str, error: std::io::Error) -> Error {
    Error::io(format!("cannot {what}"), error)
        .intact("what arrived before is kept")
        .hint("make room and give the same command again")
}
