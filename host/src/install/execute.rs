//! Carries out a plan.
//!
//! Stage by stage, each flushed before the next begins, each write guarded by
//! the digest of what it replaces, everything read back. May be called again
//! with the same plan after a cut at any place: what was written is found to
//! be there already.

use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};
use crate::install::target::{WriteTarget, Written};
use crate::observer::{Event, Observer, Phase};
use crate::stop::Stop;
use crate::undo::{Entry, Stage, UndoFile};
use crate::units::ByteCount;

/// The smallest unit that a disk writes whole: a torn write is a mixture of
/// old and new ones of these.
const SECTOR_BYTES: usize = 512;

/// What was done.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Executed {
    /// Bytes that were written now.
    pub written: ByteCount,
    /// Bytes that lay there already: an earlier run wrote them.
    pub found: ByteCount,
}

/// Carries out the plan in `undo`, which is sealed and on the disk.
///
/// # Errors
///
/// [`ErrorKind::WriteIncomplete`] when it stops half-way: something else
/// lies where the plan writes, the device or the link failed, or the user
/// asked to stop. Nothing outside the plan was changed.
pub fn execute(
    undo: &UndoFile,
    target: &mut dyn WriteTarget,
    observer: &dyn Observer,
    stop: &Stop,
) -> Result<Executed> {
    let mut run = Run {
        undo,
        target,
        observer,
        stop,
        total: ByteCount(undo.entries().map(|e| e.range().length().0).sum()),
        done: Executed::default(),
    };
    run.whole().map_err(|error| match error.kind() {
        ErrorKind::WriteIncomplete => error,
        _ => Error::new(ErrorKind::WriteIncomplete, "the writing stopped")
            .because(error),
    })
}

struct Run<'a> {
    undo: &'a UndoFile,
    target: &'a mut dyn WriteTarget,
    observer: &'a dyn Observer,
    stop: &'a Stop,
    total: ByteCount,
    done: Executed,
}

impl Run<'_> {
    fn whole(&mut self) -> Result<Executed> {
        self.observer.event(&Event::Phase(Phase::Write));
        let entries: Vec<Entry> = self.undo.entries().copied().collect();
        let complete = self.superblock_is_final(&entries)?;
        for stage in Stage::ALL {
            if complete && stage == Stage::Mark {
                continue;
            }
            let of_stage = || {
                let numbered = entries.iter().enumerate();
                numbered.filter(move |(_, entry)| entry.stage == stage)
            };
            for (index, entry) in of_stage() {
                self.stop.check()?;
                self.write(index, entry)?;
            }
            if of_stage().next().is_none() {
                continue;
            }
            self.target.flush()?;
            for (_, entry) in of_stage() {
                self.read_back(entry)?;
            }
        }
        Ok(self.done)
    }

    /// Whether an earlier run reached the very end: then the mark must not be
    /// set again.
    fn superblock_is_final(&mut self, entries: &[Entry]) -> Result<bool> {
        let last = entries.iter().find(|e| e.stage == Stage::Superblock);
        let mark = entries.iter().find(|e| e.stage == Stage::Mark);
        let (Some(last), Some(mark)) = (last, mark) else {
            return Ok(false);
        };
        let now = digest(&self.target.read(last.range())?);
        // A plan that leaves the superblock as it was ends as it began.
        Ok(now == last.new && mark.old != last.new)
    }

    fn write(&mut self, index: usize, entry: &Entry) -> Result<()> {
        let (old, new) = self.undo.bytes(index)?;
        let at = entry.range().start();
        match self.target.write(at, &new, &entry.old)? {
            Written::Written => self.done.written.0 += new.len() as u64,
            Written::AlreadyThere => self.done.found.0 += new.len() as u64,
            Written::Conflict => {
                let now = self.target.read(entry.range())?;
                if !is_torn(&now, &old, &new) {
                    return Err(conflict(entry));
                }
                // Each sector is old or new: an earlier write was cut.
                match self.target.write(at, &new, &digest(&now))? {
                    Written::Conflict => return Err(conflict(entry)),
                    _ => self.done.written.0 += new.len() as u64,
                }
            }
        }
        let done = self.done.written.0 + self.done.found.0;
        self.observer.event(&Event::Progress {
            done: ByteCount(done),
            total: self.total,
        });
        Ok(())
    }

    fn read_back(&mut self, entry: &Entry) -> Result<()> {
        let now = self.target.read(entry.range())?;
        if digest(&now) == entry.new {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::WriteIncomplete,
            format!(
                "{} bytes at {} ({}) read back as something else than what \
                 was written",
                entry.range().length(),
                entry.range().start(),
                entry.kind
            ),
        )
        .hint("the disk does not keep what it is given: undo, and replace it"))
    }
}

/// Whether every sector of `now` is either the old or the new one.
fn is_torn(now: &[u8], old: &[u8], new: &[u8]) -> bool {
    let sides = old.chunks(SECTOR_BYTES).zip(new.chunks(SECTOR_BYTES));
    now.len() == old.len()
        && now
            .chunks(SECTOR_BYTES)
            .zip(sides)
            .all(|(now, (old, new))| now == old || now == new)
}

fn digest(bytes: &[u8]) -> Digest {
    *blake3::hash(bytes).as_bytes()
}

fn conflict(entry: &Entry) -> Error {
    Error::new(
        ErrorKind::WriteIncomplete,
        format!(
            "{} bytes at {} ({}) are neither what the plan replaces nor what \
             it writes",
            entry.range().length(),
            entry.range().start(),
            entry.kind
        ),
    )
    .intact("nothing was written there")
    .hint("somebody else writes to this device: find out who, then undo")
}

#[cfg(test)]
mod tests;
