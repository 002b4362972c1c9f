//! compact into a file: blocks are appended as they come.

use std::collections::BTreeMap;

use crate::block_set::BlockSet;
use crate::error::Result;
use crate::image::format::Qcow2Compression;
use crate::image::qcow2::compress::Compressor;
use crate::image::qcow2::tables::{
    Entry, EntryRun, Refcounts, l1_indexes, l1_table, l2_tables,
};
use crate::image::qcow2::{COMPRESSED, Clusters};
use crate::image::shape::{Shape, never_begun};
use crate::image::writer::{Stretch, Writer, is_zero, stretches, too_far};
use crate::image::{ImagePlan, ImageSink, WriteOrder};
use crate::output::OutputFile;
use crate::units::{BlockCount, BlockNumber, BlockRun, u64_from};

/// The unit in which the length of a compressed cluster is given.
const SECTOR_BYTES: u64 = 512;

/// What may be chosen of a compact image.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct CompactOptions {
    /// How clusters are compressed.
    pub compression: Qcow2Compression,
    /// Larger clusters than necessary, as the base-2 logarithm of their size.
    pub cluster_bits: Option<u32>,
}

/// A compact qcow2 image in a file, written in any order.
///
/// Memory: 24 bytes for each run of blocks that is neither followed in the
/// filesystem by the next nor in the file; 16 for each compressed cluster.
pub struct CompactSink<'a> {
    writer: Writer<'a>,
    options: CompactOptions,
    begun: Option<Begun>,
}

struct Begun {
    shape: Shape,
    clusters: Clusters,
    compressor: Option<Compressor>,
    /// The next free cluster of the file.
    next: u64,
    /// Stored as they are.
    data: Vec<Extent>,
    /// Guest clusters that are larger than what has come of them so far, and
    /// their places in the file.
    partial: BTreeMap<u64, u64>,
    /// Guest clusters with zero blocks.
    zeros: BlockSet,
    /// Compressed guest clusters and their L2 entries.
    packed: Vec<(u64, u64)>,
    pack: Pack,
    room: Vec<u8>,
}

/// Neighbouring guest clusters in neighbouring clusters of the file.
#[derive(Clone, Copy, Debug)]
struct Extent {
    guest: u64,
    host: u64,
    count: u64,
}

/// Where compressed clusters are packed.
#[derive(Default)]
struct Pack {
    /// Where the next one goes, a byte of the file.
    at: u64,
    /// How far the room reaches; the cluster behind may be added to it.
    end: u64,
    /// How often each of the packed clusters of the file is used, ascending.
    uses: Vec<(u64, u16)>,
}

impl<'a> CompactSink<'a> {
    /// A compact qcow2 image in `out`, which errors call `name`.
    #[must_use]
    pub fn new(
        out: &'a mut dyn OutputFile,
        name: &str,
        options: CompactOptions,
    ) -> Self {
        Self { writer: Writer::new(out, name), options, begun: None }
    }

    fn begun(&mut self) -> Result<(&mut Writer<'a>, &mut Begun)> {
        let begun = self.begun.as_mut().ok_or_else(never_begun)?;
        Ok((&mut self.writer, begun))
    }
}

impl ImageSink for CompactSink<'_> {
    fn order(&self) -> WriteOrder {
        WriteOrder::AsFound
    }

    fn begin(&mut self, plan: &ImagePlan<'_>) -> Result<()> {
        let shape = Shape::new(plan.geometry)?;
        let clusters = match self.options.cluster_bits {
            None => Clusters::smallest(shape)?,
            Some(bits) => Clusters::new(shape, bits)?,
        };
        self.begun = Some(Begun {
            shape,
            clusters,
            compressor: Compressor::new(self.options.compression)?,
            next: 1,
            data: Vec::new(),
            partial: BTreeMap::new(),
            zeros: BlockSet::new(),
            packed: Vec::new(),
            pack: Pack::default(),
            room: Vec::new(),
        });
        self.writer.start_over()
    }

    fn put(&mut self, at: BlockNumber, bytes: &[u8]) -> Result<()> {
        let (writer, begun) = self.begun()?;
        let run = begun.shape.run_of(at, bytes)?;
        begun.shape.bytes(run)?;
        for part in stretches(bytes, begun.shape.block_size()) {
            let first = at.0.saturating_add(part.block);
            if part.zero {
                begun.zero(first, part.count);
            } else {
                begun.store(writer, first, &part)?;
            }
        }
        Ok(())
    }

    fn zero(&mut self, run: BlockRun) -> Result<()> {
        let (_, begun) = self.begun()?;
        begun.shape.bytes(run)?;
        begun.zero(run.first().0, run.count().0);
        Ok(())
    }

    /// Not in the image, as if it had never been selected.
    fn hole(&mut self, run: BlockRun) -> Result<()> {
        let (_, begun) = self.begun()?;
        begun.shape.bytes(run).map(|_| ())
    }

    fn finish(&mut self) -> Result<()> {
        let compression = self.options.compression;
        let (writer, begun) = self.begun()?;
        begun.finish(writer, compression)
    }
}

