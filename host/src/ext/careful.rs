//! Damaged maps in e2image's own order.
//!
//! A sound map can be read in any order. Where a map is damaged, what
//! e2image selects depends on the order in which it walks: an index block
//! that it cannot use ends a subtree, an extent out of place is passed over.
//! Inodes with such maps are remembered here, the walk begins anew, and they
//! are walked one block after the other. Where e2image would give up there
//! is no order to keep, and the inode is walked like any other.

use std::collections::BTreeSet;

use zerocopy::FromBytes;
use zerocopy::little_endian::U32;

use super::assemble::BlockBytes;
use super::extents::{self, Header, InOrder};
use super::inode::I_BLOCK_BYTES;
use super::maps::{HEIGHT_MAX, Owner, Shape, map_kind};
use super::scan::{Place, Scan};
use crate::block_set::BlockSet;
use crate::ext::BlockKind;
use crate::units::{BlockCount, BlockNumber, BlockRun};

/// How many inodes get the slow walk.
const SUSPECTS_MAX: usize = 4096;
/// How many are under way at a time: each holds one path of its map.
const ACTIVE_MAX: usize = 64;
/// How many blocks all slow walks together read. Damaged maps can lead
/// through the same blocks again and again.
const READS_MAX: u64 = 1 << 20;

/// An inode with a map to follow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Suspect {
    pub(super) owner: Owner,
    pub(super) shape: Shape,
    /// `i_block`.
    pub(super) root: [u8; I_BLOCK_BYTES],
}

/// Remembers, over a restart, what needs e2image's own order.
#[derive(Clone, Debug, Default)]
pub(super) struct Careful {
    /// These are walked one block after the other in this pass.
    inodes: BTreeSet<u32>,
    /// These should have been.
    suspects: BTreeSet<u32>,
    /// Inode 1 lists bad blocks: e2image does not look for inodes in them.
    pub(super) has_bad_blocks: bool,
    /// They are left out in this pass.
    pub(super) skips_bad_blocks: bool,
    /// Where e2image gives up altogether there is no order to keep.
    pub(super) refused: bool,
    queue: Vec<Suspect>,
    reads: u64,
}

impl Careful {
    /// The map of `inode` is not as it should be.
    pub(super) fn suspect(&mut self, inode: u32) {
        if self.suspects.len() < SUSPECTS_MAX {
            self.suspects.insert(inode);
        }
    }

    /// Keeps `suspect` for the slow walk, if it belongs there.
    pub(super) fn takes(&mut self, suspect: &Suspect) -> bool {
        let takes = self.inodes.contains(&suspect.owner.inode);
        if takes {
            self.queue.push(*suspect);
        }
        takes
    }

    /// What the next pass needs to know, if there is to be one.
    pub(super) fn restart(&self) -> Option<Self> {
        let is_new = (self.has_bad_blocks && !self.skips_bad_blocks)
            || !self.suspects.is_subset(&self.inodes);
        (is_new && !self.refused).then(|| Self {
            inodes: self.inodes.union(&self.suspects).copied().collect(),
            skips_bad_blocks: self.has_bad_blocks || self.skips_bad_blocks,
            ..Self::default()
        })
    }

    /// Fills `active` with walks from the queue.
    pub(super) fn refill(&mut self, active: &mut Vec<SlowWalk>) {
        while active.len() < ACTIVE_MAX {
            let Some(suspect) = self.queue.pop() else { break };
            active.push(SlowWalk::new(suspect));
        }
    }

    /// Whether another block may be read.
    pub(super) fn may_read(&mut self) -> bool {
        self.reads = self.reads.saturating_add(1);
        self.reads <= READS_MAX
    }
}

/// What a slow walk comes by.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Passed {
    /// A map block, of this height above the data.
    Map { block: u64, height: u16 },
    /// Data blocks: the first and how many.
    Data { first: u64, count: u64 },
}

