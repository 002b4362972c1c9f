//! What differs between a device and what shall lie on it.

use std::collections::BTreeMap;

use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};
use crate::ext::BlockKind;
use crate::ext::superblock::checksum;
use crate::undo::{Entry, Stage, plan_digest};
use crate::units::{ByteCount, ByteOffset, ByteRange};

/// No entry is longer: what is held in memory at once.
const ENTRY_BYTES_MAX: usize = 1 << 20;

/// Where the superblock lies in the filesystem, and how long it is.
const SUPERBLOCK: (u64, usize) = (1024, 1024);

/// `s_state` in the superblock, and its bit for "errors detected".
const S_STATE: usize = 0x3A;
const EXT2_ERROR_FS: u8 = 2;

/// Collects what differs.
#[derive(Debug, Default)]
pub struct Planner {
    entries: Vec<Entry>,
}

/// A plan: what is written, in the order in which it is written.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Plan {
    /// By stage, then by place.
    pub entries: Vec<Entry>,
}

impl Planner {
    /// What differs so far.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Compares what lies at `start` with what shall lie there, in units of
    /// `unit` bytes (a block, or a sector).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Internal`] when the two differ in length or the unit does
    /// not divide it.
    pub fn compare(
        &mut self,
        start: ByteOffset,
        kind: BlockKind,
        unit: usize,
        old: &[u8],
        new: &[u8],
    ) -> Result<()> {
        self.compare_or(start, (kind, unit), (old, new), |_| false)
    }

    /// As [`Self::compare`]; also the units at the places of which `lost` is
    /// true are written, whatever they hold: they cannot be read.
    ///
    /// # Errors
    ///
    /// As [`Self::compare`].
    pub fn compare_or(
        &mut self,
        start: ByteOffset,
        (kind, unit): (BlockKind, usize),
        (old, new): (&[u8], &[u8]),
        lost: impl Fn(ByteOffset) -> bool,
    ) -> Result<()> {
        let unit = unit.max(1);
        if old.len() != new.len() || !old.len().is_multiple_of(unit) {
            return Err(Error::new(
                ErrorKind::Internal,
                "the sides of a comparison do not fit",
            ));
        }
        let is_lost = |index: usize| {
            start
                .checked_add(ByteCount((index * unit) as u64))
                .is_some_and(&lost)
        };
        let differs: Vec<bool> = old
            .chunks(unit)
            .zip(new.chunks(unit))
            .enumerate()
            .map(|(index, (old, new))| old != new || is_lost(index))
            .collect();
        let most = (ENTRY_BYTES_MAX / unit).max(1);
        let mut at = 0;
        while at < differs.len() {
            if !differs[at] {
                at += 1;
                continue;
            }
            let run = differs[at..].iter().take(most).take_while(|d| **d);
            let end = at + run.count();
            let bytes = at * unit..end * unit;
            self.push(
                start,
                Stage::of(kind),
                kind,
                bytes.start,
                (&old[bytes.clone()], &new[bytes]),
            )?;
            at = end;
        }
        Ok(())
    }

    /// The plan. `old` and `new` are the superblock as it lies on the device
    /// and as it shall be; `offset` is where the filesystem starts.
    ///
    /// A plan that writes anything first marks the filesystem as damaged and
    /// last writes the superblock as it shall be, also where that does not
    /// change.
    ///
    /// # Errors
    ///
    /// When the filesystem's offset is absurd.
    pub fn finish(
        mut self,
        offset: ByteOffset,
        old: &[u8; 1024],
        new: &[u8; 1024],
    ) -> Result<Plan> {
        if self.entries.is_empty() && old == new {
            return Ok(Plan::default());
        }
        let kind = BlockKind::Superblock;
        let mark = marked(old, new);
        let at = usize::try_from(SUPERBLOCK.0).unwrap_or(SUPERBLOCK.1);
        self.push(offset, Stage::Mark, kind, at, (old, &mark))?;
        self.push(offset, Stage::Superblock, kind, at, (&mark, new))?;
        self.entries.sort_unstable_by_key(|e| (e.stage, e.range().start()));
        Ok(Plan { entries: self.entries })
    }

    fn push(
        &mut self,
        start: ByteOffset,
        stage: Stage,
        kind: BlockKind,
        skip: usize,
        (old, new): (&[u8], &[u8]),
    ) -> Result<()> {
        let range = start
            .checked_add(ByteCount(skip as u64))
            .and_then(|at| ByteRange::new(at, ByteCount(old.len() as u64)));
        let entry = range.and_then(|range| {
            let digest = |bytes| *blake3::hash(bytes).as_bytes();
            Entry::new(range, stage, kind, digest(old), digest(new))
        });
        let Some(entry) = entry else {
            return Err(Error::new(
                ErrorKind::Internal,
                format!("no write is possible at byte {start} + {skip}"),
            ));
        };
        self.entries.push(entry);
        Ok(())
    }
}

impl Plan {
    /// Whether there is nothing to write.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many bytes it writes.
    #[must_use]
    pub fn bytes(&self) -> ByteCount {
        ByteCount(self.entries.iter().map(|e| e.range().length().0).sum())
    }

    /// How many bytes of each kind it writes.
    #[must_use]
    pub fn bytes_by_kind(&self) -> BTreeMap<BlockKind, ByteCount> {
        let mut kinds = BTreeMap::new();
        for entry in &self.entries {
            let sum: &mut ByteCount = kinds.entry(entry.kind).or_default();
            sum.0 += entry.range().length().0;
        }
        kinds
    }

    /// The digest of the plan.
    #[must_use]
    pub fn digest(&self) -> Digest {
        plan_digest(&self.entries)
    }

    /// What a person types to confirm exactly this plan on exactly this
    /// device: see [`token`].
    #[must_use]
    pub fn token(&self, device_id: &[u8]) -> String {
        token(&self.digest(), device_id)
    }
}

/// What a person types to confirm exactly the plan with this digest on
/// exactly this device: ten letters and digits.
#[must_use]
pub fn token(plan: &Digest, device_id: &[u8]) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"e2wire confirm");
    hasher.update(&(device_id.len() as u64).to_le_bytes());
    hasher.update(device_id);
    hasher.update(plan);
    // No letters that are read for one another.
    const LETTERS: &[u8; 32] = b"23456789abcdefghijkmnpqrstuvwxyz";
    hasher.finalize().as_bytes()[..10]
        .iter()
        .map(|byte| char::from(LETTERS[usize::from(byte % 32)]))
        .collect()
}

/// The superblock that stands while a plan is carried out: the old one with
/// the error bit set, so that everybody who looks knows that the filesystem
/// is not whole. Where the old one is none, the new one serves.
#[must_use]
pub fn marked(old: &[u8; 1024], new: &[u8; 1024]) -> [u8; 1024] {
    let has_magic = |bytes: &[u8; 1024]| bytes[0x38..0x3A] == [0x53, 0xEF];
    let mut mark = if has_magic(old) { *old } else { *new };
    mark[S_STATE] |= EXT2_ERROR_FS;
    if let Some(right) = checksum(&mark) {
        mark[1020..].copy_from_slice(&right.to_le_bytes());
    }
    mark
}
