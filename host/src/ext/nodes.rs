//! What map blocks lead to: extent trees and indirect blocks, from the root
//! in the inode down to the data.

use zerocopy::FromBytes;
use zerocopy::little_endian::U32;

use super::assemble::BlockBytes;
use super::careful::Suspect;
use super::checks;
use super::checksums::crc32c;
use super::extents::{self, DEPTH_MAX, Extent, Header, InOrder};
use super::finding::{Effect, Fault};
use super::inode::I_BLOCK_BYTES;
use super::maps::{HEIGHT_MAX, MapJob, Owner, Shape, map_kind};
use super::scan::{Place, Scan};
use crate::ext::{BlockKind, JournalMode, Traced};
use crate::units::{BlockNumber, u64_from};

/// Slots of `i_block` that name data.
const DIRECT_SLOTS: usize = 12;
/// Extents speak of 2^32 blocks of a file.
const FILE_BLOCKS: u64 = 1 << 32;

impl Scan {
    /// Follows the map of an inode from its root.
    pub(super) fn walk_root(&mut self, suspect: &Suspect) {
        match suspect.shape {
            Shape::Extents => {
                self.walk_extent_root(suspect.owner, &suspect.root);
            }
            Shape::Indirect => {
                self.walk_indirect_root(suspect.owner, &suspect.root);
            }
        }
    }

    fn walk_extent_root(&mut self, owner: Owner, root: &[u8; I_BLOCK_BYTES]) {
        let place = Place::of(BlockKind::Map).in_inode(owner.inode);
        let header = match Header::check(root) {
            Ok(header) => header,
            // A root of zeros is an empty map.
            Err(_) if root.iter().all(|byte| *byte == 0) => return,
            Err(fault) => {
                self.find(place, fault, Effect::SubtreeSkipped);
                return;
            }
        };
        if header.depth == 0 {
            self.walk_leaf_root(owner, root, header);
            return;
        }
        let mut height = header.depth;
        if height > DEPTH_MAX {
            let is_lost = height > HEIGHT_MAX && !self.is_complete();
            let effect =
                if is_lost { Effect::SubtreeSkipped } else { Effect::None };
            let fault = Fault::BadCount(u64::from(height));
            self.find(place, fault, effect);
            if is_lost {
                return;
            }
            if self.is_complete() {
                if self.reads_as_leaf(root, header) {
                    self.walk_leaf_root(owner, root, header);
                    return;
                }
                height = DEPTH_MAX;
            }
        }
        let node = BlockBytes::whole(root);
        let window = (0, FILE_BLOCKS);
        self.visit_index(owner, place, node, header, height, window);
    }

    /// Whether the entries of a node make sense as extents; those of an inner
    /// node hardly ever do.
    fn reads_as_leaf(&self, node: &[u8], header: Header) -> bool {
        (0..header.entries).all(|number| {
            extents::extent(node, number).is_some_and(|extent| {
                let end = extent.physical.saturating_add(extent.count);
                extent.count > 0
                    && extent.physical > 0
                    && self.marks.holds(extent.physical)
                    && self.marks.holds(end.saturating_sub(1))
            })
        })
    }

    fn walk_leaf_root(&mut self, owner: Owner, root: &[u8], header: Header) {
        if owner.data.is_none() {
            return;
        }
        let mut order = InOrder::default();
        let mut behind = 0;
        for number in 0..header.entries {
            let Some(extent) = extents::extent(root, number) else { break };
            let in_order = behind <= extent.logical && extent.count > 0;
            behind = extent.end();
            let place = Place::of(BlockKind::Map).in_inode(owner.inode);
            if !in_order {
                self.find(place, Fault::BadOrder, Effect::None);
            }
            let taken = if self.is_complete() {
                Some((extent.physical, extent.count))
            } else {
                order.take(extent)
            };
            if let Some((physical, count)) = taken {
                let taken = Extent { physical, count, ..extent };
                self.pass_data(owner, place, taken);
            }
        }
    }

    /// A stretch of a file's data.
    fn pass_data(&mut self, owner: Owner, place: Place, extent: Extent) {
        let Some(kind) = owner.data else { return };
        if self.options.trace || kind == BlockKind::Journal {
            self.trace(owner.inode, kind, extent);
        }
        match (kind, self.options.journal) {
            (BlockKind::Journal, JournalMode::Live) => {
                self.journal.push(extent);
            }
            (BlockKind::Journal, JournalMode::None) => {}
            _ => {
                self.mark_or_find(place, kind, extent.physical, extent.count);
                let logical = extent.logical;
                if let Some((check, most)) =
                    checks::of_file(kind, owner.inode, owner.seed, logical)
                {
                    let count = extent.count.min(most);
                    self.checks.add(extent.physical, count, check);
                }
            }
        }
    }

