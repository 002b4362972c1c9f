use super::*;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixListener;

use crate::remote::port;
use crate::remote::target::Target;

const SOON: Duration = Duration::from_secs(10);

fn line(target: &str) -> PortLine {
    PortLine::new(port::of(&target.parse::<Target>().unwrap()).unwrap())
}

fn open(target: &str) -> PortLine {
    let mut line = line(target);
    line.open(SOON, &Stop::new()).unwrap();
    line
}

fn refused(target: &str) -> Error {
    let error = line(target)
        .open(Duration::from_millis(300), &Stop::new())
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoLink, "{error}");
    error
}

/// Receives `count` bytes.
fn take(line: &mut PortLine, count: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let until = line.now().after(SOON);
    while bytes.len() < count {
        match line.receive(until, &mut bytes) {
            Received::Bytes | Received::Woken => {}
            other => panic!("{other:?} after {} bytes", bytes.len()),
        }
    }
    bytes
}

fn end(line: &mut PortLine) -> String {
    let mut bytes = Vec::new();
    let until = line.now().after(SOON);
    match line.receive(until, &mut bytes) {
        Received::Closed(why) => why,
        other => panic!("{other:?}"),
    }
}

/// Our side of a pseudo-terminal and the name of the other side, which is
/// not open. No program that another test starts gets to hold it.
fn pty() -> (fs::File, String) {
    let (ours, theirs) = port::terminal().unwrap();
    let name = rustix::pty::ptsname(&ours, Vec::new()).unwrap();
    drop(theirs);
    (ours.into(), name.into_string().unwrap())
}

fn pattern(count: usize) -> Vec<u8> {
    (0..count).map(|i| (i * 31 / 8) as u8).collect()
}

#[test]
fn bytes_go_both_ways_through_a_program_in_a_terminal() {
    let mut line = open("exec:cat");
    // Every byte value: a terminal that is not raw would change some.
    let sent = pattern(20_000);
    line.send(&sent);
    assert_eq!(take(&mut line, sent.len()), sent);
    assert_eq!(line.unsent(), 0);
}

#[test]
fn a_program_gets_a_terminal_with_exec_and_none_with_pipe() {
    let mut line = open("exec:test -t 0 && test -t 1 && echo terminal");
    assert_eq!(take(&mut line, 9), b"terminal\n");
    let mut line = open("pipe:test -t 0 || echo pipe");
    assert_eq!(take(&mut line, 5), b"pipe\n");
}

#[test]
fn the_last_words_of_a_program_arrive_before_its_end() {
    let mut line = open("pipe:printf done; echo no route to bmc7 >&2; exit 3");
    assert_eq!(take(&mut line, 4), b"done");
    let why = end(&mut line);
    assert!(why.contains("no route to bmc7"), "{why}");
    assert!(why.contains('3'), "{why}");
}

#[test]
fn a_port_is_opened_again_after_it_ended() {
    let mut line = open("exec:echo once");
    take(&mut line, 5);
    end(&mut line);
    line.open(SOON, &Stop::new()).unwrap();
    assert_eq!(take(&mut line, 5), b"once\n");
}

#[test]
fn a_serial_port_tells_when_the_peer_hung_up() {
    let (mut master, name) = pty();
    let mut line = open(&format!("serial:{name}?baud=9600"));
    master.write_all(b"the last frame, whole").unwrap();
    assert_eq!(take(&mut line, 21), b"the last frame, whole");
    drop(master);
    end(&mut line);
}

#[test]
fn a_peer_that_reads_nothing_does_not_hold_us_up() {
    let (master, name) = pty();
    let mut line = open(&format!("serial:{name}"));
    let started = Instant::now();
    line.send(&pattern(100_000));
    let mut bytes = Vec::new();
    let until = line.now().after(Duration::from_millis(50));
    assert!(matches!(line.receive(until, &mut bytes), Received::Nothing));
    assert!(line.unsent() > 0);
    drop(line);
    assert!(started.elapsed() < Duration::from_secs(5));
    drop(master);
}

