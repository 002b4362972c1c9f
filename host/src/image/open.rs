//! The single door to an image that exists: which format is it, and how is
//! it read?

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::error::{Error, Result};
use crate::ext::superblock::Superblock;
use crate::image::format::{Format, Qcow2Compression};
use crate::image::normal::read::NormalSource;
use crate::image::qcow2::read::Qcow2Source;
use crate::image::stored::StoredSet;
use crate::image::{normal, qcow2, raw};
use crate::local::LocalSource;
use crate::source::BlockSource;
use crate::units::{ByteCount, ByteOffset, u64_from};

/// How many bytes [`detect`] looks at: up to the end of a superblock at its
/// place on a device.
pub const DETECT_BYTES: usize = 2048;

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
    Raw(Box<LocalSource>),
    Qcow2(Box<Qcow2Source>),
    Normal(Box<NormalSource>),
}

impl OpenImage {
    /// The image as a source, in addresses of the device. What it does not
    /// hold reads as zeros.
    #[must_use]
    pub fn source(&self) -> &dyn BlockSource {
        match &self.source {
            Inner::Raw(source) => &**source,
            Inner::Qcow2(source) => &**source,
            Inner::Normal(source) => &**source,
        }
    }
}

/// The format of a file of `length` bytes that begins with `bytes`:
/// [`DETECT_BYTES`], or all there is.
///
/// Raw has no mark of its own, and what its first bytes say was written by
/// whoever wrote the boot block of the filesystem. So a file that has a
/// superblock where a device has it, and is just as long as that says, is raw
/// whatever its first bytes look like; the others may have a superblock
/// there as well, but not that length.
#[must_use]
pub fn detect(bytes: &[u8], length: ByteCount) -> Format {
    let Some(&magic) = bytes.first_chunk::<4>() else {
        return Format::Raw;
    };
    let format = if u32::from_be_bytes(magic) == qcow2::MAGIC {
        Format::Qcow2
    } else if u32::from_le_bytes(magic) == normal::MAGIC {
        Format::Normal
    } else {
        return Format::Raw;
    };
    let geometry = bytes
        .get(1024..)
        .and_then(|bytes| bytes.first_chunk())
        .and_then(|bytes| Superblock::check(bytes, None, None).ok())
        .map(|superblock| superblock.geometry);
    match geometry {
        Some(g) if g.block_size.bytes_of(g.blocks) == Some(length) => {
            Format::Raw
        }
        _ => format,
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
            detect(&bytes, facts.length)
        }
    };
    Ok(match format {
        Format::Raw => OpenImage {
            format,
            stored: raw::stored(&file, facts.length.0)?,
            unit: 512,
            compression: None,
            source: Inner::Raw(Box::new(local)),
        },
        Format::Qcow2 => {
            let source = Qcow2Source::open(path, file, facts)?;
            OpenImage {
                format,
                stored: source.stored().clone(),
                unit: source.cluster_bytes(),
                compression: Some(source.compression()),
                source: Inner::Qcow2(Box::new(source)),
            }
        }
        Format::Normal => {
            let source = NormalSource::open(path, file, facts)?;
            OpenImage {
                format,
                stored: source.stored(),
                unit: 512,
                compression: None,
                source: Inner::Normal(Box::new(source)),
            }
        }
    })
}
