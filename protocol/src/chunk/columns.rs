//! Bodies in columns: records of one length lie in rows, and what is alike
//! stands in the same place of each. Column by column, a compressor finds it.
//!
//! Rows are counted from the end of the body: its beginning, the layout,
//! belongs to no record. What is left there, shorter than a row, stays where
//! it is.

/// Writes `body` to `out`, of the same length, with the bytes of each column
/// of its rows of `stride` bytes one behind the other. `None` when the
/// lengths differ or there are no rows.
#[must_use]
pub fn to_columns(body: &[u8], stride: u16, out: &mut [u8]) -> Option<()> {
    let (head, rows, columns) = parted(body, stride, out)?;
    let stride = usize::from(stride);
    head.1.copy_from_slice(head.0);
    let count = rows.len().checked_div(stride)?;
    for (column, place) in columns.chunks_exact_mut(count).enumerate() {
        let bytes = rows.iter().skip(column).step_by(stride);
        for (to, byte) in place.iter_mut().zip(bytes) {
            *to = *byte;
        }
    }
    Some(())
}

/// Undoes [`to_columns`].
#[must_use]
pub fn from_columns(body: &[u8], stride: u16, out: &mut [u8]) -> Option<()> {
    let (head, columns, rows) = parted(body, stride, out)?;
    let stride = usize::from(stride);
    head.1.copy_from_slice(head.0);
    let count = columns.len().checked_div(stride)?;
    for (column, bytes) in columns.chunks_exact(count).enumerate() {
        let places = rows.iter_mut().skip(column).step_by(stride);
        for (to, byte) in places.zip(bytes) {
            *to = *byte;
        }
    }
    Some(())
}

type Parts<'b, 'o> = ((&'b [u8], &'o mut [u8]), &'b [u8], &'o mut [u8]);

/// Both heads, and what is in rows or columns.
fn parted<'b, 'o>(
    body: &'b [u8],
    stride: u16,
    out: &'o mut [u8],
) -> Option<Parts<'b, 'o>> {
    let head = body.len().checked_rem(usize::from(stride))?;
    if out.len() != body.len() || body.len() == head {
        return None;
    }
    let (head_from, from) = body.split_at_checked(head)?;
    let (head_to, to) = out.split_at_mut_checked(head)?;
    Some(((head_from, head_to), from, to))
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec;

    use super::*;

    #[test]
    fn columns_are_counted_from_the_end() {
        let mut out = [0; 7];
        to_columns(b"ha1b2c3", 2, &mut out).unwrap();
        assert_eq!(&out, b"habc123");
        let mut back = [0; 7];
        from_columns(&out, 2, &mut back).unwrap();
        assert_eq!(&back, b"ha1b2c3");
    }

    #[test]
    fn every_body_comes_back() {
        for length in [1_usize, 5, 256, 257, 511, 512, 5000] {
            let body: vec::Vec<u8> =
                (0..length).map(|i| u8::try_from(i % 251).unwrap()).collect();
            for stride in [1_u16, 2, 3, 128, 256, 5000] {
                let mut columns = vec![0; length];
                let mut back = vec![0; length];
                let done = to_columns(&body, stride, &mut columns);
                assert_eq!(done.is_some(), length >= usize::from(stride));
                let undone = from_columns(&columns, stride, &mut back);
                assert_eq!(undone, done);
                assert!(done.is_none() || back == body, "{length} {stride}");
            }
        }
    }

    #[test]
    fn what_has_no_rows_is_refused() {
        let mut out = [0; 4];
        assert_eq!(to_columns(b"abcd", 0, &mut out), None);
        assert_eq!(to_columns(b"abcd", 5, &mut out), None);
        assert_eq!(to_columns(b"abc", 1, &mut out), None);
        assert_eq!(from_columns(b"abcd", 0, &mut out), None);
        assert_eq!(from_columns(b"", 3, &mut []), None);
    }
}
