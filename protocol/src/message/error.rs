//! Why a request was refused or failed, and why bytes are no message.

use core::fmt;

use serde::{Deserialize, Serialize};

use super::{InUse, Rights};
use crate::digest::BootId;
use crate::frame::TooLong;
use crate::version::Versions;

/// Why a request was refused or failed. Append-only.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Deserialize, Serialize)]
pub enum Failure {
    /// A frame arrived whole and is no request of this version.
    Malformed,
    /// Say Hello first.
    NoSession,
    /// Host and agent have no version in common.
    Version(Versions),
    /// The request is meant for another run of the agent: say Hello.
    Boot(BootId),
    /// These rights are missing.
    Rights(Rights),
    /// There is no such device (any more).
    NoDevice,
    /// The device ends before, at this byte.
    BeyondEnd(u64),
    /// Ranges have to start and end at multiples of so many bytes.
    Misaligned(u32),
    /// Too much is asked for at once: the result or the work would exceed
    /// the limits of the protocol, or a number makes no sense.
    Unreasonable,
    /// The chunk has no such fragments; so long is it in its codec.
    NoFragment(u32),
    /// More requests are open than the agent keeps: at most so many.
    Full(u16),
    /// More payload is granted than the window that Hello named.
    Window(u32),
    /// The system refuses to open the device (its error number).
    Open(u16),
    /// The device went away or failed as a whole (the system's error number,
    /// 0 when there is none).
    Device(u16),
    /// This agent cannot do that (a plain program cannot restart a machine).
    Unsupported,
    /// Nothing is armed for this session, plan and device: arm (again).
    NotArmed,
    /// The write lies outside of the ranges that are armed, or there is more
    /// of it than was announced.
    Outside,
    /// Another session has armed another plan and is still there.
    ArmedElsewhere,
    /// The device is in use.
    InUse(InUse),
    /// The device does not take writes.
    ReadOnly,
    /// Of the upload that the request names nothing is here from this byte
    /// on: put it (again).
    Missing(u32),
    /// The upload is not what it shall be: its tag, its form, or what comes
    /// of it is wrong. Nothing was written.
    BadUpload,
    /// What was written reads back as something else.
    NotKept,
    /// The device reports an error when it is written to (the system's error
    /// number); how much was written is unknown.
    WriteFailed(u16),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => f.write_str("the agent could not read it"),
            Self::NoSession => f.write_str("no session has begun"),
            Self::Version(agent) => write!(
                f,
                "the agent speaks the protocol versions {} to {}",
                agent.min, agent.current
            ),
            Self::Boot(_) => f.write_str("the agent has been restarted"),
            Self::Rights(_) => f.write_str("the agent does not permit it"),
            Self::NoDevice => f.write_str("there is no such device"),
            Self::BeyondEnd(size) => {
                write!(f, "the device ends at byte {size}")
            }
            Self::Misaligned(unit) => {
                write!(f, "the device needs multiples of {unit} bytes")
            }
            Self::Unreasonable => f.write_str("it asks for too much at once"),
            Self::NoFragment(length) => {
                write!(f, "the chunk has only {length} bytes")
            }
            Self::Full(most) => {
                write!(f, "more than {most} requests are open")
            }
            Self::Window(bytes) => {
                write!(f, "more than the window of {bytes} bytes is granted")
            }
            Self::Open(errno) => {
                write!(f, "the device cannot be opened (error {errno})")
            }
            Self::Device(errno) => {
                write!(f, "the device failed as a whole (error {errno})")
            }
            Self::Unsupported => f.write_str("this agent cannot do that"),
            Self::NotArmed => f.write_str("nothing is armed for this plan"),
            Self::Outside => {
                f.write_str("the write lies outside of what is armed")
            }
            Self::ArmedElsewhere => f.write_str(
                "another session has armed another plan and is still there",
            ),
            Self::InUse(how) => write!(f, "the device is in use: {how}"),
            Self::ReadOnly => f.write_str("the device does not take writes"),
            Self::Missing(at) => {
                write!(f, "an upload lacks its bytes from {at} on")
            }
            Self::BadUpload => f.write_str("an upload is not what it shall be"),
            Self::NotKept => f.write_str(
                "the device reads back something else than was written",
            ),
            Self::WriteFailed(errno) => write!(
                f,
                "the device reports an error while it is written to (error \
                 {errno})"
            ),
        }
    }
}

/// Why bytes are no message, or a message cannot be put into bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum MessageError {
    /// They end too early, or name something that this version does not know.
    Unknown,
    /// There are bytes left over, or too few, behind the head.
    LeftOver,
    /// It is longer than its bound or its buffer.
    TooLong,
}

impl fmt::Display for MessageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "a message that this version does not know",
            Self::LeftOver => "a message with a tail that does not fit",
            Self::TooLong => "a message beyond its bounds",
        })
    }
}

impl core::error::Error for MessageError {}

impl From<TooLong> for MessageError {
    fn from(TooLong: TooLong) -> Self {
        Self::TooLong
    }
}
