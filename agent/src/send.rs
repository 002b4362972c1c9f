//! Which reply goes out next.
//!
//! Requests to one device are answered in the order of their arrival, a
//! request's fragments without others of that device between them: so a host
//! that sees a later answer knows that an earlier one is lost.

use e2wire_protocol::chunk::SectorRange;
use e2wire_protocol::digest::DeviceId;
use e2wire_protocol::limits::{SECTOR_BYTES, TEXT_BYTES_MAX};
use e2wire_protocol::message::{
    AgentLimits, Busy, Conflict, DeviceCount, DeviceReply, Failure, Fragment,
    HelloReply, LogPiece, LogStream, Machine, ReplyBody, Task, cut,
};
use e2wire_protocol::units::{u64_from, usize_from};
use e2wire_protocol::version::Versions;

use crate::agent::{Agent, WINDOW_MAX};
use crate::cache::ChunkIndex;
use crate::clock::Instant;
use crate::device::{Devices, State};
use crate::inventory;
use crate::log::Stretch;
use crate::memory::Memory;
use crate::port::PortNumber;
use crate::queue::{Open, OpenIndex, Stage, Work, Wrote};
use crate::session::BUSY_INTERVAL;

/// Devices with an unanswered request, of which no later one is answered.
type Blocked = heapless::Vec<DeviceId, 16>;

/// What came of the attempt to answer a request.
enum Answered {
    /// It has been answered in full.
    Done,
    /// A reply was added, and there is more to come.
    More,
    /// There is nothing to say yet.
    NotYet,
    /// The line has no room now.
    NoRoom,
}

