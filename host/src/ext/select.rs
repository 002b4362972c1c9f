//! Which blocks were selected so far, by kind, and which of them were
//! already asked for.

use super::claims::{self, Watch};
use crate::block_set::BlockSet;
use crate::ext::{BlockKind, Geometry};
use crate::units::{BlockCount, BlockNumber, BlockRun};

const KINDS: usize = BlockKind::ALL.len();

/// What a level is made of.
pub(super) struct Delivery {
    /// Asked for, and part of the image for the first time.
    pub(super) fresh: BlockSet,
    /// Asked for, and delivered before or no part of the image.
    pub(super) again: BlockSet,
    /// Part of the image for the first time, and not asked for.
    pub(super) payload: BlockSet,
    /// That is the journal that was held back.
    pub(super) is_journal: bool,
}

/// The selection as it grows.
#[derive(Debug)]
pub(super) struct Marks {
    /// Blocks below this one belong to no group.
    first: u64,
    /// The block behind the last one.
    end: u64,
    cluster_blocks: u64,
    kinds: [BlockSet; KINDS],
    /// The last run of each kind, not in its set yet: neighbours are marked
    /// one after the other, and one long run is cheaper than many short.
    open: [Open; KINDS],
    /// The inode that marks now, 0 for none.
    owner: u32,
    /// What was marked for one kind more than once.
    repeats: Vec<Repeat>,
    /// How many more of them there were.
    repeats_left_out: u64,
    /// What claims are noted of, if any.
    pub(super) watch: Option<Watch>,
    /// How often a block was marked: repeats count, and blocks outside the
    /// filesystem as well.
    pub(super) count: u64,
    /// Blocks that a level has asked for as part of the image.
    delivered: BlockSet,
    /// What is only a part of the journal is not delivered yet.
    pub(super) holds_journal: bool,
    /// It was, and all else was before.
    released_journal: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Open {
    first: u64,
    end: u64,
    /// Whose it is, 0 when several inodes share it.
    owner: u32,
}

/// Blocks of which some belong to two structures of one kind.
#[derive(Clone, Copy, Debug)]
pub(super) struct Repeat {
    pub(super) kind: BlockKind,
    pub(super) run: BlockRun,
    /// The later one, 0 when it is not known.
    pub(super) inode: u32,
}

/// How many repeats are kept until they are reported.
const REPEATS_MAX: usize = 10_000;

/// Whether two inodes may not have a block of this kind in common. (They
/// may share attributes; what is not theirs is looked at elsewhere.)
const fn is_exclusive(kind: BlockKind) -> bool {
    matches!(
        kind,
        BlockKind::Directory
            | BlockKind::Map
            | BlockKind::Symlink
            | BlockKind::XattrInode
            | BlockKind::Quota
            | BlockKind::OrphanFile
            | BlockKind::Data
    )
}

impl Open {
    fn run(self) -> Option<BlockRun> {
        let count = self.end.checked_sub(self.first)?;
        BlockRun::new(BlockNumber(self.first), BlockCount(count))
    }
}

impl Marks {
    /// Nothing is selected yet; with `holds_journal` the journal is not
    /// delivered before it is released, unless it shares clusters.
    pub(super) fn new(geometry: &Geometry, holds_journal: bool) -> Self {
        Self {
            first: geometry.first_data_block.0,
            end: geometry.blocks.0,
            cluster_blocks: u64::from(geometry.cluster_blocks),
            kinds: std::array::from_fn(|_| BlockSet::new()),
            open: [Open::default(); KINDS],
            owner: 0,
            repeats: Vec::new(),
            repeats_left_out: 0,
            watch: None,
            count: 0,
            delivered: BlockSet::new(),
            holds_journal: holds_journal && geometry.cluster_blocks == 1,
            released_journal: false,
        }
    }

    /// All that is delivered from now on is the journal.
    pub(super) const fn release_journal(&mut self) {
        self.holds_journal = false;
        self.released_journal = true;
    }

    /// Whether `block` belongs to the filesystem.
    pub(super) const fn holds(&self, block: u64) -> bool {
        self.first <= block && block < self.end
    }

    /// The first block of the filesystem and the one behind the last.
    pub(super) const fn bounds(&self) -> (u64, u64) {
        (self.first, self.end)
    }

    /// Selects `count` blocks from `first`; what lies outside the filesystem
    /// is left out. False when something was.
    pub(super) fn mark(
        &mut self,
        kind: BlockKind,
        first: u64,
        count: u64,
    ) -> bool {
        self.count = self.count.saturating_add(count);
        let asked_end = first.saturating_add(count);
        let start = first.max(self.first);
        let end = asked_end.min(self.end);
        if start >= end {
            return count == 0;
        }
        let owner = self.owner;
        if let Some(watch) = &mut self.watch
            && claims::is_owned(kind)
        {
            watch.note(kind, owner, start, end);
        }
        if let Some(open) = self.open.get_mut(kind.index()) {
            if open.end == start {
                open.end = end;
                if open.owner != owner {
                    open.owner = 0;
                }
            } else {
                let done = *open;
                *open = Open { first: start, end, owner };
                self.close(kind, done);
            }
        }
        start == first && end == asked_end
    }

