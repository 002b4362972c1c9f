//! The walk as a whole: on filesystems that mke2fs makes, on damaged ones,
//! and on noise.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::OnceLock;

use proptest::prelude::*;

use super::*;
use crate::ext::finding::{Effect, Fault};
use crate::ext::{BlockKind, JournalMode, Scope};
use crate::source::{PIECE_ALIGN, Payload, ReadFault};
use crate::units::{ByteCount, u64_from};

fn run_tool(tool: &str, arguments: &[&str]) -> Vec<u8> {
    let output = Command::new(tool)
        .args(arguments)
        .env("MKE2FS_CONFIG", "/dev/null")
        .output()
        .unwrap_or_else(|error| {
            panic!("{tool} of the Debian package e2fsprogs: {error}")
        });
    assert!(
        output.status.success(),
        "{tool} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

/// A filesystem with fragmented and sparse files, a directory of several
/// blocks and a long symbolic link.
fn filesystem(options: &[&str]) -> Vec<u8> {
    use std::io::{Seek, SeekFrom, Write};
    let place = tempfile::tempdir().unwrap();
    let tree = place.path().join("tree");
    std::fs::create_dir_all(tree.join("directory")).unwrap();
    for number in 0..60 {
        let name = format!("directory/{number:0>60}");
        std::fs::write(tree.join(name), "x").unwrap();
    }
    std::os::unix::fs::symlink("t".repeat(80), tree.join("link")).unwrap();
    for (name, stride) in [("fragmented", 4096), ("sparse", 1 << 22)] {
        let mut file = std::fs::File::create(tree.join(name)).unwrap();
        for step in 0..120_u64 {
            file.seek(SeekFrom::Start(step * stride)).unwrap();
            file.write_all(&[b'd'; 1024]).unwrap();
        }
    }
    let image = place.path().join("image");
    let (tree, image) = (tree.to_str().unwrap(), image.to_str().unwrap());
    let mut arguments = vec!["-q", "-F", "-N", "256", "-d", tree];
    arguments.extend(options);
    arguments.extend([image, "4M"]);
    run_tool("mke2fs", &arguments);
    std::fs::read(image).unwrap()
}

fn ext4() -> &'static [u8] {
    static IMAGE: OnceLock<Vec<u8>> = OnceLock::new();
    IMAGE.get_or_init(|| {
        let features = "extents,64bit,metadata_csum,flex_bg,sparse_super";
        filesystem(&["-b", "1024", "-I", "256", "-g", "1024", "-O", features])
    })
}

fn ext2() -> &'static [u8] {
    static IMAGE: OnceLock<Vec<u8>> = OnceLock::new();
    IMAGE.get_or_init(|| filesystem(&["-b", "1024", "-O", "^resize_inode"]))
}

/// What a driven walk was like.
#[derive(Debug)]
struct Driven {
    walk: Walk,
    /// What came in levels that belong to the image.
    delivered: BlockSet,
    restarts: usize,
    levels: usize,
}

/// Feeds a walk from `image`, of which `lost` bytes cannot be read, and
/// checks every level on the way.
fn drive(
    image: &[u8],
    options: WalkOptions,
    lost: std::ops::Range<u64>,
) -> Result<Driven> {
    let length = u64_from(image.len());
    let options =
        WalkOptions { device_length: Some(ByteCount(length)), ..options };
    let mut walker = Walker::new(options);
    let mut delivered = BlockSet::new();
    let (mut restarts, mut levels) = (0, 0);
    loop {
        levels += 1;
        assert!(levels < 10_000, "the walk does not end");
        let level = match walker.next_step()? {
            Step::Done => break,
            Step::Waiting => unreachable!("nothing was postponed"),
            Step::Restart => {
                restarts += 1;
                assert!(restarts <= 3, "the walk begins again and again");
                delivered = BlockSet::new();
                continue;
            }
            Step::Read(level) => level,
        };
        assert!(!level.ranges.is_empty() || !level.payload.is_empty());
        check_ranges(&level.ranges, length);
        check_ranges(&level.payload, length);
        if let Some(geometry) = walker.geometry() {
            let part = if level.probe { &[][..] } else { &level.ranges };
            for range in part.iter().chain(&level.payload) {
                let size = geometry.block_size;
                let run = BlockRun::new(
                    size.block_of(range.start()),
                    size.blocks_for(range.length()),
                )
                .unwrap();
                let new = delivered.insert_run(run);
                assert_eq!(new, run.count(), "{run:?} is asked for twice");
                assert!(run.end().0 <= geometry.blocks.0);
            }
        }
        // Backwards: the order of pieces is free.
        for range in level.ranges.iter().rev() {
            supply(&mut walker, image, *range, &lost);
        }
    }
    let walk = walker.finish()?;
    Ok(Driven { walk, delivered, restarts, levels })
}

