//! Recorded sessions: the requests of each version, and what the agent has
//! always answered to them.
//!
//! When this fails, revert the agent, not the recording. A new recording is
//! made, by `E2WIRE_RECORD=v2`, for a new version only.

use std::fs;
use std::path::PathBuf;

use e2wire_agent::port::PortKind;
use e2wire_protocol::chunk::{Codec, Grant};
use e2wire_protocol::coding::Coding;
use e2wire_protocol::digest::{
    BootId, DeviceId, PlanId, RangeDigest, SessionId,
};
use e2wire_protocol::frame::{Decoder, Event};
use e2wire_protocol::limits::LINE_BYTES_MAX;
use e2wire_protocol::message::{
    Arm, DigestForm, DigestUnits, DrainLog, Fetch, Find, Hello, ListDevices,
    LogStream, Pair, PowerAction, Put, Reply, ReplyBody, Request, RequestBody,
    Rights, SameUnits, Task, Upload, Write,
};
use e2wire_protocol::patch;
use e2wire_protocol::version::Versions;

use crate::rig::{BOOT, Disk, RIGHTS, Rig, range, ranges};

fn disk() -> Disk {
    let mut disk = Disk::new("sda", 4096);
    disk.bad.insert(100);
    disk
}

fn fetch(device: DeviceId, task: Task, count: u16) -> RequestBody {
    let grant = Grant::new(1024, 0, count).unwrap();
    RequestBody::Fetch(Fetch { device, task, codec: Codec::Stored, grant })
}

/// The requests of the recording.
fn requests() -> Vec<u8> {
    let id = disk().id();
    let hello = Hello {
        versions: Versions { min: 1, current: 1 },
        session: SessionId([0x5e; 8]),
        coding: Coding::Binary,
        window: 1 << 20,
    };
    let pairs = heapless::Vec::from_slice(&[Pair {
        one: range(0, 160),
        other_first: 160,
    }]);
    let bodies = [
        RequestBody::Hello(hello),
        RequestBody::Devices(ListDevices { rescan: true, first: 0, count: 9 }),
        fetch(id, Task::Read(ranges(&[(0, 24), (96, 8)])), 2),
        fetch(id, Task::Read(ranges(&[(0, 24), (96, 8)])), 99),
        fetch(
            id,
            Task::Digest(DigestUnits {
                range: range(64, 128),
                unit_sectors: 16,
                form: DigestForm::Short,
            }),
            9,
        ),
        fetch(
            id,
            Task::Same(SameUnits { unit_sectors: 8, pairs: pairs.unwrap() }),
            9,
        ),
        fetch(
            id,
            Task::Find(Find {
                first: 0,
                cells: 512,
                stride_sectors: 8,
                offset: 4,
                pattern: heapless::Vec::from_slice(&[4, 5, 6]).unwrap(),
                return_offset: 0,
                return_length: 8,
            }),
            99,
        ),
        RequestBody::Flush(id),
        RequestBody::Flush(DeviceId([1; 8])),
        RequestBody::Log(DrainLog {
            stream: LogStream::Kernel,
            from: 0,
            bytes: 100,
            wait_millis: 0,
        }),
        RequestBody::Power(PowerAction::PowerOff),
        RequestBody::Echo,
        RequestBody::Cancel,
    ];
    let mut all = b"login: root\r\n".to_vec();
    let bodies = bodies.into_iter().map(|body| {
        let echoed = body == RequestBody::Echo;
        (body, if echoed { b"echo".to_vec() } else { Vec::new() })
    });
    all.extend(frames(bodies));
    all
}

