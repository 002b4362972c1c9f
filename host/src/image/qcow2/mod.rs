//! qcow2, QEMU's image format (QEMU, docs/interop/qcow2).
//!
//! # The format
//!
//! The file is divided into *clusters*, and so is what the guest sees: for us
//! the guest disk is the filesystem. All numbers are big-endian.
//!
//! ```text
//! header            cluster 0: magic, cluster size, guest size, where the
//!                   tables are
//! L1 table          one 8-byte entry for each L2 table: its place in the
//!                   file, 0 if there is none
//! L2 table          one cluster of 8-byte entries, one for each guest
//!                   cluster: place of the data, or "reads as zeros", or
//!                   compressed, or 0: not in the image
//! refcount table    one 8-byte entry for each refcount block
//! refcount block    one cluster of 16-bit counts, one for each cluster of
//!                   the file: how often it is used; 0 is free
//! data              a guest cluster each
//! ```
//!
//! Bit 63 of an L1 or L2 entry says that the place is used exactly once; all
//! our entries have it but those of compressed clusters and zeros.
//!
//! # What is written
//!
//! *compact*, the default: version 3. The cluster is as large as a block, or
//! larger where a table would exceed QEMU's limits, so that what is stored is
//! what was selected. Selected blocks that hold only zeros are marked as
//! such and take no room. Into a file:
//!
//! ```text
//! header | data, in the order of arrival | L2 tables | L1 table |
//! refcount blocks | refcount table
//! ```
//!
//! The header is written last: an image that was cut short is none. Into a
//! pipe, where the data come ascending and are counted beforehand:
//!
//! ```text
//! header | refcount table | refcount blocks | L1 table | L2 tables | data
//! ```
//!
//! *classic*: version 2, byte for byte what e2image writes; see [`classic`].
//!
//! A compressed cluster is a raw deflate stream (window 4 KiB) or a zstd
//! frame. One follows the other without a gap; the place is given in bytes
//! and the length in sectors of 512 bytes, so a cluster of the file is
//! counted once for each compressed cluster that touches it.

pub mod classic;
pub mod compact;
mod compress;
pub mod read;
pub mod stream;
mod table_cache;
mod tables;

use zerocopy::big_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::error::{Error, ErrorKind, Result};
use crate::image::format::Qcow2Compression;
use crate::image::shape::Shape;
use crate::image::writer::too_far;

/// "QFI" and 0xfb.
pub(super) const MAGIC: u32 = 0x5146_49FB;

/// Bit 63 of an entry: the cluster is used exactly once.
pub(super) const COPIED: u64 = 1 << 63;
/// Bit 62 of an L2 entry: the cluster is compressed.
pub(super) const COMPRESSED: u64 = 1 << 62;
/// Bit 0 of an L2 entry, version 3: the cluster reads as zeros.
pub(super) const ZERO: u64 = 1;
/// Bits 9 to 55 of an entry: a place in the file.
pub(super) const OFFSET_MASK: u64 = 0x00FF_FFFF_FFFF_FE00;

/// Incompatible feature bit 3: the compression type is not deflate.
pub(super) const INCOMPATIBLE_COMPRESSION: u64 = 1 << 3;

/// QEMU refuses an L1 table that is larger (`QCOW_MAX_L1_SIZE`).
pub(super) const L1_BYTES_MAX: u64 = 32 << 20;
/// QEMU refuses a refcount table that is larger (`QCOW_MAX_REFTABLE_SIZE`).
const REFCOUNT_TABLE_BYTES_MAX: u64 = 8 << 20;
/// Clusters are 2 MiB at most.
pub(super) const CLUSTER_BITS_MAX: u32 = 21;

/// The header of version 2, the first 72 bytes of every version.
#[derive(
    Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Default,
)]
#[repr(C)]
pub(super) struct Header {
    pub(super) magic: U32,
    pub(super) version: U32,
    pub(super) backing_file_offset: U64,
    pub(super) backing_file_size: U32,
    pub(super) cluster_bits: U32,
    pub(super) size: U64,
    pub(super) crypt_method: U32,
    pub(super) l1_size: U32,
    pub(super) l1_table_offset: U64,
    pub(super) refcount_table_offset: U64,
    pub(super) refcount_table_clusters: U32,
    pub(super) nb_snapshots: U32,
    pub(super) snapshots_offset: U64,
}

/// What version 3 adds behind [`Header`].
#[derive(
    Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Default,
)]
#[repr(C)]
pub(super) struct HeaderV3 {
    pub(super) incompatible_features: U64,
    pub(super) compatible_features: U64,
    pub(super) autoclear_features: U64,
    pub(super) refcount_order: U32,
    pub(super) header_length: U32,
    /// 0 deflate, 1 zstd; there if the header is 112 bytes long.
    pub(super) compression_type: u8,
    pub(super) padding: [u8; 7],
}

