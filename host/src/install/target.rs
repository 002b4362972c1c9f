//! What a plan is written to.

use crate::digest::Digest;
use crate::error::Result;
use crate::units::{ByteCount, ByteOffset, ByteRange, u64_from};

/// The smallest unit that a disk writes whole: a torn write is a mixture of
/// old and new ones of these.
pub const SECTOR_BYTES: usize = 512;

fn is_whole(old: &[u8], new: &[u8]) -> bool {
    old.len() == new.len() && new.len().is_multiple_of(SECTOR_BYTES)
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

/// A device that may be written: armed for exactly one plan.
///
/// Faulty targets of the tests wrap this trait.
pub trait WriteTarget {
    /// Reads what the device holds now, not what a cache remembers.
    ///
    /// # Errors
    ///
    /// When the device or the link fails.
    fn read(&mut self, range: ByteRange) -> Result<Vec<u8>>;

    /// The BLAKE3-256 of what the device holds now in each of `ranges`: a
    /// target behind a line has the other end count it. Zeros for a range of
    /// which some cannot be read.
    ///
    /// # Errors
    ///
    /// When the device or the link fails.
    fn digests(&mut self, ranges: &[ByteRange]) -> Result<Vec<Digest>> {
        ranges
            .iter()
            .map(|&range| Ok(*blake3::hash(&self.read(range)?).as_bytes()))
            .collect()
    }

    /// Writes `bytes` at `at` if the device holds there what `old` proves, or
    /// if it holds them already. Writes nothing otherwise.
    ///
    /// # Errors
    ///
    /// When the device or the link fails: nothing is known of the stretch
    /// then.
    fn write(
        &mut self,
        at: ByteOffset,
        bytes: &[u8],
        old: &Digest,
    ) -> Result<Written>;

    /// Writes `new` at `at` if every sector there is one of `old` or of
    /// `new`: an earlier write was cut. A target that can tell also takes a
    /// sector for such a one that cannot be read: so a disk shows a sector
    /// that lost its power while it was written.
    ///
    /// # Errors
    ///
    /// As [`Self::write`].
    fn mend(
        &mut self,
        at: ByteOffset,
        old: &[u8],
        new: &[u8],
    ) -> Result<Written> {
        let length = ByteCount(u64_from(new.len()));
        let range = ByteRange::new(at, length).filter(|_| is_whole(old, new));
        let Some(range) = range else { return Ok(Written::Conflict) };
        let now = self.read(range)?;
        if !is_torn(&now, old, new) {
            return Ok(Written::Conflict);
        }
        self.write(at, new, blake3::hash(&now).as_bytes())
    }

    /// Does what [`Self::write`] does for each of `writes`, which are
    /// disjoint and may be done in any order and at the same time: a target
    /// behind a line keeps the line full. `done` is told how each came out,
    /// by its place in `writes`.
    ///
    /// # Errors
    ///
    /// As [`Self::write`], and what `done` answers: nothing more is begun
    /// then.
    fn write_all(
        &mut self,
        writes: &[Write],
        done: &mut dyn FnMut(usize, Written) -> Result<()>,
    ) -> Result<()> {
        for (index, write) in writes.iter().enumerate() {
            done(index, self.write(write.at, &write.bytes, &write.old)?)?;
        }
        Ok(())
    }

    /// Whether the machine of the device was started anew since this was
    /// asked last: what was not flushed may be lost then, and has to be
    /// written again.
    fn was_restarted(&mut self) -> bool {
        false
    }

    /// Brings everything that was written to the medium.
    ///
    /// # Errors
    ///
    /// When the device or the link fails.
    fn flush(&mut self) -> Result<()>;

    /// All is written and proven: the device is let go.
    ///
    /// # Errors
    ///
    /// When the link fails; nothing is lost by that.
    fn disarm(&mut self) -> Result<()> {
        Ok(())
    }
}

/// One write, for [`WriteTarget::write_all`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Write {
    /// Where.
    pub at: ByteOffset,
    /// What shall lie there: at most 1 MiB.
    pub bytes: Vec<u8>,
    /// The BLAKE3-256 of what must lie there before.
    pub old: Digest,
    /// What that is a digest of: a target behind a line sends only what
    /// differs.
    pub before: Vec<u8>,
}

/// What came of a write.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Written {
    /// The bytes were written.
    Written,
    /// They were there already.
    AlreadyThere,
    /// Something else lies there; nothing was written.
    Conflict,
}