/// Walks one map, depth first, as e2image does.
#[derive(Debug)]
pub(super) struct SlowWalk {
    pub(super) suspect: Suspect,
    /// The block that is waited for.
    pub(super) wants: Option<u64>,
    /// e2image would give up here.
    pub(super) refused: bool,
    path: Vec<Node>,
    /// Slots of an indirect root that are still to come, the last one first,
    /// with the height of the block that they name.
    roots: Vec<(u16, u64)>,
    /// The height of the block that is waited for.
    height: u16,
    order: InOrder,
}

/// A node on the way from the root to where the walk is.
#[derive(Debug)]
struct Node {
    /// 0 for the root.
    block: u64,
    height: u16,
    entries: u16,
    next: u16,
    bytes: Vec<u8>,
}

impl SlowWalk {
    pub(super) fn new(suspect: Suspect) -> Self {
        let mut walk = Self {
            suspect,
            wants: None,
            refused: false,
            path: Vec::new(),
            roots: Vec::new(),
            height: 0,
            order: InOrder::default(),
        };
        let root = &suspect.root;
        match suspect.shape {
            Shape::Extents => {
                if let Ok(header) = Header::check(root) {
                    walk.refused = header.depth > HEIGHT_MAX;
                    walk.push(0, header.depth, header.entries, root);
                }
            }
            Shape::Indirect => {
                let slots = root.get(48..).unwrap_or_default();
                walk.roots = (0_u16..)
                    .zip(numbers(slots))
                    .filter(|(_, block)| *block != 0)
                    .collect();
                walk.roots.reverse();
                let direct = root.get(..48).unwrap_or_default();
                walk.push(0, 0, 12, direct);
            }
        }
        walk
    }

    fn push(&mut self, block: u64, height: u16, entries: u16, bytes: &[u8]) {
        let bytes = bytes.to_vec();
        self.path.push(Node { block, height, entries, next: 0, bytes });
    }

    /// Goes on until a block is wanted or the walk is over (then nothing is
    /// wanted). `holds` says whether a block lies in the filesystem.
    pub(super) fn run(
        &mut self,
        holds: impl Fn(u64) -> bool,
        passed: &mut Vec<Passed>,
    ) {
        while self.wants.is_none() {
            let Some((block, height)) = self.next_map_block(passed) else {
                break;
            };
            passed.push(Passed::Map { block, height });
            let is_ancestor = self.suspect.shape == Shape::Extents
                && self.path.iter().any(|node| node.block == block);
            if holds(block) && !is_ancestor {
                self.wants = Some(block);
                self.height = height;
                if let Some(node) = self.path.last_mut() {
                    node.next = node.next.saturating_add(1);
                }
            } else {
                self.fail();
            }
        }
    }

    /// The next map block on the way, after all data before it.
    fn next_map_block(
        &mut self,
        passed: &mut Vec<Passed>,
    ) -> Option<(u64, u16)> {
        loop {
            if self.refused && self.suspect.shape == Shape::Extents {
                return None;
            }
            let Some(node) = self.path.last_mut() else {
                let (height, block) = self.roots.pop()?;
                return Some((block, height));
            };
            if node.height == 0 {
                if let Some(node) = self.path.pop() {
                    self.pass_data(&node, passed);
                }
                continue;
            }
            if node.next >= node.entries {
                self.path.pop();
                continue;
            }
            let block = match self.suspect.shape {
                Shape::Extents => {
                    extents::index(&node.bytes, node.next).map(|(_, b)| b)
                }
                Shape::Indirect => numbers(&node.bytes)
                    .nth(usize::from(node.next))
                    .filter(|block| *block != 0),
            };
            match block {
                Some(block) => {
                    return Some((block, node.height.saturating_sub(1)));
                }
                None => node.next = node.next.saturating_add(1),
            }
        }
    }

    fn pass_data(&mut self, node: &Node, passed: &mut Vec<Passed>) {
        match self.suspect.shape {
            Shape::Extents => {
                for number in 0..node.entries {
                    let taken = extents::extent(&node.bytes, number)
                        .and_then(|extent| self.order.take(extent));
                    if let Some((first, count)) = taken {
                        passed.push(Passed::Data { first, count });
                    }
                }
                self.order.end_node();
            }
            Shape::Indirect => {
                for first in numbers(&node.bytes).filter(|first| *first != 0) {
                    passed.push(Passed::Data { first, count: 1 });
                }
            }
        }
    }

