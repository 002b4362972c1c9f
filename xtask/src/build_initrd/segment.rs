//! An archive as the kernel meets it: compressed or not, alone or behind the
//! segments of another initrd, with the padding that the kernel's unpacker
//! wants between them.
//!
//! The kernel unpacks an initrd segment by segment
//! (Documentation/driver-api/early-userspace/buffer-format.rst): a cpio
//! archive as it is, or one compressed stream that holds one; zeros between
//! segments are skipped; an uncompressed archive has to start at a multiple
//! of four. Boot loaders like whole sectors, so 512 is what we pad to.

use std::{fmt, io::Write as _, str::FromStr};

use anyhow::{Context as _, Result, bail, ensure};

/// What a segment starts and ends on.
pub(crate) const SEGMENT_ALIGNMENT: usize = 512;

/// Fixed, so that a segment's bytes do not depend on who built it. Level 19
/// takes seconds for the largest profile and is what distributions use.
const ZSTD_LEVEL: i32 = 19;

/// The kernel's zstd decoder refuses windows above 128 MiB; level 19 uses
/// 8 MiB, which a machine with 96 MiB of memory can spare.
const ZSTD_WINDOW_LOG: u32 = 23;

/// How a segment is compressed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Compression {
    /// Smallest; Linux 5.9 and later, if configured.
    Zstd,
    /// Understood by every kernel that distributions ship.
    Gzip,
    /// As it is.
    None,
}

impl Compression {
    /// The kernel configuration option that unpacking needs.
    pub(crate) const fn config_option(self) -> Option<&'static str> {
        match self {
            Self::Zstd => Some("CONFIG_RD_ZSTD"),
            Self::Gzip => Some("CONFIG_RD_GZIP"),
            Self::None => None,
        }
    }
}

impl FromStr for Compression {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "zstd" => Ok(Self::Zstd),
            "gzip" => Ok(Self::Gzip),
            "none" => Ok(Self::None),
            _ => bail!("not one of zstd, gzip, none"),
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
            Self::None => "none",
        })
    }
}

/// `archive`, compressed and padded to whole sectors.
///
/// # Errors
///
/// What the compressor says.
pub(crate) fn segment(
    archive: &[u8],
    compression: Compression,
) -> Result<Vec<u8>> {
    let mut bytes = match compression {
        Compression::None => archive.to_vec(),
        Compression::Gzip => {
            // No name, no time stamp: flate2 leaves both out.
            let level = flate2::Compression::best();
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
            encoder.write_all(archive)?;
            encoder.finish()?
        }
        Compression::Zstd => {
            let mut encoder =
                zstd::stream::Encoder::new(Vec::new(), ZSTD_LEVEL)?;
            encoder.window_log(ZSTD_WINDOW_LOG)?;
            // One frame with its size: the kernel decodes exactly one.
            encoder.set_pledged_src_size(u64::try_from(archive.len()).ok())?;
            encoder.include_checksum(true)?;
            encoder.write_all(archive)?;
            encoder.finish()?
        }
    };
    pad(&mut bytes);
    Ok(bytes)
}

/// `base` with `segment` as one more segment, in the place where every kernel
/// finds it.
///
/// That is behind everything else, with one exception: kernels before 5.11
/// take what follows an LZ4 stream for more LZ4, so the segment goes in front
/// of it.
///
/// # Errors
///
/// `base` is no initrd.
pub(crate) fn append(base: &[u8], segment: &[u8]) -> Result<Vec<u8>> {
    let main = skip_archives(base)?;
    let rest = base.get(main..).unwrap_or_default();
    if rest.starts_with(&LZ4_LEGACY_MAGIC) {
        let mut joined = base.get(..main).unwrap_or_default().to_vec();
        pad(&mut joined);
        joined.extend_from_slice(segment);
        pad(&mut joined);
        joined.extend_from_slice(rest);
        return Ok(joined);
    }
    if !rest.is_empty() {
        compression_name(rest).context(
            "what follows its uncompressed archives is neither cpio nor a \
             compression that Linux unpacks: is this really an initrd?",
        )?;
    }
    let mut joined = base.to_vec();
    pad(&mut joined);
    joined.extend_from_slice(segment);
    pad(&mut joined);
    Ok(joined)
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(SEGMENT_ALIGNMENT), 0);
}

