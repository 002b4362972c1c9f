//! Where blocks come from: a file, a block device, an image or a remote
//! device, all behind one trait.
//!
//! A source hands out what it reads in pieces and never fails for a bad
//! sector: what could not be read is a piece too. Faulty sources of the tests
//! wrap this trait.

use std::fmt;
use std::ops::ControlFlow;

use crate::batch::Batch;
use crate::digest::Digest;
use crate::error::Result;
use crate::units::{ByteCount, ByteOffset, ByteRange};

/// Pieces are cut at multiples of this address or at the edges of the
/// requested range; only pieces that touch an unreadable one may be cut
/// at any multiple of [`PIECE_UNIT`].
///
/// It is the largest ext block, so that a readable block always comes whole.
pub const PIECE_ALIGN: u64 = 64 * 1024;

/// The finest cut of a piece: the smallest sector there is.
pub const PIECE_UNIT: u64 = 512;

/// Takes what is read, piece by piece; reading ends when it breaks.
pub type Each<'a> = &'a mut (dyn FnMut(Piece<'_>) -> ControlFlow<()> + 'a);

/// Anything blocks can be read from.
pub trait BlockSource: Sync {
    /// What is known of the source before anything is read.
    fn facts(&self) -> &SourceFacts;

    /// Reads `ranges`, which are sorted, disjoint and not empty, and hands
    /// every byte of them to `each` exactly once, in any order.
    ///
    /// What lies beyond the end of the source comes as unreadable
    /// ([`ReadFault::BeyondEnd`]). Reading ends early and well when `each`
    /// breaks.
    ///
    /// # Errors
    ///
    /// Only when the source as a whole is gone; a bad sector is a piece.
    fn read(&self, ranges: &[ByteRange], each: Each<'_>) -> Result<()>;

    /// Announces what will be read soon, so that a source behind a slow line
    /// keeps the line full: `ranges` are as for [`Self::read`], more urgent
    /// ones overtake others. Reading what was never announced, and never
    /// reading what was, are both in order.
    fn expect(&self, ranges: &[ByteRange], priority: Priority) {
        let _ = (ranges, priority);
    }

    /// Makes sure that the next read of `ranges` shows what the device holds
    /// now: a source that keeps copies compares them with the device and
    /// drops those that differ. Used at the end of a job, to see whether its
    /// source changed.
    ///
    /// # Errors
    ///
    /// Only when the source as a whole is gone.
    fn recheck(&self, ranges: &[ByteRange]) -> Result<()> {
        let _ = ranges;
        Ok(())
    }

    /// Which of `ranges` (sorted, disjoint) may hold something else now than
    /// what has the digest beside them: a source behind a line has the far
    /// end look. Of a source that would have to read as much, all of them.
    ///
    /// # Errors
    ///
    /// Only when the source as a whole is gone.
    fn differing(
        &self,
        ranges: &[(ByteRange, Digest)],
    ) -> Result<Vec<ByteRange>> {
        Ok(ranges.iter().map(|(range, _)| *range).collect())
    }

    /// Looks for something: a source behind a line has the far end look, and
    /// names the places that are worth reading. `None` of a source that would
    /// have to read as much itself.
    ///
    /// # Errors
    ///
    /// Only when the source as a whole is gone; a search that nobody can or
    /// will make any further ends early and well.
    fn search(&self, search: Search<'_>) -> Result<Option<Found>> {
        let _ = search;
        Ok(None)
    }

    /// The next read of `ranges` tries again what could not be read: for a
    /// source that remembers.
    fn again(&self, ranges: &[ByteRange]) {
        let _ = ranges;
    }

    /// What holds much twice and lies behind a slow line can be asked for
    /// what it holds twice; `None` where reading is as quick.
    fn duplicates(&self) -> Option<&dyn Duplicates> {
        None
    }

    /// Reads as [`Self::read_batch`] does, but with little patience: what is
    /// hard to read is left out at once, as [`ReadFault::Skipped`], and
    /// [`Self::strive`] comes back to it. A source without efforts is as
    /// patient as ever.
    ///
    /// # Errors
    ///
    /// As [`Self::read`].
    fn skim(&self, ranges: &[ByteRange], batch: &mut Batch) -> Result<()> {
        self.read_batch(ranges, batch)
    }

    /// How many efforts [`Self::strive`] knows: every [`Effort`] below.
    fn efforts(&self) -> u32 {
        0
    }

    /// Tries what [`Self::skim`] left out of `ranges`, range by range, once
    /// with `effort`; what had as much effort before is not touched. Tells
    /// `tried` how many bytes were dealt with. False when there was nothing
    /// to try.
    ///
    /// # Errors
    ///
    /// As [`Self::read`], and what `tried` answers.
    fn strive(
        &self,
        ranges: &[ByteRange],
        effort: Effort,
        tried: &mut dyn FnMut(ByteCount) -> Result<()>,
    ) -> Result<bool> {
        let _ = (ranges, effort, tried);
        Ok(false)
    }

    /// How many threads a job may usefully have: one that takes what the
    /// others read by [`Self::read_batch`], or one that does both.
    fn readers(&self) -> usize {
        1
    }

    /// Reads `ranges` into `batch`, which is cleared first: for work that is
    /// shared among threads. Ranges are as for [`Self::read`], and together
    /// as large as the caller wants its buffer to become.
    ///
    /// # Errors
    ///
    /// As [`Self::read`].
    fn read_batch(
        &self,
        ranges: &[ByteRange],
        batch: &mut Batch,
    ) -> Result<()> {
        batch.prepare(ranges);
        self.read(ranges, &mut |piece| {
            batch.fill(piece);
            ControlFlow::Continue(())
        })
    }
}

/// Something that a source can look for by itself, see
/// [`BlockSource::search`]. It lies at the start of a KiB, counted from the
/// start of the source, and fills it.
#[derive(Clone, Copy, Debug)]
pub struct Sought {
    /// It holds these bytes, at most
    /// [`PATTERN_BYTES_MAX`](e2wire_protocol::limits::PATTERN_BYTES_MAX).
    pub pattern: &'static [u8],
    /// So many bytes behind its start.
    pub offset: u32,
    /// What tells it from mere chance, at most 256 bytes from its start.
    pub head_bytes: u16,
    /// Whether it can be what is sought: where it lies, in KiB, and its head.
    pub fits: fn(u64, &[u8]) -> bool,
}

/// A search of a source.
pub struct Search<'a> {
    /// Where to look: as for [`BlockSource::read`].
    pub ranges: &'a [ByteRange],
    /// What for.
    pub sought: &'a Sought,
    /// Is told how much has been looked at.
    pub progress: &'a mut dyn FnMut(ByteCount),
}

/// What came of a search.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Found {
    /// What may be what was sought: whole KiB, sorted, disjoint and
    /// coalesced.
    pub places: Vec<ByteRange>,
    /// Why the search ended before its end, if it did.
    pub ended: Option<String>,
}

