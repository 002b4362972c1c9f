//! Which of the blocks of an image are wanted: `--only`, `--groups`,
//! `--inodes`.

use std::ops::RangeInclusive;

use crate::block_set::BlockSet;
use crate::commands::install::InstallRequest;
use crate::ext::{BlockKind, Geometry, Walk};
use crate::units::{BlockCount, BlockNumber, BlockRun};

/// The wish of the user, as a question that can be put about a block.
pub(super) struct Wish<'a> {
    request: &'a InstallRequest,
    geometry: &'a Geometry,
    /// Where bitmaps and tables lie: the run and the group that it is of.
    tables: Vec<(BlockRun, u32)>,
}

impl<'a> Wish<'a> {
    pub(super) fn new(request: &'a InstallRequest, walk: &'a Walk) -> Self {
        let geometry = &walk.geometry;
        let mut tables = Vec::new();
        for (number, group) in (0_u32..).zip(&walk.groups) {
            let table = u64::from(geometry.inode_table_blocks);
            for (first, count) in [
                (group.block_bitmap, 1),
                (group.inode_bitmap, 1),
                (group.inode_table, table),
            ] {
                let run = BlockRun::new(first, BlockCount(count));
                tables.extend(run.map(|run| (run, number)));
            }
        }
        tables.sort_unstable_by_key(|(run, _)| run.first());
        Self { request, geometry, tables }
    }

    /// Whether a kind is wanted at all.
    pub(super) fn kind(&self, kind: BlockKind) -> bool {
        match &self.request.only {
            Some(only) => only.contains(&kind),
            None => true,
        }
    }

    /// Whether the superblock is wanted, which belongs to group 0.
    pub(super) fn superblock(&self) -> bool {
        self.kind(BlockKind::Superblock) && self.group(0)
    }

    fn group(&self, number: u32) -> bool {
        match &self.request.groups {
            Some(groups) => contains(groups, number),
            None => true,
        }
    }

    /// The wanted ones of `blocks`, which are of `kind`.
    pub(super) fn blocks(
        &self,
        kind: BlockKind,
        blocks: &BlockSet,
    ) -> BlockSet {
        if !self.kind(kind) {
            return BlockSet::new();
        }
        // A block of descriptors has those of many groups.
        if self.request.groups.is_none() || kind == BlockKind::Descriptors {
            return blocks.clone();
        }
        let mut wanted = BlockSet::new();
        for run in blocks.runs() {
            for block in run.first().0..run.end().0 {
                let block = BlockNumber(block);
                if self.group(self.group_of(kind, block)) {
                    wanted.insert(block);
                }
            }
        }
        wanted
    }

    /// The group that a block belongs to: of bitmaps and tables the one that
    /// they describe, which is not always the one that they lie in.
    pub(super) fn group_of(&self, kind: BlockKind, block: BlockNumber) -> u32 {
        let described = matches!(
            kind,
            BlockKind::BlockBitmap
                | BlockKind::InodeBitmap
                | BlockKind::InodeTable
        );
        if described {
            let behind =
                self.tables.partition_point(|(run, _)| run.first() <= block);
            let table = behind.checked_sub(1).and_then(|i| self.tables.get(i));
            if let Some((run, group)) = table
                && block < run.end()
            {
                return *group;
            }
        }
        let per_group = u64::from(self.geometry.blocks_per_group).max(1);
        let first = self.geometry.first_data_block.0;
        u32::try_from(block.0.saturating_sub(first) / per_group)
            .unwrap_or(u32::MAX)
    }

    /// The descriptors of a block of them that are wanted, as stretches of
    /// bytes; all of the block without `--groups`.
    pub(super) fn descriptors(
        &self,
        index: u32,
    ) -> Option<Vec<std::ops::Range<usize>>> {
        let groups = self.request.groups.as_ref()?;
        let size = crate::units::usize_from(self.geometry.descriptor_size);
        let block = self.geometry.block_size.bytes();
        let per_block = block / size.max(1);
        let first = crate::units::usize_from(index) * per_block;
        let wanted = (0..per_block).filter(|slot| {
            u32::try_from(first + slot)
                .is_ok_and(|group| contains(groups, group))
        });
        Some(wanted.map(|slot| slot * size..(slot + 1) * size).collect())
    }
}

pub(super) fn contains(list: &[RangeInclusive<u32>], number: u32) -> bool {
    list.iter().any(|range| range.contains(&number))
}
