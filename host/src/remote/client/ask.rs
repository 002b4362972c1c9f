//! What is asked for besides chunks: lists, logs, and writes with what they
//! have to carry.
//!
//! A request that carries more than the line bears in one frame sends its
//! load ahead in slices, each a request of its own, and goes out itself when
//! all of them have been acknowledged.

use std::collections::BTreeSet;
use std::time::Duration;

use e2wire_protocol::limits::{BUSY_INTERVAL_MILLIS, UPLOAD_UNIT_BYTES};
use e2wire_protocol::message::{
    Failure, ListDevices, Put, RequestBody, Upload,
};

use super::{Client, Event, Ticket, Trouble};
use crate::remote::moment::Moment;

/// Times that an answer does not come before a Hello finds out whether
/// anybody is still there.
const ROUNDS_MAX: u32 = 5;

/// Times that an agent may say that it has nothing of what was sent.
const MISSING_MAX: u32 = 100;

/// The most that is on its way to the agent: it keeps not much more.
const LOAD_WINDOW_BYTES: u64 = 256 * 1024;

/// Requests with a load that are open at once at most.
const LOADS_MAX: usize = 40;

/// The agent says at least so often that it is busy, and may be late.
const BUSY_PATIENCE: Duration =
    Duration::from_millis(2 * BUSY_INTERVAL_MILLIS as u64);

/// Something asked for that is no chunk.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) body: RequestBody,
    /// What goes along as the tail, whole or ahead in slices.
    load: Vec<u8>,
    /// All of the load has been acknowledged.
    ahead: bool,
    /// Slices of the load that have not been.
    slices: usize,
    /// How often the agent did not have it after all.
    missing: u32,
    /// Whose load this is a slice of.
    parent: Option<Ticket>,
    pub(super) number: Option<u32>,
    /// When it is asked again.
    pub(super) due: Moment,
    pub(super) tries: u32,
    /// Its place among all that was sent.
    order: u64,
    /// It was sent more than once, so nobody knows which one is answered.
    resent: bool,
    /// Places of a list that have arrived.
    pub(super) listed: BTreeSet<u16>,
}

impl Ask {
    fn new(body: RequestBody, load: Vec<u8>, parent: Option<Ticket>) -> Self {
        Self {
            body,
            load,
            ahead: false,
            slices: 0,
            missing: 0,
            parent,
            number: None,
            due: Moment::START,
            tries: 0,
            order: 0,
            resent: false,
            listed: BTreeSet::new(),
        }
    }

    /// The line has lost it.
    pub(super) fn lost(&mut self) {
        self.number = None;
        self.due = Moment::START;
        self.resent = false;
    }

    /// Whether it may have reached an agent, over whatever line.
    pub(super) const fn was_sent(&self) -> bool {
        self.order > 0
    }

    fn is_put(&self) -> bool {
        matches!(self.body, RequestBody::Put(_))
    }

    /// Waits for a device, or on its way to one: such requests are answered
    /// in the order of their arrival.
    const fn is_write(&self) -> bool {
        matches!(self.body, RequestBody::Write(_))
    }

    fn tail(&self) -> &[u8] {
        if self.ahead { &[] } else { &self.load }
    }
}

impl Client {
    /// Asks for something that is no chunk.
    pub fn ask(&mut self, body: RequestBody) -> Ticket {
        self.ask_with(body, Vec::new())
    }

    /// Asks for something that carries `load`: the upload that `body` names.
    pub fn ask_with(&mut self, body: RequestBody, load: Vec<u8>) -> Ticket {
        let ticket = self.ticket();
        self.asks.insert(ticket, Ask::new(body, load, None));
        ticket
    }

    /// What was asked for is no longer of interest.
    pub(super) fn forget_ask(&mut self, ticket: Ticket) {
        self.asks.remove(&ticket);
        self.asks.retain(|_, ask| ask.parent != Some(ticket));
    }

