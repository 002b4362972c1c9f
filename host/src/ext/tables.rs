//! Which inode tables are looked through, and which inodes a block of them
//! holds.

use crate::block_set::BlockSet;
use crate::units::{BlockCount, BlockNumber, BlockRun};

/// How often one block is looked into for tables that overlap: a damaged
/// descriptor table must not multiply the work.
const CLAIMS_MAX: usize = 64;

/// The part of one group's inode table that holds inodes in use.
#[derive(Clone, Copy, Debug)]
pub(super) struct Table {
    pub(super) first: u64,
    /// How many blocks to look through, inside the filesystem.
    pub(super) blocks: u32,
    /// The number of the first inode.
    pub(super) inode: u32,
    /// How many inodes to look at.
    pub(super) inodes: u32,
}

impl Table {
    fn end(&self) -> u64 {
        self.first.saturating_add(u64::from(self.blocks))
    }
}

/// All of them, in the order of their places.
#[derive(Debug, Default)]
pub(super) struct Tables {
    tables: Vec<Table>,
    /// The farthest end of each table and those before it: damaged
    /// descriptors make tables overlap.
    reach: Vec<u64>,
    inodes_per_block: u32,
}

/// The inodes that a block of a table holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Slots {
    pub(super) first_inode: u32,
    pub(super) count: u32,
}

impl Tables {
    pub(super) fn new(mut tables: Vec<Table>, inodes_per_block: u32) -> Self {
        tables.retain(|table| table.blocks > 0 && table.inodes > 0);
        tables.sort_unstable_by_key(|table| (table.first, table.inode));
        let reach = tables
            .iter()
            .scan(0_u64, |reach, table| {
                *reach = table.end().max(*reach);
                Some(*reach)
            })
            .collect();
        Self { tables, reach, inodes_per_block }
    }

    /// The blocks to read.
    pub(super) fn blocks(&self) -> BlockSet {
        self.tables
            .iter()
            .filter_map(|table| {
                BlockRun::new(
                    BlockNumber(table.first),
                    BlockCount(u64::from(table.blocks)),
                )
            })
            .collect()
    }

    /// What `block` holds, once for each table that claims it.
    pub(super) fn slots_in(
        &self,
        block: BlockNumber,
    ) -> impl Iterator<Item = Slots> + '_ {
        let behind =
            self.tables.partition_point(|table| table.first <= block.0);
        let head = self.tables.get(..behind).unwrap_or_default();
        let reach = self.reach.get(..behind).unwrap_or_default();
        head.iter()
            .zip(reach)
            .rev()
            .take_while(move |(_, reach)| **reach > block.0)
            .take(CLAIMS_MAX)
            .filter_map(move |(table, _)| self.slots_of(table, block))
    }

    fn slots_of(&self, table: &Table, block: BlockNumber) -> Option<Slots> {
        if block.0 >= table.end() {
            return None;
        }
        let index = block.0.checked_sub(table.first)?;
        let before =
            u32::try_from(index).ok()?.checked_mul(self.inodes_per_block)?;
        let left = table.inodes.checked_sub(before)?;
        Some(Slots {
            first_inode: table.inode.checked_add(before)?,
            count: left.min(self.inodes_per_block),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlapping_tables_both_get_their_blocks() {
        let table = |first, blocks, inode| Table {
            first,
            blocks,
            inode,
            inodes: blocks * 16 - 3,
        };
        let tables = Tables::new(
            vec![table(100, 10, 161), table(90, 50, 1), table(105, 2, 1000)],
            16,
        );
        let at = |block| {
            let mut found: Vec<_> = tables
                .slots_in(BlockNumber(block))
                .map(|slots| (slots.first_inode, slots.count))
                .collect();
            found.sort_unstable();
            found
        };
        assert_eq!(at(89), []);
        assert_eq!(at(90), [(1, 16)]);
        assert_eq!(at(106), [(257, 16), (257, 16), (1016, 13)]);
        assert_eq!(at(139), [(1 + 49 * 16, 13)]);
        assert_eq!(at(140), []);
        assert_eq!(
            tables.blocks().runs().map(|run| run.first().0).max(),
            Some(90)
        );
    }
}
