//! The loop: everything waits here, and nothing else does.

use core::fmt::Write as _;

use e2wire_agent::agent::{Agent, Notice};
use e2wire_agent::clock::{Clock, Duration, Instant};
use e2wire_agent::memory::PORTS_MAX;
use e2wire_agent::port::{Exchange, PortKind, PortNumber, exchange};
use e2wire_protocol::message::{LogStream, PowerAction};
use embedded_io::ErrorKind;
use heapless::Vec;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::io::Errno;

use super::clock::BootClock;
use super::devices::Disks;
use super::endpoint::{Opened, Served, State};
use super::kmsg::KernelLog;
use super::line::{Io, Line};
use super::options::{ENDPOINTS_MAX, Endpoint};
use super::sysfs::Text;
use super::zstd::Zstd;
use super::{log, tcp};

/// Rounds that one port may have before others get theirs.
const ROUNDS_MAX: usize = 8;

/// When all places are taken, a connection that was silent for so long has
/// to go.
const SILENT_MILLIS: u32 = 30_000;

/// The longest sleep: children are reaped and clocks looked at that often.
const SLEEP_MILLIS_MAX: u32 = 1_000;

/// Descriptors that are waited for: the disks, the kernel's log, a chore, each
/// endpoint, each line twice.
const POLL_MAX: usize = 3 + ENDPOINTS_MAX + 2 * PORTS_MAX;

/// Why the loop ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum End {
    /// Nobody can come any more.
    NoEndpoint,
    /// A host asked for it.
    Power(PowerAction),
}

/// Whatever else has to be done now and then while the loop runs.
pub(crate) trait Chores {
    /// Does what is due, and says when to be called again. New endpoints may
    /// be added.
    fn turn(
        &mut self,
        now: Instant,
        endpoints: &mut Vec<Served, ENDPOINTS_MAX>,
    ) -> Option<Instant>;

    /// A descriptor that is worth a turn when it becomes readable.
    fn poll_fd(&self) -> Option<PollFd<'_>>;

    /// A host that has a session said something.
    fn in_session(&mut self, now: Instant);
}

/// A hosted agent has nothing else to do.
pub(crate) struct NoChores;

impl Chores for NoChores {
    fn turn(
        &mut self,
        _now: Instant,
        _endpoints: &mut Vec<Served, ENDPOINTS_MAX>,
    ) -> Option<Instant> {
        None
    }

    fn poll_fd(&self) -> Option<PollFd<'_>> {
        None
    }

    fn in_session(&mut self, _now: Instant) {}
}

/// Everything that the loop holds.
pub(crate) struct Server<'m> {
    /// The state machine.
    pub(crate) agent: Agent<'m>,
    /// The disks.
    pub(crate) disks: Disks,
    /// The compressor.
    pub(crate) zstd: Zstd,
    /// The kernel's log.
    pub(crate) kernel_log: KernelLog,
    /// The ways to it.
    pub(crate) endpoints: Vec<Served, ENDPOINTS_MAX>,
    /// Open lines, by the number of their port.
    pub(crate) lines: [Option<Line>; PORTS_MAX],
    /// Ports that a host has begun a session at since they were opened.
    pub(crate) sessions: [bool; PORTS_MAX],
}

/// What came of an attempt to move bytes.
#[derive(Clone, Copy, Default)]
struct Moved {
    /// Some did.
    any: bool,
    /// Some of a host that has a session.
    in_session: bool,
}

/// What a descriptor in the poll belongs to.
#[derive(Clone, Copy)]
enum Token {
    Disks,
    KernelLog,
    Chore,
    Endpoint(usize),
    Line(usize),
}

