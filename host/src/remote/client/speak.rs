//! What a client sends, and when.

use std::time::Duration;

use e2wire_protocol::chunk::Grant;
use e2wire_protocol::coding::Coding;
use e2wire_protocol::digest::BootId;
use e2wire_protocol::limits::{BUSY_INTERVAL_MILLIS, LINE_BYTES_MAX};
use e2wire_protocol::message::{Hello, Request, RequestBody, Task};
use e2wire_protocol::version::Versions;

use super::{CHUNKS_MAX, Client, FETCHED_MAX, Owner, Phase, Sent};
use crate::remote::client::flow::Flow;
use crate::remote::moment::Moment;

/// Bytes of a Hello's answer, roughly.
const HELLO_BYTES: u64 = 400;

/// After so many tests that did not come back, bytes beyond the printable
/// ones do not pass.
const TESTS_MAX: u32 = 4;

/// Timers that run out one after the other before a Hello finds out whether
/// anybody is still there.
const ROUNDS_MAX: u32 = 5;

/// The agent says at least so often that it is busy.
const BUSY_INTERVAL: Duration =
    Duration::from_millis(BUSY_INTERVAL_MILLIS as u64);

/// What waits for the rest of a frame for so long is none.
const EXPIRE_AFTER: Duration = Duration::from_secs(1);

/// Every byte there is goes through the line and back.
fn every_byte() -> [u8; 256] {
    std::array::from_fn(|index| index as u8)
}

impl Client {
    /// The next frame to be sent, written behind what is in `out`; false
    /// when there is none now.
    pub fn poll_transmit(&mut self, now: Moment, out: &mut Vec<u8>) -> bool {
        let sent = match self.phase {
            Phase::Closed => false,
            Phase::Greeting { tries, next } => {
                next <= now && self.send_hello(now, tries, out)
            }
            Phase::Testing { tries, next, .. } => {
                next <= now && self.send_test(now, tries, out)
            }
            Phase::Up => {
                self.send_ask(now, out)
                    || self.send_again(out)
                    || self.send_grant(now, out)
            }
        };
        if sent {
            self.last_sent = now;
        }
        sent
    }

