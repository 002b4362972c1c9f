//! A port: the bytes between the agent and one host.
//!
//! The agent's state machine knows ports by number only and neither reads nor
//! writes. The loop around it moves the bytes, see [`exchange`]; tests move them
//! by hand.

use embedded_io::{Error, ErrorKind, Read, ReadReady, Write, WriteReady};

use crate::agent::Agent;
use crate::clock::Instant;
use crate::memory::TRANSFER_BYTES;

/// A serial line, a TCP connection, a pair of pipes.
///
/// The `embedded-io` traits block when there is nothing to do, so the agent
/// asks `read_ready` and `write_ready` before each call; neither may block,
/// nor may a `read` or `write` right after a `true`. A `read` of 0 bytes
/// means that the other side is gone for good.
pub trait Port: Read + ReadReady + Write + WriteReady {}

impl<P: Read + ReadReady + Write + WriteReady> Port for P {}

/// What kind of line a port is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PortKind {
    /// A serial line or console: may carry foreign text, has no end.
    Serial,
    /// A connection that ends when the peer goes away.
    Stream,
}

/// A port of the agent. Numbers are given again after a port was closed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PortNumber(u8);

impl PortNumber {
    pub(crate) fn new(index: usize) -> Option<Self> {
        u8::try_from(index).ok().map(Self)
    }

    /// As an index into a table of [`PORTS_MAX`](crate::memory::PORTS_MAX).
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// What came of an [`exchange`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Exchange {
    /// Nothing moved; wait until the port is ready again.
    Idle,
    /// Bytes moved; there may be more.
    Moved,
    /// The other side is gone: close the port.
    Closed,
}

/// Moves what is ready between `port` and the agent, at most
/// [`TRANSFER_BYTES`] each way, without blocking.
///
/// # Errors
///
/// What the port reports. A serial line should be reopened then, a
/// connection closed; both begin with `Agent::close_port`.
pub fn exchange<P: Port>(
    agent: &mut Agent<'_>,
    number: PortNumber,
    port: &mut P,
    now: Instant,
) -> Result<Exchange, ErrorKind> {
    let kind = |error: P::Error| error.kind();
    let mut buffer = [0; TRANSFER_BYTES];
    let mut moved = Exchange::Idle;
    if port.read_ready().map_err(kind)? {
        let count = port.read(&mut buffer).map_err(kind)?;
        if count == 0 {
            return Ok(Exchange::Closed);
        }
        agent.received(number, buffer.get(..count).unwrap_or(&[]), now);
        moved = Exchange::Moved;
    }
    if !agent.to_send(number).is_empty() && port.write_ready().map_err(kind)? {
        let count = port.write(agent.to_send(number)).map_err(kind)?;
        agent.sent(number, count, now);
        moved = Exchange::Moved;
    }
    Ok(moved)
}
