//! A chunk while it is fetched: which of its fragments were asked for, which
//! are here, and what they add up to.

use e2wire_protocol::chunk::{Codec, Grant, from_columns};
use e2wire_protocol::digest::Tag;
use e2wire_protocol::limits::{
    BODY_BYTES_MAX, ENCODED_BYTES_MAX, RESULT_BYTES_MAX,
};
use e2wire_protocol::message::{Fetch, Fragment, Task};
use e2wire_protocol::units::{u64_from, usize_from};

/// How a fragment of a chunk stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Standing {
    /// To be asked for.
    Missing,
    /// Asked for by the request of this number.
    Asked(u32),
    /// Here.
    Here,
}

/// What a fragment that arrived did.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Taken {
    /// It was here already.
    Duplicate,
    /// It belongs to the chunk.
    New,
    /// It is of another encoding than those before: they were thrown away.
    Restarted,
    /// It cannot be a part of this chunk.
    Foreign,
}

/// What is known of the encoded bytes.
#[derive(Debug)]
struct Encoded {
    tag: Tag,
    codec: Codec,
    bytes: Vec<u8>,
}

/// A chunk while it is fetched.
#[derive(Debug)]
pub(super) struct OpenChunk {
    /// What is asked for; the grant is another one each time.
    pub(super) fetch: Fetch,
    payload: u16,
    encoded: Option<Encoded>,
    fragments: Vec<Standing>,
    here: usize,
    /// How often all that was here had to be thrown away.
    pub(super) restarts: u32,
}

impl OpenChunk {
    /// Nothing is asked for yet.
    pub(super) const fn new(fetch: Fetch) -> Self {
        Self {
            payload: fetch.grant.payload(),
            fetch,
            encoded: None,
            fragments: Vec::new(),
            here: 0,
            restarts: 0,
        }
    }

    /// Bytes of each of its fragments but the last.
    pub(super) const fn payload(&self) -> u16 {
        self.payload
    }

    /// Cuts what is not here into fragments of `payload` bytes, if they are
    /// smaller than those of now: the line has become worse. Larger ones that
    /// are under way count as several.
    pub(super) fn shrink(&mut self, payload: u16) {
        let Some(parts) = self.payload.checked_div(payload) else { return };
        let parts = usize::from(parts);
        if parts < 2 || !self.payload.is_multiple_of(payload) {
            return;
        }
        self.payload = payload;
        let old = std::mem::take(&mut self.fragments);
        self.fragments = old
            .into_iter()
            .flat_map(|s| std::iter::repeat_n(s, parts))
            .collect();
        if let Some(encoded) = &self.encoded {
            let count = encoded.bytes.len().div_ceil(usize::from(payload));
            self.fragments.truncate(count);
        }
        let here = |standing: &&Standing| **standing == Standing::Here;
        self.here = self.fragments.iter().filter(here).count();
    }

    /// Whether its length is known, and so its fragments are.
    pub(super) const fn is_known(&self) -> bool {
        self.encoded.is_some()
    }

    /// Whether a fragment is under way.
    pub(super) fn is_waiting(&self) -> bool {
        self.fragments.iter().any(|s| matches!(s, Standing::Asked(_)))
    }

    /// Whether a fragment that request `number` asked for is under way.
    pub(super) fn waits_for(&self, number: u32) -> bool {
        self.fragments.contains(&Standing::Asked(number))
    }

    /// Whether its encoded bytes have this name.
    pub(super) fn has_tag(&self, tag: Tag) -> bool {
        self.encoded.as_ref().is_some_and(|encoded| encoded.tag == tag)
    }

    /// Whether every fragment is here.
    pub(super) const fn is_whole(&self) -> bool {
        self.encoded.is_some() && self.here == self.fragments.len()
    }

    /// The next fragments to ask for, within `room` bytes. As long as the
    /// length is not known, `guess` bytes are asked for.
    pub(super) fn next_grant(&self, room: u64, guess: u64) -> Option<Grant> {
        let payload = u64::from(self.payload);
        let fitting = room.checked_div(payload)?;
        let (first, wanted) = match &self.encoded {
            None if self.is_waiting() => return None,
            None => (0, guess.div_ceil(payload).max(1)),
            Some(_) => {
                let mut places = self.fragments.iter();
                let first = places.position(|s| *s == Standing::Missing)?;
                let more =
                    places.take_while(|s| **s == Standing::Missing).count();
                (first, u64_from(more).saturating_add(1))
            }
        };
        let count = u16::try_from(wanted.min(fitting)).unwrap_or(u16::MAX);
        Grant::new(self.payload, u16::try_from(first).ok()?, count)
    }

