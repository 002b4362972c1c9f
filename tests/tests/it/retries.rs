//! A disk that dies is asked for what is easy first, then for the rest in
//! the order of importance, and never too often.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Mutex;

use e2wire::batch::Batch;
use e2wire::error::Result;
use e2wire::ext::{BlockKind, Walk};
use e2wire::local::LocalSource;
use e2wire::mapfile::Mapfile;
use e2wire::range_set::RangeSet;
use e2wire::rescue::{BadAreas, Rescue};
use e2wire::source::{
    BlockSource, Each, Payload, Piece, ReadFault, SourceFacts,
};
use e2wire::units::{BlockNumber, ByteCount, ByteOffset, ByteRange};
use e2wire_tests::fixtures::{Fixture, fixture};
use e2wire_tests::{oracle, tools};

use crate::holes::{blocks, image, listed};

const SECTOR: u64 = 512;

/// What one read of this disk takes at most.
const CLUSTER: u64 = 64 << 10;

/// A piece of a cluster.
const PIECE: u64 = 4096;

/// A disk that fails whole reads where a sector is weak, and remembers them.
struct Worn {
    disk: LocalSource,
    /// How often a sector still fails.
    weak: Mutex<BTreeMap<u64, u32>>,
    log: Mutex<Vec<Attempt>>,
}

#[derive(Clone, Copy, Debug)]
struct Attempt {
    range: ByteRange,
    is_good: bool,
}

impl Attempt {
    fn is_inside(&self, whole: &Self) -> bool {
        whole.range.start() <= self.range.start()
            && self.range.end() <= whole.range.end()
    }
}

impl Worn {
    fn new(fixture: &Fixture, weak: &RangeSet, times: u32) -> Self {
        let disk = LocalSource::open(&fixture.path, ByteOffset(0)).unwrap();
        let sectors = weak.iter().flat_map(|range| range.cut(SECTOR));
        let weak = sectors.map(|sector| (sector.start().0, times)).collect();
        Self { disk, weak: Mutex::new(weak), log: Mutex::default() }
    }

    fn log(&self) -> Vec<Attempt> {
        self.log.lock().unwrap().clone()
    }

    /// How often a read touched the sector at `at`.
    fn touched(&self, at: u64) -> usize {
        let holds =
            |range: ByteRange| range.start().0 <= at && at < range.end().0;
        self.log().iter().filter(|attempt| holds(attempt.range)).count()
    }

    fn fails(&self, range: ByteRange) -> bool {
        let mut weak = self.weak.lock().unwrap();
        let mut fails = false;
        for left in weak.range_mut(range.start().0..range.end().0) {
            fails |= *left.1 > 0;
            *left.1 = left.1.saturating_sub(1);
        }
        fails
    }
}

impl BlockSource for Worn {
    fn facts(&self) -> &SourceFacts {
        self.disk.facts()
    }

    fn read(&self, ranges: &[ByteRange], each: Each<'_>) -> Result<()> {
        for range in ranges.iter().flat_map(|range| range.cut(CLUSTER)) {
            let fails = self.fails(range);
            self.log.lock().unwrap().push(Attempt { range, is_good: !fails });
            if fails {
                let why = match range.length().0 {
                    SECTOR => ReadFault::Medium,
                    _ => ReadFault::Skipped,
                };
                let what = Payload::Unreadable(range.length(), why);
                let _ = each(Piece { at: range.start(), what });
            } else {
                self.disk.read(&[range], each)?;
            }
        }
        Ok(())
    }
}

fn clean(fixture: &Fixture) -> (Vec<u8>, Walk) {
    let disk = LocalSource::open(&fixture.path, ByteOffset(0)).unwrap();
    let (bytes, walk, _) = image(&disk);
    (bytes, walk)
}

