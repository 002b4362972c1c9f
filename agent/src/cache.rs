//! Encoded chunks that were sent lately, so that a lost fragment costs
//! neither a read nor a compression.
//!
//! It is only a cache: whatever is not here is made again, and comes out the
//! same as long as the disk does. Chunks whose fragments are still to be sent
//! are pinned. What a disk holds may change, so a chunk serves for a few
//! seconds only, and only the session that it was made for.

use e2wire_protocol::chunk::Codec;
use e2wire_protocol::digest::{ShortDigest, Tag};
use e2wire_protocol::message::PARTS_MAX;
use e2wire_protocol::units::usize_from;

use crate::clock::{Duration, Instant};
use crate::memory::{CACHED_CHUNKS_MAX, CHUNK_PAGES_MAX, PAGE_BYTES, PAGES};

/// Names what a chunk is an answer to: device, task and wished codec, for
/// which session, and since which flush.
pub(crate) type Key = ShortDigest;

/// How long a chunk serves after it was made.
pub(crate) const SERVES_FOR: Duration = Duration::from_millis(10_000);

/// A chunk in the cache.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct ChunkIndex(u16);

/// What is known of an encoded chunk besides its bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct ChunkFacts {
    pub(crate) tag: Tag,
    pub(crate) codec: Codec,
    pub(crate) length: u32,
}

impl ChunkIndex {
    /// Stands for none where one is kept for later.
    pub(crate) const NONE: Self = Self(0);
}

struct Chunk {
    key: Key,
    facts: ChunkFacts,
    pages: heapless::Vec<u16, CHUNK_PAGES_MAX>,
    pins: u16,
    used: u64,
    made: Instant,
    /// Sectors in it could not be read.
    is_faulty: bool,
}

impl Chunk {
    const fn new() -> Self {
        Self {
            key: ShortDigest([0; 16]),
            facts: ChunkFacts {
                tag: Tag([0; 8]),
                codec: Codec::Stored,
                length: 0,
            },
            pages: heapless::Vec::new(),
            pins: 0,
            used: 0,
            made: Instant::from_micros(0),
            is_faulty: false,
        }
    }

    /// A chunk is never empty, so one without pages is a free place.
    fn is_free(&self) -> bool {
        self.pages.is_empty()
    }
}

pub(crate) struct Cache {
    chunks: [Chunk; CACHED_CHUNKS_MAX],
    taken: [bool; PAGES],
    pages: [[u8; PAGE_BYTES]; PAGES],
    clock: u64,
}

impl Cache {
    pub(crate) const fn new() -> Self {
        Self {
            chunks: [const { Chunk::new() }; CACHED_CHUNKS_MAX],
            taken: [false; PAGES],
            pages: [[0; PAGE_BYTES]; PAGES],
            clock: 0,
        }
    }

    /// The chunk that answers `key`, pinned. Who asks for it `anew`, from its
    /// beginning on, is not given one with sectors that could not be read:
    /// that is how a read is tried again.
    pub(crate) fn pin(
        &mut self,
        key: Key,
        anew: bool,
        now: Instant,
    ) -> Option<ChunkIndex> {
        self.clock = self.clock.wrapping_add(1);
        let clock = self.clock;
        let (index, chunk) = (0..)
            .zip(&mut self.chunks)
            .filter(|(_, chunk)| !chunk.is_free() && chunk.key == key)
            .filter(|(_, chunk)| now.since(chunk.made) <= SERVES_FOR)
            .filter(|(_, chunk)| !(anew && chunk.is_faulty))
            .max_by_key(|(_, chunk)| chunk.made)?;
        chunk.pins = chunk.pins.checked_add(1)?;
        chunk.used = clock;
        Some(ChunkIndex(index))
    }

    /// Sectors in the chunk could not be read.
    pub(crate) fn mark_faulty(&mut self, index: ChunkIndex) {
        if let Some(chunk) = self.chunks.get_mut(usize::from(index.0)) {
            chunk.is_faulty = true;
        }
    }

