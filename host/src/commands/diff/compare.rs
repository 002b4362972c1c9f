//! Block by block: what both sides hold and hold otherwise.

use std::collections::BTreeMap;

use crate::batch::Batch;
use crate::block_set::BlockSet;
use crate::commands::diff::Sides;
use crate::commands::diff::fields::{FieldChange, differing};
use crate::commands::diff::inodes::Inodes;
use crate::error::Result;
use crate::ext::claims::place_of;
use crate::ext::fields::{of_descriptor, of_inode, of_superblock};
use crate::ext::groups::descriptor_order;
use crate::ext::superblock::Superblock;
use crate::ext::{BlockKind, Walk};
use crate::observer::{Event, Observer, Phase};
use crate::source::Priority;
use crate::stop::Stop;
use crate::units::{BlockNumber, ByteCount, ByteOffset, ByteRange, usize_from};

/// How much is compared in one step.
const STEP_BYTES: u64 = 256 * 1024;

/// Details of so many groups are kept; all are counted.
const GROUPS_MAX: usize = 10_000;

/// Where the superblock lies, and how long it is.
const SUPERBLOCK: (u64, u64) = (1024, 1024);

/// How many blocks of one kind are not the same.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Counts {
    /// Both hold them, otherwise.
    pub(super) differing: u64,
    /// Only one side holds them.
    pub(super) only: [u64; 2],
    /// One side could not be read there.
    pub(super) unreadable: [u64; 2],
}

/// What of a group is not the same.
#[derive(Clone, Debug, Default)]
pub(super) struct GroupChange {
    /// Of its descriptor.
    pub(super) fields: Vec<FieldChange>,
    /// Clusters that its bitmap says are used now, and free now.
    pub(super) blocks: [u64; 2],
    /// The same of inodes.
    pub(super) inodes: [u64; 2],
}

/// What was found.
#[derive(Default)]
pub(super) struct Found {
    pub(super) superblock: Vec<FieldChange>,
    /// One side has no superblock there that could be read.
    pub(super) no_superblock: bool,
    pub(super) kinds: BTreeMap<BlockKind, Counts>,
    pub(super) groups: BTreeMap<u32, GroupChange>,
    pub(super) groups_total: u64,
    pub(super) inodes: Inodes,
    /// Blocks of inodes that differ, by kind.
    pub(super) owned: BTreeMap<BlockKind, BlockSet>,
    /// Blocks of directories that only one side holds.
    pub(super) lone_directories: [BlockSet; 2],
}

impl Found {
    /// Whether anything that both sides hold differs.
    pub(super) fn differs(&self) -> bool {
        !self.superblock.is_empty() || self.blocks() > 0
    }

    /// How many blocks differ, but for the superblock's.
    pub(super) fn blocks(&self) -> u64 {
        self.kinds.values().map(|counts| counts.differing).sum()
    }

    fn kind(&mut self, kind: BlockKind) -> &mut Counts {
        self.kinds.entry(kind).or_default()
    }

    /// The details of a group, unless there are too many.
    fn group(&mut self, group: u32) -> Option<&mut GroupChange> {
        let room = self.groups.len() < GROUPS_MAX;
        if !room && !self.groups.contains_key(&group) {
            self.groups_total += 1;
            return None;
        }
        Some(self.groups.entry(group).or_insert_with(|| {
            self.groups_total += 1;
            GroupChange::default()
        }))
    }
}

/// The two sides, about to be compared.
pub(super) struct Comparison<'a> {
    sides: &'a Sides<'a>,
    observer: &'a dyn Observer,
    stop: &'a Stop,
    /// Which part of the descriptor table each of its blocks is.
    descriptors: BTreeMap<u64, u32>,
    found: Found,
}

impl<'a> Comparison<'a> {
    pub(super) fn new(
        sides: &'a Sides<'a>,
        observer: &'a dyn Observer,
        stop: &'a Stop,
    ) -> Self {
        let walk = &sides[0].walk;
        let descriptors = Superblock::check(&walk.superblock, None, None)
            .map(|superblock| descriptor_order(&superblock))
            .unwrap_or_default();
        let found = Found::default();
        Self { sides, observer, stop, descriptors, found }
    }

    /// Compares the superblocks.
    ///
    /// # Errors
    ///
    /// When a side cannot be read at all.
    pub(super) fn superblock(&mut self) -> Result<()> {
        let place =
            ByteRange::new(ByteOffset(SUPERBLOCK.0), ByteCount(SUPERBLOCK.1));
        let mut batches = [Batch::default(), Batch::default()];
        let place: Vec<ByteRange> = place.into_iter().collect();
        for (side, batch) in self.sides.iter().zip(&mut batches) {
            side.source().read_batch(&place, batch)?;
        }
        let both = batches[0].filled().zip(batches[1].filled());
        for (left, right) in both {
            let lost = !left.faults.is_empty() || !right.faults.is_empty();
            self.found.no_superblock |= lost;
            if !lost {
                self.found.superblock =
                    differing(of_superblock(), left.bytes, right.bytes);
            }
        }
        Ok(())
    }

