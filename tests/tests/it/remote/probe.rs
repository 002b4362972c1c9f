//! `probe`: what is at the other end of a line, whatever it is.

use std::fs::{Permissions, set_permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use e2wire_tests::agents::{Agent, Build};
use e2wire_tests::binaries::{build, e2wire};
use e2wire_tests::fixtures::fixture;
use e2wire_tests::paced::{Pace, PtyPair, terminal};
use e2wire_tests::tools;
use serde_json::Value;

const BAUD: u32 = 115_200;

/// A line whose ends hear nonsense when their speeds differ.
fn real_line() -> PtyPair {
    let pace = Pace { speeds_matter: true, ..Pace::serial(BAUD) };
    PtyPair::new(&pace).expect("a line")
}

/// Sets up one end as a program there would.
fn stty(end: &Path, words: &[&str]) {
    let mut command = tools::command("stty");
    command.arg("-F").arg(end).args(words);
    assert!(command.status().expect("stty runs").success(), "{words:?}");
}

fn probe(target: &str, timeout: &str) -> Command {
    let mut command = e2wire();
    command.args(["--json", "--connect-timeout", timeout, "-t", target]);
    command.args(["--non-interactive", "probe"]);
    command
}

/// The last event, which is the result.
fn result(output: &Output) -> Value {
    let said = String::from_utf8_lossy(&output.stdout);
    let last = said.lines().last().expect("there is always a result");
    serde_json::from_str(last).expect("events are JSON")
}

/// Probes a line where no agent is; answers what is said about it.
fn nobody(target: &str, timeout: &str) -> String {
    let output = probe(target, timeout).output().expect("e2wire runs");
    let result = result(&output);
    assert_eq!(output.status.code(), Some(7), "{result}");
    format!("{} | {}", result["error"]["message"], result["error"]["try"])
}

#[test]
fn what_is_there_instead_of_an_agent_is_named() {
    for (said, word) in [
        ("\r\nDebian GNU/Linux 12 mail7 ttyS0\r\n\r\nmail7 login: ", "login"),
        ("\x1b[2J\x1b[H  GNU GRUB  version 2.06\r\n *Debian", "GRUB"),
        ("[    1.2] Kernel panic - not syncing: VFS: Unable", "panicked"),
        ("[    0.812042] ata3: SATA link up 6.0 Gbps\r\n", "kernel talks"),
    ] {
        let line = real_line();
        stty(line.far(), &["115200"]);
        // Whatever the host's end is set to later, it is that now.
        stty(line.near(), &["115200"]);
        line.say(said.as_bytes()).expect("the line");
        let found = nobody(&line.target(BAUD), "2s");
        assert!(found.contains(word), "{said:?}: {found}");
    }
}

#[test]
fn silence_is_told_from_the_wrong_speed() {
    let silent = real_line();
    stty(silent.far(), &["115200"]);
    let found = nobody(&silent.target(BAUD), "1s");
    assert!(found.contains("silent"), "{found}");
    assert!(found.contains("other usual speeds"), "{found}");
}

#[test]
fn an_agent_at_another_speed_is_found() {
    let disk = fixture("ext4-1k-full").path;
    let line = real_line();
    let _agent = Agent::on_serial(Build::Hosted, &disk, line.far(), 9600)
        .expect("the agent runs");
    let found = nobody(&line.target(BAUD), "1s");
    assert!(found.contains("one does at 9600 baud"), "{found}");
    assert!(found.contains("?baud=9600"), "{found}");
}

#[test]
fn a_console_at_another_speed_is_found() {
    let line = real_line();
    stty(line.far(), &["57600"]);
    let over = AtomicBool::new(false);
    let found = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let _ = line.say(b"\r\nmail7 login: ");
                std::thread::sleep(Duration::from_millis(200));
            }
        });
        let found = nobody(&line.target(9600), "1s");
        over.store(true, Ordering::Relaxed);
        found
    });
    assert!(found.contains("runs at 57600 baud"), "{found}");
    assert!(found.contains("login"), "{found}");
}

