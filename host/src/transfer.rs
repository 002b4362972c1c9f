//! Moves blocks from a source to whoever wants them, in order, with reading
//! and digesting spread over threads.
//!
//! Workers read and digest a megabyte at a time; the calling thread gets the
//! parts in exactly the order of the ranges, whatever the workers' speed, so
//! that two runs write the same output. Memory is bounded: a fixed number of
//! batches goes round.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Mutex, PoisonError};
use std::thread;

use crate::batch::{Batch, Filled};
use crate::digest::{RANGE_BYTES_MAX, RangeRecord};
use crate::error::{Error, ErrorKind, Result};
use crate::ext::{Checks, Findings};
use crate::source::{BlockSource, ReadFault};
use crate::stop::Stop;
use crate::units::{BlockCount, BlockNumber, BlockRun, BlockSize, ByteRange};

/// How much a worker reads before it hands over.
const SHARD_BYTES_MAX: u64 = RANGE_BYTES_MAX;

/// How many scattered ranges a worker reads before it hands over.
const SHARD_RANGES_MAX: usize = 256;

/// Batches under way for each worker: one being filled, one being digested
/// or waiting for its turn, one being written.
const BATCHES_PER_WORKER: usize = 3;

/// One pass over a source.
#[derive(Clone, Copy)]
pub struct Sweep<'a> {
    /// What is read.
    pub source: &'a dyn BlockSource,
    /// Asks the pass to end.
    pub stop: &'a Stop,
    /// Cut what was read into stretches of blocks of this size and digest
    /// them; ranges must be whole blocks then.
    pub blocks: Option<BlockSize>,
    /// What blocks have to be that were read whole; takes a block size.
    pub checks: Option<&'a Checks>,
}

/// What was read of one range, or of a part of it that does not cross a
/// mebibyte.
#[derive(Debug)]
pub struct Part<'a> {
    /// The bytes and what is known of them.
    pub filled: Filled<'a>,
    /// The same as stretches of blocks, when the sweep has a block size.
    pub stretches: &'a [Stretch],
}

/// Blocks that are all alike: readable, known to be zero, or lost.
#[derive(Debug)]
pub struct Stretch {
    /// The blocks.
    pub run: BlockRun,
    /// Where their bytes lie in [`Filled::bytes`].
    pub bytes: Range<usize>,
    /// What they are.
    pub what: Stored,
}

/// What blocks of a stretch are.
#[derive(Debug)]
pub enum Stored {
    /// Bytes that were read (a block of which only a part could be read
    /// has zeros in its place).
    Bytes(RangeRecord),
    /// Known to be zero.
    Zero(RangeRecord),
    /// Nothing of them could be read.
    Hole(ReadFault),
    /// Hard to read, all of them or parts: left out for now.
    Postponed,
}

