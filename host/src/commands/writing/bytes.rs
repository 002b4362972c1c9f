//! Reading stretches whole, many of them in one round trip.

use crate::batch::{Batch, Filled};
use crate::error::{Error, ErrorKind, Result};
use crate::source::BlockSource;
use crate::units::{ByteOffset, ByteRange};

/// The unit in which a device loses bytes, and in which a torn write shows.
pub(in crate::commands) const SECTOR: usize = 512;

/// The bytes of both sides of an entry: those that lie there and those that
/// shall.
pub(in crate::commands) type Both = (Vec<u8>, Vec<u8>);

/// What a device holds of a stretch.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(in crate::commands) struct Lain {
    /// The bytes; zeros where they cannot be read.
    pub(in crate::commands) bytes: Vec<u8>,
    /// What cannot be read.
    pub(in crate::commands) lost: Vec<ByteRange>,
}

impl Lain {
    /// The first sector that is not lost and that none of `sides` has: by
    /// its index. The bytes lay at `start`.
    pub(in crate::commands) fn strange_sector(
        &self,
        start: ByteOffset,
        sides: &[impl AsRef<[u8]>],
    ) -> Option<usize> {
        let is_strange = |(index, now): &(usize, &[u8])| {
            let at = start.0.saturating_add((index * SECTOR) as u64);
            let has =
                |side: &&[u8]| side.chunks(SECTOR).nth(*index) == Some(*now);
            !self.is_lost(ByteOffset(at))
                && !sides.iter().map(AsRef::as_ref).any(|side| has(&side))
        };
        let mut sectors = self.bytes.chunks(SECTOR).enumerate();
        sectors.find(is_strange).map(|(index, _)| index)
    }

    /// Whether any of the sector that starts at `at` is lost.
    pub(in crate::commands) fn is_lost(&self, at: ByteOffset) -> bool {
        let end = at.0.saturating_add(SECTOR as u64);
        self.lost.iter().any(|lost| lost.start().0 < end && at < lost.end())
    }
}

/// All bytes of `range`, which is short.
///
/// # Errors
///
/// [`ErrorKind::Refused`] when any of them cannot be read: what is not known
/// can be neither saved nor written.
pub(in crate::commands) fn read_bytes(
    source: &dyn BlockSource,
    range: ByteRange,
) -> Result<Vec<u8>> {
    let read = read_all(source, &[range])?;
    read.into_iter().next().ok_or_else(unanswered)
}

/// All bytes of each of `ranges`, together as much as a caller wants to hold
/// in memory. They are asked for at once: over a line that is one round trip.
///
/// # Errors
///
/// As [`read_bytes`].
pub(in crate::commands) fn read_all(
    source: &dyn BlockSource,
    ranges: &[ByteRange],
) -> Result<Vec<Vec<u8>>> {
    let whole = |filled: Filled<'_>| match filled.faults.first() {
        None => Ok(filled.bytes.to_vec()),
        Some((bad, fault)) => Err(Error::new(
            ErrorKind::Refused,
            format!(
                "{}: {} bytes at {} cannot be read ({fault})",
                source.facts().name,
                bad.length(),
                bad.start()
            ),
        )
        .intact("nothing was written")
        .hint(
            "leave out what lies there: --only, --groups; a bad sector of \
             the device cannot be saved, so it is not written either",
        )),
    };
    read_with(source, ranges, whole)
}

/// What lies at each of `ranges`, as far as it can be read.
///
/// # Errors
///
/// Only when the device as a whole is gone.
pub(in crate::commands) fn read_lenient(
    source: &dyn BlockSource,
    ranges: &[ByteRange],
) -> Result<Vec<Lain>> {
    read_with(source, ranges, |filled| {
        let lost = filled.faults.iter().map(|(range, _)| *range).collect();
        Ok(Lain { bytes: filled.bytes.to_vec(), lost })
    })
}

