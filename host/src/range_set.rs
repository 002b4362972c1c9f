//! A set of bytes of a device, kept as disjoint ranges.
//!
//! For what has no block size: sectors that are wanted, under way or held. A
//! set costs memory for every gap in it, so it suits sets that come from
//! requests; blocks of a filesystem are [`crate::block_set`]'s.

use std::collections::BTreeMap;

use crate::units::{ByteOffset, ByteRange};

/// Disjoint ranges that do not touch, ascending.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct RangeSet {
    /// Start and end of each.
    ranges: BTreeMap<u64, u64>,
}

impl RangeSet {
    /// The empty set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds all of `range`.
    pub fn insert(&mut self, range: ByteRange) {
        if range.is_empty() {
            return;
        }
        let (mut start, mut end) = (range.start().0, range.end().0);
        // Everything that overlaps or touches becomes one range.
        while let Some((&before, &its_end)) =
            self.ranges.range(..=end).next_back()
        {
            if its_end < start {
                break;
            }
            self.ranges.remove(&before);
            start = start.min(before);
            end = end.max(its_end);
        }
        self.ranges.insert(start, end);
    }

    /// Adds all of each range.
    pub fn extend(&mut self, ranges: impl IntoIterator<Item = ByteRange>) {
        for range in ranges {
            self.insert(range);
        }
    }

    /// Takes all of `range` out.
    pub fn remove(&mut self, range: ByteRange) {
        if range.is_empty() {
            return;
        }
        let (start, end) = (range.start().0, range.end().0);
        while let Some((&first, &behind)) = self.ranges.range(..end).next_back()
        {
            if behind <= start {
                break;
            }
            self.ranges.remove(&first);
            if end < behind {
                self.ranges.insert(end, behind);
            }
            if first < start {
                self.ranges.insert(first, start);
                break;
            }
        }
    }

    /// The parts of `range` that are not in the set, ascending.
    #[must_use]
    pub fn missing(&self, range: ByteRange) -> Vec<ByteRange> {
        let mut at = range.start();
        let mut missing = Vec::new();
        for held in self.within(range) {
            missing.extend(between(at, held.start()));
            at = held.end();
        }
        missing.extend(between(at, range.end()));
        missing
    }

    /// The parts of `range` that are in the set, ascending.
    pub fn within(
        &self,
        range: ByteRange,
    ) -> impl Iterator<Item = ByteRange> + '_ {
        let (start, end) = (range.start().0, range.end().0);
        let first = self
            .ranges
            .range(..=start)
            .next_back()
            .map_or(start, |(&first, _)| first);
        self.ranges.range(first..end.max(first)).filter_map(
            move |(&first, &behind)| {
                between(
                    ByteOffset(first.max(start)),
                    ByteOffset(behind.min(end)),
                )
            },
        )
    }

    /// Whether all of `range` is in the set.
    #[must_use]
    pub fn contains(&self, range: ByteRange) -> bool {
        range.is_empty() || self.within(range).next() == Some(range)
    }

    /// The lowest range at or behind `at`, cut off before it.
    #[must_use]
    pub fn first_from(&self, at: ByteOffset) -> Option<ByteRange> {
        let rest = ByteRange::between(at, ByteOffset(u64::MAX))?;
        self.within(rest).next()
    }

    /// All ranges, ascending.
    pub fn iter(&self) -> impl Iterator<Item = ByteRange> + '_ {
        self.ranges.iter().filter_map(|(&start, &end)| {
            ByteRange::between(ByteOffset(start), ByteOffset(end))
        })
    }

    /// How many bytes are in the set.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.iter()
            .fold(0, |sum: u64, range| sum.saturating_add(range.length().0))
    }

    /// Whether nothing is in the set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Takes everything out.
    pub fn clear(&mut self) {
        self.ranges.clear();
    }
}

impl FromIterator<ByteRange> for RangeSet {
    fn from_iter<I: IntoIterator<Item = ByteRange>>(ranges: I) -> Self {
        let mut set = Self::new();
        set.extend(ranges);
        set
    }
}

fn between(start: ByteOffset, end: ByteOffset) -> Option<ByteRange> {
    ByteRange::between(start, end).filter(|range| !range.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::ByteCount;

    fn range(start: u64, end: u64) -> ByteRange {
        ByteRange::new(ByteOffset(start), ByteCount(end - start)).unwrap()
    }

    /// Against a set of single bytes.
    #[test]
    fn it_is_the_set_of_its_bytes() {
        let mut set = RangeSet::new();
        let mut bytes = [false; 64];
        let mut random = 7_u64;
        for step in 0..4000 {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let start = (random >> 33) % 64;
            let end = start + (random >> 43) % (65 - start);
            let add = step % 3 != 0;
            if add {
                set.insert(range(start, end));
            } else {
                set.remove(range(start, end));
            }
            bytes[start as usize..end as usize].fill(add);
            let mut seen = [false; 64];
            let mut last = None;
            for part in set.iter() {
                assert!(last < Some(part.start()), "they touch");
                last = Some(part.end());
                seen[part.start().0 as usize..part.end().0 as usize].fill(true);
            }
            assert_eq!(seen, bytes);
            let window = range(start, 64);
            let missing: u64 =
                set.missing(window).iter().map(|r| r.length().0).sum();
            let expected = bytes[start as usize..].iter().filter(|b| !**b);
            assert_eq!(missing, expected.count() as u64);
            assert_eq!(set.contains(window), missing == 0);
        }
    }
}
