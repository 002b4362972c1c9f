//! classic: version 2, byte for byte what e2image writes.
//!
//! The cluster is the block. Zero blocks are left out. Parts are allocated
//! in the order in which e2image meets them:
//!
//! ```text
//! header | L1 table | refcount table | one cluster for nothing |
//! first L2 table | first refcount block | data ...
//! ```
//!
//! Behind the first data cluster of each L2 table one cluster is kept for
//! the *next* L2 table, and a refcount block comes where the one before is
//! full. The size of the refcount table is guessed from the number of marks,
//! in which a block that two owners claim counts twice. The last reserved
//! slot and the spare cluster are counted but never used: QEMU calls them
//! leaked, and is right; no error, but the reason why this is not the default.
//!
//! Where the guess is too small, e2image writes beyond its table. This writes
//! a table that is large enough behind the data.

use zerocopy::IntoBytes;
use zerocopy::big_endian::{U16, U64};

use crate::error::{Error, ErrorKind, Result};
use crate::image::qcow2::{COPIED, Clusters, Header, MAGIC, refused};
use crate::image::shape::{Shape, never_begun};
use crate::image::writer::{Writer, is_zero, too_far};
use crate::image::{ImagePlan, ImageSink, WriteOrder};
use crate::output::OutputFile;
use crate::units::{BlockNumber, BlockRun, u64_from, usize_from};

/// A qcow2 image as e2image writes it.
///
/// Memory: 16 bytes for each L2 table and 8 for each refcount block.
pub struct ClassicSink<'a> {
    writer: Writer<'a>,
    begun: Option<Begun>,
}

struct Begun {
    shape: Shape,
    clusters: Clusters,
    refcount_table: u64,
    refcount_table_clusters: u64,
    /// The next free place of the file.
    off: u64,
    /// Where the next L2 table goes.
    next_l2: u64,
    refcounts: Refcounts,
    /// The open L2 table.
    l2: Vec<U64>,
    /// The tables so far: L1 index and place. The last one is open.
    l1: Vec<(u32, u64)>,
    /// The end of what was written.
    end: u64,
}

/// The refcount block that is being filled.
struct Refcounts {
    /// Its number.
    index: u64,
    /// Where it will be written.
    place: u64,
    counts: Vec<U16>,
    position: usize,
    /// The places of all blocks.
    table: Vec<u64>,
}

impl<'a> ClassicSink<'a> {
    /// An image like e2image's in `out`, which errors call `name`.
    #[must_use]
    pub fn new(out: &'a mut dyn OutputFile, name: &str) -> Self {
        Self { writer: Writer::new(out, name), begun: None }
    }
}

impl ImageSink for ClassicSink<'_> {
    fn order(&self) -> WriteOrder {
        WriteOrder::Ascending
    }

    fn begin(&mut self, plan: &ImagePlan<'_>) -> Result<()> {
        let shape = Shape::new(plan.geometry)?;
        let marks = plan.walk.ok_or_else(|| {
            Error::new(ErrorKind::Internal, "classic needs the finished walk")
        })?;
        self.writer.start_over()?;
        let begun = Begun::new(shape, marks.marks, &mut self.writer)?;
        self.begun = Some(begun);
        Ok(())
    }

    fn put(&mut self, at: BlockNumber, bytes: &[u8]) -> Result<()> {
        let begun = self.begun.as_mut().ok_or_else(never_begun)?;
        begun.shape.bytes(begun.shape.run_of(at, bytes)?)?;
        let size = begun.shape.block_size().bytes();
        for (block, bytes) in (at.0..).zip(bytes.chunks_exact(size)) {
            if !is_zero(bytes) {
                begun.store(block, bytes, &mut self.writer)?;
            }
        }
        Ok(())
    }

    fn zero(&mut self, _: BlockRun) -> Result<()> {
        Ok(())
    }

    fn hole(&mut self, _: BlockRun) -> Result<()> {
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        let begun = self.begun.as_mut().ok_or_else(never_begun)?;
        begun.finish(&mut self.writer)
    }
}

