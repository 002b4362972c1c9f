//! Paths and other short texts without a heap.

use core::ffi::CStr;
use core::fmt;

/// Bytes of a path, with the null byte at its end. A longer one is refused,
/// never cut: it would name something else.
const PATH_BYTES: usize = 512;

/// A path that fits on the stack, ready for the kernel.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(crate) struct Path {
    /// Ends in at least one null byte and holds none before.
    bytes: [u8; PATH_BYTES],
    length: usize,
}

impl Path {
    /// The empty path.
    pub(crate) const fn new() -> Self {
        Self { bytes: [0; PATH_BYTES], length: 0 }
    }

    /// The `parts` one behind the other, unless that is too long or holds a
    /// null byte.
    pub(crate) fn from_parts(parts: &[&[u8]]) -> Option<Self> {
        let mut path = Self::new();
        parts.iter().all(|part| path.push(part)).then_some(path)
    }

    /// Appends `part`; false, and nothing changed, if that cannot be.
    pub(crate) fn push(&mut self, part: &[u8]) -> bool {
        let end = self.length.saturating_add(part.len());
        if end >= PATH_BYTES || part.contains(&0) {
            return false;
        }
        let Some(place) = self.bytes.get_mut(self.length..end) else {
            return false;
        };
        place.copy_from_slice(part);
        self.length = end;
        true
    }

    /// The path without its null byte.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    /// As the kernel takes it.
    pub(crate) fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.bytes).unwrap_or(c"")
    }
}

impl fmt::Debug for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_c_str().fmt(f)
    }
}

/// As many bytes of `bytes` as are UTF-8 text without control characters and
/// fit `limit`, without the white space around them.
pub(crate) fn clean(bytes: &[u8], limit: usize) -> &str {
    let valid = match core::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => bytes
            .get(..error.valid_up_to())
            .and_then(|valid| core::str::from_utf8(valid).ok())
            .unwrap_or_default(),
    };
    let blank = |c: char| c.is_whitespace() || c == '\0';
    let valid = valid.trim_matches(blank);
    let end = valid.find(|c: char| c.is_control()).unwrap_or(valid.len());
    let end = valid.floor_char_boundary(end.min(limit));
    valid.get(..end).unwrap_or_default().trim_end_matches(blank)
}

/// The decimal number that `bytes` are, apart from white space around it.
pub(crate) fn number(bytes: &[u8]) -> Option<u64> {
    let text = core::str::from_utf8(bytes).ok()?;
    text.trim_matches(|c: char| c.is_whitespace() || c == '\0').parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_does_not_fit_is_refused_whole() {
        let long = [b'x'; PATH_BYTES];
        assert!(Path::from_parts(&[b"/dev/", &long]).is_none());
        assert!(Path::from_parts(&[b"a\0b"]).is_none());
        let longest = Path::from_parts(&[&long[1..]]).unwrap();
        assert_eq!(longest.as_c_str().to_bytes(), &long[1..]);
        let path = Path::from_parts(&[b"/sys/", b"block"]).unwrap();
        assert_eq!(path.as_c_str(), c"/sys/block");
    }

    #[test]
    fn what_a_device_calls_itself_is_cleaned() {
        for (bytes, limit, expected) in [
            (&b"  QEMU HARDDISK   \n"[..], 64, "QEMU HARDDISK"),
            (b"abc\0\0\0", 64, "abc"),
            (b"abc\x1b[2Jdef", 64, "abc"),
            (b"abcdef", 3, "abc"),
            (b"ab\xff\xfe", 64, "ab"),
            ("aäöü".as_bytes(), 4, "aä"),
            (b"", 64, ""),
        ] {
            assert_eq!(clean(bytes, limit), expected);
        }
    }

    #[test]
    fn numbers_are_whole_or_nothing() {
        assert_eq!(number(b" 4096\n"), Some(4096));
        assert_eq!(number(b"4096x"), None);
        assert_eq!(number(b""), None);
        assert_eq!(number(b"99999999999999999999"), None);
    }
}
