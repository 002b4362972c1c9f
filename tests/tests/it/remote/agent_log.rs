//! The agent's own log: shown with the texts of its build, and not a byte of
//! it on the line unless it was asked for.

use e2wire_tests::agents::{Agent, BUILDS, Build, free_address};
use e2wire_tests::desk::{Desk, Said};
use e2wire_tests::fixtures::fixture;
use e2wire_tests::paced::{Pace, Relay};

/// The texts and levels of what the agent logged.
fn logged(said: &Said) -> Vec<(&str, &str)> {
    let events = said.of_type("agent_log");
    let text =
        |value: &'_ serde_json::Value| value.as_str().unwrap_or("").len();
    events
        .map(|event| {
            assert!(text(&event["time"]) > 0, "{event}");
            let level = event["level"].as_str().expect("a level");
            (level, event["text"].as_str().expect("a text"))
        })
        .collect()
}

#[test]
fn the_log_of_both_builds_is_read_with_their_own_texts() {
    for build in BUILDS {
        let disk = fixture("ext4-1k-full").path;
        let address = free_address().expect("a port");
        let _agent = Agent::listening(build, &disk, address).expect("an agent");
        let desk = Desk::new(&format!("tcp:{address}")).expect("a desk");
        let said = desk.run(&["--agent-log", "info", "ls"]).expect("it ends");
        let said = said.expect(0).expect("it lists the devices");
        let lines = logged(&said);
        assert!(
            lines.contains(&(
                "info",
                "agent up, everybody is served: --insecure"
            )),
            "{build:?}: {lines:?}"
        );
        assert!(lines.iter().any(|(_, text)| text.contains("session at port")));
        // What is less urgent than asked for is left out.
        let said = desk.run(&["--agent-log", "error", "ls"]).expect("it ends");
        assert_eq!(logged(&said.expect(0).expect("a list")), []);
    }
}

#[test]
fn a_log_that_nobody_asked_for_costs_no_byte() {
    let disk = fixture("ext4-1k-full").path;
    let address = free_address().expect("a port");
    let _agent =
        Agent::listening(Build::Hosted, &disk, address).expect("an agent");
    let carried = |arguments: &[&str]| {
        let relay = Relay::to(address, Pace::default()).expect("a port");
        let target = format!("tcp:{}", relay.address());
        let desk = Desk::new(&target).expect("a desk");
        let said = desk.run(arguments).expect("it ends");
        said.expect(0).expect("it lists the devices");
        relay.carried()
    };
    let without = carried(&["ls"]);
    let with = carried(&["--agent-log", "error", "ls"]);
    let later = carried(&["ls"]);
    // Of what is said anyway, only the time since the boot varies in length.
    assert!(without.to_near.abs_diff(later.to_near) <= 16, "{later:?}");
    assert!(with.to_near >= without.to_near + 60, "{with:?} {without:?}");
    assert!(with.to_far > later.to_far + 16, "{with:?} {later:?}");
}

#[test]
fn a_log_without_its_texts_is_shown_as_it_came() {
    let disk = fixture("ext4-1k-full").path;
    let address = free_address().expect("a port");
    // Another folder than where the texts of this build lie.
    let folder = tempfile::tempdir().expect("a folder");
    let host = folder.path().join("bin/e2wire");
    let found = e2wire_tests::binaries::e2wire().get_program().to_owned();
    std::fs::create_dir(folder.path().join("bin")).expect("a folder");
    std::fs::copy(found, &host).expect("a copy of e2wire");
    let _agent =
        Agent::listening(Build::Hosted, &disk, address).expect("an agent");
    let run = |arguments: &[&str]| {
        let mut command = std::process::Command::new(&host);
        command.args(["--json", "-t", &format!("tcp:{address}")]);
        command.args(["--connect-timeout", "100s", "--agent-log", "info"]);
        command.current_dir(folder.path()).env("HOME", folder.path());
        command.env_remove("XDG_DATA_HOME").args(arguments);
        let output = command.output().expect("it runs");
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        String::from_utf8(output.stdout).expect("text")
    };
    let said = run(&["ls"]);
    assert!(said.contains("agent_log_unreadable"), "{said}");
    assert!(said.contains(r#""level":null"#), "{said}");
    // The agent itself holds its texts.
    let agent = Build::Hosted.path().to_string_lossy();
    let said = run(&["--agent-log-table", &agent, "ls"]);
    assert!(!said.contains("agent_log_unreadable"), "{said}");
    assert!(said.contains("agent up"), "{said}");
}
