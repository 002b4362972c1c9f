//! Digests of what an image stores: the same whatever the format of the image
//! and the order in which its blocks were written.
//!
//! The stored blocks are cut into ranges: maximal runs that do not cross a
//! multiple of 1 MiB of the filesystem's addresses. Each range has a BLAKE3
//! digest, which proves it, and a CRC-32C for every block, which tells which
//! block of a range went bad. The content digest is BLAKE3 over all ranges:
//! first block, count (both u64, little-endian), digest.

#![cfg_attr(
    not(test),
    warn(clippy::arithmetic_side_effects, clippy::as_conversions)
)]

use crate::block_set::BlockSet;
use crate::units::{BlockCount, BlockNumber, BlockRun, BlockSize};

/// No range crosses a multiple of this address.
pub const RANGE_BYTES_MAX: u64 = 1 << 20;

/// A BLAKE3-256 digest.
pub type Digest = [u8; 32];

/// One range of stored blocks, with what proves it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RangeRecord {
    /// The blocks.
    pub run: BlockRun,
    /// BLAKE3-256 of their bytes.
    pub digest: Digest,
    /// CRC-32C of each block.
    pub block_crcs: Vec<u32>,
}

impl RangeRecord {
    /// Digests `bytes`, which are the blocks of `run`.
    #[must_use]
    pub fn of(run: BlockRun, size: BlockSize, bytes: &[u8]) -> Self {
        Self {
            run,
            digest: *blake3::hash(bytes).as_bytes(),
            block_crcs: bytes
                .chunks(size.bytes())
                .map(crc32c::crc32c)
                .collect(),
        }
    }
}

/// The ranges of `stored`, ascending: maximal runs cut at multiples of
/// [`RANGE_BYTES_MAX`].
pub fn ranges(
    stored: &BlockSet,
    size: BlockSize,
) -> impl Iterator<Item = BlockRun> + '_ {
    stored.runs().flat_map(move |run| cut(run, size))
}

/// `run` cut at multiples of [`RANGE_BYTES_MAX`].
pub fn cut(run: BlockRun, size: BlockSize) -> impl Iterator<Item = BlockRun> {
    // A power of two divided by a smaller one.
    let step = RANGE_BYTES_MAX.wrapping_shr(size.log2());
    let mut at = run.first().0;
    std::iter::from_fn(move || {
        let next = at.checked_add(1)?.checked_next_multiple_of(step);
        let end = next.map_or(run.end().0, |next| next.min(run.end().0));
        let count = end.checked_sub(at).filter(|&count| count > 0)?;
        let part = BlockRun::new(BlockNumber(at), BlockCount(count));
        at = end;
        part
    })
}

/// The digest of the whole content.
#[must_use]
pub fn content<'a>(
    records: impl IntoIterator<Item = &'a RangeRecord>,
) -> Digest {
    let mut hasher = blake3::Hasher::new();
    for record in records {
        hasher.update(&record.run.first().0.to_le_bytes());
        hasher.update(&record.run.count().0.to_le_bytes());
        hasher.update(&record.digest);
    }
    *hasher.finalize().as_bytes()
}

/// Collects records as blocks arrive, in any order and cut in any way.
#[derive(Debug, Default)]
pub struct Collector {
    /// First block, count, digest; in the order of arrival.
    arrived: Vec<(u64, u32, Digest)>,
    /// The CRCs of all arrived ranges, one behind the other.
    crcs: Vec<u32>,
}

/// The ranges of a finished image.
#[derive(Debug, Default)]
pub struct Ranges {
    /// What is known, ascending.
    pub records: Vec<RangeRecord>,
    /// Ranges whose blocks did not arrive in one piece: their digests have to
    /// be computed from the blocks once more.
    pub missing: Vec<BlockRun>,
    /// The pieces in which these did arrive, ascending.
    pieces: Vec<RangeRecord>,
    /// What was computed once more.
    computed: Vec<RangeRecord>,
}

impl Collector {
    /// Takes over what arrived.
    pub fn add(&mut self, record: &RangeRecord) {
        // A range has at most 1,024 blocks; what does not fit is computed
        // again.
        if let Ok(count) = u32::try_from(record.run.count().0)
            && record.block_crcs.len() == crate::units::usize_from(count)
        {
            self.crcs.extend_from_slice(&record.block_crcs);
            self.arrived.push((record.run.first().0, count, record.digest));
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.arrived.clear();
        self.crcs.clear();
    }

    /// The records of exactly the ranges of `stored`.
    #[must_use]
    pub fn finish(self, stored: &BlockSet, size: BlockSize) -> Ranges {
        let mut start = 0_usize;
        let mut arrived: Vec<_> = self
            .arrived
            .into_iter()
            .map(|(first, count, digest)| {
                let crcs = start;
                start = start.saturating_add(crate::units::usize_from(count));
                (first, count, digest, crcs..start)
            })
            .collect();
        arrived.sort_unstable_by_key(|&(first, count, ..)| (first, count));
        let record = |run, digest, crcs: &std::ops::Range<usize>| {
            let block_crcs = self.crcs.get(crcs.clone())?.to_vec();
            Some(RangeRecord { run, digest, block_crcs })
        };
        let mut result = Ranges::default();
        for run in ranges(stored, size) {
            let wanted = (run.first().0, run.count().0);
            let found = arrived
                .binary_search_by_key(&wanted, |&(first, count, ..)| {
                    (first, u64::from(count))
                });
            let known = found.ok().and_then(|index| arrived.get(index));
            let known = known
                .and_then(|(_, _, digest, crcs)| record(run, *digest, crcs));
            if let Some(known) = known {
                result.records.push(known);
                continue;
            }
            result.missing.push(run);
            let from =
                arrived.partition_point(|(first, ..)| *first < run.first().0);
            let inside = arrived
                .iter()
                .skip(from)
                .take_while(|(first, ..)| *first < run.end().0);
            for (first, count, digest, crcs) in inside {
                let count = BlockCount(u64::from(*count));
                let piece = BlockRun::new(BlockNumber(*first), count);
                result.pieces.extend(
                    piece.and_then(|piece| record(piece, *digest, crcs)),
                );
            }
        }
        result
    }
}

impl Ranges {
    /// Adds what was computed once more; call [`Self::complete`] after the
    /// last.
    pub fn add(&mut self, record: RangeRecord) {
        self.computed.push(record);
    }