/// What version 2 added: writes.
fn requests_of_version_2() -> Vec<u8> {
    let disk = disk();
    let (device, plan) = (disk.id(), PlanId([9; 16]));
    let hello = Hello {
        versions: Versions { min: 1, current: 2 },
        session: SessionId([0x5f; 8]),
        coding: Coding::Binary,
        window: 1 << 20,
    };
    let list = vec![64, 8, 0, 8];
    let upload = Upload::of(&list).unwrap();
    let arm = Arm { device, plan, bytes: 8192, ranges: upload };
    let old = disk.read(&ranges(&[(64, 8)]));
    let mut new = old.clone();
    new[100..103].copy_from_slice(b"new");
    new[1024..2048].fill(0);
    let write = |first, old: &[u8], new: &[u8]| {
        let mut patch = vec![0; 8192];
        let length = patch::write(old, new, &mut patch).unwrap();
        patch.truncate(length);
        let write = Write {
            device,
            plan,
            range: range(first, 8),
            old: RangeDigest::of(old),
            new: RangeDigest::of(new),
            patch: Upload::of(&patch).unwrap(),
        };
        (write, patch)
    };
    let (first, patch) = write(64, &old, &new);
    let (second, long) = write(72, &[1; 4096], &old);
    let (outside, _) = write(100, &old, &new);
    let put = |at: usize| {
        let slice = long[at..].iter().take(2048).copied().collect();
        let at = u32::try_from(at).unwrap();
        (RequestBody::Put(Put { upload: second.patch, at }), slice)
    };
    let none = Vec::new;
    frames([
        (RequestBody::Hello(hello), none()),
        (RequestBody::Write(first), patch.clone()),
        (RequestBody::Arm(arm), list),
        (RequestBody::Write(first), patch.clone()),
        (RequestBody::Write(first), patch.clone()),
        (RequestBody::Write(outside), patch),
        (RequestBody::Write(second), none()),
        put(2048),
        put(0),
        put(4096),
        (RequestBody::Write(second), none()),
        (RequestBody::Disarm(device), none()),
    ])
}

/// One frame for each, in either coding.
fn frames(bodies: impl IntoIterator<Item = (RequestBody, Vec<u8>)>) -> Vec<u8> {
    let mut all = Vec::new();
    let mut line = vec![0; LINE_BYTES_MAX];
    for (number, (body, tail)) in (1..).zip(bodies) {
        let hello = matches!(body, RequestBody::Hello(_));
        let boot = if hello { BootId([0; 8]) } else { BOOT };
        let request = Request { boot, number, body };
        let coding =
            if number % 3 == 0 { Coding::Printable } else { Coding::Binary };
        let length = request.encode(coding, &tail, &mut line).unwrap();
        all.extend(&line[..length]);
    }
    all
}

/// Feeds the requests one frame at a time, and returns the answers.
fn answers(requests: &[u8], rights: Rights) -> Vec<u8> {
    let mut rig = Rig::with_rights(vec![disk()], rights);
    rig.agent.log(LogStream::Kernel, b"6,1,0,-;recorded\n");
    let client = rig.connect(PortKind::Stream);
    let mut all = Vec::new();
    for piece in requests.split_inclusive(|byte| *byte == 0) {
        rig.agent.received(client.port, piece, rig.now);
        for _ in 0..50 {
            rig.step();
            let bytes = rig.agent.to_send(client.port).to_vec();
            rig.agent.sent(client.port, bytes.len(), rig.now);
            all.extend(bytes);
        }
    }
    all
}

/// What a host understands of answers. Only the newest version that an agent
/// speaks may change.
fn understood(line: &[u8]) -> Vec<String> {
    let mut decoder = Decoder::new();
    let mut input = line;
    let mut all = Vec::new();
    while let Some(event) = decoder.next(&mut input) {
        all.push(match event {
            Event::Frame(frame) => {
                let (mut reply, tail) = Reply::decode(frame.message).unwrap();
                if let ReplyBody::Hello(hello) = &mut reply.body {
                    hello.versions.current = 1;
                }
                format!("{:?} {reply:?} {tail:?}", frame.coding)
            }
            other => format!("{other:?}"),
        });
    }
    all
}

#[track_caller]
fn check(name: &str, requests: &[u8], rights: Rights, answers_min: usize) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../protocol/tests/it/transcripts");
    let asked = folder.join(format!("{name}.requests"));
    let answered = folder.join(format!("{name}.replies"));
    if std::env::var_os("E2WIRE_RECORD").is_some_and(|it| it == name) {
        fs::write(&asked, requests).unwrap();
        fs::write(&answered, answers(requests, rights)).unwrap();
    }
    let asked = fs::read(asked).unwrap();
    assert_eq!(asked, requests);
    let expected = fs::read(answered).unwrap();
    assert!(expected.len() > answers_min);
    let now = answers(&asked, rights);
    assert!(
        understood(&now) == understood(&expected),
        "other answers than recorded"
    );
}

#[test]
fn version_1_is_answered_as_ever() {
    check("v1", &requests(), RIGHTS, 10_000);
}

#[test]
fn version_2_is_answered_as_ever() {
    let rights = RIGHTS.with(Rights::WRITE);
    check("v2", &requests_of_version_2(), rights, 200);
}
