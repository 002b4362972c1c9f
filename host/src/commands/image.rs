//! `image`: makes an image of a filesystem.

use std::path::Path;

use serde_json::{Map, Value};

use crate::commands::capture::{Capture, Captured};
use crate::commands::destination::Destination;
use crate::commands::reach::{
    Origin, Reach, SpoolPlace, forget_planned, take_over_planned, tell_resumed,
};
use crate::commands::{ImageRequest, Outcome, Output, Report, holes};
use crate::error::{Error, ErrorKind, Result};
use crate::ext::{JournalMode, Scope, Selection, Walk, WalkOptions, Walker};
use crate::image::format::Format;
use crate::image::raw::RawSink;
use crate::image::{ImageSink, WriteOrder};
use crate::local::OutputOptions;
use crate::local::output::refuse_bad_target;
use crate::mapfile::Mapfile;
use crate::observer::{Event, Observer};
use crate::range_set::RangeSet;
use crate::remote::target::Target;
use crate::rescue::{BadAreas, Rescue};
use crate::source::{BlockSource, SourceFacts};
use crate::spool::{Identity, InPlace, Resumed, SharedStore, Spool};
use crate::stop::Stop;
use crate::text;
use crate::transfer::byte_ranges;
use crate::units::{ByteCount, ByteOffset, ByteRange};

/// Makes an image as `request` says.
///
/// # Errors
///
/// Any kind but [`ErrorKind::Differs`]; an earlier output is intact then.
pub fn image(
    request: &ImageRequest,
    reach: &Reach,
    observer: &dyn Observer,
    stop: &Stop,
) -> Result<Report> {
    let format = request.output.format(request.format)?;
    refuse_early(request, reach)?;
    let origin = Origin::new(
        reach,
        &request.device,
        request.source_offset,
        observer,
        stop,
    )?;
    refuse_mounted(origin.facts(), request, observer)?;
    let identity = origin.identity().and(&asked_for(request, format));
    let map = match &request.map {
        Some(path) => Mapfile::read(path)?.unwrap_or_default(),
        None => Mapfile::default(),
    };
    let job = Job { request, format, map, observer, stop };
    let place = match &request.output {
        Output::File(path) if !request.dry_run => {
            if format == Format::Raw {
                return job.run_in_place(path, origin, &identity);
            }
            SpoolPlace::Beside(path)
        }
        _ => SpoolPlace::Temporary,
    };
    let opened = origin.open(place, &identity, observer)?;
    let source = opened.source();
    let report = match request.dry_run {
        true => job.dry_run(source),
        false => job.run(source),
    }?;
    opened.done();
    Ok(report)
}

/// An output that is there already is said before a line is opened, which
/// may take long. Here nothing takes long, and a better reason may be found.
fn refuse_early(request: &ImageRequest, reach: &Reach) -> Result<()> {
    match &request.output {
        Output::File(path)
            if reach.target != Target::Local && !request.dry_run =>
        {
            let overwrite = request.overwrite;
            let options =
                OutputOptions { overwrite, sync: false, sources: &[] };
            refuse_bad_target(path, options)
        }
        _ => Ok(()),
    }
}

/// What a run that goes on from an unfinished one must have asked for as
/// well: whatever decides which blocks are read, and where they go.
fn asked_for(request: &ImageRequest, format: Format) -> Identity {
    let mut identity = Identity::new().with("--format", format.name());
    for (name, value) in &options(request) {
        let name = format!("--{}", name.replace('_', "-"));
        identity = identity.with(&name, value);
    }
    let identity = match request.superblock {
        None => identity.with("--superblock", "none"),
        Some(_) => identity,
    };
    match request.block_size {
        None => identity.with("--blocksize", "any"),
        Some(_) => identity,
    }
    .with("--dest-offset", request.dest_offset)
}

struct Job<'a> {
    request: &'a ImageRequest,
    format: Format,
    /// What earlier runs know of the device.
    map: Mapfile,
    observer: &'a dyn Observer,
    stop: &'a Stop,
}

