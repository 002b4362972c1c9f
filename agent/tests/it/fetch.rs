//! Reads: bodies, fragments and grants, order, loss, disks that hang.

use std::collections::BTreeSet;

use e2wire_agent::device::DeviceFault;
use e2wire_agent::port::PortKind;
use e2wire_protocol::chunk::{Codec, Grant, Layout, RunKind};
use e2wire_protocol::message::{Failure, Fetch, ReplyBody, RequestBody, Task};
use proptest::prelude::*;

use crate::rig::{Client, Disk, Got, Rig, decode, fetch, join, ranges};

/// Tables of records of 256 bytes.
const COLUMNS: Codec = Codec::ZstdColumns { level: 9, stride: 256 };

/// The bytes that a body of a read stands for, and the runs in it.
fn unpack(body: &[u8], sectors: u32) -> (Vec<u8>, Vec<(u32, RunKind)>) {
    let mut bytes = Vec::new();
    let mut runs = Vec::new();
    for run in Layout::check(body, sectors).unwrap() {
        match run.kind {
            RunKind::Data => bytes.extend(run.bytes),
            RunKind::Zero | RunKind::Unreadable => {
                let length = usize::try_from(run.sectors).unwrap() * 512;
                bytes.extend(vec![0; length]);
            }
        }
        runs.push((run.sectors, run.kind));
    }
    (bytes, runs)
}

fn read(rig: &Rig, all: &[(u64, u32)], codec: Codec) -> Fetch {
    fetch(rig.disks.disks[0].id(), Task::Read(ranges(all)), codec)
}

/// Fetches a chunk whole and checks it against the disk.
fn check_read(rig: &mut Rig, client: &mut Client, fetch: &Fetch) -> Vec<Got> {
    rig.send(client, RequestBody::Fetch(fetch.clone()));
    let got = rig.run(client);
    let (encoded, codec) = join(fetch, &got);
    let Task::Read(ranges) = &fetch.task else { panic!("no read") };
    let (bytes, _) = unpack(&decode(encoded, codec), ranges.sectors());
    assert!(bytes == rig.disks.disks[0].read(ranges), "other bytes");
    got
}

#[test]
fn chunks_of_one_range_and_of_many_bring_the_bytes_of_the_disk() {
    let mut rig = Rig::new(vec![Disk::new("sda", 100_000)]);
    let mut client = rig.host();
    let scattered: Vec<_> = (0..64).map(|i| (i * 1000 + 13, 8)).collect();
    let cases: [&[(u64, u32)]; 5] = [
        &[(0, 1)],
        &[(0, 512)],
        &[(99_488, 512)],
        &[(5, 3), (8, 4), (70, 1)],
        &scattered,
    ];
    for all in cases {
        for codec in [Codec::Stored, Codec::Zstd(1), Codec::Zstd(9), COLUMNS] {
            let fetch = read(&rig, all, codec);
            check_read(&mut rig, &mut client, &fetch);
        }
    }
}

#[test]
fn zeros_are_never_sent() {
    let mut disk = Disk::new("sda", 2000);
    disk.bytes.fill(0);
    let mut rig = Rig::new(vec![disk]);
    let mut client = rig.host();
    for codec in [Codec::Stored, Codec::Zstd(3)] {
        let fetch = read(&rig, &[(0, 512)], codec);
        let got = check_read(&mut rig, &mut client, &fetch);
        assert_eq!((got.len(), got[0].tail().len()), (1, 2));
    }
}

#[test]
fn what_does_not_compress_goes_as_it_is() {
    let mut disk = Disk::new("sda", 2000);
    let mut state = 1_u64;
    disk.bytes.fill_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_be_bytes()[3]
    });
    let mut rig = Rig::new(vec![disk]);
    let mut client = rig.host();
    let fetch = read(&rig, &[(0, 512)], Codec::Zstd(3));
    rig.send(&mut client, RequestBody::Fetch(fetch.clone()));
    let got = rig.run(&mut client);
    let (encoded, codec) = join(&fetch, &got);
    assert_eq!(codec, Codec::Stored);
    assert_eq!(encoded.len(), 2 + 256 * 1024);
}

