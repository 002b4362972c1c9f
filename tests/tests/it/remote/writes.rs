//! A plan carried out by real agents, both builds, on a file.

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use e2wire::error::{Error, ErrorKind, Result};
use e2wire::install::{Arming, execute};
use e2wire::observer::{Event, Observer, Silent};
use e2wire::remote::line::PortLine;
use e2wire::remote::port;
use e2wire::remote::session::{Patience, Session};
use e2wire::remote::write::RemoteTarget;
use e2wire::stop::Stop;
use e2wire::undo::UndoFile;
use e2wire::units::ByteCount;
use e2wire_tests::agents::{Agent, BUILDS, Build, free_address};
use e2wire_tests::plans::undo_file;
use tempfile::TempDir;

/// The file's contents before and after: a little of everything, and half a
/// megabyte that is all new.
fn contents() -> (Vec<u8>, Vec<u8>) {
    let mut old: Vec<u8> =
        (0..2 << 20).map(|at| (at / 512) as u8 ^ (at % 11) as u8).collect();
    old[1024 + 0x38..1024 + 0x3C].copy_from_slice(&[0x53, 0xEF, 1, 0]);
    let mut new = old.clone();
    new[1024 + 200..1024 + 204].fill(7);
    new[70 << 10..(70 << 10) + 20].fill(9);
    let mut state = 1_u32;
    for byte in &mut new[1 << 20..3 << 19] {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *byte = (state >> 24) as u8;
    }
    new[1_800 << 10..1_900 << 10].fill(0);
    (old, new)
}

type Armed = (Arc<Mutex<Session<'static>>>, RemoteTarget<'static>);

/// A session of its own, which may carry out a plan.
fn arm(target: &str, id: u8, stop: &Stop, undo: &UndoFile) -> Result<Armed> {
    let target = target.parse().expect("a target");
    let line = Box::new(PortLine::new(port::of(&target)?));
    let wait = Duration::from_secs(100);
    let appear = Some(wait);
    let patience = Patience { connect: wait, wait, appear, deadline: None };
    let mut session = Session::new(line, [id; 32], patience, stop.clone());
    session.connect()?;
    let device = session.devices(true)?.remove(0);
    let session = Arc::new(Mutex::new(session));
    let arming = Arming::of(undo);
    let target = RemoteTarget::arm(Arc::clone(&session), device, &arming)?;
    Ok((session, target))
}

/// Carries out a plan on `disk` through an agent of its own.
fn carry_out(
    build: Build,
    disk: &Path,
    rights: &str,
    undo: &UndoFile,
) -> Result<(ByteCount, ByteCount)> {
    let target = format!(
        "pipe:{} --stdio --insecure {rights} --device {}",
        build.path().display(),
        disk.display()
    );
    let (session, mut target) = arm(&target, 7, &Stop::new(), undo)?;
    let done = execute(undo, &mut target, &Silent, &Stop::new())?;
    let sent = session.lock().unwrap().counters().sent_bytes;
    assert!(sent < 900 << 10, "{sent} bytes were sent");
    Ok((done.written, done.found))
}

/// What turns one content of a disk into another, and that back.
struct Plans {
    folder: TempDir,
    old: Vec<u8>,
    new: Vec<u8>,
    there: UndoFile,
    back: UndoFile,
}

impl Plans {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (old, new) = contents();
        let there = undo_file(&folder.path().join("there"), &old, &new);
        let back = undo_file(&folder.path().join("back"), &new, &old);
        Self { folder, old, new, there, back }
    }
}

fn reason(error: &Error) -> String {
    let whole = format!("{error:?}");
    whole.chars().take(300).collect()
}

#[test]
fn a_plan_is_carried_out_found_done_and_undone() {
    let Plans { folder, old, new, there, back } = Plans::new();
    for build in BUILDS {
        let disk = folder.path().join("disk");
        std::fs::write(&disk, &old).expect("a disk");
        let lies = || std::fs::read(&disk).expect("the disk");
        let error = carry_out(build, &disk, "", &there).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotAuthorised);
        assert!(lies() == old);
        let (written, found) = carry_out(build, &disk, "--rw", &there).unwrap();
        assert!(written.0 > 600 << 10 && found.0 == 0, "{written} {found}");
        assert!(lies() == new, "{build:?}");
        let (written, _) = carry_out(build, &disk, "--rw", &there).unwrap();
        assert_eq!(written, ByteCount(0));
        // Somebody writes where the plan undoes.
        let file = std::fs::File::options().write(true).open(&disk).unwrap();
        file.write_all_at(b"theirs", 1 << 20).unwrap();
        let error = carry_out(build, &disk, "--rw", &back).unwrap_err();
        assert_eq!(
            error.kind(),
            ErrorKind::WriteIncomplete,
            "{}",
            reason(&error)
        );
        assert!(lies()[1 << 20..].starts_with(b"theirs"));
        file.write_all_at(&new[1 << 20..(1 << 20) + 6], 1 << 20).unwrap();
        carry_out(build, &disk, "--rw", &back).unwrap();
        assert!(lies() == old, "{build:?} undone");
    }
}

/// Asks a job to stop as soon as it writes.
struct Stops(Stop);

impl Observer for Stops {
    fn event(&self, event: &Event<'_>) {
        if let Event::Progress { .. } = event {
            self.0.request();
        }
    }
}

/// What comes after an interruption is mostly another plan: to undo.
#[test]
fn a_host_that_is_interrupted_lets_the_device_go() {
    let Plans { folder, old, new, there, back } = Plans::new();
    for build in BUILDS {
        let disk = folder.path().join("disk");
        std::fs::write(&disk, &old).expect("a disk");
        let address = free_address().expect("a port");
        let ways = ["--rw", "--listen", &address.to_string()];
        let _agent = Agent::start(build, &disk, &ways).expect("an agent");
        let target = format!("tcp:{address}");
        let stop = Stop::new();
        let (session, mut armed) =
            arm(&target, 1, &stop, &there).expect("armed");
        let ended = execute(&there, &mut armed, &Stops(stop.clone()), &stop);
        let error = ended.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WriteIncomplete);
        assert!(std::fs::read(&disk).expect("the disk") != new, "{error}");
        // The host is still there and is heard: nobody gives way to silence.
        stop.flag().store(false, Ordering::Relaxed);
        let end = Instant::now() + Duration::from_secs(60);
        while let Err(error) = arm(&target, 2, &Stop::new(), &back) {
            assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
            assert!(Instant::now() < end, "it is still armed");
            session.lock().unwrap().devices(false).expect("it answers");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
