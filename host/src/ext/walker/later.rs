//! What could not be read at once, and what it was wanted for.
//!
//! A table block or a map block that is hard to read keeps nobody waiting:
//! the walk goes on elsewhere and comes back to it. Whoever reads decides when
//! ([`Walker::resume`](super::Walker::resume)) and how often; the last time,
//! what does not come is lost.

use super::{MapJob, Phase, Tables, maps};
use crate::block_set::BlockSet;
use crate::units::BlockNumber;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Later {
    /// Blocks of the current level.
    now: BlockSet,
    /// To be asked for again when somebody says so.
    kept: Kept,
    /// To be asked for again now.
    resumed: Option<Kept>,
    /// The current level was asked for before.
    is_retry: bool,
    /// What does not come now is lost.
    is_last: bool,
}

#[derive(Debug, Default)]
struct Kept {
    /// Inode tables, and which of their blocks.
    tables: Option<(Tables, BlockSet)>,
    /// Map blocks and their height above the data.
    maps: Vec<(u16, MapJob)>,
}

impl Later {
    /// These blocks of the current level shall come later.
    pub(super) fn postpone(&mut self, blocks: &BlockSet) {
        self.now.union_with(blocks);
    }

    /// Those of the current level.
    pub(super) const fn of_level(&self) -> &BlockSet {
        &self.now
    }

    /// The level ends: keeps what its postponed blocks were wanted for.
    pub(super) fn end_level(&mut self, phase: &mut Phase) {
        self.is_retry = false;
        let now = std::mem::take(&mut self.now);
        if now.is_empty() {
            return;
        }
        match phase {
            Phase::Tables(tables) => {
                let mut blocks = tables.blocks();
                blocks.intersect_with(&now);
                if !blocks.is_empty() {
                    self.kept.tables = Some((std::mem::take(tables), blocks));
                }
            }
            Phase::Maps { height, jobs } => {
                let lost = std::mem::take(jobs).into_iter();
                let lost = lost.filter(|job| now.contains(job.number()));
                self.kept.maps.extend(lost.map(|job| (*height, job)));
            }
            _ => {}
        }
    }

    /// All that was postponed.
    pub(super) fn blocks(&self) -> BlockSet {
        let mut blocks = BlockSet::new();
        for (_, job) in &self.kept.maps {
            blocks.insert(job.number());
        }
        if let Some((_, of_tables)) = &self.kept.tables {
            blocks.union_with(of_tables);
        }
        blocks
    }

    /// Whether nothing was.
    pub(super) const fn is_empty(&self) -> bool {
        self.kept.tables.is_none() && self.kept.maps.is_empty()
    }

    /// Whether blocks of inode tables were.
    pub(super) const fn has_tables(&self) -> bool {
        self.kept.tables.is_some()
    }

    /// Whether a block of this inode's map was.
    pub(super) fn has_map_of(&self, inode: u32) -> bool {
        self.kept.maps.iter().any(|(_, job)| job.owner.inode == inode)
    }

    /// All of it shall be asked for again.
    pub(super) fn resume(&mut self, is_last: bool) {
        self.resumed = Some(std::mem::take(&mut self.kept));
        self.is_last = is_last;
    }

    /// Whether it shall.
    pub(super) const fn is_resumed(&self) -> bool {
        self.resumed.is_some()
    }

    /// What to look into next of what is asked for again: tables before
    /// maps, and of those the highest before what they lead to.
    pub(super) fn next(&mut self) -> Option<(Phase, BlockSet)> {
        let kept = self.resumed.as_mut()?;
        self.is_retry = true;
        if let Some((tables, blocks)) = kept.tables.take() {
            return Some((Phase::Tables(tables), blocks));
        }
        let Some(height) = kept.maps.iter().map(|(height, _)| *height).max()
        else {
            self.resumed = None;
            self.is_retry = false;
            return None;
        };
        let (now, rest) = std::mem::take(&mut kept.maps)
            .into_iter()
            .partition::<Vec<_>, _>(|(of, _)| *of == height);
        kept.maps = rest;
        let mut jobs: Vec<MapJob> =
            now.into_iter().map(|(_, job)| job).collect();
        jobs.sort_unstable_by_key(|job| job.block);
        let wanted = maps::blocks_of(&jobs);
        Some((Phase::Maps { height, jobs }, wanted))
    }

    /// Whether the current level was asked for before.
    pub(super) const fn is_retry(&self) -> bool {
        self.is_retry
    }

    /// Whether blocks of a level with such a phase can come later.
    pub(super) const fn can_wait(&self, phase: &Phase) -> bool {
        matches!(phase, Phase::Tables(_) | Phase::Maps { .. })
            && !(self.is_retry && self.is_last)
    }
}

impl MapJob {
    const fn number(&self) -> BlockNumber {
        BlockNumber(self.block)
    }
}
