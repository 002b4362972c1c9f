//! Jobs that write, over bad lines and cut after every single write and
//! flush: they end complete, go on where they were, or are undone; no byte
//! outside of the plan changes.

use std::path::Path;
use std::sync::{Arc, Mutex};

use e2wire::error::{ErrorKind, Result};
use e2wire::install::{Arming, execute};
use e2wire::observer::Silent;
use e2wire::remote::session::Session;
use e2wire::remote::write::RemoteTarget;
use e2wire::stop::Stop;
use e2wire::undo::UndoFile;
use e2wire_tests::plans::undo_file;
use e2wire_tests::sim::{Conditions, Faults, Random, SimLine, Trip, World};

use super::{PATIENCE, each_seed, nature};

const SIZE: usize = 512 * 1024;

/// Like metadata: most of it small changes, one stretch all new.
fn disks() -> (Vec<u8>, Vec<u8>) {
    let mut random = Random::new(4);
    let mut old: Vec<u8> =
        (0..SIZE).map(|at| (at / 512) as u8 ^ (at % 7) as u8).collect();
    // The magic number, and s_state: clean.
    old[1024 + 0x38..1024 + 0x3C].copy_from_slice(&[0x53, 0xEF, 1, 0]);
    let mut new = old.clone();
    for block in [3, 4, 5, 9, 20, 40, 41, 100, 333] {
        new[block * 1024 + 100..block * 1024 + 140].fill(0xA0);
    }
    for byte in &mut new[200 * 1024..296 * 1024] {
        *byte = random.below(256) as u8;
    }
    new[400 * 1024..404 * 1024].fill(0);
    new[1024 + 100] = 77;
    (old, new)
}

/// In memory where there is such a place: every undo file is synced.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

struct Job<'a> {
    world: &'a Arc<Mutex<World>>,
    baud: u32,
    random: Random,
}

impl Job<'_> {
    /// One host carries out a plan, as far as it comes.
    fn host(&mut self, undo: &UndoFile, dies_at: Option<u64>) -> Result<()> {
        let nature = nature(&self.world.lock().unwrap(), self.baud);
        let line = SimLine::new(Arc::clone(self.world), nature, dies_at);
        let mut id = [0; 32];
        id[..8].copy_from_slice(&self.random.next().to_le_bytes());
        let mut session =
            Session::new(Box::new(line), id, PATIENCE, Stop::new());
        session.connect()?;
        let device = session.devices(true)?.remove(0);
        let session = Arc::new(Mutex::new(session));
        let mut target = loop {
            let session = Arc::clone(&session);
            let armed = RemoteTarget::arm(
                Arc::clone(&session),
                device.clone(),
                &Arming::of(undo),
            );
            match armed {
                // The session of a dead host is still there for a while.
                Err(error) if error.kind() == ErrorKind::Refused => {
                    let mut session = session.lock().unwrap();
                    let now = session.now();
                    let until = now.after(std::time::Duration::from_secs(11));
                    while session.now() < until {
                        session.idle(until)?;
                    }
                }
                other => break other?,
            }
        };
        execute(undo, &mut target, &Silent, &Stop::new()).map(drop)
    }

    fn bytes(&self) -> Vec<u8> {
        self.world.lock().unwrap().medium().bytes()
    }
}

fn world(seed: u64, conditions: &Conditions) -> Arc<Mutex<World>> {
    Arc::new(Mutex::new(World::new(seed, conditions)))
}

fn quiet(old: &[u8], trip: Option<(u64, Trip)>, baud: u32) -> Conditions {
    Conditions {
        bytes: Arc::new(old.to_vec()),
        bad: Vec::new(),
        disk_slow: 1000,
        baud,
        latency: 500,
        faults: Faults::default(),
        reboot_every: 0,
        trip,
    }
}

