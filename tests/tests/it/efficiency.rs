//! The targets that serial lines have to meet, in virtual time.

use std::time::Duration;

use e2wire_protocol::limits::FRAGMENT_BYTES_MAX;
use e2wire_tests::sim::{Faults, LineUse, line_uses};

const BAUD: u32 = 115_200;

/// The mean use and the worst of the rest.
fn mean(latency: Duration, faults: Faults) -> LineUse {
    let uses = line_uses(1..=4, latency, faults);
    let count = uses.len() as f64;
    LineUse {
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
