//! The host's side of a conversation with an agent, without socket or clock.
//!
//! Bytes and the time go in, bytes and deadlines come out; the same code runs
//! over a serial line and in a simulation. Call, in any order and as often as
//! needed:
//!
//! - [`Client::handle_bytes`] with what arrived, [`Client::handle_timeout`]
//!   when [`Client::poll_timeout`] has come;
//! - [`Client::want`], [`Client::fetch`], [`Client::ask`] to have something
//!   done;
//! - then [`Client::poll_transmit`] until it yields nothing more, and
//!   [`Client::poll_event`] and [`Client::poll_fetched`] likewise.
//!
//! Asking again is the only recovery. Losses show at once by the running
//! numbers of the replies; timers serve only the last reply before a silence.

mod ask;
mod chunk;
mod event;
mod flow;
mod hear;
mod sent;
mod speak;
mod wants;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use e2wire_protocol::chunk::{Codec, Grant, Ranges};
use e2wire_protocol::coding::Coding;
use e2wire_protocol::digest::{BootId, DeviceId, SessionId};
use e2wire_protocol::frame::Decoder;
use e2wire_protocol::limits::{FRAGMENT_BYTES_MIN, OPEN_REQUESTS_MAX};
use e2wire_protocol::message::{Fetch, Task};

pub use event::{
    AgentFacts, DeviceRecord, Event, Fetched, Ticket, Trouble, Wrote,
};

use crate::remote::moment::Moment;
use crate::remote::port::Nature;
use crate::source::Priority;
use crate::units::ByteRange;
use ask::Ask;
use chunk::OpenChunk;
use flow::Flow;
use sent::Sent;
use wants::Wants;

/// Chunks that are fetched at once at most: 40 MiB of the device, which a
/// quick disk reads while a question goes around the world and back.
const CHUNKS_MAX: usize = 160;

/// Chunks that are fetched or wait to be taken with
/// [`Client::poll_fetched`] at most; then nothing new is asked for.
const FETCHED_MAX: usize = 160;

const _: () = assert!(CHUNKS_MAX <= FETCHED_MAX);
const _: () = assert!(CHUNKS_MAX <= OPEN_REQUESTS_MAX as usize);

/// Where the conversation stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    /// The line is not open.
    Closed,
    /// Saying Hello, so often until now, the next time at this moment.
    Greeting { tries: u32, next: Moment },
    /// Sending a test back and forth.
    Testing { tries: u32, sent: Moment, next: Moment },
    /// Ready.
    Up,
}

/// For whom a chunk is fetched.
#[derive(Debug)]
enum Owner {
    Ticket(Ticket),
    Wants(Box<Ranges>),
}

/// The conversation; see the module.
pub struct Client {
    flow: Flow,
    /// Away only while it is used.
    decoder: Option<Box<Decoder>>,
    /// What session identifiers are made of.
    seed: [u8; 32],
    sessions: u32,
    session: SessionId,
    /// How the agent shall answer.
    coding: Coding,
    phase: Phase,
    /// The agent was up and is silent now.
    silent: bool,
    boot: Option<BootId>,
    /// What the agent said of itself, until it is told.
    greeting: Option<AgentFacts>,
    /// The number of the last request.
    number: u32,
    /// The number of the next reply.
    expected: u32,
    /// When the Hello that is answered was sent first.
    greeted: Moment,
    /// Bytes of both directions before a question whose answer is timed.
    before_question: u64,
    /// What is under way, by request number.
    sent: BTreeMap<u32, Sent>,
    chunks: BTreeMap<u64, (OpenChunk, Owner)>,
    /// Chunks asked for by themselves that are not begun.
    queue: VecDeque<(Ticket, DeviceId, Task)>,
    asks: BTreeMap<Ticket, Ask>,
    wants: BTreeMap<DeviceId, Wants>,
    /// Requests to be sent again as they are.
    again: BTreeSet<u32>,
    next_id: u64,
    /// Counts requests for fragments as they are sent, repeats too.
    order: u64,
    events: VecDeque<Event>,
    fetched: VecDeque<Fetched>,
    last_byte: Moment,
    last_reply: Moment,
    last_sent: Moment,
    /// Timers that ran out since the last reply.
    rounds: u32,
    /// Requests that are open at once at most.
    open_max: usize,
    /// Nothing is granted before.
    hold_until: Moment,
    counters: Counters,
}

