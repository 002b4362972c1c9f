//! What a host asks for.

use serde::{Deserialize, Serialize};

use super::{Arm, MessageError, Put, Upload, Write, put, take};
use crate::chunk::{Codec, Grant, Ranges, SectorRange};
use crate::coding::Coding;
use crate::digest::{BootId, DeviceId, SessionId, Tag};
use crate::frame::{self, Kind};
use crate::limits::{HEAD_BYTES_MAX, PAIRS_MAX, PATTERN_BYTES_MAX};
use crate::version::Versions;

/// One request. It names all it needs, so it may be sent again at any time.
#[derive(Clone, Debug, Eq, PartialEq, Deserialize, Serialize)]
pub struct Request {
    /// The run of the agent it is meant for; zeros in a Hello.
    pub boot: BootId,
    /// Counts the requests of a session from 1; the same again when it is
    /// repeated.
    pub number: u32,
    /// What is asked for.
    pub body: RequestBody,
}

/// What is asked for. Append-only: the order is the wire.
#[derive(Clone, Debug, Eq, PartialEq, Deserialize, Serialize)]
#[expect(clippy::large_enum_variant, reason = "no heap to box it")]
pub enum RequestBody {
    /// Begins a session, or repeats that; answered by `Hello`.
    Hello(Hello),
    /// Lists devices; answered by `Device` for each.
    Devices(ListDevices),
    /// Makes a chunk and sends what is granted of it; answered by
    /// `Fragment`s.
    Fetch(Fetch),
    /// Makes what was written to a device safe; answered by `Done`.
    Flush(DeviceId),
    /// Hands over what a log holds; answered by `Log`.
    Log(DrainLog),
    /// Restarts the machine or switches it off; answered by `Done` first.
    Power(PowerAction),
    /// Drops all requests of this session that are still open; answered by
    /// `Done`.
    Cancel,
    /// Sends the tail of this request back; answered by `Echo`.
    Echo,
    /// Keeps a slice of an upload, which is the tail; answered by `Done`.
    Put(Put),
    /// Lets this session write what a plan covers, after looking whether
    /// anybody uses the device; answered by `Done`. The tail is the whole
    /// upload (see [`ArmedRanges`](super::ArmedRanges)), or empty when it was
    /// put before.
    Arm(Arm),
    /// Writes one range, if it holds what is expected; answered by `Written`,
    /// `AlreadyThere` or `Conflict`. The tail is the whole upload (see
    /// [`patch`](crate::patch)), or empty when it was put before.
    Write(Write),
    /// No more is written to this device; answered by `Done`, also when
    /// nothing was armed.
    Disarm(DeviceId),
}

/// Begins a session. This shape is fixed for all versions, so that two that
/// have none in common can say so.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Deserialize, Serialize)]
pub struct Hello {
    /// What the host speaks.
    pub versions: Versions,
    /// Names the session. A new one ends the session that was; the same
    /// again only asks for the answer again.
    pub session: SessionId,
    /// How the agent shall put its replies on the line.
    pub coding: Coding,
    /// The most bytes of granted payload that may be open at once: what the
    /// path holds without losing any.
    pub window: u32,
}

/// A page of the list of devices.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Deserialize, Serialize)]
pub struct ListDevices {
    /// Look for new ones first.
    pub rescan: bool,
    /// The first to be listed, by its place in the list.
    pub first: u16,
    /// The most to be listed: each is one reply of at most 1 KiB.
    pub count: u16,
}

/// A chunk, or some of its fragments.
#[derive(Clone, Debug, Eq, PartialEq, Deserialize, Serialize)]
pub struct Fetch {
    /// Where.
    pub device: DeviceId,
    /// What the chunk is made of.
    pub task: Task,
    /// How it shall be encoded.
    pub codec: Codec,
    /// Which of its fragments shall be sent.
    pub grant: Grant,
}

impl Fetch {
    /// The tag of the chunk that answers this, when `codec` was used and
    /// `encoded` are its bytes, piece by piece.
    ///
    /// Both sides compute it: the agent to name the chunk, the host to prove
    /// that what it joined is an answer to what it asked, byte by byte.
    #[must_use]
    pub fn tag<'e>(
        &self,
        codec: Codec,
        encoded: impl IntoIterator<Item = &'e [u8]>,
    ) -> Option<Tag> {
        let mut buffer = [0; HEAD_BYTES_MAX];
        let named = postcard::to_slice(&(&self.task, codec), &mut buffer);
        let mut encoded = encoded.into_iter();
        Some(crate::digest::tag(self.device, named.ok()?, &mut encoded))
    }
}

/// What a chunk is made of. Append-only.
#[derive(Clone, Debug, Eq, PartialEq, Deserialize, Serialize)]
pub enum Task {
    /// The bytes of these ranges. The body is a layout and the data.
    Read(Ranges),
    /// The digests of a range, one for each unit.
    Digest(DigestUnits),
    /// Which units of pairs of ranges are equal.
    Same(SameUnits),
    /// Where a range holds a pattern.
    Find(Find),
}

/// Digests of all units of a range; the last unit may be shorter. The body
/// is the digests one behind the other, all zeros for a unit that could not
/// be read whole.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Deserialize, Serialize)]
pub struct DigestUnits {
    /// The range, at most 1 GiB.
    pub range: SectorRange,
    /// Sectors of a unit.
    pub unit_sectors: u32,
    /// How long the digests are.
    pub form: DigestForm,
}

