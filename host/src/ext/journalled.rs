//! Which blocks the log of a journal holds copies of, and which copy of each
//! is the newest that can be believed.
//!
//! A log that was emptied still holds the transactions that it was emptied
//! of, until newer ones go over them. Of those a copy counts when its
//! transaction is whole: descriptor, copies and commit block follow one upon
//! the other. (A copy never begins with the journal's magic, so a newer
//! header among the copies shows.) What was revoked since does not count.

use super::journal::{COMMIT, DESCRIPTOR, JournalSuperblock, REVOKE, Tag};
use crate::block_set::BlockSet;
use crate::units::{BlockCount, BlockNumber, BlockRun};

/// A log of more blocks is not searched; the largest that mke2fs makes has
/// a quarter of that.
const LOG_BLOCKS_MAX: u32 = 1 << 22;

/// So many copies of blocks that matter are remembered, and revocations.
const KEPT_MAX: usize = 1 << 20;

/// The newest copy of a block in the log.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LogCopy {
    /// The block of the filesystem that it is a copy of, and how it is kept.
    pub tag: Tag,
    /// The journal block that it is.
    pub at: u32,
    /// The transaction that wrote it.
    pub sequence: u32,
    /// A replay of the journal will write it.
    pub is_replayed: bool,
}

/// A header in the log.
#[derive(Clone, Copy, Debug)]
struct Header {
    at: u32,
    kind: u32,
    sequence: u32,
    /// Blocks of data that follow.
    data: u32,
    /// The transaction is whole from here on.
    is_whole: bool,
}

/// Searches a log; it is fed the blocks of the log in any order.
#[derive(Debug)]
pub struct LogSearch<'a> {
    superblock: JournalSuperblock,
    wanted: &'a BlockSet,
    /// Journal blocks that could be read.
    fed: BlockSet,
    headers: Vec<Header>,
    /// The copies, and the descriptor that each belongs to.
    copies: Vec<(LogCopy, u32)>,
    /// Revoked blocks, and by which transaction.
    revoked: Vec<(BlockNumber, u32)>,
}

impl<'a> LogSearch<'a> {
    /// A search for copies of `wanted`; `None` where the log is beyond all
    /// measure.
    #[must_use]
    pub fn new(
        superblock: JournalSuperblock,
        wanted: &'a BlockSet,
    ) -> Option<Self> {
        if superblock.blocks > LOG_BLOCKS_MAX {
            return None;
        }
        Some(Self {
            superblock,
            wanted,
            fed: BlockSet::new(),
            headers: Vec::new(),
            copies: Vec::new(),
            revoked: Vec::new(),
        })
    }

    /// Looks at journal block `at`.
    pub fn feed(&mut self, at: u32, block: &[u8]) {
        if !(self.superblock.first..self.superblock.log_end).contains(&at) {
            return;
        }
        self.fed.insert(BlockNumber(u64::from(at)));
        let Some((kind, sequence)) = self.superblock.header(block) else {
            return;
        };
        let mut data = 0;
        match kind {
            DESCRIPTOR => {
                let tags = self.superblock.tags(block);
                data = u32::try_from(tags.len()).unwrap_or(u32::MAX);
                for (tag, index) in tags.into_iter().zip(1..) {
                    self.note_copy(tag, at, index, sequence);
                }
            }
            REVOKE => {
                for block in self.superblock.revoked(block) {
                    if self.wanted.contains(block)
                        && self.revoked.len() < KEPT_MAX
                    {
                        self.revoked.push((block, sequence));
                    }
                }
            }
            _ => {}
        }
        let header = Header { at, kind, sequence, data, is_whole: false };
        self.headers.push(header);
    }

    fn note_copy(&mut self, tag: Tag, by: u32, index: u32, sequence: u32) {
        if !self.wanted.contains(tag.block) || self.copies.len() >= KEPT_MAX {
            return;
        }
        if let Some(at) = self.superblock.after(by, index) {
            let copy = LogCopy { tag, at, sequence, is_replayed: false };
            self.copies.push((copy, by));
        }
    }