    /// The fragments that were to be sent have been.
    pub(crate) fn unpin(&mut self, index: ChunkIndex) {
        if let Some(chunk) = self.chunks.get_mut(usize::from(index.0)) {
            chunk.pins = chunk.pins.saturating_sub(1);
        }
    }

    /// Keeps a chunk, pinned, in the place of those that were not used for
    /// the longest time. `None` when all that would have to go are pinned.
    pub(crate) fn insert(
        &mut self,
        key: Key,
        tag: Tag,
        codec: Codec,
        encoded: &[u8],
        now: Instant,
    ) -> Option<ChunkIndex> {
        let length = u32::try_from(encoded.len()).ok()?;
        let facts = ChunkFacts { tag, codec, length };
        let index = self.reserve(key, facts, now)?;
        self.put(index, 0, encoded)?;
        Some(index)
    }

    /// Makes room for a chunk whose bytes come later, pinned, as `insert`
    /// does.
    pub(crate) fn reserve(
        &mut self,
        key: Key,
        facts: ChunkFacts,
        now: Instant,
    ) -> Option<ChunkIndex> {
        let needed = usize_from(facts.length).div_ceil(PAGE_BYTES);
        if needed == 0 || needed > CHUNK_PAGES_MAX {
            return None;
        }
        while self.free_pages() < needed || self.free_place().is_none() {
            self.evict()?;
        }
        let index = self.free_place()?;
        self.clock = self.clock.wrapping_add(1);
        let chunk = self.chunks.get_mut(usize::from(index.0))?;
        *chunk = Chunk {
            key,
            facts,
            pages: heapless::Vec::new(),
            pins: 1,
            used: self.clock,
            made: now,
            is_faulty: false,
        };
        let places = (0..).zip(&mut self.taken);
        let free = places.filter(|(_, taken)| !**taken);
        for (page, taken) in free.take(needed) {
            *taken = true;
            chunk.pages.push(page).ok()?;
        }
        Some(index)
    }

    /// Puts bytes into a chunk from `start` on.
    pub(crate) fn put(
        &mut self,
        index: ChunkIndex,
        start: usize,
        bytes: &[u8],
    ) -> Option<()> {
        let chunk = self.chunks.get(usize::from(index.0))?;
        let mut at = start;
        let mut rest = bytes;
        while !rest.is_empty() {
            let page = chunk.pages.get(at.checked_div(PAGE_BYTES)?)?;
            let page = self.pages.get_mut(usize::from(*page))?;
            let place = page.get_mut(at.checked_rem(PAGE_BYTES)?..)?;
            let (now, behind) = rest.split_at(rest.len().min(place.len()));
            place.get_mut(..now.len())?.copy_from_slice(now);
            at = at.checked_add(now.len())?;
            rest = behind;
        }
        Some(())
    }

    pub(crate) fn facts(&self, index: ChunkIndex) -> Option<ChunkFacts> {
        self.chunks.get(usize::from(index.0)).map(|chunk| chunk.facts)
    }

    /// The bytes from `start` up to `start + length` of a chunk, in pieces.
    pub(crate) fn pieces(
        &self,
        index: ChunkIndex,
        start: u32,
        length: u32,
    ) -> Option<heapless::Vec<&[u8], PARTS_MAX>> {
        let chunk = self.chunks.get(usize::from(index.0))?;
        let mut at = usize::try_from(start).ok()?;
        let mut left = usize::try_from(length).ok()?;
        let mut pieces = heapless::Vec::new();
        while left > 0 {
            let page = chunk.pages.get(at.checked_div(PAGE_BYTES)?)?;
            let page = self.pages.get(usize::from(*page))?;
            let from = at.checked_rem(PAGE_BYTES)?;
            let to = from.checked_add(left)?.min(PAGE_BYTES);
            let piece = page.get(from..to)?;
            pieces.push(piece).ok()?;
            at = at.checked_add(piece.len())?;
            left = left.checked_sub(piece.len())?;
        }
        Some(pieces)
    }

