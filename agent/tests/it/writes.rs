//! Arming and writing: what is permitted, what comes of it, and that asking
//! again never does harm.

use e2wire_agent::device::DeviceFault;
use e2wire_agent::port::PortKind;
use e2wire_protocol::chunk::Codec;
use e2wire_protocol::digest::{DeviceId, PlanId, RangeDigest};
use e2wire_protocol::limits::{
    ARMED_RANGES_MAX, PATCH_BYTES_MAX, SECTOR_BYTES,
};
use e2wire_protocol::message::{
    Arm, ArmedRange, Failure, InUse, Put, ReplyBody, RequestBody, Rights, Task,
    Upload, Write, put_armed_range,
};
use e2wire_protocol::patch;

use crate::rig::{
    Client, Disk, Got, RIGHTS, Rig, decode, fetch, join, range, ranges,
};

const PLAN: PlanId = PlanId([9; 16]);

fn rig() -> Rig {
    rig_of(vec![Disk::new("sda", 4096)])
}

fn rig_of(disks: Vec<Disk>) -> Rig {
    Rig::with_rights(disks, RIGHTS.with(Rights::WRITE))
}

fn list(ranges: &[(u64, u64)]) -> Vec<u8> {
    let mut list = Vec::new();
    let mut end = 0;
    for (first, count) in ranges {
        let range = ArmedRange { first: *first, count: *count };
        let mut bytes = [0; 20];
        let length = put_armed_range(range, end, &mut bytes).unwrap();
        list.extend(&bytes[..length]);
        end = range.end().unwrap();
    }
    list
}

fn arm_body(device: DeviceId, ranges: &[(u64, u64)]) -> (RequestBody, Vec<u8>) {
    let list = list(ranges);
    let ranges = Upload::of(&list).unwrap();
    let arm = Arm { device, plan: PLAN, bytes: 1 << 20, ranges };
    (RequestBody::Arm(arm), list)
}

/// Arms, and returns the answer.
fn try_arm(rig: &mut Rig, client: &mut Client, ranges: &[(u64, u64)]) -> Got {
    let (body, list) = arm_body(rig.disks.disks[0].id(), ranges);
    rig.send_with(client, body, &list);
    only(rig.run(client))
}

fn arm(rig: &mut Rig, client: &mut Client, ranges: &[(u64, u64)]) {
    let got = try_arm(rig, client, ranges);
    assert_eq!(got.body(), ReplyBody::Done);
}

fn only(mut got: Vec<Got>) -> Got {
    assert_eq!(got.len(), 1, "{got:?}");
    got.remove(0)
}

/// The bytes at sectors, and the same with some changed.
fn change(rig: &Rig, first: u64, count: u32) -> (Vec<u8>, Vec<u8>) {
    let old = rig.disks.disks[0].read(&ranges(&[(first, count)]));
    let mut new = old.clone();
    for (at, byte) in new.iter_mut().enumerate().skip(7).step_by(97) {
        *byte ^= u8::try_from(at % 250).unwrap() + 1;
    }
    (old, new)
}

fn write_body(
    rig: &Rig,
    first: u64,
    (old, new): (&[u8], &[u8]),
) -> (Write, Vec<u8>) {
    let mut bytes = vec![0; PATCH_BYTES_MAX];
    let length = patch::write(old, new, &mut bytes).unwrap();
    bytes.truncate(length);
    let count = u32::try_from(new.len() / SECTOR_BYTES).unwrap();
    let write = Write {
        device: rig.disks.disks[0].id(),
        plan: PLAN,
        range: range(first, count),
        old: RangeDigest::of(old),
        new: RangeDigest::of(new),
        patch: Upload::of(&bytes).unwrap(),
    };
    (write, bytes)
}

fn send_write(
    rig: &mut Rig,
    client: &mut Client,
    first: u64,
    sides: (&[u8], &[u8]),
) -> Got {
    let (write, patch) = write_body(rig, first, sides);
    rig.send_with(client, RequestBody::Write(write), &patch);
    only(rig.run(client))
}

fn lies(rig: &Rig, first: u64, bytes: &[u8]) -> bool {
    let at = usize::try_from(first).unwrap() * SECTOR_BYTES;
    rig.disks.disks[0].bytes[at..at + bytes.len()] == *bytes
}

