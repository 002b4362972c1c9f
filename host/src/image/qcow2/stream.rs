//! compact into a pipe: everything is counted before the first byte.

use crate::block_set::BlockSet;
use crate::error::{Error, ErrorKind, Result};
use crate::image::format::Qcow2Compression;
use crate::image::qcow2::Clusters;
use crate::image::qcow2::tables::{
    Entry, EntryRun, Refcounts, l1_indexes, l1_table, l2_tables,
};
use crate::image::shape::{Shape, never_begun};
use crate::image::writer::{StreamWriter, too_far};
use crate::image::{ImagePlan, ImageSink, WriteOrder};
use crate::output::OutputStream;
use crate::units::{BlockNumber, BlockRun, u64_from};

/// A compact qcow2 image in a pipe.
pub struct CompactStream<'a> {
    writer: StreamWriter<'a>,
    cluster_bits: Option<u32>,
    begun: Option<Begun>,
}

struct Begun {
    shape: Shape,
    clusters: Clusters,
    /// The guest cluster that is being written.
    open: Option<u64>,
    /// Where it starts in the file, or the first one will.
    start: u64,
    /// Where the last one must end.
    end: u64,
}

impl<'a> CompactStream<'a> {
    /// A compact qcow2 image into `out`, which errors call `name`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Usage`] for compression: how long a compressed cluster
    /// will be is not known beforehand.
    pub fn new(
        out: &'a mut dyn OutputStream,
        name: &str,
        options: super::compact::CompactOptions,
    ) -> Result<Self> {
        if options.compression != Qcow2Compression::None {
            return Err(Error::new(
                ErrorKind::Usage,
                format!(
                    "a compressed qcow2 image needs a file, {name} is none"
                ),
            )
            .hint("write it to a file; or leave out the compression"));
        }
        Ok(Self {
            writer: StreamWriter::new(out, name),
            cluster_bits: options.cluster_bits,
            begun: None,
        })
    }

    /// Writes what lies between the last block and the block at `at`, which
    /// is in the next cluster or further on in the same.
    fn go_to(&mut self, at: BlockNumber) -> Result<()> {
        let begun = self.begun.as_mut().ok_or_else(never_begun)?;
        let clusters = begun.clusters;
        let cluster = at.0.wrapping_shr(clusters.ratio_bits);
        if begun.open.is_some() && begun.open != Some(cluster) {
            begun.start = begun
                .start
                .checked_add(clusters.bytes())
                .ok_or_else(too_far)?;
        }
        begun.open = Some(cluster);
        let first = BlockNumber(cluster.wrapping_shl(clusters.ratio_bits));
        let skip = at
            .checked_since(first)
            .and_then(|blocks| begun.shape.block_size().bytes_of(blocks))
            .ok_or_else(too_far)?;
        self.writer.zeros_to(begun.start.saturating_add(skip.0))
    }

    /// Writes the blocks at `at`, cluster by cluster; `write` gets each part
    /// in blocks, counted from `at`.
    fn each_cluster(
        &mut self,
        run: BlockRun,
        mut write: impl FnMut(&mut StreamWriter<'a>, u64, u64) -> Result<()>,
    ) -> Result<()> {
        let begun = self.begun.as_ref().ok_or_else(never_begun)?;
        begun.shape.bytes(run)?;
        let mask =
            1_u64.wrapping_shl(begun.clusters.ratio_bits).wrapping_sub(1);
        let first = run.first().0;
        if mask == 0 && run.count().0 > 0 {
            // Each block a cluster: no gap anywhere in the run.
            self.go_to(run.first())?;
            write(&mut self.writer, 0, run.count().0)?;
            let begun = self.begun.as_mut().ok_or_else(never_begun)?;
            let more = run.count().0.saturating_sub(1);
            begun.open = Some(first.saturating_add(more));
            begun.start = begun
                .start
                .checked_add(begun.clusters.bytes().saturating_mul(more))
                .ok_or_else(too_far)?;
            return Ok(());
        }
        let mut block = first;
        while block < run.end().0 {
            let stop = (block | mask).saturating_add(1).min(run.end().0);
            self.go_to(BlockNumber(block))?;
            let skip = block.saturating_sub(first);
            write(&mut self.writer, skip, stop.saturating_sub(block))?;
            block = stop;
        }
        Ok(())
    }
}

impl ImageSink for CompactStream<'_> {
    fn order(&self) -> WriteOrder {
        WriteOrder::Ascending
    }

    fn begin(&mut self, plan: &ImagePlan<'_>) -> Result<()> {
        self.writer.must_be_fresh()?;
        let shape = Shape::new(plan.geometry)?;
        let clusters = match self.cluster_bits {
            None => Clusters::smallest(shape)?,
            Some(bits) => Clusters::new(shape, bits)?,
        };
        let selected = match plan.walk {
            Some(walk) => &walk.selected,
            None => {
                return Err(Error::new(
                    ErrorKind::Internal,
                    "a qcow2 image in a pipe needs the finished walk",
                ));
            }
        };
        if let Some(last) = selected.last() {
            shape.bytes(
                BlockRun::new(last, crate::units::BlockCount(1))
                    .ok_or_else(too_far)?,
            )?;
        }
        let (start, end) = self.write_tables(selected, clusters)?;
        self.begun = Some(Begun { shape, clusters, open: None, start, end });
        Ok(())
    }

