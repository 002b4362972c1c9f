//! How far a job is, told to people: a bar on a terminal, a line every ten
//! seconds elsewhere. Both keep telling when nothing arrives any more: a
//! disk that hangs must not look like a program that hangs.

mod bar;
mod incidents;
mod lines;
mod meter;
mod pulse;
mod watch;
mod words;

pub(super) use bar::Bar;
pub(super) use lines::Lines;
pub(super) use meter::{Meter, Reading};
pub(super) use pulse::Pulse;

use crate::observer::Phase;

/// What a phase is called: by scripts, and in a sentence for people.
pub(super) const fn phase_names(phase: Phase) -> (&'static str, &'static str) {
    match phase {
        Phase::Walk => ("walk", "reading"),
        Phase::Search => ("search", "looking for a superblock"),
        Phase::Copy => ("copy", "copying"),
        Phase::Retry => ("retry", "trying again"),
        Phase::Verify => ("verify", "checking"),
        Phase::Write => ("write", "writing"),
        Phase::Sync => ("sync", "syncing"),
    }
}
