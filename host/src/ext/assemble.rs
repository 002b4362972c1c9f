//! Joins pieces of a level into the whole blocks that the walk looks into.
//!
//! Nearly all pieces hold whole blocks, which are looked at where they lie.
//! Only next to unreadable sectors a block may come in parts: these are kept
//! until the block is complete.

use std::collections::HashMap;

use crate::block_set::BlockSet;
use crate::source::{PIECE_UNIT, Payload, Piece};
use crate::units::{
    BlockCount, BlockNumber, BlockRun, BlockSize, ByteOffset, ByteRange,
    u64_from,
};

/// Blocks of which only a part has arrived. Sources hand out neighbours soon
/// one after the other; a source that does not loses the block, not memory.
const PARTIAL_MAX: usize = 256;

/// The bytes of one block, zeros where they could not be read.
#[derive(Clone, Copy, Debug)]
pub(super) struct BlockBytes<'a> {
    pub(super) bytes: &'a [u8],
    /// Which units of [`PIECE_UNIT`] bytes could not be read, as bits.
    bad: u128,
}

impl<'a> BlockBytes<'a> {
    pub(super) const fn whole(bytes: &'a [u8]) -> Self {
        Self { bytes, bad: 0 }
    }

    /// Whether every byte was read.
    pub(super) const fn is_whole(&self) -> bool {
        self.bad == 0
    }

    /// Whether bytes `from..to` were read.
    pub(super) fn has(&self, from: usize, to: usize) -> bool {
        self.bad & units(u64_from(from), u64_from(to)) == 0
    }

    /// Whether nothing at all was read.
    pub(super) fn is_lost(&self) -> bool {
        let all = units(0, u64_from(self.bytes.len()));
        self.bad & all == all
    }
}

/// The units that bytes `from..to` of a block touch, as bits.
fn units(from: u64, to: u64) -> u128 {
    let below = |unit: u64| match u32::try_from(unit) {
        Ok(unit) if unit < u128::BITS => {
            1_u128.wrapping_shl(unit).wrapping_sub(1)
        }
        _ => u128::MAX,
    };
    let first = from.checked_div(PIECE_UNIT).unwrap_or(0);
    below(to.div_ceil(PIECE_UNIT)) & !below(first)
}

/// What a level waits for.
#[derive(Debug)]
pub(super) struct Assembler {
    block_size: BlockSize,
    /// What to look into: sorted, disjoint, maximal.
    wanted: Vec<BlockRun>,
    /// What was looked into.
    seen: BlockSet,
    partial: HashMap<u64, Partial>,
    zeros: Vec<u8>,
}

#[derive(Debug)]
struct Partial {
    bytes: Vec<u8>,
    missing: u128,
    bad: u128,
}

impl Assembler {
    pub(super) fn new(block_size: BlockSize) -> Self {
        Self {
            block_size,
            wanted: Vec::new(),
            seen: BlockSet::new(),
            partial: HashMap::new(),
            zeros: vec![0; block_size.bytes()],
        }
    }

    /// Begins a level that wants these blocks.
    pub(super) fn begin(&mut self, wanted: &BlockSet) {
        self.wanted = wanted.runs().collect();
        self.seen = BlockSet::new();
        self.partial.clear();
    }

