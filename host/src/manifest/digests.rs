//! `OUTPUT.digests`: the ranges of an image, where they are too many for its
//! manifest.
//!
//! ```text
//! "e2wire digests 1"     16 bytes
//! for each range, ascending, all numbers little-endian:
//!     first              8 bytes   the first block
//!     count              4 bytes   number of blocks
//!     blake3            32 bytes   digest of the range
//!     crc32c             4 bytes   for each block
//! ```
//!
//! The manifest holds the length and the BLAKE3-256 digest of the file.

use std::io::{BufReader, ErrorKind as IoKind, Read};

use crate::digest::{Digest, RangeRecord};
use crate::error::{Error, Result};
use crate::manifest::untrue;
use crate::units::{BlockRun, u64_from, usize_from};

/// What the file begins with.
const MAGIC: &[u8; 16] = b"e2wire digests 1";

/// How much is handed on at a time.
const PIECE_BYTES: usize = 256 << 10;

/// Writes `records`, which ascend, piece after piece.
pub(super) fn write(
    records: &[RangeRecord],
    emit: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let mut piece = MAGIC.to_vec();
    for record in records {
        let count = u32::try_from(record.run.count().0)
            .map_err(|_| untrue("the length of a range"))?;
        piece.extend_from_slice(&record.run.first().0.to_le_bytes());
        piece.extend_from_slice(&count.to_le_bytes());
        piece.extend_from_slice(&record.digest);
        for crc in &record.block_crcs {
            piece.extend_from_slice(&crc.to_le_bytes());
        }
        if piece.len() >= PIECE_BYTES {
            emit(&piece)?;
            piece.clear();
        }
    }
    emit(&piece)
}

/// Reads such a file front to back, and digests it.
pub(super) struct DigestsReader<R> {
    file: BufReader<R>,
    hasher: blake3::Hasher,
    length: u64,
}

impl<R: Read> DigestsReader<R> {
    pub(super) fn new(file: R) -> Self {
        Self {
            file: BufReader::with_capacity(PIECE_BYTES, file),
            hasher: blake3::Hasher::new(),
            length: 0,
        }
    }

    fn bytes(&mut self, into: &mut [u8]) -> Result<()> {
        self.file.read_exact(into).map_err(|error| match error.kind() {
            IoKind::UnexpectedEof => untrue("the length of the digests"),
            _ => Error::io("cannot read the digests", error),
        })?;
        self.hasher.update(into);
        self.length = self.length.saturating_add(u64_from(into.len()));
        Ok(())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut array = [0; N];
        self.bytes(&mut array)?;
        Ok(array)
    }

    /// The first bytes of the file.
    pub(super) fn magic(&mut self) -> Result<()> {
        match self.array()? {
            magic if magic == *MAGIC => Ok(()),
            _ => Err(untrue("the beginning of the digests")),
        }
    }

    /// First block and count of the next range; `None` at the end.
    pub(super) fn head(&mut self) -> Result<Option<(u64, u32)>> {
        let mut peek = [0; 1];
        let more = loop {
            match self.file.read(&mut peek) {
                Ok(read) => break read > 0,
                Err(error) if error.kind() == IoKind::Interrupted => {}
                Err(error) => {
                    return Err(Error::io("cannot read the digests", error));
                }
            }
        };
        if !more {
            return Ok(None);
        }
        self.hasher.update(&peek);
        self.length = self.length.saturating_add(1);
        let mut first = [0; 8];
        let rest: [u8; 7] = self.array()?;
        if let Some((head, tail)) = first.split_first_mut() {
            *head = peek[0];
            tail.copy_from_slice(&rest);
        }
        let count = u32::from_le_bytes(self.array()?);
        Ok(Some((u64::from_le_bytes(first), count)))
    }

    /// The rest of that range, whose run has been checked.
    pub(super) fn rest(
        &mut self,
        run: BlockRun,
        count: u32,
    ) -> Result<RangeRecord> {
        let digest: Digest = self.array()?;
        let mut block_crcs = Vec::with_capacity(usize_from(count));
        for _ in 0..count {
            block_crcs.push(u32::from_le_bytes(self.array()?));
        }
        Ok(RangeRecord { run, digest, block_crcs })
    }

    /// Length and digest of all that was read.
    pub(super) fn finish(self) -> (u64, Digest) {
        (self.length, *self.hasher.finalize().as_bytes())
    }
}