#[test]
fn a_write_is_done_once_and_found_afterwards() {
    let mut rig = rig();
    let mut client = rig.host();
    arm(&mut rig, &mut client, &[(8, 16), (100, 200)]);
    assert!(rig.disks.disks[0].claimed);
    let (old, new) = change(&rig, 104, 8);
    let got = send_write(&mut rig, &mut client, 104, (&old, &new));
    assert_eq!(got.body(), ReplyBody::Written);
    assert!(lies(&rig, 104, &new));
    assert_eq!(rig.disks.disks[0].writes, [(104 * 512, 4096)]);
    // The answer was lost: the same is asked again, in any number.
    for _ in 0..3 {
        let got = send_write(&mut rig, &mut client, 104, (&old, &new));
        assert_eq!(got.body(), ReplyBody::AlreadyThere);
    }
    assert_eq!(rig.disks.disks[0].writes.len(), 1);
    let id = rig.disks.disks[0].id();
    rig.send(&mut client, RequestBody::Disarm(id));
    assert_eq!(only(rig.run(&mut client)).body(), ReplyBody::Done);
    assert!(!rig.disks.disks[0].claimed);
    let got = send_write(&mut rig, &mut client, 104, (&new, &old));
    assert_eq!(got.failure(), Failure::NotArmed);
    rig.send(&mut client, RequestBody::Disarm(id));
    assert_eq!(only(rig.run(&mut client)).body(), ReplyBody::Done);
}

#[test]
fn a_repetition_of_an_open_write_is_dropped() {
    let mut rig = rig();
    let mut client = rig.host();
    arm(&mut rig, &mut client, &[(0, 4096)]);
    let (old, new) = change(&rig, 0, 8);
    let (write, patch) = write_body(&rig, 0, (&old, &new));
    rig.send_with(&mut client, RequestBody::Write(write), &patch);
    client.number -= 1;
    rig.send_with(&mut client, RequestBody::Write(write), &patch);
    assert_eq!(only(rig.run(&mut client)).body(), ReplyBody::Written);
}

#[test]
fn nothing_is_written_without_the_right() {
    let mut rig = Rig::new(vec![Disk::new("sda", 4096)]);
    let mut client = rig.host();
    let needed = Failure::Rights(Rights::WRITE);
    let got = try_arm(&mut rig, &mut client, &[(0, 4096)]);
    assert_eq!(got.failure(), needed);
    let (old, new) = change(&rig, 0, 8);
    let got = send_write(&mut rig, &mut client, 0, (&old, &new));
    assert_eq!(got.failure(), needed);
    let upload = Upload::of(&[1; 600]).unwrap();
    let put = RequestBody::Put(Put { upload, at: 0 });
    rig.send_with(&mut client, put, &[1; 256]);
    assert_eq!(only(rig.run(&mut client)).failure(), needed);
    let id = rig.disks.disks[0].id();
    rig.send(&mut client, RequestBody::Disarm(id));
    assert_eq!(only(rig.run(&mut client)).failure(), needed);
    assert!(rig.disks.disks[0].writes.is_empty() && lies(&rig, 0, &old));
}

#[test]
fn nothing_is_written_outside_of_what_is_armed() {
    let mut rig = rig();
    let mut client = rig.host();
    let (old, new) = change(&rig, 0, 8);
    let got = send_write(&mut rig, &mut client, 0, (&old, &new));
    assert_eq!(got.failure(), Failure::NotArmed);
    arm(&mut rig, &mut client, &[(8, 16), (24, 1), (100, 200)]);
    for (first, count, inside) in [
        (0, 8, false),
        (7, 1, false),
        (7, 4, false),
        (8, 16, true),
        (20, 8, false),
        (23, 1, true),
        (24, 1, true),
        (99, 1, false),
        (100, 200, true),
        (299, 1, true),
        (299, 2, false),
        (300, 1, false),
    ] {
        let (old, new) = change(&rig, first, count);
        let got = send_write(&mut rig, &mut client, first, (&old, &new));
        let expected = match inside {
            true => ReplyBody::Written,
            false => ReplyBody::Failed(Failure::Outside),
        };
        assert_eq!(got.body(), expected, "{first} {count}");
    }
    // Another plan, and another device.
    let (mut write, patch) = write_body(&rig, 8, (&old[..512], &new[..512]));
    write.plan = PlanId([8; 16]);
    rig.send_with(&mut client, RequestBody::Write(write), &patch);
    assert_eq!(only(rig.run(&mut client)).failure(), Failure::NotArmed);
    write.device = DeviceId([1; 8]);
    rig.send_with(&mut client, RequestBody::Write(write), &patch);
    assert_eq!(only(rig.run(&mut client)).failure(), Failure::NoDevice);
}

