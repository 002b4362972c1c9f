//! Digests, comparisons and searches.

use e2wire_protocol::chunk::Codec;
use e2wire_protocol::digest::RangeDigest;
use e2wire_protocol::message::{
    DigestForm, DigestUnits, Failure, Find, Match, Matches, Pair, ReplyBody,
    RequestBody, SameUnits, Sameness, Task,
};
use proptest::prelude::*;

use crate::rig::{Client, Disk, Rig, decode, fetch, join, range};

/// The body that answers a task.
fn ask(rig: &mut Rig, client: &mut Client, task: Task) -> Vec<u8> {
    let id = rig.disks.disks[0].id();
    let fetch = fetch(id, task, Codec::Zstd(3));
    rig.send(client, RequestBody::Fetch(fetch.clone()));
    let got = rig.run(client);
    let (encoded, codec) = join(&fetch, &got);
    decode(encoded, codec)
}

fn refused(rig: &mut Rig, client: &mut Client, task: Task) -> Failure {
    let id = rig.disks.disks[0].id();
    let fetch = fetch(id, task, Codec::Stored);
    rig.send(client, RequestBody::Fetch(fetch));
    rig.run(client)[0].failure()
}

fn digests(disk: &Disk, first: usize, count: usize, unit: usize) -> Vec<u8> {
    let mut all = Vec::new();
    let end = first + count;
    for at in (first..end).step_by(unit) {
        let to = end.min(at + unit);
        let digest = if disk.bad.range(at..to).next().is_some() {
            RangeDigest([0; 32])
        } else {
            RangeDigest::of(&disk.bytes[at * 512..to * 512])
        };
        all.extend(digest.0);
    }
    all
}

#[test]
fn digests_are_those_of_the_disk_whatever_the_unit() {
    let mut rig = Rig::new(vec![Disk::new("sda", 5000)]);
    rig.disks.disks[0].bad.insert(1234);
    let mut client = rig.host();
    for (first, count, unit) in [
        (0_u16, 1_u16, 1_u16),
        (0, 5000, 8),
        (3, 4000, 7),
        (0, 5000, 5000),
        (100, 2000, 513),
        (1230, 8, 2),
    ] {
        let task = Task::Digest(DigestUnits {
            range: range(first.into(), count.into()),
            unit_sectors: unit.into(),
            form: DigestForm::Range,
        });
        let body = ask(&mut rig, &mut client, task);
        let expected = digests(
            &rig.disks.disks[0],
            first.into(),
            count.into(),
            unit.into(),
        );
        assert!(body == expected, "{first} {count} {unit}");
    }
    let task = Task::Digest(DigestUnits {
        range: range(1230, 8),
        unit_sectors: 4,
        form: DigestForm::Short,
    });
    let body = ask(&mut rig, &mut client, task);
    let expected = digests(&rig.disks.disks[0], 1234, 4, 4);
    assert_eq!(&body[16..], &expected[..16]);
    assert_eq!(&body[16..], &[0; 16]);
    assert_ne!(&body[..16], &[0; 16]);
}

#[test]
fn too_many_digests_or_too_much_to_read_is_refused() {
    let mut rig = Rig::new(vec![Disk::new("sda", 5000)]);
    let mut client = rig.host();
    let digest = |count, unit_sectors| {
        let range = range(0, count);
        let form = DigestForm::Short;
        Task::Digest(DigestUnits { range, unit_sectors, form })
    };
    for (task, why) in [
        (digest(4097, 1), Failure::Unreasonable),
        (digest(8, 0), Failure::Unreasonable),
        (digest(u32::MAX, 1 << 22), Failure::Unreasonable),
        (digest(5001, 8), Failure::BeyondEnd(2_560_000)),
    ] {
        assert_eq!(refused(&mut rig, &mut client, task), why);
    }
    ask(&mut rig, &mut client, digest(4096, 1));
}

