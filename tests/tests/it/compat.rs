//! Everything that e2image makes, made by e2wire: the same bytes.
//!
//! Every fixture is compared in every mode. Where e2image refuses or is
//! wrong, [`REFUSED`] says why; e2wire has to image these all the same.

use std::fs;
use std::path::{Path, PathBuf};

use e2wire_tests::compare::{first_difference, first_missing_block};
use e2wire_tests::fixtures::{self, Fixture, in_parallel};
use e2wire_tests::oracle::{self, E2image};
use e2wire_tests::subject;

/// Fixtures that e2image cannot image raw or as qcow2, and why.
const REFUSED: &[(&str, &str)] = &[(
    "inline-long-link",
    "a symbolic link with inline data and an attribute block stops e2image's \
     scan, although the filesystem is clean",
)];

/// Fewer compared fixtures than this would prove less than is claimed.
const COMPARED_MIN: usize = 70;

fn refused(fixture: &Fixture) -> bool {
    REFUSED.iter().any(|(name, _)| *name == fixture.recipe.name)
}

/// Compares every fixture; `check` answers whether there was something to
/// compare. All that differ are told at once.
fn for_every_fixture(
    compared_min: usize,
    check: impl Fn(&Fixture, &Path) -> Result<bool, String> + Sync,
) {
    let fixtures = fixtures::build_all().unwrap();
    let results = in_parallel(&fixtures, |fixture| {
        let scratch = tempfile::tempdir_in(e2wire_tests::target()).unwrap();
        check(fixture, scratch.path())
            .map_err(|what| format!("{}: {what}", fixture.recipe.name))
    });
    let compared = results.iter().filter(|r| **r == Ok(true)).count();
    let wrong: Vec<String> =
        results.into_iter().filter_map(Result::err).collect();
    assert!(
        wrong.is_empty(),
        "{} fixtures differ:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(compared >= compared_min, "compared only {compared} fixtures");
}

/// Lets both make an image; where e2image refuses, only e2wire.
fn both(
    fixture: &Fixture,
    scratch: &Path,
    theirs: &[&str],
    ours: &[&str],
) -> Result<Option<(PathBuf, PathBuf)>, String> {
    let (expected, got) = (scratch.join("e2image"), scratch.join("e2wire"));
    for path in [&expected, &got] {
        let _ = fs::remove_file(path);
    }
    let ours = [&["--select", "e2image"], ours].concat();
    subject::make(&ours, fixture.offset(), &fixture.path, &got)?;
    let e2image = E2image { options: theirs, offset: fixture.offset() };
    let makes_tables = theirs.is_empty();
    if refused(fixture) && !makes_tables {
        let result = e2image.run(&fixture.path, &expected);
        if result.status.success() {
            return Err("e2image takes it: strike it from REFUSED".into());
        }
        return Ok(None);
    }
    e2image.image(&fixture.path, &expected);
    Ok(Some((expected, got)))
}

fn same(fixture: &Fixture, expected: &Path, got: &Path) -> Result<(), String> {
    match first_difference(expected, got).unwrap() {
        None => Ok(()),
        Some(at) => {
            let length = |path: &Path| fs::metadata(path).unwrap().len();
            Err(format!(
                "differs from byte {at} on (block {} of {}); lengths {} and {}",
                at / u64::from(fixture.recipe.block_bytes),
                got.display(),
                length(expected),
                length(got)
            ))
        }
    }
}

fn identical(theirs: &'static [&str], ours: &'static [&str], min: usize) {
    for_every_fixture(min, |fixture, scratch| {
        // Offsets are for raw images only.
        if fixture.offset() > 0 && !theirs[0].starts_with("-r") {
            return Ok(false);
        }
        let Some((expected, got)) = both(fixture, scratch, theirs, ours)?
        else {
            return Ok(false);
        };
        same(fixture, &expected, &got).map(|()| true)
    });
}

#[test]
fn raw_images_are_the_same() {
    identical(&["-r"], &["--format", "raw"], COMPARED_MIN);
}

#[test]
fn raw_images_with_data_are_the_same() {
    identical(&["-ra"], &["--format", "raw", "--data"], COMPARED_MIN);
}

#[test]
fn classic_qcow2_images_are_the_same() {
    identical(
        &["-Q"],
        &["--format", "qcow2", "--qcow2-layout", "classic"],
        COMPARED_MIN,
    );
}

#[test]
fn classic_qcow2_images_with_data_are_the_same() {
    identical(
        &["-Qa"],
        &["--format", "qcow2", "--qcow2-layout", "classic", "--data"],
        COMPARED_MIN,
    );
}

#[test]
fn normal_images_are_the_same() {
    for_every_fixture(COMPARED_MIN, |fixture, scratch| {
        if fixture.offset() > 0 {
            return Ok(false);
        }
        let made = both(fixture, scratch, &[], &["--format", "normal"])?;
        let (expected, got) = made.ok_or("e2image made none")?;
        for path in [&expected, &got] {
            forget_host(path);
        }
        same(fixture, &expected, &got)?;
        // The readers of normal images agree that it is one.
        let summary = oracle::dumpe2fs(&["-i"], &got);
        assert_eq!(summary, oracle::dumpe2fs(&["-i"], &expected));
        let root = oracle::debugfs(&["-i"], "stat <2>", &got);
        if !root.contains("Type: directory") {
            return Err(format!("debugfs -i shows no root: {root}"));
        }
        Ok(true)
    });
}

/// Clears the fields of a normal image's header that tell where and when it
/// was made.
fn forget_host(image: &Path) {
    let mut bytes = fs::read(image).unwrap();
    // Hostname, device number and name of the source; device, inode and
    // time of the image.
    for field in [0x14..0x54, 0x78..0xBC, 0xF0..0x100] {
        bytes[field].fill(0);
    }
    fs::write(image, bytes).unwrap();
}

#[test]
fn compact_qcow2_images_hold_the_same_and_leak_nothing() {
    for_every_fixture(COMPARED_MIN, |fixture, scratch| {
        let Some((expected, got)) =
            both(fixture, scratch, &["-r"], &["--format", "qcow2"])?
        else {
            return Ok(false);
        };
        oracle::qemu_check(&got)?;
        let raw = scratch.join("raw");
        oracle::qemu_to_raw(&got, &raw);
        same(fixture, &expected, &raw).map(|()| true)
    });
}

#[test]
fn compressed_qcow2_images_hold_the_same() {
    // One of each block size, and clusters of several blocks.
    let some = [
        "ext2-1k-full",
        "ext4-2k-full",
        "ext4-4k-full",
        "ext4-8k-full",
        "ext4-16k-full",
        "ext4-32k-full",
        "ext4-64k-full",
        "bigalloc-1k",
    ];
    for_every_fixture(some.len(), |fixture, scratch| {
        if !some.contains(&fixture.recipe.name) {
            return Ok(false);
        }
        for method in ["zstd", "deflate"] {
            let ours =
                ["--format", "qcow2", "--qcow2-compress", method, "--data"];
            let Some((expected, got)) =
                both(fixture, scratch, &["-ra"], &ours)?
            else {
                return Ok(false);
            };
            oracle::qemu_check(&got).map_err(|e| format!("{method}: {e}"))?;
            let raw = scratch.join("raw");
            oracle::qemu_to_raw(&got, &raw);
            same(fixture, &expected, &raw)
                .map_err(|e| format!("{method}: {e}"))?;
        }
        Ok(true)
    });
}

/// The selection by default holds all that e2image saves and more, and
/// e2fsck finds the image exactly as sound as the original.
#[test]
fn complete_images_are_judged_as_the_original() {
    for_every_fixture(COMPARED_MIN, |fixture, scratch| {
        let image = scratch.join("complete.raw");
        let ours = ["--format", "raw"];
        subject::make(&ours, fixture.offset(), &fixture.path, &image)?;
        let original = match fixture.offset() {
            0 => fixture.path.clone(),
            offset => cut(&fixture.path, offset, scratch),
        };
        let verdict = oracle::e2fsck(&original);
        let ours = oracle::e2fsck(&image);
        if verdict != ours {
            return Err(format!(
                "e2fsck on the original: {} {}\non the image: {} {}",
                verdict.status, verdict.messages, ours.status, ours.messages
            ));
        }
        if !refused(fixture) {
            let e2image = scratch.join("e2image.raw");
            E2image { options: &["-r"], offset: fixture.offset() }
                .image(&fixture.path, &e2image);
            let block = fixture.recipe.block_bytes;
            let missing = first_missing_block(&e2image, &image, block);
            if let Some(block) = missing.unwrap() {
                return Err(format!("block {block} is missing"));
            }
        }
        Ok(true)
    });
}

/// The filesystem at `offset` in a file of its own.
fn cut(disk: &Path, offset: u64, scratch: &Path) -> PathBuf {
    let path = scratch.join("cut");
    let bytes = fs::read(disk).unwrap();
    fs::write(&path, &bytes[usize::try_from(offset).unwrap()..]).unwrap();
    path
}

/// With the backup superblock of group 1, and its descriptors.
#[test]
fn images_by_a_backup_superblock_are_the_same() {
    for_every_fixture(20, |fixture, scratch| {
        let Some(backup) = backup_superblock(fixture) else {
            return Ok(false);
        };
        let (block, size) =
            (backup.to_string(), fixture.recipe.block_bytes.to_string());
        let got = scratch.join("e2wire");
        let ours = ["--format", "raw", "-b", &block, "-B", &size];
        let ours = [&["--select", "e2image"], &ours[..]].concat();
        subject::make(&ours, 0, &fixture.path, &got)?;
        let expected = scratch.join("e2image");
        let theirs = ["-r", "-b", &block, "-B", &size];
        let e2image = E2image { options: &theirs, offset: 0 };
        // A backup may be older than what it describes; then e2image reads
        // nonsense and refuses.
        if !e2image.run(&fixture.path, &expected).status.success() {
            return Ok(false);
        }
        same(fixture, &expected, &got).map(|()| true)
    });
}

/// The block of the superblock in group 1, where there is one.
fn backup_superblock(fixture: &Fixture) -> Option<u64> {
    if fixture.offset() > 0 {
        return None;
    }
    let said = oracle::dumpe2fs(&[], &fixture.path);
    let (_, rest) = said.split_once("Backup superblock at ")?;
    rest.split([',', '\n']).next()?.trim().parse().ok()
}

#[test]
fn the_block_size_may_be_asserted() {
    let fixture = fixtures::fixture("ext4-1k-full");
    let scratch = tempfile::tempdir().unwrap();
    let got = scratch.path().join("got");
    let right = ["--format", "raw", "-B", "1024"];
    subject::make(&right, 0, &fixture.path, &got).unwrap();
    let wrong = ["--format", "raw", "-B", "4096", "--overwrite"];
    let said = subject::make(&wrong, 0, &fixture.path, &got).unwrap_err();
    assert!(said.contains("4096") || said.contains("block size"), "{said}");
}
