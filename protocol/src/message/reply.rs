//! What an agent answers.

use serde::{Deserialize, Serialize};

use super::{
    Conflict, DeviceFacts, Failure, LogStream, MessageError, Rights, put, take,
};
use crate::chunk::Codec;
use crate::coding::Coding;
use crate::digest::{BootId, BuildId, DeviceId, SessionId, Tag};
use crate::frame::{self, Kind};
use crate::limits::HEAD_BYTES_MAX;
use crate::units::usize_from;
use crate::version::Versions;

/// One reply.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Deserialize, Serialize)]
pub struct Reply<'a> {
    /// Counts the replies of a session from 1: a gap is a loss.
    pub number: u32,
    /// The highest request number that has arrived; 0 before any.
    pub seen: u32,
    /// The number of the request that this answers; 0 when it answers none.
    pub answers: u32,
    /// The answer.
    #[serde(borrow)]
    pub body: ReplyBody<'a>,
}

/// The answer. Append-only: the order is the wire.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Deserialize, Serialize)]
pub enum ReplyBody<'a> {
    /// A session has begun.
    #[serde(borrow)]
    Hello(HelloReply<'a>),
    /// One device of the list.
    #[serde(borrow)]
    Device(DeviceReply<'a>),
    /// The list has no device at or behind the place asked for.
    NoMoreDevices(DeviceCount),
    /// A slice of a chunk; the tail is its payload.
    Fragment(Fragment),
    /// The request is being worked on, nothing else can be said.
    Busy(Busy),
    /// The request was carried out.
    Done,
    /// A piece of a log; the tail is its bytes.
    Log(LogPiece),
    /// The tail is the tail of the request.
    Echo,
    /// The request is refused or has failed.
    Failed(Failure),
    /// The range was written and read back.
    Written,
    /// The range holds already what was to be written; nothing was.
    AlreadyThere,
    /// The range holds something else than was expected; nothing was written.
    /// The tail is the short digest of every sector of the range, zeros for
    /// one that cannot be read.
    Conflict(Conflict),
}

/// A session has begun. This shape is fixed for all versions, so that two
/// that have none in common can say so.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Deserialize, Serialize)]
pub struct HelloReply<'a> {
    /// What the agent speaks. When it has none in common with the host, every
    /// other request is refused.
    pub versions: Versions,
    /// The session, as the host named it.
    pub session: SessionId,
    /// This run of the agent.
    pub boot: BootId,
    /// The build of the agent.
    pub build: BuildId,
    /// What this session may ask for.
    pub rights: Rights,
    /// The bounds of this agent.
    pub limits: AgentLimits,
    /// How long the agent has been running.
    pub uptime_millis: u64,
    /// The port that this came through, as the agent calls it ("ttyS1").
    pub port: &'a str,
    /// The speed that a serial port is set to, 0 for others.
    pub port_baud: u32,
    /// The agent's version, for people.
    pub agent: &'a str,
    /// The machine it runs on.
    #[serde(borrow)]
    pub machine: Machine<'a>,
}

/// Bounds of an agent that may be below those of the protocol.
#[derive(
    Clone, Copy, Debug, Default, Eq, PartialEq, Deserialize, Serialize,
)]
pub struct AgentLimits {
    /// The most requests of a session that are open at once.
    pub open_requests: u16,
    /// The highest zstd level; 0 when it has no zstd.
    pub zstd_level: u8,
    /// The largest window it accepts, in bytes.
    pub window: u32,
}

/// The machine, as its firmware and kernel name it; empty where they do not.
#[derive(
    Clone, Copy, Debug, Default, Eq, PartialEq, Deserialize, Serialize,
)]
pub struct Machine<'a> {
    /// Who made it.
    pub vendor: &'a str,
    /// Which model it is.
    pub product: &'a str,
    /// Its serial number.
    pub serial: &'a str,
    /// The UUID its firmware has for it.
    pub uuid: &'a str,
    /// Its host name.
    pub host: &'a str,
    /// The release of its kernel.
    pub kernel: &'a str,
}

