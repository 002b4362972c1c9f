//! Ports: the ways bytes reach an agent, one file each.
//!
//! Opening a port yields two file descriptors that never block; everything
//! above works on those and knows no difference between a serial line and a
//! socket. Nothing here knows the protocol.

mod command;
mod serial;
mod tcp;
mod unix;

pub(super) use command::Running;
#[cfg(test)]
pub(super) use command::terminal;

use std::any::Any;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use crate::error::{Error, ErrorKind, Result};
use crate::remote::target::Target;
use crate::stop::Stop;

/// How long a wait for the system lasts before the wish to stop is looked at.
const TICK: Duration = Duration::from_millis(100);

/// A way to reach an agent.
pub trait Port: Send {
    /// What users call it, as [`Target`] shows it.
    fn name(&self) -> String;

    /// What can be told of the line before anything was said over it.
    fn nature(&self) -> Nature;

    /// Opens the port; again, when it was open before. Waits until
    /// `patience` ends: what cannot be opened now, because nobody listens or
    /// calls yet, is not tried twice.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NoLink`] when nothing is there or it is taken, with what
    /// to try; [`ErrorKind::Interrupted`] when asked to stop.
    fn open(&mut self, patience: &Patience<'_>) -> Result<Wire>;
}

/// What kind of line a port is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Nature {
    /// Bits per second of a real serial line, start and stop bits included.
    pub baud: Option<u32>,
    /// May end at a serial line or console further on: foreign text,
    /// escapes, little buffering.
    pub console: bool,
    /// Opened again, it may lead to another agent.
    pub listens: bool,
}

/// An open port.
pub struct Wire {
    /// What the agent sends.
    pub input: OwnedFd,
    /// What is sent to the agent.
    pub output: OwnedFd,
    /// Who is at the other end, if that says more than the port's name.
    pub peer: Option<String>,
    /// What must live as long as the wire: a lock, a program.
    keeper: Box<dyn Any + Send>,
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire").field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl Wire {
    /// A wire of one descriptor for both directions.
    fn duplex(
        both: OwnedFd,
        peer: Option<String>,
        keeper: Box<dyn Any + Send>,
    ) -> Result<Self> {
        let output = both.try_clone().map_err(no_descriptor)?;
        Self::new(both, output, peer, keeper)
    }

    fn new(
        input: OwnedFd,
        output: OwnedFd,
        peer: Option<String>,
        keeper: Box<dyn Any + Send>,
    ) -> Result<Self> {
        for fd in [input.as_fd(), output.as_fd()] {
            never_block(fd).map_err(no_descriptor)?;
        }
        Ok(Self { input, output, peer, keeper })
    }

    /// The descriptors, and what must outlive them.
    pub(super) fn into_parts(self) -> (OwnedFd, OwnedFd, Box<dyn Any + Send>) {
        (self.input, self.output, self.keeper)
    }
}

/// How long to wait, and who may end the wait.
#[derive(Clone, Copy, Debug)]
pub struct Patience<'a> {
    /// When the wait is over.
    pub until: Instant,
    /// The wish to stop.
    pub stop: &'a Stop,
}

impl<'a> Patience<'a> {
    /// Patience for so long from now.
    #[must_use]
    pub fn lasting(duration: Duration, stop: &'a Stop) -> Self {
        let now = Instant::now();
        // A century from now is as good as any later moment.
        let century = Duration::from_secs(100 * 366 * 86_400);
        Self { until: now + duration.min(century), stop }
    }

    /// What is left; `None` when it is over.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Interrupted`] when asked to stop.
    fn left(&self) -> Result<Option<Duration>> {
        self.stop.check()?;
        let left = self.until.saturating_duration_since(Instant::now());
        Ok((!left.is_zero()).then_some(left))
    }

    /// Waits until `fd` is ready for `what`; false when patience ended.
    fn wait_for(&self, fd: BorrowedFd<'_>, what: PollFlags) -> Result<bool> {
        while let Some(left) = self.left()? {
            let mut fds = [PollFd::from_borrowed_fd(fd, what)];
            if wait(&mut fds, Some(left.min(TICK))) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Does in a thread of its own what may take as long as it likes;
    /// `None` when patience ended first.
    fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<Option<T>> {
        let (done, result) = mpsc::channel();
        thread::spawn(move || {
            let _ = done.send(work());
        });
        while let Some(left) = self.left()? {
            match result.recv_timeout(left.min(TICK)) {
                Ok(value) => return Ok(Some(value)),
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
            }
        }
        Ok(None)
    }
}

/// The port that `target` names.
///
/// # Errors
///
/// [`ErrorKind::Usage`] for this machine, which needs none.
pub fn of(target: &Target) -> Result<Box<dyn Port>> {
    Ok(match target {
        Target::Local => {
            return Err(Error::new(
                ErrorKind::Usage,
                "this machine's devices are read without an agent",
            )
            .hint("name one with --target, as serial:/dev/ttyUSB0"));
        }
        Target::Serial { path, baud, flow } => {
            Box::new(serial::SerialPort::new(path.clone(), *baud, *flow))
        }
        Target::Tcp(peer) => Box::new(tcp::Caller::new(peer.clone())),
        Target::Listen(at) => Box::new(tcp::Listener::new(at.clone())),
        Target::Unix(path) => Box::new(unix::SocketPort::new(path.clone())),
        Target::Exec(line) => Box::new(command::InTerminal::new(line.clone())),
        Target::Pipe(line) => Box::new(command::OnPipes::new(line.clone())),
    })
}

/// Waits for any of `fds`; false when `timeout` ended (`None`: never).
pub(super) fn wait(fds: &mut [PollFd<'_>], timeout: Option<Duration>) -> bool {
    let timeout = timeout.map(|timeout| Timespec {
        tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(timeout.subsec_nanos()),
    });
    // A signal in between counts as nothing seen: callers ask again.
    poll(fds, timeout.as_ref()).is_ok_and(|ready| ready > 0)
}

fn never_block(fd: BorrowedFd<'_>) -> std::io::Result<()> {
    let flags = fcntl_getfl(fd)?;
    Ok(fcntl_setfl(fd, flags | OFlags::NONBLOCK)?)
}

fn no_descriptor(error: std::io::Error) -> Error {
    Error::io("cannot set up a file descriptor", error)
}

fn no_link(what: String) -> Error {
    Error::new(ErrorKind::NoLink, what)
}
