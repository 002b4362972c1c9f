//! What the tests of the formats share: an output in memory, and walks made
//! by hand.

mod oracle;
mod readers;

use std::io;
use std::ops::ControlFlow;

use super::*;
use crate::ext::Group;
use crate::output::{OutputFile, OutputStream};
use crate::source::{
    BlockSource, DiskIdentity, PIECE_ALIGN, Payload, SourceFacts, SourceKind,
};
use crate::units::{BlockCount, BlockSize, ByteCount, ByteOffset, ByteRange};

/// A file in memory that counts the calls.
#[derive(Default)]
pub(super) struct MemoryFile {
    pub(super) bytes: Vec<u8>,
    pub(super) calls: usize,
    /// Behaves like a device: other bytes were there before.
    pub(super) is_device: bool,
}

impl OutputFile for MemoryFile {
    fn write_at(&mut self, at: ByteOffset, bytes: &[u8]) -> io::Result<()> {
        self.calls += 1;
        let start = usize::try_from(at.0).unwrap();
        let end = start + bytes.len();
        if self.bytes.len() < end {
            assert!(!self.is_device, "beyond the end of the device");
            self.bytes.resize(end, 0);
        }
        self.bytes[start..end].copy_from_slice(bytes);
        Ok(())
    }

    fn read_at(&self, at: ByteOffset, into: &mut [u8]) -> io::Result<()> {
        let start = usize::try_from(at.0).unwrap();
        let bytes = self.bytes.get(start..start + into.len());
        into.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn length(&self) -> io::Result<ByteCount> {
        Ok(ByteCount(self.bytes.len() as u64))
    }

    fn set_length(&mut self, length: ByteCount) -> io::Result<()> {
        assert!(!self.is_device, "a device has the length it has");
        self.bytes.resize(usize::try_from(length.0).unwrap(), 0);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn starts_zeroed(&self) -> bool {
        !self.is_device
    }
}

/// A pipe into memory.
#[derive(Default)]
pub(super) struct MemoryStream(pub(super) Vec<u8>);

impl OutputStream for MemoryStream {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

/// What is known of an image of `length` bytes that a test has made.
pub(super) fn facts(length: usize) -> SourceFacts {
    SourceFacts {
        name: "a test's image".into(),
        kind: SourceKind::File,
        length: ByteCount(length as u64),
        sector_bytes: 512,
        file: None,
        disk: DiskIdentity::default(),
        mounted_rw: false,
    }
}

/// Everything in `source`, which must have no unreadable part; in ranges of
/// odd lengths, the pieces checked against the rules of a source.
pub(super) fn read_whole(source: &dyn BlockSource) -> Vec<u8> {
    let length = source.facts().length.0;
    let mut whole = vec![0xEE; usize::try_from(length).unwrap()];
    let mut start = 0;
    for step in
        [512, 1536, 70_000 / 512 * 512, 1 << 20, u64::MAX].iter().cycle()
    {
        if start == length {
            return whole;
        }
        let end = step.saturating_add(start).min(length);
        let range =
            ByteRange::between(ByteOffset(start), ByteOffset(end)).unwrap();
        let mut got = 0;
        source
            .read(&[range], &mut |piece| {
                let count = piece.what.length().0;
                let stop = piece.at.0 + count;
                assert!(piece.at.0 >= start && stop <= end);
                assert!(piece.at.0 == start || piece.at.0 % PIECE_ALIGN == 0);
                assert!(stop == end || stop % PIECE_ALIGN == 0);
                got += count;
                let at = usize::try_from(piece.at.0).unwrap();
                let room = &mut whole[at..usize::try_from(stop).unwrap()];
                match piece.what {
                    Payload::Bytes(bytes) => room.copy_from_slice(bytes),
                    Payload::Zero(_) => room.fill(0),
                    Payload::Unreadable(_, why) => {
                        panic!("{} is unreadable: {why}", piece.at)
                    }
                }
                ControlFlow::Continue(())
            })
            .unwrap();
        assert_eq!(got, end - start);
        start = end;
    }
    unreachable!("the steps never end")
}

pub(super) fn run(first: u64, count: u64) -> BlockRun {
    BlockRun::new(BlockNumber(first), BlockCount(count)).unwrap()
}

/// A walk over a filesystem of one group that selected `runs`.
pub(super) fn walk(block_bytes: u64, blocks: u64, runs: &[BlockRun]) -> Walk {
    let block_size = BlockSize::from_bytes(block_bytes).unwrap();
    let selected: BlockSet = runs.iter().copied().collect();
    Walk {
        traced: Vec::new(),
        geometry: Geometry {
            block_size,
            blocks: BlockCount(blocks),
            first_data_block: BlockNumber(u64::from(block_bytes == 1024)),
            cluster_blocks: 1,
            groups: 1,
            blocks_per_group: u32::try_from(block_bytes * 8).unwrap(),
            clusters_per_group: u32::try_from(block_bytes * 8).unwrap(),
            inodes_per_group: 64,
            inode_size: 256,
            inode_table_blocks: u32::try_from(64 * 256 / block_bytes).unwrap(),
            descriptor_size: 64,
            descriptor_blocks: 1,
            uuid: [7; 16],
        },
        superblock: Box::new([0; 1024]),
        superblock_at: BlockNumber(0),
        descriptors: vec![0; block_size.bytes()],
        groups: vec![Group::default()],
        marks: selected.count().0,
        selected,
        kinds: Vec::new(),
        findings: Vec::new(),
        claims: Vec::new(),
        findings_total: 0,
    }
}

/// Feeds every selected block to `sink`, one put per run of `cut` blocks at
/// most, in the order that `shuffle` makes of them. A block holds what
/// `fill` writes into it.
pub(super) fn feed(
    sink: &mut dyn ImageSink,
    walk: &Walk,
    cut: u64,
    fill: &dyn Fn(u64, &mut [u8]),
    shuffle: &mut dyn FnMut(&mut Vec<BlockRun>),
) {
    let walk_known = match sink.order() {
        WriteOrder::Any | WriteOrder::AsFound => None,
        WriteOrder::Ascending => Some(walk),
    };
    sink.begin(&ImagePlan { geometry: &walk.geometry, walk: walk_known })
        .unwrap();
    for pass in sink.passes(walk) {
        let mut pieces: Vec<BlockRun> = pass
            .runs()
            .flat_map(|r| {
                (r.first().0..r.end().0)
                    .step_by(cut as usize)
                    .map(move |first| run(first, cut.min(r.end().0 - first)))
            })
            .collect();
        shuffle(&mut pieces);
        for piece in pieces {
            let bytes = contents(walk.geometry.block_size, piece, fill);
            sink.put(piece.first(), &bytes).unwrap();
        }
    }
    sink.finish().unwrap();
}

/// The bytes of a run, as `fill` makes them.
pub(super) fn contents(
    size: BlockSize,
    run: BlockRun,
    fill: &dyn Fn(u64, &mut [u8]),
) -> Vec<u8> {
    let count = usize::try_from(run.count().0).unwrap();
    let mut bytes = vec![0; count * size.bytes()];
    for (block, room) in
        (run.first().0..).zip(bytes.chunks_exact_mut(size.bytes()))
    {
        fill(block, room);
    }
    bytes
}

/// What a raw image of `walk` must hold.
pub(super) fn expected(walk: &Walk, fill: &dyn Fn(u64, &mut [u8])) -> Vec<u8> {
    let size = walk.geometry.block_size;
    let length =
        size.bytes() * usize::try_from(walk.geometry.blocks.0).unwrap();
    let mut bytes = vec![0; length];
    for run in walk.selected.runs() {
        let start = size.bytes() * usize::try_from(run.first().0).unwrap();
        let part = contents(size, run, fill);
        bytes[start..start + part.len()].copy_from_slice(&part);
    }
    bytes
}

/// Fills two blocks of three with something that names the block; the third
/// stays zero.
pub(super) fn two_of_three(block: u64, room: &mut [u8]) {
    if block % 3 == 1 {
        return;
    }
    for (place, byte) in room.iter_mut().enumerate() {
        let mixed = block
            .wrapping_mul(0x9E37_79B9_7F4A_7C15)
            .wrapping_add(place as u64 / 7);
        *byte = (mixed >> 40) as u8 | 1;
    }
}

mod raw_sinks {
    use super::*;
    use crate::image::raw::{RawOptions, RawSink, RawStream};

    #[test]
    fn file_and_stream_hold_the_blocks_at_their_places() {
        let walk = walk(1024, 100, &[run(1, 3), run(10, 40), run(98, 1)]);
        let right = expected(&walk, &two_of_three);

        let mut file = MemoryFile::default();
        let mut sink = RawSink::new(&mut file, "x", RawOptions::default());
        feed(&mut sink, &walk, 7, &two_of_three, &mut |p| p.reverse());
        assert!(file.bytes == right);

        let mut stream = MemoryStream::default();
        let mut sink =
            RawStream::new(&mut stream, "x", RawOptions::default()).unwrap();
        feed(&mut sink, &walk, 7, &two_of_three, &mut |_| {});
        assert!(stream.0 == right);
    }

    #[test]
    fn a_device_gets_its_zero_blocks_and_keeps_the_rest() {
        let walk = walk(1024, 100, &[run(1, 3), run(10, 40)]);
        let mut file = MemoryFile {
            bytes: vec![9; 100 * 1024 + 700],
            is_device: true,
            ..MemoryFile::default()
        };
        let options =
            RawOptions { dest_offset: ByteOffset(512), keep_length: true };
        let mut sink = RawSink::new(&mut file, "x", options);
        feed(&mut sink, &walk, 5, &two_of_three, &mut |p| p.reverse());
        let mut right = vec![9; 100 * 1024 + 700];
        for run in walk.selected.runs() {
            let part = contents(walk.geometry.block_size, run, &two_of_three);
            let start = 512 + 1024 * usize::try_from(run.first().0).unwrap();
            right[start..start + part.len()].copy_from_slice(&part);
        }
        assert!(file.bytes == right);
    }

    #[test]
    fn beginning_again_leaves_nothing_of_the_first_attempt() {
        let first = walk(1024, 100, &[run(50, 40)]);
        let second = walk(1024, 90, &[run(1, 3)]);
        let mut file = MemoryFile::default();
        let mut sink = RawSink::new(&mut file, "x", RawOptions::default());
        let plan = ImagePlan { geometry: &first.geometry, walk: None };
        sink.begin(&plan).unwrap();
        sink.put(BlockNumber(50), &[1; 40 * 1024]).unwrap();
        feed(&mut sink, &second, 7, &two_of_three, &mut |_| {});
        assert!(file.bytes == expected(&second, &two_of_three));
    }

    #[test]
    fn a_block_outside_or_half_a_block_is_refused() {
        let walk = walk(1024, 100, &[]);
        let mut file = MemoryFile::default();
        let mut sink = RawSink::new(&mut file, "x", RawOptions::default());
        let plan = ImagePlan { geometry: &walk.geometry, walk: None };
        assert!(sink.put(BlockNumber(0), &[1; 1024]).is_err());
        sink.begin(&plan).unwrap();
        assert!(sink.put(BlockNumber(99), &[1; 2048]).is_err());
        assert!(sink.put(BlockNumber(1), &[1; 1000]).is_err());
        assert!(sink.put(BlockNumber(u64::MAX), &[1; 1024]).is_err());
        assert!(sink.zero(run(99, 2)).is_err());
    }
}
