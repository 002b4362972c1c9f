//! From a frame to an open request, or a refusal.
//!
//! One function, one match. Nothing is looked up or answered here: that a
//! device exists is checked when its turn comes.

use e2wire_protocol::coding::Coding;
use e2wire_protocol::digest::BootId;
use e2wire_protocol::frame::{Frame, Kind};
use e2wire_protocol::limits::{
    LOG_BYTES_MAX, LOG_WAIT_MILLIS_MAX, OPEN_REQUESTS_MAX, RESULT_BYTES_MAX,
    SECTOR_BYTES,
};
use e2wire_protocol::message::{
    DrainLog, Failure, Fetch, Hello, Request, RequestBody, Rights, Task,
    Upload, VARINT_BYTES_MAX,
};
use e2wire_protocol::units::u64_from;
use e2wire_protocol::version::Versions;

use crate::agent::WINDOW_MAX;
use crate::clock::{Duration, Instant};
use crate::memory::{OPEN_SURE, PORTS_MAX, SESSION_OPEN_MAX};
use crate::queue::{FetchWork, Open, Queue, Stage, Work};
use crate::session::Session;
use crate::uploads::Shelf;

/// What a frame means for its session.
pub(crate) enum Outcome {
    /// Nothing more: an open request was added, or it was refused or is not
    /// for us.
    Handled,
    /// All open requests shall be dropped; then this is added.
    Cancel(u32),
    /// A new session begins; what belonged to the old one shall be dropped.
    Begin(u32, Hello),
}

/// What dispatch has to know of the agent.
#[derive(Clone, Copy)]
pub(crate) struct Terms {
    pub(crate) boot: BootId,
    pub(crate) rights: Rights,
}

pub(crate) fn frame(
    frame: Frame<'_>,
    terms: Terms,
    session: &mut Session,
    queue: &mut Queue,
    shelf: &mut Shelf<'_>,
    now: Instant,
) -> Outcome {
    if frame.kind != Kind::PlainRequest {
        // Our own reply, echoed by the line, or a kind not yet spoken.
        return Outcome::Handled;
    }
    let Ok((request, tail)) = Request::decode(frame.message) else {
        speak(session, frame.coding);
        session.refuse(0, Failure::Malformed);
        return Outcome::Handled;
    };
    let number = request.number;
    if let RequestBody::Hello(hello) = request.body {
        return self::hello(number, hello, session, queue, now);
    }
    if session.begun {
        session.seen = session.seen.max(number);
    }
    if let Err(why) = admit(&request, terms, session) {
        speak(session, frame.coding);
        session.refuse(number, why);
        return Outcome::Handled;
    }
    let queued = session.order.iter().filter_map(|index| queue.get(*index));
    if queued.into_iter().any(|open| open.number == number) {
        return Outcome::Handled;
    }
    if matches!(request.body, RequestBody::Cancel) {
        return Outcome::Cancel(number);
    }
    let added = work(request.body, tail, session, shelf, now)
        .and_then(|work| add(number, work, session, queue, now));
    if let Err(why) = added {
        session.refuse(number, why);
    }
    Outcome::Handled
}

/// Without a session, an answer goes out in the coding of the question.
fn speak(session: &mut Session, coding: Coding) {
    if !session.begun {
        session.coding = coding;
    }
}

fn hello(
    number: u32,
    hello: Hello,
    session: &mut Session,
    queue: &mut Queue,
    now: Instant,
) -> Outcome {
    if !session.begun || session.id != hello.session {
        return Outcome::Begin(number, hello);
    }
    session.seen = session.seen.max(number);
    let greeting = |index| {
        queue.get(index).is_some_and(|open| matches!(open.work, Work::Hello))
    };
    if !session.order.iter().any(|index| greeting(*index))
        && let Err(why) = add(number, Work::Hello, session, queue, now)
    {
        session.refuse(number, why);
    }
    Outcome::Handled
}

/// Makes `hello` the session; its answer becomes the first open request.
pub(crate) fn begin(
    number: u32,
    hello: Hello,
    session: &mut Session,
    queue: &mut Queue,
    now: Instant,
) {
    session.end();
    session.begun = true;
    session.agreed = Versions::OURS.common(hello.versions).is_some();
    session.id = hello.session;
    session.coding = hello.coding;
    session.window = hello.window.min(WINDOW_MAX);
    session.seen = number;
    if let Err(why) = add(number, Work::Hello, session, queue, now) {
        session.refuse(number, why);
    }
}

