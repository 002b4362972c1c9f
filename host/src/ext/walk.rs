//! What a walk is asked, how it is fed and what it answers.

use zerocopy::FromBytes;

use crate::block_set::BlockSet;
use crate::ext::claims::Claim;
use crate::ext::superblock::{RawSuperblock, compat, uuid_text};
use crate::ext::{BlockKind, Checks, Finding, Findings};
use crate::source::Sought;
use crate::units::{BlockCount, BlockNumber, BlockSize, ByteCount, ByteRange};

/// Which blocks belong to an image.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Selection {
    /// Everything that a filesystem's structure is made of.
    Complete,
    /// Exactly the blocks that e2image selects.
    E2image,
}

/// How far a walk goes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Scope {
    /// Superblock, descriptors, bitmaps and inode tables: what a normal image
    /// holds.
    Tables,
    /// Also what the inodes point at: maps, directories, attributes, journal.
    Metadata,
    /// Also the contents of files.
    Data,
}

/// How much of the journal belongs to an image.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum JournalMode {
    /// All of it.
    Full,
    /// Its superblock, and what a replay needs; all of it with a finding
    /// where that cannot be told.
    Live,
    /// Only its map.
    None,
}

/// What the user asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct WalkOptions {
    /// Which rules select.
    pub selection: Selection,
    /// How far to go.
    pub scope: Scope,
    /// How much of the journal to select.
    pub journal: JournalMode,
    /// Use the superblock at this block (`-b`), counted in blocks of
    /// `block_size`.
    pub superblock: Option<BlockNumber>,
    /// The block size that the filesystem must have (`-B`).
    pub block_size: Option<BlockSize>,
    /// Select inode tables whole, also where the descriptors say that inodes
    /// were never used.
    pub full_tables: bool,
    /// The length of the device, if it is known.
    pub device_length: Option<ByteCount>,
    /// Remember whose each stretch of data is: see [`Walk::traced`].
    pub trace: bool,
    /// Hand out a journal that is wanted whole in a level of its own, the
    /// last one: see [`Level::journal`].
    pub journal_last: bool,
}

/// A stretch of what an inode is made of, as its map says.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Traced {
    /// The inode.
    pub inode: u32,
    /// The first block of the file that it is.
    pub logical: u64,
    /// Where that lies.
    pub physical: u64,
    /// How many blocks.
    pub count: u64,
    /// What they are: directory, symbolic link, journal, data...
    pub kind: BlockKind,
}

impl Default for WalkOptions {
    fn default() -> Self {
        Self {
            selection: Selection::Complete,
            scope: Scope::Metadata,
            journal: JournalMode::Full,
            superblock: None,
            block_size: None,
            full_tables: false,
            device_length: None,
            trace: false,
            journal_last: false,
        }
    }
}

/// What the walk needs next.
#[derive(Debug)]
pub enum Step {
    /// Read all of this and supply it, in any order; then ask again.
    Read(Level),
    /// The walk has learned something that changes what it selected: throw
    /// the output away and go on asking, it begins anew.
    Restart,
    /// Nothing more can be found without what was
    /// [postponed](crate::ext::Walker::postpone): ask for it again
    /// ([`Walker::resume`](crate::ext::Walker::resume)).
    Waiting,
    /// Nothing more.
    Done,
}

/// One step of the walk. Every selected block stands in exactly one level,
/// in one of its two parts (with bigalloc whole clusters do), but for those
/// beyond `device_length`: nothing outside the device is asked for.
#[derive(Debug)]
pub struct Level {
    /// What the walk waits for: sorted, disjoint, coalesced. Read all of it
    /// and supply it.
    pub ranges: Vec<ByteRange>,
    /// What was found to belong to the image as well, but tells of no further
    /// blocks (journal, symbolic links, data): likewise sorted. It need not
    /// be supplied.
    pub payload: Vec<ByteRange>,
    /// What blocks of `payload` have to be, for whoever reads them.
    pub checks: Checks,
    /// `ranges` are only looked at, they do not belong to the image, or were
    /// in a level before.
    pub probe: bool,
    /// Of `ranges` only the places matter that hold this: a source that can
    /// look for it need not read the others, nor need they be supplied.
    pub sought: Option<Sought>,
    /// The stretches of the journal by their place in it, where `payload` is
    /// the journal and nothing else.
    pub journal: Vec<Traced>,
    /// The walk can go on without what of `ranges` is hard to read: it may be
    /// [postponed](crate::ext::Walker::postpone).
    pub can_wait: bool,
    /// `ranges` were in a level before, and postponed.
    pub retried: bool,
}

