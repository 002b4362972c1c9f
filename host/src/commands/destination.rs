//! Where an image goes: opens the output, makes the sink for it, and gives
//! the finished file its name.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};

use crate::commands::Output;
use crate::commands::capture::Captured;
use crate::error::{Error, Result};
use crate::ext::Walk;
use crate::image::format::{Format, Qcow2Compression, Qcow2Layout};
use crate::image::normal::HostFacts;
use crate::image::raw::{RawOptions, RawSink};
use crate::image::{self, ImageOptions, ImageSink, Target};
use crate::local::output::{beside, publish_together, refuse_bad_target};
use crate::local::{LocalOutput, OutputOptions, StdoutStream, Unfinished};
use crate::manifest::{self, DIGESTS_SUFFIX, MANIFEST_SUFFIX, Manifest};
use crate::observer::{Event, Observer, Phase};
use crate::source::{FileIdentity, SourceFacts};
use crate::spool::{Identity, Store, StoreOptions};
use crate::units::ByteOffset;

/// An output, and the image that it shall hold.
#[derive(Clone, Copy)]
pub(super) struct Destination<'a> {
    /// Where it goes.
    pub(super) output: &'a Output,
    pub(super) format: Format,
    /// For raw: where in the output the filesystem starts.
    pub(super) dest_offset: ByteOffset,
    pub(super) layout: Qcow2Layout,
    pub(super) compression: Qcow2Compression,
    /// How the user named the source.
    pub(super) device: &'a Path,
    /// What the source is.
    pub(super) source: &'a SourceFacts,
    pub(super) overwrite: bool,
    pub(super) no_sync: bool,
    pub(super) no_manifest: bool,
}