/// A block of each kind, in the order of importance; not of those that nothing
/// is found without, nor of their neighbours, which they are read with. None
/// of them leads to another.
fn one_of_each(walk: &Walk) -> Vec<BlockNumber> {
    let early = [
        BlockKind::Superblock,
        BlockKind::Descriptors,
        BlockKind::ReservedDescriptors,
    ];
    let kinds = BlockKind::BY_IMPORTANCE.iter();
    kinds
        .filter(|kind| !early.contains(kind))
        .filter_map(|kind| {
            let of_kind = walk.kind(*kind)?;
            let block = match kind {
                BlockKind::InodeTable | BlockKind::Journal => of_kind.last()?,
                _ => of_kind.runs().next()?.first(),
            };
            (walk.kind_of(block) == Some(*kind)).then_some(block)
        })
        .collect()
}

fn bytes_of(walk: &Walk, of: &[BlockNumber]) -> RangeSet {
    let mut all = RangeSet::new();
    for block in of {
        all.extend(blocks(walk, block.0, 1).iter());
    }
    all
}

/// Where in `log` single sectors of `block` were read, in their order.
fn alone(log: &[Attempt], walk: &Walk, block: BlockNumber) -> Vec<usize> {
    let own = blocks(walk, block.0, 1);
    let is_own = |attempt: &Attempt| {
        attempt.range.length().0 == SECTOR && own.contains(attempt.range)
    };
    let places = (0..).zip(log).filter(|(_, attempt)| is_own(attempt));
    places.map(|(place, _)| place).collect()
}

/// The first read of what had failed before and leads to nothing else.
fn first_retry(log: &[Attempt], walk: &Walk) -> usize {
    let leading: RangeSet = [BlockKind::InodeTable, BlockKind::Map]
        .iter()
        .flat_map(|kind| walk.kind(*kind).unwrap().runs())
        .flat_map(|run| run.bytes(walk.geometry.block_size))
        .collect();
    let is_retry = |at: &usize| {
        let mut before = log[..*at].iter();
        before.any(|before| {
            !before.is_good
                && log[*at].is_inside(before)
                && leading.within(before.range).next().is_none()
        })
    };
    (0..log.len()).find(is_retry).expect("something is tried again")
}

#[test]
fn what_is_easy_comes_first_then_the_most_important() {
    let fixture = fixture("ext4-1k-full");
    let (_, walk) = clean(&fixture);
    let mut bad = one_of_each(&walk);
    let worn = Worn::new(&fixture, &bytes_of(&walk, &bad), u32::MAX);
    let rescue = Rescue::new(&worn, RangeSet::new());
    let (_, _, captured) = image(&rescue);
    // A block that only a lost one leads to is never asked for.
    let lost = &captured.losses.blocks[&ReadFault::Medium];
    bad.retain(|block| lost.contains(*block));
    assert_eq!((lost.count().0, bad.len() >= 7), (bad.len() as u64, true));
    let log = worn.log();
    let begins = first_retry(&log, &walk);
    // Before, all was read that can be found; what comes later had failed,
    // or is looked at once more in the end.
    let before: RangeSet =
        log[..begins].iter().map(|attempt| attempt.range).collect();
    for attempt in &log[begins..] {
        let known = before.contains(attempt.range);
        assert!(known, "{attempt:?} could have been had before");
    }
    let places: Vec<Vec<usize>> =
        bad.iter().map(|block| alone(&log, &walk, *block)).collect();
    // Two sectors each, alone and in the retry pass.
    assert!(places.iter().all(|of_block| of_block.len() == 4), "{places:?}");
    let passes = [0..2, 2..4].map(|pass| {
        let all = places.iter().flat_map(|p| p[pass.clone()].to_vec());
        all.collect::<Vec<usize>>()
    });
    for pass in &passes {
        assert!(pass.is_sorted(), "not by importance: {places:?}");
    }
    assert!(passes[0].last() < passes[1].first(), "{places:?}");
    // A retry pass runs backwards.
    for of_block in &places {
        let at = |index: usize| log[of_block[index]].range.start();
        assert!(at(0) < at(1) && at(2) > at(3), "{of_block:?}");
    }
    let areas = rescue.bad_areas();
    assert_eq!(areas.bad, bytes_of(&walk, &bad));
    assert!(areas.untrimmed.is_empty() && areas.unscraped.is_empty());
}

