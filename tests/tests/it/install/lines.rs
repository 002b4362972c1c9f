//! Images written back over a line, through real agents.

use std::path::Path;

use e2wire_tests::agents::{Agent, BUILDS, Build, free_address};
use e2wire_tests::paced::{Pace, PtyPair};
use e2wire_tests::rescue::Rescue;
use e2wire_tests::{oracle, tools};

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

/// What a shell makes of a line, with e2wire on its PATH.
fn shell(rescue: &Rescue, line: &str) -> (Option<i32>, String) {
    let e2wire = rescue.e2wire(&[]);
    let folder = Path::new(e2wire.get_program()).parent().unwrap();
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = std::process::Command::new("sh");
    command
        .args(["-c", line])
        .current_dir(rescue.path(""))
        .env("XDG_STATE_HOME", rescue.path(""))
        .env("PATH", format!("{}:{path}", folder.display()));
    let output = oracle::run(&mut command);
    (output.status.code(), oracle::text(&output))
}

#[test]
fn what_is_printed_to_go_back_can_be_pasted() {
    let rescue = Rescue::new("ext4-1k-full");
    let _ = rescue.image("an image's.qcow2", &[]);
    rescue.poke(40 << 10, &[0xA5; 9000]);
    let bad = rescue.copy(&rescue.disk, "bad");
    let disk = rescue.disk.to_str().unwrap().to_owned();
    let target = pipe(Build::Hosted, &rescue.disk, "--rw");
    let words = ["-t", &target, "install", "an image's.qcow2", &disk];
    let token = rescue.run(&words).token();
    let words = [&words[..], &["--confirm", &token]].concat();
    let done = oracle::text(&oracle::run(&mut rescue.e2wire(&words)));
    let line = done.lines().find_map(|line| line.strip_prefix("To go back: "));
    let line = line.unwrap_or_else(|| panic!("{done}"));
    let (code, plan) = shell(&rescue, line);
    assert_eq!(code, Some(5), "{line}: {plan}");
    let (_, token) = plan.split_once("--confirm ").unwrap();
    let token = token.split_whitespace().next().unwrap();
    let (code, said) = shell(&rescue, &format!("{line} --confirm {token}"));
    assert_eq!(code, Some(0), "{line}: {said}");
    rescue.assert_same(&bad, "undone by what was printed");
}

/// So much of the journal is noise.
const JOURNAL_NOISE: usize = 400 * 1024;

/// Fills a part of the journal, which nobody replays, with what no
/// compression makes smaller.
fn fill_journal(rescue: &Rescue) {
    let block = |logical: u64| -> u64 {
        let request = format!("bmap <8> {logical}");
        let said = oracle::debugfs(&[], &request, &rescue.disk);
        let words = said.split_whitespace().last().unwrap_or_default();
        words.parse().unwrap_or_else(|_| panic!("{said}"))
    };
    let blocks = JOURNAL_NOISE as u64 / 1024;
    let first = block(100);
    assert_eq!(block(100 + blocks - 1), first + blocks - 1, "in one piece");
    let mut noise = vec![0; JOURNAL_NOISE];
    blake3::Hasher::new().finalize_xof().fill(&mut noise);
    rescue.poke(first * 1024, &noise);
}

#[test]
fn a_rehearsal_of_a_part_fetches_no_more_than_what_differs() {
    let rescue = Rescue::new("ext4-1k-full");
    fill_journal(&rescue);
    let image = rescue.image("a.qcow2", &[]);
    let image = image.to_str().unwrap();
    for request in ["freei <110>", "freei <108>"] {
        let mut command = tools::command("debugfs");
        command.args(["-w", "-R", request]).arg(&rescue.disk);
        oracle::assert_success("debugfs", &oracle::run(&mut command));
    }
    let line = PtyPair::new(&Pace::serial(115_200 * 100)).unwrap();
    let (far, hosted) = (line.far(), Build::Hosted);
    let _agent =
        Agent::on_serial(hosted, &rescue.disk, far, 115_200).expect("an agent");
    let target = line.target(115_200);
    let disk = rescue.disk.to_str().unwrap().to_owned();
    let carried = |options: &[&str]| {
        let before = line.carried().to_near;
        let patience = ["--wait", "200s", "--connect-timeout", "200s"];
        let install = ["-t", &target, "install", "--allow-changed"];
        let words = [&patience[..], &install, options, &[image, &disk]];
        let planned = rescue.run(&words.concat());
        assert_eq!(planned.code, 5, "{}", planned.said);
        let _ = planned.token();
        line.carried().to_near - before
    };
    let only = ["--only", "inode-bitmap,descriptors"];
    let plan = carried(&only);
    let rehearsed = carried(&[&only[..], &["--rehearse"]].concat());
    // The journal alone is twice as much.
    let most = plan + JOURNAL_NOISE as u64 / 2;
    assert!(rehearsed < most, "{plan} {rehearsed}");
}
