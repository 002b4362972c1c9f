//! What is known of the devices of a machine, this one or a remote one, and
//! of what lies on them.
//!
//! Only the shape: `local` and `remote` fill in the devices,
//! [`crate::identify`] the contents, `cli` shows them. Every text in here may
//! come from a disk and hold anything.

use crate::source::DiskIdentity;
use crate::units::{BlockNumber, BlockSize, ByteCount, ByteOffset, ByteRange};

/// A block device, or a file that holds what a device could hold.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Device {
    /// The name to use for it: `/dev/sda3`, or the file's own.
    pub path: String,
    /// What it is.
    pub kind: DeviceKind,
    /// Its length.
    pub size: ByteCount,
    /// For a partition: where it starts on its disk.
    pub start: Option<ByteOffset>,
    /// The unit that the device is addressed in, in bytes.
    pub logical_sector_bytes: u32,
    /// The unit that the device writes at once, in bytes.
    pub physical_sector_bytes: u32,
    /// Cannot be written to.
    pub read_only: bool,
    /// A medium that can be taken out.
    pub removable: bool,
    /// Who made it, and which one it is.
    pub disk: DiskIdentity,
    /// What the system calls it besides: the name of a mapping, the array's
    /// level, the file behind a loop device.
    pub alias: Option<String>,
    /// Major and minor number.
    pub number: Option<(u32, u32)>,
    /// Where it is mounted right now.
    pub mounts: Vec<Mount>,
    /// In use as swap space right now.
    pub swap_active: bool,
    /// The devices that are built on it (RAID, LVM, encryption).
    pub holders: Vec<String>,
    /// What lies on it.
    pub contents: Contents,
    /// Its partitions, in the order of their numbers.
    pub partitions: Vec<Self>,
}

/// What a device is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DeviceKind {
    /// A whole disk, or what looks like one.
    Disk,
    /// A part of a disk.
    Partition,
    /// A file attached as a device.
    Loop,
    /// A device-mapper device: LVM, encryption, multipath.
    Mapped,
    /// A RAID array of the md driver.
    Raid,
    /// Memory.
    Ram,
    /// An ordinary file.
    File,
}

impl DeviceKind {
    /// The name users read and scripts branch on.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Disk => "disk",
            Self::Partition => "partition",
            Self::Loop => "loop",
            Self::Mapped => "mapped",
            Self::Raid => "raid",
            Self::Ram => "ram",
            Self::File => "file",
        }
    }
}

/// A place where a device is mounted.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Mount {
    /// The directory.
    pub at: String,
    /// Nothing can be written through this mount or underneath it.
    pub read_only: bool,
}

/// What is known of a device's contents.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Contents {
    /// Nobody looked.
    Unknown,
    /// They could not be read, and why.
    Unreadable(String),
    /// Everything that was recognised; nothing when empty.
    Known(Vec<Content>),
}

/// Something that was recognised on a device.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Content {
    /// What it is.
    pub kind: ContentKind,
    /// The version of its format, where there are several.
    pub version: Option<String>,
    /// The name that somebody gave it.
    pub label: Option<String>,
    /// Its identity, written as the tools for it write it.
    pub uuid: Option<String>,
    /// How long it says it is.
    pub size: Option<ByteCount>,
    /// For a filesystem: the size of its blocks.
    pub block_size: Option<BlockSize>,
    /// Where it was mounted last.
    pub last_mounted: Option<String>,
    /// The volume group or array that this is a part of.
    pub part_of: Option<String>,
    /// What else is worth knowing, in words: the RAID level and the place in
    /// the array.
    pub detail: Option<String>,
    /// What state it is in; empty where the format does not tell.
    pub state: Vec<State>,
    /// For ext: the copy of the superblock that had to be used because the
    /// first one is lost.
    pub superblock_copy: Option<BlockNumber>,
    /// For a partition table: what it lists.
    pub partitions: Vec<PartitionEntry>,
}

