//! The bytes of what protocol version 2 added: writes.
//!
//! When one of these fails, revert the type, not the test: see `wire_v1.rs`.

use e2wire_protocol::chunk::SectorRange;
use e2wire_protocol::digest::{DeviceId, PlanId, RangeDigest, Tag};
use e2wire_protocol::limits::{
    ARMED_RANGES_MAX, PATCH_BYTES_MAX, UPLOAD_BYTES_MAX,
};
use e2wire_protocol::message::{
    Arm, ArmedRange, ArmedRanges, Conflict, Failure, InUse, MessageError, Put,
    ReplyBody, Request, RequestBody, Upload, Write, put_armed_range,
};

use crate::wire_v1::{BOOT, check_reply, check_request, hex};

const DEVICE: DeviceId = DeviceId([0xd0, 1, 2, 3, 4, 5, 6, 7]);
const PLAN: PlanId = PlanId([0x91; 16]);
const UPLOAD: Upload = Upload { tag: Tag([0x7a; 8]), length: 5 };

fn range() -> SectorRange {
    SectorRange::new(2_000_000, 2).unwrap()
}

fn write() -> RequestBody {
    RequestBody::Write(Write {
        device: DEVICE,
        plan: PLAN,
        range: range(),
        old: RangeDigest([0x01; 32]),
        new: RangeDigest([0x2e; 32]),
        patch: UPLOAD,
    })
}

fn arm() -> RequestBody {
    let (device, plan, bytes) = (DEVICE, PLAN, 1 << 33);
    RequestBody::Arm(Arm { device, plan, bytes, ranges: UPLOAD })
}

#[test]
fn requests() {
    let upload = Upload { length: 300, ..UPLOAD };
    let put = RequestBody::Put(Put { upload, at: 256 });
    check_request(put, &[9; 44], "087a7a7a7a7a7a7a7aac028002");
    for tail in [&b""[..], b"tails"] {
        check_request(
            arm(),
            tail,
            "09d001020304050607\
             91919191919191919191919191919191\
             8080808020\
             7a7a7a7a7a7a7a7a05",
        );
        check_request(
            write(),
            tail,
            "0ad001020304050607\
             91919191919191919191919191919191\
             80897a02\
             0101010101010101010101010101010101010101010101010101010101010101\
             2e2e2e2e2e2e2e2e2e2e2e2e2e2e2e2e2e2e2e2e2e2e2e2e2e2e2e2e2e2e2e2e\
             7a7a7a7a7a7a7a7a05",
        );
    }
    check_request(RequestBody::Disarm(DEVICE), b"", "0bd001020304050607");
}

#[test]
fn replies() {
    check_reply(ReplyBody::Written, b"", "09");
    check_reply(ReplyBody::AlreadyThere, b"", "0a");
    let now = RangeDigest([0x0c; 32]);
    check_reply(
        ReplyBody::Conflict(Conflict { range: range(), now }),
        &[5; 32],
        "0b80897a02\
         0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c",
    );
}

#[test]
fn failures() {
    let cases = [
        (Failure::NotArmed, "0f"),
        (Failure::Outside, "10"),
        (Failure::ArmedElsewhere, "11"),
        (Failure::InUse(InUse::Mounted), "1200"),
        (Failure::InUse(InUse::Swap), "1201"),
        (Failure::InUse(InUse::Held), "1202"),
        (Failure::InUse(InUse::Exclusive), "1203"),
        (Failure::ReadOnly, "13"),
        (Failure::Missing(256), "148002"),
        (Failure::BadUpload, "15"),
        (Failure::NotKept, "16"),
        (Failure::WriteFailed(5), "1705"),
    ];
    for (failure, expected) in cases {
        let expected = format!("08{expected}");
        check_reply(ReplyBody::Failed(failure), b"", &expected);
    }
}

#[test]
fn names_made_of_digests() {
    let upload = Upload::of(b"a patch").unwrap();
    assert_eq!(upload.tag.to_string(), "bd831d41bf130b96");
    assert_eq!(upload.length, 7);
    assert_eq!(Upload::of(b""), None);
    assert_eq!(Upload::of(&vec![0; UPLOAD_BYTES_MAX + 1]), None);
}

#[test]
fn tails_that_do_not_fit_their_heads_are_none() {
    let put = |length, at| {
        let upload = Upload { length, ..UPLOAD };
        RequestBody::Put(Put { upload, at })
    };
    let longest = u32::try_from(PATCH_BYTES_MAX).unwrap();
    for (body, tail, fits) in [
        (put(300, 256), 44, true),
        (put(300, 0), 256, true),
        (put(300, 0), 300, true),
        (put(300, 0), 0, false),
        (put(300, 0), 44, false),
        (put(300, 44), 256, false),
        (put(300, 256), 45, false),
        (put(longest, 16384), 16384, true),
        (put(longest + 1, 16384), 16384, false),
        (put(u32::MAX, u32::MAX - 255), 256, false),
        (write(), 0, true),
        (write(), 5, true),
        (write(), 4, false),
        (arm(), 0, true),
        (arm(), 6, false),
        (RequestBody::Disarm(DEVICE), 1, false),
    ] {
        let request = Request { boot: BOOT, number: 1, body };
        let mut bytes = postcard::to_allocvec(&request).unwrap();
        bytes.extend(vec![7; tail]);
        let decoded = Request::decode(&bytes);
        match fits {
            true => assert_eq!(decoded.unwrap().1.len(), tail),
            false => assert_eq!(
                decoded.err(),
                Some(MessageError::LeftOver),
                "{request:?} with {tail}"
            ),
        }
    }
}

#[test]
fn lists_of_ranges() {
    let ranges = [(2, 8), (10, 1), (2_000_000_000, 1 << 33)]
        .map(|(first, count)| ArmedRange { first, count });
    let mut list = Vec::new();
    let mut end = 0;
    for range in ranges {
        let mut bytes = [0; 20];
        let length = put_armed_range(range, end, &mut bytes).unwrap();
        list.extend(&bytes[..length]);
        end = range.end().unwrap();
    }
    assert_eq!(hex(&list), "02080001f5a7d6b9078080808020");
    let read: Vec<ArmedRange> = ArmedRanges::check(&list).unwrap().collect();
    assert_eq!(read, ranges);
    assert_eq!(put_armed_range(ranges[0], 3, &mut [0; 20]), None);
    assert_eq!(put_armed_range(ranges[0], 0, &mut [0; 1]), None);
    let most = [1, 1].repeat(ARMED_RANGES_MAX);
    assert!(ArmedRanges::check(&most).is_ok());
    for bad in [
        &[][..],
        &[1],
        &[1, 0],
        &[1, 1, 1],
        &[1, 1, 0xff],
        &[[1, 1].repeat(ARMED_RANGES_MAX), vec![1, 1]].concat(),
        // Behind the last byte that there can be.
        &[[0xff; 9].as_slice(), &[1, 1]].concat(),
        &[0, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x40],
    ] {
        assert!(ArmedRanges::check(bad).is_err(), "{bad:?}");
    }
}
