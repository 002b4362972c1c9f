//! Walks a source and hands what the walk selects to a sink: the heart of
//! `image`, and the reading half of `plan`, `verify` and `convert`.

use std::collections::BTreeMap;

use crate::block_set::BlockSet;
use crate::commands::duplicates::JournalGuess;
use crate::commands::holes::LostBlocks;
use crate::digest::{Collector, Digest, RangeRecord, ranges};
use crate::error::{Error, ErrorKind, Result};
use crate::ext::{
    BlockKind, Checks, Findings, Level, Step, Traced, Walk, Walker,
};
use crate::image::{ImagePlan, ImageSink, WriteOrder};
use crate::observer::{Event, Observer, Phase};
use crate::source::{
    BlockSource, Found, Priority, ReadFault, Search, SourceKind,
};
use crate::stop::Stop;
use crate::transfer::{Part, Stored, Sweep, byte_ranges};
use crate::units::{
    BlockCount, BlockNumber, BlockRun, BlockSize, ByteCount, ByteOffset,
    ByteRange,
};

/// How many partly unreadable places are kept in full; all are counted.
const SECTORS_MAX: usize = 10_000;

/// Where every superblock in use lies, and how long it is.
const SUPERBLOCK_AT: ByteOffset = ByteOffset(1024);
const SUPERBLOCK_BYTES: usize = 1024;

/// How a sweep takes what it reads: as blocks of a size, perhaps checked.
#[derive(Clone, Copy)]
struct Layout<'a> {
    size: BlockSize,
    checks: Option<&'a Checks>,
}

/// A source being captured.
pub struct Capture<'a> {
    source: &'a dyn BlockSource,
    observer: &'a dyn Observer,
    stop: &'a Stop,
    collector: Collector,
    losses: Losses,
    /// Every block that the image holds.
    stored: BlockSet,
    /// The image holds the superblock itself, and not the rest of its block.
    bare_superblock: bool,
    /// What blocks of a walk without a sink, or such as are put off, have to
    /// be, level by level: checked as they pass later.
    checks: Vec<Checks>,
    /// What the checks of this run found.
    findings: Findings,
    /// What a walk of a source behind a line has announced and not read.
    announced: Vec<ByteRange>,
    done: ByteCount,
}

/// What could not be read.
#[derive(Clone, Debug, Default)]
pub struct Losses {
    /// Blocks of which nothing could be read: left as holes.
    pub blocks: BTreeMap<ReadFault, BlockSet>,
    /// Unreadable stretches of bytes inside blocks that were stored, zeros in
    /// their place (the first 10,000).
    pub sectors: Vec<ByteRange>,
    /// How many bytes could not be read in all.
    pub bytes: ByteCount,
}

impl Losses {
    /// Whether everything could be read.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.bytes.0 == 0
    }

    fn add_bytes(&mut self, count: ByteCount) {
        self.bytes.0 = self.bytes.0.saturating_add(count.0);
    }

    /// How many blocks became holes.
    #[must_use]
    pub fn hole_count(&self) -> BlockCount {
        BlockCount(self.blocks.values().map(|set| set.count().0).sum())
    }
}

/// What a finished capture knows of the content.
#[derive(Debug)]
pub struct Captured {
    /// The blocks that were stored.
    pub stored: BlockSet,
    /// A record for each range that is stored, ascending.
    pub records: Vec<RangeRecord>,
    /// The content digest.
    pub content: Digest,
    /// What could not be read.
    pub losses: Losses,
    /// What these were for; filled in by whoever asks.
    pub holes: Vec<LostBlocks>,
    /// Blocks of the superblock, the descriptors or the journal's superblock
    /// that no longer are what they were when they were stored.
    pub changed: Vec<BlockNumber>,
}

impl<'a> Capture<'a> {
    /// Nothing is read yet.
    #[must_use]
    pub fn new(
        source: &'a dyn BlockSource,
        observer: &'a dyn Observer,
        stop: &'a Stop,
    ) -> Self {
        Self {
            source,
            observer,
            stop,
            collector: Collector::default(),
            losses: Losses::default(),
            stored: BlockSet::new(),
            bare_superblock: false,
            checks: Vec::new(),
            findings: Findings::default(),
            announced: Vec::new(),
            done: ByteCount(0),
        }
    }

