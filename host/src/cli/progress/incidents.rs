//! What happens on the way and is worth a line: warnings always, findings
//! and holes up to a number, so that a wrecked disk does not flood the
//! screen.

use crate::observer::Event;
use crate::text;

/// How many findings and holes are shown one by one.
const SHOWN: u64 = 10;

/// Decides which events become lines.
#[derive(Debug)]
pub(super) struct Incidents {
    shown_max: u64,
    seen: u64,
}

impl Incidents {
    /// All when `verbose`, none but warnings when `quiet`.
    pub(super) const fn new(quiet: bool, verbose: bool) -> Self {
        let shown_max = match (quiet, verbose) {
            (true, _) => 0,
            (_, true) => u64::MAX,
            _ => SHOWN,
        };
        Self { shown_max, seen: 0 }
    }

    /// The line for `event`, if it deserves one.
    pub(super) fn line(&mut self, event: &Event<'_>) -> Option<String> {
        let line = match event {
            Event::Warning { message, .. } => {
                return Some(format!("warning: {message}"));
            }
            Event::Console(text) => {
                return (self.shown_max > 0)
                    .then(|| format!("console: {text}"));
            }
            Event::AgentLog { level, time, text } => {
                let level = level.unwrap_or("unreadable");
                let time = time.unwrap_or("-");
                return Some(format!("agent: {time} {level}: {text}"));
            }
            Event::Finding(finding) => format!("found: {finding}"),
            Event::Hole { run, fault } => {
                let first = run.first().0;
                match run.count().0 {
                    1 => format!("hole: block {first}: {fault}"),
                    count => {
                        format!("hole: {count} blocks from {first}: {fault}")
                    }
                }
            }
            _ => return None,
        };
        self.seen = self.seen.saturating_add(1);
        (self.seen <= self.shown_max).then_some(line)
    }

    /// What to say at the end about those that were not shown.
    pub(super) fn rest(&self) -> Option<String> {
        let rest = self.seen.saturating_sub(self.shown_max);
        (rest > 0 && self.shown_max > 0).then(|| {
            format!("and {rest} more findings and holes (--verbose shows all)")
        })
    }
}

/// The line as the terminal gets it.
pub(super) fn printable(line: &str) -> String {
    format!("e2wire: {}\n", text::escape(line))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::ReadFault;
    use crate::units::{BlockCount, BlockNumber, BlockRun};

    fn hole(first: u64, count: u64) -> Event<'static> {
        let run = BlockRun::new(BlockNumber(first), BlockCount(count));
        Event::Hole { run: run.unwrap(), fault: ReadFault::Medium }
    }

    #[test]
    fn a_flood_is_cut_and_counted() {
        let mut incidents = Incidents::new(false, false);
        let lines: Vec<String> =
            (0..25).filter_map(|n| incidents.line(&hole(n, 1))).collect();
        assert_eq!(lines.len(), 10);
        assert_eq!(lines[3], "hole: block 3: read error");
        assert!(incidents.rest().unwrap().starts_with("and 15 more"));
    }

    #[test]
    fn quiet_leaves_only_warnings() {
        let mut incidents = Incidents::new(true, false);
        assert_eq!(incidents.line(&hole(5, 2)), None);
        let message = "mounted".to_owned();
        let warning = Event::Warning { code: "mounted_rw", message };
        assert!(incidents.line(&warning).is_some());
        assert_eq!(incidents.rest(), None);
    }
}
