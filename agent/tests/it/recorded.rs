//! A recorded session: the requests of version 1, and what the agent has
//! always answered to them, byte by byte.
//!
//! When this fails, revert the agent, not the recording. A new recording is
//! made, by `E2WIRE_RECORD=1`, for a new version only.

use std::fs;
use std::path::PathBuf;

use e2wire_agent::port::PortKind;
use e2wire_protocol::chunk::{Codec, Grant};
use e2wire_protocol::coding::Coding;
use e2wire_protocol::digest::{BootId, DeviceId, SessionId};
use e2wire_protocol::limits::LINE_BYTES_MAX;
use e2wire_protocol::message::{
    DigestForm, DigestUnits, DrainLog, Fetch, Find, Hello, ListDevices,
    LogStream, Pair, PowerAction, Request, RequestBody, SameUnits, Task,
};
use e2wire_protocol::version::Versions;

use crate::rig::{BOOT, Disk, Rig, range, ranges};

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
    let mut line = vec![0; LINE_BYTES_MAX];
    for (number, body) in (1..).zip(bodies) {
        let hello = matches!(body, RequestBody::Hello(_));
        let boot = if hello { BootId([0; 8]) } else { BOOT };
        let tail: &[u8] = if body == RequestBody::Echo { b"echo" } else { b"" };
        let request = Request { boot, number, body };
        let coding =
            if number % 3 == 0 { Coding::Printable } else { Coding::Binary };
        let length = request.encode(coding, tail, &mut line).unwrap();
        all.extend(&line[..length]);
    }
    all
}

/// Feeds the requests one frame at a time, and returns the answers.
fn answers(requests: &[u8]) -> Vec<u8> {
    let mut rig = Rig::new(vec![disk()]);
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

#[test]
fn version_1_is_answered_as_ever() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../protocol/tests/it/transcripts");
    let (asked, answered) =
        (folder.join("v1.requests"), folder.join("v1.replies"));
    if std::env::var_os("E2WIRE_RECORD").is_some() {
        let requests = requests();
        fs::write(&asked, &requests).unwrap();
        fs::write(&answered, answers(&requests)).unwrap();
    }
    let asked = fs::read(asked).unwrap();
    assert_eq!(asked, requests());
    let expected = fs::read(answered).unwrap();
    assert!(expected.len() > 10_000);
    assert!(answers(&asked) == expected, "other bytes than recorded");
}
