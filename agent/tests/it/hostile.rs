//! Whatever comes in: the agent stays up, within its bounds, and answers the
//! next honest Hello.

use e2wire_agent::port::PortKind;
use e2wire_protocol::chunk::Codec;
use e2wire_protocol::coding::Coding;
use e2wire_protocol::frame::{self, Kind};
use e2wire_protocol::limits::LINE_BYTES_MAX;
use e2wire_protocol::message::{ReplyBody, RequestBody, Task};
use proptest::prelude::*;

use crate::rig::{Client, Disk, Rig, fetch, ranges};

/// The agent answers an honest host on this port.
fn check_alive(rig: &mut Rig, client: &mut Client, session: u8) {
    // What was half sent is closed by the first zero of a frame.
    rig.hello(client, session);
    let got = rig.run(client);
    let hello = got.iter().any(|got| matches!(got.body(), ReplyBody::Hello(_)));
    assert!(hello, "{got:?}");
    let disk = &rig.disks.disks[0];
    let task = Task::Read(ranges(&[(40, 8)]));
    let fetch = fetch(disk.id(), task, Codec::Stored);
    let number = rig.send(client, RequestBody::Fetch(fetch));
    let got = rig.run(client);
    let found = got.iter().any(|got| {
        matches!(got.body(), ReplyBody::Fragment(_))
            && got.reply().answers == number
    });
    assert!(found, "{got:?}");
}

fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

#[test]
fn a_million_hostile_frames_leave_it_standing() {
    let mut rig = Rig::new(vec![Disk::new("sda", 2000)]);
    let mut clients: Vec<_> = [PortKind::Serial, PortKind::Stream]
        .map(|kind| rig.connect(kind))
        .into();
    let mut state = 0x1234_5678_9abc_def1;
    let mut line = vec![0; LINE_BYTES_MAX];
    for round in 0_u32..1_000_000 {
        let kind = match random(&mut state) % 8 {
            0 => Kind::SealedRequest,
            1 => Kind::PlainReply,
            2 => Kind::Handshake,
            _ => Kind::PlainRequest,
        };
        // Right checksums around wrong messages: the boot id of this run, a
        // number, then a variant and noise.
        let mut message = vec![0xb0; 8];
        message.push((random(&mut state) & 0x7f).to_le_bytes()[0]);
        message.push((random(&mut state) % 10).to_le_bytes()[0]);
        for _ in 0..random(&mut state) % 40 {
            let noise = random(&mut state).to_le_bytes();
            let small = noise[1] < 64;
            message.push(if small { noise[0] % 3 } else { noise[0] });
        }
        let coding =
            if round % 7 == 0 { Coding::Printable } else { Coding::Binary };
        let length =
            frame::encode(coding, kind, &[&message], &mut line).unwrap();
        let client = &clients[usize::try_from(round % 2).unwrap()];
        rig.agent.received(client.port, &line[..length], rig.now);
        if round % 97 == 0 {
            rig.pass(1);
            for client in &mut clients {
                rig.run(client);
            }
        }
    }
    for client in &mut clients {
        check_alive(&mut rig, client, 200);
    }
}

#[test]
fn a_flood_of_honest_requests_is_bounded_and_fair() {
    let mut rig = Rig::new(vec![Disk::new("sda", 2000)]);
    rig.disks.disks[0].hangs = true;
    let id = rig.disks.disks[0].id();
    let mut greedy: Vec<_> = (0..15).map(|_| rig.host()).collect();
    for client in &mut greedy {
        for i in 0..1000 {
            let task = Task::Read(ranges(&[(i, 1)]));
            let fetch = fetch(id, task, Codec::Stored);
            rig.send(client, RequestBody::Fetch(fetch));
        }
        rig.step();
    }
    let mut modest = rig.host();
    rig.disks.disks[0].hangs = false;
    check_alive(&mut rig, &mut modest, 9);
}

