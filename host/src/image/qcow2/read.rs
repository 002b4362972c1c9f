//! Reading qcow2: versions 2 and 3, as e2wire, e2image and `qemu-img convert`
//! write it.
//!
//! Nothing of the tables is kept but a few megabytes that were used last, so
//! whatever a header claims, memory is bounded. An entry that cannot be true
//! makes its clusters unreadable, and nothing else.

use std::fs::File;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use zerocopy::{FromBytes, FromZeros};

use crate::block_set::BlockSet;
use crate::error::{Error, ErrorKind, Result};
use crate::image::format::Qcow2Compression;
use crate::image::mapped::{self, Bad, Mapped, ReadAt, part_of};
use crate::image::qcow2::compress::Decompressor;
use crate::image::qcow2::table_cache::TableCache;
use crate::image::qcow2::{
    CLUSTER_BITS_MAX, COMPRESSED, Header, HeaderV3, INCOMPATIBLE_COMPRESSION,
    MAGIC, OFFSET_MASK, ZERO,
};
use crate::image::stored::StoredSet;
use crate::source::{BlockSource, Each, ReadFault, SourceFacts};
use crate::units::{BlockNumber, ByteCount, ByteOffset, ByteRange, u64_from};

/// The smallest cluster.
const CLUSTER_BITS_MIN: u32 = 9;

/// The size of a sector of compressed data.
const SECTOR_BYTES: u64 = 512;

/// A qcow2 image as a source, in addresses of the device.
pub struct Qcow2Source {
    file: Box<dyn ReadAt>,
    facts: SourceFacts,
    shape: TableShape,
    file_length: u64,
    version: u32,
    compression: Qcow2Compression,
    tables: Mutex<TableCache>,
    stored: StoredSet,
    /// Entries of the L1 table whose L2 table an earlier entry has already:
    /// one of the two is wrong, and each table is looked at only once.
    twice: BlockSet,
    /// Those that nobody uses right now: making one is not cheap.
    unpackers: Mutex<Vec<Decompressor>>,
}

/// Where the tables are and how large.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct TableShape {
    bits: u32,
    l1_offset: u64,
    l1_size: u64,
}

impl TableShape {
    const fn cluster_bytes(self) -> u64 {
        1_u64.wrapping_shl(self.bits)
    }

    /// Bytes of the device for which one L2 table stands.
    const fn table_bytes(self) -> u64 {
        1_u64.wrapping_shl(self.bits.wrapping_mul(2).wrapping_sub(3))
    }
}

/// How a guest cluster is stored.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Cluster {
    Absent,
    Zero,
    /// At this place of the file.
    Data(u64),
    /// The L2 entry.
    Packed(u64),
    /// The tables cannot be read here, or cannot be true.
    Bad(ReadFault),
}

impl Cluster {
    /// How the cluster `skip` clusters further on is stored if the two belong
    /// together.
    fn further(self, skip: u64, bytes: u64) -> Self {
        match self {
            Self::Data(place) => {
                Self::Data(place.saturating_add(skip.saturating_mul(bytes)))
            }
            // Each has its own length.
            Self::Packed(_) if skip > 0 => Self::Bad(ReadFault::KnownBad),
            other => other,
        }
    }
}

impl Qcow2Source {
    /// Opens the image at `path`; `facts` are those of its file.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NoFilesystem`] when it is no qcow2 image, or one that
    /// this does not read; the error says why and what does.
    pub(in crate::image) fn open(
        path: &Path,
        file: File,
        facts: SourceFacts,
    ) -> Result<Self> {
        let name = path.display().to_string();
        Self::new(Box::new(file), &name, facts)
    }