/// One block may be a copy of another.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Likeness {
    /// Where the copy lies.
    pub at: ByteOffset,
    /// Where the other one lies.
    pub like: ByteOffset,
}

/// Looks for what need not cross a slow line, at its far end.
pub trait Comparer: Sync {
    /// Where in `range`, which is looked at every `stride` bytes, lies
    /// something that begins with `pattern`; what cannot be read does not.
    ///
    /// # Errors
    ///
    /// Only when the source as a whole is gone.
    fn find(
        &self,
        range: ByteRange,
        stride: ByteCount,
        pattern: &[u8],
    ) -> Result<Vec<ByteOffset>>;

    /// Announces, as [`BlockSource::expect`] does, `ranges` that resemble
    /// each other: they cross the line together, which makes them short.
    fn expect_together(&self, ranges: &[ByteRange]);

    /// Those of `pairs`, blocks of `size` bytes, that are equal there, byte
    /// for byte.
    ///
    /// # Errors
    ///
    /// Only when the source as a whole is gone.
    fn same(
        &self,
        pairs: &[Likeness],
        size: ByteCount,
    ) -> Result<Vec<Likeness>>;
}

/// A source that keeps what has arrived over a slow line, and takes over
/// what is there and here.
///
/// Of pairs it compares those whose copy is not here and the other one is.
/// Nothing here reads for anybody: what was taken over comes with the next
/// read, as if it had crossed the line.
pub trait Duplicates: Comparer {
    /// Puts copies of what is here in the places of `pairs`, once the far
    /// end has proven by digests that `within` (sorted, disjoint) holds just
    /// that now. What is not proven is read when it is asked for.
    ///
    /// # Errors
    ///
    /// Only when the source as a whole is gone, or nothing can be stored.
    fn take_over(
        &self,
        pairs: &[Likeness],
        size: ByteCount,
        within: &[ByteRange],
    ) -> Result<()>;
}

