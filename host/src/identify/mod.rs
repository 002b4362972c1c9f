//! Recognises what lies on a device: partition tables, filesystems, swap,
//! and members of larger things (LVM, RAID, encryption).
//!
//! Reads a few dozen kilobytes through a [`BlockSource`], so that it serves
//! local and remote devices alike, and believes nothing of what it reads. It
//! names things and says what state they say they are in; whether that is
//! true, the walk finds out.

#![warn(clippy::arithmetic_side_effects, clippy::as_conversions)]

mod ext;
mod fields;
mod filesystems;
mod look;
mod partitions;
mod stacks;

pub use ext::describe_superblock;
pub use look::Window;

use crate::error::Result;
use crate::identify::look::Look;
use crate::inventory::{Content, ContentKind, State};
use crate::source::BlockSource;
use crate::units::ByteCount;

/// Everything that can be recognised on `source`. More than one thing means
/// leftovers of an earlier use, or a device used whole and partitioned.
///
/// # Errors
///
/// Only when the source as a whole is gone; bad sectors hide what lies on
/// them.
pub fn identify(source: &dyn BlockSource) -> Result<Vec<Content>> {
    let length = source.facts().length.0;
    let mut areas = vec![
        // Boot sectors, GPT, superblocks, LVM, LUKS, RAID 1.1 and 1.2.
        (0, 24 * 1024),
        // Swap with large pages; Btrfs.
        (32 * 1024 - 512, 512),
        (64 * 1024 - 512, 512 + 4096),
    ];
    let tail = [stacks::md_0_90_at(length), stacks::md_1_0_at(length)];
    areas.extend(tail.into_iter().flatten().map(|at| (at, 4096)));
    let look = Look::at(source, &areas)?;
    let mut found = Vec::new();
    found.extend(stacks::md(&look));
    found.extend(stacks::luks(&look));
    found.extend(stacks::lvm(&look));
    found.extend(filesystems::recognise(&look));
    found.extend(ext::first(&look));
    // A boot sector of FAT or NTFS ends like a partition table.
    let boot_sector = found.iter().any(|content| {
        matches!(
            content.kind,
            ContentKind::Vfat | ContentKind::Ntfs | ContentKind::Exfat
        )
    });
    if !boot_sector {
        found.extend(partitions::recognise(&look));
    }
    if found.is_empty() {
        found.extend(ext::copy(&look));
    }
    for content in &mut found {
        if content.size.is_some_and(|size| size > ByteCount(length)) {
            content.state.push(State::Truncated);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
