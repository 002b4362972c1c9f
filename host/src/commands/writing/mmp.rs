//! Multiple-mount protection: whether another host has the filesystem.

use std::time::{Duration, Instant};

use zerocopy::FromBytes;

use crate::commands::writing::Reached;
use crate::commands::writing::bytes::read_lenient;
use crate::error::{Error, ErrorKind, Result};
use crate::ext::superblock::{MAGIC, RawSuperblock, incompat};
use crate::source::BlockSource;
use crate::stop::Stop;
use crate::units::{ByteCount, ByteOffset, ByteRange};

/// Where in a filesystem the superblock lies.
const SUPERBLOCK_AT: u64 = 1024;

/// `mmp_seq`: nobody has it mounted; e2fsck has it.
const MMP_SEQ_CLEAN: u32 = 0xFF4D_4D50;
const MMP_SEQ_FSCK: u32 = 0xE24D_4D50;
/// `mmp_magic`.
const MMP_MAGIC: u32 = 0x004D_4D50;
/// Where `mmp_check_interval` lies in the block.
const MMP_CHECK_INTERVAL_AT: usize = 112;
/// EXT4_MMP_MAX_CHECK_INTERVAL: what the kernel lets it be, in seconds.
const MMP_CHECK_INTERVAL_MAX: u64 = 300;

/// Whether another host has the filesystem mounted: then its MMP block moves.
///
/// # Errors
///
/// [`ErrorKind::Refused`] when it does, or e2fsck holds it.
pub(in crate::commands) fn refuse_active_mmp(
    reached: &Reached<'_>,
    offset: ByteOffset,
    stop: &Stop,
) -> Result<()> {
    let place = range(offset.0.saturating_add(SUPERBLOCK_AT))?;
    let now = read_lenient(reached.source(), &[place])?.pop();
    let raw = now.filter(|now| now.lost.is_empty()).and_then(|now| {
        RawSuperblock::read_from_bytes(now.bytes.as_slice()).ok()
    });
    let has_mmp = |raw: &RawSuperblock| {
        raw.s_magic.get() == MAGIC
            && raw.s_feature_incompat.get() & incompat::MMP != 0
    };
    let Some(raw) = raw.filter(has_mmp) else { return Ok(()) };
    let size = 1024_u64.checked_shl(raw.s_log_block_size.get());
    let at = size
        .and_then(|size| size.checked_mul(raw.s_mmp_block.get()))
        .and_then(|at| at.checked_add(offset.0));
    let end = |at: u64| at.checked_add(1024);
    let inside = |at: &u64| end(*at).is_some_and(|e| e <= reached.length().0);
    let Some(at) = at.filter(inside) else {
        return Ok(());
    };
    let place = range(at)?;
    let (first, interval, node) = mmp(reached.source(), place)?;
    let active = |what: &str| {
        Error::new(
            ErrorKind::Refused,
            format!(
                "{}: multiple-mount protection says that {what} ({node})",
                reached.name()
            ),
        )
        .intact("nothing was written")
        .hint(
            "unmount it there; if that host is dead for certain: tune2fs -f \
             -E clear_mmp",
        )
    };
    match first {
        None | Some(MMP_SEQ_CLEAN) => return Ok(()),
        Some(MMP_SEQ_FSCK) => return Err(active("e2fsck is at work")),
        Some(_) => {}
    }
    // As long as the kernel waits before it mounts.
    let interval = interval.max(u64::from(raw.s_mmp_interval.get()));
    let interval = interval.clamp(1, MMP_CHECK_INTERVAL_MAX);
    let patience = (2 * interval + 1).min(interval + 60);
    let until = Instant::now() + Duration::from_secs(patience);
    while Instant::now() < until {
        stop.check()?;
        std::thread::sleep(Duration::from_millis(250));
        if mmp(reached.source(), place)?.0 != first {
            return Err(active("another host has it mounted"));
        }
    }
    Ok(())
}

/// The sequence number, if there is an MMP block; the interval; who wrote it.
fn mmp(
    source: &dyn BlockSource,
    place: ByteRange,
) -> Result<(Option<u32>, u64, String)> {
    // An answer of a moment ago is none.
    source.recheck(&[place])?;
    // A bad sector there: nobody can have it mounted.
    let bytes = read_lenient(source, &[place])?.pop().unwrap_or_default().bytes;
    let word = |at: usize| {
        let word = bytes.get(at..at + 4).and_then(|b| b.first_chunk());
        word.map_or(0, |word| u32::from_le_bytes(*word))
    };
    let interval = word(MMP_CHECK_INTERVAL_AT) & 0xFFFF;
    let name = bytes.get(16..80).unwrap_or_default();
    let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
    let seq = (word(0) == MMP_MAGIC).then(|| word(4));
    Ok((seq, u64::from(interval), crate::text::from_bytes(name)))
}

/// The KiB at `at`.
fn range(at: u64) -> Result<ByteRange> {
    ByteRange::new(ByteOffset(at), ByteCount(1024)).ok_or_else(|| {
        Error::new(ErrorKind::Internal, "a place that no device has")
    })
}
