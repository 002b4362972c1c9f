//! How single values are read: sizes, blocks, names of choices.

use std::ops::RangeInclusive;
use std::time::Duration;

use clap::ValueEnum;
use clap::builder::PossibleValue;

use crate::commands::agent_log::LogLevel;
use crate::commands::install::InodeChoice;
use crate::ext::{BlockKind, JournalMode, Selection};
use crate::image::format::{Format, Qcow2Compression, Qcow2Layout};
use crate::units::{BlockNumber, BlockSize, ByteOffset};

/// A number of bytes: digits, then perhaps `K`, `M`, `G` or `T` for powers
/// of 1,024, or `s` for sectors of 512 bytes.
pub(super) fn bytes(text: &str) -> Result<u64, String> {
    let digits_end =
        text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(digits_end);
    let factor: u64 = match unit {
        "" | "B" => 1,
        "s" => 512,
        "k" | "K" | "KiB" => 1 << 10,
        "M" | "MiB" => 1 << 20,
        "G" | "GiB" => 1 << 30,
        "T" | "TiB" => 1 << 40,
        _ => {
            return Err("expected a number of bytes, perhaps with K, M, G, T \
                 (powers of 1024) or s (512-byte sectors) behind it"
                .to_owned());
        }
    };
    if digits.is_empty() {
        return Err("expected a number".to_owned());
    }
    digits
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(factor))
        .ok_or_else(|| "does not fit in 64 bits".to_owned())
}

/// A kind of block, by its name.
pub(super) fn kind(text: &str) -> Result<BlockKind, String> {
    let all = BlockKind::ALL.iter();
    all.clone().copied().find(|kind| kind.name() == text).ok_or_else(|| {
        let names: Vec<&str> = all.map(|kind| kind.name()).collect();
        format!("expected one of {}", names.join(", "))
    })
}

/// A number, or two with a dash between them: all from the first to the
/// second.
pub(super) fn numbers(text: &str) -> Result<RangeInclusive<u32>, String> {
    let wrong = || "expected a number, or two as in 3-7".to_owned();
    let number = |text: &str| {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u32>().ok().filter(|_| digits).ok_or_else(wrong)
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (number(first)?, number(last)?);
    if first > last {
        return Err(wrong());
    }
    Ok(first..=last)
}

/// Inodes: a path, or as [`numbers`].
pub(super) fn inodes(text: &str) -> Result<InodeChoice, String> {
    if text.starts_with('/') {
        return Ok(InodeChoice::Path(text.to_owned()));
    }
    numbers(text)
        .map(InodeChoice::Numbers)
        .map_err(|why| format!("{why}, or a path that begins with /"))
}

/// A length of time: digits and `ms`, `s`, `m` or `h`; seconds without.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let digits_end =
        text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(digits_end);
    let millis: u64 = match unit {
        "ms" => 1,
        "" | "s" => 1000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        _ => return Err("expected a time as 500ms, 30s, 10m, 2h".to_owned()),
    };
    let number: u64 =
        digits.parse().map_err(|_| "expected a number".to_owned())?;
    number
        .checked_mul(millis)
        .map(Duration::from_millis)
        .ok_or_else(|| "is too long".to_owned())
}

/// A key that is typed with Ctrl, as `^]`.
pub(super) fn control_key(text: &str) -> Result<u8, String> {
    match text.as_bytes() {
        // ASCII: Ctrl takes the two high bits away.
        [b'^', key @ (b'@'..=b'_' | b'a'..=b'z')] => Ok(key & 0x1f),
        _ => Err("expected a key with Ctrl, as ^] or ^A".to_owned()),
    }
}

/// A place on a device.
pub(super) fn offset(text: &str) -> Result<ByteOffset, String> {
    bytes(text).map(ByteOffset)
}

/// The size of a filesystem block.
pub(super) fn block_size(text: &str) -> Result<BlockSize, String> {
    BlockSize::from_bytes(bytes(text)?).ok_or_else(|| {
        "expected a power of two from 1024 to 65536 (1K to 64K)".to_owned()
    })
}

