//! What the journal has to say about a plan.

use zerocopy::FromBytes;

use crate::commands::install::content::Content;
use crate::commands::install::identity::{Found, refused};
use crate::commands::install::needs_recovery;
use crate::commands::install::select::Wish;
use crate::error::Result;
use crate::ext::BlockKind;
use crate::ext::superblock::RawSuperblock;
use crate::units::BlockNumber;

/// `s_jnl_backup_type`: `s_jnl_blocks` is a copy of the journal's `i_block`.
const JOURNAL_BACKUP_BLOCKS: u8 = 1;
/// `eh_magic` of an extent node.
const EXTENT_MAGIC: u16 = 0xF30A;

/// Refuses a device whose journal is still to be replayed, unless the plan
/// brings a journal of its own: what is written now would be written over by
/// the next mount.
///
/// # Errors
///
/// [`crate::error::ErrorKind::Refused`] then.
pub(super) fn refuse_recovery(
    content: &Content,
    found: &Found,
    wish: &Wish<'_>,
) -> Result<()> {
    if !found.raw.as_ref().is_some_and(needs_recovery) {
        return Ok(());
    }
    let brings_journal = wish.superblock()
        && content.holds_superblock()
        && wish.kind(BlockKind::Journal)
        && superblock_block(&content.superblock())
            .is_some_and(|block| content.held.contains(block));
    if brings_journal {
        return Ok(());
    }
    Err(refused(
        "the journal on the device is still to be replayed, and the plan \
         does not replace it: the next mount would write old blocks over \
         what is written now"
            .to_owned(),
    )
    .hint(
        "install an image that holds the journal's superblock and the \
         filesystem's (raw or qcow2, a copy that e2fsck has replayed), without \
         --only or --groups that leave them out",
    ))
}

/// The block of the journal's own superblock, as the filesystem's superblock
/// remembers it.
pub(super) fn superblock_block(bytes: &[u8; 1024]) -> Option<BlockNumber> {
    let raw = RawSuperblock::read_from_bytes(bytes).ok()?;
    if raw.s_jnl_backup_type != JOURNAL_BACKUP_BLOCKS {
        return None;
    }
    let slots: Vec<u32> =
        raw.s_jnl_blocks.iter().map(|slot| slot.get()).collect();
    let block = match slots.first()? & 0xFFFF == u32::from(EXTENT_MAGIC) {
        false => u64::from(*slots.first()?),
        // eh_depth is the high half of the second word; the first extent
        // follows the header: ee_block, ee_len and ee_start_hi, ee_start_lo.
        true if slots.get(1)?.wrapping_shr(16) == 0 && *slots.get(3)? == 0 => {
            let high = u64::from(slots.get(4)?.wrapping_shr(16));
            high.wrapping_shl(32) | u64::from(*slots.get(5)?)
        }
        true => return None,
    };
    (block > 0).then_some(BlockNumber(block))
}

/// `s_wtime`: when the filesystem was last written, in seconds since 1970.
pub(super) fn written_s(bytes: &[u8; 1024]) -> u64 {
    RawSuperblock::read_from_bytes(bytes).map_or(0, |raw| {
        u64::from(raw.s_wtime_hi).wrapping_shl(32)
            | u64::from(raw.s_wtime.get())
    })
}

/// Whether the image's superblock wants its journal replayed, and the image
/// has none.
pub(super) fn lacks_journal(content: &Content) -> bool {
    let raw = RawSuperblock::read_from_bytes(&*content.walk.superblock);
    raw.is_ok_and(|raw| needs_recovery(&raw))
        && content
            .walk
            .kind(BlockKind::Journal)
            .is_none_or(|set| set.is_empty())
}
