//! Members of larger things: RAID, LVM, encryption.

use crate::identify::fields::{array, be16, has, le16, le32, le64, text};
use crate::identify::look::Look;
use crate::inventory::{Content, ContentKind, State};
use crate::text::from_bytes;
use crate::units::ByteCount;

/// Where a superblock of format 0.90 lies: 64 KiB before the end, rounded
/// down to 64 KiB (Linux include/uapi/linux/raid/md_p.h).
pub(super) const fn md_0_90_at(length: u64) -> Option<u64> {
    (length & !0xffff).checked_sub(0x1_0000)
}

/// Where a superblock of format 1.0 lies: 8 KiB before the end, rounded down
/// to 4 KiB (as above).
pub(super) const fn md_1_0_at(length: u64) -> Option<u64> {
    match (length & !511).checked_sub(16 * 512) {
        Some(at) => Some(at & !4095),
        None => None,
    }
}

const MD_MAGIC: u32 = 0xa92b_4efc;

/// A member of an md array.
pub(super) fn md(look: &Look<'_>) -> Option<Content> {
    let length = look.length();
    [(Some(0), "1.1"), (Some(4096), "1.2"), (md_1_0_at(length), "1.0")]
        .into_iter()
        .find_map(|(at, version)| md_1(look, at?, version))
        .or_else(|| md_0_90(look))
}

fn md_1(look: &Look<'_>, at: u64, version: &str) -> Option<Content> {
    let bytes = look.bytes(at, 4096)?;
    if le32(&bytes, 0)? != MD_MAGIC || le32(&bytes, 4)? != 1 {
        return None;
    }
    // It names the sector that it lies in, so a copy elsewhere is none.
    if le64(&bytes, 144)?.checked_mul(512)? != at {
        return None;
    }
    let level = i32::from_le_bytes(array(&bytes, 72)?);
    let devices = le32(&bytes, 92)?;
    let number = usize::try_from(le32(&bytes, 160)?).ok()?;
    let role = number
        .checked_mul(2)
        .and_then(|at| at.checked_add(256))
        .and_then(|at| le16(&bytes, at));
    Some(Content {
        kind: ContentKind::MdMember,
        version: Some(version.to_owned()),
        label: None,
        uuid: words(&bytes, [16, 20, 24, 28], u32::from_be_bytes),
        size: le64(&bytes, 80)?.checked_mul(512).map(ByteCount),
        part_of: text(&bytes, 32, 32),
        detail: Some(format!(
            "{}, {} of {devices}, {} events",
            level_name(level),
            role_name(role),
            le64(&bytes, 200)?
        )),
        state: md_1_state(&bytes),
        ..Content::default()
    })
}

/// `sb_csum` is the sum of the 32-bit words before the roles and of the
/// roles, folded, with itself as zero.
fn md_1_state(bytes: &[u8]) -> Vec<State> {
    let sum = || {
        let roles = usize::try_from(le32(bytes, 220)?).ok()?;
        let length = roles.checked_mul(2)?.checked_add(256)?;
        let covered = bytes.get(..length)?;
        let mut sum = 0_u64;
        let (words, rest) = covered.as_chunks::<4>();
        for (index, word) in words.iter().enumerate() {
            if index != 54 {
                sum = sum.checked_add(u32::from_le_bytes(*word).into())?;
            }
        }
        if let Some(half) = le16(rest, 0) {
            sum = sum.checked_add(half.into())?;
        }
        let folded = (sum & 0xffff_ffff).checked_add(sum.checked_shr(32)?)?;
        Some(folded & 0xffff_ffff)
    };
    match (sum(), le32(bytes, 216)) {
        (Some(sum), Some(stored)) if sum != u64::from(stored) => {
            vec![State::BadChecksum]
        }
        _ => Vec::new(),
    }
}

/// Fields are little-endian here; a big-endian machine wrote them the other
/// way round, and then this is not recognised.
fn md_0_90(look: &Look<'_>) -> Option<Content> {
    let bytes = look.bytes(md_0_90_at(look.length())?, 4096)?;
    if le32(&bytes, 0)? != MD_MAGIC || le32(&bytes, 4)? != 0 {
        return None;
    }
    let level = i32::from_le_bytes(array(&bytes, 28)?);
    let devices = le32(&bytes, 40)?;
    // this_disk: number, major, minor, raid_disk.
    let role = le32(&bytes, 3980).and_then(|role| u16::try_from(role).ok());
    Some(Content {
        kind: ContentKind::MdMember,
        version: Some("0.90".to_owned()),
        uuid: words(&bytes, [20, 52, 56, 60], u32::from_le_bytes),
        size: u64::from(le32(&bytes, 32)?).checked_mul(1024).map(ByteCount),
        detail: Some(format!(
            "{}, {} of {devices}, {} events",
            level_name(level),
            role_name(role),
            le64(&bytes, 156)?
        )),
        ..Content::default()
    })
}

