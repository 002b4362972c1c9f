//! Blocks that cannot be read: tried again, then named for what they were.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::Mutex;

use e2wire::commands::capture::{Capture, Captured};
use e2wire::commands::holes::{self, LostBlocks};
use e2wire::digest::RangeRecord;
use e2wire::error::Result;
use e2wire::ext::{BlockKind, Walk, WalkOptions, Walker};
use e2wire::image::ImageSink as _;
use e2wire::image::raw::{RawOptions, RawSink};
use e2wire::local::{LocalOutput, LocalSource, OutputOptions};
use e2wire::mapfile::Mapfile;
use e2wire::observer::Silent;
use e2wire::range_set::RangeSet;
use e2wire::rescue::Rescue;
use e2wire::source::{
    BlockSource, Each, Payload, Piece, ReadFault, SourceFacts,
};
use e2wire::stop::Stop;
use e2wire::units::{BlockNumber, ByteCount, ByteOffset, ByteRange};
use e2wire_tests::fixtures::{Fixture, fixture};
use e2wire_tests::{binaries, oracle, tools};

const SECTOR: u64 = 512;

/// A disk that cannot read some of its sectors.
struct Faulty {
    disk: LocalSource,
    bad: RangeSet,
    /// How often a bad sector fails before it can be read after all.
    stubborn: u32,
    /// How often each did.
    failed: Mutex<HashMap<u64, u32>>,
}

impl Faulty {
    fn new(fixture: &Fixture, bad: RangeSet, stubborn: u32) -> Self {
        let disk = LocalSource::open(&fixture.path, ByteOffset(0)).unwrap();
        Self { disk, bad, stubborn, failed: Mutex::default() }
    }

    fn fails(&self, sector: ByteRange) -> bool {
        if self.bad.within(sector).next().is_none() {
            return false;
        }
        let mut failed = self.failed.lock().unwrap();
        let times = failed.entry(sector.start().0).or_default();
        *times += 1;
        *times <= self.stubborn
    }

    /// How often any sector failed.
    fn failures(&self) -> u32 {
        self.failed.lock().unwrap().values().sum()
    }
}

impl BlockSource for Faulty {
    fn facts(&self) -> &SourceFacts {
        self.disk.facts()
    }

    fn read(&self, ranges: &[ByteRange], each: Each<'_>) -> Result<()> {
        for &range in ranges {
            let mut open = range.start();
            let mut good = Vec::new();
            for sector in range.cut(SECTOR) {
                if self.fails(sector) {
                    good.extend(ByteRange::between(open, sector.start()));
                    open = sector.end();
                    let length = sector.length();
                    let what = Payload::Unreadable(length, ReadFault::Medium);
                    let _ = each(Piece { at: sector.start(), what });
                }
            }
            good.extend(ByteRange::between(open, range.end()));
            good.retain(|part| !part.is_empty());
            self.disk.read(&good, each)?;
        }
        Ok(())
    }
}

pub(super) fn blocks(walk: &Walk, first: u64, count: u64) -> RangeSet {
    let size = walk.geometry.block_size.bytes_u64();
    let start = ByteOffset(first * size);
    ByteRange::new(start, ByteCount(count * size)).into_iter().collect()
}

fn walker(source: &dyn BlockSource) -> Walker {
    Walker::new(WalkOptions {
        device_length: Some(source.facts().length),
        ..WalkOptions::default()
    })
}

/// The raw image of `source`, and what was lost.
pub(super) fn image(source: &dyn BlockSource) -> (Vec<u8>, Walk, Captured) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    let options = OutputOptions { overwrite: true, sync: false, sources: &[] };
    let mut output = LocalOutput::create(&path, options).unwrap();
    let mut sink = RawSink::new(output.file(), "image", RawOptions::default());
    let stop = Stop::new();
    let mut capture = Capture::new(source, &Silent, &stop);
    let walk = capture.walk(walker(source), Some(&mut sink)).unwrap();
    sink.finish().unwrap();
    let mut captured = capture.finish(&walk).unwrap();
    captured.holes =
        holes::describe(&walk, &captured.losses, source, walker(source), &stop)
            .unwrap();
    drop(sink);
    output.publish().unwrap();
    (fs::read(path).unwrap(), walk, captured)
}

