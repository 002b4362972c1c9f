//! `console` and `reboot`: what people do at the other end of a line besides
//! imaging it.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use e2wire_tests::agents::{Agent, Build, free_address};
use e2wire_tests::binaries::e2wire;
use e2wire_tests::fixtures::fixture;
use e2wire_tests::paced::{Pace, PtyPair};

const BAUD: u32 = 115_200;

/// Machines that test may be ten times slower than ours.
const PATIENCE: Duration = Duration::from_secs(100);

/// What a file gives, collected in the background.
struct Collected {
    pieces: Receiver<Vec<u8>>,
    bytes: Vec<u8>,
}

impl Collected {
    fn from(mut file: File) -> Self {
        let (send, pieces) = channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = file.read(&mut buffer) {
                if send.send(buffer[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self { pieces, bytes: Vec::new() }
    }

    /// Waits until this text has come.
    fn expect(&mut self, text: &str) {
        let end = Instant::now() + PATIENCE;
        loop {
            let so_far = String::from_utf8_lossy(&self.bytes);
            if so_far.contains(text) {
                return;
            }
            let left = end.saturating_duration_since(Instant::now());
            match self.pieces.recv_timeout(left) {
                Ok(piece) => self.bytes.extend(piece),
                Err(_) => panic!("no {text:?} in {so_far:?}"),
            }
        }
    }
}

fn opened(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).open(path).expect("a terminal")
}

/// `e2wire console` in a terminal of its own, whose other side is `desk`.
fn at_terminal(desk: &PtyPair, target: &str) -> Child {
    let end = || Stdio::from(opened(desk.near()));
    let mut command = e2wire();
    command.args(["-t", target, "console"]);
    command.stdin(end()).stdout(end()).stderr(end());
    command.spawn().expect("e2wire runs")
}

fn settings(terminal: &Path) -> String {
    let output = Command::new("stty")
        .args(["-a", "-F"])
        .arg(terminal)
        .output()
        .expect("stty, package coreutils");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_console_joins_a_terminal_with_whoever_is_there() {
    let line = PtyPair::new(&Pace::serial(BAUD)).expect("a line");
    let desk = PtyPair::new(&Pace::default()).expect("a terminal");
    // As a shell leaves it: lines, echo, signals.
    let sane = Command::new("stty")
        .args(["sane", "-F"])
        .arg(desk.near())
        .status()
        .expect("stty, package coreutils");
    assert!(sane.success());
    let before = settings(desk.near());
    let mut screen =
        Collected::from(desk.far_end().try_clone().expect("a descriptor"));
    let mut machine =
        Collected::from(line.far_end().try_clone().expect("a descriptor"));
    let mut host = at_terminal(&desk, &line.target(BAUD));
    screen.expect("leave");
    line.say(b"\x1b[2Jmail7 login: ").expect("the line");
    screen.expect("\x1b[2Jmail7 login: ");
    // Ctrl-C and Ctrl-Z go to the machine.
    desk.say(b"root\r\x03\x1a").expect("the terminal");
    machine.expect("root\r\x03\x1a");
    // A brace begins no frame here, and is not kept back for ever.
    line.say(b"{2 of 3}\r\n{").expect("the line");
    screen.expect("{2 of 3}\r\n{");
    desk.say(b"\x1d.").expect("the terminal");
    let status = host.wait().expect("e2wire ends");
    assert_eq!(status.code(), Some(0));
    assert_eq!(settings(desk.near()), before, "the terminal is as it was");
}

#[test]
fn a_console_leaves_out_what_an_agent_says() {
    let disk = fixture("ext4-1k-full").path;
    let line = PtyPair::new(&Pace::serial(BAUD)).expect("a line");
    let target = line.target(BAUD);
    let _agent = Agent::on_serial(Build::Hosted, &disk, line.far(), BAUD)
        .expect("the agent runs");
    let mut console = e2wire()
        .args(["--json", "-t", &target, "console"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("e2wire runs");
    let stdout = console.stdout.take().expect("its output");
    let fd = std::os::fd::OwnedFd::from(stdout);
    let mut shown = Collected::from(File::from(fd));
    // Its own words are those of the kernel's console.
    shown.expect("ready on");
    let mut keys = console.stdin.take().expect("its input");
    // A Hello is answered by a frame, other keys by a prompt.
    keys.write_all(b"\r").expect("it reads");
    shown.expect("connect with");
    line.say(b"[  812.1] ata3: hard resetting link\r\n").expect("the line");
    shown.expect("ata3: hard resetting link");
    console.kill().expect("it can be killed");
    console.wait().expect("it ends");
}

#[test]
fn a_script_reads_a_console_until_its_deadline() {
    let line = PtyPair::new(&Pace::serial(BAUD)).expect("a line");
    line.say(b"GNU GRUB  version 2.06\r\n").expect("the line");
    let output = e2wire()
        .args(["-t", &line.target(BAUD), "--deadline", "1500ms", "console"])
        .output()
        .expect("e2wire runs");
    assert_eq!(output.status.code(), Some(8));
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(shown.contains("GNU GRUB"), "{shown}");
}

#[test]
fn only_a_machine_that_booted_its_agent_is_restarted() {
    let disk = fixture("ext4-1k-full").path;
    let address = free_address().expect("a port");
    let _agent = Agent::listening(Build::Hosted, &disk, address)
        .expect("the agent runs");
    let output = e2wire()
        .args(["--wait", "100s", "-t", &format!("tcp:{address}"), "reboot"])
        .output()
        .expect("e2wire runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(6), "{said}");
    assert!(said.contains("the machine runs on"), "{said}");
}
