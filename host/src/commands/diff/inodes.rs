//! Whose the blocks are that differ: inodes, their names, and the entries of
//! directories.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::block_set::BlockSet;
use crate::commands::diff::compare::Found;
use crate::commands::diff::fields::FieldChange;
use crate::commands::diff::side::Side;
use crate::commands::diff::{Sides, fields};
use crate::commands::paths::{Paths, directories};
use crate::commands::writing::read_bytes;
use crate::error::{ErrorKind, Result};
use crate::ext::BlockKind;
use crate::ext::claims::Claim;
use crate::ext::directory::Entries;
use crate::observer::Observer;
use crate::stop::Stop;
use crate::text;
use crate::units::{BlockCount, BlockNumber, BlockRun};

/// Details of so many inodes are kept; all are counted.
const INODES_MAX: usize = 10_000;

/// So many entries of directories are named in all.
const ENTRIES_MAX: usize = 10_000;

/// What of an inode is not the same.
#[derive(Clone, Debug, Default)]
pub(super) struct InodeChange {
    /// Of the inode itself.
    pub(super) fields: Vec<FieldChange>,
    /// The bitmap: in use now, or free now.
    pub(super) is_used: Option<bool>,
    /// Blocks that belong to it, by kind.
    blocks: BTreeMap<BlockKind, BlockSet>,
    /// What a directory names, there and here: the inodes.
    entries: BTreeMap<String, [Option<u32>; 2]>,
    /// Its path, on both sides.
    paths: [Option<String>; 2],
}

/// The inodes that are not the same.
#[derive(Debug, Default)]
pub(super) struct Inodes {
    changes: BTreeMap<u32, InodeChange>,
    numbers: BlockSet,
}

impl Inodes {
    /// The details of an inode, unless there are too many.
    pub(super) fn of(&mut self, inode: u32) -> Option<&mut InodeChange> {
        self.numbers.insert(BlockNumber(u64::from(inode)));
        let room = self.changes.len() < INODES_MAX;
        if !room && !self.changes.contains_key(&inode) {
            return None;
        }
        Some(self.changes.entry(inode).or_default())
    }

    /// How many there are.
    pub(super) fn count(&self) -> u64 {
        self.numbers.count().0
    }

    /// Those of which details are known, ascending.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &InodeChange)> {
        self.changes.iter().map(|(inode, change)| (*inode, change))
    }
}

/// Finds out whose the blocks are that differ, and what they are called.
///
/// # Errors
///
/// When a side cannot be read at all.
pub(super) fn attribute(
    found: &mut Found,
    sides: &Sides<'_>,
    observer: &dyn Observer,
    stop: &Stop,
) -> Result<()> {
    let mut wanted = BlockSet::new();
    found.owned.values().for_each(|blocks| wanted.union_with(blocks));
    for blocks in &found.lone_directories {
        wanted.union_with(blocks);
    }
    let [left, right] = sides;
    let claims = [
        left.claims(&wanted, observer, stop)?,
        right.claims(&wanted, observer, stop)?,
    ];
    for claim in claims.iter().flatten() {
        let Some(blocks) = found.owned.get(&claim.kind) else { continue };
        let differing: BlockSet = blocks.runs_in(claim.run).collect();
        if !differing.is_empty()
            && let Some(change) = found.inodes.of(claim.inode)
        {
            change.blocks.entry(claim.kind).or_default().union_with(&differing);
        }
    }
    compare_entries(found, sides, &claims)?;
    let mut names = Vec::new();
    for (side, claims) in sides.iter().zip(&claims) {
        let found = directories(claims);
        names.push(Paths::of(side.source(), side.size(), found)?);
    }
    for (inode, change) in &mut found.inodes.changes {
        for (path, names) in change.paths.iter_mut().zip(&names) {
            *path = names.path(*inode);
        }
    }
    Ok(())
}

