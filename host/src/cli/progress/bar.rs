//! Progress on a terminal: one line that moves.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::cli::progress::incidents::printable;
use crate::cli::progress::watch::Watch;
use crate::cli::progress::{Pulse, Reading};
use crate::cli::speaker::Stream;
use crate::observer::{Event, Observer};

/// The line is drawn this often, also when nothing moves.
const REDRAW: Duration = Duration::from_millis(250);

/// Below so many columns the bar itself and the sizes are left out.
const NARROW: u16 = 70;

/// With a bar, where it is known how much there is to do.
const WIDE: &str = "{prefix} [{wide_bar}] {msg}";
const PLAIN: &str = "{prefix} {wide_msg}";

/// Draws on standard error.
#[derive(Debug)]
pub(in crate::cli) struct Bar {
    bar: ProgressBar,
    watch: Watch,
    pulse: Option<Pulse>,
}

impl Bar {
    /// A bar on a terminal of this width.
    pub(in crate::cli) fn new(columns: u16, verbose: bool) -> Self {
        let bar =
            ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        let watch = Watch::new(false, verbose);
        let drawn = bar.clone();
        let pulse =
            watch.pulse(REDRAW, move |reading| draw(&drawn, reading, columns));
        Self { bar, watch, pulse: Some(pulse) }
    }

    fn say(&self, line: &str) {
        self.bar.suspend(|| Stream::Stderr.say(&printable(line)));
    }
}

fn draw(bar: &ProgressBar, reading: &Reading, columns: u16) {
    bar.set_prefix(reading.doing());
    let outlook = reading.outlook();
    match (reading.amounts(), reading.percent()) {
        (Some(amounts), _) if columns >= NARROW => {
            bar.set_style(style(WIDE));
            bar.set_length(reading.total);
            bar.set_position(reading.done);
            let rate = reading.rate();
            bar.set_message(format!("{amounts}, {rate}, {outlook}"));
        }
        (Some(_), Some(percent)) => {
            bar.set_style(style(PLAIN));
            bar.set_message(format!("{percent} %, {outlook}"));
        }
        _ => {
            bar.set_style(style(PLAIN));
            bar.set_message(outlook);
        }
    }
    bar.tick();
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        // No reason to end a job; the test keeps the templates right.
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}

impl Observer for Bar {
    fn event(&self, event: &Event<'_>) {
        if let Some(line) = self.watch.note(event) {
            self.say(&line);
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        // Nothing draws any more when the line is cleared.
        self.pulse = None;
        self.bar.finish_and_clear();
        if let Some(rest) = self.watch.rest() {
            Stream::Stderr.say(&printable(&rest));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_templates_are_understood() {
        for template in [WIDE, PLAIN] {
            assert!(ProgressStyle::with_template(template).is_ok());
        }
    }
}
