//! Has the agent look for something on its disk: the line carries questions
//! of a few bytes and the places that may be worth reading.
//!
//! Nothing that an agent answers is believed beyond that. Whoever searches
//! reads the places and decides.

use std::collections::VecDeque;

use e2wire_protocol::digest::DeviceId;
use e2wire_protocol::limits::FIND_CELL_BYTES_MAX;
use e2wire_protocol::message::{Find, Match, Matches};

use crate::error::{Error, ErrorKind, Result};
use crate::range_set::RangeSet;
use crate::remote::client::Ticket;
use crate::remote::session::Session;
use crate::source::{Found, Sought};
use crate::units::{ByteCount, ByteOffset, ByteRange};

/// From one place that is looked at to the next.
const PLACE_BYTES: u64 = 1024;

/// One question is about so much of the device at most, so that it can be
/// seen how far the search is.
const QUESTION_BYTES: u64 = 8 << 20;

/// Questions that are open at once.
const OPEN_MAX: usize = 8;

/// How often an answer may be cut short, with hundreds of matches in each.
const CUT_MAX: u32 = 64;

/// Places that are worth reading; the walk looks at no more.
const PLACES_MAX: u64 = 4096;

/// Looks for something on a device.
pub(super) struct Scout<'a> {
    /// Bytes of a logical sector of the device.
    pub(super) sector: u64,
    /// Where on the device byte 0 of the source lies.
    pub(super) base: u64,
    /// What to look for.
    pub(super) sought: &'a Sought,
}

/// Who looks: a session, for one device.
pub(super) trait Finder {
    /// Names what was asked.
    type Ticket: Copy;

    /// Asks.
    fn ask(&mut self, find: Find) -> Self::Ticket;

    /// Waits for the answer.
    fn answer(&mut self, ticket: Self::Ticket) -> Result<Vec<u8>>;

    /// It is no longer of interest.
    fn forget(&mut self, ticket: Self::Ticket);
}

impl Finder for (&mut Session<'_>, DeviceId) {
    type Ticket = Ticket;

    fn ask(&mut self, find: Find) -> Ticket {
        self.0.find(self.1, find)
    }

    fn answer(&mut self, ticket: Ticket) -> Result<Vec<u8>> {
        self.0.found(ticket)
    }

    fn forget(&mut self, ticket: Ticket) {
        self.0.forget(ticket);
    }
}

/// A question to the agent.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Question {
    find: Find,
    /// Where in the source the place in the first cell begins.
    first: u64,
}

/// How a search goes on after an answer.
enum Next {
    /// That question is answered.
    Answered,
    /// So much of it is not: there was too much to say.
    Rest(Question),
    /// Not at all.
    End(String),
}

/// What was answered so far.
#[derive(Default)]
struct Answers {
    places: RangeSet,
    cut: u32,
}

