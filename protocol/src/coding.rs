//! Line codings: how the bytes of a frame look on a line.
//!
//! Binary is COBS. Printable is for lines that give a meaning to some bytes:
//! a console server or BMC tool takes `~`, `&`, `^]`, `^E`, `^A`, ESC and
//! others from the host as commands to itself. Its characters are none of
//! these, nor a line end, nor a quote.

use serde::{Deserialize, Serialize};

/// How frames look on a line.
#[derive(
    Clone, Copy, Debug, Default, Eq, PartialEq, Deserialize, Serialize,
)]
pub enum Coding {
    /// `00`, COBS, `00`: for any line that passes eight bits.
    #[default]
    Binary,
    /// `00 {`, five printable characters for each four bytes, `} 00`. The
    /// zeros may get lost on the way.
    Printable,
}

/// Opens a frame in printable coding.
pub(crate) const OPEN: u8 = b'{';
/// Closes a frame in printable coding.
pub(crate) const CLOSE: u8 = b'}';

/// The 85 characters of the printable coding, in order of their value.
const ALPHABET: &[u8; 85] = b"0123456789\
    abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ\
    !#$%()*+,-./:;<=>?@[]_|";

/// The values of all characters; `NONE` for those not in the alphabet.
static VALUES: [u8; 256] = values();
const NONE: u8 = 0xff;

#[expect(
    clippy::as_conversions,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "const evaluation: a mistake here does not compile"
)]
const fn values() -> [u8; 256] {
    let mut values = [NONE; 256];
    let mut i = 0;
    while i < ALPHABET.len() {
        let character = ALPHABET[i];
        assert!(values[character as usize] == NONE, "named twice");
        assert!(character.is_ascii_graphic());
        assert!(character != OPEN && character != CLOSE);
        values[character as usize] = i as u8;
        i += 1;
    }
    values
}

/// The value of a character.
fn value(character: u8) -> Option<u32> {
    match VALUES.get(usize::from(character)) {
        Some(&NONE) | None => None,
        Some(value) => Some(u32::from(*value)),
    }
}

/// Whether `character` is one of the alphabet.
pub(crate) fn is_printable(character: u8) -> bool {
    value(character).is_some()
}

/// Turns bytes into characters, group by group of four.
pub(crate) struct PrintableEncoder<'a> {
    out: &'a mut [u8],
    length: usize,
    group: [u8; 4],
    filled: usize,
}

impl<'a> PrintableEncoder<'a> {
    pub(crate) const fn new(out: &'a mut [u8]) -> Self {
        Self { out, length: 0, group: [0; 4], filled: 0 }
    }

    /// Takes the next bytes; `None` when they do not fit.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Option<()> {
        for byte in bytes {
            *self.group.get_mut(self.filled)? = *byte;
            self.filled = self.filled.wrapping_add(1);
            if self.filled == 4 {
                self.emit(5)?;
            }
        }
        Some(())
    }

    /// Writes the last group: `n` bytes as `n + 1` characters.
    pub(crate) fn finish(mut self) -> Option<usize> {
        if self.filled > 0 {
            let characters = self.filled.checked_add(1)?;
            self.emit(characters)?;
        }
        Some(self.length)
    }

    fn emit(&mut self, characters: usize) -> Option<()> {
        let mut word = u32::from_be_bytes(self.group);
        let mut five = [0; 5];
        for place in five.iter_mut().rev() {
            let digit = usize::try_from(word.wrapping_rem(85)).ok()?;
            *place = *ALPHABET.get(digit)?;
            word = word.wrapping_div(85);
        }
        let end = self.length.checked_add(characters)?;
        self.out
            .get_mut(self.length..end)?
            .copy_from_slice(five.get(..characters)?);
        self.length = end;
        self.group = [0; 4];
        self.filled = 0;
        Some(())
    }
}

/// The bytes of one group of two to five characters, and how many they are.
///
/// A short group is read as if it were filled up with the highest digit; the
/// encoder's zeros come out the same then.
pub(crate) fn decode_group(characters: &[u8]) -> Option<([u8; 4], usize)> {
    let count = characters.len().checked_sub(1)?;
    if !(1..=4).contains(&count) {
        return None;
    }
    let mut word = 0_u32;
    for i in 0..5 {
        let digit = match characters.get(i) {
            Some(character) => value(*character)?,
            None => 84,
        };
        word = word.checked_mul(85)?.checked_add(digit)?;
    }
    Some((word.to_be_bytes(), count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_alphabet_holds_no_escape_of_any_console() {
        for escape in *b"~&^\\'\"`\r\n\t {}\0\x01\x05\x1b\x1d\x1c" {
            assert!(!is_printable(escape), "{:?}", char::from(escape));
        }
        assert_eq!(
            (0..=255).filter(|byte| is_printable(*byte)).count(),
            ALPHABET.len()
        );
    }

    #[test]
    fn groups_of_every_length_come_back() {
        for bytes in [
            &[0_u8][..],
            &[255],
            &[0, 0],
            &[255, 255],
            &[1, 2, 3],
            &[255, 255, 255],
            &[0, 0, 0, 0],
            &[255, 255, 255, 255],
        ] {
            let mut out = [0; 8];
            let mut encoder = PrintableEncoder::new(&mut out);
            encoder.push(bytes).unwrap();
            let length = encoder.finish().unwrap();
            assert_eq!(length, bytes.len() + 1);
            let (group, count) = decode_group(&out[..length]).unwrap();
            assert_eq!(&group[..count], bytes);
        }
    }

    #[test]
    fn a_group_that_no_encoder_makes_is_refused_or_harmless() {
        assert!(decode_group(b"").is_none());
        assert!(decode_group(b"0").is_none());
        assert!(decode_group(b"||||||").is_none());
        // 85^5 - 1 does not fit 32 bits.
        assert!(decode_group(b"|||||").is_none());
    }
}
