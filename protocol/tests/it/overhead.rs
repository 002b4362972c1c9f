//! What of a line's bytes is compressed payload.

use e2wire_protocol::chunk::Codec;
use e2wire_protocol::coding::Coding;
use e2wire_protocol::digest::{DeviceId, Tag};
use e2wire_protocol::limits::LINE_BYTES_MAX;
use e2wire_protocol::message::{Fragment, Reply, ReplyBody};

/// Payload as zstd makes it, of tables that look like inodes.
fn payload(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut plain = Vec::new();
    let mut all = Vec::new();
    while all.len() < length {
        plain.clear();
        for inode in 0_u32..4096 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let noise = state.to_le_bytes();
            plain.extend([0xa4, 0x81, 0, 0]);
            plain.extend(&noise[..5]);
            plain.extend(inode.to_le_bytes());
            plain.extend([0; 51]);
        }
        all.extend(zstd::bulk::compress(&plain, 3).unwrap());
    }
    all.truncate(length);
    all
}

/// Bytes on the line of a chunk of `encoded` bytes in fragments of
/// `payload_bytes`, late in a long job on a disk of 16 TiB.
fn line_bytes(encoded: &[u8], payload_bytes: usize) -> usize {
    let mut line = vec![0; LINE_BYTES_MAX];
    let mut all = 0;
    for (i, payload) in (0_u32..).zip(encoded.chunks(payload_bytes)) {
        let at = usize::try_from(i).unwrap() * payload_bytes;
        let fragment = Fragment {
            device: DeviceId([0xd5; 8]),
            first: 30_000_000_000,
            codec: Codec::Zstd(3),
            tag: Tag([0x7a; 8]),
            encoded: encoded.len().try_into().unwrap(),
            at: at.try_into().unwrap(),
        };
        let body = ReplyBody::Fragment(fragment);
        let (number, seen, answers) = (150_000 + i, 40_000, 39_990);
        let reply = Reply { number, seen, answers, body };
        all += reply.encode(Coding::Binary, &[payload], &mut line).unwrap();
    }
    all
}

/// Payload for each 100,000 bytes of the line.
fn share(payload: usize, line: usize) -> usize {
    payload * 100_000 / line
}

#[test]
fn whole_fragments_of_4_to_16_kib_use_98_5_percent_of_the_line() {
    for (payload_bytes, at_least) in
        [(4096, 98_500), (8192, 99_000), (16384, 99_400)]
    {
        let encoded = payload(payload_bytes * 16);
        let line = line_bytes(&encoded, payload_bytes);
        let share = share(encoded.len(), line);
        assert!(share >= at_least, "{payload_bytes}: {share}");
    }
}

#[test]
fn chunks_that_are_cut_unevenly_do_too_with_large_fragments() {
    // 256 KiB of metadata compress to about 14 KiB.
    for (payload_bytes, at_least) in [(8192, 98_900), (16384, 99_200)] {
        let mut line = 0;
        let mut all = 0;
        for length in [9_000, 11_000, 14_000, 18_000, 22_000] {
            let encoded = payload(length);
            line += line_bytes(&encoded, payload_bytes);
            all += length;
        }
        let share = share(all, line);
        assert!(share >= at_least, "{payload_bytes}: {share}");
    }
}

#[test]
fn the_worst_payload_costs_half_a_percent_more() {
    let encoded = vec![0x55; 16384 * 4];
    let share = share(encoded.len(), line_bytes(&encoded, 16384));
    assert!(share >= 99_200, "{share}");
}

#[test]
fn a_line_with_one_error_in_1e5_bytes_keeps_93_percent() {
    // Each frame that holds a damaged byte is sent again whole, and its
    // request takes another 60 bytes of the other direction.
    let mut best = 0;
    for payload_bytes in [1024_u16, 2048, 4096] {
        let encoded = payload(usize::from(payload_bytes) * 16);
        let line = line_bytes(&encoded, payload_bytes.into());
        let frame = line / 16;
        let clean = (1.0 - 1e-5_f64).powi(frame.try_into().unwrap());
        let share = f64::from(payload_bytes) * clean
            / f64::from(u32::try_from(frame).unwrap());
        best = best.max((share * 1000.0).round() as u32);
    }
    assert!(best >= 945, "{best}");
}
