//! L1, L2 and refcount tables, made from lists of runs: never held whole.

use zerocopy::IntoBytes;
use zerocopy::big_endian::{U16, U64};

use crate::error::Result;
use crate::image::qcow2::{COPIED, Clusters, ZERO};
use crate::image::writer::too_far;
use crate::units::{u64_from, usize_from};

/// Takes the bytes of a table, piece after piece.
pub(super) type Emit<'a> = &'a mut dyn FnMut(&[u8]) -> Result<()>;

/// Neighbouring guest clusters that are stored alike.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct EntryRun {
    /// The first guest cluster.
    pub(super) guest: u64,
    /// How many.
    pub(super) count: u64,
    /// How they are stored.
    pub(super) what: Entry,
}

/// How guest clusters are stored.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Entry {
    /// One behind the other from this cluster of the file on.
    Data(u64),
    /// Not at all, they are zero.
    Zero,
    /// Compressed; this is the L2 entry.
    Packed(u64),
}

impl EntryRun {
    fn end(&self) -> u64 {
        self.guest.saturating_add(self.count)
    }
}

/// Which L2 tables there are for `runs`, which ascend: their L1 indexes.
pub(super) fn l1_indexes(
    runs: impl Iterator<Item = EntryRun>,
    clusters: Clusters,
) -> Result<Vec<u32>> {
    let mut indexes: Vec<u32> = Vec::new();
    for run in runs {
        let Some(last) = run.end().checked_sub(1) else {
            continue;
        };
        let index = |cluster: u64| {
            u32::try_from(cluster.wrapping_shr(clusters.l2_bits()))
                .map_err(|_| too_far())
        };
        let (mut first, last) = (index(run.guest)?, index(last)?);
        if let Some(&known) = indexes.last() {
            first = first.max(known.saturating_add(1));
        }
        indexes.extend(first..=last);
    }
    Ok(indexes)
}

/// Emits one L2 table after the other for `runs`, which ascend.
pub(super) fn l2_tables(
    runs: impl Iterator<Item = EntryRun>,
    clusters: Clusters,
    emit: Emit<'_>,
) -> Result<()> {
    let entries = 1_usize.wrapping_shl(clusters.l2_bits());
    let mask = u64_from(entries).wrapping_sub(1);
    let mut table = vec![U64::ZERO; entries];
    let mut open: Option<u64> = None;
    for run in runs {
        let mut guest = run.guest;
        while guest < run.end() {
            let index = guest.wrapping_shr(clusters.l2_bits());
            if open != Some(index) {
                if open.is_some() {
                    emit(table.as_bytes())?;
                    table.fill(U64::ZERO);
                }
                open = Some(index);
            }
            // Up to the end of this table.
            let end = (guest | mask).saturating_add(1).min(run.end());
            let slots = slots(&mut table, guest & mask, end, guest);
            let skip = guest.saturating_sub(run.guest);
            fill(slots, run.what, skip, clusters)?;
            guest = end;
        }
    }
    if open.is_some() {
        emit(table.as_bytes())?;
    }
    Ok(())
}

fn slots(table: &mut [U64], slot: u64, end: u64, guest: u64) -> &mut [U64] {
    let first = usize::try_from(slot).unwrap_or(usize::MAX);
    let count = usize::try_from(end.saturating_sub(guest)).unwrap_or(0);
    table.get_mut(first..first.saturating_add(count)).unwrap_or(&mut [])
}

/// The entries of a run from its cluster `skip` on.
fn fill(
    slots: &mut [U64],
    what: Entry,
    skip: u64,
    clusters: Clusters,
) -> Result<()> {
    match what {
        Entry::Zero => slots.fill(ZERO.into()),
        Entry::Packed(entry) => slots.fill(entry.into()),
        Entry::Data(first) => {
            let first = first.checked_add(skip).ok_or_else(too_far)?;
            for (cluster, slot) in (first..).zip(slots) {
                *slot = (clusters.place(cluster)? | COPIED).into();
            }
        }
    }
    Ok(())
}

/// Emits the L1 table: the L2 tables of `indexes` lie one behind the other
/// from cluster `l2` of the file on.
pub(super) fn l1_table(
    indexes: &[u32],
    l2: u64,
    clusters: Clusters,
    emit: Emit<'_>,
) -> Result<()> {
    const PIECE: u32 = 8192;
    let mut tables = (l2..).zip(indexes).peekable();
    let mut piece = Vec::with_capacity(usize_from(PIECE));
    let mut first = 0_u32;
    while first < clusters.l1_size {
        let end = first.saturating_add(PIECE).min(clusters.l1_size);
        piece.clear();
        piece.resize(usize_from(end.saturating_sub(first)), U64::ZERO);
        while let Some((cluster, &index)) =
            tables.next_if(|(_, index)| **index < end)
        {
            let slot = usize_from(index.saturating_sub(first));
            if let Some(slot) = piece.get_mut(slot) {
                *slot = (clusters.place(cluster)? | COPIED).into();
            }
        }
        emit(piece.as_bytes())?;
        first = end;
    }
    Ok(())
}