/// How long a digest is. Append-only.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Deserialize, Serialize)]
pub enum DigestForm {
    /// 32 bytes: a range digest.
    Range,
    /// 16 bytes: a short digest.
    Short,
}

/// Compares pairs of ranges of one device unit by unit; each pair is cut into
/// units from its start, the last may be shorter. The body holds two bits for
/// each unit, see [`Sameness`], four units to a byte, the first in the low
/// bits.
#[derive(Clone, Debug, Eq, PartialEq, Deserialize, Serialize)]
pub struct SameUnits {
    /// Sectors of a unit.
    pub unit_sectors: u32,
    /// The pairs, at least one, together at most 1 GiB on each side.
    pub pairs: heapless::Vec<Pair, PAIRS_MAX>,
}

/// Two ranges of the same length.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Deserialize, Serialize)]
pub struct Pair {
    /// One of them.
    pub one: SectorRange,
    /// The first sector of the other.
    pub other_first: u64,
}

impl Pair {
    /// The other range; `None` when it would lie beyond any device.
    #[must_use]
    pub const fn other(&self) -> Option<SectorRange> {
        SectorRange::new(self.other_first, self.one.count())
    }
}

/// What a comparison found out about a unit; two bits on the wire.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Sameness {
    /// All bytes are equal.
    Same,
    /// Some byte is not.
    Different,
    /// One of both could not be read.
    Unreadable,
}

impl Sameness {
    /// The two bits.
    #[must_use]
    pub const fn bits(self) -> u8 {
        match self {
            Self::Same => 1,
            Self::Different => 0,
            Self::Unreadable => 2,
        }
    }

    /// From the two bits.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            1 => Some(Self::Same),
            0 => Some(Self::Different),
            2 => Some(Self::Unreadable),
            _ => None,
        }
    }
}

/// Looks for a pattern at every `stride` of a range: at `offset` within each
/// cell of that many bytes. The body is described at
/// [`Matches`](super::Matches).
#[derive(Clone, Debug, Eq, PartialEq, Deserialize, Serialize)]
pub struct Find {
    /// Where the first cell starts, in sectors.
    pub first: u64,
    /// How many cells. Of cells up to 64 KiB all is read, of larger ones the
    /// logical sectors that pattern and returned bytes lie in.
    pub cells: u32,
    /// Sectors from one cell to the next.
    pub stride_sectors: u32,
    /// Where in a cell the pattern is looked for, in bytes.
    pub offset: u32,
    /// The pattern, 1 to 64 bytes.
    pub pattern: heapless::Vec<u8, PATTERN_BYTES_MAX>,
    /// Where in a cell begins what is returned of a match, in bytes.
    pub return_offset: u32,
    /// How many bytes are returned of a match, at most 256.
    pub return_length: u16,
}

/// Drains a log.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Deserialize, Serialize)]
pub struct DrainLog {
    /// Which one.
    pub stream: LogStream,
    /// The position of the first byte wanted; 0 is the first byte ever.
    pub from: u64,
    /// The most bytes to be sent, at most 4 KiB.
    pub bytes: u16,
    /// How long to wait when there is nothing yet.
    pub wait_millis: u32,
}

/// A log that the agent keeps. Append-only.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Deserialize, Serialize)]
pub enum LogStream {
    /// The agent's own, defmt frames in rzcobs encoding.
    Agent,
    /// The kernel's, lines as `/dev/kmsg` gives them.
    Kernel,
}

/// What becomes of the machine. Append-only.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Deserialize, Serialize)]
pub enum PowerAction {
    /// It starts anew.
    Reboot,
    /// It goes off.
    PowerOff,
}

impl Request {
    /// Reads a message and returns it with its tail.
    ///
    /// # Errors
    ///
    /// When it is none of this version, or there are bytes left over.
    pub fn decode(message: &[u8]) -> Result<(Self, &[u8]), MessageError> {
        let (request, tail): (Self, _) = take(message)?;
        request.body.check_tail(tail.len())?;
        Ok((request, tail))
    }

    /// Writes a whole frame for the line into `out` and returns its length.
    ///
    /// # Errors
    ///
    /// When it does not fit, or there is a tail that belongs to nothing.
    pub fn encode(
        &self,
        coding: Coding,
        tail: &[u8],
        out: &mut [u8],
    ) -> Result<usize, MessageError> {
        self.body.check_tail(tail.len())?;
        let mut head = [0; HEAD_BYTES_MAX];
        let head = put(self, &mut head)?;
        let parts: [&[u8]; 2] = [head, tail];
        Ok(frame::encode(coding, Kind::PlainRequest, &parts, out)?)
    }
}

impl RequestBody {
    /// Whether so many raw bytes may follow the head.
    fn check_tail(&self, length: usize) -> Result<(), MessageError> {
        let whole = |upload: Upload| {
            length == 0 || u32::try_from(length) == Ok(upload.length)
        };
        let fits = match self {
            Self::Echo => true,
            Self::Put(put) => put.fits(length),
            Self::Arm(arm) => whole(arm.ranges),
            Self::Write(write) => whole(write.patch),
            Self::Hello(_)
            | Self::Devices(_)
            | Self::Fetch(_)
            | Self::Flush(_)
            | Self::Log(_)
            | Self::Power(_)
            | Self::Cancel
            | Self::Disarm(_) => length == 0,
        };
        if fits { Ok(()) } else { Err(MessageError::LeftOver) }
    }
}
