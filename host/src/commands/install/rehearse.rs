//! `--rehearse`: the plan is tried on a sparse file first, and e2fsck says
//! what it thinks of the result. The device is only read.

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::commands::install::content::{Content, SUPERBLOCK_AT};
use crate::commands::install::difference::Comparison;
use crate::commands::install::identity::refused;
use crate::commands::writing::read_bytes;
use crate::error::{Error, Result};
use crate::ext::BlockKind;
use crate::install::Plan;
use crate::text;
use crate::undo::Stage;
use crate::units::{BlockCount, BlockRun, ByteCount, ByteRange};

/// How much is laid down at a time.
const STEP_BYTES: u64 = 1 << 20;

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
    let mut structure = content.walk.selected.clone();
    if let Some(data) = content.walk.kind(BlockKind::Data) {
        structure.subtract(data);
    }
    for part in structure
        .runs()
        .filter_map(|run| run.bytes(size))
        .flat_map(|run| run.cut(STEP_BYTES))
    {
        comparison.stop.check()?;
        // Where the image has it, the device has it after the plan, and
        // over a line that saves all of it.
        let bytes = match comparison.is_whole() && is_held(content, part) {
            true => content.bytes(part)?,
            false => {
                let there = comparison.on_device(part)?;
                read_bytes(comparison.device, there)?
            }
        };
        lay(part.start().0, &bytes)?;
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

fn is_held(content: &Content, part: ByteRange) -> bool {
    let size = content.size();
    let first = size.block_of(part.start());
    let end = size.blocks_for(ByteCount(part.end().0));
    let count = BlockCount(end.0.saturating_sub(first.0));
    BlockRun::new(first, count)
        .is_some_and(|run| content.held.contains_run(run))
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