    pub(in crate::image) fn new(
        file: Box<dyn ReadAt>,
        name: &str,
        facts: SourceFacts,
    ) -> Result<Self> {
        let file_length = facts.length.0;
        let mut header = Header::new_zeroed();
        let more = read_header(&*file, &mut header)
            .map_err(|e| Error::io(format!("cannot read {name}"), e))?;
        let known = Known::check(&header, more.as_ref(), file_length, name)?;
        let facts = SourceFacts {
            length: ByteCount(header.size.get()),
            kind: crate::source::SourceKind::Image,
            ..facts
        };
        let mut source = Self {
            file,
            facts,
            shape: known.shape,
            file_length,
            version: header.version.get(),
            compression: known.compression,
            tables: Mutex::new(TableCache::default()),
            stored: StoredSet::default(),
            twice: BlockSet::new(),
            unpackers: Mutex::new(Vec::new()),
        };
        source.scan();
        Ok(source)
    }

    /// The cluster size in bytes.
    #[must_use]
    pub const fn cluster_bytes(&self) -> u64 {
        self.shape.cluster_bytes()
    }

    /// How its clusters may be compressed.
    #[must_use]
    pub const fn compression(&self) -> Qcow2Compression {
        self.compression
    }

    /// What the image holds, zeros that it knows to be such included. What
    /// damaged tables may have held counts as held: it is unreadable, and
    /// whoever needs it shall hear of it.
    #[must_use]
    pub const fn stored(&self) -> &StoredSet {
        &self.stored
    }

    /// Looks through all tables once.
    fn scan(&mut self) {
        let mut stored = StoredSet::default();
        let mut seen = BlockSet::new();
        let length = self.facts.length.0;
        let table_bits = self.shape.table_bytes().trailing_zeros();
        let mut at = 0;
        while at < length {
            let table = self.table_at(at);
            if let Some(place) = table
                && mapped::down(at, self.shape.table_bytes()) == at
                && !seen.insert(BlockNumber(place))
            {
                self.twice.insert(BlockNumber(at.wrapping_shr(table_bits)));
            }
            let (cluster, until) = self.cluster_at(at, length);
            if cluster != Cluster::Absent {
                let end = until.min(length);
                stored.extend(ByteRange::between(
                    ByteOffset(at),
                    ByteOffset(end),
                ));
            }
            at = until;
        }
        self.stored = stored;
    }

    /// The place of the L2 table for the cluster at `at`, if there is one.
    fn table_at(&self, at: u64) -> Option<u64> {
        let mut tables = self.lock();
        let index = at.wrapping_shr(self.shape.table_bytes().trailing_zeros());
        let (offset, size) = (self.shape.l1_offset, self.shape.l1_size);
        let entry = tables.l1(&*self.file, offset, index, size).ok()?;
        Some(entry & OFFSET_MASK).filter(|place| *place != 0)
    }

    fn lock(&self) -> MutexGuard<'_, TableCache> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How the cluster around `at` is stored, and up to where that is known
    /// to go on: data one behind the other in the file as well.
    fn cluster_at(&self, at: u64, end: u64) -> (Cluster, u64) {
        self.look_up(&mut self.lock(), at, end)
    }

