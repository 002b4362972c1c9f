//! Damage by chance, from seeds.
//!
//! A seed decides which words of the metadata of a small filesystem change,
//! and to what. The walk must end, ask for nothing outside the device, and
//! select, where e2image still can, what e2image does; and e2fsck must say of
//! a complete image what it says of the device. `E2WIRE_SEEDS=FROM..TO` asks
//! for other seeds and as many as there is time for.

use std::fs;
use std::os::unix::fs::FileExt as _;

use e2wire::ext::walk::{Scope, Selection, WalkOptions};
use e2wire_tests::fixtures::in_parallel;
use e2wire_tests::oracle::{self, E2image};
use e2wire_tests::sim::Random;
use e2wire_tests::subject;

use super::disk::{self, Disk, get32, put32};

/// What is broken: small, and of every kind.
const FIXTURES: &[&str] = &[
    "groups-small",
    "ext2-1k",
    "ext3-1k",
    "ext4-1k",
    "ext2-rev0",
    "orphan-file",
    "inline-data-1k",
    "ea-inode-1k",
    "journal-dirty",
    "uninit-bg",
];

/// Seeds that every run of the tests tries.
const SEEDS: std::ops::Range<u64> = 0..4_000;
/// One in so many seeds is shown to e2image as well,
const ORACLE_EACH: u64 = 25;
/// and one in so many to e2fsck.
const CHECKER_EACH: u64 = 10;

fn seeds() -> std::ops::Range<u64> {
    let Some(asked) = std::env::var_os("E2WIRE_SEEDS") else { return SEEDS };
    let asked = asked.into_string().expect("E2WIRE_SEEDS=FROM..TO");
    let (from, to) = asked.split_once("..").expect("E2WIRE_SEEDS=FROM..TO");
    from.parse().unwrap()..to.parse().unwrap()
}

/// The places of words that mean something, in bytes.
fn words(disk: &Disk) -> Vec<usize> {
    let size = disk.block_size();
    let selected = disk::blocks(&disk.walk.selected);
    let mut words: Vec<usize> = selected
        .flat_map(|block| {
            let from = block as usize * size;
            (from..from + size).step_by(4)
        })
        .filter(|at| get32(&disk.bytes, *at) != 0)
        .collect();
    // The head decides most: a third of all changes go there.
    let head: Vec<usize> =
        words.iter().copied().take_while(|at| *at < 16 * size).collect();
    for _ in 0..words.len() / 3 / head.len().max(1) {
        words.extend(&head);
    }
    words
}

/// Changes words as `seed` says; answers what they were.
fn damage(
    disk: &mut Disk,
    words: &[usize],
    chance: &mut Random,
) -> Vec<(usize, u32)> {
    let blocks = disk.walk.geometry.blocks.0;
    let count = 1 + chance.below(12);
    let below =
        |chance: &mut Random, end: usize| chance.below(end as u64) as usize;
    (0..count)
        .map(|_| {
            let at = words[below(chance, words.len())];
            let was = get32(&disk.bytes, at);
            let value = match chance.below(6) {
                0 => 0,
                1 => u32::MAX,
                2 => chance.below(blocks) as u32,
                3 => was ^ 1 << chance.below(32),
                4 => get32(&disk.bytes, words[below(chance, words.len())]),
                _ => chance.next() as u32,
            };
            put32(&mut disk.bytes, at, value);
            (at, was)
        })
        .collect()
}

fn restore(disk: &mut Disk, changes: &[(usize, u32)]) {
    for (at, was) in changes.iter().rev() {
        put32(&mut disk.bytes, *at, *was);
    }
}

#[test]
fn whatever_chance_breaks_the_walk_ends_and_agrees_with_e2image() {
    let seeds = seeds();
    let compared: Vec<u64> = in_parallel(FIXTURES, |fixture| {
        let mut disk = Disk::open(fixture);
        let words = words(&disk);
        let mut compared = 0;
        for seed in seeds.clone() {
            let which = FIXTURES.iter().position(|name| name == fixture);
            if seed % FIXTURES.len() as u64 != which.unwrap() as u64 {
                continue;
            }
            let mut chance = Random::new(seed);
            let changes = damage(&mut disk, &words, &mut chance);
            let done = std::panic::catch_unwind(|| try_all(&disk, seed));
            match done {
                Ok(was_compared) => compared += u64::from(was_compared),
                Err(_) => {
                    panic!("{fixture}: E2WIRE_SEEDS={seed}..{}", seed + 1)
                }
            }
            restore(&mut disk, &changes);
        }
        compared
    });
    let compared: u64 = compared.iter().sum();
    let wanted = (seeds.end - seeds.start) / ORACLE_EACH / 4;
    assert!(compared >= wanted, "compared only {compared} with e2image");
}

