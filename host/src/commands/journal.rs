//! Reading the journal of a filesystem that was walked: what its log holds
//! copies of, and how much of it a replay needs.

use std::collections::BTreeMap;

use crate::batch::Batch;
use crate::block_set::BlockSet;
use crate::error::Result;
use crate::ext::journal::{JournalSuperblock, LiveLog};
use crate::ext::journalled::{LogCopy, LogSearch};
use crate::ext::superblock::{Superblock, incompat};
use crate::ext::{BlockKind, Traced, Walk};
use crate::source::{BlockSource, Priority};
use crate::stop::Stop;
use crate::transfer::{Sweep, byte_ranges};
use crate::units::{BlockCount, BlockNumber, BlockRun, BlockSize, ByteRange};

/// So much of a log is announced at a time.
const AHEAD_BLOCKS: u32 = 64;

/// A copy of a block in the journal.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct JournalCopy {
    /// The block of the filesystem that holds it.
    pub at: BlockNumber,
    /// The same, counted in the journal.
    pub journal_block: u32,
    /// The transaction that wrote it.
    pub transaction: u32,
    /// A replay of the journal will write it.
    pub is_replayed: bool,
    /// Its first four bytes are zeros instead of the journal's magic number,
    /// C0 3B 39 98.
    pub is_escaped: bool,
}

/// The journal of a filesystem, through its map.
pub struct Journal<'a> {
    source: &'a dyn BlockSource,
    size: BlockSize,
    /// Its stretches, by their place in the journal.
    map: Vec<Traced>,
    superblock: JournalSuperblock,
}

impl<'a> Journal<'a> {
    /// The journal that `walk` found; `None` when there is none whose
    /// superblock can be read and believed.
    ///
    /// # Errors
    ///
    /// When the source fails as a whole.
    pub fn open(
        walk: &Walk,
        source: &'a dyn BlockSource,
    ) -> Result<Option<Self>> {
        let size = walk.geometry.block_size;
        let journal =
            walk.traced.iter().filter(|part| part.kind == BlockKind::Journal);
        let mut map: Vec<Traced> = journal.copied().collect();
        map.sort_unstable_by_key(|part| part.logical);
        let length = map
            .last()
            .map_or(0, |part| part.logical.saturating_add(part.count));
        let Some(first) = physical(&map, 0) else { return Ok(None) };
        let Some(bytes) = read(source, size, first)? else { return Ok(None) };
        let superblock = JournalSuperblock::check(&bytes, size, length);
        let opened = |superblock| Self { source, size, map, superblock };
        Ok(superblock.ok().map(opened))
    }

    /// How many blocks the journal has.
    #[must_use]
    pub fn blocks(&self) -> BlockCount {
        BlockCount(self.map.iter().map(|part| part.count).sum())
    }

    /// How many of its blocks a replay needs; `None` where that cannot be
    /// told, and all count.
    ///
    /// # Errors
    ///
    /// When the source fails as a whole.
    pub fn live_blocks(&self, walk: &Walk) -> Result<Option<BlockCount>> {
        let mut log = LiveLog::new(self.superblock);
        let mut announced = BlockSet::new();
        while let Some(next) = log.next() {
            let at = physical(&self.map, u64::from(next));
            let Some(at) = at else { return Ok(None) };
            if !announced.contains(at) {
                announced = self.announce(&log);
            }
            let Some(block) = read(self.source, self.size, at)? else {
                return Ok(None);
            };
            if log.feed(&block).is_err() {
                return Ok(None);
            }
        }
        let recovers = Superblock::check(&walk.superblock, None, None)
            .is_ok_and(|it| it.incompat & incompat::RECOVER != 0);
        let runs = log.live(recovers);
        let count = runs.iter().map(|(_, count)| u64::from(*count)).sum();
        Ok(Some(BlockCount(count)))
    }

    /// Has the source fetch what the chain will most likely need next.
    fn announce(&self, log: &LiveLog) -> BlockSet {
        let mut blocks = BlockSet::new();
        for next in log.ahead(AHEAD_BLOCKS) {
            if let Some(at) = physical(&self.map, u64::from(next)) {
                blocks.insert(at);
            }
        }
        let ranges = byte_ranges(blocks.runs(), self.size);
        self.source.expect(&ranges, Priority::Structure);
        blocks
    }

