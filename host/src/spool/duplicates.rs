//! What the far end holds twice: stored once more from what is here, when it
//! is proven that it is that.

use std::collections::BTreeMap;

use super::{READ_BYTES_MAX, Spool, Store, Supply, span, within};
use crate::digest::Digest;
use crate::error::Result;
use crate::source::{Comparer, Duplicates, Likeness, Payload};
use crate::units::{ByteCount, ByteOffset, ByteRange};

/// What is taken over: the block that is here, by the place of its copy.
type Copies = BTreeMap<ByteOffset, ByteRange>;

impl<S: Supply> Spool<S> {
    /// Those of `pairs` of which only the other one is here.
    fn open_pairs(&self, pairs: &[Likeness], size: ByteCount) -> Vec<Likeness> {
        let inner = self.lock();
        let end = ByteOffset(self.supply.facts().length.0);
        let store = self.store.lock();
        let is_open = |pair: &&Likeness| {
            let copy = ByteRange::new(pair.at, size);
            let other = ByteRange::new(pair.like, size);
            copy.zip(other).is_some_and(|(copy, other)| {
                copy.end() <= end
                    && inner.missing(&store, copy) == [copy]
                    && inner.missing(&store, other).is_empty()
                    && store.known().contains(other)
            })
        };
        pairs.iter().filter(is_open).copied().collect()
    }
}

impl<S: Supply> Comparer for Spool<S> {
    fn find(
        &self,
        range: ByteRange,
        stride: ByteCount,
        pattern: &[u8],
    ) -> Result<Vec<ByteOffset>> {
        let end = ByteOffset(self.supply.facts().length.0);
        match (self.supply.comparer(), within(range, end)) {
            (Some(far), Some(inside)) => far.find(inside, stride, pattern),
            _ => Ok(Vec::new()),
        }
    }

    fn expect_together(&self, ranges: &[ByteRange]) {
        let missing = self.missing(&self.lock(), ranges);
        if let (Some(far), false) = (self.supply.comparer(), missing.is_empty())
        {
            far.expect_together(&missing);
        }
    }

    fn same(
        &self,
        pairs: &[Likeness],
        size: ByteCount,
    ) -> Result<Vec<Likeness>> {
        let open = self.open_pairs(pairs, size);
        match self.supply.comparer() {
            Some(far) if !open.is_empty() => far.same(&open, size),
            _ => Ok(Vec::new()),
        }
    }
}

impl<S: Supply> Duplicates for Spool<S> {
    fn take_over(
        &self,
        pairs: &[Likeness],
        size: ByteCount,
        within: &[ByteRange],
    ) -> Result<()> {
        let copies: Copies = self
            .open_pairs(pairs, size)
            .iter()
            .filter_map(|pair| {
                Some((pair.at, ByteRange::new(pair.like, size)?))
            })
            .collect();
        let expected = expected(&self.store.lock(), within, size, &copies)?;
        if expected.is_empty() {
            return Ok(());
        }
        let changed = self.supply.changed(&expected)?;
        let mut store = self.store.lock();
        let mut buffer = Vec::new();
        for (stretch, _) in expected {
            if changed.contains(&stretch) {
                continue;
            }
            for (at, like) in copies.range(stretch.start()..stretch.end()) {
                let piece = store.piece(*like, &mut buffer)?;
                match piece.what {
                    Payload::Bytes(bytes) => store.put(*at, bytes)?,
                    _ => store
                        .put_zero(ByteRange::new(*at, size).unwrap_or(*like)),
                }
            }
        }
        Ok(())
    }
}

/// The stretches of `within` that are here or will be by `copies`, at most a
/// mebibyte long, and the digest of what they will hold then.
fn expected(
    store: &Store,
    within: &[ByteRange],
    size: ByteCount,
    copies: &Copies,
) -> Result<Vec<(ByteRange, Digest)>> {
    let mut covered = store.known().clone();
    covered.extend(copies.keys().filter_map(|at| ByteRange::new(*at, size)));
    let mut expected = Vec::new();
    let (mut bytes, mut block) = (Vec::new(), Vec::new());
    let parts = within.iter().flat_map(|range| range.cut(READ_BYTES_MAX));
    for stretch in parts.flat_map(|part| covered.within(part)) {
        let mut inside = copies.range(stretch.start()..stretch.end());
        let mut next = inside.next();
        if next.is_none() {
            // Nothing of it is taken over.
            continue;
        }
        bytes.clear();
        let length = usize::try_from(stretch.length().0).unwrap_or(0);
        bytes.resize(length, 0);
        for part in store.known().within(stretch) {
            store.read_known(part, &mut block)?;
            fill(&mut bytes, stretch, part, &block);
        }
        while let Some((at, like)) = next {
            store.read_known(*like, &mut block)?;
            if let Some(place) = ByteRange::new(*at, size) {
                fill(&mut bytes, stretch, place, &block);
            }
            next = inside.next();
        }
        expected.push((stretch, *blake3::hash(&bytes).as_bytes()));
    }
    Ok(expected)
}

/// Writes `from`, which is all of `part`, at its place in `whole`.
fn fill(bytes: &mut [u8], whole: ByteRange, part: ByteRange, from: &[u8]) {
    let room = span(whole, part).and_then(|span| bytes.get_mut(span));
    if let Some(room) = room.filter(|room| room.len() == from.len()) {
        room.copy_from_slice(from);
    }
}
