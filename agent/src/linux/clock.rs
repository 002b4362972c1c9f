//! The time since boot.

use e2wire_agent::clock::{Clock, Instant};
use rustix::time::{ClockId, clock_gettime};

/// `CLOCK_BOOTTIME`: it neither jumps nor stands still in a suspend.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BootClock;

impl Clock for BootClock {
    fn now(&self) -> Instant {
        let time = clock_gettime(ClockId::Boottime);
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
        Instant::from_micros(
            seconds
                .saturating_mul(1_000_000)
                .saturating_add(nanos.wrapping_div(1000)),
        )
    }
}
