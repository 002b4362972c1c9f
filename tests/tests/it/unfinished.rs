//! A raw image that was cut off is gone on with, wherever it was cut: the
//! program killed, or the power gone, at every single write.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use std::{fs, io};

use e2wire::commands::capture::Capture;
use e2wire::digest::Digest;
use e2wire::error::{Error, ErrorKind, Result};
use e2wire::ext::{WalkOptions, Walker};
use e2wire::image::ImageSink;
use e2wire::image::raw::{RawOptions, RawSink};
use e2wire::local::LocalSource;
use e2wire::observer::Silent;
use e2wire::output::OutputFile;
use e2wire::source::{BlockSource, Piece, Priority, SourceFacts};
use e2wire::spool::{
    Identity, InPlace, Resumed, SharedStore, Spool, Store, StoreOptions, Supply,
};
use e2wire::stop::Stop;
use e2wire::units::{ByteCount, ByteOffset, ByteRange};
use e2wire_tests::fixtures::fixture;
use e2wire_tests::{binaries, compare, oracle, tools};

/// Where the filesystem starts in the image.
const OFFSET: ByteOffset = ByteOffset(3 << 10);

/// What happened to a file since it was brought to the disk.
enum Change {
    Write(usize, Vec<u8>),
    Length(usize),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write(at, written) => {
                let end = at + written.len();
                bytes.resize(bytes.len().max(end), 0);
                bytes[*at..end].copy_from_slice(written);
            }
            Self::Length(length) => bytes.resize(*length, 0),
        }
    }
}

/// A file as the disk has it, and what is not there yet.
#[derive(Default)]
struct Platter {
    durable: Vec<u8>,
    changes: Vec<Change>,
    view: Vec<u8>,
}

impl Platter {
    fn change(&mut self, change: Change) {
        change.apply(&mut self.view);
        self.changes.push(change);
    }

    /// What is found after the cut: everything when only the program died,
    /// else what the disk had, and any part of the rest.
    fn after(&self, cut: Cut) -> Vec<u8> {
        let Cut::Power(mut seed) = cut else { return self.view.clone() };
        let mut bytes = self.durable.clone();
        for change in &self.changes {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005) + 1;
            if seed >> 63 == 0 {
                change.apply(&mut bytes);
            }
        }
        bytes
    }
}

#[derive(Clone, Copy, Debug)]
enum Cut {
    Kill,
    Power(u64),
}

/// Both files of a job, which ends at a certain write.
struct Disk {
    files: [Platter; 2],
    writes: usize,
    ends_at: usize,
}

impl Disk {
    fn with(files: [Vec<u8>; 2], ends_at: usize) -> Arc<Mutex<Self>> {
        let files = files.map(|durable| Platter {
            view: durable.clone(),
            durable,
            changes: Vec::new(),
        });
        Arc::new(Mutex::new(Self { files, writes: 0, ends_at }))
    }

    /// Whether the write under way is the last, and torn.
    fn count(&mut self) -> io::Result<bool> {
        self.writes += 1;
        if self.writes > self.ends_at {
            return Err(io::Error::other("gone"));
        }
        Ok(self.writes == self.ends_at)
    }
}

struct CutFile(Arc<Mutex<Disk>>, usize);

impl OutputFile for CutFile {
    fn write_at(&mut self, at: ByteOffset, bytes: &[u8]) -> io::Result<()> {
        let mut disk = self.0.lock().unwrap();
        let torn = disk.count()?;
        let written = if torn { &bytes[..bytes.len() / 2] } else { bytes };
        let change = Change::Write(at.0 as usize, written.to_vec());
        disk.files[self.1].change(change);
        if torn { Err(io::Error::other("cut")) } else { Ok(()) }
    }

