//! zstd in a static workspace: no heap, and memory that no input decides.

use core::ffi::c_void;
use core::ptr::NonNull;

use e2wire_agent::compress::Encoder;
use e2wire_agent::memory::ENCODER_BYTES;
use e2wire_protocol::limits::CHUNK_BYTES_MAX;
use e2wire_protocol::units::u64_from;
use zstd_sys as sys;

use super::once::Once;

/// The highest level offered: above it, zstd needs strategies that cost a
/// rescue image 150 KiB of code and gain two percent.
const LEVEL_MAX: u8 = 9;

/// Hash and chain tables never exceed 2^17 entries. On chunks of 256 KiB
/// larger ones gained nothing at any level (measured on ext4 metadata), and
/// with these every level fits 1.5 MiB.
const TABLE_LOG_MAX: u32 = 17;

#[repr(C, align(64))]
struct Workspace([u8; ENCODER_BYTES]);

static WORKSPACE: Once<Workspace> = Once::new(Workspace([0; ENCODER_BYTES]));

/// The one compressor of the process.
pub(crate) struct Zstd {
    context: NonNull<sys::ZSTD_CCtx>,
    level: u8,
}

impl Zstd {
    /// The compressor, for whoever asks first.
    pub(crate) fn take() -> Option<Self> {
        let workspace: *mut Workspace = WORKSPACE.take()?;
        // SAFETY: the workspace is ours alone for good, aligned to more than
        // 8 bytes, and as long as we say.
        let context = unsafe {
            sys::ZSTD_initStaticCCtx(
                workspace.cast::<c_void>(),
                size_of::<Workspace>(),
            )
        };
        Some(Self { context: NonNull::new(context)?, level: 0 })
    }

    /// Sets `level`, unless it is set already; whether that went well.
    fn set_level(&mut self, level: u8) -> bool {
        if self.level == level {
            return true;
        }
        self.level = 0;
        let parameters = parameters(level);
        let context = self.context.as_ptr();
        // SAFETY: the context is valid, and this only computes.
        let fits =
            unsafe { sys::ZSTD_estimateCCtxSize_usingCParams(parameters) }
                <= ENCODER_BYTES;
        // SAFETY: the context is valid and no frame is being made.
        let failed = unsafe {
            sys::ZSTD_isError(sys::ZSTD_CCtx_reset(
                context,
                sys::ZSTD_ResetDirective::ZSTD_reset_session_and_parameters,
            )) | sys::ZSTD_isError(sys::ZSTD_CCtx_setCParams(
                context, parameters,
            ))
        };
        if fits && failed == 0 {
            self.level = level;
        }
        fits && failed == 0
    }
}

/// zstd's own choice for a chunk at `level`, with bounded tables and without
/// the strategies that are not linked.
fn parameters(level: u8) -> sys::ZSTD_compressionParameters {
    // SAFETY: a pure function of numbers.
    let mut parameters = unsafe {
        sys::ZSTD_getCParams(i32::from(level), u64_from(CHUNK_BYTES_MAX), 0)
    };
    parameters.hashLog = parameters.hashLog.min(TABLE_LOG_MAX);
    parameters.chainLog = parameters.chainLog.min(TABLE_LOG_MAX);
    use sys::ZSTD_strategy as Strategy;
    parameters.strategy = match parameters.strategy {
        Strategy::ZSTD_btlazy2
        | Strategy::ZSTD_btopt
        | Strategy::ZSTD_btultra
        | Strategy::ZSTD_btultra2 => Strategy::ZSTD_lazy2,
        other => other,
    };
    parameters
}

impl Encoder for Zstd {
    fn level_max(&self) -> u8 {
        LEVEL_MAX
    }

    fn encode(
        &mut self,
        level: u8,
        plain: &[u8],
        out: &mut [u8],
    ) -> Option<usize> {
        if !(1..=LEVEL_MAX).contains(&level) || !self.set_level(level) {
            return None;
        }
        // SAFETY: the context is valid and ours; both slices are described
        // as they are.
        let length = unsafe {
            sys::ZSTD_compress2(
                self.context.as_ptr(),
                out.as_mut_ptr().cast::<c_void>(),
                out.len(),
                plain.as_ptr().cast::<c_void>(),
                plain.len(),
            )
        };
        // SAFETY: a pure function of a number.
        if unsafe { sys::ZSTD_isError(length) } == 0 {
            return Some(length);
        }
        // What failed may have left a frame half made.
        self.level = 0;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use e2wire_protocol::limits::BODY_BYTES_MAX;

    fn sample(length: usize) -> Vec<u8> {
        let mut state = 1_u32;
        (0..length)
            .map(|i| {
                state = state.wrapping_mul(1_103_515_245).wrapping_add(12345);
                // Three quarters repeat, one quarter is noise.
                if i % 64 < 48 { (i / 4096) as u8 } else { (state >> 24) as u8 }
            })
            .collect()
    }

    #[test]
    fn every_level_gives_a_frame_that_zstd_reads_back() {
        let mut encoder = Zstd::take().unwrap();
        assert!(Zstd::take().is_none(), "there is one workspace only");
        let mut out = vec![0; BODY_BYTES_MAX];
        for level in 1..=encoder.level_max() {
            for length in [0, 1, 512, 4096, 65_536, 262_144, BODY_BYTES_MAX] {
                let plain = sample(length);
                let n = encoder.encode(level, &plain, &mut out);
                let n = n.unwrap_or_else(|| panic!("{length} at {level}"));
                let back = zstd::bulk::decompress(&out[..n], length).unwrap();
                assert!(back == plain, "{length} bytes at level {level}");
                assert!(length < 4096 || n < length / 2);
            }
        }
        // Too small an output is no, and no more than that.
        let plain = sample(65_536);
        assert_eq!(encoder.encode(3, &plain, &mut out[..100]), None);
        assert!(encoder.encode(3, &plain, &mut out).is_some());
        assert_eq!(encoder.encode(0, &plain, &mut out), None);
        assert_eq!(encoder.encode(10, &plain, &mut out), None);
    }
}
