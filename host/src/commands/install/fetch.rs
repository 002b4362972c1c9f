//! `--fetch-data`: the contents of some files come from the device into a
//! copy that is about to be repaired.

use std::os::unix::fs::FileExt;

use crate::commands::install::InstallRequest;
use crate::commands::install::content::{Content, Depth, Proof};
use crate::commands::install::identity::{identify_device, refused};
use crate::commands::install::select::contains;
use crate::commands::writing::{Reached, read_bytes};
use crate::commands::{Outcome, Report};
use crate::error::{Error, Result};
use crate::ext::BlockKind;
use crate::image::format::Format;
use crate::observer::Observer;
use crate::stop::Stop;
use crate::text;
use crate::units::{
    BlockCount, BlockNumber, BlockRun, ByteCount, ByteOffset, ByteRange,
};

/// How much is fetched at a time.
const STEP_BYTES: u64 = 256 * 1024;

/// Adds the contents of files to a raw copy. The device is only read.
///
/// # Errors
///
/// [`crate::error::ErrorKind::Refused`] when the copy is none of this device,
/// not raw, or repaired already.
pub(super) fn fetch(
    request: &InstallRequest,
    inodes: &[std::ops::RangeInclusive<u32>],
    reached: &Reached<'_>,
    observer: &dyn Observer,
    stop: &Stop,
) -> Result<Report> {
    let name = request.image.display().to_string();
    let proof = if request.unproven { Proof::None } else { Proof::Manifest };
    let copy =
        Content::open(&request.image, Depth::Traced, proof, observer, stop)?;
    if copy.format() != Format::Raw {
        return Err(refused(format!("{name} is not a raw image"))
            .hint("e2wire convert IMAGE COPY.raw"));
    }
    identify_device(request, &copy, reached)?;
    let size = copy.size();
    let data = copy.walk.traced.iter().filter(|traced| {
        traced.kind == BlockKind::Data && contains(inodes, traced.inode)
    });
    let runs: Vec<BlockRun> = data
        .filter_map(|traced| {
            let first = BlockNumber(traced.physical);
            BlockRun::new(first, BlockCount(traced.count))
        })
        .collect();
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(&request.image)
        .map_err(|e| Error::io(format!("cannot write to {name}"), e))?;
    let mut fetched = ByteCount(0);
    for run in &runs {
        let Some(range) = run.bytes(size) else { continue };
        for part in range.cut(STEP_BYTES) {
            stop.check()?;
            let start = part.start().0.saturating_add(request.dest_offset.0);
            let there = ByteRange::new(ByteOffset(start), part.length());
            let there =
                there.ok_or_else(|| refused("no such place".to_owned()))?;
            let bytes = read_bytes(reached.source(), there)?;
            file.write_all_at(&bytes, part.start().0)
                .map_err(|e| Error::io(format!("cannot write to {name}"), e))?;
            fetched.0 += part.length().0;
        }
    }
    file.sync_all()
        .map_err(|e| Error::io(format!("cannot write to {name}"), e))?;
    let what = text::bytes(fetched);
    Ok(Report::new(Outcome::Done)
        .line(format!("Added {what} of file contents to {name}."))
        .line(
            "Now repair it, and install it with --original; it is no longer \
             what its manifest says.",
        )
        .fact("changed", false)
        .fact("fetched_bytes", fetched.0))
}
