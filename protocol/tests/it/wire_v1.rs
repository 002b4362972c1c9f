//! The bytes of protocol version 1.
//!
//! When one of these fails, revert the type, not the test: what has been
//! released says these bytes for ever. A new shape is a new variant in a new
//! file for a new version.

use e2wire_protocol::chunk::{
    Codec, Grant, Ranges, RunKind, SectorRange, write_layout,
};
use e2wire_protocol::coding::Coding;
use e2wire_protocol::digest::{
    BootId, BuildId, DeviceId, RangeDigest, SessionId, Tag,
};
use e2wire_protocol::message::{
    AgentLimits, Busy, DeviceCount, DeviceFacts, DeviceFlags, DeviceKind,
    DeviceReply, DigestForm, DigestUnits, DrainLog, Failure, Fetch, Find,
    Fragment, Hello, HelloReply, ListDevices, LogPiece, LogStream, Machine,
    Pair, PowerAction, Reply, ReplyBody, Request, RequestBody, Rights,
    SameUnits, Task,
};
use e2wire_protocol::version::Versions;

pub(crate) const BOOT: BootId = BootId([0xb0; 8]);
const DEVICE: DeviceId = DeviceId([0xd0, 1, 2, 3, 4, 5, 6, 7]);

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn range(first: u64, count: u32) -> SectorRange {
    SectorRange::new(first, count).unwrap()
}

fn ranges() -> Ranges {
    let mut ranges = Ranges::new();
    ranges.push(range(2, 8)).unwrap();
    ranges.push(range(2_000_000_010, 300)).unwrap();
    ranges
}

fn fetch(task: Task, codec: Codec) -> Fetch {
    let grant = Grant::new(4096, 1, 300).unwrap();
    Fetch { device: DEVICE, task, codec, grant }
}

/// Encodes, compares, and reads back.
#[track_caller]
fn check(body: RequestBody, expected: &str) {
    check_request(body, b"", expected);
}

/// The same, with a tail.
#[track_caller]
pub(crate) fn check_request(body: RequestBody, tail: &[u8], expected: &str) {
    let request = Request { boot: BOOT, number: 200, body };
    let mut bytes = postcard::to_allocvec(&request).unwrap();
    // The boot id and the number are the same in all.
    assert_eq!(hex(&bytes[..10]), "b0b0b0b0b0b0b0b0c801");
    assert_eq!(hex(&bytes[10..]), expected, "{:?}", request.body);
    bytes.extend(tail);
    assert_eq!(Request::decode(&bytes).unwrap(), (request, tail));
}

#[track_caller]
pub(crate) fn check_reply(body: ReplyBody<'_>, tail: &[u8], expected: &str) {
    let reply = Reply { number: 3, seen: 300, answers: 2, body };
    let mut bytes = postcard::to_allocvec(&reply).unwrap();
    assert_eq!(hex(&bytes[..4]), "03ac0202");
    assert_eq!(hex(&bytes[4..]), expected, "{body:?}");
    bytes.extend(tail);
    assert_eq!(Reply::decode(&bytes).unwrap(), (reply, tail));
}

#[test]
fn requests() {
    let hello = Hello {
        versions: Versions { min: 1, current: 300 },
        session: SessionId([0x5e; 8]),
        coding: Coding::Printable,
        window: 65_536,
    };
    check(RequestBody::Hello(hello), "0001ac025e5e5e5e5e5e5e5e01808004");
    let list = ListDevices { rescan: true, first: 1, count: 128 };
    check(RequestBody::Devices(list), "0101018001");
    check(RequestBody::Flush(DEVICE), "03d001020304050607");
    let log = DrainLog {
        stream: LogStream::Kernel,
        from: 1 << 40,
        bytes: 4096,
        wait_millis: 250,
    };
    check(RequestBody::Log(log), "04018080808080208020fa01");
    check(RequestBody::Power(PowerAction::Reboot), "0500");
    check(RequestBody::Power(PowerAction::PowerOff), "0501");
    check(RequestBody::Cancel, "06");
    check(RequestBody::Echo, "07");
}

