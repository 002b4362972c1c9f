//! What was lost with the blocks that could not be read: what they were for,
//! whose they were, and what could replace them.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Map, Value, json};

use crate::block_set::BlockSet;
use crate::commands::capture::{Capture, Losses};
use crate::commands::journal::{Journal, JournalCopy};
use crate::error::Result;
use crate::ext::claims::{Claim, copies, place_of};
use crate::ext::directory::{Entries, EntryType};
use crate::ext::{BlockKind, Walk, Walker};
use crate::observer::Silent;
use crate::source::{BlockSource, ReadFault};
use crate::stop::Stop;
use crate::text;
use crate::transfer::{Sweep, byte_ranges};
use crate::units::{BlockCount, BlockNumber, BlockRun, ByteRange};

/// So many are described; all are counted.
const HOLES_MAX: usize = 10_000;

/// So many blocks are looked at one by one: a device that was cut off may
/// lack millions.
const BLOCKS_MAX: u64 = 100_000;

/// How many names are kept while paths are looked for.
const NAMES_MAX: usize = 1 << 20;

/// A path of more names than this runs in a circle.
const DEPTH_MAX: usize = 256;

const ROOT_INODE: u32 = 2;

/// Some lost blocks that are all alike.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LostBlocks {
    /// The blocks.
    pub run: BlockRun,
    /// Why they could not be read.
    pub fault: ReadFault,
    /// The part of them that could not be read, where the rest was stored.
    pub sectors: Option<ByteRange>,
    /// What they were for.
    pub kind: Option<BlockKind>,
    /// The group that they describe, or lie in.
    pub group: Option<u32>,
    /// The inodes that they held, or the one that they belonged to: the first
    /// and the last.
    pub inodes: Option<(u32, u32)>,
    /// The path of that inode, escaped, where its directories are known.
    pub path: Option<String>,
    /// Blocks that hold copies.
    pub copies: Vec<BlockNumber>,
    /// The newest copy that the journal holds.
    pub journal: Option<JournalCopy>,
}

impl LostBlocks {
    /// Of which nothing more is known.
    const fn new(run: BlockRun, fault: ReadFault) -> Self {
        Self {
            run,
            fault,
            sectors: None,
            kind: None,
            group: None,
            inodes: None,
            path: None,
            copies: Vec::new(),
            journal: None,
        }
    }

    /// The fields that say what was lost, for scripts.
    #[must_use]
    pub fn fields(&self) -> Map<String, Value> {
        let mut fields = Map::new();
        let mut set = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                fields.insert(name.to_owned(), value);
            }
        };
        set("kind", self.kind.map(|kind| kind.name().into()));
        set("group", self.group.map(Into::into));
        set("inodes", self.inodes.map(|(first, last)| json!([first, last])));
        set("path", self.path.clone().map(Into::into));
        let copies: Vec<u64> = self.copies.iter().map(|copy| copy.0).collect();
        set("copies", (!copies.is_empty()).then(|| copies.into()));
        set(
            "journal",
            self.journal.map(|copy| {
                json!({
                    "block": copy.at.0,
                    "journal_block": copy.journal_block,
                    "transaction": copy.transaction,
                    "replayed": copy.is_replayed,
                    "escaped": copy.is_escaped,
                })
            }),
        );
        set(
            "sectors",
            self.sectors
                .map(|range| json!([range.start().0, range.length().0])),
        );
        fields
    }

    /// The same for people.
    #[must_use]
    pub fn sentence(&self) -> String {
        let first = self.run.first().0;
        let mut line = match self.run.count().0 {
            1 => format!("block {first}"),
            count => format!("{count} blocks from {first}"),
        };
        if let Some(range) = self.sectors {
            line = format!(
                "{} bytes at {} in {line}",
                range.length(),
                range.start()
            );
        }
        if let Some(kind) = self.kind {
            line.push_str(&format!(", {kind}"));
        }
        if let Some(group) = self.group {
            line.push_str(&format!(" of group {group}"));
        }
        match self.inodes {
            Some((one, last)) if one == last => {
                line.push_str(&format!(", inode {one}"));
            }
            Some((first, last)) => {
                line.push_str(&format!(", inodes {first} to {last}"));
            }
            None => {}
        }
        if let Some(path) = &self.path {
            line.push_str(&format!(", {path}"));
        }
        if !self.copies.is_empty() {
            let copies: Vec<String> =
                self.copies.iter().map(ToString::to_string).collect();
            line.push_str(&format!(
                " (copies in blocks {})",
                copies.join(", ")
            ));
        }
        if let Some(copy) = &self.journal {
            line.push_str(&format!(
                " ({} block {}, which is block {} of the journal, \
                 transaction {})",
                if copy.is_replayed {
                    "a replay of the journal writes it anew from"
                } else {
                    "the journal has a copy in"
                },
                copy.at,
                copy.journal_block,
                copy.transaction,
            ));
        }
        format!("{line}: {}", self.fault)
    }
}

