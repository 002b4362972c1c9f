//! The client alone, one exchange at a time: what it says, what it makes of
//! an answer, when it asks again.

use super::*;
use e2wire_protocol::digest::BuildId;
use e2wire_protocol::frame::{Decoder, Event as Found, Kind};
use e2wire_protocol::limits::{LINE_BYTES_MAX, SECTOR_BYTES};
use e2wire_protocol::message::{
    AgentLimits, Failure, Fragment, HelloReply, Machine, PowerAction, Reply,
    ReplyBody, Request, RequestBody, Rights,
};
use e2wire_protocol::version::Versions;

use crate::units::{ByteCount, ByteOffset};

const SERIAL: Nature =
    Nature { baud: Some(115_200), console: true, listens: false };
const SOCKET: Nature = Nature { baud: None, console: false, listens: false };
const DISK: DeviceId = DeviceId([7; 8]);

/// A client, and an agent whose every word the test chooses.
struct Talk {
    client: Client,
    now: Moment,
    boot: BootId,
    replies: u32,
}

impl Talk {
    /// The line was just opened.
    fn opened(nature: Nature) -> Self {
        let mut client = Client::new(nature, [1; 32]);
        client.line_opened(Moment::START);
        let boot = BootId([3; 8]);
        Self { client, now: Moment::START, boot, replies: 0 }
    }

    /// The agent has answered and the test has come back.
    fn up(nature: Nature) -> Self {
        let mut talk = Self::opened(nature);
        talk.greet();
        assert!(talk.client.is_up());
        assert!(matches!(talk.client.poll_event(), Some(Event::Up(_))));
        talk
    }

    fn greet(&mut self) {
        let said = self.said();
        let (hello, _) = said.last().expect("a Hello");
        let number = hello.number;
        let RequestBody::Hello(hello) = &hello.body else {
            panic!("no Hello: {hello:?}");
        };
        let session = hello.session;
        self.answer_hello(number, session);
        let (test, tail) = self.said().pop().expect("a test of the line");
        assert_eq!(test.body, RequestBody::Echo);
        self.reply(test.number, ReplyBody::Echo, &tail);
    }

    fn answer_hello(&mut self, number: u32, session: SessionId) {
        self.replies = 0;
        let hello = HelloReply {
            versions: Versions::OURS,
            session,
            boot: self.boot,
            build: BuildId::default(),
            rights: Rights::READ,
            limits: AgentLimits {
                open_requests: 16,
                zstd_level: 3,
                window: 1 << 20,
            },
            uptime_millis: 5,
            port: "ttyS0",
            port_baud: 115_200,
            agent: "0",
            machine: Machine::default(),
        };
        self.reply(number, ReplyBody::Hello(hello), &[]);
    }

    /// All that the client says now.
    fn said(&mut self) -> Vec<(Request, Vec<u8>)> {
        let mut bytes = Vec::new();
        while self.client.poll_transmit(self.now, &mut bytes) {}
        let mut decoder = Decoder::new();
        let mut input = bytes.as_slice();
        let mut said = Vec::new();
        while let Some(found) = decoder.next(&mut input) {
            let Found::Frame(frame) = found else { continue };
            assert_eq!(frame.kind, Kind::PlainRequest);
            let (request, tail) = Request::decode(frame.message).unwrap();
            said.push((request, tail.to_vec()));
        }
        said
    }

    /// The grants among what the client says now.
    fn fetches(&mut self) -> Vec<(u32, Fetch)> {
        let said = self.said().into_iter();
        said.filter_map(|(request, _)| match request.body {
            RequestBody::Fetch(fetch) => Some((request.number, fetch)),
            _ => None,
        })
        .collect()
    }

    fn reply(&mut self, answers: u32, body: ReplyBody<'_>, tail: &[u8]) {
        self.replies += 1;
        let reply =
            Reply { number: self.replies, seen: answers, answers, body };
        let mut line = vec![0; LINE_BYTES_MAX];
        let length = reply.encode(Coding::Binary, &[tail], &mut line).unwrap();
        self.now = self.now.after(Duration::from_millis(1));
        self.client.handle_bytes(self.now, &line[..length]);
    }

