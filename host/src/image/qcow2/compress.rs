//! One cluster, compressed as QEMU reads it.

use flate2::{
    Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status,
};
use zstd::stream::raw::{DParameter, InBuffer, Operation, OutBuffer};

use crate::error::{Error, ErrorKind, Result};
use crate::image::format::Qcow2Compression;
use crate::units::u64_from;

/// The level for zstd: beyond it 4 KiB clusters hardly shrink further.
const ZSTD_LEVEL: i32 = 3;

/// QEMU inflates with a window of 4 KiB, whatever the cluster size.
const DEFLATE_WINDOW_BITS: u8 = 12;

/// No cluster needs a larger window than this, whatever a frame says.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

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
                Some(Self::Deflate(Box::new(deflate())))
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
            Self::Deflate(stream) => {
                stream.reset();
                let status =
                    stream.compress(cluster, room, FlushCompress::Finish);
                if let Ok(Status::StreamEnd) = status {
                    return usize::try_from(stream.total_out()).ok();
                }
                // A reset leaves zlib-rs 0.6.8 with part of its buffer lost
                // when the stream before had not come to its end, and it
                // panics when nothing is left.
                **stream = deflate();
                None
            }
        }
    }
}

/// A raw deflate stream with the window that QEMU has.
fn deflate() -> Compress {
    Compress::new_with_window_bits(
        Compression::default(),
        false,
        DEFLATE_WINDOW_BITS,
    )
}

/// Decompresses a cluster.
pub(super) enum Decompressor {
    Zstd(zstd::stream::raw::Decoder<'static>),
    Deflate(Box<Decompress>),
}

impl Decompressor {
    /// `None` if zstd does not start.
    pub(super) fn new(compression: Qcow2Compression) -> Option<Self> {
        match compression {
            Qcow2Compression::Zstd => {
                let mut decoder = zstd::stream::raw::Decoder::new().ok()?;
                decoder
                    .set_parameter(DParameter::WindowLogMax(
                        ZSTD_WINDOW_LOG_MAX,
                    ))
                    .ok()?;
                Some(Self::Zstd(decoder))
            }
            _ => Some(Self::Deflate(Box::new(Decompress::new(false)))),
        }
    }

    /// Fills `cluster`; what follows the end of the compressed data in
    /// `packed` is not looked at. `None` if there is too little.
    pub(super) fn decompress(
        &mut self,
        packed: &[u8],
        cluster: &mut [u8],
    ) -> Option<()> {
        match self {
            Self::Zstd(decoder) => {
                decoder.reinit().ok()?;
                let mut input = InBuffer::around(packed);
                let mut output = OutBuffer::around(cluster);
                while output.pos() < output.capacity() {
                    let before = (input.pos(), output.pos());
                    decoder.run(&mut input, &mut output).ok()?;
                    if before == (input.pos(), output.pos()) {
                        return None;
                    }
                }
            }
            Self::Deflate(inflate) => {
                inflate.reset(false);
                inflate
                    .decompress(packed, cluster, FlushDecompress::Finish)
                    .ok()?;
                if inflate.total_out() < u64_from(cluster.len()) {
                    return None;
                }
            }
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_shrink_again_and_again_is_left_alone() {
        for method in [Qcow2Compression::Deflate, Qcow2Compression::Zstd] {
            let mut state = 0x2545_f491_u32;
            let noise: Vec<u8> = (0..65_536)
                .map(|_| {
                    state ^= state << 13;
                    state ^= state >> 17;
                    state ^= state << 5;
                    state.to_le_bytes()[0] | 1
                })
                .collect();
            let mut compressor = Compressor::new(method).unwrap().unwrap();
            let mut room = vec![0; 40_000];
            for _ in 0..32 {
                assert_eq!(compressor.compress(&noise, &mut room), None);
            }
            let zeros = [0; 65_536];
            assert!(compressor.compress(&zeros, &mut room).is_some());
        }
    }
}
