//! Copies of a lost superblock are found over a line as they are here, by an
//! agent that looks for them itself.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use e2wire_tests::agents::{Agent, BUILDS, Build, free_address};
use e2wire_tests::desk::Desk;
use e2wire_tests::fixtures::in_parallel;
use e2wire_tests::paced::{Pace, Relay};
use e2wire_tests::{oracle, tools};
use serde_json::Value;

/// A search costs no more of the line, whatever it finds: the plain way
/// would read 129 MiB.
const SEARCH_WIRE_BYTES_MAX: u64 = 64 * 1024;

/// How a filesystem is made, and which of its copies stays.
struct Made {
    size: &'static str,
    features: &'static str,
    options: &'static [&'static str],
    /// The device is longer than the filesystem.
    excess: u64,
    /// The group whose copy stays.
    stays: u64,
}

/// No copy that stays lies where copies usually are.
const MADE: &[Made] = &[
    made("24M", "", &["-b", "1024", "-g", "2048"], 1),
    made("40M", ",^sparse_super,^resize_inode", &["-b", "1024"], 2),
    made("230M", "", &["-b", "1024"], 25),
    made("40M", ",meta_bg,^resize_inode", &["-b", "2048", "-g", "3072"], 1),
    made("300M", "", &["-b", "4096", "-g", "12344"], 1),
    made("3500M", ",^metadata_csum", &["-b", "4096"], 25),
    made(
        "300M",
        ",sparse_super2,^resize_inode",
        &["-b", "4096", "-g", "9000"],
        1,
    ),
    Made {
        excess: 1536,
        ..made("33333k", "", &["-b", "1024", "-g", "2048"], 3)
    },
    made("120G", "", &["-b", "65536"], 25),
];

const fn made(
    size: &'static str,
    features: &'static str,
    options: &'static [&'static str],
    stays: u64,
) -> Made {
    Made { size, features, options, excess: 0, stays }
}

const FEATURES: &str = "none,has_journal,ext_attr,resize_inode,filetype,\
                        extent,64bit,flex_bg,sparse_super,large_file,\
                        huge_file,extra_isize,metadata_csum";

/// Makes it at `path`; answers the blocks of its copies, by group.
fn make(path: &Path, made: &Made) -> Vec<(u64, u64)> {
    let features = format!("{FEATURES}{}", made.features);
    let lazy = "lazy_itable_init=1,lazy_journal_init=1,nodiscard";
    let common = ["-q", "-F", "-O", &features, "-N", "4096", "-E", lazy];
    let mut command = tools::command("mke2fs");
    command.args(common).args(made.options).arg(path).arg(made.size);
    oracle::assert_success("mke2fs", &oracle::run(&mut command));
    let mut command = tools::command("dumpe2fs");
    let said = oracle::run(command.arg(path));
    oracle::assert_success("dumpe2fs", &said);
    let said = String::from_utf8(said.stdout).unwrap();
    let number = |text: &str, key: &str| -> Option<u64> {
        let rest = &text[text.find(key)? + key.len()..];
        let end = rest.find(|c: char| !c.is_ascii_digit())?;
        rest[..end].parse().ok()
    };
    let mut group = 0;
    let mut copies = Vec::new();
    for line in said.lines() {
        group = number(line, "Group ").unwrap_or(group);
        let copy = number(line, "Backup superblock at ");
        copies.extend(copy.map(|block| (group, block)));
    }
    let file = File::options().write(true).open(path).unwrap();
    file.set_len(file.metadata().unwrap().len() + made.excess).unwrap();
    copies
}

/// Destroys the superblock and all copies but one; answers the block that is
/// left.
fn destroy(path: &Path, made: &Made, copies: &[(u64, u64)]) -> u64 {
    let size: u64 = made.options[1].parse().unwrap();
    let file = File::options().write(true).open(path).unwrap();
    file.write_all_at(&[0; 1024], 1024).unwrap();
    for (_, block) in copies.iter().filter(|(group, _)| *group != made.stays) {
        file.write_all_at(&[0; 1024], block * size).unwrap();
    }
    let left = copies.iter().find(|(group, _)| *group == made.stays);
    left.expect("a copy is left").1
}

/// An agent with `device`, a desk, and what counts between them.
struct Place {
    desk: Desk,
    relay: Relay,
    _agent: Agent,
}

impl Place {
    fn new(build: Build, device: &Path) -> Self {
        let address = free_address().expect("a port");
        let agent =
            Agent::listening(build, device, address).expect("the agent runs");
        let relay = Relay::to(address, Pace::default()).expect("a relay");
        let desk = Desk::new(&format!("tcp:{}", relay.address()));
        Self { desk: desk.expect("a desk"), relay, _agent: agent }
    }

