//! Journals made byte by byte.

use proptest::prelude::*;

use super::*;

const SIZE: usize = 1024;

/// A journal of `blocks` blocks, log from 1, with `incompat` features.
fn journal(blocks: u32, start: u32, incompat: u32) -> Vec<Vec<u8>> {
    let mut journal = vec![vec![0; SIZE]; usize::try_from(blocks).unwrap()];
    let words =
        [MAGIC, SUPERBLOCK_V2, 0, 1024, blocks, 1, 7, start, 0, 0, incompat];
    journal[0] = be(&words);
    if incompat & INCOMPAT_FAST_COMMIT != 0 {
        journal[0][0x54..0x58].copy_from_slice(&4_u32.to_be_bytes());
    }
    if incompat & (INCOMPAT_CSUM_V2 | INCOMPAT_CSUM_V3) != 0 {
        let crc = crc32c_parts(!0, &[&journal[0]]);
        journal[0][CHECKSUM_AT..][..4].copy_from_slice(&crc.to_be_bytes());
    }
    journal
}

fn be(words: &[u32]) -> Vec<u8> {
    let mut block: Vec<u8> =
        words.iter().flat_map(|word| word.to_be_bytes()).collect();
    block.resize(SIZE, 0);
    block
}

/// A descriptor of transaction `sequence` with `count` tags in the shape that
/// `incompat` asks for; the first tag is followed by a UUID.
fn descriptor(incompat: u32, sequence: u32, count: u16) -> Vec<u8> {
    let mut block: Vec<u8> = [MAGIC, DESCRIPTOR, sequence]
        .iter()
        .flat_map(|word| word.to_be_bytes())
        .collect();
    for number in 0..count {
        let last = if number + 1 == count { TAG_LAST } else { 0 };
        let same = if number == 0 { 0 } else { TAG_SAME_UUID };
        let escaped = if number == 1 { TAG_ESCAPED } else { 0 };
        let flags = last | same | escaped;
        block.extend((5000 + u32::from(number)).to_be_bytes());
        let wide = incompat & INCOMPAT_64BIT != 0;
        if incompat & INCOMPAT_CSUM_V3 != 0 {
            block.extend(flags.to_be_bytes());
            block.extend(u32::from(wide).to_be_bytes());
            block.extend([0xCC; 4]);
        } else {
            block.extend([0xCC; 2]);
            block.extend(u16::try_from(flags).unwrap().to_be_bytes());
            if wide {
                block.extend(1_u32.to_be_bytes());
            }
            if incompat & INCOMPAT_CSUM_V2 != 0 {
                block.extend([0; 2]);
            }
        }
        if number == 0 {
            block.extend([0xEE; UUID_BYTES]);
        }
    }
    block.resize(SIZE, 0);
    block
}

fn follow(journal: &[Vec<u8>]) -> Result<(LiveLog, Vec<u32>), Fault> {
    let blocks = u64::try_from(journal.len()).unwrap();
    let superblock =
        JournalSuperblock::check(&journal[0], BlockSize::MIN, blocks)?;
    let mut log = LiveLog::new(superblock);
    let mut looked_at = Vec::new();
    while let Some(next) = log.next() {
        assert_eq!(log.ahead(1).next(), Some(next));
        looked_at.push(next);
        log.feed(&journal[usize::try_from(next).unwrap()])?;
    }
    Ok((log, looked_at))
}

#[test]
fn tags_of_every_shape_name_their_blocks() {
    for incompat in [0, 2, 8, 8 | 2, 16, 16 | 2] {
        let journal = journal(64, 0, incompat);
        let superblock =
            JournalSuperblock::check(&journal[0], BlockSize::MIN, 64).unwrap();
        let tags = superblock.tags(&descriptor(incompat, 7, 5));
        let high = if incompat & 2 != 0 { 1 << 32 } else { 0 };
        let expected: Vec<Tag> = (0..5)
            .map(|number| Tag {
                block: BlockNumber(high + 5000 + number),
                is_escaped: number == 1,
                checksum: if incompat & 16 != 0 { 0xCCCC_CCCC } else { 0xCCCC },
            })
            .collect();
        assert_eq!(tags, expected, "features {incompat:#x}");
    }
}

