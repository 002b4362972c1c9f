//! `image`: makes an image of a filesystem.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::commands::capture::{Capture, Captured, Losses};
use crate::commands::{ImageRequest, Outcome, Output, Report};
use crate::error::{Error, ErrorKind, Result};
use crate::ext::{Scope, Walk, WalkOptions, Walker};
use crate::image::format::Format;
use crate::image::normal::HostFacts;
use crate::image::raw::RawOptions;
use crate::image::{self, ImageOptions, ImageSink, Target, WriteOrder};
use crate::local::output::refuse_bad_target;
use crate::local::{
    LocalOutput, LocalSource, OutputOptions, StdoutStream, output,
};
use crate::observer::{Event, Observer, Phase};
use crate::source::{BlockSource, FileIdentity};
use crate::stop::Stop;
use crate::units::ByteCount;

/// Makes an image as `request` says.
///
/// # Errors
///
/// Any kind but [`ErrorKind::Differs`]; an earlier output is intact then.
pub fn image(
    request: &ImageRequest,
    observer: &dyn Observer,
    stop: &Stop,
) -> Result<Report> {
    let format = request.output.format(request.format)?;
    let source = LocalSource::open(&request.device, request.source_offset)?;
    refuse_mounted(&source, request, observer)?;
    let job = Job { request, format, source: &source, observer, stop };
    if request.dry_run {
        return job.dry_run();
    }
    match &request.output {
        Output::Stdout => job.to_stdout(),
        Output::File(path) => job.to_file(path),
    }
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
            superblock: self.request.superblock,
            block_size: self.request.block_size,
            full_tables: self.request.full_tables,
            device_length: Some(self.source.facts().length),
        })
    }

    fn dry_run(&self) -> Result<Report> {
        let mut capture = Capture::new(self.source, self.observer, self.stop);
        let walk = capture.walk(self.walker(), None)?;
        self.tell_findings(&walk);
        Ok(describe_walk(Report::new(Outcome::Done), &walk)
            .line("Nothing was written."))
    }

    fn to_stdout(&self) -> Result<Report> {
        let mut stream = StdoutStream::new();
        let nowhere = FileIdentity { device: 0, inode: 0, raw_device: 0 };
        let options = self.options("standard output".to_owned(), nowhere);
        let target = Target::Stream(&mut stream);
        let sink = image::create(self.format, &options, target)?;
        let (walk, captured) = self.fill(sink)?;
        Ok(self.report(&walk, &captured, "standard output"))
    }

    fn to_file(&self, path: &Path) -> Result<Report> {
        let sources: Vec<FileIdentity> =
            self.source.facts().file.into_iter().collect();
        let options = OutputOptions {
            overwrite: self.request.overwrite,
            sync: !self.request.no_sync,
            sources: &sources,
        };
        let manifest = output::beside(path, ".manifest.json");
        if !self.request.no_manifest {
            refuse_bad_target(&manifest, options)?;
        }
        let mut file = LocalOutput::create(path, options)?;
        let name = path.display().to_string();
        let options = self.options(name.clone(), file.identity()?);
        let target = Target::File(&mut file);
        let sink = image::create(self.format, &options, target)?;
        let (walk, captured) = self.fill(sink)?;
        self.observer.event(&Event::Phase(Phase::Sync));
        file.publish()?;
        Ok(self.report(&walk, &captured, &name))
    }

    fn options(&self, name: String, output: FileIdentity) -> ImageOptions {
        let request = self.request;
        let facts = self.source.facts();
        ImageOptions {
            name,
            raw: RawOptions {
                dest_offset: request.dest_offset,
                keep_length: false,
            },
            layout: request.layout,
            compression: request.compression,
            host: HostFacts {
                hostname: rustix::system::uname()
                    .nodename()
                    .to_bytes()
                    .to_vec(),
                device: request.device.as_os_str().as_bytes().to_vec(),
                device_number: facts.file.map_or(0, |file| file.raw_device),
                image_device: output.device,
                image_inode: output.inode,
                time: SystemTime::now()
                    .duration_since(UNIX_EPOCH)
                    .map_or(0, |since| since.as_secs()),
            },
        }
    }

    fn fill(
        &self,
        mut sink: Box<dyn ImageSink + '_>,
    ) -> Result<(Walk, Captured)> {
        let mut capture = Capture::new(self.source, self.observer, self.stop);
        let walk = match sink.order() {
            WriteOrder::Any => {
                capture.walk(self.walker(), Some(sink.as_mut()))?
            }
            WriteOrder::Ascending => {
                let walk = capture.walk(self.walker(), None)?;
                capture.copy(&walk, sink.as_mut())?;
                walk
            }
        };
        self.tell_findings(&walk);
        sink.finish()?;
        drop(sink);
        let captured = capture.finish(&walk)?;
        Ok((walk, captured))
    }

    fn tell_findings(&self, walk: &Walk) {
        for finding in &walk.findings {
            self.observer.event(&Event::Finding(finding));
        }
    }

    fn report(&self, walk: &Walk, captured: &Captured, name: &str) -> Report {
        let outcome = if !captured.losses.is_empty() {
            Outcome::Holes
        } else if captured.changed.is_empty() {
            Outcome::Done
        } else {
            Outcome::SourceChanged
        };
        let mut report = describe_walk(Report::new(outcome), walk)
            .fact("output", name)
            .fact("format", self.format.name())
            .fact("stored_blocks", captured.stored.count().0)
            .fact(
                "content",
                blake3::Hash::from(captured.content).to_hex().as_str(),
            );
        report = describe_losses(report, &captured.losses);
        if !captured.changed.is_empty() {
            let blocks: Vec<u64> =
                captured.changed.iter().map(|block| block.0).collect();
            report = report
                .line(format!(
                    "The source changed while it was read ({} of its \
                     superblock, descriptor and journal blocks): the image \
                     may not fit together. Unmount it, or mount it \
                     read-only, and image it again.",
                    blocks.len()
                ))
                .fact("changed_blocks", blocks);
        }
        report.line(format!("Wrote {name}."))
    }
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
