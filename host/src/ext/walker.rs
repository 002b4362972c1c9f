//! The walk itself: from the superblock to the last map block, level by
//! level.
//!
//! The walker owns no source. It says what it needs ([`Walker::next_step`]),
//! is fed ([`Walker::supply`]), and answers in the end ([`Walker::finish`]).

use self::later::Later;
use super::assemble::{Assembler, BlockBytes};
use super::careful::{Careful, SlowWalk, Suspect};
use super::checks::Checks;
use super::claims::Watch;
use super::copies::Copies;
use super::disguised::{self, Disguised};
use super::live::Live;
use super::maps::{self, MapJob};
use super::probe::{PROBE_SIZE, Probe};
use super::scan::Scan;
use super::superblock::Superblock;
use super::tables::Tables;
use crate::block_set::BlockSet;
use crate::error::{Error, ErrorKind, Result};
use crate::ext::{
    BlockKind, Geometry, Group, Level, Scope, Selection, Step, Walk,
    WalkOptions,
};
use crate::source::Piece;
use crate::units::{
    BlockCount, BlockNumber, BlockRun, BlockSize, ByteOffset, ByteRange,
    usize_from,
};

/// How often a walk begins anew because of damage that only e2image's own
/// order does justice to.
const RESTARTS_MAX: u32 = 3;

/// Walks a filesystem. Pure: it is fed and asked, and does nothing else.
#[derive(Debug)]
pub struct Walker {
    options: WalkOptions,
    assembler: Assembler,
    phase: Phase,
    /// The second half of the current level.
    second: Option<Level>,
    scan: Option<Scan>,
    descriptors: Vec<u8>,
    groups: Vec<Group>,
    restarts: u32,
    watch: Option<BlockSet>,
    later: Later,
    /// No table or map is missing that can be had.
    has_all: bool,
    /// What a replay needs was looked for.
    has_log: bool,
}

/// What the blocks of the current level are.
#[derive(Debug)]
enum Phase {
    Start,
    Probe(Box<Probe>),
    /// The parts of the descriptor table, sorted by block.
    Descriptors(Vec<(BlockNumber, u32)>),
    /// Copies of parts that are doubted.
    Copies(Copies),
    /// The table block with the inode of the bad blocks.
    BadInode(Option<Suspect>),
    /// The map of that inode, and the blocks found so far.
    BadBlocks(Box<SlowWalk>, BlockSet),
    Tables(Tables),
    Maps {
        height: u16,
        jobs: Vec<MapJob>,
    },
    /// Damaged maps, one block of each at a time.
    Slow(Vec<SlowWalk>),
    /// The first blocks of what may be directories.
    Disguised(Vec<Disguised>),
    /// The journal's superblock, then its log.
    Journal(Live),
    /// About to begin anew.
    Again(Box<Superblock>, Careful),
    /// Only a journal that comes last is left.
    Held,
    /// Nothing more can be found without what was postponed.
    Later,
    Rest,
    Done,
}

/// How a walk goes on.
enum Advance {
    /// These blocks are looked into next.
    Look(BlockSet),
    Restart,
    Wait,
    Done,
}

impl Walker {
    /// A walk that has not begun.
    #[must_use]
    pub fn new(options: WalkOptions) -> Self {
        Self {
            options,
            assembler: Assembler::new(PROBE_SIZE),
            phase: Phase::Start,
            second: None,
            scan: None,
            descriptors: Vec::new(),
            groups: Vec::new(),
            restarts: 0,
            watch: None,
            later: Later::default(),
            has_all: false,
            has_log: false,
        }
    }

    /// Notes who claims `blocks`.
    #[must_use]
    pub fn watching(mut self, blocks: BlockSet) -> Self {
        self.watch = Some(blocks);
        self
    }

    /// Has the journal come last, see [`WalkOptions::journal_last`].
    #[must_use]
    pub const fn journal_last(mut self, last: bool) -> Self {
        self.options.journal_last = last;
        self
    }

    /// The shape of the filesystem, once the superblock is known.
    #[must_use]
    pub fn geometry(&self) -> Option<&Geometry> {
        self.scan.as_ref().map(|scan| &scan.superblock.geometry)
    }

