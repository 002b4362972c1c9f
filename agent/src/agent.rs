//! The agent's state machine.
//!
//! It owns no port, no disk and no clock. The loop around it calls, in this
//! order, as often as something happened:
//!
//! 1. [`Agent::received`] with what came in at a port;
//! 2. [`Agent::step`], which starts jobs of devices, takes up those that have
//!    ended, and puts replies in front of the ports;
//! 3. [`Agent::to_send`] and [`Agent::sent`] for each port; when a port took
//!    bytes there may be room for more: again from 2;
//! 4. otherwise it sleeps until a port is ready, a device job ends, or
//!    [`Agent::deadline`] comes.
//!
//! [`port::exchange`](crate::port::exchange) does 1 and 3 for one port.

use core::fmt::Write as _;

use e2wire_protocol::digest::{BootId, BuildId, RangeDigester};
use e2wire_protocol::frame::Event;
use e2wire_protocol::limits::TEXT_BYTES_MAX;
use e2wire_protocol::message::{LogStream, Machine, PowerAction, Rights, cut};

use crate::clock::{Duration, Instant};
use crate::compress::Encoder;
use crate::device::{DeviceIndex, Devices};
use crate::dispatch::{self, Outcome, Terms};
use crate::memory::{DEVICES_MAX, Memory, PORTS_MAX, SLOTS_MAX};
use crate::port::{PortKind, PortNumber};
use crate::queue::{OpenIndex, Stage, Work};
use crate::schedule::{Running, Scanning};
use crate::session::{
    BANNER_INTERVAL, BUSY_INTERVAL, EXPIRE_AFTER, FORGET_AFTER, Line,
};
use crate::uploads::Shelf;
use crate::write::Writing;

/// The largest window that a session may have. Payload is cut as it goes
/// out, so a window costs the agent nothing.
pub(crate) const WINDOW_MAX: u32 = 64 * 1024 * 1024;

/// A machine goes down when the answer has left the port, or after so long.
const POWER_DELAY: Duration = Duration::from_millis(1000);

/// How long a request waits for devices that take their time to tell who they
/// are: one that hangs never does.
const DEVICES_PATIENCE: Duration = Duration::from_millis(2000);

/// What the agent says of itself.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Random, new at each start.
    pub boot: BootId,
    /// Of this program.
    pub build: BuildId,
    /// The version of this program, for people.
    pub version: &'a str,
    /// What sessions may ask for.
    pub rights: Rights,
    /// The machine.
    pub machine: Machine<'a>,
    /// When the agent was started.
    pub started: Instant,
}

/// Something worth a line in the agent's own log.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Notice {
    /// A host has begun a session at this port.
    SessionBegan(PortNumber),
    /// The peer at this port takes no bytes; its work rests.
    PortStuck(PortNumber),
    /// A scan was given up for another one, since its device hangs.
    ScanPutBack,
}

/// The state machine; see the module.
pub struct Agent<'m> {
    pub(crate) memory: &'m mut Memory,
    pub(crate) facts: Facts<'m>,
    pub(crate) running: [Option<Running>; SLOTS_MAX],
    /// Whose scan is running.
    pub(crate) scanning: Option<Scanning>,
    /// Whose write is running.
    pub(crate) writing: Option<Writing>,
    /// Devices that are claimed and need not be any more.
    pub(crate) unclaim: heapless::Vec<DeviceIndex, DEVICES_MAX>,
    pub(crate) digester: RangeDigester,
    /// The port whose turn it is to start a job.
    pub(crate) turn: usize,
    /// The devices have been listed once.
    pub(crate) listed: bool,
    /// All that is to be found out about them has been.
    pub(crate) whole: bool,
    pub(crate) power: Option<(PowerAction, PortNumber, Instant)>,
    pub(crate) notices: heapless::Deque<Notice, 16>,
}

