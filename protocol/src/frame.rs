//! Frames: how a message is found again on a noisy line.
//!
//! A frame is a kind byte, the message (head and tail) and a CRC-32C of both,
//! put on the line in one of the codings of [`crate::coding`], between zeros.
//! Every zero closes what came before and opens what follows, so whatever got
//! damaged, the decoder is in step again at the next frame. What is no frame
//! is text of the console that shares the line, and comes out as an event.

use core::fmt;

use crc::{CRC_32_ISCSI, Crc, Digest, Table};

use crate::coding::{self, Coding};
use crate::limits::{FRAME_BYTES_MAX, PRINTABLE_BYTES_MAX};

/// Slice-by-16: ten times the speed of the small table for 16 KiB.
static CRC: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&CRC_32_ISCSI);

type Sum = Digest<'static, u32, Table<16>>;

/// The CRC of anything followed by its own CRC.
const CRC_OF_WHOLE: u32 = CRC_32_ISCSI.residue ^ CRC_32_ISCSI.xorout;

/// Bytes of a frame besides the message: kind and CRC.
pub const FRAME_OVERHEAD_BYTES: usize = 1 + 4;

/// What a frame carries. Directions differ, so that a line that echoes does
/// not answer for the agent.
///
/// The values are control characters that console text does not begin with,
/// and none of the printable alphabet: that is how a frame and text, and the
/// two codings, are told apart at their second byte.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// From host to agent, in the clear.
    PlainRequest,
    /// From agent to host, in the clear.
    PlainReply,
    /// From host to agent, sealed. Not yet in use.
    SealedRequest,
    /// From agent to host, sealed. Not yet in use.
    SealedReply,
    /// A message of the handshake that leads to sealed frames, either way.
    /// Not yet in use.
    Handshake,
}

impl Kind {
    /// The byte on the wire.
    #[must_use]
    pub const fn byte(self) -> u8 {
        match self {
            Self::PlainRequest => 1,
            Self::PlainReply => 2,
            Self::SealedRequest => 3,
            Self::SealedReply => 4,
            Self::Handshake => 5,
        }
    }

    /// From the byte on the wire.
    #[must_use]
    pub const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::PlainRequest),
            2 => Some(Self::PlainReply),
            3 => Some(Self::SealedRequest),
            4 => Some(Self::SealedReply),
            5 => Some(Self::Handshake),
            _ => None,
        }
    }
}

/// The frame does not fit where it shall be written, or is longer than
/// [`FRAME_BYTES_MAX`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TooLong;

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a frame is longer than its buffer")
    }
}

impl core::error::Error for TooLong {}

/// Writes one frame into `out` and returns its length. `parts`, one behind
/// the other, are the message.
///
/// # Errors
///
/// When it does not fit `out`, or the message is too long for any frame.
pub fn encode(
    coding: Coding,
    kind: Kind,
    parts: &[&[u8]],
    out: &mut [u8],
) -> Result<usize, TooLong> {
    let mut length = FRAME_OVERHEAD_BYTES;
    let mut sum = CRC.digest();
    sum.update(&[kind.byte()]);
    for part in parts {
        length = length.checked_add(part.len()).ok_or(TooLong)?;
        sum.update(part);
    }
    if length > FRAME_BYTES_MAX {
        return Err(TooLong);
    }
    let sum = sum.finalize().to_le_bytes();
    match coding {
        Coding::Binary => encode_binary(kind, parts, sum, out),
        Coding::Printable => encode_printable(kind, parts, sum, out),
    }
    .ok_or(TooLong)
}

fn encode_binary(
    kind: Kind,
    parts: &[&[u8]],
    sum: [u8; 4],
    out: &mut [u8],
) -> Option<usize> {
    let (first, inner) = out.split_first_mut()?;
    *first = 0;
    let mut cobs = cobs::CobsEncoder::new(inner);
    cobs.push(&[kind.byte()]).ok()?;
    for part in parts.iter().filter(|part| !part.is_empty()) {
        cobs.push(part).ok()?;
    }
    cobs.push(&sum).ok()?;
    let length = cobs.finalize();
    *inner.get_mut(length)? = 0;
    length.checked_add(2)
}

fn encode_printable(
    kind: Kind,
    parts: &[&[u8]],
    sum: [u8; 4],
    out: &mut [u8],
) -> Option<usize> {
    out.get_mut(..2)?.copy_from_slice(&[0, coding::OPEN]);
    let inner = out.get_mut(2..)?;
    let mut encoder = coding::PrintableEncoder::new(inner);
    encoder.push(&[kind.byte()])?;
    for part in parts {
        encoder.push(part)?;
    }
    encoder.push(&sum)?;
    let length = encoder.finish()?;
    let end = length.checked_add(2)?;
    inner.get_mut(length..end)?.copy_from_slice(&[coding::CLOSE, 0]);
    end.checked_add(2)
}

/// A frame that arrived whole.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Frame<'a> {
    /// What it carries.
    pub kind: Kind,
    /// The coding it came in.
    pub coding: Coding,
    /// The message: head and tail.
    pub message: &'a [u8],
}