/// What is lost with one bad block of each kind.
fn lost_with(fixture: &Fixture, clean: &Walk, block: u64) -> Vec<LostBlocks> {
    let faulty = Faulty::new(fixture, blocks(clean, block, 1), u32::MAX);
    let rescue = Rescue::new(&faulty, RangeSet::new());
    let (_, _, captured) = image(&rescue);
    let per_block = clean.geometry.block_size.bytes() / SECTOR as usize;
    // Once at first, twice again, and never more however often it is read.
    assert!(
        faulty.failures() as usize <= per_block * 3,
        "{} failures of one block",
        faulty.failures()
    );
    captured.holes
}

#[test]
fn a_lost_block_is_named_for_what_it_was() {
    let fixture = fixture("ext4-1k-full");
    let clean = Faulty::new(&fixture, RangeSet::new(), 0);
    let (_, walk, captured) = image(&clean);
    assert!(captured.losses.is_empty() && captured.holes.is_empty());
    let mut seen = 0;
    for (kind, set) in &walk.kinds {
        // The last of a kind: a lost beginning would cost the walk itself.
        let Some(block) = set.last() else { continue };
        if walk.kind_of(block) != Some(*kind) {
            continue;
        }
        seen += 1;
        let lost = lost_with(&fixture, &walk, block.0);
        let hole = lost.iter().find(|lost| lost.run.first() == block);
        let hole = hole.unwrap_or_else(|| panic!("{kind}: {lost:?}"));
        let told = hole.sentence();
        assert_eq!(hole.kind, Some(*kind), "{told}");
        assert_eq!(hole.fault, ReadFault::Medium, "{told}");
        match kind {
            BlockKind::Superblock | BlockKind::Descriptors => {
                let copy = hole.copies.first().expect("a copy is known");
                assert_copy(&fixture, block, *copy);
            }
            BlockKind::BlockBitmap
            | BlockKind::InodeBitmap
            | BlockKind::InodeTable => {
                let last = walk.geometry.groups - 1;
                assert!(hole.group <= Some(last), "{told}");
                assert_eq!(
                    hole.inodes.is_some(),
                    *kind == BlockKind::InodeTable,
                    "{told}"
                );
            }
            BlockKind::Mmp | BlockKind::ReservedDescriptors => {}
            _ => assert_owner(&fixture, block, hole),
        }
    }
    assert!(seen >= 8, "the fixture has {seen} kinds");
}

/// What debugfs says of a block's owner.
fn assert_owner(fixture: &Fixture, block: BlockNumber, hole: &LostBlocks) {
    let told = hole.sentence();
    let owner = oracle::debugfs(&[], &format!("icheck {block}"), &fixture.path);
    let owner = owner.lines().last().unwrap_or_default();
    let inode = owner.split_whitespace().nth(1).unwrap_or_default().to_owned();
    let (one, last) = hole.inodes.unwrap_or_else(|| panic!("whose? {told}"));
    assert_eq!(one, last, "{told}");
    // Blocks of attributes may be shared, and debugfs names any owner.
    if hole.kind != Some(BlockKind::Xattr) {
        assert_eq!(one.to_string(), inode, "{told}");
    }
    let paths = oracle::debugfs(&[], &format!("ncheck {one}"), &fixture.path);
    let paths: Vec<&str> = paths
        .lines()
        .skip(1)
        .filter_map(|line| line.split_once('\t').map(|(_, path)| path))
        .map(|path| path.trim_start_matches('/'))
        .collect();
    if let Some(path) = &hole.path {
        let path = path.trim_start_matches('/');
        assert!(paths.contains(&path), "{told}: {paths:?}");
    } else {
        // What has a name has it found, but for what lay in the lost block.
        assert!(paths.is_empty() || one < 11, "{told}: {paths:?}");
    }
}

/// Copies differ in little: the block group number, times, a checksum.
fn assert_copy(fixture: &Fixture, block: BlockNumber, copy: BlockNumber) {
    let bytes = fs::read(&fixture.path).unwrap();
    let at = |block: BlockNumber| {
        let start = block.0 as usize * 1024;
        &bytes[start..start + 1024]
    };
    let same = at(block).iter().zip(at(copy)).filter(|(a, b)| a == b).count();
    assert!(same > 900, "block {copy} is no copy of {block}: {same}");
}

