//! One cluster, compressed as QEMU reads it.

use flate2::{Compress, Compression, FlushCompress, Status};

use crate::error::{Error, ErrorKind, Result};
use crate::image::format::Qcow2Compression;

/// The level for zstd: beyond it 4 KiB clusters hardly shrink further.
const ZSTD_LEVEL: i32 = 3;

/// QEMU inflates with a window of 4 KiB, whatever the cluster size.
const DEFLATE_WINDOW_BITS: u8 = 12;

/// Compresses clusters one by one.
pub(super) enum Compressor {
    Zstd(zstd::bulk::Compressor<'static>),
    Deflate(Box<Compress>),
}

impl Compressor {
    /// `None` where nothing is to be compressed.
    pub(super) fn new(compression: Qcow2Compression) -> Result<Option<Self>> {
        Ok(match compression {
            Qcow2Compression::None => None,
            Qcow2Compression::Zstd => Some(Self::Zstd(
                zstd::bulk::Compressor::new(ZSTD_LEVEL).map_err(|e| {
                    Error::new(ErrorKind::Internal, "zstd does not start")
                        .because(e)
                })?,
            )),
            Qcow2Compression::Deflate => {
                Some(Self::Deflate(Box::new(Compress::new_with_window_bits(
                    Compression::default(),
                    false,
                    DEFLATE_WINDOW_BITS,
                ))))
            }
        })
    }

    /// Compresses `cluster` into `room`, which is too small for what would
    /// not be worth it; answers how much of the room was used.
    pub(super) fn compress(
        &mut self,
        cluster: &[u8],
        room: &mut [u8],
    ) -> Option<usize> {
        match self {
            // It fails for want of room, and would for nothing else.
            Self::Zstd(zstd) => zstd.compress_to_buffer(cluster, room).ok(),
            Self::Deflate(deflate) => {
                deflate.reset();
                let status =
                    deflate.compress(cluster, room, FlushCompress::Finish);
                match status {
                    Ok(Status::StreamEnd) => {
                        usize::try_from(deflate.total_out()).ok()
                    }
                    _ => None,
                }
            }
        }
    }
}
