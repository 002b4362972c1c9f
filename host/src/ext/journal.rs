//! The journal (jbd2): which of its blocks a replay would need.
//!
//! All numbers are big-endian. Journal blocks are counted from the start of
//! the journal's file; block 0 is its superblock. The log goes round from
//! `s_first` up to `s_maxlen` (less the area for fast commits, which ends the
//! journal). A replay begins at `s_start` and follows descriptor, data and
//! commit blocks, transaction by transaction. The end of the log is written
//! nowhere: it is where the chain of sequence numbers breaks.
//!
//! Nothing here knows where journal blocks lie on the device.

use zerocopy::big_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::checksums::crc32c_parts;
use crate::ext::finding::Fault;
use crate::units::{BlockNumber, BlockSize, usize_from};

/// `h_magic` of every block but the copies of data.
const MAGIC: u32 = 0xC03B_3998;
/// What every block but the copies of data begins with.
pub const HEADER_MAGIC: [u8; 4] = MAGIC.to_be_bytes();
/// `h_blocktype`: lists the blocks whose copies follow.
pub(super) const DESCRIPTOR: u32 = 1;
/// `h_blocktype`: the transaction is whole.
pub(super) const COMMIT: u32 = 2;
/// `h_blocktype`: the superblock of version 1, without features.
const SUPERBLOCK_V1: u32 = 3;
/// `h_blocktype`: the superblock of version 2.
const SUPERBLOCK_V2: u32 = 4;
/// `h_blocktype`: blocks whose older copies are not to be written.
pub(super) const REVOKE: u32 = 5;

const INCOMPAT_64BIT: u32 = 0x2;
const INCOMPAT_CSUM_V2: u32 = 0x8;
const INCOMPAT_CSUM_V3: u32 = 0x10;
const INCOMPAT_FAST_COMMIT: u32 = 0x20;
/// revoke, 64bit, async commit, csum v2, csum v3, fast commit.
const INCOMPAT_KNOWN: u32 = 0x3F;

/// `s_num_fc_blks` where the superblock says 0.
const FAST_COMMIT_BLOCKS: u32 = 256;

/// Tag: the copy's first four bytes were the magic and are stored as zeros.
const TAG_ESCAPED: u32 = 1;
/// Tag: no UUID follows.
const TAG_SAME_UUID: u32 = 2;
/// Tag: the last one of its block.
const TAG_LAST: u32 = 8;

const HEADER_BYTES: usize = 12;
/// What stands before the list of a revoke block.
const REVOKE_HEAD_BYTES: usize = 16;
const SUPERBLOCK_BYTES: usize = 1024;
const CHECKSUM_AT: usize = 0xFC;
const UUID_BYTES: usize = 16;

#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawHeader {
    h_magic: U32,
    h_blocktype: U32,
    h_sequence: U32,
}

#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawSuperblock {
    s_header: RawHeader,
    s_blocksize: U32,
    s_maxlen: U32,
    s_first: U32,
    s_sequence: U32,
    s_start: U32,
    s_errno: U32,
    s_feature_compat: U32,
    s_feature_incompat: U32,
    s_feature_ro_compat: U32,
    s_uuid: [u8; 16],
    s_nr_users: U32,
    s_dynsuper: U32,
    s_max_transaction: U32,
    s_max_trans_data: U32,
    s_checksum_type: u8,
    s_padding2: [u8; 3],
    s_num_fc_blks: U32,
    s_head: U32,
    s_padding: [U32; 40],
    s_checksum: U32,
}

const _: () = assert!(size_of::<RawSuperblock>() == CHECKSUM_AT + 4);

/// A journal's superblock that fits its journal.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct JournalSuperblock {
    /// Blocks of the journal, `s_maxlen`.
    pub blocks: u32,
    /// The first block of the log.
    pub first: u32,
    /// The block behind the log; what follows is for fast commits.
    pub log_end: u32,
    /// The first transaction that a replay expects.
    pub sequence: u32,
    /// Where it lies; 0 when there is nothing to replay.
    pub start: u32,
    incompat: u32,
    /// What its checksums begin with.
    seed: u32,
    block_size: BlockSize,
}