/// Walks by every rule; answers whether e2image could be asked.
fn try_all(disk: &Disk, seed: u64) -> bool {
    for (selection, scope) in [
        (Selection::Complete, Scope::Metadata),
        (Selection::Complete, Scope::Data),
        (Selection::E2image, Scope::Data),
        (Selection::E2image, Scope::Tables),
    ] {
        let options =
            WalkOptions { selection, scope, ..WalkOptions::default() };
        let Ok(walked) = disk.walk(options) else { continue };
        let walk = walked.walk;
        assert!(walk.findings.len() as u64 <= walk.findings_total);
        for finding in &walk.findings {
            assert!(!finding.to_string().is_empty());
        }
        let last = walk.selected.last().map_or(0, |block| block.0);
        assert!(last < walk.geometry.blocks.0, "selects block {last}");
    }
    // Every fixture has its turn.
    let turn = seed / FIXTURES.len() as u64;
    if turn.is_multiple_of(CHECKER_EACH) {
        show_to_e2fsck(disk);
    }
    if !turn.is_multiple_of(ORACLE_EACH) {
        return false;
    }
    compare(disk)
}

/// e2fsck says the same of the device and of what a complete image holds.
fn show_to_e2fsck(disk: &Disk) {
    let Ok(walked) = disk.walk(WalkOptions::default()) else { return };
    let walk = walked.walk;
    let scratch = tempfile::tempdir_in(e2wire_tests::target()).unwrap();
    let (path, image) =
        (scratch.path().join("damaged"), scratch.path().join("image"));
    disk.save(&path);
    let file = fs::File::create(&image).unwrap();
    file.set_len(disk.bytes.len() as u64).unwrap();
    for block in disk::blocks(&walk.selected) {
        let at = block * disk.block_size() as u64;
        file.write_all_at(disk.bytes_of(block), at).unwrap();
    }
    let (of_disk, of_image) = (oracle::e2fsck(&path), oracle::e2fsck(&image));
    // Where it divides by zero it prints addresses.
    if !of_disk.messages.contains("SIGFPE") {
        let findings: Vec<_> = walk.findings.iter().take(20).collect();
        assert_eq!(of_disk, of_image, "what e2fsck finds; {findings:#?}");
    }
}

fn compare(disk: &Disk) -> bool {
    let options =
        WalkOptions { selection: Selection::E2image, ..WalkOptions::default() };
    let Ok(walked) = disk.walk(options) else { return false };
    let walk = walked.walk;
    // It would count from 4,000,000,000 down.
    let limit = walk.geometry.inodes_per_group;
    let hangs = walk.groups.iter().any(|group| group.itable_unused > limit);
    if walk.superblock_at.0 > 1 || hangs {
        return false;
    }
    let scratch = tempfile::tempdir_in(e2wire_tests::target()).unwrap();
    let path = scratch.path().join("damaged");
    disk.save(&path);
    let Ok(theirs) = oracle::block_list(&path, 0, &[]) else { return false };
    let ours: Vec<u64> = disk::blocks(&walk.selected).collect();
    let only = |one: &[u64], other: &[u64]| -> Vec<u64> {
        let is_other = |block: &&u64| other.binary_search(block).is_err();
        one.iter().filter(is_other).take(20).copied().collect()
    };
    let (more, less) = (only(&ours, &theirs), only(&theirs, &ours));
    assert!(
        ours == theirs,
        "only e2wire: {more:?}, only e2image: {less:?}; {:#?}",
        walk.findings.iter().take(20).collect::<Vec<_>>()
    );
    let (theirs, ours) =
        (scratch.path().join("theirs"), scratch.path().join("ours"));
    E2image { options: &["-r"], offset: 0 }.image(&path, &theirs);
    let options = ["--select", "e2image", "--format", "raw"];
    subject::make(&options, 0, &path, &ours).unwrap();
    let (theirs, ours) = (fs::read(&theirs).unwrap(), fs::read(&ours).unwrap());
    assert!(theirs == ours, "not e2image's bytes");
    true
}
