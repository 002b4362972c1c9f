//! Every kind of port, each with both builds of the agent.

use std::time::Duration;

use e2wire_tests::agents::{Agent, BUILDS, Build, free_address};
use e2wire_tests::paced::{Pace, Relay};

use super::Case;

fn command(build: Build, case: &Case) -> String {
    format!(
        "{} --stdio --device {} --insecure",
        build.path().display(),
        case.disk.display()
    )
}

#[test]
fn an_image_through_a_program_is_the_local_one() {
    let case = Case::new("ext4-1k-full");
    for build in BUILDS {
        let command = command(build, &case);
        case.check(&format!("{build:?}-pipe.raw"), &format!("pipe:{command}"));
        case.check(&format!("{build:?}-exec.raw"), &format!("exec:{command}"));
    }
    let left: Vec<_> = std::fs::read_dir(case.folder.path())
        .expect("the folder")
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    assert_eq!(left.len(), 5, "spools are gone once a job is done: {left:?}");
}

#[test]
fn an_image_over_a_network_is_the_local_one() {
    let case = Case::new("ext4-1k-full");
    for build in BUILDS {
        let address = free_address().expect("a port");
        let _agent = Agent::listening(build, &case.disk, address)
            .expect("the agent runs");
        // There and back 50 ms, as across an ocean.
        let pace = Pace::latent(Duration::from_millis(25));
        let relay = Relay::to(address, pace).expect("a port");
        let name = format!("{build:?}-tcp.raw");
        case.check(&name, &format!("tcp:{}", relay.address()));
        assert!(relay.carried().to_near > 0, "it went another way");
    }
}

#[test]
fn an_agent_that_calls_is_served() {
    let case = Case::new("ext4-1k-full");
    for build in BUILDS {
        let address = free_address().expect("a port");
        let _agent =
            Agent::calling(build, &case.disk, address).expect("the agent runs");
        let name = format!("{build:?}-listen.raw");
        case.check(&name, &format!("listen:{address}"));
    }
}
