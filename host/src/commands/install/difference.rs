//! The plan: what the image has and the device has otherwise.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use crate::commands::install::InstallRequest;
use crate::commands::install::content::{Content, SUPERBLOCK_AT};
use crate::commands::install::identity::{range, refused};
use crate::commands::install::select::Wish;
use crate::commands::writing::{Both, Kept, read_bytes, same_or_read};
use crate::error::Result;
use crate::ext::BlockKind;
use crate::ext::groups::descriptor_order;
use crate::ext::superblock::Superblock;
use crate::install::{Plan, Planner, marked};
use crate::observer::{Event, Observer, Phase};
use crate::source::BlockSource;
use crate::stop::Stop;
use crate::undo::{Entry, Stage};
use crate::units::{
    BlockCount, BlockNumber, BlockRun, ByteCount, ByteOffset, ByteRange,
};

/// How much is compared in one step: what a line carries in a second or two
/// when all of it differs.
const STEP_BYTES: u64 = 256 * 1024;
/// How many stretches are asked about together.
const STEP_RANGES: usize = 64;

/// An image and a device, about to be compared.
pub(super) struct Comparison<'a> {
    pub(super) request: &'a InstallRequest,
    pub(super) content: &'a Content,
    pub(super) device: &'a dyn BlockSource,
    pub(super) wish: &'a Wish<'a>,
    /// The superblock as it lies on the device.
    pub(super) superblock: [u8; 1024],
    /// What the plan replaces, for the undo file.
    pub(super) kept: RefCell<Kept>,
    pub(super) observer: &'a dyn Observer,
    pub(super) stop: &'a Stop,
}

/// What came of it.
pub(super) struct Compared {
    pub(super) plan: Plan,
    /// The groups that it touches, ascending.
    pub(super) groups: Vec<u32>,
}

