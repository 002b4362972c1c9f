//! Partition tables: GPT (UEFI specification, "GUID Partition Table Disk
//! Layout") and the DOS kind with its chain of logical partitions.

use crc::{CRC_32_ISO_HDLC, Crc};

use crate::identify::fields::{guid, has, le32, le64};
use crate::identify::look::Look;
use crate::inventory::{Content, ContentKind, PartitionEntry, State};
use crate::units::{ByteCount, ByteOffset, ByteRange};

const CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);

/// Entries of a GPT that are looked at; tools make 128.
const GPT_ENTRIES_MAX: u32 = 1024;

/// Logical partitions that are followed; the kernel stops earlier.
const LOGICAL_MAX: u32 = 128;

/// The table of a disk, the GPT if there is one.
pub(super) fn recognise(look: &Look<'_>) -> Option<Content> {
    gpt(look).or_else(|| mbr(look))
}

fn gpt(look: &Look<'_>) -> Option<Content> {
    let own = u64::from(look.facts().sector_bytes);
    let mut doubtful = None;
    for sector_bytes in [own, 512, 4096] {
        let last = look.length().checked_div(sector_bytes)?.checked_sub(1);
        for (lba, copy) in [(Some(1), false), (last, true)] {
            let Some((mut content, sound)) =
                lba.and_then(|lba| gpt_at(look, lba, sector_bytes))
            else {
                continue;
            };
            if copy {
                content.state.push(State::CopyUsed);
            }
            if sound {
                return Some(content);
            }
            content.state.push(State::BadChecksum);
            doubtful = doubtful.or(Some(content));
        }
    }
    doubtful
}

/// The table whose header is at `lba`, and whether its checksums are right.
fn gpt_at(
    look: &Look<'_>,
    lba: u64,
    sector_bytes: u64,
) -> Option<(Content, bool)> {
    let header = look.bytes(lba.checked_mul(sector_bytes)?, 512)?;
    if !has(&header, 0, b"EFI PART") || le64(&header, 24)? != lba {
        return None;
    }
    let header_bytes = usize::try_from(le32(&header, 12)?).ok()?;
    let header_sound = gpt_header_crc(&header, header_bytes)
        .is_some_and(|crc| le32(&header, 16) == Some(crc));
    let entry_bytes = le32(&header, 84)?;
    let entries = le32(&header, 80)?;
    if !(128..=4096).contains(&entry_bytes) {
        return None;
    }
    let table = look.bytes(
        le64(&header, 72)?.checked_mul(sector_bytes)?,
        u64::from(entries.min(GPT_ENTRIES_MAX))
            .checked_mul(u64::from(entry_bytes))?,
    )?;
    let table_sound = le32(&header, 88)? == CRC.checksum(&table);
    let partitions = table
        .chunks_exact(usize::try_from(entry_bytes).ok()?)
        .zip(1_u32..)
        .filter_map(|(entry, number)| gpt_entry(entry, number, sector_bytes))
        .collect();
    let content = Content {
        kind: ContentKind::Gpt,
        uuid: guid(&header, 56),
        partitions,
        ..Content::default()
    };
    Some((content, header_sound && table_sound))
}

/// The header's CRC, with itself as zero.
fn gpt_header_crc(header: &[u8], length: usize) -> Option<u32> {
    let (before, rest) = header.get(..length)?.split_at_checked(16)?;
    let (_, after) = rest.split_at_checked(4)?;
    let mut digest = CRC.digest();
    digest.update(before);
    digest.update(&[0; 4]);
    digest.update(after);
    Some(digest.finalize())
}

fn gpt_entry(
    entry: &[u8],
    number: u32,
    sector_bytes: u64,
) -> Option<PartitionEntry> {
    // A type of all zeros is a free entry.
    let type_id = guid(entry, 0)?;
    let first = le64(entry, 32)?;
    let count = le64(entry, 40)?.checked_sub(first)?.checked_add(1)?;
    let (units, _) = entry.get(56..128)?.as_chunks::<2>();
    let units: Vec<u16> = units
        .iter()
        .map(|unit| u16::from_le_bytes(*unit))
        .take_while(|unit| *unit != 0)
        .collect();
    let name = String::from_utf16_lossy(&units);
    Some(PartitionEntry {
        number,
        range: range(first, count, sector_bytes)?,
        type_id,
        name: (!name.is_empty()).then_some(name),
        uuid: guid(entry, 16),
    })
}

