//! Turning what came from disks, devices and peers into text that a terminal
//! can be given.
//!
//! A volume label may hold an escape sequence that rewrites the screen; a
//! file name may hold a line break that forges a second message. Whatever is
//! printed passes [`escape`], and nothing else decides what is harmless.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::units::ByteCount;

/// `text` with every character that could steer a terminal, or reorder what
/// it shows, written out as `\xNN` or `\u{NNNN}`.
#[must_use]
pub fn escape(text: &str) -> Cow<'_, str> {
    if !text.contains(steers) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len().saturating_add(16));
    for c in text.chars() {
        let code = u32::from(c);
        // Writing to a string cannot fail.
        let _ = match c {
            _ if !steers(c) => escaped.write_char(c),
            _ if code < 0x100 => write!(escaped, "\\x{code:02x}"),
            _ => write!(escaped, "\\u{{{code:x}}}"),
        };
    }
    Cow::Owned(escaped)
}

/// A line of JSON in which nothing can steer a terminal: what serde_json
/// leaves as it is (C1, DEL, marks of direction) becomes `\\uNNNN`. It can
/// only stand inside strings, so the meaning is the same.
#[must_use]
pub fn escape_json(json: &str) -> Cow<'_, str> {
    if !json.contains(steers) {
        return Cow::Borrowed(json);
    }
    let mut escaped = String::with_capacity(json.len().saturating_add(16));
    for c in json.chars() {
        if steers(c) {
            // All of them lie below U+10000. Writing to a string cannot fail.
            let _ = write!(escaped, "\\u{:04x}", u32::from(c));
        } else {
            escaped.push(c);
        }
    }
    Cow::Owned(escaped)
}

/// The text in `bytes`, for fields that hold UTF-8 by custom only. Bytes
/// that are none are written out as `\xNN`; nothing is lost and nothing is
/// escaped otherwise.
#[must_use]
pub fn from_bytes(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            // Writing to a string cannot fail.
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

/// `word` as a shell reads it back: in quotes where it has to be.
#[must_use]
pub fn shell(word: &str) -> Cow<'_, str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-+=:,./@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return Cow::Borrowed(word);
    }
    Cow::Owned(format!("'{}'", word.replace('\'', "'\\''")))
}

/// A number of bytes as people read it: `512 B`, `4.0 KiB`, `1.8 TiB`.
#[must_use]
pub fn bytes(count: ByteCount) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if count.0 < 1024 {
        return format!("{} B", count.0);
    }
    // In tenths of the next smaller unit, so that no float is needed.
    let mut value = u128::from(count.0) * 10 / 1024;
    let mut unit = 0;
    while value >= 10_240 && unit + 1 < UNITS.len() {
        value /= 1024;
        unit += 1;
    }
    format!("{}.{} {}", value / 10, value % 10, UNITS[unit])
}

/// A number with its noun, which takes an `s` but for one.
#[must_use]
pub fn count(number: u64, noun: &str) -> String {
    let s = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{s}")
}

/// A time as people read it: `7 s`, `3 min 20 s`, `26 h 3 min`.
#[must_use]
pub fn duration(seconds: u64) -> String {
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}

/// A moment as RFC 3339 in UTC, to the millisecond.
#[must_use]
pub fn timestamp(when: SystemTime) -> String {
    // A clock before 1970 is as good as none.
    let since = when.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = since.as_secs();
    let (year, month, day) = civil_from_days(seconds / 86_400);
    let (hour, minute, second) =
        (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let millis = since.subsec_millis();
    format!(
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}\
         .{millis:03}Z"
    )
}

/// The date that lies so many days after 1970-01-01, in the Gregorian
/// calendar. Counts from 1 March of the year 0, so that the leap day is the
/// last of its year.
const fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let era = days / 146_097;
    let of_era = days % 146_097;
    let year_of_era =
        (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year =
        of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month =
        if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + if month <= 2 { 1 } else { 0 };
    (year, month, day)
}

/// Control characters (C0, DEL, C1), line separators and everything that
/// changes the direction of text.
fn steers(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{061c}'
                | '\u{200e}'
                | '\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2066}'..='\u{2069}'
        )
}

