//! The host side of e2wire: understands ext2/3/4, decides which blocks
//! matter, and writes, verifies and installs images of them.
//!
//! Every verb is source -> plan -> sink. A [`source::BlockSource`] is anything
//! blocks can be read from; the walker in [`ext`] says which blocks matter
//! and never reads one itself; an [`image::ImageSink`] turns them into an
//! image. Only `commands` joins them.

pub mod batch;
pub mod block_set;
pub mod cli;
pub mod commands;
pub mod digest;
pub mod error;
pub mod ext;
pub mod identify;
pub mod image;
pub mod install;
pub mod inventory;
pub mod local;
pub mod manifest;
pub mod mapfile;
pub mod observer;
pub mod output;
pub mod random;
pub mod range_set;
pub mod remote;
pub mod rescue;
pub mod source;
pub mod spool;
pub mod stop;
#[cfg(test)]
mod testing;
pub mod text;
pub mod transfer;
pub mod undo;

/// The units that everything here counts in.
pub use e2wire_protocol::units;
