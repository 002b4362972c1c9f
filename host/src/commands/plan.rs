//! `plan`: what an image would cost. Walks like `image` and writes nothing.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::block_set::BlockSet;
use crate::commands::capture::Capture;
use crate::commands::journal::Journal;
use crate::commands::reach::{Origin, Reach, SpoolPlace};
use crate::error::Result;
use crate::ext::{
    BlockKind, JournalMode, Scope, Selection, Walk, WalkOptions, Walker,
};
use crate::identify::describe_superblock;
use crate::inventory::Content;
use crate::observer::{Event, Observer};
use crate::source::{BlockSource, SourceFacts};
use crate::stop::Stop;
use crate::units::{
    BlockCount, BlockNumber, BlockRun, BlockSize, ByteCount, ByteOffset,
};

/// Asks what an image would cost.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PlanRequest {
    /// The device or file that the filesystem lies on.
    pub device: PathBuf,
    /// Which rules select blocks.
    pub selection: Selection,
    /// How much of the journal is taken.
    pub journal: JournalMode,
    /// How far the selection goes.
    pub scope: Scope,
    /// Use this superblock (`-b`).
    pub superblock: Option<BlockNumber>,
    /// The block size that the filesystem must have (`-B`).
    pub block_size: Option<BlockSize>,
    /// Inode tables whole, also where they were never used.
    pub full_tables: bool,
    /// Where the filesystem starts on the device.
    pub source_offset: ByteOffset,
}

/// What an image would cost.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What the filesystem lies on.
    pub source: SourceFacts,
    /// What the superblock says.
    pub filesystem: Content,
    /// The superblock that was used.
    pub superblock_at: BlockNumber,
    /// The size of a block.
    pub block_size: BlockSize,
    /// The blocks of the whole filesystem.
    pub filesystem_blocks: BlockCount,
    /// How much there is of each kind, in the order of [`BlockKind::ALL`]; a
    /// damaged filesystem may claim a block twice.
    pub kinds: Vec<Cost>,
    /// All that would be stored, each block once.
    pub blocks: BlockCount,
    /// The same in bytes.
    pub bytes: ByteCount,
    /// What of the journal matters, if there is one that can be read.
    pub journal: Option<JournalCost>,
    /// Of these, what lies beyond the end of the device.
    pub blocks_beyond_end: BlockCount,
    /// What this walk has read.
    pub read: ByteCount,
    /// How long it took.
    pub took: Duration,
    /// How long an image may take, going by that.
    pub estimate: Duration,
    /// How many findings there are.
    pub findings: u64,
}

/// What the journal costs, and what `--journal live` saves of that.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct JournalCost {
    /// All of the journal.
    pub bytes: ByteCount,
    /// What a replay needs: all of it where that cannot be told.
    pub live: ByteCount,
    /// An image with all of the journal.
    pub full_image: ByteCount,
}

impl JournalCost {
    /// What `live` does not store.
    #[must_use]
    pub const fn saves(&self) -> ByteCount {
        ByteCount(self.bytes.0.saturating_sub(self.live.0))
    }

    /// The same in hundredths of the image.
    #[must_use]
    pub fn saves_percent(&self) -> u64 {
        let hundred = self.saves().0.saturating_mul(100);
        hundred.checked_div(self.full_image.0).unwrap_or(0)
    }
}

/// How much there is of one kind.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Cost {
    /// The kind.
    pub kind: BlockKind,
    /// Its blocks.
    pub blocks: BlockCount,
    /// The same in bytes.
    pub bytes: ByteCount,
}

/// Walks the filesystem as `image` would.
///
/// # Errors
///
/// As `image`, without what has to do with the output.
pub fn plan(
    request: &PlanRequest,
    reach: &Reach,
    observer: &dyn Observer,
    stop: &Stop,
) -> Result<Plan> {
    let origin = Origin::new(
        reach,
        &request.device,
        request.source_offset,
        observer,
        stop,
    )?;
    let identity = origin.identity();
    let opened = origin.open(SpoolPlace::Planned, &identity, observer)?;
    let source = opened.source();
    if source.facts().mounted_rw {
        observer.event(&Event::Warning {
            code: "mounted_rw",
            message: format!(
                "{} is mounted read/write: it changes meanwhile",
                source.facts().name
            ),
        });
    }
    let walker = Walker::new(WalkOptions {
        selection: request.selection,
        journal: request.journal,
        scope: request.scope,
        superblock: request.superblock,
        block_size: request.block_size,
        full_tables: request.full_tables,
        device_length: Some(source.facts().length),
        trace: false,
        journal_last: false,
    });
    let tally = Tally { observer, done: AtomicU64::new(0) };
    let started = Instant::now();
    let walk = Capture::new(source, &tally, stop).walk(walker, None)?;
    let took = started.elapsed();
    for finding in &walk.findings {
        observer.event(&Event::Finding(finding));
    }
    let read = ByteCount(tally.done.load(Ordering::Relaxed));
    let mut plan = cost(&walk, source.facts(), read, took);
    plan.journal = journal_cost(request, &walk, source)?;
    Ok(plan)
}