    fn put(&mut self, at: BlockNumber, bytes: &[u8]) -> Result<()> {
        let shape = self.begun.as_ref().ok_or_else(never_begun)?.shape;
        let run = shape.run_of(at, bytes)?;
        let block_bits = shape.block_size().log2();
        self.each_cluster(run, |writer, skip, count| {
            let place = |blocks: u64| {
                usize::try_from(blocks.wrapping_shl(block_bits))
                    .map_err(|_| too_far())
            };
            let (start, length) = (place(skip)?, place(count)?);
            match bytes.get(start..start.saturating_add(length)) {
                Some(part) => writer.write(part),
                None => Err(too_far()),
            }
        })
    }

    fn zero(&mut self, run: BlockRun) -> Result<()> {
        let shape = self.begun.as_ref().ok_or_else(never_begun)?.shape;
        let block_bits = shape.block_size().log2();
        self.each_cluster(run, |writer, _, count| {
            writer.zeros(count.wrapping_shl(block_bits))
        })
    }

    /// The tables have gone out already, so it is zeros, not a hole.
    fn hole(&mut self, run: BlockRun) -> Result<()> {
        self.zero(run)
    }

    fn finish(&mut self) -> Result<()> {
        let begun = self.begun.as_ref().ok_or_else(never_begun)?;
        let stop = match begun.open {
            Some(_) => begun.start.saturating_add(begun.clusters.bytes()),
            None => begun.start,
        };
        if stop != begun.end {
            return Err(Error::new(
                ErrorKind::Internal,
                format!(
                    "{} bytes of blocks were selected, but not all came",
                    begun.end.saturating_sub(begun.start)
                ),
            ));
        }
        self.writer.zeros_to(stop)?;
        self.writer.flush()
    }
}

impl CompactStream<'_> {
    /// Writes all that stands before the data; answers where the data start
    /// and where they end.
    fn write_tables(
        &mut self,
        selected: &BlockSet,
        clusters: Clusters,
    ) -> Result<(u64, u64)> {
        let count = guest_clusters(selected, clusters)
            .fold(0_u64, |sum, (_, count)| sum.saturating_add(count));
        let indexes = l1_indexes(entries(selected, clusters, 0), clusters)?;
        let l2_count = u64_from(indexes.len());
        let others = count
            .checked_add(l2_count)
            .and_then(|sum| sum.checked_add(clusters.l1_clusters()))
            .ok_or_else(too_far)?;
        let refcounts = Refcounts::in_front(others, clusters.bits);
        let l1 = refcounts.blocks.saturating_add(refcounts.block_count);
        let l2 = l1.saturating_add(clusters.l1_clusters());
        let data = l2.saturating_add(l2_count);

        let header = clusters.header(l1, &refcounts, Qcow2Compression::None)?;
        let writer = &mut self.writer;
        writer.write(&header)?;
        writer.zeros_to(clusters.place(refcounts.table)?)?;
        refcounts.emit_table(clusters, &mut |bytes| writer.write(bytes))?;
        let bits = clusters.bits;
        refcounts.emit_blocks(&[], bits, &mut |bytes| writer.write(bytes))?;
        l1_table(&indexes, l2, clusters, &mut |bytes| writer.write(bytes))?;
        writer.zeros_to(clusters.place(l2)?)?;
        let runs = entries(selected, clusters, data);
        l2_tables(runs, clusters, &mut |bytes| writer.write(bytes))?;
        Ok((clusters.place(data)?, clusters.place(refcounts.total)?))
    }
}

/// Runs of guest clusters that hold a selected block, ascending.
fn guest_clusters(
    selected: &BlockSet,
    clusters: Clusters,
) -> impl Iterator<Item = (u64, u64)> + '_ {
    let bits = clusters.ratio_bits;
    let mut done = 0_u64;
    selected.runs().filter_map(move |run| {
        // Two runs may lie in one cluster.
        let first = run.first().0.wrapping_shr(bits).max(done);
        let last = run.end().0.checked_sub(1)?.wrapping_shr(bits);
        done = last.checked_add(1)?;
        let count = done.checked_sub(first).filter(|count| *count > 0)?;
        Some((first, count))
    })
}

/// The same as entries, the data one behind the other from cluster `data` of
/// the file on.
fn entries(
    selected: &BlockSet,
    clusters: Clusters,
    data: u64,
) -> impl Iterator<Item = EntryRun> + '_ {
    let mut next = data;
    guest_clusters(selected, clusters).map(move |(guest, count)| {
        let what = Entry::Data(next);
        next = next.saturating_add(count);
        EntryRun { guest, count, what }
    })
}