    /// Pages that are free or can be made so.
    pub(crate) fn available_pages(&self) -> usize {
        let pinned: usize = self
            .chunks
            .iter()
            .filter(|chunk| chunk.pins > 0)
            .map(|chunk| chunk.pages.len())
            .sum();
        PAGES.saturating_sub(pinned)
    }

    fn free_pages(&self) -> usize {
        self.taken.iter().filter(|taken| !**taken).count()
    }

    fn free_place(&self) -> Option<ChunkIndex> {
        (0..)
            .zip(&self.chunks)
            .find(|(_, chunk)| chunk.is_free())
            .map(|(index, _)| ChunkIndex(index))
    }

    /// Drops the chunk that was not used for the longest time.
    fn evict(&mut self) -> Option<()> {
        let oldest = self
            .chunks
            .iter_mut()
            .filter(|chunk| !chunk.is_free() && chunk.pins == 0)
            .min_by_key(|chunk| chunk.used)?;
        for page in &oldest.pages {
            *self.taken.get_mut(usize::from(*page))? = false;
        }
        oldest.pages.clear();
        Some(())
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::boxed::Box;
    use std::vec;
    use std::vec::Vec;

    use super::*;

    const NOW: Instant = Instant::from_micros(5);

    fn key(i: u8) -> Key {
        ShortDigest([i; 16])
    }

    fn bytes(cache: &Cache, index: ChunkIndex, at: u32, n: u32) -> Vec<u8> {
        cache.pieces(index, at, n).unwrap().concat()
    }

    fn insert(cache: &mut Cache, i: u8, length: usize) -> Option<ChunkIndex> {
        let encoded = vec![i; length];
        cache.insert(key(i), Tag([i; 8]), Codec::Zstd(3), &encoded, NOW)
    }

    #[test]
    fn chunks_of_any_length_come_back_in_pieces() {
        let mut cache = Box::new(Cache::new());
        let encoded: Vec<u8> = (0..=250).cycle().take(50_000).collect();
        let index = cache
            .insert(key(1), Tag([1; 8]), Codec::Stored, &encoded, NOW)
            .unwrap();
        assert_eq!(bytes(&cache, index, 0, 16384), encoded[..16384]);
        assert_eq!(bytes(&cache, index, 4095, 2), encoded[4095..4097]);
        assert_eq!(bytes(&cache, index, 40_000, 10_000), encoded[40_000..]);
        assert!(cache.pieces(index, 50_000, 16384).is_none());
        assert_eq!(cache.pin(key(2), true, NOW), None);
        assert_eq!(cache.pin(key(1), true, NOW), Some(index));
    }

    #[test]
    fn the_oldest_goes_first_and_what_is_pinned_stays() {
        let mut cache = Box::new(Cache::new());
        let big = CHUNK_PAGES_MAX * PAGE_BYTES;
        let pinned = insert(&mut cache, 0, big).unwrap();
        for i in 1..40 {
            let index = insert(&mut cache, i, big).unwrap();
            cache.unpin(index);
        }
        assert_eq!(cache.pin(key(1), true, NOW), None);
        assert_eq!(bytes(&cache, pinned, 4000, 200), [0; 200]);
        assert!(cache.pin(key(39), true, NOW).is_some());
        assert_eq!(cache.available_pages(), PAGES - 2 * CHUNK_PAGES_MAX);
        // Everything pinned: nothing more fits, nothing is lost.
        let mut more = 0;
        while insert(&mut cache, 100 + more, big).is_some() {
            more += 1;
        }
        assert_eq!(usize::from(more) + 2, PAGES / CHUNK_PAGES_MAX);
        assert_eq!(bytes(&cache, pinned, 0, 100), [0; 100]);
    }

    #[test]
    fn many_small_chunks_are_kept() {
        let mut cache = Box::new(Cache::new());
        for i in 0..=255 {
            let index = insert(&mut cache, i, 3000).unwrap();
            cache.unpin(index);
        }
        assert!((0..=255).all(|i| cache.pin(key(i), true, NOW).is_some()));
    }
}
