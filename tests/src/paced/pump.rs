//! Moves bytes through wires, as the clock on the wall says.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::{Errno, read, write};
use rustix::net::{Shutdown, shutdown};
use rustix::termios::{ioctl_tiocnxcl, tcgetattr};

use super::uart;
use crate::sim::Wire;

/// How far ahead of the clock a wire takes bytes: what the buffers of a port
/// hold, and what hides that we are not woken in time.
const AHEAD_MICROS: u64 = 20_000;

/// What nobody takes at an end is kept up to here; then it is lost, as in a
/// port that nobody reads.
const UNREAD_BYTES_MAX: usize = 64 * 1024;

/// The most that is read at once.
const READ_BYTES_MAX: usize = 16 * 1024;

/// The wish to end is looked at so often.
const TICK: Duration = Duration::from_millis(50);

/// The ends of a line that are terminals, which this holds open.
#[derive(Debug)]
pub(super) struct Ends {
    pub(super) near: OwnedFd,
    pub(super) far: OwnedFd,
    /// What is said at one speed is heard at the other end's.
    pub(super) speeds_matter: bool,
}

/// Which end speaks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Speaker {
    Near,
    Far,
}

impl Ends {
    /// What the other end hears.
    fn heard(&self, speaker: Speaker, bytes: &[u8]) -> Vec<u8> {
        let (from, to) = match speaker {
            Speaker::Near => (&self.near, &self.far),
            Speaker::Far => (&self.far, &self.near),
        };
        // Whoever had a port for itself takes that along when it closes it;
        // here the port stays open.
        let _ = ioctl_tiocnxcl(from);
        if !self.speeds_matter {
            return bytes.to_vec();
        }
        let speed = |end: &OwnedFd| {
            tcgetattr(end).map_or(0, |settings| settings.output_speed())
        };
        uart::heard(bytes, speed(from), speed(to))
    }
}

/// What kind of thing bytes come from.
#[derive(Debug)]
pub(super) enum Input {
    /// A terminal: never ends, and loses what nobody reads.
    Terminal(Arc<Ends>, Speaker),
    /// A socket: its end is handed on, and who does not read is waited for.
    Socket,
}

impl Input {
    const fn is_socket(&self) -> bool {
        matches!(self, Self::Socket)
    }
}

/// One direction of a line.
pub(super) struct Direction {
    kind: Input,
    from: OwnedFd,
    to: OwnedFd,
    wire: Wire,
    arrived: VecDeque<u8>,
    ended: bool,
    closed: bool,
}

impl Direction {
    pub(super) fn new(
        kind: Input,
        from: OwnedFd,
        to: OwnedFd,
        wire: Wire,
    ) -> Self {
        Self {
            kind,
            from,
            to,
            wire,
            arrived: VecDeque::new(),
            ended: false,
            closed: false,
        }
    }

    /// Whether the wire takes bytes now.
    fn has_room(&self, now: u64) -> bool {
        let waits =
            self.kind.is_socket() && self.arrived.len() >= UNREAD_BYTES_MAX;
        !self.ended && !waits && self.wire.free_at() <= now + AHEAD_MICROS
    }

    /// When something has to be done next, in microseconds.
    fn next(&self, now: u64) -> Option<u64> {
        let room = (!self.ended && !self.has_room(now))
            .then(|| self.wire.free_at().saturating_sub(AHEAD_MICROS / 2));
        [self.wire.next(), room].into_iter().flatten().min()
    }

    /// Takes what is there to be carried; answers how many bytes.
    fn take(&mut self, now: u64) -> u64 {
        if !self.has_room(now) {
            return 0;
        }
        let ahead = (now + AHEAD_MICROS).saturating_sub(self.wire.free_at());
        let room = self.wire.bytes_in(ahead).clamp(1, READ_BYTES_MAX);
        let mut buffer = [0; READ_BYTES_MAX];
        match read(&self.from, &mut buffer[..room]) {
            Ok(0) => self.ended = true,
            Ok(count) => {
                let bytes = &buffer[..count];
                match &self.kind {
                    Input::Socket => self.wire.take(now, bytes),
                    Input::Terminal(ends, speaker) => {
                        self.wire.take(now, &ends.heard(*speaker, bytes));
                    }
                }
                return count as u64;
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => self.ended = self.kind.is_socket(),
        }
        0
    }

    /// Hands on what has arrived.
    fn give(&mut self, now: u64) {
        let mut bytes = Vec::new();
        self.wire.arrived(now, &mut bytes);
        self.arrived.extend(bytes);
        while !self.arrived.is_empty() {
            let (front, _) = self.arrived.as_slices();
            match write(&self.to, front) {
                Ok(count) => drop(self.arrived.drain(..count)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(_) => {
                    self.ended = true;
                    self.arrived.clear();
                }
            }
        }
        if !self.kind.is_socket() {
            let excess = self.arrived.len().saturating_sub(UNREAD_BYTES_MAX);
            self.arrived.drain(..excess);
        }
        let idle = self.arrived.is_empty() && self.wire.next().is_none();
        if self.ended && idle && !self.closed {
            self.closed = true;
            let _ = shutdown(&self.to, Shutdown::Write);
        }
    }
}

/// Carries bytes until `over`, or until both directions have ended.
pub(super) fn run(
    directions: &mut [Direction; 2],
    over: &AtomicBool,
    counts: &[AtomicU64; 2],
) {
    let start = Instant::now();
    while !over.load(Ordering::Relaxed) {
        let now = micros(start);
        for (direction, count) in directions.iter_mut().zip(counts) {
            count.fetch_add(direction.take(now), Ordering::Relaxed);
            direction.give(micros(start));
        }
        if directions.iter().all(|direction| direction.closed) {
            return;
        }
        wait(directions, micros(start));
    }
}

/// Waits until a byte can be moved.
fn wait(directions: &[Direction; 2], now: u64) {
    let mut fds = Vec::with_capacity(4);
    let mut until = now + TICK.as_micros() as u64;
    for direction in directions {
        if direction.has_room(now) {
            fds.push(PollFd::new(&direction.from, PollFlags::IN));
        }
        if !direction.arrived.is_empty() {
            fds.push(PollFd::new(&direction.to, PollFlags::OUT));
        }
        until = until.min(direction.next(now).unwrap_or(until));
    }
    let left = Duration::from_micros(until.saturating_sub(now));
    let timeout = Timespec {
        tv_sec: i64::try_from(left.as_secs()).unwrap_or(0),
        tv_nsec: i64::from(left.subsec_nanos()),
    };
    // A signal in between counts as nothing seen.
    let _ = poll(&mut fds, Some(&timeout));
}

fn micros(start: Instant) -> u64 {
    start.elapsed().as_micros() as u64
}

pub(super) fn never_block(fd: BorrowedFd<'_>) -> io::Result<()> {
    let flags = fcntl_getfl(fd)?;
    Ok(fcntl_setfl(fd.as_fd(), flags | OFlags::NONBLOCK)?)
}
