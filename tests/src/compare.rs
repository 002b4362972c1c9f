//! Compares files byte by byte without reading their holes twice.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use anyhow::{Context, Result};

/// The first byte at which two files differ; their lengths count.
///
/// # Errors
///
/// When one cannot be read.
pub fn first_difference(left: &Path, right: &Path) -> Result<Option<u64>> {
    let (left, right) = (open(left)?, open(right)?);
    let (mut a, mut b) = (vec![0_u8; 1 << 20], vec![0_u8; 1 << 20]);
    let mut at = 0;
    loop {
        let left_count = fill(&left, &mut a, at)?;
        let right_count = fill(&right, &mut b, at)?;
        let common = left_count.min(right_count);
        if a[..common] != b[..common] {
            let index = a[..common]
                .iter()
                .zip(&b[..common])
                .position(|(x, y)| x != y)
                .unwrap_or(common);
            return Ok(Some(at + u64::try_from(index)?));
        }
        if left_count != right_count {
            return Ok(Some(at + u64::try_from(common)?));
        }
        if common < a.len() {
            return Ok(None);
        }
        at += u64::try_from(common)?;
    }
}

/// Whether everything but zeros in `less` stands at the same place in `more`;
/// else the first block of `block_bytes` that does not.
///
/// # Errors
///
/// When one cannot be read.
pub fn first_missing_block(
    less: &Path,
    more: &Path,
    block_bytes: u32,
) -> Result<Option<u64>> {
    let (less, more) = (open(less)?, open(more)?);
    // A multiple of every block size.
    let (mut a, mut b) = (vec![0_u8; 1 << 20], vec![0_u8; 1 << 20]);
    let block = usize::try_from(block_bytes)?;
    let mut at = 0;
    loop {
        let count = fill(&less, &mut a, at)?;
        b.fill(0);
        fill(&more, &mut b, at)?;
        let pairs = a[..count].chunks(block).zip(b.chunks(block));
        for (index, (left, right)) in pairs.enumerate() {
            let differs = left != &right[..left.len()];
            if differs && left.iter().any(|byte| *byte != 0) {
                let first = at / u64::from(block_bytes);
                return Ok(Some(first + u64::try_from(index)?));
            }
        }
        if count < a.len() {
            return Ok(None);
        }
        at += u64::try_from(count)?;
    }
}

fn open(path: &Path) -> Result<File> {
    File::open(path).with_context(|| path.display().to_string())
}

/// Reads until `buffer` is full or the file ends.
fn fill(file: &File, buffer: &mut [u8], at: u64) -> Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        let count =
            file.read_at(&mut buffer[done..], at + u64::try_from(done)?)?;
        if count == 0 {
            break;
        }
        done += count;
    }
    Ok(done)
}