    /// Ends the level: `each` gets what arrived in part, and every wanted
    /// block that never came as lost, but nothing of `postponed`.
    pub(super) fn end(
        &mut self,
        postponed: &BlockSet,
        mut each: impl FnMut(BlockNumber, BlockBytes<'_>),
    ) {
        let partial = self.partial.drain();
        let mut partial: Vec<_> = partial
            .filter(|(block, _)| !postponed.contains(BlockNumber(*block)))
            .collect();
        partial.sort_unstable_by_key(|(block, _)| *block);
        for (block, part) in partial {
            self.seen.insert(BlockNumber(block));
            let bad = part.bad | part.missing;
            each(BlockNumber(block), BlockBytes { bytes: &part.bytes, bad });
        }
        let mut lost: BlockSet = self.wanted.drain(..).collect();
        lost.subtract(&self.seen);
        lost.subtract(postponed);
        for run in lost.runs() {
            for block in run.first().0..run.end().0 {
                each(
                    BlockNumber(block),
                    BlockBytes { bytes: &self.zeros, bad: u128::MAX },
                );
            }
        }
        self.seen = BlockSet::new();
    }

    /// Takes a piece; `each` gets every wanted block that is complete now.
    pub(super) fn supply(
        &mut self,
        piece: Piece<'_>,
        mut each: impl FnMut(BlockNumber, BlockBytes<'_>),
    ) {
        let Some(range) = ByteRange::new(piece.at, piece.what.length()) else {
            return;
        };
        if range.is_empty() {
            return;
        }
        let first = self.block_size.block_of(range.start()).0;
        let end = range.end().0.div_ceil(self.block_size.bytes_u64());
        let from = self.wanted.partition_point(|run| run.end().0 <= first);
        for index in from..self.wanted.len() {
            let Some(run) = self.wanted.get(index).copied() else { break };
            if run.first().0 >= end {
                break;
            }
            let blocks = run.first().0.max(first)..run.end().0.min(end);
            for block in blocks {
                self.take(block, range, &piece.what, &mut each);
            }
        }
    }

    fn take(
        &mut self,
        block: u64,
        range: ByteRange,
        what: &Payload<'_>,
        each: &mut impl FnMut(BlockNumber, BlockBytes<'_>),
    ) {
        let number = BlockNumber(block);
        let Some(whole) = BlockRun::new(number, BlockCount(1))
            .and_then(|run| run.bytes(self.block_size))
        else {
            return;
        };
        if whole.start() < range.start() || range.end() < whole.end() {
            self.take_part(block, whole, range, what, each);
            return;
        }
        if !self.seen.insert(number) {
            return;
        }
        self.partial.remove(&block);
        match what {
            Payload::Bytes(bytes) => {
                let slice = slice_of(bytes, range.start(), whole);
                each(number, BlockBytes::whole(slice));
            }
            Payload::Zero(_) => each(number, BlockBytes::whole(&self.zeros)),
            Payload::Unreadable(..) => {
                each(number, BlockBytes { bytes: &self.zeros, bad: u128::MAX });
            }
        }
    }

    fn take_part(
        &mut self,
        block: u64,
        whole: ByteRange,
        range: ByteRange,
        what: &Payload<'_>,
        each: &mut impl FnMut(BlockNumber, BlockBytes<'_>),
    ) {
        let start = whole.start().max(range.start());
        let end = whole.end().min(range.end());
        let Some(overlap) = ByteRange::between(start, end) else { return };
        if self.seen.contains(BlockNumber(block))
            || (self.partial.len() >= PARTIAL_MAX
                && !self.partial.contains_key(&block))
        {
            return;
        }
        let size = self.block_size;
        let part = self.partial.entry(block).or_insert_with(|| Partial {
            bytes: vec![0; size.bytes()],
            missing: units(0, size.bytes_u64()),
            bad: 0,
        });
        let from = start.0.saturating_sub(whole.start().0);
        let to = end.0.saturating_sub(whole.start().0);
        let covered = units(from, to);
        part.missing &= !covered;
        match what {
            Payload::Bytes(bytes) => {
                let slice = slice_of(bytes, range.start(), overlap);
                let target = usize::try_from(from)
                    .ok()
                    .zip(usize::try_from(to).ok())
                    .and_then(|(from, to)| part.bytes.get_mut(from..to));
                if let Some(target) = target
                    && target.len() == slice.len()
                {
                    target.copy_from_slice(slice);
                }
            }
            Payload::Zero(_) => {}
            Payload::Unreadable(..) => part.bad |= covered,
        }
        if part.missing == 0
            && let Some(part) = self.partial.remove(&block)
        {
            self.seen.insert(BlockNumber(block));
            let bytes = BlockBytes { bytes: &part.bytes, bad: part.bad };
            each(BlockNumber(block), bytes);
        }
    }
}

/// The part of `bytes`, which begin at `at`, that `range` names.
fn slice_of(bytes: &[u8], at: ByteOffset, range: ByteRange) -> &[u8] {
    let index =
        |offset: ByteOffset| usize::try_from(offset.checked_since(at)?.0).ok();
    index(range.start())
        .zip(index(range.end()))
        .and_then(|(from, to)| bytes.get(from..to))
        .unwrap_or_default()
}