impl JournalSuperblock {
    /// Checks journal block 0 against the filesystem's block size and the
    /// number of blocks that the journal's file has.
    ///
    /// # Errors
    ///
    /// What is wrong with it; nothing in the journal can be trusted then.
    pub fn check(
        block: &[u8],
        block_size: BlockSize,
        file_blocks: u64,
    ) -> Result<Self, Fault> {
        let (raw, _) = RawSuperblock::ref_from_prefix(block)
            .map_err(|_| Fault::Missing)?;
        let kind = raw.s_header.h_blocktype.get();
        if raw.s_header.h_magic.get() != MAGIC
            || !matches!(kind, SUPERBLOCK_V1 | SUPERBLOCK_V2)
        {
            return Err(Fault::BadMagic);
        }
        let incompat = if kind == SUPERBLOCK_V2 {
            raw.s_feature_incompat.get()
        } else {
            0
        };
        if incompat & !INCOMPAT_KNOWN != 0 {
            return Err(Fault::BadCount(u64::from(incompat)));
        }
        if !checksum_ok(block, incompat, raw.s_checksum.get()) {
            return Err(Fault::BadChecksum);
        }
        let count = |count: U32| Fault::BadCount(u64::from(count.get()));
        if u64::from(raw.s_blocksize.get()) != block_size.bytes_u64() {
            return Err(count(raw.s_blocksize));
        }
        let blocks = raw.s_maxlen.get();
        if u64::from(blocks) > file_blocks {
            return Err(count(raw.s_maxlen));
        }
        let fast = fast_commit_blocks(raw, incompat);
        let log_end =
            blocks.checked_sub(fast).ok_or_else(|| count(raw.s_num_fc_blks))?;
        let first = raw.s_first.get();
        if first == 0 || first >= log_end {
            return Err(count(raw.s_first));
        }
        let start = raw.s_start.get();
        if start != 0 && !(first..log_end).contains(&start) {
            return Err(count(raw.s_start));
        }
        let sequence = raw.s_sequence.get();
        Ok(Self {
            blocks,
            first,
            log_end,
            sequence,
            start,
            incompat,
            seed: crc32c_parts(!0, &[&raw.s_uuid]),
            block_size,
        })
    }

    const fn has(&self, feature: u32) -> bool {
        self.incompat & feature != 0
    }

    /// What a descriptor block says of the data blocks that follow it, one
    /// tag for each.
    #[must_use]
    pub fn tags(&self, descriptor: &[u8]) -> Vec<Tag> {
        let size = self.tag_bytes();
        let body = self.body(descriptor);
        let mut tags = Vec::new();
        let mut at = HEADER_BYTES;
        while let Some(bytes) =
            at.checked_add(size).and_then(|to| body.get(at..to))
        {
            let Some((tag, flags)) = self.tag(bytes) else { break };
            tags.push(tag);
            at = at.saturating_add(size);
            if flags & TAG_SAME_UUID == 0 {
                at = at.saturating_add(UUID_BYTES);
            }
            if flags & TAG_LAST != 0 {
                break;
            }
        }
        tags
    }

    /// What a block of the log says of the copies that follow it: nothing
    /// unless it is a descriptor.
    #[must_use]
    pub fn copies(&self, block: &[u8]) -> Vec<Tag> {
        match self.header(block) {
            Some((DESCRIPTOR, _)) => self.tags(block),
            _ => Vec::new(),
        }
    }

