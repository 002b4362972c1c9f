//! `image`: makes an image of a filesystem.

use serde_json::{Map, Value};

use crate::commands::capture::{Capture, Captured, Losses};
use crate::commands::destination::Destination;
use crate::commands::reach::{Reach, SpoolPlace, open_source};
use crate::commands::{ImageRequest, Outcome, Output, Report};
use crate::error::{Error, ErrorKind, Result};
use crate::ext::walk::search_in;
use crate::ext::{JournalMode, Scope, Selection, Walk, WalkOptions, Walker};
use crate::image::format::Format;
use crate::image::{ImageSink, WriteOrder};
use crate::observer::{Event, Observer};
use crate::source::BlockSource;
use crate::spool::Identity;
use crate::stop::Stop;
use crate::units::ByteCount;

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
    let place = match &request.output {
        Output::File(path) if !request.dry_run => SpoolPlace::Beside(path),
        _ => SpoolPlace::Temporary,
    };
    let opened = open_source(
        reach,
        &request.device,
        request.source_offset,
        place,
        &asked_for(request, format),
        observer,
        stop,
    )?;
    let source = opened.source();
    refuse_mounted(source, request, observer)?;
    let job = Job { request, format, source, observer, stop };
    let report = if request.dry_run { job.dry_run() } else { job.run() }?;
    opened.done();
    Ok(report)
}

/// What a run that goes on from an unfinished one must have asked for as
/// well: whatever decides which blocks are read, and where they go.
fn asked_for(request: &ImageRequest, format: Format) -> Identity {
    let mut identity = Identity::new().with("--format", format.name());
    for (name, value) in &options(request) {
        let name = match name.as_str() {
            "source_offset" => continue,
            name => format!("--{}", name.replace('_', "-")),
        };
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
    source: &'a dyn BlockSource,
    observer: &'a dyn Observer,
    stop: &'a Stop,
}

impl Job<'_> {
    fn walker(&self) -> Walker {
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
            device_length: Some(self.source.facts().length),
            search: search_in(self.source.facts()),
        })
    }

    fn dry_run(&self) -> Result<Report> {
        let mut capture = Capture::new(self.source, self.observer, self.stop);
        let walk = capture.walk(self.walker(), None)?;
        self.tell_findings(&walk);
        Ok(describe_walk(Report::new(Outcome::Done), &walk)
            .line("Nothing was written."))
    }

    fn run(&self) -> Result<Report> {
        let request = self.request;
        let destination = Destination {
            output: &request.output,
            format: self.format,
            dest_offset: request.dest_offset,
            layout: request.layout,
            compression: request.compression,
            device: &request.device,
            source: self.source.facts(),
            overwrite: request.overwrite,
            no_sync: request.no_sync,
            no_manifest: request.no_manifest,
        };
        let (walk, captured) =
            destination.write(self.observer, &options(request), |sink| {
                self.fill(sink)
            })?;
        Ok(report_capture(&walk, &captured, &destination.name(), self.format))
    }

    fn fill(&self, sink: &mut dyn ImageSink) -> Result<(Walk, Captured)> {
        let mut capture =
            Capture::new(self.source, self.observer, self.stop).checking();
        let walk = match sink.order() {
            WriteOrder::Any => capture.walk(self.walker(), Some(sink))?,
            WriteOrder::Ascending => {
                let walk = capture.walk(self.walker(), None)?;
                capture.copy(&walk, sink)?;
                walk
            }
        };
        self.tell_findings(&walk);
        sink.finish()?;
        let captured = capture.finish(&walk)?;
        Ok((walk, captured))
    }

    fn tell_findings(&self, walk: &Walk) {
        let size = walk.geometry.block_size;
        let length = size.bytes_of(walk.geometry.blocks);
        let have = self.source.facts().length;
        if length.is_none_or(|length| length > have) {
            self.observer.event(&Event::Warning {
                code: "device_too_short",
                message: format!(
                    "the filesystem claims {} blocks of {size} bytes, more \
                     than the {have} bytes of {}: it may be truncated",
                    walk.geometry.blocks,
                    self.source.facts().name
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
    report = describe_losses(report, &captured.losses);
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
    source: &dyn BlockSource,
    request: &ImageRequest,
    observer: &dyn Observer,
) -> Result<()> {
    if !source.facts().mounted_rw {
        return Ok(());
    }
    let name = &source.facts().name;
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
            "{} findings: the filesystem is damaged, the image holds what \
             could be reached.",
            walk.findings_total
        ));
    }
    report
}

fn describe_losses(report: Report, losses: &Losses) -> Report {
    if losses.is_empty() {
        return report;
    }
    report
        .line(format!(
            "{} bytes could not be read: {} blocks are holes, and {} blocks \
             or more have zeros in a part.",
            losses.bytes,
            losses.hole_count(),
            losses.sectors.len()
        ))
        .fact("lost_bytes", losses.bytes.0)
        .fact("hole_blocks", losses.hole_count().0)
}
