//! Extended attributes: in a block of their own, or behind the inode.
//!
//! Both hold a list of entries from the front and values from the back. A
//! large value lies in an inode of its own, which the entry names.

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use crate::ext::finding::Fault;
use crate::units::usize_from;

/// `h_magic` of a block, and of the attributes behind an inode.
const MAGIC: u32 = 0xEA02_0000;
/// Bytes of the head of a block.
const BLOCK_HEAD_BYTES: usize = 32;
/// Entries and names are padded to this.
const PAD: usize = 4;

#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawEntry {
    e_name_len: u8,
    e_name_index: u8,
    e_value_offs: U16,
    e_value_inum: U32,
    e_value_size: U32,
    e_hash: U32,
}

const ENTRY_BYTES: usize = size_of::<RawEntry>();

/// Where the value of an attribute lies.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Value<'a> {
    /// Here.
    Here(&'a [u8]),
    /// In the data of this inode, so many bytes.
    InInode {
        /// The inode.
        inode: u32,
        /// The length of the value in bytes.
        bytes: u32,
    },
}

/// An extended attribute.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Xattr<'a> {
    /// What stands before the name, as a number.
    pub name_index: u8,
    /// The rest of the name.
    pub name: &'a [u8],
    /// The value.
    pub value: Value<'a>,
}

impl Xattr<'_> {
    /// What stands before the name; `None` for numbers nobody knows.
    #[must_use]
    pub const fn prefix(&self) -> Option<&'static str> {
        Some(match self.name_index {
            0 => "",
            1 => "user.",
            2 => "system.posix_acl_access",
            3 => "system.posix_acl_default",
            4 => "trusted.",
            6 => "security.",
            7 => "system.",
            8 => "system.richacl",
            9 => "encryption.",
            _ => return None,
        })
    }
}

/// The attributes of one inode or block.
///
/// Damage ends the list or costs one value: see [`Xattrs::fault`].
#[derive(Clone, Debug)]
pub struct Xattrs<'a> {
    bytes: &'a [u8],
    at: usize,
    /// What the offsets of values count from.
    values: usize,
    fault: Option<Fault>,
}

impl<'a> Xattrs<'a> {
    /// Of a block.
    ///
    /// # Errors
    ///
    /// `BadMagic` when it holds no attributes, `Missing` when it is cut short.
    pub fn block(bytes: &'a [u8]) -> Result<Self, Fault> {
        check_magic(bytes)?;
        Ok(Self { bytes, at: BLOCK_HEAD_BYTES, values: 0, fault: None })
    }

    /// Of the space behind an inode; `inode` is all of it, as long as the
    /// superblock says inodes are. `None` when there are none.
    ///
    /// # Errors
    ///
    /// `BadCount` when `i_extra_isize` cannot be.
    pub fn behind_inode(inode: &'a [u8]) -> Result<Option<Self>, Fault> {
        let Some(rest) = inode.get(128..).filter(|rest| !rest.is_empty())
        else {
            return Ok(None);
        };
        let (extra, _) =
            U16::ref_from_prefix(rest).map_err(|_| Fault::Missing)?;
        let extra = usize::from(extra.get());
        let Some(space) = rest.get(extra..).filter(|_| extra % PAD == 0) else {
            return Err(Fault::BadCount(crate::units::u64_from(extra)));
        };
        // Without the magic there are no attributes, which is no damage.
        if check_magic(space).is_err() {
            return Ok(None);
        }
        Ok(Some(Self { bytes: space, at: 4, values: 4, fault: None }))
    }

    /// What went wrong. Known once the iterator has ended.
    #[must_use]
    pub const fn fault(&self) -> Option<Fault> {
        self.fault
    }

    fn entry(&mut self) -> Result<Option<Xattr<'a>>, Fault> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        // Four zero bytes end the list.
        if rest.get(..4).is_none_or(|end| end == [0; 4]) {
            return Ok(None);
        }
        let (raw, behind) =
            RawEntry::ref_from_prefix(rest).map_err(|_| Fault::Missing)?;
        let length = usize::from(raw.e_name_len);
        let name = behind
            .get(..length)
            .ok_or(Fault::BadCount(u64::from(raw.e_name_len)))?;
        let step = ENTRY_BYTES
            .saturating_add(length)
            .checked_next_multiple_of(PAD)
            .ok_or(Fault::Missing)?;
        self.at = self.at.saturating_add(step);
        let inode = raw.e_value_inum.get();
        let bytes = raw.e_value_size.get();
        let value = if inode == 0 {
            Value::Here(self.value(raw.e_value_offs.get(), bytes)?)
        } else {
            Value::InInode { inode, bytes }
        };
        Ok(Some(Xattr { name_index: raw.e_name_index, name, value }))
    }

    fn value(&self, offset: u16, bytes: u32) -> Result<&'a [u8], Fault> {
        if bytes == 0 {
            return Ok(&[]);
        }
        let from = self.values.saturating_add(usize::from(offset));
        let to = from.saturating_add(usize_from(bytes));
        self.bytes.get(from..to).ok_or(Fault::BadCount(u64::from(bytes)))
    }
}