/// Describes what `losses` cost. `walker` walks as the one did that made
/// `walk`, once more, to find out whose the blocks were.
///
/// # Errors
///
/// When the source fails as a whole.
pub fn describe(
    walk: &Walk,
    losses: &Losses,
    source: &dyn BlockSource,
    walker: Walker,
    stop: &Stop,
) -> Result<Vec<LostBlocks>> {
    let journal = in_journal(walk, losses, source, stop)?;
    let mut lost = Vec::new();
    let mut left = BLOCKS_MAX;
    for (fault, blocks) in &losses.blocks {
        for run in blocks.runs() {
            left = left.saturating_sub(run.count().0);
            if left > 0 {
                split(walk, run, *fault, &journal, &mut lost);
            } else if lost.len() < HOLES_MAX {
                lost.push(LostBlocks::new(run, *fault));
            }
        }
    }
    let size = walk.geometry.block_size;
    for sectors in &losses.sectors {
        let first = size.block_of(sectors.start());
        let run = BlockRun::new(first, BlockCount(1));
        let mut partly = Vec::new();
        if let Some(run) = run.filter(|_| lost.len() < HOLES_MAX) {
            split(walk, run, ReadFault::Medium, &journal, &mut partly);
        }
        let sectors = Some(*sectors);
        lost.extend(partly.into_iter().map(|l| LostBlocks { sectors, ..l }));
    }
    if lost.is_empty() {
        return Ok(lost);
    }
    let mut watched: BlockSet = lost.iter().map(|lost| lost.run).collect();
    if let Some(directories) = walk.kind(BlockKind::Directory) {
        watched.union_with(directories);
    }
    let again = Capture::new(source, &Silent, stop)
        .walk(walker.watching(watched), None)?;
    let mut claims = again.claims;
    claims.sort_unstable_by_key(|claim| claim.run.first());
    for entry in &mut lost {
        if let Some(claim) = claim_of(&claims, entry.kind, entry.run.first()) {
            entry.inodes = Some((claim.inode, claim.inode));
        }
    }
    let names = names(walk, &claims, source, stop)?;
    for entry in &mut lost {
        if let Some((one, last)) = entry.inodes
            && one == last
            && entry.kind != Some(BlockKind::InodeTable)
        {
            entry.path = path(&names, one);
        }
    }
    Ok(lost)
}

/// The copies that the journal holds of lost blocks, by block.
type InJournal = BTreeMap<BlockNumber, JournalCopy>;

/// The newest copies of what was lost, of all of it or in a part.
fn in_journal(
    walk: &Walk,
    losses: &Losses,
    source: &dyn BlockSource,
    stop: &Stop,
) -> Result<InJournal> {
    let size = walk.geometry.block_size;
    let mut wanted = BlockSet::new();
    for blocks in losses.blocks.values() {
        wanted.union_with(blocks);
    }
    for sectors in &losses.sectors {
        wanted.insert(size.block_of(sectors.start()));
    }
    if wanted.is_empty() {
        return Ok(InJournal::new());
    }
    match Journal::open(walk, source)? {
        Some(journal) => journal.copies(walk, &wanted, stop),
        None => Ok(InJournal::new()),
    }
}