#[test]
fn no_more_is_written_than_was_announced() {
    let mut rig = rig();
    let mut client = rig.host();
    let id = rig.disks.disks[0].id();
    let list = list(&[(0, 4096)]);
    let ranges = Upload::of(&list).unwrap();
    let arm = Arm { device: id, plan: PLAN, bytes: 8192, ranges };
    rig.send_with(&mut client, RequestBody::Arm(arm), &list);
    rig.run(&mut client);
    for (first, expected) in [
        (0, ReplyBody::Written),
        (0, ReplyBody::AlreadyThere),
        (8, ReplyBody::Written),
        (16, ReplyBody::Failed(Failure::Outside)),
        // What was lost on the line may be asked for again all the same.
        (8, ReplyBody::AlreadyThere),
    ] {
        let old = Disk::new("sda", 4096);
        let old = old.read(&crate::rig::ranges(&[(first, 8)]));
        let new = vec![0x55; 4096];
        let got = send_write(&mut rig, &mut client, first, (&old, &new));
        assert_eq!(got.body(), expected, "{first}");
    }
}

#[test]
fn what_somebody_else_wrote_is_told_sector_by_sector() {
    let mut rig = rig();
    let mut client = rig.host();
    arm(&mut rig, &mut client, &[(0, 4096)]);
    let (old, new) = change(&rig, 64, 8);
    // Half of the write got to the disk, and one sector is theirs.
    let at = 64 * SECTOR_BYTES;
    rig.disks.disks[0].bytes[at..at + 2048].copy_from_slice(&new[..2048]);
    rig.disks.disks[0].bytes[at + 3000] ^= 1;
    rig.disks.disks[0].bad.insert(71);
    let lay = rig.disks.disks[0].bytes[at..at + 4096].to_vec();
    let got = send_write(&mut rig, &mut client, 64, (&old, &new));
    let ReplyBody::Conflict(conflict) = got.body() else { panic!("{got:?}") };
    assert!(conflict.now.is_unreadable());
    assert_eq!(conflict.range, range(64, 8));
    let (digests, []) = got.tail().as_chunks::<16>() else { panic!() };
    for (sector, digest) in digests.iter().enumerate() {
        let bytes = &lay[sector * SECTOR_BYTES..][..SECTOR_BYTES];
        let expected = RangeDigest::of(bytes).short().0;
        let expected = if sector == 7 { [0; 16] } else { expected };
        assert_eq!(*digest, expected, "{sector}");
    }
    assert!(rig.disks.disks[0].writes.is_empty() && lies(&rig, 64, &lay));
    // With what lies there as the old, it is written.
    rig.disks.disks[0].bad.clear();
    let got = send_write(&mut rig, &mut client, 64, (&lay, &new));
    assert_eq!(got.body(), ReplyBody::Written);
}

#[test]
fn what_cannot_be_read_may_be_written_over() {
    let mut rig = rig();
    let mut client = rig.host();
    arm(&mut rig, &mut client, &[(0, 4096)]);
    rig.disks.disks[0].bad.insert(66);
    let old = rig.disks.disks[0].read(&ranges(&[(64, 8)]));
    let new = vec![0x77; 4096];
    let (mut write, patch) = write_body(&rig, 64, (&old, &new));
    rig.send_with(&mut client, RequestBody::Write(write), &patch);
    let got = only(rig.run(&mut client));
    assert!(matches!(got.body(), ReplyBody::Conflict(_)), "{got:?}");
    write.old = RangeDigest([0; 32]);
    rig.send_with(&mut client, RequestBody::Write(write), &patch);
    assert_eq!(only(rig.run(&mut client)).body(), ReplyBody::Written);
    assert!(lies(&rig, 64, &new));
    // Once it can be read, that is no longer what it says.
    let (mut write, patch) = write_body(&rig, 80, (&[0; 512], &new[..512]));
    write.old = RangeDigest([0; 32]);
    rig.send_with(&mut client, RequestBody::Write(write), &patch);
    let got = only(rig.run(&mut client));
    assert!(matches!(got.body(), ReplyBody::Conflict(_)), "{got:?}");
}