    /// Sends the next request that is due, if the line shall have it now.
    pub(super) fn send_ask(&mut self, now: Moment, out: &mut Vec<u8>) -> bool {
        loop {
            let Some(ticket) = self.next_ask() else { return false };
            if self.cut_load(ticket) {
                continue;
            }
            return self.transmit_ask(ticket, now, out);
        }
    }

    fn next_ask(&self) -> Option<Ticket> {
        let open = self.asks.values().filter(|ask| ask.due > Moment::START);
        let loaded = open.filter(|ask| !ask.tail().is_empty());
        let (mut bytes, mut count) = (0, 0);
        for ask in loaded {
            bytes += ask.tail().len() as u64;
            count += 1;
        }
        let window = self.flow.under_way_max().min(LOAD_WINDOW_BYTES);
        let payload = u64::from(self.flow.payload());
        let fits = |ask: &Ask| {
            let length = (ask.tail().len() as u64).min(payload);
            let room = bytes + length <= window && count < LOADS_MAX;
            length == 0 || room || count == 0
        };
        let due = |ask: &Ask| {
            ask.due == Moment::START && ask.slices == 0 && fits(ask)
        };
        self.asks.iter().find(|(_, ask)| due(ask)).map(|(ticket, _)| *ticket)
    }

    /// Cuts the load of a request that is longer than the line bears; whether
    /// that was so.
    fn cut_load(&mut self, ticket: Ticket) -> bool {
        let payload = usize::from(self.flow.payload());
        let Some(ask) = self.asks.get_mut(&ticket) else { return false };
        if ask.tail().len() <= payload {
            return false;
        }
        let (parent, from) = match &ask.body {
            // The line has got worse since it was cut.
            RequestBody::Put(put) => (ask.parent, put.at),
            _ => (Some(ticket), 0),
        };
        let load = if ask.is_put() {
            let behind = ask.load.split_off(payload);
            // Another request than the one that was sent.
            ask.lost();
            behind
        } else {
            ask.load.clone()
        };
        let first = if ask.is_put() { payload } else { 0 };
        let Some(upload) = upload_of(&ask.body) else { return false };
        let mut count = 0;
        for (index, slice) in load.chunks(payload).enumerate() {
            let skip = u32::try_from(first + index * payload);
            let at = skip.ok().and_then(|skip| from.checked_add(skip));
            let Some(at) = at else { return false };
            let body = RequestBody::Put(Put { upload, at });
            let slice = Ask::new(body, slice.to_vec(), parent);
            let ticket = self.ticket();
            self.asks.insert(ticket, slice);
            count += 1;
        }
        if let Some(parent) = parent.and_then(|it| self.asks.get_mut(&it)) {
            parent.slices += count;
            parent.ahead = true;
        }
        true
    }

    fn transmit_ask(
        &mut self,
        ticket: Ticket,
        now: Moment,
        out: &mut Vec<u8>,
    ) -> bool {
        let patience = self.flow.patience() + Duration::from_millis(300);
        let time = self.flow.time_of(512);
        let under_way: u64 = self
            .asks
            .values()
            .filter(|ask| ask.due > Moment::START)
            .map(|ask| ask.tail().len() as u64)
            .sum();
        let next = self.number + 1;
        self.order += 1;
        let order = self.order;
        let Some(ask) = self.asks.get_mut(&ticket) else { return false };
        let load = under_way + ask.tail().len() as u64;
        let extra = match &ask.body {
            RequestBody::Log(log) => {
                Duration::from_millis(u64::from(log.wait_millis)) + time * 8
            }
            // The agent may have to wait for disks that are slow to come.
            RequestBody::Devices(ListDevices { rescan: true, .. }) => {
                Duration::from_millis(700) + time * 4
            }
            RequestBody::Devices(_) => time * 8,
            _ => time + self.flow.time_of(load),
        };
        ask.resent = ask.number.is_some();
        let number = ask.number.unwrap_or(next);
        ask.number = Some(number);
        ask.order = order;
        let backoff = (ask.tries + 1).min(4);
        ask.due = now.after(patience * backoff + extra);
        let (body, tail) = (ask.body.clone(), ask.tail().to_vec());
        self.number = self.number.max(number);
        let boot = self.boot.unwrap_or_default();
        if self.write(boot, number, body, &tail, out) {
            return true;
        }
        self.forget_ask(ticket);
        self.events.push_back(Event::Failed(ticket, Trouble::Nonsense));
        false
    }

