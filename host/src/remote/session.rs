//! A session with an agent: the one door to everything that is asked of it.
//!
//! Joins a [`Line`] with a [`Client`] and waits where a caller wants an
//! answer. All verbs, and later sealing, pass here. What can be asked for is
//! in `requests`.

mod requests;

use std::collections::VecDeque;
use std::time::Duration;

use e2wire_protocol::digest::DeviceId;
use e2wire_protocol::message::{Busy, DrainLog, LogStream, RequestBody};

use crate::error::{Error, ErrorKind, Result};
use crate::remote::client::{
    AgentFacts, Client, Counters, Event, Fetched, Ticket,
};
use crate::remote::line::{Line, Received};
use crate::remote::moment::Moment;
use crate::source::Priority;
use crate::stop::Stop;
use crate::units::ByteRange;

pub use requests::trouble_error;
mod write;

/// The wish to stop is looked at so often.
const TICK: Duration = Duration::from_millis(200);

/// Requests wait here, not in a line's queue, once so much waits there.
const UNSENT_MAX: usize = 8 * 1024;

/// So much of what was seen on a line is kept to tell what is there.
const SEEN_BYTES_MAX: usize = 8 * 1024;

/// A piece of the agent's log is no longer: the line has better to do.
const LOG_PIECE_BYTES: u16 = 1024;

/// A request for what is not logged yet is asked again so rarely.
const LOG_WAIT_MILLIS: u32 = 20_000;

/// How long to wait for what.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Patience {
    /// For the port to open and the agent to answer (`--connect-timeout`).
    pub connect: Duration,
    /// For an agent that was there and is silent (`--wait`).
    pub wait: Duration,
    /// For an agent that is not there yet (`--wait`, when it is given):
    /// until then a port that does not open is tried again.
    pub appear: Option<Duration>,
    /// For the whole job (`--deadline`).
    pub deadline: Option<Duration>,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            wait: Duration::from_secs(60),
            appear: None,
            deadline: None,
        }
    }
}

impl Patience {
    /// For the first answer.
    fn first(&self) -> Duration {
        self.appear.map_or(self.connect, |appear| appear.max(self.connect))
    }
}

