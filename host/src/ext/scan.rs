//! What inodes lead to: every inode that a walk passes comes through here
//! once, and leaves marks, map blocks to be read, and findings.

use zerocopy::{FromBytes, FromZeros as _};

use super::assemble::BlockBytes;
use super::careful::{Careful, Suspect};
use super::checks::{Check, Checks};
use super::disguised::Disguised;
use super::extents::Extent;
use super::finding::{Effect, Fault, Findings};
use super::inode::{
    self, EA_INODE_FL, EXTENTS_FL, I_BLOCK_SLOTS, INLINE_DATA_FL, ROOT_INODE,
    RawInode, S_IFDIR, S_IFLNK, S_IFREG,
};
use super::maps::{MapJob, Owner, RESIZE_INODE, Shape, Waiting};
use super::select::Marks;
use super::superblock::{RawSuperblock, Superblock};
use crate::ext::{
    BlockKind, Finding, JournalMode, Scope, Selection, Traced, WalkOptions,
};
use crate::units::{BlockNumber, usize_from};

/// The inode whose map lists the bad blocks of the device.
const BAD_BLOCKS_INODE: u32 = 1;

/// What a walk has learned so far.
#[derive(Debug)]
pub(super) struct Scan {
    pub(super) superblock: Superblock,
    pub(super) options: WalkOptions,
    pub(super) marks: Marks,
    pub(super) waiting: Waiting,
    pub(super) findings: Findings,
    pub(super) careful: Careful,
    /// What may be a directory and does not say so.
    pub(super) disguised: Vec<Disguised>,
    /// The journal's file map, where not all of the journal is wanted.
    pub(super) journal: Vec<Extent>,
    /// Parts of the descriptor table that could not be read, and where.
    pub(super) lost_parts: Vec<(u32, BlockNumber)>,
    /// What the blocks that were marked last are to be checked for.
    pub(super) checks: Checks,
    pub(super) seen: Seen,
    /// Whose each stretch of data is, where that is wanted.
    pub(super) traced: Vec<Traced>,
}

/// Which of the things that every filesystem has were seen.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    /// The root directory.
    pub(super) root: bool,
    /// The journal's inode.
    pub(super) journal: bool,
    /// A map of the journal that can be followed, or its copy.
    pub(super) journal_map: bool,
}

/// Where a finding belongs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    structure: BlockKind,
    group: Option<u32>,
    inode: Option<u32>,
    block: Option<u64>,
}

impl Place {
    pub(super) const fn of(structure: BlockKind) -> Self {
        Self { structure, group: None, inode: None, block: None }
    }

    pub(super) const fn in_group(mut self, group: u32) -> Self {
        self.group = Some(group);
        self
    }

    pub(super) const fn in_inode(mut self, inode: u32) -> Self {
        self.inode = Some(inode);
        self
    }

    pub(super) const fn block(&self) -> Option<u64> {
        self.block
    }

    pub(super) const fn at(mut self, block: u64) -> Self {
        self.block = Some(block);
        self
    }

    /// What is wrong there.
    pub(super) const fn finding(self, fault: Fault, effect: Effect) -> Finding {
        Finding {
            structure: self.structure,
            group: self.group,
            inode: self.inode,
            block: match self.block {
                Some(block) => Some(BlockNumber(block)),
                None => None,
            },
            fault,
            effect,
        }
    }
}

impl Scan {
    pub(super) fn new(
        superblock: Superblock,
        options: WalkOptions,
        careful: Careful,
    ) -> Self {
        Self {
            marks: Marks::new(
                &superblock.geometry,
                options.journal_last && options.journal == JournalMode::Full,
            ),
            superblock,
            options,
            waiting: Waiting::default(),
            findings: Findings::default(),
            careful,
            disguised: Vec::new(),
            journal: Vec::new(),
            traced: Vec::new(),
            lost_parts: Vec::new(),
            checks: Checks::default(),
            seen: Seen::default(),
        }
    }

    pub(super) const fn is_complete(&self) -> bool {
        matches!(self.options.selection, Selection::Complete)
    }

