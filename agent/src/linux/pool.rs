//! The disk workers: threads that wait for disks, so that the loop never
//! does.
//!
//! A worker serves one device at a time and keeps it open. Jobs travel in
//! slots. A slot belongs to the loop while it is `FREE` or `DONE` and to the
//! worker while it is `QUEUED`; the atomic state hands over all the rest of
//! it. Everything is static: a worker stuck in a dead disk is left alone, and
//! its slot with it, for as long as the kernel keeps it.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicI32, AtomicU8, AtomicU32, Ordering};

use e2wire_agent::device::{DeviceFault, SectorMap, Slot};
use e2wire_agent::memory::{SLOT_BYTES, SLOTS_MAX};
use e2wire_protocol::limits::RANGES_MAX;
use e2wire_protocol::units::{ByteRange, usize_from};
use heapless::Vec;
use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::thread::futex;

use super::block::{OpenDevice, Target};
use super::once::Once;

/// The most devices that are worked on at the same time.
pub(crate) const WORKERS_MAX: usize = 12;

/// A power of two, so that the index stays right when the count wraps.
const QUEUE_PLACES: usize = SLOTS_MAX.next_power_of_two();

const FREE: u32 = 0;
const QUEUED: u32 = 1;
const DONE: u32 = 2;

/// What a worker shall do with its device.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Task {
    /// Read the ranges.
    Read,
    /// Flush its cache.
    Flush,
    /// Open it for writing, for us alone.
    Claim,
    /// Let go of it.
    Unclaim,
    /// Write the slot's buffer to the one range.
    Write,
}

/// All that a worker needs to know of a job, and what came of it.
pub(crate) struct Work {
    /// What to do.
    pub(crate) task: Task,
    /// Where.
    pub(crate) target: Target,
    /// What to read or write.
    pub(crate) ranges: Vec<ByteRange, RANGES_MAX>,
    /// Which sectors could not be read.
    pub(crate) unreadable: SectorMap,
    /// Bytes that were read.
    pub(crate) length: usize,
    /// It came to nothing.
    pub(crate) failed: bool,
    /// Why.
    pub(crate) fault: DeviceFault,
}

/// A slot's buffer, aligned for direct I/O on any sector size up to a page.
#[repr(C, align(4096))]
pub(crate) struct Buffer(pub(crate) [u8; SLOT_BYTES]);

struct SlotCell {
    state: AtomicU32,
    done: AtomicU32,
    work: UnsafeCell<Work>,
    buffer: UnsafeCell<Buffer>,
}

struct Worker {
    /// Jobs given so far; what the worker sleeps on.
    given: AtomicU32,
    /// Slots given and not yet begun: a ring with room for all there are.
    queue: [AtomicU8; QUEUE_PLACES],
}

struct Shared {
    slots: [SlotCell; SLOTS_MAX],
    workers: [Worker; WORKERS_MAX],
    /// The descriptor that wakes the loop, plus one; 0 before there is one.
    wake: AtomicI32,
}

// SAFETY: `work` and `buffer` of a slot are reached by its present owner only,
// see the module's text; everything else is atomic.
unsafe impl Sync for Shared {}

// All zeros, so that it takes no place in the program file.
static SHARED: Shared = Shared {
    slots: [const {
        SlotCell {
            state: AtomicU32::new(FREE),
            done: AtomicU32::new(0),
            work: UnsafeCell::new(Work {
                task: Task::Read,
                target: Target::NONE,
                ranges: Vec::new(),
                unreadable: SectorMap::new(),
                length: 0,
                failed: false,
                fault: DeviceFault::Gone,
            }),
            buffer: UnsafeCell::new(Buffer([0; SLOT_BYTES])),
        }
    }; SLOTS_MAX],
    workers: [const {
        Worker {
            given: AtomicU32::new(0),
            queue: [const { AtomicU8::new(0) }; QUEUE_PLACES],
        }
    }; WORKERS_MAX],
    wake: AtomicI32::new(0),
};

static TAKEN: Once<()> = Once::new(());

/// What the loop knows of a worker.
#[derive(Clone, Copy, Debug, Default)]
struct Assigned {
    started: bool,
    /// The device it serves, by the key of its target; 0 for none.
    key: u64,
    /// Its jobs that are not released yet.
    jobs: usize,
}

/// How a job stands, seen by the loop.
pub(crate) enum Stage<'a> {
    /// Nothing was given to this slot.
    Free,
    /// Bytes done so far.
    Running(u32),
    /// It ended, with these bytes.
    Ended(&'a Work, &'a [u8]),
}

/// The loop's side of all slots and workers. There is one.
pub(crate) struct Pool {
    workers: [Assigned; WORKERS_MAX],
    /// The worker of each slot in use.
    slots: [Option<usize>; SLOTS_MAX],
    wake: OwnedFd,
}

impl Pool {
    /// The pool, for whoever asks first.
    ///
    /// # Errors
    ///
    /// The kernel gives no event descriptor, or the pool is taken (`BUSY`).
    pub(crate) fn take() -> Result<Self, Errno> {
        TAKEN.take().ok_or(Errno::BUSY)?;
        let wake = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        let number = wake.as_raw_fd().saturating_add(1);
        SHARED.wake.store(number, Ordering::Release);
        Ok(Self { workers: Default::default(), slots: [None; SLOTS_MAX], wake })
    }

    /// Becomes readable when a job has ended.
    pub(crate) fn wake_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    /// Makes `wake_fd` unreadable until the next job ends.
    pub(crate) fn clear_wake(&self) {
        // An empty counter is no error worth telling.
        let _ = rustix::io::read(&self.wake, &mut [0; 8]);
    }

