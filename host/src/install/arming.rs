//! What a device is armed for: the bounds of one plan.

use crate::digest::Digest;
use crate::undo::{Entry, UndoFile};
use crate::units::{ByteCount, ByteRange};

/// No more ranges than this are named: the far end keeps them without a heap.
pub const ARMED_RANGES_MAX: usize = 1024;

/// What may be written: nothing outside of it is, whatever goes wrong.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Arming {
    /// The plan.
    pub plan: Digest,
    /// How many bytes it writes, those that are written twice counted twice.
    pub bytes: ByteCount,
    /// Where, in bytes of the device: ascending, disjoint, at most
    /// [`ARMED_RANGES_MAX`]. A plan with more stretches has the closest ones
    /// joined: what lies between is then held off by the digests of each
    /// write alone.
    pub ranges: Vec<ByteRange>,
}

impl Arming {
    /// For the plan in an undo file.
    #[must_use]
    pub fn of(undo: &UndoFile) -> Self {
        let entries: Vec<&Entry> = undo.entries().collect();
        let bytes = entries.iter().map(|e| e.range().length().0).sum();
        let mut ranges: Vec<ByteRange> =
            entries.iter().map(|entry| entry.range()).collect();
        ranges.sort_unstable();
        join(&mut ranges, 0);
        if ranges.len() > ARMED_RANGES_MAX {
            let mut gaps: Vec<u64> =
                ranges.windows(2).map(|pair| gap(pair[0], pair[1])).collect();
            gaps.sort_unstable();
            // So many of the narrowest gaps are closed that enough go.
            let close = gaps[ranges.len() - ARMED_RANGES_MAX - 1];
            join(&mut ranges, close);
        }
        Self { plan: undo.plan_digest(), bytes: ByteCount(bytes), ranges }
    }
}

fn gap(left: ByteRange, right: ByteRange) -> u64 {
    right.start().0.saturating_sub(left.end().0)
}

/// Joins sorted ranges with at most `close` bytes between them.
fn join(ranges: &mut Vec<ByteRange>, close: u64) {
    ranges.dedup_by(|next, last| {
        let joined = (gap(*last, *next) <= close)
            .then(|| {
                let end = last.end().max(next.end());
                ByteRange::between(last.start(), end)
            })
            .flatten();
        joined.inspect(|&joined| *last = joined).is_some()
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::ByteOffset;

    fn ranges(list: &[(u64, u64)]) -> Vec<ByteRange> {
        list.iter()
            .map(|&(at, length)| {
                ByteRange::new(ByteOffset(at), ByteCount(length)).unwrap()
            })
            .collect()
    }

    #[test]
    fn neighbours_are_joined_and_so_is_what_lies_closest() {
        let mut list = ranges(&[(0, 512), (512, 512), (2048, 512), (9216, 1)]);
        join(&mut list, 0);
        assert_eq!(list, ranges(&[(0, 1024), (2048, 512), (9216, 1)]));
        join(&mut list, 1024);
        assert_eq!(list, ranges(&[(0, 2560), (9216, 1)]));
        let mut twice = ranges(&[(1024, 1024), (1024, 1024)]);
        join(&mut twice, 0);
        assert_eq!(twice, ranges(&[(1024, 1024)]));
    }
}
