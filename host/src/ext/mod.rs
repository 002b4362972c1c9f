//! ext2/3/4 as it lies on a disk: which blocks are metadata, and what is
//! wrong with them.
//!
//! Pure: bytes come in, block sets and findings go out. Nothing here reads,
//! writes, waits, prints or spawns.

#![cfg_attr(
    not(test),
    warn(clippy::arithmetic_side_effects, clippy::as_conversions)
)]

pub mod finding;
pub mod kind;
pub mod walk;

pub use finding::Finding;
pub use kind::BlockKind;
pub use walk::{
    Geometry, Group, Level, Scope, Selection, Step, Walk, WalkOptions,
};
