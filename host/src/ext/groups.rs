//! Block groups: where their descriptors lie and what these say.

use std::collections::BTreeMap;

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::checksums::{crc16_parts, crc32c_parts};
use super::fields::with_fields;
use super::superblock::{
    SUPERBLOCK_OFFSET, Superblock, compat, incompat, ro_compat,
};
use crate::ext::Group;
use crate::units::{BlockNumber, BlockSize, ByteOffset, usize_from};

/// `bg_flags`: the inode bitmap and table were never initialised.
pub const INODE_UNINIT: u16 = 1;
/// `bg_flags`: the block bitmap was never initialised.
pub const BLOCK_UNINIT: u16 = 2;

with_fields! {
    /// The first half of a descriptor, all there is without 64bit.
    #[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
    #[repr(C)]
    pub(super) struct RawGroupLow {
        bg_block_bitmap_lo: U32,
        bg_inode_bitmap_lo: U32,
        bg_inode_table_lo: U32,
        bg_free_blocks_count_lo: U16,
        bg_free_inodes_count_lo: U16,
        bg_used_dirs_count_lo: U16,
        bg_flags: U16,
        bg_exclude_bitmap_lo: U32,
        bg_block_bitmap_csum_lo: U16,
        bg_inode_bitmap_csum_lo: U16,
        bg_itable_unused_lo: U16,
        bg_checksum: U16,
    }
}

with_fields! {
    /// The second half.
    #[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
    #[repr(C)]
    pub(super) struct RawGroupHigh {
        bg_block_bitmap_hi: U32,
        bg_inode_bitmap_hi: U32,
        bg_inode_table_hi: U32,
        bg_free_blocks_count_hi: U16,
        bg_free_inodes_count_hi: U16,
        bg_used_dirs_count_hi: U16,
        bg_itable_unused_hi: U16,
        bg_exclude_bitmap_hi: U32,
        bg_block_bitmap_csum_hi: U16,
        bg_inode_bitmap_csum_hi: U16,
        bg_reserved: U32,
    }
}

const _: () = assert!(size_of::<RawGroupLow>() == 32);
const _: () = assert!(size_of::<RawGroupHigh>() == 32);

/// Where `bg_checksum` lies; the CRC-16 leaves it out.
const CHECKSUM_AT: usize = 0x1E;

/// Takes one descriptor apart; `None` when it is cut short.
pub(crate) fn parse(
    superblock: &Superblock,
    number: u32,
    bytes: &[u8],
) -> Option<Group> {
    let (low, rest) = RawGroupLow::ref_from_prefix(bytes).ok()?;
    let high = if superblock.has_64bit() {
        RawGroupHigh::ref_from_prefix(rest).ok().map(|(high, _)| high)
    } else {
        None
    };
    let wide = |low: U32, high: Option<U32>| {
        let high = u64::from(high.map_or(0, U32::get));
        BlockNumber(u64::from(low.get()) | high.wrapping_shl(32))
    };
    let unused_high =
        u32::from(high.map_or(0, |h| h.bg_itable_unused_hi.get()));
    Some(Group {
        block_bitmap: wide(
            low.bg_block_bitmap_lo,
            high.map(|h| h.bg_block_bitmap_hi),
        ),
        inode_bitmap: wide(
            low.bg_inode_bitmap_lo,
            high.map(|h| h.bg_inode_bitmap_hi),
        ),
        inode_table: wide(
            low.bg_inode_table_lo,
            high.map(|h| h.bg_inode_table_hi),
        ),
        flags: low.bg_flags.get(),
        itable_unused: u32::from(low.bg_itable_unused_lo.get())
            | unused_high.wrapping_shl(16),
        checksum_ok: checksum_ok(superblock, number, bytes, low.bg_checksum),
        bitmap_checksums: superblock.has_metadata_csum().then(|| {
            let halves = |low: U16, high: Option<U16>| {
                let high = u32::from(high.map_or(0, U16::get));
                u32::from(low.get()) | high.wrapping_shl(16)
            };
            [
                halves(
                    low.bg_block_bitmap_csum_lo,
                    high.map(|h| h.bg_block_bitmap_csum_hi),
                ),
                halves(
                    low.bg_inode_bitmap_csum_lo,
                    high.map(|h| h.bg_inode_bitmap_csum_hi),
                ),
            ]
        }),
    })
}

fn checksum_ok(
    superblock: &Superblock,
    number: u32,
    bytes: &[u8],
    stored: U16,
) -> bool {
    if !superblock.has_group_csum() {
        return true;
    }
    let size = usize_from(superblock.geometry.descriptor_size);
    let head = bytes.get(..CHECKSUM_AT).unwrap_or_default();
    let tail = bytes.get(32..size).unwrap_or_default();
    let number = number.to_le_bytes();
    let computed = if superblock.has_metadata_csum() {
        let crc = crc32c_parts(
            superblock.checksum_seed,
            &[&number, head, &[0, 0], tail],
        );
        let [low, high, ..] = crc.to_le_bytes();
        u16::from_le_bytes([low, high])
    } else {
        let uuid = &superblock.geometry.uuid;
        crc16_parts(&[uuid, &number, head, tail])
    };
    computed == stored.get()
}

/// Whether group `number` begins with a copy of the superblock.
pub(crate) fn has_superblock(superblock: &Superblock, number: u64) -> bool {
    if number == 0 {
        return true;
    }
    if superblock.compat & compat::SPARSE_SUPER2 != 0 {
        return superblock
            .backup_groups
            .iter()
            .any(|group| u64::from(*group) == number);
    }
    superblock.ro_compat & ro_compat::SPARSE_SUPER == 0
        || number == 1
        || [3, 5, 7].into_iter().any(|base| is_power_of(number, base))
}

