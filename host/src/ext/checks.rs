//! Blocks that tell of no further blocks but can be checked as they pass:
//! bitmaps, directories, attributes, the orphan file, the journal's
//! superblock and the multiple-mount block.
//!
//! What is wrong with them changes nothing about what is selected: the walk
//! never waits for them, and whoever reads them inspects them on the way.
//! Where blocks have checksums nothing but these is looked at.

use std::sync::Arc;

use zerocopy::FromBytes;
use zerocopy::little_endian::{U16, U32};

use super::checksums::{crc32c, crc32c_parts};
use super::directory::{self, Entries};
use super::finding::{Effect, Fault, Findings};
use super::journal::JournalSuperblock;
use super::scan::{Place, Scan, Seen};
use super::superblock::Superblock;
use super::xattr;
use crate::block_set::BlockSet;
use crate::ext::BlockKind;
use crate::units::{BlockCount, BlockNumber, BlockRun, u64_from, usize_from};

/// `h_checksum` of an attribute block.
const XATTR_CHECKSUM_AT: usize = 16;
/// `mmp_magic`, "MMP" and a zero, and where `mmp_checksum` lies.
const MMP_MAGIC: u32 = 0x004D_4D50;
const MMP_CHECKSUM_AT: usize = 1020;
/// `ob_magic`, which ends a block of the orphan file together with
/// `ob_checksum`.
const ORPHAN_MAGIC: u32 = 0x0B10_CA04;
/// Bytes of `ext4_dir_entry_tail`.
const TAIL_BYTES: usize = 12;
/// Behind `.` and `..` of the root of a hash index: `dx_root_info`.
const DX_ROOT_INFO_AT: usize = 24;
/// Where `limit` and `count` of an index node lie: in the root, elsewhere.
const DX_ROOT_COUNT_AT: usize = 32;
const DX_NODE_COUNT_AT: usize = 8;
/// Bytes of an entry of the index.
const DX_ENTRY_BYTES: usize = 8;

/// What some blocks have to be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Check {
    /// A bitmap of so many bits with this checksum, of which the low half
    /// may be all there is.
    Bitmap { kind: BlockKind, group: u32, checksum: u32, bits: u32 },
    /// Blocks of a directory.
    Directory { inode: u32, seed: u32 },
    /// An attribute block, of this inode and perhaps others.
    Xattr { inode: u32 },
    /// Blocks of the orphan file.
    OrphanFile { inode: u32, seed: u32 },
    /// The first block of the journal.
    Journal { inode: u32 },
    /// The multiple-mount block.
    Mmp,
}

impl Check {
    const fn place(self) -> Place {
        match self {
            Self::Bitmap { kind, group, .. } => Place::of(kind).in_group(group),
            Self::Directory { inode, .. } => {
                Place::of(BlockKind::Directory).in_inode(inode)
            }
            Self::Xattr { inode } => {
                Place::of(BlockKind::Xattr).in_inode(inode)
            }
            Self::OrphanFile { inode, .. } => {
                Place::of(BlockKind::OrphanFile).in_inode(inode)
            }
            Self::Journal { inode } => {
                Place::of(BlockKind::Journal).in_inode(inode)
            }
            Self::Mmp => Place::of(BlockKind::Mmp),
        }
    }