    /// An index block that cannot be used ends an extent tree, and of an
    /// indirect map all below the current root.
    fn fail(&mut self) {
        self.refused = true;
        self.path.clear();
    }

    /// Takes the block that was wanted.
    pub(super) fn feed(&mut self, node: BlockBytes<'_>) {
        let Some(block) = self.wants.take() else { return };
        if !node.is_whole() {
            self.fail();
            return;
        }
        match self.suspect.shape {
            Shape::Extents => match Header::check(node.bytes) {
                Ok(header) if header.entries > 0 => {
                    self.push(block, self.height, header.entries, node.bytes);
                }
                _ => self.fail(),
            },
            Shape::Indirect => {
                // An index block that can be read makes e2image forget
                // earlier trouble.
                self.refused = false;
                let entries =
                    u16::try_from(node.bytes.len().checked_div(4).unwrap_or(0))
                        .unwrap_or(u16::MAX);
                self.push(block, self.height, entries, node.bytes);
            }
        }
    }
}

/// The block numbers in an indirect block.
fn numbers(bytes: &[u8]) -> impl Iterator<Item = u64> + '_ {
    bytes.chunks_exact(4).map(|slot| {
        U32::read_from_bytes(slot).map_or(0, |slot| u64::from(slot.get()))
    })
}

impl Scan {
    /// Takes all slow walks to where they need blocks; answers which. None
    /// are left when that is empty.
    pub(super) fn advance_slow(
        &mut self,
        active: &mut Vec<SlowWalk>,
    ) -> BlockSet {
        loop {
            self.careful.refill(active);
            let mut wanted = BlockSet::new();
            for mut walk in std::mem::take(active) {
                self.run_slow(&mut walk);
                match walk.wants {
                    Some(block) if self.careful.may_read() => {
                        wanted.insert(BlockNumber(block));
                        active.push(walk);
                    }
                    None if !walk.refused => {}
                    _ => self.give_up(&walk.suspect),
                }
            }
            if !wanted.is_empty() || self.careful.queue.is_empty() {
                return wanted;
            }
        }
    }

    /// Where e2image would give up there is no order to keep.
    fn give_up(&mut self, suspect: &Suspect) {
        self.careful.refused = true;
        self.walk_root(suspect);
    }

    fn run_slow(&mut self, walk: &mut SlowWalk) {
        let owner = walk.suspect.owner;
        let shape = walk.suspect.shape;
        let place = Place::of(BlockKind::Map).in_inode(owner.inode);
        let (first, end) = self.marks.bounds();
        let mut passed = Vec::new();
        walk.run(|block| (first..end).contains(&block), &mut passed);
        for step in passed {
            match (step, owner.data) {
                (Passed::Map { block, height }, _) => {
                    let kind = map_kind(owner, shape, height);
                    self.mark_or_find(place, kind, block, 1);
                }
                (Passed::Data { first, count }, Some(kind)) => {
                    self.mark_or_find(place, kind, first, count);
                }
                (Passed::Data { .. }, None) => {}
            }
        }
    }

    /// Takes the walk of the bad blocks' inode on; answers what it needs.
    pub(super) fn advance_bad_blocks(
        &mut self,
        walk: &mut SlowWalk,
        bad: &mut BlockSet,
    ) -> BlockSet {
        let (first, end) = self.marks.bounds();
        let mut passed = Vec::new();
        walk.run(|block| (first..end).contains(&block), &mut passed);
        for step in passed {
            if let Passed::Data { first, count } = step {
                let run = BlockRun::new(BlockNumber(first), BlockCount(count));
                run.map(|run| bad.insert_run(run));
            }
        }
        let mut wanted = BlockSet::new();
        match walk.wants {
            Some(block) if self.careful.may_read() => {
                wanted.insert(BlockNumber(block));
            }
            None if !walk.refused => {}
            _ => {
                self.careful.refused = true;
                *bad = BlockSet::new();
            }
        }
        wanted
    }
}
