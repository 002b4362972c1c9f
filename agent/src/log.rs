//! Logs: rings of bytes that a host drains by position.
//!
//! Nothing of them goes over the wire until a host asks, and never more than
//! it asked for.

use e2wire_protocol::units::u64_from;

/// The last `N` bytes of a log, each known by its position since the start.
pub(crate) struct Ring<const N: usize> {
    bytes: [u8; N],
    end: u64,
}

/// A stretch of a log: its first position and its bytes in two pieces.
pub(crate) struct Stretch<'a> {
    pub(crate) from: u64,
    pub(crate) pieces: [&'a [u8]; 2],
}

impl<const N: usize> Ring<N> {
    pub(crate) const fn new() -> Self {
        Self { bytes: [0; N], end: 0 }
    }

    /// The position behind the last byte.
    pub(crate) const fn end(&self) -> u64 {
        self.end
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if let Some(place) = self.bytes.get_mut(place_of::<N>(self.end)) {
                *place = *byte;
            }
            self.end = self.end.wrapping_add(1);
        }
    }

    /// At most `length_max` bytes from position `from`, or from the first
    /// that is still there. A position from another life of the log starts
    /// over.
    pub(crate) fn stretch(&self, from: u64, length_max: u16) -> Stretch<'_> {
        let oldest = self.end.saturating_sub(u64_from(N));
        let from = if from > self.end { oldest } else { from.max(oldest) };
        let length = self.end.saturating_sub(from).min(length_max.into());
        let first = place_of::<N>(from);
        let whole = self.bytes.get(first..).unwrap_or(&[]);
        let length = usize::try_from(length).unwrap_or(0);
        let (head, tail) = match whole.get(..length) {
            Some(head) => (head, &[][..]),
            None => {
                let rest = length.saturating_sub(whole.len());
                (whole, self.bytes.get(..rest).unwrap_or(&[]))
            }
        };
        Stretch { from, pieces: [head, tail] }
    }
}

/// Where the byte of a position lies.
fn place_of<const N: usize>(position: u64) -> usize {
    let place = position.checked_rem(u64_from(N)).unwrap_or(0);
    usize::try_from(place).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;

    #[test]
    fn a_log_is_read_by_position_and_tells_what_it_lost() {
        let mut ring = Ring::<8>::new();
        let read = |ring: &Ring<8>, from, most| {
            let stretch = ring.stretch(from, most);
            let mut bytes = std::vec::Vec::new();
            for piece in stretch.pieces {
                bytes.extend(piece);
            }
            (stretch.from, bytes)
        };
        assert_eq!(read(&ring, 0, 9).1.len(), 0);
        ring.push(b"abcdef");
        assert_eq!(read(&ring, 0, 3), (0, b"abc".to_vec()));
        assert_eq!(read(&ring, 3, 9), (3, b"def".to_vec()));
        ring.push(b"ghijk");
        assert_eq!(read(&ring, 0, 9), (3, b"defghijk".to_vec()));
        assert_eq!(read(&ring, 6, 4), (6, b"ghij".to_vec()));
        assert_eq!(read(&ring, 11, 4).1.len(), 0);
        assert_eq!(read(&ring, 12, 2), (3, b"de".to_vec()));
    }
}
