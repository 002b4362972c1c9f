//! `verify`: checks an image against its manifest, and perhaps a device.

use std::collections::BTreeMap;
use std::path::Path;

use crate::batch::{Batch, Filled};
use crate::block_set::BlockSet;
use crate::commands::capture::Capture;
use crate::commands::{Outcome, Report, VerifyRequest};
use crate::digest::{RangeRecord, ranges};
use crate::error::{Error, ErrorKind, Result};
use crate::ext::{BlockKind, Scope, Selection, Walk, WalkOptions, Walker};
use crate::image::format::Format;
use crate::image::{self, OpenImage};
use crate::local::LocalSource;
use crate::manifest::{self, Manifest};
use crate::observer::{Event, Observer, Phase};
use crate::source::BlockSource;
use crate::stop::Stop;
use crate::transfer::{Part, Stored, Sweep, byte_ranges};
use crate::units::{
    BlockCount, BlockNumber, BlockRun, BlockSize, ByteCount, ByteOffset,
    ByteRange,
};

/// How many runs of bad blocks are listed; all are counted.
const LISTED_MAX: usize = 1000;

/// How many runs people are shown.
const LINES_MAX: usize = 20;

/// Checks what `request` says.
///
/// # Errors
///
/// [`ErrorKind::Refused`] when there is nothing to check against, and what
/// reading brings. An image that is not what it should be is no error but
/// [`Outcome::Differs`].
pub fn verify(
    request: &VerifyRequest,
    observer: &dyn Observer,
    stop: &Stop,
) -> Result<Report> {
    let known = manifest::read(&request.image)?;
    let image = OpenedImage::open(&request.image, known.as_ref())?;
    let normal = image.is_normal();
    let job = Job { image: image.source(), normal, observer, stop };
    observer.event(&Event::Phase(Phase::Verify));
    let mut bad = BlockSet::new();
    let mut report = Report::new(Outcome::Done);
    if let Some((manifest, records)) = &known {
        let size = manifest.block_size()?;
        bad = job.against_records(records, size)?;
        if bad.is_empty() {
            report = report.line(format!(
                "All {} blocks are what the manifest says.",
                manifest.stored
            ));
        }
    }
    let walk = job.walk(known.as_ref().map(|(manifest, _)| manifest));
    if let Some(device) = &request.against {
        let (size, wanted) = match (&known, &walk, &image) {
            (Some((manifest, records)), ..) => {
                let runs = records.iter().map(|record| record.run);
                (manifest.block_size()?, runs.collect())
            }
            (None, Ok(walk), OpenedImage::Any(image)) => {
                // A raw file has data in larger units than blocks.
                let size = walk.geometry.block_size;
                let mut held = image.stored.whole(size);
                held.intersect_with(&walk.selected);
                (size, ranges(&held, size).collect())
            }
            (None, Err(_), _) => return walk.map(|_| report),
            (None, _, OpenedImage::Shifted(_)) => return Err(nothing(request)),
        };
        let differing = job.against_device(device, &known, size, wanted)?;
        if differing.is_empty() {
            report = report
                .line(format!("{} holds the same blocks.", device.display()));
        }
        report = report
            .fact("against", device.display().to_string())
            .fact("device_differs", differing.count().0);
        bad.union_with(&differing);
    } else if known.is_none() {
        return Err(nothing(request));
    }
    report = report.fact("bad_blocks", bad.count().0);
    if bad.is_empty() {
        return Ok(report);
    }
    report.outcome = Outcome::Differs;
    let size = match (&known, &walk) {
        (Some((manifest, _)), _) => manifest.block_size()?,
        (None, Ok(walk)) => walk.geometry.block_size,
        (None, Err(_)) => BlockSize::MIN,
    };
    Ok(describe(report, &bad, walk.ok().as_ref(), size))
}

/// The blocks of an image that are not what the records of its manifest say.
///
/// # Errors
///
/// When the image cannot be read at all.
pub(super) fn against_records(
    image: &dyn BlockSource,
    records: &[RangeRecord],
    size: BlockSize,
    observer: &dyn Observer,
    stop: &Stop,
) -> Result<BlockSet> {
    observer.event(&Event::Phase(Phase::Verify));
    let job = Job { image, normal: false, observer, stop };
    job.against_records(records, size)
}

/// An image, at its place in a file.
enum OpenedImage {
    Any(OpenImage),
    /// A raw image that does not begin where its file does.
    Shifted(LocalSource),
}