/// Cuts a run where what it was for changes, and around what the journal
/// holds.
fn split(
    walk: &Walk,
    run: BlockRun,
    fault: ReadFault,
    in_journal: &InJournal,
    into: &mut Vec<LostBlocks>,
) {
    let mut open: Option<LostBlocks> = None;
    for block in (run.first().0..run.end().0).map(BlockNumber) {
        if into.len() >= HOLES_MAX {
            return;
        }
        let kind = walk.kind_of(block);
        let (group, inodes) =
            kind.map_or((None, None), |kind| place_of(walk, kind, block));
        let journal = in_journal.get(&block).copied();
        if let Some(last) = &mut open {
            let follows = match (last.inodes, inodes) {
                (Some((_, last)), Some((first, _))) => {
                    last.checked_add(1) == Some(first)
                }
                (None, None) => true,
                _ => false,
            };
            let follows =
                follows && last.journal.is_none() && journal.is_none();
            if follows && (last.kind, last.group) == (kind, group) {
                let count = last.run.count().0.saturating_add(1);
                let count = BlockCount(count);
                let grown = BlockRun::new(last.run.first(), count);
                last.run = grown.unwrap_or(last.run);
                last.inodes = last.inodes.zip(inodes).map(|(a, b)| (a.0, b.1));
                continue;
            }
        }
        into.extend(open.take());
        let one = BlockRun::new(block, BlockCount(1));
        open = one.map(|run| LostBlocks {
            journal,
            kind,
            group,
            inodes,
            copies: kind.map_or_else(Vec::new, |k| copies(walk, k, block)),
            ..LostBlocks::new(run, fault)
        });
    }
    into.extend(open);
}

/// Who claims `block` for `kind`; of several the last that began before.
fn claim_of(
    claims: &[Claim],
    kind: Option<BlockKind>,
    block: BlockNumber,
) -> Option<&Claim> {
    let behind = claims.partition_point(|claim| claim.run.first() <= block);
    let before = claims.get(..behind)?.iter().rev().take(64);
    before
        .filter(|claim| Some(claim.kind) == kind)
        .find(|claim| block < claim.run.end())
}

/// The directory that names an inode, and the name.
type Names = HashMap<u32, (u32, Vec<u8>)>;

/// The names of all directories, and of whatever else blocks were lost of.
fn names(
    walk: &Walk,
    claims: &[Claim],
    source: &dyn BlockSource,
    stop: &Stop,
) -> Result<Names> {
    let mut names = Names::new();
    let size = walk.geometry.block_size;
    let mut lost: Vec<u32> = claims.iter().map(|claim| claim.inode).collect();
    lost.sort_unstable();
    lost.dedup();
    let Some(blocks) = walk.kind(BlockKind::Directory) else {
        return Ok(names);
    };
    let sweep = Sweep { source, stop, blocks: None, checks: None };
    sweep.run(&byte_ranges(blocks.runs(), size), &mut |part| {
        let mut block = size.block_of(part.filled.range.start());
        for bytes in part.filled.bytes.chunks(size.bytes()) {
            let kind = Some(BlockKind::Directory);
            if let Some(claim) = claim_of(claims, kind, block) {
                take_names(bytes, claim.inode, &lost, &mut names);
            }
            block = BlockNumber(block.0.saturating_add(1));
        }
        Ok(())
    })?;
    Ok(names)
}

fn take_names(bytes: &[u8], directory: u32, lost: &[u32], names: &mut Names) {
    for entry in Entries::new(bytes) {
        let matters = entry.kind == EntryType::Directory
            || lost.binary_search(&entry.inode).is_ok();
        let is_self = entry.name == b"." || entry.name == b"..";
        if matters && !is_self && names.len() < NAMES_MAX {
            names
                .entry(entry.inode)
                .or_insert_with(|| (directory, entry.name.to_vec()));
        }
    }
}

/// The path of an inode from the root, if all names on it are known.
fn path(names: &Names, inode: u32) -> Option<String> {
    if inode == ROOT_INODE {
        return Some("/".to_owned());
    }
    let mut parts = Vec::new();
    let mut at = inode;
    while at != ROOT_INODE {
        let (directory, name) = names.get(&at)?;
        parts.push(text::escape(&String::from_utf8_lossy(name)).into_owned());
        at = *directory;
        if parts.len() > DEPTH_MAX {
            return None;
        }
    }
    parts.push(String::new());
    parts.reverse();
    Some(parts.join("/"))
}