#[test]
fn fetches() {
    let read = fetch(Task::Read(ranges()), Codec::Zstd(19));
    check(
        RequestBody::Fetch(read),
        "02d0010203040506070002020880a8d6b907ac020113802001ac02",
    );
    let digest = Task::Digest(DigestUnits {
        range: range(16, 2_000_000),
        unit_sectors: 8,
        form: DigestForm::Short,
    });
    check(
        RequestBody::Fetch(fetch(digest, Codec::Stored)),
        "02d001020304050607011080897a080100802001ac02",
    );
    let same = Task::Same(SameUnits {
        unit_sectors: 8,
        pairs: heapless::Vec::from_slice(&[Pair {
            one: range(16, 8),
            other_first: 1 << 35,
        }])
        .unwrap(),
    });
    check(
        RequestBody::Fetch(fetch(same, Codec::Stored)),
        "02d001020304050607020801100880808080800100802001ac02",
    );
    let find = Task::Find(Find {
        first: 8,
        cells: 1000,
        stride_sectors: 262_144,
        offset: 1080,
        pattern: heapless::Vec::from_slice(b"\x53\xef").unwrap(),
        return_offset: 1024,
        return_length: 200,
    });
    check(
        RequestBody::Fetch(fetch(find, Codec::Stored)),
        "02d0010203040506070308e807808010b8080253ef8008c80100802001ac02",
    );
}

#[test]
fn hello_reply() {
    let hello = HelloReply {
        versions: Versions { min: 1, current: 1 },
        session: SessionId([0x5e; 8]),
        boot: BOOT,
        build: BuildId([0xbd; 20]),
        rights: Rights::READ.with(Rights::INSECURE),
        limits: AgentLimits {
            open_requests: 256,
            zstd_level: 9,
            window: 67_108_864,
        },
        uptime_millis: 1000,
        port: "ttyS1",
        port_baud: 115_200,
        agent: "0.1.0",
        machine: Machine {
            vendor: "V",
            product: "P",
            serial: "S",
            uuid: "U",
            host: "H",
            kernel: "6.1",
        },
    };
    check_reply(
        ReplyBody::Hello(hello),
        b"",
        "0001015e5e5e5e5e5e5e5eb0b0b0b0b0b0b0b0bdbdbdbdbdbdbdbdbdbdbdbdbdbdbdbdbdbdbdbd810280020980808020e80705747479533180840705302e312e300156015001530155014803362e31",
    );
}

#[test]
fn replies() {
    let device = DeviceReply {
        index: 1,
        total: 2,
        id: DEVICE,
        facts: DeviceFacts {
            name: "sda3",
            kind: DeviceKind::Partition,
            flags: DeviceFlags::DIRECT.with(DeviceFlags::ROTATIONAL),
            size: 1 << 40,
            logical_sector: 512,
            physical_sector: 4096,
            partition_start: 1 << 20,
            partition: 3,
            parent: "sda",
            model: "M",
            serial: "S",
            wwn: "W",
            path: "P",
            holders: "md0",
        },
    };
    check_reply(
        ReplyBody::Device(device),
        b"",
        "010102d00102030405060704736461330124808080808020800480208080400303736461014d015301570150036d6430",
    );
    let count = DeviceCount { total: 3 };
    check_reply(ReplyBody::NoMoreDevices(count), b"", "0203");
    let fragment = Fragment {
        device: DEVICE,
        first: 2_000_000,
        codec: Codec::Zstd(3),
        tag: Tag([0x7a; 8]),
        encoded: 10_003,
        at: 10_000,
    };
    check_reply(
        ReplyBody::Fragment(fragment),
        b"end",
        "03d00102030405060780897a01037a7a7a7a7a7a7a7a934e904e",
    );
    let busy = Busy { device: DEVICE, offset: 1 << 33, waiting_millis: 1250 };
    check_reply(ReplyBody::Busy(busy), b"", "04d0010203040506078080808020e209");
    check_reply(ReplyBody::Done, b"", "05");
    let piece = LogPiece { stream: LogStream::Agent, from: 128, end: 131 };
    check_reply(ReplyBody::Log(piece), b"log", "060080018301");
    check_reply(ReplyBody::Echo, b"tail", "07");
}

