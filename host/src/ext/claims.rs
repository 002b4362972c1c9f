//! Who claims a block: noted by a walk that is asked for some blocks.
//!
//! A walk keeps sets of blocks, not their owners. When blocks are lost, a
//! second walk is asked for just these.

use crate::block_set::BlockSet;
use crate::ext::superblock::Superblock;
use crate::ext::{BlockKind, Group, Walk, groups};
use crate::units::{BlockCount, BlockNumber, BlockRun};

/// How many copies of a lost block are named.
const COPIES_MAX: usize = 4;

/// How many claims are kept.
pub const CLAIMS_MAX: usize = 1 << 20;

/// Blocks that an inode claims.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Claim {
    /// The blocks.
    pub run: BlockRun,
    /// What they are for.
    pub kind: BlockKind,
    /// The inode.
    pub inode: u32,
}

/// What a walk notes while it marks.
#[derive(Clone, Debug, Default)]
pub(super) struct Watch {
    blocks: BlockSet,
    pub(super) claims: Vec<Claim>,
}

impl Watch {
    pub(super) const fn new(blocks: BlockSet) -> Self {
        Self { blocks, claims: Vec::new() }
    }

    pub(super) fn note(
        &mut self,
        kind: BlockKind,
        inode: u32,
        first: u64,
        end: u64,
    ) {
        if inode == 0 || self.claims.len() >= CLAIMS_MAX {
            return;
        }
        let Some(run) = end
            .checked_sub(first)
            .and_then(|c| BlockRun::new(BlockNumber(first), BlockCount(c)))
        else {
            return;
        };
        // One block is the usual case, and needs no set of its own.
        if run.count().0 == 1 {
            if self.blocks.contains(run.first()) {
                self.claims.push(Claim { run, kind, inode });
            }
            return;
        }
        for run in self.blocks.runs_in(run) {
            self.claims.push(Claim { run, kind, inode });
        }
    }
}

/// Whether blocks of this kind belong to an inode.
#[must_use]
pub const fn is_owned(kind: BlockKind) -> bool {
    !matches!(
        kind,
        BlockKind::Superblock
            | BlockKind::BackupSuperblock
            | BlockKind::Descriptors
            | BlockKind::BackupDescriptors
            | BlockKind::BlockBitmap
            | BlockKind::InodeBitmap
            | BlockKind::InodeTable
            | BlockKind::Mmp
    )
}

/// Where the copies of a superblock or of a part of the descriptor table lie
/// that could replace `block`, the nearest first.
#[must_use]
pub fn copies(
    walk: &Walk,
    kind: BlockKind,
    block: BlockNumber,
) -> Vec<BlockNumber> {
    let Ok(superblock) = Superblock::check(&walk.superblock, None, None) else {
        return Vec::new();
    };
    let geometry = &walk.geometry;
    match kind {
        BlockKind::Superblock => {
            let mut copies = groups::superblock_copies(&superblock);
            copies.truncate(COPIES_MAX);
            copies
        }
        BlockKind::Descriptors => {
            let mut parts = 0..geometry.descriptor_blocks;
            let part = parts.find(|part| {
                groups::descriptor_block(&superblock, *part, false) == block
            });
            let bases = groups::table_bases(&superblock);
            let mut copies = part.map_or_else(Vec::new, |part| {
                groups::descriptor_copies(&superblock, &bases, part)
            });
            copies.retain(|copy| *copy != block);
            copies.truncate(COPIES_MAX);
            copies
        }
        _ => Vec::new(),
    }
}

/// The group that `block` of this kind belongs to, and of an inode table its
/// inodes, the first and the last.
#[must_use]
pub fn place_of(
    walk: &Walk,
    kind: BlockKind,
    block: BlockNumber,
) -> (Option<u32>, Option<(u32, u32)>) {
    let geometry = &walk.geometry;
    let holds = |group: &Group| match kind {
        BlockKind::BlockBitmap => group.block_bitmap == block,
        BlockKind::InodeBitmap => group.inode_bitmap == block,
        BlockKind::InodeTable => {
            block.checked_since(group.inode_table).is_some_and(|into| {
                into.0 < u64::from(geometry.inode_table_blocks)
            })
        }
        _ => false,
    };
    if is_owned(kind) {
        let into = block.checked_since(geometry.first_data_block);
        let group = into.and_then(|into| {
            into.0.checked_div(u64::from(geometry.blocks_per_group))
        });
        return (group.and_then(|group| u32::try_from(group).ok()), None);
    }
    let found = (0_u32..).zip(&walk.groups).find(|(_, group)| holds(group));
    let Some((number, group)) = found else { return (None, None) };
    if kind != BlockKind::InodeTable {
        return (Some(number), None);
    }
    let size = u64::from(geometry.inode_size);
    let per_block = geometry.block_size.bytes_u64().checked_div(size);
    let into = block.checked_since(group.inode_table);
    let inodes = per_block.zip(into).and_then(|(per_block, into)| {
        let before = u64::from(number)
            .checked_mul(u64::from(geometry.inodes_per_group))?;
        let first = into
            .0
            .checked_mul(per_block)?
            .checked_add(before)?
            .checked_add(1)?;
        let last = first.checked_add(per_block)?.checked_sub(1)?;
        Some((u32::try_from(first).ok()?, u32::try_from(last).ok()?))
    });
    (Some(number), inodes)
}