    /// A reply that does not arrive.
    fn lose_reply(&mut self) {
        self.replies += 1;
    }

    /// Sends the fragments of a grant that exist, except `lost`.
    fn send(&mut self, number: u32, fetch: &Fetch, body: &[u8], lost: &[u16]) {
        let codec = Codec::Stored;
        let tag = fetch.tag(codec, [body]).expect("a tag");
        let Task::Read(ranges) = &fetch.task else { panic!("no read") };
        let first = ranges.iter().next().expect("a range").first();
        let payload = usize::from(fetch.grant.payload());
        let end = fetch.grant.first() + fetch.grant.count();
        for index in fetch.grant.first()..end {
            let at = usize::from(index) * payload;
            let Some(rest) = body.get(at..).filter(|rest| !rest.is_empty())
            else {
                return;
            };
            if lost.contains(&index) {
                self.lose_reply();
                continue;
            }
            let fragment = Fragment {
                device: fetch.device,
                first,
                codec,
                tag,
                encoded: body.len() as u32,
                at: at as u32,
            };
            let tail = &rest[..rest.len().min(payload)];
            self.reply(number, ReplyBody::Fragment(fragment), tail);
        }
    }

    /// Time passes, up to the next deadline.
    fn wait(&mut self) {
        let due = self.client.poll_timeout().expect("something is waited for");
        self.now = due.max(self.now);
        self.client.handle_timeout(self.now);
    }

    /// The agent is silent until that is noticed; then one of another boot
    /// answers.
    fn is_followed_by_another_boot(&mut self) {
        let mut tries = 0;
        while !matches!(self.client.poll_event(), Some(Event::Silent)) {
            self.said();
            self.wait();
            tries += 1;
            assert!(tries < 100, "it never notices");
        }
        self.boot = BootId([4; 8]);
        self.greet();
    }

    fn want(&mut self, start: u64, bytes: u64) {
        let range = ByteRange::new(ByteOffset(start), ByteCount(bytes));
        self.client.want(DISK, &[range.unwrap()], Priority::Payload);
    }
}

/// The body of a chunk of so many sectors, none of them zero: one run.
fn body(sectors: usize, fill: u8) -> Vec<u8> {
    let mut body = Vec::new();
    // A varint of `sectors << 2 | 0`.
    let mut run = sectors << 2;
    while run >= 0x80 {
        body.push((run & 0x7f) as u8 | 0x80);
        run >>= 7;
    }
    body.push(run as u8);
    body.resize(body.len() + sectors * SECTOR_BYTES, fill);
    body
}

#[test]
fn hello_is_said_until_somebody_answers() {
    let mut talk = Talk::opened(SERIAL);
    for _ in 0..4 {
        let said = talk.said();
        assert_eq!(said.len(), 1, "one at a time");
        assert!(matches!(said[0].0.body, RequestBody::Hello(_)));
        assert!(talk.said().is_empty(), "not before it is due");
        talk.wait();
        assert!(!talk.client.is_up());
    }
}

#[test]
fn on_a_console_both_codings_are_asked_for() {
    let mut codings = Vec::new();
    let mut talk = Talk::opened(SERIAL);
    for _ in 0..6 {
        if let RequestBody::Hello(hello) = &talk.said()[0].0.body {
            codings.push(hello.coding);
        }
        talk.wait();
    }
    assert_eq!(codings[0], Coding::Binary);
    assert!(codings.contains(&Coding::Printable), "{codings:?}");
    let mut talk = Talk::opened(SOCKET);
    for _ in 0..6 {
        let said = talk.said();
        let RequestBody::Hello(hello) = &said[0].0.body else { panic!() };
        assert_eq!(hello.coding, Coding::Binary, "a socket passes all bytes");
        talk.wait();
    }
}

#[test]
fn an_answer_to_somebody_else_is_none() {
    let mut talk = Talk::opened(SERIAL);
    talk.said();
    talk.answer_hello(1, SessionId([9; 8]));
    assert!(talk.said().is_empty() && !talk.client.is_up());
    assert!(talk.client.poll_event().is_none());
    talk.wait();
    talk.greet();
    assert!(talk.client.is_up());
}

