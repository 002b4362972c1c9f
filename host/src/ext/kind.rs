//! The closed list of what a block can be.

use std::fmt;

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $name:literal,)*) => {
        /// What a block of the filesystem is for. Closed: selections, plans,
        /// `--only` and differences all speak in these.
        #[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub enum BlockKind {
            $($(#[$doc])* $kind,)*
        }

        impl BlockKind {
            /// Every kind, in the order in which they are listed.
            pub const ALL: &'static [Self] = &[$(Self::$kind,)*];

            /// Its place in [`Self::ALL`].
            #[must_use]
            #[expect(
                clippy::as_conversions,
                reason = "counted by the compiler"
            )]
            pub const fn index(self) -> usize {
                self as usize
            }

            /// The name users type and read.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$kind => $name,)*
                }
            }
        }
    };
}

kinds! {
    /// The primary superblock, with the rest of its block.
    Superblock = "superblock",
    /// A copy of the superblock in another group, used because of `-b`.
    BackupSuperblock = "backup-superblock",
    /// The primary group descriptors.
    Descriptors = "descriptors",
    /// A copy of the group descriptors.
    BackupDescriptors = "backup-descriptors",
    /// Blocks kept for growing the descriptor table (the resize inode's map).
    ReservedDescriptors = "reserved-descriptors",
    /// Which blocks of a group are used.
    BlockBitmap = "block-bitmap",
    /// Which inodes of a group are used.
    InodeBitmap = "inode-bitmap",
    /// A part of a group's inode table.
    InodeTable = "inode-table",
    /// The contents of a directory.
    Directory = "directory",
    /// An extent node or an indirect block.
    Map = "map",
    /// The target of a long symbolic link.
    Symlink = "symlink",
    /// A block of extended attributes.
    Xattr = "xattr",
    /// A large attribute value, kept in an inode of its own.
    XattrInode = "xattr-inode",
    /// The journal.
    Journal = "journal",
    /// A quota file.
    Quota = "quota",
    /// The orphan file.
    OrphanFile = "orphan-file",
    /// The multiple-mount-protection block.
    Mmp = "mmp",
    /// A Hurd translator's block.
    Translator = "translator",
    /// The contents of files, and everything else.
    Data = "data",
}

impl BlockKind {
    /// Every kind, in the order in which a disk that dies shall be asked for
    /// it: first what leads to the most other blocks, then what nothing can
    /// be made up from, last what e2fsck builds anew or has copies of.
    pub const BY_IMPORTANCE: &'static [Self] = &[
        Self::Superblock,
        Self::Descriptors,
        Self::InodeTable,
        Self::Map,
        Self::Directory,
        Self::Journal,
        Self::XattrInode,
        Self::Xattr,
        Self::Symlink,
        Self::OrphanFile,
        Self::BlockBitmap,
        Self::InodeBitmap,
        Self::Quota,
        Self::Mmp,
        Self::Translator,
        Self::BackupSuperblock,
        Self::BackupDescriptors,
        Self::ReservedDescriptors,
        Self::Data,
    ];
}

const _: () = assert!(
    BlockKind::BY_IMPORTANCE.len() == BlockKind::ALL.len(),
    "every kind has its place"
);

impl fmt::Display for BlockKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
