//! Every kind of port, with an honest host at its other end.

use std::fs::File;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::time::{Duration, Instant};

use e2wire_protocol::chunk::Codec;
use e2wire_protocol::message::Rights;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::client::Client;
use crate::programs::{Agent, BUILDS, Build, Disk, freestanding, output_of};

/// Tables of records of 256 bytes.
const COLUMNS: Codec = Codec::ZstdColumns { level: 9, stride: 256 };

/// Asks for everything an agent can tell of `disk`.
fn look_around(client: &mut Client, disk: &Disk, port: &str) {
    let facts = client.hello();
    assert_eq!(facts.rights, Rights::READ.with(Rights::INSECURE));
    assert!(facts.port.starts_with(port), "{facts:?}");
    assert_eq!(facts.zstd_level, 9);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert_eq!(facts.kernel, kernel.trim());
    let devices = client.devices();
    assert_eq!(devices.len(), 1, "{devices:?}");
    assert_eq!(devices[0].size, disk.bytes.len() as u64);
    assert!(disk.path().ends_with(&devices[0].name));
    for codec in [Codec::Stored, Codec::Zstd(1), Codec::Zstd(9), COLUMNS] {
        let body = client.fetch(devices[0].id, 8, 256, codec);
        let bytes = &disk.bytes[8 * 512..(8 + 256) * 512];
        assert!(body.ends_with(bytes), "{codec:?}: {} bytes", body.len());
    }
}

/// A TCP port that is free just now.
fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