    /// Time has passed: what was not answered in time is asked again.
    pub(super) fn overdue_asks(&mut self, now: Moment) {
        let mut silent = false;
        let mut lost = 0;
        for ask in self.asks.values_mut() {
            if ask.due > Moment::START && ask.due <= now {
                ask.tries += 1;
                silent |= ask.tries > ROUNDS_MAX;
                ask.due = Moment::START;
                lost += u32::from(!ask.tail().is_empty());
            }
        }
        // Where large frames are lost, smaller ones may get through.
        self.flow.frames_lost(lost);
        if silent && now.since(self.last_reply) > Duration::from_secs(2) {
            self.greet_again(now);
        }
    }

    /// The agent waits for a disk: what waits for it, too, is not lost.
    pub(super) fn busy_asks(&mut self, now: Moment) {
        let until = now.after(self.flow.patience() + BUSY_PATIENCE);
        for ask in self.asks.values_mut() {
            if ask.due > Moment::START && !ask.is_put() {
                ask.due = ask.due.max(until);
                ask.tries = 0;
            }
        }
    }

    /// A request was answered. Those of its kind that were sent before are
    /// answered before, so the line has lost them.
    pub(super) fn asks_overtaken(&mut self, answered: Ticket) {
        let Some(ask) = self.asks.get(&answered) else { return };
        if ask.resent || !(ask.is_put() || ask.is_write()) {
            return;
        }
        let (order, put, write) = (ask.order, ask.is_put(), ask.is_write());
        let mut lost = 0;
        for ask in self.asks.values_mut() {
            let alike = ask.is_put() == put && ask.is_write() == write;
            if alike && ask.due > Moment::START && ask.order < order {
                ask.due = Moment::START;
                lost += u32::from(!ask.tail().is_empty());
            }
        }
        self.flow.frames_lost(lost);
    }

    /// A slice has been acknowledged; true if `ticket` is one.
    pub(super) fn slice_arrived(&mut self, ticket: Ticket) -> bool {
        let Some(parent) = self.asks.get(&ticket).and_then(|ask| ask.parent)
        else {
            return false;
        };
        self.asks.remove(&ticket);
        if let Some(parent) = self.asks.get_mut(&parent) {
            parent.slices = parent.slices.saturating_sub(1);
        }
        true
    }

    /// A request was refused: asks again where that helps, and tells whoever
    /// asked otherwise.
    pub(super) fn ask_failed(
        &mut self,
        now: Moment,
        ticket: Ticket,
        failure: Failure,
    ) {
        let pause = now.after(self.flow.patience());
        let Some(ask) = self.asks.get_mut(&ticket) else { return };
        let mut trouble = Trouble::Refused(failure);
        match failure {
            Failure::Full(_) if !ask.load.is_empty() => {
                ask.lost();
                ask.due = pause;
                return;
            }
            Failure::Missing(_) if !ask.load.is_empty() => {
                ask.missing += 1;
                if ask.missing <= MISSING_MAX {
                    ask.ahead = false;
                    ask.lost();
                    return;
                }
                trouble = Trouble::Nonsense;
            }
            _ => {}
        }
        let whole = ask.parent.unwrap_or(ticket);
        self.forget_ask(whole);
        self.events.push_back(Event::Failed(whole, trouble));
    }
}

/// The upload that a request names.
const fn upload_of(body: &RequestBody) -> Option<Upload> {
    match body {
        RequestBody::Put(put) => Some(put.upload),
        RequestBody::Arm(arm) => Some(arm.ranges),
        RequestBody::Write(write) => Some(write.patch),
        _ => None,
    }
}

const _: () = assert!(
    UPLOAD_UNIT_BYTES == e2wire_protocol::limits::FRAGMENT_BYTES_MIN as usize
);