impl Job<'_> {
    fn walker(&self, source: &SourceFacts) -> Walker {
        Walker::new(WalkOptions {
            selection: self.request.selection,
            scope: match self.format {
                Format::Normal => Scope::Tables,
                Format::Raw | Format::Qcow2 => self.request.scope,
            },
            journal: self.request.journal,
            superblock: self.request.superblock,
            block_size: self.request.block_size,
            full_tables: self.request.full_tables,
            device_length: Some(source.length),
            trace: false,
            journal_last: false,
        })
    }

    fn dry_run(&self, source: &dyn BlockSource) -> Result<Report> {
        let mut capture = Capture::new(source, self.observer, self.stop);
        let walk = capture.walk(self.walker(source.facts()), None)?;
        self.tell_findings(&walk, source.facts());
        Ok(describe_walk(Report::new(Outcome::Done), &walk)
            .line("Nothing was written."))
    }

    fn run(&self, source: &dyn BlockSource) -> Result<Report> {
        let options = options(self.request);
        let destination = self.destination(source.facts());
        let (walk, captured) =
            destination.write(self.observer, &options, |sink| {
                self.fill(source, sink)
            })?;
        Ok(report_capture(&walk, &captured, &destination.name(), self.format))
    }

    /// A raw image is its own spool.
    fn run_in_place(
        &self,
        path: &Path,
        origin: Origin<'_>,
        identity: &Identity,
    ) -> Result<Report> {
        let facts = origin.facts().clone();
        let device = origin.identity();
        let destination = self.destination(&facts);
        let fill = |mut store, raw: RawSink<'_>| match origin {
            Origin::Remote(remote) => {
                take_over_planned(&mut store, &device)?;
                let spool = Spool::open(*remote, store)?;
                tell_resumed(spool.store(), self.observer);
                let store = spool.store().clone();
                self.fill(&spool, &mut InPlace::new(raw, store, true))
            }
            Origin::Local(source) => {
                let store = SharedStore::new(store);
                let resumed = Resumed::new(&source, &store)?;
                tell_resumed(&store, self.observer);
                let source: &dyn BlockSource =
                    if resumed.is_empty() { &source } else { &resumed };
                self.fill(source, &mut InPlace::new(raw, store, false))
            }
        };
        let (walk, captured) = destination.write_in_place(
            path,
            self.observer,
            &options(self.request),
            identity,
            fill,
        )?;
        forget_planned(&device);
        Ok(report_capture(&walk, &captured, &destination.name(), self.format))
    }

    fn destination<'a>(&'a self, source: &'a SourceFacts) -> Destination<'a> {
        let request = self.request;
        Destination {
            output: &request.output,
            format: self.format,
            dest_offset: request.dest_offset,
            layout: request.layout,
            compression: request.compression,
            device: &request.device,
            source,
            overwrite: request.overwrite,
            no_sync: request.no_sync,
            no_manifest: request.no_manifest,
        }
    }

    fn fill(
        &self,
        source: &dyn BlockSource,
        sink: &mut dyn ImageSink,
    ) -> Result<(Walk, Captured)> {
        let retries = self.request.retries;
        let rescue = Rescue::resumed(source, self.known(), retries);
        let mut made = self.capture(&rescue, sink);
        if let Ok((_, captured)) = &mut made {
            captured.recovered = rescue.recovered();
        }
        if let Some(path) = &self.request.map {
            let map = self.mapped(&rescue, made.as_ref().ok());
            let facts = source.facts();
            let end = facts.length.0.saturating_add(self.start());
            let written = map.write(path, ByteCount(end), facts.file);
            // What ended the job says more than what its map met.
            made.and_then(|made| written.map(|()| made))
        } else {
            made
        }
    }

    fn capture(
        &self,
        source: &dyn BlockSource,
        sink: &mut dyn ImageSink,
    ) -> Result<(Walk, Captured)> {
        let mut capture = Capture::new(source, self.observer, self.stop);
        // Most of a journal need not be sent once the rest is here.
        let saves = source.duplicates().is_some();
        let walker = |last| self.walker(source.facts()).journal_last(last);
        let walk = match sink.order() {
            WriteOrder::Any => capture.walk(walker(saves), Some(sink))?,
            WriteOrder::AsFound => {
                if saves {
                    capture.fetch(walker(true))?;
                }
                capture.walk(walker(false), Some(sink))?
            }
            WriteOrder::Ascending => {
                let mut walk = capture.walk(walker(saves), None)?;
                capture.copy(&mut walk, sink)?;
                walk
            }
        };
        self.tell_findings(&walk, source.facts());
        sink.finish()?;
        let mut captured = capture.finish(&walk)?;
        if !captured.losses.is_empty() {
            let walker = self.walker(source.facts());
            captured.holes = holes::describe(
                &walk,
                &captured.losses,
                source,
                walker,
                self.stop,
            )?;
        }
        Ok((walk, captured))
    }

    /// Where on the device the filesystem starts.
    const fn start(&self) -> u64 {
        self.request.source_offset.0
    }

    /// What earlier runs know, in addresses of the filesystem.
    fn known(&self) -> BadAreas {
        let moved = |set: &RangeSet| {
            let before =
                |at: ByteOffset| ByteOffset(at.0.saturating_sub(self.start()));
            let parts = set.iter();
            parts
                .filter_map(|part| {
                    ByteRange::between(before(part.start()), before(part.end()))
                })
                .collect()
        };
        BadAreas {
            untrimmed: moved(&self.map.untrimmed),
            unscraped: moved(&self.map.unscraped),
            bad: moved(&self.map.bad),
        }
    }

    /// What is known of the device now: what is in the image, and what could
    /// not be read in this run or an earlier one.
    fn mapped(
        &self,
        rescue: &Rescue<'_>,
        made: Option<&(Walk, Captured)>,
    ) -> Mapfile {
        let on_device = |range: ByteRange| {
            let start = range.start().0.checked_add(self.start())?;
            ByteRange::new(ByteOffset(start), range.length())
        };
        let moved = |set: &RangeSet| -> RangeSet {
            set.iter().filter_map(on_device).collect()
        };
        let areas = rescue.bad_areas();
        let mut map = Mapfile {
            finished: RangeSet::new(),
            untrimmed: moved(&areas.untrimmed),
            unscraped: moved(&areas.unscraped),
            bad: moved(&areas.bad),
        };
        if let Some((walk, captured)) = made {
            let runs = captured.stored.runs();
            let stored = byte_ranges(runs, walk.geometry.block_size);
            map.finished.extend(stored.into_iter().filter_map(on_device));
        }
        for failed in [&map.untrimmed, &map.unscraped, &map.bad] {
            for part in failed.iter() {
                map.finished.remove(part);
            }
        }
        // Before the filesystem nothing was read in this run.
        let before = ByteOffset(self.start());
        if let Some(before) = ByteRange::between(ByteOffset(0), before) {
            map.untrimmed.extend(self.map.untrimmed.within(before));
            map.unscraped.extend(self.map.unscraped.within(before));
            map.bad.extend(self.map.bad.within(before));
        }
        map
    }

    fn tell_findings(&self, walk: &Walk, source: &SourceFacts) {
        let size = walk.geometry.block_size;
        let length = size.bytes_of(walk.geometry.blocks);
        let have = source.length;
        if length.is_none_or(|length| length > have) {
            self.observer.event(&Event::Warning {
                code: "device_too_short",
                message: format!(
                    "the filesystem claims {} blocks of {size} bytes, more \
                     than the {have} bytes of {}: it may be truncated",
                    walk.geometry.blocks, source.name
                ),
            });
        }
        if let Some(uuid) = walk.external_journal() {
            self.observer.event(&Event::Warning {
                code: "external_journal",
                message: format!(
                    "the journal lies on another device (UUID {uuid}): it is \
                     not part of the image"
                ),
            });
        }
        for finding in &walk.findings {
            self.observer.event(&Event::Finding(finding));
        }
    }
}

