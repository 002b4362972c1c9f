//! What a client makes of what arrives.

use e2wire_protocol::chunk::Layout;
use e2wire_protocol::digest::ShortDigest;
use e2wire_protocol::frame::{Event as Found, Kind};
use e2wire_protocol::message::{
    Failure, Fragment, HelloReply, LogPiece, Reply, ReplyBody, RequestBody,
    Task,
};
use e2wire_protocol::version::Versions;

use super::chunk::Taken;
use super::speak::plain_bytes;
use super::{
    AgentFacts, Ask, Client, DeviceRecord, Event, Fetched, Owner, Phase,
    Ticket, Trouble, Wrote,
};
use crate::remote::moment::Moment;

/// After so many chunks thrown away one is given up.
const RESTARTS_MAX: u32 = 8;

impl Client {
    /// Takes bytes that arrived.
    pub fn handle_bytes(&mut self, now: Moment, bytes: &[u8]) {
        self.counters.received_bytes += bytes.len() as u64;
        self.flow.bytes_seen(now, bytes.len());
        self.last_byte = now;
        let mut input = bytes;
        // Taken out, since an event borrows from it.
        let Some(mut decoder) = self.decoder.take() else { return };
        while let Some(found) = decoder.next(&mut input) {
            match found {
                Found::Frame(frame) if frame.kind == Kind::PlainReply => {
                    match Reply::decode(frame.message) {
                        Ok((reply, tail)) => self.reply(now, &reply, tail),
                        Err(_) => self.count_lost(0),
                    }
                }
                // Our own words, from a line that echoes.
                Found::Frame(_) => self.counters.echoed_frames += 1,
                Found::Text(text) => self.text(text),
                Found::Broken(bytes) => self.broken(bytes),
            }
        }
        self.decoder = Some(decoder);
    }

    /// What waited for the rest of its frame was none.
    pub(super) fn expire(&mut self) {
        let Some(mut decoder) = self.decoder.take() else { return };
        if let Some(Found::Text(bytes) | Found::Broken(bytes)) =
            decoder.expire()
        {
            self.broken(bytes);
        }
        self.decoder = Some(decoder);
    }

    fn text(&mut self, text: &[u8]) {
        self.counters.text_bytes += text.len() as u64;
        self.events.push_back(Event::Text(text.to_vec()));
    }

    /// A damaged frame, or text: what is readable of it is shown, since it
    /// may be a kernel's last words.
    fn broken(&mut self, bytes: &[u8]) {
        let readable = |byte: &u8| matches!(byte, b' '..=b'~' | b'\r' | b'\n');
        let words = bytes.split(|byte| !readable(byte));
        for words in words.filter(|words| words.len() >= 24) {
            self.text(words);
        }
    }

    pub(super) fn count_lost(&mut self, frames: u32) {
        self.counters.lost_frames += u64::from(frames);
        self.flow.frames_lost(frames);
    }

    fn reply(&mut self, now: Moment, reply: &Reply<'_>, tail: &[u8]) {
        if let ReplyBody::Hello(hello) = &reply.body {
            self.hello(now, reply, hello);
            return;
        }
        if let Phase::Greeting { .. } = self.phase {
            if let ReplyBody::Failed(Failure::Version(agent)) = reply.body {
                self.no_common_version(agent);
            }
            return;
        }
        self.last_reply = now;
        self.rounds = 0;
        let gap = reply.number.wrapping_sub(self.expected);
        // Numbers far off belong to what came before a Hello.
        let gap = if gap < 1 << 20 { gap } else { 0 };
        if reply.number >= self.expected {
            self.expected = reply.number.wrapping_add(1);
        }
        if gap > 0 {
            self.count_lost(gap);
        }
        match reply.body {
            ReplyBody::Hello(_) => {}
            ReplyBody::Echo => self.echo(now, reply.answers, tail),
            ReplyBody::Fragment(fragment) => {
                self.fragment(reply.answers, &fragment, tail);
            }
            ReplyBody::Busy(busy) => {
                self.busy_asks(now);
                self.events.push_back(Event::Busy(busy));
            }
            ReplyBody::Device(device) => {
                self.device(reply.answers, device.total, || {
                    DeviceRecord::new(&device)
                });
            }
            ReplyBody::NoMoreDevices(_) | ReplyBody::Done => {
                self.done(reply.answers);
            }
            ReplyBody::Log(piece) => self.log(reply.answers, piece, tail),
            ReplyBody::Written => {
                self.wrote(reply.answers, Wrote::Written);
            }
            ReplyBody::AlreadyThere => {
                self.wrote(reply.answers, Wrote::AlreadyThere);
            }
            ReplyBody::Conflict(conflict) => {
                let sectors = tail.as_chunks::<16>().0;
                let sectors = sectors.iter().map(|it| ShortDigest(*it));
                self.wrote(
                    reply.answers,
                    Wrote::Conflict {
                        range: conflict.range,
                        now: conflict.now,
                        sectors: sectors.collect(),
                    },
                );
            }
            ReplyBody::Failed(failure) => {
                self.failed(now, reply.answers, failure);
            }
        }
    }

