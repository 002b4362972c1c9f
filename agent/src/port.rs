//! A port: the bytes between the agent and one host.
//!
//! The agent's state machine knows ports by number only and neither reads nor
//! writes. The loop around it moves the bytes; tests move them by hand.

use embedded_io::{Read, ReadReady, Write, WriteReady};

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
    /// As an index into a table of [`PORTS_MAX`](crate::memory::PORTS_MAX).
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}
