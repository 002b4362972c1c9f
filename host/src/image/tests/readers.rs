//! What was written comes back, and nothing that is put in front of a reader
//! makes it fall over.

use std::fs;

use proptest::prelude::*;

use super::oracle::{EXT4, Fixture, e2fsprogs, tool};
use super::*;
use crate::ext::{BlockKind, Scope};
use crate::image::format::Qcow2Compression;
use crate::image::normal::read::NormalSource;
use crate::image::qcow2::compact::{CompactOptions, CompactSink};
use crate::image::qcow2::read::Qcow2Source;
use crate::image::qcow2::stream::CompactStream;
use crate::source::Piece;
use crate::testing::range;

fn qcow2(image: &[u8]) -> Result<Qcow2Source> {
    Qcow2Source::new(Box::new(image.to_vec()), "x", facts(image.len()))
}

fn normal(image: &[u8]) -> Result<NormalSource> {
    NormalSource::new(Box::new(image.to_vec()), "x", facts(image.len()))
}

fn compact(walk: &Walk, options: CompactOptions) -> Vec<u8> {
    let mut file = MemoryFile::default();
    let mut sink = CompactSink::new(&mut file, "x", options);
    feed(&mut sink, walk, 9, &two_of_three, &mut |pieces| pieces.reverse());
    file.bytes
}

#[test]
fn qcow2_comes_back_and_knows_what_it_holds() {
    let walk = walk(
        1024,
        300_000,
        &[run(1, 5), run(700, 300), run(131_000, 200), run(299_999, 1)],
    );
    let right = expected(&walk, &two_of_three);
    for compression in [
        Qcow2Compression::None,
        Qcow2Compression::Zstd,
        Qcow2Compression::Deflate,
    ] {
        for bits in [10, 11, 16, 21] {
            let options =
                CompactOptions { compression, cluster_bits: Some(bits) };
            let source = qcow2(&compact(&walk, options)).unwrap();
            assert!(read_whole(&source) == right, "{compression:?} {bits}");
            let stored = source.stored();
            let size = walk.geometry.block_size;
            if bits == 10 {
                assert_eq!(stored.whole(size), walk.selected);
            }
            for run in walk.selected.runs() {
                assert!(stored.contains(run.bytes(size).unwrap()));
            }
        }
    }
    let mut stream = MemoryStream::default();
    let options = CompactOptions::default();
    let mut sink = CompactStream::new(&mut stream, "x", options).unwrap();
    feed(&mut sink, &walk, 9, &two_of_three, &mut |_| {});
    let source = qcow2(&stream.0).unwrap();
    assert!(read_whole(&source) == right);
    let stored = source.stored();
    assert_eq!(stored.touched(walk.geometry.block_size), walk.selected);
}

#[test]
fn what_qemu_and_e2image_write_is_read() {
    let fixture = Fixture::new(&["-b", "1024", "-O", EXT4], "40000");
    let source = fixture.path("fs.img");
    let out = fixture.path("out");
    let (source, out) = (source.to_str().unwrap(), out.to_str().unwrap());
    let package = "apt-get install qemu-utils";
    let variants: [&[&str]; 6] = [
        &["-o", "compat=0.10"],
        &["-o", "compat=1.1,cluster_size=512"],
        &["-c", "-o", "cluster_size=2M"],
        &["-c", "-o", "cluster_size=4k"],
        &["-c", "-o", "compression_type=zstd"],
        &["-c", "-o", "compression_type=zstd,cluster_size=2M"],
    ];
    for options in variants {
        let mut arguments = vec!["convert", "-f", "raw", "-O", "qcow2"];
        arguments.extend(options);
        arguments.extend([source, out]);
        let (done, text) = tool("qemu-img", package, &arguments);
        assert!(done, "{text}");
        let image = qcow2(&fs::read(out).unwrap()).unwrap();
        assert!(read_whole(&image) == fixture.bytes, "{options:?}");
    }
    let walk = fixture.walk(Scope::Metadata, false);
    let size = walk.geometry.block_size;
    let _ = fs::remove_file(out);
    e2fsprogs("e2image", &["-Q", source, out]);
    let image = qcow2(&fs::read(out).unwrap()).unwrap();
    e2fsprogs("e2image", &["-r", source, &format!("{out}.raw")]);
    let raw = fs::read(format!("{out}.raw")).unwrap();
    assert!(read_whole(&image) == raw);
    let stored = image.stored().whole(size);
    let mut beyond = stored.clone();
    beyond.subtract(&walk.selected);
    assert!(beyond.is_empty() && !stored.is_empty());
}

