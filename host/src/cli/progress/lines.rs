//! Progress where there is no terminal: a line every ten seconds.

use std::time::Duration;

use crate::cli::progress::incidents::printable;
use crate::cli::progress::watch::Watch;
use crate::cli::progress::{Pulse, Reading};
use crate::cli::speaker::Stream;
use crate::observer::{Event, Observer};

const EVERY: Duration = Duration::from_secs(10);

/// Writes lines on standard error.
#[derive(Debug)]
pub(in crate::cli) struct Lines {
    watch: Watch,
    _pulse: Option<Pulse>,
}

impl Lines {
    /// With `quiet` there are no progress lines.
    pub(in crate::cli) fn new(quiet: bool, verbose: bool) -> Self {
        let watch = Watch::new(quiet, verbose);
        let pulse = (!quiet).then(|| {
            watch.pulse(EVERY, |reading| {
                Stream::Stderr.say(&printable(&sentence(reading)));
            })
        });
        Self { watch, _pulse: pulse }
    }
}

impl Observer for Lines {
    fn event(&self, event: &Event<'_>) {
        if let Some(line) = self.watch.note(event) {
            Stream::Stderr.say(&printable(&line));
        }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        if let Some(rest) = self.watch.rest() {
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
