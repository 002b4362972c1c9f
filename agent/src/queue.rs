//! Open requests of all sessions, in one table of fixed size.

use e2wire_protocol::digest::{DeviceId, RangeDigest, SessionId};
use e2wire_protocol::limits::HEAD_BYTES_MAX;
use e2wire_protocol::message::{
    Arm, DrainLog, Failure, Fetch, PowerAction, Write,
};

use crate::cache::{ChunkIndex, Key};
use crate::clock::Instant;
use crate::device::{DeviceIndex, Slot};
use crate::memory::OPEN_TOTAL_MAX;

/// A request that is not answered in full yet.
pub(crate) struct Open {
    pub(crate) number: u32,
    pub(crate) since: Instant,
    pub(crate) work: Work,
}

/// What is left to be done for a request.
///
/// A tag of its own makes `Done` all zeros; else it would be a value that no
/// fetch has, and the whole memory would lie in the program file.
#[repr(u8)]
#[expect(clippy::large_enum_variant, reason = "there is no heap to box it")]
pub(crate) enum Work {
    /// Say that it is done.
    Done,
    /// Answer a Hello.
    Hello,
    /// List the devices from `next` up to `end`.
    Devices { rescan: bool, next: u16, end: u16 },
    /// Make a chunk and send fragments of it.
    Fetch(FetchWork),
    /// Make writes safe.
    Flush { device: DeviceId, stage: Stage },
    /// Send what a log holds, as soon as it holds something or at `until`.
    Log { ask: DrainLog, until: Instant },
    /// Say that it is done and do it.
    Power(PowerAction),
    /// Send back what the line keeps.
    Echo,
    /// Let the session write.
    Arm { arm: Arm, stage: Stage },
    /// Write a range.
    Write { write: Write, stage: Stage },
    /// Let it write no more.
    Disarm { device: DeviceId, stage: Stage },
}

/// How far a fetch has come.
pub(crate) struct FetchWork {
    pub(crate) fetch: Fetch,
    pub(crate) key: Key,
    pub(crate) stage: Stage,
    /// The next fragment to be sent.
    pub(crate) next: u16,
}

impl FetchWork {
    /// Of a session, after so many flushes of it.
    pub(crate) fn new(
        fetch: Fetch,
        session: SessionId,
        flushes: u32,
    ) -> Option<Self> {
        let mut buffer = [0; HEAD_BYTES_MAX];
        let (device, codec) = (fetch.device, fetch.codec);
        let named = (session, flushes, device, &fetch.task, codec);
        let named = postcard::to_slice(&named, &mut buffer).ok()?;
        let key = RangeDigest::of(named).short();
        let next = fetch.grant.first();
        Some(Self { fetch, key, stage: Stage::New, next })
    }
}

/// How far a request that needs a device has come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Stage {
    /// Just arrived, not checked against the device.
    New,
    /// Checked; waits for a slot or for room.
    Waiting(DeviceIndex),
    /// A device works on it.
    Running(Slot),
    /// The scan works on it.
    Scanning,
    /// Its fragments can be sent.
    Ready(ChunkIndex),
    /// All is done but to say so.
    Ended,
    /// A write has ended.
    Wrote(Wrote),
    /// It came to nothing.
    Failed(Failure),
}

/// What came of a write.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Wrote {
    Written,
    AlreadyThere,
    /// Something else lies there; its digest.
    Conflict(RangeDigest),
}

/// A place in the table of open requests.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct OpenIndex(u16);

/// The table. Each session keeps the order of its own.
pub(crate) struct Queue {
    places: [Place; OPEN_TOTAL_MAX],
    count: usize,
}

struct Place {
    taken: bool,
    open: Open,
}

impl Queue {
    pub(crate) const fn new() -> Self {
        const FREE: Place = Place {
            taken: false,
            open: Open {
                number: 0,
                since: Instant::from_micros(0),
                work: Work::Done,
            },
        };
        Self { places: [FREE; OPEN_TOTAL_MAX], count: 0 }
    }

    /// How many more there is room for.
    pub(crate) fn room(&self) -> usize {
        OPEN_TOTAL_MAX.saturating_sub(self.count)
    }

    pub(crate) fn insert(&mut self, open: Open) -> Option<OpenIndex> {
        let (index, place) =
            (0..).zip(&mut self.places).find(|(_, place)| !place.taken)?;
        *place = Place { taken: true, open };
        self.count = self.count.saturating_add(1);
        Some(OpenIndex(index))
    }

    pub(crate) fn remove(&mut self, index: OpenIndex) {
        if let Some(place) = self.places.get_mut(usize::from(index.0))
            && place.taken
        {
            place.taken = false;
            place.open.work = Work::Done;
            self.count = self.count.saturating_sub(1);
        }
    }

    pub(crate) fn get(&self, index: OpenIndex) -> Option<&Open> {
        let place = self.places.get(usize::from(index.0))?;
        place.taken.then_some(&place.open)
    }

    pub(crate) fn get_mut(&mut self, index: OpenIndex) -> Option<&mut Open> {
        let place = self.places.get_mut(usize::from(index.0))?;
        place.taken.then_some(&mut place.open)
    }

    /// The fetch at `index`.
    pub(crate) fn fetch_mut(
        &mut self,
        index: OpenIndex,
    ) -> Option<&mut FetchWork> {
        match &mut self.get_mut(index)?.work {
            Work::Fetch(fetch) => Some(fetch),
            _ => None,
        }
    }

    /// The stage of the request at `index`, if it needs a device.
    pub(crate) fn stage_mut(&mut self, index: OpenIndex) -> Option<&mut Stage> {
        match &mut self.get_mut(index)?.work {
            Work::Fetch(fetch) => Some(&mut fetch.stage),
            Work::Flush { stage, .. }
            | Work::Arm { stage, .. }
            | Work::Write { stage, .. }
            | Work::Disarm { stage, .. } => Some(stage),
            _ => None,
        }
    }
}
