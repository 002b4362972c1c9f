//! The options of the verbs that write over what exists.

use std::ops::RangeInclusive;
use std::path::PathBuf;

use crate::cli::{examples, values};
use crate::commands::install::InodeChoice;
use crate::ext::BlockKind;
use crate::units::ByteOffset;

/// How a plan is confirmed, kept and logged.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Safety")]
pub struct ConfirmArgs {
    /// Carry out the plan with this token
    ///
    /// Without it the plan is shown with its token, nothing is written, and
    /// the exit code is 5. The token is good for exactly that plan on exactly
    /// that device. After an interruption the same command goes on.
    #[arg(long, value_name = "TOKEN")]
    pub confirm: Option<String>,

    /// Keep what lies there now in this file
    /// [default: beside the input, named after the token]
    ///
    /// It is on the disk before the first write.
    #[arg(long, value_name = "FILE")]
    pub undo: Option<PathBuf>,

    /// Log every write in this file [default: ~/.local/state/e2wire/audit.ndjson]
    ///
    /// It is only ever appended to, one line of JSON for each write.
    #[arg(long, value_name = "FILE")]
    pub audit: Option<PathBuf>,

    /// Show the plan and nothing else: no token, no exit code 5
    #[arg(short = 'n', long, conflicts_with = "confirm")]
    pub dry_run: bool,
}

/// `e2wire install`
#[derive(Clone, Debug, clap::Args)]
#[command(after_long_help = examples::of("install"))]
pub struct InstallArgs {
    /// The image: normal, raw or qcow2
    #[arg(value_name = "IMAGE")]
    pub image: PathBuf,

    /// The device or file to write to
    ///
    /// A device of this machine may also be named by what it is: UUID=,
    /// LABEL=, SERIAL= or WWN= and the value, as `e2wire ls` shows it.
    #[arg(value_name = "DEVICE")]
    pub device: PathBuf,

    /// IMAGE is a repaired copy of this image, which is as it was made
    ///
    /// The two are compared: structure that the repair wrote is written back,
    /// files whose contents the copy does not have are refused by name.
    #[arg(long, value_name = "ORIGINAL", help_heading = "Repair")]
    pub original: Option<PathBuf>,

    /// Add the contents of these inodes, such as `12,15-17`, to IMAGE, a raw
    /// copy that is yet to be repaired; DEVICE is only read
    #[arg(
        long,
        value_name = "INODES",
        value_delimiter = ',',
        value_parser = values::numbers,
        conflicts_with_all = ["original", "confirm", "dry_run", "rehearse"],
        help_heading = "Repair"
    )]
    pub fetch_data: Option<Vec<RangeInclusive<u32>>>,

    /// Try the plan on an overlay in memory of the disk first, and ask e2fsck
    /// what it thinks of the result
    #[arg(long, help_heading = "Repair")]
    pub rehearse: bool,

    /// Only blocks of these kinds, such as `descriptors,block-bitmap`
    ///
    /// The names are those that `e2wire plan` prints.
    #[arg(
        long,
        value_name = "KINDS",
        value_delimiter = ',',
        value_parser = values::kind,
        help_heading = "Selection"
    )]
    pub only: Option<Vec<BlockKind>>,

    /// Only what belongs to these groups, such as `0,3-7`
    #[arg(
        long,
        value_name = "GROUPS",
        value_delimiter = ',',
        value_parser = values::numbers,
        help_heading = "Selection"
    )]
    pub groups: Option<Vec<RangeInclusive<u32>>>,

    /// Only what belongs to these inodes, such as `12,15-17,/etc/fstab`
    ///
    /// Numbers, or paths that the directories in the image lead to: of the
    /// inode table the bytes of these inodes, their maps, directories and
    /// attributes (with --data their contents). Bitmaps and descriptors
    /// belong to no inode.
    #[arg(
        long,
        value_name = "INODES",
        value_delimiter = ',',
        value_parser = values::inodes,
        conflicts_with = "fetch_data",
        help_heading = "Selection"
    )]
    pub inodes: Option<Vec<InodeChoice>>,

    /// Also the contents of files, as far as the image holds them
    #[arg(long, help_heading = "Selection")]
    pub data: bool,

    /// Where the filesystem starts on DEVICE, in bytes
    #[arg(
        long,
        value_name = "BYTES",
        default_value = "0",
        hide_default_value = true,
        help_heading = "Selection",
        value_parser = values::offset
    )]
    pub dest_offset: ByteOffset,

    /// How the plan is confirmed.
    #[command(flatten)]
    pub confirm: ConfirmArgs,

    /// DEVICE holds another filesystem, which may be overwritten
    #[arg(long, help_heading = "Guards")]
    pub allow_uuid_change: bool,

    /// DEVICE, or the filesystem on it, has another size than the image says
    #[arg(long, help_heading = "Guards")]
    pub allow_size_change: bool,

    /// The filesystem was written to since the image was made: go back all
    /// the same
    #[arg(long, help_heading = "Guards")]
    pub allow_changed: bool,

    /// The image has no manifest that proves it: trust that nobody changed it
    #[arg(long, help_heading = "Guards")]
    pub unproven: bool,

    /// The serial number (or WWN) that the disk must have
    ///
    /// Needed when the superblock and all its copies are lost, so that
    /// nothing else tells which disk this is.
    #[arg(long, value_name = "SERIAL", help_heading = "Guards")]
    pub expect_serial: Option<String>,
}

/// `e2wire undo`
#[derive(Clone, Debug, clap::Args)]
#[command(after_long_help = examples::of("undo"))]
pub struct UndoArgs {
    /// The undo file that an install named
    #[arg(value_name = "UNDOFILE")]
    pub file: PathBuf,

    /// The device or file to write to
    #[arg(value_name = "DEVICE", required_unless_present = "list")]
    pub device: Option<PathBuf>,

    /// Say what the file holds, and do nothing
    #[arg(long, conflicts_with_all = ["device", "confirm", "dry_run"])]
    pub list: bool,

    /// How the plan is confirmed.
    #[command(flatten)]
    pub confirm: ConfirmArgs,
}