/// A block of the filesystem.
pub(super) fn block(text: &str) -> Result<BlockNumber, String> {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) || text.is_empty() {
        return Err("expected the number of a block".to_owned());
    }
    let number =
        text.parse().map_err(|_| "does not fit in 64 bits".to_owned())?;
    Ok(BlockNumber(number))
}

impl ValueEnum for Format {
    fn value_variants<'a>() -> &'a [Self] {
        &Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.name()).help(match self {
            Self::Normal => "tables only, for debugfs -i and dumpe2fs -i",
            Self::Raw => "a sparse file with each block at its place",
            Self::Qcow2 => "for QEMU, qemu-nbd and qemu-img",
        }))
    }
}

impl ValueEnum for LogLevel {
    fn value_variants<'a>() -> &'a [Self] {
        &Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.name()))
    }
}

impl ValueEnum for Qcow2Layout {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Compact, Self::Classic]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(match self {
            Self::Compact => PossibleValue::new("compact")
                .help("written while reading, nothing leaked"),
            Self::Classic => PossibleValue::new("classic")
                .help("byte for byte as e2image lays it out"),
        })
    }
}

impl ValueEnum for Qcow2Compression {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::None, Self::Zstd, Self::Deflate]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(match self {
            Self::None => PossibleValue::new("none").help("as it is"),
            Self::Zstd => {
                PossibleValue::new("zstd").help("QEMU 5.1 or later reads it")
            }
            Self::Deflate => {
                PossibleValue::new("deflate").help("every QEMU reads it")
            }
        })
    }
}

impl ValueEnum for Selection {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Complete, Self::E2image]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(match self {
            Self::Complete => PossibleValue::new("complete").help(
                "everything that the structure is made of, also what hangs \
                 on orphan inodes",
            ),
            Self::E2image => PossibleValue::new("e2image")
                .help("exactly the blocks that e2image selects"),
        })
    }
}

impl ValueEnum for JournalMode {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Full, Self::Live, Self::None]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(match self {
            Self::Full => PossibleValue::new("full").help("all of it"),
            Self::Live => PossibleValue::new("live")
                .help("its superblock and what a replay needs"),
            Self::None => PossibleValue::new("none").help(
                "nothing of it: what was not yet replayed is lost to the \
                 image",
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_their_units_or_refused() {
        let good = [
            ("0", 0),
            ("512", 512),
            ("2048s", 1 << 20),
            ("4k", 4096),
            ("4K", 4096),
            ("1MiB", 1 << 20),
            ("3G", 3 << 30),
            ("16777215T", 16_777_215 << 40),
            ("18446744073709551615", u64::MAX),
        ];
        for (text, value) in good {
            assert_eq!(bytes(text), Ok(value), "{text}");
        }
        let bad = [
            "",
            "K",
            "-1",
            "+1",
            " 1",
            "1 K",
            "1.5G",
            "0x10",
            "1KB",
            "16777216T",
            "18446744073709551616",
            "１",
        ];
        for text in bad {
            assert!(bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_block_size_is_one_that_ext_can_have() {
        assert_eq!(block_size("4K"), Ok(BlockSize::from_log2(12).unwrap()));
        for bad in ["0", "512", "1000", "128K", "x"] {
            assert!(block_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn numbers_are_one_or_a_stretch_and_kinds_have_their_names() {
        assert_eq!(numbers("7"), Ok(7..=7));
        assert_eq!(numbers("3-7"), Ok(3..=7));
        for bad in ["", "-", "3-", "-3", "7-3", "+3", "a", "4294967296"] {
            assert!(numbers(bad).is_err(), "{bad}");
        }
        assert_eq!(kind("block-bitmap"), Ok(BlockKind::BlockBitmap));
        assert!(kind("bitmap").unwrap_err().contains("inode-bitmap"));
    }

    #[test]
    fn a_block_number_has_no_unit() {
        assert_eq!(block("32768"), Ok(BlockNumber(32768)));
        for bad in ["", "1K", "-1", "0x8000", "99999999999999999999"] {
            assert!(block(bad).is_err(), "{bad}");
        }
    }
}