    /// What to read next. What was asked for before and was not supplied
    /// counts as unreadable.
    ///
    /// # Errors
    ///
    /// `NoFilesystem`: there is no superblock, or one that cannot be walked
    /// (unknown features, an external journal, another block size than
    /// asserted). All other damage becomes findings.
    pub fn next_step(&mut self) -> Result<Step> {
        if let Some(level) = self.second.take() {
            return Ok(Step::Read(level));
        }
        loop {
            self.end_level();
            let wanted = match self.advance()? {
                Advance::Look(wanted) => wanted,
                Advance::Restart => return Ok(Step::Restart),
                Advance::Wait => return Ok(Step::Waiting),
                Advance::Done => return Ok(Step::Done),
            };
            if let Some(level) = self.begin_level(&wanted) {
                return Ok(Step::Read(level));
            }
        }
    }

    /// Takes a piece of the level that was asked for last.
    pub fn supply(&mut self, piece: Piece<'_>) {
        let (phase, scan) = (&mut self.phase, &mut self.scan);
        let descriptors = &mut self.descriptors;
        self.assembler.supply(piece, |block, bytes| {
            look(phase, scan, descriptors, block, bytes);
        });
    }

    /// These blocks of the level that was asked for last cannot be read at
    /// once: the walk goes on without them as far as it can, if the level
    /// [can wait](Level::can_wait).
    pub fn postpone(&mut self, blocks: &BlockSet) {
        if self.later.can_wait(&self.phase) {
            self.later.postpone(blocks);
        }
    }

    /// What was postponed, once the walk is [waiting](Step::Waiting).
    #[must_use]
    pub fn postponed(&self) -> BlockSet {
        self.later.blocks()
    }

    /// Asks again for what was postponed. The `last` time what cannot be read
    /// is lost.
    pub fn resume(&mut self, last: bool) {
        self.later.resume(last);
    }

    /// The blocks of one kind that were found so far.
    pub fn of_kind(&mut self, kind: BlockKind) -> BlockSet {
        let scan = self.scan.as_mut();
        scan.map_or_else(BlockSet::new, |scan| scan.marks.of_kind(kind))
    }

    /// What the walk has found.
    ///
    /// # Errors
    ///
    /// `Internal` when the walk was not done.
    pub fn finish(self) -> Result<Walk> {
        let (Phase::Done, Some(mut scan)) = (self.phase, self.scan) else {
            return Err(Error::new(
                ErrorKind::Internal,
                "a walk was finished before it was done",
            ));
        };
        scan.find_shared();
        scan.traced.sort_unstable();
        Ok(Walk {
            traced: scan.traced,
            selected: scan.marks.selected(),
            claims: scan.marks.watch.take().unwrap_or_default().claims,
            marks: scan.marks.count,
            kinds: scan.marks.into_kinds(),
            superblock: scan.superblock.bytes,
            superblock_at: scan.superblock.at,
            geometry: scan.superblock.geometry,
            descriptors: self.descriptors,
            groups: self.groups,
            findings: scan.findings.list,
            findings_total: scan.findings.total,
        })
    }

    /// Whatever did not come is lost.
    fn end_level(&mut self) {
        let (phase, scan) = (&mut self.phase, &mut self.scan);
        let descriptors = &mut self.descriptors;
        self.assembler.end(self.later.of_level(), |block, bytes| {
            look(phase, scan, descriptors, block, bytes);
        });
        self.later.end_level(phase);
    }

