//! The superblock: 1,024 bytes at byte 1,024, and copies at the head of some
//! block groups.
//!
//! [`RawSuperblock`] shows whatever lies there, under the kernel's names.
//! [`Superblock`] has passed the checks without which nothing else can be
//! found. The layout is that of Documentation/filesystems/ext4 in the Linux
//! tree.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::checksums::crc32c;
use super::extents;
use super::fields::with_fields;
use super::finding::Fault;
use super::groups;
use super::inode::I_BLOCK_BYTES;
use crate::error::{Error, ErrorKind, Result};
use crate::ext::Geometry;
use crate::units::{BlockCount, BlockNumber, BlockSize, ByteCount, usize_from};

/// Size of the superblock in bytes.
pub const SUPERBLOCK_BYTES: usize = 1024;
/// Where the primary superblock lies, in bytes from the start.
pub const SUPERBLOCK_OFFSET: u64 = 1024;
/// `s_magic`.
pub const MAGIC: u16 = 0xEF53;

with_fields! {
    /// The superblock as it lies on the disk.
    #[derive(
        Clone, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    )]
    #[repr(C)]
    #[expect(missing_docs, reason = "the kernel's documentation names the fields")]
    pub struct RawSuperblock {
        pub s_inodes_count: U32,
        pub s_blocks_count_lo: U32,
        pub s_r_blocks_count_lo: U32,
        pub s_free_blocks_count_lo: U32,
        pub s_free_inodes_count: U32,
        pub s_first_data_block: U32,
        pub s_log_block_size: U32,
        pub s_log_cluster_size: U32,
        pub s_blocks_per_group: U32,
        pub s_clusters_per_group: U32,
        pub s_inodes_per_group: U32,
        pub s_mtime: U32,
        pub s_wtime: U32,
        pub s_mnt_count: U16,
        pub s_max_mnt_count: U16,
        pub s_magic: U16,
        pub s_state: U16,
        pub s_errors: U16,
        pub s_minor_rev_level: U16,
        pub s_lastcheck: U32,
        pub s_checkinterval: U32,
        pub s_creator_os: U32,
        pub s_rev_level: U32,
        pub s_def_resuid: U16,
        pub s_def_resgid: U16,
        pub s_first_ino: U32,
        pub s_inode_size: U16,
        pub s_block_group_nr: U16,
        pub s_feature_compat: U32,
        pub s_feature_incompat: U32,
        pub s_feature_ro_compat: U32,
        pub s_uuid: [u8; 16],
        pub s_volume_name: [u8; 16],
        pub s_last_mounted: [u8; 64],
        pub s_algorithm_usage_bitmap: U32,
        pub s_prealloc_blocks: u8,
        pub s_prealloc_dir_blocks: u8,
        pub s_reserved_gdt_blocks: U16,
        pub s_journal_uuid: [u8; 16],
        pub s_journal_inum: U32,
        pub s_journal_dev: U32,
        pub s_last_orphan: U32,
        pub s_hash_seed: [U32; 4],
        pub s_def_hash_version: u8,
        pub s_jnl_backup_type: u8,
        pub s_desc_size: U16,
        pub s_default_mount_opts: U32,
        pub s_first_meta_bg: U32,
        pub s_mkfs_time: U32,
        pub s_jnl_blocks: [U32; 17],
        pub s_blocks_count_hi: U32,
        pub s_r_blocks_count_hi: U32,
        pub s_free_blocks_count_hi: U32,
        pub s_min_extra_isize: U16,
        pub s_want_extra_isize: U16,
        pub s_flags: U32,
        pub s_raid_stride: U16,
        pub s_mmp_interval: U16,
        pub s_mmp_block: U64,
        pub s_raid_stripe_width: U32,
        pub s_log_groups_per_flex: u8,
        pub s_checksum_type: u8,
        pub s_reserved_pad: U16,
        pub s_kbytes_written: U64,
        pub s_snapshot_inum: U32,
        pub s_snapshot_id: U32,
        pub s_snapshot_r_blocks_count: U64,
        pub s_snapshot_list: U32,
        pub s_error_count: U32,
        pub s_first_error_time: U32,
        pub s_first_error_ino: U32,
        pub s_first_error_block: U64,
        pub s_first_error_func: [u8; 32],
        pub s_first_error_line: U32,
        pub s_last_error_time: U32,
        pub s_last_error_ino: U32,
        pub s_last_error_line: U32,
        pub s_last_error_block: U64,
        pub s_last_error_func: [u8; 32],
        pub s_mount_opts: [u8; 64],
        pub s_usr_quota_inum: U32,
        pub s_grp_quota_inum: U32,
        pub s_overhead_clusters: U32,
        pub s_backup_bgs: [U32; 2],
        pub s_encrypt_algos: [u8; 4],
        pub s_encrypt_pw_salt: [u8; 16],
        pub s_lpf_ino: U32,
        pub s_prj_quota_inum: U32,
        pub s_checksum_seed: U32,
        pub s_wtime_hi: u8,
        pub s_mtime_hi: u8,
        pub s_mkfs_time_hi: u8,
        pub s_lastcheck_hi: u8,
        pub s_first_error_time_hi: u8,
        pub s_last_error_time_hi: u8,
        pub s_first_error_errcode: u8,
        pub s_last_error_errcode: u8,
        pub s_encoding: U16,
        pub s_encoding_flags: U16,
        pub s_orphan_file_inum: U32,
        pub s_reserved: [U32; 94],
        pub s_checksum: U32,
    }
}