    /// Compares everything else.
    ///
    /// # Errors
    ///
    /// When a side cannot be read at all.
    pub(super) fn blocks(mut self, kinds: Vec<Kind>) -> Result<Found> {
        self.observer.event(&Event::Phase(Phase::Verify));
        let size = self.sides[0].size();
        let ranges: Vec<(BlockKind, Vec<ByteRange>)> = kinds
            .into_iter()
            .map(|kind| {
                let counts = self.found.kind(kind.kind);
                counts.only = kind.only.each_ref().map(|set| set.count().0);
                if kind.kind == BlockKind::Directory {
                    self.found.lone_directories = kind.only;
                }
                let runs = kind.both.runs();
                (kind.kind, runs.filter_map(|run| run.bytes(size)).collect())
            })
            .collect();
        let all = ranges.iter().flat_map(|(_, ranges)| ranges);
        let total = ByteCount(all.map(|range| range.length().0).sum());
        let mut done = ByteCount(0);
        let mut batches = [Batch::default(), Batch::default()];
        for (kind, ranges) in &ranges {
            for side in self.sides {
                side.source().expect(ranges, Priority::Structure);
            }
            for part in ranges.iter().flat_map(|range| range.cut(STEP_BYTES)) {
                self.stop.check()?;
                self.part(*kind, part, &mut batches)?;
                done.0 += part.length().0;
                self.observer.event(&Event::Progress { done, total });
            }
        }
        self.found.kinds.retain(|_, counts| *counts != Counts::default());
        Ok(self.found)
    }

    fn part(
        &mut self,
        kind: BlockKind,
        part: ByteRange,
        batches: &mut [Batch; 2],
    ) -> Result<()> {
        for (side, batch) in self.sides.iter().zip(batches.iter_mut()) {
            side.source().read_batch(&[part], batch)?;
        }
        let size = self.sides[0].size();
        let first = size.block_of(part.start()).0;
        let [left, right] = batches.each_ref().map(|b| b.filled().next());
        let (Some(left), Some(right)) = (left, right) else { return Ok(()) };
        let whole = left.faults.is_empty() && right.faults.is_empty();
        if whole && left.bytes == right.bytes {
            return Ok(());
        }
        let pairs = left
            .bytes
            .chunks(size.bytes())
            .zip(right.bytes.chunks(size.bytes()));
        for (block, (one, other)) in (first..).map(BlockNumber).zip(pairs) {
            let at = ByteOffset(block.0.saturating_mul(size.bytes_u64()));
            let end = ByteOffset(at.0.saturating_add(size.bytes_u64()));
            let lost = [&left, &right].map(|filled| {
                let mut faults = filled.faults.iter();
                faults.any(|(bad, _)| bad.start() < end && at < bad.end())
            });
            if lost != [false; 2] {
                let counts = self.found.kind(kind);
                for (count, lost) in counts.unreadable.iter_mut().zip(lost) {
                    *count += u64::from(lost);
                }
            } else if one != other {
                self.pair(kind, block, [one, other]);
            }
        }
        Ok(())
    }

    /// Two blocks that are not the same.
    fn pair(&mut self, kind: BlockKind, block: BlockNumber, both: [&[u8]; 2]) {
        for (index, (side, bytes)) in self.sides.iter().zip(both).enumerate() {
            let is_zero = bytes.iter().all(|byte| *byte == 0);
            if is_zero && !side.holds_zero(block) {
                self.found.kind(kind).only[1 - index] += 1;
                if kind == BlockKind::Directory {
                    self.found.lone_directories[1 - index].insert(block);
                }
                return;
            }
        }
        self.found.kind(kind).differing += 1;
        match kind {
            BlockKind::Descriptors => self.descriptors(block, both),
            BlockKind::BlockBitmap | BlockKind::InodeBitmap => {
                self.bitmap(kind, block, both);
            }
            BlockKind::InodeTable => self.table(block, both),
            _ => {
                let owned = self.found.owned.entry(kind).or_default();
                owned.insert(block);
            }
        }
    }

    fn descriptors(&mut self, block: BlockNumber, both: [&[u8]; 2]) {
        let geometry = &self.sides[0].walk.geometry;
        let Some(part) = self.descriptors.get(&block.0) else { return };
        let fields = of_descriptor(geometry.descriptor_size);
        let size = usize_from(geometry.descriptor_size).max(1);
        let per_block = geometry.block_size.bytes() / size;
        let first = usize_from(*part).saturating_mul(per_block);
        let slots = both[0].chunks(size).zip(both[1].chunks(size));
        for (slot, (left, right)) in slots.enumerate() {
            let number = u32::try_from(first.saturating_add(slot));
            let Ok(number) = number else { return };
            if left != right
                && number < geometry.groups
                && let Some(group) = self.found.group(number)
            {
                group.fields = differing(&fields, left, right);
            }
        }
    }