    /// Goes on to the next phase and what it looks into.
    fn advance(&mut self) -> Result<Advance> {
        let phase = std::mem::replace(&mut self.phase, Phase::Done);
        let (next, wanted) = match phase {
            Phase::Start => {
                let probe = Probe::new(&self.options);
                let wanted = probe.blocks().clone();
                (Phase::Probe(Box::new(probe)), wanted)
            }
            Phase::Probe(probe) => match probe.conclude(&self.options)? {
                Ok(superblock) => {
                    self.begin_scan(superblock, Careful::default())?
                }
                Err(probe) => {
                    let wanted = probe.blocks().clone();
                    (Phase::Probe(Box::new(probe)), wanted)
                }
            },
            Phase::Again(superblock, careful) => {
                self.begin_scan(*superblock, careful)?
            }
            Phase::Held => {
                if let Some(scan) = &mut self.scan {
                    scan.marks.release_journal();
                }
                (Phase::Rest, BlockSet::new())
            }
            Phase::Later if !self.later.is_resumed() => {
                self.phase = Phase::Later;
                return Ok(Advance::Wait);
            }
            Phase::Rest | Phase::Done => return Ok(Advance::Done),
            phase => {
                let next = self.advance_scan(phase);
                if matches!(next.0, Phase::Rest)
                    && let Some((superblock, careful)) = self.restart()
                {
                    self.phase = Phase::Again(Box::new(superblock), careful);
                    return Ok(Advance::Restart);
                }
                match next.0 {
                    Phase::Rest => self.end_of_maps(),
                    _ => next,
                }
            }
        };
        let holds = self.scan.as_ref().is_some_and(|it| it.marks.holds_journal);
        self.phase = match next {
            Phase::Rest if holds => Phase::Held,
            next => next,
        };
        Ok(Advance::Look(wanted))
    }

    /// How to go on when no map waits any more.
    fn end_of_maps(&mut self) -> (Phase, BlockSet) {
        let rest = (Phase::Rest, BlockSet::new());
        let Some(scan) = &mut self.scan else { return rest };
        if let Some(next) = self.later.next() {
            return next;
        }
        let is_all = self.later.is_empty();
        if is_all
            && !std::mem::replace(&mut self.has_all, true)
            && self.options.scope != Scope::Tables
        {
            scan.find_missing();
        }
        // What a replay needs comes before what is hard to read.
        let journal = scan.superblock.journal_inode;
        let is_known = scan.seen.journal_map && !self.later.has_map_of(journal);
        if !self.has_log && (is_all || is_known) {
            self.has_log = true;
            if let Some((live, wanted)) = Live::new(scan) {
                return (Phase::Journal(live), wanted);
            }
        }
        if is_all { rest } else { (Phase::Later, BlockSet::new()) }
    }

    fn advance_scan(&mut self, phase: Phase) -> (Phase, BlockSet) {
        let Some(scan) = &mut self.scan else {
            return (Phase::Rest, BlockSet::new());
        };
        match phase {
            Phase::Descriptors(_) => {
                self.groups = scan.parse_groups(&self.descriptors);
                let copies = Copies::new(scan, &self.groups);
                self.go_on_with_copies(copies)
            }
            Phase::Copies(copies) => self.go_on_with_copies(copies),
            Phase::BadInode(Some(suspect)) => {
                let walk = Box::new(SlowWalk::new(suspect));
                let bad = BlockSet::new();
                go_on_with_bad_blocks(scan, &self.groups, walk, bad)
            }
            Phase::BadBlocks(walk, bad) => {
                go_on_with_bad_blocks(scan, &self.groups, walk, bad)
            }
            Phase::BadInode(None) => {
                begin_tables(scan, &self.groups, &BlockSet::new())
            }
            Phase::Slow(active) => begin_maps(scan, active),
            Phase::Journal(live) => journal_phase(live.advance(scan)),
            Phase::Tables(_) => {
                // Its inode may still come.
                if !self.later.has_tables() {
                    scan.follow_journal_by_copy();
                }
                begin_maps(scan, Vec::new())
            }
            _ => begin_maps(scan, Vec::new()),
        }
    }

    fn go_on_with_copies(&mut self, mut copies: Copies) -> (Phase, BlockSet) {
        let Some(scan) = &mut self.scan else {
            return (Phase::Rest, BlockSet::new());
        };
        let (descriptors, groups) = (&mut self.descriptors, &mut self.groups);
        let wanted = copies.advance(scan, descriptors, groups);
        match groups.first() {
            _ if !wanted.is_empty() => (Phase::Copies(copies), wanted),
            Some(group) if scan.careful.skips_bad_blocks => {
                (Phase::BadInode(None), one_block(group.inode_table))
            }
            _ => begin_tables(scan, groups, &BlockSet::new()),
        }
    }

