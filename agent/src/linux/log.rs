//! The agent's own log: defmt frames in a ring that the loop empties into
//! the library's log.
//!
//! Only the numbers of the messages and their values are kept; the texts
//! stay in the ELF, which the host has.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, Ordering};

use e2wire_agent::clock::Clock;
use heapless::Vec;

use super::clock::BootClock;

/// Bytes of frames between two turns of the loop.
const WAITING_BYTES: usize = 2048;

struct State {
    waiting: Vec<u8, WAITING_BYTES>,
    /// Where the frame being made starts.
    frame: usize,
    /// The frame being made did not fit and is dropped.
    overflow: bool,
    encoder: defmt::Encoder,
}

struct Log {
    held: AtomicBool,
    state: UnsafeCell<State>,
}

// SAFETY: the state is reached only by whoever has set `held`.
unsafe impl Sync for Log {}

static LOG: Log = Log {
    held: AtomicBool::new(false),
    state: UnsafeCell::new(State {
        waiting: Vec::new(),
        frame: 0,
        overflow: false,
        encoder: defmt::Encoder::new(),
    }),
};

impl Log {
    fn hold(&self) {
        // Held for the time of one message only, and never by a thread that
        // can be interrupted by itself: there are no signal handlers.
        while self.held.swap(true, Ordering::Acquire) {
            core::hint::spin_loop();
        }
    }

    fn let_go(&self) {
        self.held.store(false, Ordering::Release);
    }
}

impl State {
    fn keep(&mut self, write: impl FnOnce(&mut defmt::Encoder, &mut Sink<'_>)) {
        let Self { waiting, overflow, encoder, .. } = self;
        write(encoder, &mut Sink { waiting, overflow });
    }
}

struct Sink<'a> {
    waiting: &'a mut Vec<u8, WAITING_BYTES>,
    overflow: &'a mut bool,
}

impl Sink<'_> {
    fn push(&mut self, bytes: &[u8]) {
        if self.waiting.extend_from_slice(bytes).is_err() {
            *self.overflow = true;
        }
    }
}

#[defmt::global_logger]
struct Logger;

// SAFETY: acquire and release pair up around one holder of the log.
unsafe impl defmt::Logger for Logger {
    fn acquire() {
        LOG.hold();
        // SAFETY: held since the line above.
        let state = unsafe { &mut *LOG.state.get() };
        state.frame = state.waiting.len();
        state.overflow = false;
        state.keep(|encoder, sink| encoder.start_frame(|b| sink.push(b)));
    }

    unsafe fn write(bytes: &[u8]) {
        // SAFETY: called between acquire and release only.
        let state = unsafe { &mut *LOG.state.get() };
        state.keep(|encoder, sink| encoder.write(bytes, |b| sink.push(b)));
    }

    unsafe fn flush() {}

    unsafe fn release() {
        // SAFETY: called after acquire only.
        let state = unsafe { &mut *LOG.state.get() };
        state.keep(|encoder, sink| encoder.end_frame(|b| sink.push(b)));
        if state.overflow {
            state.waiting.truncate(state.frame);
        }
        LOG.let_go();
    }
}

defmt::timestamp!("{=u64:us}", BootClock.now().micros());

/// Hands all frames that wait to `take` and forgets them.
pub(crate) fn drain(take: impl FnOnce(&[u8])) {
    LOG.hold();
    // SAFETY: held since the line above. `take` must not log, or it would
    // wait for itself; the library's log does not.
    let state = unsafe { &mut *LOG.state.get() };
    if !state.waiting.is_empty() {
        take(&state.waiting);
        state.waiting.clear();
    }
    LOG.let_go();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_frames_are_kept_and_the_rest_is_dropped() {
        let frames = || {
            let mut count = 0;
            drain(|bytes| {
                assert_eq!(bytes.last(), Some(&0), "a frame ends in a zero");
                let pieces = bytes.split(|byte| *byte == 0);
                count = pieces.filter(|piece| !piece.is_empty()).count();
            });
            count
        };
        defmt::error!("one {=u32}", 1);
        defmt::error!("two");
        assert_eq!(frames(), 2);
        assert_eq!(frames(), 0);
        for _ in 0..1000 {
            defmt::error!("many {=str}", "0123456789012345678901234567890");
        }
        let kept = frames();
        assert!((10..100).contains(&kept), "{kept} kept");
        defmt::error!("again");
        assert_eq!(frames(), 1);
    }
}