    /// A fragment that answers request `number` has come. Requests to one
    /// device are answered in the order in which they arrive, so those before
    /// it that still lack something lack it for good: asked for again.
    fn overtaken(&mut self, number: u32) {
        let Some(answered) = self.sent.get(&number).copied() else { return };
        if answered.resent {
            return;
        }
        let older: Vec<u32> = self
            .sent
            .iter()
            .filter(|(_, sent)| {
                sent.order < answered.order && sent.device == answered.device
            })
            .map(|(number, _)| *number)
            .collect();
        for number in older {
            let Some(sent) = self.sent.get(&number) else { continue };
            let Some((chunk, _)) = self.chunks.get_mut(&sent.chunk) else {
                continue;
            };
            if chunk.is_known() {
                chunk.lost_all_of(number);
                self.sent.remove(&number);
            } else {
                self.again.insert(number);
            }
        }
    }

    fn hello(&mut self, now: Moment, reply: &Reply<'_>, hello: &HelloReply) {
        let Phase::Greeting { tries, .. } = self.phase else {
            // The answer to one that was sent twice.
            if hello.session == self.session && self.boot == Some(hello.boot) {
                self.last_reply = now;
                self.rounds = 0;
                if reply.number >= self.expected {
                    self.expected = reply.number.wrapping_add(1);
                }
            }
            return;
        };
        if hello.session != self.session {
            return;
        }
        let Some(version) = Versions::OURS.common(hello.versions) else {
            self.no_common_version(hello.versions);
            return;
        };
        let new_boot = self.boot != Some(hello.boot);
        let was_up = self.silent && !new_boot;
        self.lose_everything();
        self.boot = Some(hello.boot);
        self.expected = reply.number.wrapping_add(1);
        self.last_reply = now;
        self.flow.learn(version, hello.port_baud, &hello.limits);
        if hello.limits.open_requests > 0 {
            let most = usize::from(hello.limits.open_requests);
            self.open_max = self.open_max.min(most.max(2));
        }
        if tries <= 1 {
            self.question_answered(now, self.greeted);
        }
        self.greeting = Some(AgentFacts::new(hello, new_boot));
        // Where nothing lies between, every byte passes.
        if was_up || self.flow.is_direct() {
            self.up();
        } else {
            self.phase = Phase::Testing { tries: 0, sent: now, next: now };
        }
    }

    /// The agent that answers runs on the machine of the one before it, which
    /// has restarted. What asked for that is done: asked again, the machine
    /// would restart again.
    pub fn machine_has_restarted(&mut self) {
        let is_done = |ask: &Ask| {
            ask.was_sent() && matches!(ask.body, RequestBody::Power(_))
        };
        let done = self.asks.extract_if(.., |_, ask| is_done(ask));
        self.events.extend(done.map(|(ticket, _)| Event::Done(ticket)));
    }

    /// The conversation can begin, or go on.
    fn up(&mut self) {
        self.phase = Phase::Up;
        self.silent = false;
        if let Some(facts) = self.greeting.take() {
            self.events.push_back(Event::Up(Box::new(facts)));
        }
    }

    fn no_common_version(&mut self, agent: Versions) {
        self.phase = Phase::Closed;
        self.events.push_back(Event::NoCommonVersion(format!(
            "the agent speaks versions {} to {} of the protocol, e2wire {} \
             to {}",
            agent.min,
            agent.current,
            Versions::OURS.min,
            Versions::OURS.current
        )));
    }

    fn echo(&mut self, now: Moment, answers: u32, tail: &[u8]) {
        let Phase::Testing { tries, sent, .. } = self.phase else { return };
        if !Self::is_test(tail) {
            return;
        }
        if tries == 1 && answers == self.number {
            self.question_answered(now, sent);
        }
        self.up();
    }

    fn ask_of(&self, number: u32) -> Option<Ticket> {
        self.asks
            .iter()
            .find(|(_, ask)| ask.number == Some(number))
            .map(|(ticket, _)| *ticket)
    }