fn check_ranges(ranges: &[ByteRange], length: u64) {
    let mut behind = None;
    for range in ranges {
        assert!(!range.is_empty() && behind < Some(range.start()));
        behind = Some(range.end());
        assert!(range.end().0 <= length, "asks beyond the device");
    }
}

fn supply(
    walker: &mut Walker,
    image: &[u8],
    range: ByteRange,
    lost: &std::ops::Range<u64>,
) {
    let mut at = range.start().0;
    while at < range.end().0 {
        let end = ((at / PIECE_ALIGN + 1) * PIECE_ALIGN).min(range.end().0);
        let cuts =
            [at, lost.start, lost.end, end].map(|cut| cut.clamp(at, end));
        for pair in cuts.windows(2) {
            let (from, to) = (pair[0], pair[1]);
            let what = if lost.contains(&from) {
                let count = ByteCount(to - from);
                Payload::Unreadable(count, ReadFault::Medium)
            } else {
                let to = usize::try_from(to).unwrap();
                Payload::Bytes(&image[usize::try_from(from).unwrap()..to])
            };
            walker.supply(Piece { at: ByteOffset(from), what });
        }
        at = end;
    }
}

fn walk(image: &[u8], options: WalkOptions) -> Driven {
    drive(image, options, 0..0).unwrap()
}

const E2IMAGE: WalkOptions = WalkOptions {
    trace: false,
    journal_last: false,
    selection: Selection::E2image,
    scope: Scope::Metadata,
    journal: JournalMode::Full,
    superblock: None,
    block_size: None,
    full_tables: false,
    device_length: None,
};

fn blocks(set: &BlockSet) -> Vec<u64> {
    set.runs().flat_map(|run| run.first().0..run.end().0).collect()
}

/// The blocks that e2image selects.
fn oracle(image: &[u8], flags: &str) -> Vec<u64> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), image).unwrap();
    let path = file.path().to_str().unwrap();
    let listing = run_tool("e2image", &[flags, path, "-"]);
    let listed: Vec<u64> = listing
        .split(|byte| *byte == b'\n')
        .filter_map(|line| line.strip_prefix(b"Writing block "))
        .map(|number| String::from_utf8_lossy(number).parse().unwrap())
        .collect();
    assert!(!listed.is_empty());
    listed
}

fn check_against_e2image(image: &[u8]) {
    for (flags, scope) in [("-rn", Scope::Metadata), ("-rna", Scope::Data)] {
        let expected = oracle(image, flags);
        let driven = walk(image, WalkOptions { scope, ..E2IMAGE });
        assert_eq!(blocks(&driven.walk.selected), expected, "{flags}");
        assert_eq!(driven.delivered, driven.walk.selected);
        let options = WalkOptions { scope, ..WalkOptions::default() };
        let complete = walk(image, options).walk.selected;
        let missing: Vec<u64> = expected
            .into_iter()
            .filter(|block| !complete.contains(BlockNumber(*block)))
            .collect();
        assert!(missing.is_empty(), "complete lacks {missing:?}");
    }
}

#[test]
fn sound_filesystems_give_what_e2image_selects_and_no_finding() {
    for image in [ext2(), ext4()] {
        check_against_e2image(image);
        let driven = walk(image, WalkOptions::default());
        assert_eq!(driven.walk.findings, []);
        assert_eq!(driven.restarts, 0);
        assert!(driven.levels < 10, "{} levels", driven.levels);
        let directory = driven.walk.kind(BlockKind::Directory).unwrap();
        assert!(directory.count().0 > 4);
        let link = driven.walk.kind(BlockKind::Symlink).unwrap();
        assert_eq!(link.count().0, 1);
        let map = driven.walk.kind(BlockKind::Map).unwrap();
        assert!(map.count().0 > 2);
    }
}