#[test]
fn a_sector_that_can_be_read_at_last_is_no_hole() {
    let fixture = fixture("ext4-1k-full");
    let clean = Faulty::new(&fixture, RangeSet::new(), 0);
    let (right, walk, _) = image(&clean);
    let mut bad = RangeSet::new();
    for (number, run) in walk.selected.runs().enumerate() {
        if number % 5 == 0 {
            let start = ByteOffset(run.first().0 * 1024 + 512);
            bad.extend(ByteRange::new(start, ByteCount(SECTOR)));
        }
    }
    let faulty = Faulty::new(&fixture, bad, 2);
    let rescue = Rescue::new(&faulty, RangeSet::new());
    let (made, _, captured) = image(&rescue);
    assert!(captured.losses.is_empty(), "{:?}", captured.holes);
    assert!(captured.changed.is_empty() && made == right);
    assert!(faulty.failures() > 10);
}

/// A disk whose sectors can each be read once, but for its first part.
struct Dying {
    disk: LocalSource,
    seen: Mutex<RangeSet>,
}

/// What tells of changes is read twice: nobody doubts that part here.
const LASTING: u64 = 64 << 10;

impl BlockSource for Dying {
    fn facts(&self) -> &SourceFacts {
        self.disk.facts()
    }

    fn read(&self, ranges: &[ByteRange], each: Each<'_>) -> Result<()> {
        let mut seen = self.seen.lock().unwrap();
        for sector in ranges.iter().flat_map(|range| range.cut(SECTOR)) {
            if sector.start().0 >= LASTING && seen.contains(sector) {
                let what =
                    Payload::Unreadable(sector.length(), ReadFault::Medium);
                let _ = each(Piece { at: sector.start(), what });
            } else {
                self.disk.read(&[sector], each)?;
            }
            seen.insert(sector);
        }
        Ok(())
    }
}

#[test]
fn what_was_read_well_once_is_stored_and_proven() {
    let fixture = fixture("ext4-1k-full");
    let clean = Faulty::new(&fixture, RangeSet::new(), 0);
    let (right, _, whole) = image(&clean);
    let disk = LocalSource::open(&fixture.path, ByteOffset(0)).unwrap();
    let dying = Dying { disk, seen: Mutex::default() };
    let rescue = Rescue::new(&dying, RangeSet::new());
    let (made, walk, captured) = image(&rescue);
    assert!(made == right && captured.losses.is_empty());
    assert_eq!(captured.stored, whole.stored);
    let size = walk.geometry.block_size;
    let mut proven = 0;
    for record in &captured.records {
        let range = record.run.bytes(size).unwrap();
        let bytes = &made[range.start().0 as usize..range.end().0 as usize];
        assert_eq!(RangeRecord::of(record.run, size, bytes), *record);
        proven += record.run.count().0;
    }
    assert_eq!(proven, captured.stored.count().0);
    // Some ranges arrived in pieces, so this disk was read twice.
    assert!(captured.records.len() > whole.records.len());
}

#[test]
fn a_dead_area_costs_a_bounded_number_of_attempts() {
    let fixture = fixture("ext4-1k-full");
    let clean = Faulty::new(&fixture, RangeSet::new(), 0);
    let (_, walk, _) = image(&clean);
    let rest = walk.geometry.blocks.0 - 300;
    let faulty = Faulty::new(&fixture, blocks(&walk, 300, rest), u32::MAX);
    let rescue = Rescue::new(&faulty, RangeSet::new());
    let (_, _, captured) = image(&rescue);
    assert!(captured.losses.hole_count().0 > 100);
    assert!(!captured.holes.is_empty());
    let areas = rescue.bad_areas();
    let sectors = [&areas.untrimmed, &areas.unscraped, &areas.bad]
        .iter()
        .map(|set| set.bytes() / SECTOR)
        .sum::<u64>();
    assert!(
        u64::from(faulty.failures()) <= sectors + 8192 + 2 * 2048,
        "{} failures of {sectors} sectors",
        faulty.failures()
    );
}