const _: () = assert!(size_of::<RawSuperblock>() == SUPERBLOCK_BYTES);

/// `s_feature_compat` bits that matter here.
pub mod compat {
    /// There is a journal, here or on another device.
    pub const HAS_JOURNAL: u32 = 0x4;
    /// Only two groups hold copies of the superblock, `s_backup_bgs`.
    pub const SPARSE_SUPER2: u32 = 0x200;
}

/// `s_feature_incompat` bits.
pub mod incompat {
    /// The journal holds changes that are not in place yet.
    pub const RECOVER: u32 = 0x4;
    /// This is no filesystem, it is the journal of another.
    pub const JOURNAL_DEV: u32 = 0x8;
    /// Descriptors lie in their own groups.
    pub const META_BG: u32 = 0x10;
    /// Inodes may use extents.
    pub const EXTENTS: u32 = 0x40;
    /// 64-bit block numbers, large descriptors.
    pub const BIT64: u32 = 0x80;
    /// Multiple-mount protection.
    pub const MMP: u32 = 0x100;
    /// Large attribute values have inodes of their own.
    pub const EA_INODE: u32 = 0x400;
    /// The checksum seed is stored instead of derived from the UUID.
    pub const CSUM_SEED: u32 = 0x2000;

    /// What this program knows: filetype, recover, journal_dev, meta_bg,
    /// extents, 64bit, mmp, flex_bg, ea_inode, csum_seed, largedir,
    /// inline_data, encrypt, casefold.
    pub const KNOWN: u32 = 0x2
        | RECOVER
        | JOURNAL_DEV
        | META_BG
        | EXTENTS
        | BIT64
        | MMP
        | 0x200
        | EA_INODE
        | CSUM_SEED
        | 0x4000
        | 0x8000
        | 0x1_0000
        | 0x2_0000;
}

/// `s_feature_ro_compat` bits that matter here.
pub mod ro_compat {
    /// Only some groups hold copies of the superblock.
    pub const SPARSE_SUPER: u32 = 0x1;
    /// Descriptors have a CRC-16 and may say "not initialised".
    pub const GDT_CSUM: u32 = 0x10;
    /// Space is allocated in clusters of blocks.
    pub const BIGALLOC: u32 = 0x200;
    /// All metadata has checksums.
    pub const METADATA_CSUM: u32 = 0x400;
}

/// `s_creator_os` of the Hurd, whose inodes may name a translator block.
const CREATOR_HURD: u32 = 1;

/// The descriptor table is kept in memory. A filesystem of 2 PiB with
/// ordinary groups needs this much, one larger than that is refused.
const DESCRIPTOR_TABLE_BYTES_MAX: u64 = 1 << 30;