fn check_magic(bytes: &[u8]) -> Result<(), Fault> {
    let (magic, _) = U32::ref_from_prefix(bytes).map_err(|_| Fault::Missing)?;
    if magic.get() == MAGIC { Ok(()) } else { Err(Fault::BadMagic) }
}

impl<'a> Iterator for Xattrs<'a> {
    type Item = Xattr<'a>;

    fn next(&mut self) -> Option<Xattr<'a>> {
        loop {
            let before = self.at;
            match self.entry() {
                Ok(entry) => return entry,
                Err(fault) => {
                    self.fault = Some(fault);
                    // A value that is not there costs only its entry.
                    if self.at == before {
                        self.at = self.bytes.len();
                        return None;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(name: &[u8], offset: u16, inode: u32, bytes: u32) -> Vec<u8> {
        let mut entry = vec![u8::try_from(name.len()).unwrap(), 1];
        entry.extend(offset.to_le_bytes());
        entry.extend(inode.to_le_bytes());
        entry.extend(bytes.to_le_bytes());
        entry.extend([0; 4]);
        entry.extend(name);
        entry.resize(entry.len().next_multiple_of(PAD), 0);
        entry
    }

    fn with_values(head: usize, entries: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = MAGIC.to_le_bytes().to_vec();
        bytes.resize(head, 0);
        bytes.extend(entries.concat());
        bytes.resize(256, 0);
        bytes[250..255].copy_from_slice(b"value");
        bytes
    }

    #[test]
    fn a_block_gives_names_and_values() {
        let entries = [
            entry(b"a", 250, 0, 5),
            entry(b"large", 0, 77, 5000),
            entry(b"empty", 0, 0, 0),
        ];
        let bytes = with_values(BLOCK_HEAD_BYTES, &entries);
        let mut list = Xattrs::block(&bytes).unwrap();
        let found: Vec<_> = list.by_ref().collect();
        assert_eq!(list.fault(), None);
        let [a, large, empty] = found[..] else { panic!("{found:?}") };
        assert_eq!((a.prefix(), a.name), (Some("user."), &b"a"[..]));
        assert_eq!(a.value, Value::Here(b"value"));
        assert_eq!(large.value, Value::InInode { inode: 77, bytes: 5000 });
        assert_eq!(empty.value, Value::Here(b""));
    }

    #[test]
    fn values_behind_an_inode_count_from_the_first_entry() {
        let mut inode = vec![0; 128];
        inode.extend(32_u16.to_le_bytes());
        inode.resize(160, 0);
        let space = with_values(4, &[entry(b"in", 246, 0, 5)]);
        inode.extend(&space);
        let found: Vec<_> =
            Xattrs::behind_inode(&inode).unwrap().unwrap().collect();
        assert_eq!(found[0].value, Value::Here(b"value"));
        inode[128] = 33;
        assert!(Xattrs::behind_inode(&inode).is_err());
        assert!(Xattrs::behind_inode(&inode[..128]).unwrap().is_none());
    }

    #[test]
    fn a_value_outside_costs_only_its_entry() {
        let entries = [entry(b"out", 250, 0, 50), entry(b"in", 250, 0, 5)];
        let bytes = with_values(BLOCK_HEAD_BYTES, &entries);
        let mut list = Xattrs::block(&bytes).unwrap();
        let found: Vec<_> = list.by_ref().collect();
        assert_eq!(found.len(), 1);
        assert_eq!(list.fault(), Some(Fault::BadCount(50)));
        assert!(matches!(Xattrs::block(&[0; 64]), Err(Fault::BadMagic)));
    }

    proptest! {
        #[test]
        fn any_bytes_come_to_an_end(
            mut bytes in prop::collection::vec(any::<u8>(), 32..1024),
        ) {
            bytes[..4].copy_from_slice(&MAGIC.to_le_bytes());
            let count = Xattrs::block(&bytes).unwrap().count();
            prop_assert!(count <= bytes.len() / ENTRY_BYTES);
        }
    }
}