#[test]
fn a_bad_sector_is_told_apart_from_its_neighbours() {
    let mut rig = Rig::new(vec![Disk::new("sda", 2000)]);
    rig.disks.disks[0].bad.extend([30, 31, 35]);
    let mut client = rig.host();
    for codec in [Codec::Stored, Codec::Zstd(3)] {
        let fetch = read(&rig, &[(16, 24)], codec);
        rig.send(&mut client, RequestBody::Fetch(fetch.clone()));
        let got = rig.run(&mut client);
        let (encoded, codec) = join(&fetch, &got);
        let (_, runs) = unpack(&decode(encoded, codec), 24);
        assert_eq!(
            runs,
            [
                (14, RunKind::Data),
                (2, RunKind::Unreadable),
                (3, RunKind::Data),
                (1, RunKind::Unreadable),
                (4, RunKind::Data)
            ]
        );
    }
}

#[test]
fn what_could_not_be_read_is_read_again_when_it_is_asked_for_anew() {
    let mut rig = Rig::new(vec![Disk::new("sda", 2000)]);
    let mut client = rig.host();
    let fetch = read(&rig, &[(16, 24)], Codec::Stored);
    for (bad, count) in [(vec![30], 1), (vec![], 0), (vec![31, 32], 0)] {
        rig.disks.disks[0].bad = bad.into_iter().collect();
        rig.send(&mut client, RequestBody::Fetch(fetch.clone()));
        let got = rig.run(&mut client);
        let (encoded, codec) = join(&fetch, &got);
        let (_, runs) = unpack(&decode(encoded, codec), 24);
        let lost = runs.iter().filter(|(_, k)| *k == RunKind::Unreadable);
        // What was read well is kept, and not read again.
        assert_eq!(lost.count(), count, "{runs:?}");
    }
    // A fragment that was lost on the way is of the same reading.
    let mut fetch = read(&rig, &[(100, 24)], Codec::Stored);
    rig.disks.disks[0].bad.extend([110]);
    rig.send(&mut client, RequestBody::Fetch(fetch.clone()));
    let before = rig.run(&mut client);
    rig.disks.disks[0].bad.clear();
    fetch.grant = Grant::new(256, 3, 1).unwrap();
    rig.send(&mut client, RequestBody::Fetch(fetch.clone()));
    let after = rig.run(&mut client);
    let tags: BTreeSet<_> = before
        .iter()
        .chain(&after)
        .filter_map(|got| match got.body() {
            ReplyBody::Fragment(fragment) => Some(fragment.tag.0),
            _ => None,
        })
        .collect();
    assert_eq!((before.is_empty(), after.len(), tags.len()), (false, 1, 1));
}

#[test]
fn no_more_is_sent_than_granted() {
    let mut rig = Rig::new(vec![Disk::new("sda", 2000)]);
    let mut client = rig.host();
    let mut fetch = read(&rig, &[(0, 512)], Codec::Stored);
    let mut whole = Vec::new();
    // Payloads may change from one request to the next.
    for (payload, first, count) in [
        (256, 0, 1),
        (256, 1, 15),
        (4096, 1, 2),
        (1024, 12, 100),
        (512, 224, 999),
    ] {
        fetch.grant = Grant::new(payload, first, count).unwrap();
        let number = rig.send(&mut client, RequestBody::Fetch(fetch.clone()));
        let got = rig.run(&mut client);
        assert!(got.len() <= usize::from(count));
        for (index, got) in (u32::from(first)..).zip(&got) {
            let ReplyBody::Fragment(fragment) = got.body() else {
                panic!("{got:?}")
            };
            assert_eq!(got.reply().answers, number);
            assert_eq!(fragment.at, index * u32::from(payload));
            assert!(got.tail().len() <= usize::from(payload));
        }
        whole.extend(got);
    }
    join(&fetch, &whole);
    // One read and one compression served them all.
    assert_eq!((rig.disks.disks[0].jobs, rig.zstd.calls), (1, 0));
    fetch.grant = Grant::new(16384, 20, 1).unwrap();
    rig.send(&mut client, RequestBody::Fetch(fetch));
    let got = rig.run(&mut client);
    let ReplyBody::Fragment(fragment) = whole[0].body() else { panic!() };
    let length = fragment.encoded;
    assert_eq!(got[0].failure(), Failure::NoFragment(length));
}