    /// The records in order, and the content digest; `None` while one is
    /// missing.
    ///
    /// What was computed once more counts when it is what had arrived. If it
    /// is not, because the source changed or can no longer be read, the
    /// pieces stand for themselves: they are what was stored.
    #[must_use]
    pub fn complete(mut self) -> Option<(Vec<RangeRecord>, Digest)> {
        self.computed.sort_unstable_by_key(|record| record.run.first());
        let mut records = std::mem::take(&mut self.records);
        for run in &self.missing {
            let pieces = self.pieces_of(*run);
            let computed = self
                .computed
                .binary_search_by_key(&run.first(), |r| r.run.first())
                .ok()
                .and_then(|index| self.computed.get(index))
                .filter(|record| record.run == *run);
            let arrived = pieces.iter().flat_map(|piece| &piece.block_crcs);
            match computed {
                Some(record)
                    if pieces.is_empty()
                        || arrived.eq(record.block_crcs.iter()) =>
                {
                    records.push(record.clone());
                }
                _ if !pieces.is_empty() => {
                    records.extend_from_slice(pieces);
                }
                _ => return None,
            }
        }
        records.sort_unstable_by_key(|record| record.run.first());
        let digest = content(&records);
        Some((records, digest))
    }

    /// The pieces in which `run` arrived, if all of it did.
    fn pieces_of(&self, run: BlockRun) -> &[RangeRecord] {
        let place = |at: BlockNumber| {
            self.pieces.partition_point(|piece| piece.run.first() < at)
        };
        let pieces = self.pieces.get(place(run.first())..place(run.end()));
        let pieces = pieces.unwrap_or_default();
        let mut at = run.first();
        for piece in pieces {
            if piece.run.first() != at {
                return &[];
            }
            at = piece.run.end();
        }
        if at == run.end() { pieces } else { &[] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(first: u64, count: u64) -> BlockRun {
        BlockRun::new(BlockNumber(first), BlockCount(count)).unwrap()
    }

    fn bytes(run: BlockRun, size: BlockSize) -> Vec<u8> {
        let mut bytes = Vec::new();
        for block in run.first().0..run.end().0 {
            bytes.extend((0..size.bytes()).map(|i| (block + i as u64) as u8));
        }
        bytes
    }

    fn record(run: BlockRun, size: BlockSize) -> RangeRecord {
        RangeRecord::of(run, size, &bytes(run, size))
    }

    #[test]
    fn ranges_never_cross_a_mebibyte() {
        let size = BlockSize::from_bytes(4096).unwrap();
        let set: BlockSet = [run(250, 300), run(5, 1)].into_iter().collect();
        assert_eq!(
            ranges(&set, size).collect::<Vec<_>>(),
            [run(5, 1), run(250, 6), run(256, 256), run(512, 38)]
        );
    }

    #[test]
    fn the_order_and_cut_of_arrival_do_not_matter() {
        let size = BlockSize::from_bytes(1024).unwrap();
        let set: BlockSet = [run(1, 9), run(1020, 8)].into_iter().collect();
        let whole: Vec<RangeRecord> =
            ranges(&set, size).map(|run| record(run, size)).collect();
        let expected = content(&whole);

        let mut collector = Collector::default();
        for part in [run(1024, 4), run(4, 6), run(1, 3), run(1020, 4)] {
            collector.add(&record(part, size));
        }
        let mut ranges = collector.finish(&set, size);
        assert_eq!(ranges.missing, [run(1, 9)]);
        for part in ranges.missing.clone() {
            ranges.add(record(part, size));
        }
        assert_eq!(ranges.complete().unwrap(), (whole, expected));
    }

    #[test]
    fn what_changed_since_it_arrived_is_known_by_its_pieces() {
        let size = BlockSize::from_bytes(1024).unwrap();
        let set: BlockSet = [run(1, 9)].into_iter().collect();
        let pieces = [record(run(1, 3), size), record(run(4, 6), size)];
        let finished = |computed: &[RangeRecord]| {
            let mut collector = Collector::default();
            collector.add(&pieces[1]);
            collector.add(&pieces[0]);
            let mut ranges = collector.finish(&set, size);
            for record in computed {
                ranges.add(record.clone());
            }
            ranges.complete().unwrap().0
        };
        let whole = record(run(1, 9), size);
        assert_eq!(finished(std::slice::from_ref(&whole)), [whole]);
        // It can no longer be read, or only parts of it.
        assert_eq!(finished(&[]), pieces);
        assert_eq!(finished(&[record(run(1, 2), size)]), pieces);
        let mut other = bytes(run(1, 9), size);
        other[5000] ^= 1;
        let other = RangeRecord::of(run(1, 9), size, &other);
        assert_eq!(finished(&[other]), pieces);
    }

    #[test]
    fn nothing_is_complete_while_a_range_is_missing() {
        let size = BlockSize::from_bytes(1024).unwrap();
        let set: BlockSet = [run(1, 9)].into_iter().collect();
        let ranges = Collector::default().finish(&set, size);
        assert!(ranges.complete().is_none());
    }
}
