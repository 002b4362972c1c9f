//! Serial lines as slow and as bad as real ones.

use std::time::{Duration, Instant};

use e2wire_tests::agents::{Agent, BUILDS, Build};
use e2wire_tests::desk::Desk;
use e2wire_tests::fixtures::fixture;
use e2wire_tests::paced::{Pace, PtyPair};
use e2wire_tests::sim::Faults;

use super::Case;

const BAUD: u32 = 115_200;

/// A line on which every kind of accident happens some times in a job of
/// these tests, which moves some ten thousand bytes.
fn bad(seed: u64) -> Pace {
    let faults =
        Faults { flip: 2e-4, lose: 2e-4, cut: 3e-5, text: 2e-4, stall: 3e-5 };
    Pace { faults, seed, ..Pace::serial(BAUD) }
}

#[test]
fn an_image_over_a_serial_line_is_the_local_one() {
    let case = Case::new("ext4-1k-full");
    for build in BUILDS {
        for (name, pace) in [("clean", Pace::serial(BAUD)), ("bad", bad(7))] {
            let line = PtyPair::new(&pace).expect("a line");
            let _agent = Agent::on_serial(build, &case.disk, line.far(), BAUD)
                .expect("the agent runs");
            let name = format!("{build:?}-{name}.raw");
            case.check(&name, &line.target(BAUD));
            assert!(line.carried().to_near > 0, "it went another way");
        }
    }
}

/// Most of that journal is told of, not sent; once that is so, what lies
/// where in the file must not depend on it.
#[test]
fn a_whole_journal_over_a_serial_line_is_the_local_one() {
    let disk = &fixture("by-kernel").path;
    let line = PtyPair::new(&Pace::serial(BAUD * 40)).expect("a line");
    let _agent = Agent::on_serial(Build::Freestanding, disk, line.far(), BAUD)
        .expect("the agent runs");
    let desk = Desk::new(&line.target(BAUD)).expect("a desk");
    let device = disk.to_str().expect("a path in UTF-8");
    let compact: &[&str] = &["--journal", "full"];
    let classic = &["--journal", "full", "--qcow2-layout", "classic"];
    for (options, name) in
        [(compact, "a.raw"), (compact, "b.qcow2"), (classic, "c.qcow2")]
    {
        let before = line.carried().to_near;
        desk.image(options, device, disk, name).expect("the same image");
        assert!(line.carried().to_near > before, "it went another way");
    }
}

#[test]
fn a_job_survives_its_host_its_agent_and_its_line() {
    // Built before anybody waits for it.
    let _ = Build::Freestanding.path();
    let case = Case::new("ext3-4k-full");
    let output = case.output("survivor.raw");
    let line = PtyPair::new(&bad(11)).expect("a line");
    let target = line.target(BAUD);
    let mut agent =
        Agent::on_serial(Build::Hosted, &case.disk, line.far(), BAUD)
            .expect("the agent runs");
    let wait_for = |bytes: u64| {
        let end = Instant::now() + Duration::from_secs(100);
        while line.carried().to_near < bytes {
            assert!(Instant::now() < end, "nothing moves");
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    // The host is killed in the middle, twice.
    for bytes in [3000, 6000] {
        let mut host =
            case.image(&target, &output).spawn().expect("e2wire runs");
        wait_for(bytes);
        host.kill().expect("it can be killed");
        host.wait().expect("it ends");
    }
    // The agent is, and comes back as another build.
    let mut host = case.image(&target, &output).spawn().expect("e2wire runs");
    wait_for(line.carried().to_near + 2000);
    drop(agent);
    agent = Agent::on_serial(Build::Freestanding, &case.disk, line.far(), BAUD)
        .expect("the agent runs");
    assert!(host.wait().expect("it ends").success());
    drop(agent);
    case.compare(&output);
}
