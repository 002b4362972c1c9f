//! The part of a walk that reads no inode: superblock, descriptors, and what
//! the descriptors point at.

use super::assemble::BlockBytes;
use super::checks::Check;
use super::finding::{Effect, Fault};
use super::groups::{self, BLOCK_UNINIT, INODE_UNINIT};
use super::scan::{Place, Scan};
use super::superblock::incompat;
use super::tables::{Table, Tables};
use crate::ext::{BlockKind, Group, Scope};
use crate::units::{BlockNumber, usize_from};

/// What a descriptor says of its inodes, as far as it is believed.
#[derive(Clone, Copy, Debug)]
struct Claims {
    /// The inode table was never initialised.
    no_inodes: bool,
    /// The block bitmap was never initialised.
    no_blocks: bool,
    /// So many inodes at the table's end were never used.
    unused: u32,
}

impl Scan {
    /// Marks superblock and descriptors; answers where the parts of the
    /// descriptor table are read from, sorted by block.
    pub(super) fn mark_head(&mut self) -> Vec<(BlockNumber, u32)> {
        let superblock = self.superblock.clone();
        let geometry = &superblock.geometry;
        let place = Place::of(BlockKind::Superblock).at(superblock.at.0);
        if let Some(fault) = superblock.replaces {
            let usual = Place::of(BlockKind::Superblock)
                .at(groups::usual_superblock(geometry.block_size).0);
            self.find(usual, fault, Effect::CopyUsed(superblock.at));
        }
        if !superblock.checksum_ok {
            self.find(place, Fault::BadChecksum, Effect::None);
        }
        if let (None, Some(field)) =
            (superblock.replaces, superblock.odd_field())
        {
            self.find(place, Fault::BadField(field), Effect::None);
        }
        if superblock.is_doubtful() {
            self.mark_first_copies();
        }
        self.find_truncation();
        let parts = |from_backup| {
            let superblock = &superblock;
            (0..geometry.descriptor_blocks).map(move |index| {
                let block =
                    groups::descriptor_block(superblock, index, from_backup);
                (block, index)
            })
        };
        let is_asked = self.options.superblock.is_some_and(|b| b.0 != 0);
        if is_asked || superblock.replaces.is_some() {
            self.marks.mark(BlockKind::BackupSuperblock, superblock.at.0, 1);
        }
        if is_asked {
            let elsewhere = superblock.at != geometry.first_data_block;
            for (block, _) in parts(elsewhere) {
                self.marks.mark(BlockKind::BackupDescriptors, block.0, 1);
            }
        }
        let first = geometry.first_data_block.0;
        self.marks.mark(BlockKind::Superblock, first, 1);
        if self.is_complete() {
            let usual = groups::usual_superblock(geometry.block_size).0;
            if usual != first {
                self.marks.mark(BlockKind::Superblock, usual, 1);
            }
        }
        for (block, index) in parts(false) {
            // e2image reads them behind the superblock and selects what lies
            // behind the first block, also where that is not the same: with
            // blocks of 1 KiB from block 0 on.
            let is_counted =
                !self.is_complete() && index < superblock.first_meta_bg;
            let block = if is_counted {
                first.saturating_add(1).saturating_add(u64::from(index))
            } else {
                block.0
            };
            self.marks.mark(BlockKind::Descriptors, block, 1);
        }
        if superblock.incompat & incompat::MMP != 0 {
            let block = superblock.mmp_block.0;
            self.mark_or_find(place, BlockKind::Mmp, block, 1);
            self.checks.add(block, 1, Check::Mmp);
        }
        // Losing the superblock does not mean that its descriptors are
        // lost, and these are newer than all copies.
        let mut parts: Vec<_> = parts(is_asked && superblock.is_backup)
            .filter(|(block, _)| self.marks.holds(block.0))
            .collect();
        parts.sort_unstable();
        parts
    }