    /// Gives a job to the worker of its device. `describe` fills in the
    /// work and, for a write, the buffer of the slot.
    ///
    /// # Errors
    ///
    /// The slot is in use, or all workers serve other devices.
    pub(crate) fn submit(
        &mut self,
        slot: Slot,
        key: u64,
        describe: impl FnOnce(&mut Work, &mut Buffer),
    ) -> Result<(), DeviceFault> {
        let index = usize::from(slot.0);
        let (Some(cell), Some(None)) =
            (SHARED.slots.get(index), self.slots.get(index))
        else {
            return Err(DeviceFault::NoWorker);
        };
        let number = self.worker_for(key).ok_or(DeviceFault::NoWorker)?;
        let (Some(worker), Some(assigned)) =
            (SHARED.workers.get(number), self.workers.get_mut(number))
        else {
            return Err(DeviceFault::NoWorker);
        };
        // SAFETY: the slot is free, so it is the loop's.
        let (work, buffer) =
            unsafe { (&mut *cell.work.get(), &mut *cell.buffer.get()) };
        describe(work, buffer);
        cell.done.store(0, Ordering::Relaxed);
        cell.state.store(QUEUED, Ordering::Release);
        let given = worker.given.load(Ordering::Relaxed);
        if let Some(place) = worker.queue.get(ring_index(given)) {
            place.store(slot.0, Ordering::Relaxed);
        }
        worker.given.store(given.wrapping_add(1), Ordering::Release);
        // It may be busy and then needs no waking.
        let _ = futex::wake(&worker.given, futex::Flags::PRIVATE, 1);
        assigned.jobs = assigned.jobs.saturating_add(1);
        if let Some(place) = self.slots.get_mut(index) {
            *place = Some(number);
        }
        Ok(())
    }

    /// The worker that serves `key`, or one that may change to it.
    fn worker_for(&mut self, key: u64) -> Option<usize> {
        let find = |wanted: &dyn Fn(&Assigned) -> bool| {
            self.workers.iter().position(wanted)
        };
        let number = find(&|worker| worker.started && worker.key == key)
            .or_else(|| find(&|worker| !worker.started))
            .or_else(|| find(&|worker| worker.jobs == 0))?;
        let worker = self.workers.get_mut(number)?;
        if !worker.started && !super::thread::start(number, work) {
            return None;
        }
        worker.started = true;
        worker.key = key;
        Some(number)
    }

    /// How the job in `slot` stands.
    pub(crate) fn poll(&self, slot: Slot) -> Stage<'_> {
        let Some(cell) = SHARED.slots.get(usize::from(slot.0)) else {
            return Stage::Free;
        };
        match cell.state.load(Ordering::Acquire) {
            DONE => {
                // SAFETY: the job has ended, so the slot is the loop's until
                // `submit`, which needs `&mut self`.
                let (work, buffer) =
                    unsafe { (&*cell.work.get(), &*cell.buffer.get()) };
                let bytes = buffer.0.get(..work.length).unwrap_or_default();
                Stage::Ended(work, bytes)
            }
            QUEUED => Stage::Running(cell.done.load(Ordering::Relaxed)),
            _ => Stage::Free,
        }
    }

    /// Frees `slot`, if its job has ended.
    pub(crate) fn release(&mut self, slot: Slot) {
        let index = usize::from(slot.0);
        let Some(cell) = SHARED.slots.get(index) else {
            return;
        };
        if cell.state.load(Ordering::Acquire) != DONE {
            return;
        }
        cell.state.store(FREE, Ordering::Release);
        let number = self.slots.get_mut(index).and_then(Option::take);
        if let Some(worker) = number.and_then(|n| self.workers.get_mut(n)) {
            worker.jobs = worker.jobs.saturating_sub(1);
        }
    }
}

fn ring_index(count: u32) -> usize {
    usize_from(count).wrapping_rem(QUEUE_PLACES)
}

/// A worker's life. Called on the worker's own thread.
extern "C" fn work(number: usize) {
    let Some(worker) = SHARED.workers.get(number) else {
        return;
    };
    let mut device = OpenDevice::none();
    let mut begun = 0_u32;
    loop {
        while worker.given.load(Ordering::Acquire) == begun {
            // Interrupted or woken for nothing: looked at again above.
            let _ =
                futex::wait(&worker.given, futex::Flags::PRIVATE, begun, None);
        }
        let slot = worker
            .queue
            .get(ring_index(begun))
            .map_or(0, |place| place.load(Ordering::Relaxed));
        begun = begun.wrapping_add(1);
        let Some(cell) = SHARED.slots.get(usize::from(slot)) else {
            continue;
        };
        // SAFETY: the slot is queued for this worker, so it is ours.
        let (work, buffer) =
            unsafe { (&mut *cell.work.get(), &mut *cell.buffer.get()) };
        device.carry_out(work, buffer, &cell.done);
        cell.state.store(DONE, Ordering::Release);
        wake_loop();
    }
}

/// Something has ended that the loop may wait for.
pub(crate) fn wake_loop() {
    let wake = SHARED.wake.load(Ordering::Acquire);
    if wake > 0 {
        let number = wake.saturating_sub(1);
        // SAFETY: the pool never closes it: there is one for ever.
        let wake = unsafe { BorrowedFd::borrow_raw(number) };
        // A full counter wakes the loop as well.
        let _ = rustix::io::write(wake, &1_u64.to_ne_bytes());
    }
}
