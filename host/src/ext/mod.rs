//! ext2/3/4 as it lies on a disk: which blocks are metadata, and what is
//! wrong with them.
//!
//! Pure: bytes come in, block sets and findings go out. Nothing here reads,
//! writes, waits, prints or spawns.

#![cfg_attr(
    not(test),
    warn(clippy::arithmetic_side_effects, clippy::as_conversions)
)]

mod assemble;
mod careful;
mod checks;
mod checksums;
pub mod claims;
mod copies;
pub mod directory;
mod disguised;
mod extents;
pub mod fields;
pub mod finding;
pub mod groups;
mod head;
pub mod inode;
pub mod journal;
pub mod journalled;
pub mod kind;
mod live;
mod maps;
mod nodes;
mod probe;
mod scan;
mod select;
pub mod superblock;
mod tables;
pub mod walk;
mod walker;
pub mod xattr;

pub use checks::Checks;
pub use finding::{Finding, Findings};
pub use kind::BlockKind;
pub use walk::{
    Geometry, Group, JournalMode, Level, Scope, Selection, Step, Traced, Walk,
    WalkOptions,
};
pub use walker::Walker;