    /// The newest copy of each block, in the order of the blocks.
    #[must_use]
    pub fn finish(mut self) -> Vec<LogCopy> {
        self.headers.sort_unstable_by_key(|header| header.at);
        // Twice, because a transaction may go round the end of the log.
        self.find_whole();
        self.find_whole();
        let first = self.superblock.sequence;
        let last = self.last_replayed();
        let end = last.unwrap_or(first.wrapping_sub(1));
        let mut copies: Vec<LogCopy> = self
            .copies
            .iter()
            .filter(|(copy, by)| {
                !is_after(copy.sequence, end)
                    && self.header(*by).is_some_and(|header| header.is_whole)
            })
            .map(|(copy, _)| LogCopy {
                is_replayed: last.is_some() && !is_after(first, copy.sequence),
                ..*copy
            })
            .collect();
        copies.sort_by(|one, other| {
            let age = end.wrapping_sub(one.sequence);
            let other_age = end.wrapping_sub(other.sequence);
            // The later of two copies in a transaction counts, in the order
            // in which the transaction was written.
            (one.tag.block, age, self.behind_start(other.at)).cmp(&(
                other.tag.block,
                other_age,
                self.behind_start(one.at),
            ))
        });
        copies.dedup_by_key(|copy| copy.tag.block);
        self.revoked.retain(|(_, sequence)| !is_after(*sequence, end));
        self.revoked.sort_unstable();
        copies.retain(|copy| !self.is_revoked(copy));
        copies
    }

    /// How far a journal block lies behind the place where the log begins.
    fn behind_start(&self, at: u32) -> u32 {
        let superblock = &self.superblock;
        let from = superblock.start.max(superblock.first);
        let length = superblock.log_end.saturating_sub(superblock.first);
        at.checked_sub(from)
            .unwrap_or_else(|| at.saturating_add(length).saturating_sub(from))
    }

    fn is_revoked(&self, copy: &LogCopy) -> bool {
        let block = copy.tag.block;
        let from = self.revoked.partition_point(|(at, _)| *at < block);
        self.revoked
            .get(from..)
            .unwrap_or_default()
            .iter()
            .take_while(|(at, _)| *at == block)
            .any(|(_, sequence)| !is_after(copy.sequence, *sequence))
    }

    fn header(&self, at: u32) -> Option<&Header> {
        let index = self.headers.binary_search_by_key(&at, |h| h.at).ok()?;
        self.headers.get(index)
    }

    /// Marks the headers from which a commit block is reached, the last ones
    /// first.
    fn find_whole(&mut self) {
        for index in (0..self.headers.len()).rev() {
            let Some(header) = self.headers.get(index).copied() else { break };
            let is_whole = match header.kind {
                COMMIT => true,
                DESCRIPTOR | REVOKE => self.goes_on(index, &header),
                _ => false,
            };
            if let Some(header) = self.headers.get_mut(index) {
                header.is_whole = is_whole;
            }
        }
    }

    /// Whether the transaction of `header` goes on behind its data.
    fn goes_on(&self, index: usize, header: &Header) -> bool {
        let steps = header.data.saturating_add(1);
        let next = self.superblock.after(header.at, steps);
        let follower = index.checked_add(1).and_then(|i| self.headers.get(i));
        let follower = follower.or_else(|| self.headers.first());
        follower.is_some_and(|follower| {
            Some(follower.at) == next
                && follower.is_whole
                && follower.sequence == header.sequence
                && self.was_fed(header.at, follower.at)
        })
    }

    /// Whether all blocks from `first` to `last` were there, round the end of
    /// the log if it must be.
    fn was_fed(&self, first: u32, last: u32) -> bool {
        let superblock = &self.superblock;
        let has = |first: u32, end: u32| {
            let count = BlockCount(u64::from(end.saturating_sub(first)));
            BlockRun::new(BlockNumber(u64::from(first)), count)
                .is_none_or(|run| self.fed.count_in(run) == count)
        };
        if first <= last {
            return has(first, last);
        }
        has(first, superblock.log_end) && has(superblock.first, last)
    }

    /// The last transaction that a replay would write.
    fn last_replayed(&self) -> Option<u32> {
        let superblock = &self.superblock;
        let mut at = (superblock.start != 0).then_some(superblock.start);
        let mut sequence = superblock.sequence;
        let mut last = None;
        // Each header at most once: a log that goes round ends there.
        for _ in 0..self.headers.len() {
            let Some(header) = at.and_then(|at| self.header(at)) else { break };
            if header.sequence != sequence {
                break;
            }
            match header.kind {
                COMMIT => {
                    last = Some(sequence);
                    sequence = sequence.wrapping_add(1);
                }
                DESCRIPTOR | REVOKE => {}
                _ => break,
            }
            let steps = header.data.saturating_add(1);
            at = superblock.after(header.at, steps);
        }
        last
    }
}

/// Whether transaction `one` came after `other`; the numbers go round.
const fn is_after(one: u32, other: u32) -> bool {
    let ahead = one.wrapping_sub(other);
    ahead != 0 && ahead < 1 << 31
}

#[cfg(test)]
mod tests;