#[test]
fn frames_cut_anywhere_do_no_harm() {
    let mut rig = Rig::new(vec![Disk::new("sda", 2000)]);
    let mut client = rig.connect(PortKind::Serial);
    let task = Task::Read(ranges(&[(0, 8), (16, 8)]));
    let fetch = fetch(rig.disks.disks[0].id(), task, Codec::Stored);
    let body = RequestBody::Fetch(fetch);
    let request = e2wire_protocol::message::Request {
        boot: crate::rig::BOOT,
        number: 3,
        body,
    };
    let mut line = vec![0; LINE_BYTES_MAX];
    for coding in [Coding::Binary, Coding::Printable] {
        let length = request.encode(coding, b"", &mut line).unwrap();
        for cut in 0..length {
            rig.agent.received(client.port, &line[..cut], rig.now);
            let session = u8::try_from(cut % 200).unwrap() + 1;
            check_alive(&mut rig, &mut client, session);
        }
    }
}

#[test]
fn a_stray_zero_does_not_swallow_a_host_behind_a_console_server() {
    // The console server strips zeros; a BREAK reads as one.
    let mut rig = Rig::new(vec![Disk::new("sda", 2000)]);
    let mut client = rig.connect(PortKind::Serial);
    rig.agent.received(client.port, b"\0\x05\x01noise", rig.now);
    rig.pass(1500);
    rig.step();
    client.coding = Coding::Printable;
    let request = e2wire_protocol::message::Request {
        boot: crate::rig::BOOT,
        number: 1,
        body: RequestBody::Hello(e2wire_protocol::message::Hello {
            versions: e2wire_protocol::version::Versions::OURS,
            session: e2wire_protocol::digest::SessionId([4; 8]),
            coding: Coding::Printable,
            window: 4096,
        }),
    };
    let mut line = vec![0; LINE_BYTES_MAX];
    let length = request.encode(Coding::Printable, b"", &mut line).unwrap();
    let stripped: Vec<u8> =
        line[..length].iter().copied().filter(|byte| *byte != 0).collect();
    rig.agent.received(client.port, &stripped, rig.now);
    let got = rig.run(&mut client);
    let hello = got.iter().any(|got| matches!(got.body(), ReplyBody::Hello(_)));
    assert!(hello, "{got:?}");
}

#[test]
fn a_client_that_vanishes_leaves_nothing_behind() {
    let mut rig = Rig::new(vec![Disk::new("sda", 200_000)]);
    let id = rig.disks.disks[0].id();
    for round in 0..200 {
        let mut client = rig.host();
        for i in 0..10 {
            let task = Task::Read(ranges(&[(round * 512 + i * 8, 512)]));
            let fetch = fetch(id, task, Codec::Stored);
            rig.send(&mut client, RequestBody::Fetch(fetch));
        }
        rig.disks.disks[0].hangs = round % 3 == 0;
        rig.step();
        rig.agent.close_port(client.port);
    }
    rig.disks.disks[0].hangs = false;
    let mut client = rig.host();
    check_alive(&mut rig, &mut client, 77);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn any_bytes_at_any_time_do_no_harm(
        pieces in prop::collection::vec(
            prop::collection::vec(
                prop_oneof![
                    2 => any::<u8>(),
                    1 => prop::sample::select(b"\0\x01\x02{}az~\r".to_vec()),
                ],
                0..200),
            0..30),
        waits in prop::collection::vec(0_u32..3000, 30),
        serial in any::<bool>(),
    ) {
        let mut rig = Rig::new(vec![Disk::new("sda", 2000)]);
        let kind =
            if serial { PortKind::Serial } else { PortKind::Stream };
        let mut client = rig.connect(kind);
        for (piece, wait) in pieces.iter().zip(waits) {
            rig.agent.received(client.port, piece, rig.now);
            rig.pass(wait);
            rig.run(&mut client);
            // Deadlines never lie behind once the step is done.
            let late =
                rig.agent.deadline().is_some_and(|when| when <= rig.now);
            prop_assert!(!late);
        }
        check_alive(&mut rig, &mut client, 1);
    }
}
