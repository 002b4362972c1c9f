//! What `install` and `undo` are asked.

use std::ops::RangeInclusive;
use std::path::PathBuf;

use crate::ext::BlockKind;
use crate::units::ByteOffset;

/// Inodes, as they are chosen.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum InodeChoice {
    /// By number.
    Numbers(RangeInclusive<u32>),
    /// The one that this path leads to, in the image.
    Path(String),
}

/// Writes an image back to a device.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct InstallRequest {
    /// The image.
    pub image: PathBuf,
    /// What is written to.
    pub device: PathBuf,
    /// The image that `image` was made from by a repair.
    pub original: Option<PathBuf>,
    /// Only blocks of these kinds.
    pub only: Option<Vec<BlockKind>>,
    /// Only what belongs to these groups.
    pub groups: Option<Vec<RangeInclusive<u32>>>,
    /// Only what belongs to these inodes.
    pub inodes: Option<Vec<InodeChoice>>,
    /// Add the contents of these inodes to the image, a raw copy, and do
    /// nothing else.
    pub fetch_data: Option<Vec<RangeInclusive<u32>>>,
    /// Try the plan on an overlay first, and judge it by e2fsck.
    pub rehearse: bool,
    /// Also the contents of files, all that the image holds.
    pub data: bool,
    /// Where what lies there now is kept.
    pub undo: Option<PathBuf>,
    /// Where every write is logged.
    pub audit: Option<PathBuf>,
    /// The token of the plan that was seen and is wanted.
    pub confirm: Option<String>,
    /// Only the plan, and no token.
    pub dry_run: bool,
    /// Another filesystem may lie on the device.
    pub allow_uuid_change: bool,
    /// A filesystem or device of another size.
    pub allow_size_change: bool,
    /// The filesystem was written to after the image was made.
    pub allow_changed: bool,
    /// The image has no manifest that proves it.
    pub unproven: bool,
    /// The serial number that the disk must have.
    pub expect_serial: Option<String>,
    /// Where the filesystem starts on the device.
    pub dest_offset: ByteOffset,
}

/// Takes an install back.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct UndoRequest {
    /// The undo file.
    pub file: PathBuf,
    /// What is written to; not needed for a list.
    pub device: Option<PathBuf>,
    /// Say what the file holds, and do nothing.
    pub list: bool,
    /// Where what lies there now is kept.
    pub undo: Option<PathBuf>,
    /// Where every write is logged.
    pub audit: Option<PathBuf>,
    /// The token of the plan that was seen and is wanted.
    pub confirm: Option<String>,
    /// Only the plan, and no token.
    pub dry_run: bool,
}
