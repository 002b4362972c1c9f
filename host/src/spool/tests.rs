use super::*;
use crate::error::ErrorKind;
use crate::output::OutputFile;
use crate::source::{DiskIdentity, Likeness, SourceKind};
use std::collections::VecDeque;
use std::sync::Arc;

/// A file in memory that outlives whoever writes it.
#[derive(Clone, Default)]
struct SharedFile(Arc<Mutex<Vec<u8>>>);

impl SharedFile {
    fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap()
    }
}

impl OutputFile for SharedFile {
    fn write_at(
        &mut self,
        at: ByteOffset,
        bytes: &[u8],
    ) -> std::io::Result<()> {
        let mut file = self.bytes();
        let start = at.0 as usize;
        let length = file.len().max(start + bytes.len());
        file.resize(length, 0);
        file[start..start + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn read_at(&self, at: ByteOffset, into: &mut [u8]) -> std::io::Result<()> {
        let file = self.bytes();
        let start = at.0 as usize;
        let bytes = file.get(start..start + into.len());
        into.copy_from_slice(bytes.ok_or(std::io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn length(&self) -> std::io::Result<ByteCount> {
        Ok(ByteCount(self.bytes().len() as u64))
    }

    fn set_length(&mut self, length: ByteCount) -> std::io::Result<()> {
        self.bytes().resize(length.0 as usize, 0);
        Ok(())
    }

    fn sync(&mut self) -> std::io::Result<()> {
        Ok(())
    }

    fn starts_zeroed(&self) -> bool {
        true
    }
}

const KIB: usize = 1024;

/// Delivers one wanted range at a time; sector 100 is bad, zeros come as
/// such.
struct Disk {
    facts: SourceFacts,
    bytes: Mutex<Vec<u8>>,
    wanted: Mutex<VecDeque<ByteRange>>,
    delivered: Mutex<u64>,
    /// Breaks down after so many deliveries.
    lasts: Mutex<u32>,
    /// Is written once it has compared: here, and what.
    then_written: Mutex<Option<(usize, u8)>>,
}

impl Disk {
    fn new(bytes: Vec<u8>, lasts: u32) -> Self {
        Self {
            facts: SourceFacts {
                name: "disk".into(),
                kind: SourceKind::Remote,
                length: ByteCount(bytes.len() as u64),
                sector_bytes: 512,
                file: None,
                disk: DiskIdentity::default(),
                mounted_rw: false,
            },
            bytes: Mutex::new(bytes),
            wanted: Mutex::default(),
            delivered: Mutex::default(),
            lasts: Mutex::new(lasts),
            then_written: Mutex::default(),
        }
    }
}

impl Supply for Disk {
    fn facts(&self) -> &SourceFacts {
        &self.facts
    }

    fn now(&self) -> Duration {
        Duration::ZERO
    }

    fn want(&self, ranges: &[ByteRange], priority: Priority) {
        let mut wanted = self.wanted.lock().unwrap();
        for &range in ranges {
            match priority {
                Priority::Structure => wanted.push_front(range),
                Priority::Payload => wanted.push_back(range),
            }
        }
    }

    fn arrive(&self, each: &mut dyn FnMut(Piece<'_>)) -> Result<()> {
        let mut lasts = self.lasts.lock().unwrap();
        let range = self.wanted.lock().unwrap().pop_front();
        let (Some(range), Some(left)) = (range, lasts.checked_sub(1)) else {
            return Err(Error::new(ErrorKind::Interrupted, "gone"));
        };
        *lasts = left;
        *self.delivered.lock().unwrap() += range.length().0;
        let disk = self.bytes.lock().unwrap();
        for sector in range.cut(512) {
            let at = sector.start();
            let bytes = &disk[at.0 as usize..sector.end().0 as usize];
            let what = if at.0 / 512 == 100 {
                Payload::Unreadable(sector.length(), ReadFault::Medium)
            } else if bytes.iter().all(|byte| *byte == 0) {
                Payload::Zero(sector.length())
            } else {
                Payload::Bytes(bytes)
            };
            each(Piece { at, what });
        }
        Ok(())
    }

    fn comparer(&self) -> Option<&dyn Comparer> {
        Some(self)
    }

    fn changed(
        &self,
        ranges: &[(ByteRange, Digest)],
    ) -> Result<Vec<ByteRange>> {
        let disk = self.bytes.lock().unwrap();
        Ok(ranges
            .iter()
            .filter(|(range, digest)| {
                let bytes =
                    &disk[range.start().0 as usize..range.end().0 as usize];
                blake3::hash(bytes).as_bytes() != digest
            })
            .map(|(range, _)| *range)
            .collect())
    }
}

impl Comparer for Disk {
    fn find(
        &self,
        range: ByteRange,
        stride: ByteCount,
        pattern: &[u8],
    ) -> Result<Vec<ByteOffset>> {
        let disk = self.bytes.lock().unwrap();
        let cells = range.cut(stride.0).map(|cell| cell.start());
        let found =
            |at: &ByteOffset| disk[at.0 as usize..].starts_with(pattern);
        Ok(cells.filter(found).collect())
    }

    fn expect_together(&self, ranges: &[ByteRange]) {
        self.want(ranges, Priority::Payload);
    }

    fn same(
        &self,
        pairs: &[Likeness],
        size: ByteCount,
    ) -> Result<Vec<Likeness>> {
        let mut disk = self.bytes.lock().unwrap();
        let block = |at: ByteOffset| &disk[at.0 as usize..][..size.0 as usize];
        let same = |pair: &&Likeness| block(pair.at) == block(pair.like);
        let same = pairs.iter().filter(same).copied().collect();
        if let Some((at, what)) = self.then_written.lock().unwrap().take() {
            disk[at] = what;
        }
        Ok(same)
    }
}

fn disk_bytes() -> Vec<u8> {
    let mut bytes: Vec<u8> =
        (0..512 * KIB).map(|i| (i / 512 % 251) as u8 + 1).collect();
    bytes[128 * KIB..256 * KIB].fill(0);
    bytes[300 * KIB..301 * KIB].fill(0);
    bytes
}

fn range(start: usize, length: usize) -> ByteRange {
    ByteRange::new(ByteOffset(start as u64), ByteCount(length as u64)).unwrap()
}

fn identity() -> Identity {
    Identity::new().with("device", "abc").with("options", "--data")
}

fn open(
    disk: Disk,
    data: &SharedFile,
    map: &SharedFile,
    identity: &Identity,
) -> Result<Spool<Disk>> {
    let options = StoreOptions::new(ByteOffset(4096), true);
    let (data, map) = (Box::new(data.clone()), Box::new(map.clone()));
    Spool::open(disk, Store::open(data, map, identity, options)?)
}

/// Reads `wanted`; unreadable bytes come as 255.
fn read(spool: &Spool<Disk>, wanted: ByteRange) -> Result<Vec<u8>> {
    let mut bytes = vec![254; wanted.length().0 as usize];
    let mut covered = 0;
    spool.read(&[wanted], &mut |piece| {
        let start = (piece.at.0 - wanted.start().0) as usize;
        let length = piece.what.length().0 as usize;
        let room = &mut bytes[start..start + length];
        match piece.what {
            Payload::Bytes(bytes) => room.copy_from_slice(bytes),
            Payload::Zero(_) => room.fill(0),
            Payload::Unreadable(..) => room.fill(255),
        }
        covered += length;
        ControlFlow::Continue(())
    })?;
    assert_eq!(covered, bytes.len());
    Ok(bytes)
}

fn expected() -> Vec<u8> {
    let mut bytes = disk_bytes();
    bytes[100 * 512..101 * 512].fill(255);
    bytes
}

#[test]
fn everything_is_fetched_once_and_read_twice() {
    let (data, map) = (SharedFile::default(), SharedFile::default());
    let disk = Disk::new(disk_bytes(), 99);
    let spool = open(disk, &data, &map, &identity()).unwrap();
    assert_eq!(read(&spool, range(10 * KIB, 20 * KIB)).unwrap().len(), 20480);
    for _ in 0..2 {
        let all = read(&spool, range(0, 512 * KIB)).unwrap();
        assert!(all == expected());
    }
    assert_eq!(*spool.supply().delivered.lock().unwrap(), 512 * 1024);
    let mut beyond = 0;
    spool
        .read(&[range(511 * KIB, 3 * KIB)], &mut |piece| {
            if let Payload::Unreadable(length, ReadFault::BeyondEnd) =
                piece.what
            {
                beyond += length.0;
            }
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(beyond, 2048);
}

#[test]
fn an_interrupted_run_goes_on_wherever_its_map_was_torn() {
    let (data, map) = (SharedFile::default(), SharedFile::default());
    let first = {
        let disk = Disk::new(disk_bytes(), 3);
        let spool = open(disk, &data, &map, &identity()).unwrap();
        for part in 0..3 {
            read(&spool, range(part * 64 * KIB, 64 * KIB)).unwrap();
        }
        read(&spool, range(192 * KIB, 64 * KIB)).unwrap_err();
        drop(spool);
        map.bytes().clone()
    };
    for torn in (0..=first.len()).rev().step_by(431) {
        *map.bytes() = first[..torn].to_vec();
        let disk = Disk::new(disk_bytes(), 9);
        let data = SharedFile(Arc::new(Mutex::new(data.bytes().clone())));
        let spool = open(disk, &data, &map, &identity()).unwrap();
        if torn == first.len() {
            // All but the bad sector, which is tried again.
            assert_eq!(spool.store().lock().resumed().0, 3 * 65536 - 512);
        }
        let all = read(&spool, range(0, 512 * KIB)).unwrap();
        assert!(all == expected(), "torn at {torn}");
    }
}

#[test]
fn what_was_damaged_in_the_spool_is_fetched_again() {
    let (data, map) = (SharedFile::default(), SharedFile::default());
    let spool =
        open(Disk::new(disk_bytes(), 9), &data, &map, &identity()).unwrap();
    read(&spool, range(0, 512 * KIB)).unwrap();
    drop(spool);
    data.bytes()[4096 + 400 * KIB] ^= 1;
    let length = map.bytes().len();
    map.bytes()[length - 5] ^= 1;
    let spool =
        open(Disk::new(disk_bytes(), 99), &data, &map, &identity()).unwrap();
    assert!(spool.store().lock().resumed().0 < 512 * 1024);
    assert!(read(&spool, range(0, 512 * KIB)).unwrap() == expected());
}

#[test]
fn what_stands_behind_a_torn_record_never_comes_back() {
    let (data, map) = (SharedFile::default(), SharedFile::default());
    let open = || {
        let options = StoreOptions::new(ByteOffset(0), true);
        let files = (Box::new(data.clone()), Box::new(map.clone()));
        Store::open(files.0, files.1, &identity(), options).unwrap()
    };
    let mut store = open();
    for start in [0, 64, 128] {
        store.put_zero(range(start * KIB, KIB));
        store.note(Duration::ZERO).unwrap();
    }
    store.put(ByteOffset(500 << 10), &[1; KIB]).unwrap();
    store.note(Duration::ZERO).unwrap();
    let length = map.bytes().len();
    map.bytes()[length - 150] ^= 1;
    let mut store = open();
    assert_eq!(store.known().iter().collect::<Vec<_>>(), [range(0, KIB)]);
    store.put(ByteOffset(128 << 10), &[7; KIB]).unwrap();
    store.note(Duration::ZERO).unwrap();
    let store = open();
    let known: Vec<_> = store.known().iter().collect();
    assert_eq!(known, [range(0, KIB), range(128 * KIB, KIB)]);
}

#[test]
fn another_device_or_option_set_is_refused_by_name() {
    let (data, map) = (SharedFile::default(), SharedFile::default());
    let spool =
        open(Disk::new(disk_bytes(), 9), &data, &map, &identity()).unwrap();
    read(&spool, range(0, 64 * KIB)).unwrap();
    drop(spool);
    let other = Identity::new().with("device", "abc").with("options", "");
    let error =
        open(Disk::new(disk_bytes(), 9), &data, &map, &other).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.to_string().contains("options"), "{error}");
}

#[test]
fn a_filesystem_that_was_used_since_is_fetched_anew() {
    let (data, map) = (SharedFile::default(), SharedFile::default());
    let spool =
        open(Disk::new(disk_bytes(), 9), &data, &map, &identity()).unwrap();
    read(&spool, range(0, 512 * KIB)).unwrap();
    drop(spool);
    let mut bytes = disk_bytes();
    bytes[1024] ^= 1;
    bytes[200 * KIB] = 7;
    let spool =
        open(Disk::new(bytes.clone(), 9), &data, &map, &identity()).unwrap();
    assert_eq!(spool.store().lock().resumed().0, 0);
    bytes[100 * 512..101 * 512].fill(255);
    assert!(read(&spool, range(0, 512 * KIB)).unwrap() == bytes);
}

#[test]
fn a_change_during_the_job_shows_when_it_is_looked_for() {
    let (data, map) = (SharedFile::default(), SharedFile::default());
    let spool =
        open(Disk::new(disk_bytes(), 99), &data, &map, &identity()).unwrap();
    let old = read(&spool, range(0, 32 * KIB)).unwrap();
    spool.supply().bytes.lock().unwrap()[2048] ^= 1;
    assert!(read(&spool, range(0, 32 * KIB)).unwrap() == old);
    let stored = data.bytes().clone();
    spool.recheck(&[range(0, 32 * KIB)]).unwrap();
    let new = read(&spool, range(0, 32 * KIB)).unwrap();
    assert_eq!(new[2048], old[2048] ^ 1);
    assert_eq!(new[2049..], old[2049..]);
    assert!(*data.bytes() == stored, "what was stored is an image by now");
}

#[test]
fn a_raw_image_holds_only_what_was_selected() {
    let (data, map) = (SharedFile::default(), SharedFile::default());
    let spool =
        open(Disk::new(disk_bytes(), 9), &data, &map, &identity()).unwrap();
    read(&spool, range(0, 512 * KIB)).unwrap();
    let mut keep = RangeSet::new();
    keep.insert(range(4 * KIB, 8 * KIB));
    keep.insert(range(290 * KIB, 20 * KIB));
    spool.store().lock().keep_only(&keep).unwrap();
    let mut right = vec![0; data.bytes().len()];
    let bytes = disk_bytes();
    for part in keep.iter() {
        let (start, end) = (part.start().0 as usize, part.end().0 as usize);
        right[4096 + start..4096 + end].copy_from_slice(&bytes[start..end]);
    }
    assert!(*data.bytes() == right);
}

const BLOCK: ByteCount = ByteCount(4 * KIB as u64);

fn alike(at: usize, like: usize) -> Likeness {
    let [at, like] = [at, like].map(|kib| ByteOffset((kib * KIB) as u64));
    Likeness { at, like }
}

/// A disk of which 400 KiB and 408 KiB hold what 8 KiB holds, 404 KiB the
/// zeros of 128 KiB; and its spool, with the first 200 KiB fetched.
fn doubled() -> (Vec<u8>, Spool<Disk>, SharedFile, SharedFile) {
    let mut bytes = disk_bytes();
    let block = bytes[8 * KIB..12 * KIB].to_vec();
    bytes[400 * KIB..404 * KIB].copy_from_slice(&block);
    bytes[404 * KIB..408 * KIB].fill(0);
    bytes[408 * KIB..412 * KIB].copy_from_slice(&block);
    let (data, map) = (SharedFile::default(), SharedFile::default());
    let spool =
        open(Disk::new(bytes.clone(), 9), &data, &map, &identity()).unwrap();
    read(&spool, range(0, 200 * KIB)).unwrap();
    (bytes, spool, data, map)
}

const PAIRS: [(usize, usize); 5] =
    [(400, 8), (404, 128), (408, 8), (412, 8), (416, 300)];

fn pairs() -> Vec<Likeness> {
    PAIRS.iter().map(|(at, like)| alike(*at, *like)).collect()
}

#[test]
fn what_is_held_twice_is_fetched_once() {
    let (bytes, spool, data, map) = doubled();
    let duplicates = spool.duplicates().unwrap();
    let same = duplicates.same(&pairs(), BLOCK).unwrap();
    // Neither what differs nor what is not here to be copied.
    assert_eq!(same, pairs()[..3]);
    let delivered = *spool.supply().delivered.lock().unwrap();
    let within = [range(400 * KIB, 100 * KIB)];
    duplicates.take_over(&same, BLOCK, &within).unwrap();
    let taken = range(400 * KIB, 12 * KIB);
    assert_eq!(read(&spool, taken).unwrap(), bytes[400 * KIB..412 * KIB]);
    assert_eq!(*spool.supply().delivered.lock().unwrap(), delivered);
    assert_eq!(duplicates.same(&pairs(), BLOCK).unwrap(), [], "it is here");
    // And the next run goes on from there.
    drop(spool);
    let spool =
        open(Disk::new(bytes.clone(), 0), &data, &map, &identity()).unwrap();
    assert_eq!(read(&spool, taken).unwrap(), bytes[400 * KIB..412 * KIB]);
}

#[test]
fn what_changes_while_it_is_compared_is_fetched() {
    // The copy, and what it was a copy of.
    for changes in [400 * KIB + 5, 8 * KIB + 5] {
        let (mut bytes, spool, _, _) = doubled();
        *spool.supply().then_written.lock().unwrap() = Some((changes, 0xEE));
        let duplicates = spool.duplicates().unwrap();
        let same = duplicates.same(&pairs()[..1], BLOCK).unwrap();
        let within = [range(400 * KIB, 8 * KIB)];
        duplicates.take_over(&same, BLOCK, &within).unwrap();
        bytes[changes] = 0xEE;
        let copy = range(400 * KIB, 4 * KIB);
        assert_eq!(read(&spool, copy).unwrap(), bytes[400 * KIB..404 * KIB]);
    }
}