    /// Marks the first copy of the superblock and of its descriptors: what a
    /// checker of the image turns to when the primary ones are no good, as it
    /// would on the device.
    pub(super) fn mark_first_copies(&mut self) {
        if !self.is_complete() || self.options.scope == Scope::Tables {
            return;
        }
        let superblock = self.superblock.clone();
        let mut bases = groups::superblock_copies(&superblock);
        bases.truncate(1);
        // Which groups have copies is a matter of features, and those may be
        // what is wrong.
        let second = groups::first_block(&superblock, 1);
        if superblock.is_doubtful() && !bases.contains(&second) {
            bases.push(second);
        }
        let parts = superblock.geometry.descriptor_blocks;
        let behind = u64::from(parts.min(superblock.first_meta_bg));
        for base in bases {
            let first = base.0.saturating_add(1);
            self.marks.mark(BlockKind::BackupSuperblock, base.0, 1);
            self.marks.mark(BlockKind::BackupDescriptors, first, behind);
        }
        for index in superblock.first_meta_bg..parts {
            let copies = groups::descriptor_copies(&superblock, &[], index);
            if let Some(at) = copies.get(1) {
                self.marks.mark(BlockKind::BackupDescriptors, at.0, 1);
            }
        }
    }

    fn find_truncation(&mut self) {
        let geometry = &self.superblock.geometry;
        let Some(device) = self.options.device_length else { return };
        let end =
            BlockNumber(device.0.wrapping_shr(geometry.block_size.log2()));
        if end.0 < geometry.blocks.0 {
            let place = Place::of(BlockKind::Superblock);
            self.find(place, Fault::Truncated(end), Effect::None);
        }
    }

    /// Keeps part `index` of the descriptor table, zeros where it could not
    /// be read.
    pub(super) fn keep_descriptors(
        &mut self,
        descriptors: &mut [u8],
        index: u32,
        block: BlockNumber,
        bytes: BlockBytes<'_>,
    ) {
        if !bytes.is_whole() {
            self.lost_parts.push((index, block));
            self.careful.refused = true;
        }
        let size = bytes.bytes.len();
        let from = usize_from(index).saturating_mul(size);
        if let Some(target) =
            descriptors.get_mut(from..from.saturating_add(size))
        {
            target.copy_from_slice(bytes.bytes);
        }
    }

    /// Takes the descriptor table apart.
    pub(super) fn parse_groups(&self, descriptors: &[u8]) -> Vec<Group> {
        let count = self.superblock.geometry.groups;
        let size = usize_from(self.superblock.geometry.descriptor_size);
        let is_copy = self.reads_copy_of_descriptors();
        (0..count)
            .zip(descriptors.chunks_exact(size))
            .map(|(number, bytes)| self.parse_group(number, bytes, is_copy))
            .collect()
    }

    /// Whether the user's superblock brings its own descriptors.
    pub(super) const fn reads_copy_of_descriptors(&self) -> bool {
        self.superblock.is_backup && self.superblock.replaces.is_none()
    }

    /// Takes a descriptor apart, perhaps one of a copy.
    pub(super) fn parse_group(
        &self,
        number: u32,
        bytes: &[u8],
        is_copy: bool,
    ) -> Group {
        let mut group =
            groups::parse(&self.superblock, number, bytes).unwrap_or_default();
        if is_copy && self.superblock.has_group_csum() {
            group.bitmap_checksums = None;
            // A copy may be old: what it calls unused may be in use.
            group.flags &= !(BLOCK_UNINIT | INODE_UNINIT);
            group.itable_unused = 0;
        }
        group
    }

    /// Marks bitmaps and tables; answers which tables to look through.
    pub(super) fn mark_groups(&mut self, groups: &[Group]) -> Tables {
        let geometry = &self.superblock.geometry;
        let inodes_per_block = geometry
            .block_size
            .bytes_u64()
            .checked_div(u64::from(geometry.inode_size))
            .and_then(|count| u32::try_from(count).ok())
            .unwrap_or(1);
        let mut tables = Vec::new();
        for (number, group) in (0_u32..).zip(groups) {
            let claims = self.claims(number, group);
            self.mark_table(number, group, claims, inodes_per_block);
            self.mark_bitmaps(number, group, claims);
            if self.options.scope != Scope::Tables {
                let table = self.table(number, group, claims, inodes_per_block);
                tables.extend(table);
            }
        }
        Tables::new(tables, inodes_per_block)
    }