#[test]
fn failures() {
    let cases = [
        (Failure::Malformed, "00"),
        (Failure::NoSession, "01"),
        (Failure::Version(Versions { min: 1, current: 2 }), "020102"),
        (Failure::Boot(BOOT), "03b0b0b0b0b0b0b0b0"),
        (Failure::Rights(Rights::WRITE), "0402"),
        (Failure::NoDevice, "05"),
        (Failure::BeyondEnd(4096), "068020"),
        (Failure::Misaligned(4096), "078020"),
        (Failure::Unreasonable, "08"),
        (Failure::NoFragment(300), "09ac02"),
        (Failure::Full(256), "0a8002"),
        (Failure::Window(4096), "0b8020"),
        (Failure::Open(6), "0c06"),
        (Failure::Device(5), "0d05"),
        (Failure::Unsupported, "0e"),
    ];
    for (failure, expected) in cases {
        let expected = format!("08{expected}");
        check_reply(ReplyBody::Failed(failure), b"", &expected);
    }
}

#[test]
fn flags_and_kinds() {
    let rights = [
        (Rights::READ, 1),
        (Rights::WRITE, 2),
        (Rights::POWER, 4),
        (Rights::INSECURE, 256),
    ];
    for (right, bits) in rights {
        assert_eq!(right.0, bits);
    }
    let flags = [
        (DeviceFlags::READ_ONLY, 1),
        (DeviceFlags::REMOVABLE, 2),
        (DeviceFlags::ROTATIONAL, 4),
        (DeviceFlags::IN_USE, 8),
        (DeviceFlags::MOUNTED_READ_WRITE, 16),
        (DeviceFlags::DIRECT, 32),
    ];
    for (flag, bits) in flags {
        assert_eq!(flag.0, bits);
    }
    let kinds = [
        (DeviceKind::Disk, 0),
        (DeviceKind::Partition, 1),
        (DeviceKind::Mapper, 2),
        (DeviceKind::Md, 3),
        (DeviceKind::Loop, 4),
        (DeviceKind::File, 5),
        (DeviceKind::Other, 6),
    ];
    for (kind, byte) in kinds {
        assert_eq!(postcard::to_allocvec(&kind).unwrap(), [byte]);
    }
}

#[test]
fn layouts() {
    let runs = [
        (3, RunKind::Data),
        (512, RunKind::Zero),
        (31, RunKind::Unreadable),
        (32, RunKind::Data),
    ];
    let mut out = [0; 16];
    let length = write_layout(runs.into_iter(), &mut out).unwrap();
    assert_eq!(hex(&out[..length]), "0c81107e8001");
}

#[test]
fn names_made_of_digests() {
    let id = DeviceId::new("naa.5000c500a1b2c3d4", 1 << 40, 1 << 20);
    assert_eq!(id.to_string(), "dfd1057c88a59b0a");
    let fetch = fetch(Task::Read(ranges()), Codec::Zstd(19));
    let whole: [&[u8]; 1] = [b"encoded bytes"];
    let pieces: [&[u8]; 2] = [b"encoded", b" bytes"];
    let tag = fetch.tag(Codec::Zstd(3), whole).unwrap();
    assert_eq!(tag.to_string(), "bcc94b0d78cf71bf");
    assert_eq!(fetch.tag(Codec::Zstd(3), pieces), Some(tag));
    assert_ne!(fetch.tag(Codec::Zstd(4), whole), Some(tag));
    assert_eq!(
        RangeDigest::of(b"").short().to_string(),
        "af1349b9f5f9a1a6a0404dea36dcc949"
    );
}