#[test]
fn equal_units_are_found_and_unreadable_ones_are_neither() {
    let mut disk = Disk::new("sda", 8000);
    let copy: Vec<u8> = disk.bytes[..2000 * 512].to_vec();
    disk.bytes[4000 * 512..6000 * 512].copy_from_slice(&copy);
    disk.bytes[(4000 + 17) * 512 + 511] ^= 1;
    disk.bad.extend([40, 4000 + 1999]);
    let mut rig = Rig::new(vec![disk]);
    let mut client = rig.host();
    let pair = |first, other_first, count| Pair {
        one: range(first, count),
        other_first,
    };
    let pairs = heapless::Vec::from_slice(&[
        pair(0, 4000, 2000),
        pair(16, 4016, 3),
        pair(7000, 7000, 1),
    ])
    .unwrap();
    let task = Task::Same(SameUnits { unit_sectors: 8, pairs });
    let body = ask(&mut rig, &mut client, task);
    let found: Vec<_> = body
        .iter()
        .flat_map(|byte| [0, 2, 4, 6].map(|shift| byte >> shift & 3))
        .map(|bits| Sameness::from_bits(bits).unwrap())
        .take(252)
        .collect();
    for (unit, sameness) in found.iter().enumerate() {
        let expected = match unit {
            2 | 250 => Sameness::Different,
            5 | 249 => Sameness::Unreadable,
            _ => Sameness::Same,
        };
        assert_eq!(*sameness, expected, "unit {unit}");
    }
    let none = SameUnits { unit_sectors: 8, pairs: heapless::Vec::new() };
    let why = refused(&mut rig, &mut client, Task::Same(none));
    assert_eq!(why, Failure::Unreasonable);
    let pairs = heapless::Vec::from_slice(&[pair(0, 7999, 2)]).unwrap();
    let beyond = Task::Same(SameUnits { unit_sectors: 8, pairs });
    let why = refused(&mut rig, &mut client, beyond);
    assert_eq!(why, Failure::BeyondEnd(8000 * 512));
}

/// A search for four bytes that returns the twelve from them on.
fn find(first: u64, cells: u32, stride_sectors: u32, offset: u32) -> Find {
    Find {
        first,
        cells,
        stride_sectors,
        offset,
        pattern: heapless::Vec::from_slice(b"\xc0\x3b\x39\x98").unwrap(),
        return_offset: offset,
        return_length: 12,
    }
}

fn plant(disk: &mut Disk, at: usize, number: u32) {
    disk.bytes[at..at + 4].copy_from_slice(b"\xc0\x3b\x39\x98");
    disk.bytes[at + 4..at + 8].fill(0);
    disk.bytes[at + 8..at + 12].copy_from_slice(&number.to_be_bytes());
}

#[test]
fn journal_headers_are_found_with_their_numbers() {
    let mut disk = Disk::new("sda", 40_000);
    for cell in [3, 4, 900, 4999] {
        plant(&mut disk, cell * 4096, u32::try_from(cell).unwrap());
    }
    // Not at the offset that is looked at.
    plant(&mut disk, 77 * 4096 + 8, 77);
    disk.bad.extend([500 * 8, 501 * 8]);
    // Unreadable where nobody looks.
    disk.bad.insert(600 * 8 + 1);
    let mut rig = Rig::new(vec![disk]);
    let mut client = rig.host();
    let body = ask(&mut rig, &mut client, Task::Find(find(0, 5000, 8, 0)));
    let matches = Matches::new(&body, 5000, 12).unwrap();
    assert_eq!(matches.searched(), 5000);
    let found: Vec<_> = matches.map(Result::unwrap).collect();
    let number = |found: &Match<'_>| match found {
        Match::At(cell, bytes) => {
            assert_eq!(bytes[8..], cell.to_be_bytes());
            (*cell, 0)
        }
        Match::Unreadable(cell, count) => (*cell, *count),
    };
    let found: Vec<_> = found.iter().map(number).collect();
    assert_eq!(found, [(3, 0), (4, 0), (500, 2), (900, 0), (4999, 0)]);
}

