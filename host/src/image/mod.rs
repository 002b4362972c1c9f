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
mod mapped;
pub mod normal;
mod open;
pub mod qcow2;
pub mod raw;
mod shape;
mod stored;
mod writer;

#[cfg(test)]
mod tests;

pub use open::{DETECT_BYTES, OpenImage, detect, open};
pub use stored::StoredSet;
pub use writer::Target;

use crate::block_set::BlockSet;
use crate::digest::RangeRecord;
use crate::error::{Error, ErrorKind, Result};
use crate::ext::{Geometry, Walk};
use crate::units::{BlockNumber, BlockRun};
use format::{Format, Qcow2Compression, Qcow2Layout};
use normal::HostFacts;
use normal::sink::NormalSink;
use qcow2::classic::ClassicSink;
use qcow2::compact::{CompactOptions, CompactSink};
use qcow2::stream::CompactStream;
use raw::{RawOptions, RawSink, RawStream};
use shape::Shape;

/// In which order a sink takes blocks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum WriteOrder {
    /// As they come: fed while the walk reads, each block once.
    Any,
    /// Likewise, but their order shows in the file: as the walk finds them,
    /// so that no line makes another image of the same.
    AsFound,
    /// Ascending, after the walk, which then is known whole.
    Ascending,
}

/// What a sink learns before the first block.
#[derive(Clone, Copy, Debug)]
pub struct ImagePlan<'a> {
    /// The shape of the filesystem.
    pub geometry: &'a Geometry,
    /// The finished walk: always there for [`WriteOrder::Ascending`], never
    /// for the others.
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

    /// What was just put, or zeroed (`is_zero`), with its digest: for a sink
    /// that remembers how far it came.
    ///
    /// # Errors
    ///
    /// When the output fails.
    fn stored(&mut self, record: &RangeRecord, is_zero: bool) -> Result<()> {
        let _ = (record, is_zero);
        Ok(())
    }

    /// Completes the image: tables, headers, length. Does not sync.
    ///
    /// # Errors
    ///
    /// When the output fails.
    fn finish(&mut self) -> Result<()>;
}

/// What may be chosen of an image besides its format. What does not concern
/// the format is not looked at; whoever asks the user refuses it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ImageOptions {
    /// What errors call the output.
    pub name: String,
    /// For raw: where in the output it lies.
    pub raw: RawOptions,
    /// For qcow2: the layout.
    pub layout: Qcow2Layout,
    /// For qcow2: the compression.
    pub compression: Qcow2Compression,
    /// For normal: what the header says of this machine.
    pub host: HostFacts,
}

/// The sink that writes an image of this format.
///
/// # Errors
///
/// [`ErrorKind::Usage`] when the format, or what was chosen of it, cannot be
/// written to a pipe.
pub fn create<'a>(
    format: Format,
    options: &ImageOptions,
    target: Target<'a>,
) -> Result<Box<dyn ImageSink + 'a>> {
    let name = options.name.as_str();
    let compact =
        CompactOptions { compression: options.compression, cluster_bits: None };
    Ok(match (format, target) {
        (Format::Normal, target) => {
            Box::new(NormalSink::new(target, name, options.host.clone()))
        }
        (Format::Raw, Target::File(file)) => {
            Box::new(RawSink::new(file, name, options.raw))
        }
        (Format::Raw, Target::Stream(stream)) => {
            Box::new(RawStream::new(stream, name, options.raw)?)
        }
        (Format::Qcow2, target) => match (options.layout, target) {
            (Qcow2Layout::Compact, Target::File(file)) => {
                Box::new(CompactSink::new(file, name, compact))
            }
            (Qcow2Layout::Compact, Target::Stream(stream)) => {
                Box::new(CompactStream::new(stream, name, compact)?)
            }
            (Qcow2Layout::Classic, Target::File(file)) => {
                if options.compression != Qcow2Compression::None {
                    return Err(Error::new(
                        ErrorKind::Usage,
                        "the classic layout of qcow2 is not compressed",
                    )
                    .hint("--qcow2-layout compact"));
                }
                Box::new(ClassicSink::new(file, name))
            }
            (Qcow2Layout::Classic, Target::Stream(_)) => {
                return Err(Error::new(
                    ErrorKind::Usage,
                    format!(
                        "the classic layout of qcow2 needs a file, {name} \
                         is none"
                    ),
                )
                .hint("--qcow2-layout compact, or write it to a file"));
            }
        },
    })
}