fn e2wire_image(words: &[&str], paths: &[&Path]) -> (i32, String) {
    let mut command = binaries::e2wire();
    command.args(words).args(paths);
    let output = oracle::run(&mut command);
    (output.status.code().unwrap(), oracle::text(&output))
}

/// Which areas ddrescuelog lists under a status.
pub(super) fn listed(map: &Path, status: &str) -> Vec<u64> {
    let output = oracle::run(
        tools::command("ddrescuelog")
            .args(["-b", "1024", &format!("--list-blocks={status}")])
            .arg(map),
    );
    oracle::assert_success("ddrescuelog", &output);
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| line.trim().parse().unwrap()).collect()
}

/// Makes an image, here or through an agent, of a device that has bad areas
/// by its map; what was said.
fn image_around(
    map: &Path,
    device: &Path,
    output: &Path,
    remote: bool,
) -> String {
    let agent = binaries::build("e2wire-agent", "e2wire-agent");
    let target = format!(
        "pipe:{} --stdio --device {} --insecure",
        agent.display(),
        device.display()
    );
    let mut words = vec!["--connect-timeout", "60s"];
    if remote {
        words.extend(["-t", &target]);
    }
    words.extend(["image", "--map", map.to_str().unwrap()]);
    let (code, said) = e2wire_image(&words, &[device, output]);
    assert_eq!(code, 3, "{said}");
    said
}

fn manifest(output: &Path) -> serde_json::Value {
    let manifest = format!("{}.manifest.json", output.display());
    serde_json::from_str(&fs::read_to_string(manifest).unwrap()).unwrap()
}

/// Two transactions in the journal of `device`, by debugfs: the first one
/// holds these blocks as they are; the second one holds the second of them
/// anew and revokes the first.
fn log_two_transactions(device: &Path, of: [u64; 3]) {
    let [revoked, twice, once] = of;
    let original = fs::read(device).unwrap();
    let write = |suffix: &str, blocks: &[u64]| {
        let at = |block: &u64| &original[*block as usize * 1024..][..1024];
        let bytes: Vec<&[u8]> = blocks.iter().map(at).collect();
        let path = device.with_extension(suffix);
        fs::write(&path, bytes.concat()).unwrap();
        path
    };
    let (first, second) = (write("1", &of), write("2", &[twice]));
    let script = device.with_extension("script");
    let lines = [
        "jo -c".to_owned(),
        format!("jw -b {revoked},{twice},{once} {}", first.display()),
        format!("jw -b {twice} -r {revoked} {}", second.display()),
        "jc".to_owned(),
    ];
    fs::write(&script, lines.join("\n")).unwrap();
    let mut debugfs = tools::command("debugfs");
    let debugfs = debugfs.args(["-w", "-f"]).args([script.as_path(), device]);
    oracle::assert_success("debugfs", &oracle::run(debugfs));
}

