//! A session with an agent: the one door to everything that is asked of it.
//!
//! Joins a [`Line`] with a [`Client`] and waits where a caller wants an
//! answer. All verbs, and later sealing, pass here.

use std::collections::VecDeque;
use std::time::Duration;

use e2wire_protocol::chunk::SectorRange;
use e2wire_protocol::digest::{DeviceId, RangeDigest};
use e2wire_protocol::message::{
    Busy, DigestForm, DigestUnits, DrainLog, Failure, Find, ListDevices,
    LogPiece, LogStream, PowerAction, RequestBody, SameUnits, Task,
};

use crate::error::{Error, ErrorKind, Result};
use crate::remote::client::{
    AgentFacts, Client, Counters, DeviceRecord, Event, Fetched, Ticket, Trouble,
};
use crate::remote::line::{Line, Received};
use crate::remote::moment::Moment;
use crate::source::Priority;
use crate::stop::Stop;
use crate::units::ByteRange;

/// The wish to stop is looked at so often.
const TICK: Duration = Duration::from_millis(200);

/// Requests wait here, not in a line's queue, once so much waits there.
const UNSENT_MAX: usize = 8 * 1024;

/// Devices asked for in one request.
const DEVICES_PAGE: u16 = 16;

/// The most devices that are taken from an agent.
const DEVICES_MAX: usize = 4096;

/// So much of what was seen on a line is kept to tell what is there.
const SEEN_BYTES_MAX: usize = 8 * 1024;