/// Where the refcounts are, in clusters of the file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Refcounts {
    /// The first refcount block.
    pub(super) blocks: u64,
    pub(super) block_count: u64,
    /// The refcount table.
    pub(super) table: u64,
    pub(super) table_clusters: u64,
    /// Clusters of the file in all.
    pub(super) total: u64,
}

impl Refcounts {
    /// The refcounts of a file in which they stand behind `used` clusters,
    /// and count themselves.
    pub(super) fn behind(used: u64, cluster_bits: u32) -> Self {
        let (block_count, table_clusters) = Self::sizes(used, cluster_bits);
        let table = used.saturating_add(block_count);
        Self {
            blocks: used,
            block_count,
            table,
            table_clusters,
            total: table.saturating_add(table_clusters),
        }
    }

    /// The refcounts of a file in which they stand right behind the header,
    /// the table first, and `others` clusters behind them.
    pub(super) fn in_front(others: u64, cluster_bits: u32) -> Self {
        let used = others.saturating_add(1);
        let (block_count, table_clusters) = Self::sizes(used, cluster_bits);
        let blocks = table_clusters.saturating_add(1);
        Self {
            blocks,
            block_count,
            table: 1,
            table_clusters,
            total: blocks.saturating_add(block_count).saturating_add(others),
        }
    }

    /// How many blocks and table clusters count `used` clusters and
    /// themselves.
    fn sizes(used: u64, cluster_bits: u32) -> (u64, u64) {
        // Two bytes for a cluster, eight for a block.
        let per_block = 1_u64.wrapping_shl(cluster_bits.wrapping_sub(1));
        let per_table = 1_u64.wrapping_shl(cluster_bits.wrapping_sub(3));
        let (mut blocks, mut table) = (1_u64, 1_u64);
        // Both only grow, each by far less than what it counts.
        loop {
            let total = used.saturating_add(blocks).saturating_add(table);
            let more_blocks = total.div_ceil(per_block);
            let more_table = more_blocks.div_ceil(per_table);
            if (more_blocks, more_table) == (blocks, table) {
                return (blocks, table);
            }
            (blocks, table) = (more_blocks, more_table);
        }
    }

    /// Emits the refcount blocks: one for every cluster, but for those of
    /// `shared`, which ascend.
    pub(super) fn emit_blocks(
        &self,
        shared: &[(u64, u16)],
        cluster_bits: u32,
        emit: Emit<'_>,
    ) -> Result<()> {
        let per_block = 1_usize.wrapping_shl(cluster_bits.wrapping_sub(1));
        let mut block = vec![U16::ZERO; per_block];
        let mut shared = shared.iter().peekable();
        let mut first = 0_u64;
        for _ in 0..self.block_count {
            let left = self.total.saturating_sub(first);
            let used =
                usize::try_from(left).unwrap_or(usize::MAX).min(per_block);
            block.fill(U16::ZERO);
            if let Some(used) = block.get_mut(..used) {
                used.fill(1.into());
            }
            let end = first.saturating_add(u64_from(per_block));
            while let Some(&(cluster, count)) =
                shared.next_if(|(cluster, _)| *cluster < end)
            {
                let slot = usize::try_from(cluster.saturating_sub(first));
                if let Some(slot) = block.get_mut(slot.unwrap_or(usize::MAX)) {
                    *slot = count.into();
                }
            }
            emit(block.as_bytes())?;
            first = end;
        }
        Ok(())
    }

    /// Emits the refcount table, whole clusters of it.
    pub(super) fn emit_table(
        &self,
        clusters: Clusters,
        emit: Emit<'_>,
    ) -> Result<()> {
        let per_table = 1_u64.wrapping_shl(clusters.l2_bits());
        let end = self.blocks.saturating_add(self.block_count);
        let mut next = self.blocks;
        let mut table = Vec::new();
        for _ in 0..self.table_clusters {
            table.clear();
            for block in next..next.saturating_add(per_table) {
                table.push(match block < end {
                    true => U64::new(clusters.place(block)?),
                    false => U64::ZERO,
                });
            }
            next = next.saturating_add(per_table);
            emit(table.as_bytes())?;
        }
        Ok(())
    }
}