/// The file sizes of tables for a filesystem and a cluster size.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Clusters {
    bits: u32,
    /// The base-2 logarithm of how many blocks fill a cluster.
    ratio_bits: u32,
    guest_bytes: u64,
    l1_size: u32,
}

impl Clusters {
    /// The smallest clusters, at least a block each, for which QEMU takes
    /// the tables.
    fn smallest(shape: Shape) -> Result<Self> {
        let block_bits = shape.block_size().log2();
        (block_bits..=CLUSTER_BITS_MAX)
            .filter_map(|bits| Self::new(shape, bits).ok())
            .find(|clusters| {
                clusters.l1_bytes() <= L1_BYTES_MAX
                    && clusters.full_refcount_table_bytes()
                        <= REFCOUNT_TABLE_BYTES_MAX
            })
            .ok_or_else(|| refused(shape))
    }

    /// Clusters of `1 << bits` bytes, at least a block each.
    fn new(shape: Shape, bits: u32) -> Result<Self> {
        let ratio_bits = bits
            .checked_sub(shape.block_size().log2())
            .ok_or_else(|| refused(shape))?;
        // An L2 table has `1 << (bits - 3)` entries of `1 << bits` bytes.
        let per_table = 1_u64
            .checked_shl(bits.saturating_mul(2).saturating_sub(3))
            .ok_or_else(too_far)?;
        let guest_bytes = shape.length();
        let l1_size = u32::try_from(guest_bytes.div_ceil(per_table))
            .map_err(|_| refused(shape))?;
        Ok(Self { bits, ratio_bits, guest_bytes, l1_size })
    }

    const fn bytes(self) -> u64 {
        1_u64.wrapping_shl(self.bits)
    }

    /// The base-2 logarithm of the number of entries of an L2 table.
    const fn l2_bits(self) -> u32 {
        self.bits.wrapping_sub(3)
    }

    fn l1_bytes(self) -> u64 {
        u64::from(self.l1_size).saturating_mul(8)
    }

    fn l1_clusters(self) -> u64 {
        self.l1_bytes().div_ceil(self.bytes())
    }

    /// The refcount table of an image that holds every cluster.
    fn full_refcount_table_bytes(self) -> u64 {
        let data = self.guest_bytes.div_ceil(self.bytes());
        let used = data
            .saturating_add(u64::from(self.l1_size))
            .saturating_add(self.l1_clusters())
            .saturating_add(1);
        tables::Refcounts::behind(used, self.bits)
            .table_clusters
            .saturating_mul(self.bytes())
    }

    /// The place of a cluster of the file.
    fn place(self, cluster: u64) -> Result<u64> {
        cluster
            .checked_mul(self.bytes())
            .filter(|place| place & !OFFSET_MASK == 0)
            .ok_or_else(too_far)
    }

    /// The first bytes of the file, for version 3.
    fn header(
        self,
        l1_cluster: u64,
        refcounts: &tables::Refcounts,
        compression: Qcow2Compression,
    ) -> Result<Vec<u8>> {
        let header = Header {
            magic: MAGIC.into(),
            version: 3.into(),
            cluster_bits: self.bits.into(),
            size: self.guest_bytes.into(),
            l1_size: self.l1_size.into(),
            l1_table_offset: self.place(l1_cluster)?.into(),
            refcount_table_offset: self.place(refcounts.table)?.into(),
            refcount_table_clusters: u32::try_from(refcounts.table_clusters)
                .map_err(|_| too_far())?
                .into(),
            ..Header::default()
        };
        let mut more = HeaderV3 {
            // 16 bits a count.
            refcount_order: 4.into(),
            header_length: 104.into(),
            ..HeaderV3::default()
        };
        let mut bytes = header.as_bytes().to_vec();
        if compression == Qcow2Compression::Zstd {
            more.incompatible_features = INCOMPATIBLE_COMPRESSION.into();
            more.header_length = 112.into();
            more.compression_type = 1;
        }
        // Without a compression type its eight bytes are the end mark of the
        // header extensions, which is zero as well.
        bytes.extend_from_slice(more.as_bytes());
        Ok(bytes)
    }
}

fn refused(shape: Shape) -> Error {
    Error::new(
        ErrorKind::Refused,
        format!(
            "a filesystem of {} bytes is larger than qcow2 can hold",
            shape.length()
        ),
    )
    .intact("nothing was written")
    .hint("--format raw holds it")
}

#[cfg(test)]
mod tests;