    /// What to begin again with, when the walk turns out to need it.
    fn restart(&mut self) -> Option<(Superblock, Careful)> {
        if self.restarts >= RESTARTS_MAX
            || self.options.selection == Selection::Complete
        {
            return None;
        }
        let scan = self.scan.as_ref()?;
        let careful = scan.careful.restart()?;
        self.restarts = self.restarts.saturating_add(1);
        Some((scan.superblock.clone(), careful))
    }

    fn begin_scan(
        &mut self,
        superblock: Superblock,
        careful: Careful,
    ) -> Result<(Phase, BlockSet)> {
        let geometry = &superblock.geometry;
        self.assembler = Assembler::new(geometry.block_size);
        let table_bytes = usize_from(geometry.descriptor_blocks)
            .checked_mul(geometry.block_size.bytes())
            .ok_or_else(|| {
                Error::new(ErrorKind::Internal, "descriptors beyond memory")
            })?;
        self.descriptors = vec![0; table_bytes];
        self.groups = Vec::new();
        let mut scan = Scan::new(superblock, self.options, careful);
        scan.marks.watch = self.watch.clone().map(Watch::new);
        self.later = Later::default();
        self.has_all = false;
        self.has_log = false;
        let parts = scan.mark_head();
        self.scan = Some(scan);
        let wanted = parts
            .iter()
            .filter_map(|(block, _)| BlockRun::new(*block, BlockCount(1)))
            .collect();
        Ok((Phase::Descriptors(parts), wanted))
    }

    /// Makes levels of what is wanted; `None` when there is nothing to read.
    fn begin_level(&mut self, wanted: &BlockSet) -> Option<Level> {
        self.assembler.begin(wanted);
        let Some(scan) = &mut self.scan else {
            let ranges = self.ranges(wanted, PROBE_SIZE);
            let sought = match &self.phase {
                Phase::Probe(probe) => probe.sought(),
                _ => None,
            };
            return level(ranges, Vec::new(), true)
                .map(|level| Level { sought, ..level });
        };
        let size = scan.superblock.geometry.block_size;
        scan.find_repeats();
        let retried = self.later.is_retry();
        let can_wait = self.later.can_wait(&self.phase);
        let nothing = BlockSet::new();
        let delivery =
            scan.marks.deliver(if retried { &nothing } else { wanted });
        let checks = scan.checks.take(&scan.superblock, &delivery.payload);
        let journal = match self.phase {
            Phase::Rest if delivery.is_journal => scan.journal_map(),
            _ => Vec::new(),
        };
        let fresh = self.ranges(&delivery.fresh, size);
        let payload = self.ranges(&delivery.payload, size);
        let again = match retried {
            true => self.ranges(wanted, size),
            false => self.ranges(&delivery.again, size),
        };
        let again = level(again, Vec::new(), !retried).map(|again| Level {
            can_wait,
            retried,
            ..again
        });
        match level(fresh, payload, false) {
            Some(first) => {
                let first = Level { checks, journal, can_wait, ..first };
                self.second = again;
                Some(first)
            }
            None => again,
        }
    }

    /// The bytes of `blocks`, without what lies beyond the device.
    fn ranges(&self, blocks: &BlockSet, size: BlockSize) -> Vec<ByteRange> {
        let end = self
            .options
            .device_length
            .map_or(ByteOffset(u64::MAX), |length| ByteOffset(length.0));
        blocks
            .runs()
            .filter_map(|run| run.bytes(size))
            .filter_map(|range| {
                ByteRange::between(range.start(), range.end().min(end))
            })
            .filter(|range| !range.is_empty())
            .collect()
    }
}

fn journal_phase(next: Option<(Live, BlockSet)>) -> (Phase, BlockSet) {
    match next {
        Some((live, wanted)) => (Phase::Journal(live), wanted),
        None => (Phase::Rest, BlockSet::new()),
    }
}

fn one_block(block: BlockNumber) -> BlockSet {
    BlockRun::new(block, BlockCount(1)).into_iter().collect()
}