/// What a conversation has cost so far.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counters {
    /// Bytes that arrived, console text included.
    pub received_bytes: u64,
    /// Bytes that were sent.
    pub sent_bytes: u64,
    /// Payload of fragments that arrived for the first time.
    pub payload_bytes: u64,
    /// Payload that arrived again.
    pub duplicate_bytes: u64,
    /// Frames that were damaged or lost.
    pub lost_frames: u64,
    /// Bytes of console text.
    pub text_bytes: u64,
    /// Frames of our own that a line sent back.
    pub echoed_frames: u64,
}

impl Client {
    /// On a line of this nature, not opened yet. Session identifiers are
    /// made of `seed`: two conversations must not have the same.
    #[must_use]
    pub fn new(nature: Nature, seed: [u8; 32]) -> Self {
        Self {
            flow: Flow::new(nature),
            decoder: Some(Box::default()),
            seed,
            sessions: 0,
            session: SessionId::default(),
            coding: Coding::Binary,
            phase: Phase::Closed,
            silent: false,
            boot: None,
            greeting: None,
            number: 0,
            expected: 1,
            greeted: Moment::START,
            before_question: 0,
            sent: BTreeMap::new(),
            chunks: BTreeMap::new(),
            queue: VecDeque::new(),
            asks: BTreeMap::new(),
            wants: BTreeMap::new(),
            again: BTreeSet::new(),
            next_id: 0,
            order: 0,
            events: VecDeque::new(),
            fetched: VecDeque::new(),
            last_byte: Moment::START,
            last_reply: Moment::START,
            last_sent: Moment::START,
            rounds: 0,
            open_max: CHUNKS_MAX,
            hold_until: Moment::START,
            counters: Counters::default(),
        }
    }

    /// The line was opened: says Hello.
    pub fn line_opened(&mut self, now: Moment) {
        if let Some(decoder) = &mut self.decoder {
            decoder.reset();
        }
        self.greet_anew(now);
    }

    /// The line ended: nothing is sent until it is opened again.
    pub fn line_closed(&mut self) {
        self.phase = Phase::Closed;
        self.lose_everything();
    }