    /// What is wrong with a block.
    fn fault(
        self,
        superblock: &Superblock,
        block: BlockNumber,
        bytes: &[u8],
    ) -> Result<(), Fault> {
        match self {
            Self::Bitmap { checksum, bits, .. } => {
                let covered = usize_from(bits.wrapping_shr(3));
                let covered = bytes.get(..covered).ok_or(Fault::Missing)?;
                let is = crc32c(superblock.checksum_seed, covered);
                let mask = if superblock.has_wide_bitmap_checksums() {
                    u32::MAX
                } else {
                    0xFFFF
                };
                right(is & mask == checksum)
            }
            Self::Directory { seed, .. } => {
                if superblock.has_metadata_csum() {
                    right(directory_checksum_ok(seed, bytes))
                } else {
                    let mut entries = Entries::new(bytes);
                    entries.by_ref().for_each(drop);
                    entries.fault().map_or(Ok(()), Err)
                }
            }
            Self::Xattr { .. } => {
                xattr::Xattrs::block(bytes)?;
                right(
                    !superblock.has_metadata_csum()
                        || xattr_checksum_ok(superblock, block, bytes),
                )
            }
            Self::OrphanFile { seed, .. } => {
                orphan_block(superblock, seed, block, bytes)
            }
            Self::Journal { .. } => {
                let size = superblock.geometry.block_size;
                JournalSuperblock::check(bytes, size, u64::MAX).map(drop)
            }
            Self::Mmp => {
                let magic = word(bytes, 0).ok_or(Fault::Missing)?;
                if magic != MMP_MAGIC {
                    return Err(Fault::BadMagic);
                }
                let covered = bytes.get(..MMP_CHECKSUM_AT).unwrap_or_default();
                let is = crc32c(superblock.checksum_seed, covered);
                right(
                    !superblock.has_metadata_csum()
                        || word(bytes, MMP_CHECKSUM_AT) == Some(is),
                )
            }
        }
    }
}

fn right(is_right: bool) -> Result<(), Fault> {
    if is_right { Ok(()) } else { Err(Fault::BadChecksum) }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let (word, _) = U32::ref_from_prefix(bytes.get(at..)?).ok()?;
    Some(word.get())
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    let (half, _) = U16::ref_from_prefix(bytes.get(at..)?).ok()?;
    Some(half.get())
}

/// Blocks of a directory end in an entry without inode that holds their
/// checksum; nodes of a hash index have it behind their last entry.
fn directory_checksum_ok(seed: u32, block: &[u8]) -> bool {
    let Some((covered, tail)) = block
        .len()
        .checked_sub(TAIL_BYTES)
        .and_then(|at| block.split_at_checked(at))
    else {
        return false;
    };
    // inode 0, rec_len 12, name_len 0, file_type 0xDE. The kernel makes the
    // root of an index of a block that had such an entry and leaves its
    // first half, as dt_reserved.
    let is_entry = tail.starts_with(&[0, 0, 0, 0, 12, 0, 0, 0xDE]);
    is_entry && word(tail, 8) == Some(crc32c(seed, covered))
        || index_checksum_ok(seed, block).unwrap_or(false)
}

fn index_checksum_ok(seed: u32, block: &[u8]) -> Option<bool> {
    let length = |at: usize, left: usize| {
        let rec_len = half(block, at.checked_add(4)?)?;
        Some(directory::record_bytes(rec_len, left))
    };
    let size = block.len();
    let count_at = if length(0, size)? == size {
        DX_NODE_COUNT_AT
    } else {
        let behind = size.checked_sub(12)?;
        let is_root = length(0, size)? == 12
            && length(12, behind)? == behind
            && word(block, DX_ROOT_INFO_AT)? == 0;
        is_root.then_some(DX_ROOT_COUNT_AT)?
    };
    let limit = usize::from(half(block, count_at)?);
    let count = usize::from(half(block, count_at.checked_add(2)?)?);
    let end = |entries: usize| {
        count_at.checked_add(entries.checked_mul(DX_ENTRY_BYTES)?)
    };
    let tail = end(limit)?;
    // dt_reserved counts, and dt_checksum as zero.
    let reserved = block.get(tail..tail.checked_add(4)?)?;
    let parts = [block.get(..end(count)?)?, reserved, &[0; 4]];
    Some(word(block, tail.checked_add(4)?)? == crc32c_parts(seed, &parts))
}

fn xattr_checksum_ok(
    superblock: &Superblock,
    block: BlockNumber,
    bytes: &[u8],
) -> bool {
    let parts = [
        &block.0.to_le_bytes()[..],
        bytes.get(..XATTR_CHECKSUM_AT).unwrap_or_default(),
        &[0; 4],
        bytes.get(XATTR_CHECKSUM_AT + 4..).unwrap_or_default(),
    ];
    let is = crc32c_parts(superblock.checksum_seed, &parts);
    word(bytes, XATTR_CHECKSUM_AT) == Some(is)
}

