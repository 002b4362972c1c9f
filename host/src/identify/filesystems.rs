//! Filesystems other than ext, and swap space.

use crate::identify::fields::{be32, be64, has, le16, le32, le64, text, uuid};
use crate::identify::look::Look;
use crate::inventory::{Content, ContentKind};
use crate::units::ByteCount;

/// All that lie on the source; more than one where an earlier one was not
/// wiped.
pub(super) fn recognise(look: &Look<'_>) -> Vec<Content> {
    [xfs(look), btrfs(look), swap(look), fat(look), ntfs(look), exfat(look)]
        .into_iter()
        .flatten()
        .collect()
}

/// Superblock at 0, big-endian: block size at 4, blocks at 8, UUID at 32,
/// label at 108 (XFS Algorithms & Data Structures, "Superblocks").
fn xfs(look: &Look<'_>) -> Option<Content> {
    let bytes = look.bytes(0, 512)?;
    if !has(&bytes, 0, b"XFSB") {
        return None;
    }
    let block_bytes = u64::from(be32(&bytes, 4)?);
    let blocks = be64(&bytes, 8)?;
    Some(Content {
        kind: ContentKind::Xfs,
        label: text(&bytes, 108, 12),
        uuid: uuid(&bytes, 32),
        size: blocks.checked_mul(block_bytes).map(ByteCount),
        ..Content::default()
    })
}

/// Superblock at 64 KiB: fsid at 0x20, magic at 0x40, total bytes at 0x70,
/// devices at 0x88, this device's id and size in the item at 0xc9, label at
/// 0x12b (Btrfs documentation, "On-disk format").
fn btrfs(look: &Look<'_>) -> Option<Content> {
    let bytes = look.bytes(64 * 1024, 4096)?;
    if !has(&bytes, 0x40, b"_BHRfS_M") {
        return None;
    }
    let devices = le64(&bytes, 0x88)?;
    let detail = (devices > 1).then(|| {
        let device = le64(&bytes, 0xc9).unwrap_or_default();
        format!("device {device} of {devices}")
    });
    Some(Content {
        kind: ContentKind::Btrfs,
        label: text(&bytes, 0x12b, 256),
        uuid: uuid(&bytes, 0x20),
        size: le64(&bytes, 0xd1).map(ByteCount),
        detail,
        ..Content::default()
    })
}

/// The magic ends the first page, whose size depends on the machine; the
/// header at 1024 holds version, last page, UUID and label (Linux
/// include/linux/swap.h, `union swap_header`).
fn swap(look: &Look<'_>) -> Option<Content> {
    let page = (12_u32..=16).find_map(|log2| {
        let page = 1_u64.checked_shl(log2)?;
        let end = look.bytes(page.checked_sub(10)?, 10)?;
        (end == *b"SWAPSPACE2").then_some(page)
    })?;
    let bytes = look.bytes(1024, 512)?;
    let pages = u64::from(le32(&bytes, 4)?).checked_add(1)?;
    Some(Content {
        kind: ContentKind::Swap,
        uuid: uuid(&bytes, 12),
        label: text(&bytes, 28, 16),
        size: pages.checked_mul(page).map(ByteCount),
        ..Content::default()
    })
}

/// A boot sector with a plausible parameter block (Microsoft, "FAT: General
/// Overview of On-Disk Format").
fn fat(look: &Look<'_>) -> Option<Content> {
    let bytes = look.bytes(0, 512)?;
    let (version, serial_at, label_at) = if has(&bytes, 82, b"FAT32   ") {
        ("32", 67, 71)
    } else if has(&bytes, 54, b"FAT16   ") {
        ("16", 39, 43)
    } else if has(&bytes, 54, b"FAT12   ") {
        ("12", 39, 43)
    } else {
        return None;
    };
    let sector_bytes = le16(&bytes, 11)?;
    if !sector_bytes.is_power_of_two() || sector_bytes < 512 {
        return None;
    }
    let sectors = match le16(&bytes, 19)? {
        0 => le32(&bytes, 32)?,
        small => u32::from(small),
    };
    let serial = le32(&bytes, serial_at)?;
    let (high, low) = (serial.checked_shr(16)?, serial & 0xffff);
    Some(Content {
        kind: ContentKind::Vfat,
        version: Some(version.to_owned()),
        label: text(&bytes, label_at, 11).filter(|label| label != "NO NAME"),
        uuid: Some(format!("{high:04X}-{low:04X}")),
        size: u64::from(sectors)
            .checked_mul(u64::from(sector_bytes))
            .map(ByteCount),
        ..Content::default()
    })
}

/// A boot sector: sector size at 11, sectors at 40, serial number at 72.
fn ntfs(look: &Look<'_>) -> Option<Content> {
    let bytes = look.bytes(0, 512)?;
    if !has(&bytes, 3, b"NTFS    ") {
        return None;
    }
    let sector_bytes = u64::from(le16(&bytes, 11)?);
    Some(Content {
        kind: ContentKind::Ntfs,
        uuid: le64(&bytes, 72).map(|serial| format!("{serial:016X}")),
        size: le64(&bytes, 40)?.checked_mul(sector_bytes).map(ByteCount),
        ..Content::default()
    })
}

/// A boot sector: sectors at 72, serial number at 100, logarithm of the
/// sector size at 108 (Microsoft, "exFAT file system specification").
fn exfat(look: &Look<'_>) -> Option<Content> {
    let bytes = look.bytes(0, 512)?;
    if !has(&bytes, 3, b"EXFAT   ") {
        return None;
    }
    let serial = le32(&bytes, 100)?;
    let (high, low) = (serial.checked_shr(16)?, serial & 0xffff);
    let sector_bytes = 1_u64.checked_shl(u32::from(*bytes.get(108)?))?;
    Some(Content {
        kind: ContentKind::Exfat,
        uuid: Some(format!("{high:04X}-{low:04X}")),
        size: le64(&bytes, 72)?.checked_mul(sector_bytes).map(ByteCount),
        ..Content::default()
    })
}
