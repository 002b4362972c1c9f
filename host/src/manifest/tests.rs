use std::fs;

use proptest::prelude::*;

use super::*;
use crate::digest::ranges;
use crate::ext::finding::{Effect, Fault};
use crate::ext::{BlockKind, Finding, Geometry, Group};
use crate::local::output::publish_together;
use crate::source::{DiskIdentity, ReadFault};
use crate::units::ByteCount;

fn write(image: &Path, manifest: Manifest, records: &[RangeRecord]) {
    let options = OutputOptions { overwrite: true, sync: false, sources: &[] };
    let files = prepare(image, manifest, records, options).unwrap();
    publish_together(files, &[]).unwrap();
}

fn walk(blocks: u64) -> Walk {
    let size = BlockSize::from_bytes(1024).unwrap();
    let block = BlockNumber(77);
    Walk {
        traced: Vec::new(),
        geometry: Geometry {
            block_size: size,
            blocks: BlockCount(blocks),
            first_data_block: BlockNumber(1),
            cluster_blocks: 1,
            groups: 1,
            blocks_per_group: 8192,
            clusters_per_group: 8192,
            inodes_per_group: 64,
            inode_size: 256,
            inode_table_blocks: 16,
            descriptor_size: 64,
            descriptor_blocks: 1,
            uuid: [0xAB; 16],
        },
        superblock: Box::new([0; 1024]),
        superblock_at: BlockNumber(1),
        descriptors: Vec::new(),
        groups: vec![Group::default()],
        selected: crate::block_set::BlockSet::new(),
        kinds: vec![(BlockKind::Journal, [run(3, 9)].into_iter().collect())],
        marks: 0,
        findings: vec![Finding {
            structure: BlockKind::Map,
            group: None,
            inode: Some(12),
            block: Some(block),
            fault: Fault::Cycle(block),
            effect: Effect::SubtreeSkipped,
        }],
        claims: Vec::new(),
        findings_total: 3,
    }
}

fn run(first: u64, count: u64) -> BlockRun {
    BlockRun::new(BlockNumber(first), BlockCount(count)).unwrap()
}

fn manifest(blocks: u64) -> Manifest {
    let facts = SourceFacts {
        name: "/dev/sick\u{1b}".into(),
        kind: SourceKind::BlockDevice,
        length: ByteCount(blocks * 1024 + 512),
        sector_bytes: 512,
        file: None,
        disk: DiskIdentity {
            serial: Some("Z1".into()),
            ..DiskIdentity::default()
        },
        mounted_rw: false,
    };
    let mut manifest = Manifest::new(&facts, &walk(blocks));
    manifest.image.insert("format".into(), "raw".into());
    manifest.options.insert("journal".into(), "full".into());
    manifest.add_hole(run(50, 2), ReadFault::Medium, Map::new());
    manifest
}

/// Records of `runs`, cut as they must be.
fn records(runs: impl IntoIterator<Item = BlockRun>) -> Vec<RangeRecord> {
    let size = BlockSize::from_bytes(1024).unwrap();
    let set = runs.into_iter().collect();
    ranges(&set, size)
        .map(|run| RangeRecord {
            run,
            digest: *blake3::hash(&run.first().0.to_le_bytes()).as_bytes(),
            block_crcs: (0..run.count().0).map(|n| n as u32 * 99).collect(),
        })
        .collect()
}

#[test]
fn few_ranges_stand_in_the_manifest_many_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("a.raw");
    assert!(read(&image).unwrap().is_none());
    let few = records([run(1, 3000), run(5000, 1)]);
    let many = records((0..10_001).map(|n| run(n * 3, 2)));
    let large = records([run(1, 260_000)]);
    for (records, beside_it) in [(few, false), (many, true), (large, true)] {
        let digests = beside(&image, DIGESTS_SUFFIX);
        let _ = fs::remove_file(&digests);
        write(&image, manifest(300_000), &records);
        assert_eq!(digests.exists(), beside_it);
        let (known, read) = read(&image).unwrap().unwrap();
        assert_eq!(read, records);
        assert_eq!(known.content, content(&records));
        assert_eq!(known.stored, blocks_of(&records));
        let plain = Manifest {
            content: known.content,
            stored: known.stored,
            ranges: known.ranges.clone(),
            digests: known.digests,
            ..manifest(300_000)
        };
        assert_eq!(known, plain);
    }
}