    /// Remembers whose a stretch is, as far as it lies in the filesystem.
    fn trace(&mut self, inode: u32, kind: BlockKind, extent: Extent) {
        let (first, end) = self.marks.bounds();
        let Extent { logical, physical, count } = extent;
        let count = count.min(end.saturating_sub(physical));
        if physical >= first && count > 0 {
            self.traced.push(Traced { inode, logical, physical, count, kind });
        }
    }

    /// Looks into a map block that was read.
    pub(super) fn visit_map(
        &mut self,
        job: &MapJob,
        height: u16,
        node: BlockBytes<'_>,
    ) {
        let place =
            Place::of(BlockKind::Map).in_inode(job.owner.inode).at(job.block);
        if node.is_lost() {
            self.find(place, Fault::Unreadable, Effect::SubtreeSkipped);
            self.suspect_map(job);
            return;
        }
        if !node.is_whole() {
            self.find(place, Fault::Unreadable, Effect::EntrySkipped);
            self.suspect_map(job);
        }
        match job.shape {
            Shape::Extents => self.visit_extent_node(job, place, height, node),
            Shape::Indirect => {
                let (logical, _) = job.window;
                self.visit_indirect(
                    job.owner, place, height, logical, node.bytes,
                );
            }
        }
    }

    /// The order of extents decides which data e2image takes, and never
    /// which map blocks.
    fn suspect_order(&mut self, owner: Owner) {
        if owner.data.is_some() {
            self.careful.suspect(owner.inode);
        }
    }

    /// An unreadable extent node ends e2image's run, an indirect block only
    /// a part of its walk.
    fn suspect_map(&mut self, job: &MapJob) {
        match job.shape {
            Shape::Extents => self.careful.refused = true,
            Shape::Indirect => self.careful.suspect(job.owner.inode),
        }
    }

    fn visit_extent_node(
        &mut self,
        job: &MapJob,
        place: Place,
        height: u16,
        node: BlockBytes<'_>,
    ) {
        let header = match Header::check(node.bytes) {
            Ok(header) if header.entries > 0 && node.has(0, 12) => header,
            Ok(_) if !node.has(0, 12) => return,
            other => {
                let fault = other.err().unwrap_or(Fault::BadCount(0));
                self.find(place, fault, Effect::SubtreeSkipped);
                self.careful.refused = true;
                return;
            }
        };
        let mut height = height;
        if header.depth != height {
            let fault = Fault::BadCount(u64::from(header.depth));
            self.find(place, fault, Effect::None);
            // Perhaps it is the nodes above that are wrong.
            if self.is_complete()
                && header.depth == 0
                && self.reads_as_leaf(node.bytes, header)
            {
                height = 0;
            }
        }
        if node.is_whole() {
            self.check_tail(job.owner, place, node.bytes, header);
        }
        if height == 0 {
            self.visit_leaf(job, place, node, header);
        } else {
            let owner = job.owner;
            self.visit_index(owner, place, node, header, height, job.window);
        }
    }

    fn check_tail(
        &mut self,
        owner: Owner,
        place: Place,
        node: &[u8],
        header: Header,
    ) {
        if !self.superblock.has_metadata_csum() {
            return;
        }
        let (Some(covered), Some(tail)) = (
            node.get(..extents::entry_at(header.max)),
            node.get(extents::entry_at(header.max)..),
        ) else {
            return;
        };
        let Ok((stored, _)) = U32::ref_from_prefix(tail) else { return };
        if crc32c(owner.seed, covered) != stored.get() {
            self.find(place, Fault::BadChecksum, Effect::None);
        }
    }

    fn visit_leaf(
        &mut self,
        job: &MapJob,
        place: Place,
        node: BlockBytes<'_>,
        header: Header,
    ) {
        let (mut behind, limit) = job.window;
        let mut in_order = true;
        // Neighbours on the disk are marked together.
        let mut open: Option<Extent> = None;
        for number in 0..header.entries {
            let at = extents::entry_at(number);
            if !node.has(at, at.saturating_add(extents::ENTRY_BYTES)) {
                continue;
            }
            let Some(extent) = extents::extent(node.bytes, number) else {
                break;
            };
            in_order &= behind <= extent.logical
                && extent.end() <= limit
                && extent.count > 0;
            behind = extent.end();
            if let Some(done) = Extent::join(&mut open, extent) {
                self.pass_data(job.owner, place, done);
            }
        }
        if let Some(done) = open {
            self.pass_data(job.owner, place, done);
        }
        if !in_order {
            self.find(place, Fault::BadOrder, Effect::None);
            self.suspect_order(job.owner);
        }
    }