fn is_power_of(mut number: u64, base: u64) -> bool {
    while number > 1 {
        if !number.is_multiple_of(base) {
            return false;
        }
        number = number.checked_div(base).unwrap_or(0);
    }
    number == 1
}

/// The first block of group `number`.
pub(crate) fn first_block(superblock: &Superblock, number: u64) -> BlockNumber {
    let geometry = &superblock.geometry;
    let blocks = number.saturating_mul(u64::from(geometry.blocks_per_group));
    BlockNumber(geometry.first_data_block.0.saturating_add(blocks))
}

/// The block that the first superblock lies in.
pub(crate) const fn usual_superblock(size: BlockSize) -> BlockNumber {
    size.block_of(ByteOffset(SUPERBLOCK_OFFSET))
}

/// Where the superblock's own descriptors begin when it lies at the usual
/// place: behind the block that holds it.
fn primary_base(superblock: &Superblock) -> u64 {
    let geometry = &superblock.geometry;
    // With 1 KiB blocks the superblock is block 1, also when the filesystem
    // begins at block 0 (bigalloc).
    if geometry.block_size.log2() == 10 {
        1
    } else {
        geometry.first_data_block.0
    }
}

/// The block of the descriptor table's part `index`, as it belongs to the
/// superblock that was read (`from_backup`) or to the primary one.
pub(crate) fn descriptor_block(
    superblock: &Superblock,
    index: u32,
    from_backup: bool,
) -> BlockNumber {
    let base =
        if from_backup { superblock.at.0 } else { primary_base(superblock) };
    if index < superblock.first_meta_bg {
        return BlockNumber(
            base.saturating_add(1).saturating_add(u64::from(index)),
        );
    }
    debug_assert!(superblock.incompat & incompat::META_BG != 0);
    let geometry = &superblock.geometry;
    let mut group =
        u64::from(index).saturating_mul(u64::from(per_block(superblock)));
    if from_backup {
        // The copy lies in the next group, if there is one.
        let next = group.saturating_add(1);
        if next < u64::from(geometry.groups) {
            group = next;
        }
    }
    behind_superblock(superblock, group)
}

/// Which part of the primary descriptor table each of its blocks is.
#[must_use]
pub(crate) fn descriptor_order(superblock: &Superblock) -> BTreeMap<u64, u32> {
    (0..superblock.geometry.descriptor_blocks)
        .map(|part| (descriptor_block(superblock, part, false).0, part))
        .collect()
}

/// How many descriptors a block of the table holds.
pub(super) fn per_block(superblock: &Superblock) -> u32 {
    let geometry = &superblock.geometry;
    geometry
        .block_size
        .bytes_u64()
        .checked_div(u64::from(geometry.descriptor_size))
        .and_then(|count| u32::try_from(count).ok())
        .unwrap_or(1)
}

/// The first block of group `number` that is not a superblock.
fn behind_superblock(superblock: &Superblock, number: u64) -> BlockNumber {
    let geometry = &superblock.geometry;
    let mut block = first_block(superblock, number).0;
    if has_superblock(superblock, number) {
        block = block.saturating_add(1);
        if number == 0
            && geometry.block_size.log2() == 10
            && geometry.first_data_block.0 == 0
        {
            block = block.saturating_add(1);
        }
    }
    BlockNumber(block)
}

/// Where copies of the superblock lie, the primary one left out, in the
/// order of the groups.
pub(super) fn superblock_copies(superblock: &Superblock) -> Vec<BlockNumber> {
    let groups = u64::from(superblock.geometry.groups);
    let [one, other] = superblock.backup_groups.map(u64::from);
    // Groups with copies grow rare: the first hundreds have plenty.
    let mut holders: Vec<u64> =
        (1..groups.min(1024)).chain([one, other]).collect();
    holders.retain(|group| {
        (1..groups).contains(group) && has_superblock(superblock, *group)
    });
    holders.sort_unstable();
    holders.dedup();
    holders.into_iter().map(|group| first_block(superblock, group)).collect()
}

/// The superblocks behind which the descriptor table lies, the primary one
/// first; a copy that is in use comes next.
pub(super) fn table_bases(superblock: &Superblock) -> Vec<BlockNumber> {
    let mut bases = vec![BlockNumber(primary_base(superblock))];
    if superblock.is_backup {
        bases.push(superblock.at);
    }
    let copies = superblock_copies(superblock);
    bases.extend(copies.into_iter().filter(|at| *at != superblock.at));
    bases
}

/// The copies of the descriptor table's part `index`, the first one
/// included; `bases` are [`table_bases`].
pub(super) fn descriptor_copies(
    superblock: &Superblock,
    bases: &[BlockNumber],
    index: u32,
) -> Vec<BlockNumber> {
    if index < superblock.first_meta_bg {
        let part = u64::from(index).saturating_add(1);
        let copies = bases.iter().map(|base| base.0.saturating_add(part));
        return copies.map(BlockNumber).collect();
    }
    let groups = u64::from(superblock.geometry.groups);
    let per_block = u64::from(per_block(superblock));
    let first = u64::from(index).saturating_mul(per_block);
    let last = first.saturating_add(per_block).saturating_sub(1);
    [first, first.saturating_add(1), last]
        .into_iter()
        .filter(|group| *group < groups)
        .map(|group| behind_superblock(superblock, group))
        .collect()
}
