//! Disks that stand still for a while: it costs time, and nothing else.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use e2wire::commands::capture::Capture;
use e2wire::error::{ErrorKind, Result};
use e2wire::ext::{WalkOptions, Walker};
use e2wire::image::ImageSink as _;
use e2wire::image::raw::{RawOptions, RawSink};
use e2wire::local::{LocalOutput, LocalSource, OutputOptions};
use e2wire::observer::Silent;
use e2wire::range_set::RangeSet;
use e2wire::rescue::Rescue;
use e2wire::source::{BlockSource, Each, SourceFacts};
use e2wire::stop::Stop;
use e2wire::units::{ByteOffset, ByteRange};
use e2wire_tests::fixtures::fixture;

const PAUSE: Duration = Duration::from_millis(150);

/// A disk of which one read takes long.
struct Stalling<'a> {
    disk: LocalSource,
    reads: AtomicU32,
    /// Which of them, counted from 1.
    slow: u32,
    /// Time is up while it takes.
    ends: Option<&'a Stop>,
}

impl<'a> Stalling<'a> {
    fn new(slow: u32, ends: Option<&'a Stop>) -> Self {
        let path = fixture("ext4-4k-full").path;
        let disk = LocalSource::open(&path, ByteOffset(0)).unwrap();
        Self { disk, reads: AtomicU32::new(0), slow, ends }
    }
}

impl BlockSource for Stalling<'_> {
    fn facts(&self) -> &SourceFacts {
        self.disk.facts()
    }

    fn read(&self, ranges: &[ByteRange], each: Each<'_>) -> Result<()> {
        if self.reads.fetch_add(1, Ordering::Relaxed) + 1 == self.slow {
            thread::sleep(PAUSE);
            if let Some(stop) = self.ends {
                stop.request();
            }
        }
        self.disk.read(ranges, each)
    }
}

fn image(source: &dyn BlockSource, path: &Path, stop: &Stop) -> Result<()> {
    let options = OutputOptions { overwrite: true, sync: false, sources: &[] };
    let rescue = Rescue::new(source, RangeSet::new());
    let mut output = LocalOutput::create(path, options)?;
    let mut sink = RawSink::new(output.file(), "image", RawOptions::default());
    let mut capture = Capture::new(&rescue, &Silent, stop);
    let walker = Walker::new(WalkOptions {
        device_length: Some(source.facts().length),
        ..WalkOptions::default()
    });
    let walk = capture.walk(walker, Some(&mut sink))?;
    sink.finish()?;
    let captured = capture.finish(&walk)?;
    assert!(captured.losses.is_empty(), "what is slow is not lost");
    drop(sink);
    output.publish()
}

#[test]
fn a_disk_that_stands_still_for_a_while_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (good, path) = (folder.path().join("good"), folder.path().join("slow"));
    let stop = Stop::new();
    let quick = Stalling::new(0, None);
    image(&quick, &good, &stop).unwrap();
    let good = fs::read(good).unwrap();
    let reads = quick.reads.load(Ordering::Relaxed);
    assert!(reads > 3, "{reads} reads");
    for slow in 1..=reads {
        image(&Stalling::new(slow, None), &path, &stop).unwrap();
        assert!(fs::read(&path).unwrap() == good, "read {slow} was slow");
    }
}

#[test]
fn time_that_is_up_while_a_disk_stands_still_ends_the_job() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    let quick = Stalling::new(0, None);
    image(&quick, &path, &Stop::new()).unwrap();
    let before = fs::read(&path).unwrap();
    // The last read comes after everything that asks whether to go on.
    for slow in 1..quick.reads.load(Ordering::Relaxed) {
        let stop = Stop::new();
        let source = Stalling::new(slow, Some(&stop));
        let error = image(&source, &path, &stop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Interrupted, "read {slow}");
        assert!(fs::read(&path).unwrap() == before, "what was there stays");
    }
}