impl Comparison<'_> {
    /// Compares everything that is wanted.
    ///
    /// # Errors
    ///
    /// When either side cannot be read.
    pub(super) fn run(&self) -> Result<Compared> {
        self.observer.event(&Event::Phase(Phase::Verify));
        let size = self.content.size();
        let wanted: Vec<(BlockKind, Vec<ByteRange>)> = self
            .content
            .by_kind()
            .into_iter()
            .map(|(kind, blocks)| {
                let blocks = self.wish.blocks(kind, &blocks);
                let runs = blocks.runs().filter_map(|run| run.bytes(size));
                (kind, runs.flat_map(|run| run.cut(STEP_BYTES)).collect())
            })
            .collect();
        let all = wanted.iter().flat_map(|(_, ranges)| ranges);
        let total = ByteCount(all.map(|range| range.length().0).sum());
        let mut done = ByteCount(0);
        let mut planner = Planner::default();
        for (kind, ranges) in &wanted {
            for some in ranges.chunks(STEP_RANGES) {
                self.stop.check()?;
                self.compare(*kind, some, &mut planner)?;
                done.0 +=
                    some.iter().map(|range| range.length().0).sum::<u64>();
                self.observer.event(&Event::Progress { done, total });
            }
        }
        self.compare_first_block(&mut planner)?;
        let offset = self.request.dest_offset;
        let plan = planner.finish(
            offset,
            &self.superblock,
            &self.wanted_superblock(),
        )?;
        let groups = self.groups(&plan);
        Ok(Compared { plan, groups })
    }

    /// The superblock as it shall be.
    fn wanted_superblock(&self) -> [u8; 1024] {
        match self.wish.superblock() && self.content.holds_superblock() {
            true => self.content.superblock(),
            false => self.superblock,
        }
    }

    fn compare(
        &self,
        kind: BlockKind,
        ranges: &[ByteRange],
        planner: &mut Planner,
    ) -> Result<()> {
        let mut wanted = Vec::with_capacity(ranges.len());
        for &range in ranges {
            wanted.push((self.on_device(range)?, self.wanted(kind, range)?));
        }
        let asked: Vec<(ByteRange, &[u8])> =
            wanted.iter().map(|(at, bytes)| (*at, bytes.as_slice())).collect();
        let now = same_or_read(self.device, &asked)?;
        let unit = self.content.size().bytes();
        for ((at, bytes), now) in wanted.iter().zip(now) {
            if let Some(now) = now {
                self.plan(planner, at.start(), (kind, unit), (&now, bytes))?;
            }
        }
        Ok(())
    }

    /// Plans what differs, and keeps what it replaces.
    fn plan(
        &self,
        planner: &mut Planner,
        start: ByteOffset,
        (kind, unit): (BlockKind, usize),
        (now, new): (&[u8], &[u8]),
    ) -> Result<()> {
        let before = planner.entries().len();
        planner.compare(start, kind, unit, now, new)?;
        let mut kept = self.kept.borrow_mut();
        for entry in planner.entries().get(before..).unwrap_or_default() {
            let at = entry.range().start();
            let skip = usize::try_from(at.0.saturating_sub(start.0));
            let old = skip.ok().and_then(|skip| {
                now.get(skip..skip.saturating_add(entry.length()))
            });
            if let Some(old) = old {
                kept.keep(at, old);
            }
        }
        Ok(())
    }

    /// What shall lie at `range` of the filesystem.
    fn wanted(&self, kind: BlockKind, range: ByteRange) -> Result<Vec<u8>> {
        let new = self.content.bytes(range)?;
        // Only the descriptors of some groups, or some inodes of a table: the
        // others stay.
        let groups = self.request.groups.is_some();
        let order = match kind {
            BlockKind::Descriptors if groups => self.descriptor_order(),
            BlockKind::InodeTable if self.wish.is_of_inodes() => {
                BTreeMap::new()
            }
            _ => return Ok(new),
        };
        let mut mixed = read_bytes(self.device, self.on_device(range)?)?;
        let size = self.content.size();
        let first = size.block_of(range.start()).0;
        for (index, block) in (first..).zip(0..mixed.len() / size.bytes()) {
            let slots = match (kind, order.get(&index)) {
                (BlockKind::InodeTable, _) => {
                    self.wish.slots(BlockNumber(index))
                }
                (_, Some(part)) => {
                    self.wish.descriptors(*part).unwrap_or_default()
                }
                (_, None) => continue,
            };
            for slot in slots {
                let from = block * size.bytes() + slot.start;
                let to = block * size.bytes() + slot.end;
                mixed[from..to].copy_from_slice(&new[from..to]);
            }
        }
        Ok(mixed)
    }

    /// Which part of the descriptor table each of its blocks is.
    fn descriptor_order(&self) -> BTreeMap<u64, u32> {
        let superblock =
            Superblock::check(&self.content.superblock(), None, None);
        let Ok(superblock) = superblock else { return BTreeMap::new() };
        descriptor_order(&superblock)
    }

    /// With `--data`: what lies before and behind the superblock in its
    /// block, for instance a boot loader.
    fn compare_first_block(&self, planner: &mut Planner) -> Result<()> {
        let size = self.content.size().bytes_u64();
        if !self.clones() || !self.content.held.contains(BlockNumber(0)) {
            return Ok(());
        }
        let places = [(0, SUPERBLOCK_AT.min(size)), (2048, size.max(2048))];
        for (from, to) in places.into_iter().filter(|(from, to)| from < to) {
            let place = range(from, to - from)?;
            let new = self.content.bytes(place)?;
            let at = self.on_device(place)?;
            let now = read_bytes(self.device, at)?;
            let kind = (BlockKind::Data, 512);
            self.plan(planner, at.start(), kind, (&now, &new))?;
        }
        Ok(())
    }

    fn clones(&self) -> bool {
        self.request.data
            && self.wish.kind(BlockKind::Data)
            && self.request.groups.is_none()
            && self.request.inodes.is_none()
    }

    /// Nothing was left out by --only, --groups or --inodes.
    pub(super) const fn is_whole(&self) -> bool {
        self.request.only.is_none()
            && self.request.groups.is_none()
            && self.request.inodes.is_none()
    }

    pub(super) fn on_device(&self, range: ByteRange) -> Result<ByteRange> {
        let start = range.start().0.saturating_add(self.request.dest_offset.0);
        self::range(start, range.length().0)
    }

    /// Both sides of entries of the plan. What was not kept is read again,
    /// all of it at once.
    ///
    /// # Errors
    ///
    /// When either side cannot be read.
    pub(super) fn both(&self, entries: &[Entry]) -> Result<Vec<Both>> {
        let ranges: Vec<ByteRange> = entries
            .iter()
            .filter(|entry| !of_superblock(entry))
            .map(Entry::range)
            .collect();
        let old = self.kept.borrow().all(self.device, &ranges)?;
        let mut old = old.into_iter();
        entries
            .iter()
            .map(|entry| {
                let new = self.new_bytes(entry)?;
                let before = match entry.stage {
                    Stage::Mark => Some(self.superblock.to_vec()),
                    Stage::Superblock => Some(self.mark().to_vec()),
                    _ => old.next(),
                };
                Ok((before.unwrap_or_default(), new))
            })
            .collect()
    }

    /// What an entry of the plan writes.
    ///
    /// # Errors
    ///
    /// When the image cannot be read.
    pub(super) fn new_bytes(&self, entry: &Entry) -> Result<Vec<u8>> {
        match entry.stage {
            Stage::Mark => Ok(self.mark().to_vec()),
            Stage::Superblock => Ok(self.wanted_superblock().to_vec()),
            _ => {
                let skip = self.request.dest_offset.0;
                let start = entry.range().start().0.saturating_sub(skip);
                let place = range(start, entry.range().length().0)?;
                self.wanted(entry.kind, place)
            }
        }
    }

    fn mark(&self) -> [u8; 1024] {
        marked(&self.superblock, &self.wanted_superblock())
    }

    fn groups(&self, plan: &Plan) -> Vec<u32> {
        let size = self.content.size();
        let mut groups = BTreeSet::new();
        for entry in &plan.entries {
            let skip = self.request.dest_offset.0;
            let at = entry.range().start().0.saturating_sub(skip);
            let end = entry.range().end().0.saturating_sub(skip);
            let first = size.block_of(ByteOffset(at)).0;
            for block in first..size.blocks_for(ByteCount(end)).0 {
                let block = BlockNumber(block);
                groups.insert(self.wish.group_of(entry.kind, block));
            }
        }
        groups.into_iter().collect()
    }
}

