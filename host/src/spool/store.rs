//! What of a source is here already: a sparse file with every byte at its
//! place, and the map that proves it.
//!
//! After opening, the file holds what the map proves and zeros everywhere
//! else, whatever an earlier run had left there.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};
use crate::output::OutputFile;
use crate::range_set::RangeSet;
use crate::source::{PIECE_ALIGN, Payload, Piece};
use crate::spool::map::{Identity, Map, Record, State};
use crate::units::{ByteCount, ByteOffset, ByteRange};

/// One piece at most that is read back at once.
pub(super) const READ_BYTES_MAX: u64 = 1 << 20;

/// What has arrived is noted in the map at least so often, and whenever so
/// much is not noted yet.
const NOTE_INTERVAL: Duration = Duration::from_secs(2);
const NOTE_BYTES: u64 = 64 << 20;

/// When a store is opened again, so much from its beginning is compared with
/// the device: a filesystem that was used since has another superblock.
const CHECK_BYTES: u64 = 256 << 10;

/// How a store writes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct StoreOptions {
    /// Where in the file the source's first byte lies.
    pub offset: ByteOffset,
    /// Bring data to the disk before the map says that it is there.
    pub sync: bool,
    /// So much at most is not noted in the map yet.
    pub note_bytes: u64,
}

impl StoreOptions {
    /// The usual ones.
    #[must_use]
    pub const fn new(offset: ByteOffset, sync: bool) -> Self {
        Self { offset, sync, note_bytes: NOTE_BYTES }
    }
}

/// A store that a source and a sink share.
#[derive(Clone)]
pub struct SharedStore(Arc<Mutex<Store>>);

impl SharedStore {
    /// Shares `store`.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self(Arc::new(Mutex::new(store)))
    }

    /// The store, alone.
    pub fn lock(&self) -> MutexGuard<'_, Store> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See the module.
pub struct Store {
    data: Box<dyn OutputFile>,
    map: Map,
    identity: Identity,
    options: StoreOptions,
    /// All that is here, and of that: what is zero.
    known: RangeSet,
    zero: RangeSet,
    /// The data that earlier runs have proven, until it is checked.
    proven: Vec<(ByteRange, Digest)>,
    /// How much of that is compared with the device.
    check_bytes: u64,
    /// When the map was written last.
    noted: Duration,
    unnoted_bytes: u64,
    resumed: u64,
}

impl Store {
    /// A store in `data` with its map in `map`. What an earlier run left is
    /// taken over as far as its digests prove it; nothing else stays.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Refused`] when the map is of another device or of a job
    /// with other options; [`ErrorKind::LocalIo`] when a file cannot be
    /// read or written.
    pub fn open(
        data: Box<dyn OutputFile>,
        map: Box<dyn OutputFile>,
        identity: &Identity,
        options: StoreOptions,
    ) -> Result<Self> {
        let length = data
            .length()
            .map_err(|e| Error::io("cannot look at what has arrived", e))?;
        // A map without its file was left by a run that ended well.
        let (map, records) =
            Map::open(map, identity, options.sync, length.0 == 0)?;
        let mut store = Self {
            data,
            map,
            identity: identity.clone(),
            options,
            known: RangeSet::new(),
            zero: RangeSet::new(),
            proven: Vec::new(),
            check_bytes: CHECK_BYTES,
            noted: Duration::ZERO,
            unnoted_bytes: 0,
            resumed: 0,
        };
        for record in &records {
            if store.proves(record) {
                store.know(record);
                if record.state == State::Data {
                    store.proven.push((record.range, record.digest));
                }
            }
        }
        store.clean(length)?;
        store.resumed = store.known.bytes();
        Ok(store)
    }

    /// Makes everything zero that is not known.
    fn clean(&mut self, length: ByteCount) -> Result<()> {
        if self.known.is_empty() && length.0 > 0 {
            return self.empty();
        }
        let mut held = RangeSet::new();
        for range in self.known.iter() {
            for zero in self.zero.missing(range) {
                let start = self.place(zero.start())?;
                held.extend(ByteRange::new(start, zero.length()));
            }
        }
        let Some(file) = ByteRange::new(ByteOffset(0), length) else {
            return Ok(());
        };
        for gap in held.missing(file) {
            self.data.discard(gap).map_err(|error| {
                write_error("clear what an unfinished run left", error)
            })?;
        }
        Ok(())
    }

    fn empty(&mut self) -> Result<()> {
        self.data
            .set_length(ByteCount(0))
            .map_err(|error| write_error("empty what has arrived", error))
    }

