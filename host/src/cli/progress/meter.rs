//! Turns "so much of so much" into a rate and the time left. Has no clock of
//! its own.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::observer::{Event, Phase};

/// The rate is that of the last quarter of a minute: an average over a whole
/// job would hide that a line has become slow.
const WINDOW: Duration = Duration::from_secs(15);

/// At most so many samples, each at least a quarter of a second apart.
const SAMPLES_MAX: usize = 64;
const SAMPLE_EVERY: Duration = Duration::from_millis(250);

/// What is known now.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::cli) struct Reading {
    /// The current part of the job.
    pub(in crate::cli) phase: Phase,
    /// Bytes done in it.
    pub(in crate::cli) done: u64,
    /// Bytes to do in it, as far as is known.
    pub(in crate::cli) total: u64,
    /// Bytes a second, lately.
    pub(in crate::cli) rate: u64,
    /// Seconds left at that rate.
    pub(in crate::cli) left: Option<u64>,
    /// Seconds since anything moved.
    pub(in crate::cli) idle: u64,
    /// Seconds since this part began.
    pub(in crate::cli) elapsed: u64,
}

/// Keeps the last samples of a job's progress.
#[derive(Debug, Default)]
pub(in crate::cli) struct Meter {
    current: Option<Current>,
}

#[derive(Debug)]
struct Current {
    phase: Phase,
    done: u64,
    total: u64,
    begun: Instant,
    moved: Instant,
    samples: VecDeque<(Instant, u64)>,
}

impl Meter {
    /// Takes in an event that happened at `now`.
    pub(in crate::cli) fn note(&mut self, event: &Event<'_>, now: Instant) {
        match event {
            Event::Phase(phase) => {
                self.current = Some(Current {
                    phase: *phase,
                    done: 0,
                    total: 0,
                    begun: now,
                    moved: now,
                    samples: VecDeque::from([(now, 0)]),
                });
            }
            Event::Progress { done, total } => {
                if let Some(current) = &mut self.current {
                    current.progress(done.0, total.0, now);
                }
            }
            _ => {}
        }
    }

    /// How far the job is at `now`; nothing before its first phase.
    pub(in crate::cli) fn read(&self, now: Instant) -> Option<Reading> {
        let current = self.current.as_ref()?;
        let rate = current.rate(now);
        let missing = current.total.saturating_sub(current.done);
        Some(Reading {
            phase: current.phase,
            done: current.done,
            total: current.total,
            rate,
            left: missing.checked_div(rate).filter(|_| current.total > 0),
            idle: now.saturating_duration_since(current.moved).as_secs(),
            elapsed: now.saturating_duration_since(current.begun).as_secs(),
        })
    }
}

impl Current {
    fn progress(&mut self, done: u64, total: u64, now: Instant) {
        if done != self.done || total != self.total {
            self.moved = now;
        }
        self.total = total;
        if done < self.done {
            // The walk began anew.
            self.samples.clear();
            self.samples.push_back((now, done));
        }
        self.done = done;
        let fresh = self.samples.back().is_some_and(|(at, _)| {
            now.saturating_duration_since(*at) < SAMPLE_EVERY
        });
        if !fresh {
            self.samples.push_back((now, done));
        }
        // One sample before the window stays, to measure from.
        while self.samples.len() > SAMPLES_MAX
            || self.samples.get(1).is_some_and(|(at, _)| {
                now.saturating_duration_since(*at) >= WINDOW
            })
        {
            self.samples.pop_front();
        }
    }

    fn rate(&self, now: Instant) -> u64 {
        let Some((since, from)) = self.samples.front() else { return 0 };
        let millis = now.saturating_duration_since(*since).as_millis().max(1);
        let bytes = u128::from(self.done.saturating_sub(*from));
        u64::try_from(bytes * 1000 / millis).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::ByteCount;

    fn progress(done: u64, total: u64) -> Event<'static> {
        Event::Progress { done: ByteCount(done), total: ByteCount(total) }
    }

    #[test]
    fn the_rate_is_that_of_the_last_seconds() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut meter = Meter::default();
        assert_eq!(meter.read(start), None);
        meter.note(&Event::Phase(Phase::Copy), start);
        for second in 1..=60 {
            meter.note(&progress(second * 1000, 100_000), at(second));
        }
        let steady = meter.read(at(60)).unwrap();
        assert_eq!((steady.rate, steady.left), (1000, Some(40)));
        for second in 61..=100 {
            let done = 60_000 + (second - 60) * 10;
            meter.note(&progress(done, 100_000), at(second));
        }
        assert_eq!(meter.read(at(100)).unwrap().rate, 10);
    }

    #[test]
    fn standing_still_is_told_and_has_no_end() {
        let start = Instant::now();
        let mut meter = Meter::default();
        meter.note(&Event::Phase(Phase::Walk), start);
        let later = start + Duration::from_secs(40);
        let reading = meter.read(later).unwrap();
        assert_eq!((reading.rate, reading.left, reading.idle), (0, None, 40));
    }

    #[test]
    fn a_walk_that_begins_anew_does_not_count_backwards() {
        let start = Instant::now();
        let mut meter = Meter::default();
        meter.note(&Event::Phase(Phase::Walk), start);
        let second = Duration::from_secs(1);
        meter.note(&progress(50_000, 90_000), start + second);
        meter.note(&progress(0, 10_000), start + 2 * second);
        meter.note(&progress(3000, 10_000), start + 5 * second);
        assert_eq!(meter.read(start + 5 * second).unwrap().rate, 1000);
    }

    #[test]
    fn many_events_keep_few_samples() {
        let start = Instant::now();
        let mut meter = Meter::default();
        meter.note(&Event::Phase(Phase::Walk), start);
        for step in 0..10_000_u64 {
            let now = start + Duration::from_millis(step * 3);
            meter.note(&progress(step, 10_000), now);
        }
        let samples = &meter.current.unwrap().samples;
        assert!(samples.len() <= SAMPLES_MAX, "{}", samples.len());
    }
}