impl Server<'_> {
    /// Serves until nobody can come any more or a host asks for the end.
    pub(crate) fn run(&mut self, chores: &mut impl Chores) -> End {
        loop {
            let now = BootClock.now();
            let due = chores.turn(now, &mut self.endpoints);
            self.open_due(now);
            let moved = self.step_while_bytes_move(chores);
            self.take_notices(now, chores);
            let agent = &mut self.agent;
            log::drain(|frames| agent.log(LogStream::Agent, frames));
            if let Some(action) = self.agent.power_action(now) {
                return End::Power(action);
            }
            let ended = |served: &Served| matches!(served.state, State::Ended);
            if self.endpoints.iter().all(ended) && !chores_may_add(due) {
                return End::NoEndpoint;
            }
            self.wait(moved, due, chores.poll_fd());
        }
    }

    /// Steps and moves bytes in turn: what was sent makes room for more.
    /// Whether there may still be more, when others have to have their turn.
    fn step_while_bytes_move(&mut self, chores: &mut impl Chores) -> bool {
        for _ in 0..ROUNDS_MAX {
            let now = BootClock.now();
            self.agent.step(now, &mut self.disks, &mut self.zstd);
            let moved = self.exchange_all(now);
            if moved.in_session {
                chores.in_session(now);
            }
            if !moved.any {
                return false;
            }
        }
        true
    }

    fn open_due(&mut self, now: Instant) {
        for index in 0..self.endpoints.len() {
            let Some(served) = self.endpoints.get_mut(index) else {
                continue;
            };
            match &served.state {
                State::Waiting(at) if *at <= now => match served.open(now) {
                    Ok(Opened::Line(io, baud)) => {
                        self.take_line(io, baud, index, now);
                    }
                    Ok(Opened::Pending) => {}
                    Err(error) => defmt::warn!(
                        "endpoint {=usize} does not open: errno {=i32}",
                        index,
                        error.raw_os_error()
                    ),
                },
                State::Connecting(_, until) if *until <= now => {
                    served.lost(now);
                }
                _ => {}
            }
        }
    }

    /// Takes a line into service; without a place for it, it is closed.
    fn take_line(&mut self, io: Io, baud: u32, index: usize, now: Instant) {
        let Some(served) = self.endpoints.get(index) else {
            return;
        };
        let (name, kind) = name_of(&served.endpoint, &io);
        let open =
            |agent: &mut Agent<'_>| agent.open_port(&name, kind, baud, now);
        let mut number = open(&mut self.agent);
        if number.is_none() && self.close_most_silent(now) {
            number = open(&mut self.agent);
        }
        let Some(number) = number else {
            defmt::warn!("no place for {=str}", name.as_str());
            if let Some(served) = self.endpoints.get_mut(index)
                && !matches!(served.state, State::Listening(_))
            {
                served.lost(now);
            }
            return;
        };
        defmt::info!("port {=str} open, baud {=u32}", name.as_str(), baud);
        if let Some(place) = self.lines.get_mut(number.index()) {
            *place = Some(Line::new(io, number, index, now));
        }
    }

    /// Makes room for a connection; whether that was possible.
    fn close_most_silent(&mut self, now: Instant) -> bool {
        let accepted = |line: &&Line| {
            self.endpoints.get(line.endpoint).is_some_and(|served| {
                matches!(served.state, State::Listening(_))
            })
        };
        let lines = self.lines.iter().flatten().filter(accepted);
        let Some(line) = lines.min_by_key(|line| line.heard) else {
            return false;
        };
        let number = line.number;
        if now.since(line.heard) < Duration::from_millis(SILENT_MILLIS) {
            return false;
        }
        self.close(number, now);
        true
    }

    fn close(&mut self, number: PortNumber, now: Instant) {
        self.agent.close_port(number);
        if let Some(had) = self.sessions.get_mut(number.index()) {
            *had = false;
        }
        let line = self.lines.get_mut(number.index()).and_then(Option::take);
        let Some(line) = line else {
            return;
        };
        defmt::info!("port {=usize} closed", number.index());
        if let Some(served) = self.endpoints.get_mut(line.endpoint)
            && matches!(served.state, State::Open)
        {
            served.lost(now);
        }
    }

    /// Moves what can be moved.
    fn exchange_all(&mut self, now: Instant) -> Moved {
        let mut moved = Moved::default();
        for place in 0..PORTS_MAX {
            for _ in 0..ROUNDS_MAX {
                let Some(Some(line)) = self.lines.get_mut(place) else {
                    break;
                };
                let number = line.number;
                let has_more = !self.agent.to_send(number).is_empty();
                if !line.is_ready(has_more) {
                    break;
                }
                match exchange(&mut self.agent, number, line, now) {
                    Ok(Exchange::Moved) => {
                        line.heard = now;
                        moved.any = true;
                        moved.in_session |=
                            self.sessions.get(place).is_some_and(|had| *had);
                    }
                    Ok(Exchange::Idle) => break,
                    Err(ErrorKind::Interrupted) => {}
                    Ok(Exchange::Closed) | Err(_) => {
                        self.close(number, now);
                        break;
                    }
                }
            }
        }
        moved
    }

    fn take_notices(&mut self, now: Instant, chores: &mut impl Chores) {
        while let Some(notice) = self.agent.next_notice() {
            match notice {
                Notice::SessionBegan(port) => {
                    defmt::info!("session at port {=usize}", port.index());
                    chores.in_session(now);
                    if let Some(had) = self.sessions.get_mut(port.index()) {
                        *had = true;
                    }
                    let line = self.lines.get(port.index());
                    if let Some(Some(line)) = line
                        && let Some(served) =
                            self.endpoints.get_mut(line.endpoint)
                    {
                        served.proved();
                    }
                }
                Notice::PortStuck(port) => {
                    defmt::warn!("port {=usize} is stuck", port.index());
                }
                Notice::ScanPutBack => {
                    defmt::warn!("a scan was put back: its device hangs");
                }
            }
        }
    }

    /// Sleeps until something happens, or until a deadline; not at all if
    /// bytes `moved` just now.
    fn wait(
        &mut self,
        moved: bool,
        due: Option<Instant>,
        chore: Option<PollFd<'_>>,
    ) {
        let now = BootClock.now();
        let mut fds: Vec<PollFd<'_>, POLL_MAX> = Vec::new();
        let mut tokens: Vec<Token, POLL_MAX> = Vec::new();
        let mut ready = moved;
        let mut add = |token, fd| {
            // There is room for all there can be.
            let _ = fds.push(fd).map(|()| tokens.push(token));
        };
        add(Token::Disks, self.disks.poll_fd());
        if let Some(fd) = self.kernel_log.poll_fd() {
            add(Token::KernelLog, fd);
        }
        if let Some(fd) = chore {
            add(Token::Chore, fd);
        }
        for (index, served) in self.endpoints.iter().enumerate() {
            let (fd, flags) = match &served.state {
                State::Listening(fd) => (fd, PollFlags::IN),
                State::Connecting(fd, _) => (fd, PollFlags::OUT),
                _ => continue,
            };
            add(Token::Endpoint(index), PollFd::new(fd, flags));
        }
        for (place, line) in self.lines.iter().enumerate() {
            let Some(line) = line else { continue };
            let has_more = !self.agent.to_send(line.number).is_empty();
            ready |= line.is_ready(has_more);
            let (both, room) = line.poll_fds(has_more);
            add(Token::Line(place), both);
            if let Some(room) = room {
                add(Token::Line(place), room);
            }
        }
        let latest = now.after(Duration::from_millis(SLEEP_MILLIS_MAX));
        let endpoints = self.endpoints.iter().filter_map(Served::deadline);
        let until = [self.agent.deadline(), due]
            .into_iter()
            .flatten()
            .chain(endpoints)
            .fold(latest, Instant::min);
        let sleep = if ready { Duration::default() } else { until.since(now) };
        if poll(&mut fds, Some(&timespec(sleep))).is_err() {
            // Interrupted: looked at again in the next turn.
            return;
        }
        let mut events: Vec<(Token, PollFlags), POLL_MAX> = Vec::new();
        for (token, fd) in tokens.iter().zip(&fds) {
            if !fd.revents().is_empty() {
                let _ = events.push((*token, fd.revents()));
            }
        }
        drop(fds);
        for (token, flags) in events {
            self.happened(token, flags);
        }
    }

    fn happened(&mut self, token: Token, flags: PollFlags) {
        match token {
            Token::Disks => self.disks.clear_wake(),
            // Its turn comes with the next one of the loop.
            Token::Chore => {}
            Token::KernelLog => {
                let agent = &mut self.agent;
                self.kernel_log
                    .read(|record| agent.log(LogStream::Kernel, record));
            }
            Token::Endpoint(index) => self.endpoint_ready(index),
            Token::Line(place) => {
                if let Some(Some(line)) = self.lines.get_mut(place) {
                    line.polled(flags);
                }
            }
        }
    }

    fn endpoint_ready(&mut self, index: usize) {
        let now = BootClock.now();
        let Some(served) = self.endpoints.get_mut(index) else {
            return;
        };
        if let State::Listening(listener) = &served.state {
            let accepted: Result<Option<OwnedFd>, Errno> =
                tcp::accept(listener);
            match accepted {
                Ok(Some(fd)) => self.take_line(Io::Both(fd), 0, index, now),
                Ok(None) => {}
                Err(_) => served.lost(now),
            }
            return;
        }
        match served.finish_connect(now) {
            Ok(Some(io)) => self.take_line(io, 0, index, now),
            Ok(None) => {}
            Err(error) => defmt::info!(
                "endpoint {=usize} does not connect: errno {=i32}",
                index,
                error.raw_os_error()
            ),
        }
    }
}

