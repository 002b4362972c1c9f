//! normal, e2image's own format: the tables of a filesystem without the room
//! between them. `debugfs -i` and `dumpe2fs -i` read it.
//!
//! # The format
//!
//! Everything is little-endian and starts at a whole block, `bs` bytes long:
//!
//! ```text
//! header         0                332 bytes, the rest zero
//! superblock     bs               its 1,024 bytes, the rest zero
//! descriptors    2 bs             whole blocks, in the order of the groups
//! inode tables   offset_inode     those of all groups, whole
//! block bitmaps  offset_blockmap  clusters_per_group / 8 bytes a group,
//!                                 no gap; zeros up to a whole block
//! inode bitmaps  offset_inodemap  inodes_per_group / 8 bytes a group,
//!                                 no gap; zeros up to a whole block
//! ```
//!
//! The offsets in the header are 32 bits wide: what does not fit below 4 GiB
//! is refused. There is no checksum; the manifest has them.
//!
//! Bitmaps are what the library behind e2image makes of them, not what lies
//! on the disk: that of a group whose descriptor says that it was never
//! initialised is zero, but for the group's own tables.
//!
//! Parts of an inode table that were not selected, because no inode in them
//! was ever used, are holes. With a walk that selects whole tables the image
//! has the same bytes as e2image's, but for what [`HostFacts`] holds.

mod bitmaps;
mod layout;
pub mod read;
pub mod sink;

use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The magic number of the header.
pub(super) const MAGIC: u32 = 0x7F2B_B710;

/// What the header says of itself in words.
const MAGIC_DESCRIPTOR: &[u8] = b"Ext2 Image 1.0";

/// The header of a normal image.
#[derive(
    Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
)]
#[repr(C)]
struct Header {
    magic: U32,
    magic_descriptor: [u8; 16],
    fs_hostname: [u8; 64],
    fs_netaddr: [u8; 32],
    fs_netaddr_type: U32,
    /// `st_rdev` of the device.
    fs_device: U32,
    fs_device_name: [u8; 64],
    fs_uuid: [u8; 16],
    fs_blocksize: U32,
    fs_reserved: [u8; 32],
    /// `st_dev` and `st_ino` of the image.
    image_device: U32,
    image_inode: U32,
    image_time: U32,
    image_time_hi: U32,
    image_reserved: [u8; 28],
    offset_super: U32,
    offset_inode: U32,
    offset_inodemap: U32,
    offset_blockmap: U32,
    offset_reserved: [u8; 32],
}

const _: () = assert!(size_of::<Header>() == 332);

/// What the header tells of the machine that made the image.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct HostFacts {
    /// The machine's name; 64 bytes are kept.
    pub hostname: Vec<u8>,
    /// The device's name as it was given; 63 bytes are kept.
    pub device: Vec<u8>,
    /// `st_rdev` of the device, 0 for a file; 32 bits are kept.
    pub device_number: u64,
    /// `st_dev` of the image; 32 bits are kept.
    pub image_device: u64,
    /// `st_ino` of the image; 32 bits are kept.
    pub image_inode: u64,
    /// Seconds since 1970.
    pub time: u64,
}

impl HostFacts {
    /// The header of an image of the filesystem `uuid`.
    fn header(&self, uuid: [u8; 16], layout: &layout::Layout) -> Header {
        let low = |wide: u64| {
            let [a, b, c, d, ..] = wide.to_le_bytes();
            U32::from_bytes([a, b, c, d])
        };
        let mut header = Header {
            magic: MAGIC.into(),
            magic_descriptor: [0; 16],
            fs_hostname: [0; 64],
            fs_netaddr: [0; 32],
            fs_netaddr_type: U32::ZERO,
            fs_device: low(self.device_number),
            fs_device_name: [0; 64],
            fs_uuid: uuid,
            fs_blocksize: low(layout.block_size.bytes_u64()),
            fs_reserved: [0; 32],
            image_device: low(self.image_device),
            image_inode: low(self.image_inode),
            image_time: low(self.time),
            image_time_hi: low(self.time.wrapping_shr(32)),
            image_reserved: [0; 28],
            offset_super: low(layout.offset_super),
            offset_inode: low(layout.offset_inode),
            offset_inodemap: low(layout.offset_inodemap),
            offset_blockmap: low(layout.offset_blockmap),
            offset_reserved: [0; 32],
        };
        copy(&mut header.magic_descriptor, MAGIC_DESCRIPTOR);
        copy(&mut header.fs_hostname, &self.hostname);
        if let Some(room) = header.fs_device_name.get_mut(..63) {
            copy(room, &self.device);
        }
        header
    }
}

/// As much of `from` as there is room for.
fn copy(room: &mut [u8], from: &[u8]) {
    for (to, from) in room.iter_mut().zip(from) {
        *to = *from;
    }
}
