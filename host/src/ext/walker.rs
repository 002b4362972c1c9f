//! The walk itself: from the superblock to the last map block, level by
//! level.
//!
//! The walker owns no source. It says what it needs ([`Walker::next_step`]),
//! is fed ([`Walker::supply`]), and answers in the end ([`Walker::finish`]).

use super::assemble::{Assembler, BlockBytes};
use super::careful::Careful;
use super::maps::{self, MapJob};
use super::probe::{PROBE_SIZE, Probe};
use super::scan::Scan;
use super::superblock::Superblock;
use super::tables::Tables;
use crate::block_set::BlockSet;
use crate::error::{Error, ErrorKind, Result};
use crate::ext::{Geometry, Group, Level, Step, Walk, WalkOptions};
use crate::source::Piece;
use crate::units::{
    BlockCount, BlockNumber, BlockRun, BlockSize, ByteOffset, ByteRange,
    usize_from,
};

/// Walks a filesystem. Pure: it is fed and asked, and does nothing else.
#[derive(Debug)]
pub struct Walker {
    options: WalkOptions,
    assembler: Assembler,
    phase: Phase,
    /// The second half of the current level.
    second: Option<Level>,
    scan: Option<Scan>,
    descriptors: Vec<u8>,
    groups: Vec<Group>,
}

/// What the blocks of the current level are.
#[derive(Debug)]
enum Phase {
    Start,
    Probe(Probe),
    /// The parts of the descriptor table, sorted by block.
    Descriptors(Vec<(BlockNumber, u32)>),
    Tables(Tables),
    Maps {
        height: u16,
        jobs: Vec<MapJob>,
    },
    Rest,
    Done,
}

impl Walker {
    /// A walk that has not begun.
    #[must_use]
    pub fn new(options: WalkOptions) -> Self {
        Self {
            options,
            assembler: Assembler::new(PROBE_SIZE),
            phase: Phase::Start,
            second: None,
            scan: None,
            descriptors: Vec::new(),
            groups: Vec::new(),
        }
    }

    /// The shape of the filesystem, once the superblock is known.
    #[must_use]
    pub fn geometry(&self) -> Option<&Geometry> {
        self.scan.as_ref().map(|scan| &scan.superblock.geometry)
    }

    /// What to read next. What was asked for before and was not supplied
    /// counts as unreadable.
    ///
    /// # Errors
    ///
    /// `NoFilesystem`: there is no superblock, or one that cannot be walked
    /// (unknown features, an external journal, another block size than
    /// asserted). All other damage becomes findings.
    pub fn next_step(&mut self) -> Result<Step> {
        if let Some(level) = self.second.take() {
            return Ok(Step::Read(level));
        }
        loop {
            self.end_level();
            let Some(wanted) = self.advance()? else {
                return Ok(Step::Done);
            };
            if let Some(level) = self.begin_level(&wanted) {
                return Ok(Step::Read(level));
            }
        }
    }

    /// Takes a piece of the level that was asked for last.
    pub fn supply(&mut self, piece: Piece<'_>) {
        let (phase, scan) = (&mut self.phase, &mut self.scan);
        let descriptors = &mut self.descriptors;
        self.assembler.supply(piece, |block, bytes| {
            look(phase, scan, descriptors, block, bytes);
        });
    }

    /// What the walk has found.
    ///
    /// # Errors
    ///
    /// `Internal` when the walk was not done.
    pub fn finish(self) -> Result<Walk> {
        let (Phase::Done, Some(mut scan)) = (self.phase, self.scan) else {
            return Err(Error::new(
                ErrorKind::Internal,
                "a walk was finished before it was done",
            ));
        };
        Ok(Walk {
            selected: scan.marks.selected(),
            marks: scan.marks.count,
            kinds: scan.marks.into_kinds(),
            superblock: scan.superblock.bytes,
            superblock_at: scan.superblock.at,
            geometry: scan.superblock.geometry,
            descriptors: self.descriptors,
            groups: self.groups,
            findings: scan.findings.list,
            findings_total: scan.findings.total,
        })
    }

    /// Whatever did not come is lost.
    fn end_level(&mut self) {
        let (phase, scan) = (&mut self.phase, &mut self.scan);
        let descriptors = &mut self.descriptors;
        self.assembler.end(|block, bytes| {
            look(phase, scan, descriptors, block, bytes);
        });
    }

