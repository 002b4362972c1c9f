//! A journal that is fetched over a slow line: most of it are copies of
//! blocks that are here already, and need not be sent.
//!
//! The far end is asked where the log has headers, these tell what block each
//! block of the log is a copy of, and the far end compares the two, byte for
//! byte. The rest is fetched, copies of one block side by side, since they
//! differ by little. What was not fetched is taken over when digests of all
//! of the journal have proven it. A wrong guess costs a few bytes, never more.

use std::collections::BTreeSet;

use crate::commands::journal::{physical, read};
use crate::error::Result;
use crate::ext::Traced;
use crate::ext::journal::{HEADER_MAGIC, JournalSuperblock, Tag};
use crate::source::{BlockSource, Duplicates, Likeness};
use crate::units::{
    BlockCount, BlockNumber, BlockRun, BlockSize, ByteCount, ByteOffset,
    ByteRange,
};

/// Blocks of the log that are fetched in one go because they resemble each
/// other: as many as one chunk may be gathered from.
const TOGETHER_MAX: usize = 64;

/// Longer logs are fetched as they are; what mke2fs makes by itself has at
/// most a quarter of that.
const LOG_BLOCKS_MAX: u32 = 1 << 20;

/// What can be told of a journal before it is fetched.
pub(super) struct JournalGuess<'a> {
    source: &'a dyn BlockSource,
    far: &'a dyn Duplicates,
    size: BlockSize,
    map: &'a [Traced],
    /// Copies that the far end has found equal.
    same: Vec<Likeness>,
    /// The rest of what the log's headers speak of, and the headers.
    rest: Vec<ByteRange>,
}

impl<'a> JournalGuess<'a> {
    /// Looks at the journal that lies in `map`, by the place in it; `None`
    /// where nothing is gained by that.
    ///
    /// # Errors
    ///
    /// When the source fails as a whole.
    pub(super) fn new(
        source: &'a dyn BlockSource,
        size: BlockSize,
        map: &'a [Traced],
    ) -> Result<Option<Self>> {
        let Some(far) = source.duplicates() else { return Ok(None) };
        let (same, rest) = (Vec::new(), Vec::new());
        let mut guess = Self { source, far, size, map, same, rest };
        let Some(log) = guess.superblock()? else { return Ok(None) };
        let headers = guess.headers(&log)?;
        let copies = guess.copies(&log, &headers)?;
        if copies.is_empty() {
            return Ok(None);
        }
        guess.compare(&copies)?;
        Ok(Some(guess))
    }

    /// What has to be fetched before anything can be taken over, and was
    /// announced: sorted, disjoint.
    #[must_use]
    pub(super) fn rest(&self) -> &[ByteRange] {
        &self.rest
    }

    /// The rest is here: takes over what is proven.
    ///
    /// # Errors
    ///
    /// When the source fails as a whole, or nothing can be stored.
    pub(super) fn take_over(self) -> Result<()> {
        let mut within: Vec<ByteRange> = self
            .map
            .iter()
            .filter_map(|part| {
                let first = BlockNumber(part.physical);
                BlockRun::new(first, BlockCount(part.count))?.bytes(self.size)
            })
            .collect();
        within.sort_unstable();
        self.far.take_over(&self.same, self.bytes(), &within)
    }

    const fn bytes(&self) -> ByteCount {
        ByteCount(self.size.bytes_u64())
    }

    fn superblock(&self) -> Result<Option<JournalSuperblock>> {
        let blocks = self
            .map
            .last()
            .map_or(0, |part| part.logical.saturating_add(part.count));
        let Some(first) = physical(self.map, 0) else { return Ok(None) };
        let block = read(self.source, self.size, first)?;
        let Some(block) = block else { return Ok(None) };
        let checked = JournalSuperblock::check(&block, self.size, blocks);
        Ok(checked.ok().filter(|log| log.blocks <= LOG_BLOCKS_MAX))
    }

    /// Where block `at` of the journal lies.
    fn place(&self, at: u32) -> Option<ByteRange> {
        let first = physical(self.map, u64::from(at))?;
        BlockRun::new(first, BlockCount(1))?.bytes(self.size)
    }

    /// The blocks of the log that have a header, ascending.
    fn headers(&self, log: &JournalSuperblock) -> Result<Vec<u32>> {
        let mut headers = BTreeSet::new();
        for part in self.map {
            let run = BlockRun::new(
                BlockNumber(part.physical),
                BlockCount(part.count),
            );
            let range = run.and_then(|run| run.bytes(self.size));
            let Some(range) = range else { continue };
            let found = self.far.find(range, self.bytes(), &HEADER_MAGIC)?;
            headers.extend(found.into_iter().filter_map(|at| {
                let into = at.checked_since(range.start())?;
                let into = self.size.block_of(ByteOffset(into.0)).0;
                let at = u32::try_from(part.logical.checked_add(into)?).ok()?;
                (log.first..log.log_end).contains(&at).then_some(at)
            }));
        }
        Ok(headers.into_iter().collect())
    }

    /// Reads the headers, and tells what each block of the log is a copy of.
    fn copies(
        &self,
        log: &JournalSuperblock,
        headers: &[u32],
    ) -> Result<Vec<(Tag, ByteRange)>> {
        let places: Vec<ByteRange> =
            headers.iter().filter_map(|at| self.place(*at)).collect();
        self.announce(&places);
        let mut copies = Vec::new();
        for (index, at) in headers.iter().enumerate() {
            let Some(block) = physical(self.map, u64::from(*at)) else {
                continue;
            };
            let block = read(self.source, self.size, block)?;
            let block = block.unwrap_or_default();
            let next = headers.get(index.saturating_add(1));
            let next = next.or_else(|| headers.first()).copied();
            for (tag, step) in log.copies(&block).into_iter().zip(1..) {
                let at = log.after(*at, step);
                // What follows another header was written by that one.
                if at.is_none() || at == next {
                    break;
                }
                let place = at.and_then(|at| self.place(at));
                copies.extend(place.map(|place| (tag, place)));
            }
        }
        Ok(copies)
    }

    /// Has the far end compare, and announces what is not equal.
    fn compare(&mut self, copies: &[(Tag, ByteRange)]) -> Result<()> {
        let size = self.bytes();
        let mut pairs: Vec<Likeness> = copies
            .iter()
            .filter(|(tag, _)| !tag.is_escaped)
            .filter_map(|(tag, place)| {
                let like = tag.block.offset(self.size)?;
                Some(Likeness { at: place.start(), like })
            })
            .collect();
        pairs.sort_unstable();
        pairs.dedup_by_key(|pair| pair.at);
        self.same = self.far.same(&pairs, size)?;
        let same: BTreeSet<ByteOffset> =
            self.same.iter().map(|pair| pair.at).collect();
        let mut left: Vec<(BlockNumber, ByteRange)> = copies
            .iter()
            .filter(|(_, place)| !same.contains(&place.start()))
            .map(|(tag, place)| (tag.block, *place))
            .collect();
        // Copies of one block lie side by side then.
        left.sort_unstable();
        let left: Vec<ByteRange> =
            left.into_iter().map(|(_, place)| place).collect();
        self.announce(&left);
        let mut rest = left;
        rest.sort_unstable();
        rest.dedup();
        self.rest = rest;
        Ok(())
    }

    /// Announces blocks that resemble their neighbours in the list.
    fn announce(&self, blocks: &[ByteRange]) {
        for together in blocks.chunks(TOGETHER_MAX) {
            let mut together = together.to_vec();
            together.sort_unstable();
            together.dedup();
            self.far.expect_together(&together);
        }
    }
}