    fn device(
        &mut self,
        answers: u32,
        total: u16,
        record: impl FnOnce() -> DeviceRecord,
    ) {
        let Some(ticket) = self.ask_of(answers) else { return };
        let record = record();
        let Some(ask) = self.asks.get_mut(&ticket) else { return };
        let RequestBody::Devices(list) = &ask.body else { return };
        let end = list.first.saturating_add(list.count).min(total);
        let expected = usize::from(end.saturating_sub(list.first));
        if (list.first..end).contains(&record.index)
            && ask.listed.insert(record.index)
        {
            let whole = ask.listed.len() == expected;
            self.events.push_back(Event::Device(ticket, Box::new(record)));
            if whole {
                self.asks.remove(&ticket);
                self.events.push_back(Event::Done(ticket));
            }
        }
    }

    fn done(&mut self, answers: u32) {
        let Some(ticket) = self.ask_of(answers) else { return };
        self.asks_overtaken(ticket);
        if !self.slice_arrived(ticket) {
            self.asks.remove(&ticket);
            self.events.push_back(Event::Done(ticket));
        }
    }

    fn wrote(&mut self, answers: u32, wrote: Wrote) {
        if let Some(ticket) = self.ask_of(answers) {
            self.asks_overtaken(ticket);
            self.asks.remove(&ticket);
            self.events.push_back(Event::Wrote(ticket, wrote));
        }
    }

    fn log(&mut self, answers: u32, piece: LogPiece, tail: &[u8]) {
        let Some(ticket) = self.ask_of(answers) else { return };
        self.asks.remove(&ticket);
        self.events.push_back(Event::Log(ticket, piece, tail.to_vec()));
    }

    fn failed(&mut self, now: Moment, answers: u32, failure: Failure) {
        match failure {
            Failure::NoSession | Failure::Boot(_) => {
                self.greet_anew(now);
                return;
            }
            Failure::Version(agent) => {
                self.no_common_version(agent);
                return;
            }
            Failure::Malformed => return,
            _ => {}
        }
        if let Some(ticket) = self.ask_of(answers) {
            self.ask_failed(now, ticket, failure);
            return;
        }
        let Some(sent) = self.sent.remove(&answers) else { return };
        self.again.remove(&answers);
        match failure {
            Failure::Full(_) | Failure::Window(_) => {
                if matches!(failure, Failure::Full(_)) {
                    self.open_max = (self.open_max / 2).max(2);
                }
                self.hold_until = now.after(self.flow.patience());
                if let Some((chunk, _)) = self.chunks.get_mut(&sent.chunk) {
                    chunk.lost_all_of(answers);
                }
            }
            Failure::NoFragment(_) => {
                if let Some((chunk, _)) = self.chunks.get_mut(&sent.chunk) {
                    chunk.start_over();
                }
                self.give_up_if_hopeless(sent.chunk);
            }
            _ => self.give_up(sent.chunk, Trouble::Refused(failure)),
        }
    }

    fn fragment(&mut self, answers: u32, fragment: &Fragment, tail: &[u8]) {
        self.overtaken(answers);
        // It says all of what it is a part of; the request only leads to it
        // faster.
        let id = self.sent.get(&answers).map(|sent| sent.chunk);
        let mut taken = Taken::Foreign;
        let mut found = None;
        let candidates = id.into_iter().chain(
            self.chunks.keys().copied().filter(|this| Some(*this) != id),
        );
        for candidate in candidates.collect::<Vec<_>>() {
            let Some((chunk, _)) = self.chunks.get_mut(&candidate) else {
                continue;
            };
            if Some(candidate) != id && !chunk.has_tag(fragment.tag) {
                continue;
            }
            taken = chunk.take(fragment, tail);
            found = Some(candidate);
            break;
        }
        let (Some(id), true) = (found, taken != Taken::Foreign) else {
            // Of a chunk that is whole already.
            self.counters.duplicate_bytes += tail.len() as u64;
            return;
        };
        if taken == Taken::Duplicate {
            self.counters.duplicate_bytes += tail.len() as u64;
            self.flow.was_impatient();
            return;
        }
        self.counters.payload_bytes += tail.len() as u64;
        let Some((chunk, _)) = self.chunks.get_mut(&id) else { return };
        chunk.lost_before(answers, fragment.at);
        if chunk.is_whole() {
            self.complete(id);
            return;
        }
        // Also the answer to an earlier request, believed lost, may have
        // brought what this one asked for: what nothing is waited for any
        // more would hold its part of the window for ever.
        self.sent.retain(|number, sent| {
            sent.chunk != id || !chunk.is_known() || chunk.waits_for(*number)
        });
        self.give_up_if_hopeless(id);
    }

