//! The search for the superblock, before the size of a block is known.
//!
//! First where it usually is, or where the user says. If there is none, its
//! copies are looked for: first where mke2fs puts them by default and where
//! the lost one says, a few hundred places; then in every KiB of the
//! beginning of the device, for filesystems made with small groups, and in
//! the groups further back that have copies, for beginnings that are gone
//! altogether. A source behind a line makes this last search itself.
//! Something counts as a copy only if it lies where it says that it lies.

use std::cmp::Reverse;

use super::assemble::BlockBytes;
use super::finding::Fault;
use super::groups;
use super::superblock::{
    RawSuperblock, Refusal, SUPERBLOCK_BYTES, SUPERBLOCK_OFFSET, Superblock,
    compat,
};
use crate::block_set::BlockSet;
use crate::error::{Error, ErrorKind, Result};
use crate::ext::{Geometry, Scope, Selection, WalkOptions};
use crate::source::Sought;
use crate::units::{BlockCount, BlockNumber, BlockRun, BlockSize};
use zerocopy::FromBytes;

/// The probe counts in blocks of this size: every superblock begins at a
/// multiple of it, and fills one.
pub(super) const PROBE_SIZE: BlockSize = BlockSize::MIN;

const ALL_SIZES: std::ops::RangeInclusive<u32> = 10..=16;

/// The usual place, in KiB.
const USUAL_KIB: u64 = SUPERBLOCK_OFFSET.wrapping_shr(10);

/// The smallest group that mke2fs makes by default, in KiB: 8,192 blocks of
/// 1 KiB. Blocks of 2 and 4 KiB double it twice each, clusters again and
/// again.
const SMALLEST_GROUP_KIB: u64 = 1 << 13;
/// From 8 KiB on groups have 65,528 blocks or clusters.
const LARGE_GROUP_KIB: u64 = 65_528 << 3;
/// How often either is doubled: up to groups of 2 TiB.
const DOUBLINGS: u32 = 18;

/// Groups with copies, of those that all filesystems with so many have.
const FIRST_GROUPS: [u64; 5] = [1, 3, 5, 7, 9];

/// How far every KiB is looked at, in KiB: the second group of every
/// filesystem with blocks of up to 4 KiB begins before.
const EVERY_KIB: u64 = 129 << 10;

/// Groups further back that have copies are powers of these.
const COPY_BASES: [u64; 3] = [3, 5, 7];

/// How many things that may be copies are kept.
const HITS_MAX: usize = 4096;

/// What is sought of a copy: its magic number, and with it all that tells
/// whether it lies where it says.
const SOUGHT: Sought = Sought {
    pattern: &super::superblock::MAGIC.to_le_bytes(),
    offset: MAGIC_OFFSET,
    head_bytes: HEAD_BYTES,
    fits: may_be_copy,
};
/// Where `s_magic` lies.
const MAGIC_OFFSET: u32 = 0x38;
/// Up to and with `s_block_group_nr`.
const HEAD_BYTES: u16 = 0x5C;

/// How the search goes on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stage {
    /// Where the user said, or where it usually is.
    Given,
    /// Where copies usually are.
    Likely,
    /// At every KiB of the beginning, and far behind.
    Everywhere,
}

/// The places that are looked at, and what was found there.
#[derive(Debug)]
pub(super) struct Probe {
    stage: Stage,
    /// What is looked at, in KiB from the start of the device.
    places: BlockSet,
    /// What may be a copy, and whatever lies where it was expected.
    hits: Vec<(u64, Box<[u8; SUPERBLOCK_BYTES]>)>,
    /// What is wrong with the one that was expected, while copies are looked
    /// for.
    lost: Option<Refusal>,
    /// What lies in its place.
    first: Option<Box<[u8; SUPERBLOCK_BYTES]>>,
    /// One that could be used but for its checksum: a copy that has the right
    /// one and says something else is better.
    doubted: Option<Superblock>,
}

