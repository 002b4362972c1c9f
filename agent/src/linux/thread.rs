//! Starting a thread, in either build.

use super::identify::CELLS;
use super::pool::WORKERS_MAX;

/// The thread that loads modules, some of which take their time.
pub(crate) const MODULES_THREAD: usize = WORKERS_MAX;

/// The first of the threads that find out who devices are.
pub(crate) const IDENTIFY_THREADS: usize = MODULES_THREAD + 1;

/// Threads that may run besides the loop: the disk workers, by their number,
/// and those above.
pub(crate) const THREADS_MAX: usize = IDENTIFY_THREADS + CELLS;

/// Bytes of a thread's stack.
pub(crate) const STACK_BYTES: usize = 16 * 1024;

/// Starts thread `number`, which calls `run(number)`; whether that worked.
/// A number is used once.
#[cfg(all(feature = "bare", panic = "abort"))]
pub(crate) fn start(number: usize, run: extern "C" fn(usize)) -> bool {
    crate::bare::start_thread(number, run)
}

/// Starts thread `number`, which calls `run(number)`; whether that worked.
/// A number is used once.
#[cfg(not(all(feature = "bare", panic = "abort")))]
pub(crate) fn start(number: usize, run: extern "C" fn(usize)) -> bool {
    number < THREADS_MAX
        && std::thread::Builder::new()
            // The standard library and debug builds need more of their own.
            .stack_size(STACK_BYTES.saturating_mul(4))
            .spawn(move || run(number))
            .is_ok()
}