    /// `grant` was asked for by request `number`.
    pub(super) fn asked(&mut self, grant: Grant, number: u32) {
        let first = usize::from(grant.first());
        let end = first.saturating_add(usize::from(grant.count()));
        if self.encoded.is_none() && self.fragments.len() < end {
            self.fragments.resize(end, Standing::Missing);
        }
        for standing in self.fragments.iter_mut().take(end).skip(first) {
            if *standing == Standing::Missing {
                *standing = Standing::Asked(number);
            }
        }
    }

    /// Takes in a fragment.
    pub(super) fn take(&mut self, fragment: &Fragment, tail: &[u8]) -> Taken {
        let length = usize_from(fragment.encoded);
        let at = usize_from(fragment.at);
        let payload = usize::from(self.payload);
        let first = match &self.fetch.task {
            Task::Read(ranges) => ranges.iter().next().map(|r| r.first()),
            Task::Digest(digest) => Some(digest.range.first()),
            Task::Same(same) => same.pairs.first().map(|p| p.one.first()),
            Task::Find(find) => Some(find.first),
        };
        let whole = at + tail.len() == length
            || (!tail.is_empty() && tail.len().is_multiple_of(payload));
        if fragment.device != self.fetch.device
            || first != Some(fragment.first)
            || length == 0
            || length > ENCODED_BYTES_MAX
            || !at.is_multiple_of(payload)
            || !whole
        {
            return Taken::Foreign;
        }
        let mut taken = Taken::New;
        let same = self.encoded.as_ref().is_some_and(|encoded| {
            encoded.tag == fragment.tag
                && encoded.codec == fragment.codec
                && encoded.bytes.len() == length
        });
        if !same {
            if self.encoded.is_some() {
                taken = Taken::Restarted;
                self.start_over();
            }
            self.encoded = Some(Encoded {
                tag: fragment.tag,
                codec: fragment.codec,
                bytes: vec![0; length],
            });
            self.fragments.resize(length.div_ceil(payload), Standing::Missing);
        }
        let Some(encoded) = &mut self.encoded else { return Taken::Foreign };
        // Several, when it was cut smaller after this was asked for.
        let first = at / payload;
        let end = first + tail.len().div_ceil(payload);
        let Some(standings) = self.fragments.get_mut(first..end) else {
            return Taken::Foreign;
        };
        let missing = |standing: &&Standing| **standing != Standing::Here;
        let new = standings.iter().filter(missing).count();
        if new == 0 {
            return Taken::Duplicate;
        }
        let Some(place) = encoded.bytes.get_mut(at..at + tail.len()) else {
            return Taken::Foreign;
        };
        place.copy_from_slice(tail);
        standings.fill(Standing::Here);
        self.here += new;
        taken
    }

    /// A fragment of request `number` at byte `at` has come: those before it
    /// that were asked for by the same request are lost, since nothing on a
    /// line overtakes. Answers how many.
    pub(super) fn lost_before(&mut self, number: u32, at: u32) -> u32 {
        let index = usize_from(at) / usize::from(self.payload);
        self.lose(|place, standing| {
            place < index && standing == Standing::Asked(number)
        })
    }

    /// What request `number` asked for will not come. Answers how many.
    pub(super) fn lost_all_of(&mut self, number: u32) -> u32 {
        self.lose(|_, standing| standing == Standing::Asked(number))
    }

    /// Nothing of what is under way will come.
    pub(super) fn lost_all(&mut self) -> u32 {
        self.lose(|_, _| true)
    }

    fn lose(&mut self, which: impl Fn(usize, Standing) -> bool) -> u32 {
        let mut lost = 0;
        for (index, standing) in self.fragments.iter_mut().enumerate() {
            if matches!(*standing, Standing::Asked(_))
                && which(index, *standing)
            {
                *standing = Standing::Missing;
                lost += 1;
            }
        }
        lost
    }

    /// Throws away what is here.
    pub(super) fn start_over(&mut self) {
        self.encoded = None;
        self.fragments.clear();
        self.here = 0;
        self.restarts += 1;
    }

