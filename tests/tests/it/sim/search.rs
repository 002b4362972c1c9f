//! The search for copies of a lost superblock, where the disk is slow: it can
//! be ended at any time, and made again.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use e2wire::commands::capture::Capture;
use e2wire::error::{ErrorKind, Result};
use e2wire::ext::{Walk, WalkOptions, Walker};
use e2wire::observer::{Event, Observer, Phase};
use e2wire::remote::session::{Patience, Session};
use e2wire::remote::source::RemoteDevice;
use e2wire::source::BlockSource as _;
use e2wire::stop::Stop;
use e2wire::units::ByteOffset;
use e2wire_tests::fixtures::fixture;
use e2wire_tests::memory;
use e2wire_tests::sim::{Conditions, Faults, SimLine, World};

use super::{PATIENCE, nature};

/// Looks when the search begins and ends, and ends the job when it has come
/// so far.
struct Ends<'a> {
    world: &'a Mutex<World>,
    stop: &'a Stop,
    at: Option<u64>,
    /// Virtual microseconds.
    began: AtomicU64,
    ended: AtomicU64,
}

impl Observer for Ends<'_> {
    fn event(&self, event: &Event<'_>) {
        match event {
            Event::Phase(Phase::Search) => {
                self.began.store(self.now(), Ordering::Relaxed);
            }
            Event::Phase(_) if self.is_under_way() => {
                self.ended.store(self.now(), Ordering::Relaxed);
            }
            Event::Progress { done, .. }
                if self.is_under_way()
                    && self.at.is_some_and(|at| done.0 >= at) =>
            {
                self.stop.request();
            }
            _ => {}
        }
    }
}

impl Ends<'_> {
    fn now(&self) -> u64 {
        self.world.lock().unwrap().now()
    }

    fn is_under_way(&self) -> bool {
        self.began.load(Ordering::Relaxed) > 0
            && self.ended.load(Ordering::Relaxed) == 0
    }
}

/// Walks what the agent's disk holds; and when the search began and ended.
fn walk(
    world: &Arc<Mutex<World>>,
    conditions: &Conditions,
    deadline: Option<Duration>,
    at: Option<u64>,
) -> (Result<Walk>, [Duration; 2]) {
    let nature = nature(&world.lock().unwrap(), conditions.baud);
    let line = SimLine::new(Arc::clone(world), nature, None);
    let stop = Stop::new();
    let patience = Patience { deadline, ..PATIENCE };
    // Nothing is answered from what was asked by another host.
    let mut seed = [5; 32];
    let now = world.lock().unwrap().now();
    seed[..8].copy_from_slice(&now.to_le_bytes());
    let mut session =
        Session::new(Box::new(line), seed, patience, stop.clone());
    session.connect().unwrap();
    let device = session.devices(true).unwrap().remove(0);
    let session = Arc::new(Mutex::new(session));
    let device = RemoteDevice::new(session, device, ByteOffset(0)).unwrap();
    let walker = Walker::new(WalkOptions {
        device_length: Some(device.facts().length),
        ..WalkOptions::default()
    });
    let (began, ended) = Default::default();
    let observer = Ends { world, stop: &stop, at, began, ended };
    let walk = Capture::new(&device, &observer, &stop).walk(walker, None);
    let times = [observer.began, observer.ended];
    (walk, times.map(|time| Duration::from_micros(time.into_inner())))
}

#[test]
fn a_search_ends_when_told_to_and_can_be_made_again() {
    let mut bytes = std::fs::read(fixture("groups-small").path).unwrap();
    // A copy lies in the first group that is there; nothing behind it.
    bytes[1024..2048].fill(0);
    bytes.resize(40 << 20, 0);
    let local = memory::drive(&bytes, WalkOptions::default()).unwrap().walk;
    let bytes = Arc::new(bytes);
    for (baud, faults) in [
        (0, Faults::default()),
        (115_200, Faults { lose: 2e-4, flip: 2e-4, ..Faults::default() }),
    ] {
        let conditions = Conditions {
            bytes: Arc::clone(&bytes),
            bad: Vec::new(),
            disk_slow: 900_000,
            baud,
            latency: 5000,
            faults,
            reboot_every: 0,
            trip: None,
        };
        let world = Arc::new(Mutex::new(World::new(7, &conditions)));
        let now = || Duration::from_micros(world.lock().unwrap().now());
        let carried = || {
            let tally = world.lock().unwrap().tally();
            tally.from_agent + tally.from_host
        };
        let (start, before) = (now(), carried());
        let (walked, [began, ended]) = walk(&world, &conditions, None, None);
        let walked = walked.unwrap();
        assert_eq!(walked.superblock_at, local.superblock_at);
        assert_eq!(walked.findings, local.findings);
        assert!(walked.selected == local.selected);
        let bytes = carried() - before;
        assert!(bytes < 64 * 1024, "{bytes} bytes at {baud} baud");
        // In the midst of the search, going by that.
        let until = (began + ended) / 2 - start;
        let deadline = now() + until;
        let (walked, [began, ended]) =
            walk(&world, &conditions, Some(deadline), None);
        assert_eq!(walked.unwrap_err().kind(), ErrorKind::Interrupted);
        assert!(began > start && ended.is_zero(), "in the search");
        assert!(now() < deadline + Duration::from_secs(1));
        // When the first answer comes.
        let (walked, _) = walk(&world, &conditions, None, Some(1));
        assert_eq!(walked.unwrap_err().kind(), ErrorKind::Interrupted);
        let (walked, _) = walk(&world, &conditions, None, None);
        assert_eq!(walked.unwrap().findings, local.findings);
    }
}