    /// All fragments of a chunk are here.
    fn complete(&mut self, id: u64) {
        let Some((chunk, _)) = self.chunks.get_mut(&id) else { return };
        let body = chunk.body().filter(|body| match &chunk.fetch.task {
            Task::Read(ranges) => Layout::check(body, ranges.sectors()).is_ok(),
            _ => true,
        });
        let Some(body) = body else {
            chunk.start_over();
            self.drop_requests_of(id);
            self.give_up_if_hopeless(id);
            return;
        };
        if let (Task::Read(_), Some(length)) =
            (&chunk.fetch.task, chunk.encoded_length())
        {
            self.flow.chunk_seen(plain_bytes(&chunk.fetch.task), length);
        }
        let Some((chunk, owner)) = self.chunks.remove(&id) else { return };
        self.drop_orphans();
        match owner {
            Owner::Ticket(ticket) => {
                self.events.push_back(Event::Body(ticket, body));
            }
            Owner::Wants(ranges) => self.fetched.push_back(Fetched {
                device: chunk.fetch.device,
                ranges: *ranges,
                body: Ok(body),
            }),
        }
    }

    fn drop_requests_of(&mut self, id: u64) {
        self.sent.retain(|_, sent| sent.chunk != id);
        let sent = &self.sent;
        self.again.retain(|number| sent.contains_key(number));
    }

    fn give_up_if_hopeless(&mut self, id: u64) {
        let restarts = self.chunks.get(&id).map_or(0, |(c, _)| c.restarts);
        if restarts > RESTARTS_MAX {
            self.give_up(id, Trouble::Nonsense);
        }
    }

    fn give_up(&mut self, id: u64, why: Trouble) {
        let Some((chunk, owner)) = self.chunks.remove(&id) else { return };
        self.drop_orphans();
        match owner {
            Owner::Ticket(ticket) => {
                self.events.push_back(Event::Failed(ticket, why));
            }
            Owner::Wants(ranges) => self.fetched.push_back(Fetched {
                device: chunk.fetch.device,
                ranges: *ranges,
                body: Err(why),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use e2wire_protocol::chunk::Codec;
    use e2wire_protocol::digest::{DeviceId, Tag};

    use super::*;
    use crate::remote::port::Nature;
    use crate::source::Priority;
    use crate::units::{ByteCount, ByteOffset, ByteRange};

    const DEVICE: DeviceId = DeviceId([7; 8]);
    const FRAGMENTS: u32 = 20;

    /// The number of the request that is sent next.
    fn ask(client: &mut Client) -> u32 {
        let before = client.number;
        let mut out = Vec::new();
        assert!(client.poll_transmit(Moment::START, &mut out));
        assert_ne!(client.number, before);
        client.number
    }

    #[test]
    fn what_an_older_answer_brings_is_not_waited_for_any_longer() {
        let nature = Nature { baud: None, console: true, listens: false };
        let mut client = Client::new(nature, [0; 32]);
        client.phase = Phase::Up;
        let range = ByteRange::new(ByteOffset(0), ByteCount(64 << 10));
        client.want(DEVICE, &[range.unwrap()], Priority::Payload);
        let payload = client.flow.payload();
        let tail = vec![0; usize::from(payload)];
        let answer = |client: &mut Client, number: u32, index: u32| {
            let fragment = Fragment {
                device: DEVICE,
                first: 0,
                codec: Codec::Stored,
                tag: Tag([0; 8]),
                encoded: FRAGMENTS * u32::from(payload),
                at: index * u32::from(payload),
            };
            client.fragment(number, &fragment, &tail);
        };
        let count = |client: &Client, number: u32| {
            u32::from(client.sent[&number].grant.count())
        };

        let first = ask(&mut client);
        let granted = count(&client, first);
        assert!(granted > 1);
        answer(&mut client, first, 0);
        let second = ask(&mut client);
        // An answer to the second request: the rest of the first looks lost,
        // and is asked for again.
        answer(&mut client, second, granted);
        let third = ask(&mut client);
        assert_eq!(count(&client, third), granted - 1);
        // It was late only.
        for index in 1..granted {
            answer(&mut client, first, index);
        }
        let open: Vec<u32> = client.sent.keys().copied().collect();
        assert_eq!(open, [second], "the window is kept by what is here");
    }
}