    fn visit_index(
        &mut self,
        owner: Owner,
        place: Place,
        node: BlockBytes<'_>,
        header: Header,
        height: u16,
        window: (u64, u64),
    ) {
        let (mut lower, limit) = window;
        let below = height.saturating_sub(1);
        for number in 0..header.entries {
            let at = extents::entry_at(number);
            if !node.has(at, at.saturating_add(extents::ENTRY_BYTES)) {
                continue;
            }
            let Some((first, block)) = extents::index(node.bytes, number)
            else {
                break;
            };
            let next = number
                .checked_add(1)
                .filter(|next| *next < header.entries)
                .and_then(|next| extents::index(node.bytes, next))
                .map_or(limit, |(next, _)| next);
            if first < lower || next <= first || limit < next {
                self.find(place, Fault::BadOrder, Effect::None);
                self.suspect_order(owner);
            }
            lower = next;
            let job = MapJob {
                block,
                owner,
                shape: Shape::Extents,
                window: (first, next),
            };
            if !self.add_map(job, below, place) {
                self.careful.refused = true;
            }
        }
    }

    /// Marks a map block and has it read; false when it lies outside the
    /// filesystem.
    fn add_map(&mut self, job: MapJob, height: u16, place: Place) -> bool {
        let kind = map_kind(job.owner, job.shape, height);
        self.marks.set_owner(Some(job.owner.inode));
        if !self.marks.mark(kind, job.block, 1) {
            let fault = Fault::OutOfRange(BlockNumber(job.block));
            self.find(place, fault, Effect::SubtreeSkipped);
            return false;
        }
        if place.block() == Some(job.block) && job.shape == Shape::Extents {
            let fault = Fault::Cycle(BlockNumber(job.block));
            self.find(place, fault, Effect::SubtreeSkipped);
            self.careful.refused = true;
            return true;
        }
        self.waiting.add(height, job)
    }

    fn walk_indirect_root(&mut self, owner: Owner, root: &[u8; I_BLOCK_BYTES]) {
        let place = Place::of(BlockKind::Map).in_inode(owner.inode);
        let (direct, indirect) = root.split_at(DIRECT_SLOTS * 4);
        self.visit_indirect(owner, place, 0, 0, direct);
        let mut logical = u64_from(DIRECT_SLOTS);
        for (height, slot) in (1_u16..).zip(indirect.chunks_exact(4)) {
            self.visit_indirect(owner, place, height, logical, slot);
            logical = logical.saturating_add(self.reach(height));
        }
    }

    /// How many data blocks a slot of an indirect block at `height` leads
    /// to.
    fn reach(&self, height: u16) -> u64 {
        let slots = self.superblock.geometry.block_size.bytes_u64() / 4;
        slots.saturating_pow(u32::from(height))
    }

    /// Follows the block numbers in `slots`: of data at height 0, else of
    /// map blocks of the height below. `logical` is the file's block that the
    /// first slot stands for.
    fn visit_indirect(
        &mut self,
        owner: Owner,
        place: Place,
        height: u16,
        logical: u64,
        slots: &[u8],
    ) {
        let step = self.reach(height);
        let numbers = slots.chunks_exact(4).scan(logical, |next, slot| {
            let at = *next;
            *next = next.saturating_add(step);
            let number = U32::read_from_bytes(slot).ok()?.get();
            Some((at, u64::from(number)))
        });
        let numbers = numbers.filter(|(_, number)| *number != 0);
        let Some(below) = height.checked_sub(1) else {
            self.visit_direct(owner, place, numbers);
            return;
        };
        for (logical, block) in numbers {
            let job = MapJob {
                block,
                owner,
                shape: Shape::Indirect,
                window: (logical, u64::MAX),
            };
            if !self.add_map(job, below, place) {
                self.careful.suspect(owner.inode);
            }
        }
    }

    fn visit_direct(
        &mut self,
        owner: Owner,
        place: Place,
        numbers: impl Iterator<Item = (u64, u64)>,
    ) {
        if owner.data.is_none() {
            return;
        }
        let mut open: Option<Extent> = None;
        for (logical, physical) in numbers {
            let extent = Extent { logical, physical, count: 1 };
            if let Some(done) = Extent::join(&mut open, extent) {
                self.pass_data(owner, place, done);
            }
        }
        if let Some(done) = open {
            self.pass_data(owner, place, done);
        }
    }
}