    fn look_up(
        &self,
        tables: &mut TableCache,
        at: u64,
        end: u64,
    ) -> (Cluster, u64) {
        let shape = self.shape;
        let table_bytes = shape.table_bytes();
        let index = at.wrapping_shr(table_bytes.trailing_zeros());
        let table_start = mapped::down(at, table_bytes);
        let table_end = table_start.saturating_add(table_bytes);
        let file = &*self.file;
        let l1_entry =
            match tables.l1(file, shape.l1_offset, index, shape.l1_size) {
                Ok(entry) => entry,
                Err(error) => {
                    return (Cluster::Bad(mapped::fault(&error)), table_end);
                }
            };
        let place = l1_entry & OFFSET_MASK;
        if place == 0 {
            let until = tables.l1_zeros(index).saturating_mul(table_bytes);
            return (
                Cluster::Absent,
                table_start.saturating_add(until).max(table_end),
            );
        }
        if place & shape.cluster_bytes().wrapping_sub(1) != 0
            || self.twice.contains(BlockNumber(index))
        {
            return (Cluster::Bad(ReadFault::Medium), table_end);
        }
        let table = match tables.l2(file, place, shape.bits) {
            Ok(table) => table,
            Err(error) => {
                return (Cluster::Bad(mapped::fault(&error)), table_end);
            }
        };
        let slot = usize::try_from(
            at.saturating_sub(table_start).wrapping_shr(shape.bits),
        )
        .unwrap_or(usize::MAX);
        let cluster = self.entry(table.get(slot).map_or(0, |e| e.get()));
        let bytes = shape.cluster_bytes();
        let start = mapped::down(at, bytes);
        // Nobody asks beyond `end`.
        let asked = end.saturating_sub(start).div_ceil(bytes);
        let asked = usize::try_from(asked).unwrap_or(usize::MAX);
        let alike = table
            .get(slot..)
            .unwrap_or(&[])
            .iter()
            .take(asked)
            .zip(0_u64..)
            .take_while(|(entry, skip)| {
                self.entry(entry.get()) == cluster.further(*skip, bytes)
            })
            .count();
        let alike = u64_from(alike).max(1).saturating_mul(bytes);
        (cluster, start.saturating_add(alike))
    }

    /// What an L2 entry says.
    fn entry(&self, entry: u64) -> Cluster {
        if entry & COMPRESSED != 0 {
            return Cluster::Packed(entry);
        }
        if self.version >= 3 && entry & ZERO != 0 {
            return Cluster::Zero;
        }
        match entry & OFFSET_MASK {
            0 => Cluster::Absent,
            place
                if place & self.shape.cluster_bytes().wrapping_sub(1) == 0 =>
            {
                Cluster::Data(place)
            }
            _ => Cluster::Bad(ReadFault::Medium),
        }
    }

    /// Decompresses the cluster that `entry` names.
    fn unpack(&self, entry: u64, cluster: &mut [u8]) -> Result<(), ReadFault> {
        // The place has `62 - (bits - 8)` bits, the number of sectors the
        // rest up to bit 61.
        let shift = 70_u32.saturating_sub(self.shape.bits);
        let place = entry & 1_u64.wrapping_shl(shift).wrapping_sub(1);
        let sectors = (entry & COMPRESSED.wrapping_sub(1))
            .wrapping_shr(shift)
            .saturating_add(1);
        let end = mapped::down(place, SECTOR_BYTES)
            .saturating_add(sectors.saturating_mul(SECTOR_BYTES))
            .min(self.file_length);
        let length = end.checked_sub(place).ok_or(ReadFault::BeyondEnd)?;
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        // No more than twice a cluster, as the bits of an entry allow.
        if length > cluster.len().saturating_mul(2).saturating_add(512) {
            return Err(ReadFault::Medium);
        }
        let mut packed = vec![0; length];
        self.file
            .read_at(place, &mut packed)
            .map_err(|error| mapped::fault(&error))?;
        let pool =
            || self.unpackers.lock().unwrap_or_else(PoisonError::into_inner);
        let spare = pool().pop();
        let mut unpack = spare
            .or_else(|| Decompressor::new(self.compression))
            .ok_or(ReadFault::Medium)?;
        // One that has failed is not used again: who knows what it holds.
        unpack.decompress(&packed, cluster).ok_or(ReadFault::Medium)?;
        pool().push(unpack);
        Ok(())
    }

    /// Reads one compressed cluster into the part of `room` that it covers.
    fn fill_packed(
        &self,
        entry: u64,
        start: u64,
        base: u64,
        room: &mut [u8],
    ) -> Result<(), ReadFault> {
        let bytes = self.shape.cluster_bytes();
        let mut cluster = vec![0; usize::try_from(bytes).unwrap_or(0)];
        self.unpack(entry, &mut cluster)?;
        let end = start.saturating_add(bytes);
        if let Some((from, part)) = part_of(room, base, start, end) {
            let skip = usize::try_from(from.saturating_sub(start)).unwrap_or(0);
            let stop = skip.saturating_add(part.len());
            if let Some(bytes) = cluster.get(skip..stop) {
                part.copy_from_slice(bytes);
            }
        }
        Ok(())
    }
}

