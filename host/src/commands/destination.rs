//! Where an image goes: opens the output, makes the sink for it, and gives
//! the finished file its name.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::commands::Output;
use crate::error::Result;
use crate::image::format::{Format, Qcow2Compression, Qcow2Layout};
use crate::image::normal::HostFacts;
use crate::image::raw::RawOptions;
use crate::image::{self, ImageOptions, ImageSink, Target};
use crate::local::output::{beside, refuse_bad_target};
use crate::local::{LocalOutput, OutputOptions, StdoutStream};
use crate::observer::{Event, Observer, Phase};
use crate::source::{FileIdentity, SourceFacts};
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

    /// Opens the output, lets `fill` make the whole image, and publishes it.
    pub(super) fn write<T>(
        &self,
        observer: &dyn Observer,
        fill: impl FnOnce(&mut dyn ImageSink) -> Result<T>,
    ) -> Result<T> {
        let path = match self.output {
            Output::Stdout => {
                let mut stream = StdoutStream::new();
                return self.fill(Target::Stream(&mut stream), None, fill);
            }
            Output::File(path) => path,
        };
        let sources: Vec<FileIdentity> = self.source.file.into_iter().collect();
        let options = OutputOptions {
            overwrite: self.overwrite,
            sync: !self.no_sync,
            sources: &sources,
        };
        if !self.no_manifest {
            refuse_bad_target(&beside(path, ".manifest.json"), options)?;
        }
        let mut file = LocalOutput::create(path, options)?;
        let identity = file.identity()?;
        let whole = self
            .fill(Target::File(&mut file), Some(identity), fill)
            .and_then(|result| {
                observer.event(&Event::Phase(Phase::Sync));
                file.publish().map(|()| result)
            });
        whole.map_err(|error| match error.what_is_intact() {
            Some(_) => error,
            None => error.intact(format!(
                "the source; an earlier {} is as it was",
                path.display()
            )),
        })
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