    /// The newest copies of `wanted` in as much of the log as `walk`
    /// selected, where they can be read and their checksums are right.
    ///
    /// # Errors
    ///
    /// When the source fails as a whole, or the job shall end.
    pub fn copies(
        &self,
        walk: &Walk,
        wanted: &BlockSet,
        stop: &Stop,
    ) -> Result<BTreeMap<BlockNumber, JournalCopy>> {
        let mut copies = BTreeMap::new();
        let selected = walk.kind(BlockKind::Journal);
        let search = LogSearch::new(self.superblock, wanted);
        let (Some(selected), Some(mut search)) = (selected, search) else {
            return Ok(copies);
        };
        let mut by_place = self.map.clone();
        by_place.sort_unstable_by_key(|part| part.physical);
        let sweep =
            Sweep { source: self.source, stop, blocks: None, checks: None };
        let ranges = byte_ranges(selected.runs(), self.size);
        sweep.run(&ranges, &mut |part| {
            let mut block = self.size.block_of(part.filled.range.start());
            for bytes in part.filled.bytes.chunks(self.size.bytes()) {
                let is_read = is_whole(block, self.size, part.filled.faults);
                let at = logical(&by_place, block);
                if let Some(at) = at.filter(|_| is_read) {
                    search.feed(at, bytes);
                }
                block = BlockNumber(block.0.saturating_add(1));
            }
            Ok(())
        })?;
        for copy in search.finish() {
            if let Some(found) = self.confirm(&copy)? {
                copies.insert(copy.tag.block, found);
            }
        }
        Ok(copies)
    }

    /// Reads a copy and compares it with its checksum, if it has one.
    fn confirm(&self, copy: &LogCopy) -> Result<Option<JournalCopy>> {
        let Some(at) = physical(&self.map, u64::from(copy.at)) else {
            return Ok(None);
        };
        let bytes = read(self.source, self.size, at)?;
        let is_right = bytes.is_some_and(|bytes| {
            self.superblock.proves(copy.tag, copy.sequence, &bytes)
                != Some(false)
        });
        Ok(is_right.then_some(JournalCopy {
            at,
            journal_block: copy.at,
            transaction: copy.sequence,
            is_replayed: copy.is_replayed,
            is_escaped: copy.tag.is_escaped,
        }))
    }
}

/// Where block `logical` of the journal lies.
pub(super) fn physical(map: &[Traced], logical: u64) -> Option<BlockNumber> {
    let behind = map.partition_point(|part| part.logical <= logical);
    let part = map.get(behind.checked_sub(1)?)?;
    let into = logical.checked_sub(part.logical)?;
    (into < part.count)
        .then(|| part.physical.checked_add(into))?
        .map(BlockNumber)
}

/// Which block of the journal lies at `block`; `by_place` is sorted by that.
fn logical(by_place: &[Traced], block: BlockNumber) -> Option<u32> {
    let behind = by_place.partition_point(|part| part.physical <= block.0);
    let part = by_place.get(behind.checked_sub(1)?)?;
    let into = block.0.checked_sub(part.physical)?;
    let at = part.logical.checked_add(into)?;
    (into < part.count).then(|| u32::try_from(at).ok())?
}

/// The bytes of a block; `None` when not all of them can be read.
pub(super) fn read(
    source: &dyn BlockSource,
    size: BlockSize,
    block: BlockNumber,
) -> Result<Option<Vec<u8>>> {
    let run = BlockRun::new(block, BlockCount(1));
    let Some(range) = run.and_then(|run| run.bytes(size)) else {
        return Ok(None);
    };
    let mut batch = Batch::default();
    source.read_batch(&[range], &mut batch)?;
    if batch.has_faults() {
        return Ok(None);
    }
    Ok(batch.filled().next().map(|filled| filled.bytes.to_vec()))
}

/// Whether no part of `block` is among `faults`.
fn is_whole<F>(
    block: BlockNumber,
    size: BlockSize,
    faults: &[(ByteRange, F)],
) -> bool {
    let run = BlockRun::new(block, BlockCount(1));
    run.and_then(|run| run.bytes(size)).is_some_and(|range| {
        faults.iter().all(|(bad, _)| {
            bad.end() <= range.start() || bad.start() >= range.end()
        })
    })
}