/// Clusters that lie one behind the other both on the device and in the file.
#[derive(Clone, Copy)]
struct Stretch {
    start: u64,
    end: u64,
    place: u64,
}

impl Mapped for Qcow2Source {
    fn zeros_until(&self, at: u64, end: u64) -> u64 {
        let mut at = at;
        let mut tables = self.lock();
        while at < end {
            match self.look_up(&mut tables, at, end) {
                (Cluster::Absent | Cluster::Zero, until) => at = until,
                _ => break,
            }
        }
        at
    }

    fn fill(&self, base: u64, room: &mut [u8], bad: Bad<'_>) {
        let end = base.saturating_add(u64_from(room.len()));
        let mut at = base;
        let mut stretch: Option<Stretch> = None;
        while at < end {
            let (cluster, until) = self.cluster_at(at, end);
            let start = mapped::down(at, self.shape.cluster_bytes());
            match (cluster, &mut stretch) {
                (Cluster::Data(place), Some(known))
                    if known.end == start
                        && known.place.saturating_add(
                            known.end.saturating_sub(known.start),
                        ) == place =>
                {
                    known.end = until;
                }
                (cluster, stretch) => {
                    if let Some(done) = stretch.take() {
                        self.fill_data(done, base, room, bad);
                    }
                    match cluster {
                        Cluster::Absent | Cluster::Zero => {}
                        Cluster::Bad(fault) => bad(start, until, fault),
                        Cluster::Data(place) => {
                            *stretch =
                                Some(Stretch { start, end: until, place });
                        }
                        Cluster::Packed(entry) => {
                            if let Err(fault) =
                                self.fill_packed(entry, start, base, room)
                            {
                                bad(start, until, fault);
                            }
                        }
                    }
                }
            }
            at = until;
        }
        if let Some(done) = stretch {
            self.fill_data(done, base, room, bad);
        }
    }
}

impl Qcow2Source {
    fn fill_data(
        &self,
        stretch: Stretch,
        base: u64,
        room: &mut [u8],
        bad: Bad<'_>,
    ) {
        let Some((from, part)) =
            part_of(room, base, stretch.start, stretch.end)
        else {
            return;
        };
        let skip = from.saturating_sub(stretch.start);
        let place = stretch.place.saturating_add(skip);
        if self.file.read_at(place, part).is_ok() {
            return;
        }
        // Which sector is it?
        let mut at = from;
        for sector in part.chunks_mut(512) {
            let skip = at.saturating_sub(stretch.start);
            let place = stretch.place.saturating_add(skip);
            let next = at.saturating_add(u64_from(sector.len()));
            if let Err(error) = self.file.read_at(place, sector) {
                bad(at, next, mapped::fault(&error));
            }
            at = next;
        }
    }
}

impl BlockSource for Qcow2Source {
    fn facts(&self) -> &SourceFacts {
        &self.facts
    }

    fn read(&self, ranges: &[ByteRange], each: Each<'_>) -> Result<()> {
        mapped::read(self, self.facts.length, ranges, each);
        Ok(())
    }
}

/// Reads the header, and what version 3 adds, if the file is long enough.
fn read_header(
    file: &dyn ReadAt,
    header: &mut Header,
) -> std::io::Result<Option<HeaderV3>> {
    let mut bytes = [0; size_of::<Header>()];
    file.read_at(0, &mut bytes)?;
    if let Ok(read) = Header::read_from_bytes(&bytes) {
        *header = read;
    }
    let mut bytes = [0; size_of::<HeaderV3>()];
    let at = u64_from(size_of::<Header>());
    Ok(match file.read_at(at, &mut bytes) {
        Ok(()) => HeaderV3::read_from_bytes(&bytes).ok(),
        Err(_) => None,
    })
}

/// What a header says, when all of it is known and can be true.
struct Known {
    shape: TableShape,
    compression: Qcow2Compression,
}