#[test]
fn a_disk_that_changed_is_read_anew() {
    let mut rig = Rig::new(vec![Disk::new("sda", 2000)]);
    let id = rig.disks.disks[0].id();
    let mut client = rig.host();
    let fetch = read(&rig, &[(16, 64)], Codec::Stored);
    check_read(&mut rig, &mut client, &fetch);
    // Another session knows nothing of what this one read.
    rig.disks.disks[0].bytes[16 * 512] ^= 1;
    let mut other = rig.connect(PortKind::Stream);
    rig.hello(&mut other, 2);
    rig.run(&mut other);
    check_read(&mut rig, &mut other, &fetch);
    // A flush in front, even in the same breath, is enough in this one.
    let before = rig.disks.disks[0].jobs;
    rig.send(&mut client, RequestBody::Flush(id));
    rig.send(&mut client, RequestBody::Fetch(fetch.clone()));
    let got = rig.run(&mut client);
    assert!(matches!(got[0].body(), ReplyBody::Done));
    let (body, _) = join(&fetch, &got[1..]);
    let Task::Read(all) = &fetch.task else { panic!() };
    assert!(unpack(&body, 64).0 == rig.disks.disks[0].read(all));
    assert_eq!(rig.disks.disks[0].jobs, before + 2);
    // And so is time.
    rig.disks.disks[0].bytes[16 * 512] ^= 1;
    rig.pass(10_001);
    check_read(&mut rig, &mut client, &fetch);
    assert_eq!(rig.disks.disks[0].jobs, before + 3);
}

#[test]
fn grants_beyond_the_window_are_refused() {
    let mut rig = Rig::new(vec![Disk::new("sda", 2000)]);
    let mut client = rig.host();
    rig.disks.disks[0].hangs = true;
    let mut fetch = read(&rig, &[(0, 512)], Codec::Stored);
    fetch.grant = Grant::new(16384, 0, 999).unwrap();
    // 32 chunks are 8 MiB and their layouts: one too many.
    for _ in 0..32 {
        rig.send(&mut client, RequestBody::Fetch(fetch.clone()));
    }
    let got = rig.run(&mut client);
    assert_eq!(got.len(), 1);
    assert_eq!(got[0].failure(), Failure::Window(8 << 20));
    rig.send(&mut client, RequestBody::Cancel);
    rig.send(&mut client, RequestBody::Fetch(fetch));
    let got = rig.run(&mut client);
    assert!(matches!(got[0].body(), ReplyBody::Done), "{got:?}");
}

#[test]
fn what_the_device_cannot_do_is_said_exactly() {
    let mut disk = Disk::new("sda", 2000);
    disk.logical = 4096;
    let id = disk.id();
    let mut rig = Rig::new(vec![disk]);
    let mut client = rig.host();
    let mut other = read(&rig, &[(0, 8)], Codec::Stored);
    other.device.0[0] ^= 1;
    let cases = [
        (read(&rig, &[(1, 8)], Codec::Stored), Failure::Misaligned(4096)),
        (read(&rig, &[(0, 7)], Codec::Stored), Failure::Misaligned(4096)),
        (
            read(&rig, &[(0, 8), (2000, 8)], Codec::Stored),
            Failure::BeyondEnd(1_024_000),
        ),
        (other, Failure::NoDevice),
    ];
    for (fetch, expected) in cases {
        rig.send(&mut client, RequestBody::Fetch(fetch));
        let got = rig.run(&mut client);
        assert_eq!((got.len(), got[0].failure()), (1, expected));
    }
    for (fault, expected) in [
        (DeviceFault::Gone, Failure::NoDevice),
        (DeviceFault::Open(6), Failure::Open(6)),
        (DeviceFault::Failed(5), Failure::Device(5)),
    ] {
        rig.disks.disks[0].fault = Some(fault);
        rig.send(&mut client, RequestBody::Flush(id));
        assert_eq!(rig.run(&mut client)[0].failure(), expected);
    }
    // No worker now is none for ever: it is tried again.
    rig.disks.disks[0].fault = Some(DeviceFault::NoWorker);
    rig.send(&mut client, RequestBody::Flush(id));
    assert_eq!(rig.run(&mut client).len(), 0);
    rig.disks.disks[0].fault = None;
    let got = rig.run(&mut client);
    assert!(matches!(got[0].body(), ReplyBody::Done), "{got:?}");
}

#[test]
fn a_repeated_request_that_is_still_queued_is_dropped() {
    let mut rig = Rig::new(vec![Disk::new("sda", 2000)]);
    let mut client = rig.host();
    rig.disks.disks[0].hangs = true;
    let fetch = read(&rig, &[(0, 8)], Codec::Stored);
    let body = RequestBody::Fetch(fetch);
    let number = rig.send(&mut client, body.clone());
    for _ in 0..10 {
        rig.repeat(&client, number, body.clone());
    }
    assert_eq!(rig.run(&mut client).len(), 0);
    rig.disks.disks[0].hangs = false;
    assert_eq!(rig.run(&mut client).len(), 1);
    // Answered once, it is answered again.
    rig.repeat(&client, number, body);
    let got = rig.run(&mut client);
    assert_eq!(got.len(), 1);
    assert_eq!((got[0].reply().answers, got[0].reply().seen), (2, 2));
    assert_eq!(rig.disks.disks[0].jobs, 1);
}