/// Every byte is an old or a new one; only the superblock may be marked.
#[track_caller]
fn check_bytes(what: &str, now: &[u8], old: &[u8], new: &[u8]) {
    for (at, byte) in now.iter().enumerate() {
        let legal =
            [old[at], new[at]].contains(byte) || (1024..2048).contains(&at);
        assert!(legal, "{what}: byte {at}");
    }
}

/// Undoes whatever lies there.
fn undo(job: &mut Job<'_>, path: &Path, old: &[u8]) {
    let back = undo_file(path, &job.bytes(), old);
    job.host(&back, None).unwrap();
    assert!(job.bytes() == old, "undone");
}

#[test]
fn a_cut_after_any_write_or_flush_leaves_nothing_lost() {
    let (old, new) = disks();
    let folder = folder();
    let plan = undo_file(&folder.path().join("plan"), &old, &new);
    let whole = world(1, &quiet(&old, None, 0));
    let mut job = Job { world: &whole, baud: 0, random: Random::new(1) };
    job.host(&plan, None).unwrap();
    assert!(job.bytes() == new);
    let jobs = whole.lock().unwrap().medium().jobs();
    assert!((20..80).contains(&jobs), "{jobs} writes and flushes");
    let trips = [Trip::Power, Trip::Agent, Trip::Line, Trip::Host];
    each_seed(0..jobs * 4, |seed| {
        let trip = trips[(seed % 4) as usize];
        let what = format!("{trip:?} after {}", seed / 4 + 1);
        let conditions = quiet(&old, Some((seed / 4 + 1, trip)), 0);
        let world = world(seed, &conditions);
        let random = Random::new(seed);
        let mut job = Job { world: &world, baud: 0, random };
        let first = job.host(&plan, None);
        if trip == Trip::Host {
            first.unwrap_err();
            check_bytes(&what, &job.bytes(), &old, &new);
            if seed % 8 < 4 && job.bytes() != old {
                undo(&mut job, &folder.path().join(what), &old);
                return;
            }
            job.host(&plan, None).unwrap();
        } else {
            // Everything else is the host's to bear.
            first.unwrap();
        }
        assert!(job.bytes() == new, "{what}");
    });
}

fn conditions(seed: u64, old: &[u8]) -> Conditions {
    let mut random = Random::new(seed ^ 0x817e);
    let baud = [0, 115_200, 921_600, 115_200][random.below(4) as usize];
    let faults = Faults::drawn(&mut random);
    Conditions {
        disk_slow: [1000, 50_000, 900_000][random.below(3) as usize],
        latency: [50, 5000, 40_000][random.below(3) as usize],
        faults,
        reboot_every: [0, 0, 15_000_000][random.below(3) as usize],
        ..quiet(old, None, baud)
    }
}

#[test]
fn plans_are_carried_out_over_bad_lines() {
    let (old, new) = disks();
    let folder = folder();
    let plan = undo_file(&folder.path().join("plan"), &old, &new);
    each_seed(0..80, |seed| {
        let conditions = conditions(seed, &old);
        let world = world(seed, &conditions);
        let random = Random::new(seed);
        let baud = conditions.baud;
        let mut job = Job { world: &world, baud, random };
        let mut kills = [0, 0, 1, 3][(seed % 4) as usize];
        loop {
            let dies_at = (kills > 0).then(|| {
                let now = job.world.lock().unwrap().now();
                now + 200_000 + job.random.below(10_000_000)
            });
            let done = job.host(&plan, dies_at);
            check_bytes("bad line", &job.bytes(), &old, &new);
            match done {
                Ok(()) => break,
                Err(error) => {
                    assert!(kills > 0, "seed {seed}: {error}");
                    kills -= 1;
                }
            }
        }
        assert!(job.bytes() == new, "seed {seed}");
        let world = world.lock().unwrap();
        let seconds = world.now() / 1_000_000;
        let bound = 240 + 20 * world.tally().reboots;
        assert!(seconds < bound, "seed {seed}: {seconds} s {conditions:?}");
    });
}
