//! Walks a source and hands what the walk selects to a sink: the heart of
//! `image`, and the reading half of `plan`, `verify` and `convert`.

mod retries;

use std::collections::BTreeMap;

use self::retries::Feed;
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
use crate::source::{BlockSource, Found, Payload, Priority, ReadFault, Search};
use crate::stop::Stop;
use crate::transfer::{Part, Patience, Stored, Stretch, Sweep, byte_ranges};
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
    /// Selected blocks that are hard to read: to be stored later.
    postponed: BlockSet,
    /// What these have to be.
    postponed_checks: Checks,
    phase: Option<Phase>,
    done: ByteCount,
    /// How much of what was postponed was tried again.
    tried: ByteCount,
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
    /// What came only when it was tried again; filled in by whoever tried.
    pub recovered: ByteCount,
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
            postponed: BlockSet::new(),
            postponed_checks: Checks::default(),
            phase: None,
            done: ByteCount(0),
            tried: ByteCount(0),
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
        let mut begun = false;
        loop {
            match walker.next_step()? {
                Step::Read(level) if level.sought.is_some() => {
                    self.search(level, &mut walker)?;
                }
                Step::Read(level) => {
                    self.enter(Phase::Walk);
                    let feed = match (&mut sink, walker.geometry()) {
                        (Some(sink), Some(geometry)) if !level.probe => {
                            if !begun {
                                let plan = ImagePlan { geometry, walk: None };
                                sink.begin(&plan)?;
                                begun = true;
                            }
                            Some(&mut **sink)
                        }
                        _ => None,
                    };
                    self.read_level(&level, &mut walker, feed)?;
                }
                Step::Restart => {
                    begun = false;
                    self.start_over();
                }
                Step::Waiting => {
                    let size = walker.geometry().map(|g| g.block_size);
                    if let Some(size) = size {
                        self.read_announced(size, sink.as_deref_mut())?;
                    }
                    let sink = sink.as_deref_mut();
                    let leads_on = self.strive(&mut walker, sink)?;
                    walker.resume(!leads_on);
                }
                Step::Done => break,
            }
        }
        let size = walker.geometry().map(|geometry| geometry.block_size);
        if let (Some(sink), Some(size)) = (&mut sink, size) {
            self.read_announced(size, Some(&mut **sink))?;
        }
        if !self.postponed.is_empty() {
            self.strive(&mut walker, sink.as_deref_mut())?;
        }
        let mut walk = walker.finish()?;
        if let Some(sink) = &mut sink {
            self.give_up(&walk, &mut **sink)?;
        }
        walk.add_findings(std::mem::take(&mut self.findings));
        if let Some(sink) = sink {
            self.leave_out(&walk, sink)?;
        }
        Ok(walk)
    }

    /// Reads what may be what the walk seeks: all of the level, unless the
    /// source can tell what is worth reading.
    fn search(&mut self, level: Level, walker: &mut Walker) -> Result<()> {
        self.enter(Phase::Search);
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
        let Some(Found { places, ended }) = found else {
            self.read_level(&level, walker, None)?;
            self.enter(Phase::Walk);
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
        self.enter(Phase::Walk);
        self.read_level(&Level { ranges: places, ..level }, walker, None)
    }

    /// Walks the source to the end and has everything that is selected
    /// fetched, in whatever order costs least.
    ///
    /// # Errors
    ///
    /// As [`Self::walk`].
    pub fn fetch(&mut self, walker: Walker) -> Result<()> {
        let walk = self.walk(walker, None)?;
        self.read_announced(walk.geometry.block_size, None)?;
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
        self.enter(Phase::Copy);
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
        self.postponed = BlockSet::new();
        self.postponed_checks = Checks::default();
        self.done = ByteCount(0);
        self.tried = ByteCount(0);
    }

    fn enter(&mut self, phase: Phase) {
        if self.phase.replace(phase) != Some(phase) {
            self.observer.event(&Event::Phase(phase));
        }
    }

    /// Computes what is still unknown and looks whether the source changed.
    ///
    /// # Errors
    ///
    /// When the source fails.
    pub fn finish(mut self, walk: &Walk) -> Result<Captured> {
        self.enter(Phase::Verify);
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
        Ok(Captured {
            stored,
            records,
            content,
            losses,
            recovered: ByteCount(0),
            holes: Vec::new(),
            changed,
        })
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
            Stored::Hole(_) | Stored::Postponed => None,
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

    /// Reads what is easy to read of what was put off: for the sink, or so
    /// that it is here.
    fn read_announced(
        &mut self,
        size: BlockSize,
        feed: Feed<'_, '_>,
    ) -> Result<()> {
        let announced = merge(&std::mem::take(&mut self.announced), &[]);
        let Some(sink) = feed else {
            return self.skim(&announced, None, Some(size), &mut |_, _| Ok(()));
        };
        let checks = Checks::join(std::mem::take(&mut self.checks));
        let layout = Layout { size, checks: Some(&checks) };
        self.skim(
            &announced,
            Some(layout),
            Some(size),
            &mut |capture, part| capture.store(&part, size, sink),
        )?;
        self.keep_checks(checks);
        Ok(())
    }

    /// All of the image but its journal is here: finds out how little of the
    /// journal has to be fetched, and fetches that.
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
        self.skim(guess.rest(), None, Some(size), &mut |_, _| Ok(()))?;
        guess.take_over()
    }

    /// Reads `wanted`, however hard that is.
    fn sweep(
        &mut self,
        wanted: &[ByteRange],
        layout: Option<Layout<'_>>,
        each: &mut dyn FnMut(&mut Self, Part<'_>) -> Result<()>,
    ) -> Result<()> {
        self.go_over(Patience::Full, wanted, layout, each)
    }

    /// Reads what is easy to read of `wanted`, once the size of blocks is
    /// known.
    fn skim(
        &mut self,
        wanted: &[ByteRange],
        layout: Option<Layout<'_>>,
        size: Option<BlockSize>,
        each: &mut dyn FnMut(&mut Self, Part<'_>) -> Result<()>,
    ) -> Result<()> {
        let patience = match size {
            Some(_) if self.source.efforts() > 0 => Patience::Little,
            _ => Patience::Full,
        };
        self.go_over(patience, wanted, layout, each)
    }

    fn go_over(
        &mut self,
        patience: Patience,
        wanted: &[ByteRange],
        layout: Option<Layout<'_>>,
        each: &mut dyn FnMut(&mut Self, Part<'_>) -> Result<()>,
    ) -> Result<()> {
        let bytes: u64 = wanted.iter().map(|range| range.length().0).sum();
        let total = ByteCount(self.done.0.saturating_add(bytes));
        self.source.expect(wanted, Priority::Structure);
        let sweep = self.sweep_of(layout);
        let findings = sweep.pass(patience, wanted, &mut |part| {
            let length = part.filled.range.length();
            each(self, part)?;
            self.done.0 = self.done.0.saturating_add(length.0);
            self.observer.event(&Event::Progress { done: self.done, total });
            Ok(())
        })?;
        self.findings.join(findings);
        Ok(())
    }

    fn sweep_of<'l>(&self, layout: Option<Layout<'l>>) -> Sweep<'l>
    where
        'a: 'l,
    {
        Sweep {
            source: self.source,
            stop: self.stop,
            blocks: layout.map(|layout| layout.size),
            checks: layout.and_then(|layout| layout.checks),
        }
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
                Stored::Postponed => {
                    self.postponed.insert_run(run);
                    continue;
                }
            }
            self.count_losses(part, stretch, size);
        }
        Ok(())
    }

    /// Counts what could not be read of a stretch.
    fn count_losses(
        &mut self,
        part: &Part<'_>,
        stretch: &Stretch,
        size: BlockSize,
    ) {
        let Some(place) = stretch.run.bytes(size) else { return };
        let is_hole = matches!(stretch.what, Stored::Hole(_));
        for (bad, _) in part.filled.faults {
            let start = bad.start().max(place.start());
            let lost = ByteRange::between(start, bad.end().min(place.end()));
            let Some(lost) = lost.filter(|lost| !lost.is_empty()) else {
                continue;
            };
            self.losses.add_bytes(lost.length());
            if !is_hole && self.losses.sectors.len() < SECTORS_MAX {
                self.losses.sectors.push(lost);
            }
        }
    }
}

/// Hands a part to the walker, which looks only at what it asked for.
fn supply(walker: &mut Walker, part: &Part<'_>) {
    for piece in part.filled.pieces() {
        // What is left out may come later; what never came is lost.
        if !matches!(piece.what, Payload::Unreadable(_, ReadFault::Skipped)) {
            walker.supply(piece);
        }
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
