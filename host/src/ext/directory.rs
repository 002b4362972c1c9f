//! Directories: the entries in a block of one, or in an inode.
//!
//! A block is a chain of entries, each saying how long it is. Index nodes of
//! hashed directories look like blocks with one empty entry, and so does the
//! checksum at the end of a block: readers that know neither pass over them.
//!
//! An inline directory keeps the parent's number in the first four bytes of
//! `i_block` and entries behind; more of them may follow in the attribute
//! `system.data`.

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use crate::ext::finding::Fault;
use crate::units::usize_from;

/// The fixed part of an entry; the name follows.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawEntry {
    inode: U32,
    rec_len: U16,
    name_len: u8,
    /// The type; the high half of the name's length without `filetype`.
    file_type: u8,
}

/// Bytes of the fixed part.
const HEAD_BYTES: usize = 8;
/// `file_type` of the checksum that ends a block.
const TAIL_TYPE: u8 = 0xDE;
/// The longest name.
const NAME_MAX: usize = 255;

/// What an entry says its inode is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum EntryType {
    /// The directory does not tell.
    Unknown,
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A character device.
    CharacterDevice,
    /// A block device.
    BlockDevice,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A symbolic link.
    Symlink,
}

impl EntryType {
    const fn from_byte(byte: u8) -> Self {
        match byte {
            1 => Self::File,
            2 => Self::Directory,
            3 => Self::CharacterDevice,
            4 => Self::BlockDevice,
            5 => Self::Fifo,
            6 => Self::Socket,
            7 => Self::Symlink,
            _ => Self::Unknown,
        }
    }
}

/// A name in a directory.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Entry<'a> {
    /// The inode that it names, never 0.
    pub inode: u32,
    /// What the entry says of it.
    pub kind: EntryType,
    /// The name as on the disk: any bytes, perhaps encrypted.
    pub name: &'a [u8],
}

/// The entries of one block of a directory, `.` and `..` among them.
///
/// Damage ends the list: see [`Entries::fault`].
#[derive(Clone, Debug)]
pub struct Entries<'a> {
    bytes: &'a [u8],
    at: usize,
    fault: Option<Fault>,
}

impl<'a> Entries<'a> {
    /// Of a whole block, or of a stretch of entries in an inode.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, fault: None }
    }

    /// Of a directory in `i_block`: the parent's inode, which takes the place
    /// of `..`, and the entries behind it. `.` is not there at all.
    #[must_use]
    pub fn inline(i_block: &'a [u8]) -> Option<(u32, Self)> {
        let (parent, rest) = U32::ref_from_prefix(i_block).ok()?;
        Some((parent.get(), Self::new(rest)))
    }

    /// What ended the list before the end of its bytes. Known once the
    /// iterator has ended.
    #[must_use]
    pub const fn fault(&self) -> Option<Fault> {
        self.fault
    }

    /// The next record, and whether it is in use.
    fn record(&mut self) -> Result<Option<(RawHead, &'a [u8])>, Fault> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        if rest.is_empty() {
            return Ok(None);
        }
        let Ok((raw, _)) = RawEntry::ref_from_prefix(rest) else {
            return Err(Fault::Missing);
        };
        let length = record_bytes(raw.rec_len.get(), rest.len());
        let name_length = usize::from(raw.name_len);
        let wrong = Fault::BadCount(u64::from(raw.rec_len.get()));
        if length < HEAD_BYTES || !length.is_multiple_of(4) {
            return Err(wrong);
        }
        let record = rest.get(..length).ok_or(wrong)?;
        let head = RawHead {
            inode: raw.inode.get(),
            kind: raw.file_type,
            name_length,
        };
        self.at = self.at.saturating_add(length);
        Ok(Some((head, record)))
    }
}

/// The fixed part of an entry that lies in its block.
#[derive(Clone, Copy, Debug)]
struct RawHead {
    inode: u32,
    kind: u8,
    name_length: usize,
}

/// `rec_len` has 16 bits, and a block of 64 KiB an entry that fills it: both
/// 0 and 65,535 stand for that, and the two low bits are high ones.
pub(super) fn record_bytes(rec_len: u16, left: usize) -> usize {
    if rec_len == 0 || rec_len == u16::MAX {
        return left;
    }
    let low = u32::from(rec_len & 0xFFFC);
    let high = u32::from(rec_len & 3).wrapping_shl(16);
    usize_from(low | high)
}

impl<'a> Iterator for Entries<'a> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Entry<'a>> {
        while self.fault.is_none() {
            let (head, record) = match self.record() {
                Ok(next) => next?,
                Err(fault) => {
                    self.fault = Some(fault);
                    return None;
                }
            };
            // Freed entries, index nodes and the checksum have no inode.
            if head.inode == 0 || head.kind == TAIL_TYPE {
                continue;
            }
            let end = HEAD_BYTES.saturating_add(head.name_length);
            let Some(name) = record.get(HEAD_BYTES..end) else {
                self.fault = Some(Fault::BadCount(crate::units::u64_from(end)));
                return None;
            };
            debug_assert!(name.len() <= NAME_MAX);
            return Some(Entry {
                inode: head.inode,
                kind: EntryType::from_byte(head.kind),
                name,
            });
        }
        None
    }
}

