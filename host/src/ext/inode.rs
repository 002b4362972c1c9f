//! An inode as it lies in a table, and what of it a walk follows.

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::checksums::{crc32c, crc32c_parts};
use super::fields::with_fields;
use super::superblock::{Superblock, incompat};

/// The root directory.
pub(super) const ROOT_INODE: u32 = 2;

/// Slots of `i_block`; the first 12 name data blocks directly.
pub const I_BLOCK_SLOTS: usize = 15;
/// Bytes of `i_block`.
pub const I_BLOCK_BYTES: usize = 60;

/// `i_mode`: the bits that tell the type.
pub const S_IFMT: u16 = 0xF000;
/// A directory.
pub const S_IFDIR: u16 = 0x4000;
/// A regular file.
pub const S_IFREG: u16 = 0x8000;
/// A symbolic link.
pub const S_IFLNK: u16 = 0xA000;

/// A named pipe.
pub const S_IFIFO: u16 = 0x1000;
/// A character device.
pub const S_IFCHR: u16 = 0x2000;
/// A block device.
pub const S_IFBLK: u16 = 0x6000;
/// A socket.
pub const S_IFSOCK: u16 = 0xC000;

/// `i_flags`: `i_block` is the root of an extent tree.
pub const EXTENTS_FL: u32 = 0x8_0000;
/// `i_flags`: the value of a large extended attribute.
pub const EA_INODE_FL: u32 = 0x20_0000;
/// `i_flags`: the contents lie in the inode itself.
pub const INLINE_DATA_FL: u32 = 0x1000_0000;

with_fields! {
    /// The first 128 bytes of an inode, all there is in revision 0.
    #[derive(Clone, FromBytes, Immutable, KnownLayout, Unaligned)]
    #[repr(C)]
    pub(crate) struct RawInode {
        pub(crate) i_mode: U16,
        pub(crate) i_uid: U16,
        pub(crate) i_size_lo: U32,
        pub(crate) i_atime: U32,
        pub(crate) i_ctime: U32,
        pub(crate) i_mtime: U32,
        pub(crate) i_dtime: U32,
        pub(crate) i_gid: U16,
        pub(crate) i_links_count: U16,
        pub(crate) i_blocks_lo: U32,
        pub(crate) i_flags: U32,
        /// `l_i_version`, or on the Hurd `h_i_translator`.
        pub(crate) i_osd1: U32,
        pub(crate) i_block: [u8; I_BLOCK_BYTES],
        pub(crate) i_generation: U32,
        pub(crate) i_file_acl_lo: U32,
        pub(crate) i_size_high: U32,
        pub(crate) i_obso_faddr: U32,
        pub(crate) i_blocks_high: U16,
        pub(crate) i_file_acl_high: U16,
        pub(crate) i_uid_high: U16,
        pub(crate) i_gid_high: U16,
        pub(crate) i_checksum_lo: U16,
        pub(crate) i_reserved: U16,
    }
}

with_fields! {
    /// What an inode of more than 128 bytes may have behind them, as far as
    /// its `i_extra_isize` reaches.
    #[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
    #[repr(C)]
    pub(super) struct RawInodeExtra {
        i_extra_isize: U16,
        i_checksum_hi: U16,
        i_ctime_extra: U32,
        i_mtime_extra: U32,
        i_atime_extra: U32,
        i_crtime: U32,
        i_crtime_extra: U32,
        i_version_hi: U32,
        i_projid: U32,
    }
}

const _: () = assert!(size_of::<RawInode>() == 128);

/// Where `i_checksum_lo` lies.
const CHECKSUM_LO_AT: usize = 0x7C;
/// Where `i_extra_isize` lies.
const EXTRA_ISIZE_AT: usize = 0x80;
/// Where `i_checksum_hi` lies.
const CHECKSUM_HI_AT: usize = 0x82;

impl RawInode {
    /// The type's bits of `i_mode`.
    pub(crate) fn file_type(&self) -> u16 {
        self.i_mode.get() & S_IFMT
    }

    /// Whether any of `flags` is set.
    pub(crate) fn has_flag(&self, flags: u32) -> bool {
        self.i_flags.get() & flags != 0
    }