#[test]
fn far_apart_cells_are_looked_at_without_reading_all_between() {
    // Backup superblocks: one place in each group of 4 MiB.
    let mut disk = Disk::new("sda", 20 * 8192 + 16);
    disk.logical = 4096;
    for group in [1, 3, 5, 7, 9] {
        plant(&mut disk, group * 8192 * 512 + 1024 + 56, 5);
    }
    let mut rig = Rig::new(vec![disk]);
    let mut client = rig.host();
    let search = find(0, 21, 8192, 1024 + 56);
    let body = ask(&mut rig, &mut client, Task::Find(search));
    let found: Vec<_> = Matches::new(&body, 21, 12)
        .unwrap()
        .map(|found| match found.unwrap() {
            Match::At(cell, _) => cell,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(found, [1, 3, 5, 7, 9]);
    assert_eq!(rig.disks.disks[0].jobs, 1);
    let beyond = find(0, 22, 8192, 1024 + 56);
    let why = refused(&mut rig, &mut client, Task::Find(beyond));
    assert!(matches!(why, Failure::BeyondEnd(_)), "{why:?}");
}

#[test]
fn a_search_that_finds_too_much_says_where_it_stopped() {
    let mut disk = Disk::new("sda", 40_000);
    for cell in 0..5000 {
        plant(&mut disk, cell * 4096, u32::try_from(cell).unwrap());
    }
    let mut rig = Rig::new(vec![disk]);
    let mut client = rig.host();
    let mut next = 0;
    let mut rounds = 0;
    while next < 5000 {
        let mut search = find(u64::from(next) * 8, 5000 - next, 8, 0);
        search.return_length = 64;
        let body = ask(&mut rig, &mut client, Task::Find(search));
        let matches = Matches::new(&body, 5000 - next, 64).unwrap();
        let searched = matches.searched();
        assert!(searched > 0);
        for (i, found) in (0..).zip(matches) {
            let Match::At(cell, bytes) = found.unwrap() else { panic!() };
            assert_eq!(cell, i);
            assert_eq!(bytes[8..12], (next + cell).to_be_bytes());
        }
        next += searched;
        rounds += 1;
    }
    assert!(rounds > 4, "the bound was never reached");
}

#[test]
fn senseless_searches_are_refused() {
    let mut rig = Rig::new(vec![Disk::new("sda", 40_000)]);
    let mut client = rig.host();
    let good = find(0, 100, 8, 0);
    let cases = [
        Find { cells: 0, ..good.clone() },
        Find { cells: u32::MAX, ..good.clone() },
        Find { stride_sectors: 0, ..good.clone() },
        Find { offset: 4093, ..good.clone() },
        Find { return_offset: 4090, ..good.clone() },
        Find { return_length: 300, ..good.clone() },
        Find { offset: u32::MAX, stride_sectors: u32::MAX, ..good.clone() },
        Find { pattern: heapless::Vec::new(), ..good.clone() },
        // A window of more than 64 KiB in a cell of 128 KiB.
        Find { stride_sectors: 256, return_offset: 100_000, ..good.clone() },
    ];
    for search in cases {
        let task = Task::Find(search.clone());
        let why = refused(&mut rig, &mut client, task);
        assert_eq!(why, Failure::Unreasonable, "{search:?}");
    }
    ask(&mut rig, &mut client, Task::Find(good));
}

#[test]
fn a_scan_of_a_disk_that_hangs_makes_room_for_one_of_another() {
    let disks = vec![Disk::new("sda", 5000), Disk::new("sdb", 5000)];
    let mut rig = Rig::new(disks);
    let mut client = rig.host();
    rig.disks.disks[0].hangs = true;
    let units = || DigestUnits {
        range: range(0, 5000),
        unit_sectors: 8,
        form: DigestForm::Range,
    };
    let mut numbers = Vec::new();
    for disk in 0..2 {
        let id = rig.disks.disks[disk].id();
        let task = Task::Digest(units());
        let body = RequestBody::Fetch(fetch(id, task, Codec::Stored));
        numbers.push(rig.send(&mut client, body));
    }
    assert_eq!(rig.run(&mut client).len(), 0);
    let mut answered = Vec::new();
    for _ in 0..20 {
        rig.pass(250);
        for got in rig.run(&mut client) {
            if let ReplyBody::Fragment(_) = got.body() {
                answered.push(got.reply().answers);
            }
        }
    }
    assert_eq!(answered, [numbers[1]; 5]);
    rig.disks.disks[0].hangs = false;
    let got = rig.run(&mut client);
    assert!(got.iter().all(|got| got.reply().answers == numbers[0]));
    assert_eq!(got.len(), 5);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn searches_find_what_a_plain_loop_finds(
        stride in prop::sample::select(vec![1_u32, 2, 3, 8, 100, 128, 129, 300]),
        offset in 0_u32..500,
        planted in prop::collection::vec(0_usize..60, 0..10),
        bad in prop::collection::vec(0_usize..40_000, 0..30),
    ) {
        let mut disk = Disk::new("sda", 40_000);
        let stride_bytes = usize::try_from(stride).unwrap() * 512;
        let offset_bytes = usize::try_from(offset).unwrap();
        for cell in &planted {
            plant(&mut disk, cell * stride_bytes + offset_bytes, 1);
        }
        disk.bad.extend(bad);
        let mut expected = Vec::new();
        for cell in 0..60_usize {
            let at = cell * stride_bytes + offset_bytes;
            let sectors = at / 512..(at + 12).div_ceil(512);
            if disk.bad.range(sectors).next().is_some() {
                expected.push((cell, true));
            } else if disk.bytes[at..].starts_with(b"\xc0\x3b\x39\x98") {
                expected.push((cell, false));
            }
        }
        let mut rig = Rig::new(vec![disk]);
        let mut client = rig.host();
        let search = Task::Find(find(0, 60, stride, offset));
        let body = ask(&mut rig, &mut client, search);
        let mut found = Vec::new();
        for entry in Matches::new(&body, 60, 12).unwrap() {
            match entry.unwrap() {
                Match::At(cell, _) => {
                    found.push((usize::try_from(cell).unwrap(), false));
                }
                Match::Unreadable(first, count) => {
                    for cell in first..first + count {
                        found.push((usize::try_from(cell).unwrap(), true));
                    }
                }
            }
        }
        prop_assert_eq!(found, expected);
    }
}