impl Sweep<'_> {
    /// Reads `ranges` (sorted, disjoint) and hands them to `each` in their
    /// order. The answer is what the checks found, in this order.
    ///
    /// # Errors
    ///
    /// What the source or `each` answers; [`ErrorKind::Interrupted`] when
    /// asked to stop.
    pub fn run(
        &self,
        ranges: &[ByteRange],
        each: &mut dyn FnMut(Part<'_>) -> Result<()>,
    ) -> Result<Findings> {
        self.pass(Patience::Full, ranges, each)
    }

    /// The same with so much patience.
    ///
    /// # Errors
    ///
    /// As [`Self::run`].
    pub fn pass(
        &self,
        patience: Patience,
        ranges: &[ByteRange],
        each: &mut dyn FnMut(Part<'_>) -> Result<()>,
    ) -> Result<Findings> {
        let shards = Shards::new(ranges);
        // The calling thread is one of them: it has the writing to do.
        let threads = self.source.readers().min(shards.len());
        if threads <= 1 {
            let mut findings = Findings::default();
            let mut load = Load::default();
            for index in 0..shards.len() {
                self.stop.check()?;
                load.fill(self, patience, shards.get(index))?;
                load.deliver(each)?;
                findings.join(std::mem::take(&mut load.findings));
            }
            return Ok(findings);
        }
        let workers = threads.saturating_sub(1);
        self.run_threads(patience, &shards, workers, each)
    }

    fn run_threads(
        &self,
        patience: Patience,
        shards: &Shards,
        workers: usize,
        each: &mut dyn FnMut(Part<'_>) -> Result<()>,
    ) -> Result<Findings> {
        let rounds = workers * BATCHES_PER_WORKER;
        let (give_back, empty) = mpsc::sync_channel(rounds);
        for _ in 0..rounds {
            let _ = give_back.send(Load::default());
        }
        let line = Line {
            sweep: self,
            patience,
            shards,
            next: AtomicUsize::new(0),
            over: AtomicBool::new(false),
            empty: Mutex::new(empty),
        };
        thread::scope(|scope| {
            let (full, arrived) = mpsc::sync_channel(rounds);
            for _ in 0..workers {
                let full = full.clone();
                scope.spawn(|| line.work(full));
            }
            drop(full);
            let result = self.take(shards.len(), &arrived, &give_back, each);
            line.over.store(true, Ordering::Relaxed);
            // A worker may wait for an empty batch: there will be none.
            drop(give_back);
            drop(arrived);
            result
        })
    }

    /// Takes what the workers bring, in order.
    fn take(
        &self,
        count: usize,
        arrived: &Receiver<(usize, Result<Load>)>,
        give_back: &SyncSender<Load>,
        each: &mut dyn FnMut(Part<'_>) -> Result<()>,
    ) -> Result<Findings> {
        let mut findings = Findings::default();
        let mut early = BTreeMap::new();
        for turn in 0..count {
            let mut load = loop {
                self.stop.check()?;
                if let Some(load) = early.remove(&turn) {
                    break load;
                }
                match arrived.recv() {
                    Ok((index, load)) => early.insert(index, load?),
                    Err(_) => {
                        return Err(Error::new(
                            ErrorKind::Internal,
                            "a reading thread died",
                        ));
                    }
                };
            };
            load.deliver(each)?;
            findings.join(std::mem::take(&mut load.findings));
            let _ = give_back.send(load);
        }
        Ok(findings)
    }
}

/// How a pass deals with what is hard to read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Patience {
    /// It tries all that the source knows.
    Full,
    /// It [postpones](Stored::Postponed) it.
    Little,
}

/// What the workers of one sweep share.
struct Line<'a> {
    sweep: &'a Sweep<'a>,
    patience: Patience,
    shards: &'a Shards,
    next: AtomicUsize,
    over: AtomicBool,
    empty: Mutex<Receiver<Load>>,
}

impl Line<'_> {
    fn work(&self, full: SyncSender<(usize, Result<Load>)>) {
        loop {
            // The batch first, the number after: whoever has a number has
            // the batch to serve it, so the next in turn always arrives.
            let empty =
                self.empty.lock().unwrap_or_else(PoisonError::into_inner);
            let Ok(mut load) = empty.recv() else { return };
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            drop(empty);
            if index >= self.shards.len() || self.over.load(Ordering::Relaxed) {
                return;
            }
            let shard = self.shards.get(index);
            let result = load.fill(self.sweep, self.patience, shard);
            if full.send((index, result.map(|()| load))).is_err() {
                return;
            }
        }
    }
}

/// One shard, read and digested.
#[derive(Debug, Default)]
struct Load {
    batch: Batch,
    /// The stretches of each range of the batch, one behind the other.
    stretches: Vec<Stretch>,
    /// How many stretches each range has.
    counts: Vec<usize>,
    /// What is wrong with blocks that were checked.
    findings: Findings,
}

impl Load {
    fn fill(
        &mut self,
        sweep: &Sweep<'_>,
        patience: Patience,
        shard: &[ByteRange],
    ) -> Result<()> {
        match patience {
            Patience::Full => sweep.source.read_batch(shard, &mut self.batch),
            Patience::Little => sweep.source.skim(shard, &mut self.batch),
        }?;
        self.stretches.clear();
        self.counts.clear();
        if let Some(size) = sweep.blocks {
            for filled in self.batch.filled() {
                let before = self.stretches.len();
                stretch(&filled, size, patience, &mut self.stretches);
                self.counts.push(self.stretches.len() - before);
                if let Some(checks) = sweep.checks {
                    let made = self.stretches.iter().skip(before);
                    for stretch in made {
                        check(
                            &filled,
                            size,
                            stretch,
                            checks,
                            &mut self.findings,
                        );
                    }
                }
            }
        }
        Ok(())
    }