    /// A descriptor or revoke block without the checksum at its end.
    fn body<'b>(&self, block: &'b [u8]) -> &'b [u8] {
        let summed = self.has(INCOMPAT_CSUM_V2) || self.has(INCOMPAT_CSUM_V3);
        let tail = if summed { 4 } else { 0 };
        let end = block.len().min(self.block_size.bytes());
        block.get(..end.saturating_sub(tail)).unwrap_or_default()
    }

    /// The blocks that a revoke block names.
    #[must_use]
    pub fn revoked(&self, revoke: &[u8]) -> Vec<BlockNumber> {
        let body = self.body(revoke);
        // r_count: the bytes in use, the header and itself included.
        let used = body.get(HEADER_BYTES..REVOKE_HEAD_BYTES);
        let used = used.and_then(|count| U32::ref_from_bytes(count).ok());
        let used = used.map_or(0, |count| usize_from(count.get()));
        let list = body
            .get(REVOKE_HEAD_BYTES..used.min(body.len()))
            .unwrap_or_default();
        let number = |bytes: &[u8]| {
            let wide = bytes.iter().fold(0_u64, |number, byte| {
                number.wrapping_shl(8) | u64::from(*byte)
            });
            BlockNumber(wide)
        };
        let size = if self.has(INCOMPAT_64BIT) { 8 } else { 4 };
        list.chunks_exact(size).map(number).collect()
    }

    /// Whether `copy` is what the descriptor of transaction `sequence` said
    /// that it wrote; `None` where descriptors say nothing of it.
    #[must_use]
    pub fn proves(&self, tag: Tag, sequence: u32, copy: &[u8]) -> Option<bool> {
        let sum = || crc32c_parts(self.seed, &[&sequence.to_be_bytes(), copy]);
        if self.has(INCOMPAT_CSUM_V3) {
            Some(sum() == tag.checksum)
        } else if self.has(INCOMPAT_CSUM_V2) {
            Some(sum() & 0xFFFF == tag.checksum)
        } else {
            None
        }
    }

    /// How long a tag is: version 3 checksums made it 16 bytes, version 2
    /// added two to a tag of 8 or 12.
    const fn tag_bytes(&self) -> usize {
        if self.incompat & INCOMPAT_CSUM_V3 != 0 {
            return 16;
        }
        let wide = self.incompat & INCOMPAT_64BIT != 0;
        let summed = self.incompat & INCOMPAT_CSUM_V2 != 0;
        match (wide, summed) {
            (false, false) => 8,
            (false, true) => 10,
            (true, false) => 12,
            (true, true) => 14,
        }
    }

    fn tag(&self, bytes: &[u8]) -> Option<(Tag, u32)> {
        let word = |at: usize| {
            let (word, _) = U32::ref_from_prefix(bytes.get(at..)?).ok()?;
            Some(word.get())
        };
        let low = word(0)?;
        // Version 3 has 32 bits of flags behind the number, the others 16
        // bits behind a checksum of 16.
        let (flags, checksum) = if self.has(INCOMPAT_CSUM_V3) {
            (word(4)?, word(12)?)
        } else {
            let half = |at: usize| {
                let (half, _) = U16::ref_from_prefix(bytes.get(at..)?).ok()?;
                Some(u32::from(half.get()))
            };
            (half(6)?, half(4)?)
        };
        let high = if self.has(INCOMPAT_64BIT) { word(8)? } else { 0 };
        let block = u64::from(low) | u64::from(high).wrapping_shl(32);
        let is_escaped = flags & TAG_ESCAPED != 0;
        let block = BlockNumber(block);
        Some((Tag { block, is_escaped, checksum }, flags))
    }

    /// The type and the sequence of a header; `None` for a copy of data.
    pub(super) fn header(&self, block: &[u8]) -> Option<(u32, u32)> {
        let (header, _) = RawHeader::ref_from_prefix(block).ok()?;
        (header.h_magic.get() == MAGIC)
            .then(|| (header.h_blocktype.get(), header.h_sequence.get()))
    }

    /// The journal block `count` blocks after `block` in the log's circle.
    #[must_use]
    pub fn after(&self, block: u32, count: u32) -> Option<u32> {
        let next = block.checked_add(count)?;
        if next < self.log_end {
            return Some(next);
        }
        let length = self.log_end.checked_sub(self.first)?;
        next.checked_sub(length).filter(|block| *block < self.log_end)
    }
}

fn fast_commit_blocks(raw: &RawSuperblock, incompat: u32) -> u32 {
    if incompat & INCOMPAT_FAST_COMMIT == 0 {
        return 0;
    }
    match raw.s_num_fc_blks.get() {
        0 => FAST_COMMIT_BLOCKS,
        count => count,
    }
}

fn checksum_ok(block: &[u8], incompat: u32, stored: u32) -> bool {
    if incompat & (INCOMPAT_CSUM_V2 | INCOMPAT_CSUM_V3) == 0 {
        return true;
    }
    let part = |from, to| block.get(from..to).unwrap_or_default();
    let parts = [
        part(0, CHECKSUM_AT),
        &[0; 4],
        part(CHECKSUM_AT + 4, SUPERBLOCK_BYTES),
    ];
    crc32c_parts(!0, &parts) == stored
}