fn orphan_block(
    superblock: &Superblock,
    seed: u32,
    block: BlockNumber,
    bytes: &[u8],
) -> Result<(), Fault> {
    let tail = bytes.len().checked_sub(8).ok_or(Fault::Missing)?;
    if word(bytes, tail) != Some(ORPHAN_MAGIC) {
        return Err(Fault::BadMagic);
    }
    let covered = bytes.get(..tail).unwrap_or_default();
    let is = crc32c_parts(seed, &[&block.0.to_le_bytes(), covered]);
    let stored = word(bytes, tail.saturating_add(4));
    right(!superblock.has_metadata_csum() || stored == Some(is))
}

/// What the checkable blocks of a level have to be.
///
/// It knows all it needs and changes nothing: any thread may inspect blocks
/// with it while the walk goes on.
#[derive(Clone, Debug, Default)]
pub struct Checks {
    /// First block, count, and what they have to be; sorted once the level
    /// is made.
    list: Vec<(u64, u64, Check)>,
    superblock: Option<Arc<Superblock>>,
}

impl Checks {
    /// `count` blocks from `first` have to be this.
    pub(super) fn add(&mut self, first: u64, count: u64, check: Check) {
        // Neighbours of one directory are one entry.
        if let Some((start, length, last)) = self.list.last_mut()
            && *last == check
            && start.checked_add(*length) == Some(first)
        {
            *length = length.saturating_add(count);
            return;
        }
        self.list.push((first, count, check));
    }

    /// Of what was added since the last call, what is among `payload`.
    pub(super) fn take(
        &mut self,
        superblock: &Superblock,
        payload: &BlockSet,
    ) -> Self {
        let mut added = std::mem::take(&mut self.list);
        added.sort_unstable_by_key(|(first, ..)| *first);
        // A damaged block may be claimed again and again: once is enough.
        added.dedup_by_key(|(first, ..)| *first);
        let mut list = Vec::with_capacity(added.len());
        for (first, count, check) in added {
            let run = BlockRun::new(BlockNumber(first), BlockCount(count));
            match run {
                Some(run) if payload.contains_run(run) => {
                    list.push((first, count, check));
                }
                Some(run) => list.extend(
                    payload
                        .runs_in(run)
                        .map(|part| (part.first().0, part.count().0, check)),
                ),
                None => {}
            }
        }
        list.sort_unstable_by_key(|(first, ..)| *first);
        let superblock =
            (!list.is_empty()).then(|| Arc::new(superblock.clone()));
        Self { list, superblock }
    }

    /// Those of several levels of one walk as one.
    #[must_use]
    pub fn join(levels: Vec<Self>) -> Self {
        let mut all = Self::default();
        for mut level in levels {
            all.list.append(&mut level.list);
            all.superblock = all.superblock.or(level.superblock);
        }
        all.list.sort_by_key(|(first, ..)| *first);
        all
    }

    /// Looks at the blocks of `run`, whose `bytes` were all read; what is
    /// none of this level's is passed over.
    pub fn inspect(
        &self,
        run: BlockRun,
        bytes: &[u8],
        findings: &mut Findings,
    ) {
        let Some(superblock) = &self.superblock else { return };
        let size = superblock.geometry.block_size.bytes();
        for (block, bytes) in
            (run.first().0..run.end().0).zip(bytes.chunks_exact(size))
        {
            let Some(check) = self.of(block) else { continue };
            let number = BlockNumber(block);
            if let Err(fault) = check.fault(superblock, number, bytes) {
                let place = check.place().at(block);
                findings.add(place.finding(fault, Effect::None));
            }
        }
    }