/// A superblock that has been checked, as far as the walk needs it.
#[derive(Clone, Debug)]
pub(crate) struct Superblock {
    pub(crate) geometry: Geometry,
    pub(crate) bytes: Box<[u8; SUPERBLOCK_BYTES]>,
    /// The block whose first or second KiB it is.
    pub(crate) at: BlockNumber,
    /// It comes from elsewhere than the usual place.
    pub(crate) is_backup: bool,
    /// What is wrong with the first one, when this copy was looked for
    /// because of that.
    pub(crate) replaces: Option<Fault>,
    pub(crate) compat: u32,
    pub(crate) incompat: u32,
    pub(crate) ro_compat: u32,
    pub(crate) inodes_count: u32,
    pub(crate) first_meta_bg: u32,
    pub(crate) backup_groups: [u32; 2],
    pub(crate) mmp_block: BlockNumber,
    pub(crate) journal_inode: u32,
    /// User, group and project quota.
    pub(crate) quota_inodes: [u32; 3],
    pub(crate) orphan_file_inode: u32,
    pub(crate) is_hurd: bool,
    /// What all CRC-32C of metadata begin with.
    pub(crate) checksum_seed: u32,
    pub(crate) checksum_ok: bool,
}

/// More than this the kernel does not take for `s_log_groups_per_flex`.
const FLEX_LOG_MAX: u8 = 31;
/// `s_jnl_backup_type`: `s_jnl_blocks` is a copy of the journal's `i_block`.
const JOURNAL_BACKUP_BLOCKS: u8 = 1;

impl RawSuperblock {
    /// The `i_block` of the journal's inode, as far as `s_jnl_blocks` keeps a
    /// copy of it; behind it that keeps the length.
    pub(crate) fn journal_map(&self) -> Option<[u8; I_BLOCK_BYTES]> {
        if self.s_jnl_backup_type != JOURNAL_BACKUP_BLOCKS {
            return None;
        }
        self.s_jnl_blocks.as_bytes().first_chunk().copied()
    }

    /// The first block of the journal by [`Self::journal_map`], where that
    /// names it itself.
    pub(crate) fn journal_block(&self) -> Option<BlockNumber> {
        let map = self.journal_map()?;
        let block = match extents::Header::check(&map) {
            Ok(header) if header.depth == 0 => {
                extents::extent(&map, 0)
                    .filter(|extent| extent.logical == 0)?
                    .physical
            }
            Ok(_) => return None,
            Err(_) => u64::from(self.s_jnl_blocks.first()?.get()),
        };
        (block > 0).then_some(BlockNumber(block))
    }
}

/// Why something is no superblock that can be used.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// In a word, for a finding.
    pub(crate) fault: Fault,
    /// The same as an error.
    pub(crate) error: Error,
}

impl Superblock {
    pub(crate) const fn has_metadata_csum(&self) -> bool {
        self.ro_compat & ro_compat::METADATA_CSUM != 0
    }

    /// Whether descriptors carry a checksum, without which their flags and
    /// counts of unused inodes mean nothing.
    pub(crate) const fn has_group_csum(&self) -> bool {
        self.ro_compat & (ro_compat::METADATA_CSUM | ro_compat::GDT_CSUM) != 0
    }

    /// Whether bitmaps have checksums of 32 bits; else 16 of them are kept.
    pub(crate) const fn has_wide_bitmap_checksums(&self) -> bool {
        self.geometry.descriptor_size >= 64
    }

    /// Whether there is a journal, and in this filesystem.
    pub(crate) const fn has_own_journal(&self) -> bool {
        self.compat & compat::HAS_JOURNAL != 0 && self.journal_inode != 0
    }

    /// Whether group 0 is where filesystems begin: at block 0, with blocks of
    /// 1 KiB mostly at block 1. The kernel takes other places too, and nothing
    /// ever made such a filesystem.
    pub(crate) const fn begins_as_usual(&self) -> bool {
        let last = groups::usual_superblock(self.geometry.block_size);
        self.geometry.first_data_block.0 <= last.0
    }

    /// The same with `s_first_data_block` as it should be.
    pub(crate) fn begun_as_usual(self, device: Option<ByteCount>) -> Self {
        let usual = groups::usual_superblock(self.geometry.block_size);
        let mut bytes = self.bytes.clone();
        if let Ok(raw) = RawSuperblock::mut_from_bytes(&mut *bytes) {
            raw.s_first_data_block = U32::new(u32::from(usual.0 > 0));
        }
        match Self::examine(&bytes, None, device) {
            Ok(other) => Self { geometry: other.geometry, ..self },
            Err(_) => self,
        }
    }

