//! Disks as the agent's state machine sees them: asked without waiting.
//!
//! A job is submitted into a slot and looked at again later, so a disk that
//! hangs never holds up the link. Who implements this runs the jobs elsewhere
//! (a worker per open device), owns the buffers of the slots, and wakes the
//! loop when a job ends.

use e2wire_protocol::limits::{CHUNK_BYTES_MAX, SECTOR_BYTES};
use e2wire_protocol::message::{DeviceFacts, InUse};
use e2wire_protocol::units::ByteRange;

pub use e2wire_protocol::message::{DeviceFlags, DeviceKind};

/// A device in the table of [`Devices`]. It keeps its meaning until the
/// agent ends; a device that goes away leaves its place empty.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct DeviceIndex(pub u16);

/// A place for one job and its buffer: 0 up to
/// [`SLOTS_MAX`](crate::memory::SLOTS_MAX).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Slot(pub u8);

/// What a device shall do.
#[derive(Clone, Copy, Debug)]
pub enum Job<'a> {
    /// Read these ranges one behind the other into the slot's buffer. Each
    /// starts and ends at a logical sector and within the device; at most
    /// [`RANGES_MAX`](e2wire_protocol::limits::RANGES_MAX) ranges of together
    /// at most `CHUNK_BYTES_MAX` bytes. They may touch, overlap and go
    /// backwards.
    Read(&'a [ByteRange]),
    /// Make what was written safe against a loss of power.
    Flush,
    /// Find out whether anybody uses the device, and open it for writing for
    /// ourselves alone. Nothing changes when that was done before.
    Claim,
    /// Let go of it again.
    Unclaim,
    /// Write these bytes, past all caches where the device allows it. The
    /// range starts and ends at a logical sector and within the device, and
    /// is as long as they are: at most `CHUNK_BYTES_MAX`. They are copied.
    Write(ByteRange, &'a [u8]),
}

/// Why a device does nothing at all.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DeviceFault {
    /// It went away.
    Gone,
    /// The kernel does not let us open it (errno).
    Open(u16),
    /// A job failed as a whole (errno).
    Failed(u16),
    /// No worker can be started for it now; ask again later.
    NoWorker,
    /// It is in use, so it is not claimed.
    InUse(InUse),
    /// It takes no writes.
    ReadOnly,
    /// A write without a claim, or one that was lost.
    NotClaimed,
    /// A write failed, maybe half-way (errno).
    WriteFailed(u16),
}

/// How a job stands.
#[derive(Clone, Copy, Debug)]
pub enum State<'a> {
    /// Still at it.
    Pending {
        /// Bytes of the job that are done, in the order of its ranges, as
        /// far as known: tells where a disk hangs.
        done: u32,
    },
    /// A read ended.
    Read(Sectors<'a>),
    /// Anything else ended well.
    Done,
    /// It came to nothing.
    Failed(DeviceFault),
}

/// What was read, and what could not be.
#[derive(Clone, Copy, Debug)]
pub struct Sectors<'a> {
    /// All ranges of the job one behind the other; zeros where unreadable.
    pub bytes: &'a [u8],
    /// Which of them could not be read.
    pub unreadable: &'a SectorMap,
}

/// One bit for each [`SECTOR_BYTES`] of a slot's buffer. A logical sector of
/// 4096 bytes takes eight of them.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct SectorMap {
    words: [u64; SECTOR_WORDS],
}

const SECTORS_MAX: usize = CHUNK_BYTES_MAX / SECTOR_BYTES;
const SECTOR_WORDS: usize = SECTORS_MAX / 64;
const _: () = assert!(SECTOR_WORDS * 64 == SECTORS_MAX);

impl SectorMap {
    /// No bit set.
    #[must_use]
    pub const fn new() -> Self {
        Self { words: [0; SECTOR_WORDS] }
    }

    /// Sets the bit of the sector `index`; one beyond the end is ignored.
    pub fn set(&mut self, index: usize) {
        if let Some(word) = self.words.get_mut(index.wrapping_div(64)) {
            *word |= 1 << index.wrapping_rem(64);
        }
    }

    /// Whether the bit of the sector `index` is set.
    #[must_use]
    pub fn has(&self, index: usize) -> bool {
        self.words
            .get(index.wrapping_div(64))
            .is_some_and(|word| word & (1 << index.wrapping_rem(64)) != 0)
    }

    /// Whether no bit is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    /// Clears all bits.
    pub fn clear(&mut self) {
        self.words = [0; SECTOR_WORDS];
    }
}

/// How far the devices are known.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Settled {
    /// Something has been found out since this was asked last.
    pub changed: bool,
    /// There is nothing that is not found out yet.
    pub whole: bool,
}

/// All devices of a machine.
///
/// No method may block on a disk.
pub trait Devices {
    /// Looks for devices that came or went. Called when a host asks for the
    /// list. What takes its time is found out later: see `settle`. Bounded: at most
    /// [`DEVICES_MAX`](crate::memory::DEVICES_MAX) devices are kept.
    fn rescan(&mut self);

    /// Takes up what has been found out about devices since.
    fn settle(&mut self) -> Settled {
        Settled { changed: false, whole: true }
    }

    /// What is at `index`, `None` for an empty place and beyond the table.
    /// Nobody home is no end: all indices below `DEVICES_MAX` are looked at.
    fn facts(&self, index: DeviceIndex) -> Option<DeviceFacts<'_>>;

    /// Begins `job` in `slot`. Jobs of one device are done in the order in
    /// which they begin. The slot is free: never used, or its last job was seen
    /// to have ended and was released.
    ///
    /// # Errors
    ///
    /// [`DeviceFault::Gone`], [`DeviceFault::Open`] or
    /// [`DeviceFault::NoWorker`] at once; `slot` stays free then.
    fn submit(
        &mut self,
        slot: Slot,
        index: DeviceIndex,
        job: Job<'_>,
    ) -> Result<(), DeviceFault>;

    /// How the job in `slot` stands. What was read stays readable until
    /// `release`.
    fn poll(&self, slot: Slot) -> State<'_>;

    /// The job in `slot` has ended and its result is no longer needed.
    fn release(&mut self, slot: Slot);
}