/// What a decoder finds on a line.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Event<'a> {
    /// A frame that arrived whole.
    Frame(Frame<'a>),
    /// Text of the console that shares the line, in pieces of any length.
    Text(&'a [u8]),
    /// What began like a frame and is none: damaged on the way, perhaps by
    /// text in the middle of it, or text after all.
    Broken(&'a [u8]),
}

/// The buffer of a decoder: the longest frame in either coding.
const BUFFER_BYTES: usize = PRINTABLE_BYTES_MAX + 1;

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Mode {
    /// Outside of any frame.
    #[default]
    Text,
    /// Behind a zero, nothing read yet or one byte.
    Opened,
    /// In what should be a frame in binary coding.
    Binary,
    /// In what should be a frame in printable coding; the buffer begins with
    /// `{`.
    Printable,
}

/// Finds frames and text in the bytes of a line.
///
/// It is in step again at the next frame after any damage, and never keeps
/// more than one frame's bytes. Text within a frame's bytes is never taken
/// for a frame: after a frame in binary coding, a printable one is only
/// recognised right behind a zero, which no frame contains.
#[derive(Clone, Debug)]
pub struct Decoder {
    mode: Mode,
    /// A frame in binary coding has been seen.
    binary: bool,
    length: usize,
    /// The buffer was lent to the last event: forget it first.
    lent: bool,
    buffer: [u8; BUFFER_BYTES],
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

/// What becomes of the candidate in the buffer.
enum Verdict {
    Frame(Coding, usize),
    Text,
    Broken,
}

impl Decoder {
    /// At the start of a line, where any coding may come.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            mode: Mode::Text,
            binary: false,
            length: 0,
            lent: false,
            buffer: [0; BUFFER_BYTES],
        }
    }

    /// Forgets all that arrived: the line was opened anew.
    pub fn reset(&mut self) {
        self.mode = Mode::Text;
        self.binary = false;
        self.length = 0;
        self.lent = false;
    }

    /// Takes bytes off the front of `input` up to the next event. `None`:
    /// all were taken, and nothing is complete yet.
    pub fn next<'a, 'i: 'a>(
        &'a mut self,
        input: &mut &'i [u8],
    ) -> Option<Event<'a>> {
        self.forget_lent();
        loop {
            if self.mode == Mode::Text {
                let text = self.take_text(input);
                if !text.is_empty() {
                    return Some(Event::Text(text));
                }
            } else if self.mode == Mode::Binary {
                self.take_binary(input);
            }
            let (byte, rest) = input.split_first()?;
            let verdict = match self.mode {
                Mode::Text => self.step_text(*byte),
                Mode::Opened => self.step_opened(*byte),
                Mode::Binary => self.step_binary(*byte),
                Mode::Printable => self.step_printable(*byte),
            };
            let (verdict, taken) = verdict;
            if taken {
                *input = rest;
            }
            if let Some(verdict) = verdict {
                return Some(self.lend(verdict));
            }
        }
    }

    /// What has waited for its end for too long, as text: called when the
    /// line has been silent for a while. A stray zero on a line must not
    /// swallow what comes seconds later.
    pub fn expire(&mut self) -> Option<Event<'_>> {
        self.forget_lent();
        let open = self.mode != Mode::Text;
        self.mode = Mode::Text;
        (open && self.length > 0).then(|| self.lend(Verdict::Broken))
    }

    /// The peer may be another one: any coding may come again.
    pub fn forget_coding(&mut self) {
        self.binary = false;
    }

    /// Whether bytes wait for the end of their frame.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        !self.lent && self.length > 0
    }

    fn forget_lent(&mut self) {
        if self.lent {
            self.lent = false;
            self.length = 0;
        }
    }

    /// Text at the front of `input`, which is handed on without a copy.
    fn take_text<'i>(&self, input: &mut &'i [u8]) -> &'i [u8] {
        let ends =
            |byte: &u8| *byte == 0 || (*byte == coding::OPEN && !self.binary);
        let end = input.iter().position(ends).unwrap_or(input.len());
        let (text, rest) = input.split_at_checked(end).unwrap_or((input, &[]));
        *input = rest;
        text
    }

    /// Copies what cannot end the frame in one go.
    fn take_binary(&mut self, input: &mut &[u8]) {
        let end =
            input.iter().position(|byte| *byte == 0).unwrap_or(input.len());
        let room = self.buffer.len().saturating_sub(self.length);
        let Some((bytes, rest)) = input.split_at_checked(end.min(room)) else {
            return;
        };
        let to = self.length.saturating_add(bytes.len());
        if let Some(place) = self.buffer.get_mut(self.length..to) {
            place.copy_from_slice(bytes);
            self.length = to;
            *input = rest;
        }
    }

    /// Keeps `byte`; `false` when the buffer is full.
    fn keep(&mut self, byte: u8) -> bool {
        match self.buffer.get_mut(self.length) {
            Some(place) => {
                *place = byte;
                self.length = self.length.saturating_add(1);
                true
            }
            None => false,
        }
    }

    // Each step says what became of the candidate, if that is settled, and
    // whether it took the byte.

    fn step_text(&mut self, byte: u8) -> (Option<Verdict>, bool) {
        if byte == 0 {
            self.mode = Mode::Opened;
        } else {
            self.mode = Mode::Printable;
            self.keep(byte);
        }
        (None, true)
    }

    fn step_opened(&mut self, byte: u8) -> (Option<Verdict>, bool) {
        if byte == 0 {
            if self.length == 0 {
                return (None, true);
            }
            return (Some(Verdict::Text), false);
        }
        if self.length == 0 {
            self.keep(byte);
            return (None, true);
        }
        if Kind::from_byte(byte).is_some() {
            self.mode = Mode::Binary;
            return (None, false);
        }
        if self.buffer.first() == Some(&coding::OPEN) {
            self.mode = Mode::Printable;
            return (None, false);
        }
        self.mode = Mode::Text;
        (Some(Verdict::Text), false)
    }

    fn step_binary(&mut self, byte: u8) -> (Option<Verdict>, bool) {
        if byte == 0 {
            self.mode = Mode::Opened;
            let verdict = match self.decode_binary() {
                Some(length) => {
                    self.binary = true;
                    Verdict::Frame(Coding::Binary, length)
                }
                None => Verdict::Broken,
            };
            return (Some(verdict), true);
        }
        if self.keep(byte) {
            return (None, true);
        }
        self.mode = Mode::Text;
        (Some(Verdict::Broken), false)
    }

    fn step_printable(&mut self, byte: u8) -> (Option<Verdict>, bool) {
        if byte == coding::CLOSE {
            self.mode = Mode::Text;
            let verdict = match self.decode_printable() {
                Some(length) => Verdict::Frame(Coding::Printable, length),
                None => {
                    // Room for one more: the buffer holds the longest frame
                    // and both its delimiters.
                    self.keep(byte);
                    Verdict::Broken
                }
            };
            return (Some(verdict), true);
        }
        if coding::is_printable(byte) && self.keep(byte) {
            return (None, true);
        }
        self.mode = Mode::Text;
        (Some(Verdict::Text), false)
    }

    fn lend(&mut self, verdict: Verdict) -> Event<'_> {
        self.lent = true;
        let length = match verdict {
            Verdict::Frame(_, length) => length,
            Verdict::Text | Verdict::Broken => self.length,
        };
        let bytes = self.buffer.get(..length).unwrap_or(&[]);
        match verdict {
            Verdict::Text => Event::Text(bytes),
            Verdict::Broken => Event::Broken(bytes),
            Verdict::Frame(coding, _) => match frame(coding, bytes) {
                Some(frame) => Event::Frame(frame),
                None => Event::Broken(bytes),
            },
        }
    }

    /// Decodes the buffer in place if it is a whole frame, and leaves it as
    /// it came if not.
    fn decode_binary(&mut self) -> Option<usize> {
        let raw = self.buffer.get_mut(..self.length)?;
        is_whole_binary(raw).then_some(())?;
        cobs::decode_in_place(raw).ok()
    }

    /// As `decode_binary`, for the characters behind the `{`.
    fn decode_printable(&mut self) -> Option<usize> {
        let raw = self.buffer.get(1..self.length)?;
        is_whole_printable(raw).then_some(())?;
        let mut from = 1_usize;
        let mut to = 0_usize;
        while from < self.length {
            let end = from.saturating_add(5).min(self.length);
            let (group, count) =
                coding::decode_group(self.buffer.get(from..end)?)?;
            let next = to.checked_add(count)?;
            self.buffer.get_mut(to..next)?.copy_from_slice(group.get(..count)?);
            from = end;
            to = next;
        }
        Some(to)
    }
}

