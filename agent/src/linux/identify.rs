//! Who a device is, found out where nobody waits for it: some drivers ask the
//! disk for its serial number, and a disk that hangs does not answer.
//!
//! Each cell is a thread that looks at one device at a time. It belongs to
//! the loop while it is `IDLE` or `DONE` and to its thread while it is
//! `ASKED`. A thread stuck in a dead disk is left alone; the devices behind
//! the others are listed without it.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use rustix::thread::futex;

use super::once::Once;
use super::pool;
use super::sysfs::{Device, Facts};
use super::thread::{self, IDENTIFY_THREADS};

const IDLE: u32 = 0;
const ASKED: u32 = 1;
const DONE: u32 = 2;

/// Devices that are looked at at the same time: so many less one may hang.
pub(crate) const CELLS: usize = 4;

struct Cell {
    state: AtomicU32,
    /// The number of the device.
    rdev: AtomicU64,
    found: UnsafeCell<Facts>,
}

// SAFETY: `found` is reached by its present owner only, see the module's text;
// everything else is atomic.
unsafe impl Sync for Cell {}

static SHARED: [Cell; CELLS] = [const {
    Cell {
        state: AtomicU32::new(IDLE),
        rdev: AtomicU64::new(0),
        found: UnsafeCell::new(Facts::new()),
    }
}; CELLS];

static TAKEN: Once<()> = Once::new(());

/// The loop's side. There is one.
pub(crate) struct Identifiers {
    started: [bool; CELLS],
    /// What each one is asked about: the key of an entry of the table.
    keys: [Option<u64>; CELLS],
}

impl Identifiers {
    /// For whoever asks first.
    pub(crate) fn take() -> Option<Self> {
        TAKEN.take()?;
        Some(Self { started: [false; CELLS], keys: [None; CELLS] })
    }

    /// Whether somebody looks at the device with this key.
    pub(crate) fn is_asked(&self, key: u64) -> bool {
        self.keys.contains(&Some(key))
    }

    /// Has the device with number `rdev` looked at; false when nobody is free.
    pub(crate) fn ask(&mut self, key: u64, rdev: u64) -> bool {
        let free = self.keys.iter().position(Option::is_none);
        let Some(number) = free else { return false };
        let (Some(cell), Some(started), Some(place)) = (
            SHARED.get(number),
            self.started.get_mut(number),
            self.keys.get_mut(number),
        ) else {
            return false;
        };
        let run = IDENTIFY_THREADS.saturating_add(number);
        if !*started && !thread::start(run, identify) {
            return false;
        }
        *started = true;
        *place = Some(key);
        cell.rdev.store(rdev, Ordering::Relaxed);
        cell.state.store(ASKED, Ordering::Release);
        // It may not sleep yet and then needs no waking.
        let _ = futex::wake(&cell.state, futex::Flags::PRIVATE, 1);
        true
    }

    /// Hands everything that was found out to `found`, with its key.
    pub(crate) fn collect(&mut self, mut found: impl FnMut(u64, &Facts)) {
        for (cell, place) in SHARED.iter().zip(&mut self.keys) {
            if cell.state.load(Ordering::Acquire) != DONE {
                continue;
            }
            if let Some(key) = place.take() {
                // SAFETY: it is done, so the cell is the loop's.
                found(key, unsafe { &*cell.found.get() });
            }
            cell.state.store(IDLE, Ordering::Release);
        }
    }
}

/// A thread's life.
extern "C" fn identify(thread: usize) {
    let number = thread.saturating_sub(IDENTIFY_THREADS);
    let Some(cell) = SHARED.get(number) else { return };
    loop {
        let state = cell.state.load(Ordering::Acquire);
        if state != ASKED {
            // Interrupted or woken for nothing: looked at again above.
            let _ =
                futex::wait(&cell.state, futex::Flags::PRIVATE, state, None);
            continue;
        }
        // SAFETY: it is asked, so the cell is this thread's.
        let found = unsafe { &mut *cell.found.get() };
        *found = Facts::new();
        if let Some(device) =
            Device::by_number(cell.rdev.load(Ordering::Relaxed))
        {
            device.find_identity(found);
        }
        cell.state.store(DONE, Ordering::Release);
        pool::wake_loop();
    }
}