#[test]
fn a_sector_is_tried_so_often_and_no_more() {
    let fixture = fixture("ext4-1k-full");
    let (_, walk) = clean(&fixture);
    let mut bad = one_of_each(&walk);
    bad.extend([BlockNumber(1), BlockNumber(2)]);
    for retries in [0, 1, 3] {
        let worn = Worn::new(&fixture, &bytes_of(&walk, &bad), u32::MAX);
        let none = BadAreas::default();
        let rescue = Rescue::resumed(&worn, none, Some(retries));
        let (_, _, captured) = image(&rescue);
        assert!(!captured.losses.is_empty());
        for sector in bytes_of(&walk, &bad).iter().flat_map(|r| r.cut(SECTOR)) {
            let times = worn.touched(sector.start().0);
            // In a cluster, in a piece, alone, and again.
            let most = 3 + retries as usize;
            assert!(times <= most, "{sector:?}: {times} times");
        }
    }
}

#[test]
fn what_comes_at_last_is_used_and_the_walk_goes_on_below() {
    let fixture = fixture("ext4-1k-full");
    let (right, walk) = clean(&fixture);
    let mut weak = RangeSet::new();
    for kind in [
        BlockKind::Superblock,
        BlockKind::Descriptors,
        BlockKind::InodeTable,
        BlockKind::Map,
        BlockKind::Directory,
        BlockKind::BlockBitmap,
    ] {
        for run in walk.kind(kind).unwrap().runs() {
            for block in run.first().0..run.end().0 {
                let at = ByteOffset(block * 1024 + SECTOR);
                weak.extend(ByteRange::new(at, ByteCount(SECTOR)));
            }
        }
    }
    for times in [1, 2] {
        let worn = Worn::new(&fixture, &weak, times);
        let rescue = Rescue::new(&worn, RangeSet::new());
        let (made, now, captured) = image(&rescue);
        assert!(captured.losses.is_empty(), "{:?}", captured.holes);
        assert!(made == right, "another image after {times} failures");
        assert_eq!(now.selected, walk.selected);
        assert_eq!(now.findings, walk.findings);
        assert!(rescue.recovered().0 >= weak.bytes());
    }
}

#[test]
fn a_sound_disk_is_read_once() {
    let fixture = fixture("ext4-1k-full");
    let (right, walk) = clean(&fixture);
    let log = |patient: bool| {
        let worn = Worn::new(&fixture, &RangeSet::new(), 0);
        let rescue = Rescue::new(&worn, RangeSet::new());
        let source: &dyn BlockSource = if patient { &worn } else { &rescue };
        let (made, ..) = image(source);
        assert!(made == right && rescue.recovered().0 == 0);
        worn.log().iter().map(|attempt| attempt.range).collect::<Vec<_>>()
    };
    let read = log(false);
    assert_eq!(read, log(true));
    let bytes: u64 = read.iter().map(|range| range.length().0).sum();
    assert!(bytes < walk.selected.count().0 * 1024 * 11 / 10, "{bytes}");
}

