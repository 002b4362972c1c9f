//! How much of a line is used for what it is there for, in virtual time and
//! with bytes that nothing compresses.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use e2wire::remote::port::Nature;
use e2wire::remote::session::{Patience, Session};
use e2wire::source::Priority;
use e2wire::stop::Stop;
use e2wire::units::{ByteCount, ByteOffset, ByteRange};

use super::{Conditions, Faults, Random, SimLine, World};

/// Bits per second of the line.
const BAUD: u32 = 115_200;

/// Bytes that are read: a minute and a half of such a line.
const READ_BYTES: u64 = 1 << 20;

/// What a transfer has come to.
#[derive(Clone, Copy, Debug)]
pub struct LineUse {
    /// Payload in parts of what the line could have carried in the time.
    pub payload: f64,
    /// Time until the agent had answered.
    pub connect: Duration,
    /// The longest time between two fragments.
    pub stall: Duration,
}

fn noise(seed: u64) -> Arc<Vec<u8>> {
    let mut random = Random::new(seed);
    let words = READ_BYTES / 8;
    Arc::new((0..words).flat_map(|_| random.next().to_le_bytes()).collect())
}

fn transfer(seed: u64, latency: Duration, faults: Faults) -> LineUse {
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
    LineUse { payload: payload as f64 / possible, connect, stall }
}

/// What several transfers over a line of 115,200 bits a second come to, which
/// takes `latency` from one end to the other and treats bytes as `faults`
/// say. One for each of `seeds`, since one error more or less is a matter of
/// luck.
///
/// # Panics
///
/// When a transfer does not end.
#[must_use]
pub fn line_uses(
    seeds: std::ops::RangeInclusive<u64>,
    latency: Duration,
    faults: Faults,
) -> Vec<LineUse> {
    seeds.map(|seed| transfer(seed, latency, faults)).collect()
}