    /// A field that cannot be as it lies there, of those that a walk can do
    /// without.
    pub(crate) fn odd_field(&self) -> Option<&'static str> {
        let raw = RawSuperblock::ref_from_bytes(&*self.bytes).ok()?;
        let first = u64::from(raw.s_first_data_block.get());
        if first != self.geometry.first_data_block.0 {
            Some("s_first_data_block")
        } else if raw.s_log_groups_per_flex > FLEX_LOG_MAX {
            Some("s_log_groups_per_flex")
        } else {
            None
        }
    }

    /// Whether a checker may turn to a copy.
    pub(crate) fn is_doubtful(&self) -> bool {
        self.replaces.is_some()
            || !self.checksum_ok
            || self.odd_field().is_some()
    }

    pub(crate) const fn has_64bit(&self) -> bool {
        self.incompat & incompat::BIT64 != 0
    }

    /// Checks `bytes`, found at block `at` (or at the usual place), against
    /// itself, the device and what the user asked for.
    ///
    /// # Errors
    ///
    /// `NoFilesystem` when there is no superblock, one that cannot be true,
    /// or one with features that are not known.
    pub(crate) fn check(
        bytes: &[u8; SUPERBLOCK_BYTES],
        at: Option<BlockNumber>,
        device: Option<ByteCount>,
    ) -> Result<Self> {
        Self::examine(bytes, at, device).map_err(|refusal| refusal.error)
    }

    /// As [`Self::check`], with the fault.
    pub(crate) fn examine(
        bytes: &[u8; SUPERBLOCK_BYTES],
        at: Option<BlockNumber>,
        device: Option<ByteCount>,
    ) -> Result<Self, Refusal> {
        let raw = RawSuperblock::ref_from_bytes(bytes)
            .map_err(|_| none(Fault::Missing, "it is cut short"))?;
        if raw.s_magic.get() != MAGIC {
            return Err(none(Fault::BadMagic, "the magic number is wrong"));
        }
        refuse_unknown(raw)?;
        let block_size = block_size(raw)
            .ok_or_else(|| field("s_log_block_size", raw.s_log_block_size))?;
        let cluster_bits = cluster_bits(raw).ok_or_else(|| {
            field("s_log_cluster_size", raw.s_log_cluster_size)
        })?;
        let geometry = geometry(raw, block_size, cluster_bits)?;
        bound_descriptors(&geometry, device)?;
        let first_meta_bg = raw.s_first_meta_bg.get();
        let has_meta_bg = raw.s_feature_incompat.get() & incompat::META_BG != 0;
        if has_meta_bg && first_meta_bg > geometry.descriptor_blocks {
            return Err(field("s_first_meta_bg", raw.s_first_meta_bg));
        }
        let usual = SUPERBLOCK_OFFSET.wrapping_shr(block_size.log2());
        Ok(Self {
            bytes: Box::new(*bytes),
            at: at.unwrap_or(BlockNumber(usual)),
            is_backup: at.is_some_and(|block| block.0 > 1),
            replaces: None,
            compat: raw.s_feature_compat.get(),
            incompat: raw.s_feature_incompat.get(),
            ro_compat: raw.s_feature_ro_compat.get(),
            inodes_count: raw.s_inodes_count.get(),
            first_meta_bg: if has_meta_bg { first_meta_bg } else { u32::MAX },
            backup_groups: raw.s_backup_bgs.map(U32::get),
            mmp_block: BlockNumber(raw.s_mmp_block.get()),
            journal_inode: raw.s_journal_inum.get(),
            quota_inodes: [
                raw.s_usr_quota_inum.get(),
                raw.s_grp_quota_inum.get(),
                raw.s_prj_quota_inum.get(),
            ],
            orphan_file_inode: raw.s_orphan_file_inum.get(),
            is_hurd: raw.s_creator_os.get() == CREATOR_HURD,
            checksum_seed: checksum_seed(raw),
            checksum_ok: checksum_ok(raw, bytes),
            geometry,
        })
    }
}

