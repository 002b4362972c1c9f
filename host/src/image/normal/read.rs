//! Reading a normal image: the tables and bitmaps at their places on the
//! device, nothing between.

use std::fs::File;
use std::path::Path;

use zerocopy::FromBytes;

use crate::error::{Error, ErrorKind, Result};
use crate::ext::groups::{self, INODE_UNINIT};
use crate::ext::superblock::{SUPERBLOCK_BYTES, SUPERBLOCK_OFFSET, Superblock};
use crate::ext::{Geometry, Group};
use crate::image::mapped::{self, Bad, Mapped, ReadAt, part_of};
use crate::image::normal::bitmaps::Bitmaps;
use crate::image::normal::layout::{Kind, Layout};
use crate::image::normal::{Header, MAGIC};
use crate::image::stored::StoredSet;
use crate::source::{BlockSource, Each, SourceFacts, SourceKind};
use crate::units::{
    BlockSize, ByteCount, ByteOffset, ByteRange, u64_from, usize_from,
};

/// A normal image as a source, in addresses of the device.
///
/// What a bitmap's block holds behind the bits of its group is not in the
/// image; it reads as ones, as mke2fs writes it.
pub struct NormalSource {
    file: Box<dyn ReadAt>,
    facts: SourceFacts,
    geometry: Geometry,
    /// Ascending, disjoint.
    segments: Vec<Segment>,
}

/// A stretch of the device that is in the image.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Segment {
    start: u64,
    end: u64,
    /// Where it lies in the image.
    place: u64,
    /// How much of it does; the rest is ones.
    length: u64,
    /// Whether it says anything: inodes that were never used do not.
    stored: bool,
}

impl NormalSource {
    /// Opens the image at `path`; `facts` are those of its file.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NoFilesystem`] when it is no normal image, or one whose
    /// parts do not fit together.
    pub(in crate::image) fn open(
        path: &Path,
        file: File,
        facts: SourceFacts,
    ) -> Result<Self> {
        Self::new(Box::new(file), &path.display().to_string(), facts)
    }

    pub(in crate::image) fn new(
        file: Box<dyn ReadAt>,
        name: &str,
        facts: SourceFacts,
    ) -> Result<Self> {
        let no = |why: &str| {
            Error::new(
                ErrorKind::NoFilesystem,
                format!("cannot read {name} as a normal image: {why}"),
            )
        };
        let read = |at: u64, into: &mut [u8]| {
            file.read_at(at, into)
                .map_err(|e| Error::io(format!("cannot read {name}"), e))
        };
        let mut bytes = [0; size_of::<Header>()];
        read(0, &mut bytes)?;
        let header = Header::read_from_bytes(&bytes)
            .map_err(|_| no("its header is cut short"))?;
        if header.magic.get() != MAGIC {
            return Err(no("it has not the magic number of one")
                .hint("an image whose making was cut short has none"));
        }
        let size = BlockSize::from_bytes(header.fs_blocksize.get().into())
            .ok_or_else(|| no("its block size cannot be true"))?;
        let mut bytes = [0; SUPERBLOCK_BYTES];
        read(size.bytes_u64(), &mut bytes)?;
        let superblock = Superblock::check(&bytes, None, None)
            .map_err(|e| no("its superblock cannot be used").because(e))?;
        let geometry = superblock.geometry.clone();
        if geometry.block_size != size {
            return Err(no("header and superblock name different block sizes"));
        }
        let layout = Layout::new(&geometry)
            .map_err(|e| no("its offsets have wrapped").because(e))?;
        if !layout.is_that_of(&header) {
            return Err(no("its offsets are not those of its filesystem"));
        }
        if layout.offset_inode > facts.length.0 {
            return Err(no("it is cut short"));
        }
        let descriptors = usize_from(geometry.descriptor_blocks)
            .checked_mul(size.bytes())
            .ok_or_else(|| no("its descriptors are too many"))?;
        let mut descriptors = vec![0; descriptors];
        read(layout.offset_descriptors, &mut descriptors)?;
        let groups: Vec<Group> = (0..geometry.groups)
            .zip(descriptors.chunks_exact(usize_from(geometry.descriptor_size)))
            .filter_map(|(number, bytes)| {
                groups::parse(&superblock, number, bytes)
            })
            .collect();
        let segments = segments(&superblock, &groups, &layout);
        let length = size.bytes_of(geometry.blocks).unwrap_or_default();
        let facts = SourceFacts { length, kind: SourceKind::Image, ..facts };
        Ok(Self { file, facts, geometry, segments })
    }

    /// The shape of the filesystem.
    #[must_use]
    pub const fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// What the image holds. Bitmaps of groups that were never initialised
    /// and inodes that were never used do not count: they say nothing.
    #[must_use]
    pub fn stored(&self) -> StoredSet {
        let mut stored = StoredSet::default();
        for segment in self.segments.iter().filter(|segment| segment.stored) {
            let (start, end) =
                (ByteOffset(segment.start), ByteOffset(segment.end));
            if let Some(range) = ByteRange::between(start, end) {
                stored.push(range);
            }
        }
        stored
    }
}

