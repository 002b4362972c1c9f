//! What makes the bytes that shall lie somewhere of those that do.
//!
//! Both sides know the old bytes: the host kept them, the agent has read and
//! proven them. So only what differs is sent. A patch is a sequence of runs
//! that together cover all bytes, each a varint `length << 2 | kind`:
//!
//! - kind 0, keep: the bytes stay as they are;
//! - kind 1, data: `length` bytes follow;
//! - kind 2, zero: the bytes become zeros.

use core::fmt;

use crate::message::{VARINT_BYTES_MAX, put_varint, take_varint};
use crate::units::usize_from;

/// Equal bytes between two differing ones that are worth a run of their own:
/// it costs one byte, and the one behind it up to three.
const KEEP_MIN: usize = 5;

/// Zeros between other data that are worth a run of their own.
const ZEROS_MIN: usize = 8;

#[derive(Clone, Copy, Eq, PartialEq)]
enum Kind {
    Keep,
    Data,
    Zero,
}

impl Kind {
    const fn bits(self) -> u32 {
        match self {
            Self::Keep => 0,
            Self::Data => 1,
            Self::Zero => 2,
        }
    }
}

/// A patch is none, or does not fit the bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BadPatch;

impl fmt::Display for BadPatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a patch does not follow its format")
    }
}

impl core::error::Error for BadPatch {}

/// Writes into `out` what makes `new` of `old`; its length. `None` when they
/// differ in length or `out` is too short:
/// [`PATCH_BYTES_MAX`](crate::limits::PATCH_BYTES_MAX) is enough for a write.
pub fn write(old: &[u8], new: &[u8], out: &mut [u8]) -> Option<usize> {
    if old.len() != new.len() {
        return None;
    }
    let mut out = Out { bytes: out, length: 0 };
    let mut at = 0_usize;
    while at < new.len() {
        let same = equal_length(old.get(at..)?, new.get(at..)?);
        if same > 0 {
            out.run(Kind::Keep, same, &[])?;
            at = at.checked_add(same)?;
            continue;
        }
        let differs = differing_length(old.get(at..)?, new.get(at..)?);
        let end = at.checked_add(differs)?;
        out.changed(new.get(at..end)?)?;
        at = end;
    }
    Some(out.length)
}

/// Makes of the old bytes in `bytes` the new ones.
///
/// # Errors
///
/// When the patch is none, or not one for so many bytes. The bytes are
/// worthless then.
pub fn apply(patch: &[u8], bytes: &mut [u8]) -> Result<(), BadPatch> {
    let mut patch = patch;
    let mut rest = bytes;
    while !patch.is_empty() {
        let head = take_varint(&mut patch).ok_or(BadPatch)?;
        let length = usize_from(head.wrapping_shr(2));
        let (run, behind) = core::mem::take(&mut rest)
            .split_at_mut_checked(length)
            .filter(|_| length > 0)
            .ok_or(BadPatch)?;
        match head & 3 {
            0 => {}
            1 => {
                let (data, more) =
                    patch.split_at_checked(length).ok_or(BadPatch)?;
                run.copy_from_slice(data);
                patch = more;
            }
            2 => run.fill(0),
            _ => return Err(BadPatch),
        }
        rest = behind;
    }
    if rest.is_empty() { Ok(()) } else { Err(BadPatch) }
}

/// How many bytes at the front are equal.
fn equal_length(old: &[u8], new: &[u8]) -> usize {
    old.iter().zip(new).take_while(|(old, new)| old == new).count()
}

/// How many bytes at the front are better sent: up to the first equal ones
/// that are worth keeping.
fn differing_length(old: &[u8], new: &[u8]) -> usize {
    let mut equal = 0_usize;
    for (at, (old, new)) in (1_usize..).zip(old.iter().zip(new)) {
        equal = if old == new { equal.saturating_add(1) } else { 0 };
        if equal == KEEP_MIN {
            return at.saturating_sub(equal);
        }
    }
    new.len().saturating_sub(equal)
}

struct Out<'a> {
    bytes: &'a mut [u8],
    length: usize,
}

