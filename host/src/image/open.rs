//! The single door to an image that exists: which format is it, and how is
//! it read?

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::error::{Error, Result};
use crate::ext::superblock;
use crate::image::format::{Format, Qcow2Compression};
use crate::image::normal::read::NormalSource;
use crate::image::qcow2::read::Qcow2Source;
use crate::image::stored::StoredSet;
use crate::image::{normal, qcow2, raw};
use crate::local::LocalSource;
use crate::source::BlockSource;
use crate::units::{ByteOffset, u64_from};

/// How many bytes [`detect`] looks at: up to the magic number of a
/// superblock at its place on a device.
pub const DETECT_BYTES: usize = 1024 + 58;

/// An image that is open for reading.
pub struct OpenImage {
    /// Its format.
    pub format: Format,
    /// What it holds, stretches of the device.
    pub stored: StoredSet,
    /// The finest unit, in bytes, in which it can tell what it holds from
    /// what it does not: 512 for raw and normal, the cluster for qcow2.
    pub unit: u64,
    /// How clusters may be compressed, for qcow2.
    pub compression: Option<Qcow2Compression>,
    source: Inner,
}

enum Inner {
    Raw(LocalSource),
    Qcow2(Qcow2Source),
    Normal(NormalSource),
}

impl OpenImage {
    /// The image as a source, in addresses of the device. What it does not
    /// hold reads as zeros.
    #[must_use]
    pub fn source(&self) -> &dyn BlockSource {
        match &self.source {
            Inner::Raw(source) => source,
            Inner::Qcow2(source) => source,
            Inner::Normal(source) => source,
        }
    }
}

/// The format of a file that begins with `bytes`: [`DETECT_BYTES`], or all
/// there is.
///
/// Raw has no mark of its own, and what its first bytes say was written by
/// whoever wrote the boot block of the filesystem: the magic number of qcow2
/// in front of a superblock is no qcow2 image. (In one, an L1 table may begin
/// there, but no entry of it looks like that magic number.) A normal image
/// with blocks of 1 KiB has its superblock just there; there the format that
/// the user names is to be preferred.
#[must_use]
pub fn detect(bytes: &[u8]) -> Format {
    let Some(&magic) = bytes.first_chunk::<4>() else {
        return Format::Raw;
    };
    let ext = bytes.get(1024 + 56..DETECT_BYTES);
    let has_superblock = ext == Some(&superblock::MAGIC.to_le_bytes());
    if u32::from_be_bytes(magic) == qcow2::MAGIC && !has_superblock {
        Format::Qcow2
    } else if u32::from_le_bytes(magic) == normal::MAGIC {
        Format::Normal
    } else {
        Format::Raw
    }
}

/// Opens the image at `path`, as `format` or as what it looks like.
///
/// # Errors
///
/// [`crate::error::ErrorKind::NoFilesystem`] when there is none, or one that
/// cannot be read or is damaged; [`crate::error::ErrorKind::LocalIo`] when
/// reading fails.
pub fn open(path: &Path, format: Option<Format>) -> Result<OpenImage> {
    let local = LocalSource::open(path, ByteOffset(0))?;
    let facts = local.facts().clone();
    let failed = |e| Error::io(format!("cannot read {}", path.display()), e);
    let file = File::open(path).map_err(failed)?;
    let format = match format {
        Some(format) => format,
        None => {
            let mut bytes = Vec::new();
            (&file)
                .take(u64_from(DETECT_BYTES))
                .read_to_end(&mut bytes)
                .map_err(failed)?;
            detect(&bytes)
        }
    };
    Ok(match format {
        Format::Raw => OpenImage {
            format,
            stored: raw::stored(&file, facts.length.0)?,
            unit: 512,
            compression: None,
            source: Inner::Raw(local),
        },
        Format::Qcow2 => {
            let source = Qcow2Source::open(path, file, facts)?;
            OpenImage {
                format,
                stored: source.stored()?,
                unit: source.cluster_bytes(),
                compression: Some(source.compression()),
                source: Inner::Qcow2(source),
            }
        }
        Format::Normal => {
            let source = NormalSource::open(path, file, facts)?;
            OpenImage {
                format,
                stored: source.stored(),
                unit: 512,
                compression: None,
                source: Inner::Normal(source),
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_block_does_not_make_a_filesystem_another_image() {
        let mut bytes = vec![0; DETECT_BYTES];
        assert_eq!(detect(&bytes), Format::Raw);
        bytes[..4].copy_from_slice(b"QFI\xfb");
        assert_eq!(detect(&bytes), Format::Qcow2);
        assert_eq!(detect(&bytes[..100]), Format::Qcow2);
        bytes[1080..1082].copy_from_slice(&[0x53, 0xEF]);
        assert_eq!(detect(&bytes), Format::Raw);
        assert_eq!(detect(&bytes[..3]), Format::Raw);
        bytes[..4].copy_from_slice(&[0x10, 0xb7, 0x2b, 0x7f]);
        assert_eq!(detect(&bytes), Format::Normal);
    }
}
