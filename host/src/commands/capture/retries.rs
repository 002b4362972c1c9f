//! What is hard to read comes last.
//!
//! Whatever a level needs is skimmed first; blocks that do not come at once
//! are postponed, those that the walk waits for as well as those that only
//! belong to the image. When all else is read, they are tried again: with each
//! effort that the source knows, kind by kind in the order of importance.
//! What leads to further blocks is followed at once, and what is easy to read
//! below it comes before the next hard block. An effort is made once for each
//! place, and a block that came is not asked for again: so this ends.

use super::{Capture, Layout, supply};
use crate::block_set::BlockSet;
use crate::error::Result;
use crate::ext::{BlockKind, Checks, Level, Walk, Walker};
use crate::image::{ImageSink, WriteOrder};
use crate::observer::{Event, Phase};
use crate::source::{Effort, Priority, ReadFault, SourceKind};
use crate::transfer::{Part, Patience, byte_ranges};
use crate::units::{BlockCount, BlockRun, BlockSize, ByteCount, ByteRange};

/// Where blocks go that are read for the image.
pub(super) type Feed<'f, 's> = Option<&'f mut (dyn ImageSink + 's)>;

impl Capture<'_> {
    /// Reads a level: feeds the walk and the sink, and postpones what is
    /// hard to read.
    pub(super) fn read_level(
        &mut self,
        level: &Level,
        walker: &mut Walker,
        mut feed: Feed<'_, '_>,
    ) -> Result<()> {
        let size = walker.geometry().map(|geometry| geometry.block_size);
        if let Some(size) = size.filter(|_| !level.journal.is_empty()) {
            self.read_announced(size, feed.as_deref_mut())?;
            self.prepare_journal(&level.journal, size)?;
        }
        let hard = match (&mut feed, size) {
            (Some(sink), Some(size)) => {
                self.read_and_store(level, walker, size, &mut **sink)?
            }
            _ => {
                self.source.expect(&level.payload, Priority::Payload);
                if self.source.duplicates().is_some() {
                    self.announced.extend(&level.payload);
                }
                self.checks.push(level.checks.clone());
                self.read_only(&level.ranges, walker, size)?
            }
        };
        let has_efforts = self.source.efforts() > 0;
        let Some(size) = size.filter(|_| has_efforts && !hard.is_empty())
        else {
            return Ok(());
        };
        if level.can_wait {
            walker.postpone(&hard);
            return Ok(());
        }
        // Without these the walk does not find the rest.
        let mut urgent = blocks_of(&level.ranges, size);
        urgent.intersect_with(&hard);
        let wanted = byte_ranges(urgent.runs(), size);
        let mut stored = urgent.clone();
        stored.intersect_with(&self.postponed);
        self.postponed.subtract(&stored);
        let layout = Layout { size, checks: None };
        self.sweep(&wanted, Some(layout), &mut |capture, part| {
            supply(walker, &part);
            match &mut feed {
                Some(sink) => capture.store(&part, size, &mut **sink),
                None => Ok(()),
            }
        })
    }

    /// Answers which blocks are hard to read.
    fn read_only(
        &mut self,
        ranges: &[ByteRange],
        walker: &mut Walker,
        size: Option<BlockSize>,
    ) -> Result<BlockSet> {
        let mut hard = BlockSet::new();
        self.skim(ranges, None, size, &mut |_, part| {
            supply(walker, &part);
            note_hard(&part, size, &mut hard);
            Ok(())
        })?;
        Ok(hard)
    }

    fn read_and_store(
        &mut self,
        level: &Level,
        walker: &mut Walker,
        size: BlockSize,
        sink: &mut dyn ImageSink,
    ) -> Result<BlockSet> {
        let mut hard = BlockSet::new();
        // Behind a line the walk goes on while the rest is on its way.
        let puts_off = self.source.facts().kind == SourceKind::Remote
            && sink.order() == WriteOrder::Any
            && level.journal.is_empty();
        let (mut all, checks) = if puts_off {
            self.source.expect(&level.payload, Priority::Payload);
            self.announced.extend(&level.payload);
            self.checks.push(level.checks.clone());
            (level.ranges.clone(), Checks::default())
        } else {
            let all = super::merge(&level.ranges, &level.payload);
            (all, level.checks.clone())
        };
        if level.retried {
            // Some may be stored already: they had another purpose as well.
            let mut again = blocks_of(&all, size);
            let mut fresh = again.clone();
            fresh.intersect_with(&self.postponed);
            again.subtract(&fresh);
            self.postponed.subtract(&fresh);
            all = byte_ranges(fresh.runs(), size);
            let again = byte_ranges(again.runs(), size);
            hard = self.read_only(&again, walker, Some(size))?;
        }
        let layout = Layout { size, checks: Some(&checks) };
        self.skim(&all, Some(layout), Some(size), &mut |capture, part| {
            supply(walker, &part);
            note_hard(&part, Some(size), &mut hard);
            capture.store(&part, size, sink)
        })?;
        self.keep_checks(checks);
        Ok(hard)
    }

    /// Keeps what blocks have to be while some of them are postponed.
    pub(super) fn keep_checks(&mut self, checks: Checks) {
        if !self.postponed.is_empty() {
            let before = std::mem::take(&mut self.postponed_checks);
            self.postponed_checks = Checks::join(vec![before, checks]);
        }
    }

    /// Tries postponed blocks again. True when that was done with blocks that
    /// the walk waits for; false when nothing is left to try.
    pub(super) fn strive(
        &mut self,
        walker: &mut Walker,
        mut feed: Feed<'_, '_>,
    ) -> Result<bool> {
        let Some(size) = walker.geometry().map(|g| g.block_size) else {
            return Ok(false);
        };
        for effort in (0..self.source.efforts()).map(Effort) {
            let feed = feed.as_deref_mut();
            if self.strive_once(effort, walker, size, feed)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn strive_once(
        &mut self,
        effort: Effort,
        walker: &mut Walker,
        size: BlockSize,
        mut feed: Feed<'_, '_>,
    ) -> Result<bool> {
        let awaited = walker.postponed();
        let mut open = self.postponed.clone();
        open.union_with(&awaited);
        let total = size.bytes_of(open.count()).unwrap_or(ByteCount(0));
        let total = ByteCount(self.tried.0.saturating_add(total.0));
        let mut leads_on = false;
        for kind in BlockKind::BY_IMPORTANCE {
            let leads = matches!(kind, BlockKind::InodeTable | BlockKind::Map);
            if leads_on && !leads {
                return Ok(true);
            }
            let mut blocks = walker.of_kind(*kind);
            blocks.intersect_with(&open);
            open.subtract(&blocks);
            if self.try_blocks(&blocks, effort, size, total)? {
                let all = blocks.count();
                blocks.subtract(&awaited);
                leads_on |= blocks.count() < all;
                self.store_postponed(&blocks, size, feed.as_deref_mut())?;
            }
        }
        Ok(leads_on)
    }

    /// One effort for `blocks`; false when there was nothing to try.
    fn try_blocks(
        &mut self,
        blocks: &BlockSet,
        effort: Effort,
        size: BlockSize,
        total: ByteCount,
    ) -> Result<bool> {
        let wanted = byte_ranges(blocks.runs(), size);
        let source = self.source;
        source.strive(&wanted, effort, &mut |bytes| {
            self.stop.check()?;
            self.enter(Phase::Retry);
            self.tried.0 = self.tried.0.saturating_add(bytes.0).min(total.0);
            let done = self.tried;
            self.observer.event(&Event::Progress { done, total });
            Ok(())
        })
    }

    /// Stores what can be had now of postponed blocks.
    fn store_postponed(
        &mut self,
        blocks: &BlockSet,
        size: BlockSize,
        feed: Feed<'_, '_>,
    ) -> Result<()> {
        let Some(sink) = feed.filter(|_| !blocks.is_empty()) else {
            return Ok(());
        };
        self.postponed.subtract(blocks);
        let wanted = byte_ranges(blocks.runs(), size);
        let checks = std::mem::take(&mut self.postponed_checks);
        let layout = Layout { size, checks: Some(&checks) };
        let sweep = self.sweep_of(Some(layout));
        let findings = sweep.pass(Patience::Little, &wanted, &mut |part| {
            self.store(&part, size, sink)
        })?;
        self.findings.join(findings);
        self.postponed_checks = checks;
        Ok(())
    }

    /// Nothing more is tried: what is still postponed is stored as far as it
    /// goes, and the rest is lost.
    pub(super) fn give_up(
        &mut self,
        walk: &Walk,
        sink: &mut dyn ImageSink,
    ) -> Result<()> {
        let size = walk.geometry.block_size;
        let blocks = std::mem::take(&mut self.postponed);
        let checks = std::mem::take(&mut self.postponed_checks);
        let layout = Layout { size, checks: Some(&checks) };
        let wanted = byte_ranges(blocks.runs(), size);
        let findings = self
            .sweep_of(Some(layout))
            .run(&wanted, &mut |part| self.store(&part, size, sink))?;
        self.findings.join(findings);
        Ok(())
    }
}

/// Notes the blocks of which a part was left out.
fn note_hard(part: &Part<'_>, size: Option<BlockSize>, hard: &mut BlockSet) {
    let faults = part.filled.faults.iter();
    let left_out = faults.filter(|(_, fault)| *fault == ReadFault::Skipped);
    if let Some(size) = size {
        for (range, _) in left_out {
            hard.union_with(&blocks_of(&[*range], size));
        }
    }
}

/// The blocks that `ranges` touch.
fn blocks_of(ranges: &[ByteRange], size: BlockSize) -> BlockSet {
    let runs = ranges.iter().filter_map(|range| {
        let first = size.block_of(range.start());
        let end = range.end().0.div_ceil(size.bytes_u64());
        BlockRun::new(first, BlockCount(end.checked_sub(first.0)?))
    });
    runs.collect()
}
