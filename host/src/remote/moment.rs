//! Time as a session sees it: handed in by the line, never asked for.

use std::time::Duration;

/// A moment, counted from when its line was made.
///
/// On a real line it follows the monotonic clock; in a simulation it is
/// virtual. It never runs backwards.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Moment(Duration);

impl Moment {
    /// The moment the line was made.
    pub const START: Self = Self(Duration::ZERO);

    /// The last moment there is: never.
    pub const NEVER: Self = Self(Duration::MAX);

    /// So long after the start.
    #[must_use]
    pub const fn at(since_start: Duration) -> Self {
        Self(since_start)
    }

    /// How long after the start.
    #[must_use]
    pub const fn since_start(self) -> Duration {
        self.0
    }

    /// The moment `later` from here.
    #[must_use]
    pub const fn after(self, later: Duration) -> Self {
        Self(self.0.saturating_add(later))
    }

    /// How long ago `earlier` was; nothing if it has not been yet.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}
