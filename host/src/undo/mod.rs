//! Plans that write over a device, and the undo file that holds one.
//!
//! A plan is a list of entries: a place, what must lie there (old) and what
//! will lie there (new). The undo file holds the whole plan with the bytes of
//! both sides, and is on the disk before the first write. So it serves three
//! ends: an interrupted install goes on from it, an undo is the install of
//! its mirror, and an expert can see what was done.
//!
//! This room knows the file and the order of writing. It does not know how a
//! device is written, nor which blocks an install should touch.

#![cfg_attr(
    not(test),
    warn(clippy::arithmetic_side_effects, clippy::as_conversions)
)]

mod entry;
mod file;

pub use entry::{Entry, Stage, plan_digest};
pub use file::{Facts, MAGIC, UndoFile, UndoWriter};
