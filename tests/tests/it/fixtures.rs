//! The fixtures are what their recipes say, on every machine.

use std::collections::BTreeSet;

use e2wire_tests::fixtures::{self, Fixture};
use e2wire_tests::oracle;

#[test]
fn every_recipe_can_be_made() {
    let made = fixtures::build_all().unwrap();
    assert!(made.len() >= 60, "only {} fixtures", made.len());
    let names: BTreeSet<&str> =
        made.iter().map(|fixture| fixture.recipe.name).collect();
    assert_eq!(names.len(), made.len(), "two recipes share a name");
}

#[test]
fn a_recipe_gives_the_same_bytes_again() {
    for name in ["ext4-4k-full", "orphans-indirect", "htree-1k", "grown"] {
        let cached = fixtures::fixture(name);
        let (_folder, again) = fixtures::afresh(name);
        assert_ne!(cached.path, again.path);
        assert_eq!(digest(&cached), digest(&again), "{name}");
    }
}

fn digest(fixture: &Fixture) -> String {
    let file = std::fs::read(&fixture.path).unwrap();
    blake3::hash(&file).to_hex().to_string()
}

/// Fixture, question to debugfs, and what the answer must hold: the features
/// are really there, so that the comparisons say something about them.
const SHOWS: &[(&str, &str, &str)] = &[
    ("by-kernel", "stat crowd", "Flags: 0x81000"),
    ("by-kernel", "ex scattered", " 1/ 1 "),
    ("ext2-1k-full", "stat far", "(TIND)"),
    ("ext2-4k-full", "stat far", "(DIND)"),
    ("ext4-no-extents", "stat far", "(TIND)"),
    ("ext4-4k-full", "stat far", "Flags: 0x80000"),
    ("extents-depth-3", "ex scattered", " 0/ 3 "),
    ("extents-unwritten", "ex grown", "Uninit"),
    ("htree-1k", "stat crowd", "Flags: 0x81000"),
    ("large-dir", "htree crowd", "Indirect levels: 1"),
    ("casefold", "stat Folded", "Flags: 0x40080000"),
    ("casefold-htree", "stats -h", "casefold"),
    ("ea-inode", "ea_list many-attributes", "user.large (7000)"),
    ("inline-data", "stat inside", "Flags: 0x10000000"),
    ("inline-data", "stat small-directory", "Flags: 0x10000000"),
    ("inline-long-link", "stat long", "Flags: 0x10000000"),
    ("orphans-extents", "stats -h", "First orphan inode:"),
    ("orphans-indirect", "stats -h", "First orphan inode:"),
    ("meta-bg", "stats -h", "meta_bg"),
    ("meta-bg-hybrid", "stats -h", "First meta block group"),
    ("uninit-bg", "stats -h", "uninit_bg"),
    ("bits-64-later", "stats -h", "64bit"),
    ("desc-128", "stats -h", "Group descriptor size:    128"),
    ("csum-seed", "stats -h", "Checksum seed"),
    ("sparse-super2", "stats -h", "sparse_super2"),
    ("bigalloc-16k", "stats -h", "Cluster size:             65536"),
    ("quota", "stats -h", "Project quota inode"),
    ("mmp", "stats -h", "MMP block number"),
    ("orphan-file", "stats -h", "Orphan file inode"),
    ("fast-commit", "stats -h", "fast_commit"),
    ("journal-dirty", "stats -h", "needs_recovery"),
    ("journal-dirty-ext3", "stats -h", "needs_recovery"),
    ("ext2-rev0", "stats -h", "Filesystem revision #:    0"),
    ("ext2-hurd", "stats -h", "Hurd"),
    ("ext4-64k-full", "stats -h", "Block size:               65536"),
    ("bad-blocks", "stat <1>", "9000"),
    ("inode-1k", "stats -h", "Inode size:\t          1024"),
];

#[test]
fn the_features_are_there() {
    for (name, request, answer) in SHOWS {
        let fixture = fixtures::fixture(name);
        let said = oracle::debugfs(&[], request, &fixture.path);
        assert!(
            said.contains(answer),
            "{name}: {request}: no {answer:?} in\n{said:.2000}"
        );
    }
}
