//! An open port as the library sees one: bytes that never block.

use e2wire_agent::clock::Instant;
use e2wire_agent::port::PortNumber;
use embedded_io::{ErrorKind, ErrorType, Read, ReadReady, Write, WriteReady};
use rustix::event::{PollFd, PollFlags};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;

/// The descriptors of a port, all of them non-blocking.
#[derive(Debug)]
pub(crate) enum Io {
    /// A line or connection.
    Both(OwnedFd),
    /// A pair of pipes.
    Pair(OwnedFd, OwnedFd),
}

/// An open port.
#[derive(Debug)]
pub(crate) struct Line {
    io: Io,
    /// There may be bytes to read.
    readable: bool,
    /// There may be room to write.
    writable: bool,
    /// Its number in the library.
    pub(crate) number: PortNumber,
    /// The endpoint that it belongs to.
    pub(crate) endpoint: usize,
    /// When its peer last sent something.
    pub(crate) heard: Instant,
}

impl Line {
    /// A port that was opened just `now`.
    pub(crate) fn new(
        io: Io,
        number: PortNumber,
        endpoint: usize,
        now: Instant,
    ) -> Self {
        Self {
            io,
            readable: false,
            // What does not fit comes back as a short count.
            writable: true,
            number,
            endpoint,
            heard: now,
        }
    }

    fn input(&self) -> BorrowedFd<'_> {
        match &self.io {
            Io::Both(fd) | Io::Pair(fd, _) => fd.as_fd(),
        }
    }

    fn output(&self) -> BorrowedFd<'_> {
        match &self.io {
            Io::Both(fd) | Io::Pair(_, fd) => fd.as_fd(),
        }
    }

    /// What to wait for: always for bytes, and for room if some wait to be
    /// sent and there is none.
    pub(crate) fn poll_fds(
        &self,
        has_more: bool,
    ) -> (PollFd<'_>, Option<PollFd<'_>>) {
        let wants_room = has_more && !self.writable;
        let mut flags = PollFlags::IN;
        let mut room = None;
        if wants_room {
            match &self.io {
                Io::Both(_) => flags |= PollFlags::OUT,
                Io::Pair(..) => {
                    room = Some(PollFd::from_borrowed_fd(
                        self.output(),
                        PollFlags::OUT,
                    ));
                }
            }
        }
        (PollFd::from_borrowed_fd(self.input(), flags), room)
    }

    /// Takes note of what came of waiting.
    pub(crate) fn polled(&mut self, events: PollFlags) {
        // A hang-up or error is learnt by reading.
        let read = PollFlags::IN | PollFlags::HUP | PollFlags::ERR;
        let write = PollFlags::OUT | PollFlags::HUP | PollFlags::ERR;
        self.readable |= events.intersects(read);
        self.writable |= events.intersects(write);
    }

    /// Whether the next exchange may move something.
    pub(crate) fn is_ready(&self, has_more: bool) -> bool {
        self.readable || has_more && self.writable
    }
}

impl ErrorType for Line {
    type Error = ErrorKind;
}

impl ReadReady for Line {
    fn read_ready(&mut self) -> Result<bool, ErrorKind> {
        Ok(self.readable)
    }
}

impl WriteReady for Line {
    fn write_ready(&mut self) -> Result<bool, ErrorKind> {
        Ok(self.writable)
    }
}

impl Read for Line {
    /// `Interrupted` says that there was nothing after all.
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ErrorKind> {
        let size = buffer.len();
        match rustix::io::read(self.input(), buffer) {
            Ok(count) => {
                // A full buffer is the only sign that there may be more.
                self.readable = count == size;
                Ok(count)
            }
            Err(Errno::AGAIN | Errno::INTR) => {
                self.readable = false;
                Err(ErrorKind::Interrupted)
            }
            Err(error) => Err(kind(error)),
        }
    }
}

impl Write for Line {
    /// 0 says that there was no room after all.
    fn write(&mut self, bytes: &[u8]) -> Result<usize, ErrorKind> {
        match rustix::io::write(self.output(), bytes) {
            Ok(count) => {
                self.writable = count == bytes.len();
                Ok(count)
            }
            Err(Errno::AGAIN | Errno::INTR) => {
                self.writable = false;
                Ok(0)
            }
            Err(error) => Err(kind(error)),
        }
    }

    fn flush(&mut self) -> Result<(), ErrorKind> {
        Ok(())
    }
}

fn kind(error: Errno) -> ErrorKind {
    match error {
        Errno::PIPE => ErrorKind::BrokenPipe,
        Errno::CONNRESET => ErrorKind::ConnectionReset,
        Errno::TIMEDOUT => ErrorKind::TimedOut,
        _ => ErrorKind::Other,
    }
}
