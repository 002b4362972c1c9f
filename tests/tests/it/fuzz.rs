//! A taste of fuzzing that needs no fuzzer: every target is fed its corpus
//! and changes of it by chance. `E2WIRE_FUZZ_RUNS=N` asks for more of them.
//!
//! `E2WIRE_BLESS=1` writes the corpora anew, from real images and recorded
//! transcripts.

use std::fs;
use std::panic::catch_unwind;
use std::path::Path;

use e2wire::digest::Digest;
use e2wire::ext::BlockKind;
use e2wire::local::{LocalOutput, OutputOptions};
use e2wire::undo::{Entry, Facts, Stage, UndoWriter};
use e2wire::units::{ByteCount, ByteOffset, ByteRange};
use e2wire_tests::fixtures::in_parallel;
use e2wire_tests::fuzz::{TARGETS, Target, corpus, template};
use e2wire_tests::sim::Random;
use e2wire_tests::{oracle, subject};

/// How many changed inputs each target is fed; an agent starts anew for
/// each of them, and gets fewer.
const RUNS: u64 = 1500;
const SLOW: (&str, u64) = ("agent", 10);
/// Numbers that sit on edges.
const EDGES: [u32; 8] =
    [0, 1, 0x7F, 0xFF, 0xFFFF, 0x8000_0000, 0xFFFF_FFFE, u32::MAX];
const INPUT_MAX: usize = 1 << 16;

#[test]
fn no_input_breaks_what_reads_it() {
    if std::env::var_os("E2WIRE_BLESS").is_some() {
        bless();
    }
    let runs = std::env::var("E2WIRE_FUZZ_RUNS")
        .map_or(RUNS, |runs| runs.parse().expect("a number of runs"));
    let failed: Vec<String> = in_parallel(TARGETS, |target| feed(target, runs))
        .into_iter()
        .flatten()
        .collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// Feeds one target; answers what broke it.
fn feed(target: &Target, runs: u64) -> Option<String> {
    let inputs = read_corpus(target.name);
    for input in &inputs {
        if let Some(failed) = try_one(target, input) {
            return Some(failed);
        }
    }
    let (slow, divisor) = SLOW;
    let runs = if target.name == slow { runs / divisor } else { runs };
    let seed = u64::from(crc(target.name.as_bytes()));
    let mut random = Random::new(seed);
    (0..runs).find_map(|_| try_one(target, &changed(&inputs, &mut random)))
}

fn crc(bytes: &[u8]) -> u32 {
    bytes.iter().fold(7, |sum, byte| sum * 31 % 65_521 + u32::from(*byte))
}

fn read_corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = corpus(name);
    let mut names: Vec<_> = fs::read_dir(&folder)
        .unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    names.sort();
    assert!(!names.is_empty(), "{} is empty", folder.display());
    names.into_iter().map(|path| fs::read(path).unwrap()).collect()
}

/// Where an input that breaks something is kept.
fn try_one(target: &Target, input: &[u8]) -> Option<String> {
    let run = target.run;
    let owned = input.to_vec();
    catch_unwind(move || run(&owned)).err()?;
    let path = e2wire_tests::target().join(format!(
        "fuzz-{}-{:08x}",
        target.name,
        crc(input)
    ));
    fs::write(&path, input).unwrap();
    Some(format!("{} breaks on {}", target.name, path.display()))
}

/// One of the inputs, or two joined, changed in a few places.
fn changed(inputs: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let below = |random: &mut Random, end: usize| {
        usize::try_from(random.below(end.max(1) as u64)).unwrap()
    };
    let mut input = inputs[below(random, inputs.len())].clone();
    if random.below(8) == 0 {
        let other = &inputs[below(random, inputs.len())];
        let cut = below(random, input.len());
        let from = below(random, other.len());
        input.truncate(cut);
        input.extend(&other[from..]);
    }
    // Mostly in the head, where structures begin.
    let reach = match random.below(3) {
        0 => 32,
        1 => 512,
        _ => INPUT_MAX,
    };
    for _ in 0..1 + random.below(8) {
        let end = input.len().min(reach);
        if end == 0 {
            break;
        }
        let at = below(random, end);
        let edge = EDGES[below(random, EDGES.len())];
        match random.below(6) {
            0 => input[at] ^= 1 << random.below(8),
            1 => input[at] = random.next().to_le_bytes()[0],
            2 if random.below(4) == 0 => input.truncate(at),
            3 if random.below(4) == 0 => {
                let piece = input[at..].to_vec();
                input.extend(&piece[..piece.len().min(64)]);
            }
            4 => put(&mut input, at, &edge.to_be_bytes()),
            _ => put(&mut input, at, &edge.to_le_bytes()),
        }
    }
    input.truncate(INPUT_MAX);
    input
}

fn put(input: &mut [u8], at: usize, bytes: &[u8]) {
    for (to, from) in input[at..].iter_mut().zip(bytes) {
        *to = *from;
    }
}

/// Writes the corpora.
fn bless() {
    for target in TARGETS {
        let folder = corpus(target.name);
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        for (index, seed) in seeds(target.name).iter().enumerate() {
            fs::write(folder.join(format!("seed-{index}")), seed).unwrap();
        }
    }
}