#[test]
fn a_line_that_changes_bytes_is_spoken_to_in_print() {
    let mut talk = Talk::opened(SERIAL);
    let said = talk.said();
    let RequestBody::Hello(hello) = &said[0].0.body else { panic!() };
    talk.answer_hello(said[0].0.number, hello.session);
    // The test of the line never comes back.
    for _ in 0..20 {
        let said = talk.said();
        if let Some((request, _)) = said.last()
            && let RequestBody::Hello(hello) = &request.body
        {
            assert_eq!(hello.coding, Coding::Printable);
            return;
        }
        assert!(!talk.client.is_up());
        talk.wait();
    }
    panic!("it goes on testing");
}

#[test]
fn what_is_lost_within_a_grant_is_asked_for_at_once() {
    let mut talk = Talk::up(SERIAL);
    talk.want(0, 64 << 10);
    let body = body(128, 0x5a);
    let (number, fetch) = talk.fetches().remove(0);
    assert!(fetch.grant.count() >= 2, "{fetch:?}");
    talk.send(number, &fetch, &body, &[1]);
    // No time has to pass.
    let mut lost = None;
    for _ in 0..40 {
        for (number, fetch) in talk.fetches() {
            if fetch.grant.first() == 1 {
                lost = Some((number, fetch.grant.count()));
            }
            talk.send(number, &fetch, &body, &[]);
        }
    }
    let (again, count) = lost.expect("the lost one is asked for again");
    assert!(again > number && count == 1, "{count} fragments again");
    let fetched = talk.client.poll_fetched().expect("the chunk is whole");
    assert_eq!(fetched.body.unwrap(), body);
    assert_eq!(talk.client.counters().duplicate_bytes, 0);
    assert!(talk.client.counters().lost_frames >= 1);
}

#[test]
fn a_request_that_is_not_answered_is_sent_again_as_it_was() {
    let mut talk = Talk::up(SERIAL);
    talk.want(0, 4096);
    let (number, fetch) = talk.fetches().remove(0);
    assert!(talk.fetches().is_empty());
    talk.wait();
    let again = talk.fetches();
    assert_eq!(again, [(number, fetch)], "the same number: it may be open");
}

#[test]
fn silence_ends_in_a_hello_and_what_arrived_is_kept() {
    let mut talk = Talk::up(SERIAL);
    talk.want(0, 64 << 10);
    let body = body(128, 0x11);
    let (number, fetch) = talk.fetches().remove(0);
    talk.send(number, &fetch, &body, &[]);
    let before = talk.client.counters().payload_bytes;
    assert!(before > 0 && talk.client.poll_fetched().is_none());
    // The agent is gone; another one comes, on the same machine.
    talk.is_followed_by_another_boot();
    for _ in 0..40 {
        for (number, fetch) in talk.fetches() {
            assert!(fetch.grant.first() > 0, "what is here is here");
            talk.send(number, &fetch, &body, &[]);
        }
    }
    let fetched = talk.client.poll_fetched().expect("the chunk is whole");
    assert_eq!(fetched.body.unwrap(), body);
    let counters = talk.client.counters();
    assert_eq!(counters.payload_bytes, body.len() as u64);
}

#[test]
fn a_disk_that_changes_in_the_middle_starts_its_chunk_over() {
    let mut talk = Talk::up(SERIAL);
    talk.want(0, 64 << 10);
    let (old, new) = (body(128, 1), body(128, 2));
    let (number, fetch) = talk.fetches().remove(0);
    talk.send(number, &fetch, &old, &[]);
    for _ in 0..60 {
        for (number, fetch) in talk.fetches() {
            talk.send(number, &fetch, &new, &[]);
        }
    }
    let fetched = talk.client.poll_fetched().expect("the chunk is whole");
    assert_eq!(fetched.body.unwrap(), new, "never half of each");
}

