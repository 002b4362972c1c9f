//! Maps that a job goes on from: the part map of a spool or a raw image, and
//! the mapfile of ddrescue.

use std::sync::OnceLock;

use e2wire::error::ErrorKind;
use e2wire::mapfile::Mapfile;
use e2wire::range_set::RangeSet;
use e2wire::spool::{Identity, Store, StoreOptions};
use e2wire::units::{ByteCount, ByteOffset, ByteRange};

use crate::shared_file::SharedFile;

/// What is taken for a mapfile is written and read back as the same.
pub(super) fn mapfile(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let Ok(map) = Mapfile::parse(&text) else { return };
    let sets = [&map.finished, &map.untrimmed, &map.unscraped, &map.bad];
    let ends = sets.iter().filter_map(|set| Some(set.iter().last()?.end().0));
    let length = ByteCount(ends.max().unwrap_or(0));
    assert_eq!(Mapfile::parse(&map.text(length)), Ok(map));
}

/// What the file of the store holds before it is opened.
const DATA_BYTES: usize = 32 << 10;

/// Of what stands in the map's format.
const RECORD_BYTES: usize = 56;
const DATA: u32 = 1;
const ZERO: u32 = 2;

/// Of the input for each record: start, length, state, how to forge it.
const FORGED_BYTES: usize = 21;
const WRONG_DIGEST: u8 = 1;
const WRONG_CRC: u8 = 2;

/// A record that is to be in a map.
struct Forged {
    start: u64,
    length: u64,
    state: u32,
    how: u8,
}

impl Forged {
    fn of(bytes: &[u8; FORGED_BYTES]) -> Self {
        let word = |at: usize| {
            u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
        };
        let state = u32::from_le_bytes(std::array::from_fn(|i| bytes[16 + i]));
        Self { start: word(0), length: word(8), state, how: bytes[20] }
    }

    /// Where its bytes lie in the file, if they do.
    fn place(&self) -> Option<std::ops::Range<usize>> {
        let start = usize::try_from(self.start).ok()?;
        let length = usize::try_from(self.length).ok()?;
        let end = start.checked_add(length)?;
        (end <= DATA_BYTES).then_some(start..end)
    }

    fn range(&self) -> Option<ByteRange> {
        ByteRange::new(ByteOffset(self.start), ByteCount(self.length))
    }

    /// Whether a map that this stands in goes on behind it.
    fn is_whole(&self) -> bool {
        self.how & WRONG_CRC == 0
            && matches!(self.state, DATA | ZERO)
            && self.range().is_some()
    }

    fn encode(&self, data: &[u8], header_crc: u32, into: &mut Vec<u8>) {
        let start = into.len();
        into.extend(self.start.to_le_bytes());
        into.extend(self.length.to_le_bytes());
        into.extend(self.state.to_le_bytes());
        let bytes = self.place().map_or(&[][..], |place| &data[place]);
        let mut digest = *blake3::hash(bytes).as_bytes();
        digest[0] ^= self.how & WRONG_DIGEST;
        into.extend(digest);
        let crc = crc32c::crc32c_append(header_crc, &into[start..]);
        into.extend((crc ^ u32::from(self.how & WRONG_CRC)).to_le_bytes());
    }
}

fn identity() -> Identity {
    Identity::new().with("device", "fuzz").with("size", DATA_BYTES)
}

fn data() -> Vec<u8> {
    (0..DATA_BYTES).map(|at| 1 | (at / 7) as u8).collect()
}

/// The header that the store itself writes.
fn header() -> &'static [u8] {
    static HEADER: OnceLock<Vec<u8>> = OnceLock::new();
    HEADER.get_or_init(|| {
        let map = SharedFile::default();
        let mut store = open(&SharedFile::default(), &map).expect("new");
        let first = ByteRange::new(ByteOffset(0), ByteCount(512));
        store.put_zero(first.expect("it is small"));
        store.note(std::time::Duration::ZERO).expect("it is in memory");
        let mut bytes = map.bytes().clone();
        bytes.truncate(bytes.len() - RECORD_BYTES);
        bytes
    })
}

fn open(data: &SharedFile, map: &SharedFile) -> e2wire::error::Result<Store> {
    Store::open(
        Box::new(data.clone()),
        Box::new(map.clone()),
        &identity(),
        StoreOptions::new(ByteOffset(0), true),
    )
}

/// The first byte tells whether the rest is a map as it stands, or records
/// behind a right header. What is taken over is what the records prove.
pub(super) fn part_map(input: &[u8]) {
    let Some((mode, bytes)) = input.split_first() else { return };
    if mode & 1 == 1 {
        return go_on(bytes.to_vec(), None);
    }
    let (chunks, torn) = bytes.as_chunks::<FORGED_BYTES>();
    let records: Vec<Forged> = chunks.iter().map(Forged::of).collect();
    let mut map = header().to_vec();
    let crc = map.last_chunk::<4>().map(|crc| u32::from_le_bytes(*crc));
    let data = data();
    for record in &records {
        record.encode(&data, crc.expect("a header"), &mut map);
    }
    map.extend(torn);
    go_on(map, Some(&records));
}

/// Opens a store with this map, twice; `records` are what is in it.
fn go_on(map: Vec<u8>, records: Option<&[Forged]>) {
    let (file, map) = (SharedFile::of(data()), SharedFile::of(map));
    let mut store = match open(&file, &map) {
        Ok(store) => store,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
            assert_eq!(*file.bytes(), data(), "refused, and changed");
            return;
        }
    };
    if let Some(records) = records {
        let proven = proven(records);
        assert!(store.known().iter().eq(proven.iter()), "not what is proven");
    }
    assert_held(&store, &file);
    // A map that was gone on with is as good as a new one.
    let known = store.known().clone();
    store.put(ByteOffset(1000), &[7; 300]).expect("it is in memory");
    store.note(std::time::Duration::ZERO).expect("it is in memory");
    drop(store);
    let store = open(&file, &map).expect("it is ours");
    let mut expected = known;
    expected.extend(ByteRange::new(ByteOffset(1000), ByteCount(300)));
    // What was proven as a whole before and has changed in a part is not
    // believed any more; but nothing is that was not here.
    for range in store.known().iter() {
        assert!(expected.contains(range), "{range:?} was never here");
    }
    assert_held(&store, &file);
}

/// What the records prove of the file.
fn proven(records: &[Forged]) -> RangeSet {
    let whole = records.iter().take_while(|record| record.is_whole());
    let proves = |record: &&Forged| match record.state {
        ZERO => true,
        _ => record.place().is_some() && record.how & WRONG_DIGEST == 0,
    };
    whole.filter(proves).filter_map(Forged::range).collect()
}

/// Outside of what is known, the file holds nothing but zeros.
fn assert_held(store: &Store, file: &SharedFile) {
    let bytes = file.bytes();
    let whole = ByteCount(bytes.len() as u64);
    let whole = ByteRange::new(ByteOffset(0), whole).expect("it is small");
    for gap in store.known().missing(whole) {
        let (start, end) = (gap.start().0 as usize, gap.end().0 as usize);
        assert!(bytes[start..end].iter().all(|b| *b == 0), "{gap:?}");
    }
}