#[test]
fn a_chain_ends_at_the_first_block_of_another_sequence() {
    let mut journal = journal(64, 10, INCOMPAT_CSUM_V3);
    journal[10] = be(&[MAGIC, REVOKE, 7, 16]);
    journal[11] = descriptor(INCOMPAT_CSUM_V3, 7, 3);
    journal[15] = be(&[MAGIC, COMMIT, 7]);
    journal[16] = descriptor(INCOMPAT_CSUM_V3, 8, 1);
    journal[18] = be(&[MAGIC, COMMIT, 8]);
    journal[19] = be(&[MAGIC, COMMIT, 4]);
    let (log, looked_at) = follow(&journal).unwrap();
    assert_eq!(looked_at, [10, 11, 15, 16, 18, 19]);
    assert_eq!(log.live(true), [(0, 1), (10, 10)]);
}

#[test]
fn a_chain_goes_round_before_the_fast_commits() {
    let mut journal = journal(32, 26, INCOMPAT_FAST_COMMIT);
    // The log is 1..28; four data blocks are 27, 1, 2 and 3.
    journal[26] = descriptor(0, 7, 4);
    journal[4] = be(&[MAGIC, COMMIT, 7]);
    let (log, looked_at) = follow(&journal).unwrap();
    assert_eq!(looked_at, [26, 4, 5]);
    assert_eq!(log.live(false), [(0, 1), (26, 2), (1, 5), (28, 4)]);
    assert_eq!(log.ahead(9).count(), 0);
}

#[test]
fn an_empty_log_needs_its_superblock_and_perhaps_fast_commits() {
    let (log, looked_at) =
        follow(&journal(32, 0, INCOMPAT_FAST_COMMIT)).unwrap();
    assert!(looked_at.is_empty());
    assert_eq!(log.live(false), [(0, 1)]);
    assert_eq!(log.live(true), [(0, 1), (28, 4)]);
}

#[test]
fn a_chain_that_fills_the_log_ends_and_a_longer_one_is_damage() {
    let mut full = journal(8, 3, 0);
    full[3] = descriptor(0, 7, 5);
    full[2] = be(&[MAGIC, COMMIT, 7]);
    let (log, looked_at) = follow(&full).unwrap();
    assert_eq!(looked_at, [3, 2]);
    assert_eq!(log.live(true), [(0, 1), (3, 5), (1, 2)]);
    full[3] = descriptor(0, 7, 7);
    assert_eq!(follow(&full).unwrap_err(), Fault::BadCount(7));
}

#[test]
fn superblocks_that_cannot_be_are_refused() {
    let check = |at: usize, value: u32, incompat: u32| {
        let mut journal = journal(64, 10, incompat);
        journal[0][at..at + 4].copy_from_slice(&value.to_be_bytes());
        follow(&journal).map(|_| ()).unwrap_err()
    };
    assert_eq!(check(0, 1, 0), Fault::BadMagic);
    assert_eq!(check(4, 9, 0), Fault::BadMagic);
    assert_eq!(check(0x0C, 4096, 0), Fault::BadCount(4096));
    assert_eq!(check(0x10, 65, 0), Fault::BadCount(65));
    assert_eq!(check(0x14, 0, 0), Fault::BadCount(0));
    assert_eq!(check(0x1C, 64, 0), Fault::BadCount(64));
    assert_eq!(check(0x28, 0x40, 0), Fault::BadCount(0x40));
    assert_eq!(check(0x54, 64, INCOMPAT_FAST_COMMIT), Fault::BadCount(1));
    assert_eq!(check(0x18, 8, INCOMPAT_CSUM_V3), Fault::BadChecksum);
}

proptest! {
    #[test]
    fn any_log_comes_to_an_end(
        start in 0..24_u32,
        incompat in 0..0x40_u32,
        kinds in prop::collection::vec((0..6_u32, 0..4_u32, 0..9_u16), 24),
    ) {
        let mut journal = journal(24, start, incompat);
        for (block, (kind, ahead, count)) in
            journal.iter_mut().zip(&kinds).skip(1)
        {
            *block = match kind {
                1 => descriptor(incompat, 7 + ahead, *count),
                kind => be(&[MAGIC, *kind, 7 + ahead]),
            };
        }
        if let Ok((log, looked_at)) = follow(&journal) {
            prop_assert!(looked_at.len() <= 24);
            for (first, count) in log.live(true) {
                prop_assert!(first + count <= 24);
            }
        }
    }
}