impl Begun {
    fn new(shape: Shape, marks: u64, writer: &mut Writer<'_>) -> Result<Self> {
        let bits = shape.block_size().log2();
        let clusters = Clusters::new(shape, bits)?;
        let size = clusters.bytes();
        let refcount_table =
            clusters.place(clusters.l1_clusters().saturating_add(1))?;
        let guess = marks
            .saturating_add(refcount_table.wrapping_shr(bits))
            .wrapping_shr(bits.saturating_add(5))
            .max(1);
        let entries = usize::try_from(size / 8).map_err(|_| too_far())?;
        // One cluster lies between the table and this.
        let next_l2 = guess
            .checked_add(1)
            .and_then(|n| n.checked_mul(size))
            .and_then(|n| n.checked_add(refcount_table))
            .ok_or_else(too_far)?;
        let first_block = next_l2.checked_add(size).ok_or_else(too_far)?;
        let counts = entries.saturating_mul(4);
        let mut begun = Self {
            shape,
            clusters,
            refcount_table,
            refcount_table_clusters: guess,
            off: 0,
            next_l2,
            refcounts: Refcounts {
                index: 0,
                place: first_block,
                counts: vec![U16::ZERO; counts],
                position: 0,
                table: Vec::new(),
            },
            l2: vec![U64::ZERO; entries],
            l1: Vec::new(),
            end: 0,
        };
        // Everything up to the first refcount block is counted, and so are
        // the blocks that become necessary for that.
        let mut end = first_block;
        let mut block = first_block.checked_add(size).ok_or_else(too_far)?;
        while begun.off <= end {
            if begun.count(begun.off, block, writer)? {
                block = block.checked_add(size).ok_or_else(too_far)?;
                end = end.checked_add(size).ok_or_else(too_far)?;
            }
            begun.advance()?;
        }
        Ok(begun)
    }

    fn advance(&mut self) -> Result<()> {
        let size = self.clusters.bytes();
        self.off = self.off.checked_add(size).ok_or_else(too_far)?;
        Ok(())
    }

    /// Counts the cluster at `off`. If the refcount block is full, it is
    /// written, and the answer is true: the next one will be at `place`.
    fn count(
        &mut self,
        off: u64,
        place: u64,
        writer: &mut Writer<'_>,
    ) -> Result<bool> {
        // A block counts `1 << (cluster_bits - 1)` clusters.
        let shift = self.clusters.bits.saturating_mul(2).saturating_sub(1);
        let index = off.wrapping_shr(shift);
        let full = index != self.refcounts.index;
        if full {
            self.write_refcounts(writer)?;
            self.refcounts.counts.fill(U16::ZERO);
            self.refcounts.position = 0;
            self.refcounts.index = index;
            self.refcounts.place = place;
        }
        let position = self.refcounts.position;
        if let Some(count) = self.refcounts.counts.get_mut(position) {
            *count = 1.into();
        }
        self.refcounts.position = position.saturating_add(1);
        Ok(full)
    }

    fn write_refcounts(&mut self, writer: &mut Writer<'_>) -> Result<()> {
        let place = self.refcounts.place;
        self.refcounts.table.push(place);
        self.end = self.end.max(place.saturating_add(self.clusters.bytes()));
        writer.write(place, self.refcounts.counts.as_bytes())
    }

    /// Counts the next free cluster, behind a new refcount block if it must
    /// be.
    fn count_next(&mut self, writer: &mut Writer<'_>) -> Result<()> {
        if self.count(self.off, self.off, writer)? {
            self.advance()?;
            self.count(self.off, self.off, writer)?;
        }
        Ok(())
    }

    fn store(
        &mut self,
        block: u64,
        bytes: &[u8],
        writer: &mut Writer<'_>,
    ) -> Result<()> {
        let size = self.clusters.bytes();
        self.count_next(writer)?;
        writer.write(self.off, bytes)?;
        let place = self.off;
        self.end = self.end.max(place.saturating_add(size));

        let index = block.wrapping_shr(self.clusters.l2_bits());
        let index = u32::try_from(index).map_err(|_| refused(self.shape))?;
        let fresh = self.l1.last().is_none_or(|(last, _)| *last != index);
        if fresh {
            self.write_l2(writer)?;
            self.l1.push((index, self.next_l2));
            self.next_l2 = place.checked_add(size).ok_or_else(too_far)?;
        }
        let mask = u64_from(self.l2.len()).saturating_sub(1);
        let slot = usize::try_from(block & mask).map_err(|_| too_far())?;
        if let Some(slot) = self.l2.get_mut(slot) {
            *slot = (place | COPIED).into();
        }
        if fresh {
            // The place of the next table.
            self.advance()?;
            let behind = self.off.checked_add(size).ok_or_else(too_far)?;
            if self.count(self.off, behind, writer)? {
                self.advance()?;
                self.count(self.off, self.off, writer)?;
            }
        }
        self.advance()
    }