impl Destination<'_> {
    /// The output as people call it.
    pub(super) fn name(&self) -> String {
        match self.output {
            Output::Stdout => "standard output".to_owned(),
            Output::File(path) => path.display().to_string(),
        }
    }

    /// Opens the output, lets `fill` make the whole image, and publishes it
    /// with its manifest.
    pub(super) fn write(
        &self,
        observer: &dyn Observer,
        options: &Map<String, Value>,
        fill: impl FnOnce(&mut dyn ImageSink) -> Result<(Walk, Captured)>,
    ) -> Result<(Walk, Captured)> {
        let path = match self.output {
            Output::Stdout => {
                let mut stream = StdoutStream::new();
                return self.fill(Target::Stream(&mut stream), None, fill);
            }
            Output::File(path) => path,
        };
        let sources = self.sources();
        let outputs = self.outputs(&sources);
        self.refuse_stale(path, outputs)?;
        let mut output = LocalOutput::create(path, outputs)?;
        let identity = output.file().identity()?;
        self.fill(Target::File(output.file()), Some(identity), fill)
            .and_then(|made| {
                observer.event(&Event::Phase(Phase::Sync));
                self.publish(path, output, options, &made)?;
                Ok(made)
            })
            .map_err(|error| untouched(error, path))
    }

    /// As [`Self::write`] for a raw image in a file, which is its own store:
    /// it goes on with what an unfinished run has left there, and leaves
    /// what it has when it fails.
    pub(super) fn write_in_place(
        &self,
        path: &Path,
        observer: &dyn Observer,
        options: &Map<String, Value>,
        identity: &Identity,
        fill: impl FnOnce(Store, RawSink<'_>) -> Result<(Walk, Captured)>,
    ) -> Result<(Walk, Captured)> {
        let sources = self.sources();
        let outputs = self.outputs(&sources);
        self.refuse_stale(path, outputs)?;
        let mut unfinished = Unfinished::open(path, outputs)?;
        let store = unfinished.files().and_then(|(data, map)| {
            let how = StoreOptions::new(self.dest_offset, !self.no_sync);
            Store::open(data, map, identity, how)
        });
        let made = store.and_then(|store| {
            let raw = self.options(None).raw;
            let out = unfinished.output.file();
            fill(store, RawSink::new(out, &self.name(), raw))
        });
        match made {
            Ok(made) => {
                observer.event(&Event::Phase(Phase::Sync));
                unfinished
                    .finish(|out| self.publish(path, out, options, &made))
                    .map(|()| made)
            }
            Err(error) => Err(unfinished.leave(error)),
        }
        .map_err(|error| untouched(error, path))
    }

    /// Gives the image and its manifest their names.
    fn publish(
        &self,
        path: &Path,
        output: LocalOutput,
        options: &Map<String, Value>,
        (walk, captured): &(Walk, Captured),
    ) -> Result<()> {
        let sources = self.sources();
        let outputs = self.outputs(&sources);
        let mut files = vec![output];
        if !self.no_manifest {
            let manifest = self.manifest(options, walk, captured);
            let records = &captured.records;
            files.extend(manifest::prepare(path, manifest, records, outputs)?);
        }
        publish_together(files, &beside_it(path))
    }

    fn sources(&self) -> Vec<FileIdentity> {
        self.source.file.into_iter().collect()
    }

    fn outputs<'s>(&self, sources: &'s [FileIdentity]) -> OutputOptions<'s> {
        let Self { overwrite, no_sync, .. } = *self;
        OutputOptions { overwrite, sync: !no_sync, sources }
    }

    /// What would have to go without `--overwrite`.
    fn refuse_stale(
        &self,
        path: &Path,
        outputs: OutputOptions<'_>,
    ) -> Result<()> {
        let mut stale = beside_it(path).into_iter();
        stale.try_for_each(|path| refuse_bad_target(&path, outputs))
    }

    fn manifest(
        &self,
        options: &Map<String, Value>,
        walk: &Walk,
        captured: &Captured,
    ) -> Manifest {
        let mut manifest = Manifest::new(self.source, walk);
        manifest.image.insert("format".into(), self.format.name().into());
        if self.dest_offset.0 > 0 {
            manifest
                .image
                .insert("dest_offset".into(), self.dest_offset.0.into());
        }
        manifest.options.clone_from(options);
        for lost in &captured.holes {
            let fields = lost.fields();
            match lost.sectors {
                None => manifest.add_hole(lost.run, lost.fault, fields),
                Some(_) => manifest.add_partial(lost.run, lost.fault, fields),
            }
        }
        if captured.holes.is_empty() {
            for (fault, blocks) in &captured.losses.blocks {
                for run in blocks.runs() {
                    manifest.add_hole(run, fault, Map::new());
                }
            }
        }
        manifest.holes_blocks = captured.losses.hole_count().0;
        manifest
    }

    fn fill<T>(
        &self,
        target: Target<'_>,
        output: Option<FileIdentity>,
        fill: impl FnOnce(&mut dyn ImageSink) -> Result<T>,
    ) -> Result<T> {
        let options = self.options(output);
        let mut sink = image::create(self.format, &options, target)?;
        fill(sink.as_mut())
    }

    fn options(&self, output: Option<FileIdentity>) -> ImageOptions {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        ImageOptions {
            name: self.name(),
            raw: RawOptions {
                dest_offset: self.dest_offset,
                keep_length: false,
            },
            layout: self.layout,
            compression: self.compression,
            host: HostFacts {
                hostname: rustix::system::uname()
                    .nodename()
                    .to_bytes()
                    .to_vec(),
                device: self.device.as_os_str().as_bytes().to_vec(),
                device_number: self.source.file.map_or(0, |f| f.raw_device),
                image_device: output.map_or(0, |file| file.device),
                image_inode: output.map_or(0, |file| file.inode),
                time: now.map_or(0, |since| since.as_secs()),
            },
        }
    }
}

/// Where the manifest of the image `path` stands, and what belongs to it.
fn beside_it(path: &Path) -> [PathBuf; 2] {
    [MANIFEST_SUFFIX, DIGESTS_SUFFIX].map(|suffix| beside(path, suffix))
}

fn untouched(error: Error, path: &Path) -> Error {
    match error.what_is_intact() {
        Some(_) => error,
        None => error.intact(format!(
            "the source; an earlier {} is as it was",
            path.display()
        )),
    }
}
