//! Reading a stretch whole, or not at all.

use crate::batch::Batch;
use crate::error::{Error, ErrorKind, Result};
use crate::source::BlockSource;
use crate::units::ByteRange;

/// All bytes of `range`, which is short.
///
/// # Errors
///
/// [`ErrorKind::Refused`] when any of them cannot be read: what is not known
/// can be neither saved nor written.
pub(in crate::commands) fn read_bytes(
    source: &dyn BlockSource,
    range: ByteRange,
) -> Result<Vec<u8>> {
    let mut batch = Batch::default();
    source.read_batch(&[range], &mut batch)?;
    let filled = batch.filled().next();
    let filled = filled.ok_or_else(|| {
        Error::new(ErrorKind::Internal, "a read without an answer")
    })?;
    if let Some((bad, fault)) = filled.faults.first() {
        return Err(Error::new(
            ErrorKind::Refused,
            format!(
                "{}: {} bytes at {} cannot be read ({fault})",
                source.facts().name,
                bad.length(),
                bad.start()
            ),
        )
        .intact("nothing was written")
        .hint(
            "leave out what lies there: --only, --groups; a bad sector of \
             the device cannot be saved, so it is not written either",
        ));
    }
    Ok(filled.bytes.to_vec())
}

/// The bytes of the ranges that differ from what is wanted there: `None` for
/// each range that the source says is the same. The far end of a line looks
/// first, so that equal bytes never cross it.
pub(in crate::commands) fn same_or_read(
    source: &dyn BlockSource,
    wanted: &[(ByteRange, &[u8])],
) -> Result<Vec<Option<Vec<u8>>>> {
    let asked: Vec<_> = wanted
        .iter()
        .map(|(range, bytes)| (*range, *blake3::hash(bytes).as_bytes()))
        .collect();
    let differing = source.differing(&asked)?;
    wanted
        .iter()
        .map(|(range, _)| match differing.contains(range) {
            true => read_bytes(source, *range).map(Some),
            false => Ok(None),
        })
        .collect()
}
