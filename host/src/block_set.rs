//! A set of block numbers, small for what disks really hold: long runs and
//! scattered singles.
//!
//! Memory is bounded by the span of the numbers in it (an eighth of a byte a
//! block at worst), never by how often or in which order they were added.

#![cfg_attr(
    not(test),
    warn(clippy::arithmetic_side_effects, clippy::as_conversions)
)]

use std::ops::RangeInclusive;

use roaring::RoaringTreemap;

use crate::units::{BlockCount, BlockNumber, BlockRun};

/// A set of blocks, iterated in ascending order as maximal runs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BlockSet {
    blocks: RoaringTreemap,
}

impl BlockSet {
    /// The empty set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one block; true when it was not in the set before.
    pub fn insert(&mut self, block: BlockNumber) -> bool {
        self.blocks.insert(block.0)
    }

    /// Adds every block of `run`; answers how many were new.
    pub fn insert_run(&mut self, run: BlockRun) -> BlockCount {
        BlockCount(match inclusive(run) {
            Some(range) => self.blocks.insert_range(range),
            None => 0,
        })
    }

    /// Takes every block of `run` out of the set.
    pub fn remove_run(&mut self, run: BlockRun) {
        if let Some(range) = inclusive(run) {
            self.blocks.remove_range(range);
        }
    }

    /// Whether `block` is in the set.
    #[must_use]
    pub fn contains(&self, block: BlockNumber) -> bool {
        self.blocks.contains(block.0)
    }

    /// Whether every block of `run` is in the set.
    #[must_use]
    pub fn contains_run(&self, run: BlockRun) -> bool {
        inclusive(run).is_none_or(|range| self.blocks.contains_range(range))
    }

    /// How many blocks of `run` are in the set.
    #[must_use]
    pub fn count_in(&self, run: BlockRun) -> BlockCount {
        BlockCount(
            inclusive(run)
                .map_or(0, |range| self.blocks.range_cardinality(range)),
        )
    }

    /// How many blocks are in the set.
    #[must_use]
    pub fn count(&self) -> BlockCount {
        BlockCount(self.blocks.len())
    }

    /// Whether the set has no block.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// The highest block of the set.
    #[must_use]
    pub fn last(&self) -> Option<BlockNumber> {
        self.blocks.max().map(BlockNumber)
    }

    /// Adds every block of `other`.
    pub fn union_with(&mut self, other: &Self) {
        self.blocks |= &other.blocks;
    }

    /// Takes every block of `other` out of the set.
    #[expect(
        clippy::arithmetic_side_effects,
        reason = "the difference of two sets, no number can overflow"
    )]
    pub fn subtract(&mut self, other: &Self) {
        self.blocks -= &other.blocks;
    }

    /// Keeps only what is in `other` as well.
    pub fn intersect_with(&mut self, other: &Self) {
        self.blocks &= &other.blocks;
    }

    /// The set as maximal runs, ascending.
    pub fn runs(&self) -> impl Iterator<Item = BlockRun> + '_ {
        Runs { pieces: pieces(&self.blocks), open: None }
    }

    /// The part of the set that lies in `window`, as maximal runs of that
    /// part, ascending.
    pub fn runs_in(
        &self,
        window: BlockRun,
    ) -> impl Iterator<Item = BlockRun> + use<> {
        let mut part = RoaringTreemap::new();
        if let Some(range) = inclusive(window) {
            part.insert_range(range);
            part &= &self.blocks;
        }
        let runs: Vec<BlockRun> =
            Runs { pieces: pieces(&part), open: None }.collect();
        runs.into_iter()
    }
}

impl FromIterator<BlockRun> for BlockSet {
    fn from_iter<I: IntoIterator<Item = BlockRun>>(runs: I) -> Self {
        let mut set = Self::new();
        for run in runs {
            set.insert_run(run);
        }
        set
    }
}

fn inclusive(run: BlockRun) -> Option<RangeInclusive<u64>> {
    let last = run.end().0.checked_sub(1)?;
    (run.count().0 > 0).then_some(run.first().0..=last)
}

/// The runs of each 32-bit part of the set; a run that crosses from one part
/// into the next comes as two.
fn pieces(
    blocks: &RoaringTreemap,
) -> impl Iterator<Item = RangeInclusive<u64>> + '_ {
    blocks.bitmaps().flat_map(|(high, bitmap)| {
        let base = u64::from(high).wrapping_shl(32);
        let mut blocks = bitmap.iter();
        std::iter::from_fn(move || blocks.next_range()).map(move |range| {
            base | u64::from(*range.start())..=base | u64::from(*range.end())
        })
    })
}

struct Runs<I> {
    pieces: I,
    open: Option<RangeInclusive<u64>>,
}

impl<I: Iterator<Item = RangeInclusive<u64>>> Iterator for Runs<I> {
    type Item = BlockRun;

    fn next(&mut self) -> Option<BlockRun> {
        let mut run = self.open.take().or_else(|| self.pieces.next())?;
        for next in self.pieces.by_ref() {
            if run.end().checked_add(1) == Some(*next.start()) {
                run = *run.start()..=*next.end();
            } else {
                self.open = Some(next);
                break;
            }
        }
        let count = run.end().checked_sub(*run.start())?.checked_add(1)?;
        BlockRun::new(BlockNumber(*run.start()), BlockCount(count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(first: u64, count: u64) -> BlockRun {
        BlockRun::new(BlockNumber(first), BlockCount(count)).unwrap()
    }

    #[test]
    fn runs_are_maximal_also_across_the_32_bit_parts() {
        let edge = 1 << 32;
        let set: BlockSet =
            [run(edge, 5), run(edge - 5, 5), run(3, 1), run(4, 2)]
                .into_iter()
                .collect();
        assert_eq!(
            set.runs().collect::<Vec<_>>(),
            [run(3, 3), run(edge - 5, 10)]
        );
        assert_eq!(set.count(), BlockCount(13));
    }

    #[test]
    fn a_window_cuts_the_runs_at_its_edges() {
        let set: BlockSet = [run(0, 10), run(20, 10)].into_iter().collect();
        assert_eq!(
            set.runs_in(run(5, 20)).collect::<Vec<_>>(),
            [run(5, 5), run(20, 5)]
        );
        assert_eq!(set.runs_in(run(10, 10)).count(), 0);
        assert_eq!(set.count_in(run(5, 20)), BlockCount(10));
    }

    #[test]
    fn an_empty_run_changes_nothing() {
        let mut set = BlockSet::new();
        assert_eq!(set.insert_run(run(7, 0)), BlockCount(0));
        assert!(set.is_empty() && set.contains_run(run(0, 0)));
        set.insert_run(run(7, 3));
        set.remove_run(run(8, 1));
        assert_eq!(set.runs().collect::<Vec<_>>(), [run(7, 1), run(9, 1)]);
    }
}
