//! What every observer for people keeps: how far the job is, and what
//! happened.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::cli::progress::incidents::Incidents;
use crate::cli::progress::{Meter, Pulse, Reading};
use crate::observer::Event;

/// Keeps what the events of a job say.
#[derive(Debug)]
pub(super) struct Watch {
    meter: Arc<Mutex<Meter>>,
    incidents: Mutex<Incidents>,
}

impl Watch {
    pub(super) fn new(quiet: bool, verbose: bool) -> Self {
        Self {
            meter: Arc::default(),
            incidents: Mutex::new(Incidents::new(quiet, verbose)),
        }
    }

    /// Shows how far the job is, again and again, also when nothing moves.
    pub(super) fn pulse(
        &self,
        every: Duration,
        show: impl Fn(&Reading) + Send + 'static,
    ) -> Pulse {
        let meter = Arc::clone(&self.meter);
        Pulse::start(every, move || {
            let reading = meter
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .read(Instant::now());
            if let Some(reading) = reading {
                show(&reading);
            }
        })
    }

    /// Takes an event; the line that it is worth.
    pub(super) fn note(&self, event: &Event<'_>) -> Option<String> {
        self.meter
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .note(event, Instant::now());
        self.incidents
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .line(event)
    }

    /// The last line: what was not told one by one.
    pub(super) fn rest(&mut self) -> Option<String> {
        let incidents = self.incidents.get_mut();
        incidents.unwrap_or_else(PoisonError::into_inner).rest()
    }
}