#[test]
fn answers_for_one_device_keep_their_order_and_others_pass_by() {
    let disks = vec![Disk::new("sda", 2000), Disk::new("sdb", 2000)];
    let mut rig = Rig::new(disks);
    let mut client = rig.host();
    rig.disks.disks[0].hangs = true;
    let slow = rig.disks.disks[0].id();
    let fast = rig.disks.disks[1].id();
    let mut numbers = Vec::new();
    for i in 0..6 {
        let task = || Task::Read(ranges(&[(i * 8, 8)]));
        for device in [slow, fast] {
            let fetch = fetch(device, task(), Codec::Stored);
            numbers.push(rig.send(&mut client, RequestBody::Fetch(fetch)));
        }
    }
    let answers = |got: Vec<Got>| -> Vec<u32> {
        let mut all: Vec<_> =
            got.iter().map(|got| got.reply().answers).collect();
        // What does not compress takes two fragments.
        all.dedup();
        all
    };
    let fast_ones: Vec<_> =
        numbers.iter().copied().skip(1).step_by(2).collect();
    let slow_ones: Vec<_> = numbers.iter().copied().step_by(2).collect();
    assert_eq!(answers(rig.run(&mut client)), fast_ones);
    rig.disks.disks[0].hangs = false;
    assert_eq!(answers(rig.run(&mut client)), slow_ones);
}

#[test]
fn a_disk_that_hangs_is_reported_every_quarter_second() {
    let mut rig = Rig::new(vec![Disk::new("sda", 2000)]);
    let mut client = rig.host();
    rig.disks.disks[0].hangs = true;
    let id = rig.disks.disks[0].id();
    let fetch = read(&rig, &[(100, 8), (200, 8)], Codec::Stored);
    let number = rig.send(&mut client, RequestBody::Fetch(fetch));
    let mut reports = Vec::new();
    for _ in 0..40 {
        for got in rig.run(&mut client) {
            let ReplyBody::Busy(busy) = got.body() else { panic!("{got:?}") };
            assert_eq!((busy.device, got.reply().answers), (id, number));
            // 512 bytes of the job are done.
            assert_eq!(busy.offset, 101 * 512);
            reports.push(busy.waiting_millis);
        }
        // The loop sleeps exactly until the deadline.
        rig.now = rig.agent.deadline().unwrap();
    }
    assert!(reports.len() >= 38, "{reports:?}");
    assert!(reports.windows(2).all(|pair| pair[1] - pair[0] == 250));
    // The line stays alive meanwhile.
    rig.send(&mut client, RequestBody::Echo);
    let got = rig.run(&mut client);
    assert!(got.iter().any(|got| matches!(got.body(), ReplyBody::Echo)));
}

#[test]
fn disks_that_hang_do_not_keep_others_from_being_served() {
    let names = ["a", "b", "c"];
    let mut rig =
        Rig::new(names.iter().map(|name| Disk::new(name, 2000)).collect());
    let mut first = rig.host();
    let mut second = rig.host();
    for disk in 0..2 {
        rig.disks.disks[disk].hangs = true;
        let id = rig.disks.disks[disk].id();
        for i in 0..10 {
            let task = Task::Read(ranges(&[(i * 8, 8)]));
            let body = RequestBody::Fetch(fetch(id, task, Codec::Stored));
            rig.send(&mut first, body);
        }
    }
    rig.run(&mut first);
    let id = rig.disks.disks[2].id();
    for i in 0..20 {
        let task = Task::Read(ranges(&[(i * 8, 8)]));
        let body = RequestBody::Fetch(fetch(id, task, Codec::Stored));
        rig.send(&mut second, body);
    }
    let got = rig.run(&mut second);
    let answered: BTreeSet<_> =
        got.iter().map(|got| got.reply().answers).collect();
    assert_eq!(answered.len(), 20);
}