/// Whether an entry has the superblock's own way.
const fn of_superblock(entry: &Entry) -> bool {
    matches!(entry.stage, Stage::Mark | Stage::Superblock)
}

/// Refuses a device that no longer holds what the image took from it: what
/// was repaired then is not what lies there now.
///
/// # Errors
///
/// [`crate::error::ErrorKind::Refused`], naming the structures, then.
pub(super) fn refuse_changed(
    request: &InstallRequest,
    original: &Content,
    device: &dyn BlockSource,
    stop: &Stop,
) -> Result<()> {
    let size = original.size();
    let mut changed: BTreeMap<BlockKind, u64> = BTreeMap::new();
    let mut kinds = original.by_kind();
    let superblock =
        BlockRun::new(size.block_of(ByteOffset(SUPERBLOCK_AT)), BlockCount(1));
    kinds.push((BlockKind::Superblock, superblock.into_iter().collect()));
    for (kind, blocks) in kinds {
        let runs = blocks.runs().filter_map(|run| run.bytes(size));
        for part in runs.flat_map(|run| run.cut(STEP_BYTES)) {
            stop.check()?;
            // The superblock's block may hold a boot loader as well.
            let part = match kind {
                BlockKind::Superblock => range(SUPERBLOCK_AT, 1024)?,
                _ => part,
            };
            let then = original.bytes(part)?;
            let start = part.start().0.saturating_add(request.dest_offset.0);
            let there = range(start, part.length().0)?;
            let now = same_or_read(device, &[(there, &then)])?;
            let Some(Some(now)) = now.into_iter().next() else { continue };
            let unit = size.bytes();
            let sides = then.chunks(unit).zip(now.chunks(unit));
            let count = sides.filter(|(then, now)| then != now).count();
            if count > 0 {
                *changed.entry(kind).or_default() += count as u64;
            }
        }
    }
    if changed.is_empty() {
        return Ok(());
    }
    let list: Vec<String> =
        changed.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    Err(refused(format!(
        "the device changed since the image was made; these structures \
         differ: {}",
        list.join(", ")
    ))
    .hint(
        "image it again and repair a copy of that; to write the repair over \
         it all the same: --allow-changed",
    ))
}
