//! How often a job waits for the far end of a line, which is what a line
//! around the world costs.

use super::{Case, cases, clean_run, image};
use e2wire::stop::Stop;

/// Microseconds that `case` takes, from the first Hello to the proof that
/// nothing changed, over a connection of `latency` microseconds each way.
fn micros(case: &Case, latency: u64) -> u64 {
    let run = clean_run(case, 0, latency, |spool| image(spool, &Stop::new()));
    assert!(run.image == case.image);
    run.micros
}

#[test]
fn a_job_waits_for_the_far_end_a_few_times() {
    // Hello, devices, superblock and descriptors, bitmaps and tables, what
    // these lead to, what that leads to, and the proof that nothing changed;
    // ext3 has maps of maps.
    let most = [7.5, 8.5, 7.5, 7.5];
    for (case, most) in cases().iter().zip(most) {
        let (near, far) = (micros(case, 50), micros(case, 25_050));
        let round_trips = (far - near) as f64 / 50_000.0;
        assert!(round_trips < most, "{round_trips} round trips");
    }
}