    fn deliver(
        &self,
        each: &mut dyn FnMut(Part<'_>) -> Result<()>,
    ) -> Result<()> {
        let mut rest = self.stretches.as_slice();
        for (index, filled) in self.batch.filled().enumerate() {
            let count = self.counts.get(index).copied().unwrap_or(0);
            let (stretches, behind) = rest.split_at(count.min(rest.len()));
            rest = behind;
            each(Part { filled, stretches })?;
        }
        Ok(())
    }
}

/// Cuts what was read into stretches of blocks.
fn stretch(
    filled: &Filled<'_>,
    size: BlockSize,
    patience: Patience,
    into: &mut Vec<Stretch>,
) {
    let first = size.block_of(filled.range.start());
    let blocks = filled.bytes.len() / size.bytes();
    let mut at = 0;
    while at < blocks {
        let lost = loss(filled, size, patience, at);
        let mut end = at + 1;
        if filled.faults.is_empty() {
            end = blocks;
        }
        while end < blocks && loss(filled, size, patience, end) == lost {
            end += 1;
        }
        let bytes = at * size.bytes()..end * size.bytes();
        let first = first.checked_add(BlockCount(at as u64));
        let count = BlockCount((end - at) as u64);
        if let Some(run) = first.and_then(|f| BlockRun::new(f, count)) {
            let record =
                || RangeRecord::of(run, size, &filled.bytes[bytes.clone()]);
            let what = match lost {
                Some(Loss::Postponed) => Stored::Postponed,
                Some(Loss::Hole(fault)) => Stored::Hole(fault),
                None if filled.zero => Stored::Zero(record()),
                None => Stored::Bytes(record()),
            };
            into.push(Stretch { run, bytes, what });
        }
        at = end;
    }
}

/// Checks the blocks of a stretch that were read whole.
fn check(
    filled: &Filled<'_>,
    size: BlockSize,
    stretch: &Stretch,
    checks: &Checks,
    findings: &mut Findings,
) {
    if matches!(stretch.what, Stored::Hole(_) | Stored::Postponed) {
        return;
    }
    let bytes = &filled.bytes[stretch.bytes.clone()];
    if filled.faults.is_empty() {
        checks.inspect(stretch.run, bytes, findings);
        return;
    }
    let blocks = stretch.run.first().0..stretch.run.end().0;
    for (block, bytes) in blocks.zip(bytes.chunks(size.bytes())) {
        let run = BlockRun::new(BlockNumber(block), BlockCount(1));
        let Some((run, place)) = run.zip(run.and_then(|r| r.bytes(size)))
        else {
            continue;
        };
        let is_whole = filled.faults.iter().all(|(bad, _)| {
            bad.end() <= place.start() || place.end() <= bad.start()
        });
        if is_whole {
            checks.inspect(run, bytes, findings);
        }
    }
}

/// What became of a block that is not stored.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Loss {
    Hole(ReadFault),
    Postponed,
}

/// Why block `index` of the range is not stored, if that is so.
fn loss(
    filled: &Filled<'_>,
    size: BlockSize,
    patience: Patience,
    index: usize,
) -> Option<Loss> {
    if filled.faults.is_empty() {
        return None;
    }
    let start = filled.range.start().0 + (index * size.bytes()) as u64;
    let end = start + size.bytes_u64();
    if patience == Patience::Little {
        let mut faults = filled.faults.iter();
        let is_hard = faults.any(|(bad, fault)| {
            *fault == ReadFault::Skipped
                && bad.start().0 < end
                && bad.end().0 > start
        });
        if is_hard {
            return Some(Loss::Postponed);
        }
    }
    let mut reached = start;
    for (bad, _) in filled.faults {
        if bad.start().0 <= reached && bad.end().0 > reached {
            reached = bad.end().0;
        }
    }
    let why = filled.faults.iter().find(|(bad, _)| bad.end().0 > start);
    why.filter(|_| reached >= end).map(|(_, fault)| Loss::Hole(*fault))
}

/// Ranges cut at mebibytes and grouped into work for one batch each.
struct Shards {
    parts: Vec<ByteRange>,
    /// Where each shard ends in `parts`.
    ends: Vec<usize>,
}

impl Shards {
    fn new(ranges: &[ByteRange]) -> Self {
        let mut shards = Self { parts: Vec::new(), ends: Vec::new() };
        let mut bytes = 0;
        let mut first = 0;
        for part in ranges.iter().flat_map(|&range| range.cut(SHARD_BYTES_MAX))
        {
            let length = part.length().0;
            let full = bytes + length > SHARD_BYTES_MAX
                || shards.parts.len() - first >= SHARD_RANGES_MAX;
            if full && shards.parts.len() > first {
                first = shards.parts.len();
                shards.ends.push(first);
                bytes = 0;
            }
            bytes += length;
            shards.parts.push(part);
        }
        if shards.parts.len() > first {
            shards.ends.push(shards.parts.len());
        }
        shards
    }

    fn len(&self) -> usize {
        self.ends.len()
    }

    fn get(&self, index: usize) -> &[ByteRange] {
        let start = match index.checked_sub(1) {
            Some(before) => self.ends[before],
            None => 0,
        };
        &self.parts[start..self.ends[index]]
    }
}

/// The bytes of `runs`, in blocks of `size`; runs that no device can have
/// are left out.
pub fn byte_ranges(
    runs: impl IntoIterator<Item = BlockRun>,
    size: BlockSize,
) -> Vec<ByteRange> {
    runs.into_iter().filter_map(|run| run.bytes(size)).collect()
}

