//! The agent fed by a script of any bytes: any bytes at its ports, any pace.
//! It stays up and answers the next honest Hello.
//!
//! A script is a list of steps: a byte that says what happens, one with a
//! length, and as many bytes. Messages are put into frames, so that they get
//! past the checksum.

use std::panic::resume_unwind;
use std::sync::{Arc, Mutex};
use std::thread;

use e2wire_agent::agent::{Agent, Facts};
use e2wire_agent::clock::{Duration, Instant};
use e2wire_agent::device::{DeviceIndex, Devices as _};
use e2wire_agent::inventory::id_of;
use e2wire_agent::memory::Memory;
use e2wire_agent::port::{PortKind, PortNumber};
use e2wire_protocol::coding::Coding;
use e2wire_protocol::digest::{BootId, BuildId, SessionId};
use e2wire_protocol::frame::{self, Decoder, Event, Kind};
use e2wire_protocol::limits::LINE_BYTES_MAX;
use e2wire_protocol::message::{
    Hello, Machine, Reply, ReplyBody, Request, RequestBody, Rights,
};
use e2wire_protocol::version::Versions;

use super::agent::Zstd;
use super::disk::{Medium, SimDisk};

const BOOT: BootId = BootId([0xB0; 8]);
const DISK_BYTES: usize = 1 << 20;

/// The agent's memory is one large struct, which is made on the stack.
const STACK_BYTES: usize = 64 << 20;

/// Plays a script.
///
/// # Panics
///
/// When the agent does, or when it does not answer at the end.
pub fn play(script: &[u8]) {
    thread::scope(|scope| {
        let played = thread::Builder::new()
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, || {
                play_with(&mut Box::new(Memory::new()), script);
            })
            .expect("a thread can be started")
            .join();
        if let Err(panic) = played {
            resume_unwind(panic);
        }
    });
}

fn play_with(memory: &mut Memory, mut script: &[u8]) {
    let mut now = Instant::from_micros(1_000_000);
    let facts = Facts {
        boot: BOOT,
        build: BuildId::default(),
        version: "0",
        rights: Rights::READ.with(Rights::WRITE).with(Rights::INSECURE),
        machine: Machine::default(),
        started: now,
    };
    let mut agent = Agent::new(memory, facts);
    let bytes: Vec<u8> = (0..=250).cycle().take(DISK_BYTES).collect();
    let medium = Arc::new(Mutex::new(Medium::new(Arc::new(bytes))));
    let mut disk = SimDisk::new(medium, Arc::new(vec![9, 700]), 1, 5_000);
    let mut ports = [PortKind::Serial, PortKind::Stream].map(|kind| {
        agent.open_port("p", kind, 0, now).expect("there is a place")
    });
    let mut line = vec![0; LINE_BYTES_MAX];
    while let Some((what, rest)) = script.split_first() {
        let length = usize::from(rest.first().copied().unwrap_or(0));
        let behind = rest.get(1..).unwrap_or_default();
        let (bytes, behind) =
            behind.split_at_checked(length).unwrap_or((behind, &[]));
        script = behind;
        let place = usize::from(*what >> 7);
        let port = ports[place];
        match what & 7 {
            0 => agent.received(port, bytes, now),
            1 | 2 => {
                let millis = u32::try_from(length).unwrap_or(0) * 40;
                now = now.after(Duration::from_millis(millis));
            }
            3 => {
                agent.close_port(port);
                ports[place] = agent
                    .open_port("q", PortKind::Stream, 0, now)
                    .expect("a place was given back");
            }
            4 => {
                let count = agent.to_send(port).len().min(length * 100);
                agent.sent(port, count, now);
            }
            _ => {
                let mut message = bytes.to_vec();
                // Our boot and the right device in most of them.
                if what & 8 == 0 && message.len() >= 8 {
                    message[..8].copy_from_slice(&BOOT.0);
                }
                let facts = disk.facts(DeviceIndex(0)).expect("a disk");
                if what & 16 == 0 && message.len() > 20 {
                    message[10..18].copy_from_slice(&id_of(&facts).0);
                }
                let parts: [&[u8]; 1] = [&message];
                let kind = Kind::PlainRequest;
                let length =
                    frame::encode(Coding::Binary, kind, &parts, &mut line)
                        .expect("it fits");
                agent.received(port, &line[..length], now);
            }
        }
        disk.now = now.micros();
        agent.step(now, &mut disk, &mut Zstd);
        let _ = agent.power_action(now);
    }
    must_greet(&mut agent, &mut disk, ports[0], now);
    must_greet(&mut agent, &mut disk, ports[1], now);
}

fn must_greet(
    agent: &mut Agent<'_>,
    disk: &mut SimDisk,
    port: PortNumber,
    now: Instant,
) {
    let hello = Hello {
        versions: Versions::OURS,
        session: SessionId([0xEE; 8]),
        coding: Coding::Binary,
        window: 4096,
    };
    let body = RequestBody::Hello(hello);
    let request = Request { boot: BOOT, number: 1, body };
    let mut line = vec![0; LINE_BYTES_MAX];
    let length =
        request.encode(Coding::Binary, &[], &mut line).expect("it fits");
    agent.received(port, &line[..length], now);
    let mut decoder = Box::new(Decoder::new());
    let mut greeted = false;
    // What waits is taken first.
    for _ in 0..10_000 {
        agent.step(now, disk, &mut Zstd);
        let waiting = agent.to_send(port);
        if waiting.is_empty() || greeted {
            break;
        }
        let count = waiting.len();
        let mut input = waiting;
        while let Some(event) = decoder.next(&mut input) {
            if let Event::Frame(frame) = event {
                let (reply, _) = Reply::decode(frame.message).expect("a reply");
                greeted |= matches!(reply.body, ReplyBody::Hello(_));
            }
        }
        agent.sent(port, count, now);
    }
    assert!(greeted, "no answer to an honest Hello");
}
