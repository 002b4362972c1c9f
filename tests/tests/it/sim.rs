//! Jobs over bad lines, in virtual time: whatever happens, the image is the
//! one that a local run makes.

mod install;
mod journal;
mod retries;
mod round_trips;
mod search;
mod seeds;
mod writes;

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use e2wire::commands::capture::Capture;
use e2wire::error::{ErrorKind, Result};
use e2wire::ext::{WalkOptions, Walker};
use e2wire::image::ImageSink;
use e2wire::image::raw::{RawOptions, RawSink};
use e2wire::local::LocalSource;
use e2wire::observer::Silent;
use e2wire::remote::port::Nature;
use e2wire::remote::session::{Patience, Session};
use e2wire::remote::source::RemoteDevice;
use e2wire::source::BlockSource;
use e2wire::spool::{Identity, Spool, Store, StoreOptions};
use e2wire::stop::Stop;
use e2wire::units::ByteOffset;
use e2wire_tests::fixtures::fixture;
use e2wire_tests::shared_file::SharedFile;
use e2wire_tests::sim::{Conditions, Faults, Random, SimLine, World};

/// The raw image of what `source` holds.
fn image(source: &dyn BlockSource, stop: &Stop) -> Result<Vec<u8>> {
    image_by(source, stop, source.duplicates().is_some())
}

fn image_by(
    source: &dyn BlockSource,
    stop: &Stop,
    journal_last: bool,
) -> Result<Vec<u8>> {
    let mut file = SharedFile::default();
    let shared = file.clone();
    let mut sink = RawSink::new(&mut file, "image", RawOptions::default());
    let walker = Walker::new(WalkOptions {
        device_length: Some(source.facts().length),
        journal_last,
        ..WalkOptions::default()
    });
    let mut capture = Capture::new(source, &Silent, stop);
    let walk = capture.walk(walker, Some(&mut sink))?;
    sink.finish()?;
    let captured = capture.finish(&walk)?;
    assert!(captured.changed.is_empty(), "nothing changed");
    let bytes = shared.bytes().clone();
    Ok(bytes)
}

/// A disk and its image, made locally.
struct Case {
    bytes: Arc<Vec<u8>>,
    image: Vec<u8>,
}

fn case(name: &'static str) -> Case {
    let fixture = fixture(name);
    let source =
        LocalSource::open(&fixture.path, ByteOffset(fixture.offset())).unwrap();
    let image = image(&source, &Stop::new()).unwrap();
    let bytes = std::fs::read(&fixture.path).unwrap();
    Case { bytes: Arc::new(bytes), image }
}

fn cases() -> &'static [Case] {
    static CASES: OnceLock<Vec<Case>> = OnceLock::new();
    CASES.get_or_init(|| {
        // The journal of the last one holds much that lies elsewhere, too.
        let names =
            ["ext4-1k-full", "ext3-4k-full", "ext2-2k-full", "by-kernel"];
        names.map(case).into()
    })
}

fn nature(world: &World, baud: u32) -> Nature {
    Nature {
        baud: world.is_serial().then_some(baud),
        console: world.is_serial(),
        listens: false,
    }
}

const PATIENCE: Patience = Patience {
    connect: Duration::from_secs(60),
    wait: Duration::from_secs(120),
    appear: None,
    deadline: None,
};

/// What the agent's first device holds, in a spool.
fn spool<'w>(
    mut session: Session<'w>,
    data: &SharedFile,
    map: &SharedFile,
) -> Result<Spool<RemoteDevice<'w>>> {
    session.connect()?;
    let device = session.devices(true)?.remove(0);
    let session = Arc::new(Mutex::new(session));
    let device = RemoteDevice::new(session, device, ByteOffset(0))?;
    let store = Store::open(
        Box::new(data.clone()),
        Box::new(map.clone()),
        &Identity::new().with("device", "sda3"),
        StoreOptions::new(ByteOffset(0), true),
    )?;
    Spool::open(device, store)
}

/// What came of one job over a line that loses nothing.
struct CleanRun {
    image: Vec<u8>,
    /// What the agent sent, in bytes.
    from_agent: u64,
    /// Virtual time from the first Hello on.
    micros: u64,
}

/// Has `make` make an image of `case` at the other end of a line of `baud`
/// bits a second (0: a connection) that takes `latency` microseconds.
fn clean_run(
    case: &Case,
    baud: u32,
    latency: u64,
    make: impl FnOnce(&dyn BlockSource) -> Result<Vec<u8>>,
) -> CleanRun {
    let conditions = Conditions {
        bytes: Arc::clone(&case.bytes),
        bad: Vec::new(),
        disk_slow: 1,
        baud,
        latency,
        faults: Faults::default(),
        reboot_every: 0,
        trip: None,
    };
    let world = Arc::new(Mutex::new(World::new(1, &conditions)));
    let nature = nature(&world.lock().unwrap(), baud);
    let line = SimLine::new(Arc::clone(&world), nature, None);
    let session = Session::new(Box::new(line), [7; 32], PATIENCE, Stop::new());
    let (data, map) = (SharedFile::default(), SharedFile::default());
    let spool = spool(session, &data, &map).unwrap();
    let image = make(&spool).unwrap();
    let world = world.lock().unwrap();
    let (from_agent, micros) = (world.tally().from_agent, world.now());
    CleanRun { image, from_agent, micros }
}

