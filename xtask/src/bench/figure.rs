//! The report: what was measured and what it has to reach.

use anyhow::{Result, ensure};

/// What a figure has to reach.
#[derive(Clone, Copy)]
pub(super) enum Goal {
    AtLeast(f64),
    AtMost(f64),
    /// Shown for orientation.
    None,
}

/// A figure of the report.
pub(super) struct Figure {
    /// The number of the target it belongs to.
    pub(super) target: &'static str,
    pub(super) sample: &'static str,
    pub(super) what: &'static str,
    pub(super) value: f64,
    pub(super) spread: (f64, f64),
    pub(super) goal: Goal,
    /// The times behind it.
    pub(super) note: String,
}

impl Figure {
    fn reached(&self) -> Option<bool> {
        match self.goal {
            Goal::AtLeast(least) => Some(self.value >= least),
            Goal::AtMost(most) => Some(self.value <= most),
            Goal::None => None,
        }
    }

    fn print(&self, json: bool) {
        let (low, high) = self.spread;
        let goal = match self.goal {
            Goal::AtLeast(least) => format!(">= {least}"),
            Goal::AtMost(most) => format!("<= {most}"),
            Goal::None => String::new(),
        };
        if json {
            let line = serde_json::json!({
                "target": self.target, "sample": self.sample,
                "what": self.what, "value": self.value,
                "low": low, "high": high, "goal": goal,
                "reached": self.reached(), "note": self.note,
            });
            println!("{line}");
            return;
        }
        let verdict = match self.reached() {
            Some(true) => "pass",
            Some(false) => "FAIL",
            None => "",
        };
        println!(
            "{:2} {:9} {:36} {:>8.2} ({:.2} to {:.2})  {:8} {:4}  {}",
            self.target,
            self.sample,
            self.what,
            self.value,
            low,
            high,
            goal,
            verdict,
            self.note
        );
    }
}

/// All figures of a report, printed as they come.
pub(super) struct Figures {
    json: bool,
    list: Vec<Figure>,
}

impl Figures {
    /// None yet; printed for people, or as JSON.
    pub(super) const fn new(json: bool) -> Self {
        Self { json, list: Vec::new() }
    }

    pub(super) fn add(&mut self, figure: Figure) {
        figure.print(self.json);
        self.list.push(figure);
    }

    /// What is the same each time.
    pub(super) fn exact(
        &mut self,
        target: &'static str,
        sample: &'static str,
        what: &'static str,
        value: f64,
        goal: Goal,
        note: String,
    ) {
        let spread = (value, value);
        self.add(Figure { target, sample, what, value, spread, goal, note });
    }

    /// Fails when a target is missed.
    pub(super) fn judge(&self) -> Result<()> {
        let missed =
            self.list.iter().filter(|f| f.reached() == Some(false)).count();
        ensure!(missed == 0, "{missed} figures miss their targets");
        Ok(())
    }
}

/// For ratios.
#[expect(
    clippy::cast_precision_loss,
    reason = "figures for people, 52 bits are plenty"
)]
pub(super) fn float(number: u64) -> f64 {
    number as f64
}