impl<'m> Agent<'m> {
    /// With no port yet. `memory` must be unused.
    #[must_use]
    pub fn new(memory: &'m mut Memory, facts: Facts<'m>) -> Self {
        Self {
            memory,
            facts,
            running: [const { None }; SLOTS_MAX],
            scanning: None,
            writing: None,
            unclaim: heapless::Vec::new(),
            digester: RangeDigester::new(),
            turn: 0,
            listed: false,
            whole: false,
            power: None,
            notices: heapless::Deque::new(),
        }
    }

    /// Takes a port into service. `baud` is 0 where it means nothing. `None`
    /// when all places are taken: refuse the connection.
    pub fn open_port(
        &mut self,
        name: &str,
        kind: PortKind,
        baud: u32,
        now: Instant,
    ) -> Option<PortNumber> {
        let lines = &mut self.memory.lines;
        let place = lines.iter().position(|line| !line.open)?;
        let line = lines.get_mut(place)?;
        line.reset(kind, now);
        line.baud = baud;
        // It was cut to fit.
        let _fits = line.name.push_str(cut(name, TEXT_BYTES_MAX));
        PortNumber::new(place)
    }

    /// The port is gone; so is its session.
    pub fn close_port(&mut self, port: PortNumber) {
        self.drop_all(port);
        self.disarm(port);
        if let Some(line) = self.memory.lines.get_mut(port.index()) {
            line.session.end();
            line.open = false;
        }
    }

    /// Takes bytes that came in at a port.
    pub fn received(&mut self, port: PortNumber, bytes: &[u8], now: Instant) {
        let terms = Terms { boot: self.facts.boot, rights: self.facts.rights };
        let mut input = bytes;
        loop {
            let Memory { lines, queue, uploads, cache, .. } = &mut *self.memory;
            let mut shelf = Shelf { uploads, cache };
            let line = lines.get_mut(port.index()).filter(|line| line.open);
            let Some(line) = line else { return };
            line.heard = now;
            let outcome = match line.decoder.next(&mut input) {
                None => return,
                Some(Event::Broken(_)) => continue,
                Some(Event::Text(text)) => {
                    line.asked |= is_question(text);
                    continue;
                }
                Some(Event::Frame(frame)) => {
                    let session = &mut line.session;
                    let shelf = &mut shelf;
                    dispatch::frame(frame, terms, session, queue, shelf, now)
                }
            };
            self.carry_out(port, outcome, now);
        }
    }

    fn carry_out(&mut self, port: PortNumber, outcome: Outcome, now: Instant) {
        match outcome {
            Outcome::Handled => {}
            Outcome::Cancel(number) => {
                self.drop_all(port);
                let Memory { lines, queue, .. } = &mut *self.memory;
                if let Some(line) = lines.get_mut(port.index()) {
                    let session = &mut line.session;
                    let work = Work::Done;
                    if let Err(why) =
                        dispatch::add(number, work, session, queue, now)
                    {
                        session.refuse(number, why);
                    }
                }
            }
            Outcome::Begin(number, hello) => {
                self.drop_all(port);
                self.disarm(port);
                let Memory { lines, queue, .. } = &mut *self.memory;
                if let Some(line) = lines.get_mut(port.index()) {
                    // Nobody waits for what the old session still sends.
                    line.out.clear(now);
                    let session = &mut line.session;
                    dispatch::begin(number, hello, session, queue, now);
                }
                self.notice(Notice::SessionBegan(port));
            }
        }
    }

    /// Starts and takes up jobs, and fills what is to be sent.
    pub fn step(
        &mut self,
        now: Instant,
        devices: &mut impl Devices,
        encoder: &mut impl Encoder,
    ) {
        if !self.listed {
            devices.rescan();
            self.memory.inventory.refresh(devices);
            self.listed = true;
        }
        let settled = devices.settle();
        self.whole = settled.whole;
        if settled.changed {
            self.memory.inventory.refresh(devices);
        }
        self.age(now);
        self.collect(now, devices, encoder);
        self.schedule(now, devices, encoder);
        for place in 0..PORTS_MAX {
            if let Some(port) = PortNumber::new(place) {
                self.fill(port, now, devices, encoder.level_max());
            }
        }
        // What was sent has made room: the next jobs run meanwhile.
        self.schedule(now, devices, encoder);
    }

