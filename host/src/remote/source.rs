//! A device at the other end of a session, as what a spool is filled from.

mod compare;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use e2wire_protocol::chunk::{Layout, Ranges, RunKind, SectorRange};
use e2wire_protocol::limits::{CHUNK_BYTES_MAX, SECTOR_BYTES, SPAN_BYTES_MAX};
use e2wire_protocol::message::DeviceFlags;

use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};
use crate::range_set::RangeSet;
use crate::remote::client::{DeviceRecord, Fetched};
use crate::remote::search::Scout;
use crate::remote::session::{Session, trouble_error};
use crate::source::{
    BlockSource, Comparer, DiskIdentity, Each, Found, Payload, Piece, Priority,
    ReadFault, Search, SourceFacts, SourceKind,
};
use crate::spool::Supply;
use crate::units::{ByteCount, ByteOffset, ByteRange};

/// Whoever reads a filesystem's superblock reads what lies behind it next: on
/// a quick line so much of it is asked for without waiting.
const AHEAD_BYTES: u64 = CHUNK_BYTES_MAX as u64;

/// A device at the other end of a session, from an offset to its end.
pub struct RemoteDevice<'w> {
    session: Arc<Mutex<Session<'w>>>,
    device: DeviceRecord,
    base: u64,
    facts: SourceFacts,
    /// The beginning was wanted, and what lies behind it along with it.
    begun: AtomicBool,
}

impl<'w> RemoteDevice<'w> {
    /// The source's byte 0 is the device's byte `base`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Usage`] when `base` is no multiple of 512 or lies beyond
    /// the end of the device.
    pub fn new(
        session: Arc<Mutex<Session<'w>>>,
        device: DeviceRecord,
        base: ByteOffset,
    ) -> Result<Self> {
        let bad = |what: &str| {
            Error::new(
                ErrorKind::Usage,
                format!("offset {base} {what} {}", device.name),
            )
        };
        if !base.0.is_multiple_of(SECTOR_BYTES as u64) {
            return Err(bad("starts at no sector of"));
        }
        let Some(length) = device.size.checked_sub(base.0) else {
            return Err(bad("lies beyond the end of"));
        };
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let facts = SourceFacts {
            name: display_name(&device, &lock(&session).name()),
            kind: SourceKind::Remote,
            length: ByteCount(length),
            sector_bytes: device.logical_sector.max(512),
            file: None,
            disk: DiskIdentity {
                model: text(&device.model),
                serial: text(&device.serial),
                wwn: text(&device.wwn),
            },
            mounted_rw: device.flags.has(DeviceFlags::MOUNTED_READ_WRITE),
        };
        let begun = AtomicBool::new(false);
        Ok(Self { session, device, base: base.0, facts, begun })
    }

    /// The device, as the agent lists it.
    #[must_use]
    pub const fn device(&self) -> &DeviceRecord {
        &self.device
    }

    /// The session.
    pub fn session(&self) -> MutexGuard<'_, Session<'w>> {
        lock(&self.session)
    }

    /// `range` on the device, made whole logical sectors.
    fn on_device(&self, range: ByteRange) -> Option<ByteRange> {
        let sector = u64::from(self.facts.sector_bytes);
        let start = range.start().0.checked_add(self.base)?;
        let end = range.end().0.checked_add(self.base)?;
        let start = start - start % sector;
        let end = end.checked_next_multiple_of(sector)?.min(self.device.size);
        ByteRange::between(ByteOffset(start), ByteOffset(end))
    }

    fn ask_for(&self, ranges: &[ByteRange], priority: Priority) {
        let ranges: Vec<ByteRange> =
            ranges.iter().filter_map(|r| self.on_device(*r)).collect();
        self.session().want(self.device.id, &ranges, priority);
    }