/// Finds entries behind damage: goes on at the next multiple of four bytes
/// where a plausible entry begins, its inode at most `inodes`.
#[must_use]
pub fn salvage(block: &[u8], inodes: u32) -> Vec<Entry<'_>> {
    let mut found = Vec::new();
    let mut from = 0;
    while let Some(rest) = block.get(from..)
        && !rest.is_empty()
    {
        let mut entries = Entries::new(rest);
        for entry in entries.by_ref() {
            if is_plausible(&entry, inodes) {
                found.push(entry);
            }
        }
        let reached = from.saturating_add(entries.at);
        let Some(next) = (reached.saturating_add(4)..block.len())
            .step_by(4)
            .find(|at| begins_well(block.get(*at..), inodes))
        else {
            break;
        };
        from = next;
    }
    found
}

fn begins_well(bytes: Option<&[u8]>, inodes: u32) -> bool {
    let mut entries = Entries::new(bytes.unwrap_or_default());
    entries.next().is_some_and(|entry| is_plausible(&entry, inodes))
        && entries.next().is_none_or(|entry| is_plausible(&entry, inodes))
}

fn is_plausible(entry: &Entry<'_>, inodes: u32) -> bool {
    (1..=inodes).contains(&entry.inode)
        && !entry.name.is_empty()
        && !entry.name.iter().any(|byte| matches!(byte, 0 | b'/'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(inode: u32, length: u16, kind: u8, name: &[u8]) -> Vec<u8> {
        let mut bytes = inode.to_le_bytes().to_vec();
        bytes.extend(length.to_le_bytes());
        bytes.push(u8::try_from(name.len()).unwrap());
        bytes.push(kind);
        bytes.extend(name);
        bytes.resize(usize::from(length).max(bytes.len()), 0);
        bytes
    }

    fn block() -> Vec<u8> {
        let mut block = entry(2, 12, 2, b".");
        block.extend(entry(2, 12, 2, b".."));
        block.extend(entry(0, 16, 1, b"gone"));
        block.extend(entry(12, 20, 7, b"link"));
        block.extend(entry(13, 1024 - 12 - 60, 1, b"last"));
        block.extend(entry(0, 12, TAIL_TYPE, b""));
        block
    }

    fn names(entries: &mut Entries<'_>) -> Vec<(u32, String)> {
        entries
            .map(|entry| {
                let name = String::from_utf8(entry.name.to_vec()).unwrap();
                (entry.inode, name)
            })
            .collect()
    }

    #[test]
    fn a_block_gives_its_names_without_freed_ones_and_the_checksum() {
        let block = block();
        assert_eq!(block.len(), 1024);
        let mut entries = Entries::new(&block);
        let names = names(&mut entries);
        let expected = [(2, "."), (2, ".."), (12, "link"), (13, "last")]
            .map(|(inode, name)| (inode, name.to_owned()));
        assert_eq!(names, expected);
        assert_eq!(entries.fault(), None);
        let kind = Entries::new(&block).nth(2).unwrap().kind;
        assert_eq!(kind, EntryType::Symlink);
    }

    #[test]
    fn an_entry_may_fill_a_block_of_64_kib() {
        for length in [0_u16, 65_535] {
            let mut block = entry(5, 12, 1, b"name");
            block[4..6].copy_from_slice(&length.to_le_bytes());
            block.resize(65_536, 0);
            let mut entries = Entries::new(&block);
            assert_eq!(entries.next().unwrap().name, b"name");
            assert_eq!((entries.next(), entries.fault()), (None, None));
        }
    }

    #[test]
    fn what_lies_behind_a_broken_entry_can_be_salvaged() {
        let mut block = block();
        block[4..6].copy_from_slice(&7_u16.to_le_bytes());
        let mut entries = Entries::new(&block);
        assert_eq!(entries.next(), None);
        assert_eq!(entries.fault(), Some(Fault::BadCount(7)));
        let saved: Vec<&[u8]> =
            salvage(&block, 100).iter().map(|entry| entry.name).collect();
        assert_eq!(saved, [&b".."[..], b"link", b"last"]);
    }

    #[test]
    fn an_inline_directory_begins_with_its_parent() {
        let mut root = 2_u32.to_le_bytes().to_vec();
        root.extend(entry(14, 56, 1, b"inline"));
        let (parent, mut entries) = Entries::inline(&root).unwrap();
        assert_eq!(parent, 2);
        assert_eq!(names(&mut entries), [(14, "inline".to_owned())]);
    }

    proptest! {
        #[test]
        fn any_bytes_come_to_an_end(
            block in prop::collection::vec(
                prop_oneof![Just(0), Just(12), any::<u8>()], 0..2048),
        ) {
            let count = Entries::new(&block).count();
            prop_assert!(count <= block.len() / HEAD_BYTES);
            prop_assert!(salvage(&block, u32::MAX).len() <= block.len() / 4);
        }
    }
}
