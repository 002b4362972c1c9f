//! What the walker found wrong.
//!
//! Damaged input is normal input: it ends up here and not in an error.

use std::fmt;

use crate::ext::BlockKind;
use crate::ext::walk::FINDINGS_MAX;
use crate::units::{BlockNumber, BlockRun};

/// One thing that is wrong on the disk.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Finding {
    /// The structure that is damaged.
    pub structure: BlockKind,
    /// The block group that it belongs to.
    pub group: Option<u32>,
    /// The inode that it belongs to.
    pub inode: Option<u32>,
    /// The block that holds it.
    pub block: Option<BlockNumber>,
    /// What is wrong.
    pub fault: Fault,
    /// What that means for the result.
    pub effect: Effect,
}

/// What is wrong with a structure.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Fault {
    /// Could not be read.
    Unreadable,
    /// Its magic number is wrong.
    BadMagic,
    /// Its checksum is wrong.
    BadChecksum,
    /// This field of it cannot be true.
    BadField(&'static str),
    /// It points at a block outside the filesystem.
    OutOfRange(BlockNumber),
    /// A count or size in it cannot be right.
    BadCount(u64),
    /// Entries overlap or are out of order.
    BadOrder,
    /// It points back at itself, or at something already seen elsewhere.
    Cycle(BlockNumber),
    /// Two structures claim the same block.
    DuplicateClaim(BlockNumber),
    /// The device ends before this block, the filesystem does not.
    Truncated(BlockNumber),
    /// Some of these blocks belong to another structure as well.
    DuplicateIn(BlockRun),
    /// It is missing altogether.
    Missing,
}

/// What a fault means for the result.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Effect {
    /// Noted; nothing was left out.
    None,
    /// This pointer or entry was left out.
    EntrySkipped,
    /// Everything below this structure was left out.
    SubtreeSkipped,
    /// The copy in this block was used in its place.
    CopyUsed(BlockNumber),
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.structure)?;
        if let Some(group) = self.group {
            write!(f, ", group {group}")?;
        }
        if let Some(inode) = self.inode {
            write!(f, ", inode {inode}")?;
        }
        if let Some(block) = self.block {
            write!(f, ", block {block}")?;
        }
        write!(f, ": {}", self.fault)?;
        match self.effect {
            Effect::None => Ok(()),
            effect => write!(f, " ({effect})"),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable => f.write_str("unreadable"),
            Self::BadMagic => f.write_str("wrong magic number"),
            Self::BadChecksum => f.write_str("wrong checksum"),
            Self::BadField(name) => write!(f, "impossible {name}"),
            Self::OutOfRange(block) => {
                write!(f, "points at block {block}, outside the filesystem")
            }
            Self::BadCount(count) => write!(f, "impossible count {count}"),
            Self::BadOrder => f.write_str("entries overlap or out of order"),
            Self::Cycle(block) => write!(f, "leads back to block {block}"),
            Self::DuplicateClaim(block) => {
                write!(f, "block {block} belongs to something else as well")
            }
            Self::Truncated(block) => {
                write!(f, "the device ends before block {block}")
            }
            Self::DuplicateIn(run) => write!(
                f,
                "some of {} blocks from {} on belong to something else as well",
                run.count(),
                run.first()
            ),
            Self::Missing => f.write_str("missing"),
        }
    }
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("nothing left out"),
            Self::EntrySkipped => f.write_str("this entry is left out"),
            Self::SubtreeSkipped => f.write_str("all below it is left out"),
            Self::CopyUsed(block) => {
                write!(f, "the copy in block {block} was used")
            }
        }
    }
}

/// Collects findings: the first ones whole, all of them counted.
#[derive(Debug, Default)]
pub struct Findings {
    /// The first of them (at most [`FINDINGS_MAX`]).
    pub list: Vec<Finding>,
    /// How many there were in all.
    pub total: u64,
}

impl Findings {
    /// Adds one.
    pub fn add(&mut self, finding: Finding) {
        self.total = self.total.saturating_add(1);
        if self.list.len() < FINDINGS_MAX {
            self.list.push(finding);
        }
    }

    /// Adds those of `other` behind these.
    pub fn join(&mut self, mut other: Self) {
        self.total = self.total.saturating_add(other.total);
        let room = FINDINGS_MAX.saturating_sub(self.list.len());
        other.list.truncate(room);
        self.list.append(&mut other.list);
    }
}
