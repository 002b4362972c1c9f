//! Small files of /proc and /sys, read without a heap.

use core::ffi::CStr;

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;

/// Bytes of an attribute that are looked at.
pub(crate) const ATTRIBUTE_BYTES: usize = 512;

/// An attribute of /proc or /sys: what one read gave.
pub(crate) struct Attribute {
    bytes: [u8; ATTRIBUTE_BYTES],
    length: usize,
}

impl Attribute {
    /// The file `name` under `directory`; empty if it cannot be read.
    pub(crate) fn read(directory: impl AsFd, name: &CStr) -> Self {
        let mut attribute = Self { bytes: [0; ATTRIBUTE_BYTES], length: 0 };
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        if let Ok(fd) = openat(directory, name, flags, Mode::empty()) {
            attribute.length = fill(&fd, &mut attribute.bytes);
        }
        attribute
    }

    /// What was read.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    /// As a decimal number.
    pub(crate) fn number(&self) -> Option<u64> {
        super::text::number(self.bytes())
    }

    /// Whether it is the number 1.
    pub(crate) fn is_set(&self) -> bool {
        self.number() == Some(1)
    }
}

/// Reads until `buffer` is full or the file ends; how many bytes.
pub(crate) fn fill(fd: &OwnedFd, buffer: &mut [u8]) -> usize {
    let mut filled = 0_usize;
    while let Some(rest @ [_, ..]) = buffer.get_mut(filled..) {
        match rustix::io::read(fd, rest) {
            Ok(count @ 1..) => filled = filled.saturating_add(count),
            Err(Errno::INTR) => {}
            _ => break,
        }
    }
    filled
}

/// The lines of a file, one after the other.
pub(crate) struct Lines<const SIZE: usize> {
    fd: Option<OwnedFd>,
    buffer: [u8; SIZE],
    /// Where the next line starts.
    start: usize,
    /// Behind the last byte in the buffer.
    end: usize,
    /// The rest of a line that did not fit is being passed over.
    skipping: bool,
}

impl<const SIZE: usize> Lines<SIZE> {
    /// The lines of the file at `path`; none if it cannot be opened.
    pub(crate) fn open(path: &CStr) -> Self {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        Self {
            fd: openat(CWD, path, flags, Mode::empty()).ok(),
            buffer: [0; SIZE],
            start: 0,
            end: 0,
            skipping: false,
        }
    }

    /// The next line without its end; of one longer than the buffer only
    /// its beginning.
    pub(crate) fn next(&mut self) -> Option<&[u8]> {
        loop {
            let held = self.buffer.get(self.start..self.end)?;
            let newline = held.iter().position(|byte| *byte == b'\n');
            let (from, length) = (self.start, held.len());
            if let Some(length) = newline {
                self.start = from.saturating_add(length).saturating_add(1);
                if core::mem::take(&mut self.skipping) {
                    continue;
                }
                return self.line(from, length);
            }
            if length == SIZE || self.skipping {
                self.start = self.end;
                if !core::mem::replace(&mut self.skipping, true) {
                    return self.line(from, length);
                }
            }
            if !self.more() {
                let skipping = core::mem::take(&mut self.skipping);
                let (from, end) = (self.start, self.end);
                self.start = end;
                let length = end.saturating_sub(from);
                return (length > 0 && !skipping)
                    .then(|| self.line(from, length))?;
            }
        }
    }

    fn line(&self, from: usize, length: usize) -> Option<&[u8]> {
        self.buffer.get(from..from.saturating_add(length))
    }

    /// Makes room and reads on; whether there was anything.
    fn more(&mut self) -> bool {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end = self.end.saturating_sub(self.start);
        self.start = 0;
        let (Some(fd), Some(room)) =
            (&self.fd, self.buffer.get_mut(self.end..))
        else {
            return false;
        };
        let count = loop {
            match rustix::io::read(fd, &mut *room) {
                Err(Errno::INTR) => {}
                other => break other.unwrap_or(0),
            }
        };
        self.end = self.end.saturating_add(count);
        count > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CString;
    use std::os::unix::ffi::OsStrExt;

    #[test]
    fn lines_are_found_whatever_the_buffer_and_cut_when_too_long() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let long = "x".repeat(40);
        let text = format!("one\n\ntwo two\n{long}\nthree\n{long}");
        std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
        let path = CString::new(file.path().as_os_str().as_bytes()).unwrap();
        let mut lines = Lines::<16>::open(&path);
        for expected in ["one", "", "two two", &long[..16], "three"] {
            assert_eq!(lines.next(), Some(expected.as_bytes()));
        }
        assert_eq!(lines.next(), Some(&long.as_bytes()[..16]));
        assert_eq!(lines.next(), None);
        assert_eq!(Lines::<16>::open(c"/nonexistent").next(), None);
    }

    #[test]
    fn an_attribute_that_is_not_there_is_empty() {
        assert_eq!(Attribute::read(CWD, c"/nonexistent").bytes(), b"");
        let version = Attribute::read(CWD, c"/proc/sys/kernel/pid_max");
        assert!(version.number().is_some_and(|pids| pids > 100));
    }
}