/// The shape of a filesystem, from a superblock that has been checked.
///
/// Every number here fits its neighbours: groups cover the blocks, tables
/// fit their groups.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Geometry {
    /// Size of a block.
    pub block_size: BlockSize,
    /// Blocks of the filesystem, `s_blocks_count`.
    pub blocks: BlockCount,
    /// `s_first_data_block`: 1 with 1 KiB blocks (but for bigalloc), else 0.
    pub first_data_block: BlockNumber,
    /// Blocks per cluster, 1 without bigalloc.
    pub cluster_blocks: u32,
    /// Number of block groups.
    pub groups: u32,
    /// `s_blocks_per_group`.
    pub blocks_per_group: u32,
    /// `s_clusters_per_group`.
    pub clusters_per_group: u32,
    /// `s_inodes_per_group`.
    pub inodes_per_group: u32,
    /// Size of an inode in bytes.
    pub inode_size: u32,
    /// Blocks of one group's inode table.
    pub inode_table_blocks: u32,
    /// Size of a group descriptor in bytes.
    pub descriptor_size: u32,
    /// Blocks of the descriptor table.
    pub descriptor_blocks: u32,
    /// `s_uuid`.
    pub uuid: [u8; 16],
}

/// A block group, as its descriptor tells; locations are not checked.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Group {
    /// `bg_block_bitmap`.
    pub block_bitmap: BlockNumber,
    /// `bg_inode_bitmap`.
    pub inode_bitmap: BlockNumber,
    /// `bg_inode_table`.
    pub inode_table: BlockNumber,
    /// `bg_flags`: 1 INODE_UNINIT, 2 BLOCK_UNINIT, 4 ITABLE_ZEROED.
    pub flags: u16,
    /// `bg_itable_unused`.
    pub itable_unused: u32,
    /// Whether `bg_checksum` is right (true without group checksums).
    pub checksum_ok: bool,
    /// `bg_block_bitmap_csum` and `bg_inode_bitmap_csum`, where they mean
    /// something.
    pub bitmap_checksums: Option<[u32; 2]>,
}

/// What a finished walk knows.
#[derive(Clone, Debug)]
pub struct Walk {
    /// The shape of the filesystem.
    pub geometry: Geometry,
    /// The 1,024 bytes of the superblock that was used, as on the disk.
    pub superblock: Box<[u8; 1024]>,
    /// The block that it came from.
    pub superblock_at: BlockNumber,
    /// The descriptor table as on the disk, in the order of the groups
    /// (meta_bg gathered): `descriptor_blocks` whole blocks.
    pub descriptors: Vec<u8>,
    /// The same, taken apart.
    pub groups: Vec<Group>,
    /// Every selected block; with bigalloc whole clusters.
    pub selected: BlockSet,
    /// The blocks of each kind (damaged filesystems may claim one twice).
    pub kinds: Vec<(BlockKind, BlockSet)>,
    /// How often a block was marked, repeats counted, by e2image's rules: its
    /// qcow2 files are laid out by this number.
    pub marks: u64,
    /// Who claims the blocks that the walk was asked to watch.
    pub claims: Vec<Claim>,
    /// The first findings (at most [`FINDINGS_MAX`]).
    pub findings: Vec<Finding>,
    /// How many findings there were in all.
    pub findings_total: u64,
    /// The stretches of the journal, and with [`WalkOptions::trace`] all that
    /// a map names, by inode and place in the file; what lies outside the
    /// filesystem is not there.
    pub traced: Vec<Traced>,
}

/// How many findings are kept in full; all are counted.
pub const FINDINGS_MAX: usize = 10_000;

impl Walk {
    /// Adds what was found wrong with blocks after the walk had selected
    /// them, in the order of the blocks whatever order they were read in.
    pub fn add_findings(&mut self, mut findings: Findings) {
        findings.list.sort_by_key(|finding| finding.block);
        let mut all = Findings {
            list: std::mem::take(&mut self.findings),
            total: self.findings_total,
        };
        all.join(findings);
        self.findings = all.list;
        self.findings_total = all.total;
    }

    /// The UUID of the device that the journal lies on, when it is not this
    /// one.
    #[must_use]
    pub fn external_journal(&self) -> Option<String> {
        let raw =
            RawSuperblock::ref_from_bytes(self.superblock.as_slice()).ok()?;
        let elsewhere = raw.s_feature_compat.get() & compat::HAS_JOURNAL != 0
            && raw.s_journal_inum.get() == 0;
        elsewhere.then(|| uuid_text(&raw.s_journal_uuid))
    }

    /// The blocks of one kind.
    #[must_use]
    pub fn kind(&self, kind: BlockKind) -> Option<&BlockSet> {
        self.kinds
            .iter()
            .find_map(|(which, set)| (*which == kind).then_some(set))
    }

    /// What a selected block is for; the first kind in the order of
    /// [`BlockKind::ALL`] that claims it.
    #[must_use]
    pub fn kind_of(&self, block: BlockNumber) -> Option<BlockKind> {
        self.kinds
            .iter()
            .find_map(|(kind, set)| set.contains(block).then_some(*kind))
    }
}