    /// Asks `changed` which of some ranges the device holds otherwise now.
    /// If there is one, the filesystem was used since: old and new must not
    /// mix, and everything is forgotten. `sector` is the unit that `changed`
    /// can speak of.
    ///
    /// # Errors
    ///
    /// What `changed` answers; [`ErrorKind::LocalIo`] as for opening.
    pub fn check(
        &mut self,
        sector: u64,
        changed: impl FnOnce(&[(ByteRange, Digest)]) -> Result<Vec<ByteRange>>,
    ) -> Result<()> {
        if self.known.is_empty() {
            return Ok(());
        }
        let mut proven = std::mem::take(&mut self.proven);
        proven.sort_unstable();
        let mut budget = self.check_bytes;
        let mut first = Vec::new();
        let mut is_odd = false;
        for (range, digest) in proven {
            let whole = range.start().0.is_multiple_of(sector)
                && range.end().0.is_multiple_of(sector);
            // A later record may have overtaken this one.
            if whole && budget > 0 && self.digest(range)? == digest {
                budget = budget.saturating_sub(range.length().0);
                first.push((range, digest));
            }
            is_odd |= !whole;
        }
        // Where all has to be compared, nothing else may stay.
        let is_open = is_odd && self.check_bytes == u64::MAX;
        if first.is_empty() || is_open || !changed(&first)?.is_empty() {
            self.start_over()?;
        }
        Ok(())
    }

    /// Forgets everything.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::LocalIo`] as for opening.
    pub fn start_over(&mut self) -> Result<()> {
        self.known.clear();
        self.zero.clear();
        self.proven.clear();
        self.unnoted_bytes = 0;
        self.resumed = 0;
        self.map.start_over(&self.identity, self.options.sync)?;
        self.empty()
    }

    /// Bytes that an earlier run had left.
    #[must_use]
    pub const fn resumed(&self) -> ByteCount {
        ByteCount(self.resumed)
    }

    /// Whether a later run could go on from here.
    #[must_use]
    pub const fn is_noted(&self) -> bool {
        self.map.has_records()
    }

    /// All that is here.
    #[must_use]
    pub const fn known(&self) -> &RangeSet {
        &self.known
    }

    /// Keeps bytes.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::LocalIo`] when they cannot be written.
    pub fn put(&mut self, at: ByteOffset, bytes: &[u8]) -> Result<()> {
        let length = ByteCount(crate::units::u64_from(bytes.len()));
        let Some(range) = ByteRange::new(at, length) else { return Ok(()) };
        let place = self.place(at)?;
        self.data
            .write_at(place, bytes)
            .map_err(|error| write_error("write what has arrived", error))?;
        let record = Record::data(range, *blake3::hash(bytes).as_bytes());
        self.know(&record);
        self.add(record);
        Ok(())
    }

    /// Keeps that all of `range` is zero.
    pub fn put_zero(&mut self, range: ByteRange) {
        let record = Record::zero(range);
        self.know(&record);
        self.add(record);
    }

    /// Takes over all that `other` holds, as if an earlier run had left it
    /// here; [`Self::check`] will compare all of it with the device.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::LocalIo`] when one cannot be read or the other written.
    pub fn adopt(&mut self, other: &Self) -> Result<()> {
        let mut buffer = Vec::new();
        for range in other.known.iter().flat_map(|r| r.cut(READ_BYTES_MAX)) {
            let mut at = range.start();
            while let Some(rest) = ByteRange::between(at, range.end())
                && !rest.is_empty()
            {
                let piece = other.piece(rest, &mut buffer)?;
                let length = piece.what.length();
                let part = ByteRange::new(at, length).unwrap_or(rest);
                match piece.what {
                    Payload::Bytes(bytes) => self.put(at, bytes)?,
                    _ => self.put_zero(part),
                }
                self.proven.push((part, self.digest(part)?));
                at = at.checked_add(length).unwrap_or(range.end());
            }
        }
        self.resumed = self.known.bytes();
        self.check_bytes = u64::MAX;
        Ok(())
    }

    /// Somebody else wrote these bytes to the file, or they are zero and
    /// `None`: the map shall say so. Nothing is read back from here.
    pub fn add_written(&mut self, range: ByteRange, digest: Option<Digest>) {
        self.add(match digest {
            Some(digest) => Record::data(range, digest),
            None => Record::zero(range),
        });
    }

    fn add(&mut self, record: Record) {
        let bytes = record.range.length().0;
        self.unnoted_bytes = self.unnoted_bytes.saturating_add(bytes);
        self.map.add(record);
    }

    fn know(&mut self, record: &Record) {
        self.known.insert(record.range);
        match record.state {
            State::Data => self.zero.remove(record.range),
            State::Zero => self.zero.insert(record.range),
        }
    }

    /// Whether it is time to write the map.
    #[must_use]
    pub fn is_due(&self, now: Duration) -> bool {
        self.unnoted_bytes >= self.options.note_bytes
            || now.saturating_sub(self.noted) >= NOTE_INTERVAL
    }

