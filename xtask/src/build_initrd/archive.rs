//! The cpio archive (newc, the form that the kernel unpacks) and its bytes:
//! same entries in, same bytes out. Inode numbers count up in the order of
//! addition, every time stamp is 0, everything belongs to root.
//!
//! What belongs into the archive is decided elsewhere.

use std::io::Write as _;

use anyhow::{Context as _, Result, ensure};
use cpio::newc;

const S_IFDIR: u32 = 0o040_000;
const S_IFCHR: u32 = 0o020_000;
const S_IFREG: u32 = 0o100_000;
const S_IFLNK: u32 = 0o120_000;

/// The kernel's PATH_MAX less the terminating NUL: it skips longer names
/// without a word.
const NAME_LENGTH_MAX: usize = 4095;

/// One thing in the archive. Paths are relative to the root of the
/// initramfs, without a leading slash.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Entry {
    /// Where it goes.
    pub(crate) path: String,
    /// Permission bits.
    pub(crate) mode: u32,
    /// What it is.
    pub(crate) node: Node,
}

/// What an entry is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Node {
    /// A directory.
    Directory,
    /// A regular file's bytes.
    File(Vec<u8>),
    /// A symbolic link and where it points.
    Symlink(String),
    /// A character device: major and minor number.
    CharacterDevice(u32, u32),
}

impl Entry {
    /// A directory that everyone may read.
    pub(crate) fn directory(path: &str) -> Self {
        Self { path: path.to_owned(), mode: 0o755, node: Node::Directory }
    }

    /// A file with the given permission bits.
    pub(crate) fn file(path: &str, mode: u32, bytes: Vec<u8>) -> Self {
        Self { path: path.to_owned(), mode, node: Node::File(bytes) }
    }

    /// A symbolic link.
    pub(crate) fn symlink(path: &str, target: &str) -> Self {
        let node = Node::Symlink(target.to_owned());
        Self { path: path.to_owned(), mode: 0o777, node }
    }

    /// A character device that only root may use.
    pub(crate) fn device(path: &str, major: u32, minor: u32) -> Self {
        let node = Node::CharacterDevice(major, minor);
        Self { path: path.to_owned(), mode: 0o600, node }
    }
}

/// The archive of `entries`, uncompressed.
///
/// # Errors
///
/// A path that the kernel would not unpack, or a file of 4 GiB or more.
pub(crate) fn newc_archive(entries: &[Entry]) -> Result<Vec<u8>> {
    let mut archive = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        ensure!(
            !entry.path.is_empty()
                && !entry.path.starts_with('/')
                && !entry.path.contains('\0')
                && entry.path.len() <= NAME_LENGTH_MAX
                && entry.path != "TRAILER!!!",
            "{:?} cannot be the name of a file in an initrd",
            entry.path
        );
        let nothing: &[u8] = &[];
        let (type_bits, bytes, rdev) = match &entry.node {
            Node::Directory => (S_IFDIR, nothing, (0, 0)),
            Node::File(bytes) => (S_IFREG, bytes.as_slice(), (0, 0)),
            Node::Symlink(target) => (S_IFLNK, target.as_bytes(), (0, 0)),
            Node::CharacterDevice(major, minor) => {
                (S_IFCHR, nothing, (*major, *minor))
            }
        };
        let size = u32::try_from(bytes.len())
            .with_context(|| format!("{} is 4 GiB or more", entry.path))?;
        let inode = u32::try_from(index)
            .ok()
            .and_then(|index| index.checked_add(1))
            .context("too many files for one initrd")?;
        let mut file = newc::Builder::new(&entry.path)
            .ino(inode)
            .mode(type_bits | entry.mode)
            .nlink(if entry.node == Node::Directory { 2 } else { 1 })
            .rdev_major(rdev.0)
            .rdev_minor(rdev.1)
            .write(&mut archive, size);
        file.write_all(bytes)?;
        file.finish()?;
    }
    newc::trailer(&mut archive)?;
    Ok(archive)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn sample() -> Vec<Entry> {
        vec![
            Entry::directory("dev"),
            Entry::device("dev/console", 5, 1),
            Entry::file("e2wire-agent", 0o755, vec![7; 4097]),
            Entry::symlink("init", "e2wire-agent"),
            Entry::file("e2wire/empty", 0o644, Vec::new()),
        ]
    }

    #[test]
    fn every_entry_comes_back_as_it_went_in() {
        let archive = newc_archive(&sample()).unwrap();
        let mut rest = archive.as_slice();
        let mut inodes = Vec::new();
        for expected in sample() {
            let mut reader = newc::Reader::new(rest).unwrap();
            let entry = reader.entry().clone();
            assert_eq!(entry.name(), expected.path);
            assert_eq!(entry.mtime(), 0);
            assert_eq!((entry.uid(), entry.gid()), (0, 0));
            assert_eq!(entry.mode() & 0o7777, expected.mode);
            inodes.push(entry.ino());
            let mut bytes = Vec::new();
            reader.read_to_end(&mut bytes).unwrap();
            match expected.node {
                Node::File(content) => assert_eq!(bytes, content),
                Node::Symlink(to) => assert_eq!(bytes, to.as_bytes()),
                Node::CharacterDevice(major, minor) => {
                    let device = (entry.rdev_major(), entry.rdev_minor());
                    assert_eq!(device, (major, minor));
                }
                Node::Directory => assert!(bytes.is_empty()),
            }
            rest = reader.finish().unwrap();
        }
        assert_eq!(inodes, [1, 2, 3, 4, 5]);
        assert!(newc::Reader::new(rest).unwrap().entry().is_trailer());
    }

    #[test]
    fn the_same_entries_give_the_same_bytes() {
        let first = newc_archive(&sample()).unwrap();
        assert_eq!(first, newc_archive(&sample()).unwrap());
    }

    #[test]
    fn a_name_that_the_kernel_would_not_unpack_is_refused() {
        for name in ["", "/init", "TRAILER!!!", "a\0b", &"x".repeat(4096)] {
            let entry = Entry::directory(name);
            assert!(newc_archive(&[entry]).is_err(), "{name:?}");
        }
    }
}
