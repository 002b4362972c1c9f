//! The map of a spool: which parts of it are there, in an append-only file.
//!
//! ```text
//! header   magic "e2wire spool 2\n\0", length of the identity (u32), 16
//!          random bytes, the identity (UTF-8, one `name: value` a line),
//!          CRC-32C of all that
//! record   start (u64), length (u64), state (u32: 1 data, 2 zero),
//!          BLAKE3-256 of the bytes (zeros for zero), CRC-32C of the header's
//!          CRC and of the record
//! ```
//!
//! Numbers are little-endian. Records are written after the data they speak
//! of. The first record that is not whole, or of another header, ends the
//! map: it was being written when the power went, and is cut off with all
//! that stands behind it.

use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};
use crate::output::OutputFile;
use crate::units::{ByteCount, ByteOffset, ByteRange};

const MAGIC: &[u8; 16] = b"e2wire spool 2\n\0";

/// Random bytes in a header: no record of an earlier map fits it.
const SALT_BYTES: usize = 16;

/// What stands before the identity.
const FIXED_BYTES: usize = MAGIC.len() + 4 + SALT_BYTES;

/// Bytes of a record.
const RECORD_BYTES: usize = 8 + 8 + 4 + 32 + 4;

/// Nobody has that much to say about a job.
const IDENTITY_BYTES_MAX: usize = 64 * 1024;

/// Records read at once.
const READ_RECORDS: usize = 4096;

/// What a spool belongs to: the device and what was asked for. A run with
/// another identity must not go on from it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Identity {
    lines: Vec<(String, String)>,
}

impl Identity {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a fact under a short name.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl ToString) -> Self {
        let value = value.to_string().replace('\n', " ");
        self.lines.push((name.to_owned(), value));
        self
    }

    /// Adds all facts of another.
    #[must_use]
    pub fn and(mut self, other: &Self) -> Self {
        self.lines.extend_from_slice(&other.lines);
        self
    }

    /// All facts, one a line.
    #[must_use]
    pub fn text(&self) -> String {
        self.lines
            .iter()
            .map(|(name, value)| format!("{name}: {value}\n"))
            .collect()
    }

    /// The first fact that differs from that in `text`: name, ours, theirs.
    fn differs(&self, text: &str) -> Option<(String, String, String)> {
        let theirs = |wanted: &str| {
            text.lines()
                .filter_map(|line| line.split_once(": "))
                .find(|(name, _)| *name == wanted)
                .map_or_else(String::new, |(_, value)| value.to_owned())
        };
        self.lines.iter().find_map(|(name, value)| {
            let other = theirs(name);
            (other != *value).then(|| (name.clone(), value.clone(), other))
        })
    }
}

/// What a part of a spool is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum State {
    /// Bytes in the file.
    Data,
    /// Zeros, nothing in the file.
    Zero,
}

/// One part of a spool.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Record {
    pub(super) range: ByteRange,
    pub(super) state: State,
    pub(super) digest: Digest,
}

impl Record {
    pub(super) const fn data(range: ByteRange, digest: Digest) -> Self {
        Self { range, state: State::Data, digest }
    }

    pub(super) const fn zero(range: ByteRange) -> Self {
        Self { range, state: State::Zero, digest: [0; 32] }
    }

    fn encode(&self, header_crc: u32, into: &mut Vec<u8>) {
        let start = into.len();
        into.extend_from_slice(&self.range.start().0.to_le_bytes());
        into.extend_from_slice(&self.range.length().0.to_le_bytes());
        let state: u32 = match self.state {
            State::Data => 1,
            State::Zero => 2,
        };
        into.extend_from_slice(&state.to_le_bytes());
        into.extend_from_slice(&self.digest);
        let body = into.get(start..).unwrap_or(&[]);
        let crc = crc32c::crc32c_append(header_crc, body);
        into.extend_from_slice(&crc.to_le_bytes());
    }

    fn decode(header_crc: u32, bytes: &[u8; RECORD_BYTES]) -> Option<Self> {
        let (body, crc) = bytes.split_last_chunk::<4>()?;
        if crc32c::crc32c_append(header_crc, body) != u32::from_le_bytes(*crc) {
            return None;
        }
        let (start, rest) = body.split_first_chunk::<8>()?;
        let (length, rest) = rest.split_first_chunk::<8>()?;
        let (state, digest) = rest.split_first_chunk::<4>()?;
        let range = ByteRange::new(
            ByteOffset(u64::from_le_bytes(*start)),
            ByteCount(u64::from_le_bytes(*length)),
        )?;
        let state = match u32::from_le_bytes(*state) {
            1 => State::Data,
            2 => State::Zero,
            _ => return None,
        };
        Some(Self { range, state, digest: digest.try_into().ok()? })
    }
}

/// A map that records are added to.
pub(super) struct Map {
    file: Box<dyn OutputFile>,
    /// The CRC of its header.
    header_crc: u32,
    /// Goes out with the first records: a short job needs no map.
    header: Vec<u8>,
    /// Where the next record goes.
    end: u64,
    has_records: bool,
    pending: Vec<Record>,
}