    /// Walks the source to the end. Selected blocks go to `sink` as they are
    /// read, if there is one.
    ///
    /// # Errors
    ///
    /// When there is no filesystem, or the source or the sink fails.
    pub fn walk<'s>(
        &mut self,
        mut walker: Walker,
        mut sink: Option<&mut (dyn ImageSink + 's)>,
    ) -> Result<Walk> {
        self.observer.event(&Event::Phase(Phase::Walk));
        let mut begun = false;
        loop {
            match walker.next_step()? {
                Step::Read(level) if level.sought.is_some() => {
                    self.search(level, &mut walker)?;
                }
                Step::Read(level) => {
                    let feed = match (&mut sink, walker.geometry()) {
                        (Some(sink), Some(geometry)) if !level.probe => {
                            if !begun {
                                let plan = ImagePlan { geometry, walk: None };
                                sink.begin(&plan)?;
                                begun = true;
                            }
                            Some((&mut **sink, geometry.block_size))
                        }
                        _ => None,
                    };
                    self.read_level(level, &mut walker, feed)?;
                }
                Step::Restart => {
                    begun = false;
                    self.start_over();
                }
                Step::Done => break,
            }
        }
        if let (Some(sink), Some(geometry)) = (&mut sink, walker.geometry()) {
            let size = geometry.block_size;
            self.read_announced(&mut Some((&mut **sink, size)))?;
        }
        let mut walk = walker.finish()?;
        walk.add_findings(std::mem::take(&mut self.findings));
        if let Some(sink) = sink {
            self.leave_out(&walk, sink)?;
        }
        Ok(walk)
    }

    /// Reads what may be what the walk seeks: all of the level, unless the
    /// source can tell what is worth reading.
    fn search(&mut self, level: Level, walker: &mut Walker) -> Result<()> {
        self.observer.event(&Event::Phase(Phase::Search));
        let bytes = level.ranges.iter().map(|range| range.length().0).sum();
        let total = ByteCount(bytes);
        let found = match &level.sought {
            Some(sought) => self.source.search(Search {
                ranges: &level.ranges,
                sought,
                progress: &mut |done| {
                    self.observer.event(&Event::Progress { done, total });
                },
            })?,
            None => None,
        };
        let observer = self.observer;
        let walk_on = || observer.event(&Event::Phase(Phase::Walk));
        let Some(Found { places, ended }) = found else {
            self.read_level(level, walker, None)?;
            walk_on();
            return Ok(());
        };
        if let Some(why) = ended {
            self.observer.event(&Event::Warning {
                code: "search_ended",
                message: format!(
                    "not all of the device was searched for copies of the \
                     superblock: {why}"
                ),
            });
        }
        walk_on();
        self.read_level(Level { ranges: places, ..level }, walker, None)
    }

    /// Walks the source to the end and has everything that is selected
    /// fetched, in whatever order costs least.
    ///
    /// # Errors
    ///
    /// As [`Self::walk`].
    pub fn fetch(&mut self, walker: Walker) -> Result<()> {
        self.walk(walker, None)?;
        self.read_announced(&mut None)?;
        self.start_over();
        Ok(())
    }

    /// What is selected and was in no level lies beyond the end of the
    /// device.
    fn leave_out(
        &mut self,
        walk: &Walk,
        sink: &mut dyn ImageSink,
    ) -> Result<()> {
        let mut beyond = walk.selected.clone();
        beyond.subtract(&self.stored);
        for lost in self.losses.blocks.values() {
            beyond.subtract(lost);
        }
        for run in beyond.runs() {
            if let Some(bytes) = walk.geometry.block_size.bytes_of(run.count())
            {
                self.losses.add_bytes(bytes);
            }
            self.lose(run, ReadFault::BeyondEnd, sink)?;
        }
        Ok(())
    }

    fn lose(
        &mut self,
        run: BlockRun,
        fault: ReadFault,
        sink: &mut dyn ImageSink,
    ) -> Result<()> {
        self.losses.blocks.entry(fault).or_default().insert_run(run);
        self.observer.event(&Event::Hole { run, fault });
        sink.hole(run)
    }

