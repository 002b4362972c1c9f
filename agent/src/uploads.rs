//! What hosts send in slices, until it is used.
//!
//! The bytes lie in pages of the cache of encoded chunks. It is only a cache:
//! what is not here any more is asked for again.

use e2wire_protocol::chunk::Codec;
use e2wire_protocol::digest::{ShortDigest, Tag};
use e2wire_protocol::limits::{UPLOAD_BYTES_MAX, UPLOAD_UNIT_BYTES};
use e2wire_protocol::message::{Failure, Upload};
use e2wire_protocol::units::usize_from;

use crate::cache::{Cache, ChunkFacts, ChunkIndex};
use crate::clock::Instant;
use crate::memory::{PAGE_BYTES, UPLOAD_PAGES_MAX, UPLOADS_MAX};

/// Words that hold one bit for each unit of the longest upload.
const UNIT_WORDS: usize =
    UPLOAD_BYTES_MAX.div_ceil(UPLOAD_UNIT_BYTES).div_ceil(64);

struct Place {
    taken: bool,
    upload: Upload,
    chunk: ChunkIndex,
    arrived: [u64; UNIT_WORDS],
    used: u64,
}

/// All uploads.
pub(crate) struct Uploads {
    places: [Place; UPLOADS_MAX],
    clock: u64,
}

/// The uploads, and where their bytes lie.
pub(crate) struct Shelf<'a> {
    pub(crate) uploads: &'a mut Uploads,
    pub(crate) cache: &'a mut Cache,
}

impl Uploads {
    pub(crate) const fn new() -> Self {
        const FREE: Place = Place {
            taken: false,
            upload: Upload { tag: Tag([0; 8]), length: 0 },
            chunk: ChunkIndex::NONE,
            arrived: [0; UNIT_WORDS],
            used: 0,
        };
        Self { places: [FREE; UPLOADS_MAX], clock: 0 }
    }

    fn pages(&self) -> usize {
        let taken = self.places.iter().filter(|place| place.taken);
        taken.map(|place| pages_of(place.upload)).sum()
    }
}

impl Place {
    /// The first byte that has not arrived; the end if all have.
    fn missing(&self) -> usize {
        let whole = usize_from(self.upload.length);
        let units = whole.div_ceil(UPLOAD_UNIT_BYTES);
        let has = |unit: &usize| {
            let word = self.arrived.get(unit.wrapping_div(64)).copied();
            word.unwrap_or(0) & (1 << unit.wrapping_rem(64)) != 0
        };
        let arrived = (0..units).take_while(has).count();
        arrived.saturating_mul(UPLOAD_UNIT_BYTES).min(whole)
    }
}

fn pages_of(upload: Upload) -> usize {
    usize_from(upload.length).div_ceil(PAGE_BYTES)
}