/// One job, however many hosts it takes; answers how many.
fn job(
    seed: u64,
    conditions: &Conditions,
    kills: u32,
    world: &Arc<Mutex<World>>,
) -> (Vec<u8>, u32) {
    let mut random = Random::new(seed ^ 0x5eed);
    let (data, map) = (SharedFile::default(), SharedFile::default());
    let mut hosts = 0;
    loop {
        hosts += 1;
        assert!(hosts < 60, "seed {seed}: no end after {hosts} hosts");
        let (data, map) = (data.reopened(), map.reopened());
        let dies = hosts <= kills;
        let dies_at = dies.then(|| {
            let now = world.lock().unwrap().now();
            now + 200_000 + random.below(8_000_000)
        });
        let nature = nature(&world.lock().unwrap(), conditions.baud);
        let line = SimLine::new(Arc::clone(world), nature, dies_at);
        let mut id = [0; 32];
        id[..8].copy_from_slice(&random.next().to_le_bytes());
        let mut session =
            Session::new(Box::new(line), id, PATIENCE, Stop::new());
        if told() {
            let world = Arc::clone(world);
            session.watch(Box::new(move |news| {
                let world = world.lock().unwrap();
                let (now, tally) = (world.now(), world.tally());
                tell(&format!("{now} us, host {hosts}: {news:?} {tally:?}"));
            }));
        }
        let run = || -> Result<Vec<u8>> {
            let spool = spool(session, &data, &map)?;
            let made = image(&spool, &Stop::new());
            if made.is_err() {
                // Killed, not ended in order: nothing more is written.
                data.kill();
                map.kill();
            }
            made
        };
        match run() {
            Ok(image) => return (image, hosts),
            Err(error) => {
                assert!(
                    matches!(
                        error.kind(),
                        ErrorKind::Interrupted | ErrorKind::NoLink
                    ),
                    "seed {seed}: {error}"
                );
                let over =
                    world.lock().unwrap().now() >= dies_at.unwrap_or(u64::MAX);
                assert!(dies && over, "seed {seed}, host {hosts}: {error}");
            }
        }
    }
}

#[expect(clippy::print_stderr, reason = "for whoever looks at one seed")]
fn tell(text: &str) {
    eprintln!("{text}");
}

/// Whether somebody looks at one seed alone.
fn told() -> bool {
    std::env::var_os("E2WIRE_SIM_SEED").is_some()
}

fn conditions(seed: u64) -> (Conditions, u32, &'static Case) {
    let mut random = Random::new(seed);
    let case = &cases()[random.below(cases().len() as u64) as usize];
    let baud = [0, 115_200, 921_600, 115_200][random.below(4) as usize];
    // TCP loses nothing; what it carries may still have passed a console.
    let faults = Faults::drawn(&mut random);
    let conditions = Conditions {
        bytes: Arc::clone(&case.bytes),
        bad: Vec::new(),
        disk_slow: [1000, 50_000, 900_000][random.below(3) as usize],
        baud,
        latency: [50, 5000, 40_000][random.below(3) as usize],
        faults,
        reboot_every: [0, 0, 12_000_000][random.below(3) as usize],
        trip: None,
    };
    let kills = [0, 0, 1, 3][random.below(4) as usize];
    (conditions, kills, case)
}

fn check(seed: u64) {
    let (conditions, kills, case) = conditions(seed);
    if told() {
        let Conditions { disk_slow, baud, latency, .. } = conditions;
        let Conditions { faults, reboot_every, .. } = conditions;
        tell(&format!(
            "{kills} kills, disk {disk_slow} us, {baud} baud, latency \
             {latency} us, reboot every {reboot_every} us, {faults:?}"
        ));
    }
    let world = Arc::new(Mutex::new(World::new(seed, &conditions)));
    let (image, hosts) = job(seed, &conditions, kills, &world);
    assert!(
        image == case.image,
        "seed {seed}: another image than a local run makes"
    );
    let world = world.lock().unwrap();
    let tally = world.tally();
    let seconds = world.now() / 1_000_000;
    // The compressed metadata of the largest case takes a minute at most on
    // the slowest line; a factor for faults, something for every start.
    let bound = 300 + 12 * u64::from(hosts) + 15 * tally.reboots;
    assert!(seconds < bound, "seed {seed}: {seconds} s, {tally:?}");
}

/// Checks seeds on all processors; those that fail are named.
fn each_seed(seeds: impl IntoIterator<Item = u64>, check: impl Fn(u64) + Sync) {
    let seeds: Mutex<Vec<u64>> = Mutex::new(seeds.into_iter().collect());
    let failed: Mutex<Vec<u64>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().unwrap().get() {
            scope.spawn(|| {
                loop {
                    let Some(seed) = seeds.lock().unwrap().pop() else {
                        return;
                    };
                    let run = AssertUnwindSafe(|| check(seed));
                    if std::panic::catch_unwind(run).is_err() {
                        failed.lock().unwrap().push(seed);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "keep in seeds.rs: {failed:?}");
}

#[test]
fn images_over_bad_lines_are_those_of_local_runs() {
    let only = std::env::var("E2WIRE_SIM_SEED");
    if let Ok(seed) = only {
        check(seed.parse().expect("E2WIRE_SIM_SEED is a number"));
        return;
    }
    each_seed(seeds::KEPT.iter().copied().chain(0..200), check);
}
