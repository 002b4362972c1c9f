//! Reading a range of a device, with errors told per sector.
//!
//! A large read is tried first. Where that fails, the same bytes are read
//! again in smaller and smaller pieces, so that a bad sector costs itself
//! only. Nothing is ever tried twice in the same size: a dying disk gives
//! each attempt its own half minute.

use core::sync::atomic::{AtomicU32, Ordering};

use e2wire_agent::device::SectorMap;
use e2wire_protocol::limits::SECTOR_BYTES;
use e2wire_protocol::units::{u64_from, usize_from};
use rustix::io::Errno;

/// The size that a failed read is taken apart to before single sectors: a
/// page, and the physical sector of nearly every disk.
const PIECE_BYTES: usize = 4096;

/// What can be read at an offset: a device, or a test.
pub(crate) trait ReadAt {
    /// Reads up to `buffer.len()` bytes from byte `at`.
    fn read_at(&self, buffer: &mut [u8], at: u64) -> Result<usize, Errno>;
}

/// Where the bytes of a job go and what is told of them.
pub(crate) struct Progress<'a> {
    /// Bytes of the job so far, for whoever watches.
    pub(crate) done: &'a AtomicU32,
    /// One bit for each 512 bytes of the job's buffer.
    pub(crate) unreadable: &'a mut SectorMap,
    /// Where in the job's buffer the next bytes lie.
    pub(crate) position: usize,
}

impl Progress<'_> {
    fn advance(&mut self, count: usize) {
        self.position = self.position.saturating_add(count);
        let done = u32::try_from(self.position).unwrap_or(u32::MAX);
        self.done.store(done, Ordering::Relaxed);
    }

    fn lost(&mut self, count: usize) {
        let first = self.position.wrapping_div(SECTOR_BYTES);
        for sector in 0..count.div_ceil(SECTOR_BYTES) {
            self.unreadable.set(first.saturating_add(sector));
        }
    }
}

/// Fills `buffer` from byte `at` on. What cannot be read becomes zeros and is
/// marked, in units of `sector` bytes (a power of two, at least 512).
///
/// # Errors
///
/// The device as a whole is gone.
pub(crate) fn read_range(
    source: &impl ReadAt,
    at: u64,
    buffer: &mut [u8],
    sector: u32,
    progress: &mut Progress<'_>,
) -> Result<(), Errno> {
    let sector = usize_from(sector).max(SECTOR_BYTES);
    let all = buffer.len().max(1);
    read_pieces(
        source,
        at,
        buffer,
        &[all, PIECE_BYTES.max(sector), sector],
        progress,
    )
}

fn read_pieces(
    source: &impl ReadAt,
    at: u64,
    buffer: &mut [u8],
    sizes: &[usize],
    progress: &mut Progress<'_>,
) -> Result<(), Errno> {
    let Some((size, smaller)) = sizes.split_first() else {
        return Ok(());
    };
    let mut at = at;
    for piece in buffer.chunks_mut((*size).max(1)) {
        match read_full(source, at, piece) {
            Ok(()) => progress.advance(piece.len()),
            Err(error) if is_gone(error) => return Err(error),
            Err(_) => {
                // A smaller size that would try the same again is skipped.
                let skip = smaller
                    .iter()
                    .take_while(|size| **size >= piece.len())
                    .count();
                let smaller = smaller.get(skip..).unwrap_or_default();
                if smaller.is_empty() {
                    piece.fill(0);
                    progress.lost(piece.len());
                    progress.advance(piece.len());
                } else {
                    read_pieces(source, at, piece, smaller, progress)?;
                }
            }
        }
        at = at.saturating_add(u64_from(piece.len()));
    }
    Ok(())
}

fn read_full(
    source: &impl ReadAt,
    at: u64,
    buffer: &mut [u8],
) -> Result<(), Errno> {
    let mut filled = 0_usize;
    while let Some(rest @ [_, ..]) = buffer.get_mut(filled..) {
        let from = at.saturating_add(u64_from(filled));
        match source.read_at(rest, from) {
            // The end, although the device should be longer.
            Ok(0) => return Err(Errno::IO),
            Ok(count) => filled = filled.saturating_add(count),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Whether an error says that no sector can be read any more.
fn is_gone(error: Errno) -> bool {
    matches!(error, Errno::NODEV | Errno::NXIO | Errno::NOMEDIUM | Errno::BADF)
}

#[cfg(test)]
mod tests;