/// One device of the list.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Deserialize, Serialize)]
pub struct DeviceReply<'a> {
    /// Its place in the list.
    pub index: u16,
    /// The list's length.
    pub total: u16,
    /// Its name in requests.
    pub id: DeviceId,
    /// What is known of it.
    #[serde(borrow)]
    pub facts: DeviceFacts<'a>,
}

/// How many devices there are.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Deserialize, Serialize)]
pub struct DeviceCount {
    /// The list's length.
    pub total: u16,
}

/// A slice of a chunk's encoded bytes. It says all of what it is a part of,
/// so it counts whichever request it answers.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Deserialize, Serialize)]
pub struct Fragment {
    /// The device of the chunk.
    pub device: DeviceId,
    /// The first sector of the chunk's task.
    pub first: u64,
    /// How the chunk is encoded.
    pub codec: Codec,
    /// Names the chunk's encoded bytes.
    pub tag: Tag,
    /// The length of the chunk's encoded bytes.
    pub encoded: u32,
    /// Where the payload starts in them: index times payload of the grant.
    pub at: u32,
}

/// The request is still being worked on.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Deserialize, Serialize)]
pub struct Busy {
    /// The device that has not answered.
    pub device: DeviceId,
    /// Where it was asked to read, in bytes.
    pub offset: u64,
    /// Since when.
    pub waiting_millis: u32,
}

/// A piece of a log.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Deserialize, Serialize)]
pub struct LogPiece {
    /// Which log.
    pub stream: LogStream,
    /// The position of the tail's first byte. When it is beyond the one asked
    /// for, what lies between has been lost.
    pub from: u64,
    /// The position behind the last byte that the log has.
    pub end: u64,
}

impl<'a> Reply<'a> {
    /// Reads a message and returns it with its tail.
    ///
    /// # Errors
    ///
    /// When it is none of this version, or there are bytes left over, or a
    /// tail is missing or does not fit what its head says.
    pub fn decode(message: &'a [u8]) -> Result<(Self, &'a [u8]), MessageError> {
        let (reply, tail): (Self, _) = take(message)?;
        reply.body.check_tail(tail.len())?;
        Ok((reply, tail))
    }

    /// Writes a whole frame for the line into `out` and returns its length.
    /// The pieces of `tail`, one behind the other, are the tail.
    ///
    /// # Errors
    ///
    /// When it does not fit, or the tail is not what the head says.
    pub fn encode(
        &self,
        coding: Coding,
        tail: &[&[u8]],
        out: &mut [u8],
    ) -> Result<usize, MessageError> {
        let mut parts: [&[u8]; 1 + PARTS_MAX] = [&[]; 1 + PARTS_MAX];
        let places = parts.get_mut(1..=tail.len());
        places.ok_or(MessageError::TooLong)?.copy_from_slice(tail);
        let length = tail
            .iter()
            .fold(0, |sum: usize, part| sum.saturating_add(part.len()));
        self.body.check_tail(length)?;
        let mut head = [0; HEAD_BYTES_MAX];
        let head = put(self, &mut head)?;
        if let Some(first) = parts.first_mut() {
            *first = head;
        }
        Ok(frame::encode(coding, Kind::PlainReply, &parts, out)?)
    }
}

/// The most pieces that a tail is given in.
pub const PARTS_MAX: usize = 8;

impl ReplyBody<'_> {
    fn check_tail(&self, length: usize) -> Result<(), MessageError> {
        let fits = match self {
            Self::Fragment(fragment) => u32::try_from(length)
                .ok()
                .and_then(|length| fragment.at.checked_add(length))
                .is_some_and(|end| length > 0 && end <= fragment.encoded),
            Self::Log(piece) => piece
                .from
                .checked_add(crate::units::u64_from(length))
                .is_some_and(|end| end <= piece.end),
            Self::Echo => true,
            Self::Conflict(conflict) => usize_from(conflict.range.count())
                .checked_mul(16)
                .is_some_and(|bytes| bytes == length),
            Self::Hello(_)
            | Self::Device(_)
            | Self::NoMoreDevices(_)
            | Self::Busy(_)
            | Self::Done
            | Self::Written
            | Self::AlreadyThere
            | Self::Failed(_) => length == 0,
        };
        if fits { Ok(()) } else { Err(MessageError::LeftOver) }
    }
}