    /// The length of the encoded chunk, once known.
    pub(super) fn encoded_length(&self) -> Option<usize> {
        self.encoded.as_ref().map(|encoded| encoded.bytes.len())
    }

    /// The decoded body; `None` when what arrived is not what was asked for,
    /// or no such body at all.
    pub(super) fn body(&self) -> Option<Vec<u8>> {
        let encoded = self.encoded.as_ref()?;
        let tag = self.fetch.tag(encoded.codec, [encoded.bytes.as_slice()])?;
        if tag != encoded.tag {
            return None;
        }
        let body_max = match self.fetch.task {
            Task::Read(_) => BODY_BYTES_MAX,
            _ => RESULT_BYTES_MAX,
        };
        match encoded.codec {
            Codec::Stored => {
                let fits = encoded.bytes.len() <= body_max;
                fits.then(|| encoded.bytes.clone())
            }
            Codec::Zstd(_) => {
                zstd::bulk::decompress(&encoded.bytes, body_max).ok()
            }
            Codec::ZstdColumns { stride, .. } => {
                let columns =
                    zstd::bulk::decompress(&encoded.bytes, body_max).ok()?;
                let mut body = vec![0; columns.len()];
                from_columns(&columns, stride, &mut body)?;
                Some(body)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use e2wire_protocol::chunk::{Ranges, SectorRange};
    use e2wire_protocol::digest::DeviceId;

    use super::*;

    const BODY_BYTES: u32 = 5000;

    fn chunk() -> OpenChunk {
        let range = SectorRange::new(0, 8).unwrap();
        OpenChunk::new(Fetch {
            device: DeviceId([7; 8]),
            task: Task::Read(Ranges::one(range).unwrap()),
            codec: Codec::Stored,
            grant: Grant::new(2048, 0, 1).unwrap(),
        })
    }

    fn take(chunk: &mut OpenChunk, at: u32, length: usize) -> Taken {
        let fragment = Fragment {
            device: DeviceId([7; 8]),
            first: 0,
            codec: Codec::Stored,
            tag: Tag([1; 8]),
            encoded: BODY_BYTES,
            at,
        };
        chunk.take(&fragment, &vec![at as u8; length])
    }

    fn asked(chunk: &mut OpenChunk, number: u32) -> (u16, u16, u16) {
        let grant = chunk.next_grant(1 << 20, 5000).unwrap();
        chunk.asked(grant, number);
        (grant.payload(), grant.first(), grant.count())
    }

    #[test]
    fn what_is_missing_is_asked_for_in_smaller_pieces() {
        let mut chunk = chunk();
        assert_eq!(asked(&mut chunk, 1), (2048, 0, 3));
        assert_eq!(take(&mut chunk, 0, 2048), Taken::New);
        assert_eq!(chunk.lost_all_of(1), 2);
        chunk.shrink(256);
        assert_eq!(chunk.payload(), 256);
        // The last fragment of 20 holds 136 bytes.
        assert_eq!(asked(&mut chunk, 2), (256, 8, 12));
        assert_eq!(take(&mut chunk, 2048, 256), Taken::New);
        // What was believed lost comes after all, as it was asked for.
        assert_eq!(take(&mut chunk, 2048, 2048), Taken::New);
        assert_eq!(take(&mut chunk, 2048, 2048), Taken::Duplicate);
        assert_eq!(take(&mut chunk, 2304, 256), Taken::Duplicate);
        assert!(!chunk.is_whole());
        assert_eq!(take(&mut chunk, 4096, 904), Taken::New);
        assert!(chunk.is_whole() && !chunk.is_waiting());
    }

    #[test]
    fn what_is_not_begun_shrinks_too_and_nothing_grows() {
        let mut chunk = chunk();
        assert_eq!(asked(&mut chunk, 1), (2048, 0, 3));
        chunk.shrink(512);
        chunk.shrink(4096);
        chunk.shrink(0);
        assert_eq!(chunk.payload(), 512);
        assert_eq!(take(&mut chunk, 0, 2048), Taken::New);
        assert_eq!(take(&mut chunk, 100, 512), Taken::Foreign);
        assert_eq!(take(&mut chunk, 4608, 512), Taken::Foreign);
        assert_eq!(take(&mut chunk, 2048, 0), Taken::Foreign);
        assert_eq!(take(&mut chunk, 2048, 2048), Taken::New);
        assert_eq!(take(&mut chunk, 4096, 904), Taken::New);
        assert!(chunk.is_whole());
    }
}