#[test]
fn the_form_is_what_the_description_says() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("a.raw");
    write(&image, manifest(100), &records([run(7, 2)]));
    let text = fs::read(beside(&image, MANIFEST_SUFFIX)).unwrap();
    let value: Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(value["format"], "e2wire-manifest");
    assert_eq!(value["version"], 1);
    assert_eq!(value["source"]["kind"], "block-device");
    assert_eq!(value["source"]["bytes"], 100 * 1024 + 512);
    let uuid = "abababab-abab-abab-abab-abababababab";
    assert_eq!(value["filesystem"]["uuid"], uuid);
    assert_eq!(value["selected"]["journal"], 9);
    assert_eq!(value["holes"][0]["why"], "read error");
    assert_eq!(value["holes_blocks"], 2);
    assert_eq!(value["findings"][0]["inode"], 12);
    assert_eq!(value["findings_total"], 3);
    assert_eq!(value["ranges"][0]["first"], 7);
    assert_eq!(value["ranges"][0]["crc32c"], "0000000000000063");
    assert_eq!(value["content"].as_str().unwrap().len(), 64);
    assert!(value.get("digests").is_none());
}

#[test]
fn a_changed_manifest_is_not_believed() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("a.raw");
    write(&image, manifest(5000), &records([run(7, 2000)]));
    let path = beside(&image, MANIFEST_SUFFIX);
    let text = fs::read_to_string(&path).unwrap();
    let changes = [
        ("e2wire-manifest", "e2wire-manifesto", "format"),
        ("\"version\": 1", "\"version\": 2", "version"),
        ("\"version\": 1", "\"version\": 0", "version"),
        ("\"block_bytes\": 1024", "\"block_bytes\": 1000", "block size"),
        ("\"blocks\": 5000", "\"blocks\": 900", "place"),
        ("\"count\": 1017", "\"count\": 1018", "length"),
        ("\"count\": 1017", "\"count\": 1016", "checksums"),
        ("\"first\": 1024", "\"first\": 1000", "place"),
        ("\"stored\": 2000", "\"stored\": 2001", "content"),
        ("\"crc32c\": \"0", "\"crc32c\": \"", "form"),
        ("\"blake3\": \"", "\"blake3\": \"0", "form"),
        ("\"ranges\": [", "\"digests\": [", "form"),
        ("\"ranges\": [", "\"rangers\": [", "ranges"),
    ];
    for (from, to, what) in changes {
        assert!(text.contains(from), "{from}");
        fs::write(&path, text.replacen(from, to, 1)).unwrap();
        let error = read(&image).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Differs, "{from}");
        assert!(error.to_string().contains(what), "{from}: {error}");
    }
    fs::write(&path, "[".repeat(100_000)).unwrap();
    assert_eq!(read(&image).unwrap_err().kind(), ErrorKind::Differs);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_file_of_digests_that_was_touched_is_not_believed(
        at in any::<prop::sample::Index>(),
        byte in 1_u8..,
        cut in any::<bool>(),
    ) {
        thread_local! {
            static FOLDER: tempfile::TempDir = {
                let folder = tempfile::tempdir().unwrap();
                let image = folder.path().join("a");
                let many = records((0..10_001).map(|n| run(n * 3, 2)));
                write(&image, manifest(40_000), &many);
                folder
            };
        }
        FOLDER.with(|folder| {
            let image = folder.path().join("a");
            let path = beside(&image, DIGESTS_SUFFIX);
            let right = fs::read(&path).unwrap();
            let mut wrong = right.clone();
            let at = at.index(wrong.len());
            if cut {
                wrong.truncate(at);
            } else {
                wrong[at] ^= byte;
            }
            fs::write(&path, &wrong).unwrap();
            let error = read(&image).unwrap_err();
            fs::write(&path, &right).unwrap();
            assert_eq!(error.kind(), ErrorKind::Differs);
        });
    }
}
