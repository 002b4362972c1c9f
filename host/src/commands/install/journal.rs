//! What the journal has to say about a plan.

use zerocopy::FromBytes;

use crate::block_set::BlockSet;
use crate::commands::install::content::Content;
use crate::commands::install::identity::{Found, refused};
use crate::commands::install::needs_recovery;
use crate::commands::install::select::Wish;
use crate::error::Result;
use crate::ext::BlockKind;
use crate::ext::journal::{JournalSuperblock, LiveLog, has_magic};
use crate::ext::superblock::RawSuperblock;
use crate::units::{BlockCount, BlockNumber, BlockRun};

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
    RawSuperblock::ref_from_bytes(bytes).ok()?.journal_block()
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

/// `h_blocktype` of a descriptor block.
const DESCRIPTOR: [u8; 4] = 1_u32.to_be_bytes();

/// The blocks of the filesystem that a replay of the image's journal writes.
///
/// # Errors
///
/// When the image cannot be read at all.
pub(super) fn replayed(content: &Content) -> Result<BlockSet> {
    let mut blocks = BlockSet::new();
    let journal = content.walk.traced.iter();
    let map: Vec<_> =
        journal.filter(|part| part.kind == BlockKind::Journal).collect();
    let read = |logical: u32| {
        let logical = u64::from(logical);
        let part = map.iter().find(|part| {
            part.logical <= logical
                && logical < part.logical.saturating_add(part.count)
        })?;
        let block = part.physical.checked_add(logical - part.logical)?;
        let run = BlockRun::new(BlockNumber(block), BlockCount(1))?;
        // What cannot be read ends the chain, as a replay would.
        content.bytes(run.bytes(content.size())?).ok()
    };
    let length = map.iter().map(|part| part.count).sum();
    let Some(first) = read(0) else { return Ok(blocks) };
    let superblock = JournalSuperblock::check(&first, content.size(), length);
    let Ok(superblock) = superblock else { return Ok(blocks) };
    let mut log = LiveLog::new(superblock);
    while let Some(block) = log.next().and_then(&read) {
        if has_magic(&block) && block.get(4..8) == Some(&DESCRIPTOR) {
            for tag in superblock.tags(&block) {
                blocks.insert(tag.block);
            }
        }
        if log.feed(&block).is_err() {
            break;
        }
    }
    Ok(blocks)
}