    /// When [`Self::handle_timeout`] has to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Moment> {
        let of_phase = match self.phase {
            Phase::Closed => return None,
            Phase::Greeting { next, .. } | Phase::Testing { next, .. } => {
                Some(next)
            }
            Phase::Up => self.next_of_up(),
        };
        let expiry =
            self.is_in_frame().then(|| self.last_byte.after(EXPIRE_AFTER));
        [of_phase, expiry].into_iter().flatten().min()
    }

    fn next_of_up(&self) -> Option<Moment> {
        let asks = self
            .asks
            .values()
            .map(|ask| ask.due)
            .filter(|due| *due > Moment::START)
            .min();
        let hold = (self.hold_until > Moment::START).then_some(self.hold_until);
        [asks, self.silence_due(), hold].into_iter().flatten().min()
    }

    /// When a silence means that something got lost.
    fn silence_due(&self) -> Option<Moment> {
        let mut waiting = false;
        let mut sending = false;
        for (chunk, _) in self.chunks.values() {
            if chunk.is_waiting() {
                waiting = true;
                sending |= chunk.is_known();
            }
        }
        if !waiting {
            return None;
        }
        // As long as a disk or the compressor works, the agent says so; once
        // a chunk's first fragment is here the others follow at once.
        let mut patience = self.flow.patience();
        if !sending {
            patience += BUSY_INTERVAL;
        }
        let patience = patience * 2_u32.pow(self.rounds.min(4));
        let frame = self.flow.time_of(u64::from(self.flow.payload()));
        let silent = self.last_byte.max(self.last_sent).after(patience);
        // Text may come without end while no frame does.
        let deaf = self
            .last_reply
            .max(self.last_sent)
            .after(patience + 4 * frame + Duration::from_millis(500));
        Some(silent.min(deaf))
    }

    /// Time has passed: finds out what is due.
    pub fn handle_timeout(&mut self, now: Moment) {
        if self.is_in_frame() && self.last_byte.after(EXPIRE_AFTER) <= now {
            self.expire();
        }
        if self.hold_until <= now {
            self.hold_until = Moment::START;
        }
        if self.phase != Phase::Up {
            return;
        }
        if self.silence_due().is_some_and(|due| due <= now) {
            self.after_silence(now);
        }
        self.overdue_asks(now);
    }

    fn after_silence(&mut self, now: Moment) {
        self.rounds += 1;
        if self.rounds > ROUNDS_MAX {
            self.lose_everything();
            self.greet_again(now);
            return;
        }
        let mut lost = 0;
        for (number, sent) in &self.sent {
            let Some((chunk, _)) = self.chunks.get_mut(&sent.chunk) else {
                continue;
            };
            if chunk.is_known() {
                lost += chunk.lost_all_of(*number);
            } else {
                self.again.insert(*number);
            }
        }
        let (sent, chunks) = (&mut self.sent, &self.chunks);
        sent.retain(|_, sent| {
            chunks.get(&sent.chunk).is_some_and(|(c, _)| !c.is_known())
        });
        self.count_lost(lost.min(1));
        self.last_sent = now;
    }

    fn send_hello(
        &mut self,
        now: Moment,
        tries: u32,
        out: &mut Vec<u8>,
    ) -> bool {
        // On a line that does not pass every byte only every other Hello
        // gets an answer that arrives.
        if !self.silent && self.flow.may_be_dirty() && tries >= 2 {
            let coding = match tries % 2 {
                0 => Coding::Printable,
                _ => Coding::Binary,
            };
            if coding != self.coding {
                self.coding = coding;
                self.greet_anew(now);
            }
        }
        if tries == 0 {
            self.before_question = self.bytes_so_far();
        }
        let patience =
            Duration::from_millis(250) + self.flow.time_of(HELLO_BYTES);
        let patience = patience * (tries + 1).min(4);
        self.phase = Phase::Greeting {
            tries: tries + 1,
            next: now.after(patience.min(Duration::from_secs(2))),
        };
        let hello = Hello {
            versions: Versions::OURS,
            session: self.session,
            coding: self.coding,
            window: Flow::window_max(),
        };
        self.number += 1;
        let body = RequestBody::Hello(hello);
        self.write(BootId::default(), self.number, body, &[], out)
    }

    fn send_test(
        &mut self,
        now: Moment,
        tries: u32,
        out: &mut Vec<u8>,
    ) -> bool {
        if tries >= TESTS_MAX {
            self.coding = match self.coding {
                Coding::Binary => Coding::Printable,
                Coding::Printable => Coding::Binary,
            };
            self.greet_anew(now);
            return self.send_hello(now, 0, out);
        }
        if tries == 0 {
            self.before_question = self.bytes_so_far();
        }
        let time = self.flow.time_of(2 * 400);
        let next = now.after(
            (time * 2 + Duration::from_millis(200)) * (tries + 1).min(3),
        );
        self.phase = Phase::Testing { tries: tries + 1, sent: now, next };
        self.number += 1;
        let boot = self.boot.unwrap_or_default();
        let tail = every_byte();
        self.write(boot, self.number, RequestBody::Echo, &tail, out)
    }

    /// Whether `tail` is what a test sends.
    pub(super) fn is_test(tail: &[u8]) -> bool {
        tail == every_byte()
    }

    /// Sends a request again as it was: it may not have arrived.
    fn send_again(&mut self, out: &mut Vec<u8>) -> bool {
        while let Some(number) = self.again.pop_first() {
            let Some(sent) = self.sent.get_mut(&number) else { continue };
            self.order += 1;
            sent.order = self.order;
            sent.resent = true;
            let Sent { chunk, grant, .. } = *sent;
            return self.write_grant(chunk, grant, number, out);
        }
        false
    }

    /// Grants what is missing of a chunk that was begun, or begins one.
    fn send_grant(&mut self, now: Moment, out: &mut Vec<u8>) -> bool {
        if now < self.hold_until || self.sent.len() >= self.open_max {
            return false;
        }
        let granted = self.granted_bytes();
        let most = self.flow.under_way_max();
        let room = most.saturating_sub(granted);
        let payload = self.flow.payload();
        let begun = self.chunks.iter_mut().find_map(|(id, (chunk, _))| {
            // It was begun on a line that was much better.
            if chunk.payload() / payload >= 4 {
                chunk.shrink(payload);
            }
            // What is missing of an old chunk must not wait for the window
            // of new ones; nor shall it be asked for crumb by crumb.
            let guess = self.flow.guess(plain_bytes(&chunk.fetch.task));
            let guess = guess.min(room.max(u64::from(self.flow.payload())));
            chunk.next_grant(room, guess).map(|grant| (*id, grant))
        });
        if let Some((id, grant)) = begun {
            return self.send_new(id, grant, out);
        }
        // Two are always under way: one is sent, one is made.
        let waiting =
            self.chunks.values().filter(|(chunk, _)| !chunk.is_known()).count();
        let window = u64::from(Flow::window_max());
        let payload = u64::from(self.flow.payload());
        let room = match waiting {
            0 => window.saturating_sub(granted),
            _ => room,
        };
        if room < payload
            || self.chunks.len() >= CHUNKS_MAX
            || self.fetched.len() + self.chunks.len() >= FETCHED_MAX
        {
            return false;
        }
        let before = self.next_id;
        self.begin_chunk();
        if self.next_id == before {
            return false;
        }
        let id = self.next_id;
        let Some((chunk, _)) = self.chunks.get(&id) else { return false };
        let guess = self.flow.guess(plain_bytes(&chunk.fetch.task));
        let Some(grant) = chunk.next_grant(room, guess) else {
            return false;
        };
        self.send_new(id, grant, out)
    }

    /// Begins the next chunk of the queue, or of what is wanted.
    fn begin_chunk(&mut self) {
        if let Some((ticket, device, task)) = self.queue.pop_front() {
            self.new_chunk(device, task, Owner::Ticket(ticket));
            return;
        }
        let next = self.wants.iter_mut().find_map(|(device, wants)| {
            wants.take().map(|ranges| (*device, ranges))
        });
        if let Some((device, ranges)) = next {
            let task = Task::Read(ranges.clone());
            self.new_chunk(device, task, Owner::Wants(Box::new(ranges)));
        }
    }

    fn send_new(&mut self, id: u64, grant: Grant, out: &mut Vec<u8>) -> bool {
        self.number += 1;
        let number = self.number;
        let Some((chunk, _)) = self.chunks.get_mut(&id) else { return false };
        chunk.asked(grant, number);
        self.order += 1;
        let sent = Sent {
            chunk: id,
            grant,
            device: chunk.fetch.device,
            order: self.order,
            resent: false,
        };
        self.sent.insert(number, sent);
        self.write_grant(id, grant, number, out)
    }

    fn write_grant(
        &mut self,
        id: u64,
        grant: Grant,
        number: u32,
        out: &mut Vec<u8>,
    ) -> bool {
        let Some((chunk, _)) = self.chunks.get(&id) else { return false };
        let mut fetch = chunk.fetch.clone();
        fetch.grant = grant;
        let boot = self.boot.unwrap_or_default();
        self.write(boot, number, RequestBody::Fetch(fetch), &[], out)
    }

    pub(super) fn write(
        &mut self,
        boot: BootId,
        number: u32,
        body: RequestBody,
        tail: &[u8],
        out: &mut Vec<u8>,
    ) -> bool {
        let request = Request { boot, number, body };
        let start = out.len();
        out.resize(start + LINE_BYTES_MAX, 0);
        let coding = self.flow.request_coding();
        let written = request.encode(coding, tail, &mut out[start..]);
        let length = written.unwrap_or(0);
        out.truncate(start + length);
        self.counters.sent_bytes += length as u64;
        self.flow.bytes_sent(length);
        length > 0
    }
}

/// How many bytes a task's body has before it is encoded, at most.
pub(super) fn plain_bytes(task: &Task) -> usize {
    match task {
        Task::Read(ranges) => ranges.bytes(),
        Task::Same(_) => 64,
        Task::Digest(_) | Task::Find(_) => 4096,
    }
}