    /// What waits to be sent at a port.
    #[must_use]
    pub fn to_send(&self, port: PortNumber) -> &[u8] {
        match self.memory.lines.get(port.index()) {
            Some(line) if line.open => line.out.waiting(),
            _ => &[],
        }
    }

    /// The port took the first `count` bytes of it.
    pub fn sent(&mut self, port: PortNumber, count: usize, now: Instant) {
        if let Some(line) = self.line(port) {
            line.out.sent(count, now);
            line.rests &= count == 0;
        }
    }

    /// When `step` has to be called even if nothing happens until then.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let lines = self.memory.lines.iter().filter(|line| line.open);
        let of_lines = lines.filter_map(|line| self.deadline_of(line)).min();
        let power = self.power.as_ref().map(|power| power.2);
        [of_lines, power].into_iter().flatten().min()
    }

    /// What shall become of the machine, once the host that asked for it has
    /// been told.
    pub fn power_action(&mut self, now: Instant) -> Option<PowerAction> {
        let (action, port, until) = self.power?;
        if self.to_send(port).is_empty() || now >= until {
            self.power = None;
            return Some(action);
        }
        None
    }

    /// Keeps what was logged until a host asks for it.
    pub fn log(&mut self, stream: LogStream, bytes: &[u8]) {
        match stream {
            LogStream::Agent => self.memory.agent_log.push(bytes),
            LogStream::Kernel => self.memory.kernel_log.push(bytes),
        }
    }

    /// What happened that is worth a line in the agent's own log.
    pub fn next_notice(&mut self) -> Option<Notice> {
        self.notices.pop_front()
    }

    /// Whether a request that arrived at `since` should rather wait until
    /// more is known about the devices.
    pub(crate) fn knows_too_little(
        &self,
        since: Instant,
        now: Instant,
    ) -> bool {
        !self.whole && now.since(since) < DEVICES_PATIENCE
    }

    pub(crate) fn notice(&mut self, notice: Notice) {
        // When nobody reads them, the latest are lost.
        let _lost = self.notices.push_back(notice);
    }

    pub(crate) fn line(&mut self, port: PortNumber) -> Option<&mut Line> {
        self.memory.lines.get_mut(port.index()).filter(|line| line.open)
    }

    pub(crate) fn shut_down(
        &mut self,
        action: PowerAction,
        port: PortNumber,
        now: Instant,
    ) {
        self.power = Some((action, port, now.after(POWER_DELAY)));
    }

    /// Drops all open requests of a port.
    fn drop_all(&mut self, port: PortNumber) {
        while let Some(index) = self
            .memory
            .lines
            .get(port.index())
            .and_then(|line| line.session.order.last().copied())
        {
            self.drop_open(port, index);
        }
    }

    /// Drops one open request and lets go of what was kept for it.
    pub(crate) fn drop_open(&mut self, port: PortNumber, index: OpenIndex) {
        self.let_go(index);
        let Memory { lines, queue, .. } = &mut *self.memory;
        let Some(line) = lines.get_mut(port.index()) else { return };
        let session = &mut line.session;
        match queue.get(index).map(|open| &open.work) {
            Some(Work::Fetch(work)) => {
                let granted = dispatch::granted_bytes(&work.fetch);
                session.granted = session.granted.saturating_sub(granted);
            }
            Some(Work::Echo) => session.echo.clear(),
            _ => {}
        }
        session.order.retain(|this| *this != index);
        queue.remove(index);
    }

    /// Lets go of the chunk, job or scan that an open request holds. A job
    /// itself cannot be called back; it ends for nobody.
    pub(crate) fn let_go(&mut self, index: OpenIndex) {
        let Some(stage) = self.memory.queue.stage_mut(index).copied() else {
            return;
        };
        if let Stage::Ready(chunk) = stage {
            self.memory.cache.unpin(chunk);
        }
        for running in self.running.iter_mut().flatten() {
            if running.owner.is_some_and(|(_, owner)| owner == index) {
                running.owner = None;
            }
        }
        if self.scanning.is_some_and(|it| it.owner.1 == index) {
            self.scanning = None;
        }
        if self.writing.is_some_and(|it| it.owner.1 == index) {
            self.writing = None;
        }
    }

    /// What the mere passing of time does.
    fn age(&mut self, now: Instant) {
        for place in 0..PORTS_MAX {
            let Some(port) = PortNumber::new(place) else { return };
            let Some(line) = self.line(port) else { continue };
            let silent = now.since(line.heard);
            if silent >= EXPIRE_AFTER && line.decoder.is_waiting() {
                let _text = line.decoder.expire();
            }
            if silent >= FORGET_AFTER {
                line.decoder.forget_coding();
            }
            if line.is_stuck(now) && !line.rests {
                line.rests = true;
                self.rest(port);
            }
        }
    }

    /// Lets go of all that a stuck port holds; it is made again when the port
    /// moves.
    fn rest(&mut self, port: PortNumber) {
        let mut place = 0;
        while let Some(index) = self
            .memory
            .lines
            .get(port.index())
            .and_then(|line| line.session.order.get(place).copied())
        {
            place = place.saturating_add(1);
            let holds = matches!(
                self.memory.queue.stage_mut(index),
                Some(
                    Stage::Ready(_)
                        | Stage::Running(_)
                        | Stage::Scanning
                        | Stage::Wrote(_)
                )
            );
            if holds {
                self.let_go(index);
                if let Some(stage) = self.memory.queue.stage_mut(index) {
                    *stage = Stage::New;
                }
            }
        }
        self.notice(Notice::PortStuck(port));
    }

    fn deadline_of(&self, line: &Line) -> Option<Instant> {
        let mut next = None;
        let mut at = |when: Instant| {
            next = Some(next.map_or(when, |next: Instant| next.min(when)));
        };
        if line.decoder.is_waiting() {
            at(line.heard.after(EXPIRE_AFTER));
        }
        if line.out.waiting().is_empty() {
            if line.serial && !line.session.begun {
                at(line.banner.after(BANNER_INTERVAL));
            }
            for index in &line.session.order {
                let Some(open) = self.memory.queue.get(*index) else {
                    continue;
                };
                match &open.work {
                    Work::Log { until, .. } => at(*until),
                    _ => {
                        at(line.out.moved.max(open.since).after(BUSY_INTERVAL));
                    }
                }
            }
        } else if !line.rests {
            at(line.out.moved.after(crate::session::STUCK_AFTER));
        }
        next
    }

    /// What a serial line without a session tells people.
    pub(crate) fn show_banner(&mut self, port: PortNumber, now: Instant) {
        let facts = self.facts;
        let Some(line) = self.line(port) else { return };
        let due = now.since(line.banner) >= BANNER_INTERVAL;
        if !line.serial || line.session.begun || !(due || line.asked) {
            return;
        }
        if !line.out.waiting().is_empty() {
            return;
        }
        line.asked = false;
        line.banner = now;
        let mut text = heapless::String::<320>::new();
        let rights = if facts.rights.has(Rights::WRITE) { "rw" } else { "ro" };
        let key = if facts.rights.has(Rights::INSECURE) {
            ", no key asked for (--insecure)"
        } else {
            ""
        };
        let written = write!(
            text,
            "\r\ne2wire-agent {} ready on {}, {rights}{key}\r\n\
             connect with: e2wire -t TARGET probe\r\n",
            cut(facts.version, TEXT_BYTES_MAX),
            line.name,
        );
        if written.is_ok() {
            let text = text.as_bytes();
            line.out.add(now, |room| match room.get_mut(..text.len()) {
                Some(place) => {
                    place.copy_from_slice(text);
                    text.len()
                }
                None => 0,
            });
        }
    }
}

/// Somebody pressed Enter, or asked for help.
fn is_question(text: &[u8]) -> bool {
    let ends = matches!(text.last(), Some(b'\r' | b'\n'));
    ends && text.len() <= "help\r\n".len()
}
