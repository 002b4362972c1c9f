//! Directories whose inode no longer says that they are.
//!
//! An inode of a type that does not exist, or a device or a pipe that has
//! blocks, may be a directory whose `i_mode` was damaged. Its first block
//! tells: where it begins as directories do, the whole is followed as one.
//! A checker looks at that block too, so it belongs to a complete image
//! whatever it holds. e2image knows nothing of this.

use super::assemble::BlockBytes;
use super::careful::Suspect;
use super::directory::Entries;
use super::extents::{self, DEPTH_MAX, Header};
use super::finding::{Effect, Fault};
use super::inode::{
    I_BLOCK_BYTES, INLINE_DATA_FL, ROOT_INODE, RawInode, S_IFBLK, S_IFCHR,
    S_IFDIR, S_IFIFO, S_IFLNK, S_IFREG, S_IFSOCK,
};
use super::maps::{Owner, Shape};
use super::scan::{Place, Scan, shape_of};
use crate::block_set::BlockSet;
use crate::ext::BlockKind;
use crate::units::BlockNumber;

/// How many are followed. A table full of noise has more, and no directories.
const DISGUISED_MAX: usize = 1 << 14;

/// An inode whose first block is to be looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Disguised {
    suspect: Suspect,
    /// Whether a finding says already that the type cannot be.
    is_told: bool,
    /// What is to be read next,
    block: u64,
    /// and how far above the data that lies.
    height: u16,
}

impl Disguised {
    /// The block that it waits for.
    pub(super) const fn block(&self) -> u64 {
        self.block
    }
}

/// The blocks that `jobs` wait for.
pub(super) fn blocks_of(jobs: &[Disguised]) -> BlockSet {
    let mut wanted = BlockSet::new();
    for job in jobs {
        wanted.insert(BlockNumber(job.block));
    }
    wanted
}

impl Scan {
    /// Remembers an inode whose type says that nothing is to be followed.
    pub(super) fn suspect_disguise(
        &mut self,
        number: u32,
        seed: u32,
        raw: &RawInode,
    ) {
        if !self.is_complete() || raw.has_flag(INLINE_DATA_FL) {
            return;
        }
        let place = Place::of(BlockKind::InodeTable).in_inode(number);
        let mut is_told = false;
        match raw.file_type() {
            S_IFREG | S_IFDIR | S_IFLNK => return,
            S_IFCHR | S_IFBLK | S_IFIFO | S_IFSOCK => {
                // The slots of a device hold its number, and attributes may
                // lie in a block of their own.
                let geometry = &self.superblock.geometry;
                let unit = u64::from(geometry.cluster_blocks)
                    .saturating_mul(geometry.block_size.bytes_u64())
                    .wrapping_shr(9);
                let attributes = if raw.xattr_block(&self.superblock) == 0 {
                    0
                } else {
                    unit
                };
                if u64::from(raw.i_blocks_lo.get()) <= attributes {
                    return;
                }
            }
            _ => {
                self.find(place, Fault::BadField("i_mode"), Effect::None);
                is_told = true;
            }
        }
        let data = Some(BlockKind::Directory);
        let owner = Owner { inode: number, seed, data };
        let shape = shape_of(raw);
        let suspect = Suspect { owner, shape, root: raw.i_block };
        if let Some((block, height)) = first_block(shape, &raw.i_block)
            && self.marks.holds(block)
            && self.disguised.len() < DISGUISED_MAX
        {
            self.disguised.push(Disguised { suspect, is_told, block, height });
        }
    }

    /// What waits to be looked at.
    pub(super) fn take_disguised(&mut self) -> Vec<Disguised> {
        let mut jobs = std::mem::take(&mut self.disguised);
        jobs.sort_unstable_by_key(|job| job.block);
        jobs
    }

    /// Looks at what was read for one of them.
    pub(super) fn visit_disguised(
        &mut self,
        job: &Disguised,
        block: BlockBytes<'_>,
    ) {
        let owner = job.suspect.owner;
        let below = job.height.checked_sub(1).and_then(|height| {
            let header = Header::check(block.bytes).ok()?;
            let (_, next) = extents::index(block.bytes, 0)?;
            let is_next = header.entries > 0 && self.marks.holds(next);
            is_next.then_some((next, height))
        });
        if let Some((block, height)) = below {
            self.disguised.push(Disguised { block, height, ..*job });
        } else if begins_directory(block.bytes) {
            if !job.is_told {
                let place = Place::of(BlockKind::InodeTable);
                let place = place.in_inode(owner.inode);
                self.find(place, Fault::BadField("i_mode"), Effect::None);
            }
            self.seen.root |= owner.inode == ROOT_INODE;
            self.walk_root(&job.suspect);
        } else {
            self.marks.set_owner(Some(owner.inode));
            self.marks.mark(BlockKind::Data, job.block, 1);
        }
    }
}

/// The block that a map names first, and its height above the data.
fn first_block(shape: Shape, root: &[u8; I_BLOCK_BYTES]) -> Option<(u64, u16)> {
    match shape {
        Shape::Extents => {
            let header = Header::check(root).ok().filter(|h| h.entries > 0)?;
            if header.depth == 0 {
                let extent = extents::extent(root, 0)?;
                return Some((extent.physical, 0));
            }
            let (_, block) = extents::index(root, 0)?;
            Some((block, header.depth.min(DEPTH_MAX)))
        }
        Shape::Indirect => {
            let (slot, _) = root.split_first_chunk()?;
            Some((u64::from(u32::from_le_bytes(*slot)), 0))
        }
    }
}

/// Whether a block begins with `.` and `..`.
fn begins_directory(bytes: &[u8]) -> bool {
    let mut entries = Entries::new(bytes);
    [b".".as_slice(), b".."]
        .into_iter()
        .all(|name| entries.next().is_some_and(|entry| entry.name == name))
}