    /// What a descriptor says means something only where descriptors have
    /// checksums, and if this one's is right. e2image believes the flags
    /// always, and never looks at the checksum.
    fn claims(&mut self, number: u32, group: &Group) -> Claims {
        let has_csum = self.superblock.has_group_csum();
        let is_right = !self.is_complete() || group.checksum_ok;
        let flags = if self.is_complete() && !(has_csum && is_right) {
            0
        } else {
            group.flags
        };
        let mut unused =
            if has_csum && is_right { group.itable_unused } else { 0 };
        if unused > self.superblock.geometry.inodes_per_group {
            let place = Place::of(BlockKind::Descriptors).in_group(number);
            let fault = Fault::BadCount(u64::from(unused));
            self.find(place, fault, Effect::None);
            unused = 0;
        }
        Claims {
            no_inodes: flags & INODE_UNINIT != 0,
            no_blocks: flags & BLOCK_UNINIT != 0,
            unused,
        }
    }

    fn mark_table(
        &mut self,
        number: u32,
        group: &Group,
        claims: Claims,
        inodes_per_block: u32,
    ) {
        let whole = self.options.full_tables;
        let location = group.inode_table.0;
        if location == 0 || (claims.no_inodes && !whole) {
            return;
        }
        let unused = if whole {
            0
        } else {
            claims.unused.checked_div(inodes_per_block).unwrap_or(0)
        };
        let blocks =
            self.superblock.geometry.inode_table_blocks.saturating_sub(unused);
        let place = Place::of(BlockKind::Descriptors).in_group(number);
        let kind = BlockKind::InodeTable;
        self.mark_or_find(place, kind, location, u64::from(blocks));
    }

    fn mark_bitmaps(&mut self, number: u32, group: &Group, claims: Claims) {
        let place = Place::of(BlockKind::Descriptors).in_group(number);
        // A normal image holds a bitmap unless a descriptor that is right
        // says that there is none.
        let in_normal = self.options.scope == Scope::Tables
            && !(self.superblock.has_group_csum() && group.checksum_ok);
        let geometry = &self.superblock.geometry;
        let bits = [geometry.clusters_per_group, geometry.inodes_per_group];
        let bitmaps = [
            (BlockKind::BlockBitmap, group.block_bitmap, claims.no_blocks),
            (BlockKind::InodeBitmap, group.inode_bitmap, claims.no_inodes),
        ];
        let checksums = group.bitmap_checksums.filter(|_| group.checksum_ok);
        for (index, (kind, block, is_uninit)) in bitmaps.into_iter().enumerate()
        {
            if block.0 == 0 || (is_uninit && !in_normal) {
                continue;
            }
            self.mark_or_find(place, kind, block.0, 1);
            let checksum = checksums.and_then(|c| c.get(index).copied());
            if let (false, Some(checksum), Some(bits)) =
                (is_uninit, checksum, bits.get(index).copied())
            {
                let check =
                    Check::Bitmap { kind, group: number, checksum, bits };
                self.checks.add(block.0, 1, check);
            }
        }
    }

    /// The part of a group's table that holds inodes in use.
    fn table(
        &mut self,
        number: u32,
        group: &Group,
        claims: Claims,
        inodes_per_block: u32,
    ) -> Option<Table> {
        let geometry = &self.superblock.geometry;
        if claims.no_inodes && self.superblock.has_group_csum() {
            return None;
        }
        let first = group.inode_table.0;
        let inodes = geometry.inodes_per_group.saturating_sub(claims.unused);
        let wanted = u64::from(inodes.div_ceil(inodes_per_block.max(1)));
        let end = first.saturating_add(wanted).min(geometry.blocks.0);
        let inode =
            number.checked_mul(geometry.inodes_per_group)?.checked_add(1)?;
        if first == 0 && inodes > 0 {
            let place = Place::of(BlockKind::InodeTable).in_group(number);
            self.find(place, Fault::Missing, Effect::SubtreeSkipped);
            self.careful.refused = true;
        }
        if !self.marks.holds(first) {
            return None;
        }
        let blocks = u32::try_from(end.saturating_sub(first)).ok()?;
        Some(Table { first, blocks, inode, inodes })
    }

    /// Looks through a block of the inode tables.
    pub(super) fn visit_tables(
        &mut self,
        tables: &Tables,
        block: BlockNumber,
        bytes: BlockBytes<'_>,
    ) {
        if !bytes.is_whole() {
            let place = Place::of(BlockKind::InodeTable).at(block.0);
            self.find(place, Fault::Unreadable, Effect::SubtreeSkipped);
            self.careful.refused = true;
        }
        if bytes.is_lost() {
            return;
        }
        for slots in tables.slots_in(block) {
            self.visit_table_block(slots.first_inode, slots.count, bytes);
        }
    }
}