    /// Copies everything that `walk` selected to `sink`, ascending, and adds
    /// what the checks of its blocks found.
    ///
    /// # Errors
    ///
    /// When the source or the sink fails.
    pub fn copy(
        &mut self,
        walk: &mut Walk,
        sink: &mut dyn ImageSink,
    ) -> Result<()> {
        self.observer.event(&Event::Phase(Phase::Copy));
        let checks = Checks::join(std::mem::take(&mut self.checks));
        let whole = sink.order() == WriteOrder::Ascending;
        let plan =
            ImagePlan { geometry: &walk.geometry, walk: whole.then_some(walk) };
        sink.begin(&plan)?;
        let size = walk.geometry.block_size;
        self.start_over();
        for pass in sink.passes(walk) {
            let wanted = byte_ranges(pass.runs(), size);
            let layout = Layout { size, checks: Some(&checks) };
            self.sweep(&wanted, Some(layout), &mut |capture, part| {
                capture.store(&part, size, sink)
            })?;
        }
        // What was in no pass the sink takes from the walk itself: a normal
        // image its superblock and descriptors.
        let mut rest = walk.selected.clone();
        rest.subtract(&self.stored);
        for lost in self.losses.blocks.values() {
            rest.subtract(lost);
        }
        self.bare_superblock = rest.contains(size.block_of(SUPERBLOCK_AT));
        self.stored.union_with(&rest);
        walk.add_findings(std::mem::take(&mut self.findings));
        Ok(())
    }

    fn start_over(&mut self) {
        self.collector.clear();
        self.losses = Losses::default();
        self.stored = BlockSet::new();
        self.bare_superblock = false;
        self.checks.clear();
        self.findings = Findings::default();
        self.announced.clear();
        self.done = ByteCount(0);
    }

    /// Computes what is still unknown and looks whether the source changed.
    ///
    /// # Errors
    ///
    /// When the source fails.
    pub fn finish(mut self, walk: &Walk) -> Result<Captured> {
        self.observer.event(&Event::Phase(Phase::Verify));
        let size = walk.geometry.block_size;
        let collector = std::mem::take(&mut self.collector);
        let mut known = collector.finish(&self.stored, size);
        let again = byte_ranges(known.missing.iter().copied(), size);
        let losses = std::mem::take(&mut self.losses);
        let mut computed = Vec::new();
        let layout = Some(Layout { size, checks: None });
        self.sweep(&again, layout, &mut |capture, part| {
            computed.extend(capture.records_of(&part, size));
            Ok(())
        })?;
        for record in computed {
            known.add(record);
        }
        let Some((records, content)) = known.complete() else {
            return Err(Error::new(
                ErrorKind::LocalIo,
                format!(
                    "{} changed from readable to unreadable while it was read",
                    self.source.facts().name
                ),
            )
            .hint("run the command again"));
        };
        let changed = self.changed(walk, &records)?;
        let stored = std::mem::take(&mut self.stored);
        let holes = Vec::new();
        Ok(Captured { stored, records, content, losses, holes, changed })
    }

    /// Which of the few blocks that every change of a filesystem touches
    /// differ from what was stored.
    fn changed(
        &mut self,
        walk: &Walk,
        records: &[RangeRecord],
    ) -> Result<Vec<BlockNumber>> {
        let size = walk.geometry.block_size;
        let mut telling = BlockSet::new();
        for kind in [BlockKind::Superblock, BlockKind::Descriptors] {
            if let Some(blocks) = walk.kind(kind) {
                telling.union_with(blocks);
            }
        }
        let journal = walk.kind(BlockKind::Journal);
        if let Some(first) = journal.and_then(|set| set.runs().next()) {
            telling.insert(first.first());
        }
        let mut changed = Vec::new();
        let wanted = byte_ranges(ranges(&telling, size), size);
        self.source.recheck(&wanted)?;
        let layout = Some(Layout { size, checks: None });
        self.sweep(&wanted, layout, &mut |capture, part| {
            for now in capture.records_of(&part, size) {
                changed.extend(differing(&now, records));
            }
            Ok(())
        })?;
        Ok(changed)
    }

