//! Blocks of a file's map that wait to be read: extent nodes and indirect
//! blocks.
//!
//! They wait by their height above the data, and a level reads all of one
//! height, the highest first: so everything that leads to a block is known
//! before the block is read, and each is looked into once for each role.

use super::extents::{self, Header};
use super::inode::I_BLOCK_BYTES;
use crate::block_set::BlockSet;
use crate::ext::BlockKind;
use crate::units::{BlockNumber, usize_from};

/// The inode whose map lists the blocks kept for the descriptor table.
pub(super) const RESIZE_INODE: u32 = 7;

/// The kernel makes trees of depth 5 at most, e2image follows any. Deeper
/// ones than this are left out.
pub(super) const HEIGHT_MAX: u16 = 32;

/// Heights of nodes below the root; those of height 0 name data.
const HEIGHTS: usize = 32;

const _: () = assert!(usize_from(32) == HEIGHTS && HEIGHT_MAX == 32);

/// Whom a map belongs to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Owner {
    pub(super) inode: u32,
    /// What the checksums of its extent nodes begin with.
    pub(super) seed: u32,
    /// What its data blocks are; `None` when only the map is wanted.
    pub(super) data: Option<BlockKind>,
}

/// What a map block looks like inside.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Shape {
    Extents,
    Indirect,
}

impl Shape {
    /// Whether `root`, the `i_block` of a file that is not empty, can be a
    /// map of this shape.
    pub(super) fn fits(self, root: &[u8; I_BLOCK_BYTES]) -> bool {
        match self {
            Self::Extents => {
                Header::check(root).is_ok_and(|header| header.entries > 0)
            }
            Self::Indirect => {
                !extents::has_magic(root) && root.iter().any(|byte| *byte != 0)
            }
        }
    }
}

/// A map block to be read.
#[derive(Clone, Copy, Debug)]
pub(super) struct MapJob {
    pub(super) block: u64,
    pub(super) owner: Owner,
    pub(super) shape: Shape,
    /// The file's blocks that an extent node may speak of: from, and up to.
    pub(super) window: (u64, u64),
}

impl MapJob {
    /// Jobs equal in this are one.
    fn role(&self) -> (u64, Shape, bool) {
        (self.block, self.shape, self.owner.data.is_some())
    }
}

/// The map blocks that wait.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    by_height: [Vec<MapJob>; HEIGHTS],
    /// How many of each height there were when repeats were last dropped.
    distinct: [usize; HEIGHTS],
    /// Inodes that came second to a block that was waiting already.
    pub(super) repeats: Vec<u32>,
}

impl Waiting {
    /// Adds a job at `height`; false when there are no trees so high.
    pub(super) fn add(&mut self, height: u16, job: MapJob) -> bool {
        let height = usize::from(height);
        let (Some(jobs), Some(distinct)) =
            (self.by_height.get_mut(height), self.distinct.get_mut(height))
        else {
            return false;
        };
        jobs.push(job);
        // Damaged maps may name few blocks very often: they must not size
        // memory.
        if jobs.len() > distinct.saturating_mul(2).max(1 << 20) {
            drop_repeats(jobs, &mut self.repeats);
            *distinct = jobs.len();
        }
        true
    }

    /// Takes all jobs of the greatest height that has any, sorted by block.
    pub(super) fn take_highest(&mut self) -> Option<(u16, Vec<MapJob>)> {
        let height =
            self.by_height.iter().rposition(|jobs| !jobs.is_empty())?;
        let mut jobs = std::mem::take(self.by_height.get_mut(height)?);
        drop_repeats(&mut jobs, &mut self.repeats);
        Some((u16::try_from(height).ok()?, jobs))
    }
}

/// How many repeats are remembered; all are dropped.
const REPEATS_MAX: usize = 1 << 16;

fn drop_repeats(jobs: &mut Vec<MapJob>, repeats: &mut Vec<u32>) {
    jobs.sort_unstable_by_key(|job| (job.role(), job.owner.inode));
    jobs.dedup_by(|later, first| {
        let same = later.role() == first.role();
        if same && repeats.len() < REPEATS_MAX {
            repeats.push(later.owner.inode);
        }
        same
    });
}

/// The blocks of `jobs`.
pub(super) fn blocks_of(jobs: &[MapJob]) -> BlockSet {
    let mut set = BlockSet::new();
    for job in jobs {
        set.insert(BlockNumber(job.block));
    }
    set
}

/// What a map block of this height above the data is for: the lowest ones of
/// the resize inode are what the descriptor table may grow into.
pub(super) fn map_kind(owner: Owner, shape: Shape, height: u16) -> BlockKind {
    if owner.inode == RESIZE_INODE && shape == Shape::Indirect && height == 0 {
        BlockKind::ReservedDescriptors
    } else {
        BlockKind::Map
    }
}