impl Agent<'_> {
    /// Puts replies in front of a port, as many as it shall have.
    pub(crate) fn fill(
        &mut self,
        port: PortNumber,
        now: Instant,
        devices: &mut impl Devices,
        level_max: u8,
    ) {
        self.show_banner(port, now);
        while self.line(port).is_some_and(|line| line.wants_more()) {
            if !self.refuse_one(port, now)
                && !self.answer_one(port, now, devices, level_max)
            {
                break;
            }
        }
        self.say_busy(port, now, devices);
    }

    /// Sends a refusal that waits.
    fn refuse_one(&mut self, port: PortNumber, now: Instant) -> bool {
        let Some(line) = self.line(port) else { return false };
        let Some((number, why)) = line.session.refusals.first().copied() else {
            return false;
        };
        let sent = line.reply(number, ReplyBody::Failed(why), &[], now);
        if sent {
            line.session.refusals.remove(0);
        }
        sent
    }

    /// Sends one reply to the first open request that can have one.
    fn answer_one(
        &mut self,
        port: PortNumber,
        now: Instant,
        devices: &mut impl Devices,
        level_max: u8,
    ) -> bool {
        let mut blocked = Blocked::new();
        let mut place = 0_usize;
        loop {
            let index = self
                .line(port)
                .and_then(|line| line.session.order.get(place).copied());
            let Some(index) = index else { return false };
            place = place.saturating_add(1);
            let Some(open) = self.memory.queue.get(index) else { continue };
            let device = device_of(&open.work);
            if let Some(device) = device
                && (blocked.contains(&device) || blocked.is_full())
            {
                continue;
            }
            match self.answer(port, index, now, devices, level_max) {
                Answered::Done => {
                    self.drop_open(port, index);
                    return true;
                }
                Answered::More => return true,
                Answered::NoRoom => return false,
                Answered::NotYet => {
                    if let Some(device) = device {
                        // Fullness was checked above.
                        let _fits = blocked.push(device);
                    }
                }
            }
        }
    }

    fn answer(
        &mut self,
        port: PortNumber,
        index: OpenIndex,
        now: Instant,
        devices: &mut impl Devices,
        level_max: u8,
    ) -> Answered {
        let Some(open) = self.memory.queue.get(index) else {
            return Answered::Done;
        };
        let number = open.number;
        match &open.work {
            Work::Done => self.say(port, number, ReplyBody::Done, now),
            Work::Hello => self.say_hello(port, number, level_max, now),
            Work::Devices { .. } => self.say_device(port, index, devices, now),
            Work::Fetch(work) => match work.stage {
                Stage::Ready(chunk) => {
                    self.say_fragment(port, index, chunk, now)
                }
                Stage::Failed(why) => {
                    self.say(port, number, ReplyBody::Failed(why), now)
                }
                _ => Answered::NotYet,
            },
            Work::Flush { stage, .. }
            | Work::Arm { stage, .. }
            | Work::Disarm { stage, .. } => match *stage {
                Stage::Ended => self.say(port, number, ReplyBody::Done, now),
                Stage::Failed(why) => {
                    self.say(port, number, ReplyBody::Failed(why), now)
                }
                _ => Answered::NotYet,
            },
            Work::Write { write, stage } => match *stage {
                Stage::Wrote(wrote) => {
                    let range = write.range;
                    self.say_wrote(port, number, range, wrote, now)
                }
                Stage::Failed(why) => {
                    self.say(port, number, ReplyBody::Failed(why), now)
                }
                _ => Answered::NotYet,
            },
            Work::Log { .. } => self.say_log(port, index, now),
            Work::Power(action) => {
                let action = *action;
                let said = self.say(port, number, ReplyBody::Done, now);
                if matches!(said, Answered::Done) {
                    self.shut_down(action, port, now);
                }
                said
            }
            Work::Echo => self.say_echo(port, number, now),
        }
    }

    /// Sends a reply without a tail that answers its request in full.
    fn say(
        &mut self,
        port: PortNumber,
        number: u32,
        body: ReplyBody<'_>,
        now: Instant,
    ) -> Answered {
        let Some(line) = self.line(port) else { return Answered::NoRoom };
        if line.reply(number, body, &[], now) {
            Answered::Done
        } else {
            Answered::NoRoom
        }
    }

    fn say_wrote(
        &mut self,
        port: PortNumber,
        number: u32,
        range: SectorRange,
        wrote: Wrote,
        now: Instant,
    ) -> Answered {
        let Memory { lines, conflict, .. } = &mut *self.memory;
        let Some(line) = lines.get_mut(port.index()) else {
            return Answered::NoRoom;
        };
        let (body, tail) = match wrote {
            Wrote::Written => (ReplyBody::Written, 0),
            Wrote::AlreadyThere => (ReplyBody::AlreadyThere, 0),
            Wrote::Conflict(now) => {
                let bytes = usize_from(range.count()).saturating_mul(16);
                (ReplyBody::Conflict(Conflict { range, now }), bytes)
            }
        };
        let tail = conflict.get(..tail).unwrap_or(&[]);
        if line.reply(number, body, &[tail], now) {
            Answered::Done
        } else {
            Answered::NoRoom
        }
    }

    fn say_hello(
        &mut self,
        port: PortNumber,
        number: u32,
        level_max: u8,
        now: Instant,
    ) -> Answered {
        let facts = self.facts;
        let Some(line) = self.line(port) else { return Answered::NoRoom };
        let name = line.name.clone();
        let text = |text| cut(text, TEXT_BYTES_MAX);
        let machine = facts.machine;
        let uptime = now.since(facts.started).micros();
        let hello = HelloReply {
            versions: Versions::OURS,
            session: line.session.id,
            boot: facts.boot,
            build: facts.build,
            rights: facts.rights,
            limits: AgentLimits {
                open_requests: e2wire_protocol::limits::OPEN_REQUESTS_MAX,
                zstd_level: level_max,
                window: WINDOW_MAX,
            },
            uptime_millis: uptime.wrapping_div(1000),
            port: &name,
            port_baud: line.baud,
            agent: text(facts.version),
            machine: Machine {
                vendor: text(machine.vendor),
                product: text(machine.product),
                serial: text(machine.serial),
                uuid: text(machine.uuid),
                host: text(machine.host),
                kernel: text(machine.kernel),
            },
        };
        self.say(port, number, ReplyBody::Hello(hello), now)
    }

    fn say_device(
        &mut self,
        port: PortNumber,
        index: OpenIndex,
        devices: &mut impl Devices,
        now: Instant,
    ) -> Answered {
        let Memory { queue, inventory, .. } = &mut *self.memory;
        if let Some(Open { work: Work::Devices { rescan, .. }, .. }) =
            queue.get_mut(index)
            && core::mem::take(rescan)
        {
            devices.rescan();
            self.whole = devices.settle().whole;
            inventory.refresh(devices);
        }
        let since = self.memory.queue.get(index).map(|open| open.since);
        if since.is_some_and(|since| self.knows_too_little(since, now)) {
            return Answered::NotYet;
        }
        let Memory { lines, queue, inventory, .. } = &mut *self.memory;
        let line = lines.get_mut(port.index());
        let (Some(open), Some(line)) = (queue.get_mut(index), line) else {
            return Answered::Done;
        };
        let Open { number, work: Work::Devices { next, end, .. }, .. } = open
        else {
            return Answered::Done;
        };
        let total = inventory.total();
        let at = inventory.at(*next);
        let found =
            at.and_then(|(device, id)| Some((id, devices.facts(device)?)));
        let body = match found {
            Some((id, facts)) => ReplyBody::Device(DeviceReply {
                index: *next,
                total,
                id,
                facts: inventory::bounded(&facts),
            }),
            None => ReplyBody::NoMoreDevices(DeviceCount { total }),
        };
        if !line.reply(*number, body, &[], now) {
            return Answered::NoRoom;
        }
        *next = next.saturating_add(1);
        if found.is_none() || *next >= *end || *next >= total {
            Answered::Done
        } else {
            Answered::More
        }
    }

    fn say_fragment(
        &mut self,
        port: PortNumber,
        index: OpenIndex,
        chunk: ChunkIndex,
        now: Instant,
    ) -> Answered {
        let Memory { lines, queue, cache, .. } = &mut *self.memory;
        let line = lines.get_mut(port.index());
        let (Some(open), Some(line)) = (queue.get_mut(index), line) else {
            return Answered::Done;
        };
        let number = open.number;
        let Work::Fetch(work) = &mut open.work else { return Answered::Done };
        let Some(facts) = cache.facts(chunk) else { return Answered::Done };
        let grant = work.fetch.grant;
        let Some((at, length)) = grant.fragment(work.next, facts.length) else {
            // Only the first of a grant can be missing: after the last one
            // the request is done.
            let why = Failure::NoFragment(facts.length);
            return self.say(port, number, ReplyBody::Failed(why), now);
        };
        let fragment = Fragment {
            device: work.fetch.device,
            first: first_sector(&work.fetch.task),
            codec: facts.codec,
            tag: facts.tag,
            encoded: facts.length,
            at,
        };
        let Some(pieces) = cache.pieces(chunk, at, length) else {
            let why = Failure::NoFragment(facts.length);
            return self.say(port, number, ReplyBody::Failed(why), now);
        };
        if !line.reply(number, ReplyBody::Fragment(fragment), &pieces, now) {
            return Answered::NoRoom;
        }
        work.next = work.next.saturating_add(1);
        match grant.fragment(work.next, facts.length) {
            Some(_) => Answered::More,
            None => Answered::Done,
        }
    }

    fn say_log(
        &mut self,
        port: PortNumber,
        index: OpenIndex,
        now: Instant,
    ) -> Answered {
        let Memory { lines, queue, kernel_log, agent_log, .. } =
            &mut *self.memory;
        let line = lines.get_mut(port.index());
        let (Some(open), Some(line)) = (queue.get(index), line) else {
            return Answered::Done;
        };
        let Work::Log { ask, until } = &open.work else {
            return Answered::Done;
        };
        let (Stretch { from, pieces }, end) = match ask.stream {
            LogStream::Agent => {
                (agent_log.stretch(ask.from, ask.bytes), agent_log.end())
            }
            LogStream::Kernel => {
                (kernel_log.stretch(ask.from, ask.bytes), kernel_log.end())
            }
        };
        if pieces.iter().all(|piece| piece.is_empty()) && now < *until {
            return Answered::NotYet;
        }
        let piece = LogPiece { stream: ask.stream, from, end };
        if line.reply(open.number, ReplyBody::Log(piece), &pieces, now) {
            Answered::Done
        } else {
            Answered::NoRoom
        }
    }

    fn say_echo(
        &mut self,
        port: PortNumber,
        number: u32,
        now: Instant,
    ) -> Answered {
        let Some(line) = self.line(port) else { return Answered::NoRoom };
        let tail = line.session.echo.clone();
        if line.reply(number, ReplyBody::Echo, &[&tail], now) {
            Answered::Done
        } else {
            Answered::NoRoom
        }
    }

    /// Says what is being waited for, when the line has been silent for long
    /// and something is.
    fn say_busy(
        &mut self,
        port: PortNumber,
        now: Instant,
        devices: &impl Devices,
    ) {
        let Some(line) = self.line(port) else { return };
        let silent = now.since(line.out.moved) >= BUSY_INTERVAL;
        if !line.out.waiting().is_empty() || !silent {
            return;
        }
        let busy = line.session.order.clone().into_iter().find_map(|index| {
            let open = self.memory.queue.get(index)?;
            let device = device_of(&open.work)?;
            if now.since(open.since) < BUSY_INTERVAL {
                return None;
            }
            let offset = self.offset_of(index, devices).unwrap_or(0);
            let waiting_millis = now.since(open.since).millis_saturating();
            let busy = Busy { device, offset, waiting_millis };
            Some((open.number, busy))
        });
        if let (Some((number, busy)), Some(line)) = (busy, self.line(port)) {
            line.reply(number, ReplyBody::Busy(busy), &[], now);
        }
    }

    /// Where the device is that works on a request, or where it will start.
    fn offset_of(
        &self,
        index: OpenIndex,
        devices: &impl Devices,
    ) -> Option<u64> {
        let work = match &self.memory.queue.get(index)?.work {
            Work::Fetch(work) => work,
            Work::Write { write, .. } => {
                return Some(write.range.bytes().start().0);
            }
            _ => return None,
        };
        let mut done = 0_u64;
        if let Stage::Running(slot) = work.stage
            && let State::Pending { done: bytes } = devices.poll(slot)
        {
            done = u64::from(bytes);
        }
        let start = |first: u64| first.checked_mul(u64_from(SECTOR_BYTES));
        let Task::Read(ranges) = &work.fetch.task else {
            return match self.memory.scan.next(&work.fetch.task) {
                Some(batch) if work.stage == Stage::Scanning => {
                    batch.first().map(|range| range.start().0)
                }
                _ => start(first_sector(&work.fetch.task)),
            };
        };
        for range in ranges.iter() {
            let length =
                u64_from(usize_from(range.count()).checked_mul(SECTOR_BYTES)?);
            if done < length {
                return start(range.first())?.checked_add(done);
            }
            done = done.checked_sub(length)?;
        }
        start(ranges.iter().next()?.first())
    }
}

/// The device that a request waits for.
fn device_of(work: &Work) -> Option<DeviceId> {
    match work {
        Work::Fetch(work) => Some(work.fetch.device),
        Work::Flush { device, .. } | Work::Disarm { device, .. } => {
            Some(*device)
        }
        Work::Arm { arm, .. } => Some(arm.device),
        Work::Write { write, .. } => Some(write.device),
        _ => None,
    }
}

/// The first sector that a task touches, as fragments name it.
fn first_sector(task: &Task) -> u64 {
    match task {
        Task::Read(ranges) => {
            ranges.iter().next().map_or(0, |range| range.first())
        }
        Task::Digest(digest) => digest.range.first(),
        Task::Same(same) => {
            same.pairs.first().map_or(0, |pair| pair.one.first())
        }
        Task::Find(find) => find.first,
    }
}