fn seeds(name: &str) -> Vec<Vec<u8>> {
    // As the parts of the template lie.
    let part = |block: usize, blocks: usize| {
        let disk = template();
        let bytes = &disk[block * 1024..][..blocks * 1024];
        let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
        let bytes = &bytes[..end.next_multiple_of(64)];
        // Plain; with checksums; data as e2image selects them.
        [0, 1, 6].map(|flags| [&[flags], bytes].concat()).to_vec()
    };
    match name {
        "superblock" => part(1, 1),
        "group" => part(2, 1),
        "inode" => part(5, 4),
        "directory" => part(9, 1),
        "extent" => part(10, 1),
        "indirect" => part(11, 1),
        "xattr" => part(12, 1),
        "journal" => part(16, 4),
        "qcow2" => image_seeds(&["qcow2", "--qcow2-layout", "classic"]),
        "normal" => image_seeds(&["normal"]),
        "manifest" => vec![manifest_seed()],
        "undo" => vec![undo_seed()],
        "mapfile" => vec![MAPFILE.into()],
        "part_map" => part_map_seeds(),
        "frame" => ["v1.requests", "v1.replies", "v2.requests"]
            .map(|name| {
                let bytes = transcript(name);
                [&[3], &bytes[..bytes.len().min(600)]].concat()
            })
            .to_vec(),
        "request" => messages("v2.requests", 0),
        "reply" => messages("v2.replies", 4),
        "agent" => vec![agent_seed()],
        _ => panic!("no seeds for {name}"),
    }
}

fn image_of_template(arguments: &[&str], suffix: &str) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let device = folder.path().join("device");
    fs::write(&device, template()).unwrap();
    let output = folder.path().join("image");
    let arguments = [&["--format"], arguments].concat();
    if suffix.is_empty() {
        subject::make(&arguments, 0, &device, &output).unwrap();
    } else {
        let mut command = e2wire_tests::binaries::e2wire();
        command.arg("image").args(arguments).arg(&device).arg(&output);
        oracle::assert_success("e2wire", &oracle::run(&mut command));
    }
    fs::read(format!("{}{suffix}", output.display())).unwrap()
}

fn image_seeds(arguments: &[&str]) -> Vec<Vec<u8>> {
    let image = image_of_template(arguments, "");
    vec![image[..image.len().min(INPUT_MAX)].to_vec()]
}

fn manifest_seed() -> Vec<u8> {
    image_of_template(&["raw"], ".manifest.json")
}

/// Every status, and numbers in every way.
const MAPFILE: &[u8] = b"# Mapfile. Created by GNU ddrescue version 1.27\n\
    0x1000 ? 1\n0 010 +\n8 8 ? # a comment\n0x10 16 *\n0x20 0X10 /\n\
    0x30 0x10 -\n0x40 0x1FC0 +\n";

/// Records as `fuzz::maps` forges them, and a map as it stands.
fn part_map_seeds() -> Vec<Vec<u8>> {
    let mut forged = vec![0];
    let records: [(u64, u64, u32, u8); 6] = [
        (0, 4096, 1, 0),
        (4096, 512, 2, 0),
        (2048, 4096, 2, 0),
        (8192, 65_536, 1, 0),
        (512, 512, 1, 1),
        (1 << 40, 1 << 20, 2, 0),
    ];
    for (start, length, state, how) in records {
        forged.extend(start.to_le_bytes());
        forged.extend(length.to_le_bytes());
        forged.extend(state.to_le_bytes());
        forged.push(how);
    }
    let plain = [&[1], &b"e2wire spool 2\n\0"[..], &[0; 120]].concat();
    vec![forged, plain]
}

fn undo_seed() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("undo");
    write_undo(&path);
    fs::read(path).unwrap()
}

fn write_undo(path: &Path) {
    let options = OutputOptions { overwrite: true, sync: false, sources: &[] };
    let mut out = LocalOutput::create(path, options).unwrap();
    let facts = Facts { verb: "install".into(), ..Facts::default() };
    let mut writer = UndoWriter::begin(out.file(), &facts).unwrap();
    let digest = |bytes: &[u8]| -> Digest { *blake3::hash(bytes).as_bytes() };
    let (old, new) = ([1; 512], [2; 512]);
    for (index, stage) in Stage::ALL.into_iter().enumerate() {
        let at = ByteOffset(index as u64 * 4096);
        let range = ByteRange::new(at, ByteCount(512)).unwrap();
        let kind = BlockKind::Directory;
        let entry = Entry::new(range, stage, kind, digest(&old), digest(&new));
        writer.add(entry.unwrap(), &old, &new).unwrap();
    }
    writer.seal().unwrap();
    out.publish().unwrap();
}

/// What one side said in a recorded session.
fn transcript(name: &str) -> Vec<u8> {
    let folder = e2wire_tests::root().join("protocol/tests/it/transcripts");
    fs::read(folder.join(name)).unwrap()
}

/// The messages in a transcript, each behind `ahead` zeros.
fn messages(name: &str, ahead: usize) -> Vec<Vec<u8>> {
    use e2wire_protocol::frame::{Decoder, Event};
    let bytes = transcript(name);
    let mut decoder = Box::new(Decoder::new());
    let mut input = &bytes[..];
    let mut all = Vec::new();
    while let Some(event) = decoder.next(&mut input) {
        if let Event::Frame(frame) = event {
            all.push([&vec![0; ahead], frame.message].concat());
        }
    }
    all.truncate(24);
    all
}

/// A script of messages to the agent, with time between them.
fn agent_seed() -> Vec<u8> {
    let mut script = Vec::new();
    for message in messages("v2.requests", 0) {
        let length = u8::try_from(message.len().min(255)).unwrap();
        script.extend([5, length]);
        script.extend(&message[..usize::from(length)]);
        script.extend([2, 1, 0, 4, 20]);
        script.extend([0; 20]);
    }
    script
}