/// How long to wait for what.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Patience {
    /// For the port to open and the agent to answer (`--connect-timeout`).
    pub connect: Duration,
    /// For an agent that is not there yet, or was and is silent (`--wait`).
    pub wait: Duration,
    /// For the whole job (`--deadline`).
    pub deadline: Option<Duration>,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            wait: Duration::from_secs(60),
            deadline: None,
        }
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
    /// A disk keeps the agent waiting.
    Busy(&'a Busy),
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
        let give_up = self.line.now().after(self.patience.connect);
        self.open_line(give_up)?;
        while !self.client.is_up() {
            if self.line.now() >= give_up {
                return Err(self.nobody());
            }
            self.step(give_up)?;
        }
        self.agent.clone().ok_or_else(|| self.nobody())
    }

    /// Who answered last.
    #[must_use]
    pub const fn agent(&self) -> Option<&AgentFacts> {
        self.agent.as_ref()
    }

    fn nobody(&self) -> Error {
        let seconds = self.patience.connect.as_secs_f64();
        Error::new(
            ErrorKind::NoLink,
            format!(
                "no agent answers at {} (waited {seconds:.0} s)",
                self.line.name()
            ),
        )
        .hint("`e2wire probe` tells what is at the other end")
    }

    /// Lists the devices of the agent's machine.
    ///
    /// # Errors
    ///
    /// As [`Self::fetched`], or what the agent answers.
    pub fn devices(&mut self, rescan: bool) -> Result<Vec<DeviceRecord>> {
        let mut devices: Vec<DeviceRecord> = Vec::new();
        let mut first = 0;
        loop {
            let list = ListDevices {
                rescan: rescan && first == 0,
                first,
                count: DEVICES_PAGE,
            };
            let ticket = self.client.ask(RequestBody::Devices(list));
            let before = devices.len();
            loop {
                match self.answer(ticket)? {
                    Event::Device(_, device) => devices.push(*device),
                    Event::Done(_) => break,
                    _ => return Err(self.strange("a list of devices")),
                }
            }
            first = first.saturating_add(DEVICES_PAGE);
            let whole = devices.len() - before == usize::from(DEVICES_PAGE);
            if !whole || devices.len() >= DEVICES_MAX {
                devices.sort_by_key(|device| device.index);
                return Ok(devices);
            }
        }
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

    /// Keeps the conversation going until `until` or a byte of text, an
    /// answer or a wake-up.
    ///
    /// # Errors
    ///
    /// As [`Self::fetched`].
    pub fn idle(&mut self, until: Moment) -> Result<()> {
        self.step(until)
    }

    /// The digests of all units of a range; the last may be shorter. A unit
    /// that could not be read has the digest that stands for that.
    ///
    /// # Errors
    ///
    /// As [`Self::fetched`], or what the agent answers.
    pub fn digest(
        &mut self,
        device: DeviceId,
        range: SectorRange,
        unit_sectors: u32,
    ) -> Result<Vec<RangeDigest>> {
        let form = DigestForm::Range;
        let task = Task::Digest(DigestUnits { range, unit_sectors, form });
        let body = self.body(device, task)?;
        let units = range.count().div_ceil(unit_sectors.max(1));
        let (digests, rest) = body.as_chunks::<32>();
        if !rest.is_empty() || digests.len() as u64 != u64::from(units) {
            return Err(self.strange("digests"));
        }
        Ok(digests.iter().map(|digest| RangeDigest(*digest)).collect())
    }

    /// The digests of ranges of at most 1 GiB, each as a whole.
    ///
    /// # Errors
    ///
    /// As [`Self::fetched`], or what the agent answers.
    pub fn digests(
        &mut self,
        device: DeviceId,
        ranges: &[SectorRange],
    ) -> Result<Vec<RangeDigest>> {
        let form = DigestForm::Range;
        let tickets: Vec<Ticket> = ranges
            .iter()
            .map(|&range| {
                let unit_sectors = range.count();
                let digest = DigestUnits { range, unit_sectors, form };
                self.client.fetch(device, Task::Digest(digest))
            })
            .collect();
        let mut digests = Vec::with_capacity(ranges.len());
        for ticket in tickets {
            let Event::Body(_, body) = self.answer(ticket)? else {
                return Err(self.strange("a digest"));
            };
            let Ok(digest) = <[u8; 32]>::try_from(body.as_slice()) else {
                return Err(self.strange("a digest"));
            };
            digests.push(RangeDigest(digest));
        }
        Ok(digests)
    }

    /// Which units of pairs of ranges are equal: two bits a unit, see
    /// [`SameUnits`].
    ///
    /// # Errors
    ///
    /// As [`Self::fetched`], or what the agent answers.
    pub fn same(
        &mut self,
        device: DeviceId,
        same: SameUnits,
    ) -> Result<Vec<u8>> {
        self.body(device, Task::Same(same))
    }

    /// Where a range holds a pattern, as
    /// [`Matches`](e2wire_protocol::message::Matches) reads it.
    ///
    /// # Errors
    ///
    /// As [`Self::fetched`], or what the agent answers.
    pub fn find(&mut self, device: DeviceId, find: Find) -> Result<Vec<u8>> {
        self.body(device, Task::Find(find))
    }

    /// Makes what was written to a device safe.
    ///
    /// # Errors
    ///
    /// As [`Self::fetched`], or what the agent answers.
    pub fn flush(&mut self, device: DeviceId) -> Result<()> {
        self.done(RequestBody::Flush(device))
    }

    /// Restarts the machine or switches it off.
    ///
    /// # Errors
    ///
    /// As [`Self::fetched`], or what the agent answers.
    pub fn power(&mut self, action: PowerAction) -> Result<()> {
        self.done(RequestBody::Power(action))
    }

    /// What a log holds from a position on, after waiting for it for
    /// `wait_millis` when there is nothing yet.
    ///
    /// # Errors
    ///
    /// As [`Self::fetched`], or what the agent answers.
    pub fn log(
        &mut self,
        stream: LogStream,
        from: u64,
        wait_millis: u32,
    ) -> Result<(LogPiece, Vec<u8>)> {
        let drain = DrainLog { stream, from, bytes: 4096, wait_millis };
        let ticket = self.client.ask(RequestBody::Log(drain));
        match self.answer(ticket)? {
            Event::Log(_, piece, bytes) => Ok((piece, bytes)),
            _ => Err(self.strange("a log")),
        }
    }

    fn body(&mut self, device: DeviceId, task: Task) -> Result<Vec<u8>> {
        let ticket = self.client.fetch(device, task);
        match self.answer(ticket)? {
            Event::Body(_, body) => Ok(body),
            _ => Err(self.strange("a result")),
        }
    }

    fn done(&mut self, body: RequestBody) -> Result<()> {
        let ticket = self.client.ask(body);
        match self.answer(ticket)? {
            Event::Done(_) => Ok(()),
            _ => Err(self.strange("an acknowledgement")),
        }
    }

    fn strange(&self, expected: &str) -> Error {
        Error::new(
            ErrorKind::Protocol,
            format!(
                "the agent at {} answered something else than {expected}",
                self.line.name()
            ),
        )
    }

    /// Waits for the next event of `ticket`.
    fn answer(&mut self, ticket: Ticket) -> Result<Event> {
        loop {
            let of_ticket = |event: &Event| match event {
                Event::Body(this, ..)
                | Event::Device(this, _)
                | Event::Log(this, ..)
                | Event::Done(this)
                | Event::Wrote(this, _)
                | Event::Failed(this, _) => *this == ticket,
                _ => false,
            };
            if let Some(place) = self.answers.iter().position(of_ticket) {
                return match self.answers.remove(place) {
                    Some(Event::Failed(_, trouble)) => {
                        Err(trouble_error(trouble, &self.line.name()))
                    }
                    Some(event) => Ok(event),
                    None => Err(self.strange("that")),
                };
            }
            if let Err(error) = self.step(Moment::NEVER) {
                self.client.forget(ticket);
                return Err(error);
            }
        }
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
                Event::Up(facts) => {
                    self.silent_since = None;
                    (self.watch)(News::Up(&facts));
                    self.agent = Some(*facts);
                }
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
                answer => self.answers.push_back(answer),
            }
        }
        Ok(())
    }

    fn check_deadline(&self, now: Moment) -> Result<()> {
        let Some(deadline) = self.patience.deadline else { return Ok(()) };
        if now.since_start() < deadline {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Interrupted,
            format!("not done after {} s", deadline.as_secs_f64()),
        )
        .intact("what has arrived is kept")
        .hint("the same command goes on from here"))
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
        if !was_up && !self.line.nature().listens {
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
            (Moment::START, self.patience.connect)
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
        loop {
            self.stop.check()?;
            let now = self.line.now();
            self.check_deadline(now)?;
            let left = give_up.since(now);
            match self.line.open(left, &self.stop) {
                Ok(()) => {
                    self.client.line_opened(self.line.now());
                    return Ok(());
                }
                Err(error) if error.kind() != ErrorKind::NoLink => {
                    return Err(error);
                }
                Err(error) if self.agent.is_none() => return Err(error),
                Err(error) if self.line.now().after(pause) >= give_up => {
                    return Err(error);
                }
                Err(_) => {}
            }
            self.line.pause(pause);
            pause = (pause * 2).min(Duration::from_secs(2));
        }
    }
}

/// What the agent answered, as an error.
#[must_use]
pub fn trouble_error(trouble: Trouble, line: &str) -> Error {
    let failure = match trouble {
        Trouble::Refused(failure) => failure,
        Trouble::Nonsense => {
            return Error::new(
                ErrorKind::Protocol,
                format!(
                    "what the agent at {line} sends does not prove right, \
                     again and again"
                ),
            )
            .hint("is something rewriting the bytes on the way?");
        }
    };
    let kind = match failure {
        Failure::Rights(_) => ErrorKind::NotAuthorised,
        Failure::NoDevice | Failure::Open(_) | Failure::Device(_) => {
            ErrorKind::NoFilesystem
        }
        Failure::Unsupported => ErrorKind::Refused,
        _ => ErrorKind::Protocol,
    };
    Error::new(kind, format!("the agent at {line} answers: {failure}"))
}