    /// The group and the inodes of a block of a table, as either side says.
    fn place(
        &self,
        kind: BlockKind,
        block: BlockNumber,
    ) -> Option<(u32, Option<(u32, u32)>)> {
        let place = |walk: &Walk| match place_of(walk, kind, block) {
            (Some(group), inodes) => Some((group, inodes)),
            (None, _) => None,
        };
        self.sides.iter().find_map(|side| place(&side.walk))
    }

    fn bitmap(
        &mut self,
        kind: BlockKind,
        block: BlockNumber,
        both: [&[u8]; 2],
    ) {
        let Some((number, _)) = self.place(kind, block) else { return };
        let geometry = &self.sides[0].walk.geometry;
        let per_group = match kind {
            BlockKind::BlockBitmap => geometry.clusters_per_group,
            _ => geometry.inodes_per_group,
        };
        let mut counts = [0_u64; 2];
        let pairs = both[0].iter().zip(both[1]);
        for (byte, (left, right)) in (0_u32..).zip(pairs) {
            let changed = left ^ right;
            for bit in (0..8).filter(|bit| changed & (1 << bit) != 0) {
                let index = byte.saturating_mul(8).saturating_add(bit);
                if index >= per_group {
                    // Padding: different, and of no meaning.
                    continue;
                }
                let is_used = right & (1 << bit) != 0;
                counts[usize::from(!is_used)] += 1;
                if kind == BlockKind::InodeBitmap {
                    let inode = number
                        .checked_mul(per_group)
                        .and_then(|before| before.checked_add(index))
                        .and_then(|before| before.checked_add(1));
                    if let Some(change) =
                        inode.and_then(|inode| self.found.inodes.of(inode))
                    {
                        change.is_used = Some(is_used);
                    }
                }
            }
        }
        let Some(group) = self.found.group(number) else { return };
        match kind {
            BlockKind::BlockBitmap => group.blocks = counts,
            _ => group.inodes = counts,
        }
    }

    fn table(&mut self, block: BlockNumber, both: [&[u8]; 2]) {
        let place = self.place(BlockKind::InodeTable, block);
        let Some((group, Some((first, _)))) = place else { return };
        let _ = self.found.group(group);
        let size = usize_from(self.sides[0].walk.geometry.inode_size).max(1);
        let slots = both[0].chunks(size).zip(both[1].chunks(size));
        for (inode, (left, right)) in (first..).zip(slots) {
            if left != right
                && let Some(change) = self.found.inodes.of(inode)
            {
                // Of the two the one that has more fields.
                let [one, other] = [of_inode(left), of_inode(right)];
                let fields = if one.len() > other.len() { one } else { other };
                change.fields = differing(&fields, left, right);
            }
        }
    }
}

/// The blocks of one kind.
pub(super) struct Kind {
    kind: BlockKind,
    /// Those that both sides may hold.
    both: BlockSet,
    /// Those that only one side holds.
    only: [BlockSet; 2],
}

/// Whether a normal image has blocks of this kind.
pub(super) const fn is_in_normal(kind: BlockKind) -> bool {
    matches!(
        kind,
        BlockKind::Descriptors
            | BlockKind::BlockBitmap
            | BlockKind::InodeBitmap
            | BlockKind::InodeTable
    )
}

/// What either side takes for structure, or for contents, each block in one
/// kind only; the superblock has its own way.
pub(super) fn kinds(sides: &Sides<'_>) -> Vec<Kind> {
    let mut seen = BlockSet::new();
    for side in sides {
        seen.insert(side.size().block_of(ByteOffset(SUPERBLOCK.0)));
        if let Some(blocks) = side.walk.kind(BlockKind::Superblock) {
            seen.union_with(blocks);
        }
    }
    let tables = sides.iter().any(|side| side.opened.is_normal());
    let mut all = Vec::new();
    for &kind in BlockKind::ALL {
        if tables && !is_in_normal(kind) {
            continue;
        }
        let mut blocks = BlockSet::new();
        for side in sides {
            if let Some(own) = side.walk.kind(kind) {
                blocks.union_with(own);
            }
        }
        blocks.subtract(&seen);
        seen.union_with(&blocks);
        if blocks.is_empty() {
            continue;
        }
        let [left, right] = sides.each_ref().map(|side| side.may_hold(&blocks));
        let mut both = left.clone();
        both.intersect_with(&right);
        let only = [left, right].map(|mut own| {
            own.subtract(&both);
            own
        });
        all.push(Kind { kind, both, only });
    }
    all
}