#[test]
fn a_backup_superblock_finds_the_same_tables_whole() {
    let options = WalkOptions {
        superblock: Some(BlockNumber(1025)),
        block_size: BlockSize::from_bytes(1024),
        ..E2IMAGE
    };
    let usual = walk(ext4(), E2IMAGE).walk;
    let walk = walk(ext4(), options).walk;
    assert_eq!(walk.superblock_at, BlockNumber(1025));
    assert!(walk.selected.contains(BlockNumber(1025)));
    for kind in [BlockKind::InodeTable, BlockKind::InodeBitmap] {
        let mut more = walk.kind(kind).unwrap().clone();
        let less = usual.kind(kind).unwrap();
        more.intersect_with(less);
        assert_eq!(more, *less);
    }
}

#[test]
fn tables_alone_are_known_from_the_descriptors() {
    let options =
        WalkOptions { scope: Scope::Tables, ..WalkOptions::default() };
    let driven = walk(ext4(), options);
    // The superblock, the descriptors, what these name, and the end.
    assert_eq!(driven.levels, 4);
    assert!(driven.walk.kind(BlockKind::Directory).unwrap().is_empty());
    assert!(!driven.walk.kind(BlockKind::InodeTable).unwrap().is_empty());
}

#[test]
fn an_unreadable_sector_of_a_table_costs_only_its_inodes() {
    let sound = walk(ext4(), WalkOptions::default()).walk;
    let tables = sound.kind(BlockKind::InodeTable).unwrap();
    let first = tables.runs().next().unwrap().first().0;
    // The second half of the block with inodes 1 to 4.
    let lost = first * 1024 + 512..first * 1024 + 1024;
    let driven = drive(ext4(), WalkOptions::default(), lost).unwrap();
    assert_eq!(driven.walk.findings.len(), 1);
    assert_eq!(driven.walk.findings[0].fault, Fault::Unreadable);
    assert_eq!(driven.walk.selected, sound.selected);
    // And the half that the root directory lies in.
    let lost = first * 1024..first * 1024 + 512;
    let driven = drive(ext4(), WalkOptions::default(), lost).unwrap();
    let root = BlockCount(sound.selected.count().0 - 1);
    assert_eq!(driven.walk.selected.count(), root);
}

#[test]
fn a_truncated_device_is_walked_as_far_as_it_goes() {
    for length in [1536, 2048, 3000, 5000, 100_000, 2_000_000] {
        let cut = &ext4()[..length];
        let Ok(driven) = drive(cut, WalkOptions::default(), 0..0) else {
            assert!(length < 3072, "{length}");
            continue;
        };
        let end = BlockNumber(u64_from(length / 1024));
        let first = driven.walk.findings.first().unwrap();
        assert_eq!(first.fault, Fault::Truncated(end));
        // Of the longest one only file data and a link are cut off.
        let is_damaged = driven.walk.findings_total > 1;
        assert_eq!(is_damaged, length < 2_000_000, "{length}");
    }
}

/// Makes the checksum of the superblock right: it means what it says.
fn sum_superblock(image: &mut [u8]) {
    let bytes: &mut [u8; 1024] = (&mut image[1024..2048]).try_into().unwrap();
    let sum = crate::ext::superblock::checksum(bytes).unwrap();
    bytes[1020..].copy_from_slice(&sum.to_le_bytes());
}

#[test]
fn errors_name_the_way_out() {
    let error = |image: &[u8], options| {
        let error = drive(image, options, 0..0).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NoFilesystem);
        format!("{error}; {}", error.what_to_try().unwrap_or_default())
    };
    let text = error(&[0; 4096], WalkOptions::default());
    assert!(text.contains("magic"), "{text}");
    let mut journal = ext4().to_vec();
    journal[1024 + 0x60] |= 8;
    sum_superblock(&mut journal);
    let text = error(&journal, WalkOptions::default());
    assert!(text.contains("external journal (UUID "), "{text}");
    let mut future = ext4().to_vec();
    future[1024 + 0x63] |= 0x40;
    sum_superblock(&mut future);
    let text = error(&future, WalkOptions::default());
    assert!(text.contains("0x40000000"), "{text}");
    let other = BlockSize::from_bytes(4096);
    let options = WalkOptions { block_size: other, ..E2IMAGE };
    let text = error(ext4(), options);
    assert!(text.contains("-B 1024"), "{text}");
}