/// Splits a decoded frame whose CRC was found right.
fn frame(coding: Coding, bytes: &[u8]) -> Option<Frame<'_>> {
    let (kind, rest) = bytes.split_first()?;
    let (message, _crc) = rest.split_last_chunk::<4>()?;
    Some(Frame { kind: Kind::from_byte(*kind)?, coding, message })
}

/// Whether the COBS groups of `raw` chain up to its end and the CRC of what
/// they decode to is right.
fn is_whole_binary(raw: &[u8]) -> bool {
    let mut sum: Sum = CRC.digest();
    let mut rest = raw;
    loop {
        let Some((code, behind)) = rest.split_first() else { return false };
        let count = usize::from(*code).saturating_sub(1);
        let Some((group, next)) = behind.split_at_checked(count) else {
            return false;
        };
        sum.update(group);
        if next.is_empty() {
            return sum.finalize() == CRC_OF_WHOLE;
        }
        if *code != u8::MAX {
            sum.update(&[0]);
        }
        rest = next;
    }
}

fn is_whole_printable(characters: &[u8]) -> bool {
    let mut sum: Sum = CRC.digest();
    for group in characters.chunks(5) {
        match coding::decode_group(group) {
            Some((bytes, count)) => {
                sum.update(bytes.get(..count).unwrap_or(&[]));
            }
            None => return false,
        }
    }
    sum.finalize() == CRC_OF_WHOLE
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "tests may panic")]
mod tests;
