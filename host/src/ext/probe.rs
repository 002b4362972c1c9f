//! The search for the superblock, before the size of a block is known.

use super::assemble::BlockBytes;
use super::superblock::{SUPERBLOCK_BYTES, SUPERBLOCK_OFFSET, Superblock};
use crate::block_set::BlockSet;
use crate::error::{Error, ErrorKind, Result};
use crate::ext::WalkOptions;
use crate::units::{BlockNumber, BlockSize};

/// The probe counts in blocks of this size: every superblock begins at a
/// multiple of it, and fills one.
pub(super) const PROBE_SIZE: BlockSize = BlockSize::MIN;

const ALL_SIZES: std::ops::RangeInclusive<u32> = 10..=16;

/// A place where a superblock may lie.
#[derive(Debug)]
struct Candidate {
    /// In KiB from the start of the device.
    kib: u64,
    /// As the user counts; `None` for the usual place.
    at: Option<BlockNumber>,
    size: Option<BlockSize>,
    bytes: Option<Box<[u8; SUPERBLOCK_BYTES]>>,
}

/// The places that are looked at, and what was found there.
#[derive(Debug)]
pub(super) struct Probe {
    candidates: Vec<Candidate>,
    /// Why there is no filesystem, while copies are looked for so that the
    /// error can name them.
    failure: Option<Error>,
}

impl Probe {
    /// Where the user said, or where it usually is.
    pub(super) fn new(options: &WalkOptions) -> Self {
        let Some(at) = options.superblock.filter(|block| block.0 != 0) else {
            let candidate = Candidate {
                kib: SUPERBLOCK_OFFSET.wrapping_shr(10),
                at: None,
                size: options.block_size,
                bytes: None,
            };
            return Self { candidates: vec![candidate], failure: None };
        };
        let sizes: Vec<BlockSize> = match options.block_size {
            Some(size) => vec![size],
            None => ALL_SIZES.filter_map(BlockSize::from_log2).collect(),
        };
        let candidates =
            sizes.into_iter().filter_map(|size| candidate(at, size)).collect();
        Self { candidates, failure: None }
    }

    /// Where copies lie on a filesystem made with default settings.
    fn for_copies(failure: Error) -> Self {
        let candidates = ALL_SIZES
            .filter_map(BlockSize::from_log2)
            .flat_map(|size| {
                let bits = size.bytes_u64().saturating_mul(8);
                let first = u64::from(size == BlockSize::MIN);
                [1, 3, 5, 7, 9].into_iter().filter_map(move |group: u64| {
                    let block = bits.checked_mul(group)?.checked_add(first)?;
                    candidate(BlockNumber(block), size)
                })
            })
            .collect();
        Self { candidates, failure: Some(failure) }
    }

    pub(super) fn blocks(&self) -> BlockSet {
        let mut set = BlockSet::new();
        for candidate in &self.candidates {
            set.insert(BlockNumber(candidate.kib));
        }
        set
    }

    /// Keeps what was read at `kib`.
    pub(super) fn supply(&mut self, kib: BlockNumber, block: BlockBytes<'_>) {
        if !block.is_whole() {
            return;
        }
        let Ok(bytes) = <&[u8; SUPERBLOCK_BYTES]>::try_from(block.bytes) else {
            return;
        };
        for candidate in &mut self.candidates {
            if candidate.kib == kib.0 {
                candidate.bytes = Some(Box::new(*bytes));
            }
        }
    }

    /// The superblock; or the next probe to make.
    pub(super) fn conclude(
        self,
        options: &WalkOptions,
    ) -> Result<Result<Superblock, Self>> {
        let mut checked =
            self.candidates.iter().map(|candidate| candidate.check(options));
        if let Some(failure) = self.failure {
            let found: Vec<Superblock> =
                checked.filter_map(Result::ok).collect();
            return Err(with_hint(failure, &found));
        }
        let mut failure = None;
        for result in checked.by_ref() {
            match result {
                Ok(superblock) => return Ok(Ok(superblock)),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        let failure = failure.unwrap_or_else(|| {
            Error::new(
                ErrorKind::NoFilesystem,
                "the superblock would lie beyond all devices",
            )
        });
        if failure.what_to_try().is_some() {
            return Err(failure);
        }
        Ok(Err(Self::for_copies(failure)))
    }
}

fn candidate(at: BlockNumber, size: BlockSize) -> Option<Candidate> {
    let kib = at.offset(size)?.0.wrapping_shr(10);
    Some(Candidate { kib, at: Some(at), size: Some(size), bytes: None })
}

impl Candidate {
    fn check(&self, options: &WalkOptions) -> Result<Superblock> {
        let place = match self.at {
            Some(block) => format!("block {block}"),
            None => format!("byte {SUPERBLOCK_OFFSET}"),
        };
        let Some(bytes) = &self.bytes else {
            return Err(Error::new(
                ErrorKind::NoFilesystem,
                format!("the superblock at {place} cannot be read"),
            ));
        };
        let superblock =
            Superblock::check(bytes, self.at, options.device_length)?;
        let is = superblock.geometry.block_size;
        match self.size {
            Some(size) if size != is => Err(Error::new(
                ErrorKind::NoFilesystem,
                format!(
                    "the superblock at {place} says that blocks have {is} \
                     bytes, not {size}"
                ),
            )
            .hint(format!("give -B {is}, or leave -B out"))),
            _ => Ok(superblock),
        }
    }
}

fn with_hint(failure: Error, found: &[Superblock]) -> Error {
    match found.first() {
        Some(copy) => failure.hint(format!(
            "a copy of the superblock lies at block {}: try -b {} -B {}",
            copy.at, copy.at, copy.geometry.block_size
        )),
        None => failure.hint(
            "no copy of a superblock lies at the usual places either; is \
             this the right device or partition?",
        ),
    }
}