impl Map {
    /// Opens a map, or begins one: also when `is_stale`, because what it
    /// speaks of is gone.
    pub(super) fn open(
        file: Box<dyn OutputFile>,
        identity: &Identity,
        sync: bool,
        is_stale: bool,
    ) -> Result<(Self, Vec<Record>)> {
        let length = file.length().map_err(failed)?;
        let mut map = Self {
            file,
            header_crc: 0,
            header: Vec::new(),
            end: 0,
            has_records: false,
            pending: Vec::new(),
        };
        if length.0 == 0 || is_stale {
            map.start_over(identity, sync)?;
            return Ok((map, Vec::new()));
        }
        let Some((text, end, crc)) = map.header(length) else {
            // Torn while it was begun: nothing is noted in it.
            map.start_over(identity, sync)?;
            return Ok((map, Vec::new()));
        };
        if let Some((name, ours, theirs)) = identity.differs(&text) {
            return Err(Error::new(
                ErrorKind::Refused,
                format!(
                    "an unfinished run lies there with another {name}: \
                     {theirs}, not {ours}"
                ),
            )
            .intact("the unfinished run is kept")
            .hint(
                "give the command of that run to finish it, take another \
                 name for the output, or delete the files of that run",
            ));
        }
        let mut records = Vec::new();
        (map.end, map.header_crc) = (end, crc);
        let mut buffer = Vec::new();
        loop {
            let left = length.0.saturating_sub(map.end);
            let whole = left / RECORD_BYTES as u64;
            let count = whole.min(READ_RECORDS as u64) as usize;
            buffer.resize(count * RECORD_BYTES, 0);
            if count == 0
                || map.file.read_at(ByteOffset(map.end), &mut buffer).is_err()
            {
                return Ok((map.cut(length, sync)?, records));
            }
            let (chunks, _) = buffer.as_chunks::<RECORD_BYTES>();
            for chunk in chunks {
                let Some(record) = Record::decode(crc, chunk) else {
                    return Ok((map.cut(length, sync)?, records));
                };
                records.push(record);
                map.has_records = true;
                map.end += RECORD_BYTES as u64;
            }
        }
    }

    /// Cuts off what stands behind the last record that can be believed: one
    /// written in the place of a torn one must not bring back those that
    /// follow it.
    fn cut(mut self, length: ByteCount, sync: bool) -> Result<Self> {
        if length.0 > self.end {
            self.file
                .set_length(ByteCount(self.end))
                .and_then(|()| if sync { self.file.sync() } else { Ok(()) })
                .map_err(failed)?;
        }
        Ok(self)
    }

    /// The identity of an existing map, where its records begin, and the
    /// header's CRC.
    fn header(&self, length: ByteCount) -> Option<(String, u64, u32)> {
        let mut fixed = [0; FIXED_BYTES];
        self.file.read_at(ByteOffset(0), &mut fixed).ok()?;
        let (magic, rest) = fixed.split_first_chunk::<16>()?;
        let (size, _) = rest.split_first_chunk::<4>()?;
        let size = u32::from_le_bytes(*size) as usize;
        let whole = FIXED_BYTES + size + 4;
        if magic != MAGIC
            || size > IDENTITY_BYTES_MAX
            || whole as u64 > length.0
        {
            return None;
        }
        let mut header = vec![0; whole];
        self.file.read_at(ByteOffset(0), &mut header).ok()?;
        let (body, stored) = header.split_last_chunk::<4>()?;
        let crc = crc32c::crc32c(body);
        if crc != u32::from_le_bytes(*stored) {
            return None;
        }
        let text = String::from_utf8(body.get(FIXED_BYTES..)?.to_vec());
        Some((text.ok()?, whole as u64, crc))
    }

    /// Empties the map; nothing of it can be believed then.
    pub(super) fn start_over(
        &mut self,
        identity: &Identity,
        sync: bool,
    ) -> Result<()> {
        let text = identity.text();
        let mut header = MAGIC.to_vec();
        header.extend_from_slice(&(text.len() as u32).to_le_bytes());
        let mut salt = [0; SALT_BYTES];
        crate::random::fill(&mut salt)?;
        header.extend_from_slice(&salt);
        header.extend_from_slice(text.as_bytes());
        self.header_crc = crc32c::crc32c(&header);
        header.extend_from_slice(&self.header_crc.to_le_bytes());
        self.header = header;
        self.pending.clear();
        self.end = 0;
        self.has_records = false;
        if self.file.length().map_err(failed)?.0 > 0 {
            self.file
                .set_length(ByteCount(0))
                .and_then(|()| if sync { self.file.sync() } else { Ok(()) })
                .map_err(failed)?;
        }
        Ok(())
    }

    /// Whether a later run finds something in it.
    pub(super) const fn has_records(&self) -> bool {
        self.has_records
    }

    pub(super) const fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Adds a record, to be written with the next [`Self::write`].
    pub(super) fn add(&mut self, record: Record) {
        self.pending.push(record);
    }

    /// Writes what was added. The data must be safe before.
    pub(super) fn write(&mut self, sync: bool) -> Result<()> {
        let mut bytes = std::mem::take(&mut self.header);
        for record in &self.pending {
            record.encode(self.header_crc, &mut bytes);
        }
        self.file
            .write_at(ByteOffset(self.end), &bytes)
            .and_then(|()| if sync { self.file.sync() } else { Ok(()) })
            .map_err(failed)?;
        self.end += bytes.len() as u64;
        self.has_records = true;
        self.pending.clear();
        Ok(())
    }
}

fn failed(error: std::io::Error) -> Error {
    Error::io("cannot write the map of what has arrived", error)
        .intact("what was noted before is kept")
        .hint("make room and give the same command again")
}
