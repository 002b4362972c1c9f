//! `diff`: what two images, or an image and a device, hold otherwise: fields
//! of the superblock, kinds of blocks, groups, inodes and, where directories
//! are known, paths.
//!
//! Only what both sides hold can differ. What one side holds and the other
//! does not (a normal image has tables only, an image of the metadata no
//! contents, one made over a line not all of the journal) is counted and
//! said, and makes no difference.

mod compare;
mod fields;
mod inodes;
mod report;
mod side;

use std::path::PathBuf;

use crate::commands::Report;
use crate::commands::diff::compare::{Comparison, kinds};
use crate::commands::diff::side::{Opened, Side};
use crate::commands::reach::Reach;
use crate::error::Result;
use crate::ext::{Geometry, Scope};
use crate::observer::Observer;
use crate::remote::target::Target;
use crate::stop::Stop;
use crate::units::ByteOffset;

/// Compares two images or devices.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DiffRequest {
    /// One side: an image or a device of this machine.
    pub left: PathBuf,
    /// The other: an image or a device of this machine, or a device of a
    /// target.
    pub right: PathBuf,
    /// Where the filesystem starts on the right side.
    pub source_offset: ByteOffset,
}

/// Both sides, walked.
type Sides<'a> = [Side<'a>; 2];

/// Says what differs.
///
/// # Errors
///
/// What opening and walking either side brings. A difference is no error but
/// [`crate::commands::Outcome::Differs`].
pub fn diff(
    request: &DiffRequest,
    reach: &Reach,
    observer: &dyn Observer,
    stop: &Stop,
) -> Result<Report> {
    let left = Opened::here(&request.left, ByteOffset(0))?;
    let is_remote = reach.target != Target::Local;
    let (path, offset) = (&request.right, request.source_offset);
    let right = match is_remote {
        true => Opened::there(reach, path, offset, &left, observer, stop)?,
        false => Opened::here(path, offset)?,
    };
    let tables = left.is_normal() || right.is_normal();
    let scope = |side: &Opened<'_>| match (side.is_normal(), tables) {
        (true, _) => Scope::Tables,
        // The rest is read for the names only: not over a line.
        (false, true) if is_remote => Scope::Tables,
        (false, true) => Scope::Metadata,
        (false, false) => Scope::Data,
    };
    let walk = |side, path| Side::walk(side, path, scope(side), observer, stop);
    let sides = [walk(&left, &request.left)?, walk(&right, &request.right)?];
    let mut comparison = Comparison::new(&sides, observer, stop);
    comparison.superblock()?;
    let shapes = shapes(&sides);
    let kinds = match shapes.is_empty() {
        true => kinds(&sides),
        false => Vec::new(),
    };
    let mut found = comparison.blocks(kinds)?;
    if found.blocks() > 0 {
        inodes::attribute(&mut found, &sides, observer, stop)?;
    }
    Ok(report::report(&found, &sides, &shapes))
}

/// What of the layout is not the same, so that blocks cannot be compared: by
/// the kernel's names.
fn shapes(sides: &Sides<'_>) -> Vec<(&'static str, [u64; 2])> {
    let [left, right] =
        sides.each_ref().map(|side| layout(&side.walk.geometry));
    let both = left.into_iter().zip(right);
    both.filter(|(left, right)| left != right)
        .map(|((name, left), (_, right))| (name, [left, right]))
        .collect()
}

fn layout(geometry: &Geometry) -> [(&'static str, u64); 7] {
    [
        ("block size", geometry.block_size.bytes_u64()),
        ("s_first_data_block", geometry.first_data_block.0),
        ("blocks per cluster", u64::from(geometry.cluster_blocks)),
        ("s_blocks_per_group", u64::from(geometry.blocks_per_group)),
        ("s_inodes_per_group", u64::from(geometry.inodes_per_group)),
        ("s_inode_size", u64::from(geometry.inode_size)),
        ("s_desc_size", u64::from(geometry.descriptor_size)),
    ]
}