    /// Hands over what arrived, in addresses of the source.
    fn hand_over(
        &self,
        fetched: &Fetched,
        each: &mut dyn FnMut(Piece<'_>),
    ) -> Result<()> {
        let body = match &fetched.body {
            Ok(body) => body,
            Err(trouble) => {
                let name = self.session().name();
                return Err(trouble_error(*trouble, &name));
            }
        };
        let layout =
            Layout::check(body, fetched.ranges.sectors()).map_err(|error| {
                Error::new(ErrorKind::Protocol, "a chunk has no valid layout")
                    .because(error)
            })?;
        let mut places = Places::new(&fetched.ranges);
        for run in layout {
            let mut bytes = run.bytes;
            let mut left = run.sectors as u64 * SECTOR_BYTES as u64;
            while left > 0 {
                let Some(part) = places.next(left) else { return Ok(()) };
                left -= part.length().0;
                let length = usize::try_from(part.length().0).unwrap_or(0);
                let (now, rest) = bytes.split_at(length.min(bytes.len()));
                bytes = rest;
                let what = match run.kind {
                    RunKind::Data => Payload::Bytes(now),
                    RunKind::Zero => Payload::Zero(part.length()),
                    RunKind::Unreadable => {
                        Payload::Unreadable(part.length(), ReadFault::Medium)
                    }
                };
                self.piece(part.start(), what, each);
            }
        }
        Ok(())
    }

    /// One piece of the device, without what lies before the source.
    fn piece(
        &self,
        at: ByteOffset,
        what: Payload<'_>,
        each: &mut dyn FnMut(Piece<'_>),
    ) {
        let before = self.base.saturating_sub(at.0);
        let length = what.length().0;
        if before >= length {
            return;
        }
        let left = ByteCount(length - before);
        let what = match what {
            Payload::Bytes(bytes) => {
                let skip = usize::try_from(before).unwrap_or(usize::MAX);
                Payload::Bytes(bytes.get(skip..).unwrap_or(&[]))
            }
            Payload::Zero(_) => Payload::Zero(left),
            Payload::Unreadable(_, why) => Payload::Unreadable(left, why),
        };
        each(Piece { at: ByteOffset(at.0 + before - self.base), what });
    }
}

/// What users and errors call a device: its name there, and where that is.
fn display_name(device: &DeviceRecord, line: &str) -> String {
    if device.name.starts_with('/') {
        format!("{} at {line}", device.name)
    } else {
        format!("/dev/{} at {line}", device.name)
    }
}

impl Supply for RemoteDevice<'_> {
    fn facts(&self) -> &SourceFacts {
        &self.facts
    }

    fn now(&self) -> Duration {
        self.session().now().since_start()
    }

    fn comparer(&self) -> Option<&dyn Comparer> {
        self.session().client().is_slow().then_some(self)
    }

    fn want(&self, ranges: &[ByteRange], priority: Priority) {
        self.ask_for(ranges, priority);
        let begins = ranges.first().is_some_and(|r| r.start().0 < AHEAD_BYTES);
        if begins
            && !self.session().client().is_slow()
            && !self.begun.swap(true, Ordering::Relaxed)
        {
            let length = ByteCount(AHEAD_BYTES.min(self.facts.length.0));
            let ahead = ByteRange::new(ByteOffset(0), length);
            self.ask_for(ahead.as_slice(), Priority::Payload);
        }
    }

    fn arrive(&self, each: &mut dyn FnMut(Piece<'_>)) -> Result<()> {
        let fetched = self.session().fetched()?;
        // What another device was looked at for, and is late.
        if fetched.device != self.device.id {
            return Ok(());
        }
        self.hand_over(&fetched, each)
    }

    fn changed(
        &self,
        ranges: &[(ByteRange, Digest)],
    ) -> Result<Vec<ByteRange>> {
        let mut changed = Vec::new();
        let mut asked = Vec::new();
        for (range, digest) in ranges {
            let sectors = self
                .on_device(*range)
                .filter(|there| {
                    there.length() == range.length()
                        && there.length().0 <= SPAN_BYTES_MAX
                })
                .and_then(SectorRange::from_bytes);
            match sectors {
                Some(sectors) => asked.push((*range, sectors, digest)),
                // The agent cannot digest parts of a sector: read it again.
                None => changed.push(*range),
            }
        }
        let sectors: Vec<SectorRange> =
            asked.iter().map(|(_, sectors, _)| *sectors).collect();
        let digests = self.session().digests(self.device.id, &sectors)?;
        for ((range, _, digest), now) in asked.into_iter().zip(digests) {
            if now.0 != *digest {
                changed.push(range);
            }
        }
        Ok(changed)
    }

    fn search(&self, search: Search<'_>) -> Result<Option<Found>> {
        let sector = u64::from(self.facts.sector_bytes);
        let scout = Scout { sector, base: self.base, sought: search.sought };
        let mut finder = (&mut *self.session(), self.device.id);
        scout.run(&mut finder, search.ranges, search.progress).map(Some)
    }
}

/// Without a spool: for a look at a few places.
impl BlockSource for RemoteDevice<'_> {
    fn facts(&self) -> &SourceFacts {
        &self.facts
    }

    fn differing(
        &self,
        ranges: &[(ByteRange, Digest)],
    ) -> Result<Vec<ByteRange>> {
        self.changed(ranges)
    }

    fn search(&self, search: Search<'_>) -> Result<Option<Found>> {
        Supply::search(self, search)
    }

    /// An agent answers for a few seconds from what it has read, but never
    /// across a flush.
    fn recheck(&self, _: &[ByteRange]) -> Result<()> {
        self.session().flush(self.device.id)
    }

    fn read(&self, ranges: &[ByteRange], each: Each<'_>) -> Result<()> {
        let end = ByteOffset(self.facts.length.0);
        let mut missing = RangeSet::new();
        for range in ranges {
            let inside = range.end().min(end).max(range.start());
            missing.extend(ByteRange::between(range.start(), inside));
            if let Some(beyond) = ByteRange::between(inside, range.end())
                && !beyond.is_empty()
            {
                let length = beyond.length();
                let what = Payload::Unreadable(length, ReadFault::BeyondEnd);
                if each(Piece { at: inside, what }).is_break() {
                    return Ok(());
                }
            }
        }
        let wanted: Vec<ByteRange> = missing.iter().collect();
        self.ask_for(&wanted, Priority::Structure);
        let mut over = false;
        while !missing.is_empty() && !over {
            self.arrive(&mut |piece| {
                let Some(range) = ByteRange::new(piece.at, piece.what.length())
                else {
                    return;
                };
                let parts: Vec<ByteRange> = missing.within(range).collect();
                for part in parts {
                    missing.remove(part);
                    // Neighbours are one in the set, and were asked for as
                    // several.
                    for part in at_edges(part, ranges) {
                        over = over || each(clip(&piece, part)).is_break();
                    }
                }
            })?;
        }
        Ok(())
    }
}

/// `part` cut where one of `ranges`, which are sorted and disjoint, ends and
/// the next begins.
fn at_edges(
    part: ByteRange,
    ranges: &[ByteRange],
) -> impl Iterator<Item = ByteRange> + '_ {
    let first = ranges.partition_point(|range| range.end() <= part.start());
    let inside = ranges.get(first..).unwrap_or_default().iter();
    inside.take_while(move |range| range.start() < part.end()).filter_map(
        move |range| {
            let start = part.start().max(range.start());
            ByteRange::between(start, part.end().min(range.end()))
        },
    )
}

