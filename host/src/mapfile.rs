//! The mapfile of GNU ddrescue: which areas of a device were read, and which
//! are bad.
//!
//! ```text
//! # a comment
//! CURRENT_POS  CURRENT_STATUS  CURRENT_PASS
//! POS  SIZE  STATUS       for each area, ascending, without gaps
//! ```
//!
//! Numbers are C's (0x1000, 0777, 4096), in bytes of the device. Of the
//! statuses `?` is not tried, `*` not trimmed, `/` not scraped, `-` bad, `+`
//! finished. The form is that of ddrescue's manual, chapter "Mapfile
//! structure".

use std::fmt::Write as _;
use std::path::Path;

use crate::error::{Error, ErrorKind, Result};
use crate::local::{LocalOutput, OutputOptions};
use crate::output::OutputFile as _;
use crate::range_set::RangeSet;
use crate::source::FileIdentity;
use crate::units::{ByteCount, ByteOffset, ByteRange};

/// A larger mapfile is none.
const BYTES_MAX: u64 = 64 << 20;

/// The areas of a device that something is known of; all else was not tried.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Mapfile {
    /// In the output.
    pub finished: RangeSet,
    /// Failed in a large read, and not tried in smaller pieces.
    pub untrimmed: RangeSet,
    /// Failed in smaller pieces, and not tried sector by sector.
    pub unscraped: RangeSet,
    /// Failed sector by sector.
    pub bad: RangeSet,
}

impl Mapfile {
    /// Reads `path`; `None` if there is none.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::LocalIo`] when it cannot be read; [`ErrorKind::Refused`]
    /// when it is no mapfile.
    pub fn read(path: &Path) -> Result<Option<Self>> {
        let name = path.display();
        let failed = |e| Error::io(format!("cannot read {name}"), e);
        let length = match std::fs::metadata(path) {
            Ok(metadata) => metadata.len(),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Ok(None);
            }
            Err(e) => return Err(failed(e)),
        };
        if length > BYTES_MAX {
            return Err(no_map(format!("{name} is too large for a mapfile")));
        }
        let text = std::fs::read(path).map_err(failed)?;
        let text = String::from_utf8_lossy(&text);
        Self::parse(&text)
            .map(Some)
            .map_err(|what| no_map(format!("{name} is no mapfile: {what}")))
    }

    /// Takes a mapfile apart.
    ///
    /// # Errors
    ///
    /// What is wrong, and in which line.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut map = Self::default();
        let lines = text.lines().zip(1..);
        let mut lines = lines
            .map(|(line, number)| {
                (line.split('#').next().unwrap_or("").trim(), number)
            })
            .filter(|(line, _)| !line.is_empty());
        let status = lines.next().ok_or("it has no status line")?;
        let words: Vec<&str> = status.0.split_whitespace().collect();
        let ([position, what] | [position, what, _]) = words.as_slice() else {
            return Err(format!("line {}: no status", status.1));
        };
        if number(position).is_none() || !is_status(what, "?*/-FG+") {
            return Err(format!("line {}: no status", status.1));
        }
        let mut end = ByteOffset(0);
        for (line, at) in lines {
            let wrong = |what| format!("line {at}: {what}");
            let words: Vec<&str> = line.split_whitespace().collect();
            let [position, size, status] = words.as_slice() else {
                return Err(wrong("not three words"));
            };
            let area = number(position).zip(number(size)).and_then(
                |(position, size)| {
                    ByteRange::new(ByteOffset(position), ByteCount(size))
                },
            );
            let area = area.ok_or_else(|| wrong("no area"))?;
            if area.start() < end || area.is_empty() {
                return Err(wrong("areas do not ascend"));
            }
            end = area.end();
            match *status {
                "+" => map.finished.insert(area),
                "*" => map.untrimmed.insert(area),
                "/" => map.unscraped.insert(area),
                "-" => map.bad.insert(area),
                "?" => {}
                _ => return Err(wrong("no status of an area")),
            }
        }
        Ok(map)
    }

    /// The mapfile of a device of `length` bytes.
    #[must_use]
    pub fn text(&self, length: ByteCount) -> String {
        let mut text = concat!(
            "# Mapfile. Created by e2wire ",
            env!("CARGO_PKG_VERSION"),
            "\n# + stored in the image, - bad sectors, * and / failed and not ",
            "tried sector by sector, ? not read\n",
            "# current_pos  current_status  current_pass\n",
        )
        .to_owned();
        let next = match (&self.untrimmed, &self.unscraped) {
            (untrimmed, _) if !untrimmed.is_empty() => '*',
            (_, unscraped) if !unscraped.is_empty() => '/',
            _ => '+',
        };
        // Writing to a string does not fail.
        let _ = writeln!(text, "0x00000000     {next}               1");
        text.push_str("#      pos        size  status\n");
        let end = ByteOffset(length.0);
        let mut at = ByteOffset(0);
        while at < end {
            let (status, next) = self.status(at, end);
            let size = next.0.saturating_sub(at.0);
            let _ = writeln!(text, "0x{:08X}  0x{size:08X}  {status}", at.0);
            at = next;
        }
        text
    }

    /// The status at `at`, and where another begins.
    fn status(&self, at: ByteOffset, end: ByteOffset) -> (char, ByteOffset) {
        let sets = [
            (&self.finished, '+'),
            (&self.untrimmed, '*'),
            (&self.unscraped, '/'),
            (&self.bad, '-'),
        ];
        let mut next = end;
        for (set, status) in sets {
            let Some(range) = set.first_from(at) else { continue };
            if range.start() == at {
                return (status, range.end().min(next));
            }
            next = next.min(range.start());
        }
        ('?', next)
    }

    /// Writes `path`, or replaces it; it is not `source`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::LocalIo`] when that fails; an earlier one is intact.
    pub fn write(
        &self,
        path: &Path,
        length: ByteCount,
        source: Option<FileIdentity>,
    ) -> Result<()> {
        let sources: Vec<FileIdentity> = source.into_iter().collect();
        let options =
            OutputOptions { overwrite: true, sync: true, sources: &sources };
        let mut output = LocalOutput::create(path, options)?;
        output
            .file()
            .write_at(ByteOffset(0), self.text(length).as_bytes())
            .map_err(|e| {
                Error::io(format!("cannot write {}", path.display()), e)
            })?;
        output.publish()
    }
}

