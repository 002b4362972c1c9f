//! A device at the other end of a line that is presumed to hold what an image
//! holds: the far end digests it, and only what differs crosses the line.

use std::ops::ControlFlow;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::batch::Batch;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::range_set::RangeSet;
use crate::source::{BlockSource, Found, Piece, Priority, Search, SourceFacts};
use crate::spool::Supply;
use crate::units::ByteRange;

/// What is asked about first, and then, where that differs, in parts: a
/// digest costs some 50 bytes of the line, a block a thousand.
const STEPS_BYTES: [u64; 2] = [256 * 1024, 16 * 1024];

/// How many places are asked about together.
const ASKED_AT_ONCE: usize = 256;

/// The device, and the image that it is compared with. It supplies a spool,
/// so that everything crosses the line once.
pub(super) struct Presumed<'a, S> {
    device: S,
    image: &'a dyn BlockSource,
    /// What the image may have, in addresses of both.
    held: RangeSet,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// What was asked about already.
    asked: RangeSet,
    /// What of that is another one on the device.
    differing: RangeSet,
    /// What is the same, and was not handed over yet.
    ready: Vec<ByteRange>,
    /// What went wrong while asking.
    failed: Option<Error>,
}

impl<'a, S: Supply> Presumed<'a, S> {
    /// `held` is what the image may hold.
    pub(super) fn new(
        device: S,
        image: &'a dyn BlockSource,
        held: impl IntoIterator<Item = ByteRange>,
    ) -> Self {
        let mut set = RangeSet::new();
        set.extend(held);
        Self { device, image, held: set, inner: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those of `ranges` that differ, in the finest parts.
    fn differing(&self, ranges: Vec<ByteRange>) -> Result<Vec<ByteRange>> {
        let mut differing = ranges;
        for step in STEPS_BYTES {
            let parts: Vec<ByteRange> =
                differing.iter().flat_map(|range| range.cut(step)).collect();
            differing.clear();
            for some in parts.chunks(ASKED_AT_ONCE) {
                let asked: Vec<(ByteRange, Digest)> = some
                    .iter()
                    .map(|range| Ok((*range, self.digest(*range)?)))
                    .collect::<Result<_>>()?;
                differing.extend(self.device.changed(&asked)?);
            }
        }
        Ok(differing)
    }

    fn digest(&self, range: ByteRange) -> Result<Digest> {
        let mut batch = Batch::default();
        self.image.read_batch(&[range], &mut batch)?;
        let filled = batch.filled().next();
        let bytes = filled.map(|filled| filled.bytes).unwrap_or_default();
        Ok(*blake3::hash(bytes).as_bytes())
    }

    /// What of `ranges` the device has to send.
    fn to_fetch(
        &self,
        inner: &mut Inner,
        ranges: &[ByteRange],
    ) -> Result<Vec<ByteRange>> {
        let mut fetch = RangeSet::new();
        let mut unasked = Vec::new();
        for range in ranges {
            fetch.extend(self.held.missing(*range));
            for held in self.held.within(*range) {
                unasked.extend(inner.asked.missing(held));
                fetch.extend(inner.differing.within(held));
            }
        }
        if !unasked.is_empty() {
            let differing = self.differing(unasked.clone())?;
            inner.differing.extend(differing.iter().copied());
            fetch.extend(differing);
            for range in unasked {
                inner.asked.insert(range);
                inner.ready.extend(inner.differing.missing(range));
            }
        }
        Ok(fetch.iter().collect())
    }
}

impl<S: Supply> Supply for Presumed<'_, S> {
    fn facts(&self) -> &SourceFacts {
        self.device.facts()
    }

    fn now(&self) -> Duration {
        self.device.now()
    }

    fn want(&self, ranges: &[ByteRange], priority: Priority) {
        // What may never be read is not fetched ahead: most of it is the
        // contents of files.
        if priority == Priority::Payload {
            return;
        }
        let mut inner = self.lock();
        match self.to_fetch(&mut inner, ranges) {
            Ok(fetch) => self.device.want(&fetch, priority),
            Err(error) => inner.failed = Some(error),
        }
    }

    fn arrive(&self, each: &mut dyn FnMut(Piece<'_>)) -> Result<()> {
        let next = {
            let mut inner = self.lock();
            if let Some(error) = inner.failed.take() {
                return Err(error);
            }
            inner.ready.pop()
        };
        let Some(range) = next else { return self.device.arrive(each) };
        self.image.read(&[range], &mut |piece| {
            each(piece);
            ControlFlow::Continue(())
        })
    }

    fn changed(
        &self,
        ranges: &[(ByteRange, Digest)],
    ) -> Result<Vec<ByteRange>> {
        self.device.changed(ranges)
    }

    fn search(&self, search: Search<'_>) -> Result<Option<Found>> {
        self.device.search(search)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;
    use crate::local::LocalFile;
    use crate::source::{DiskIdentity, Each, Payload, SourceKind};
    use crate::spool::{Identity, Spool, Store, StoreOptions};
    use crate::testing::range;
    use crate::units::{ByteCount, ByteOffset};

    /// Both sides: a line that counts what crosses it, and an image.
    struct Bytes {
        facts: SourceFacts,
        bytes: Vec<u8>,
        wanted: Mutex<VecDeque<ByteRange>>,
        sent: Mutex<u64>,
    }

    impl Bytes {
        fn new(bytes: Vec<u8>) -> Self {
            let facts = SourceFacts {
                name: "disk".into(),
                kind: SourceKind::Remote,
                length: ByteCount(bytes.len() as u64),
                sector_bytes: 512,
                file: None,
                disk: DiskIdentity::default(),
                mounted_rw: false,
            };
            let wanted = Mutex::default();
            Self { facts, bytes, wanted, sent: Mutex::default() }
        }

        fn part(&self, range: ByteRange) -> &[u8] {
            &self.bytes[range.start().0 as usize..range.end().0 as usize]
        }
    }

    impl Supply for &Bytes {
        fn facts(&self) -> &SourceFacts {
            &self.facts
        }

        fn now(&self) -> Duration {
            Duration::ZERO
        }

        fn want(&self, ranges: &[ByteRange], _: Priority) {
            let mut wanted = self.wanted.lock().unwrap();
            for range in ranges {
                // What is on its way already is not sent twice.
                if !wanted.contains(range) {
                    wanted.push_back(*range);
                }
            }
        }

        fn arrive(&self, each: &mut dyn FnMut(Piece<'_>)) -> Result<()> {
            let range = self.wanted.lock().unwrap().pop_front().unwrap();
            *self.sent.lock().unwrap() += range.length().0;
            let what = Payload::Bytes(self.part(range));
            each(Piece { at: range.start(), what });
            Ok(())
        }

        fn changed(
            &self,
            ranges: &[(ByteRange, Digest)],
        ) -> Result<Vec<ByteRange>> {
            let ranges = ranges.iter();
            Ok(ranges
                .filter(|(range, was)| {
                    blake3::hash(self.part(*range)).as_bytes() != was
                })
                .map(|(range, _)| *range)
                .collect())
        }
    }

    impl BlockSource for Bytes {
        fn facts(&self) -> &SourceFacts {
            &self.facts
        }

        fn read(&self, ranges: &[ByteRange], each: Each<'_>) -> Result<()> {
            for &range in ranges {
                let what = Payload::Bytes(self.part(range));
                let _ = each(Piece { at: range.start(), what });
            }
            Ok(())
        }
    }

    #[test]
    fn only_what_differs_crosses_the_line_and_once() {
        const LENGTH: usize = 2 << 20;
        let mut old: Vec<u8> = (0..LENGTH).map(|n| (n / 512) as u8).collect();
        let image = Bytes::new(old.clone());
        old[300_000] ^= 1;
        old[1_900_000] ^= 1;
        let device = Bytes::new(old);
        // The image does not hold the last 64 KiB.
        let held = range(0, LENGTH as u64 - 65_536);
        let presumed = Presumed::new(&device, &image, [held]);
        let file = || Box::new(LocalFile::temporary().unwrap());
        let options = StoreOptions::new(ByteOffset(0), false);
        let store = Store::open(file(), file(), &Identity::new(), options);
        let spool = Spool::open(presumed, store.unwrap()).unwrap();
        let all = range(0, LENGTH as u64);
        spool.expect(&[range(0, 400_000)], Priority::Payload);
        spool.expect(&[range(100_000, 800_000)], Priority::Structure);
        for _ in 0..2 {
            let mut batch = Batch::default();
            spool.read_batch(&[all], &mut batch).unwrap();
            let filled = batch.filled().next().unwrap();
            assert!(filled.faults.is_empty());
            assert!(filled.bytes == device.bytes);
        }
        let sent = *device.sent.lock().unwrap();
        assert_eq!(sent, 65_536 + 2 * STEPS_BYTES[1]);
    }
}