/// Everything in the image by its place on the device. Where groups claim the
/// same block, the one that comes first has it.
fn segments(
    superblock: &Superblock,
    groups: &[Group],
    layout: &Layout,
) -> Vec<Segment> {
    let geometry = &superblock.geometry;
    let bs = layout.block_size.bytes_u64();
    let mut all = Vec::new();
    all.push(segment(SUPERBLOCK_OFFSET, 1024, layout.offset_super));
    for index in 0..geometry.descriptor_blocks {
        let at = groups::descriptor_block(superblock, index, false).0;
        let place = layout
            .offset_descriptors
            .saturating_add(u64::from(index).saturating_mul(bs));
        all.push(segment(at.saturating_mul(bs), bs, place));
    }
    let bitmaps = Bitmaps::of(superblock, groups);
    for (number, group) in (0_u32..).zip(groups) {
        for (at, kind) in [
            (bitmaps.block_bitmap(group), Kind::BlockBitmap),
            (bitmaps.inode_bitmap(group), Kind::InodeBitmap),
        ] {
            let Some(at) = at else {
                continue;
            };
            let (place, length) = layout.place(kind, number);
            let whole = segment(at.0.saturating_mul(bs), bs, place);
            all.push(Segment { length: length.min(bs), ..whole });
        }
        all.extend(table(superblock, group, number, layout));
    }
    let end = geometry.blocks.0.saturating_mul(bs);
    all.retain(|segment| segment.end <= end);
    disjoint(all)
}

/// The inode table of a group: the part that is used, and the rest.
fn table(
    superblock: &Superblock,
    group: &Group,
    number: u32,
    layout: &Layout,
) -> impl Iterator<Item = Segment> + use<> {
    let geometry = &superblock.geometry;
    let bs = layout.block_size.bytes_u64();
    let first = group.inode_table.0;
    let (place, length) = layout.place(Kind::Table, number);
    let blocks = u64::from(geometry.inode_table_blocks);
    let per_block =
        bs.checked_div(u64::from(geometry.inode_size)).unwrap_or(1).max(1);
    let unused = match superblock.has_group_csum() {
        true if group.flags & INODE_UNINIT != 0 => blocks,
        true if group.itable_unused <= geometry.inodes_per_group => {
            u64::from(group.itable_unused).checked_div(per_block).unwrap_or(0)
        }
        _ => 0,
    };
    let used = blocks.saturating_sub(unused).saturating_mul(bs);
    let start = first.saturating_mul(bs);
    let rest = Segment {
        stored: false,
        ..segment(
            start.saturating_add(used),
            length.saturating_sub(used),
            place.saturating_add(used),
        )
    };
    [segment(start, used, place), rest]
        .into_iter()
        .filter(move |segment| first != 0 && segment.start < segment.end)
}

fn segment(start: u64, length: u64, place: u64) -> Segment {
    let end = start.saturating_add(length);
    Segment { start, end, place, length, stored: true }
}

/// The segments sorted; what an earlier one has is cut off a later one.
fn disjoint(mut all: Vec<Segment>) -> Vec<Segment> {
    all.sort_by_key(|segment| segment.start);
    let mut kept: Vec<Segment> = Vec::with_capacity(all.len());
    for mut segment in all {
        let taken = kept.last().map_or(0, |last| last.end);
        if let Some(cut) = taken.checked_sub(segment.start) {
            segment.start = segment.start.saturating_add(cut);
            segment.place = segment.place.saturating_add(cut);
            segment.length = segment.length.saturating_sub(cut);
        }
        if segment.start < segment.end {
            kept.push(segment);
        }
    }
    kept
}

impl NormalSource {
    /// The segments from the one that ends behind `at` on.
    fn segments_from(&self, at: u64) -> &[Segment] {
        let first = self.segments.partition_point(|segment| segment.end <= at);
        self.segments.get(first..).unwrap_or(&[])
    }

    fn fill_segment(
        &self,
        segment: &Segment,
        base: u64,
        room: &mut [u8],
        bad: Bad<'_>,
    ) {
        let held = segment.start.saturating_add(segment.length);
        if let Some((from, part)) =
            part_of(room, base, segment.start, held.min(segment.end))
        {
            let skip = from.saturating_sub(segment.start);
            let place = segment.place.saturating_add(skip);
            if let Err(error) = self.file.read_at(place, part) {
                let to = from.saturating_add(u64_from(part.len()));
                // Whole sectors, as pieces are cut.
                let to = to.next_multiple_of(512).min(segment.end);
                bad(mapped::down(from, 512), to, mapped::fault(&error));
                part.fill(0);
            }
        }
        if let Some((_, part)) = part_of(room, base, held, segment.end) {
            part.fill(0xFF);
        }
    }
}

impl Mapped for NormalSource {
    fn zeros_until(&self, at: u64, end: u64) -> u64 {
        let next =
            self.segments_from(at).first().map_or(end, |next| next.start);
        next.clamp(at, end)
    }

    fn fill(&self, base: u64, room: &mut [u8], bad: Bad<'_>) {
        let end = base.saturating_add(u64_from(room.len()));
        for segment in self
            .segments_from(base)
            .iter()
            .take_while(|segment| segment.start < end)
        {
            self.fill_segment(segment, base, room, bad);
        }
    }
}

impl BlockSource for NormalSource {
    fn facts(&self) -> &SourceFacts {
        &self.facts
    }

    fn read(&self, ranges: &[ByteRange], each: Each<'_>) -> Result<()> {
        mapped::read(self, ByteCount(self.facts.length.0), ranges, each);
        Ok(())
    }
}