fn is_status(word: &str, known: &str) -> bool {
    let mut letters = word.chars();
    letters.next().is_some_and(|letter| known.contains(letter))
        && letters.next().is_none()
}

/// A number as C writes it.
fn number(word: &str) -> Option<u64> {
    if let Some(digits) =
        word.strip_prefix("0x").or_else(|| word.strip_prefix("0X"))
    {
        return u64::from_str_radix(digits, 16).ok();
    }
    match word.strip_prefix('0') {
        Some("") => Some(0),
        Some(digits) => u64::from_str_radix(digits, 8).ok(),
        None => word.parse().ok(),
    }
}

fn no_map(what: String) -> Error {
    Error::new(ErrorKind::Refused, what)
        .intact("nothing was read or written")
        .hint("--map names a mapfile of ddrescue, or a file that is not there")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::range;

    #[test]
    fn what_is_written_is_read_back() {
        let mut map = Mapfile::default();
        map.finished.insert(range(0, 4096));
        map.bad.insert(range(4096, 512));
        map.unscraped.insert(range(8192, 1024));
        map.untrimmed.insert(range(4608, 512));
        map.finished.insert(range(9216, 784));
        let text = map.text(ByteCount(10_000));
        assert_eq!(Mapfile::parse(&text), Ok(map));
        assert!(text.ends_with("0x00002400  0x00000310  +\n"), "{text}");
    }

    #[test]
    fn every_status_and_number_of_ddrescue_is_understood() {
        let map = Mapfile::parse(
            "# Mapfile. Created by GNU ddrescue version 1.27\n\
             0x1000 ? 1\n0 010 +\n8 8 ? # a comment\n0x10 16 *\n\
             0x20 0X10 /\n0x30 0x10 -\n",
        )
        .unwrap();
        assert_eq!(map.finished.iter().collect::<Vec<_>>(), [range(0, 8)]);
        assert_eq!(map.untrimmed.iter().collect::<Vec<_>>(), [range(16, 16)]);
        assert_eq!(map.unscraped.iter().collect::<Vec<_>>(), [range(32, 16)]);
        assert_eq!(map.bad.iter().collect::<Vec<_>>(), [range(48, 16)]);
    }

    #[test]
    fn what_is_no_mapfile_is_refused_by_line() {
        for (text, line) in [
            ("", "status"),
            ("# only\n", "status"),
            ("hello world\n", "line 1"),
            ("0 + 1\n0 8\n", "line 2"),
            ("0 + 1\n0 8 !\n", "line 2"),
            ("0 + 1\n0 8 +\n4 8 -\n", "line 3"),
            ("0 + 1\n0xFFFFFFFFFFFFFFFF 2 +\n", "line 2"),
            ("0 + 1\n0 99999999999999999999 +\n", "line 2"),
        ] {
            let error = Mapfile::parse(text).unwrap_err();
            assert!(error.contains(line), "{text}: {error}");
        }
    }
}
