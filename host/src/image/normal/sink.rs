//! Writes a normal image, into a file or a pipe.
//!
//! The walk names the groups' tables and bitmaps; each goes to its own place.
//! Into a file they are read in one pass as they lie on the device, into a
//! pipe in as many as the order of the image needs, three if nothing is
//! unusual. Where groups claim the same block, as on a damaged filesystem,
//! each claim is a pass of its own.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use zerocopy::IntoBytes;

use crate::block_set::BlockSet;
use crate::error::{Error, ErrorKind, Result};
use crate::ext::{BlockKind, Walk};
use crate::image::normal::HostFacts;
use crate::image::normal::bitmaps::Bitmaps;
use crate::image::normal::layout::{Kind, Layout};
use crate::image::shape::{Shape, never_begun};
use crate::image::writer::{StreamWriter, Target, Writer, stretches, too_far};
use crate::image::{ImagePlan, ImageSink, WriteOrder};
use crate::units::{BlockCount, BlockNumber, BlockRun, BlockSize, u64_from};

/// A normal image in a file or a pipe.
///
/// Memory: 32 bytes for each table and bitmap, and what the walk knows.
pub struct NormalSink<'a> {
    out: Out<'a>,
    host: HostFacts,
    begun: Option<Begun>,
}

enum Out<'a> {
    File(Writer<'a>),
    Stream(StreamWriter<'a>),
}

struct Begun {
    shape: Shape,
    layout: Layout,
    bitmaps: Bitmaps,
    header: Vec<u8>,
    /// All parts that are read, in the order in which they will come.
    parts: Vec<Part>,
    /// The part that is being fed, and how many of its blocks have come.
    part: usize,
    done: u64,
    /// Block bitmaps that are not read but still hold something: groups,
    /// ascending; those before `made_done` have been written.
    made: Vec<u32>,
    made_done: usize,
}

/// Blocks of the device that go to one place of the image.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Part {
    first: u64,
    count: u32,
    group: u32,
    /// How many blocks of the table lie before.
    skip: u32,
    kind: Kind,
}

impl Part {
    fn end(&self) -> u64 {
        self.first.saturating_add(u64::from(self.count))
    }

    fn run(&self) -> Option<BlockRun> {
        let count = BlockCount(u64::from(self.count));
        BlockRun::new(BlockNumber(self.first), count)
    }
}

impl<'a> NormalSink<'a> {
    /// A normal image in `out`, which errors call `name`.
    #[must_use]
    pub fn new(out: Target<'a>, name: &str, host: HostFacts) -> Self {
        let out = match out {
            Target::File(file) => Out::File(Writer::new(file, name)),
            Target::Stream(stream) => {
                Out::Stream(StreamWriter::new(stream, name))
            }
        };
        Self { out, host, begun: None }
    }

    /// The parts of an image of `walk` that are read, pass by pass.
    fn parts(&self, walk: &Walk, bitmaps: &Bitmaps) -> Vec<Vec<Part>> {
        let parts = all_parts(walk, bitmaps);
        match self.out {
            Out::File(_) => disjoint_passes(parts),
            Out::Stream(_) => ordered_passes(parts),
        }
    }

    fn begun(&mut self) -> Result<(&mut Out<'a>, &mut Begun)> {
        let begun = self.begun.as_mut().ok_or_else(never_begun)?;
        Ok((&mut self.out, begun))
    }
}

