//! What the bitmaps of a normal image hold: not always what the disk does.

use zerocopy::FromBytes;

use crate::block_set::BlockSet;
use crate::error::Result;
use crate::ext::groups::{self, BLOCK_UNINIT, INODE_UNINIT};
use crate::ext::superblock::{RawSuperblock, Superblock, incompat};
use crate::ext::{Group, Walk};
use crate::units::{BlockCount, BlockNumber, BlockRun};

/// Knows which bitmaps are read, and what is added to them.
pub(super) struct Bitmaps {
    has_group_csum: bool,
    blocks: u64,
    clusters_per_group: u64,
    /// Clusters, counted from the first of group 0, that are in use although
    /// no bitmap on the disk may say so: the tables of groups that were never
    /// initialised.
    added: BlockSet,
}

impl Bitmaps {
    /// # Errors
    ///
    /// When the walk's superblock is none.
    pub(super) fn new(walk: &Walk) -> Result<Self> {
        let superblock = Superblock::check(&walk.superblock, None, None)?;
        Ok(Self::of(&superblock, &walk.groups))
    }

    pub(super) fn of(superblock: &Superblock, groups: &[Group]) -> Self {
        let reserved = RawSuperblock::ref_from_bytes(&*superblock.bytes)
            .map_or(0, |raw| u64::from(raw.s_reserved_gdt_blocks.get()));
        let mut added = BlockSet::new();
        for (number, group) in (0_u32..).zip(groups) {
            if group.flags & BLOCK_UNINIT != 0 {
                for run in own_blocks(superblock, reserved, number, group) {
                    insert_clusters(superblock, run, &mut added);
                }
            }
        }
        let geometry = &superblock.geometry;
        Self {
            has_group_csum: superblock.has_group_csum(),
            blocks: geometry.blocks.0,
            clusters_per_group: u64::from(geometry.clusters_per_group),
            added,
        }
    }

    /// Where the block bitmap of a group is read, if it is.
    pub(super) fn block_bitmap(&self, group: &Group) -> Option<BlockNumber> {
        self.on_disk(group, BLOCK_UNINIT, group.block_bitmap)
    }

    /// Where the inode bitmap of a group is read, if it is.
    pub(super) fn inode_bitmap(&self, group: &Group) -> Option<BlockNumber> {
        self.on_disk(group, INODE_UNINIT, group.inode_bitmap)
    }

    fn on_disk(
        &self,
        group: &Group,
        uninit: u16,
        at: BlockNumber,
    ) -> Option<BlockNumber> {
        let unused = self.has_group_csum
            && group.flags & uninit != 0
            && group.checksum_ok;
        (!unused && at.0 != 0 && at.0 < self.blocks).then_some(at)
    }

    /// Whether anything is added to the block bitmap of a group.
    pub(super) fn adds_to(&self, group: u32) -> bool {
        self.added.count_in(self.window(group)).0 > 0
    }

    /// Sets the bits that are added to the block bitmap of a group.
    pub(super) fn add_to(&self, group: u32, bitmap: &mut [u8]) {
        let window = self.window(group);
        for run in self.added.runs_in(window) {
            for cluster in run.first().0..run.end().0 {
                let bit = cluster.saturating_sub(window.first().0);
                let byte = usize::try_from(bit.wrapping_shr(3));
                if let Some(byte) = bitmap.get_mut(byte.unwrap_or(usize::MAX)) {
                    *byte |=
                        1_u8.wrapping_shl(u32::from(bit.to_le_bytes()[0] & 7));
                }
            }
        }
    }

    fn window(&self, group: u32) -> BlockRun {
        let first = u64::from(group).saturating_mul(self.clusters_per_group);
        run(first, self.clusters_per_group)
    }
}

fn run(first: u64, count: u64) -> BlockRun {
    let count = count.min(u64::MAX.saturating_sub(first));
    BlockRun::new(BlockNumber(first), BlockCount(count)).unwrap_or(NOTHING)
}

const NOTHING: BlockRun = match BlockRun::new(BlockNumber(0), BlockCount(0)) {
    Some(run) => run,
    // OK to unwrap: 0 + 0 does not wrap, and this is computed by the compiler.
    None => panic!("0 + 0 wraps"),
};

/// The blocks that a group needs for the filesystem itself.
fn own_blocks(
    superblock: &Superblock,
    reserved: u64,
    number: u32,
    group: &Group,
) -> Vec<BlockRun> {
    let geometry = &superblock.geometry;
    let mut runs = superblock_and_descriptors(superblock, reserved, number);
    if group.inode_table.0 != 0 {
        let table = u64::from(geometry.inode_table_blocks);
        runs.push(run(group.inode_table.0, table));
    }
    runs.extend(
        [group.block_bitmap, group.inode_bitmap]
            .into_iter()
            .filter(|at| at.0 != 0)
            .map(|at| run(at.0, 1)),
    );
    runs
}

/// The copies of superblock and descriptors in a group, and the blocks that
/// are reserved for more descriptors.
fn superblock_and_descriptors(
    superblock: &Superblock,
    reserved: u64,
    number: u32,
) -> Vec<BlockRun> {
    let geometry = &superblock.geometry;
    let number = u64::from(number);
    let has_superblock = groups::has_superblock(superblock, number);
    let mut first = groups::first_block(superblock, number).0;
    let mut runs = Vec::new();
    if has_superblock {
        // With 1 KiB blocks and bigalloc the filesystem begins with the boot
        // block.
        let boot = number == 0
            && geometry.block_size.log2() == 10
            && geometry.first_data_block.0 == 0;
        let count = if boot { 2 } else { 1 };
        runs.push(run(first, count));
        first = first.saturating_add(count);
    }
    let per_block = geometry
        .block_size
        .bytes_u64()
        .checked_div(u64::from(geometry.descriptor_size))
        .unwrap_or(1);
    let place = number.checked_rem(per_block).unwrap_or(0);
    let part = number.checked_div(per_block).unwrap_or(0);
    if superblock.incompat & incompat::META_BG == 0 {
        if has_superblock {
            let table = u64::from(geometry.descriptor_blocks);
            runs.push(run(first, table.saturating_add(reserved)));
        }
    } else if part < u64::from(superblock.first_meta_bg) {
        if has_superblock {
            runs.push(run(first, u64::from(superblock.first_meta_bg)));
        }
    } else if place < 2 || place == per_block.saturating_sub(1) {
        runs.push(run(first, 1));
    }
    runs
}

/// Adds the clusters that the blocks of `run` lie in, as far as they lie in
/// the filesystem.
fn insert_clusters(
    superblock: &Superblock,
    run: BlockRun,
    clusters: &mut BlockSet,
) {
    let geometry = &superblock.geometry;
    let fdb = geometry.first_data_block.0;
    let first = run.first().0.max(fdb).saturating_sub(fdb);
    let end = run.end().0.min(geometry.blocks.0).saturating_sub(fdb);
    let Some(last) = end.checked_sub(1).filter(|last| *last >= first) else {
        return;
    };
    let bits = geometry.cluster_blocks.trailing_zeros();
    let (first, last) = (first.wrapping_shr(bits), last.wrapping_shr(bits));
    let count = last.saturating_sub(first).saturating_add(1);
    clusters.insert_run(self::run(first, count));
}
