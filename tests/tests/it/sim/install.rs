//! The whole verb over a long line: what it costs in round trips.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use e2wire::commands::install::{Ended, InstallRequest, install_to};
use e2wire::commands::writing::{LocalUndo, Reached};
use e2wire::error::Result;
use e2wire::observer::Silent;
use e2wire::remote::session::Session;
use e2wire::stop::Stop;
use e2wire::undo::UndoFile;
use e2wire_tests::rescue::Rescue;
use e2wire_tests::sim::{Conditions, Faults, Random, SimLine, World};

use super::{PATIENCE, nature};

/// From one end to the other: a satellite, or a console behind three others.
const LATENCY_MICROS: u64 = 300_000;

fn install(
    world: &Arc<Mutex<World>>,
    request: &InstallRequest,
) -> Result<Ended> {
    let line = nature(&world.lock().unwrap(), 0);
    let line = SimLine::new(Arc::clone(world), line, None);
    let mut session =
        Session::new(Box::new(line), [7; 32], PATIENCE, Stop::new());
    session.connect()?;
    let session = Arc::new(Mutex::new(session));
    let reached = Reached::over(session, Path::new("/dev/sda3"))?;
    install_to(request, &reached, &LocalUndo, &Silent, &Stop::new())
}

#[test]
fn old_contents_come_many_in_a_round_trip_and_only_once() {
    let rescue = Rescue::new("ext4-1k-full");
    let image = rescue.image("a.qcow2", &[]);
    let good = rescue.bytes();
    let mut random = Random::new(3);
    for at in (40 << 10..236 << 10).step_by(2048) {
        // What nothing compresses.
        let noise: Vec<u8> =
            (0..1000).map(|_| random.below(256) as u8).collect();
        rescue.poke(at, &noise);
    }
    let conditions = Conditions {
        bytes: Arc::new(rescue.bytes()),
        bad: Vec::new(),
        disk_slow: 1000,
        baud: 0,
        latency: LATENCY_MICROS,
        faults: Faults::default(),
        reboot_every: 0,
        trip: None,
    };
    let world = Arc::new(Mutex::new(World::new(1, &conditions)));
    let undo = rescue.path("undo");
    let mut request = InstallRequest {
        image,
        device: PathBuf::from("/dev/sda3"),
        undo: Some(undo.clone()),
        audit: Some(rescue.path("audit")),
        ..InstallRequest::default()
    };
    let (_, plan) = install(&world, &request).unwrap();
    let plan = plan.unwrap();
    let (planned_at, planned) = {
        let world = world.lock().unwrap();
        (world.now(), world.tally())
    };
    request.confirm = plan.confirm;
    install(&world, &request).unwrap();
    let world = world.lock().unwrap();
    let now = world.medium().bytes();
    let entries = UndoFile::open(&undo).unwrap().entries().len() as u64;
    let trips = (world.now() - planned_at) / (2 * LATENCY_MICROS);
    let planning = planned_at / (2 * LATENCY_MICROS);
    println!("{entries} writes, {planning} and {trips} round trips");
    assert!(entries >= 90, "{entries}");
    // Connecting, looking at every kind of structure, arming, and for each
    // stage writing, flushing and proving.
    assert!(planning < 40, "{planning} to plan {entries} writes");
    assert!(trips < 60, "{trips} to carry out {entries} writes");
    // The plan read what differs; saving it does not read it again.
    let all = world.tally().from_agent - planned.from_agent;
    let most = planned.from_agent + planned.from_agent / 4 + entries * 300;
    assert!(
        all < most,
        "{all} bytes after {} for the plan",
        planned.from_agent
    );
    assert!(now == good);
}