/// A program whose endpoints all ended goes on only if there is something
/// that can bring new ones.
fn chores_may_add(due: Option<Instant>) -> bool {
    due.is_some()
}

fn timespec(duration: Duration) -> Timespec {
    let micros = duration.micros();
    let part = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    Timespec {
        tv_sec: part(micros.wrapping_div(1_000_000)),
        // Rounded up, or the loop would spin for the last microsecond.
        tv_nsec: part(micros.wrapping_rem(1_000_000).wrapping_mul(1000)),
    }
}

/// What a port is called, and what it is.
fn name_of(endpoint: &Endpoint, io: &Io) -> (Text, PortKind) {
    let mut name = Text::new();
    let kind = match endpoint {
        Endpoint::Stdio => {
            let _ = name.push_str("stdio");
            PortKind::Stream
        }
        Endpoint::Serial(path, _) => {
            let path = path.as_bytes();
            name =
                super::sysfs::text(path.strip_prefix(b"/dev/").unwrap_or(path));
            PortKind::Serial
        }
        Endpoint::Listen(_) | Endpoint::Connect(_) => {
            let peer = match io {
                Io::Both(fd) => rustix::net::getpeername(fd).ok().flatten(),
                Io::Pair(..) => None,
            };
            let address = peer
                .and_then(|peer| core::net::SocketAddr::try_from(peer).ok());
            // An address is far shorter than a text may be.
            let _ = match address {
                Some(address) => write!(name, "tcp {address}"),
                None => name.write_str("tcp"),
            };
            PortKind::Stream
        }
    };
    (name, kind)
}