fn connect(address: &str) -> Client {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match TcpStream::connect(address) {
            Ok(stream) => {
                return Client::new(stream.try_clone().unwrap(), stream);
            }
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn over_pipes_an_agent_serves_until_its_input_ends() {
    for build in BUILDS {
        let disk = Disk::new(1 << 20);
        let (mut agent, mut client) =
            Agent::over_pipes(build, &["--device", disk.path()]);
        look_around(&mut client, &disk, "stdio");
        drop(client);
        let code = agent.exit_code_within(Duration::from_secs(10));
        assert_eq!(code, Some(0), "{build:?}");
    }
}

#[test]
fn a_socket_may_be_its_standard_input_and_output() {
    for build in BUILDS {
        let disk = Disk::new(1 << 20);
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut command =
            build.command(&["--stdio", "--insecure", "--device", disk.path()]);
        command.stdin(Stdio::from(OwnedFd::from(theirs.try_clone().unwrap())));
        command.stdout(Stdio::from(OwnedFd::from(theirs)));
        let mut agent = Agent(command.spawn().unwrap());
        drop(command);
        let mut client =
            Client::new(ours.try_clone().unwrap(), ours.try_clone().unwrap());
        look_around(&mut client, &disk, "stdio");
        ours.shutdown(Shutdown::Both).unwrap();
        let code = agent.exit_code_within(Duration::from_secs(10));
        assert_eq!(code, Some(0), "{build:?}");
    }
}

#[test]
fn a_serial_line_is_raw_at_the_speed_asked_for_and_answers_people() {
    for build in BUILDS {
        let disk = Disk::new(1 << 20);
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let line = format!("{},12345", name.to_str().unwrap());
        let _agent = Agent::start(
            build,
            &["--serial", &line, "--insecure", "--device", disk.path()],
        );
        let master = File::from(master);
        let mut client = Client::new(master.try_clone().unwrap(), master);
        let banner = client.listen(Duration::from_millis(1500));
        assert!(banner.contains("e2wire-agent"), "{banner:?}");
        client.text.clear();
        client.send_raw(b"\r");
        let answer = client.listen(Duration::from_millis(1500));
        assert!(answer.contains("e2wire"), "{answer:?}");

        look_around(
            &mut client,
            &disk,
            name.to_str().unwrap().trim_start_matches("/dev/"),
        );
        assert_eq!(client.hello().port_baud, 12345);
    }
}

#[test]
fn over_tcp_hosts_come_and_go_as_they_like() {
    for build in BUILDS {
        let disk = Disk::new(1 << 20);
        let address = free_address();
        let _agent = Agent::start(
            build,
            &["--listen", &address, "--insecure", "--device", disk.path()],
        );
        // One that stays, one that vanishes in the middle of a request, one
        // that says nothing sensible, more than there are places for.
        let mut stays = connect(&address);
        look_around(&mut stays, &disk, "tcp 127.0.0.1:");
        let mut vanishes = connect(&address);
        vanishes.hello();
        vanishes.send_raw(&[0, 1, 2, 3]);
        drop(vanishes);
        connect(&address).send_raw(b"GET / HTTP/1.1\r\n\r\n");
        for _ in 0..40 {
            drop(TcpStream::connect(&address).unwrap());
        }
        look_around(&mut connect(&address), &disk, "tcp 127.0.0.1:");
        assert_eq!(stays.devices().len(), 1);
    }
}

#[test]
fn an_agent_that_calls_home_calls_again_when_the_host_was_lost() {
    for build in BUILDS {
        let disk = Disk::new(1 << 20);
        let address = free_address();
        let _agent = Agent::start(
            build,
            &["--connect", &address, "--insecure", "--device", disk.path()],
        );
        // Nobody listens yet: it has to try again.
        std::thread::sleep(Duration::from_millis(300));
        let listener = TcpListener::bind(&address).unwrap();
        for _ in 0..2 {
            let (stream, _) = listener.accept().unwrap();
            let mut client = Client::new(
                stream.try_clone().unwrap(),
                stream.try_clone().unwrap(),
            );
            look_around(&mut client, &disk, "tcp 127.0.0.1:");
            stream.shutdown(Shutdown::Both).unwrap();
        }
    }
}

#[test]
fn the_build_id_in_hello_is_that_of_the_elf() {
    let (_agent, mut client) = Agent::over_pipes(Build::Freestanding, &[]);
    let build = client.hello().build.to_string();
    assert_eq!(build, freestanding().build_id);
    // Two runs are two boots.
    let (_other, mut other) = Agent::over_pipes(Build::Freestanding, &[]);
    assert_ne!(client.hello().boot, other.hello().boot);
}

#[test]
fn without_a_device_all_disks_of_the_machine_are_offered() {
    for build in BUILDS {
        let (_agent, mut client) = Agent::over_pipes(build, &[]);
        client.hello();
        let offered = client.devices();
        let known = std::fs::read_dir("/sys/class/block").unwrap();
        for entry in known {
            let entry = entry.unwrap();
            let size = std::fs::read_to_string(entry.path().join("size"));
            let size: u64 = size.unwrap().trim().parse().unwrap();
            let name = entry.file_name().into_string().unwrap();
            let found = offered.iter().find(|device| device.name == name);
            assert_eq!(
                found.map_or(0, |device| device.size),
                size * 512,
                "{name}"
            );
        }
    }
}

#[test]
fn what_the_agent_logs_can_be_drained() {
    let (_agent, mut client) = Agent::over_pipes(Build::Freestanding, &[]);
    client.hello();
    let frames = client.log();
    assert!(frames.contains(&0), "not one frame: {frames:?}");
}

#[test]
fn a_wrong_command_line_is_explained() {
    for build in BUILDS {
        for (arguments, code, text) in [
            (&["--version"][..], 0, "e2wire-agent 0"),
            (&["--help"], 0, "--serial PATH"),
            (&[], 2, "--stdio"),
            (&["--stdio"], 2, "--insecure"),
            (&["--frob"], 2, "unknown option --frob"),
            (&["--listen", "nowhere"], 2, "--listen cannot be nowhere"),
        ] {
            let (said, status) = output_of(build.command(arguments));
            assert!(said.contains(text), "{build:?} {arguments:?}: {said}");
            assert_eq!(status, Some(code), "{build:?} {arguments:?}");
        }
    }
}