impl Probe {
    /// Where the user said, or where it usually is.
    pub(super) fn new(options: &WalkOptions) -> Self {
        let mut places = BlockSet::new();
        match given(options) {
            None => {
                places.insert(BlockNumber(USUAL_KIB));
            }
            Some(at) => {
                for size in sizes(options) {
                    kib_of(at, size).map(|kib| places.insert(kib));
                }
            }
        }
        Self {
            stage: Stage::Given,
            places,
            hits: Vec::new(),
            lost: None,
            first: None,
            doubted: None,
        }
    }

    pub(super) const fn blocks(&self) -> &BlockSet {
        &self.places
    }

    /// What is sought at these places, where they are many.
    pub(super) fn sought(&self) -> Option<Sought> {
        (self.stage == Stage::Everywhere).then_some(SOUGHT)
    }

    /// Looks at what was read at `kib`.
    pub(super) fn supply(&mut self, kib: BlockNumber, block: BlockBytes<'_>) {
        let Ok(bytes) = <&[u8; SUPERBLOCK_BYTES]>::try_from(block.bytes) else {
            return;
        };
        let keeps = self.stage == Stage::Given || may_be_copy(kib.0, bytes);
        if keeps && block.is_whole() && self.hits.len() < HITS_MAX {
            self.hits.push((kib.0, Box::new(*bytes)));
        }
    }

    /// The superblock; or the next probe to make.
    pub(super) fn conclude(
        mut self,
        options: &WalkOptions,
    ) -> Result<Result<Superblock, Self>> {
        if self.stage == Stage::Given {
            return self.conclude_given(options);
        }
        let copy = self.best_copy(options);
        if let Some(doubted) = self.doubted.take() {
            return Ok(Ok(better(doubted, copy, options)));
        }
        let Some(lost) = self.lost.take() else {
            return Err(Error::new(ErrorKind::Internal, "a probe for nothing"));
        };
        if given(options).is_some() {
            return Err(with_hint(lost.error, copy.as_ref(), self.stage));
        }
        if let (Scope::Tables, Some(copy)) = (options.scope, &copy) {
            return Err(lost.error.hint(format!(
                "a copy of the superblock lies at block {}; a normal image \
                 begins with the first one, so take raw or qcow2",
                copy.at
            )));
        }
        if let Some(copy) = copy {
            let replaces = Some(lost.fault);
            return Ok(Ok(Superblock { replaces, ..copy }));
        }
        // Unknown features are a reason to stop and no reason to read much.
        let is_final = lost.error.what_to_try().is_some();
        if self.stage == Stage::Likely && !is_final {
            return Ok(Err(self.everywhere(options, lost)));
        }
        Err(match is_final {
            true => lost.error,
            false => with_hint(lost.error, None, self.stage),
        })
    }

    fn conclude_given(
        mut self,
        options: &WalkOptions,
    ) -> Result<Result<Superblock, Self>> {
        let mut failure = None;
        let candidates: Vec<_> = match given(options) {
            None => vec![(USUAL_KIB, None, options.block_size)],
            Some(at) => sizes(options)
                .filter_map(|size| {
                    Some((kib_of(at, size)?.0, Some(at), Some(size)))
                })
                .collect(),
        };
        for (kib, at, size) in candidates {
            let hit = self.hits.iter().find(|(place, _)| *place == kib);
            match check(hit.map(|(_, bytes)| &**bytes), at, size, options) {
                Ok(superblock) if may_doubt(&superblock, options) => {
                    self.first = hit.map(|(_, bytes)| bytes.clone());
                    self.doubted = Some(superblock);
                    return Ok(Err(self.likely(options, None)));
                }
                Ok(superblock) => return Ok(Ok(superblock)),
                Err(refusal) => failure = failure.or(Some(refusal)),
            }
        }
        let lost = failure.unwrap_or_else(|| Refusal {
            fault: Fault::Missing,
            error: Error::new(
                ErrorKind::NoFilesystem,
                "the superblock would lie beyond all devices",
            ),
        });
        self.first = self
            .hits
            .drain(..)
            .find_map(|(kib, bytes)| (kib == USUAL_KIB).then_some(bytes));
        // One that proves itself means what it says.
        let is_proven = self.first.as_ref().is_some_and(|bytes| {
            super::superblock::checksum(bytes)
                .is_some_and(|right| bytes.ends_with(&right.to_le_bytes()))
        });
        let is_final = lost.error.what_to_try().is_some();
        if is_final && is_proven {
            return Err(lost.error);
        }
        Ok(Err(self.likely(options, Some(lost))))
    }