/// What was asked for, for the manifest: by the names of the command line.
fn options(request: &ImageRequest) -> Map<String, Value> {
    let mut options = Map::new();
    let mut set = |name: &str, value: Value| {
        options.insert(name.to_owned(), value);
    };
    set(
        "select",
        match request.selection {
            Selection::Complete => "complete",
            Selection::E2image => "e2image",
        }
        .into(),
    );
    set(
        "journal",
        match request.journal {
            JournalMode::Full => "full",
            JournalMode::Live => "live",
            JournalMode::None => "none",
        }
        .into(),
    );
    set("data", (request.scope == Scope::Data).into());
    set("full_tables", request.full_tables.into());
    set("source_offset", request.source_offset.0.into());
    if let Some(superblock) = request.superblock {
        set("superblock", superblock.0.into());
    }
    if let Some(size) = request.block_size {
        set("blocksize", size.bytes_u64().into());
    }
    options
}

/// What was captured and stored as `name`.
pub(super) fn report_capture(
    walk: &Walk,
    captured: &Captured,
    name: &str,
    format: Format,
) -> Report {
    let outcome = if !captured.losses.is_empty() {
        Outcome::Holes
    } else if captured.changed.is_empty() {
        Outcome::Done
    } else {
        Outcome::SourceChanged
    };
    let content = blake3::Hash::from(captured.content).to_hex();
    let mut report = describe_walk(Report::new(outcome), walk)
        .fact("output", name)
        .fact("format", format.name())
        .fact("stored_blocks", captured.stored.count().0)
        .fact("content", content.as_str());
    report = describe_losses(report, captured);
    if !captured.changed.is_empty() {
        let blocks: Vec<u64> =
            captured.changed.iter().map(|block| block.0).collect();
        report = report
            .line(format!(
                "The source changed while it was read ({} of its superblock, \
                 descriptor and journal blocks): the image may not fit \
                 together. Unmount it, or mount it read-only, and image it \
                 again.",
                blocks.len()
            ))
            .fact("changed_blocks", blocks);
    }
    report.line(format!("Wrote {name}."))
}

