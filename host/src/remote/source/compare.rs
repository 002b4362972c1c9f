//! What the agent finds out of a device without sending what it holds.

use e2wire_protocol::chunk::SectorRange;
use e2wire_protocol::limits::{
    PAIRS_MAX, RESULT_BYTES_MAX, SECTOR_BYTES, SPAN_BYTES_MAX,
};
use e2wire_protocol::message::{
    Find, Match, Matches, Pair, SameUnits, Sameness,
};

use super::RemoteDevice;
use crate::error::{Error, ErrorKind, Result};
use crate::source::{Comparer, Likeness};
use crate::units::{ByteCount, ByteOffset, ByteRange, u64_from};

const SECTOR: u64 = SECTOR_BYTES as u64;

/// So much is compared with as much in a row at most: two bits for each of
/// the smallest blocks of all runs of a comparison fill a result.
const RUN_BYTES_MAX: u64 =
    RESULT_BYTES_MAX as u64 * 4 * 1024 / PAIRS_MAX as u64;

const _: () = assert!(RUN_BYTES_MAX * PAIRS_MAX as u64 <= SPAN_BYTES_MAX);

impl RemoteDevice<'_> {
    /// What a search in `range` asks; `None` where that does not fit the sectors of the
    /// device, or nothing would be found.
    fn question(
        &self,
        range: ByteRange,
        stride: ByteCount,
        pattern: &[u8],
    ) -> Option<Find> {
        let there = self.on_device(range)?;
        let stride_sectors = stride.0.checked_div(SECTOR)?;
        let fits = there.length() == range.length()
            && stride.0.is_multiple_of(u64::from(self.facts.sector_bytes));
        (fits && stride_sectors > 0).then_some(())?;
        Some(Find {
            first: SectorRange::from_bytes(there)?.first(),
            cells: 1,
            stride_sectors: u32::try_from(stride_sectors).ok()?,
            offset: 0,
            pattern: heapless::Vec::from_slice(pattern).ok()?,
            return_offset: 0,
            return_length: 0,
        })
    }

    fn strange(&self, what: &str) -> Error {
        let name = self.session().name();
        Error::new(
            ErrorKind::Protocol,
            format!("the agent at {name} answers no {what}"),
        )
    }
}

impl Comparer for RemoteDevice<'_> {
    fn find(
        &self,
        range: ByteRange,
        stride: ByteCount,
        pattern: &[u8],
    ) -> Result<Vec<ByteOffset>> {
        let mut found = Vec::new();
        let Some(cells) = range.length().0.checked_div(stride.0) else {
            return Ok(found);
        };
        let most = SPAN_BYTES_MAX / stride.0;
        let Some(question) = self.question(range, stride, pattern) else {
            return Ok(found);
        };
        let mut done = 0;
        while done < cells {
            let first = question.first + done * (stride.0 / SECTOR);
            let cells = u32::try_from((cells - done).min(most)).unwrap_or(1);
            let find = Find { first, cells, ..question.clone() };
            let mut session = self.session();
            let ticket = session.find(self.device.id, find);
            let body = session.found(ticket)?;
            drop(session);
            let matches = Matches::new(&body, cells, 0)
                .map_err(|error| self.strange("a search").because(error))?;
            let searched = u64::from(matches.searched());
            for found_here in matches {
                let one = found_here
                    .map_err(|error| self.strange("a search").because(error))?;
                if let Match::At(cell, _) = one {
                    let cell = done + u64::from(cell);
                    found.push(ByteOffset(range.start().0 + cell * stride.0));
                }
            }
            if searched == 0 {
                return Err(self.strange("a search"));
            }
            done += searched;
        }
        Ok(found)
    }

    fn expect_together(&self, ranges: &[ByteRange]) {
        let ranges: Vec<ByteRange> =
            ranges.iter().filter_map(|r| self.on_device(*r)).collect();
        self.session().want_together(self.device.id, &ranges);
    }

    fn same(
        &self,
        pairs: &[Likeness],
        size: ByteCount,
    ) -> Result<Vec<Likeness>> {
        let Ok(unit_sectors) = u32::try_from(size.0 / SECTOR) else {
            return Ok(Vec::new());
        };
        let questions = comparisons(pairs, size, |range| {
            let there = self.on_device(range);
            there.filter(|there| there.length() == range.length())
        });
        let asked = questions.iter().map(|question| SameUnits {
            unit_sectors,
            pairs: question.iter().map(|(_, pair)| *pair).collect(),
        });
        let answers = self.session().same(self.device.id, asked.collect())?;
        let mut same = Vec::new();
        for (question, body) in questions.iter().zip(answers) {
            let units = question.iter().flat_map(|(like, _)| like.iter());
            for (index, pair) in units.enumerate() {
                let bits = body.get(index / 4).map(|b| b >> (index % 4 * 2));
                let Some(bits) = bits else {
                    return Err(self.strange("a comparison"));
                };
                if Sameness::from_bits(bits & 3) == Some(Sameness::Same) {
                    same.push(*pair);
                }
            }
        }
        Ok(same)
    }
}

/// Neighbouring blocks that are compared with neighbours, and where on the
/// device they lie.
type Run = (Vec<Likeness>, Pair);

/// Cuts `pairs` of blocks of `size` bytes into comparisons; `on_device` says
/// where a range lies. What cannot be compared is left out.
fn comparisons(
    pairs: &[Likeness],
    size: ByteCount,
    on_device: impl Fn(ByteRange) -> Option<ByteRange>,
) -> Vec<Vec<Run>> {
    let follows = |one: &Likeness, next: &Likeness| {
        one.at.checked_add(size) == Some(next.at)
            && one.like.checked_add(size) == Some(next.like)
    };
    let most = usize::try_from(RUN_BYTES_MAX / size.0.max(1)).unwrap_or(1);
    let runs = pairs.chunk_by(follows).flat_map(|run| run.chunks(most.max(1)));
    let runs: Vec<Run> = runs
        .filter_map(|run| {
            let first = run.first()?;
            let length = size.0.checked_mul(u64_from(run.len()))?;
            let sectors = |at| {
                let range = on_device(ByteRange::new(at, ByteCount(length))?)?;
                SectorRange::from_bytes(range)
            };
            let one = sectors(first.at)?;
            let other_first = sectors(first.like)?.first();
            Some((run.to_vec(), Pair { one, other_first }))
        })
        .collect();
    runs.chunks(PAIRS_MAX).map(<[Run]>::to_vec).collect()
}