#[test]
fn a_line_that_echoes_is_named() {
    let line = PtyPair::new(&Pace::serial(BAUD)).expect("a line");
    stty(line.far(), &["echo"]);
    let found = nobody(&line.target(BAUD), "1s");
    assert!(found.contains("comes back"), "{found}");
}

#[test]
fn an_agent_tells_of_itself_and_of_the_line() {
    let disk = fixture("ext4-1k-full").path;
    let pace =
        Pace { latency: Duration::from_millis(20), ..Pace::serial(BAUD) };
    let line = PtyPair::new(&pace).expect("a line");
    let _agent = Agent::on_serial(Build::Hosted, &disk, line.far(), BAUD)
        .expect("the agent runs");
    let output =
        probe(&line.target(BAUD), "100s").output().expect("e2wire runs");
    let result = result(&output);
    assert_eq!(output.status.code(), Some(0), "{result}");
    // Never more than the line has; how much less depends on this machine.
    let rate = result["bytes_per_second"].as_u64().expect("a rate");
    assert!((500..=12_000).contains(&rate), "{result}");
    let round_trip = result["round_trip_ms"].as_f64().expect("a time");
    assert!(round_trip >= 40.0, "{result}");
    assert_eq!(result["writable"], false);
    assert_eq!(result["coding"], "binary");
}

#[test]
fn a_port_that_is_taken_names_who_has_it() {
    // Of a line of ours we would be the one who has it.
    let (_line, end, port) = terminal().expect("a terminal");
    drop(end);
    let target = format!("serial:{}", port.display());
    let mut holder = e2wire()
        .args(["-t", &target, "--deadline", "100s", "console"])
        .spawn()
        .expect("e2wire runs");
    let found = (0..1000)
        .find_map(|_| {
            std::thread::sleep(Duration::from_millis(50));
            let found = nobody(&target, "1s");
            found.contains("taken").then_some(found)
        })
        .expect("the port is taken");
    holder.kill().expect("it can be killed");
    holder.wait().expect("it ends");
    let process = format!("e2wire (process {})", holder.id());
    assert!(found.contains(&process), "{found}");
}

#[test]
fn a_port_that_may_not_be_opened_names_the_group_that_may() {
    let line = PtyPair::new(&Pace::serial(BAUD)).expect("a line");
    let program = build("e2wire", "e2wire");
    let mut command = if tools::is_root() {
        // Somebody else, for whom the program has to lie within reach.
        let mut command = tools::command("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534"]);
        command.args(["--clear-groups", "--"]);
        command
    } else {
        Command::new("env")
    };
    // The group may, whoever owns it.
    let tty = group("tty");
    std::os::unix::fs::chown(line.near(), None, Some(tty))
        .or_else(|error| if tools::is_root() { Err(error) } else { Ok(()) })
        .expect("the terminal is ours");
    set_permissions(line.near(), Permissions::from_mode(0o020))
        .expect("the terminal is ours");
    let reachable = tempfile::tempdir().expect("a folder");
    set_permissions(reachable.path(), Permissions::from_mode(0o755))
        .expect("it is ours");
    let copy = reachable.path().join("e2wire");
    std::fs::copy(&program, &copy).expect("the program");
    let output = command
        .arg(&copy)
        .args(["--json", "-t", &line.target(BAUD), "probe"])
        .output()
        .expect("setpriv runs");
    let result = result(&output);
    assert_eq!(output.status.code(), Some(7), "{result}");
    let hint = result["error"]["try"].as_str().expect("a hint");
    assert!(hint.contains("group tty may open it"), "{result}");
}

fn group(name: &str) -> u32 {
    std::fs::read_to_string("/etc/group")
        .expect("groups")
        .lines()
        .find_map(|line| {
            let mut fields = line.split(':');
            let found = fields.next() == Some(name);
            fields.nth(1).filter(|_| found)?.parse().ok()
        })
        .expect("Debian has this group")
}