fn range(first: u64, count: u64, sector_bytes: u64) -> Option<ByteRange> {
    ByteRange::new(
        ByteOffset(first.checked_mul(sector_bytes)?),
        ByteCount(count.checked_mul(sector_bytes)?),
    )
}

/// One of the four entries of a boot sector of the DOS kind.
struct Slot {
    type_id: u8,
    first: u64,
    count: u64,
}

impl Slot {
    const fn is_extended(&self) -> bool {
        matches!(self.type_id, 0x05 | 0x0f | 0x85)
    }

    fn entry(&self, number: u32, sector_bytes: u64) -> Option<PartitionEntry> {
        Some(PartitionEntry {
            number,
            range: range(self.first, self.count, sector_bytes)?,
            type_id: format!("0x{:02x}", self.type_id),
            name: None,
            uuid: None,
        })
    }
}

/// The used entries with their places, if this looks like a table at all:
/// program code that ends in the same two bytes does not.
fn slots(sector: &[u8]) -> Option<Vec<(u32, Slot)>> {
    if !has(sector, 510, &[0x55, 0xaa]) {
        return None;
    }
    let (entries, _) = sector.get(446..510)?.as_chunks::<16>();
    let mut slots = Vec::with_capacity(4);
    for (entry, number) in entries.iter().zip(1_u32..) {
        let [active, _, _, _, type_id, ..] = *entry;
        if active & 0x7f != 0 {
            return None;
        }
        let (first, count) = (le32(entry, 8)?, le32(entry, 12)?);
        if type_id != 0 && count != 0 {
            let (first, count) = (u64::from(first), u64::from(count));
            slots.push((number, Slot { type_id, first, count }));
        }
    }
    Some(slots)
}

fn mbr(look: &Look<'_>) -> Option<Content> {
    let sector = look.bytes(0, 512)?;
    let sector_bytes = u64::from(look.facts().sector_bytes);
    let slots = slots(&sector)?;
    let sectors = look.length().checked_div(sector_bytes)?;
    let plausible =
        slots.iter().all(|(_, slot)| slot.first > 0 && slot.first < sectors);
    if slots.is_empty() || !plausible {
        return None;
    }
    let protective = slots.iter().any(|(_, slot)| slot.type_id == 0xee);
    let mut partitions = Vec::new();
    for (number, slot) in &slots {
        partitions.extend(slot.entry(*number, sector_bytes));
    }
    for (_, slot) in slots.iter().filter(|(_, slot)| slot.is_extended()) {
        logical(look, slot.first, sector_bytes, &mut partitions);
    }
    let signature = le32(&sector, 440)?;
    Some(Content {
        kind: ContentKind::Mbr,
        uuid: (signature != 0).then(|| format!("{signature:08x}")),
        detail: protective.then(|| "the GPT it stands for is lost".to_owned()),
        partitions,
        ..Content::default()
    })
}

/// Follows the chain that begins at the sector `start`: each link holds one
/// partition, counted from the link, and the next link, counted from the
/// start.
fn logical(
    look: &Look<'_>,
    start: u64,
    sector_bytes: u64,
    partitions: &mut Vec<PartitionEntry>,
) {
    let mut link = Some(start);
    for number in (5_u32..).take(usize::try_from(LOGICAL_MAX).unwrap_or(0)) {
        let Some(at) = link.and_then(|link| link.checked_mul(sector_bytes))
        else {
            return;
        };
        let base = link.unwrap_or_default();
        let Some(slots) = look.bytes(at, 512).and_then(|link| slots(&link))
        else {
            return;
        };
        link = None;
        for (_, mut slot) in slots {
            let next = slot.is_extended();
            let origin = if next { start } else { base };
            let Some(first) = origin.checked_add(slot.first) else { continue };
            slot.first = first;
            if next {
                link = Some(first);
            } else {
                partitions.extend(slot.entry(number, sector_bytes));
            }
        }
    }
}
