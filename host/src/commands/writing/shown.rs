//! A plan as people and scripts see it before they confirm it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use crate::ext::BlockKind;
use crate::install::Plan;
use crate::units::{BlockSize, ByteCount};

/// What would be written, and how to say yes to it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct WritePlan {
    /// The verb.
    pub op: &'static str,
    /// Where the new content comes from.
    pub image: String,
    /// What is written to.
    pub device: String,
    /// The filesystem's UUID, as it will be.
    pub uuid: Option<String>,
    /// How much of each kind, in the order of [`BlockKind::ALL`]. The
    /// superblock is written twice: marked first, as it shall be last.
    pub kinds: Vec<KindWrites>,
    /// The groups that it touches, ascending.
    pub groups: Vec<u32>,
    /// Blocks of the filesystem that are written, each once.
    pub blocks: u64,
    /// Bytes that are written.
    pub bytes: ByteCount,
    /// How long it may take.
    pub estimate: Duration,
    /// Where what lies there now is kept.
    pub undo: PathBuf,
    /// The plan's digest, hexadecimal.
    pub plan: String,
    /// What `--confirm` takes; `None` when there is nothing to confirm.
    pub confirm: Option<String>,
    /// What else is worth knowing before saying yes.
    pub remarks: Vec<String>,
}

/// How much of one kind.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct KindWrites {
    /// The kind.
    pub kind: BlockKind,
    /// Blocks.
    pub blocks: u64,
    /// Bytes.
    pub bytes: ByteCount,
}

/// A disk that nobody has measured is taken to write so much a second.
const BYTES_A_SECOND: u64 = 20 << 20;

impl WritePlan {
    /// The numbers of `plan`; names and places are for the caller to fill in.
    #[must_use]
    pub fn of(op: &'static str, plan: &Plan, size: BlockSize) -> Self {
        let mut blocks: BTreeMap<BlockKind, BTreeSet<u64>> = BTreeMap::new();
        for entry in &plan.entries {
            let last = entry.range().end().0.saturating_sub(1);
            let first = entry.range().start().0 / size.bytes_u64();
            blocks
                .entry(entry.kind)
                .or_default()
                .extend(first..=last / size.bytes_u64());
        }
        let bytes = plan.bytes_by_kind();
        let kinds: Vec<KindWrites> = BlockKind::ALL
            .iter()
            .filter_map(|&kind| {
                let blocks = blocks.get(&kind)?.len() as u64;
                let bytes = *bytes.get(&kind)?;
                Some(KindWrites { kind, blocks, bytes })
            })
            .collect();
        let bytes = plan.bytes();
        // Written, and read twice: once to be sure, once to prove it.
        let seconds = bytes.0.saturating_mul(3) / BYTES_A_SECOND;
        Self {
            op,
            image: String::new(),
            device: String::new(),
            uuid: None,
            blocks: kinds.iter().map(|kind| kind.blocks).sum(),
            kinds,
            groups: Vec::new(),
            bytes,
            estimate: Duration::from_secs(seconds),
            undo: PathBuf::new(),
            plan: blake3::Hash::from_bytes(plan.digest()).to_string(),
            confirm: None,
            remarks: Vec::new(),
        }
    }
}
