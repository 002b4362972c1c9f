//! The part of the journal that a replay would need, found in the walk.
//!
//! The chain is followed through the journal's file map, a stretch at a time
//! and twice as much each time: what is read too much is never more than
//! what is needed.

use std::collections::BTreeMap;

use super::assemble::BlockBytes;
use super::extents::Extent;
use super::finding::{Effect, Fault};
use super::journal::{JournalSuperblock, LiveLog, has_magic};
use super::scan::{Place, Scan};
use super::superblock::incompat;
use crate::block_set::BlockSet;
use crate::ext::{BlockKind, JournalMode};
use crate::units::BlockNumber;

/// How many blocks of the log are looked at first.
const AHEAD_MIN: u32 = 64;
/// How many bytes of it at most at a time.
const AHEAD_BYTES_MAX: u64 = 16 << 20;

/// The search for the live part.
#[derive(Debug)]
pub(super) struct Live {
    /// The journal's file map, in order.
    map: Vec<Extent>,
    /// Known once block 0 was looked at.
    log: Option<LiveLog>,
    /// What the current level looks at: filesystem and journal block.
    window: Vec<(u64, u32)>,
    /// Blocks of the window; those without the magic are left empty.
    found: BTreeMap<u32, Vec<u8>>,
    ahead: u32,
}

impl Live {
    /// Begins with the journal's superblock; `None` when all of the journal
    /// or nothing is wanted, or there is none.
    pub(super) fn new(scan: &mut Scan) -> Option<(Self, BlockSet)> {
        if scan.options.journal != JournalMode::Live {
            return None;
        }
        let mut map = std::mem::take(&mut scan.journal);
        map.sort_unstable_by_key(|extent| extent.logical);
        if map.is_empty() {
            return None;
        }
        let mut live = Self {
            map,
            log: None,
            window: Vec::new(),
            found: BTreeMap::new(),
            ahead: AHEAD_MIN,
        };
        let is_sorted = live
            .map
            .iter()
            .zip(live.map.iter().skip(1))
            .all(|(one, next)| one.end() <= next.logical);
        if !is_sorted {
            live.give_up(scan, Fault::BadOrder);
            return None;
        }
        let Some(block) = live.physical(0) else {
            live.give_up(scan, Fault::Missing);
            return None;
        };
        live.window = vec![(block, 0)];
        scan.marks.set_owner(Some(scan.superblock.journal_inode));
        scan.marks.mark(BlockKind::Journal, block, 1);
        let wanted = live.wanted();
        Some((live, wanted))
    }

    fn wanted(&self) -> BlockSet {
        let mut set = BlockSet::new();
        for (block, _) in &self.window {
            set.insert(BlockNumber(*block));
        }
        set
    }

    fn physical(&self, journal_block: u32) -> Option<u64> {
        let logical = u64::from(journal_block);
        let behind =
            self.map.partition_point(|extent| extent.logical <= logical);
        let extent = self.map.get(behind.checked_sub(1)?)?;
        let into = logical.checked_sub(extent.logical)?;
        (into < extent.count).then(|| extent.physical.saturating_add(into))
    }

    /// Keeps a block of the window.
    pub(super) fn take(&mut self, block: BlockNumber, bytes: BlockBytes<'_>) {
        if !bytes.is_whole() {
            return;
        }
        let from = self.window.partition_point(|(at, _)| *at < block.0);
        for (at, journal_block) in self.window.get(from..).unwrap_or_default() {
            if *at != block.0 {
                break;
            }
            let keeps = has_magic(bytes.bytes);
            let bytes = if keeps { bytes.bytes.to_vec() } else { Vec::new() };
            self.found.insert(*journal_block, bytes);
        }
    }

    /// Goes on with what has come; `None` when the live part is marked.
    pub(super) fn advance(
        mut self,
        scan: &mut Scan,
    ) -> Option<(Self, BlockSet)> {
        match self.follow(scan) {
            Ok(true) => {
                let wanted = self.wanted();
                Some((self, wanted))
            }
            Ok(false) => {
                self.mark_live(scan);
                None
            }
            Err(fault) => {
                self.give_up(scan, fault);
                None
            }
        }
    }

    /// Whether more has to be read.
    fn follow(&mut self, scan: &Scan) -> Result<bool, Fault> {
        let size = scan.superblock.geometry.block_size;
        let mut log = match self.log.take() {
            Some(log) => log,
            None => {
                let head = self.found.get(&0).ok_or(Fault::Unreadable)?;
                let blocks = self.map.last().map_or(0, Extent::end);
                let superblock = JournalSuperblock::check(head, size, blocks)?;
                LiveLog::new(superblock)
            }
        };
        let is_head = self.window.first() == self.window.last()
            && self.window.first().is_some_and(|(_, block)| *block == 0);
        while let Some(next) = log.next() {
            match self.found.get(&next) {
                Some(block) if !is_head => log.feed(block)?,
                None if self.window.iter().any(|(_, block)| *block == next) => {
                    return Err(Fault::Unreadable);
                }
                _ => {
                    self.look_ahead(&log, size.bytes_u64())?;
                    self.log = Some(log);
                    return Ok(true);
                }
            }
        }
        self.log = Some(log);
        Ok(false)
    }

    fn look_ahead(&mut self, log: &LiveLog, size: u64) -> Result<(), Fault> {
        let most = AHEAD_BYTES_MAX.checked_div(size).unwrap_or(0);
        let most = u32::try_from(most).unwrap_or(AHEAD_MIN).max(1);
        self.found.clear();
        self.window = log
            .ahead(self.ahead.min(most))
            .map(|block| {
                let at = self.physical(block).ok_or(Fault::Missing)?;
                Ok((at, block))
            })
            .collect::<Result<_, Fault>>()?;
        self.window.sort_unstable();
        self.ahead = self.ahead.saturating_mul(2).min(most);
        Ok(())
    }

    fn mark_live(&self, scan: &mut Scan) {
        let Some(log) = &self.log else { return };
        let needs_recovery = scan.superblock.incompat & incompat::RECOVER != 0;
        for (first, count) in log.live(needs_recovery) {
            let (mut at, end) =
                (u64::from(first), u64::from(first.saturating_add(count)));
            let from = self.map.partition_point(|extent| extent.end() <= at);
            for extent in self.map.get(from..).unwrap_or_default() {
                at = at.max(extent.logical);
                let until = end.min(extent.end());
                let Some(count) = until.checked_sub(at) else { break };
                let into = at.saturating_sub(extent.logical);
                let first = extent.physical.saturating_add(into);
                scan.mark_or_find(
                    place(scan),
                    BlockKind::Journal,
                    first,
                    count,
                );
                at = until;
            }
        }
    }

    /// What is live cannot be told: all of the journal is wanted.
    fn give_up(&self, scan: &mut Scan, fault: Fault) {
        scan.find(place(scan), fault, Effect::None);
        for extent in &self.map {
            scan.mark_or_find(
                place(scan),
                BlockKind::Journal,
                extent.physical,
                extent.count,
            );
        }
    }
}

fn place(scan: &Scan) -> Place {
    Place::of(BlockKind::Journal).in_inode(scan.superblock.journal_inode)
}
