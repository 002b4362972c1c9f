//! Images are judged by QEMU, byte by byte and by its own check.

use std::path::Path;
use std::process::Command;

use proptest::prelude::*;

use super::classic::ClassicSink;
use super::compact::{CompactOptions, CompactSink};
use super::stream::CompactStream;
use super::*;
use crate::ext::Walk;
use crate::image::tests::{
    MemoryFile, MemoryStream, expected, feed, run, two_of_three, walk,
};
use crate::units::BlockRun;

fn qemu_img(arguments: &[&str]) -> (bool, String) {
    let output = Command::new("qemu-img")
        .args(arguments)
        .output()
        .expect("needs qemu-img: apt-get install qemu-utils");
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

/// What QEMU makes of `image`: it must be without error, without leak, and
/// hold `right`.
fn judge(image: &[u8], right: &[u8]) {
    let folder = tempfile::tempdir().unwrap();
    let path =
        |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (image_path, raw_path) = (path("a.qcow2"), path("a.raw"));
    std::fs::write(&image_path, image).unwrap();
    let (clean, text) = qemu_img(&["check", "-f", "qcow2", &image_path]);
    assert!(clean, "{text}");
    convert(&image_path, &raw_path);
    assert!(std::fs::read(Path::new(&raw_path)).unwrap() == right);
}

fn convert(image: &str, raw: &str) {
    let (done, text) =
        qemu_img(&["convert", "-f", "qcow2", "-O", "raw", image, raw]);
    assert!(done, "{text}");
}

fn compact(
    walk: &Walk,
    options: CompactOptions,
    cut: u64,
    fill: &dyn Fn(u64, &mut [u8]),
    shuffle: &mut dyn FnMut(&mut Vec<BlockRun>),
) -> Vec<u8> {
    let mut file = MemoryFile::default();
    let mut sink = CompactSink::new(&mut file, "x", options);
    feed(&mut sink, walk, cut, fill, shuffle);
    file.bytes
}

fn stream(walk: &Walk, bits: Option<u32>, cut: u64) -> Vec<u8> {
    let mut out = MemoryStream::default();
    let options =
        CompactOptions { cluster_bits: bits, ..CompactOptions::default() };
    let mut sink = CompactStream::new(&mut out, "x", options).unwrap();
    feed(&mut sink, walk, cut, &two_of_three, &mut |_| {});
    out.0
}

const COMPRESSIONS: [Qcow2Compression; 3] =
    [Qcow2Compression::None, Qcow2Compression::Zstd, Qcow2Compression::Deflate];

#[test]
fn qemu_finds_every_compact_image_clean_and_right() {
    for (block_bytes, blocks) in [(1024, 9_000), (4096, 3_001), (65_536, 999)] {
        let walk = walk(
            block_bytes,
            blocks,
            &[run(1, 5), run(300, 300), run(801, 2), run(blocks - 1, 1)],
        );
        let right = expected(&walk, &two_of_three);
        for compression in COMPRESSIONS {
            for more in [0, 1, 3] {
                let bits = (block_bytes.trailing_zeros() + more).min(21);
                let options =
                    CompactOptions { compression, cluster_bits: Some(bits) };
                let image =
                    compact(&walk, options, 7, &two_of_three, &mut |p| {
                        p.reverse();
                    });
                judge(&image, &right);
            }
        }
        for bits in [None, Some(block_bytes.trailing_zeros() + 2)] {
            judge(&stream(&walk, bits, 11), &right);
        }
    }
}

#[test]
fn compressible_blocks_shrink_and_come_back() {
    let fill = |block: u64, room: &mut [u8]| {
        for (place, byte) in room.iter_mut().enumerate() {
            *byte = (block / 5) as u8 | (place % 61 == 0) as u8;
        }
    };
    for (block_bytes, compression) in [
        (1024, Qcow2Compression::Deflate),
        (4096, Qcow2Compression::Zstd),
        (65_536, Qcow2Compression::Deflate),
        (65_536, Qcow2Compression::Zstd),
    ] {
        let walk = walk(block_bytes, 2_000, &[run(1, 5), run(900, 1000)]);
        let options = CompactOptions { compression, cluster_bits: None };
        let image = compact(&walk, options, 13, &fill, &mut |_| {});
        assert!(image.len() < 1005 * usize::try_from(block_bytes).unwrap() / 3);
        judge(&image, &expected(&walk, &fill));
    }
}

#[test]
fn an_image_of_nothing_is_an_image() {
    let walk = walk(4096, 1000, &[]);
    let right = vec![0; 4096 * 1000];
    judge(&stream(&walk, None, 1), &right);
    let options = CompactOptions::default();
    let image = compact(&walk, options, 1, &two_of_three, &mut |_| {});
    judge(&image, &right);
}

#[test]
fn on_a_device_old_bytes_do_not_shine_through() {
    let walk = walk(1024, 3000, &[run(1, 5), run(2000, 30)]);
    for more in [0, 2] {
        let mut file = MemoryFile {
            bytes: vec![0xAA; 1 << 20],
            is_device: true,
            ..MemoryFile::default()
        };
        let options = CompactOptions {
            cluster_bits: Some(10 + more),
            ..CompactOptions::default()
        };
        let mut sink = CompactSink::new(&mut file, "x", options);
        feed(&mut sink, &walk, 3, &two_of_three, &mut |p| p.reverse());
        // qemu-img calls what lies behind the image no error.
        judge(&file.bytes, &expected(&walk, &two_of_three));
    }
}

#[test]
fn clusters_grow_where_tables_would_be_too_large_for_qemu() {
    let table = [
        // Block size, blocks, cluster bits.
        (1024, 1 << 20, 10),
        (1024, 450 << 20, 10),
        (1024, 512 << 20, 11),
        (4096, 1 << 30, 12),
        (4096, (8 << 40) / 4096 + 1, 13),
        (4096, (64 << 40) / 4096, 14),
        (65_536, (1 << 50) / 65_536, 16),
    ];
    for (block_bytes, blocks, bits) in table {
        let walk = walk(block_bytes, blocks, &[]);
        let shape = Shape::new(&walk.geometry).unwrap();
        let clusters = Clusters::smallest(shape).unwrap();
        assert_eq!(clusters.bits, bits, "{blocks} blocks of {block_bytes}");
        assert!(clusters.l1_bytes() <= L1_BYTES_MAX);
    }
    let huge = walk(65_536, 1 << 46, &[]);
    assert!(Clusters::smallest(Shape::new(&huge.geometry).unwrap()).is_err());
}

#[test]
fn scattered_blocks_of_a_tebibyte_need_little_memory_and_no_error() {
    let scattered: Vec<BlockRun> =
        (0..5_000_u64).map(|n| run(n * 53_687, 1 + n % 3)).collect();
    let walk = walk(4096, 1 << 28, &scattered);
    let image = compact(
        &walk,
        CompactOptions::default(),
        2,
        &two_of_three,
        &mut |_| {},
    );
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.qcow2");
    std::fs::write(&path, &image).unwrap();
    let (clean, text) = qemu_img(&["check", path.to_str().unwrap()]);
    assert!(clean, "{text}");
}

#[test]
fn classic_has_no_error_even_where_the_guess_is_too_small() {
    // 65,536 blocks of 1 KiB, nearly all selected: one cluster of refcount
    // table is too small for data, tables and blocks together.
    for selected in [64_000, 65_000, 65_300, 65_527] {
        let walk = walk(1024, 65_536, &[run(1, selected)]);
        let fill = |block: u64, room: &mut [u8]| room.fill(block as u8 | 1);
        let mut file = MemoryFile::default();
        let mut sink = ClassicSink::new(&mut file, "x");
        feed(&mut sink, &walk, 77, &fill, &mut |_| {});
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.qcow2");
        let path = path.to_str().unwrap();
        std::fs::write(path, &file.bytes).unwrap();
        // Leaks, yes (exit status 3), but no error.
        let (_, text) = qemu_img(&["check", path]);
        assert!(!text.contains("ERROR"), "{selected}: {text}");
        assert!(text.contains("leaked clusters were found"), "{text}");
        let raw = format!("{path}.raw");
        convert(path, &raw);
        assert!(std::fs::read(raw).unwrap() == expected(&walk, &fill));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_order_of_blocks_makes_a_clean_image(
        runs in prop::collection::vec((0_u64..4000, 1_u64..60), 0..40),
        cut in 1_u64..20,
        seed in any::<u64>(),
        more in 0_u32..4,
        compression in 0_usize..3,
    ) {
        let runs: Vec<BlockRun> =
            runs.into_iter().map(|(first, count)| run(first, count)).collect();
        let walk = walk(1024, 4100, &runs);
        let options = CompactOptions {
            compression: COMPRESSIONS[compression],
            cluster_bits: Some(10 + more),
        };
        let image = compact(&walk, options, cut, &two_of_three, &mut |pieces| {
            pieces.sort_by_cached_key(|piece| {
                (piece.first().0 ^ seed).wrapping_mul(0x9E37_79B9_7F4A_7C15)
            });
        });
        judge(&image, &expected(&walk, &two_of_three));
    }
}