impl Begun {
    /// Notes the clusters that zero blocks lie in.
    fn zero(&mut self, first: u64, count: u64) {
        let bits = self.clusters.ratio_bits;
        let end = first.saturating_add(count);
        let from = first.wrapping_shr(bits);
        let last = end.saturating_sub(1).wrapping_shr(bits);
        let count = last.saturating_sub(from).saturating_add(1);
        if let Some(run) = BlockRun::new(BlockNumber(from), BlockCount(count)) {
            self.zeros.insert_run(run);
        }
    }

    /// Stores blocks that are not zero: a part of a cluster, whole clusters,
    /// a part of a cluster.
    fn store(
        &mut self,
        writer: &mut Writer<'_>,
        first: u64,
        part: &Stretch<'_>,
    ) -> Result<()> {
        let bits = self.clusters.ratio_bits;
        let mask = 1_u64.wrapping_shl(bits).wrapping_sub(1);
        let block_bits = self.shape.block_size().log2();
        let end = first.saturating_add(part.count);
        let mut block = first;
        let mut rest = part.bytes;
        while block < end {
            let behind = (block | mask).saturating_add(1);
            let stop = match block & mask == 0 {
                // As many whole clusters as there are.
                true if end & !mask > block => end & !mask,
                _ => behind.min(end),
            };
            let length = stop.saturating_sub(block).wrapping_shl(block_bits);
            let length = usize::try_from(length).map_err(|_| too_far())?;
            let (now, later) =
                rest.split_at_checked(length).ok_or_else(too_far)?;
            let cluster = block.wrapping_shr(bits);
            if block & mask == 0 && stop & mask == 0 {
                self.store_whole(writer, cluster, now)?;
            } else {
                let skip = (block & mask).wrapping_shl(block_bits);
                self.store_part(writer, cluster, skip, now)?;
            }
            rest = later;
            block = stop;
        }
        Ok(())
    }

    fn store_whole(
        &mut self,
        writer: &mut Writer<'_>,
        guest: u64,
        bytes: &[u8],
    ) -> Result<()> {
        if self.compressor.is_some() {
            let cluster_bytes =
                usize::try_from(self.clusters.bytes()).unwrap_or(usize::MAX);
            for (guest, bytes) in
                (guest..).zip(bytes.chunks_exact(cluster_bytes))
            {
                if !self.store_packed(writer, guest, bytes)? {
                    self.append(writer, guest, bytes)?;
                }
            }
            return Ok(());
        }
        self.append(writer, guest, bytes)
    }

    /// Appends whole clusters.
    fn append(
        &mut self,
        writer: &mut Writer<'_>,
        guest: u64,
        bytes: &[u8],
    ) -> Result<()> {
        let count = u64_from(bytes.len()).wrapping_shr(self.clusters.bits);
        let host = self.allocate(count)?;
        match self.data.last_mut() {
            Some(last)
                if last.guest.saturating_add(last.count) == guest
                    && last.host.saturating_add(last.count) == host =>
            {
                last.count = last.count.saturating_add(count);
            }
            _ => self.data.push(Extent { guest, host, count }),
        }
        writer.write(self.clusters.place(host)?, bytes)
    }

    /// Stores a part of a cluster, `skip` bytes from its start.
    fn store_part(
        &mut self,
        writer: &mut Writer<'_>,
        guest: u64,
        skip: u64,
        bytes: &[u8],
    ) -> Result<()> {
        let host = match self.partial.get(&guest) {
            Some(&host) => host,
            None => {
                let host = self.allocate(1)?;
                self.partial.insert(guest, host);
                writer
                    .zero(self.clusters.place(host)?, self.clusters.bytes())?;
                host
            }
        };
        let place = self.clusters.place(host)?.saturating_add(skip);
        writer.write(place, bytes)
    }

    fn allocate(&mut self, count: u64) -> Result<u64> {
        let host = self.next;
        self.next = host.checked_add(count).ok_or_else(too_far)?;
        Ok(host)
    }

    /// Stores a cluster compressed; false if that is not worth it.
    fn store_packed(
        &mut self,
        writer: &mut Writer<'_>,
        guest: u64,
        bytes: &[u8],
    ) -> Result<bool> {
        let Some(compressor) = &mut self.compressor else {
            return Ok(false);
        };
        // What does not save a sector is stored as it is.
        let room = bytes.len().saturating_sub(512);
        self.room.resize(room, 0);
        let Some(length) = compressor.compress(bytes, &mut self.room) else {
            return Ok(false);
        };
        let at = self.pack_room(writer, u64_from(length))?;
        let end = at.checked_add(u64_from(length)).ok_or_else(too_far)?;
        if let Some(packed) = self.room.get(..length) {
            writer.write(at, packed)?;
        }
        self.pack.at = end;
        // The last sector never reaches beyond its cluster.
        let first = at.wrapping_shr(self.clusters.bits);
        let last = end.saturating_sub(1).wrapping_shr(self.clusters.bits);
        for cluster in first..=last {
            match self.pack.uses.last_mut() {
                Some((known, uses)) if *known == cluster => {
                    *uses = uses.saturating_add(1);
                }
                _ => self.pack.uses.push((cluster, 1)),
            }
        }
        let sectors = end
            .div_ceil(SECTOR_BYTES)
            .saturating_sub(at / SECTOR_BYTES)
            .saturating_sub(1);
        let shift = 70_u32.saturating_sub(self.clusters.bits);
        let entry = at | sectors.wrapping_shl(shift) | COMPRESSED;
        self.packed.push((guest, entry));
        Ok(true)
    }