fn none(fault: Fault, why: &str) -> Refusal {
    let error = Error::new(
        ErrorKind::NoFilesystem,
        format!("no ext2/3/4 superblock here: {why}"),
    );
    Refusal { fault, error }
}

fn field(name: &'static str, value: impl Into<u64>) -> Refusal {
    let why = format!("{name} cannot be {}", value.into());
    none(Fault::BadField(name), &why)
}

fn refuse_unknown(raw: &RawSuperblock) -> Result<(), Refusal> {
    let fault = Fault::BadField("s_feature_incompat");
    let features = raw.s_feature_incompat.get();
    if features & incompat::JOURNAL_DEV != 0 {
        let error = Error::new(
            ErrorKind::NoFilesystem,
            format!(
                "this is an external journal (UUID {}), not a filesystem",
                uuid_text(&raw.s_uuid)
            ),
        )
        .hint("image the filesystem that the journal belongs to");
        return Err(Refusal { fault, error });
    }
    let unknown = features & !incompat::KNOWN;
    if unknown != 0 {
        let error = Error::new(
            ErrorKind::NoFilesystem,
            format!(
                "the filesystem uses incompatible features that are not \
                 known here (s_feature_incompat {unknown:#x})"
            ),
        )
        .hint(
            "a newer e2wire may know them; a copy of the whole device \
               needs no knowledge of them",
        );
        return Err(Refusal { fault, error });
    }
    if raw.s_rev_level.get() > 1 {
        return Err(field("s_rev_level", raw.s_rev_level));
    }
    Ok(())
}

fn block_size(raw: &RawSuperblock) -> Option<BlockSize> {
    BlockSize::from_log2(raw.s_log_block_size.get().checked_add(10)?)
}

/// The base-2 logarithm of the blocks in a cluster.
fn cluster_bits(raw: &RawSuperblock) -> Option<u32> {
    let cluster = raw.s_log_cluster_size.get();
    let bits = cluster.checked_sub(raw.s_log_block_size.get())?;
    let bigalloc = raw.s_feature_ro_compat.get() & ro_compat::BIGALLOC != 0;
    // 29 is the largest cluster size that mke2fs and e2image know.
    (cluster <= 19 && (bigalloc || bits == 0)).then_some(bits)
}

fn geometry(
    raw: &RawSuperblock,
    block_size: BlockSize,
    cluster_bits: u32,
) -> Result<Geometry, Refusal> {
    let inode_size = inode_size(raw, block_size)?;
    let descriptor_size = descriptor_size(raw)?;
    let blocks = blocks_count(raw);
    let in_bytes = block_size.bytes_of(BlockCount(blocks));
    let fdb = u64::from(raw.s_first_data_block.get());
    if fdb >= blocks || in_bytes.is_none() {
        return Err(field("s_blocks_count", blocks));
    }
    let blocks_per_group = raw.s_blocks_per_group.get();
    let clusters_per_group = raw.s_clusters_per_group.get();
    // A bitmap is one block, one bit a cluster.
    let bits = block_size.bytes_u64().saturating_mul(8);
    let shifted = u64::from(clusters_per_group).checked_shl(cluster_bits);
    if blocks_per_group < 8
        || u64::from(clusters_per_group) > bits
        || shifted != Some(u64::from(blocks_per_group))
    {
        return Err(field("s_blocks_per_group", blocks_per_group));
    }
    let inodes_per_group = raw.s_inodes_per_group.get();
    let groups =
        blocks.saturating_sub(fdb).div_ceil(u64::from(blocks_per_group));
    let inodes = groups.checked_mul(u64::from(inodes_per_group));
    if inodes_per_group == 0 || u64::from(inodes_per_group) > bits {
        return Err(field("s_inodes_per_group", inodes_per_group));
    }
    if inodes != Some(u64::from(raw.s_inodes_count.get())) {
        return Err(field("s_inodes_count", raw.s_inodes_count));
    }
    let table = u64::from(inodes_per_group)
        .saturating_mul(u64::from(inode_size))
        .div_ceil(block_size.bytes_u64());
    if table > u64::from(blocks_per_group) {
        return Err(field("s_inodes_per_group", inodes_per_group));
    }
    let table_bytes = groups.saturating_mul(u64::from(descriptor_size));
    if table_bytes > DESCRIPTOR_TABLE_BYTES_MAX {
        return Err(field("s_blocks_count", blocks));
    }
    let narrow = |wide: u64| {
        u32::try_from(wide).map_err(|_| field("s_blocks_count", blocks))
    };
    Ok(Geometry {
        block_size,
        blocks: BlockCount(blocks),
        first_data_block: BlockNumber(fdb),
        cluster_blocks: 1_u32.wrapping_shl(cluster_bits),
        groups: narrow(groups)?,
        blocks_per_group,
        clusters_per_group,
        inodes_per_group,
        inode_size,
        inode_table_blocks: narrow(table)?,
        descriptor_size,
        descriptor_blocks: narrow(
            table_bytes.div_ceil(block_size.bytes_u64()),
        )?,
        uuid: raw.s_uuid,
    })
}