#[test]
fn a_serial_port_serves_one_at_a_time_and_names_who_has_it() {
    let (_master, name) = pty();
    let target = format!("serial:{name}");
    // `flock` holds it as another program would.
    let mut holder = std::process::Command::new("flock")
        .args(["-x", "-F", &name, "sh", "-c", "echo; exec sleep 60"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("flock, package util-linux");
    let mut ready = [0];
    holder.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
    let error = refused(&target);
    assert!(error.to_string().contains("process"), "{error}");
    holder.kill().unwrap();
    holder.wait().unwrap();
    let mut line = line(&target);
    // Twice, since the lock must be free again for us.
    for _ in 0..2 {
        line.open(SOON, &Stop::new()).unwrap();
    }
    let error = refused(&target);
    assert!(error.to_string().contains("taken"), "{error}");
}

#[test]
fn a_socket_of_this_machine_is_reached() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("serial.sock");
    let target = format!("unix:{}", path.display());
    refused(&target);
    let listener = UnixListener::bind(&path).unwrap();
    let mut line = open(&target);
    let (mut peer, _) = listener.accept().unwrap();
    let sent = pattern(300_000);
    let copy = sent.clone();
    let writer = thread::spawn(move || peer.write_all(&copy));
    assert_eq!(take(&mut line, sent.len()), sent);
    writer.join().unwrap().unwrap();
    end(&mut line);
}

#[test]
fn callers_are_served_one_after_the_other() {
    // A program that another test starts may hold a port for a moment after
    // we closed it.
    let (mut line, port) = (0..100)
        .find_map(|_| {
            let free = TcpListener::bind("127.0.0.1:0").unwrap();
            let port = free.local_addr().unwrap().port();
            drop(free);
            let mut line = line(&format!("listen:127.0.0.1:{port}"));
            let brief = Duration::from_millis(20);
            let error = line.open(brief, &Stop::new()).unwrap_err();
            error
                .to_string()
                .contains("no agent called")
                .then_some((line, port))
        })
        .unwrap();
    let callers = thread::spawn(move || {
        for name in ["one", "two"] {
            let mut caller = (0..200)
                .find_map(|_| {
                    thread::sleep(Duration::from_millis(10));
                    TcpStream::connect(("127.0.0.1", port)).ok()
                })
                .unwrap();
            caller.write_all(name.as_bytes()).unwrap();
        }
    });
    for name in ["one", "two"] {
        line.open(SOON, &Stop::new()).unwrap();
        assert_eq!(take(&mut line, 3), name.as_bytes());
        end(&mut line);
    }
    callers.join().unwrap();
}

#[test]
fn what_cannot_be_reached_says_what_to_try() {
    for (target, word) in [
        ("tcp:127.0.0.1:1", "listen"),
        ("tcp:no-such-host.invalid:7000", "name"),
        ("serial:/dev/no-such-port", "serial port"),
        ("unix:/nowhere/at.all", "path"),
    ] {
        let error = refused(target);
        let hint = error.what_to_try().unwrap_or_default();
        assert!(
            hint.contains(word) || hint.contains("there are"),
            "{error} {hint}"
        );
    }
    let no_port = line("serial:/dev/null").open(SOON, &Stop::new());
    assert!(no_port.is_err());
}

#[test]
fn the_wish_to_stop_and_a_waker_end_a_wait() {
    let stop = Stop::new();
    stop.request();
    let error = line("tcp:127.0.0.1:1").open(SOON, &stop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Interrupted);
    let mut line = open("exec:sleep 60");
    let waker = line.waker().unwrap();
    let until = line.now().after(SOON);
    thread::spawn(move || waker.wake());
    assert!(matches!(line.receive(until, &mut Vec::new()), Received::Woken));
}
