//! A line: the port's decoder, what waits to be sent, and the session of the
//! host at its other end.

use e2wire_protocol::coding::Coding;
use e2wire_protocol::digest::SessionId;
use e2wire_protocol::frame::Decoder;
use e2wire_protocol::limits::{BUSY_INTERVAL_MILLIS, TEXT_BYTES_MAX};
use e2wire_protocol::message::{Failure, Reply, ReplyBody};

use crate::clock::{Duration, Instant};
use crate::memory::{ECHO_BYTES, OUT_BYTES, SESSION_OPEN_MAX};
use crate::port::PortKind;
use crate::queue::OpenIndex;

/// How long a session with open requests stays silent.
pub(crate) const BUSY_INTERVAL: Duration =
    Duration::from_millis(BUSY_INTERVAL_MILLIS);

/// A port that has taken no byte for so long is given up on: what it made
/// the agent keep is let go until it moves again.
pub(crate) const STUCK_AFTER: Duration = Duration::from_millis(5000);

/// What waits for the rest of a frame for so long is no frame.
pub(crate) const EXPIRE_AFTER: Duration = Duration::from_millis(1000);

/// After so long a silence another host may be at the line.
pub(crate) const FORGET_AFTER: Duration = Duration::from_millis(10_000);

/// How often a serial line without a session tells people who is there.
pub(crate) const BANNER_INTERVAL: Duration = Duration::from_millis(10_000);

/// A reply is added when at most so much waits on a serial line, so that an
/// answer never queues up behind seconds of others.
const SERIAL_BACKLOG: usize = 1024;

/// Refusals that wait to be sent.
const REFUSALS_MAX: usize = 8;

/// A port and the session on it.
pub(crate) struct Line {
    pub(crate) open: bool,
    pub(crate) serial: bool,
    pub(crate) baud: u32,
    pub(crate) name: heapless::String<TEXT_BYTES_MAX>,
    pub(crate) decoder: Decoder,
    pub(crate) session: Session,
    pub(crate) out: Out,
    /// When bytes last came in.
    pub(crate) heard: Instant,
    /// When the banner was last shown.
    pub(crate) banner: Instant,
    /// A person at the line asks who is there.
    pub(crate) asked: bool,
    /// The peer takes nothing, so nothing is made for it.
    pub(crate) rests: bool,
}

/// What a host and the agent have in common for a while.
pub(crate) struct Session {
    /// Whether a Hello has come.
    pub(crate) begun: bool,
    /// Whether it had a version that the agent speaks.
    pub(crate) agreed: bool,
    pub(crate) id: SessionId,
    pub(crate) coding: Coding,
    pub(crate) window: u32,
    /// The highest request number that has arrived.
    pub(crate) seen: u32,
    /// How many flushes have been asked for: what was read before one does
    /// not answer what is asked after it.
    pub(crate) flushes: u32,
    /// The number of the last reply.
    pub(crate) number: u32,
    /// Granted payload of the open requests, in bytes.
    pub(crate) granted: u64,
    /// The open requests in the order of their arrival.
    pub(crate) order: heapless::Vec<OpenIndex, SESSION_OPEN_MAX>,
    /// Requests that were not accepted, and why.
    pub(crate) refusals: heapless::Vec<(u32, Failure), REFUSALS_MAX>,
    pub(crate) echo: heapless::Vec<u8, ECHO_BYTES>,
}

/// Bytes on their way out of a port.
pub(crate) struct Out {
    start: usize,
    end: usize,
    /// When bytes last left, or were added to nothing.
    pub(crate) moved: Instant,
    bytes: [u8; OUT_BYTES],
}

impl Line {
    pub(crate) const fn new() -> Self {
        Self {
            open: false,
            serial: false,
            baud: 0,
            name: heapless::String::new(),
            decoder: Decoder::new(),
            session: Session::new(),
            out: Out {
                start: 0,
                end: 0,
                moved: Instant::from_micros(0),
                bytes: [0; OUT_BYTES],
            },
            heard: Instant::from_micros(0),
            banner: Instant::from_micros(0),
            asked: false,
            rests: false,
        }
    }

    /// Opens it for a new peer.
    pub(crate) fn reset(&mut self, kind: PortKind, now: Instant) {
        self.open = true;
        self.serial = kind == PortKind::Serial;
        self.baud = 0;
        self.name.clear();
        self.decoder.reset();
        self.session.end();
        self.out.clear(now);
        self.heard = now;
        self.banner = now;
        self.asked = self.serial;
        self.rests = false;
    }

    /// Whether another reply may be added behind what waits.
    pub(crate) fn wants_more(&self) -> bool {
        !self.serial || self.out.waiting().len() <= SERIAL_BACKLOG
    }

    /// Whether the peer takes nothing any more.
    pub(crate) fn is_stuck(&self, now: Instant) -> bool {
        !self.out.waiting().is_empty()
            && now.since(self.out.moved) >= STUCK_AFTER
    }

    /// Adds a reply; `false` when there is no room for it now.
    pub(crate) fn reply(
        &mut self,
        answers: u32,
        body: ReplyBody<'_>,
        tail: &[&[u8]],
        now: Instant,
    ) -> bool {
        let number = self.session.number.wrapping_add(1);
        let reply = Reply { number, seen: self.session.seen, answers, body };
        let coding = self.session.coding;
        let written = self
            .out
            .add(now, |room| reply.encode(coding, tail, room).unwrap_or(0));
        if written {
            self.session.number = number;
        }
        written
    }
}

impl Session {
    const fn new() -> Self {
        Self {
            begun: false,
            agreed: false,
            id: SessionId([0; 8]),
            coding: Coding::Binary,
            window: 0,
            seen: 0,
            flushes: 0,
            number: 0,
            granted: 0,
            order: heapless::Vec::new(),
            refusals: heapless::Vec::new(),
            echo: heapless::Vec::new(),
        }
    }

    /// Forgets everything. The open requests must have been dropped before.
    pub(crate) fn end(&mut self) {
        *self = Self::new();
    }

    /// Notes that a request is refused; beyond a bound the host has to find
    /// out by itself.
    pub(crate) fn refuse(&mut self, number: u32, why: Failure) {
        // A refusal that finds no room is lost like a damaged reply.
        let _lost = self.refusals.push((number, why));
    }
}

impl Out {
    /// What waits to be sent.
    pub(crate) fn waiting(&self) -> &[u8] {
        self.bytes.get(self.start..self.end).unwrap_or(&[])
    }

    /// The first `count` bytes of it were sent.
    pub(crate) fn sent(&mut self, count: usize, now: Instant) {
        self.start = self.start.saturating_add(count).min(self.end);
        if count > 0 {
            self.moved = now;
        }
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        }
    }

    pub(crate) fn clear(&mut self, now: Instant) {
        self.start = 0;
        self.end = 0;
        self.moved = now;
    }

    /// Lets `write` fill the room behind what waits; it returns how much it
    /// wrote, 0 when there is not enough room.
    pub(crate) fn add(
        &mut self,
        now: Instant,
        write: impl FnOnce(&mut [u8]) -> usize,
    ) -> bool {
        if self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end = self.end.saturating_sub(self.start);
            self.start = 0;
        }
        if self.end == 0 {
            self.moved = now;
        }
        let room = self.bytes.get_mut(self.end..).unwrap_or(&mut []);
        let length = write(room);
        self.end = self.end.saturating_add(length).min(OUT_BYTES);
        length > 0
    }
}
