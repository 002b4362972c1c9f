//! What host and agent say to each other.
//!
//! A message is a small typed head, put into bytes by postcard, and perhaps a
//! raw tail. Every enum here is append-only: variants are never reordered,
//! removed or changed, since postcard numbers them by position. A new shape
//! is a new variant; see `PROTOCOL.md`.

mod device;
mod error;
mod matches;
mod reply;
mod request;
mod write;

pub use device::{DeviceFacts, DeviceFlags, DeviceKind, Rights};
pub use error::{Failure, MessageError};
pub(crate) use matches::take_varint;
pub use matches::{BadMatches, Match, Matches, VARINT_BYTES_MAX, put_varint};
pub use reply::{
    AgentLimits, Busy, DeviceCount, DeviceReply, Fragment, HelloReply,
    LogPiece, Machine, PARTS_MAX, Reply, ReplyBody,
};
pub use request::{
    DigestForm, DigestUnits, DrainLog, Fetch, Find, Hello, ListDevices,
    LogStream, Pair, PowerAction, Request, RequestBody, SameUnits, Sameness,
    Task,
};

pub use write::{
    Arm, ArmedRange, ArmedRanges, BadRanges, Conflict, InUse, Put, Upload,
    Write, put_armed_range,
};

use serde::{Deserialize, Serialize};

use crate::limits::{HEAD_BYTES_MAX, TAIL_BYTES_MAX};

/// Reads a head and returns it with what follows.
fn take<'a, T: Deserialize<'a>>(
    message: &'a [u8],
) -> Result<(T, &'a [u8]), MessageError> {
    let (head, tail) = postcard::take_from_bytes(message)
        .map_err(|_| MessageError::Unknown)?;
    let head_length = message.len().saturating_sub(tail.len());
    if tail.len() > TAIL_BYTES_MAX || head_length > HEAD_BYTES_MAX {
        return Err(MessageError::TooLong);
    }
    Ok((head, tail))
}

fn put<'a, T: Serialize>(
    head: &T,
    buffer: &'a mut [u8],
) -> Result<&'a [u8], MessageError> {
    match postcard::to_slice(head, buffer) {
        Ok(bytes) => Ok(bytes),
        Err(_) => Err(MessageError::TooLong),
    }
}

/// The longest beginning of `text` that has at most `length_max` bytes.
#[must_use]
pub fn cut(text: &str, length_max: usize) -> &str {
    let end = text.floor_char_boundary(length_max);
    text.get(..end).unwrap_or("")
}
