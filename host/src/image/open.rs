//! The single door to an image that exists: which format is it, and how is
//! it read?

use std::fs::File;
use std::path::Path;

use crate::error::{Error, Result};
use crate::image::format::{Format, Qcow2Compression};
use crate::image::normal::read::NormalSource;
use crate::image::qcow2::read::Qcow2Source;
use crate::image::stored::StoredSet;
use crate::image::{normal, qcow2, raw};
use crate::local::LocalSource;
use crate::source::BlockSource;
use crate::units::{ByteOffset, u64_from};

/// How many bytes [`detect`] looks at.
pub const DETECT_BYTES: usize = 4;

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

/// The format of a file that begins with `bytes`.
///
/// Raw has no mark of its own. The first bytes of a raw image are the boot
/// block of the filesystem: who wrote that could make it look like another
/// format, so a format that the user names is to be preferred.
#[must_use]
pub fn detect(bytes: &[u8]) -> Format {
    let Some(&magic) = bytes.first_chunk::<DETECT_BYTES>() else {
        return Format::Raw;
    };
    if u32::from_be_bytes(magic) == qcow2::MAGIC {
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
            let mut magic = [0; DETECT_BYTES];
            let there = facts.length.0 >= u64_from(magic.len());
            if there {
                use std::os::unix::fs::FileExt;
                file.read_exact_at(&mut magic, 0).map_err(failed)?;
            }
            detect(&magic)
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
