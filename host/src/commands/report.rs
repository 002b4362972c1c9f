//! How a job ended, for people and for scripts.

use serde_json::{Map, Value};

/// How a job that ran to its end came out.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Outcome {
    /// Everything that was asked for.
    #[default]
    Done,
    /// Some blocks could not be read; what they are stands in the report.
    Holes,
    /// The source changed while it was read.
    SourceChanged,
    /// The two sides of a comparison differ.
    Differs,
    /// Nothing was written: the plan waits to be confirmed.
    Unconfirmed,
}

impl Outcome {
    /// The name that scripts branch on (`status` of the `result` event).
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Done => "ok",
            Self::Holes => "holes",
            Self::SourceChanged => "source-changed",
            Self::Differs => "differs",
            Self::Unconfirmed => "unconfirmed",
        }
    }
}

/// The end of a job.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// How it came out.
    pub outcome: Outcome,
    /// What a person wants to know, a line each, without control characters
    /// of ours; names from a disk are escaped when it is printed.
    pub lines: Vec<String>,
    /// What a script wants to know: these become fields of the `result`
    /// event. Sizes are bytes, addresses numbers, digests hexadecimal.
    pub facts: Map<String, Value>,
}

impl Report {
    /// An empty report.
    #[must_use]
    pub fn new(outcome: Outcome) -> Self {
        Self { outcome, lines: Vec::new(), facts: Map::new() }
    }

    /// Adds a line for people.
    #[must_use]
    pub fn line(mut self, line: impl Into<String>) -> Self {
        self.lines.push(line.into());
        self
    }

    /// Adds a fact for scripts.
    #[must_use]
    pub fn fact(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.facts.insert(name.to_owned(), value.into());
        self
    }
}