    /// Slot `index` of `i_block` as a block number.
    pub(crate) fn slot(&self, index: usize) -> u64 {
        let at = index.saturating_mul(4);
        U32::ref_from_prefix(self.i_block.get(at..).unwrap_or_default())
            .map_or(0, |(slot, _)| u64::from(slot.get()))
    }

    /// Whether the map has anything but direct blocks: an extent tree or an
    /// indirect block.
    pub(crate) fn may_have_map_blocks(&self) -> bool {
        self.has_flag(EXTENTS_FL)
            || (12..I_BLOCK_SLOTS).any(|slot| self.slot(slot) != 0)
    }

    /// The block of extended attributes, 0 for none.
    pub(crate) fn xattr_block(&self, superblock: &Superblock) -> u64 {
        let low = u64::from(self.i_file_acl_lo.get());
        if superblock.has_64bit() {
            low | u64::from(self.i_file_acl_high.get()).wrapping_shl(32)
        } else {
            low
        }
    }

    /// Whether a symbolic link keeps its target in a block, by e2image's
    /// rule.
    pub(crate) fn is_slow_symlink(&self, superblock: &Superblock) -> bool {
        let size = self.i_size_lo.get();
        if self.xattr_block(superblock) == 0 {
            self.i_blocks_lo.get() != 0
        } else {
            size >= 60 || (size > 4 && self.slot(1) == 0)
        }
    }

    /// Whether the kernel takes a symbolic link for a short one. Where
    /// attribute values have inodes, `i_blocks` counts these and tells
    /// nothing.
    pub(crate) fn is_fast_symlink(&self, superblock: &Superblock) -> bool {
        superblock.incompat & incompat::EA_INODE != 0
            && !self.has_flag(EXTENTS_FL)
            && (1..60).contains(&self.i_size_lo.get())
            && self.i_size_high.get() == 0
    }

    /// Whether the inode was unlinked while open and waits to be freed.
    /// The list of such inodes is chained through `i_dtime`, which for
    /// properly deleted inodes is a time.
    pub(crate) fn is_orphan(&self, superblock: &Superblock) -> bool {
        self.i_mode.get() != 0
            && self.i_links_count.get() == 0
            && self.i_dtime.get() <= superblock.inodes_count
    }
}

/// What the checksums of an inode and of what belongs to it begin with.
pub(crate) fn checksum_seed(
    superblock: &Superblock,
    number: u32,
    raw: &RawInode,
) -> u32 {
    crc32c_parts(
        superblock.checksum_seed,
        &[&number.to_le_bytes(), &raw.i_generation.get().to_le_bytes()],
    )
}

/// Whether the checksum of an inode is right; `bytes` is the whole inode.
pub(crate) fn checksum_ok(seed: u32, bytes: &[u8]) -> bool {
    let part = |from: usize, to: usize| bytes.get(from..to).unwrap_or_default();
    let half = |at: usize| {
        U16::ref_from_prefix(bytes.get(at..).unwrap_or_default())
            .map_or(0, |(half, _)| half.get())
    };
    let low = half(CHECKSUM_LO_AT);
    let crc = crc32c_parts(
        seed,
        &[part(0, CHECKSUM_LO_AT), &[0, 0], part(0x7E, EXTRA_ISIZE_AT)],
    );
    if bytes.len() <= EXTRA_ISIZE_AT {
        let [a, b, ..] = crc.to_le_bytes();
        return u16::from_le_bytes([a, b]) == low;
    }
    // The high half is there when i_extra_isize reaches behind it.
    let has_high = half(EXTRA_ISIZE_AT) >= 4;
    let crc = crc32c(crc, part(EXTRA_ISIZE_AT, CHECKSUM_HI_AT));
    let end = bytes.len();
    if has_high {
        let crc = crc32c_parts(crc, &[&[0, 0], part(CHECKSUM_HI_AT + 2, end)]);
        let high = u32::from(half(CHECKSUM_HI_AT));
        return crc == u32::from(low) | high.wrapping_shl(16);
    }
    let [a, b, ..] = crc32c(crc, part(CHECKSUM_HI_AT, end)).to_le_bytes();
    u16::from_le_bytes([a, b]) == low
}