#[test]
fn a_port_that_takes_nothing_does_not_starve_the_others() {
    let mut disk = Disk::new("sda", 200_000);
    for (i, byte) in disk.bytes.iter_mut().enumerate() {
        *byte = (i * i / 7).to_le_bytes()[1] | 1;
    }
    let mut rig = Rig::new(vec![disk]);
    let mut stuck = Vec::new();
    for i in 0..8 {
        let mut client = rig.connect(PortKind::Serial);
        rig.run(&mut client);
        rig.hello(&mut client, 1);
        for j in 0..8 {
            let at = (i * 8 + j) * 512;
            let fetch = read(&rig, &[(at, 512)], Codec::Stored);
            rig.send(&mut client, RequestBody::Fetch(fetch));
        }
        rig.step();
        stuck.push(client);
    }
    for _ in 0..10 {
        rig.step();
    }
    rig.pass(6000);
    let mut client = rig.host();
    let fetch = read(&rig, &[(150_000, 512)], Codec::Stored);
    check_read(&mut rig, &mut client, &fetch);
    // Once it moves again, it gets all it asked for.
    for client in &mut stuck {
        let got = rig.run(client);
        let fragments = got
            .iter()
            .filter(|got| matches!(got.body(), ReplyBody::Fragment(_)));
        assert_eq!(fragments.count(), 8 * 65);
    }
}

#[test]
fn an_answer_never_queues_behind_seconds_of_others() {
    let mut rig = Rig::new(vec![Disk::new("sda", 2000)]);
    let mut client = rig.connect(PortKind::Serial);
    rig.run(&mut client);
    rig.hello(&mut client, 1);
    let mut fetch = read(&rig, &[(0, 512)], Codec::Stored);
    fetch.grant = Grant::new(1024, 0, 300).unwrap();
    rig.send(&mut client, RequestBody::Fetch(fetch));
    for _ in 0..200 {
        rig.step();
        let waiting = rig.agent.to_send(client.port).len();
        assert!((1..2 * 1024 + 200).contains(&waiting), "{waiting}");
        rig.agent.sent(client.port, 100, rig.now);
    }
}

#[test]
fn a_cache_that_is_too_small_costs_time_and_nothing_else() {
    let mut rig = Rig::new(vec![Disk::new("sda", 100_000)]);
    let mut client = rig.host();
    let fetches: Vec<_> =
        (0..30).map(|i| read(&rig, &[(i * 512, 512)], Codec::Stored)).collect();
    for _ in 0..2 {
        for fetch in &fetches {
            check_read(&mut rig, &mut client, fetch);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// The algorithm that PROTOCOL.md asks of a host, in its simplest form,
    /// over a line that loses what it wants to.
    #[test]
    fn a_host_that_asks_again_gets_everything(
        wanted in prop::collection::vec((0_u64..190, 1_u32..513), 1..6),
        lose in prop::collection::vec(any::<bool>(), 1..80),
        payload in prop::sample::select(vec![256_u16, 1000, 4096]),
        zstd in any::<bool>(),
    ) {
        let mut rig = Rig::new(vec![Disk::new("sda", 100_000)]);
        let mut client = rig.host();
        let mut lose = lose.into_iter();
        for (first, count) in wanted {
            let codec = if zstd { Codec::Zstd(3) } else { Codec::Stored };
            let mut fetch = read(&rig, &[(first * 512, count)], codec);
            let mut have: Vec<Got> = Vec::new();
            loop {
                // The first run of fragments that is missing.
                let mut index = 0;
                for got in &have {
                    let ReplyBody::Fragment(fragment) = got.body() else {
                        panic!();
                    };
                    if fragment.at / u32::from(payload) == u32::from(index) {
                        index += 1;
                    }
                }
                if let Some(got) = have.first() {
                    let ReplyBody::Fragment(fragment) = got.body() else {
                        panic!();
                    };
                    if u32::from(index) * u32::from(payload)
                        >= fragment.encoded
                    {
                        break;
                    }
                }
                fetch.grant = Grant::new(payload, index, 7).unwrap();
                let body = RequestBody::Fetch(fetch.clone());
                rig.send(&mut client, body);
                for got in rig.run(&mut client) {
                    if !lose.next().unwrap_or(false) {
                        have.push(got);
                    }
                }
                have.sort_by_key(|got| match got.body() {
                    ReplyBody::Fragment(fragment) => fragment.at,
                    other => panic!("{other:?}"),
                });
                have.dedup_by_key(|got| match got.body() {
                    ReplyBody::Fragment(fragment) => fragment.at,
                    other => panic!("{other:?}"),
                });
            }
            let (encoded, codec) = join(&fetch, &have);
            let (bytes, _) = unpack(&decode(encoded, codec), count);
            let expected = ranges(&[(first * 512, count)]);
            prop_assert!(bytes == rig.disks.disks[0].read(&expected));
        }
    }
}
