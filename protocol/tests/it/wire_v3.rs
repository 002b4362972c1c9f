//! The bytes of what protocol version 3 added: bodies in columns.
//!
//! When one of these fails, revert the type, not the test: see `wire_v1.rs`.

use e2wire_protocol::chunk::{Codec, Grant, Ranges, SectorRange};
use e2wire_protocol::digest::{DeviceId, Tag};
use e2wire_protocol::message::{Fetch, Fragment, ReplyBody, RequestBody, Task};

use crate::wire_v1::{check_reply, check_request};

const DEVICE: DeviceId = DeviceId([0xd0, 1, 2, 3, 4, 5, 6, 7]);
const COLUMNS: Codec = Codec::ZstdColumns { level: 9, stride: 256 };

#[test]
fn columns() {
    let range = SectorRange::new(2, 8).unwrap();
    let fetch = Fetch {
        device: DEVICE,
        task: Task::Read(Ranges::one(range).unwrap()),
        codec: COLUMNS,
        grant: Grant::new(4096, 1, 300).unwrap(),
    };
    let whole = [&b"encoded"[..]];
    let tag = fetch.tag(COLUMNS, whole).unwrap();
    assert_ne!(fetch.tag(Codec::Zstd(9), whole), Some(tag));
    check_request(
        RequestBody::Fetch(fetch),
        b"",
        "02d0010203040506070001020802098002802001ac02",
    );
    let fragment = Fragment {
        device: DEVICE,
        first: 2,
        codec: COLUMNS,
        tag: Tag([0x7a; 8]),
        encoded: 10_003,
        at: 10_000,
    };
    check_reply(
        ReplyBody::Fragment(fragment),
        b"end",
        "03d00102030405060702020980027a7a7a7a7a7a7a7a934e904e",
    );
}
