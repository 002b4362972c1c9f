//! Which of the blocks of an image are wanted: `--only`, `--groups`,
//! `--inodes`.

use std::ops::{Range, RangeInclusive};

use crate::block_set::BlockSet;
use crate::commands::install::InstallRequest;
use crate::commands::install::inodes::Chosen;
use crate::ext::claims::is_owned;
use crate::ext::{BlockKind, Geometry, Walk};
use crate::units::{BlockCount, BlockNumber, BlockRun};

/// The wish of the user, as a question that can be put about a block.
pub(super) struct Wish<'a> {
    request: &'a InstallRequest,
    geometry: &'a Geometry,
    /// The inodes that it is about, if it is about inodes.
    chosen: Option<&'a Chosen>,
    /// Where bitmaps and tables lie: the run and the group that it is of.
    tables: Vec<(BlockRun, u32)>,
}

impl<'a> Wish<'a> {
    pub(super) fn new(
        request: &'a InstallRequest,
        walk: &'a Walk,
        chosen: Option<&'a Chosen>,
    ) -> Self {
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
        Self { request, geometry, chosen, tables }
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
        self.kind(BlockKind::Superblock)
            && self.group(0)
            && self.chosen.is_none()
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
        let chosen = self.of_inodes(kind, blocks);
        let blocks = chosen.as_ref().unwrap_or(blocks);
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

    /// Those of `blocks` that belong to the inodes that were chosen; `None`
    /// when none were.
    fn of_inodes(
        &self,
        kind: BlockKind,
        blocks: &BlockSet,
    ) -> Option<BlockSet> {
        let chosen = self.chosen?;
        let mut wanted = BlockSet::new();
        if kind == BlockKind::InodeTable {
            for run in blocks.runs() {
                for block in run.first().0..run.end().0 {
                    let block = BlockNumber(block);
                    if !self.slots(block).is_empty() {
                        wanted.insert(block);
                    }
                }
            }
        } else if is_owned(kind) {
            wanted = blocks.clone();
            wanted.intersect_with(&chosen.blocks);
        }
        Some(wanted)
    }

    /// Where the inodes that were chosen lie in a block of an inode table;
    /// nowhere when none were.
    pub(super) fn slots(&self, block: BlockNumber) -> Vec<Range<usize>> {
        let Some(chosen) = self.chosen else { return Vec::new() };
        let behind =
            self.tables.partition_point(|(run, _)| run.first() <= block);
        let table = behind.checked_sub(1).and_then(|i| self.tables.get(i));
        let Some((run, group)) = table.filter(|(run, _)| block < run.end())
        else {
            return Vec::new();
        };
        let size = crate::units::usize_from(self.geometry.inode_size).max(1);
        let per_block = self.geometry.block_size.bytes() / size;
        let before = (block.0 - run.first().0).saturating_mul(per_block as u64);
        let first = u64::from(*group)
            .saturating_mul(u64::from(self.geometry.inodes_per_group))
            .saturating_add(before)
            .saturating_add(1);
        let is_chosen = |slot: &usize| {
            u32::try_from(first.saturating_add(*slot as u64))
                .is_ok_and(|inode| contains(&chosen.inodes, inode))
        };
        let slots = (0..per_block).filter(is_chosen);
        slots.map(|slot| slot * size..(slot + 1) * size).collect()
    }

    /// Whether only some inodes of the tables are wanted.
    pub(super) const fn is_of_inodes(&self) -> bool {
        self.chosen.is_some()
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
    pub(super) fn descriptors(&self, index: u32) -> Option<Vec<Range<usize>>> {
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