    /// Where copies lie on a filesystem made with default settings, and
    /// where the damaged superblock says that they lie.
    fn likely(self, options: &WalkOptions, lost: Option<Refusal>) -> Self {
        let end = end_kib(options);
        let mut places = BlockSet::new();
        let mut add = |kib: Option<u64>| {
            if let Some(kib) = kib.filter(|kib| *kib < end) {
                places.insert(BlockNumber(kib));
            }
        };
        for (unit, first) in usual_groups() {
            // And the last one, where it is known.
            let last = end
                .checked_sub(first.saturating_add(1))
                .and_then(|last| last.checked_div(unit))
                .filter(|_| end < u64::MAX);
            for group in FIRST_GROUPS.into_iter().chain(last) {
                let at = unit.checked_mul(group);
                add(at.and_then(|at| at.checked_add(first)));
                add(at);
            }
        }
        if let Some(raw) = self.first.as_ref().and_then(|bytes| raw(bytes)) {
            let per_group = u64::from(raw.s_blocks_per_group.get());
            let first = u64::from(raw.s_first_data_block.get());
            for size in ALL_SIZES.filter_map(BlockSize::from_log2) {
                for group in FIRST_GROUPS {
                    let block = per_group.saturating_mul(group);
                    let block = BlockNumber(block.saturating_add(first));
                    add(kib_of(block, size).map(|kib| kib.0));
                }
            }
        }
        Self { stage: Stage::Likely, places, hits: Vec::new(), lost, ..self }
    }

    fn everywhere(self, options: &WalkOptions, lost: Refusal) -> Self {
        let end = end_kib(options);
        let count = BlockCount(end.min(EVERY_KIB));
        let mut places: BlockSet =
            BlockRun::new(BlockNumber(0), count).into_iter().collect();
        // Without an end there would be no end of them.
        let end = if end == u64::MAX { 0 } else { end };
        for (unit, first) in usual_groups() {
            let behind = end.saturating_sub(first);
            for base in COPY_BASES {
                let mut at = unit.checked_mul(base);
                while let Some(kib) = at.filter(|kib| *kib < behind) {
                    for place in [kib, kib.saturating_add(first)] {
                        places.insert(BlockNumber(place));
                    }
                    at = kib.checked_mul(base);
                }
            }
        }
        Self {
            stage: Stage::Everywhere,
            places,
            hits: Vec::new(),
            lost: Some(lost),
            ..self
        }
    }

    /// Of all copies the one to believe: its checksum is right, it is of the
    /// filesystem whose first superblock was lost, and of what remains the
    /// newest, the one with the most of its kind, and the first.
    fn best_copy(&self, options: &WalkOptions) -> Option<Superblock> {
        let first = self.first.as_ref().and_then(|bytes| raw(bytes));
        let lost_uuid = first.map(|raw| raw.s_uuid);
        let copies: Vec<(Superblock, u64)> = self
            .hits
            .iter()
            .filter_map(|(kib, bytes)| copy_at(*kib, bytes, options))
            .collect();
        let votes = |superblock: &Superblock| {
            copies
                .iter()
                .filter(|(other, _)| other.geometry == superblock.geometry)
                .count()
        };
        copies
            .iter()
            .max_by_key(|(superblock, written)| {
                (
                    superblock.checksum_ok,
                    Some(superblock.geometry.uuid) == lost_uuid,
                    *written,
                    votes(superblock),
                    Reverse(superblock.at),
                )
            })
            .map(|(superblock, _)| superblock.clone())
    }
}