impl ImageSink for NormalSink<'_> {
    fn order(&self) -> WriteOrder {
        WriteOrder::Ascending
    }

    fn passes(&self, walk: &Walk) -> Vec<BlockSet> {
        let Ok(bitmaps) = Bitmaps::new(walk) else {
            // `begin` tells.
            return Vec::new();
        };
        self.parts(walk, &bitmaps)
            .into_iter()
            .map(|pass| pass.iter().filter_map(Part::run).collect())
            .collect()
    }

    fn begin(&mut self, plan: &ImagePlan<'_>) -> Result<()> {
        let shape = Shape::new(plan.geometry)?;
        let layout = Layout::new(plan.geometry)?;
        let walk = plan.walk.ok_or_else(|| {
            Error::new(
                ErrorKind::Internal,
                "a normal image needs the finished walk",
            )
        })?;
        let bitmaps = Bitmaps::new(walk)?;
        let parts = self.parts(walk, &bitmaps).concat();
        let made = (0_u32..)
            .zip(&walk.groups)
            .filter(|(number, group)| {
                bitmaps.block_bitmap(group).is_none()
                    && bitmaps.adds_to(*number)
            })
            .map(|(number, _)| number)
            .collect();
        let header = self.host.header(plan.geometry.uuid, &layout);
        let begun = Begun {
            shape,
            layout,
            bitmaps,
            header: header.as_bytes().to_vec(),
            parts,
            part: 0,
            done: 0,
            made,
            made_done: 0,
        };
        match &mut self.out {
            Out::File(writer) => {
                writer.start_over()?;
                writer.zero(0, layout.length)?;
            }
            Out::Stream(writer) => {
                writer.must_be_fresh()?;
                writer.write(&begun.header)?;
            }
        }
        let out = &mut self.out;
        out.write(layout.offset_super, walk.superblock.as_slice())?;
        out.write(layout.offset_descriptors, &walk.descriptors)?;
        self.begun = Some(begun);
        Ok(())
    }

    fn put(&mut self, at: BlockNumber, bytes: &[u8]) -> Result<()> {
        let (out, begun) = self.begun()?;
        let run = begun.shape.run_of(at, bytes)?;
        begun.feed(run, bytes, out)
    }

    fn zero(&mut self, run: BlockRun) -> Result<()> {
        let (out, begun) = self.begun()?;
        begun.feed_zeros(run, out)
    }

    /// Zeros; only the manifest tells that they are none.
    fn hole(&mut self, run: BlockRun) -> Result<()> {
        self.zero(run)
    }

    fn finish(&mut self) -> Result<()> {
        let (out, begun) = self.begun()?;
        if begun.part != begun.parts.len() {
            return Err(Error::new(
                ErrorKind::Internal,
                "not all tables and bitmaps came",
            ));
        }
        begun.write_made(u64::MAX, out)?;
        match out {
            Out::Stream(writer) => {
                writer.zeros_to(begun.layout.length)?;
                writer.flush()
            }
            Out::File(writer) => {
                if writer.starts_zeroed() {
                    writer.set_length(begun.layout.length)?;
                }
                writer.write(0, &begun.header)?;
                writer.flush()
            }
        }
    }
}

impl Out<'_> {
    fn write(&mut self, at: u64, bytes: &[u8]) -> Result<()> {
        match self {
            Self::File(writer) => writer.write(at, bytes),
            Self::Stream(writer) => {
                writer.zeros_to(at)?;
                writer.write(bytes)
            }
        }
    }

    /// Writes whole blocks; zero blocks stay holes where the output is fresh.
    fn write_blocks(
        &mut self,
        at: u64,
        bytes: &[u8],
        size: BlockSize,
    ) -> Result<()> {
        let Self::File(writer) = self else {
            return self.write(at, bytes);
        };
        let mut at = at;
        for part in stretches(bytes, size) {
            let length = u64_from(part.bytes.len());
            if part.zero {
                writer.zero(at, length)?;
            } else {
                writer.write(at, part.bytes)?;
            }
            at = at.checked_add(length).ok_or_else(too_far)?;
        }
        Ok(())
    }
}

impl Begun {
    /// Takes the next blocks, which may belong to several parts.
    fn feed(
        &mut self,
        run: BlockRun,
        bytes: &[u8],
        out: &mut Out<'_>,
    ) -> Result<()> {
        self.shape.bytes(run)?;
        let block_bits = self.shape.block_size().log2();
        let mut at = run.first().0;
        let mut rest = bytes;
        while at < run.end().0 {
            let part = *self.parts.get(self.part).ok_or_else(out_of_turn)?;
            if at != part.first.saturating_add(self.done) {
                return Err(out_of_turn());
            }
            let stop = part.end().min(run.end().0);
            let count = stop.saturating_sub(at);
            let length = usize::try_from(count.wrapping_shl(block_bits))
                .map_err(|_| too_far())?;
            let (now, later) =
                rest.split_at_checked(length).ok_or_else(too_far)?;
            self.write_part(part, now, out)?;
            self.done = self.done.saturating_add(count);
            if stop == part.end() {
                self.part = self.part.saturating_add(1);
                self.done = 0;
            }
            at = stop;
            rest = later;
        }
        Ok(())
    }

    fn feed_zeros(&mut self, run: BlockRun, out: &mut Out<'_>) -> Result<()> {
        let size = self.shape.block_size();
        let zeros = vec![0; size.bytes().saturating_mul(16)];
        let mut at = run.first().0;
        while at < run.end().0 {
            let count = run.end().0.saturating_sub(at).min(16);
            let piece = BlockRun::new(BlockNumber(at), BlockCount(count))
                .ok_or_else(too_far)?;
            let length = usize::try_from(count.wrapping_shl(size.log2()))
                .map_err(|_| too_far())?;
            self.feed(piece, zeros.get(..length).unwrap_or(&[]), out)?;
            at = at.saturating_add(count);
        }
        Ok(())
    }

