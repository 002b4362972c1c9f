//! One entry of a plan, and the digest of them all.

use crate::digest::Digest;
use crate::ext::BlockKind;
use crate::units::{ByteCount, ByteOffset, ByteRange, usize_from};

/// Bytes of an entry's head in the file.
pub(super) const HEAD_BYTES: usize = 96;

/// The longest entry: bounds what is held in memory.
pub(super) const ENTRY_BYTES_MAX: u32 = 1 << 20;

/// When an entry is written. Stages follow each other with a flush between,
/// so that whatever is torn off, everything that points at something was
/// written after it.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Stage {
    /// The superblock with the error bit of `s_state` set: from here on a
    /// kernel or e2fsck knows that the filesystem is not whole.
    Mark,
    /// File data, and the journal.
    Data,
    /// Extent nodes, indirect blocks, attributes, long symbolic links.
    Maps,
    /// Directories.
    Directories,
    /// Inode tables.
    InodeTables,
    /// Block and inode bitmaps.
    Bitmaps,
    /// Group descriptors, and all copies of descriptors and superblock.
    Descriptors,
    /// The superblock as it shall be.
    Superblock,
}

impl Stage {
    /// All stages in their order.
    pub const ALL: [Self; 8] = [
        Self::Mark,
        Self::Data,
        Self::Maps,
        Self::Directories,
        Self::InodeTables,
        Self::Bitmaps,
        Self::Descriptors,
        Self::Superblock,
    ];

    /// When blocks of `kind` are written.
    #[must_use]
    pub const fn of(kind: BlockKind) -> Self {
        match kind {
            BlockKind::Data
            | BlockKind::Journal
            | BlockKind::Quota
            | BlockKind::OrphanFile
            | BlockKind::XattrInode => Self::Data,
            BlockKind::Map
            | BlockKind::Xattr
            | BlockKind::Symlink
            | BlockKind::Translator => Self::Maps,
            BlockKind::Directory => Self::Directories,
            BlockKind::InodeTable => Self::InodeTables,
            BlockKind::BlockBitmap | BlockKind::InodeBitmap => Self::Bitmaps,
            BlockKind::Descriptors
            | BlockKind::ReservedDescriptors
            | BlockKind::BackupDescriptors
            | BlockKind::BackupSuperblock
            | BlockKind::Mmp => Self::Descriptors,
            BlockKind::Superblock => Self::Superblock,
        }
    }

    const fn code(self) -> u8 {
        match self {
            Self::Mark => 0,
            Self::Data => 1,
            Self::Maps => 2,
            Self::Directories => 3,
            Self::InodeTables => 4,
            Self::Bitmaps => 5,
            Self::Descriptors => 6,
            Self::Superblock => 7,
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|stage| stage.code() == code)
    }
}

/// One stretch of the device that is written: at most 1 MiB.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Entry {
    range: ByteRange,
    /// When it is written.
    pub stage: Stage,
    /// What lies there.
    pub kind: BlockKind,
    /// BLAKE3-256 of what must lie there before.
    pub old: Digest,
    /// BLAKE3-256 of what will lie there.
    pub new: Digest,
}

impl Entry {
    /// An entry, unless the range is empty, longer than 1 MiB or no multiple
    /// of 512 bytes.
    #[must_use]
    pub fn new(
        range: ByteRange,
        stage: Stage,
        kind: BlockKind,
        old: Digest,
        new: Digest,
    ) -> Option<Self> {
        let length = range.length().0;
        let whole = range.start().0.is_multiple_of(512)
            && length.is_multiple_of(512)
            && length > 0
            && length <= u64::from(ENTRY_BYTES_MAX);
        whole.then_some(Self { range, stage, kind, old, new })
    }

    /// Where.
    #[must_use]
    pub const fn range(&self) -> ByteRange {
        self.range
    }

    /// The length in memory.
    #[must_use]
    pub fn length(&self) -> usize {
        u32::try_from(self.range.length().0).map_or(0, usize_from)
    }

    /// The same place, the other way round: for an undo.
    #[must_use]
    pub const fn mirrored(self) -> Self {
        Self { old: self.new, new: self.old, ..self }
    }