const LZ4_LEGACY_MAGIC: [u8; 4] = [0x02, 0x21, 0x4c, 0x18];

/// Compressed streams by their first bytes, as the kernel tells them apart
/// (lib/decompress.c).
const MAGICS: [(&[u8], &str); 8] = [
    (&[0x1f, 0x8b], "gzip"),
    (&[0x1f, 0x9e], "gzip"),
    (&[0x42, 0x5a], "bzip2"),
    (&[0x5d, 0x00], "lzma"),
    (&[0xfd, 0x37], "xz"),
    (&[0x89, 0x4c], "lzo"),
    (&[0x02, 0x21], "lz4"),
    (&[0x28, 0xb5], "zstd"),
];

fn compression_name(stream: &[u8]) -> Option<&'static str> {
    let (_, name) =
        MAGICS.iter().find(|(magic, _)| stream.starts_with(magic))?;
    Some(name)
}

/// Where the first thing in `base` stands that is not an uncompressed
/// archive.
fn skip_archives(base: &[u8]) -> Result<usize> {
    let mut at = 0_usize;
    loop {
        let rest = base.get(at..).unwrap_or_default();
        let zeros = rest.iter().take_while(|&&byte| byte == 0).count();
        let Some(rest) = rest.get(zeros..).filter(|rest| !rest.is_empty())
        else {
            ensure!(at > 0, "it holds nothing but zeros");
            return Ok(base.len());
        };
        at = at.saturating_add(zeros);
        if !(rest.starts_with(b"070701") || rest.starts_with(b"070702")) {
            return Ok(at);
        }
        ensure!(
            at.is_multiple_of(4),
            "an archive starts at byte {at}, which is no multiple of four"
        );
        at = at.saturating_add(archive_length(rest).with_context(|| {
            format!("the cpio archive at byte {at} is damaged")
        })?);
    }
}

/// The length of the archive that `bytes` starts with, trailer included.
fn archive_length(bytes: &[u8]) -> Result<usize> {
    let mut at = 0_usize;
    loop {
        let header = bytes.get(at..).unwrap_or_default();
        ensure!(
            header.starts_with(b"070701") || header.starts_with(b"070702"),
            "no header at its byte {at}"
        );
        // Thirteen fields of eight hexadecimal digits follow the magic: the
        // seventh is the file's size, the twelfth that of the name.
        let (file_size, name_size) =
            (hex_field(header, 54)?, hex_field(header, 94)?);
        let name_end = HEADER_LENGTH.saturating_add(name_size);
        let name = header
            .get(HEADER_LENGTH..name_end)
            .context("it ends inside a name")?;
        let length = name_end
            .next_multiple_of(4)
            .saturating_add(file_size.next_multiple_of(4));
        let is_trailer = name == b"TRAILER!!!\0";
        at = at.saturating_add(length);
        ensure!(
            at <= bytes.len() || is_trailer,
            "{} is cut short",
            name.escape_ascii()
        );
        if is_trailer {
            return Ok(at.min(bytes.len()));
        }
    }
}

/// A newc header's length, without the name that follows it.
const HEADER_LENGTH: usize = 110;

fn hex_field(header: &[u8], at: usize) -> Result<usize> {
    let digits = header
        .get(at..at.saturating_add(8))
        .and_then(|digits| std::str::from_utf8(digits).ok())
        .context("it ends inside a header")?;
    let value = u32::from_str_radix(digits, 16)
        .context("a header holds something else than digits")?;
    Ok(usize::try_from(value)?)
}

#[cfg(test)]
mod tests;