    /// Writes the open L2 table and empties it.
    fn write_l2(&mut self, writer: &mut Writer<'_>) -> Result<()> {
        if let Some(&(_, place)) = self.l1.last() {
            writer.write(place, self.l2.as_bytes())?;
            self.end =
                self.end.max(place.saturating_add(self.clusters.bytes()));
            self.l2.fill(U64::ZERO);
        }
        Ok(())
    }

    fn finish(&mut self, writer: &mut Writer<'_>) -> Result<()> {
        self.write_l2(writer)?;
        // Counts one cluster beyond the end, as e2image does.
        self.count(self.off, self.off, writer)?;
        let room = self
            .refcount_table_clusters
            .saturating_mul(u64_from(self.l2.len()));
        if self.refcounts.index >= room {
            self.move_refcount_table(writer)?;
        }
        self.write_refcounts(writer)?;
        let mut table: Vec<U64> =
            self.refcounts.table.iter().map(|place| U64::new(*place)).collect();
        let length = self
            .refcount_table_clusters
            .saturating_mul(u64_from(self.l2.len()));
        table
            .resize(usize::try_from(length).map_err(|_| too_far())?, U64::ZERO);
        writer.write(self.refcount_table, table.as_bytes())?;
        self.end = self
            .end
            .max(self.refcount_table.saturating_add(length.saturating_mul(8)));
        self.write_l1(writer)?;
        if writer.starts_zeroed() {
            writer.set_length(self.end)?;
        }
        self.write_header(writer)?;
        writer.flush()
    }

    /// The table does not fit where it was to go: a larger one, behind all
    /// else, counted as well.
    fn move_refcount_table(&mut self, writer: &mut Writer<'_>) -> Result<()> {
        // The cluster at `off` has been counted and is free; one more table
        // cluster than the blocks so far need covers the table itself.
        let per_cluster = u64_from(self.l2.len());
        let clusters = self
            .refcounts
            .index
            .checked_div(per_cluster)
            .unwrap_or(0)
            .saturating_add(2);
        // A refcount block may have been placed at `off` by the last count.
        if self.refcounts.place == self.off {
            self.advance()?;
            self.count(self.off, self.off, writer)?;
        }
        let start = self.off;
        let mut counted = 1_u64;
        let mut table = start;
        while counted < clusters {
            self.advance()?;
            if self.count(self.off, self.off, writer)? {
                // A refcount block came between: the table begins behind it.
                self.advance()?;
                self.count(self.off, self.off, writer)?;
                table = self.off;
                counted = 0;
            }
            counted = counted.saturating_add(1);
        }
        self.refcount_table = table;
        self.refcount_table_clusters = clusters;
        Ok(())
    }

    fn write_l1(&mut self, writer: &mut Writer<'_>) -> Result<()> {
        const PIECE: u32 = 8192;
        let mut tables = self.l1.iter().peekable();
        let mut first = 0_u32;
        while first < self.clusters.l1_size {
            let end = first.saturating_add(PIECE).min(self.clusters.l1_size);
            let count = usize_from(end.saturating_sub(first));
            let mut piece = vec![U64::ZERO; count];
            while let Some((index, place)) =
                tables.next_if(|(index, _)| *index < end)
            {
                let slot = usize_from(index.saturating_sub(first));
                if let Some(slot) = piece.get_mut(slot) {
                    *slot = (place | COPIED).into();
                }
            }
            let at = u64::from(first)
                .saturating_mul(8)
                .saturating_add(self.clusters.bytes());
            writer.write(at, piece.as_bytes())?;
            first = end;
        }
        Ok(())
    }

    fn write_header(&self, writer: &mut Writer<'_>) -> Result<()> {
        let clusters = u32::try_from(self.refcount_table_clusters)
            .map_err(|_| refused(self.shape))?;
        let header = Header {
            magic: MAGIC.into(),
            version: 2.into(),
            cluster_bits: self.clusters.bits.into(),
            size: self.clusters.guest_bytes.into(),
            l1_size: self.clusters.l1_size.into(),
            l1_table_offset: self.clusters.bytes().into(),
            refcount_table_offset: self.refcount_table.into(),
            refcount_table_clusters: clusters.into(),
            ..Header::default()
        };
        let mut bytes = header.as_bytes().to_vec();
        bytes.resize(self.shape.block_size().bytes(), 0);
        writer.write(0, &bytes)
    }
}
