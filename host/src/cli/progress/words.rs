//! A reading in words, the same on a terminal and in a log.

use std::time::Duration;

use crate::cli::progress::{Reading, phase_names};
use crate::text;
use crate::units::ByteCount;

/// Nothing that moves for so long is worth saying.
const STALL: Duration = Duration::from_secs(10);

impl Reading {
    /// What is done, for people.
    pub(super) const fn doing(&self) -> &'static str {
        phase_names(self.phase).1
    }

    /// How much of how much, where that is known.
    pub(super) fn amounts(&self) -> Option<String> {
        (self.total > 0).then(|| {
            format!(
                "{} of {}",
                text::bytes(ByteCount(self.done)),
                text::bytes(ByteCount(self.total))
            )
        })
    }

    /// How much of a hundred, where that is known.
    pub(super) fn percent(&self) -> Option<u128> {
        (u128::from(self.done) * 100).checked_div(u128::from(self.total))
    }

    /// How fast.
    pub(super) fn rate(&self) -> String {
        format!("{}/s", text::bytes(ByteCount(self.rate)))
    }

    /// How long it will take, or has taken where nobody knows, or how long
    /// nothing has moved.
    pub(super) fn outlook(&self) -> String {
        if self.total > 0 && self.idle >= STALL.as_secs() {
            return format!("nothing moved for {}", text::duration(self.idle));
        }
        match self.left {
            Some(left) => format!("{} left", text::duration(left)),
            None => format!("for {}", text::duration(self.elapsed)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observer::Phase;

    #[test]
    fn a_reading_says_how_far_how_fast_and_how_long() {
        let mut reading = Reading {
            phase: Phase::Copy,
            done: 512 << 20,
            total: 2 << 30,
            rate: 64 << 20,
            left: Some(24),
            idle: 0,
            elapsed: 8,
        };
        assert_eq!(reading.amounts().unwrap(), "512.0 MiB of 2.0 GiB");
        assert_eq!(reading.percent(), Some(25));
        assert_eq!(reading.rate(), "64.0 MiB/s");
        assert_eq!(reading.outlook(), "24 s left");
        reading.idle = 75;
        assert_eq!(reading.outlook(), "nothing moved for 1 min 15 s");
    }

    #[test]
    fn without_an_end_only_the_time_is_told() {
        let reading = Reading {
            phase: Phase::Sync,
            done: 0,
            total: 0,
            rate: 0,
            left: None,
            idle: 75,
            elapsed: 75,
        };
        assert_eq!((reading.amounts(), reading.percent()), (None, None));
        assert_eq!(reading.outlook(), "for 1 min 15 s");
    }
}