#[test]
fn what_never_proves_right_is_given_up() {
    let mut talk = Talk::up(SERIAL);
    talk.want(0, 512);
    let body = body(1, 1);
    for _ in 0..40 {
        for (number, fetch) in talk.fetches() {
            // The tag of another question.
            let mut wrong = fetch.clone();
            wrong.device = DeviceId([8; 8]);
            let tag = wrong.tag(Codec::Stored, [body.as_slice()]).unwrap();
            let fragment = Fragment {
                device: DISK,
                first: 0,
                codec: Codec::Stored,
                tag,
                encoded: body.len() as u32,
                at: 0,
            };
            let payload = usize::from(fetch.grant.payload());
            let tail = &body[..body.len().min(payload)];
            talk.reply(number, ReplyBody::Fragment(fragment), tail);
            if tail.len() < body.len() {
                let rest = Fragment { at: payload as u32, ..fragment };
                talk.reply(number, ReplyBody::Fragment(rest), &body[payload..]);
            }
        }
    }
    let fetched = talk.client.poll_fetched().expect("an answer");
    assert_eq!(fetched.body.unwrap_err(), Trouble::Nonsense);
    assert!(talk.fetches().is_empty(), "and it is not asked for again");
}

#[test]
fn a_refusal_is_the_answer() {
    let mut talk = Talk::up(SERIAL);
    talk.want(0, 4096);
    let (number, _) = talk.fetches().remove(0);
    talk.reply(number, ReplyBody::Failed(Failure::NoDevice), &[]);
    let fetched = talk.client.poll_fetched().expect("an answer");
    let refused = Trouble::Refused(Failure::NoDevice);
    assert_eq!(fetched.body.unwrap_err(), refused);
}

#[test]
fn no_more_is_granted_than_the_window_holds() {
    for nature in [SERIAL, SOCKET] {
        let mut talk = Talk::up(nature);
        talk.want(0, 64 << 20);
        let granted: u64 =
            talk.fetches().iter().map(|(_, fetch)| fetch.grant.bytes()).sum();
        assert!(granted > 0 && granted <= 1 << 20, "{granted}");
    }
}

/// Its fragments are larger than all that a bad line is given at once.
#[test]
fn a_chunk_of_better_times_is_finished_on_a_bad_line() {
    let mut talk = Talk::up(SERIAL);
    talk.client.flow.bytes_seen(talk.now, 80_000);
    talk.want(0, 64 << 10);
    let body = body(128, 3);
    let (number, fetch) = talk.fetches().remove(0);
    let payload = u64::from(fetch.grant.payload());
    talk.send(number, &fetch, &body, &[1]);
    talk.client.flow.frames_lost(2000);
    assert!(talk.client.flow.under_way_max() < payload, "{fetch:?}");
    let mut rounds = 0;
    let fetched = loop {
        for (number, fetch) in talk.fetches() {
            talk.send(number, &fetch, &body, &[]);
        }
        if let Some(fetched) = talk.client.poll_fetched() {
            break fetched;
        }
        rounds += 1;
        assert!(rounds < 40, "the rest is never asked for");
    };
    assert_eq!(fetched.body.unwrap(), body);
}

#[test]
fn a_machine_is_restarted_once() {
    let mut talk = Talk::up(SERIAL);
    let power = RequestBody::Power(PowerAction::Reboot);
    let ticket = talk.client.ask(power.clone());
    let said = talk.said();
    assert_eq!(said[0].0.body, power);
    // It went down before its answer was out.
    talk.is_followed_by_another_boot();
    // Whoever drives it knows that it is the same machine.
    talk.client.machine_has_restarted();
    assert!(talk.said().iter().all(|(request, _)| request.body != power));
    let mut done = false;
    while let Some(event) = talk.client.poll_event() {
        done |= matches!(event, Event::Done(this) if this == ticket);
    }
    assert!(done);
}

#[test]
fn text_between_frames_is_handed_on_and_own_frames_are_counted() {
    let mut talk = Talk::up(SERIAL);
    talk.client.handle_bytes(talk.now, b"[  1.2] ata3: link down\r\n");
    let mut text = Vec::new();
    while let Some(event) = talk.client.poll_event() {
        if let Event::Text(piece) = event {
            text.extend(piece);
        }
    }
    assert!(text.ends_with(b"ata3: link down\r\n"));
    talk.want(0, 512);
    let mut echo = Vec::new();
    assert!(talk.client.poll_transmit(talk.now, &mut echo));
    talk.client.handle_bytes(talk.now, &echo);
    assert_eq!(talk.client.counters().echoed_frames, 1);
}
