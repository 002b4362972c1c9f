//! Descriptors that cannot be right are taken from copies of the table,
//! group by group.
//!
//! A descriptor is doubted when its checksum is wrong, when it could not be
//! read, when it points outside the filesystem, or when it claims what
//! another claims. A copy that points elsewhere and stands up to the same
//! questions takes its place; where none does, one that points into the
//! filesystem takes the place of one that does not. What e2image would select
//! never depends on copies, and a normal image holds the table as it lies on
//! the disk: there nothing is replaced.

use std::collections::{BTreeMap, BTreeSet};

use super::assemble::BlockBytes;
use super::finding::{Effect, Fault};
use super::groups;
use super::scan::{Place, Scan};
use crate::block_set::BlockSet;
use crate::ext::{BlockKind, Group, Scope};
use crate::units::{BlockNumber, usize_from};

/// How many copies of a part are looked at. With `sparse_super` that is all in
/// the first thousand groups, behind which few are left; without it, where
/// every group has one, the first.
const COPIES_MAX: usize = 24;

/// The search for better descriptors.
#[derive(Debug)]
pub(super) struct Copies {
    /// What is wrong with each group's descriptor, whatever becomes of it.
    faults: BTreeMap<u32, Fault>,
    /// The groups whose copies are to be looked at.
    doubted: BTreeSet<u32>,
    /// The superblocks that the table lies behind.
    bases: Vec<BlockNumber>,
    /// Where the next look goes, as an index into the copies of each part.
    round: usize,
    /// The blocks of this round, and which part each is a copy of; sorted.
    parts: Vec<(BlockNumber, u32)>,
    /// What they hold.
    found: BTreeMap<u32, (BlockNumber, Vec<u8>)>,
    /// The groups that were given another descriptor, and from where.
    replaced: BTreeMap<u32, BlockNumber>,
}

impl Copies {
    /// Doubts what `groups` say.
    pub(super) fn new(scan: &Scan, groups: &[Group]) -> Self {
        let may_replace = scan.options.scope != Scope::Tables
            && (scan.is_complete() || scan.superblock.replaces.is_some());
        let faults = doubts(scan, groups);
        let doubted = if may_replace {
            faults.keys().copied().collect()
        } else {
            BTreeSet::new()
        };
        Self {
            faults,
            doubted,
            bases: groups::table_bases(&scan.superblock),
            round: 0,
            parts: Vec::new(),
            found: BTreeMap::new(),
            replaced: BTreeMap::new(),
        }
    }

    /// Keeps a block of this round.
    pub(super) fn take(&mut self, block: BlockNumber, bytes: BlockBytes<'_>) {
        if !bytes.is_whole() {
            return;
        }
        let from = self.parts.partition_point(|(at, _)| *at < block);
        for (at, index) in self.parts.get(from..).unwrap_or_default() {
            if *at != block {
                break;
            }
            self.found.insert(*index, (block, bytes.bytes.to_vec()));
        }
    }

    /// Uses what has come and says what to read next; nothing when all is
    /// settled.
    pub(super) fn advance(
        &mut self,
        scan: &mut Scan,
        descriptors: &mut [u8],
        groups: &mut [Group],
    ) -> BlockSet {
        self.use_found(scan, descriptors, groups);
        while !self.doubted.is_empty() && self.round < COPIES_MAX {
            let wanted = self.next_round(scan);
            if !wanted.is_empty() {
                return wanted;
            }
        }
        if !self.faults.is_empty() {
            scan.mark_first_copies();
        }
        self.report(scan);
        BlockSet::new()
    }

    fn next_round(&mut self, scan: &Scan) -> BlockSet {
        let superblock = &scan.superblock;
        let per_block = groups::per_block(superblock).max(1);
        let indices: BTreeSet<u32> = self
            .doubted
            .iter()
            .filter_map(|group| group.checked_div(per_block))
            .collect();
        let read = scan.reads_copy_of_descriptors();
        self.parts = indices
            .into_iter()
            .filter_map(|index| {
                let was = groups::descriptor_block(superblock, index, read);
                groups::descriptor_copies(superblock, &self.bases, index)
                    .get(self.round)
                    .copied()
                    .filter(|block| *block != was && scan.marks.holds(block.0))
                    .map(|block| (block, index))
            })
            .collect();
        self.parts.sort_unstable();
        self.round = self.round.saturating_add(1);
        let mut wanted = BlockSet::new();
        for (block, _) in &self.parts {
            wanted.insert(*block);
        }
        wanted
    }

