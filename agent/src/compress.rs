//! The compressor behind a trait, since its workspace and its C code belong
//! to the platform.

/// Compresses chunks, each on its own.
pub trait Encoder {
    /// The highest level that fits the workspace.
    fn level_max(&self) -> u8;

    /// Compresses `plain` (at most `BODY_BYTES_MAX` bytes) into `out` as one
    /// zstd frame without checksum, and returns its length.
    ///
    /// `level` is 1 to `level_max`. `None` when it does not fit `out` or the
    /// compressor fails; the chunk goes out as it is then.
    fn encode(
        &mut self,
        level: u8,
        plain: &[u8],
        out: &mut [u8],
    ) -> Option<usize>;
}