fn blocks_count(raw: &RawSuperblock) -> u64 {
    let low = u64::from(raw.s_blocks_count_lo.get());
    if raw.s_feature_incompat.get() & incompat::BIT64 == 0 {
        return low;
    }
    low | u64::from(raw.s_blocks_count_hi.get()).wrapping_shl(32)
}

fn inode_size(
    raw: &RawSuperblock,
    block_size: BlockSize,
) -> Result<u32, Refusal> {
    if raw.s_rev_level.get() == 0 {
        return Ok(128);
    }
    let size = u32::from(raw.s_inode_size.get());
    if size < 128
        || !size.is_power_of_two()
        || usize_from(size) > block_size.bytes()
    {
        return Err(field("s_inode_size", size));
    }
    Ok(size)
}

fn descriptor_size(raw: &RawSuperblock) -> Result<u32, Refusal> {
    if raw.s_feature_incompat.get() & incompat::BIT64 == 0 {
        return Ok(32);
    }
    let size = u32::from(raw.s_desc_size.get());
    if !(64..=1024).contains(&size) || !size.is_power_of_two() {
        return Err(field("s_desc_size", size));
    }
    Ok(size)
}

/// A descriptor table that is larger than the device cannot be there, and
/// must not size memory.
fn bound_descriptors(
    geometry: &Geometry,
    device: Option<ByteCount>,
) -> Result<(), Refusal> {
    let table = geometry
        .block_size
        .bytes_of(BlockCount(u64::from(geometry.descriptor_blocks)));
    match (table, device) {
        (Some(table), Some(device)) if table > device => {
            let why = format!(
                "its {} groups have descriptors of {table} bytes, the \
                 device is {device} bytes long",
                geometry.groups
            );
            Err(none(Fault::BadField("s_blocks_count"), &why))
        }
        (None, _) => Err(field("s_blocks_count", geometry.blocks.0)),
        _ => Ok(()),
    }
}

fn checksum_seed(raw: &RawSuperblock) -> u32 {
    if raw.s_feature_incompat.get() & incompat::CSUM_SEED != 0 {
        raw.s_checksum_seed.get()
    } else {
        crc32c(!0, &raw.s_uuid)
    }
}

fn checksum_ok(raw: &RawSuperblock, bytes: &[u8; SUPERBLOCK_BYTES]) -> bool {
    checksum(bytes).is_none_or(|right| right == raw.s_checksum.get())
}

/// What `s_checksum` (the last four bytes) must be in this superblock; `None`
/// when its features do not include checksums.
#[must_use]
pub fn checksum(bytes: &[u8; SUPERBLOCK_BYTES]) -> Option<u32> {
    let raw = RawSuperblock::ref_from_bytes(bytes).ok()?;
    let summed = raw.s_feature_ro_compat.get() & ro_compat::METADATA_CSUM != 0;
    let covered = SUPERBLOCK_BYTES.saturating_sub(size_of::<U32>());
    let covered = bytes.get(..covered).unwrap_or_default();
    summed.then(|| crc32c(!0, covered))
}

/// A UUID as people write it.
#[must_use]
pub fn uuid_text(uuid: &[u8; 16]) -> String {
    let mut text = String::with_capacity(36);
    for (index, byte) in uuid.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        for nibble in [byte.wrapping_shr(4), byte & 0xF] {
            text.extend(char::from_digit(u32::from(nibble), 16));
        }
    }
    text
}
