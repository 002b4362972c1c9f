//! Reading single fields out of bytes that may be too short or nonsense.

/// The `N` bytes at `at`.
pub(super) fn array<const N: usize>(
    bytes: &[u8],
    at: usize,
) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

pub(super) fn le16(bytes: &[u8], at: usize) -> Option<u16> {
    array(bytes, at).map(u16::from_le_bytes)
}

pub(super) fn le32(bytes: &[u8], at: usize) -> Option<u32> {
    array(bytes, at).map(u32::from_le_bytes)
}

pub(super) fn le64(bytes: &[u8], at: usize) -> Option<u64> {
    array(bytes, at).map(u64::from_le_bytes)
}

pub(super) fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    array(bytes, at).map(u16::from_be_bytes)
}

pub(super) fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    array(bytes, at).map(u32::from_be_bytes)
}

pub(super) fn be64(bytes: &[u8], at: usize) -> Option<u64> {
    array(bytes, at).map(u64::from_be_bytes)
}

/// Whether `magic` stands at `at`.
pub(super) fn has(bytes: &[u8], at: usize, magic: &[u8]) -> bool {
    bytes.get(at..).is_some_and(|rest| rest.starts_with(magic))
}

/// The text of a field that ends in zeros or spaces; none when empty.
pub(super) fn text(bytes: &[u8], at: usize, length: usize) -> Option<String> {
    let field = bytes.get(at..at.checked_add(length)?)?;
    let end = field.iter().position(|&byte| byte == 0).unwrap_or(length);
    let field = field.get(..end)?.trim_ascii_end();
    (!field.is_empty()).then(|| crate::text::from_bytes(field))
}

/// A UUID in the usual form; none when all zero.
pub(super) fn uuid(bytes: &[u8], at: usize) -> Option<String> {
    let raw: [u8; 16] = array(bytes, at)?;
    (raw != [0; 16]).then(|| {
        let [a, b, c, d] = [
            be32(&raw, 0),
            be16(&raw, 4).map(u32::from),
            be16(&raw, 6).map(u32::from),
            be16(&raw, 8).map(u32::from),
        ]
        .map(Option::unwrap_or_default);
        let low = be64(&raw, 8).unwrap_or_default() & 0xffff_ffff_ffff;
        format!("{a:08x}-{b:04x}-{c:04x}-{d:04x}-{low:012x}")
    })
}

/// A GUID as Microsoft stores it, the first three fields little-endian; none
/// when all zero.
pub(super) fn guid(bytes: &[u8], at: usize) -> Option<String> {
    let mut raw: [u8; 16] = array(bytes, at)?;
    let (first, rest) = raw.split_at_mut(4);
    first.reverse();
    let (second, rest) = rest.split_at_mut(2);
    second.reverse();
    let (third, _) = rest.split_at_mut(2);
    third.reverse();
    uuid(&raw, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_beyond_the_end_are_missing() {
        let bytes = [1, 2, 3, 4];
        assert_eq!(le32(&bytes, 0), Some(0x0403_0201));
        assert_eq!(be16(&bytes, 2), Some(0x0304));
        assert_eq!(le32(&bytes, 1), None);
        assert_eq!(le64(&bytes, usize::MAX), None);
        assert_eq!(text(b"ab  ", 0, 4).as_deref(), Some("ab"));
        assert_eq!(text(b"a\0xx", 0, 4).as_deref(), Some("a"));
        assert_eq!(text(b"    ", 0, 4), None);
        assert!(!has(b"abc", 9, b"a"));
    }

    #[test]
    fn identities_are_written_as_their_tools_write_them() {
        let bytes: Vec<u8> = (1..=16).collect();
        assert_eq!(
            uuid(&bytes, 0).as_deref(),
            Some("01020304-0506-0708-090a-0b0c0d0e0f10")
        );
        assert_eq!(
            guid(&bytes, 0).as_deref(),
            Some("04030201-0605-0807-090a-0b0c0d0e0f10")
        );
        assert_eq!(uuid(&[0; 16], 0), None);
    }
}