#[test]
fn what_the_journal_has_of_lost_blocks_is_named() {
    let fixture = fixture("ext4-1k-full");
    let folder = tempfile::tempdir_in(e2wire_tests::target()).unwrap();
    let path = |name: &str| folder.path().join(name);
    let clean = Faulty::new(&fixture, RangeSet::new(), 0);
    let (_, walk, _) = image(&clean);
    let kinds = [
        BlockKind::Directory,
        BlockKind::BlockBitmap,
        BlockKind::InodeBitmap,
        BlockKind::Map,
    ];
    let lost = kinds.map(|kind| walk.kind(kind).unwrap().last().unwrap().0);
    let [revoked, twice, once, never] = lost;
    let original = fs::read(&fixture.path).unwrap();
    let bytes = |block: u64| &original[block as usize * 1024..][..1024];
    let device = path("device");
    fs::write(&device, &original).unwrap();
    log_two_transactions(&device, [revoked, twice, once]);
    let mut known = Mapfile::default();
    for block in lost {
        known.bad.extend(blocks(&walk, block, 1).iter());
    }
    let map = path("map");
    let holes = |output: &str, remote: bool| {
        let length = ByteCount(original.len() as u64);
        fs::write(&map, known.text(length)).unwrap();
        let output = path(output);
        let said = image_around(&map, &device, &output, remote);
        let holes = manifest(&output)["holes"].clone();
        let of = |block: u64| {
            let all = holes.as_array().unwrap();
            let hole = all.iter().find(|hole| hole["first"] == block);
            hole.unwrap_or_else(|| panic!("{block}: {holes}"))["journal"]
                .clone()
        };
        // Nothing is named that is not there.
        let device = fs::read(&device).unwrap();
        for block in [twice, once] {
            let at = of(block)["block"].as_u64().unwrap() as usize * 1024;
            assert!(device[at..at + 1024] == *bytes(block), "{block}: {holes}");
        }
        assert!(of(revoked).is_null() && of(never).is_null(), "{holes}");
        (of(twice), of(once), said)
    };
    // On a device that awaits its replay, `live` is enough.
    for (output, remote) in [("dirty.raw", false), ("there.raw", true)] {
        let (twice, once, said) = holes(output, remote);
        assert_eq!(
            (&twice["transaction"], &twice["replayed"]),
            (&2.into(), &true.into())
        );
        assert_eq!(
            (&once["transaction"], &once["journal_block"]),
            (&1.into(), &4.into())
        );
        assert!(said.contains("a replay of the journal writes it"), "{said}");
    }
    let replayed =
        oracle::run(tools::command("e2fsck").arg("-fy").arg(&device));
    assert!(replayed.status.code() <= Some(1), "{replayed:?}");
    let (twice, once, said) = holes("clean.raw", false);
    assert_eq!(
        (&twice["transaction"], &twice["replayed"]),
        (&2.into(), &false.into())
    );
    assert_eq!(once["transaction"], 1);
    assert!(said.contains("the journal has a copy in block"), "{said}");
}

#[test]
fn a_mapfile_keeps_us_from_bad_areas_and_is_one_for_ddrescue() {
    let fixture = fixture("ext4-1k-full");
    let folder = tempfile::tempdir_in(e2wire_tests::target()).unwrap();
    let path = |name: &str| folder.path().join(name);
    let clean = Faulty::new(&fixture, RangeSet::new(), 0);
    let (_, walk, _) = image(&clean);
    let of = |kind| walk.kind(kind).unwrap().last().unwrap().0;
    let (directory, bitmap) =
        (of(BlockKind::Directory), of(BlockKind::BlockBitmap));
    let map = path("map");
    let mut known = Mapfile::default();
    for block in [directory, bitmap, walk.geometry.blocks.0 - 1] {
        known.bad.extend(blocks(&walk, block, 1).iter());
    }
    let length = fs::metadata(&fixture.path).unwrap().len();
    for remote in [false, true] {
        fs::write(&map, known.text(ByteCount(length))).unwrap();
        let output = path(if remote { "there.raw" } else { "here.raw" });
        let said = image_around(&map, &fixture.path, &output, remote);
        assert!(said.contains("known to be bad"), "{said}");
        assert!(said.contains(", directory of group"), "{said}");
        let bad = listed(&map, "-");
        let mut right = vec![directory, bitmap, walk.geometry.blocks.0 - 1];
        right.sort_unstable();
        assert_eq!(bad, right);
        let finished = listed(&map, "+");
        assert!(finished.len() > 200 && !finished.contains(&bitmap));
        let manifest = manifest(&output);
        let holes = manifest["holes"].as_array().unwrap();
        let hole = holes.iter().find(|hole| hole["first"] == directory);
        assert_eq!(hole.unwrap()["kind"], "directory", "{manifest}");
        assert_eq!(hole.unwrap()["why"], "known to be bad");
        let (code, said) = e2wire_image(&["verify"], &[&output]);
        assert_eq!(code, 0, "{said}");
    }
    fs::write(&map, "no map at all\n").unwrap();
    let words = ["image", "--map", map.to_str().unwrap()];
    let none = path("none.raw");
    let (code, said) = e2wire_image(&words, &[&fixture.path, &none]);
    assert_eq!(code, 5, "{said}");
    assert!(said.contains("line 1") && !none.exists(), "{said}");
}
