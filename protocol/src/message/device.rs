//! Devices as the agent lists them, and what a session may do with them.

use serde::{Deserialize, Serialize};

macro_rules! flags {
    (
        $(#[$doc:meta])* $name:ident
        { $($(#[$flag_doc:meta])* $flag:ident = $bit:literal,)* }
    ) => {
        $(#[$doc])*
        ///
        /// Bits are append-only; unknown ones are kept and ignored.
        #[derive(
            Clone, Copy, Debug, Default, Eq, PartialEq, Deserialize, Serialize,
        )]
        pub struct $name(pub u32);

        impl $name {
            $($(#[$flag_doc])* pub const $flag: Self = Self(1 << $bit);)*

            /// None of the bits.
            pub const NONE: Self = Self(0);

            /// Whether all bits of `other` are set here.
            #[must_use]
            pub const fn has(self, other: Self) -> bool {
                self.0 & other.0 == other.0
            }

            /// These bits and those of `other`.
            #[must_use]
            pub const fn with(self, other: Self) -> Self {
                Self(self.0 | other.0)
            }
        }
    };
}

flags! {
    /// What a session may ask for.
    Rights {
        /// List, read, digest, compare and search devices, drain logs.
        READ = 0,
        /// Write to devices, once armed.
        WRITE = 1,
        /// Restart the machine or switch it off.
        POWER = 2,
        /// No key was asked for: whoever reaches the port has these rights.
        INSECURE = 8,
    }
}

flags! {
    /// Properties of a device.
    DeviceFlags {
        /// The kernel refuses writes.
        READ_ONLY = 0,
        /// The medium can be taken out.
        REMOVABLE = 1,
        /// It spins: neighbouring reads are cheaper than scattered ones.
        ROTATIONAL = 2,
        /// Somebody uses it: mounted, swap, or held by md or device mapper.
        IN_USE = 3,
        /// A filesystem on it is mounted read/write.
        MOUNTED_READ_WRITE = 4,
        /// Reads bypass the page cache, so errors are reported per sector
        /// and a read after a write really comes from the device.
        DIRECT = 5,
    }
}

/// What kind of thing a device is.
#[derive(
    Clone, Copy, Debug, Default, Eq, PartialEq, Deserialize, Serialize,
)]
pub enum DeviceKind {
    /// A whole disk.
    #[default]
    Disk,
    /// A partition of a disk.
    Partition,
    /// Assembled by device mapper.
    Mapper,
    /// Assembled by md.
    Md,
    /// A loop device.
    Loop,
    /// A plain file that the agent was told to offer.
    File,
    /// Any other block device.
    Other,
}

/// What is known of one device. Texts are as the kernel gives them, trimmed,
/// empty where unknown, and cut at their bounds in
/// [`limits`](crate::limits).
#[derive(
    Clone, Copy, Debug, Default, Eq, PartialEq, Deserialize, Serialize,
)]
pub struct DeviceFacts<'a> {
    /// The kernel's name now ("sda3"), or the path of a file.
    pub name: &'a str,
    /// What kind of thing it is.
    pub kind: DeviceKind,
    /// Its properties.
    pub flags: DeviceFlags,
    /// Its size in bytes.
    pub size: u64,
    /// Bytes of a logical sector: the unit of every request, at least 512.
    pub logical_sector: u32,
    /// Bytes of a physical sector.
    pub physical_sector: u32,
    /// Where a partition starts on its disk, in bytes; 0 otherwise.
    pub partition_start: u64,
    /// The number of a partition; 0 otherwise.
    pub partition: u32,
    /// The kernel's name of the disk that a partition lies on.
    pub parent: &'a str,
    /// The model of the disk.
    pub model: &'a str,
    /// The serial number of the disk.
    pub serial: &'a str,
    /// The world-wide name of the disk.
    pub wwn: &'a str,
    /// Where the disk is attached, or what else tells it from others when it
    /// has neither WWN nor serial: bus path, md or dm identifier, file path.
    pub path: &'a str,
    /// The kernel's names of what holds it, separated by spaces.
    pub holders: &'a str,
}