    /// Whether an agent answers.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.phase == Phase::Up
    }

    /// What it has cost so far.
    #[must_use]
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// Smallest time between a question and its answer so far.
    #[must_use]
    pub fn round_trip(&self) -> Duration {
        self.flow.round_trip()
    }

    /// Bytes a second, as far as seen.
    #[must_use]
    pub fn rate(&self) -> u64 {
        self.flow.rate() as u64
    }

    /// How replies are put on the line.
    #[must_use]
    pub const fn coding(&self) -> Coding {
        self.coding
    }

    /// Has `ranges` of a device read, which must be whole logical sectors.
    /// They come in parts, in any order, see [`Client::poll_fetched`]; what is
    /// under way already is not read twice.
    pub fn want(
        &mut self,
        device: DeviceId,
        ranges: &[ByteRange],
        priority: Priority,
    ) {
        self.wants.entry(device).or_default().add(ranges, priority);
    }

    /// Has `ranges`, which resemble each other, read in chunks of their own:
    /// alike for [`Client::want`].
    pub fn want_together(&mut self, device: DeviceId, ranges: &[ByteRange]) {
        self.wants.entry(device).or_default().add_together(ranges);
    }

    /// Whether the line is so slow that finding out what need not cross it
    /// pays.
    #[must_use]
    pub fn is_slow(&self) -> bool {
        self.flow.is_slow()
    }

    /// Nothing is wanted any more but what is under way.
    pub fn want_nothing(&mut self) {
        for wants in self.wants.values_mut() {
            wants.clear();
        }
    }

    /// Has the result of a digest, comparison or search made; it comes as
    /// [`Event::Body`].
    pub fn fetch(&mut self, device: DeviceId, task: Task) -> Ticket {
        let ticket = self.ticket();
        self.queue.push_back((ticket, device, task));
        ticket
    }

    /// Whether bytes wait for the rest of their frame.
    fn is_in_frame(&self) -> bool {
        self.decoder.as_ref().is_some_and(|decoder| decoder.is_waiting())
    }

    /// What was asked for is no longer of interest.
    pub fn forget(&mut self, ticket: Ticket) {
        self.forget_ask(ticket);
        self.queue.retain(|(this, ..)| *this != ticket);
        self.chunks.retain(|_, (_, owner)| {
            !matches!(owner, Owner::Ticket(this) if *this == ticket)
        });
        self.drop_orphans();
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The next blocks of those that are wanted. As long as too many wait
    /// here, no more are asked for.
    pub fn poll_fetched(&mut self) -> Option<Fetched> {
        let fetched = self.fetched.pop_front()?;
        if let Some(wants) = self.wants.get_mut(&fetched.device) {
            wants.done(&fetched.ranges);
        }
        Some(fetched)
    }

    fn ticket(&mut self) -> Ticket {
        Ticket(self.id())
    }

    fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// All bytes of frames so far, in both directions.
    const fn bytes_so_far(&self) -> u64 {
        let Counters { sent_bytes, received_bytes, text_bytes, .. } =
            self.counters;
        (sent_bytes + received_bytes).saturating_sub(text_bytes)
    }

    /// A question that was sent at `sent` is answered: what it took, less
    /// the time that its bytes and those of the answer need on the line, is
    /// the way there and back.
    fn question_answered(&mut self, now: Moment, sent: Moment) {
        let bytes = self.bytes_so_far().saturating_sub(self.before_question);
        let transit = self.flow.time_of(bytes);
        self.flow.round_trip_seen(now.since(sent).saturating_sub(transit));
    }

    /// A new session on the present line.
    fn greet_anew(&mut self, now: Moment) {
        self.sessions += 1;
        let mut hasher = blake3::Hasher::new_keyed(&self.seed);
        hasher.update(&self.sessions.to_le_bytes());
        let mut id = [0; 8];
        hasher.finalize_xof().fill(&mut id);
        self.session = SessionId(id);
        self.number = 0;
        self.greeted = now;
        self.phase = Phase::Greeting { tries: 0, next: now };
        self.lose_everything();
    }

    /// Says Hello again, to find out whether anybody is there.
    fn greet_again(&mut self, now: Moment) {
        if !self.silent {
            self.silent = true;
            self.events.push_back(Event::Silent);
        }
        self.greeted = now;
        self.phase = Phase::Greeting { tries: 0, next: now };
    }

    /// Nothing of what is under way will come.
    fn lose_everything(&mut self) {
        self.sent.clear();
        self.again.clear();
        for (chunk, _) in self.chunks.values_mut() {
            chunk.lost_all();
        }
        for ask in self.asks.values_mut() {
            ask.lost();
        }
        self.rounds = 0;
    }

    /// Forgets requests that nobody waits for.
    fn drop_orphans(&mut self) {
        let Self { sent, chunks, again, .. } = self;
        sent.retain(|_, sent| chunks.contains_key(&sent.chunk));
        again.retain(|number| sent.contains_key(number));
    }

    /// The bytes of payload that are granted, as the agent counts them: a
    /// grant is open until its last fragment has come.
    fn granted_bytes(&self) -> u64 {
        self.sent.values().map(|sent| sent.grant.bytes()).sum()
    }

    fn new_chunk(&mut self, device: DeviceId, task: Task, owner: Owner) {
        let payload = match task {
            // Two bits for each unit: what is granted in vain would keep
            // the next questions waiting.
            Task::Same(_) => FRAGMENT_BYTES_MIN,
            _ => self.flow.payload(),
        };
        // OK to be none: the payload is within its bounds.
        let Some(grant) = Grant::new(payload, 0, 1) else { return };
        let codec = match task {
            Task::Read(_) => self.flow.codec(),
            _ => Codec::Stored,
        };
        let fetch = Fetch { device, task, codec, grant };
        let id = self.id();
        self.chunks.insert(id, (OpenChunk::new(fetch), owner));
    }
}

#[cfg(test)]
mod tests;
