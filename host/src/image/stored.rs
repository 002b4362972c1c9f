//! What an image holds, as opposed to what merely reads as zeros.

use crate::block_set::BlockSet;
use crate::units::{BlockRun, BlockSize, ByteCount, ByteOffset, ByteRange};

/// The stretches of a device that an image holds: ascending, disjoint, not
/// touching.
///
/// How exact that is depends on the format, see [`super::OpenImage::unit`]:
/// a hole of a raw file may be a zero block that was selected, and a cluster
/// that is larger than a block may hold blocks that were not.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct StoredSet {
    ranges: Vec<ByteRange>,
}

impl StoredSet {
    /// Adds a stretch behind all others; one that does not lie behind them is
    /// joined with the last as far as it does.
    pub(super) fn push(&mut self, range: ByteRange) {
        if let Some(last) = self.ranges.last_mut()
            && range.start() <= last.end()
        {
            let end = range.end().max(last.end());
            if let Some(joined) = ByteRange::between(last.start(), end) {
                *last = joined;
            }
        } else if !range.is_empty() {
            self.ranges.push(range);
        }
    }

    /// Adds a stretch, if there is one.
    pub(super) fn extend(&mut self, range: Option<ByteRange>) {
        if let Some(range) = range {
            self.push(range);
        }
    }

    /// The stretches.
    #[must_use]
    pub fn ranges(&self) -> &[ByteRange] {
        &self.ranges
    }

    /// How many bytes they are in all.
    #[must_use]
    pub fn bytes(&self) -> ByteCount {
        ByteCount(
            self.ranges
                .iter()
                .fold(0, |sum, range| range.length().0.saturating_add(sum)),
        )
    }

    /// Whether all of `range` is held.
    #[must_use]
    pub fn contains(&self, range: ByteRange) -> bool {
        let behind =
            self.ranges.partition_point(|r| r.start() <= range.start());
        behind
            .checked_sub(1)
            .and_then(|index| self.ranges.get(index))
            .is_some_and(|held| held.end() >= range.end())
    }

    /// The blocks of which any byte is held.
    #[must_use]
    pub fn touched(&self, size: BlockSize) -> BlockSet {
        self.blocks(|range| {
            let first = size.block_of(range.start());
            (first, size.blocks_for(ByteCount(range.end().0)).0)
        })
    }

    /// The blocks that are held whole.
    #[must_use]
    pub fn whole(&self, size: BlockSize) -> BlockSet {
        self.blocks(|range| {
            let first = size.blocks_for(ByteCount(range.start().0));
            let end = size.block_of(ByteOffset(range.end().0));
            (crate::units::BlockNumber(first.0), end.0)
        })
    }

    fn blocks(
        &self,
        edges: impl Fn(&ByteRange) -> (crate::units::BlockNumber, u64),
    ) -> BlockSet {
        self.ranges
            .iter()
            .filter_map(|range| {
                let (first, end) = edges(range);
                let count = end.checked_sub(first.0)?;
                BlockRun::new(first, crate::units::BlockCount(count))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::range;

    #[test]
    fn a_block_is_whole_touched_or_neither() {
        let mut set = StoredSet::default();
        for part in [range(1024, 1024), range(8192, 4096), range(12288, 100)] {
            set.push(part);
        }
        let size = BlockSize::from_bytes(4096).unwrap();
        let blocks = |set: BlockSet| {
            set.runs().map(|r| (r.first().0, r.count().0)).collect::<Vec<_>>()
        };
        assert_eq!(blocks(set.touched(size)), [(0, 1), (2, 2)]);
        assert_eq!(blocks(set.whole(size)), [(2, 1)]);
        assert_eq!(set.bytes().0, 1024 + 4096 + 100);
        assert!(set.contains(range(8192, 4196)));
        assert!(!set.contains(range(8192, 4197)));
        assert!(!set.contains(range(0, 1)));
    }
}
