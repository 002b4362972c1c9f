//! The superblock of ext2/3/4, as far as a listing needs it.
//!
//! Fields and feature bits: Linux Documentation/filesystems/ext4, "The Super
//! Block".

use zerocopy::{FromBytes as _, IntoBytes as _};

use crate::ext::superblock::{
    MAGIC, RawSuperblock, SUPERBLOCK_BYTES, SUPERBLOCK_OFFSET, incompat,
    ro_compat,
};
use crate::identify::fields::{text, uuid};
use crate::identify::look::Look;
use crate::inventory::{Content, ContentKind, State};
use crate::units::{BlockNumber, BlockSize, ByteCount, u64_from};

/// `s_feature_compat`: there is a journal.
const COMPAT_HAS_JOURNAL: u32 = 0x4;
/// filetype, meta_bg: what ext2 and ext3 know.
const INCOMPAT_OLD: u32 = 0x2 | incompat::META_BG;
/// sparse_super, large_file, btree_dir: what ext2 and ext3 know.
const RO_COMPAT_OLD: u32 = ro_compat::SPARSE_SUPER | 0x2 | 0x4;
/// `s_state`
const STATE_CLEAN: u16 = 1;
const STATE_ERRORS: u16 = 2;
const STATE_ORPHANS: u16 = 4;

/// Where mke2fs puts the first copy, with default groups: the block and the
/// logarithm of the block size.
const COPIES: [(u64, u32); 3] = [(32_768, 12), (8193, 10), (16_384, 11)];

/// A filesystem whose first superblock is there.
pub(super) fn first(look: &Look<'_>) -> Option<Content> {
    content(&read(look, SUPERBLOCK_OFFSET)?)
}

/// A filesystem whose first superblock is lost, by a copy of it.
pub(super) fn copy(look: &Look<'_>) -> Option<Content> {
    COPIES.into_iter().find_map(|(block, log2)| {
        let block = BlockNumber(block);
        let size = BlockSize::from_log2(log2)?;
        let raw = read(look, block.offset(size)?.0)?;
        let mut content = content(&raw)?;
        // The group tells a copy from a filesystem inside a file.
        let is_copy =
            content.block_size == Some(size) && raw.s_block_group_nr.get() == 1;
        is_copy.then(|| {
            // Nobody keeps the state up to date in copies.
            content.state.retain(|state| *state == State::BadChecksum);
            content.state.push(State::CopyUsed);
            content.superblock_copy = Some(block);
            content
        })
    })
}

/// What the superblock in `bytes` says; nothing when it is none.
#[must_use]
pub fn describe_superblock(bytes: &[u8; SUPERBLOCK_BYTES]) -> Option<Content> {
    content(&RawSuperblock::read_from_bytes(bytes).ok()?)
}

fn read(look: &Look<'_>, at: u64) -> Option<RawSuperblock> {
    let bytes = look.bytes(at, u64_from(SUPERBLOCK_BYTES))?;
    RawSuperblock::read_from_bytes(&bytes).ok()
}

fn content(raw: &RawSuperblock) -> Option<Content> {
    if raw.s_magic.get() != MAGIC || raw.s_rev_level.get() > 1 {
        return None;
    }
    let log2 = raw.s_log_block_size.get().checked_add(10)?;
    let block_size = BlockSize::from_log2(log2)?;
    let features = Features::of(raw);
    let high = match features.incompat & incompat::BIT64 {
        0 => 0,
        _ => u64::from(raw.s_blocks_count_hi.get()),
    };
    let low = u64::from(raw.s_blocks_count_lo.get());
    let blocks = high.checked_shl(32)? | low;
    Some(Content {
        kind: features.kind(),
        label: text(&raw.s_volume_name, 0, 16),
        uuid: uuid(&raw.s_uuid, 0),
        size: blocks.checked_mul(block_size.bytes_u64()).map(ByteCount),
        block_size: Some(block_size),
        last_mounted: text(&raw.s_last_mounted, 0, 64),
        state: state(raw, features),
        ..Content::default()
    })
}

fn state(raw: &RawSuperblock, features: Features) -> Vec<State> {
    let mut state = Vec::new();
    if features.incompat & incompat::JOURNAL_DEV == 0 {
        let flags = raw.s_state.get();
        let checks = [
            (features.incompat & incompat::RECOVER != 0, State::NeedsRecovery),
            (flags & STATE_ERRORS != 0, State::Errors),
            (
                flags & STATE_ORPHANS != 0 || raw.s_last_orphan.get() != 0,
                State::Orphans,
            ),
        ];
        state.extend(
            checks.into_iter().filter_map(|(is, state)| is.then_some(state)),
        );
        if state.is_empty() {
            state.push(match flags & STATE_CLEAN {
                0 => State::NotClean,
                _ => State::Clean,
            });
        }
    }
    if features.ro_compat & ro_compat::METADATA_CSUM != 0
        && !checksum_is_right(raw)
    {
        state.push(State::BadChecksum);
    }
    state
}

/// `s_checksum` is the CRC-32C of all before it, not inverted at the end.
fn checksum_is_right(raw: &RawSuperblock) -> bool {
    let bytes = raw.as_bytes();
    bytes.split_last_chunk::<4>().is_some_and(|(before, _)| {
        raw.s_checksum.get() == !crc32c::crc32c(before)
    })
}

/// Features mean nothing in revision 0.
#[derive(Clone, Copy, Default)]
struct Features {
    compat: u32,
    incompat: u32,
    ro_compat: u32,
}

impl Features {
    const fn of(raw: &RawSuperblock) -> Self {
        if raw.s_rev_level.get() == 0 {
            return Self { compat: 0, incompat: 0, ro_compat: 0 };
        }
        Self {
            compat: raw.s_feature_compat.get(),
            incompat: raw.s_feature_incompat.get(),
            ro_compat: raw.s_feature_ro_compat.get(),
        }
    }

    const fn kind(self) -> ContentKind {
        let old = self.incompat & !(INCOMPAT_OLD | incompat::RECOVER) == 0
            && self.ro_compat & !RO_COMPAT_OLD == 0;
        if self.incompat & incompat::JOURNAL_DEV != 0 {
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