    fn read_at(&self, at: ByteOffset, into: &mut [u8]) -> io::Result<()> {
        let disk = self.0.lock().unwrap();
        let start = at.0 as usize;
        let bytes = disk.files[self.1].view.get(start..start + into.len());
        into.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn length(&self) -> io::Result<ByteCount> {
        let disk = self.0.lock().unwrap();
        Ok(ByteCount(disk.files[self.1].view.len() as u64))
    }

    fn set_length(&mut self, length: ByteCount) -> io::Result<()> {
        let mut disk = self.0.lock().unwrap();
        let torn = disk.count()?;
        disk.files[self.1].change(Change::Length(length.0 as usize));
        if torn { Err(io::Error::other("cut")) } else { Ok(()) }
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut disk = self.0.lock().unwrap();
        if disk.writes >= disk.ends_at {
            return Err(io::Error::other("gone"));
        }
        let file = &mut disk.files[self.1];
        for change in file.changes.drain(..) {
            change.apply(&mut file.durable);
        }
        Ok(())
    }

    fn starts_zeroed(&self) -> bool {
        true
    }
}

/// A local source that delivers as a line would.
struct Slow {
    source: LocalSource,
    wanted: Mutex<VecDeque<ByteRange>>,
}

impl Supply for Slow {
    fn facts(&self) -> &SourceFacts {
        self.source.facts()
    }

    fn now(&self) -> Duration {
        Duration::ZERO
    }

    fn want(&self, ranges: &[ByteRange], _: Priority) {
        let ranges = ranges.iter().flat_map(|range| range.cut(32 << 10));
        self.wanted.lock().unwrap().extend(ranges);
    }