    /// Whose marks the next ones are.
    pub(super) fn set_owner(&mut self, inode: Option<u32>) {
        self.owner = inode.unwrap_or(0);
    }

    fn close(&mut self, kind: BlockKind, open: Open) {
        let Some((run, set)) = open.run().zip(self.kinds.get_mut(kind.index()))
        else {
            return;
        };
        let is_new = set.insert_run(run) == run.count();
        if is_new || !is_exclusive(kind) {
            return;
        }
        if self.repeats.len() < REPEATS_MAX {
            self.repeats.push(Repeat { kind, run, inode: open.owner });
        } else {
            self.repeats_left_out = self.repeats_left_out.saturating_add(1);
        }
    }

    fn flush(&mut self) {
        for kind in BlockKind::ALL {
            if let Some(open) = self.open.get_mut(kind.index()) {
                let done = std::mem::take(open);
                self.close(*kind, done);
            }
        }
    }

    /// What was marked for one kind more than once, and how many more.
    pub(super) fn take_repeats(&mut self) -> (Vec<Repeat>, u64) {
        self.flush();
        let left_out = std::mem::take(&mut self.repeats_left_out);
        (std::mem::take(&mut self.repeats), left_out)
    }

    /// Blocks that belong to structures of different kinds: the later kind
    /// of each pair, in the order of [`BlockKind::ALL`].
    pub(super) fn shared_kinds(&mut self) -> Vec<(BlockKind, BlockRun)> {
        self.flush();
        let (mut all, mut sum) = (BlockSet::new(), 0_u64);
        for set in &self.kinds {
            all.union_with(set);
            sum = sum.saturating_add(set.count().0);
        }
        if all.count().0 == sum {
            return Vec::new();
        }
        let mut before = BlockSet::new();
        let mut shared = Vec::new();
        for (kind, set) in BlockKind::ALL.iter().zip(&self.kinds) {
            // The first of them stand for one another.
            if kind.index() > BlockKind::ReservedDescriptors.index() {
                let mut both = set.clone();
                both.intersect_with(&before);
                shared.extend(both.runs().map(|run| (*kind, run)));
            }
            before.union_with(set);
        }
        shared
    }

    /// Every selected block; of a bigalloc cluster all of it.
    pub(super) fn selected(&mut self) -> BlockSet {
        self.flush();
        let mut all = BlockSet::new();
        for set in &self.kinds {
            all.union_with(set);
        }
        if self.cluster_blocks == 1 {
            return all;
        }
        all.runs().filter_map(|run| self.whole_clusters(run)).collect()
    }

    fn whole_clusters(&self, run: BlockRun) -> Option<BlockRun> {
        let last = self.cluster_blocks.checked_sub(1)?;
        let first = run.first().0 & !last;
        let end = run
            .end()
            .0
            .checked_next_multiple_of(self.cluster_blocks)?
            .min(self.end);
        BlockRun::new(BlockNumber(first), BlockCount(end.checked_sub(first)?))
    }

    /// The journal, but for what is asked for or something else as well.
    fn only_journal(&self, wanted: &BlockSet) -> BlockSet {
        let of_journal = BlockKind::Journal.index();
        let journal = self.kinds.get(of_journal).cloned();
        let mut only = journal.unwrap_or_default();
        only.subtract(wanted);
        for (index, set) in self.kinds.iter().enumerate() {
            if index != of_journal {
                only.subtract(set);
            }
        }
        only
    }

    /// Splits what is asked for, and adds what else was selected meanwhile.
    /// What belongs to the image then counts as delivered.
    pub(super) fn deliver(&mut self, wanted: &BlockSet) -> Delivery {
        let mut payload = self.selected();
        payload.subtract(&self.delivered);
        if self.holds_journal {
            payload.subtract(&self.only_journal(wanted));
        }
        self.delivered.union_with(&payload);
        let mut fresh = payload.clone();
        fresh.intersect_with(wanted);
        payload.subtract(&fresh);
        let mut again = wanted.clone();
        again.subtract(&fresh);
        Delivery { fresh, again, payload, is_journal: self.released_journal }
    }

    /// The blocks of one kind so far.
    pub(super) fn of_kind(&mut self, kind: BlockKind) -> BlockSet {
        self.flush();
        self.kinds.get(kind.index()).cloned().unwrap_or_default()
    }

    /// The blocks of each kind, in the order of [`BlockKind::ALL`].
    pub(super) fn into_kinds(mut self) -> Vec<(BlockKind, BlockSet)> {
        self.flush();
        BlockKind::ALL.iter().copied().zip(self.kinds).collect()
    }
}
