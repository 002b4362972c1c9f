//! The names of the formats and of their variants.
//!
//! What users choose between; how each is laid out stands in the file of
//! the format.

use std::fmt;
use std::path::Path;

/// The format of an image.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Format {
    /// e2image's own: tables in a compact file that `debugfs -i` and
    /// `dumpe2fs -i` read.
    Normal,
    /// A sparse file as long as the filesystem, each block at its place.
    Raw,
    /// QEMU's copy-on-write format.
    Qcow2,
}

impl Format {
    /// Every format, in the order in which they are listed.
    pub const ALL: [Self; 3] = [Self::Normal, Self::Raw, Self::Qcow2];

    /// The name users type and read.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
        }
    }

    /// The suffixes of a file name that mean this format, without the dot.
    #[must_use]
    pub const fn suffixes(self) -> &'static [&'static str] {
        match self {
            Self::Normal => &["e2i"],
            Self::Raw => &["raw", "img"],
            Self::Qcow2 => &["qcow2"],
        }
    }

    /// The format that the suffix of a file's name stands for, whatever its
    /// case.
    #[must_use]
    pub fn from_suffix(path: &Path) -> Option<Self> {
        let suffix = path.extension()?.to_str()?;
        Self::ALL.into_iter().find(|format| {
            format.suffixes().iter().any(|own| own.eq_ignore_ascii_case(suffix))
        })
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// How the clusters of a qcow2 image are laid out.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Qcow2Layout {
    /// Ours: version 3, no leaks, written in any order.
    #[default]
    Compact,
    /// Byte for byte what e2image writes.
    Classic,
}

/// How the clusters of a qcow2 image are compressed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Qcow2Compression {
    /// Not at all.
    #[default]
    None,
    /// zstd: QEMU 5.1 and later read it.
    Zstd,
    /// Deflate: every QEMU reads it.
    Deflate,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_suffix_decides_whatever_its_case() {
        let cases = [
            ("a/b.e2i", Some(Format::Normal)),
            ("b.RAW", Some(Format::Raw)),
            ("b.x.img", Some(Format::Raw)),
            ("b.QCow2", Some(Format::Qcow2)),
            ("qcow2", None),
            (".img", None),
            ("b.img.", None),
            ("b.qcow", None),
            ("/dev/sda", None),
        ];
        for (path, format) in cases {
            assert_eq!(Format::from_suffix(Path::new(path)), format, "{path}");
        }
    }
}