    fn carried(&self) -> u64 {
        let carried = self.relay.carried();
        carried.to_near + carried.to_far
    }
}

fn manifest(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[test]
fn a_lost_superblock_is_made_up_for_as_it_is_here() {
    let builds: Vec<&Path> = BUILDS.iter().map(|build| build.path()).collect();
    assert_eq!(builds.len(), 2);
    let cases: Vec<_> = MADE.iter().enumerate().collect();
    in_parallel(&cases, |(index, made)| {
        let scratch = tempfile::tempdir_in(e2wire_tests::target()).unwrap();
        let path = scratch.path().join("device");
        let copies = make(&path, made);
        let device = path.to_str().unwrap();
        let place = Place::new(BUILDS[index % 2], &path);
        let plan = || {
            let before = place.carried();
            let said = place.desk.run(&["plan", device]).unwrap();
            (said.expect(0).unwrap(), place.carried() - before)
        };
        let (sound, sound_bytes) = plan();
        let left = destroy(&path, made, &copies);
        let (said, bytes) = plan();
        let of = |said: &e2wire_tests::desk::Said| {
            said.of_type("plan").next().cloned().unwrap()
        };
        let (sound, now) = (of(&sound), of(&said));
        assert_eq!(now["superblock_at"], left, "{:?}", made.options);
        assert_eq!(now["uuid"], sound["uuid"]);
        assert_eq!(now["filesystem_blocks"], sound["filesystem_blocks"]);
        let finding = said.of_type("finding").next().unwrap();
        assert_eq!(finding["copy"], left, "{finding}");
        let searched = said.of_type("phase").any(|p| p["phase"] == "search");
        assert!(searched, "{:?}", said.events);
        assert!(!said.warned_of("search_ended"), "{:?}", said.events);
        assert!(
            bytes < sound_bytes + SEARCH_WIRE_BYTES_MAX,
            "{:?}: {bytes} bytes, {sound_bytes} when sound",
            made.options
        );
        let desk = &place.desk;
        desk.image(&[], device, &path, "image.qcow2").unwrap();
        let [there, here] = ["image", "local-image"].map(|name| {
            manifest(&desk.path(&format!("{name}.qcow2.manifest.json")))
        });
        assert_eq!(there["findings"], here["findings"]);
        assert!(there["findings"].to_string().contains(&left.to_string()));
    });
}

#[test]
fn where_there_is_no_copy_the_search_costs_next_to_nothing() {
    let scratch = tempfile::tempdir_in(e2wire_tests::target()).unwrap();
    let path = scratch.path().join("device");
    File::create(&path).unwrap().set_len(200 << 20).unwrap();
    let place = Place::new(Build::Freestanding, &path);
    let device = path.to_str().unwrap();
    let said = place.desk.run(&["plan", device]).unwrap().expect(9).unwrap();
    let result = said.result().to_string();
    assert!(result.contains("or in the first 129 MiB"), "{result}");
    let bytes = place.carried();
    assert!(bytes < SEARCH_WIRE_BYTES_MAX, "{bytes}");
}

/// What lies there says that it is the copy in group 1 of a filesystem whose
/// groups just reach there.
fn feign(file: &File, kib: u64) {
    let mut bytes = [0; 1024];
    let group_kib = u32::try_from(kib).unwrap();
    bytes[0x20..0x24].copy_from_slice(&group_kib.to_le_bytes());
    bytes[0x38..0x3a].copy_from_slice(&0xEF53_u16.to_le_bytes());
    bytes[0x5a] = 1;
    bytes[0x4c] = 1;
    file.write_all_at(&bytes, kib * 1024).unwrap();
}

#[test]
fn a_copy_is_found_among_thousands_of_false_ones() {
    let made = &MADE[0];
    let scratch = tempfile::tempdir_in(e2wire_tests::target()).unwrap();
    let path = scratch.path().join("device");
    let copies = make(&path, made);
    let left = destroy(&path, made, &copies);
    // More than an answer holds, in the free blocks of the last groups.
    let file = File::options().write(true).open(&path).unwrap();
    for kib in 20_000..22_000 {
        feign(&file, kib);
    }
    let place = Place::new(Build::Freestanding, &path);
    let desk = &place.desk;
    let device = path.to_str().unwrap();
    let said = desk.image(&[], device, &path, "image.raw").unwrap();
    assert!(!said.warned_of("search_ended"), "{:?}", said.events);
    let finding = said.of_type("finding").next().unwrap();
    assert_eq!(finding["copy"], left, "{finding}");
    // And however many there are, it comes to an end.
    for kib in 4000..24_000 {
        feign(&file, kib);
    }
    let said = desk.run(&["plan", device]).unwrap();
    assert!(said.warned_of("search_ended"), "{:?}", said.events);
}