#[test]
fn a_long_patch_comes_in_slices_and_is_asked_for_again() {
    let mut rig = rig();
    let mut client = rig.host();
    arm(&mut rig, &mut client, &[(0, 4096)]);
    let old = rig.disks.disks[0].read(&ranges(&[(512, 512)]));
    let new: Vec<u8> = old.iter().map(|byte| byte ^ 0xa5).collect();
    let (write, patch) = write_body(&rig, 512, (&old, &new));
    assert!(patch.len() > 256 << 10);
    let slices: Vec<&[u8]> = patch.chunks(16 << 10).collect();
    let put = |rig: &mut Rig, client: &mut Client, index: usize| {
        let at = u32::try_from(index * (16 << 10)).unwrap();
        let put = RequestBody::Put(Put { upload: write.patch, at });
        rig.send_with(client, put, slices[index]);
        assert_eq!(only(rig.run(client)).body(), ReplyBody::Done);
    };
    let ask = |rig: &mut Rig, client: &mut Client| {
        rig.send(client, RequestBody::Write(write));
        only(rig.run(client))
    };
    assert_eq!(ask(&mut rig, &mut client).failure(), Failure::Missing(0));
    for index in (0..slices.len()).rev().filter(|index| *index != 3) {
        put(&mut rig, &mut client, index);
    }
    let missing = Failure::Missing(3 * (16 << 10));
    assert_eq!(ask(&mut rig, &mut client).failure(), missing);
    put(&mut rig, &mut client, 3);
    put(&mut rig, &mut client, 3);
    assert_eq!(ask(&mut rig, &mut client).body(), ReplyBody::Written);
    assert!(lies(&rig, 512, &new));
    // It is used up; what is there already needs no patch.
    assert_eq!(ask(&mut rig, &mut client).failure(), Failure::Missing(0));
    let (write, patch) = write_body(&rig, 512, (&new[..512], &new[..512]));
    rig.send_with(&mut client, RequestBody::Write(write), &patch);
    let got = only(rig.run(&mut client));
    assert_eq!(got.body(), ReplyBody::AlreadyThere);
}

#[test]
fn more_uploads_than_there_is_room_for_cost_only_themselves() {
    let mut rig = rig();
    let mut client = rig.host();
    arm(&mut rig, &mut client, &[(0, 4096)]);
    for seed in 0..40_u8 {
        let bytes = vec![seed; 100_000];
        let upload = Upload::of(&bytes).unwrap();
        for (at, slice) in (0..).step_by(16 << 10).zip(bytes.chunks(16 << 10)) {
            let put = RequestBody::Put(Put { upload, at });
            rig.send_with(&mut client, put, slice);
        }
        rig.run(&mut client);
    }
    let (old, new) = change(&rig, 104, 8);
    let got = send_write(&mut rig, &mut client, 104, (&old, &new));
    assert_eq!(got.body(), ReplyBody::Written);
    // Reads still have room.
    let task = Task::Read(ranges(&[(0, 512)]));
    let fetch = fetch(rig.disks.disks[0].id(), task, Codec::Zstd(1));
    rig.send(&mut client, RequestBody::Fetch(fetch.clone()));
    let got = rig.run(&mut client);
    let (encoded, codec) = join(&fetch, &got);
    assert!(decode(encoded, codec).len() > 512);
}

#[test]
fn a_patch_that_makes_something_else_is_refused() {
    let mut rig = rig();
    let mut client = rig.host();
    arm(&mut rig, &mut client, &[(0, 4096)]);
    let (old, new) = change(&rig, 104, 8);
    let (write, patch) = write_body(&rig, 104, (&old, &new));
    for bytes in [&patch[..patch.len() - 1], b"\xff\xff\xff", &[0; 4]] {
        let patch = Upload::of(bytes).unwrap();
        let body = RequestBody::Write(Write { patch, ..write });
        rig.send_with(&mut client, body, bytes);
        assert_eq!(only(rig.run(&mut client)).failure(), Failure::BadUpload);
    }
    let new = RangeDigest([3; 32]);
    let body = RequestBody::Write(Write { new, ..write });
    rig.send_with(&mut client, body, &patch);
    assert_eq!(only(rig.run(&mut client)).failure(), Failure::BadUpload);
    assert!(rig.disks.disks[0].writes.is_empty());
    // Of a list of ranges, its tag is proven.
    let (RequestBody::Arm(arm), mut list) = arm_body(write.device, &[(0, 8)])
    else {
        panic!()
    };
    list[1] ^= 1;
    rig.send_with(&mut client, RequestBody::Arm(arm), &list);
    assert_eq!(only(rig.run(&mut client)).failure(), Failure::BadUpload);
}