impl Shelf<'_> {
    /// Keeps a slice, in the place of uploads that were not used for the
    /// longest time.
    ///
    /// # Errors
    ///
    /// [`Failure::Unreasonable`] when it is too long.
    pub(crate) fn put(
        &mut self,
        upload: Upload,
        at: u32,
        bytes: &[u8],
        now: Instant,
    ) -> Result<(), Failure> {
        let at = usize_from(at);
        let place = match self.find(upload) {
            Some(place) => place,
            None => self.begin(upload, now).ok_or(Failure::Unreasonable)?,
        };
        self.uploads.clock = self.uploads.clock.wrapping_add(1);
        let clock = self.uploads.clock;
        let place = self.uploads.places.get_mut(place);
        let place = place.ok_or(Failure::Unreasonable)?;
        place.used = clock;
        self.cache.put(place.chunk, at, bytes).ok_or(Failure::Unreasonable)?;
        let first = at.wrapping_div(UPLOAD_UNIT_BYTES);
        let count = bytes.len().div_ceil(UPLOAD_UNIT_BYTES);
        for unit in first..first.saturating_add(count) {
            if let Some(word) = place.arrived.get_mut(unit.wrapping_div(64)) {
                *word |= 1 << unit.wrapping_rem(64);
            }
        }
        Ok(())
    }

    /// Copies a whole upload to the beginning of `out`; its length.
    ///
    /// # Errors
    ///
    /// [`Failure::Missing`] when it is not here whole, and from where on.
    pub(crate) fn copy(
        &mut self,
        upload: Upload,
        out: &mut [u8],
    ) -> Result<usize, Failure> {
        let gone = Failure::Missing(0);
        let place = self.find(upload).ok_or(gone)?;
        self.uploads.clock = self.uploads.clock.wrapping_add(1);
        let clock = self.uploads.clock;
        let place = self.uploads.places.get_mut(place).ok_or(gone)?;
        place.used = clock;
        let whole = usize_from(upload.length);
        let missing = place.missing();
        if missing < whole {
            return Err(Failure::Missing(u32::try_from(missing).unwrap_or(0)));
        }
        let mut done = 0_usize;
        let out = out.get_mut(..whole).ok_or(Failure::Unreasonable)?;
        for slice in out.chunks_mut(PAGE_BYTES) {
            let at = u32::try_from(done).map_err(|_| gone)?;
            let length = u32::try_from(slice.len()).map_err(|_| gone)?;
            let pieces = self.cache.pieces(place.chunk, at, length);
            let mut rest: &mut [u8] = slice;
            for piece in pieces.ok_or(gone)? {
                let (now, behind) =
                    rest.split_at_mut_checked(piece.len()).ok_or(gone)?;
                now.copy_from_slice(piece);
                done = done.saturating_add(piece.len());
                rest = behind;
            }
        }
        Ok(whole)
    }

    /// Whether an upload is here whole.
    ///
    /// # Errors
    ///
    /// [`Failure::Missing`] when it is not, and from where on.
    pub(crate) fn check(&self, upload: Upload) -> Result<(), Failure> {
        let place = self.find(upload);
        let place = place.and_then(|place| self.uploads.places.get(place));
        let missing = place.map_or(0, Place::missing);
        if missing < usize_from(upload.length) {
            return Err(Failure::Missing(u32::try_from(missing).unwrap_or(0)));
        }
        Ok(())
    }

    /// An upload is not needed any more.
    pub(crate) fn remove(&mut self, upload: Upload) {
        if let Some(place) = self.find(upload) {
            self.free(place);
        }
    }

    /// None is.
    pub(crate) fn clear(&mut self) {
        for place in 0..UPLOADS_MAX {
            self.free(place);
        }
    }

    fn find(&self, upload: Upload) -> Option<usize> {
        let mut places = self.uploads.places.iter();
        places.position(|place| place.taken && place.upload == upload)
    }

    fn free(&mut self, place: usize) {
        if let Some(place) = self.uploads.places.get_mut(place)
            && place.taken
        {
            place.taken = false;
            self.cache.unpin(place.chunk);
        }
    }

    /// Makes room for an upload.
    fn begin(&mut self, upload: Upload, now: Instant) -> Option<usize> {
        let pages = pages_of(upload);
        if pages == 0 || pages > UPLOAD_PAGES_MAX {
            return None;
        }
        let mut key = [0; 16];
        key.get_mut(..8)?.copy_from_slice(&upload.tag.0);
        key.get_mut(8..12)?.copy_from_slice(&upload.length.to_le_bytes());
        let facts = ChunkFacts {
            tag: upload.tag,
            codec: Codec::Stored,
            length: upload.length,
        };
        loop {
            let free = self.uploads.places.iter().position(|p| !p.taken);
            let fits =
                self.uploads.pages().saturating_add(pages) <= UPLOAD_PAGES_MAX;
            if let Some(free) = free.filter(|_| fits)
                && let Some(chunk) =
                    self.cache.reserve(ShortDigest(key), facts, now)
            {
                let place = self.uploads.places.get_mut(free)?;
                *place = Place {
                    taken: true,
                    upload,
                    chunk,
                    arrived: [0; UNIT_WORDS],
                    used: 0,
                };
                return Some(free);
            }
            // Chunks that are being sent may take the rest of the cache.
            let oldest = (0..)
                .zip(&self.uploads.places)
                .filter(|(_, place)| place.taken)
                .min_by_key(|(_, place)| place.used)
                .map(|(index, _)| index)?;
            self.free(oldest);
        }
    }
}
