//! Logs made byte by byte: 64 blocks, the log from 1 on.

use super::*;
use crate::units::BlockSize;

const SIZE: usize = 1024;
const BLOCKS: u32 = 64;
const TAG_SAME_UUID: u32 = 2;
const TAG_LAST: u32 = 8;
const MAGIC: u32 = 0xC03B_3998;

fn be(words: &[u32]) -> Vec<u8> {
    let mut block: Vec<u8> =
        words.iter().flat_map(|word| word.to_be_bytes()).collect();
    block.resize(SIZE, 0);
    block
}

/// A journal whose next transaction is `sequence`; `start` 0 is clean.
fn superblock(sequence: u32, start: u32) -> JournalSuperblock {
    let block = be(&[MAGIC, 4, 0, 1024, BLOCKS, 1, sequence, start]);
    JournalSuperblock::check(&block, BlockSize::MIN, 64).unwrap()
}

/// A log that is written transaction by transaction, round and round.
struct Log {
    blocks: Vec<Vec<u8>>,
    at: u32,
}

impl Log {
    fn new(at: u32) -> Self {
        Self { blocks: vec![vec![0; SIZE]; BLOCKS as usize], at }
    }

    fn push(&mut self, block: Vec<u8>) -> u32 {
        let at = self.at;
        self.blocks[at as usize] = block;
        self.at = if at + 1 == BLOCKS { 1 } else { at + 1 };
        at
    }

    /// Where the copies went.
    fn descriptor(&mut self, sequence: u32, of: &[u32]) -> Vec<u32> {
        let mut words = vec![MAGIC, DESCRIPTOR, sequence];
        for (index, block) in of.iter().enumerate() {
            let last = if index + 1 == of.len() { TAG_LAST } else { 0 };
            words.extend([*block, TAG_SAME_UUID | last]);
        }
        self.push(be(&words));
        of.iter().map(|block| self.push(be(&[*block, sequence]))).collect()
    }

    fn revoke(&mut self, sequence: u32, blocks: &[u32]) {
        let used = 16 + 4 * blocks.len() as u32;
        let words = [&[MAGIC, REVOKE, sequence, used], blocks].concat();
        self.push(be(&words));
    }

    fn commit(&mut self, sequence: u32) {
        self.push(be(&[MAGIC, COMMIT, sequence]));
    }

    fn transaction(&mut self, sequence: u32, of: &[u32]) -> Vec<u32> {
        let at = self.descriptor(sequence, of);
        self.commit(sequence);
        at
    }

    /// Block, journal block, transaction and whether it is replayed.
    fn search(
        &self,
        superblock: JournalSuperblock,
        wanted: &[u32],
        is_readable: impl Fn(u32) -> bool,
    ) -> Vec<(u64, u32, u32, bool)> {
        let wanted: BlockSet = wanted
            .iter()
            .filter_map(|block| {
                BlockRun::new(BlockNumber(u64::from(*block)), BlockCount(1))
            })
            .collect();
        let mut search = LogSearch::new(superblock, &wanted).unwrap();
        // In any order.
        for at in (0..BLOCKS).rev().filter(|at| is_readable(*at)) {
            search.feed(at, &self.blocks[at as usize]);
        }
        let copies = search.finish();
        copies
            .iter()
            .map(|c| (c.tag.block.0, c.at, c.sequence, c.is_replayed))
            .collect()
    }
}

#[test]
fn the_newest_whole_transaction_counts_also_round_the_end() {
    let mut log = Log::new(57);
    log.transaction(5, &[100, 101]);
    let at = log.transaction(6, &[101, 102, 103, 104]);
    assert!(at[0] > at[3], "goes round: {at:?}");
    let all = [100, 101, 102, 103, 104, 105];
    let clean = superblock(7, 0);
    let found = log.search(clean, &all, |_| true);
    let expected = [
        (100, 58, 5, false),
        (101, at[0], 6, false),
        (102, at[1], 6, false),
        (103, at[2], 6, false),
        (104, at[3], 6, false),
    ];
    assert_eq!(found, expected);
    // What is to be replayed says so; older ones are still there.
    let found = log.search(superblock(6, 61), &all, |_| true);
    let replayed: Vec<bool> = found.iter().map(|copy| copy.3).collect();
    assert_eq!(replayed, [false, true, true, true, true]);
    assert_eq!(log.search(clean, &[105], |_| true), []);
}

#[test]
fn what_was_never_committed_or_is_of_the_future_does_not_count() {
    let mut log = Log::new(1);
    let first = log.transaction(5, &[100]);
    log.descriptor(6, &[100, 101]);
    let found = log.search(superblock(5, 1), &[100, 101], |_| true);
    assert_eq!(found, [(100, first[0], 5, true)]);
    // Left over from a journal that lay there before.
    log.commit(6);
    let found = log.search(superblock(6, 0), &[100, 101], |_| true);
    assert_eq!(found, [(100, first[0], 5, false)]);
    let found = log.search(superblock(7, 0), &[100, 101], |_| true);
    assert_eq!(found.len(), 2);
}

#[test]
fn what_newer_headers_or_holes_lie_in_does_not_count() {
    let mut log = Log::new(1);
    let at = log.transaction(5, &[100, 101, 102, 103]);
    let clean = superblock(9, 0);
    let all = [100, 101, 102, 103];
    assert_eq!(log.search(clean, &all, |_| true).len(), 4);
    assert_eq!(log.search(clean, &all, |block| block != at[2]), []);
    log.at = at[1];
    log.transaction(8, &[200]);
    assert_eq!(log.search(clean, &all, |_| true), []);
}

#[test]
fn what_was_revoked_since_does_not_count() {
    let mut log = Log::new(1);
    log.transaction(5, &[100, 101, 102]);
    log.descriptor(6, &[103]);
    log.revoke(6, &[100, 103]);
    log.commit(6);
    let again = log.transaction(7, &[100]);
    let clean = superblock(8, 0);
    let found = log.search(clean, &[100, 101, 103], |_| true);
    let expected = [(100, again[0], 7, false), (101, 3, 5, false)];
    assert_eq!(found, expected);
}

#[test]
fn numbers_of_transactions_go_round() {
    let mut log = Log::new(1);
    log.transaction(u32::MAX, &[100]);
    let newer = log.transaction(0, &[100]);
    let found = log.search(superblock(1, 0), &[100], |_| true);
    assert_eq!(found, [(100, newer[0], 0, false)]);
    let found = log.search(superblock(u32::MAX, 1), &[100], |_| true);
    assert_eq!(found, [(100, newer[0], 0, true)]);
}

#[test]
fn a_log_of_nothing_but_headers_is_searched_in_no_time() {
    for kind in [DESCRIPTOR, REVOKE, COMMIT, 4] {
        let mut log = Log::new(1);
        for _ in 0..BLOCKS {
            log.push(be(&[MAGIC, kind, 5, 1024, TAG_SAME_UUID]));
        }
        let found = log.search(superblock(5, 1), &[1024], |_| true);
        assert_eq!(found, []);
    }
}