#[test]
fn a_lost_superblock_leads_to_its_copies() {
    let place = tempfile::NamedTempFile::new().unwrap();
    let path = place.path().to_str().unwrap();
    run_tool("mke2fs", &["-q", "-F", "-b", "1024", path, "10M"]);
    let mut image = std::fs::read(path).unwrap();
    let sound = walk(&image, WalkOptions::default()).walk;
    image[1024..2048].fill(0);
    let found = walk(&image, WalkOptions::default()).walk;
    assert_eq!(found.superblock_at, BlockNumber(8193));
    let [finding] = &found.findings[..] else { panic!("{found:?}") };
    assert_eq!(finding.effect, Effect::CopyUsed(BlockNumber(8193)));
    // All that was selected is, and the copy with its descriptors.
    let mut more = found.selected.clone();
    more.subtract(&sound.selected);
    assert_eq!(blocks(&more), [8193, 8194]);
    // A normal image cannot hold it, and the user's word counts.
    let tables = WalkOptions { scope: Scope::Tables, ..WalkOptions::default() };
    let wrong = WalkOptions {
        superblock: Some(BlockNumber(77)),
        ..WalkOptions::default()
    };
    for options in [tables, wrong] {
        let error = drive(&image, options, 0..0).unwrap_err();
        let hint = error.what_to_try().unwrap();
        assert!(hint.contains("at block 8193"), "{hint}");
    }
}

#[test]
fn an_unreadable_head_is_made_up_for_like_a_damaged_one() {
    let sound = walk(ext4(), WalkOptions::default()).walk;
    for (lost, structure, copy) in [
        (1024..2048, BlockKind::Superblock, 1025),
        (2048..3072, BlockKind::Descriptors, 1026),
    ] {
        let driven = drive(ext4(), WalkOptions::default(), lost).unwrap();
        let [finding] = &driven.walk.findings[..] else {
            panic!("{:?}", driven.walk.findings)
        };
        assert_eq!(finding.structure, structure);
        assert_eq!(finding.fault, Fault::Unreadable);
        assert_eq!(finding.effect, Effect::CopyUsed(BlockNumber(copy)));
        let mut missing = sound.selected.clone();
        missing.subtract(&driven.walk.selected);
        assert!(missing.is_empty());
    }
}

/// Where the inode that a path leads to lies, and a change to its `i_block`.
fn with_root(image: &[u8], number: u32, root: &[u8]) -> Vec<u8> {
    let mut image = image.to_vec();
    let walk = walk(&image, E2IMAGE).walk;
    let geometry = &walk.geometry;
    let index = number - 1;
    let group = index / geometry.inodes_per_group;
    let table = walk.groups[usize_from(group)].inode_table.0;
    let at = table * 1024
        + u64::from(index % geometry.inodes_per_group)
            * u64::from(geometry.inode_size);
    let at = usize::try_from(at).unwrap() + 40;
    image[at..at + 60].fill(0);
    image[at..at + root.len()].copy_from_slice(root);
    image
}