    /// What `block` has to be. Where runs overlap, the last one that begins
    /// before it decides.
    fn of(&self, block: u64) -> Option<Check> {
        let behind = self.list.partition_point(|(first, ..)| *first <= block);
        let (first, count, check) = self.list.get(behind.checked_sub(1)?)?;
        (block.saturating_sub(*first) < *count).then_some(*check)
    }
}

/// Whether the walk should end with something that every filesystem has.
impl Scan {
    /// Reports what every filesystem has and this one has not.
    pub(super) fn find_missing(&mut self) {
        let Seen { root, journal, .. } = self.seen;
        let has_journal = self.superblock.has_own_journal();
        let wanted = [
            (BlockKind::Directory, super::inode::ROOT_INODE, !root),
            (
                BlockKind::Journal,
                self.superblock.journal_inode,
                has_journal && !journal,
            ),
        ];
        for (kind, inode, is_missing) in wanted {
            if is_missing {
                let place = Place::of(kind).in_inode(inode);
                self.find(place, Fault::Missing, Effect::SubtreeSkipped);
            }
        }
    }

    /// Reports blocks that belong to structures of different kinds, and
    /// those that were marked twice for one kind.
    pub(super) fn find_shared(&mut self) {
        for (kind, run) in self.marks.shared_kinds() {
            let fault = duplicate(run);
            self.find(Place::of(kind), fault, Effect::None);
        }
    }

    /// Reports what was marked again since the last call.
    pub(super) fn find_repeats(&mut self) {
        let (repeats, left_out) = self.marks.take_repeats();
        for repeat in repeats {
            let mut place = Place::of(repeat.kind);
            if repeat.inode != 0 {
                place = place.in_inode(repeat.inode);
            }
            self.find(place, duplicate(repeat.run), Effect::None);
        }
        self.findings.total = self.findings.total.saturating_add(left_out);
    }
}

/// A single block is known to be shared, of more only that some are.
fn duplicate(run: BlockRun) -> Fault {
    if run.count().0 == 1 {
        Fault::DuplicateClaim(run.first())
    } else {
        Fault::DuplicateIn(run)
    }
}

/// Blocks of a file, to be checked as what they are.
pub(super) fn of_file(
    kind: BlockKind,
    inode: u32,
    seed: u32,
    logical: u64,
) -> Option<(Check, u64)> {
    let all = u64_from(usize::MAX);
    match kind {
        BlockKind::Directory => Some((Check::Directory { inode, seed }, all)),
        BlockKind::OrphanFile => Some((Check::OrphanFile { inode, seed }, all)),
        BlockKind::Journal if logical == 0 => {
            Some((Check::Journal { inode }, 1))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The root of an index with two entries, made of a block that was full.
    fn index_root(seed: u32) -> Vec<u8> {
        let mut block = vec![0; 1024];
        let mut put = |at: usize, bytes: &[u8]| {
            block[at..at + bytes.len()].copy_from_slice(bytes);
        };
        put(0, &[11, 0, 0, 0, 12, 0, 1, 2, b'.']);
        put(12, &[2, 0, 0, 0, 0xF4, 3, 2, 2, b'.', b'.']);
        // hash_version, info_length; limit, count and two entries.
        put(28, &[1, 8, 0, 0, 123, 0, 2, 0, 1, 0, 0, 0, 9, 9, 9, 8, 2]);
        put(1016, &[12, 0, 0, 0xDE]);
        let parts = [&block[..48], &block[1016..1020], &[0; 4]];
        let checksum = crc32c_parts(seed, &parts);
        block[1020..].copy_from_slice(&checksum.to_le_bytes());
        block
    }

    #[test]
    fn what_is_left_of_an_entry_does_not_hide_an_index() {
        let mut block = index_root(7);
        assert!(directory_checksum_ok(7, &block));
        assert!(!directory_checksum_ok(8, &block));
        // Behind the last entry anything may lie.
        block[500] = 1;
        assert!(directory_checksum_ok(7, &block));
        block[45] ^= 1;
        assert!(!directory_checksum_ok(7, &block));
    }
}
