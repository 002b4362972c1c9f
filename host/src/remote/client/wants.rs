//! What shall be read of a device, most urgent first, and how it is gathered
//! into chunks.

use std::collections::VecDeque;

use e2wire_protocol::chunk::{Ranges, SectorRange};
use e2wire_protocol::limits::CHUNK_BYTES_MAX;

use crate::range_set::RangeSet;
use crate::source::{PIECE_ALIGN, Priority};
use crate::units::{ByteOffset, ByteRange, u64_from};

/// What is wanted of one device and not yet there.
#[derive(Debug, Default)]
pub(super) struct Wants {
    structure: RangeSet,
    payload: RangeSet,
    /// Chunks that were made up by whoever wants them.
    together: VecDeque<Ranges>,
    /// Asked for, or about to be in one of those chunks, or arrived and not
    /// yet handed over.
    under_way: RangeSet,
}

impl Wants {
    /// Adds what of `ranges` is not under way; raises what was less urgent.
    pub(super) fn add(&mut self, ranges: &[ByteRange], priority: Priority) {
        for &range in ranges {
            for part in self.under_way.missing(range) {
                match priority {
                    Priority::Structure => {
                        self.payload.remove(part);
                        self.structure.insert(part);
                    }
                    Priority::Payload => {
                        for part in self.structure.missing(part) {
                            self.payload.insert(part);
                        }
                    }
                }
            }
        }
    }

    /// Makes chunks of `ranges`, as few as they fit into, that are asked for
    /// behind what is urgent.
    pub(super) fn add_together(&mut self, ranges: &[ByteRange]) {
        let mut left = RangeSet::new();
        left.extend(ranges.iter().flat_map(|r| self.under_way.missing(*r)));
        for range in left.iter() {
            self.structure.remove(range);
            self.payload.remove(range);
        }
        while let Some(chunk) = take_chunk(&mut left) {
            for range in chunk.iter() {
                self.under_way.insert(range.bytes());
            }
            self.together.push_back(chunk);
        }
    }

    /// Takes the next chunk's ranges out.
    pub(super) fn take(&mut self) -> Option<Ranges> {
        if self.structure.is_empty()
            && let Some(chunk) = self.together.pop_front()
        {
            return Some(chunk);
        }
        let set = if self.structure.is_empty() {
            &mut self.payload
        } else {
            &mut self.structure
        };
        let chunk = take_chunk(set)?;
        for range in chunk.iter() {
            self.under_way.insert(range.bytes());
        }
        Some(chunk)
    }

    /// These were handed over, or will never be.
    pub(super) fn done(&mut self, ranges: &Ranges) {
        for range in ranges.iter() {
            self.under_way.remove(range.bytes());
        }
    }

    /// Nothing is wanted any more; what is under way stays so.
    pub(super) fn clear(&mut self) {
        self.structure.clear();
        self.payload.clear();
        for chunk in std::mem::take(&mut self.together) {
            self.done(&chunk);
        }
    }

    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.structure.is_empty()
            && self.payload.is_empty()
            && self.together.is_empty()
    }
}

/// Takes the first chunk out of `set`.
fn take_chunk(set: &mut RangeSet) -> Option<Ranges> {
    let mut chunk = Ranges::new();
    let mut at = ByteOffset(0);
    while let Some(range) = set.first_from(at) {
        let room = CHUNK_BYTES_MAX.saturating_sub(chunk.bytes());
        let Some(part) = fitting(range, u64_from(room)) else { break };
        let Some(sectors) = SectorRange::from_bytes(part) else {
            // Wants are whole sectors; what is not could never be asked.
            set.remove(range);
            continue;
        };
        if chunk.push(sectors).is_err() {
            break;
        }
        at = part.end();
        if part != range {
            break;
        }
    }
    for range in chunk.iter() {
        set.remove(range.bytes());
    }
    (!chunk.is_empty()).then_some(chunk)
}

/// The beginning of `range` that fits into `room`, cut where pieces are cut.
fn fitting(range: ByteRange, room: u64) -> Option<ByteRange> {
    if range.length().0 <= room {
        return Some(range);
    }
    let reach = range.start().0.saturating_add(room);
    let cut = reach.checked_div(PIECE_ALIGN)?.checked_mul(PIECE_ALIGN)?;
    ByteRange::between(range.start(), ByteOffset(cut))
        .filter(|part| !part.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::range;

    fn taken(wants: &mut Wants) -> Vec<ByteRange> {
        wants.take().map_or(Vec::new(), |chunk| {
            chunk.iter().map(SectorRange::bytes).collect()
        })
    }

    #[test]
    fn the_urgent_comes_first_and_nothing_is_asked_twice() {
        let mut wants = Wants::default();
        wants.add(&[range(0, 8192), range(65536, 4096)], Priority::Payload);
        wants.add(&[range(4096, 4096)], Priority::Structure);
        assert_eq!(taken(&mut wants), [range(4096, 4096)]);
        wants.add(&[range(0, 16384)], Priority::Structure);
        assert_eq!(taken(&mut wants), [range(0, 4096), range(8192, 8192)]);
        assert_eq!(taken(&mut wants), [range(65536, 4096)]);
        assert!(wants.is_empty() && wants.take().is_none());
    }

    #[test]
    fn long_ranges_are_cut_where_pieces_are() {
        let mut wants = Wants::default();
        wants.add(&[range(4096, 600 << 10)], Priority::Payload);
        assert_eq!(taken(&mut wants), [range(4096, (256 << 10) - 4096)]);
        assert_eq!(taken(&mut wants), [range(256 << 10, 256 << 10)]);
        // What is left does not fill a chunk: others join it.
        wants.add(&[range(1 << 20, 512)], Priority::Payload);
        assert_eq!(
            taken(&mut wants),
            [range(512 << 10, (88 << 10) + 4096), range(1 << 20, 512)]
        );
    }

    #[test]
    fn what_was_handed_over_can_be_wanted_again() {
        let mut wants = Wants::default();
        wants.add(&[range(0, 4096)], Priority::Payload);
        let chunk = wants.take().unwrap();
        wants.add(&[range(0, 4096)], Priority::Structure);
        assert!(wants.is_empty());
        wants.done(&chunk);
        wants.add(&[range(0, 4096)], Priority::Structure);
        assert_eq!(taken(&mut wants), [range(0, 4096)]);
    }
    #[test]
    fn what_is_wanted_together_comes_together_and_once() {
        let mut wants = Wants::default();
        wants.add(&[range(0, 16384)], Priority::Payload);
        let alike = [range(4096, 4096), range(65536, 4096)];
        wants.add_together(&alike);
        wants.add_together(&alike);
        wants.add(&alike, Priority::Structure);
        wants.add(&[range(1 << 20, 512)], Priority::Structure);
        assert_eq!(taken(&mut wants), [range(1 << 20, 512)]);
        assert_eq!(taken(&mut wants), alike);
        assert_eq!(taken(&mut wants), [range(0, 4096), range(8192, 8192)]);
        assert!(wants.is_empty() && wants.take().is_none());
        // Too much for one chunk: as few as hold it, and none once cleared.
        let many: Vec<_> = (64..129).map(|i| range(i << 16, 512)).collect();
        wants.add_together(&many);
        assert_eq!(taken(&mut wants), many[..64]);
        assert_eq!(taken(&mut wants), many[64..]);
        let more = [range(1 << 30, 512)];
        wants.add_together(&more);
        wants.clear();
        assert!(wants.is_empty());
        wants.add_together(&more);
        assert_eq!(taken(&mut wants), more);
    }
}