fn slots(numbers: &[u32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

fn put(image: &mut [u8], block: u32, bytes: &[u8]) {
    let at = usize_from(block) * 1024;
    image[at..at + 1024].fill(0);
    image[at..at + bytes.len()].copy_from_slice(bytes);
}

/// A file of ext2, made by [`filesystem`]: the root directory's first child
/// after lost+found.
const A_FILE: u32 = 13;

#[test]
fn an_illegal_indirect_block_ends_the_subtree_as_in_e2image() {
    let mut root = vec![0; 12];
    root.extend([3000, 3001, 3002]);
    let mut image = with_root(ext2(), A_FILE, &slots(&root));
    put(&mut image, 3000, &slots(&[3900]));
    // What follows the illegal block in 3001 is lost; that 3002 can be read
    // lets e2image forget the trouble.
    put(&mut image, 3001, &slots(&[3003, 99_999, 3004]));
    put(&mut image, 3003, &slots(&[3901]));
    put(&mut image, 3004, &slots(&[3902]));
    put(&mut image, 3002, &slots(&[]));
    let driven = walk(&image, E2IMAGE);
    assert_eq!(driven.restarts, 1);
    assert!(!driven.walk.selected.contains(BlockNumber(3004)));
    check_against_e2image(&image);
    let complete = walk(&image, WalkOptions::default()).walk;
    assert!(complete.selected.contains(BlockNumber(3004)));
}

#[test]
fn files_that_share_map_blocks_are_marked_twice_as_by_e2image() {
    let mut root = vec![0; 12];
    root.extend([3000, 3001, 0]);
    let mut image = with_root(ext2(), A_FILE, &slots(&root));
    image = with_root(&image, A_FILE + 1, &slots(&root));
    put(&mut image, 3000, &slots(&[3900, 3901]));
    put(&mut image, 3001, &slots(&[3000, 3000]));
    let driven = walk(&image, WalkOptions { scope: Scope::Data, ..E2IMAGE });
    assert_eq!(driven.restarts, 1);
    check_against_e2image(&image);
    let selected = driven.walk.selected.count().0;
    // 3000 is named thrice by each file, with two blocks each time; 3001
    // twice in all.
    assert_eq!(driven.walk.marks, selected + 5 + 10 + 1);
}

#[test]
fn blocks_that_inode_1_lists_hide_the_inodes_in_them() {
    let tables = walk(ext2(), E2IMAGE).walk;
    let table = tables.kind(BlockKind::InodeTable).unwrap();
    let first = table.runs().next().unwrap().first().0;
    // Inodes of 128 or 256 bytes: the second block holds the first files.
    let hidden = u32::try_from(first + 3).unwrap();
    let image = with_root(ext2(), 1, &slots(&[hidden]));
    let driven = walk(&image, E2IMAGE);
    assert_eq!(driven.restarts, 1);
    check_against_e2image(&image);
}

fn extent_node(depth: u16, entries: &[[u32; 3]]) -> Vec<u8> {
    let count = u16::try_from(entries.len()).unwrap();
    let max: u16 = if depth > 1 { 4 } else { 84 };
    let mut node: Vec<u8> = [0xF30A, count, max, depth & 1, 0, 0]
        .iter()
        .flat_map(|half: &u16| half.to_le_bytes())
        .collect();
    node.extend(entries.iter().flat_map(|entry| slots(entry)));
    node
}

#[test]
fn extents_out_of_order_are_passed_over_as_by_e2image() {
    // Depth 3 stands for a root of depth 1: it has room for four entries.
    let root = extent_node(3, &[[0, 3000, 0], [100, 3001, 0]]);
    let inode = a_file_with_extents();
    let mut image = with_root(ext4(), inode, &root);
    // 5 lies before the end of 10: it is lost, and so is 20 behind it.
    let extents = [[10, 1, 3900], [5, 1, 3901], [20, 1, 3902], [30, 1, 3903]];
    put(&mut image, 3000, &extent_node(0, &extents));
    put(&mut image, 3001, &extent_node(0, &[[100, 1, 3904]]));
    let driven = walk(&image, WalkOptions { scope: Scope::Data, ..E2IMAGE });
    assert_eq!(driven.restarts, 1);
    assert!(!driven.walk.selected.contains(BlockNumber(3902)));
    check_against_e2image(&image);
}

/// An inode of [`ext4`] whose map is an extent tree of depth 0.
fn a_file_with_extents() -> u32 {
    static NUMBER: OnceLock<u32> = OnceLock::new();
    *NUMBER.get_or_init(|| {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), ext4()).unwrap();
        let path = file.path().to_str().unwrap();
        let listing = run_tool(
            "debugfs",
            &["-R", &format!("stat /directory/{:0>60}", 7), path],
        );
        let text = String::from_utf8_lossy(&listing).into_owned();
        let number = text.split_whitespace().nth(1).unwrap().to_owned();
        number.parse().unwrap()
    })
}

/// Changes to an image: where, counted over the blocks that matter, and
/// what to.
fn changes() -> impl Strategy<Value = Vec<(usize, u32)>> {
    let value = prop_oneof![
        0..4100_u32,
        any::<u32>(),
        Just(0),
        0..64_u32,
        Just(0xF30A_0004)
    ];
    prop::collection::vec((0..100_000_usize, value), 1..12)
}