/// What is mounted read/write changes under the walk.
fn refuse_mounted(
    source: &SourceFacts,
    request: &ImageRequest,
    observer: &dyn Observer,
) -> Result<()> {
    if !source.mounted_rw {
        return Ok(());
    }
    let name = &source.name;
    if request.force {
        observer.event(&Event::Warning {
            code: "mounted_rw",
            message: format!(
                "{name} is mounted read/write: the image may not fit together"
            ),
        });
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Refused,
        format!(
            "{name} is mounted read/write: its image would not fit together"
        ),
    )
    .intact("nothing was read or written")
    .hint("mount it read-only, or use --force for what can be had"))
}

fn describe_walk(report: Report, walk: &Walk) -> Report {
    let size = walk.geometry.block_size;
    let bytes = size.bytes_of(walk.selected.count()).unwrap_or(ByteCount(0));
    let mut report = report
        .line(format!(
            "{} of {} blocks of {size} bytes selected ({bytes} bytes).",
            walk.selected.count(),
            walk.geometry.blocks,
        ))
        .fact("blocks", walk.selected.count().0)
        .fact("block_size", size.bytes_u64())
        .fact("bytes", bytes.0)
        .fact("findings", walk.findings_total);
    if walk.findings_total > 0 {
        report = report.line(format!(
            "{}: the filesystem is damaged, the image holds what could be \
             reached.",
            text::count(walk.findings_total, "finding")
        ));
    }
    report
}

/// So many holes are told one by one.
const HOLES_TOLD: usize = 20;

fn describe_losses(report: Report, captured: &Captured) -> Report {
    let losses = &captured.losses;
    let mut report = report;
    if captured.recovered.0 > 0 {
        report = report
            .line(format!(
                "{} came only when tried again.",
                text::count(captured.recovered.0, "byte"),
            ))
            .fact("recovered_bytes", captured.recovered.0);
    }
    if losses.is_empty() {
        return report;
    }
    report = report
        .line(format!(
            "{} could not be read: {} left out as holes, {} with zeros \
             in blocks of which the rest was read.",
            text::count(losses.bytes.0, "byte"),
            text::count(losses.hole_count().0, "block"),
            text::count(losses.sectors.len() as u64, "place"),
        ))
        .fact("lost_bytes", losses.bytes.0)
        .fact("hole_blocks", losses.hole_count().0);
    for lost in captured.holes.iter().take(HOLES_TOLD) {
        report = report.line(format!("  lost: {}", lost.sentence()));
    }
    let rest = captured.holes.len().saturating_sub(HOLES_TOLD);
    if rest > 0 {
        report = report.line(format!(
            "  and {rest} more, which --json and the manifest name"
        ));
    }
    let lost = captured.holes.iter().map(|lost| {
        let mut fields = lost.fields();
        fields.insert("first".into(), lost.run.first().0.into());
        fields.insert("count".into(), lost.run.count().0.into());
        fields.insert("why".into(), lost.fault.to_string().into());
        Value::Object(fields)
    });
    report.fact("lost", lost.collect::<Vec<Value>>())
}
