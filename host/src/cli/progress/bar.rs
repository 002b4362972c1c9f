//! Progress on a terminal: one line that moves.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::cli::progress::incidents::{Incidents, printable};
use crate::cli::progress::phase_names;
use crate::cli::speaker::Stream;
use crate::observer::{Event, Observer};

/// The bar is redrawn this often even when nothing moves, so that the time
/// goes on.
const REDRAW: Duration = Duration::from_millis(500);

/// Below so many columns the bar itself and the sizes are left out.
const NARROW: u16 = 60;

/// Draws on standard error.
#[derive(Debug)]
pub(in crate::cli) struct Bar {
    bar: ProgressBar,
    incidents: Mutex<Incidents>,
}

impl Bar {
    /// A bar on a terminal of this width.
    pub(in crate::cli) fn new(columns: u16, verbose: bool) -> Self {
        let bar =
            ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        bar.set_style(style(columns));
        Self { bar, incidents: Mutex::new(Incidents::new(false, verbose)) }
    }

    fn say(&self, line: &str) {
        self.bar.suspend(|| Stream::Stderr.say(&printable(line)));
    }
}

const fn template(columns: u16) -> &'static str {
    if columns < NARROW {
        "{prefix} {percent}% {binary_bytes_per_sec} {eta} left"
    } else {
        "{prefix} [{wide_bar}] {binary_bytes} of {binary_total_bytes}, \
         {binary_bytes_per_sec}, {eta} left"
    }
}

fn style(columns: u16) -> ProgressStyle {
    ProgressStyle::with_template(template(columns))
        // No reason to end a job; the test keeps the templates right.
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}

impl Observer for Bar {
    fn event(&self, event: &Event<'_>) {
        match event {
            Event::Phase(phase) => {
                let (_, doing) = phase_names(*phase);
                self.bar.reset();
                self.bar.set_length(0);
                self.bar.set_prefix(doing);
                self.bar.enable_steady_tick(REDRAW);
            }
            Event::Progress { done, total } => {
                if self.bar.length() != Some(total.0) {
                    self.bar.set_length(total.0);
                }
                self.bar.set_position(done.0);
            }
            _ => {
                let line = self
                    .incidents
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .line(event);
                if let Some(line) = line {
                    self.say(&line);
                }
            }
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
        let incidents =
            self.incidents.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(rest) = incidents.rest() {
            Stream::Stderr.say(&printable(&rest));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_templates_are_understood() {
        for columns in [0, 20, 200] {
            let parsed = ProgressStyle::with_template(template(columns));
            assert!(parsed.is_ok(), "{}", template(columns));
        }
    }
}