    /// The head as it stands in the file: at (u64), length (u32), stage,
    /// kind (u8 each), two zeros, old, new (32 bytes each), all
    /// little-endian; then the first 16 bytes of the BLAKE3 of all that.
    pub(super) fn head(&self) -> [u8; HEAD_BYTES] {
        let mut head = [0; HEAD_BYTES];
        let length = u32::try_from(self.range.length().0).unwrap_or(0);
        head[..8].copy_from_slice(&self.range.start().0.to_le_bytes());
        head[8..12].copy_from_slice(&length.to_le_bytes());
        head[12] = self.stage.code();
        head[13] = kind_code(self.kind);
        head[16..48].copy_from_slice(&self.old);
        head[48..80].copy_from_slice(&self.new);
        let check = blake3::hash(&head[..80]);
        head[80..].copy_from_slice(&check.as_bytes()[..16]);
        head
    }

    /// Reads a head; `None` when it is torn or makes no sense.
    pub(super) fn from_head(head: &[u8; HEAD_BYTES]) -> Option<Self> {
        let check = blake3::hash(&head[..80]);
        if head[80..] != check.as_bytes()[..16] || head[14..16] != [0, 0] {
            return None;
        }
        let at = u64::from_le_bytes(head[..8].try_into().ok()?);
        let length = u32::from_le_bytes(head[8..12].try_into().ok()?);
        let range =
            ByteRange::new(ByteOffset(at), ByteCount(u64::from(length)))?;
        Self::new(
            range,
            Stage::from_code(head[12])?,
            kind_from_code(head[13])?,
            head[16..48].try_into().ok()?,
            head[48..80].try_into().ok()?,
        )
    }
}

/// The digest of a plan: BLAKE3 over the heads of its entries, in order.
/// Whoever confirms a plan confirms this.
#[must_use]
pub fn plan_digest<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> Digest {
    let mut hasher = blake3::Hasher::new();
    for entry in entries {
        hasher.update(&entry.head());
    }
    *hasher.finalize().as_bytes()
}

/// The number of a kind in the file. Append-only: files outlive versions.
const fn kind_code(kind: BlockKind) -> u8 {
    match kind {
        BlockKind::Superblock => 0,
        BlockKind::BackupSuperblock => 1,
        BlockKind::Descriptors => 2,
        BlockKind::BackupDescriptors => 3,
        BlockKind::ReservedDescriptors => 4,
        BlockKind::BlockBitmap => 5,
        BlockKind::InodeBitmap => 6,
        BlockKind::InodeTable => 7,
        BlockKind::Directory => 8,
        BlockKind::Map => 9,
        BlockKind::Symlink => 10,
        BlockKind::Xattr => 11,
        BlockKind::XattrInode => 12,
        BlockKind::Journal => 13,
        BlockKind::Quota => 14,
        BlockKind::OrphanFile => 15,
        BlockKind::Mmp => 16,
        BlockKind::Translator => 17,
        BlockKind::Data => 18,
    }
}

fn kind_from_code(code: u8) -> Option<BlockKind> {
    BlockKind::ALL.iter().copied().find(|&kind| kind_code(kind) == code)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry {
        let range = ByteRange::new(ByteOffset(4096), ByteCount(1024));
        Entry::new(
            range.unwrap(),
            Stage::Bitmaps,
            BlockKind::InodeBitmap,
            [1; 32],
            [2; 32],
        )
        .unwrap()
    }

    #[test]
    fn a_head_survives_the_file_and_no_flipped_bit() {
        let head = entry().head();
        assert_eq!(Entry::from_head(&head), Some(entry()));
        for bit in 0..HEAD_BYTES * 8 {
            let mut torn = head;
            torn[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Entry::from_head(&torn), None, "bit {bit}");
        }
    }

    #[test]
    fn every_kind_has_its_own_number_and_stage() {
        let mut codes: Vec<u8> =
            BlockKind::ALL.iter().map(|&kind| kind_code(kind)).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), BlockKind::ALL.len());
        for &kind in BlockKind::ALL {
            assert_ne!(Stage::of(kind), Stage::Mark);
        }
        assert_eq!(Stage::of(BlockKind::Superblock), Stage::Superblock);
    }

    #[test]
    fn ranges_that_no_device_can_write_are_refused() {
        for (start, length) in [(1, 512), (0, 100), (0, 0), (0, 2 << 20)] {
            let range =
                ByteRange::new(ByteOffset(start), ByteCount(length)).unwrap();
            let refused = Entry::new(
                range,
                Stage::Data,
                BlockKind::Data,
                [0; 32],
                [0; 32],
            );
            assert_eq!(refused, None);
        }
    }
}