macro_rules! names {
    ($(#[$outer:meta])* $type:ident {
        $($(#[$doc:meta])* $value:ident = $name:literal,)*
    }) => {
        $(#[$outer])*
        pub enum $type {
            $($(#[$doc])* $value,)*
        }

        impl $type {
            /// The name users read and scripts branch on.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$value => $name,)*
                }
            }
        }
    };
}

names! {
    /// What can be recognised.
    #[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
    ContentKind {
        /// A partition table of the GUID kind.
        Gpt = "gpt",
        /// A partition table of the DOS kind.
        Mbr = "mbr",
        /// ext2.
        Ext2 = "ext2",
        /// ext3.
        Ext3 = "ext3",
        /// ext4.
        #[default]
        Ext4 = "ext4",
        /// The journal of an ext filesystem that lies elsewhere.
        ExtJournal = "ext-journal",
        /// XFS.
        Xfs = "xfs",
        /// Btrfs.
        Btrfs = "btrfs",
        /// Swap space.
        Swap = "swap",
        /// A physical volume of LVM2.
        LvmPv = "lvm2-pv",
        /// A member of a RAID array of the md driver.
        MdMember = "md-member",
        /// An encrypted volume.
        Luks = "luks",
        /// FAT12, FAT16 or FAT32.
        Vfat = "vfat",
        /// exFAT.
        Exfat = "exfat",
        /// NTFS.
        Ntfs = "ntfs",
    }
}

impl ContentKind {
    /// Whether this is something that e2wire can image.
    #[must_use]
    pub const fn is_ext(self) -> bool {
        matches!(self, Self::Ext2 | Self::Ext3 | Self::Ext4)
    }
}

names! {
    /// What state something is in.
    #[derive(Clone, Copy, Debug, Eq, PartialEq)]
    State {
        /// Unmounted in good order.
        Clean = "clean",
        /// Mounted, or not unmounted in good order.
        NotClean = "not-clean",
        /// The journal has to be replayed.
        NeedsRecovery = "needs-recovery",
        /// The kernel noted errors.
        Errors = "errors",
        /// Inodes wait to be removed.
        Orphans = "orphans",
        /// Its checksum is wrong.
        BadChecksum = "bad-checksum",
        /// The first copy is damaged or lost, another one was used.
        CopyUsed = "copy-used",
        /// It says that it is longer than the device.
        Truncated = "truncated",
    }
}

/// A line of a partition table.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PartitionEntry {
    /// Its number, from 1 (logical partitions of DOS tables from 5).
    pub number: u32,
    /// Where it lies on the disk.
    pub range: ByteRange,
    /// The type, as the table writes it.
    pub type_id: String,
    /// The name that a GPT gives it.
    pub name: Option<String>,
    /// The identity that a GPT gives it.
    pub uuid: Option<String>,
}

impl Device {
    /// A device of which only name, kind and size are known.
    #[must_use]
    pub fn new(
        path: impl Into<String>,
        kind: DeviceKind,
        size: ByteCount,
    ) -> Self {
        Self {
            path: path.into(),
            kind,
            size,
            start: None,
            logical_sector_bytes: 512,
            physical_sector_bytes: 512,
            read_only: false,
            removable: false,
            disk: DiskIdentity::default(),
            alias: None,
            number: None,
            mounts: Vec::new(),
            swap_active: false,
            holders: Vec::new(),
            contents: Contents::Unknown,
            partitions: Vec::new(),
        }
    }

    /// What was recognised on it.
    #[must_use]
    pub fn known_contents(&self) -> &[Content] {
        match &self.contents {
            Contents::Known(contents) => contents,
            Contents::Unknown | Contents::Unreadable(_) => &[],
        }
    }

    /// This device and its partitions.
    pub fn with_partitions(&self) -> impl Iterator<Item = &Self> {
        std::iter::once(self).chain(&self.partitions)
    }
}
