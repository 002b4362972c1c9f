//! Damage: whatever is wrong with a filesystem, there is an image of it, and
//! what is wrong is said.
//!
//! [`recipes::RECIPES`] breaks real filesystems in one way each. What is
//! found must be what `damage/findings.txt` says (`E2WIRE_BLESS=1` writes it
//! anew: read the difference). Then chance breaks them, from seeds.

mod chance;
mod disk;
mod recipes;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;

use e2wire::ext::Walk;
use e2wire::ext::walk::{Scope, Selection, WalkOptions};
use e2wire_tests::agents::Build;
use e2wire_tests::fixtures::in_parallel;
use e2wire_tests::memory::{Walked, drive};
use e2wire_tests::{binaries, oracle, subject, tools};
use serde_json::Value;

use disk::Disk;
use recipes::{RECIPES, Recipe};

/// Seconds of the processor's time that an image may take: the kernel ends
/// what takes more, whatever else the machine has to do.
const IMAGE_SECONDS_MAX: u32 = 2;
/// Steps of a walk: a sound one takes fewer than ten, every link of a
/// damaged chain one more.
const LEVELS_MAX: usize = 100;

#[test]
fn every_recipe_gives_an_image_and_the_findings_on_record() {
    assert!(RECIPES.len() >= 40, "only {} recipes", RECIPES.len());
    let results = in_parallel(RECIPES, check);
    let mut said = String::new();
    for (recipe, result) in RECIPES.iter().zip(results) {
        writeln!(said, "{} ({})", recipe.name, recipe.fixture).unwrap();
        said.push_str(&result);
        said.push('\n');
    }
    let path = e2wire_tests::root().join("tests/tests/it/damage/findings.txt");
    if std::env::var_os("E2WIRE_BLESS").is_some() {
        fs::write(&path, &said).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    let paragraphs = |text: &str| -> BTreeMap<String, String> {
        text.split("\n\n")
            .filter_map(|p| p.trim().split_once('\n'))
            .map(|(name, text)| (name.to_owned(), text.to_owned()))
            .collect()
    };
    let (said, expected) = (paragraphs(&said), paragraphs(&expected));
    for (name, text) in &said {
        let right = expected.get(name).map_or("(nothing)", String::as_str);
        assert_eq!(text, right, "findings of {name}");
    }
    assert_eq!(said.len(), expected.len(), "findings.txt knows more recipes");
}

/// Breaks a filesystem, images it, and says what was found.
fn check(recipe: &Recipe) -> String {
    let name = recipe.name;
    let mut disk = Disk::open(recipe.fixture);
    (recipe.damage)(&mut disk);
    let scratch = tempfile::tempdir_in(e2wire_tests::target()).unwrap();
    let path = scratch.path().join("damaged");
    disk.save(&path);
    let options = WalkOptions { scope: recipe.scope, ..WalkOptions::default() };
    let walked = disk.walk(options).unwrap_or_else(|e| panic!("{name}: {e}"));
    assert!(walked.levels < LEVELS_MAX, "{name}: {} levels", walked.levels);
    check_image(recipe, &disk, &walked.walk, &path);
    if recipe.oracle {
        check_against_e2image(recipe, &disk, &path);
    }
    describe(&walked)
}

fn describe(walked: &Walked) -> String {
    let walk = &walked.walk;
    let mut said = String::new();
    for finding in walk.findings.iter().take(8) {
        writeln!(said, "    {finding}").unwrap();
    }
    writeln!(
        said,
        "    = {} findings, {} blocks",
        walk.findings_total,
        walk.selected.count()
    )
    .unwrap();
    said
}

/// The program makes a raw image in which every selected block is, says the
/// same when it writes the blocks in their order, and over a line.
fn check_image(recipe: &Recipe, disk: &Disk, walk: &Walk, path: &Path) {
    let name = recipe.name;
    let output = path.with_extension("raw");
    let raw = ["--format", "raw"];
    let found = found_by(recipe, disk, &raw, path, &output);
    let listed = walk.findings_total.min(walk.findings.len() as u64);
    assert_eq!(found.len() as u64, listed, "{name}: {found:?}");
    let qcow2 = path.with_extension("qcow2");
    let classic = ["--format", "qcow2", "--qcow2-layout", "classic"];
    let again = found_by(recipe, disk, &classic, path, &qcow2);
    assert_eq!(found, again, "{name}: what a classic image finds");
    let agent = Build::Hosted.path().display();
    let device = path.display();
    let target = format!("exec:{agent} --stdio --device {device} --insecure");
    let patience = "--connect-timeout=100s";
    let over =
        ["--journal=full", "--format=raw", patience, "--target", &target];
    let far = path.with_extension("far");
    let again = found_by(recipe, disk, &over, path, &far);
    assert_eq!(found, again, "{name}: what is found over a line");
    let image = fs::read(&output).unwrap();
    assert!(image == fs::read(&far).unwrap(), "{name}: over a line");
    // A cut device ends where its image has a hole.
    if !disk.is_cut() {
        let (of_disk, of_image) =
            (oracle::e2fsck(path), oracle::e2fsck(&output));
        assert_eq!(of_disk, of_image, "{name}: what e2fsck finds");
    }
    for block in disk::blocks(&walk.selected) {
        let original = disk.bytes_of(block);
        if original.is_empty() {
            continue;
        }
        let from = block as usize * disk.block_size();
        let stored = &image[from..from + original.len()];
        assert!(stored == original, "{name}: block {block} differs");
    }
}

/// Makes an image with `arguments`; answers what was found.
fn found_by(
    recipe: &Recipe,
    disk: &Disk,
    arguments: &[&str],
    device: &Path,
    output: &Path,
) -> Vec<Value> {
    let name = recipe.name;
    let mut command = subject::image(arguments);
    if recipe.scope == Scope::Data {
        command.arg("--data");
    }
    command.arg("--json").arg(device).arg(output);
    let said = oracle::run(&mut bounded(&command));
    let code = said.status.code();
    let expected = if disk.is_cut() { 3 } else { 0 };
    assert_eq!(code, Some(expected), "{name}: {}", oracle::text(&said));
    let mut findings = events(&said.stdout);
    findings.retain(|event| event["type"] == "finding");
    for finding in &mut findings {
        // When it was said is no part of what was found.
        finding["seq"].take();
        finding["ts"].take();
    }
    findings
}

/// `command`, ended by the kernel when it has used its time.
fn bounded(command: &Command) -> Command {
    let mut shell = Command::new("sh");
    shell
        .arg("-c")
        .arg(format!("ulimit -t {IMAGE_SECONDS_MAX} && exec \"$@\""))
        .arg("sh")
        .arg(command.get_program())
        .args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    shell
}

/// With every block size, and however copies are laid out, `plan` finds one
/// when the beginning of the device is gone.
#[test]
fn a_lost_beginning_is_made_up_for_at_every_block_size() {
    const MADE: &[(&str, &str, &[&str])] = &[
        ("24M", "", &["-b", "1024"]),
        ("24M", ",^sparse_super,^resize_inode", &["-b", "1024"]),
        ("24M", "", &["-b", "1024", "-g", "2048"]),
        ("300M", ",bigalloc", &["-b", "1024"]),
        ("80M", ",meta_bg,^resize_inode", &["-b", "2048"]),
        ("300M", "", &["-b", "4096"]),
        ("300M", "", &["-b", "4096", "-g", "12344"]),
        ("300M", ",^metadata_csum", &["-b", "4096"]),
        ("300M", ",sparse_super2,^resize_inode", &["-b", "4096"]),
        ("5G", ",bigalloc", &["-b", "4096"]),
        ("1200M", "", &["-b", "8192"]),
        ("5G", "", &["-b", "16384"]),
        ("20G", "", &["-b", "32768"]),
        ("70G", "", &["-b", "65536"]),
    ];
    const FEATURES: &str = "none,has_journal,ext_attr,resize_inode,filetype,\
                            extent,64bit,flex_bg,sparse_super,large_file,\
                            huge_file,extra_isize,metadata_csum";
    in_parallel(MADE, |(size, features, options)| {
        let scratch = tempfile::tempdir_in(e2wire_tests::target()).unwrap();
        let path = scratch.path().join("device");
        let features = format!("{FEATURES}{features}");
        let common = ["-q", "-F", "-O", &features, "-N", "4096", "-E"];
        let lazy = "lazy_itable_init=1,lazy_journal_init=1,nodiscard";
        let made = oracle::run(
            tools::command("mke2fs")
                .args(common)
                .arg(lazy)
                .args(*options)
                .arg(&path)
                .arg(size),
        );
        oracle::assert_success("mke2fs", &made);
        let plan = |path: &Path| {
            let mut command = binaries::e2wire();
            let said = oracle::run(command.args(["--json", "plan"]).arg(path));
            assert_eq!(said.status.code(), Some(0), "{options:?}: {said:?}");
            events(&said.stdout)
        };
        let before = plan(&path);
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.write_all_at(&vec![0xAA; 1 << 20], 0).unwrap();
        let after = plan(&path);
        let of = |events: &[Value], kind: &str| -> Value {
            let is = |event: &&Value| event["type"] == kind;
            events.iter().find(is).cloned().unwrap_or_default()
        };
        let (was, is) = (of(&before, "plan"), of(&after, "plan"));
        assert!(is["superblock_at"].as_u64() > Some(1), "{options:?}: {is}");
        assert_eq!(was["uuid"], is["uuid"], "{options:?}");
        assert_eq!(was["filesystem_blocks"], is["filesystem_blocks"]);
        let finding = of(&after, "finding");
        assert_eq!(finding["structure"], "superblock", "{options:?}");
        assert_eq!(finding["fault"], "bad-magic");
        assert_eq!(finding["effect"], "copy-used");
        assert_eq!(finding["copy"], is["superblock_at"]);
    });
}

/// Where an image of something else was written over the first ten groups,
/// the copies in group 25 lead to all that lies behind.
#[test]
fn a_beginning_of_many_groups_is_made_up_for() {
    let scratch = tempfile::tempdir_in(e2wire_tests::target()).unwrap();
    let path = scratch.path().join("device");
    let made = oracle::run(
        tools::command("mke2fs")
            .args(["-q", "-F", "-t", "ext4", "-b", "1024", "-g", "2048"])
            .args(["-O", "^flex_bg,^resize_inode", "-N", "4096"])
            .args(["-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard"])
            .arg(&path)
            .arg("90M"),
    );
    oracle::assert_success("mke2fs", &made);
    let lost = 10 * 2048 * 1024;
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.write_all_at(&vec![0xAA; lost], 0).unwrap();
    let disk = fs::read(&path).unwrap();
    let options = WalkOptions { full_tables: true, ..WalkOptions::default() };
    let walk = drive(&disk, options).unwrap().walk;
    assert_eq!(walk.superblock_at.0, 1 + 25 * 2048);
    for (number, group) in walk.groups.iter().enumerate() {
        let place = group.inode_table.0;
        let first = 1 + number as u64 * 2048;
        let is_own = (first..first + 2048).contains(&place);
        assert!(is_own, "group {number}: table at {place}");
        assert!(walk.selected.contains(group.inode_table), "group {number}");
    }
}

fn events(lines: &[u8]) -> Vec<Value> {
    lines
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect()
}

/// Where e2image can image the filesystem, it selects the same blocks.
fn check_against_e2image(recipe: &Recipe, disk: &Disk, path: &Path) {
    let all = if recipe.scope == Scope::Data { &["-a"][..] } else { &[] };
    let Ok(theirs) = oracle::block_list(path, 0, all) else { return };
    let options = WalkOptions {
        selection: Selection::E2image,
        scope: recipe.scope,
        ..WalkOptions::default()
    };
    let ours = disk.walk(options).unwrap().walk;
    let ours: Vec<u64> = disk::blocks(&ours.selected).collect();
    assert!(ours == theirs, "{}: not e2image's blocks", recipe.name);
}