fn change(image: &[u8], changes: &[(usize, u32)]) -> Vec<u8> {
    let selected = blocks(&walk(image, E2IMAGE).walk.selected);
    let words: BTreeSet<usize> = selected
        .iter()
        .flat_map(|block| {
            let at = usize::try_from(*block).unwrap() * 256;
            at..at + 256
        })
        .filter(|word| image[word * 4..word * 4 + 4] != [0; 4])
        .collect();
    let words: Vec<usize> = words.into_iter().collect();
    let mut image = image.to_vec();
    for (which, value) in changes {
        let at = words[which % words.len()] * 4;
        image[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }
    image
}

/// Whatever comes, the walk ends, asks for nothing outside, and brings each
/// selected block once.
fn check_any(image: &[u8], lost: std::ops::Range<u64>) {
    for selection in [Selection::E2image, Selection::Complete] {
        for scope in [Scope::Metadata, Scope::Data] {
            let options =
                WalkOptions { selection, scope, ..WalkOptions::default() };
            let Ok(driven) = drive(image, options, lost.clone()) else {
                continue;
            };
            let size = driven.walk.geometry.block_size;
            let inside = size.blocks_for(ByteCount(u64_from(image.len())));
            let inside = BlockRun::new(BlockNumber(0), inside).unwrap();
            let selected: BlockSet =
                driven.walk.selected.runs_in(inside).collect();
            assert_eq!(driven.delivered, selected);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn the_walk_of_a_damaged_filesystem_ends(
        which in any::<bool>(),
        changes in changes(),
        lost in (0..1_u64 << 22, 0..20_u64),
    ) {
        let image = if which { ext2() } else { ext4() };
        let image = change(image, &changes);
        let from = lost.0 / 512 * 512;
        check_any(&image, from..from + lost.1 * 512);
    }

    #[test]
    fn the_walk_of_noise_ends(
        head in prop::collection::vec(any::<u8>(), 4096),
        size in 0..3_u32,
        tail in prop::collection::vec(0..64_u8, 16384),
    ) {
        let mut image = ext4()[..32768].to_vec();
        image[2048..6144].copy_from_slice(&head);
        image[16384..].copy_from_slice(&tail);
        image[1024 + 24] = u8::try_from(size).unwrap();
        image[1024 + 28] = u8::try_from(size).unwrap();
        check_any(&image, 0..0);
        check_any(&head, 0..0);
    }
}

/// An ext4 whose journal holds three transactions that wait for a replay.
fn with_live_journal() -> Vec<u8> {
    let place = tempfile::tempdir().unwrap();
    let image = place.path().join("image");
    let script = place.path().join("script");
    let data = place.path().join("data");
    std::fs::write(&data, vec![b'j'; 8 * 1024]).unwrap();
    let data = data.to_str().unwrap();
    let lines = format!(
        "jo -c -v 3\njw -b 3001-3005 {data}\njw -b 3010,3020 {data}\n\
         jw -r 3001\njc\n"
    );
    std::fs::write(&script, lines).unwrap();
    let (image, script) = (image.to_str().unwrap(), script.to_str().unwrap());
    let features = "has_journal,extents,64bit,metadata_csum,filetype";
    let arguments = ["-q", "-F", "-b", "1024", "-O", features, image, "4M"];
    run_tool("mke2fs", &arguments);
    run_tool("debugfs", &["-w", "-f", script, image]);
    std::fs::read(image).unwrap()
}

#[test]
fn of_a_journal_only_the_live_part_is_needed() {
    let image = with_live_journal();
    let journal_of = |journal| {
        let options = WalkOptions { journal, ..WalkOptions::default() };
        let driven = walk(&image, options);
        assert_eq!(driven.walk.findings, []);
        assert_eq!(driven.delivered, driven.walk.selected);
        driven.walk.kind(BlockKind::Journal).unwrap().clone()
    };
    let full = journal_of(JournalMode::Full);
    let live = journal_of(JournalMode::Live);
    assert!(full.count().0 >= 1024);
    assert!(journal_of(JournalMode::None).is_empty());
    // The superblock; then five data blocks, two and none, each transaction
    // with a descriptor or a list of revoked blocks and a commit; then the
    // block that ends the chain.
    let runs: Vec<u64> = live.runs().map(|run| run.count().0).collect();
    assert_eq!(runs, [1 + 7 + 4 + 2 + 1]);
    // With a superblock that makes no sense all of it is needed.
    let mut broken = image.clone();
    let at = full.runs().next().unwrap().first().0 * 1024;
    let at = usize::try_from(at).unwrap();
    broken[at + 4] = 0xFF;
    let options =
        WalkOptions { journal: JournalMode::Live, ..WalkOptions::default() };
    let driven = walk(&broken, options);
    assert_eq!(*driven.walk.kind(BlockKind::Journal).unwrap(), full);
    assert_eq!(driven.walk.findings[0].structure, BlockKind::Journal);
}
