//! The ways to reach the agent, and keeping each of them open.

use e2wire_agent::clock::{Duration, Instant};
use rustix::fd::OwnedFd;
use rustix::io::Errno;

use super::options::Endpoint;
use super::{serial, stdio, tcp};
use crate::linux::line::Io;

/// The first pause before an endpoint is tried again; it doubles.
const RETRY_MILLIS_MIN: u32 = 500;
/// The longest pause.
const RETRY_MILLIS_MAX: u32 = 15_000;

/// How an endpoint stands.
#[derive(Debug)]
pub(crate) enum State {
    /// To be opened at this moment.
    Waiting(Instant),
    /// Connections are accepted.
    Listening(OwnedFd),
    /// A connection is being made, until this moment.
    Connecting(OwnedFd, Instant),
    /// Its line is open.
    Open,
    /// It ended and will not come back.
    Ended,
}

/// An endpoint and how it stands.
#[derive(Debug)]
pub(crate) struct Served {
    /// What it is.
    pub(crate) endpoint: Endpoint,
    /// How it stands.
    pub(crate) state: State,
    /// The pause before it is tried again.
    pause_millis: u32,
}

/// What an endpoint gave.
pub(crate) enum Opened {
    /// A line, and its speed if it has one.
    Line(Io, u32),
    /// Nothing yet; its state tells more.
    Pending,
}

/// A connection that is not there by then is tried anew.
const CONNECT_MILLIS_MAX: u32 = 10_000;

impl Served {
    /// To be opened at once.
    pub(crate) const fn new(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            state: State::Waiting(Instant::from_micros(0)),
            pause_millis: RETRY_MILLIS_MIN,
        }
    }

    /// Opens it.
    ///
    /// # Errors
    ///
    /// What the kernel says. It is tried again later, apart from the
    /// standard streams.
    pub(crate) fn open(&mut self, now: Instant) -> Result<Opened, Errno> {
        let opened = self.try_open(now);
        if opened.is_err() {
            self.lost(now);
        }
        opened
    }

    fn try_open(&mut self, now: Instant) -> Result<Opened, Errno> {
        let line = match &self.endpoint {
            Endpoint::Stdio => Opened::Line(stdio::open()?, 0),
            Endpoint::Serial(path, baud) => {
                let line = serial::open(path, *baud)?;
                Opened::Line(Io::Both(line.fd), line.baud)
            }
            Endpoint::Listen(address) => {
                self.state = State::Listening(tcp::listen_at(*address)?);
                return Ok(Opened::Pending);
            }
            Endpoint::Connect(address) => {
                let fd = tcp::begin_connect(*address)?;
                let until =
                    now.after(Duration::from_millis(CONNECT_MILLIS_MAX));
                self.state = State::Connecting(fd, until);
                return Ok(Opened::Pending);
            }
        };
        self.state = State::Open;
        Ok(line)
    }

    /// A connection that was begun has come about or failed.
    ///
    /// # Errors
    ///
    /// Why it failed; it is tried again later.
    pub(crate) fn finish_connect(
        &mut self,
        now: Instant,
    ) -> Result<Option<Io>, Errno> {
        match core::mem::replace(&mut self.state, State::Open) {
            State::Connecting(fd, _) => match tcp::finish_connect(&fd) {
                Ok(()) => Ok(Some(Io::Both(fd))),
                Err(error) => {
                    self.lost(now);
                    Err(error)
                }
            },
            other => {
                self.state = other;
                Ok(None)
            }
        }
    }

    /// Its line is gone, or never came about.
    pub(crate) fn lost(&mut self, now: Instant) {
        self.state = match self.endpoint {
            Endpoint::Stdio => State::Ended,
            _ => {
                let pause = Duration::from_millis(self.pause_millis);
                State::Waiting(now.after(pause))
            }
        };
        self.pause_millis =
            self.pause_millis.saturating_mul(2).min(RETRY_MILLIS_MAX);
    }

    /// Somebody spoke there: the next pause is short again.
    pub(crate) fn proved(&mut self) {
        self.pause_millis = RETRY_MILLIS_MIN;
    }

    /// When something has to be done about it.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Waiting(at) | State::Connecting(_, at) => Some(at),
            State::Listening(_) | State::Open | State::Ended => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u32) -> Instant {
        Instant::default().after(Duration::from_millis(millis))
    }

    /// The pause that follows when the endpoint is lost at `now`.
    fn pause(served: &mut Served, now: u32) -> u32 {
        served.lost(at(now));
        let due = served.deadline().unwrap();
        u32::try_from(due.since(at(now)).micros() / 1000).unwrap()
    }

    #[test]
    fn a_home_that_does_not_answer_is_called_less_and_less_often() {
        let home = "192.0.2.1:7221".parse().unwrap();
        let mut served = Served::new(Endpoint::Connect(home));
        assert_eq!(served.deadline(), Some(at(0)), "the first call is now");
        let pauses: Vec<u32> =
            (0..8).map(|n| pause(&mut served, n * 60_000)).collect();
        assert_eq!(
            pauses,
            [500, 1000, 2000, 4000, 8000, 15_000, 15_000, 15_000]
        );
        // Somebody was there: it is worth another try soon.
        served.proved();
        assert_eq!(pause(&mut served, 1), 500);
    }

    #[test]
    fn the_standard_streams_do_not_come_back() {
        let mut served = Served::new(Endpoint::Stdio);
        served.lost(at(5));
        assert!(matches!(served.state, State::Ended));
        assert_eq!(served.deadline(), None);
    }
}