    /// The records of what could be read of a part, as the image holds it.
    fn records_of(&self, part: &Part<'_>, size: BlockSize) -> Vec<RangeRecord> {
        let stretches = part.stretches.iter();
        let known = stretches.filter_map(|stretch| match &stretch.what {
            Stored::Bytes(record) | Stored::Zero(record) => {
                Some((record, part.filled.bytes.get(stretch.bytes.clone())?))
            }
            Stored::Hole(_) => None,
        });
        known
            .map(|(record, bytes)| {
                let at = self
                    .bare_superblock
                    .then(|| superblock_in(record.run, size))
                    .flatten();
                match at {
                    Some(at) => only_superblock(record.run, size, bytes, at),
                    None => record.clone(),
                }
            })
            .collect()
    }

    fn read_level<'s>(
        &mut self,
        level: Level,
        walker: &mut Walker,
        mut feed: Option<(&mut (dyn ImageSink + 's), BlockSize)>,
    ) -> Result<()> {
        let is_remote = self.source.facts().kind == SourceKind::Remote;
        let is_journal = !level.journal.is_empty();
        if let (Some(geometry), true) = (walker.geometry(), is_journal) {
            let size = geometry.block_size;
            self.read_announced(&mut feed)?;
            self.prepare_journal(&level.journal, size)?;
        }
        let Some((sink, size)) = &mut feed else {
            self.source.expect(&level.payload, Priority::Payload);
            if self.source.duplicates().is_some() {
                self.announced.extend(&level.payload);
            }
            self.checks.push(level.checks);
            return self.sweep(&level.ranges, None, &mut |_, part| {
                supply(walker, &part);
                Ok(())
            });
        };
        // Behind a line the walk goes on while the rest is on its way.
        let puts_off = is_remote && sink.order() == WriteOrder::Any;
        let (wanted, checks) = if puts_off && !is_journal {
            self.source.expect(&level.payload, Priority::Payload);
            self.announced.extend(&level.payload);
            self.checks.push(level.checks);
            (level.ranges, Checks::default())
        } else {
            (merge(&level.ranges, &level.payload), level.checks)
        };
        let layout = Layout { size: *size, checks: Some(&checks) };
        self.sweep(&wanted, Some(layout), &mut |capture, part| {
            supply(walker, &part);
            capture.store(&part, *size, *sink)
        })
    }

    /// Reads what was put off: for the sink, or so that it is here.
    fn read_announced<'s>(
        &mut self,
        feed: &mut Option<(&mut (dyn ImageSink + 's), BlockSize)>,
    ) -> Result<()> {
        let announced = merge(&std::mem::take(&mut self.announced), &[]);
        let Some((sink, size)) = feed else {
            return self.sweep(&announced, None, &mut |_, _| Ok(()));
        };
        let checks = Checks::join(std::mem::take(&mut self.checks));
        let layout = Layout { size: *size, checks: Some(&checks) };
        self.sweep(&announced, Some(layout), &mut |capture, part| {
            capture.store(&part, *size, *sink)
        })
    }

    /// All of the image but its journal is here: finds out how little of the journal has to be fetched, and fetches that.
    fn prepare_journal(
        &mut self,
        journal: &[Traced],
        size: BlockSize,
    ) -> Result<()> {
        let source = self.source;
        if source.duplicates().is_none() {
            return Ok(());
        }
        let Some(guess) = JournalGuess::new(source, size, journal)? else {
            return Ok(());
        };
        self.sweep(guess.rest(), None, &mut |_, _| Ok(()))?;
        guess.take_over()
    }

    fn sweep(
        &mut self,
        wanted: &[ByteRange],
        layout: Option<Layout<'_>>,
        each: &mut dyn FnMut(&mut Self, Part<'_>) -> Result<()>,
    ) -> Result<()> {
        let bytes: u64 = wanted.iter().map(|range| range.length().0).sum();
        let total = ByteCount(self.done.0.saturating_add(bytes));
        self.source.expect(wanted, Priority::Structure);
        let sweep = Sweep {
            source: self.source,
            stop: self.stop,
            blocks: layout.map(|layout| layout.size),
            checks: layout.and_then(|layout| layout.checks),
        };
        let findings = sweep.run(wanted, &mut |part| {
            let length = part.filled.range.length();
            each(self, part)?;
            self.done.0 = self.done.0.saturating_add(length.0);
            self.observer.event(&Event::Progress { done: self.done, total });
            Ok(())
        })?;
        self.findings.join(findings);
        Ok(())
    }

    fn store(
        &mut self,
        part: &Part<'_>,
        size: BlockSize,
        sink: &mut dyn ImageSink,
    ) -> Result<()> {
        for stretch in part.stretches {
            let run = stretch.run;
            match &stretch.what {
                Stored::Bytes(record) => {
                    self.collector.add(record);
                    self.stored.insert_run(run);
                    let bytes = part.filled.bytes.get(stretch.bytes.clone());
                    sink.put(run.first(), bytes.unwrap_or(&[]))?;
                    sink.stored(record, false)?;
                }
                Stored::Zero(record) => {
                    self.collector.add(record);
                    self.stored.insert_run(run);
                    sink.zero(run)?;
                    sink.stored(record, true)?;
                }
                Stored::Hole(fault) => self.lose(run, *fault, sink)?,
            }
        }
        for &(bad, _) in part.filled.faults {
            self.losses.add_bytes(bad.length());
            let partly = bad.start().0 % size.bytes_u64() != 0
                || bad.end().0 % size.bytes_u64() != 0;
            if partly && self.losses.sectors.len() < SECTORS_MAX {
                self.losses.sectors.push(bad);
            }
        }
        Ok(())
    }
}

/// Hands a part to the walker, which looks only at what it asked for.
fn supply(walker: &mut Walker, part: &Part<'_>) {
    for piece in part.filled.pieces() {
        walker.supply(piece);
    }
}

/// Two sorted lists of disjoint ranges as one, neighbours joined.
fn merge(one: &[ByteRange], other: &[ByteRange]) -> Vec<ByteRange> {
    let mut all: Vec<ByteRange> = one.iter().chain(other).copied().collect();
    all.sort_unstable();
    all.dedup_by(|next, last| {
        let joined = (last.end() == next.start())
            .then(|| ByteRange::between(last.start(), next.end()))
            .flatten();
        joined.inspect(|&joined| *last = joined).is_some()
    });
    all
}

/// Where in the bytes of `run` the superblock starts, if it lies there.
fn superblock_in(run: BlockRun, size: BlockSize) -> Option<usize> {
    let start = SUPERBLOCK_AT.checked_since(run.first().offset(size)?)?;
    let inside = start < size.bytes_of(run.count())?;
    inside.then(|| usize::try_from(start.0).ok()).flatten()
}

/// The record of `run` with nothing but the superblock, at `at`, in its
/// block.
fn only_superblock(
    run: BlockRun,
    size: BlockSize,
    bytes: &[u8],
    at: usize,
) -> RangeRecord {
    let mut bytes = bytes.to_vec();
    let block = at / size.bytes() * size.bytes();
    let behind = (block + size.bytes()).min(bytes.len());
    let end = (at + SUPERBLOCK_BYTES).min(behind);
    bytes[block..at].fill(0);
    bytes[end..behind].fill(0);
    RangeRecord::of(run, size, &bytes)
}

/// The blocks of `now` that are not what `records` say.
fn differing(now: &RangeRecord, records: &[RangeRecord]) -> Vec<BlockNumber> {
    let blocks = now.run.first().0..now.run.end().0;
    blocks
        .zip(&now.block_crcs)
        .filter(|&(block, crc)| {
            stored_crc(records, BlockNumber(block))
                .is_some_and(|stored| stored != *crc)
        })
        .map(|(block, _)| BlockNumber(block))
        .collect()
}

/// The CRC-32C that `block` had when it was stored.
fn stored_crc(records: &[RangeRecord], block: BlockNumber) -> Option<u32> {
    let behind = records.partition_point(|r| r.run.first() <= block);
    let record = records.get(behind.checked_sub(1)?)?;
    let index = block.checked_since(record.run.first())?;
    record.block_crcs.get(usize::try_from(index.0).ok()?).copied()
}
