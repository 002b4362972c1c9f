//! The image formats: normal, raw and qcow2, written and read back.
//!
//! Every sink takes whole filesystem blocks and turns them into bytes of an
//! [`crate::output`]; every reader is a [`crate::source::BlockSource`] in
//! device addresses. Nothing here knows where the blocks come from.

#![cfg_attr(
    not(test),
    warn(clippy::arithmetic_side_effects, clippy::as_conversions)
)]

pub mod format;
pub mod normal;
pub mod qcow2;
pub mod raw;
mod shape;
mod writer;

#[cfg(test)]
mod tests;

pub use writer::Target;

use crate::block_set::BlockSet;
use crate::error::Result;
use crate::ext::{Geometry, Walk};
use crate::units::{BlockNumber, BlockRun};
use shape::Shape;

/// In which order a sink takes blocks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum WriteOrder {
    /// As they come: fed while the walk reads, each block once.
    Any,
    /// Ascending, after the walk, which then is known whole.
    Ascending,
}

/// What a sink learns before the first block.
#[derive(Clone, Copy, Debug)]
pub struct ImagePlan<'a> {
    /// The shape of the filesystem.
    pub geometry: &'a Geometry,
    /// The finished walk: always there for [`WriteOrder::Ascending`], never
    /// for [`WriteOrder::Any`].
    pub walk: Option<&'a Walk>,
}

/// Takes the selected blocks of a filesystem and makes an image of them.
///
/// Call order: `begin`, then `put`, `zero` and `hole` for every selected
/// block exactly once, in the sink's order, then `finish`. `begin` may be
/// called again at any time and starts over.
///
/// Most formats hold what the walk selected. One that holds another set, or
/// needs it in another order, says so in [`Self::passes`].
pub trait ImageSink: Send {
    /// In which order blocks must come.
    fn order(&self) -> WriteOrder;

    /// For [`WriteOrder::Ascending`]: what to feed, pass by pass, each pass
    /// ascending. Usually one pass over everything selected.
    fn passes(&self, walk: &Walk) -> Vec<BlockSet> {
        vec![walk.selected.clone()]
    }

    /// Starts the image.
    ///
    /// # Errors
    ///
    /// When the format cannot hold this filesystem (the error says what can),
    /// or the output fails.
    fn begin(&mut self, plan: &ImagePlan<'_>) -> Result<()>;

    /// Stores whole blocks, the first of which is `at`.
    ///
    /// # Errors
    ///
    /// When the output fails.
    fn put(&mut self, at: BlockNumber, bytes: &[u8]) -> Result<()>;

    /// Blocks that are known to hold only zeros.
    ///
    /// # Errors
    ///
    /// When the output fails.
    fn zero(&mut self, run: BlockRun) -> Result<()>;

    /// Selected blocks that could not be read: left as a hole.
    ///
    /// # Errors
    ///
    /// When the output fails.
    fn hole(&mut self, run: BlockRun) -> Result<()>;

    /// Completes the image: tables, headers, length. Does not sync.
    ///
    /// # Errors
    ///
    /// When the output fails.
    fn finish(&mut self) -> Result<()>;
}
