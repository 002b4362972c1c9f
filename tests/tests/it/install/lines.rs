//! Images written back over a line, through real agents.

use std::path::Path;

use e2wire_tests::agents::{Agent, BUILDS, Build, free_address};
use e2wire_tests::rescue::Rescue;

/// A program with pipes that offers `disk`.
fn pipe(build: Build, disk: &Path, rights: &str) -> String {
    format!(
        "pipe:{} --stdio --insecure {rights} --device {}",
        build.path().display(),
        disk.display()
    )
}

#[test]
fn a_damaged_disk_is_put_back_over_a_line_and_the_damage_undone() {
    for build in BUILDS {
        let rescue = Rescue::new("ext4-1k-full");
        let image = rescue.image("a.qcow2", &[]);
        let image = image.to_str().unwrap();
        let good = rescue.copy(&rescue.disk, "good");
        rescue.poke(1024 + 0x78, b"gone");
        rescue.poke(40 << 10, &[0xA5; 9000]);
        let bad = rescue.copy(&rescue.disk, "bad");
        let disk = rescue.disk.to_str().unwrap().to_owned();
        let target = pipe(build, &rescue.disk, "--rw");
        let line = ["-t", &target];
        let install = [&line[..], &["install", image, &disk]].concat();
        let token = rescue.confirm(&install);
        rescue.assert_same(&good, "installed");
        let again = rescue.run(&install);
        assert_eq!(again.code, 0, "{}", again.said);
        assert_eq!(again.event("result")["changed"], false);
        let undo = format!("{image}.{token}.undo");
        rescue.confirm(&[&line[..], &["undo", &undo, &disk]].concat());
        rescue.assert_same(&bad, "undone");
    }
}

#[test]
fn an_agent_without_the_right_writes_nothing() {
    let rescue = Rescue::new("ext4-1k-full");
    let image = rescue.image("a.qcow2", &[]);
    rescue.poke(40 << 10, &[0xA5; 9000]);
    let before = rescue.bytes();
    let disk = rescue.disk.to_str().unwrap().to_owned();
    let image = image.to_str().unwrap();
    let target = pipe(Build::Hosted, &rescue.disk, "");
    let install = ["-t", &target, "install", image, &disk];
    let planned = rescue.run(&install);
    assert_eq!(planned.code, 5, "{}", planned.said);
    let token = planned.token();
    let refused = rescue.run(&[&install[..], &["--confirm", &token]].concat());
    assert_eq!(refused.code, 6, "{}", refused.said);
    assert!(refused.said.contains("--rw"), "{}", refused.said);
    assert!(rescue.bytes() == before);
}

#[test]
fn an_agent_that_is_killed_in_between_is_gone_on_with() {
    let rescue = Rescue::new("ext4-1k-full");
    let image = rescue.image("a.qcow2", &[]);
    let image = image.to_str().unwrap();
    let good = rescue.copy(&rescue.disk, "good");
    rescue.poke(40 << 10, &vec![0x5A; 200_000]);
    let disk = rescue.disk.to_str().unwrap().to_owned();
    let address = free_address().expect("a port");
    let target = format!("tcp:{address}");
    let at = address.to_string();
    let ways = ["--listen", &at, "--rw"];
    let start =
        || Agent::start(Build::Hosted, &rescue.disk, &ways).expect("an agent");
    let agent = start();
    let words = ["--wait", "100s", "-t", &target];
    let install = [&words[..], &["install", image, &disk]].concat();
    let token = rescue.run(&install).token();
    let confirm = [&install[..], &["--confirm", &token]].concat();
    // Killed when the first write is there; another one takes its place.
    let watched = rescue.bytes();
    std::thread::scope(|scope| {
        let run = scope.spawn(|| rescue.run(&confirm));
        while rescue.bytes() == watched && !run.is_finished() {
            std::thread::yield_now();
        }
        drop(agent);
        let _agent = start();
        let done = run.join().expect("e2wire ran");
        assert_eq!(done.code, 0, "{}", done.said);
    });
    rescue.assert_same(&good, "installed");
}