/// Which filesystem block a data block of the log is a copy of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Tag {
    /// The block in the filesystem.
    pub block: BlockNumber,
    /// The copy's first four bytes are zeros instead of the journal's magic.
    pub is_escaped: bool,
    /// Of the copy, where the journal has checksums: see
    /// [`JournalSuperblock::proves`].
    pub checksum: u32,
}

/// Follows the log from its start to where a replay would stop.
#[derive(Clone, Debug)]
pub struct LiveLog {
    superblock: JournalSuperblock,
    next: Option<u32>,
    sequence: u32,
    /// How many blocks of the log were passed, the next one not counted.
    passed: u32,
}

impl LiveLog {
    /// A chain that has not been followed yet; empty when there is nothing
    /// to replay.
    #[must_use]
    pub fn new(superblock: JournalSuperblock) -> Self {
        Self {
            superblock,
            next: (superblock.start != 0).then_some(superblock.start),
            sequence: superblock.sequence,
            passed: 0,
        }
    }

    /// The journal block to be fed next; `None` when the end is known.
    #[must_use]
    pub const fn next(&self) -> Option<u32> {
        self.next
    }

    /// Looks at the block that was asked for.
    ///
    /// # Errors
    ///
    /// A chain longer than the log: it is damaged, and what it needs is not
    /// known.
    pub fn feed(&mut self, block: &[u8]) -> Result<(), Fault> {
        let Some(at) = self.next.take() else { return Ok(()) };
        // The first block that does not belong to the chain is what tells a
        // replay to stop, and belongs to what it needs.
        self.passed = self.passed.saturating_add(1);
        let Some((kind, sequence)) = self.superblock.header(block) else {
            return Ok(());
        };
        if sequence != self.sequence {
            return Ok(());
        }
        let data = match kind {
            DESCRIPTOR => u32::try_from(self.superblock.tags(block).len())
                .map_err(|_| Fault::BadCount(u64::MAX))?,
            COMMIT => {
                self.sequence = sequence.wrapping_add(1);
                0
            }
            REVOKE => 0,
            _ => return Ok(()),
        };
        self.passed = self.passed.saturating_add(data);
        let length =
            self.superblock.log_end.saturating_sub(self.superblock.first);
        match self.passed.cmp(&length) {
            std::cmp::Ordering::Greater => {
                self.passed = 0;
                Err(Fault::BadCount(u64::from(data)))
            }
            // Once round: the chain ends where it began.
            std::cmp::Ordering::Equal => Ok(()),
            std::cmp::Ordering::Less => {
                self.next = self.superblock.after(at, data.saturating_add(1));
                Ok(())
            }
        }
    }

    /// `count` journal blocks from the next one on, in the log's circle: what
    /// the chain will most likely ask for.
    pub fn ahead(&self, count: u32) -> impl Iterator<Item = u32> + '_ {
        let left = self
            .superblock
            .log_end
            .saturating_sub(self.superblock.first)
            .saturating_sub(self.passed);
        self.next.into_iter().flat_map(move |next| {
            (0..count.min(left))
                .filter_map(move |index| self.superblock.after(next, index))
        })
    }

    /// What a replay needs, as journal blocks: first and count of up to four
    /// runs. With `needs_recovery` the area for fast commits counts even if
    /// the log is empty.
    #[must_use]
    pub fn live(&self, needs_recovery: bool) -> Vec<(u32, u32)> {
        let superblock = &self.superblock;
        let mut runs = vec![(0, 1)];
        let has_log = superblock.start != 0;
        if has_log {
            let before_end =
                superblock.log_end.saturating_sub(superblock.start);
            let first = self.passed.min(before_end);
            runs.push((superblock.start, first));
            runs.push((superblock.first, self.passed.saturating_sub(first)));
        }
        if has_log || needs_recovery {
            let fast = superblock.blocks.saturating_sub(superblock.log_end);
            runs.push((superblock.log_end, fast));
        }
        runs.retain(|(_, count)| *count > 0);
        runs
    }
}

/// Whether a block of the log may be one that the chain looks into; all
/// others are copies of data.
#[must_use]
pub fn has_magic(block: &[u8]) -> bool {
    block.get(..4).is_some_and(|magic| magic == HEADER_MAGIC)
}

#[cfg(test)]
mod tests;