    /// Writes blocks of a part, `self.done` blocks from its start.
    fn write_part(
        &mut self,
        part: Part,
        bytes: &[u8],
        out: &mut Out<'_>,
    ) -> Result<()> {
        let (place, length) = self.layout.place(part.kind, part.group);
        match part.kind {
            Kind::Table => {
                let skip = u64::from(part.skip)
                    .saturating_add(self.done)
                    .wrapping_shl(self.shape.block_size().log2());
                let place = place.checked_add(skip).ok_or_else(too_far)?;
                self.write_made(place, out)?;
                out.write_blocks(place, bytes, self.shape.block_size())
            }
            Kind::BlockBitmap => {
                self.write_made(place, out)?;
                let mut bitmap = cut(bytes, length).to_vec();
                self.bitmaps.add_to(part.group, &mut bitmap);
                out.write(place, &bitmap)
            }
            Kind::InodeBitmap => {
                self.write_made(place, out)?;
                out.write(place, cut(bytes, length))
            }
        }
    }
}

impl Begun {
    /// Writes the block bitmaps that are not read and belong before `place`.
    fn write_made(&mut self, place: u64, out: &mut Out<'_>) -> Result<()> {
        while let Some(&group) = self.made.get(self.made_done) {
            let (at, length) = self.layout.place(Kind::BlockBitmap, group);
            if at >= place {
                break;
            }
            let length = usize::try_from(length).map_err(|_| too_far())?;
            let mut bitmap = vec![0; length];
            self.bitmaps.add_to(group, &mut bitmap);
            out.write(at, &bitmap)?;
            self.made_done = self.made_done.saturating_add(1);
        }
        Ok(())
    }
}

/// Everything that is read, in the order of the image.
fn all_parts(walk: &Walk, bitmaps: &Bitmaps) -> Vec<Part> {
    let groups = || (0_u32..).zip(&walk.groups);
    let mut parts = Vec::new();
    if let Some(selected) = walk.kind(BlockKind::InodeTable) {
        let blocks = u64::from(walk.geometry.inode_table_blocks);
        for (group, g) in groups() {
            let Some(table) = BlockRun::new(g.inode_table, BlockCount(blocks))
            else {
                continue;
            };
            let runs = selected.runs_in(table);
            parts.extend(runs.filter_map(|run| table_part(group, table, run)));
        }
    }
    let one = |group, at: BlockNumber, kind| Part {
        first: at.0,
        count: 1,
        group,
        skip: 0,
        kind,
    };
    parts.extend(groups().filter_map(|(group, g)| {
        bitmaps.block_bitmap(g).map(|at| one(group, at, Kind::BlockBitmap))
    }));
    parts.extend(groups().filter_map(|(group, g)| {
        bitmaps.inode_bitmap(g).map(|at| one(group, at, Kind::InodeBitmap))
    }));
    parts
}

fn table_part(group: u32, table: BlockRun, run: BlockRun) -> Option<Part> {
    let skip = run.first().checked_since(table.first())?;
    Some(Part {
        first: run.first().0,
        count: u32::try_from(run.count().0).ok()?,
        group,
        skip: u32::try_from(skip.0).ok()?,
        kind: Kind::Table,
    })
}

/// As few passes as possible in which every block comes at most once,
/// ascending.
fn disjoint_passes(mut parts: Vec<Part>) -> Vec<Vec<Part>> {
    parts.sort_by_key(|part| part.first);
    let mut passes: Vec<Vec<Part>> = Vec::new();
    // Where each pass ends so far.
    let mut ends: BinaryHeap<Reverse<(u64, usize)>> = BinaryHeap::new();
    for part in parts {
        let free = match ends.peek() {
            Some(&Reverse((end, pass))) if end <= part.first => {
                ends.pop();
                pass
            }
            _ => {
                passes.push(Vec::new());
                passes.len().saturating_sub(1)
            }
        };
        ends.push(Reverse((part.end(), free)));
        if let Some(pass) = passes.get_mut(free) {
            pass.push(part);
        }
    }
    passes
}

/// Passes that keep the order, a new one wherever it goes back.
fn ordered_passes(parts: Vec<Part>) -> Vec<Vec<Part>> {
    let mut passes: Vec<Vec<Part>> = Vec::new();
    for part in parts {
        match passes.last_mut() {
            Some(pass)
                if pass.last().is_some_and(|p| p.end() <= part.first) =>
            {
                pass.push(part);
            }
            _ => passes.push(vec![part]),
        }
    }
    passes
}

fn cut(bytes: &[u8], length: u64) -> &[u8] {
    usize::try_from(length).ok().and_then(|l| bytes.get(..l)).unwrap_or(bytes)
}

fn out_of_turn() -> Error {
    Error::new(
        ErrorKind::Internal,
        "blocks came that are no part of a normal image, or not in their turn",
    )
}
