//! The superblock of ext2/3/4, as far as a listing needs it.
//!
//! Fields and feature bits: Linux Documentation/filesystems/ext4, "The Super
//! Block".

use crate::identify::fields::{le16, le32, text, uuid};
use crate::identify::look::Look;
use crate::inventory::{Content, ContentKind, State};
use crate::units::{BlockNumber, BlockSize, ByteCount};

const SUPERBLOCK_BYTES: u64 = 1024;
const MAGIC: u16 = 0xef53;

const COMPAT_HAS_JOURNAL: u32 = 0x4;
const INCOMPAT_RECOVER: u32 = 0x4;
const INCOMPAT_JOURNAL_DEV: u32 = 0x8;
const INCOMPAT_64BIT: u32 = 0x80;
/// filetype, meta_bg: what ext2 and ext3 know.
const INCOMPAT_OLD: u32 = 0x2 | 0x10;
/// sparse_super, large_file, btree_dir: what ext2 and ext3 know.
const RO_COMPAT_OLD: u32 = 0x1 | 0x2 | 0x4;
const RO_COMPAT_METADATA_CSUM: u32 = 0x400;
const STATE_CLEAN: u16 = 1;
const STATE_ERRORS: u16 = 2;
const STATE_ORPHANS: u16 = 4;

/// Where mke2fs puts the first copy, with default groups: the block and the
/// logarithm of the block size.
const COPIES: [(u64, u32); 3] = [(32_768, 12), (8193, 10), (16_384, 11)];

/// A filesystem whose first superblock is there.
pub(super) fn first(look: &Look<'_>) -> Option<Content> {
    parse(&look.bytes(1024, SUPERBLOCK_BYTES)?)
}

/// A filesystem whose first superblock is lost, by a copy of it.
pub(super) fn copy(look: &Look<'_>) -> Option<Content> {
    COPIES.into_iter().find_map(|(block, log2)| {
        let block = BlockNumber(block);
        let size = BlockSize::from_log2(log2)?;
        let at = block.offset(size)?;
        let bytes = look.bytes(at.0, SUPERBLOCK_BYTES)?;
        let mut content = parse(&bytes)?;
        // s_block_group_nr tells a copy from a filesystem inside a file.
        let group = le16(&bytes, 0x5a)?;
        (content.block_size == Some(size) && group == 1).then(|| {
            content.state.push(State::CopyUsed);
            content.superblock_copy = Some(block);
            content
        })
    })
}

fn parse(bytes: &[u8]) -> Option<Content> {
    let revision = le32(bytes, 0x4c)?;
    if le16(bytes, 0x38)? != MAGIC || revision > 1 {
        return None;
    }
    let log2 = le32(bytes, 0x18)?.checked_add(10)?;
    let block_size = BlockSize::from_log2(log2)?;
    let features = match revision {
        0 => Features::default(),
        _ => Features {
            compat: le32(bytes, 0x5c)?,
            incompat: le32(bytes, 0x60)?,
            ro_compat: le32(bytes, 0x64)?,
        },
    };
    let high = match features.incompat & INCOMPAT_64BIT {
        0 => 0,
        _ => le32(bytes, 0x150)?,
    };
    let blocks = u64::from(le32(bytes, 0x4)?)
        | u64::from(high).checked_shl(32).unwrap_or_default();
    Some(Content {
        kind: features.kind(),
        label: text(bytes, 0x78, 16),
        uuid: uuid(bytes, 0x68),
        size: blocks.checked_mul(block_size.bytes_u64()).map(ByteCount),
        block_size: Some(block_size),
        last_mounted: text(bytes, 0x88, 64),
        state: state(bytes, features)?,
        ..Content::default()
    })
}

fn state(bytes: &[u8], features: Features) -> Option<Vec<State>> {
    let mut state = Vec::new();
    if features.incompat & INCOMPAT_JOURNAL_DEV == 0 {
        let flags = le16(bytes, 0x3a)?;
        let recover = features.incompat & INCOMPAT_RECOVER != 0;
        if recover {
            state.push(State::NeedsRecovery);
        }
        if flags & STATE_ERRORS != 0 {
            state.push(State::Errors);
        }
        if flags & STATE_ORPHANS != 0 || le32(bytes, 0xe8)? != 0 {
            state.push(State::Orphans);
        }
        if flags & STATE_CLEAN == 0 && state.is_empty() {
            state.push(State::NotClean);
        }
        if state.is_empty() {
            state.push(State::Clean);
        }
    }
    if features.ro_compat & RO_COMPAT_METADATA_CSUM != 0 {
        // s_checksum is the CRC of all before it, not inverted at the end.
        let sum = !crc32c::crc32c(bytes.get(..0x3fc)?);
        if le32(bytes, 0x3fc)? != sum {
            state.push(State::BadChecksum);
        }
    }
    Some(state)
}

#[derive(Clone, Copy, Default)]
struct Features {
    compat: u32,
    incompat: u32,
    ro_compat: u32,
}

impl Features {
    const fn kind(self) -> ContentKind {
        let old = self.incompat & !(INCOMPAT_OLD | INCOMPAT_RECOVER) == 0
            && self.ro_compat & !RO_COMPAT_OLD == 0;
        if self.incompat & INCOMPAT_JOURNAL_DEV != 0 {
            ContentKind::ExtJournal
        } else if !old {
            ContentKind::Ext4
        } else if self.compat & COMPAT_HAS_JOURNAL != 0 {
            ContentKind::Ext3
        } else {
            ContentKind::Ext2
        }
    }
}