/// What happens on a line besides answers.
#[derive(Debug)]
pub enum News<'a> {
    /// Console text, as it came: escape it before it is shown.
    Text(&'a [u8]),
    /// The agent answers, for the first time or again.
    Up(&'a AgentFacts),
    /// The agent has stopped answering.
    Silent,
    /// The line ended, why, and is opened again.
    Closed(&'a str),
    /// The line does not open yet, and is tried again.
    NotYet(&'a Error),
    /// Another machine than before answered, and was sent away.
    Stranger(&'a AgentFacts),
    /// A disk keeps the agent waiting.
    Busy(&'a Busy),
    /// Some of the agent's own log, from this position on.
    Log(u64, &'a [u8]),
    /// The agent's log cannot be followed, and why.
    NoLog(&'a Error),
}

/// Takes what happens on a line.
pub type Watch<'w> = Box<dyn FnMut(News<'_>) + Send + 'w>;

/// What was seen on a line while no agent answered.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Seen {
    /// The last of the text.
    pub text: Vec<u8>,
    /// All bytes, frames included.
    pub bytes: u64,
    /// Frames of our own that came back.
    pub echoes: u64,
    /// The line was open at all.
    pub opened: bool,
}

/// A session; see the module.
pub struct Session<'w> {
    line: Box<dyn Line>,
    client: Client,
    patience: Patience,
    stop: Stop,
    watch: Watch<'w>,
    agent: Option<AgentFacts>,
    seen: Seen,
    silent_since: Option<Moment>,
    answers: VecDeque<Event>,
    buffer: Vec<u8>,
    /// The request for the agent's log that is open, if it is followed.
    log: Option<Ticket>,
}

impl<'w> Session<'w> {
    /// Over `line`, which is opened by [`Self::connect`]. `seed` makes the
    /// session's identifiers.
    #[must_use]
    pub fn new(
        line: Box<dyn Line>,
        seed: [u8; 32],
        patience: Patience,
        stop: Stop,
    ) -> Self {
        Self {
            client: Client::new(line.nature(), seed),
            line,
            patience,
            stop,
            watch: Box::new(|_| {}),
            agent: None,
            seen: Seen::default(),
            silent_since: None,
            answers: VecDeque::new(),
            buffer: Vec::new(),
            log: None,
        }
    }

    /// Tells `watch` from now on what happens besides answers.
    pub fn watch(&mut self, watch: Watch<'w>) {
        self.watch = watch;
    }

    /// What users call the line.
    #[must_use]
    pub fn name(&self) -> String {
        self.line.name()
    }

    /// The conversation, for its figures.
    #[must_use]
    pub const fn client(&self) -> &Client {
        &self.client
    }

    /// What it has cost so far.
    #[must_use]
    pub const fn counters(&self) -> Counters {
        self.client.counters()
    }

    /// What was seen on the line besides frames.
    #[must_use]
    pub const fn seen(&self) -> &Seen {
        &self.seen
    }

    /// The time on the line.
    #[must_use]
    pub fn now(&self) -> Moment {
        self.line.now()
    }

    /// Opens the line and waits for the agent.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NoLink`] when the port does not open or nobody answers in
    /// time; [`ErrorKind::Protocol`] when who answers speaks no version of
    /// ours; [`ErrorKind::Interrupted`] when asked to stop.
    pub fn connect(&mut self) -> Result<AgentFacts> {
        let give_up = self.line.now().after(self.patience.first());
        self.open_line(give_up)?;
        while !self.client.is_up() {
            if self.line.now() >= give_up {
                return Err(self.nobody());
            }
            self.step(give_up)?;
        }
        self.agent.clone().ok_or_else(|| self.nobody())
    }

    /// Has the agent's own log told to whoever watches: what there is of it
    /// now, and then what is added. Nothing of it crosses the line otherwise.
    ///
    /// # Errors
    ///
    /// As [`Self::fetched`].
    pub fn follow_log(&mut self) -> Result<()> {
        self.ask_for_log(0);
        let first = self.log;
        // The first piece is not waited for longer than anything else.
        while self.log == first && self.log.is_some() {
            self.step(Moment::NEVER)?;
        }
        Ok(())
    }

    fn ask_for_log(&mut self, from: u64) {
        let wait_millis = if from == 0 { 0 } else { LOG_WAIT_MILLIS };
        let drain = DrainLog {
            stream: LogStream::Agent,
            from,
            bytes: LOG_PIECE_BYTES,
            wait_millis,
        };
        self.log = Some(self.client.ask(RequestBody::Log(drain)));
    }

    /// Who answered last.
    #[must_use]
    pub const fn agent(&self) -> Option<&AgentFacts> {
        self.agent.as_ref()
    }

    fn nobody(&self) -> Error {
        let seconds = self.patience.first().as_secs_f64();
        Error::new(
            ErrorKind::NoLink,
            format!(
                "no agent answers at {} (waited {seconds} s)",
                self.line.name()
            ),
        )
        .hint("`e2wire probe` tells what is at the other end")
    }

    /// Has ranges of a device read; whole logical sectors.
    pub fn want(
        &mut self,
        device: DeviceId,
        ranges: &[ByteRange],
        priority: Priority,
    ) {
        self.client.want(device, ranges, priority);
    }

    /// Has ranges of a device read that resemble each other, in chunks of
    /// their own; whole logical sectors.
    pub fn want_together(&mut self, device: DeviceId, ranges: &[ByteRange]) {
        self.client.want_together(device, ranges);
    }

    /// Waits for some of what is wanted.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Interrupted`] when the agent stays silent or the line
    /// stays away for too long, when the deadline has come, or when asked to
    /// stop: the same command goes on later.
    pub fn fetched(&mut self) -> Result<Fetched> {
        loop {
            if let Some(fetched) = self.client.poll_fetched() {
                return Ok(fetched);
            }
            self.step(Moment::NEVER)?;
        }
    }

    /// Some of what is wanted, if it is here already.
    pub fn poll_fetched(&mut self) -> Option<Fetched> {
        self.client.poll_fetched()
    }

    /// Keeps the conversation going until `until` or a byte of text, an
    /// answer or a wake-up.
    ///
    /// # Errors
    ///
    /// As [`Self::fetched`].
    pub fn idle(&mut self, until: Moment) -> Result<()> {
        self.step(until)
    }

    /// Sends what is to be sent, waits for bytes until `until` at most, and
    /// handles what comes.
    fn step(&mut self, until: Moment) -> Result<()> {
        self.stop.check()?;
        let now = self.line.now();
        self.check_deadline(now)?;
        self.send(now);
        let mut wake = until.min(now.after(TICK));
        if let Some(due) = self.client.poll_timeout() {
            wake = wake.min(due);
        }
        self.buffer.clear();
        let received = self.line.receive(wake, &mut self.buffer);
        let now = self.line.now();
        match received {
            Received::Bytes => {
                let bytes = std::mem::take(&mut self.buffer);
                self.seen.bytes =
                    self.seen.bytes.saturating_add(bytes.len() as u64);
                self.client.handle_bytes(now, &bytes);
                self.buffer = bytes;
            }
            Received::Nothing | Received::Woken => {}
            Received::Closed(why) => self.reopen(&why)?,
        }
        self.seen.echoes = self.client.counters().echoed_frames;
        if self.client.poll_timeout().is_some_and(|due| due <= now) {
            self.client.handle_timeout(now);
        }
        self.take_events()?;
        self.send(self.line.now());
        self.check_silence()
    }

    fn send(&mut self, now: Moment) {
        let mut frame = Vec::new();
        while self.line.unsent() < UNSENT_MAX {
            frame.clear();
            if !self.client.poll_transmit(now, &mut frame) {
                return;
            }
            self.line.send(&frame);
        }
    }

    fn take_events(&mut self) -> Result<()> {
        while let Some(event) = self.client.poll_event() {
            match event {
                Event::Up(facts) => self.up(*facts)?,
                Event::Silent => {
                    self.silent_since = Some(self.line.now());
                    (self.watch)(News::Silent);
                }
                Event::NoCommonVersion(what) => {
                    return Err(Error::new(ErrorKind::Protocol, what)
                        .hint("take an e2wire of the agent's version"));
                }
                Event::Text(text) => {
                    let kept = &mut self.seen.text;
                    kept.extend_from_slice(&text);
                    let excess = kept.len().saturating_sub(SEEN_BYTES_MAX);
                    kept.drain(..excess);
                    (self.watch)(News::Text(&text));
                }
                Event::Busy(busy) => (self.watch)(News::Busy(&busy)),
                Event::Log(ticket, piece, bytes)
                    if Some(ticket) == self.log =>
                {
                    (self.watch)(News::Log(piece.from, &bytes));
                    let next = piece.from.saturating_add(bytes.len() as u64);
                    self.ask_for_log(next);
                }
                Event::Failed(ticket, trouble) if Some(ticket) == self.log => {
                    self.log = None;
                    let error = trouble_error(trouble, &self.line.name());
                    (self.watch)(News::NoLog(&error));
                }
                answer => self.answers.push_back(answer),
            }
        }
        Ok(())
    }

    /// An agent answers. On a job's way another machine's disk must never
    /// take the place of the one that it began with.
    fn up(&mut self, facts: AgentFacts) -> Result<()> {
        let expected =
            self.agent.as_ref().is_none_or(|a| a.may_be_same_machine(&facts));
        if expected {
            if facts.new_boot && self.agent.is_some() {
                self.client.machine_has_restarted();
            }
            self.silent_since = None;
            (self.watch)(News::Up(&facts));
            self.agent = Some(facts);
            return Ok(());
        }
        (self.watch)(News::Stranger(&facts));
        if self.line.nature().listens {
            return self.reopen("it came from another machine");
        }
        Err(Error::new(
            ErrorKind::Interrupted,
            format!(
                "another machine answers at {} now: {}",
                self.line.name(),
                facts.machine_name()
            ),
        )
        .intact("nothing was taken from it; what has arrived is kept")
        .hint("lead the line to the first machine again, or begin anew"))
    }

    fn check_deadline(&self, now: Moment) -> Result<()> {
        let Some(deadline) = self.patience.deadline else { return Ok(()) };
        if now.since_start() < deadline {
            return Ok(());
        }
        Err(not_in_time(deadline))
    }

    /// Gives up once the agent has been silent for too long.
    fn check_silence(&self) -> Result<()> {
        let now = self.line.now();
        let Some(since) = self.silent_since else { return Ok(()) };
        if now.since(since) < self.patience.wait {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Interrupted,
            format!(
                "the agent at {} has been silent for {:.0} s",
                self.line.name(),
                now.since(since).as_secs_f64()
            ),
        )
        .intact("what has arrived is kept")
        .hint("the same command goes on from here, also over another port"))
    }

    /// The line ended: opens it again, as often as patience lasts.
    fn reopen(&mut self, why: &str) -> Result<()> {
        self.client.line_closed();
        (self.watch)(News::Closed(why));
        let was_up = self.agent.is_some();
        let waits =
            self.line.nature().listens || self.patience.appear.is_some();
        if !was_up && !waits {
            return Err(Error::new(
                ErrorKind::NoLink,
                format!("{} ended: {why}", self.line.name()),
            ));
        }
        // Whoever hung up may do so again at once.
        self.line.pause(Duration::from_millis(100));
        let (from, wait) = if was_up {
            let since = *self.silent_since.get_or_insert(self.line.now());
            (since, self.patience.wait)
        } else {
            (Moment::START, self.patience.first())
        };
        self.open_line(from.after(wait)).map_err(|error| {
            if was_up && error.kind() == ErrorKind::NoLink {
                return Error::new(
                    ErrorKind::Interrupted,
                    format!("{} ended: {why}", self.line.name()),
                )
                .because(error)
                .intact("what has arrived is kept")
                .hint("the same command goes on from here");
            }
            error
        })
    }

    /// Opens the line, trying until `give_up`.
    fn open_line(&mut self, give_up: Moment) -> Result<()> {
        let mut pause = Duration::from_millis(100);
        let mut told = false;
        loop {
            self.stop.check()?;
            let now = self.line.now();
            self.check_deadline(now)?;
            let mut left = give_up.since(now);
            if let Some(deadline) = self.patience.deadline {
                left = left.min(deadline.saturating_sub(now.since_start()));
            }
            match self.line.open(left, &self.stop) {
                Ok(()) => {
                    self.seen.opened = true;
                    self.client.line_opened(self.line.now());
                    return Ok(());
                }
                Err(error) if error.kind() != ErrorKind::NoLink => {
                    return Err(error);
                }
                Err(error) => {
                    self.check_deadline(self.line.now())?;
                    let again =
                        self.agent.is_some() || self.patience.appear.is_some();
                    if !again || self.line.now().after(pause) >= give_up {
                        return Err(error);
                    }
                    if !told && self.agent.is_none() {
                        (self.watch)(News::NotYet(&error));
                        told = true;
                    }
                }
            }
            self.line.pause(pause);
            pause = (pause * 2).min(Duration::from_secs(2));
        }
    }
}

/// The job took longer than it was given.
pub(crate) fn not_in_time(deadline: Duration) -> Error {
    Error::new(
        ErrorKind::Interrupted,
        format!("not done after {} s", deadline.as_secs_f64()),
    )
    .intact("what has arrived is kept")
    .hint("the same command goes on from here")
}
