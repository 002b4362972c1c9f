//! Progress where there is no terminal: a line every ten seconds.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::cli::progress::incidents::{Incidents, printable};
use crate::cli::progress::{Meter, Pulse, Reading};
use crate::cli::speaker::Stream;
use crate::observer::{Event, Observer};

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
    let doing = reading.doing();
    let outlook = reading.outlook();
    match (reading.amounts(), reading.percent()) {
        (Some(amounts), Some(percent)) => format!(
            "{doing}: {amounts} ({percent} %), {}, {outlook}",
            reading.rate()
        ),
        _ => format!("{doing} {outlook}"),
    }
}