#[test]
fn ranges_and_writes_have_to_fit_the_device() {
    let mut disk = Disk::new("sda", 4096);
    disk.logical = 4096;
    let mut rig = rig_of(vec![disk]);
    let mut client = rig.host();
    for (ranges, why) in [
        (&[(0, 4097)][..], Failure::BeyondEnd(4096 * 512)),
        (&[(0, 8), (1 << 40, 8)], Failure::BeyondEnd(4096 * 512)),
        (&[(4, 8)], Failure::Misaligned(4096)),
        (&[(8, 4)], Failure::Misaligned(4096)),
    ] {
        let got = try_arm(&mut rig, &mut client, ranges);
        assert_eq!(got.failure(), why, "{ranges:?}");
        assert!(!rig.disks.disks[0].claimed, "an idle claim is given back");
    }
    let many: Vec<(u64, u64)> =
        (0..512).map(|at| (at * 8, if at % 2 == 0 { 8 } else { 0 })).collect();
    let many: Vec<(u64, u64)> =
        many.into_iter().filter(|(_, count)| *count > 0).collect();
    assert!(many.len() < ARMED_RANGES_MAX);
    arm(&mut rig, &mut client, &many);
    for (first, count, why) in [
        (0, 4, Failure::Misaligned(4096)),
        (4092, 8, Failure::BeyondEnd(4096 * 512)),
        (0, 520, Failure::Unreasonable),
        (8, 8, Failure::Outside),
    ] {
        let bytes = vec![0; usize::try_from(count).unwrap() * SECTOR_BYTES];
        let (mut write, patch) =
            write_body(&rig, 0, (&bytes[..512], &bytes[..512]));
        write.range = range(first, count);
        rig.send_with(&mut client, RequestBody::Write(write), &patch);
        assert_eq!(only(rig.run(&mut client)).failure(), why, "{first}");
    }
    let (old, new) = change(&rig, 16, 8);
    let got = send_write(&mut rig, &mut client, 16, (&old, &new));
    assert_eq!(got.body(), ReplyBody::Written);
}

#[test]
fn a_device_in_use_is_not_armed() {
    let mut rig = rig();
    let mut client = rig.host();
    for how in [InUse::Mounted, InUse::Swap, InUse::Held, InUse::Exclusive] {
        rig.disks.disks[0].in_use = Some(how);
        let got = try_arm(&mut rig, &mut client, &[(0, 8)]);
        assert_eq!(got.failure(), Failure::InUse(how));
    }
    rig.disks.disks[0].in_use = None;
    arm(&mut rig, &mut client, &[(0, 8)]);
    // A claim that was lost has to be asked for again.
    rig.disks.disks[0].claimed = false;
    let (old, new) = change(&rig, 0, 8);
    let got = send_write(&mut rig, &mut client, 0, (&old, &new));
    assert_eq!(got.failure(), Failure::NotArmed);
}

#[test]
fn a_disk_that_does_not_keep_what_it_is_given_is_told() {
    let mut rig = rig();
    let mut client = rig.host();
    arm(&mut rig, &mut client, &[(0, 4096)]);
    rig.disks.disks[0].forgets = true;
    let (old, new) = change(&rig, 0, 8);
    let got = send_write(&mut rig, &mut client, 0, (&old, &new));
    assert_eq!(got.failure(), Failure::NotKept);
    rig.disks.disks[0].forgets = false;
    rig.disks.disks[0].fault = Some(DeviceFault::Gone);
    let got = send_write(&mut rig, &mut client, 0, (&old, &new));
    assert_eq!(got.failure(), Failure::NoDevice);
    // Workers that are busy with others delay, no more.
    rig.disks.disks[0].fault = None;
    let (write, patch) = write_body(&rig, 0, (&old, &new));
    rig.send_with(&mut client, RequestBody::Write(write), &patch);
    let mut got = Vec::new();
    for _ in 0..100 {
        rig.disks.disks[0].busy = 1;
        rig.step();
        got.extend(rig.run(&mut client));
    }
    assert_eq!(only(got).body(), ReplyBody::Written);
}