/// How hard a source tries what it left out at first: 0 in smaller pieces
/// down to the sector, each further one once more.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Effort(pub u32);

/// How urgent something is that will be read.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Priority {
    /// Needed in the end: file contents, the journal, anything that tells
    /// of no further blocks.
    Payload,
    /// Tells which blocks are needed next: what a walk waits for.
    Structure,
}

/// One stretch of what was asked for.
#[derive(Clone, Copy, Debug)]
pub struct Piece<'a> {
    /// Where it lies in the source.
    pub at: ByteOffset,
    /// What lies there.
    pub what: Payload<'a>,
}

/// What lies in a piece.
#[derive(Clone, Copy, Debug)]
pub enum Payload<'a> {
    /// These bytes.
    Bytes(&'a [u8]),
    /// Only zeros, as the source knows without reading them (a hole).
    Zero(ByteCount),
    /// Nobody knows: it could not be read.
    Unreadable(ByteCount, ReadFault),
}

impl Payload<'_> {
    /// How long the piece is.
    #[must_use]
    pub const fn length(&self) -> ByteCount {
        match self {
            Self::Bytes(bytes) => {
                ByteCount(crate::units::u64_from(bytes.len()))
            }
            Self::Zero(length) | Self::Unreadable(length, _) => *length,
        }
    }
}

/// Why something could not be read.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum ReadFault {
    /// The device reports an error for these sectors.
    Medium,
    /// The source ends before.
    BeyondEnd,
    /// An image that never held it.
    NotInImage,
    /// Listed as bad by a map that was given.
    KnownBad,
    /// Left out among many read errors: not every sector was tried.
    Skipped,
}

impl fmt::Display for ReadFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Medium => "read error",
            Self::BeyondEnd => "beyond the end of the device",
            Self::NotInImage => "not in the image",
            Self::KnownBad => "known to be bad",
            Self::Skipped => "skipped among many read errors",
        })
    }
}

/// What a source is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SourceFacts {
    /// How the user named it.
    pub name: String,
    /// What stands behind it.
    pub kind: SourceKind,
    /// Its length.
    pub length: ByteCount,
    /// The smallest unit that the device reads, 512 where nobody says.
    pub sector_bytes: u32,
    /// `st_dev` and `st_ino` of a file, `st_rdev` of a block device: to tell
    /// that an output is the source itself.
    pub file: Option<FileIdentity>,
    /// The disk's own identity, where the system tells.
    pub disk: DiskIdentity,
    /// Mounted read/write right now, so the contents may change under us.
    pub mounted_rw: bool,
}

/// What stands behind a source.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SourceKind {
    /// An ordinary file that holds a filesystem.
    File,
    /// A block device of this machine.
    BlockDevice,
    /// An image in one of our formats.
    Image,
    /// A device at the other end of a link.
    Remote,
}

/// Tells one local file or device from another.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FileIdentity {
    /// `st_dev`, the device that the file lies on.
    pub device: u64,
    /// `st_ino`.
    pub inode: u64,
    /// `st_rdev`, for a block device; 0 for a file.
    pub raw_device: u64,
}

/// What the system knows of a disk; each part may be missing.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct DiskIdentity {
    /// The model's name.
    pub model: Option<String>,
    /// The serial number.
    pub serial: Option<String>,
    /// The world-wide name.
    pub wwn: Option<String>,
}