impl Out<'_> {
    /// Bytes that differ, the zeros among them told as such.
    fn changed(&mut self, new: &[u8]) -> Option<()> {
        let mut rest = new;
        while !rest.is_empty() {
            let zeros = rest.iter().take_while(|byte| **byte == 0).count();
            if zeros >= ZEROS_MIN || zeros == rest.len() {
                self.run(Kind::Zero, zeros, &[])?;
                rest = rest.get(zeros..)?;
                continue;
            }
            let data = data_length(rest);
            let (now, behind) = rest.split_at_checked(data)?;
            self.run(Kind::Data, data, now)?;
            rest = behind;
        }
        Some(())
    }

    fn run(&mut self, kind: Kind, length: usize, data: &[u8]) -> Option<()> {
        let head = u32::try_from(length).ok()?.checked_mul(4)? | kind.bits();
        let mut buffer = [0; VARINT_BYTES_MAX];
        self.push(put_varint(head, &mut buffer))?;
        self.push(data)
    }

    fn push(&mut self, bytes: &[u8]) -> Option<()> {
        let end = self.length.checked_add(bytes.len())?;
        self.bytes.get_mut(self.length..end)?.copy_from_slice(bytes);
        self.length = end;
        Some(())
    }
}

/// How many bytes at the front come before zeros that are worth a run; the
/// front itself is no such zero.
fn data_length(bytes: &[u8]) -> usize {
    let mut zeros = 0_usize;
    for (at, byte) in (1_usize..).zip(bytes) {
        zeros = if *byte == 0 { zeros.saturating_add(1) } else { 0 };
        if zeros == ZEROS_MIN {
            return at.saturating_sub(zeros).max(1);
        }
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;
    use crate::limits::{CHUNK_BYTES_MAX, PATCH_BYTES_MAX};

    fn patch(old: &[u8], new: &[u8]) -> Vec<u8> {
        let mut out = vec![0; PATCH_BYTES_MAX];
        let length = write(old, new, &mut out).unwrap();
        out.truncate(length);
        out
    }

    fn patched(patch: &[u8], old: &[u8]) -> Vec<u8> {
        let mut bytes = old.to_vec();
        apply(patch, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn a_few_changed_bytes_cost_a_few_bytes() {
        let old: Vec<u8> = (0..=255).cycle().take(4096).collect();
        let mut new = old.clone();
        new[100..104].copy_from_slice(&[9; 4]);
        new[106] = 9;
        new[3000..3100].fill(0);
        let patch = patch(&old, &new);
        assert!(patch.len() < 24, "{}", patch.len());
        assert_eq!(patched(&patch, &old), new);
    }

    #[test]
    fn the_bytes_are_these_for_ever() {
        let old = [1; 40];
        let mut new = [1; 40];
        new[2..4].copy_from_slice(&[7, 8]);
        new[20..30].fill(0);
        let patch = patch(&old, &new);
        assert_eq!(patch, [8, 9, 7, 8, 64, 42, 40]);
        assert_eq!(patched(&patch, &old), new);
    }

    #[test]
    fn the_worst_of_all_changes_fits() {
        let old = vec![0; CHUNK_BYTES_MAX];
        for gap in [1, 4, 5, 6, 8, 9, 40] {
            let new: Vec<u8> = (0..CHUNK_BYTES_MAX)
                .map(|at| u8::from(at % (gap + 1) == 0))
                .collect();
            let patch = patch(&old, &new);
            assert!(patched(&patch, &old) == new);
        }
        let new: Vec<u8> = vec![255; CHUNK_BYTES_MAX];
        assert!(patch(&old, &new).len() <= CHUNK_BYTES_MAX + 4);
        assert!(patch(&new, &old).len() <= 4);
    }

    #[test]
    fn what_is_no_patch_is_refused() {
        for patch in [
            &[][..],
            &[4],
            &[0, 16],
            &[15, 0, 0],
            &[17, 1, 2, 3],
            &[17, 1, 2, 3, 4, 5],
            &[20],
            &[16, 16],
            &[0xff, 0xff, 0xff, 0xff, 0xff],
        ] {
            assert_eq!(apply(patch, &mut [0; 4]), Err(BadPatch), "{patch:?}");
        }
        assert_eq!(apply(&[16], &mut [0; 4]), Ok(()));
        assert_eq!(write(&[1], &[], &mut [0; 9]), None);
        assert_eq!(write(&[1; 9], &[2; 9], &mut [0; 9]), None);
    }

    proptest! {
        #[test]
        fn any_change_comes_through(
            pairs in prop::collection::vec((0_u8..3, 0_u8..3), 0..2000),
        ) {
            let (old, new): (Vec<u8>, Vec<u8>) = pairs.into_iter().unzip();
            let patch = patch(&old, &new);
            prop_assert!(patch.len() <= new.len().saturating_add(8));
            prop_assert_eq!(patched(&patch, &old), new);
        }

        #[test]
        fn no_bytes_upset_the_reader(
            patch in prop::collection::vec(any::<u8>(), 0..50),
            length in 0_usize..200,
        ) {
            let _fits = apply(&patch, &mut vec![0; length]);
        }
    }
}