    /// Room for `length` bytes: behind the last compressed cluster, unless
    /// something else follows there.
    fn pack_room(
        &mut self,
        writer: &mut Writer<'_>,
        length: u64,
    ) -> Result<u64> {
        let end = self.pack.at.checked_add(length).ok_or_else(too_far)?;
        let full = self.pack.uses.last().is_some_and(|u| u.1 == u16::MAX);
        if end <= self.pack.end && !full {
            return Ok(self.pack.at);
        }
        // `length` is less than a cluster, so one more is enough.
        let host = self.allocate(1)?;
        let place = self.clusters.place(host)?;
        writer.zero(place, self.clusters.bytes())?;
        if self.pack.end != place || full {
            self.pack.at = place;
        }
        self.pack.end = place.saturating_add(self.clusters.bytes());
        Ok(self.pack.at)
    }

    fn finish(
        &mut self,
        writer: &mut Writer<'_>,
        compression: Qcow2Compression,
    ) -> Result<()> {
        let clusters = self.clusters;
        self.settle();
        let indexes = l1_indexes(self.entries(), clusters)?;
        let l2 = self.next;
        let l1 = l2.checked_add(u64_from(indexes.len())).ok_or_else(too_far)?;
        let used =
            l1.checked_add(clusters.l1_clusters()).ok_or_else(too_far)?;
        let refcounts = Refcounts::behind(used, clusters.bits);

        let mut tables = TableWriter { writer, at: clusters.place(l2)? };
        l2_tables(self.entries(), clusters, &mut |b| tables.write(b))?;
        tables.at = clusters.place(l1)?;
        l1_table(&indexes, l2, clusters, &mut |b| tables.write(b))?;
        let blocks = clusters.place(refcounts.blocks)?;
        tables.writer.zero(tables.at, blocks.saturating_sub(tables.at))?;
        tables.at = blocks;
        let shared = &self.pack.uses;
        refcounts
            .emit_blocks(shared, clusters.bits, &mut |b| tables.write(b))?;
        refcounts.emit_table(clusters, &mut |b| tables.write(b))?;

        let mut header = clusters.header(l1, &refcounts, compression)?;
        let whole = usize::try_from(clusters.bytes()).map_err(|_| too_far())?;
        if !writer.starts_zeroed() {
            header.resize(whole, 0);
        } else {
            writer.set_length(clusters.place(refcounts.total)?)?;
        }
        writer.write(0, &header)?;
        writer.flush()
    }

    /// Brings what was noted into ascending order, each cluster once.
    fn settle(&mut self) {
        let partial = std::mem::take(&mut self.partial);
        self.data.extend(partial.into_iter().map(|(guest, host)| Extent {
            guest,
            host,
            count: 1,
        }));
        self.data.sort_unstable_by_key(|extent| extent.guest);
        self.packed.sort_unstable();
        if self.clusters.ratio_bits > 0 {
            // A cluster may hold zero blocks and others.
            for extent in &self.data {
                let first = BlockNumber(extent.guest);
                if let Some(run) =
                    BlockRun::new(first, BlockCount(extent.count))
                {
                    self.zeros.remove_run(run);
                }
            }
        }
    }

    /// All guest clusters that are in the image, ascending.
    fn entries(&self) -> impl Iterator<Item = EntryRun> + '_ {
        let mut data = self
            .data
            .iter()
            .map(|extent| EntryRun {
                guest: extent.guest,
                count: extent.count,
                what: Entry::Data(extent.host),
            })
            .peekable();
        let mut packed = self
            .packed
            .iter()
            .map(|&(guest, entry)| EntryRun {
                guest,
                count: 1,
                what: Entry::Packed(entry),
            })
            .peekable();
        let mut zeros = self
            .zeros
            .runs()
            .map(|run| EntryRun {
                guest: run.first().0,
                count: run.count().0,
                what: Entry::Zero,
            })
            .peekable();
        std::iter::from_fn(move || {
            let at = |run: Option<&EntryRun>| run.map_or(u64::MAX, |r| r.guest);
            let (d, p, z) =
                (at(data.peek()), at(packed.peek()), at(zeros.peek()));
            if d < p && d < z {
                data.next()
            } else if p < z {
                packed.next()
            } else {
                zeros.next()
            }
        })
    }
}

/// Writes tables one behind the other, and nothing where they are zero and
/// the file is so, too.
struct TableWriter<'w, 'a> {
    writer: &'w mut Writer<'a>,
    at: u64,
}

impl TableWriter<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        if !self.writer.starts_zeroed() || !is_zero(bytes) {
            self.writer.write(self.at, bytes)?;
        }
        let length = u64_from(bytes.len());
        self.at = self.at.checked_add(length).ok_or_else(too_far)?;
        Ok(())
    }
}