    const fn wants_data(&self) -> bool {
        matches!(self.options.scope, Scope::Data)
    }

    pub(super) fn find(&mut self, place: Place, fault: Fault, effect: Effect) {
        self.findings.add(place.finding(fault, effect));
    }

    /// The stretches of the journal, by their place in it.
    pub(super) fn journal_map(&self) -> Vec<Traced> {
        let parts = self.traced.iter();
        let mut map: Vec<Traced> = parts
            .filter(|part| part.kind == BlockKind::Journal)
            .copied()
            .collect();
        map.sort_unstable_by_key(|part| part.logical);
        map
    }

    /// Looks at inode `number`; `bytes` is all of it.
    pub(super) fn visit_inode(&mut self, number: u32, bytes: &[u8]) {
        let Ok((raw, _)) = RawInode::ref_from_prefix(bytes) else { return };
        if number == BAD_BLOCKS_INODE
            && (0..I_BLOCK_SLOTS).any(|slot| raw.slot(slot) != 0)
        {
            self.careful.has_bad_blocks = true;
        }
        if raw.i_links_count.get() == 0
            && !(self.is_complete() && raw.is_orphan(&self.superblock))
        {
            return;
        }
        let place = Place::of(BlockKind::InodeTable).in_inode(number);
        let seed = if self.superblock.has_metadata_csum() {
            let seed = inode::checksum_seed(&self.superblock, number, raw);
            if !inode::checksum_ok(seed, bytes) {
                self.find(place, Fault::BadChecksum, Effect::None);
            }
            seed
        } else {
            0
        };
        let xattr = raw.xattr_block(&self.superblock);
        if xattr != 0 {
            self.mark_or_find(place, BlockKind::Xattr, xattr, 1);
            self.checks.add(xattr, 1, Check::Xattr { inode: number });
        }
        self.seen.root |= number == ROOT_INODE && raw.file_type() == S_IFDIR;
        if number == self.superblock.journal_inode {
            self.seen.journal = true;
            self.seen.journal_map |= shape_of(raw).fits(&raw.i_block);
        }
        let Some(data) = self.purpose(number, raw) else {
            self.suspect_disguise(number, seed, raw);
            return;
        };
        let owner = Owner { inode: number, seed, data };
        if data.is_none() && !raw.may_have_map_blocks() {
            return;
        }
        if self.superblock.is_hurd && raw.i_osd1.get() != 0 {
            let block = u64::from(raw.i_osd1.get());
            self.mark_or_find(place, BlockKind::Translator, block, 1);
        }
        let shape = shape_of(raw);
        let suspect = Suspect { owner, shape, root: raw.i_block };
        if self.careful.takes(&suspect) {
            return;
        }
        self.walk_root(&suspect);
    }

    /// Where the journal's inode leads nowhere, the superblock keeps a copy
    /// of its map, which a checker of the image goes by.
    pub(super) fn follow_journal_by_copy(&mut self) {
        let superblock = &self.superblock;
        let is_wanted = self.is_complete()
            && self.options.scope != Scope::Tables
            && superblock.has_own_journal();
        if !is_wanted || self.seen.journal_map {
            return;
        }
        let raw = RawSuperblock::ref_from_bytes(&*superblock.bytes).ok();
        let Some(root) = raw.and_then(RawSuperblock::journal_map) else {
            return;
        };
        let shapes = [Shape::Extents, Shape::Indirect];
        let Some(shape) = shapes.into_iter().find(|shape| shape.fits(&root))
        else {
            return;
        };
        self.seen.journal = true;
        self.seen.journal_map = true;
        let inode = superblock.journal_inode;
        let owner = Owner {
            inode,
            // Nobody ever gave the journal's inode another generation.
            seed: inode::checksum_seed(
                superblock,
                inode,
                &RawInode::new_zeroed(),
            ),
            data: Some(BlockKind::Journal),
        };
        let place = Place::of(BlockKind::Journal).in_inode(inode);
        let copy = Effect::CopyUsed(superblock.at);
        self.find(place, Fault::Missing, copy);
        self.walk_root(&Suspect { owner, shape, root });
    }