impl Known {
    fn check(
        header: &Header,
        more: Option<&HeaderV3>,
        file_length: u64,
        name: &str,
    ) -> Result<Self> {
        let no = |why: &str| unsupported(name, why);
        if header.magic.get() != MAGIC {
            return Err(no("it has not the magic number of qcow2"));
        }
        let compression = match (header.version.get(), more) {
            (2, _) => Qcow2Compression::Deflate,
            (3, Some(more)) => check_features(more, name)?,
            (3, None) => return Err(no("its header is cut short")),
            (version, _) => {
                return Err(no(&format!("its version is {version}")));
            }
        };
        if header.backing_file_offset.get() != 0 {
            return Err(no("it has a backing file").hint(
                "qemu-img convert -O qcow2 makes an image that stands alone",
            ));
        }
        if header.crypt_method.get() != 0 {
            return Err(no("it is encrypted")
                .hint("qemu-img convert can decrypt it, given the key"));
        }
        if header.nb_snapshots.get() != 0 {
            return Err(no("it holds internal snapshots")
                .hint("qemu-img convert makes an image of the current state"));
        }
        Self::check_tables(header, compression, file_length)
            .ok_or_else(|| no("what its header says of its tables is not true"))
    }

    fn check_tables(
        header: &Header,
        compression: Qcow2Compression,
        file_length: u64,
    ) -> Option<Self> {
        let bits = header.cluster_bits.get();
        if !(CLUSTER_BITS_MIN..=CLUSTER_BITS_MAX).contains(&bits) {
            return None;
        }
        let shape = TableShape {
            bits,
            l1_offset: header.l1_table_offset.get(),
            l1_size: u64::from(header.l1_size.get()),
        };
        let size = header.size.get();
        i64::try_from(size).ok()?;
        let covered = shape.l1_size.saturating_mul(shape.table_bytes());
        let l1_end =
            shape.l1_offset.checked_add(shape.l1_size.saturating_mul(8))?;
        i64::try_from(l1_end).ok()?;
        let aligned =
            shape.l1_offset & shape.cluster_bytes().wrapping_sub(1) == 0;
        (aligned
            && l1_end <= file_length
            && covered >= size
            && (size == 0 || shape.l1_offset != 0))
            .then_some(Self { shape, compression })
    }
}

fn check_features(more: &HeaderV3, name: &str) -> Result<Qcow2Compression> {
    let no = |why: &str| unsupported(name, why);
    let check = "qemu-img check -r all repairs it; keep a copy";
    let features = more.incompatible_features.get();
    if features & 1 != 0 {
        return Err(no("it is dirty: it was not closed").hint(check));
    }
    if features & 1 << 1 != 0 {
        return Err(no("it is marked as corrupt").hint(check));
    }
    if features & 1 << 2 != 0 {
        return Err(no("its data lie in another file")
            .hint("qemu-img convert -O qcow2 makes one file of both"));
    }
    if features & 1 << 4 != 0 {
        return Err(no("it has extended L2 entries (subclusters)")
            .hint("qemu-img convert -o extended_l2=off makes one without"));
    }
    let unknown = features & !INCOMPATIBLE_COMPRESSION;
    if unknown != 0 {
        return Err(no(&format!(
            "it needs features that are not known here ({unknown:#x})"
        )));
    }
    let length = more.header_length.get();
    if length < 104 {
        return Err(no(&format!("its header cannot be {length} bytes long")));
    }
    match (features & INCOMPATIBLE_COMPRESSION, more.compression_type) {
        (0, _) => Ok(Qcow2Compression::Deflate),
        (_, 1) if length >= 112 => Ok(Qcow2Compression::Zstd),
        (_, kind) => Err(no(&format!("its compression {kind} is not known"))),
    }
}

fn unsupported(name: &str, why: &str) -> Error {
    Error::new(
        ErrorKind::NoFilesystem,
        format!("cannot read {name} as a qcow2 image: {why}"),
    )
}