/// `part` of a piece.
fn clip<'a>(piece: &Piece<'a>, part: ByteRange) -> Piece<'a> {
    let what = match piece.what {
        Payload::Bytes(bytes) => {
            let skip = part.start().0.saturating_sub(piece.at.0);
            let start = usize::try_from(skip).unwrap_or(usize::MAX);
            let length = usize::try_from(part.length().0).unwrap_or(usize::MAX);
            let end = start.saturating_add(length);
            Payload::Bytes(bytes.get(start..end).unwrap_or(&[]))
        }
        Payload::Zero(_) => Payload::Zero(part.length()),
        Payload::Unreadable(_, why) => Payload::Unreadable(part.length(), why),
    };
    Piece { at: part.start(), what }
}

fn lock<'a, 'w>(
    session: &'a Mutex<Session<'w>>,
) -> MutexGuard<'a, Session<'w>> {
    session.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The bytes of a chunk's ranges, one behind the other.
struct Places {
    ranges: Vec<ByteRange>,
    index: usize,
    done: u64,
}

impl Places {
    fn new(ranges: &Ranges) -> Self {
        let ranges = ranges.iter().map(SectorRange::bytes).collect();
        Self { ranges, index: 0, done: 0 }
    }

    /// The next bytes, at most `most` of them.
    fn next(&mut self, most: u64) -> Option<ByteRange> {
        let range = self.ranges.get(self.index)?;
        let start = ByteOffset(range.start().0.checked_add(self.done)?);
        let left = range.end().0.checked_sub(start.0)?;
        let length = left.min(most);
        if length == left {
            self.index += 1;
            self.done = 0;
        } else {
            self.done += length;
        }
        ByteRange::new(start, ByteCount(length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::range;

    #[test]
    fn what_arrives_is_cut_where_one_range_ends_and_the_next_begins() {
        let ranges = [range(0, 10), range(10, 10), range(30, 5)];
        let cut = |part| at_edges(part, &ranges).collect::<Vec<_>>();
        assert_eq!(cut(range(0, 20)), [range(0, 10), range(10, 10)]);
        assert_eq!(cut(range(5, 10)), [range(5, 5), range(10, 5)]);
        assert_eq!(cut(range(12, 3)), [range(12, 3)]);
        assert_eq!(cut(range(30, 5)), [range(30, 5)]);
    }
}