fn cost(
    walk: &Walk,
    source: &SourceFacts,
    read: ByteCount,
    took: Duration,
) -> Plan {
    let size = walk.geometry.block_size;
    let bytes_of = |count| size.bytes_of(count).unwrap_or(ByteCount(u64::MAX));
    let kinds = BlockKind::ALL
        .iter()
        .filter_map(|&kind| {
            let blocks = walk.kind(kind)?.count();
            (blocks.0 > 0).then(|| Cost {
                kind,
                blocks,
                bytes: bytes_of(blocks),
            })
        })
        .collect();
    let blocks = walk.selected.count();
    let bytes = bytes_of(blocks);
    let inside = size.block_of(ByteOffset(source.length.0));
    let on_device = BlockRun::new(BlockNumber(0), BlockCount(inside.0))
        .map_or(blocks, |run| walk.selected.count_in(run));
    Plan {
        source: source.clone(),
        filesystem: describe_superblock(&walk.superblock).unwrap_or_default(),
        superblock_at: walk.superblock_at,
        block_size: size,
        filesystem_blocks: walk.geometry.blocks,
        kinds,
        blocks,
        bytes,
        journal: None,
        blocks_beyond_end: BlockCount(blocks.0.saturating_sub(on_device.0)),
        read,
        took,
        estimate: estimate(read, took, bytes),
        findings: walk.findings_total,
    }
}

/// What the journal costs; a look at its log if the walk took none.
fn journal_cost(
    request: &PlanRequest,
    walk: &Walk,
    source: &dyn BlockSource,
) -> Result<Option<JournalCost>> {
    let Some(journal) = Journal::open(walk, source)? else { return Ok(None) };
    let selected =
        walk.kind(BlockKind::Journal).map_or(BlockCount(0), BlockSet::count);
    let all = journal.blocks();
    let live = match request.journal {
        JournalMode::Live => selected,
        JournalMode::Full | JournalMode::None => {
            journal.live_blocks(walk)?.unwrap_or(all)
        }
    };
    let size = walk.geometry.block_size;
    let bytes_of = |count| size.bytes_of(count).unwrap_or(ByteCount(u64::MAX));
    let rest = walk.selected.count().0.saturating_sub(selected.0);
    Ok(Some(JournalCost {
        bytes: bytes_of(all),
        live: bytes_of(live),
        full_image: bytes_of(BlockCount(rest.saturating_add(all.0))),
    }))
}

/// An image reads what it stores once, and a bit more; so it takes as long
/// for each byte as the walk did, and no less than the walk.
fn estimate(read: ByteCount, took: Duration, bytes: ByteCount) -> Duration {
    let nanos = took
        .as_nanos()
        .saturating_mul(u128::from(bytes.0))
        .checked_div(u128::from(read.0))
        .unwrap_or(0);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)).max(took)
}

/// Passes events on and remembers how far they said the walk was.
struct Tally<'a> {
    observer: &'a dyn Observer,
    done: AtomicU64,
}

impl Observer for Tally<'_> {
    fn event(&self, event: &Event<'_>) {
        if let Event::Progress { done, .. } = event {
            self.done.store(done.0, Ordering::Relaxed);
        }
        self.observer.event(event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_estimate_follows_the_bytes_but_is_no_shorter_than_the_walk() {
        let second = Duration::from_secs(1);
        let about =
            |read, bytes| estimate(ByteCount(read), second, ByteCount(bytes));
        assert_eq!(about(100, 500), 5 * second);
        assert_eq!(about(100, 50), second);
        assert_eq!(about(0, 50), second);
        assert_eq!(about(1, u64::MAX), Duration::from_nanos(u64::MAX));
    }
}
