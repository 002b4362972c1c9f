//! How much of a line is used for what it is there for, in virtual time and
//! with bytes that nothing compresses: the targets that serial lines have to
//! meet, and what is reached now.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use e2wire::remote::port::Nature;
use e2wire::remote::session::{Patience, Session};
use e2wire::source::Priority;
use e2wire::stop::Stop;
use e2wire::units::{ByteCount, ByteOffset, ByteRange};
use e2wire_protocol::limits::FRAGMENT_BYTES_MAX;
use e2wire_tests::sim::{Conditions, Faults, Random, SimLine, World};

const BAUD: u32 = 115_200;

/// Bytes that are read: a minute and a half of such a line.
const READ_BYTES: u64 = 1 << 20;

/// What a transfer has come to.
#[derive(Debug)]
struct Use {
    /// Payload in parts of what the line could have carried in the time.
    payload: f64,
    /// Time until the agent had answered.
    connect: Duration,
    /// The longest time between two fragments.
    stall: Duration,
}

fn noise(seed: u64) -> Arc<Vec<u8>> {
    let mut random = Random::new(seed);
    let words = READ_BYTES / 8;
    Arc::new((0..words).flat_map(|_| random.next().to_le_bytes()).collect())
}

fn transfer(seed: u64, latency: Duration, faults: Faults) -> Use {
    let conditions = Conditions {
        bytes: noise(seed),
        bad: Vec::new(),
        disk_slow: 1000,
        baud: BAUD,
        latency: latency.as_micros() as u64,
        faults,
        reboot_every: 0,
        trip: None,
    };
    let world = Arc::new(Mutex::new(World::new(seed, &conditions)));
    let nature = Nature { baud: Some(BAUD), console: true, listens: false };
    let line = SimLine::new(world, nature, None);
    let patience =
        Patience { connect: Duration::from_secs(60), ..Patience::default() };
    let mut id = [0; 32];
    id[..8].copy_from_slice(&seed.to_le_bytes());
    let mut session = Session::new(Box::new(line), id, patience, Stop::new());
    session.connect().expect("the agent answers");
    let connect = session.now().since_start();
    let device = session.devices(false).expect("there is a disk").remove(0);
    let whole = ByteRange::new(ByteOffset(0), ByteCount(READ_BYTES));
    let (start, before) = (session.now(), session.counters());
    session.want(device.id, &[whole.expect("a range")], Priority::Payload);
    let mut left = READ_BYTES;
    let mut stall = Duration::ZERO;
    let mut last = start;
    let mut seen = before.payload_bytes;
    let mut rounds = 0_u64;
    while left > 0 {
        rounds += 1;
        assert!(rounds < 200_000, "seed {seed}: {left} bytes never come");
        // Steps of the session, so that silence shows.
        session
            .idle(session.now().after(Duration::from_millis(50)))
            .expect("the line holds");
        let now = session.now();
        if session.counters().payload_bytes > seen {
            seen = session.counters().payload_bytes;
            stall = stall.max(now.since(last));
            last = now;
        }
        while let Some(fetched) = session.poll_fetched() {
            fetched.body.as_ref().expect("the disk is sound");
            let sectors = u64::from(fetched.ranges.sectors());
            left = left.saturating_sub(sectors * 512);
        }
    }
    let time = session.now().since(start).as_secs_f64();
    let payload = session.counters().payload_bytes - before.payload_bytes;
    let possible = f64::from(BAUD) / 10.0 * time;
    Use { payload: payload as f64 / possible, connect, stall }
}

/// Several seeds, since one error more or less is a matter of luck; the mean
/// use and the worst of the rest.
fn mean(latency: Duration, faults: Faults) -> Use {
    let uses: Vec<Use> =
        (1..=4).map(|seed| transfer(seed, latency, faults)).collect();
    let count = uses.len() as f64;
    Use {
        payload: uses.iter().map(|one| one.payload).sum::<f64>() / count,
        connect: uses.iter().map(|one| one.connect).max().unwrap_or_default(),
        stall: uses.iter().map(|one| one.stall).max().unwrap_or_default(),
    }
}

#[test]
fn a_clean_serial_line_carries_hardly_anything_but_payload() {
    let clean = mean(Duration::from_micros(50), Faults::default());
    assert!(clean.payload >= 0.985, "{clean:?}");
    assert!(clean.connect <= Duration::from_secs(1), "{clean:?}");
}

#[test]
fn a_long_way_costs_a_serial_line_little() {
    // There and back 40 ms.
    let far = mean(Duration::from_millis(20), Faults::default());
    assert!(far.payload >= 0.97, "{far:?}");
}

#[test]
fn errors_cost_a_serial_line_little() {
    let lost = Faults { lose: 1e-5, ..Faults::default() };
    let flipped = Faults { flip: 1e-5, ..Faults::default() };
    for faults in [lost, flipped] {
        let bad = mean(Duration::from_micros(50), faults);
        assert!(bad.payload >= 0.93, "{faults:?}: {bad:?}");
        // Between two fragments there is always the time that the largest
        // takes.
        let largest = f64::from(FRAGMENT_BYTES_MAX) * 10.0 / f64::from(BAUD);
        let most = Duration::from_secs_f64(largest + 0.5);
        assert!(bad.stall <= most, "{faults:?}: {bad:?}");
    }
}
