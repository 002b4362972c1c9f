//! What every sink has to know of a filesystem: how large its blocks are and
//! how many it has.

use crate::error::{Error, ErrorKind, Result};
use crate::ext::Geometry;
use crate::units::{BlockCount, BlockNumber, BlockRun, BlockSize, u64_from};

/// Block size and number of blocks; their product fits in 63 bits, so that
/// it can be the length of a file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Shape {
    block_size: BlockSize,
    blocks: BlockCount,
}

impl Shape {
    pub(super) fn new(geometry: &Geometry) -> Result<Self> {
        let shape =
            Self { block_size: geometry.block_size, blocks: geometry.blocks };
        match shape.block_size.bytes_of(shape.blocks) {
            Some(bytes) if i64::try_from(bytes.0).is_ok() => Ok(shape),
            _ => Err(Error::new(
                ErrorKind::Refused,
                format!(
                    "{} blocks of {} bytes exceed what a file can hold",
                    shape.blocks, shape.block_size
                ),
            )
            .intact("nothing was written")),
        }
    }

    /// The shape of a sink that was begun.
    pub(super) fn of(shape: Option<Self>) -> Result<Self> {
        shape.ok_or_else(never_begun)
    }

    pub(super) const fn block_size(self) -> BlockSize {
        self.block_size
    }

    /// The length of the filesystem in bytes.
    pub(super) const fn length(self) -> u64 {
        // `new` has proven that this does not wrap.
        self.blocks.0.wrapping_mul(self.block_size.bytes_u64())
    }

    /// The run that `bytes` fill from `at` on.
    pub(super) fn run_of(
        self,
        at: BlockNumber,
        bytes: &[u8],
    ) -> Result<BlockRun> {
        let length = u64_from(bytes.len());
        let count = length.checked_shr(self.block_size.log2()).unwrap_or(0);
        match BlockRun::new(at, BlockCount(count)) {
            Some(run) if length.is_multiple_of(self.block_size.bytes_u64()) => {
                Ok(run)
            }
            _ => Err(Error::new(
                ErrorKind::Internal,
                format!("{length} bytes at block {at} are no whole blocks"),
            )),
        }
    }

    /// Where the bytes of `run` start, and how many they are.
    pub(super) fn bytes(self, run: BlockRun) -> Result<(u64, u64)> {
        match run.bytes(self.block_size) {
            Some(range) if run.end().0 <= self.blocks.0 => {
                Ok((range.start().0, range.length().0))
            }
            _ => Err(Error::new(
                ErrorKind::Internal,
                format!(
                    "blocks {} to {} lie outside the filesystem's {}",
                    run.first(),
                    run.end(),
                    self.blocks
                ),
            )),
        }
    }
}

/// A call that came before `begin`.
pub(super) fn never_begun() -> Error {
    Error::new(ErrorKind::Internal, "the image was never begun")
}
