//! `--rehearse`: the plan is tried on a sparse file first, and e2fsck says
//! what it thinks of the result. The device is only read.

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::block_set::BlockSet;
use crate::commands::install::content::{Content, SUPERBLOCK_AT};
use crate::commands::install::difference::Comparison;
use crate::commands::install::identity::refused;
use crate::commands::writing::{read_bytes, same_or_read};
use crate::error::{Error, Result};
use crate::ext::BlockKind;
use crate::install::Plan;
use crate::text;
use crate::undo::Stage;
use crate::units::{BlockSize, ByteRange};

/// How much is laid down at a time.
const STEP_BYTES: u64 = 64 * 1024;
/// How many stretches are asked about together.
const STEP_RANGES: usize = 128;

/// So many lines of what e2fsck says are passed on.
const LINES_MAX: usize = 6;

/// Lays what the device would hold into a sparse file: its own structure, and
/// the plan over it. Then asks e2fsck.
///
/// # Errors
///
/// [`crate::error::ErrorKind::Refused`] when e2fsck finds anything; an I/O error
/// when there is no e2fsck, or no room.
pub(super) fn rehearse(
    content: &Content,
    comparison: &Comparison<'_>,
    plan: &Plan,
) -> Result<String> {
    let failed = |error| Error::io("cannot make the overlay", error);
    let overlay = tempfile::NamedTempFile::new().map_err(failed)?;
    let size = content.size();
    let length = size.bytes_of(content.geometry().blocks);
    let length = length.unwrap_or_default().0;
    overlay.as_file().set_len(length).map_err(failed)?;
    let lay = |at: u64, bytes: &[u8]| {
        overlay.as_file().write_all_at(bytes, at).map_err(failed)
    };
    let (held, unknown) = structure(content);
    for some in parts(&held, size).chunks(STEP_RANGES) {
        comparison.stop.check()?;
        let mut wanted = Vec::with_capacity(some.len());
        for part in some {
            wanted.push((comparison.on_device(*part)?, content.bytes(*part)?));
        }
        let asked: Vec<(ByteRange, &[u8])> =
            wanted.iter().map(|(at, bytes)| (*at, bytes.as_slice())).collect();
        // Where all of the image is wanted, the device has it after the
        // plan. Else what the device has is the same for the most part, and
        // need not cross a line.
        let now = match comparison.is_whole() {
            true => vec![None; wanted.len()],
            false => same_or_read(comparison.device, &asked)?,
        };
        for ((part, now), (_, bytes)) in some.iter().zip(now).zip(&wanted) {
            lay(part.start().0, now.as_ref().unwrap_or(bytes))?;
        }
    }
    for part in parts(&unknown, size) {
        comparison.stop.check()?;
        let there = comparison.on_device(part)?;
        lay(part.start().0, &read_bytes(comparison.device, there)?)?;
    }
    lay(SUPERBLOCK_AT, &comparison.superblock)?;
    for entry in &plan.entries {
        if entry.stage != Stage::Mark {
            let new = comparison.new_bytes(entry)?;
            let skip = comparison.request.dest_offset.0;
            lay(entry.range().start().0.saturating_sub(skip), &new)?;
        }
    }
    judge(overlay.path())
}

/// The structure that the image holds, and what of it only the device knows.
fn structure(content: &Content) -> (BlockSet, BlockSet) {
    let mut structure = content.walk.selected.clone();
    if let Some(data) = content.walk.kind(BlockKind::Data) {
        structure.subtract(data);
    }
    let mut held = structure.clone();
    held.intersect_with(&content.held);
    structure.subtract(&held);
    // What an image left out of the journal is old: e2fsck -n does not look
    // at it, and it may be most of all.
    if let Some(journal) = content.walk.kind(BlockKind::Journal) {
        structure.subtract(journal);
    }
    (held, structure)
}

fn parts(blocks: &BlockSet, size: BlockSize) -> Vec<ByteRange> {
    let runs = blocks.runs().filter_map(|run| run.bytes(size));
    runs.flat_map(|run| run.cut(STEP_BYTES)).collect()
}

fn judge(overlay: &Path) -> Result<String> {
    let path = std::env::var("PATH").unwrap_or_default();
    let output = Command::new("e2fsck")
        .arg("-fn")
        .arg(overlay)
        .env("PATH", format!("{path}:/usr/sbin:/sbin"))
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| {
            Error::io("cannot run e2fsck", error)
                .hint("it is in Debian's package e2fsprogs")
        })?;
    if output.status.success() {
        return Ok("Rehearsed: e2fsck -fn finds nothing.".to_owned());
    }
    let said = text::from_bytes(&output.stdout);
    let name = overlay.display().to_string();
    let lines: Vec<&str> = said
        .lines()
        .filter(|line| !line.trim().is_empty() && !line.contains(&name))
        .take(LINES_MAX)
        .collect();
    Err(refused(format!(
        "rehearsed: e2fsck -fn would not be content: {}",
        lines.join("; ")
    ))
    .hint("repair the copy further; or leave out --rehearse"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn what_is_no_filesystem_is_not_judged_well() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(1 << 20).unwrap();
        let error = judge(file.path()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused);
    }
}