    fn use_found(
        &mut self,
        scan: &mut Scan,
        descriptors: &mut [u8],
        groups: &mut [Group],
    ) {
        let per_block = groups::per_block(&scan.superblock).max(1);
        let size = usize_from(scan.superblock.geometry.descriptor_size);
        for (index, (block, bytes)) in std::mem::take(&mut self.found) {
            let first = index.saturating_mul(per_block);
            for (number, copy) in (first..).zip(bytes.chunks_exact(size)) {
                let Some(group) = groups.get_mut(usize_from(number)) else {
                    break;
                };
                if !self.doubted.contains(&number) {
                    continue;
                }
                let other = scan.parse_group(number, copy, true);
                if is_sound(scan, &other) {
                    self.doubted.remove(&number);
                } else if misplaced(scan, &other).is_some()
                    || misplaced(scan, group).is_none()
                {
                    continue;
                }
                // What is sound, or at least lies in the filesystem.
                if places(&other) == places(group) {
                    continue;
                }
                *group = other;
                self.replaced.insert(number, block);
                scan.marks.mark(BlockKind::BackupDescriptors, block.0, 1);
                let from = usize_from(number).saturating_mul(size);
                if let Some(target) =
                    descriptors.get_mut(from..from.saturating_add(size))
                {
                    target.copy_from_slice(copy);
                }
            }
        }
    }

    /// Says what was wrong, and what became of it. Places that are still
    /// outside the filesystem are reported where they are used.
    fn report(&self, scan: &mut Scan) {
        let per_block = groups::per_block(&scan.superblock).max(1);
        for (index, block) in std::mem::take(&mut scan.lost_parts) {
            let place = Place::of(BlockKind::Descriptors).at(block.0);
            let first = index.saturating_mul(per_block);
            let mut replaced =
                self.replaced.range(first..first.saturating_add(per_block));
            let effect =
                replaced.next().map_or(Effect::SubtreeSkipped, |(_, from)| {
                    Effect::CopyUsed(*from)
                });
            scan.find(place, Fault::Unreadable, effect);
        }
        for (number, fault) in &self.faults {
            let place = Place::of(BlockKind::Descriptors).in_group(*number);
            let effect = self
                .replaced
                .get(number)
                .map_or(Effect::None, |block| Effect::CopyUsed(*block));
            let is_told_elsewhere = match fault {
                Fault::Unreadable => true,
                Fault::OutOfRange(_) | Fault::Missing => effect == Effect::None,
                _ => false,
            };
            if !is_told_elsewhere {
                scan.find(place, *fault, effect);
            }
        }
    }
}

fn places(group: &Group) -> [BlockNumber; 3] {
    [group.block_bitmap, group.inode_bitmap, group.inode_table]
}

/// What is wrong with the places of a group, seen alone.
fn misplaced(scan: &Scan, group: &Group) -> Option<Fault> {
    let table = u64::from(scan.superblock.geometry.inode_table_blocks);
    places(group).into_iter().zip([1, 1, table]).find_map(|(at, count)| {
        let last = at.0.saturating_add(count).saturating_sub(1);
        if at.0 == 0 {
            Some(Fault::Missing)
        } else if scan.marks.holds(at.0) && scan.marks.holds(last) {
            None
        } else {
            Some(Fault::OutOfRange(at))
        }
    })
}

fn is_sound(scan: &Scan, group: &Group) -> bool {
    group.checksum_ok && misplaced(scan, group).is_none()
}

/// What is wrong with the descriptors, group by group.
fn doubts(scan: &Scan, groups: &[Group]) -> BTreeMap<u32, Fault> {
    let mut faults = shared_places(scan, groups);
    for (number, group) in (0_u32..).zip(groups) {
        let fault = if group.checksum_ok {
            misplaced(scan, group)
        } else {
            Some(Fault::BadChecksum)
        };
        if let Some(fault) = fault {
            faults.insert(number, fault);
        }
    }
    let per_block = groups::per_block(&scan.superblock);
    for (index, _) in &scan.lost_parts {
        let first = index.saturating_mul(per_block);
        let end = first
            .saturating_add(per_block)
            .min(scan.superblock.geometry.groups);
        faults.extend((first..end).map(|group| (group, Fault::Unreadable)));
    }
    faults
}

/// Groups that claim what another group claims, or the first superblock and
/// its descriptors; with the first such block.
fn shared_places(scan: &Scan, groups: &[Group]) -> BTreeMap<u32, Fault> {
    let geometry = &scan.superblock.geometry;
    let table = u64::from(geometry.inode_table_blocks);
    let head = geometry.first_data_block.0;
    let mut claims: Vec<(u64, u64, Option<u32>)> = Vec::new();
    let per_descriptors = u64::from(geometry.descriptor_blocks);
    let is_table_first = scan.superblock.first_meta_bg == u32::MAX;
    let behind = if is_table_first { per_descriptors } else { 0 };
    let head_end = head.saturating_add(1).saturating_add(behind);
    claims.push((head, head_end, None));
    for (number, group) in (0_u32..).zip(groups) {
        for (at, count) in places(group).into_iter().zip([1, 1, table]) {
            if scan.marks.holds(at.0) {
                claims.push((at.0, at.0.saturating_add(count), Some(number)));
            }
        }
    }
    claims.sort_unstable();
    let mut faults = BTreeMap::new();
    // The claim that reaches farthest so far.
    let mut far = (0, None);
    for (from, to, number) in claims {
        if from < far.0 {
            let fault = Fault::DuplicateClaim(BlockNumber(from));
            faults.extend(
                [far.1, number].into_iter().flatten().map(|n| (n, fault)),
            );
        }
        if to > far.0 {
            far = (to, number);
        }
    }
    faults
}