/// Whether copies have a say: e2image never asks them, a normal image holds
/// the first superblock, and the user's own choice stands.
fn may_doubt(superblock: &Superblock, options: &WalkOptions) -> bool {
    doubt(superblock).is_some()
        && options.selection == Selection::Complete
        && options.scope != Scope::Tables
        && given(options).is_none()
}

/// Why a superblock that could be used is not simply believed.
fn doubt(superblock: &Superblock) -> Option<Fault> {
    if !superblock.checksum_ok {
        Some(Fault::BadChecksum)
    } else if !superblock.begins_as_usual() {
        Some(Fault::BadField("s_first_data_block"))
    } else {
        None
    }
}

/// The copy instead of a superblock that is doubted, if it is of the same
/// filesystem, is not doubted itself, and a walk by it would look for things
/// elsewhere. Where there is none, what is plainly wrong is put right.
fn better(
    doubted: Superblock,
    copy: Option<Superblock>,
    options: &WalkOptions,
) -> Superblock {
    let places = |superblock: &Superblock| {
        (
            superblock.geometry.clone(),
            superblock.has_64bit(),
            superblock.has_metadata_csum(),
            superblock.first_meta_bg,
            superblock.compat & compat::SPARSE_SUPER2 != 0,
            superblock.backup_groups,
            superblock.has_own_journal().then_some(superblock.journal_inode),
            superblock.checksum_seed,
        )
    };
    // Of the same filesystem: by its name, or by all but its name.
    let is_same = |copy: &Superblock| {
        let uuid = doubted.geometry.uuid;
        let renamed = Geometry { uuid, ..copy.geometry.clone() };
        copy.geometry.uuid == uuid || renamed == doubted.geometry
    };
    match copy {
        Some(copy)
            if doubt(&copy).is_none()
                && is_same(&copy)
                && places(&copy) != places(&doubted) =>
        {
            Superblock { replaces: doubt(&doubted), ..copy }
        }
        _ if doubted.begins_as_usual() => doubted,
        _ => doubted.begun_as_usual(options.device_length),
    }
}

/// How many KiB the device has, the last perhaps in part.
fn end_kib(options: &WalkOptions) -> u64 {
    let length = options.device_length.map(|length| length.0);
    length.map_or(u64::MAX, |length| length.div_ceil(1024))
}

/// How many KiB the groups of usual filesystems have, and where the first of
/// them may begin besides 0: with blocks of 1 KiB at block 1.
fn usual_groups() -> impl Iterator<Item = (u64, u64)> {
    (0..=DOUBLINGS).flat_map(|bits| {
        [SMALLEST_GROUP_KIB, LARGE_GROUP_KIB].map(|unit| {
            let unit = unit.wrapping_shl(bits);
            (unit, u64::from(unit == SMALLEST_GROUP_KIB))
        })
    })
}

/// The block that the user named, if not the usual place.
fn given(options: &WalkOptions) -> Option<BlockNumber> {
    options.superblock.filter(|block| block.0 != 0)
}

/// The block sizes that come into question.
fn sizes(options: &WalkOptions) -> impl Iterator<Item = BlockSize> + use<> {
    let asked = options.block_size;
    ALL_SIZES
        .filter_map(BlockSize::from_log2)
        .filter(move |size| asked.is_none_or(|asked| asked == *size))
}

fn kib_of(at: BlockNumber, size: BlockSize) -> Option<BlockNumber> {
    Some(BlockNumber(at.offset(size)?.0.wrapping_shr(10)))
}

fn raw(bytes: &[u8; SUPERBLOCK_BYTES]) -> Option<&RawSuperblock> {
    RawSuperblock::ref_from_bytes(bytes).ok()
}

/// Whether what begins with `head` at `kib` can be a copy: it has the magic
/// number, and says that it lies there.
fn may_be_copy(kib: u64, head: &[u8]) -> bool {
    let mut bytes = [0; SUPERBLOCK_BYTES];
    for (to, from) in bytes.iter_mut().zip(head) {
        *to = *from;
    }
    raw(&bytes).is_some_and(|raw| {
        raw.s_magic.get() == super::superblock::MAGIC
            && place_of_copy(kib, raw).is_some()
    })
}