#[test]
fn what_is_not_read_is_refused_by_name() {
    let walk = walk(1024, 100, &[run(1, 5)]);
    let image = compact(&walk, CompactOptions::default());
    let cases: [(usize, &[u8], &str); 12] = [
        (0, b"QFI\xfa", "magic"),
        (4, &[0, 0, 0, 4], "version is 4"),
        (8, &[0, 0, 0, 0, 0, 0, 1, 0], "backing file"),
        (20, &[0, 0, 0, 31], "tables"),
        (32, &[0, 0, 0, 1], "encrypted"),
        (36, &[0, 0, 0, 0], "tables"),
        (60, &[0, 0, 0, 1], "snapshots"),
        (79, &[1], "dirty"),
        (79, &[2], "corrupt"),
        (79, &[4], "another file"),
        (79, &[16], "subclusters"),
        (72, &[1], "0x100000000000000"),
    ];
    for (at, bytes, text) in cases {
        let mut bad = image.clone();
        bad[at..at + bytes.len()].copy_from_slice(bytes);
        let Err(error) = qcow2(&bad) else {
            panic!("{text}: was opened");
        };
        assert_eq!(error.kind(), ErrorKind::NoFilesystem);
        assert!(error.to_string().contains(text), "{error}");
    }
}

#[test]
fn a_table_used_twice_is_unreadable_the_second_time() {
    let walk = walk(1024, 400, &[run(1, 5), run(300, 5)]);
    let right = expected(&walk, &two_of_three);
    let mut image = compact(&walk, CompactOptions::default());
    let l1 = u64::from_be_bytes(image[40..48].try_into().unwrap());
    let l1 = usize::try_from(l1).unwrap();
    image.copy_within(l1..l1 + 8, l1 + 16);
    let source = qcow2(&image).unwrap();
    let table = 128 * 1024;
    // It counts as held, so that somebody asks for it and hears.
    assert!(source.stored().contains(range(2 * table, table)));
    let mut unreadable = 0;
    source
        .read(&[range(0, 400 * 1024)], &mut |piece| {
            let at = usize::try_from(piece.at.0).unwrap();
            match piece.what {
                Payload::Unreadable(length, _) => {
                    assert!(piece.at.0 >= 2 * table);
                    unreadable += length.0;
                }
                Payload::Bytes(bytes) => {
                    assert!(*bytes == right[at..at + bytes.len()]);
                }
                Payload::Zero(_) => {}
            }
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(unreadable, table);
}

#[test]
fn a_normal_image_comes_back_at_the_places_of_the_device() {
    for (features, full) in [(EXT4, false), (EXT4, true), ("none", false)] {
        let fixture =
            Fixture::new(&["-b", "4096", "-g", "1024", "-O", features], "9000");
        let walk = fixture.walk(Scope::Tables, full);
        let mut file = MemoryFile::default();
        let mut sink = create(
            Format::Normal,
            &ImageOptions::default(),
            Target::File(&mut file),
        )
        .unwrap();
        fixture.feed(&mut *sink, &walk, 50);
        drop(sink);
        let source = normal(&file.bytes).unwrap();
        assert_eq!(source.geometry(), &walk.geometry);
        let whole = read_whole(&source);
        let stored = source.stored();
        for range in stored.ranges() {
            let start = usize::try_from(range.start().0).unwrap();
            let end = usize::try_from(range.end().0).unwrap();
            let same = whole[start..end] == fixture.bytes[start..end];
            assert!(same, "{features}: {range:?}");
        }
        // The first KiB of block 0 is nobody's.
        assert_eq!(stored.ranges()[0].start(), ByteOffset(1024));
        let size = walk.geometry.block_size;
        for kind in [
            BlockKind::Descriptors,
            BlockKind::BlockBitmap,
            BlockKind::InodeBitmap,
        ] {
            for run in walk.kind(kind).unwrap().runs() {
                assert!(stored.contains(run.bytes(size).unwrap()), "{kind}");
            }
        }
        if !full {
            let tables = walk.kind(BlockKind::InodeTable).unwrap();
            for run in tables.runs() {
                assert!(stored.contains(run.bytes(size).unwrap()));
            }
        }
        let path = fixture.path("out.e2i");
        fs::write(&path, &file.bytes).unwrap();
        let path = path.to_str().unwrap();
        assert!(e2fsprogs("dumpe2fs", &["-i", path]).contains("Group 8"));
        let listed = e2fsprogs("debugfs", &["-i", "-R", "stat <2>", path]);
        assert!(listed.contains("Type: directory"), "{listed}");
    }
}

#[test]
fn the_door_opens_every_format_by_what_it_looks_like() {
    let fixture = Fixture::new(&["-b", "1024", "-O", EXT4], "9000");
    for format in Format::ALL {
        let scope = match format {
            Format::Normal => Scope::Tables,
            _ => Scope::Metadata,
        };
        let walk = fixture.walk(scope, false);
        let mut file = MemoryFile::default();
        let options = ImageOptions::default();
        let mut sink =
            create(format, &options, Target::File(&mut file)).unwrap();
        fixture.feed(&mut *sink, &walk, 50);
        drop(sink);
        let path = fixture.path("out");
        fs::write(&path, &file.bytes).unwrap();
        let image = open(&path, None).unwrap();
        assert_eq!(image.format, format);
        let length = walk.geometry.blocks.0 * 1024;
        assert_eq!(image.source().facts().length, ByteCount(length));
        assert!(!image.stored.ranges().is_empty());
        let whole = read_whole(image.source());
        assert!(whole[1024..2048] == fixture.bytes[1024..2048]);
        assert!(open(&path, Some(Format::Raw)).is_ok());
    }
    // A boot block does not make a filesystem another image.
    for magic in [*b"QFI\xfb", [0x10, 0xb7, 0x2b, 0x7f]] {
        let path = fixture.path("fs.img");
        let mut bytes = fixture.bytes.clone();
        bytes[..4].copy_from_slice(&magic);
        fs::write(&path, &bytes).unwrap();
        assert_eq!(open(&path, None).unwrap().format, Format::Raw);
        assert_ne!(detect(&magic, ByteCount(4)), Format::Raw);
    }
    let empty = fixture.path("empty");
    fs::write(&empty, b"").unwrap();
    assert_eq!(open(&empty, None).unwrap().format, Format::Raw);
    assert!(open(&empty, Some(Format::Qcow2)).is_err());
    assert!(open(&empty, Some(Format::Normal)).is_err());
}

/// Reads all of it, and answers how many bytes came.
fn survive(source: &dyn BlockSource) -> u64 {
    let mut got = 0;
    let end = source.facts().length.0.min(1 << 32);
    let Some(range) =
        ByteRange::new(ByteOffset(0), ByteCount(end)).filter(|r| !r.is_empty())
    else {
        return 0;
    };
    let result = source.read(&[range], &mut |piece: Piece<'_>| {
        got += piece.what.length().0;
        ControlFlow::Continue(())
    });
    result.unwrap();
    assert_eq!(got, end);
    got
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_hostile_qcow2_image_does_no_harm(
        changes in prop::collection::vec(
            (prop_oneof![0_usize..112, 0_usize..20_000], any::<u8>()),
            1..12,
        ),
        cut in 0_usize..20_000,
        zstd in any::<bool>(),
    ) {
        let walk = walk(1024, 900, &[run(1, 5), run(300, 12)]);
        let compression = match zstd {
            true => Qcow2Compression::Zstd,
            false => Qcow2Compression::Deflate,
        };
        let options = CompactOptions { compression, cluster_bits: None };
        let mut image = compact(&walk, options);
        for (at, byte) in changes {
            let length = image.len();
            image[at % length] = byte;
        }
        if cut % 3 == 0 {
            image.truncate(cut % image.len());
        }
        if let Ok(source) = qcow2(&image) {
            survive(&source);
            let _ = source.stored();
        }
    }

    #[test]
    fn a_hostile_normal_image_does_no_harm(
        changes in prop::collection::vec(
            (prop_oneof![0_usize..332, 1024_usize..2048, 2048_usize..4096],
             any::<u8>()),
            1..6,
        ),
        cut in 0_usize..100_000,
    ) {
        thread_local! {
            static IMAGE: Vec<u8> = {
                let fixture =
                    Fixture::new(&["-b", "1024", "-O", EXT4], "9000");
                let walk = fixture.walk(Scope::Tables, false);
                let mut file = MemoryFile::default();
                let options = ImageOptions::default();
                let target = Target::File(&mut file);
                let mut sink =
                    create(Format::Normal, &options, target).unwrap();
                fixture.feed(&mut *sink, &walk, 50);
                drop(sink);
                file.bytes
            };
        }
        let mut image = IMAGE.with(Clone::clone);
        for (at, byte) in changes {
            image[at] = byte;
        }
        if cut % 3 == 0 {
            image.truncate(cut % image.len());
        }
        if let Ok(source) = normal(&image) {
            survive(&source);
            let _ = source.stored();
        }
    }

    #[test]
    fn any_bytes_are_opened_or_refused(
        bytes in prop::collection::vec(any::<u8>(), 0..600),
    ) {
        for magic in [*b"QFI\xfb", [0x10, 0xb7, 0x2b, 0x7f]] {
            let mut image = magic.to_vec();
            image.extend(&bytes);
            let _ = qcow2(&image).map(|source| survive(&source));
            let _ = normal(&image).map(|source| survive(&source));
            let _ = detect(&image, ByteCount(0));
        }
        let _ = detect(&bytes, ByteCount(0));
    }
}
