//! Time as the agent sees it: handed in, never asked for.
//!
//! The state machines take `now` as an argument. Only the loop around them
//! owns a [`Clock`], so one seed replays a whole job in virtual time.

use core::fmt;

/// A moment, in microseconds since an arbitrary start.
///
/// It must never run backwards. On Linux it is `CLOCK_BOOTTIME` or
/// `CLOCK_MONOTONIC`.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Instant(u64);

impl Instant {
    /// The moment `micros` microseconds after the start.
    #[must_use]
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Microseconds since the start.
    #[must_use]
    pub const fn micros(self) -> u64 {
        self.0
    }

    /// The moment `later` from here; the last one there is, if that is none.
    #[must_use]
    pub const fn after(self, later: Duration) -> Self {
        Self(self.0.saturating_add(later.0))
    }

    /// How long ago `earlier` was; nothing, if it has not been yet.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Display for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} us", self.0)
    }
}

/// A stretch of time, in microseconds.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Duration(u64);

impl Duration {
    /// `micros` microseconds.
    #[must_use]
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// `millis` milliseconds.
    #[must_use]
    pub const fn from_millis(millis: u32) -> Self {
        // 32 bits of milliseconds fit in 42 bits of microseconds.
        Self(micros_of(millis))
    }

    /// In microseconds.
    #[must_use]
    pub const fn micros(self) -> u64 {
        self.0
    }

    /// In whole milliseconds, as far as 32 bits count.
    #[must_use]
    pub fn millis_saturating(self) -> u32 {
        u32::try_from(self.0.wrapping_div(1000)).unwrap_or(u32::MAX)
    }
}

#[expect(clippy::as_conversions, reason = "u64::from is not const yet")]
const fn micros_of(millis: u32) -> u64 {
    (millis as u64).wrapping_mul(1000)
}

/// What tells the time.
pub trait Clock {
    /// The present moment; never earlier than one told before.
    fn now(&self) -> Instant;
}