/// Whether somebody can have written this: neither empty nor, like half a
/// frame or a line at the wrong speed, full of bytes that are no text.
#[must_use]
pub fn is_readable(text: &str) -> bool {
    let strange = |c: &char| {
        *c == char::REPLACEMENT_CHARACTER
            || (c.is_control() && !matches!(c, '\t' | '\r' | '\n' | '\x1b'))
    };
    let count = text.chars().count();
    count > 0 && text.chars().filter(strange).count() * 8 <= count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_back_what_was_quoted() {
        for (word, quoted) in [
            ("/dev/sda3", "/dev/sda3"),
            ("tcp:[fe80::1]:7000", "'tcp:[fe80::1]:7000'"),
            ("a b", "'a b'"),
            ("serial:/dev/ttyS0?baud=9600", "'serial:/dev/ttyS0?baud=9600'"),
            ("it's", "'it'\\''s'"),
            ("$(reboot)", "'$(reboot)'"),
            ("", "''"),
        ] {
            assert_eq!(shell(word), quoted);
        }
    }

    #[test]
    fn nothing_that_steers_a_terminal_comes_through() {
        let cases = [
            ("plain /srv/mail", "plain /srv/mail"),
            ("größe ✓", "größe ✓"),
            ("\x1b[2Jgone", "\\x1b[2Jgone"),
            ("a\r\nb\tc\u{7f}", "a\\x0d\\x0ab\\x09c\\x7f"),
            ("csi \u{9b}31m", "csi \\x9b31m"),
            ("evil\u{202e}gpj", "evil\\u{202e}gpj"),
        ];
        for (given, shown) in cases {
            assert_eq!(escape(given), shown);
        }
    }

    #[test]
    fn json_keeps_its_meaning_when_it_is_escaped() {
        let text = "a\u{9b}31m\u{202e}\u{7f}ü\u{1f600}\n";
        let json = serde_json::to_string(text).unwrap();
        let escaped = escape_json(&json);
        assert!(!escaped.contains(steers), "{escaped}");
        assert_eq!(serde_json::from_str::<String>(&escaped).unwrap(), text);
    }

    #[test]
    fn sizes_and_times_read_well() {
        let sizes = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1024 * 1024 - 1, "1023.9 KiB"),
            (1 << 20, "1.0 MiB"),
            (1_920_383_410_176, "1.7 TiB"),
            (u64::MAX, "15.9 EiB"),
        ];
        for (count, shown) in sizes {
            assert_eq!(bytes(ByteCount(count)), shown);
        }
        let times = [
            (0, "0 s"),
            (59, "59 s"),
            (200, "3 min 20 s"),
            (93_780, "26 h 3 min"),
        ];
        for (seconds, shown) in times {
            assert_eq!(duration(seconds), shown);
        }
    }

    /// Checked with `date -u -d @SECONDS`.
    #[test]
    fn moments_are_rfc_3339() {
        let cases = [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_795_344_000_000, "2026-11-22T10:40:00.000Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ];
        for (millis, shown) in cases {
            let when = UNIX_EPOCH + std::time::Duration::from_millis(millis);
            assert_eq!(timestamp(when), shown);
        }
    }

    #[test]
    fn what_nobody_wrote_is_told_from_text() {
        for text in
            ["login: ", "\x1b[1mGNU GRUB\x1b[0m\r", "größe", "a\u{fffd}bcdefg"]
        {
            assert!(is_readable(text), "{text:?}");
        }
        let noise = String::from_utf8_lossy(b"/\x0c\x02\x90w5\x10(\xa7\xe1W");
        for text in ["", "\u{fffd}", &noise] {
            assert!(!is_readable(text), "{text:?}");
        }
    }

    #[test]
    fn plain_text_is_not_copied() {
        assert!(matches!(escape("label"), Cow::Borrowed(_)));
    }

    #[test]
    fn bytes_that_are_no_text_stay_visible() {
        assert_eq!(from_bytes(b"ab\xffc\xc3"), "ab\\xffc\\xc3");
        assert_eq!(from_bytes("é".as_bytes()), "é");
    }
}