impl OpenedImage {
    fn open(
        path: &Path,
        known: Option<&(Manifest, Vec<RangeRecord>)>,
    ) -> Result<Self> {
        let offset = known.map_or(0, |(manifest, _)| manifest.dest_offset());
        if offset > 0 {
            return LocalSource::open(path, ByteOffset(offset))
                .map(Self::Shifted);
        }
        // The manifest knows better than the first bytes, which may be bad.
        let format = known.and_then(|(manifest, _)| {
            Format::ALL
                .into_iter()
                .find(|format| manifest.image_format() == format.name())
        });
        image::open(path, format).map(Self::Any)
    }

    fn is_normal(&self) -> bool {
        matches!(self, Self::Any(image) if image.format == Format::Normal)
    }

    fn source(&self) -> &dyn BlockSource {
        match self {
            Self::Any(image) => image.source(),
            Self::Shifted(source) => source,
        }
    }
}

struct Job<'a> {
    image: &'a dyn BlockSource,
    /// It is a normal image, which holds tables only.
    normal: bool,
    observer: &'a dyn Observer,
    stop: &'a Stop,
}

impl Job<'_> {
    /// The blocks that are not what the records say.
    fn against_records(
        &self,
        records: &[RangeRecord],
        size: BlockSize,
    ) -> Result<BlockSet> {
        let runs = records.iter().map(|record| record.run);
        let wanted = byte_ranges(runs, size);
        let mut bad = BlockSet::new();
        let mut expected = records.iter();
        self.sweep(self.image, &wanted, size, &mut |part| {
            // The ranges of records never cross a mebibyte, so each comes as
            // one part.
            if let Some(record) = expected.next() {
                bad.union_with(&differing(record, part));
            }
            Ok(())
        })?;
        Ok(bad)
    }

    /// The blocks that the device holds otherwise than the image.
    fn against_device(
        &self,
        device: &Path,
        known: &Option<(Manifest, Vec<RangeRecord>)>,
        size: BlockSize,
        wanted: Vec<BlockRun>,
    ) -> Result<BlockSet> {
        let offset =
            known.as_ref().map_or(0, |(manifest, _)| manifest.source_offset());
        let device = LocalSource::open(device, ByteOffset(offset))?;
        let wanted = byte_ranges(wanted, size);
        let mut bad = BlockSet::new();
        let mut batch = Batch::default();
        let normal = self.normal;
        self.sweep(&device, &wanted, size, &mut |part| {
            self.image.read_batch(&[part.filled.range], &mut batch)?;
            if let Some(held) = batch.filled().next() {
                compare(&part.filled, &held, size, normal, &mut bad);
            }
            Ok(())
        })?;
        Ok(bad)
    }

    /// A walk over the image, which tells what a block is for.
    fn walk(&self, known: Option<&Manifest>) -> Result<Walk> {
        let data = known.is_some_and(Manifest::with_data);
        let walker = Walker::new(WalkOptions {
            selection: Selection::Complete,
            scope: match (self.normal, data) {
                (true, _) => Scope::Tables,
                (false, true) => Scope::Data,
                (false, false) => Scope::Metadata,
            },
            device_length: Some(self.image.facts().length),
            ..WalkOptions::default()
        });
        Capture::new(self.image, self.observer, self.stop).walk(walker, None)
    }

    fn sweep(
        &self,
        source: &dyn BlockSource,
        wanted: &[ByteRange],
        size: BlockSize,
        each: &mut dyn FnMut(Part<'_>) -> Result<()>,
    ) -> Result<()> {
        let total = ByteCount(wanted.iter().map(|r| r.length().0).sum());
        let mut done = ByteCount(0);
        let sweep =
            Sweep { source, stop: self.stop, blocks: Some(size), checks: None };
        sweep.run(wanted, &mut |part| {
            done.0 = done.0.saturating_add(part.filled.range.length().0);
            each(part)?;
            self.observer.event(&Event::Progress { done, total });
            Ok(())
        })?;
        Ok(())
    }
}