    /// Notes all that has arrived, so that a later run finds it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::LocalIo`] when that cannot be written.
    pub fn note(&mut self, now: Duration) -> Result<()> {
        if self.map.has_pending() {
            if self.options.sync {
                self.data.sync().map_err(|error| {
                    write_error("bring to the disk what has arrived", error)
                })?;
            }
            self.map.write(self.options.sync)?;
        }
        self.noted = now;
        self.unnoted_bytes = 0;
        Ok(())
    }

    /// Makes everything zero again that is here and not in `keep`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::LocalIo`] when the file cannot be written.
    pub fn keep_only(&mut self, keep: &RangeSet) -> Result<()> {
        let held: Vec<ByteRange> = self.known.iter().collect();
        for range in held.into_iter().flat_map(|range| keep.missing(range)) {
            let start = self.place(range.start())?;
            let Some(place) = ByteRange::new(start, range.length()) else {
                continue;
            };
            self.data.discard(place).map_err(|error| {
                write_error("clear what the image does not hold", error)
            })?;
        }
        Ok(())
    }

    /// Whether the file holds what `record` says.
    fn proves(&self, record: &Record) -> bool {
        match record.state {
            State::Zero => true,
            State::Data => self
                .digest_of(record.range, &RangeSet::new())
                .is_ok_and(|digest| digest == record.digest),
        }
    }

    /// The digest of what is here of `range`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::LocalIo`] when it cannot be read back.
    pub fn digest(&self, range: ByteRange) -> Result<Digest> {
        self.digest_of(range, &self.zero)
    }

    fn digest_of(&self, range: ByteRange, zero: &RangeSet) -> Result<Digest> {
        let mut hasher = blake3::Hasher::new();
        let mut buffer = Vec::new();
        for part in range.cut(READ_BYTES_MAX) {
            self.read_back(part, zero, &mut buffer)?;
            hasher.update(&buffer);
        }
        Ok(*hasher.finalize().as_bytes())
    }

    /// Fills `buffer` with `range`, all of which is here.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::LocalIo`] when it cannot be read back.
    pub(super) fn read_known(
        &self,
        range: ByteRange,
        buffer: &mut Vec<u8>,
    ) -> Result<()> {
        self.read_back(range, &self.zero, buffer)
    }

    /// Fills `buffer` with what the file holds of `part`, and zeros where
    /// that is `zero`: there the file may have ended.
    fn read_back(
        &self,
        part: ByteRange,
        zero: &RangeSet,
        buffer: &mut Vec<u8>,
    ) -> Result<()> {
        let length = usize::try_from(part.length().0).unwrap_or(usize::MAX);
        buffer.clear();
        buffer.resize(length, 0);
        for data in zero.missing(part) {
            let place = self.place(data.start())?;
            let start = data.start().checked_since(part.start());
            let start = start.and_then(|s| usize::try_from(s.0).ok());
            let length = usize::try_from(data.length().0).ok();
            let room = start.zip(length).and_then(|(start, length)| {
                buffer.get_mut(start..start.checked_add(length)?)
            });
            self.data.read_at(place, room.unwrap_or(&mut [])).map_err(
                |error| Error::io("cannot read back what has arrived", error),
            )?;
        }
        Ok(())
    }

    /// The next piece at the beginning of `range`, all of which is here: as
    /// zeros where all of it is known to be.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::LocalIo`] when it cannot be read back.
    pub fn piece<'b>(
        &self,
        range: ByteRange,
        buffer: &'b mut Vec<u8>,
    ) -> Result<Piece<'b>> {
        let mut pieces = range.cut(PIECE_ALIGN);
        let is_zero = |part: ByteRange| self.zero.contains(part);
        let first = pieces.next().unwrap_or(range);
        let kind = is_zero(first);
        let start = first.start().0;
        let end = pieces
            .take_while(|part| {
                is_zero(*part) == kind
                    && part.end().0.saturating_sub(start) <= READ_BYTES_MAX
            })
            .last()
            .map_or(first.end(), |last| last.end());
        let run = ByteRange::between(first.start(), end).unwrap_or(first);
        let what = if kind {
            Payload::Zero(run.length())
        } else {
            self.read_back(run, &self.zero, buffer)?;
            Payload::Bytes(buffer)
        };
        Ok(Piece { at: run.start(), what })
    }

    fn place(&self, at: ByteOffset) -> Result<ByteOffset> {
        at.checked_add(ByteCount(self.options.offset.0)).ok_or_else(|| {
            Error::new(
                ErrorKind::Internal,
                "a place in what has arrived exceeds 64 bits",
            )
        })
    }
}

fn write_error(what: &str, error: std::io::Error) -> Error {
    Error::io(format!("cannot {what}"), error)
        .intact("what arrived before is kept")
        .hint("make room and give the same command again")
}
