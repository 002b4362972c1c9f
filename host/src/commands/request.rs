//! What each verb is asked. A request is complete and has no defaults of its
//! own: whoever makes it decides, and making it touches nothing.

use std::path::PathBuf;

use crate::error::{Error, ErrorKind, Result};
use crate::ext::{JournalMode, Scope, Selection};
use crate::image::format::{Format, Qcow2Compression, Qcow2Layout};
use crate::units::{BlockNumber, BlockSize, ByteOffset};

/// Where an image goes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Output {
    /// Our own standard output, written front to back.
    Stdout,
    /// A file, or a block device.
    File(PathBuf),
}

impl Output {
    /// The format that was asked for, or else the one that the name tells.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Usage`] when neither says.
    pub fn format(&self, asked: Option<Format>) -> Result<Format> {
        if let Some(format) = asked {
            return Ok(format);
        }
        let what = match self {
            Self::Stdout => {
                "standard output has no name that tells the format".to_owned()
            }
            Self::File(path) => match Format::from_suffix(path) {
                Some(format) => return Ok(format),
                None => format!(
                    "the name {} does not tell the format",
                    path.display()
                ),
            },
        };
        Err(Error::new(ErrorKind::Usage, what).hint(
            "--format normal, raw or qcow2; or a name that ends in .e2i \
             (normal), .raw or .img (raw) or .qcow2",
        ))
    }
}

/// Makes an image of a filesystem.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ImageRequest {
    /// The device or file that the filesystem lies on.
    pub device: PathBuf,
    /// Where the image goes.
    pub output: Output,
    /// The format; [`Output::format`] fills in what the name tells.
    pub format: Option<Format>,
    /// Which rules select blocks.
    pub selection: Selection,
    /// How much of the journal is taken.
    pub journal: JournalMode,
    /// How far the selection goes.
    pub scope: Scope,
    /// Use this superblock (`-b`).
    pub superblock: Option<BlockNumber>,
    /// The block size that the filesystem must have (`-B`).
    pub block_size: Option<BlockSize>,
    /// Inode tables whole, also where they were never used.
    pub full_tables: bool,
    /// For qcow2: the layout.
    pub layout: Qcow2Layout,
    /// For qcow2: the compression.
    pub compression: Qcow2Compression,
    /// Also when the filesystem is mounted read/write (`-f`).
    pub force: bool,
    /// Read everything, write nothing (`-n`).
    pub dry_run: bool,
    /// Replace an existing output.
    pub overwrite: bool,
    /// Write no manifest beside the image.
    pub no_manifest: bool,
    /// Do not wait until the image is on the disk.
    pub no_sync: bool,
    /// A mapfile of ddrescue: bad areas in it are not read, and what was read
    /// and what not is written to it.
    pub map: Option<PathBuf>,
    /// How many passes over bad sectors in the end, and if it was asked for,
    /// also over those that the map calls bad.
    pub retries: Option<u32>,
    /// Where the filesystem starts on the device.
    pub source_offset: ByteOffset,
    /// Where the filesystem starts in the output.
    pub dest_offset: ByteOffset,
}

/// Checks an image against its manifest and perhaps a device.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct VerifyRequest {
    /// The image.
    pub image: PathBuf,
    /// The device that must hold the same.
    pub against: Option<PathBuf>,
}

/// Makes an image of another format out of an image.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ConvertRequest {
    /// The image to read.
    pub input: PathBuf,
    /// Where the new image goes.
    pub output: Output,
    /// The format; [`Output::format`] fills in what the name tells.
    pub format: Option<Format>,
    /// For qcow2: the layout.
    pub layout: Qcow2Layout,
    /// For qcow2: the compression.
    pub compression: Qcow2Compression,
    /// Replace an existing output.
    pub overwrite: bool,
    /// Write no manifest beside the image.
    pub no_manifest: bool,
    /// Do not wait until the image is on the disk.
    pub no_sync: bool,
}
