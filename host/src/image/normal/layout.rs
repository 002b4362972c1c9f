//! Where the parts of a normal image lie.

use crate::error::{Error, ErrorKind, Result};
use crate::ext::Geometry;
use crate::image::normal::Header;
use crate::image::writer::too_far;
use crate::units::BlockSize;

/// The places of the parts, in bytes from the start of the image.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Layout {
    pub(super) block_size: BlockSize,
    pub(super) offset_super: u64,
    pub(super) offset_descriptors: u64,
    pub(super) offset_inode: u64,
    pub(super) offset_blockmap: u64,
    pub(super) offset_inodemap: u64,
    /// The end of the image.
    pub(super) length: u64,
    /// Bytes of one group's inode table, block bitmap and inode bitmap.
    table_bytes: u64,
    block_bitmap_bytes: u64,
    inode_bitmap_bytes: u64,
}

/// Something of a group that is in the image.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Kind {
    Table,
    BlockBitmap,
    InodeBitmap,
}

impl Layout {
    /// # Errors
    ///
    /// [`ErrorKind::Refused`] when an offset does not fit into the header.
    pub(super) fn new(geometry: &Geometry) -> Result<Self> {
        let layout = Self::unbounded(geometry).ok_or_else(too_far)?;
        let last = layout.offset_inodemap;
        if u32::try_from(last).is_ok() {
            return Ok(layout);
        }
        Err(Error::new(
            ErrorKind::Refused,
            format!(
                "the inode tables and block bitmaps of this filesystem need \
                 {last} bytes, and a normal image cannot say where something \
                 lies beyond 4 GiB",
            ),
        )
        .intact("nothing was written")
        .hint("--format raw or qcow2 has no such limit"))
    }

    fn unbounded(geometry: &Geometry) -> Option<Self> {
        let block_size = geometry.block_size;
        let bs = block_size.bytes_u64();
        let groups = u64::from(geometry.groups);
        let up = |bytes: u64| bytes.checked_next_multiple_of(bs);
        let offset_descriptors = bs.checked_mul(2)?;
        let offset_inode = u64::from(geometry.descriptor_blocks)
            .checked_mul(bs)?
            .checked_add(offset_descriptors)?;
        let table_bytes =
            u64::from(geometry.inode_table_blocks).checked_mul(bs)?;
        let block_bitmap_bytes = u64::from(geometry.clusters_per_group / 8);
        let inode_bitmap_bytes = u64::from(geometry.inodes_per_group / 8);
        let offset_blockmap =
            groups.checked_mul(table_bytes)?.checked_add(offset_inode)?;
        let offset_inodemap = up(groups.checked_mul(block_bitmap_bytes)?)?
            .checked_add(offset_blockmap)?;
        let length = up(groups.checked_mul(inode_bitmap_bytes)?)?
            .checked_add(offset_inodemap)?;
        Some(Self {
            block_size,
            offset_super: bs,
            offset_descriptors,
            offset_inode,
            offset_blockmap,
            offset_inodemap,
            length,
            table_bytes,
            block_bitmap_bytes,
            inode_bitmap_bytes,
        })
    }

    /// Whether the header of an image says the same.
    pub(super) fn is_that_of(&self, header: &Header) -> bool {
        [
            (header.offset_super, self.offset_super),
            (header.offset_inode, self.offset_inode),
            (header.offset_blockmap, self.offset_blockmap),
            (header.offset_inodemap, self.offset_inodemap),
        ]
        .into_iter()
        .all(|(said, computed)| u64::from(said.get()) == computed)
    }

    /// Where something of a group lies, and how long it is.
    pub(super) fn place(&self, kind: Kind, group: u32) -> (u64, u64) {
        let (offset, bytes) = match kind {
            Kind::Table => (self.offset_inode, self.table_bytes),
            Kind::BlockBitmap => {
                (self.offset_blockmap, self.block_bitmap_bytes)
            }
            Kind::InodeBitmap => {
                (self.offset_inodemap, self.inode_bitmap_bytes)
            }
        };
        // All of it lies before `length`, which is proven not to wrap.
        let skip = u64::from(group).wrapping_mul(bytes);
        (offset.wrapping_add(skip), bytes)
    }
}