fn read_with<T: Clone>(
    source: &dyn BlockSource,
    ranges: &[ByteRange],
    each: impl Fn(Filled<'_>) -> Result<T>,
) -> Result<Vec<T>> {
    let mut sorted = ranges.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    let mut batch = Batch::default();
    source.read_batch(&sorted, &mut batch)?;
    let read = batch.filled().map(each).collect::<Result<Vec<T>>>()?;
    let of = |range: &ByteRange| {
        let place = sorted.binary_search(range).ok()?;
        read.get(place).cloned()
    };
    ranges.iter().map(|range| of(range).ok_or_else(unanswered)).collect()
}

fn unanswered() -> Error {
    Error::new(ErrorKind::Internal, "a read without an answer")
}

/// The bytes of the ranges that differ from what is wanted there: `None` for
/// each range that the source says is the same. The far end of a line looks
/// first, so that equal bytes never cross it.
pub(in crate::commands) fn same_or_read(
    source: &dyn BlockSource,
    wanted: &[(ByteRange, &[u8])],
) -> Result<Vec<Option<Vec<u8>>>> {
    let asked: Vec<_> = wanted
        .iter()
        .map(|(range, bytes)| (*range, *blake3::hash(bytes).as_bytes()))
        .collect();
    let mut differing = source.differing(&asked)?;
    differing.sort_unstable();
    let read = read_all(source, &differing)?;
    let of = |range: &ByteRange| {
        let place = differing.binary_search(range).ok()?;
        read.get(place).cloned()
    };
    Ok(wanted.iter().map(|(range, _)| of(range)).collect())
}

/// Stretches of a device that were read for a plan and are needed once more
/// for its undo file: over a slow line they shall not come twice.
#[derive(Debug, Default)]
pub(in crate::commands) struct Kept {
    /// By where they start.
    stretches: std::collections::BTreeMap<ByteOffset, Vec<u8>>,
    bytes: usize,
}

/// What is kept at most; the rest is read again.
const KEPT_BYTES_MAX: usize = 64 << 20;

impl Kept {
    /// Keeps what lay at `start`.
    pub(in crate::commands) fn keep(&mut self, start: ByteOffset, is: &[u8]) {
        let sum = self.bytes.saturating_add(is.len());
        if sum <= KEPT_BYTES_MAX {
            self.bytes = sum;
            self.stretches.insert(start, is.to_vec());
        }
    }

    /// What lay at `range`, if all of it was kept in one stretch.
    fn get(&self, range: ByteRange) -> Option<Vec<u8>> {
        let before = self.stretches.range(..=range.start());
        let (start, bytes) = before.last()?;
        let skip = usize::try_from(range.start().0 - start.0).ok()?;
        let length = usize::try_from(range.length().0).ok()?;
        let end = skip.checked_add(length)?;
        bytes.get(skip..end).map(<[u8]>::to_vec)
    }

    /// What lay at each of `ranges`: kept, or else read now, at once.
    ///
    /// # Errors
    ///
    /// As [`read_bytes`].
    pub(in crate::commands) fn all(
        &self,
        source: &dyn BlockSource,
        ranges: &[ByteRange],
    ) -> Result<Vec<Vec<u8>>> {
        let kept: Vec<Option<Vec<u8>>> =
            ranges.iter().map(|range| self.get(*range)).collect();
        let left: Vec<ByteRange> = ranges
            .iter()
            .zip(&kept)
            .filter(|(_, kept)| kept.is_none())
            .map(|(range, _)| *range)
            .collect();
        let mut read = read_all(source, &left)?.into_iter();
        kept.into_iter()
            .map(|kept| kept.or_else(|| read.next()).ok_or_else(unanswered))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::range;

    #[test]
    fn what_was_kept_is_found_by_its_place() {
        let mut kept = Kept::default();
        kept.keep(ByteOffset(1000), &[1, 2, 3, 4]);
        kept.keep(ByteOffset(2000), &[5]);
        assert_eq!(kept.get(range(1001, 2)), Some(vec![2, 3]));
        assert_eq!(kept.get(range(2000, 1)), Some(vec![5]));
        for (start, length) in [(999, 2), (1003, 2), (1500, 1), (2000, 2)] {
            assert_eq!(kept.get(range(start, length)), None, "{start}");
        }
        kept.keep(ByteOffset(9000), &vec![0; KEPT_BYTES_MAX]);
        assert_eq!(kept.get(range(9000, 1)), None, "more than is kept");
    }
}