    /// Goes on to the next phase; answers what it looks into, or `None` at
    /// the end.
    fn advance(&mut self) -> Result<Option<BlockSet>> {
        let phase = std::mem::replace(&mut self.phase, Phase::Done);
        let (next, wanted) = match phase {
            Phase::Start => {
                let probe = Probe::new(&self.options);
                let wanted = probe.blocks();
                (Phase::Probe(probe), wanted)
            }
            Phase::Probe(probe) => match probe.conclude(&self.options)? {
                Ok(superblock) => self.begin_scan(superblock)?,
                Err(probe) => {
                    let wanted = probe.blocks();
                    (Phase::Probe(probe), wanted)
                }
            },
            Phase::Descriptors(_) => self.begin_tables(),
            Phase::Tables(_) | Phase::Maps { .. } => self.begin_maps(),
            Phase::Rest | Phase::Done => return Ok(None),
        };
        self.phase = next;
        Ok(Some(wanted))
    }

    fn begin_scan(
        &mut self,
        superblock: Superblock,
    ) -> Result<(Phase, BlockSet)> {
        let geometry = &superblock.geometry;
        self.assembler = Assembler::new(geometry.block_size);
        let table_bytes = usize_from(geometry.descriptor_blocks)
            .checked_mul(geometry.block_size.bytes())
            .ok_or_else(|| {
                Error::new(ErrorKind::Internal, "descriptors beyond memory")
            })?;
        self.descriptors = vec![0; table_bytes];
        self.groups = Vec::new();
        let mut scan = Scan::new(superblock, self.options, Careful::default());
        let parts = scan.mark_head();
        self.scan = Some(scan);
        let wanted = parts
            .iter()
            .filter_map(|(block, _)| BlockRun::new(*block, BlockCount(1)))
            .collect();
        Ok((Phase::Descriptors(parts), wanted))
    }

    fn begin_tables(&mut self) -> (Phase, BlockSet) {
        let Some(scan) = &mut self.scan else {
            return (Phase::Done, BlockSet::new());
        };
        self.groups = scan.parse_groups(&self.descriptors);
        let tables = scan.mark_groups(&self.groups);
        let wanted = tables.blocks();
        (Phase::Tables(tables), wanted)
    }

    fn begin_maps(&mut self) -> (Phase, BlockSet) {
        let waiting =
            self.scan.as_mut().and_then(|scan| scan.waiting.take_highest());
        match waiting {
            Some((height, jobs)) => {
                let wanted = maps::blocks_of(&jobs);
                (Phase::Maps { height, jobs }, wanted)
            }
            None => (Phase::Rest, BlockSet::new()),
        }
    }

    /// Makes levels of what is wanted; `None` when there is nothing to read.
    fn begin_level(&mut self, wanted: &BlockSet) -> Option<Level> {
        self.assembler.begin(wanted);
        let Some(scan) = &mut self.scan else {
            let ranges = self.ranges(wanted, PROBE_SIZE);
            return Some(Level { ranges, probe: true });
        };
        let size = scan.superblock.geometry.block_size;
        let (fresh, again) =
            scan.marks.deliver(wanted, self.options.with_payload);
        let fresh = self.ranges(&fresh, size);
        let again = self.ranges(&again, size);
        let level = |ranges: Vec<ByteRange>, probe| {
            (!ranges.is_empty()).then_some(Level { ranges, probe })
        };
        let (first, second) = (level(fresh, false), level(again, true));
        if first.is_some() {
            self.second = second;
            first
        } else {
            second
        }
    }

    /// The bytes of `blocks`, without what lies beyond the device.
    fn ranges(&self, blocks: &BlockSet, size: BlockSize) -> Vec<ByteRange> {
        let end = self
            .options
            .device_length
            .map_or(ByteOffset(u64::MAX), |length| ByteOffset(length.0));
        blocks
            .runs()
            .filter_map(|run| run.bytes(size))
            .filter_map(|range| {
                ByteRange::between(range.start(), range.end().min(end))
            })
            .filter(|range| !range.is_empty())
            .collect()
    }
}

/// Looks into one block of the current level.
fn look(
    phase: &mut Phase,
    scan: &mut Option<Scan>,
    descriptors: &mut [u8],
    block: BlockNumber,
    bytes: BlockBytes<'_>,
) {
    match (phase, scan) {
        (Phase::Probe(probe), _) => probe.supply(block, bytes),
        (Phase::Descriptors(parts), Some(scan)) => {
            let from = parts.partition_point(|(at, _)| *at < block);
            for (_, index) in parts
                .get(from..)
                .unwrap_or_default()
                .iter()
                .take_while(|(at, _)| *at == block)
            {
                scan.keep_descriptors(descriptors, *index, block, bytes);
            }
        }
        (Phase::Tables(tables), Some(scan)) => {
            scan.visit_tables(tables, block, bytes);
        }
        (Phase::Maps { height, jobs }, Some(scan)) => {
            let from = jobs.partition_point(|job| job.block < block.0);
            for job in jobs
                .get(from..)
                .unwrap_or_default()
                .iter()
                .take_while(|job| job.block == block.0)
            {
                scan.visit_map(job, *height, bytes);
            }
        }
        _ => {}
    }
}
