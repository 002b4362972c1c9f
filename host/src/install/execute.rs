//! Carries out a plan.
//!
//! Stage by stage, each flushed before the next begins, each write guarded by
//! the digest of what it replaces, everything read back. May be called again
//! with the same plan after a cut at any place: what was written is found to
//! be there already.

use crate::error::{Error, ErrorKind, Result};
use crate::install::target::{Write, WriteTarget, Written};
use crate::observer::{Event, Observer, Phase};
use crate::stop::Stop;
use crate::undo::{Entry, Stage, UndoFile};
use crate::units::{ByteCount, ByteRange};

/// How much is handed to the target at a time.
const BATCH_BYTES_MAX: usize = 4 << 20;
const BATCH_ENTRIES_MAX: usize = 256;

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
        target: &mut *target,
        observer,
        stop,
        total: ByteCount(undo.entries().map(|e| e.range().length().0).sum()),
        done: Executed::default(),
    };
    let done = run.whole();
    // Whatever came of it, another plan need not wait: mostly the one that
    // undoes this. Whoever does not hear of it lets the device go by himself
    // in a while.
    let _told = target.disarm();
    let done = done.map_err(|error| match error.kind() {
        ErrorKind::WriteIncomplete => error,
        _ => {
            let what = "the writing stopped";
            Error::new(ErrorKind::WriteIncomplete, what).because(error)
        }
    })?;
    Ok(done)
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
            let of_stage: Vec<(usize, Entry)> = entries
                .iter()
                .copied()
                .enumerate()
                .filter(|(_, entry)| entry.stage == stage)
                .collect();
            if of_stage.is_empty() {
                continue;
            }
            while let Err(error) = self.stage(&of_stage) {
                // What was not flushed is lost with the power, and only then
                // worth another attempt.
                let lost = error.kind() == ErrorKind::WriteIncomplete;
                if !(lost && self.target.was_restarted()) {
                    return Err(error);
                }
            }
        }
        Ok(self.done)
    }

    /// Writes, flushes and proves one stage.
    fn stage(&mut self, entries: &[(usize, Entry)]) -> Result<()> {
        let batches = batches(entries, |(_, entry)| entry);
        for batch in &batches {
            self.stop.check()?;
            self.write(batch)?;
        }
        self.target.flush()?;
        batches.into_iter().try_for_each(|batch| self.read_back(batch))
    }

    /// Whether an earlier run reached the very end: then the mark must not be
    /// set again.
    fn superblock_is_final(&mut self, entries: &[Entry]) -> Result<bool> {
        let last = entries.iter().find(|e| e.stage == Stage::Superblock);
        let mark = entries.iter().find(|e| e.stage == Stage::Mark);
        let (Some(last), Some(mark)) = (last, mark) else {
            return Ok(false);
        };
        let now = self.target.digests(&[last.range()])?;
        // A plan that leaves the superblock as it was ends as it began.
        Ok(now == [last.new] && mark.old != last.new)
    }

    fn write(&mut self, batch: &[(usize, Entry)]) -> Result<()> {
        let mut writes = Vec::with_capacity(batch.len());
        for (index, entry) in batch {
            let (before, bytes) = self.undo.bytes(*index)?;
            let at = entry.range().start();
            writes.push(Write { at, bytes, old: entry.old, before });
        }
        let (observer, total) = (self.observer, self.total);
        let done = &mut self.done;
        let mut conflicts = Vec::new();
        self.target.write_all(&writes, &mut |place, written| {
            let length = writes.get(place).map_or(0, |w| w.bytes.len() as u64);
            match written {
                Written::Written => done.written.0 += length,
                Written::AlreadyThere => done.found.0 += length,
                Written::Conflict => conflicts.push(place),
            }
            let done = ByteCount(done.written.0 + done.found.0);
            observer.event(&Event::Progress { done, total });
            Ok(())
        })?;
        for (index, entry) in conflicts.iter().filter_map(|&p| batch.get(p)) {
            self.mend_torn(*index, entry)?;
        }
        Ok(())
    }

    /// An earlier write may have been cut: each sector is old or new then.
    fn mend_torn(&mut self, index: usize, entry: &Entry) -> Result<()> {
        let (old, new) = self.undo.bytes(index)?;
        match self.target.mend(entry.range().start(), &old, &new)? {
            Written::Conflict => return Err(conflict(entry)),
            _ => self.done.written.0 += new.len() as u64,
        }
        Ok(())
    }

    fn read_back(&mut self, batch: &[(usize, Entry)]) -> Result<()> {
        let ranges: Vec<ByteRange> =
            batch.iter().map(|(_, entry)| entry.range()).collect();
        let now = self.target.digests(&ranges)?;
        let right = batch.iter().map(|(_, entry)| entry).zip(&now);
        let mut wrong = right.filter(|(entry, now)| entry.new != **now);
        match wrong.next() {
            None if now.len() == batch.len() => Ok(()),
            Some((entry, _)) => Err(not_kept(entry)),
            None => Err(Error::new(
                ErrorKind::Internal,
                "not everything was read back",
            )),
        }
    }
}

/// Cuts a list into what is under way at a time: little enough to hold in
/// memory, and enough to keep a line full.
pub fn batches<T>(list: &[T], entry: impl Fn(&T) -> &Entry) -> Vec<&[T]> {
    let mut all = Vec::new();
    let mut rest = list;
    while !rest.is_empty() {
        let mut bytes = 0;
        let fits = rest.iter().take(BATCH_ENTRIES_MAX).take_while(|item| {
            bytes += entry(item).length();
            bytes <= BATCH_BYTES_MAX
        });
        let (batch, behind) = rest.split_at(fits.count().max(1));
        all.push(batch);
        rest = behind;
    }
    all
}

fn not_kept(entry: &Entry) -> Error {
    Error::new(
        ErrorKind::WriteIncomplete,
        format!(
            "{} bytes at {} ({}) read back as something else than what was \
             written",
            entry.range().length(),
            entry.range().start(),
            entry.kind
        ),
    )
    .hint("the disk does not keep what it is given: undo, and replace it")
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