/// The block and the group that begins there, if `raw`, which lies at `kib`,
/// says that it is the copy in this group.
fn place_of_copy(kib: u64, raw: &RawSuperblock) -> Option<(u64, u64)> {
    let per_block = raw.s_log_block_size.get();
    BlockSize::from_log2(per_block.checked_add(10)?)?;
    let block = kib.wrapping_shr(per_block);
    let into = block.checked_sub(raw.s_first_data_block.get().into())?;
    let per_group = u64::from(raw.s_blocks_per_group.get());
    let group = into.checked_div(per_group)?;
    // Revision 0 has no number of the group.
    let [low, high, ..] = group.to_le_bytes();
    let says = raw.s_block_group_nr.get();
    let is_here =
        raw.s_rev_level.get() == 0 || says == u16::from_le_bytes([low, high]);
    let is_copy = block.wrapping_shl(per_block) == kib
        && into.is_multiple_of(per_group)
        && group > 0
        && is_here;
    is_copy.then_some((block, group))
}

/// A copy that lies at `kib` and says so, and when it was written.
fn copy_at(
    kib: u64,
    bytes: &[u8; SUPERBLOCK_BYTES],
    options: &WalkOptions,
) -> Option<(Superblock, u64)> {
    let raw = raw(bytes)?;
    let (block, group) = place_of_copy(kib, raw)?;
    let at = Some(BlockNumber(block));
    let superblock =
        Superblock::examine(bytes, at, options.device_length).ok()?;
    let geometry = &superblock.geometry;
    let is_asked =
        options.block_size.is_none_or(|asked| asked == geometry.block_size);
    let is_copy = group < u64::from(geometry.groups)
        && groups::has_superblock(&superblock, group)
        && is_asked;
    let high = u64::from(raw.s_wtime_hi).wrapping_shl(32);
    let written = u64::from(raw.s_wtime.get()) | high;
    is_copy.then_some((superblock, written))
}

fn check(
    bytes: Option<&[u8; SUPERBLOCK_BYTES]>,
    at: Option<BlockNumber>,
    size: Option<BlockSize>,
    options: &WalkOptions,
) -> Result<Superblock, Refusal> {
    let place = match at {
        Some(block) => format!("block {block}"),
        None => format!("byte {SUPERBLOCK_OFFSET}"),
    };
    let refuse = |fault, what: String| Refusal {
        fault,
        error: Error::new(ErrorKind::NoFilesystem, what),
    };
    let Some(bytes) = bytes else {
        let what = format!("the superblock at {place} cannot be read");
        return Err(refuse(Fault::Unreadable, what));
    };
    let superblock = Superblock::examine(bytes, at, options.device_length)?;
    let is = superblock.geometry.block_size;
    match size {
        Some(size) if size != is => {
            let what = format!(
                "the superblock at {place} says that blocks have {is} bytes, \
                 not {size}"
            );
            let mut refusal = refuse(Fault::BadField("s_log_block_size"), what);
            refusal.error =
                refusal.error.hint(format!("give -B {is}, or leave -B out"));
            Err(refusal)
        }
        _ => Ok(superblock),
    }
}

fn with_hint(
    failure: Error,
    found: Option<&Superblock>,
    stage: Stage,
) -> Error {
    let searched = match stage {
        Stage::Given | Stage::Likely => "the usual places either",
        Stage::Everywhere => "the usual places or in the first 129 MiB",
    };
    match found {
        Some(copy) => failure.hint(format!(
            "a copy of the superblock lies at block {}: try -b {} -B {}",
            copy.at, copy.at, copy.geometry.block_size
        )),
        None => failure.hint(format!(
            "no copy of a superblock lies at {searched}; is this the right \
             device or partition?"
        )),
    }
}