/// The block that starts at or before the range's first byte.
#[must_use]
pub fn first_block(range: ByteRange, size: BlockSize) -> BlockNumber {
    size.block_of(range.start())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::{DiskIdentity, Piece, SourceFacts, SourceKind};
    use crate::units::{ByteCount, ByteOffset};
    use std::ops::ControlFlow;

    /// Every byte tells its block; every 7th KiB is bad.
    struct Striped(SourceFacts);

    impl Striped {
        fn new() -> Self {
            Self(SourceFacts {
                name: "striped".into(),
                kind: SourceKind::File,
                length: ByteCount(1 << 40),
                sector_bytes: 512,
                file: None,
                disk: DiskIdentity::default(),
                mounted_rw: false,
            })
        }
    }

    impl BlockSource for Striped {
        fn facts(&self) -> &SourceFacts {
            &self.0
        }

        fn readers(&self) -> usize {
            3
        }

        fn read(
            &self,
            _: &[ByteRange],
            _: &mut dyn FnMut(Piece<'_>) -> ControlFlow<()>,
        ) -> Result<()> {
            Err(Error::new(ErrorKind::Internal, "read_batch is used"))
        }

        fn read_batch(
            &self,
            ranges: &[ByteRange],
            batch: &mut Batch,
        ) -> Result<()> {
            batch.prepare(ranges);
            for (index, range) in ranges.iter().enumerate() {
                for (i, chunk) in batch.room(index).chunks_mut(1024).enumerate()
                {
                    chunk.fill((range.start().0 / 1024 + i as u64) as u8);
                }
                for block in range.start().0 / 1024..range.end().0 / 1024 {
                    if block % 7 == 0 {
                        let at = ByteOffset(block * 1024);
                        batch.set_fault(
                            ByteRange::new(at, ByteCount(1024)).unwrap(),
                            ReadFault::Medium,
                        );
                    }
                }
            }
            Ok(())
        }
    }

    fn ranges() -> Vec<ByteRange> {
        (0..3000)
            .map(|i| {
                let start = ByteOffset(i * 16 * 1024);
                ByteRange::new(start, ByteCount(4096 + 4096 * (i % 3))).unwrap()
            })
            .collect()
    }

    #[test]
    fn parts_come_in_order_whatever_the_threads_do() {
        let source = Striped::new();
        let stop = Stop::new();
        let sweep =
            Sweep { source: &source, stop: &stop, blocks: None, checks: None };
        let mut seen = Vec::new();
        sweep
            .run(&ranges(), &mut |part| {
                seen.push(part.filled.range);
                Ok(())
            })
            .unwrap();
        assert_eq!(seen, ranges());
    }

    #[test]
    fn stretches_tell_readable_blocks_from_lost_ones() {
        let source = Striped::new();
        let stop = Stop::new();
        let size = BlockSize::from_bytes(1024);
        let sweep =
            Sweep { source: &source, stop: &stop, blocks: size, checks: None };
        let mut lost = 0;
        let mut good = 0;
        sweep
            .run(&ranges(), &mut |part| {
                for stretch in part.stretches {
                    match &stretch.what {
                        Stored::Hole(_) => lost += stretch.run.count().0,
                        Stored::Bytes(record) => {
                            good += record.block_crcs.len() as u64;
                            let bytes =
                                &part.filled.bytes[stretch.bytes.clone()];
                            assert_eq!(bytes[0], stretch.run.first().0 as u8);
                        }
                        Stored::Zero(_) | Stored::Postponed => {
                            unreachable!()
                        }
                    }
                }
                Ok(())
            })
            .unwrap();
        let blocks: u64 =
            ranges().iter().map(|range| range.length().0 / 1024).sum();
        let expected: u64 = ranges()
            .iter()
            .flat_map(|r| r.start().0 / 1024..r.end().0 / 1024)
            .filter(|block| block % 7 == 0)
            .count() as u64;
        assert_eq!((lost, good), (expected, blocks - expected));
    }

    #[test]
    fn an_error_of_the_taker_ends_the_sweep() {
        let source = Striped::new();
        let stop = Stop::new();
        let sweep =
            Sweep { source: &source, stop: &stop, blocks: None, checks: None };
        let mut left = 300;
        let error = sweep
            .run(&ranges(), &mut |_| {
                left -= 1;
                match left {
                    0 => Err(Error::new(ErrorKind::LocalIo, "full")),
                    _ => Ok(()),
                }
            })
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LocalIo);
        stop.request();
        let error = sweep.run(&ranges(), &mut |_| Ok(())).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Interrupted);
    }
}