/// What the directories name of which blocks differ.
fn compare_entries(
    found: &mut Found,
    sides: &Sides<'_>,
    claims: &[Vec<Claim>; 2],
) -> Result<()> {
    let none = BlockSet::new();
    let changed = found.owned.get(&BlockKind::Directory).unwrap_or(&none);
    let mut seen = BTreeSet::new();
    let mut names: BTreeMap<u32, BTreeMap<String, [Option<u32>; 2]>> =
        BTreeMap::new();
    for (index, (side, claims)) in sides.iter().zip(claims).enumerate() {
        // A block that is no directory's over there has no names there. What
        // the other side never held may have any.
        let other = sides[1 - index].walk.kind(BlockKind::Directory);
        let mut blocks = found.lone_directories[index].clone();
        if let Some(other) = other {
            blocks.subtract(other);
        }
        blocks.union_with(changed);
        for (inode, run) in directories(claims) {
            for block in blocks.runs_in(run).flat_map(each) {
                if seen.insert((index, inode, block)) {
                    let into = names.entry(inode).or_default();
                    entries(side, block, index, into)?;
                }
            }
        }
    }
    let mut room = ENTRIES_MAX;
    for (inode, names) in names {
        for (name, both) in names {
            if both[0] != both[1]
                && room > 0
                && let Some(change) = found.inodes.of(inode)
            {
                room -= 1;
                change.entries.insert(name, both);
            }
        }
    }
    Ok(())
}

fn each(run: BlockRun) -> impl Iterator<Item = BlockNumber> {
    (run.first().0..run.end().0).map(BlockNumber)
}

/// Adds what a block of a directory names.
fn entries(
    side: &Side<'_>,
    block: BlockNumber,
    index: usize,
    into: &mut BTreeMap<String, [Option<u32>; 2]>,
) -> Result<()> {
    let run = BlockRun::new(block, BlockCount(1));
    let place = run.and_then(|run| run.bytes(side.size()));
    let bytes = match place.map(|place| read_bytes(side.source(), place)) {
        Some(Err(error)) if error.kind() != ErrorKind::Refused => {
            return Err(error);
        }
        Some(Ok(bytes)) => bytes,
        Some(Err(_)) | None => return Ok(()),
    };
    for entry in Entries::new(&bytes) {
        let name = text::from_bytes(entry.name);
        into.entry(name).or_default()[index] = Some(entry.inode);
    }
    Ok(())
}

impl InodeChange {
    /// What it is called: where it moved, on both sides.
    pub(super) fn name(&self) -> String {
        let told = |path: &Option<String>| {
            path.clone().unwrap_or_else(|| "(no name)".to_owned())
        };
        match &self.paths {
            [None, None] => String::new(),
            [left, right] if left == right => told(left),
            [left, right] => format!("{} -> {}", told(left), told(right)),
        }
    }

    /// What is not the same, a line each.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(is_used) = self.is_used {
            let now = if is_used { "used" } else { "free" };
            lines.push(format!("in the inode bitmap: {now} now"));
        }
        if !self.fields.is_empty() {
            lines.push(fields::sentence(&self.fields));
        }
        for (kind, blocks) in &self.blocks {
            let count = text::count(blocks.count().0, "block");
            lines.push(format!("{count} of its {kind}"));
        }
        for (name, inodes) in &self.entries {
            lines.push(match inodes {
                [Some(left), Some(right)] => {
                    format!("entry \"{name}\": inode {left} -> {right}")
                }
                [Some(left), None] => {
                    format!("entry \"{name}\" (inode {left}) is gone")
                }
                [_, right] => {
                    let right = right.unwrap_or_default();
                    format!("entry \"{name}\" (inode {right}) is new")
                }
            });
        }
        lines
    }

    /// For scripts.
    pub(super) fn fact(&self, inode: u32) -> Value {
        let blocks: Vec<Value> = self
            .blocks
            .iter()
            .map(|(kind, blocks)| {
                json!({ "kind": kind.name(), "blocks": blocks.count().0 })
            })
            .collect();
        let entries: Vec<Value> = self
            .entries
            .iter()
            .map(|(name, [left, right])| {
                json!({ "name": name, "left": left, "right": right })
            })
            .collect();
        let fields: Vec<Value> =
            self.fields.iter().map(FieldChange::fact).collect();
        let [left, right] = &self.paths;
        json!({
            "inode": inode, "left_path": left, "right_path": right,
            "used_now": self.is_used, "fields": fields, "blocks": blocks,
            "entries": entries,
        })
    }
}