/// Whether the session may ask this at all.
fn admit(
    request: &Request,
    terms: Terms,
    session: &Session,
) -> Result<(), Failure> {
    if !session.begun {
        return Err(Failure::NoSession);
    }
    if !session.agreed {
        return Err(Failure::Version(Versions::OURS));
    }
    if request.boot != terms.boot {
        return Err(Failure::Boot(terms.boot));
    }
    let needed = match request.body {
        RequestBody::Hello(_) | RequestBody::Cancel | RequestBody::Echo => {
            Rights::NONE
        }
        RequestBody::Devices(_)
        | RequestBody::Fetch(_)
        | RequestBody::Flush(_)
        | RequestBody::Log(_) => Rights::READ,
        RequestBody::Power(_) => Rights::POWER,
        RequestBody::Put(_)
        | RequestBody::Arm(_)
        | RequestBody::Write(_)
        | RequestBody::Disarm(_) => Rights::WRITE,
    };
    if terms.rights.has(needed) { Ok(()) } else { Err(Failure::Rights(needed)) }
}

fn work(
    body: RequestBody,
    tail: &[u8],
    session: &mut Session,
    shelf: &mut Shelf<'_>,
    now: Instant,
) -> Result<Work, Failure> {
    let stage = Stage::New;
    let mut keep = |upload: Upload, at: u32| match tail {
        // It was put before, or the host will be told.
        [] => Ok(()),
        tail => shelf.put(upload, at, tail, now),
    };
    match body {
        // Both are handled before.
        RequestBody::Hello(_) => Ok(Work::Hello),
        RequestBody::Cancel => Ok(Work::Done),
        RequestBody::Devices(list) => Ok(Work::Devices {
            rescan: list.rescan,
            next: list.first,
            end: list.first.saturating_add(list.count.max(1)),
        }),
        RequestBody::Fetch(fetch) => fetch_work(fetch, session),
        RequestBody::Flush(device) => {
            session.flushes = session.flushes.wrapping_add(1);
            Ok(Work::Flush { device, stage })
        }
        RequestBody::Log(ask) => Ok(log_work(ask, now)),
        RequestBody::Power(action) => Ok(Work::Power(action)),
        RequestBody::Echo => {
            // An earlier echo that is still open keeps its place.
            if !session.echo.is_empty() {
                return Err(Failure::Full(1));
            }
            session
                .echo
                .extend_from_slice(tail)
                .map_err(|_| Failure::Unreasonable)?;
            Ok(Work::Echo)
        }
        RequestBody::Put(put) => keep(put.upload, put.at).map(|()| Work::Done),
        RequestBody::Arm(arm) => {
            keep(arm.ranges, 0).map(|()| Work::Arm { arm, stage })
        }
        RequestBody::Write(write) => {
            keep(write.patch, 0).map(|()| Work::Write { write, stage })
        }
        RequestBody::Disarm(device) => Ok(Work::Disarm { device, stage }),
    }
}

fn fetch_work(fetch: Fetch, session: &Session) -> Result<Work, Failure> {
    let granted = granted_bytes(&fetch);
    if session.granted.saturating_add(granted) > u64::from(session.window) {
        return Err(Failure::Window(session.window));
    }
    let work = FetchWork::new(fetch, session.id, session.flushes)
        .ok_or(Failure::Unreasonable)?;
    Ok(Work::Fetch(work))
}

/// The most payload that a fetch may bring about: no chunk is longer than the
/// body of its task.
pub(crate) fn granted_bytes(fetch: &Fetch) -> u64 {
    let longest = match &fetch.task {
        Task::Read(ranges) => {
            let sectors = u64::from(ranges.sectors());
            sectors.saturating_mul(u64_from(SECTOR_BYTES + 2))
        }
        Task::Digest(_) | Task::Same(_) | Task::Find(_) => {
            u64_from(RESULT_BYTES_MAX + VARINT_BYTES_MAX)
        }
    };
    let before = u64::from(fetch.grant.first())
        .saturating_mul(u64::from(fetch.grant.payload()));
    fetch.grant.bytes().min(longest.saturating_sub(before))
}

fn log_work(ask: DrainLog, now: Instant) -> Work {
    let wait = ask.wait_millis.min(LOG_WAIT_MILLIS_MAX);
    let until = now.after(Duration::from_millis(wait));
    let ask = DrainLog { bytes: ask.bytes.min(LOG_BYTES_MAX), ..ask };
    Work::Log { ask, until }
}

/// Adds an open request, unless the session has its share already.
pub(crate) fn add(
    number: u32,
    work: Work,
    session: &mut Session,
    queue: &mut Queue,
    now: Instant,
) -> Result<(), Failure> {
    let mine = session.order.len();
    // What the other sessions are sure of stays free for them.
    let shared = queue.room() > PORTS_MAX.saturating_mul(OPEN_SURE);
    if mine >= SESSION_OPEN_MAX || (mine >= OPEN_SURE && !shared) {
        return Err(Failure::Full(OPEN_REQUESTS_MAX));
    }
    let granted = match &work {
        Work::Fetch(work) => granted_bytes(&work.fetch),
        _ => 0,
    };
    let full = Failure::Full(OPEN_REQUESTS_MAX);
    let index = queue.insert(Open { number, since: now, work }).ok_or(full)?;
    // Room was checked above.
    if session.order.push(index).is_err() {
        queue.remove(index);
        return Err(full);
    }
    session.granted = session.granted.saturating_add(granted);
    Ok(())
}