impl Scout<'_> {
    /// Looks through `ranges` of the source.
    ///
    /// # Errors
    ///
    /// As [`Session::fetched`].
    pub(super) fn run<F: Finder>(
        &self,
        finder: &mut F,
        ranges: &[ByteRange],
        progress: &mut dyn FnMut(ByteCount),
    ) -> Result<Found> {
        if !self.sector.is_power_of_two() || self.sector > FIND_CELL_BYTES_MAX {
            let why = format!("the agent calls {} bytes a sector", self.sector);
            return Ok(Found { places: Vec::new(), ended: Some(why) });
        }
        let mut waiting: VecDeque<Question> =
            ranges.iter().flat_map(|range| self.questions(*range)).collect();
        let mut open: VecDeque<(F::Ticket, Question)> = VecDeque::new();
        let mut answers = Answers::default();
        let mut done = 0_u64;
        let ended = loop {
            while open.len() < OPEN_MAX
                && let Some(question) = waiting.pop_front()
            {
                let find = question.find.clone();
                open.push_back((finder.ask(find), question));
            }
            let Some((ticket, question)) = open.pop_front() else {
                break None;
            };
            let next = match finder.answer(ticket) {
                Ok(body) => self.take(&question, &body, &mut answers),
                Err(error) => Next::End(unless_gone(error)?),
            };
            let mut cells = question.find.cells;
            match next {
                Next::Answered => {}
                Next::Rest(rest) => {
                    cells = cells.saturating_sub(rest.find.cells);
                    waiting.push_back(rest);
                }
                Next::End(why) => break Some(why),
            }
            done = done.saturating_add(u64::from(cells) * PLACE_BYTES);
            progress(ByteCount(done));
        };
        for (ticket, _) in open {
            finder.forget(ticket);
        }
        Ok(Found { places: answers.places.iter().collect(), ended })
    }

    /// Everything that has to be asked to look through `range`.
    ///
    /// A cell is a place, or a logical sector with several of them: then
    /// each place in it takes a question of its own.
    fn questions(&self, range: ByteRange) -> Vec<Question> {
        let mut questions = Vec::new();
        let cell = self.sector.max(PLACE_BYTES);
        let start = range.start().0.next_multiple_of(PLACE_BYTES);
        let places = range.end().0.saturating_sub(start) / PLACE_BYTES;
        let per_cell = cell / PLACE_BYTES;
        for index in 0..per_cell.min(places) {
            let mut cells = (places - index).div_ceil(per_cell);
            let mut first = start + index * PLACE_BYTES;
            while cells > 0 {
                let count = cells.min(QUESTION_BYTES / cell).max(1);
                questions.extend(self.question(first, count, cell));
                cells -= count;
                first += count * cell;
            }
        }
        questions
    }

    /// About the place at `first` of the source, and one in each of the
    /// `cells` from there on.
    fn question(&self, first: u64, cells: u64, cell: u64) -> Option<Question> {
        let at = self.base.checked_add(first)?;
        let into = u32::try_from(at % self.sector).ok()?;
        let find = Find {
            first: (at - u64::from(into)) / 512,
            cells: u32::try_from(cells).ok()?,
            stride_sectors: u32::try_from(cell / 512).ok()?,
            offset: into.checked_add(self.sought.offset)?,
            pattern: heapless::Vec::from_slice(self.sought.pattern).ok()?,
            return_offset: into,
            return_length: self.sought.head_bytes,
        };
        Some(Question { find, first })
    }

    /// Takes an answer in. Nothing of it is believed but that a place may be
    /// worth reading.
    fn take(
        &self,
        question: &Question,
        body: &[u8],
        answers: &mut Answers,
    ) -> Next {
        let nonsense = || Next::End("the agent's answer has no sense".into());
        let find = &question.find;
        let stride = u64::from(find.stride_sectors) * 512;
        let Ok(found) = Matches::new(body, find.cells, find.return_length)
        else {
            return nonsense();
        };
        let searched = found.searched();
        for found in found {
            let (cell, head) = match found {
                Ok(Match::At(cell, head)) => (cell, head),
                Ok(Match::Unreadable(..)) => continue,
                Err(_) => return nonsense(),
            };
            let at = question.first + u64::from(cell) * stride;
            if !(self.sought.fits)(at / PLACE_BYTES, head) {
                continue;
            }
            if answers.places.bytes() >= PLACES_MAX * PLACE_BYTES {
                return Next::End("too much looks like one".into());
            }
            let place = ByteRange::new(ByteOffset(at), ByteCount(PLACE_BYTES));
            answers.places.extend(place);
        }
        let left = find.cells.saturating_sub(searched);
        if left == 0 {
            return Next::Answered;
        }
        answers.cut += 1;
        if searched == 0 || answers.cut > CUT_MAX {
            return Next::End("too much looks like one".into());
        }
        let skip = u64::from(searched) * stride;
        let first = find.first + skip / 512;
        let find = Find { first, cells: left, ..find.clone() };
        Next::Rest(Question { find, first: question.first + skip })
    }
}

/// Why a search is not made, when the agent can do everything else.
fn unless_gone(error: Error) -> Result<String> {
    match error.kind() {
        ErrorKind::Protocol | ErrorKind::Refused => Ok(error.to_string()),
        _ => Err(error),
    }
}

#[cfg(test)]
mod tests;