    /// The bad blocks' inode, in the first block of the first inode table.
    pub(super) fn bad_blocks_inode(
        &self,
        block: BlockBytes<'_>,
    ) -> Option<Suspect> {
        let (raw, _) = RawInode::ref_from_prefix(block.bytes).ok()?;
        let owner = Owner { inode: BAD_BLOCKS_INODE, seed: 0, data: None };
        let shape = shape_of(raw);
        block.is_whole().then_some(Suspect { owner, shape, root: raw.i_block })
    }

    /// The map blocks of the greatest height that wait.
    pub(super) fn take_waiting(&mut self) -> Option<(u16, Vec<MapJob>)> {
        let taken = self.waiting.take_highest();
        for inode in std::mem::take(&mut self.waiting.repeats) {
            self.careful.suspect(inode);
        }
        taken
    }

    /// Whether the map of an inode is followed, and what its data are:
    /// `None` not at all, `Some(None)` only the map.
    fn purpose(
        &self,
        number: u32,
        raw: &RawInode,
    ) -> Option<Option<BlockKind>> {
        let kind = match raw.file_type() {
            S_IFLNK => {
                // An inline target has no blocks, whatever its length.
                let is_slow = raw.is_slow_symlink(&self.superblock)
                    && !(self.is_complete()
                        && raw.is_fast_symlink(&self.superblock));
                return (is_slow && !raw.has_flag(INLINE_DATA_FL))
                    .then_some(Some(BlockKind::Symlink));
            }
            S_IFDIR => Some(BlockKind::Directory),
            S_IFREG => self.purpose_of_file(number, raw),
            _ => return None,
        };
        (!raw.has_flag(INLINE_DATA_FL)).then_some(kind)
    }

    fn purpose_of_file(
        &self,
        number: u32,
        raw: &RawInode,
    ) -> Option<BlockKind> {
        let superblock = &self.superblock;
        if number == superblock.journal_inode {
            return Some(BlockKind::Journal);
        }
        let [user, group, project] = superblock.quota_inodes;
        // e2image takes inodes 3 and 4 for the quota files of users and
        // groups, whatever the superblock says.
        if matches!(number, 3 | 4)
            || number == project
            || (self.is_complete() && [user, group].contains(&number))
        {
            return Some(BlockKind::Quota);
        }
        if number == superblock.orphan_file_inode {
            return Some(BlockKind::OrphanFile);
        }
        let is_value = raw.has_flag(EA_INODE_FL);
        if is_value && (self.is_complete() || self.wants_data()) {
            return Some(BlockKind::XattrInode);
        }
        self.wants_data().then_some(if number == RESIZE_INODE {
            BlockKind::ReservedDescriptors
        } else {
            BlockKind::Data
        })
    }

    /// Marks; what lies outside the filesystem is left out and noted.
    pub(super) fn mark_or_find(
        &mut self,
        place: Place,
        kind: BlockKind,
        first: u64,
        count: u64,
    ) {
        self.marks.set_owner(place.inode);
        if !self.marks.mark(kind, first, count) {
            let fault = Fault::OutOfRange(BlockNumber(first));
            self.find(place, fault, Effect::EntrySkipped);
        }
    }

    /// Looks at the inodes of a block of an inode table.
    pub(super) fn visit_table_block(
        &mut self,
        first_inode: u32,
        count: u32,
        block: BlockBytes<'_>,
    ) {
        let size = usize_from(self.superblock.geometry.inode_size);
        let inodes = block.bytes.chunks_exact(size).zip(first_inode..);
        for (index, (bytes, number)) in
            inodes.take(usize_from(count)).enumerate()
        {
            let from = index.saturating_mul(size);
            if block.is_whole() || block.has(from, from.saturating_add(size)) {
                self.visit_inode(number, bytes);
            }
        }
    }
}

pub(super) fn shape_of(raw: &RawInode) -> Shape {
    if raw.has_flag(EXTENTS_FL) { Shape::Extents } else { Shape::Indirect }
}