#[test]
fn another_session_takes_over_the_same_plan_or_one_that_fell_silent() {
    let mut rig = rig();
    let mut first = rig.host();
    arm(&mut rig, &mut first, &[(0, 4096)]);
    let mut second = rig.connect(PortKind::Stream);
    rig.hello(&mut second, 2);
    rig.run(&mut second);
    let (body, list) = arm_body(rig.disks.disks[0].id(), &[(0, 8)]);
    let RequestBody::Arm(arm) = body else { panic!() };
    let other = RequestBody::Arm(Arm { plan: PlanId([1; 16]), ..arm });
    rig.send_with(&mut second, other.clone(), &list);
    let got = only(rig.run(&mut second));
    assert_eq!(got.failure(), Failure::ArmedElsewhere);
    rig.send_with(&mut second, RequestBody::Arm(arm), &list);
    assert_eq!(only(rig.run(&mut second)).body(), ReplyBody::Done);
    let (old, new) = change(&rig, 0, 8);
    let got = send_write(&mut rig, &mut first, 0, (&old, &new));
    assert_eq!(got.failure(), Failure::NotArmed);
    rig.pass(10_000);
    rig.send_with(&mut first, other, &list);
    assert_eq!(only(rig.run(&mut first)).body(), ReplyBody::Done);
    let got = send_write(&mut rig, &mut second, 0, (&old, &new));
    assert_eq!(got.failure(), Failure::NotArmed);
    // A session that ends arms nothing any more, and the disk is let go.
    assert!(rig.disks.disks[0].claimed);
    rig.agent.close_port(first.port);
    rig.run(&mut second);
    assert!(!rig.disks.disks[0].claimed);
}

#[test]
fn a_new_session_on_the_line_has_to_arm_again() {
    let mut rig = rig();
    let mut client = rig.host();
    arm(&mut rig, &mut client, &[(0, 4096)]);
    rig.hello(&mut client, 7);
    rig.run(&mut client);
    assert!(!rig.disks.disks[0].claimed);
    let (old, new) = change(&rig, 0, 8);
    let got = send_write(&mut rig, &mut client, 0, (&old, &new));
    assert_eq!(got.failure(), Failure::NotArmed);
    arm(&mut rig, &mut client, &[(0, 4096)]);
    let got = send_write(&mut rig, &mut client, 0, (&old, &new));
    assert_eq!(got.body(), ReplyBody::Written);
}

#[test]
fn what_comes_behind_a_write_sees_it() {
    let mut rig = rig();
    let mut client = rig.host();
    arm(&mut rig, &mut client, &[(0, 4096)]);
    let task = Task::Read(ranges(&[(16, 8)]));
    let fetch = fetch(rig.disks.disks[0].id(), task, Codec::Stored);
    let (old, new) = change(&rig, 16, 8);
    let (write, patch) = write_body(&rig, 16, (&old, &new));
    let id = rig.disks.disks[0].id();
    rig.send_with(&mut client, RequestBody::Write(write), &patch);
    rig.send(&mut client, RequestBody::Flush(id));
    rig.send(&mut client, RequestBody::Fetch(fetch.clone()));
    let got = rig.run(&mut client);
    assert_eq!(got[0].body(), ReplyBody::Written);
    assert_eq!(got[1].body(), ReplyBody::Done);
    let (encoded, codec) = join(&fetch, &got[2..]);
    assert!(decode(encoded, codec).ends_with(&new[2048..]));
}

#[test]
fn a_disk_that_hangs_in_a_write_leaves_the_line_alive() {
    let mut rig = rig();
    let mut client = rig.host();
    arm(&mut rig, &mut client, &[(0, 4096)]);
    let (old, new) = change(&rig, 16, 8);
    let (write, patch) = write_body(&rig, 16, (&old, &new));
    rig.disks.disks[0].hangs = true;
    rig.send_with(&mut client, RequestBody::Write(write), &patch);
    assert!(rig.run(&mut client).is_empty());
    rig.pass(300);
    let got = only(rig.run(&mut client));
    let ReplyBody::Busy(busy) = got.body() else { panic!("{got:?}") };
    assert_eq!((busy.device, busy.offset), (write.device, 16 * 512));
    // Given up, asked again, and done when the disk comes back.
    rig.send(&mut client, RequestBody::Cancel);
    assert_eq!(only(rig.run(&mut client)).body(), ReplyBody::Done);
    rig.send_with(&mut client, RequestBody::Write(write), &patch);
    rig.disks.disks[0].hangs = false;
    assert_eq!(only(rig.run(&mut client)).body(), ReplyBody::Written);
    assert!(lies(&rig, 16, &new));
}
