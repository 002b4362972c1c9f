//! Reading a format in which what lies together on the device lies in pieces
//! in the file.

use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;

use crate::batch::{Batch, Filled};
use crate::source::{Each, PIECE_ALIGN, Payload, Piece, ReadFault};
use crate::units::{ByteCount, ByteOffset, ByteRange, u64_from};

/// What is put together at a time; a multiple of [`PIECE_ALIGN`].
const WINDOW_BYTES: u64 = 1 << 20;

/// A file that can be read at any place.
pub(super) trait ReadAt: Send + Sync {
    /// Reads all of `into`.
    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<()>;
}

impl ReadAt for File {
    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        self.read_exact_at(into, at)
    }
}

impl ReadAt for Vec<u8> {
    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        let bytes = usize::try_from(at)
            .ok()
            .and_then(|at| at.checked_add(into.len()).map(|end| at..end))
            .and_then(|range| self.get(range));
        into.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// Why reading a part of an image failed.
pub(super) fn fault(error: &io::Error) -> ReadFault {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => ReadFault::BeyondEnd,
        _ => ReadFault::Medium,
    }
}

/// Notes a part, from `start` up to `end`, that could not be read.
pub(super) type Bad<'a> = &'a mut dyn FnMut(u64, u64, ReadFault);

/// A device that is put together from pieces of a file.
pub(super) trait Mapped {
    /// How far, from `at` on and up to `end`, nothing but zeros is known to
    /// lie. Need not be exact; `at` if there is something else.
    fn zeros_until(&self, at: u64, end: u64) -> u64;

    /// Reads what lies from `at` on into `room`, which is zero.
    fn fill(&self, at: u64, room: &mut [u8], bad: Bad<'_>);
}

/// [`crate::source::BlockSource::read`] for a device of `length` bytes.
pub(super) fn read(
    mapped: &dyn Mapped,
    length: ByteCount,
    ranges: &[ByteRange],
    each: Each<'_>,
) {
    let mut batch = Batch::default();
    for range in ranges {
        let end = range.end().0.min(length.0);
        let flow = read_inside(mapped, range.start().0, end, &mut batch, each);
        let beyond = range.start().0.max(length.0);
        if flow.is_continue() && range.end().0 > beyond {
            let count = ByteCount(range.end().0.saturating_sub(beyond));
            let what = Payload::Unreadable(count, ReadFault::BeyondEnd);
            if each(Piece { at: ByteOffset(beyond), what }).is_continue() {
                continue;
            }
        } else if flow.is_continue() {
            continue;
        }
        return;
    }
}

fn read_inside(
    mapped: &dyn Mapped,
    start: u64,
    end: u64,
    batch: &mut Batch,
    each: Each<'_>,
) -> ControlFlow<()> {
    let mut at = start;
    while at < end {
        let zeros = match mapped.zeros_until(at, end) {
            until if until >= end => end,
            until => down(until, PIECE_ALIGN),
        };
        if let Some(count) = zeros.checked_sub(at).filter(|count| *count > 0) {
            let what = Payload::Zero(ByteCount(count));
            each(Piece { at: ByteOffset(at), what })?;
            at = zeros;
            continue;
        }
        let stop = down(at, WINDOW_BYTES).saturating_add(WINDOW_BYTES).min(end);
        let Some(window) = ByteRange::between(ByteOffset(at), ByteOffset(stop))
        else {
            break;
        };
        batch.prepare(&[window]);
        let mut bad = Vec::new();
        let room = batch.room(0);
        room.fill(0);
        mapped.fill(at, room, &mut |from, to, fault| {
            let (from, to) = (from.max(at), to.min(stop));
            if from < to {
                let part = ByteRange::between(ByteOffset(from), ByteOffset(to));
                bad.extend(part.map(|part| (part, fault)));
            }
        });
        for (part, fault) in bad {
            batch.set_fault(part, fault);
        }
        for piece in batch.filled().flat_map(Filled::pieces) {
            each(piece)?;
        }
        at = stop;
    }
    ControlFlow::Continue(())
}

/// The multiple of `align`, a power of two, at or before `at`.
pub(super) const fn down(at: u64, align: u64) -> u64 {
    at & !align.wrapping_sub(1)
}

/// The part of `room`, which holds what lies from `base` on, that belongs to
/// what lies from `start` to `end`; with the place of its first byte.
pub(super) fn part_of(
    room: &mut [u8],
    base: u64,
    start: u64,
    end: u64,
) -> Option<(u64, &mut [u8])> {
    let room_end = base.checked_add(u64_from(room.len()))?;
    let (from, to) = (start.max(base), end.min(room_end));
    let skip = usize::try_from(from.checked_sub(base)?).ok()?;
    let stop = usize::try_from(to.checked_sub(base)?).ok()?;
    room.get_mut(skip..stop).filter(|part| !part.is_empty()).map(|p| (from, p))
}