/// Four groups of eight digits, as mdadm writes identities.
fn words(
    bytes: &[u8],
    at: [usize; 4],
    read: fn([u8; 4]) -> u32,
) -> Option<String> {
    let mut groups = Vec::with_capacity(4);
    for at in at {
        groups.push(format!("{:08x}", read(array(bytes, at)?)));
    }
    Some(groups.join(":"))
}

fn level_name(level: i32) -> String {
    match level {
        -1 => "linear".to_owned(),
        -4 => "multipath".to_owned(),
        -5 => "faulty".to_owned(),
        -10 => "container".to_owned(),
        level => format!("raid{level}"),
    }
}

fn role_name(role: Option<u16>) -> String {
    match role {
        None => "unknown place".to_owned(),
        Some(0xffff) => "spare".to_owned(),
        Some(0xfffe) => "failed".to_owned(),
        Some(0xfffd) => "journal".to_owned(),
        Some(role) => format!("device {role}"),
    }
}

/// A label in one of the first four sectors (lvm2, "physical volume label"):
/// the label header names where the PV header is, that names the metadata
/// area, which begins with the volume group's name.
pub(super) fn lvm(look: &Look<'_>) -> Option<Content> {
    let sector = (0_u64..4).find_map(|sector| {
        let bytes = look.bytes(sector.checked_mul(512)?, 512)?;
        let is_label = has(&bytes, 0, b"LABELONE")
            && has(&bytes, 24, b"LVM2 001")
            && le64(&bytes, 8)? == sector;
        is_label.then_some(bytes)
    })?;
    let at = usize::try_from(le32(&sector, 20)?).ok()?;
    let pv = sector.get(at..)?;
    Some(Content {
        kind: ContentKind::LvmPv,
        version: Some("2".to_owned()),
        uuid: lvm_uuid(pv),
        size: le64(pv, 32).map(ByteCount),
        part_of: volume_group(look, pv),
        ..Content::default()
    })
}

/// 32 characters, written in groups.
fn lvm_uuid(pv: &[u8]) -> Option<String> {
    let mut rest = pv.get(..32)?;
    if !rest.iter().all(u8::is_ascii_graphic) {
        return None;
    }
    let mut groups = Vec::with_capacity(7);
    for length in [6, 4, 4, 4, 4, 4, 6] {
        let (group, behind) = rest.split_at_checked(length)?;
        groups.push(from_bytes(group));
        rest = behind;
    }
    Some(groups.join("-"))
}

/// The two lists behind the PV header end with a zero each: data areas, then
/// metadata areas.
fn volume_group(look: &Look<'_>, pv: &[u8]) -> Option<String> {
    let mut lists = 0_u32;
    let mut at = 40_usize;
    let area = loop {
        let (offset, size) = (le64(pv, at)?, le64(pv, at.checked_add(8)?)?);
        at = at.checked_add(16)?;
        match (offset, lists) {
            (0, 0) => lists = 1,
            (0, _) => return None,
            (_, 1) => break (offset, size),
            _ => {}
        }
    };
    let (start, size) = area;
    let header = look.bytes(start, 512)?;
    if !has(&header, 4, b" LVM2 x[5A%r0N*>") {
        return None;
    }
    // The first raw_locn: where the current text is in the ring.
    let (offset, length) = (le64(&header, 40)?, le64(&header, 48)?);
    if offset >= size || length == 0 {
        return None;
    }
    let text = look.bytes(
        start.checked_add(offset)?,
        length.min(256).min(size.checked_sub(offset)?),
    )?;
    let end = text.windows(2).position(|pair| pair == b" {")?;
    let name = text.get(..end)?;
    // What a volume group's name may hold.
    let good =
        |byte: &u8| byte.is_ascii_alphanumeric() || b"+_.-".contains(byte);
    (!name.is_empty() && name.iter().all(good)).then(|| from_bytes(name))
}

/// Version 1 and 2 begin alike, big-endian (LUKS On-Disk Format
/// Specification; LUKS2 On-Disk Format Specification, 2.1).
pub(super) fn luks(look: &Look<'_>) -> Option<Content> {
    let (bytes, copy) = [(0_u64, b"LUKS\xba\xbe"), (0x4000, b"SKUL\xba\xbe")]
        .into_iter()
        .find_map(|(at, magic)| {
            let bytes = look.bytes(at, 512)?;
            has(&bytes, 0, magic).then_some((bytes, at != 0))
        })?;
    let version = be16(&bytes, 6)?;
    Some(Content {
        kind: ContentKind::Luks,
        version: Some(version.to_string()),
        label: (version == 2).then(|| text(&bytes, 24, 48)).flatten(),
        uuid: text(&bytes, 168, 40),
        state: if copy { vec![State::CopyUsed] } else { Vec::new() },
        ..Content::default()
    })
}
