//! The names of on-disk fields: what to call a place in a superblock, a group
//! descriptor or an inode where two of them differ.

use super::groups::{RawGroupHigh, RawGroupLow};
use super::inode::{RawInode, RawInodeExtra};
use super::superblock::RawSuperblock;
use crate::units::usize_from;

/// A field, by the kernel's name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Field {
    /// The kernel's name.
    pub name: &'static str,
    /// Where it begins, in bytes from the start of its structure.
    pub at: usize,
    /// How many bytes it takes.
    pub length: usize,
}

/// Declares an on-disk structure that knows the names of its fields:
/// `FIELDS`, in their order.
macro_rules! with_fields {
    (
        $(#[$meta:meta])*
        $vis:vis struct $name:ident {
            $($(#[$doc:meta])* $field_vis:vis $field:ident: $type:ty,)*
        }
    ) => {
        $(#[$meta])*
        $vis struct $name {
            $($(#[$doc])* $field_vis $field: $type,)*
        }

        impl $name {
            /// Every field, in the order of their places.
            pub(crate) const FIELDS: &'static [$crate::ext::fields::Field] = &[
                $($crate::ext::fields::Field {
                    name: stringify!($field),
                    at: std::mem::offset_of!($name, $field),
                    length: size_of::<$type>(),
                },)*
            ];
        }
    };
}
pub(super) use with_fields;

/// What lies in an inode behind the fields that it says it has.
const INODE_XATTRS: &str = "xattrs in the inode";
/// Where `i_extra_isize` lies: behind the first 128 bytes.
const EXTRA_AT: usize = size_of::<RawInode>();

/// The fields of the superblock.
#[must_use]
pub const fn of_superblock() -> &'static [Field] {
    RawSuperblock::FIELDS
}

/// The fields of a group descriptor that is `size` bytes long.
#[must_use]
pub fn of_descriptor(size: u32) -> Vec<Field> {
    let low = size_of::<RawGroupLow>();
    let high = RawGroupHigh::FIELDS
        .iter()
        .map(|field| Field { at: field.at.saturating_add(low), ..*field });
    let mut fields: Vec<Field> =
        RawGroupLow::FIELDS.iter().copied().chain(high).collect();
    fields.retain(|field| ends(field) <= usize_from(size));
    fields
}

/// The fields of an inode that is `inode` whole; what lies behind them, its
/// attributes, is the last one.
#[must_use]
pub fn of_inode(inode: &[u8]) -> Vec<Field> {
    let extra = inode.get(EXTRA_AT..).and_then(|extra| extra.first_chunk());
    let extra = extra.map_or(0, |bytes| u16::from_le_bytes(*bytes));
    let end = EXTRA_AT.saturating_add(usize::from(extra)).min(inode.len());
    let behind = RawInodeExtra::FIELDS
        .iter()
        .map(|field| Field { at: field.at.saturating_add(EXTRA_AT), ..*field });
    // The first of them says how many there are, so it is always there.
    let behind = behind
        .enumerate()
        .filter(|(index, field)| *index == 0 || ends(field) <= end)
        .map(|(_, field)| field);
    let mut fields: Vec<Field> =
        RawInode::FIELDS.iter().copied().chain(behind).collect();
    fields.retain(|field| ends(field) <= inode.len());
    let at = fields.last().map_or(0, ends);
    if let Some(length) = inode.len().checked_sub(at).filter(|left| *left > 0) {
        fields.push(Field { name: INODE_XATTRS, at, length });
    }
    fields
}

const fn ends(field: &Field) -> usize {
    field.at.saturating_add(field.length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(fields: &[Field], length: usize) {
        let mut at = 0;
        for field in fields {
            assert_eq!(field.at, at, "{}", field.name);
            at = ends(field);
        }
        assert_eq!(at, length);
    }

    #[test]
    fn every_byte_of_every_structure_has_a_name() {
        check(of_superblock(), 1024);
        check(&of_descriptor(32), 32);
        check(&of_descriptor(64), 64);
        for (length, extra) in
            [(128, 0_u8), (256, 0), (256, 4), (256, 32), (256, 255), (160, 32)]
        {
            let mut inode = vec![0; length];
            if let Some(byte) = inode.get_mut(EXTRA_AT) {
                *byte = extra;
            }
            check(&of_inode(&inode), length);
        }
    }

    #[test]
    fn places_are_those_of_the_kernels_documentation() {
        let at = |fields: &[Field], name: &str| {
            fields.iter().find(|field| field.name == name).map(|f| f.at)
        };
        let inode = [&[0; 128][..], &[32, 0], &[0; 126]].concat();
        for (fields, name, place) in [
            (of_superblock().to_vec(), "s_free_inodes_count", 0x10),
            (of_superblock().to_vec(), "s_last_error_time", 0x1CC),
            (of_superblock().to_vec(), "s_checksum", 0x3FC),
            (of_descriptor(64), "bg_itable_unused_lo", 0x1C),
            (of_descriptor(64), "bg_free_blocks_count_hi", 0x2C),
            (of_inode(&inode), "i_file_acl_lo", 0x68),
            (of_inode(&inode), "i_crtime", 0x90),
            (of_inode(&inode), "i_projid", 0x9C),
        ] {
            assert_eq!(at(&fields, name), Some(place), "{name}");
        }
    }
}
