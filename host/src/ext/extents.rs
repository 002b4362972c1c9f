//! Extent trees: a header and entries, in the inode itself or in a block.
//!
//! The root lies in the 60 bytes of `i_block`. Entries of a leaf (depth 0)
//! are extents, entries of the others name the nodes below.

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use crate::ext::finding::Fault;

/// `eh_magic`.
const MAGIC: u16 = 0xF30A;
/// Size of the header, and of an entry.
pub(super) const ENTRY_BYTES: usize = 12;
/// `ee_len` above this means an extent that is allocated but not written.
const WRITTEN_MAX: u16 = 32768;
/// The deepest tree that the kernel makes.
pub(super) const DEPTH_MAX: u16 = 5;

/// The head of every node.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawHeader {
    eh_magic: U16,
    eh_entries: U16,
    eh_max: U16,
    eh_depth: U16,
    eh_generation: U32,
}

/// An entry of a leaf.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawExtent {
    ee_block: U32,
    ee_len: U16,
    ee_start_hi: U16,
    ee_start_lo: U32,
}

/// An entry of the other nodes.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawIndex {
    ei_block: U32,
    ei_leaf_lo: U32,
    ei_leaf_hi: U16,
    ei_unused: U16,
}

/// Whether `node` begins with `eh_magic`.
pub(super) fn has_magic(node: &[u8]) -> bool {
    U16::ref_from_prefix(node).is_ok_and(|(magic, _)| magic.get() == MAGIC)
}

/// A header whose counts fit the node that it heads.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Header {
    pub(super) entries: u16,
    pub(super) max: u16,
    pub(super) depth: u16,
}

impl Header {
    /// Checks the header of `node`, by e2image's rule.
    pub(super) fn check(node: &[u8]) -> Result<Self, Fault> {
        let Ok((raw, _)) = RawHeader::ref_from_prefix(node) else {
            return Err(Fault::Missing);
        };
        if raw.eh_magic.get() != MAGIC {
            return Err(Fault::BadMagic);
        }
        let room = node
            .len()
            .saturating_sub(ENTRY_BYTES)
            .checked_div(ENTRY_BYTES)
            .unwrap_or(0);
        let max = raw.eh_max.get();
        // A checksum or rounding may cost a node two entries.
        if usize::from(max) > room || usize::from(max) < room.saturating_sub(2)
        {
            return Err(Fault::BadCount(u64::from(max)));
        }
        let entries = raw.eh_entries.get();
        if entries > max {
            return Err(Fault::BadCount(u64::from(entries)));
        }
        Ok(Self { entries, max, depth: raw.eh_depth.get() })
    }
}

/// A stretch of a file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Extent {
    /// Its first block as the file counts.
    pub(crate) logical: u64,
    /// Where that lies in the filesystem.
    pub(crate) physical: u64,
    /// How many blocks.
    pub(crate) count: u64,
}

impl Extent {
    /// The file's block behind it.
    pub(super) const fn end(&self) -> u64 {
        self.logical.saturating_add(self.count)
    }

    /// Adds `next` to `open`, if it goes on where that ends; else takes its
    /// place and hands out what was open.
    pub(super) fn join(open: &mut Option<Self>, next: Self) -> Option<Self> {
        if let Some(open) = open
            && open.end() == next.logical
            && open.physical.saturating_add(open.count) == next.physical
        {
            open.count = open.count.saturating_add(next.count);
            return None;
        }
        open.replace(next)
    }
}

/// Where entry `index` lies in its node.
pub(super) fn entry_at(index: u16) -> usize {
    usize::from(index).saturating_add(1).saturating_mul(ENTRY_BYTES)
}

/// Entry `index` of a leaf.
pub(super) fn extent(node: &[u8], index: u16) -> Option<Extent> {
    let bytes = node.get(entry_at(index)..)?;
    let (raw, _) = RawExtent::ref_from_prefix(bytes).ok()?;
    let length = raw.ee_len.get();
    let count = if length > WRITTEN_MAX {
        length.wrapping_sub(WRITTEN_MAX)
    } else {
        length
    };
    let high = u64::from(raw.ee_start_hi.get()).wrapping_shl(32);
    Some(Extent {
        logical: u64::from(raw.ee_block.get()),
        physical: u64::from(raw.ee_start_lo.get()) | high,
        count: u64::from(count),
    })
}

/// Entry `index` of an inner node: the first file block that it covers and
/// the node below.
pub(super) fn index(node: &[u8], index: u16) -> Option<(u64, u64)> {
    let bytes = node.get(entry_at(index)..)?;
    let (raw, _) = RawIndex::ref_from_prefix(bytes).ok()?;
    let high = u64::from(raw.ei_leaf_hi.get()).wrapping_shl(32);
    Some((
        u64::from(raw.ei_block.get()),
        u64::from(raw.ei_leaf_lo.get()) | high,
    ))
}

/// e2image's view of the extents of one file, which matters only where they
/// are out of order.
///
/// It remembers how far it came. An extent that lies before that place
/// altogether is passed over together with the entry that follows it in the
/// same node; of one
/// that lies before it in part, as many blocks as it has are taken from the
/// middle on.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct InOrder {
    next: u64,
    skip: bool,
}

impl InOrder {
    /// The node is over; what would follow the passed extent lies in another
    /// one and is not lost.
    pub(super) const fn end_node(&mut self) {
        self.skip = false;
    }

    /// The blocks that e2image takes of `extent`: the first and how many.
    pub(super) fn take(&mut self, extent: Extent) -> Option<(u64, u64)> {
        if std::mem::take(&mut self.skip) {
            return None;
        }
        let end = extent.end();
        if end <= self.next {
            self.skip = true;
            return None;
        }
        let passed = self.next.saturating_sub(extent.logical);
        self.next = end;
        Some((extent.physical.saturating_add(passed), extent.count))
    }
}