    fn arrive(&self, each: &mut dyn FnMut(Piece<'_>)) -> Result<()> {
        let next = self.wanted.lock().unwrap().pop_front();
        let Some(range) = next else {
            return Err(Error::new(ErrorKind::Internal, "nothing wanted"));
        };
        self.source.read(&[range], &mut |piece| {
            each(piece);
            std::ops::ControlFlow::Continue(())
        })
    }

    fn changed(
        &self,
        ranges: &[(ByteRange, Digest)],
    ) -> Result<Vec<ByteRange>> {
        let mut changed = Vec::new();
        for (range, digest) in ranges {
            let mut hasher = blake3::Hasher::new();
            self.source.read(&[*range], &mut |piece| {
                if let e2wire::source::Payload::Bytes(bytes) = piece.what {
                    hasher.update(bytes);
                }
                std::ops::ControlFlow::Continue(())
            })?;
            if hasher.finalize().as_bytes() != digest {
                changed.push(*range);
            }
        }
        Ok(changed)
    }
}

fn source() -> LocalSource {
    let fixture = fixture("ext3-1k");
    LocalSource::open(&fixture.path, ByteOffset(fixture.offset())).unwrap()
}

fn capture(source: &dyn BlockSource, sink: &mut dyn ImageSink) -> Result<()> {
    let walker = Walker::new(WalkOptions {
        device_length: Some(source.facts().length),
        ..WalkOptions::default()
    });
    let stop = Stop::new();
    let mut capture = Capture::new(source, &Silent, &stop);
    let walk = capture.walk(walker, Some(sink))?;
    sink.finish()?;
    let captured = capture.finish(&walk)?;
    assert!(captured.changed.is_empty());
    Ok(())
}

/// One run of the job; answers how much an earlier one had left.
fn run(disk: &Arc<Mutex<Disk>>, over_a_line: bool) -> Result<u64> {
    let file = |index| Box::new(CutFile(Arc::clone(disk), index));
    let options =
        StoreOptions { note_bytes: 8 << 10, ..StoreOptions::new(OFFSET, true) };
    let identity = Identity::new().with("device", "sda3");
    let store = Store::open(file(0), file(1), &identity, options)?;
    let mut out = CutFile(Arc::clone(disk), 0);
    let raw = RawOptions { dest_offset: OFFSET, keep_length: false };
    let raw = RawSink::new(&mut out, "image", raw);
    if over_a_line {
        let slow = Slow { source: source(), wanted: Mutex::default() };
        let spool = Spool::open(slow, store)?;
        let store = spool.store().clone();
        capture(&spool, &mut InPlace::new(raw, store.clone(), true))?;
        return Ok(store.lock().resumed().0);
    }
    let store = SharedStore::new(store);
    let source = source();
    let resumed = Resumed::new(&source, &store)?;
    capture(&resumed, &mut InPlace::new(raw, store.clone(), false))?;
    Ok(store.lock().resumed().0)
}

fn check(over_a_line: bool) {
    let whole = Disk::with([Vec::new(), Vec::new()], usize::MAX);
    assert_eq!(run(&whole, over_a_line).unwrap(), 0);
    let (image, writes) = {
        let disk = whole.lock().unwrap();
        (disk.files[0].view.clone(), disk.writes)
    };
    assert!(writes > 12, "a job of {writes} writes shows little");
    let mut most = 0;
    for ends_at in 1..=writes {
        let cuts = [Cut::Kill, Cut::Power(ends_at as u64), Cut::Power(1 << 62)];
        let disk = Disk::with([Vec::new(), Vec::new()], ends_at);
        if run(&disk, over_a_line).is_ok() {
            // Only the map of a job that is done was still being written.
            assert!(disk.lock().unwrap().files[0].view == image);
            continue;
        }
        for cut in cuts {
            let files = {
                let disk = disk.lock().unwrap();
                [disk.files[0].after(cut), disk.files[1].after(cut)]
            };
            let again = Disk::with(files, usize::MAX);
            most = run(&again, over_a_line).unwrap().max(most);
            let made = &again.lock().unwrap().files[0].view;
            assert!(*made == image, "cut at {ends_at}: {cut:?}");
        }
    }
    assert!(most > image.len() as u64 / 100, "{most} bytes were saved at most");
}

#[test]
fn a_local_raw_image_goes_on_wherever_it_was_cut() {
    check(false);
}

#[test]
fn a_raw_image_over_a_line_goes_on_wherever_it_was_cut() {
    check(true);
}

/// The program itself, killed in the middle.
#[test]
fn a_killed_run_leaves_what_the_same_command_goes_on_with() {
    let folder = tempfile::tempdir_in(e2wire_tests::target()).unwrap();
    let path = |name: &str| folder.path().join(name);
    let noise: Vec<u8> = (0..40_u32 << 20)
        .flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes())
        .collect();
    fs::create_dir(path("tree")).unwrap();
    fs::write(path("tree/noise"), noise).unwrap();
    let disk = path("disk");
    fs::File::create(&disk).unwrap().set_len(200 << 20).unwrap();
    let made = tools::command("mke2fs")
        .args(["-q", "-b", "4096", "-O", "extents,filetype", "-d"])
        .args([path("tree"), disk.clone()])
        .status();
    assert!(made.unwrap().success());
    let image = |output: &Path, more: &[&str]| {
        let mut command = binaries::e2wire();
        command
            .args(["image", "-a", "--no-sync"])
            .args(more)
            .args([&disk, output]);
        command
    };
    let (right, output) = (path("right.raw"), path("a.raw"));
    oracle::assert_success("image", &oracle::run(&mut image(&right, &[])));
    let map = path("a.raw.part.map");
    // It may be faster than we are; not every time.
    let killed = (0..10).any(|_| {
        let _ = fs::remove_file(&output);
        let _ = fs::remove_file(path("a.raw.manifest.json"));
        let mut child = image(&output, &[]).spawn().unwrap();
        while child.try_wait().unwrap().is_none()
            && fs::metadata(&map).is_ok_and(|map| map.len() == 0)
                | !map.exists()
        {
            std::thread::sleep(Duration::from_millis(1));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        map.exists()
    });
    assert!(killed && !output.exists(), "no run was killed in the middle");
    for (option, name) in
        [("--full-tables", "--full-tables"), ("-B4k", "--blocksize")]
    {
        let refused = oracle::run(&mut image(&output, &[option]));
        assert_eq!(refused.status.code(), Some(5));
        let said = oracle::text(&refused);
        assert!(said.contains(name), "{said}");
    }
    let ended = oracle::run(&mut image(&output, &[]));
    oracle::assert_success("image", &ended);
    assert!(oracle::text(&ended).contains("going on"), "{ended:?}");
    assert_eq!(compare::first_difference(&right, &output).unwrap(), None);
    assert!(!map.exists() && !path("a.raw.part").exists());
    let manifests = [&right, &output].map(|image| {
        let name = format!("{}.manifest.json", image.display());
        fs::read_to_string(name).unwrap()
    });
    assert_eq!(manifests[0], manifests[1]);
}