#[test]
fn what_an_earlier_run_knows_is_not_tried_as_if_it_were_new() {
    let fixture = fixture("ext4-1k-full");
    let (_, walk) = clean(&fixture);
    let of = |kind| walk.kind(kind).unwrap().last().unwrap();
    let [untrimmed, unscraped, bad] =
        [BlockKind::Directory, BlockKind::BlockBitmap, BlockKind::InodeBitmap]
            .map(|kind| bytes_of(&walk, &[of(kind)]));
    let all = [&untrimmed, &unscraped, &bad].map(RangeSet::iter);
    let weak: RangeSet = all.into_iter().flatten().collect();
    let before = BadAreas { untrimmed, unscraped, bad };
    for retries in [None, Some(2)] {
        let worn = Worn::new(&fixture, &weak, u32::MAX);
        let rescue = Rescue::resumed(&worn, before.clone(), retries);
        let (_, _, captured) = image(&rescue);
        assert_eq!(captured.losses.hole_count().0, 3);
        let passes = retries.unwrap_or(1) as usize;
        let first = |set: &RangeSet| set.iter().next().unwrap().start().0;
        let times = [&before.untrimmed, &before.unscraped, &before.bad]
            .map(|set| worn.touched(first(set)));
        let of_bad = retries.map_or(0, |passes| passes as usize);
        assert_eq!(times, [2 + passes, 1 + passes, of_bad]);
        let log = worn.log();
        let large = log.iter().filter(|attempt| !attempt.is_good);
        assert!(large.clone().all(|attempt| attempt.range.length().0 <= PIECE));
        assert_eq!(rescue.bad_areas().bad, weak);
    }
}

#[test]
fn ddrescuelog_reads_every_state() {
    let folder = tempfile::tempdir_in(e2wire_tests::target()).unwrap();
    let path = folder.path().join("map");
    let range = |block: u64, count: u64| {
        let start = ByteOffset(block * 1024);
        ByteRange::new(start, ByteCount(count * 1024)).unwrap()
    };
    let mut map = Mapfile::default();
    map.finished.insert(range(0, 8));
    map.untrimmed.insert(range(8, 64));
    map.unscraped.insert(range(80, 4));
    map.bad.insert(range(84, 1));
    map.finished.insert(range(85, 5));
    let text = map.text(ByteCount(100 << 10));
    let (head, body) = text.split_once("# current_pos").unwrap();
    assert!(head.starts_with("# Mapfile. Created by e2wire "), "{head}");
    assert_eq!(
        body,
        "  current_status  current_pass\n\
         0x00000000     *               1\n\
         #      pos        size  status\n\
         0x00000000  0x00002000  +\n\
         0x00002000  0x00010000  *\n\
         0x00012000  0x00002000  ?\n\
         0x00014000  0x00001000  /\n\
         0x00015000  0x00000400  -\n\
         0x00015400  0x00001400  +\n\
         0x00016800  0x00002800  ?\n"
    );
    fs::write(&path, &text).unwrap();
    let status = oracle::run(
        tools::command("ddrescuelog").arg("--show-status").arg(&path),
    );
    oracle::assert_success("ddrescuelog", &status);
    assert_eq!(listed(&path, "*"), (8..72).collect::<Vec<u64>>());
    assert_eq!(listed(&path, "/"), [80, 81, 82, 83]);
    assert_eq!(listed(&path, "-"), [84]);
    assert_eq!(listed(&path, "?").len(), 8 + 10);
}

#[test]
fn what_is_left_when_a_disk_takes_too_long_stays_open_in_the_map() {
    let fixture = fixture("ext4-1k-full");
    let (_, walk) = clean(&fixture);
    let dead = blocks(&walk, 300, walk.geometry.blocks.0 - 300);
    let worn = Worn::new(&fixture, &dead, u32::MAX);
    let rescue = Rescue::new(&worn, RangeSet::new());
    let mut batch = Batch::default();
    let large: Vec<ByteRange> =
        dead.iter().flat_map(|range| range.cut(1 << 20)).collect();
    for range in &large {
        rescue.read_batch(&[*range], &mut batch).unwrap();
    }
    let areas = rescue.bad_areas();
    assert!(!areas.untrimmed.is_empty() && !areas.bad.is_empty());
    let told = [&areas.untrimmed, &areas.unscraped, &areas.bad];
    let told: u64 = told.iter().map(|set| set.bytes()).sum();
    assert_eq!(told, dead.bytes());
    // Once each cluster, and the attempts of the job.
    let clusters = large.iter().flat_map(|range| range.cut(CLUSTER)).count();
    assert!(worn.log().len() <= clusters + 8192);
}
