//! Progress where there is no terminal: a line every ten seconds.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::cli::progress::incidents::{Incidents, printable};
use crate::cli::progress::{Meter, Pulse, Reading, phase_names};
use crate::cli::speaker::Stream;
use crate::observer::{Event, Observer};
use crate::text;
use crate::units::ByteCount;

const EVERY: Duration = Duration::from_secs(10);

/// Writes lines on standard error.
#[derive(Debug)]
pub(in crate::cli) struct Lines {
    meter: Arc<Mutex<Meter>>,
    incidents: Mutex<Incidents>,
    _pulse: Option<Pulse>,
}

impl Lines {
    /// With `quiet` there are no progress lines.
    pub(in crate::cli) fn new(quiet: bool, verbose: bool) -> Self {
        let meter = Arc::new(Mutex::new(Meter::default()));
        let pulse = (!quiet).then(|| {
            let meter = Arc::clone(&meter);
            Pulse::start(EVERY, move || {
                let reading = meter
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .read(Instant::now());
                if let Some(reading) = reading {
                    Stream::Stderr.say(&printable(&sentence(&reading)));
                }
            })
        });
        Self {
            meter,
            incidents: Mutex::new(Incidents::new(quiet, verbose)),
            _pulse: pulse,
        }
    }
}

impl Observer for Lines {
    fn event(&self, event: &Event<'_>) {
        self.meter
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .note(event, Instant::now());
        let line = self
            .incidents
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .line(event);
        if let Some(line) = line {
            Stream::Stderr.say(&printable(&line));
        }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        let incidents =
            self.incidents.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(rest) = incidents.rest() {
            Stream::Stderr.say(&printable(&rest));
        }
    }
}

fn sentence(reading: &Reading) -> String {
    let (_, doing) = phase_names(reading.phase);
    let mut line = doing.to_owned();
    if reading.total > 0 {
        let percent =
            u128::from(reading.done) * 100 / u128::from(reading.total);
        line.push_str(&format!(
            ": {} of {} ({percent} %), {}/s",
            text::bytes(ByteCount(reading.done)),
            text::bytes(ByteCount(reading.total)),
            text::bytes(ByteCount(reading.rate)),
        ));
    }
    if reading.idle >= EVERY.as_secs() {
        let idle = text::duration(reading.idle);
        line.push_str(&format!(", nothing moved for {idle}"));
    } else if let Some(left) = reading.left {
        line.push_str(&format!(", {} left", text::duration(left)));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observer::Phase;

    #[test]
    fn a_line_says_how_far_how_fast_and_how_long() {
        let mut reading = Reading {
            phase: Phase::Copy,
            done: 512 << 20,
            total: 2 << 30,
            rate: 64 << 20,
            left: Some(24),
            idle: 0,
        };
        assert_eq!(
            sentence(&reading),
            "copying: 512.0 MiB of 2.0 GiB (25 %), 64.0 MiB/s, 24 s left"
        );
        reading.idle = 75;
        assert!(sentence(&reading).ends_with("nothing moved for 1 min 15 s"));
        let sync = Reading {
            phase: Phase::Sync,
            total: 0,
            idle: 0,
            left: None,
            ..reading
        };
        assert_eq!(sentence(&sync), "syncing");
    }
}