/// The blocks of `record` that `part` does not hold as they were.
fn differing(record: &RangeRecord, part: Part<'_>) -> BlockSet {
    let mut bad = BlockSet::new();
    for stretch in part.stretches {
        let (Stored::Bytes(now) | Stored::Zero(now)) = &stretch.what else {
            bad.insert_run(stretch.run);
            continue;
        };
        if now == record {
            continue;
        }
        let before = bad.count();
        for (index, block) in (now.run.first().0..now.run.end().0).enumerate() {
            let skip = block.saturating_sub(record.run.first().0);
            let was = usize::try_from(skip)
                .ok()
                .and_then(|skip| record.block_crcs.get(skip));
            if was != now.block_crcs.get(index) {
                bad.insert(BlockNumber(block));
            }
        }
        if bad.count() == before && now.digest != record.digest {
            // Forged, so that the CRCs agree: somewhere in this range.
            bad.insert_run(record.run);
        }
    }
    bad
}

/// Adds the blocks in which two readings of one range differ.
fn compare(
    device: &Filled<'_>,
    image: &Filled<'_>,
    size: BlockSize,
    normal: bool,
    bad: &mut BlockSet,
) {
    let first = size.block_of(device.range.start()).0;
    let sides =
        device.bytes.chunks(size.bytes()).zip(image.bytes.chunks(size.bytes()));
    for (block, (device, image)) in (first..).zip(sides) {
        // A normal image holds the superblock, not the rest of its block.
        let bare = normal && block == 0 && size > BlockSize::MIN;
        let part = if bare { 1024..2048 } else { 0..size.bytes() };
        if device.get(part.clone()) != image.get(part) {
            bad.insert(BlockNumber(block));
        }
    }
    for (fault, _) in device.faults.iter().chain(image.faults) {
        let start = size.block_of(fault.start());
        let end = size.blocks_for(ByteCount(fault.end().0)).0;
        (start.0..end).for_each(|block| {
            bad.insert(BlockNumber(block));
        });
    }
}

/// Says which blocks are bad and what they are for.
fn describe(
    report: Report,
    bad: &BlockSet,
    walk: Option<&Walk>,
    size: BlockSize,
) -> Report {
    let mut kinds: BTreeMap<&str, u64> = BTreeMap::new();
    let mut listed: Vec<(BlockRun, &str)> = Vec::new();
    let blocks = bad.runs().flat_map(|run| run.first().0..run.end().0);
    for block in blocks.map(BlockNumber) {
        let kind = name_of(block, walk, size);
        *kinds.entry(kind).or_default() += 1;
        let grown = listed.last().and_then(|(last, same)| {
            let joins = last.end() == block && *same == kind;
            let count = BlockCount(last.count().0.saturating_add(1));
            joins.then(|| BlockRun::new(last.first(), count)).flatten()
        });
        if let Some(grown) = grown {
            listed.pop();
            listed.push((grown, kind));
        } else if listed.len() < LISTED_MAX {
            let run = BlockRun::new(block, BlockCount(1));
            listed.extend(run.map(|run| (run, kind)));
        }
    }
    let mut report = report.line(match bad.count().0 {
        1 => "One block differs:".to_owned(),
        count => format!("{count} blocks differ:"),
    });
    for (run, kind) in listed.iter().take(LINES_MAX) {
        report = report.line(match run.count().0 {
            1 => format!("  block {}: {kind}", run.first()),
            _ => {
                let last = run.end().0.saturating_sub(1);
                format!("  blocks {} to {last}: {kind}", run.first())
            }
        });
    }
    if listed.len() > LINES_MAX {
        let text: Vec<String> = kinds
            .iter()
            .map(|(kind, count)| format!("{count} {kind}"))
            .collect();
        report = report.line(format!("  ... in all {}", text.join(", ")));
    }
    let runs: Vec<serde_json::Value> = listed
        .iter()
        .map(|(run, kind)| {
            serde_json::json!({
                "first": run.first().0, "count": run.count().0, "kind": kind,
            })
        })
        .collect();
    report.fact("bad", runs)
}

/// What a block is for, as far as the image still tells.
fn name_of(
    block: BlockNumber,
    walk: Option<&Walk>,
    size: BlockSize,
) -> &'static str {
    if block == size.block_of(ByteOffset(1024)) {
        return BlockKind::Superblock.name();
    }
    walk.and_then(|walk| walk.kind_of(block))
        .map_or("of unknown kind", BlockKind::name)
}

fn nothing(request: &VerifyRequest) -> Error {
    Error::new(
        ErrorKind::Refused,
        format!(
            "{} has no manifest beside it to be checked against",
            request.image.display()
        ),
    )
    .hint("compare it with the device: --against DEVICE")
}
