//! Segments as the kernel wants them.

use std::io::Read as _;

use super::*;
use crate::build_initrd::archive::{Entry, newc_archive};

fn archive() -> Vec<u8> {
    let agent = Entry::file("e2wire-agent", 0o755, vec![0x5a; 30_001]);
    newc_archive(&[agent]).unwrap()
}

fn unpacked(stream: &[u8], compression: Compression) -> Vec<u8> {
    let mut bytes = Vec::new();
    match compression {
        Compression::None => bytes.extend_from_slice(stream),
        Compression::Gzip => {
            let mut decoder = flate2::read::GzDecoder::new(stream);
            decoder.read_to_end(&mut bytes).unwrap();
        }
        Compression::Zstd => {
            let decoder = zstd::stream::Decoder::new(stream).unwrap();
            decoder.single_frame().read_to_end(&mut bytes).unwrap();
        }
    }
    bytes
}

#[test]
fn a_segment_is_whole_sectors_and_unpacks_to_its_archive() {
    for compression in [Compression::Zstd, Compression::Gzip, Compression::None]
    {
        let segment = segment(&archive(), compression).unwrap();
        assert_eq!(segment.len() % SEGMENT_ALIGNMENT, 0, "{compression}");
        let unpacked = unpacked(&segment, compression);
        assert!(unpacked.starts_with(&archive()), "{compression}");
        assert_eq!(segment, super::segment(&archive(), compression).unwrap());
    }
}

#[test]
fn the_new_segment_follows_what_was_there_at_a_sector() {
    let early = newc_archive(&[Entry::directory("kernel")]).unwrap();
    let ours = segment(&archive(), Compression::None).unwrap();
    for (name, main) in [
        ("gzip", vec![0x1f, 0x8b, 8, 0, 1]),
        ("zstd", vec![0x28, 0xb5, 0x2f, 0xfd, 9, 9, 9]),
        ("nothing more", Vec::new()),
    ] {
        let base = [early.as_slice(), &main].concat();
        let joined = append(&base, &ours).unwrap();
        assert!(joined.starts_with(&base), "{name}");
        let at = base.len().next_multiple_of(SEGMENT_ALIGNMENT);
        assert!(joined[base.len()..at].iter().all(|&byte| byte == 0));
        assert_eq!(joined[at..], ours, "{name}");
    }
}

#[test]
fn an_lz4_stream_stays_last() {
    let early = newc_archive(&[Entry::directory("kernel")]).unwrap();
    let main = [LZ4_LEGACY_MAGIC.as_slice(), &[1, 2, 3, 4, 5]].concat();
    let ours = segment(&archive(), Compression::Zstd).unwrap();
    let joined =
        append(&[early.clone(), main.clone()].concat(), &ours).unwrap();
    let at = early.len().next_multiple_of(SEGMENT_ALIGNMENT);
    assert!(joined.starts_with(&early));
    assert!(joined[at..].starts_with(&ours));
    assert_eq!(joined[at + ours.len()..], main);
}

#[test]
fn what_is_no_initrd_is_refused() {
    let cut = archive();
    let cut = &cut[..cut.len() / 2];
    let mut bad_digits = archive();
    bad_digits[54] = b'x';
    for (name, base) in [
        ("a text", b"hello".as_slice()),
        ("nothing", b""),
        ("zeros", &[0; 4096]),
        ("a cut archive", cut),
        ("a cut header", &archive()[..100]),
        ("a bad header", &bad_digits),
        ("an archive at an odd place", &[&[0], archive().as_slice()].concat()),
    ] {
        assert!(append(base, &[]).is_err(), "{name}");
    }
}