fn begin_tables(
    scan: &mut Scan,
    groups: &[Group],
    bad: &BlockSet,
) -> (Phase, BlockSet) {
    let tables = scan.mark_groups(groups);
    let mut wanted = tables.blocks();
    wanted.subtract(bad);
    (Phase::Tables(tables), wanted)
}

fn go_on_with_bad_blocks(
    scan: &mut Scan,
    groups: &[Group],
    mut walk: Box<SlowWalk>,
    mut bad: BlockSet,
) -> (Phase, BlockSet) {
    let wanted = scan.advance_bad_blocks(&mut walk, &mut bad);
    if wanted.is_empty() {
        begin_tables(scan, groups, &bad)
    } else {
        (Phase::BadBlocks(walk, bad), wanted)
    }
}

fn begin_maps(scan: &mut Scan, mut active: Vec<SlowWalk>) -> (Phase, BlockSet) {
    if let Some((height, jobs)) = scan.take_waiting() {
        let wanted = maps::blocks_of(&jobs);
        return (Phase::Maps { height, jobs }, wanted);
    }
    let wanted = scan.advance_slow(&mut active);
    if !wanted.is_empty() {
        return (Phase::Slow(active), wanted);
    }
    // A slow walk that gave up may have left map blocks behind.
    match scan.take_waiting() {
        Some((height, jobs)) => {
            let wanted = maps::blocks_of(&jobs);
            (Phase::Maps { height, jobs }, wanted)
        }
        None => match scan.take_disguised() {
            jobs if jobs.is_empty() => (Phase::Rest, BlockSet::new()),
            jobs => {
                let wanted = disguised::blocks_of(&jobs);
                (Phase::Disguised(jobs), wanted)
            }
        },
    }
}

/// Looks into one block of the current level.
fn look(
    phase: &mut Phase,
    scan: &mut Option<Scan>,
    descriptors: &mut [u8],
    block: BlockNumber,
    bytes: BlockBytes<'_>,
) {
    match (phase, scan) {
        (Phase::Probe(probe), _) => probe.supply(block, bytes),
        (Phase::Descriptors(parts), Some(scan)) => {
            let from = parts.partition_point(|(at, _)| *at < block);
            for (_, index) in parts
                .get(from..)
                .unwrap_or_default()
                .iter()
                .take_while(|(at, _)| *at == block)
            {
                scan.keep_descriptors(descriptors, *index, block, bytes);
            }
        }
        (Phase::Copies(copies), _) => copies.take(block, bytes),
        (Phase::BadInode(suspect), Some(scan)) => {
            *suspect = scan.bad_blocks_inode(bytes);
        }
        (Phase::BadBlocks(walk, _), _) => walk.feed(bytes),
        (Phase::Journal(live), _) => live.take(block, bytes),
        (Phase::Slow(active), _) => {
            for walk in active {
                if walk.wants == Some(block.0) {
                    walk.feed(bytes);
                }
            }
        }
        (Phase::Disguised(jobs), Some(scan)) => {
            let from = jobs.partition_point(|job| job.block() < block.0);
            let here = jobs.get(from..).unwrap_or_default().iter();
            for job in here.take_while(|job| job.block() == block.0) {
                scan.visit_disguised(job, bytes);
            }
        }
        (Phase::Tables(tables), Some(scan)) => {
            scan.visit_tables(tables, block, bytes);
        }
        (Phase::Maps { height, jobs }, Some(scan)) => {
            let from = jobs.partition_point(|job| job.block < block.0);
            for job in jobs
                .get(from..)
                .unwrap_or_default()
                .iter()
                .take_while(|job| job.block == block.0)
            {
                scan.visit_map(job, *height, bytes);
            }
        }
        _ => {}
    }
}

/// A level, unless it is empty.
fn level(
    ranges: Vec<ByteRange>,
    payload: Vec<ByteRange>,
    probe: bool,
) -> Option<Level> {
    let empty = ranges.is_empty() && payload.is_empty();
    (!empty).then_some(Level {
        ranges,
        payload,
        checks: Checks::default(),
        probe,
        sought: None,
        journal: Vec::new(),
        can_wait: false,
        retried: false,
    })
}

mod later;
#[cfg(test)]
mod tests;
