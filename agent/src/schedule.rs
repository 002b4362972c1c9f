//! Which job starts when, and what becomes of its result.
//!
//! Ports take turns. A session has a few chunks ahead of what its line sends;
//! a device has at most two jobs, so one that hangs leaves slots for the
//! others.

use e2wire_protocol::digest::{DeviceId, RangeDigester};
use e2wire_protocol::message::{Failure, Task};

use crate::agent::{Agent, Notice};
use crate::cache::Key;
use crate::clock::{Duration, Instant};
use crate::compress::{self, Encoder};
use crate::device::{
    DeviceFault, DeviceIndex, Devices, Job, Sectors, Slot, State,
};
use crate::memory::{
    CHUNK_PAGES_MAX, Memory, PORTS_MAX, SLOTS_MAX, SLOTS_PER_DEVICE,
};
use crate::port::PortNumber;
use crate::queue::{FetchWork, OpenIndex, Stage, Work, Wrote};
use crate::read;
use crate::scan::{self, Batch};
use crate::write::{self, Next};

/// How many chunks a session has ahead of what its line sends.
const AHEAD_MAX: usize = 4;

/// A scan whose device hangs for so long makes room for one of another.
const SCAN_PATIENCE: Duration = Duration::from_millis(2000);

/// Who waits for a job.
pub(crate) type Owner = (PortNumber, OpenIndex);

/// A job that a device works on.
pub(crate) struct Running {
    pub(crate) device: DeviceIndex,
    /// Who waits for it; nobody any more if it was dropped meanwhile.
    pub(crate) owner: Option<Owner>,
    pub(crate) since: Instant,
    purpose: Purpose,
}

/// The running scan.
#[derive(Clone, Copy)]
pub(crate) struct Scanning {
    pub(crate) owner: Owner,
    device: DeviceIndex,
}

/// What a job is good for.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Purpose {
    /// A chunk of a read, known by its key.
    Read(Key),
    /// A piece of the running scan.
    Scan,
    Flush,
    /// To claim a device.
    Claim,
    /// To let go of it.
    Unclaim,
    /// What lies where the running write goes.
    Old,
    /// The bytes of the running write.
    New,
    /// What was written, read back.
    Back,
}

impl Agent<'_> {
    /// Takes up all jobs that have ended.
    pub(crate) fn collect(
        &mut self,
        now: Instant,
        devices: &mut impl Devices,
        encoder: &mut impl Encoder,
    ) {
        for place in 0..SLOTS_MAX {
            let Some(slot) = u8::try_from(place).ok().map(Slot) else {
                return;
            };
            let Some(Some(running)) = self.running.get(place) else {
                continue;
            };
            let (owner, purpose) = (running.owner, running.purpose);
            let state = devices.poll(slot);
            if matches!(state, State::Pending { .. }) {
                continue;
            }
            let device = running.device;
            let mut next = None;
            if let Some(owner) = owner {
                let (_, index) = owner;
                let stage = match state {
                    State::Read(sectors) => match purpose {
                        Purpose::Read(key) => {
                            self.encode_read(index, key, &sectors, now, encoder)
                        }
                        Purpose::Scan => self.feed_scan(index, &sectors),
                        Purpose::Old => {
                            let stage;
                            (stage, next) = self.decide(owner, slot, &sectors);
                            stage
                        }
                        Purpose::Back => self.prove(index, &sectors),
                        _ => Stage::Failed(Failure::Device(0)),
                    },
                    State::Done => match purpose {
                        Purpose::Claim => self.claimed(owner, device, devices),
                        Purpose::New => {
                            next = Some(Next::Back);
                            Stage::Running(slot)
                        }
                        _ => Stage::Ended,
                    },
                    State::Failed(fault) => Stage::Failed(failure(fault)),
                    // Handled above.
                    State::Pending { .. } => Stage::Running(slot),
                };
                self.enter(index, stage);
            } else if purpose == Purpose::Claim {
                // Whoever wanted it is gone.
                self.unclaim_unless_armed(device);
            }
            devices.release(slot);
            if let Some(running) = self.running.get_mut(place) {
                *running = None;
            }
            if let (Some(next), Some(owner)) = (next, owner) {
                self.go_on_writing(owner, device, next, now, devices);
            }
        }
    }

    /// A device was claimed.
    fn claimed(
        &mut self,
        owner: Owner,
        device: DeviceIndex,
        devices: &impl Devices,
    ) -> Stage {
        let stage = self.finish_arm(owner, device, devices);
        if stage != Stage::Ended {
            self.unclaim_unless_armed(device);
        }
        stage
    }

    /// The request goes on to `stage`; if it is done with the scan or the
    /// write, another one may have it.
    pub(crate) fn enter(&mut self, index: OpenIndex, stage: Stage) {
        if let Some(place) = self.memory.queue.stage_mut(index) {
            *place = stage;
        }
        let scans = self.scanning.is_some_and(|it| it.owner.1 == index);
        if scans && stage != Stage::Scanning {
            self.scanning = None;
        }
        // What lies in the way is kept until it is told.
        let writes = self.writing.is_some_and(|it| it.owner.1 == index);
        if writes
            && !matches!(
                stage,
                Stage::Running(_) | Stage::Wrote(Wrote::Conflict(_))
            )
        {
            self.writing = None;
        }
    }

    fn encode_read(
        &mut self,
        index: OpenIndex,
        key: Key,
        sectors: &Sectors<'_>,
        now: Instant,
        encoder: &mut impl Encoder,
    ) -> Stage {
        let Memory { queue, work, .. } = &mut *self.memory;
        let Some(fetch) = queue.fetch_mut(index) else {
            return Stage::Failed(Failure::NoDevice);
        };
        let codec = fetch.fetch.codec;
        let length = read::write_body(sectors, codec, &mut work.body);
        // The platform may have read something else than it was asked to.
        let Some(length) = length else {
            return Stage::Failed(Failure::Device(0));
        };
        let stage = self.encode(index, key, length, now, encoder);
        if let Stage::Ready(chunk) = stage
            && !sectors.unreadable.is_empty()
        {
            self.memory.cache.mark_faulty(chunk);
        }
        stage
    }

    /// Encodes the body of `length` bytes that lies in the workspace, and
    /// keeps it.
    fn encode(
        &mut self,
        index: OpenIndex,
        key: Key,
        length: usize,
        now: Instant,
        encoder: &mut impl Encoder,
    ) -> Stage {
        let failed = Stage::Failed(Failure::Device(0));
        let Memory { queue, work, cache, .. } = &mut *self.memory;
        let Some(FetchWork { fetch, .. }) = queue.fetch_mut(index) else {
            return failed;
        };
        let Some((codec, encoded)) =
            compress::encode(work, length, fetch.codec, encoder)
        else {
            return failed;
        };
        let Some(tag) = fetch.tag(codec, [encoded]) else { return failed };
        match cache.insert(key, tag, codec, encoded, now) {
            Some(chunk) => Stage::Ready(chunk),
            // Room was kept for it when it was started; a chunk that does
            // not find it now is made again.
            None => Stage::New,
        }
    }

    /// Starts as many jobs as there are slots and room for.
    pub(crate) fn schedule(
        &mut self,
        now: Instant,
        devices: &mut impl Devices,
        encoder: &mut impl Encoder,
    ) {
        self.unclaim(now, devices);
        self.go_on_scanning(now, devices, encoder);
        let mut idle = 0;
        while idle < PORTS_MAX {
            let turn = self.turn.checked_rem(PORTS_MAX).unwrap_or(0);
            self.turn = turn.saturating_add(1);
            let Some(port) = PortNumber::new(turn) else { return };
            if self.start_one(port, now, devices) {
                idle = 0;
            } else {
                idle = idle.saturating_add(1);
            }
        }
        self.go_on_scanning(now, devices, encoder);
    }

    /// Starts, or finds in the cache, the next chunk of a session. `false`
    /// when there is nothing to start or no room.
    fn start_one(
        &mut self,
        port: PortNumber,
        now: Instant,
        devices: &mut impl Devices,
    ) -> bool {
        let mut ahead = 0_usize;
        let mut place = 0_usize;
        // Devices that can start nothing now: what comes later for them has
        // to wait for what came first anyway.
        let mut full = heapless::Vec::<DeviceIndex, 16>::new();
        loop {
            let Some(line) = self.line(port) else { return false };
            if line.rests || ahead >= AHEAD_MAX {
                return false;
            }
            let Some(index) = line.session.order.get(place).copied() else {
                return false;
            };
            place = place.saturating_add(1);
            let mut stage = self.memory.queue.stage_mut(index).copied();
            if stage == Some(Stage::New) {
                let next = self.check(index, now, devices);
                self.enter(index, next);
                stage = Some(next);
            }
            match stage {
                Some(Stage::Running(_) | Stage::Scanning | Stage::Ready(_)) => {
                    ahead = ahead.saturating_add(1);
                }
                Some(Stage::Waiting(device)) if !full.contains(&device) => {
                    let owner = (port, index);
                    if self.start(owner, device, ahead, now, devices) {
                        return true;
                    }
                    if full.push(device).is_err() {
                        return false;
                    }
                }
                _ => {}
            }
        }
    }

    /// Checks a request that just arrived against the device it names.
    fn check(
        &mut self,
        index: OpenIndex,
        now: Instant,
        devices: &impl Devices,
    ) -> Stage {
        let since = self.memory.queue.get(index).map(|open| open.since);
        let early = since.is_some_and(|it| self.knows_too_little(it, now));
        // It may be one of those that are not known yet.
        let missing = match early {
            true => Stage::New,
            false => Stage::Failed(Failure::NoDevice),
        };
        let Memory { queue, inventory, .. } = &mut *self.memory;
        let found = |id: DeviceId| {
            let device = inventory.find(id)?;
            Some((device, devices.facts(device)?))
        };
        let (id, task) = match queue.get(index).map(|open| &open.work) {
            Some(Work::Fetch(work)) => {
                (work.fetch.device, Some(&work.fetch.task))
            }
            Some(Work::Flush { device, .. } | Work::Disarm { device, .. }) => {
                (*device, None)
            }
            Some(Work::Arm { arm, .. }) => (arm.device, None),
            Some(Work::Write { write, .. }) => {
                let Some((device, facts)) = found(write.device) else {
                    return missing;
                };
                return match write::check(write, &facts) {
                    Ok(()) => Stage::Waiting(device),
                    Err(why) => Stage::Failed(why),
                };
            }
            _ => return Stage::Failed(Failure::NoDevice),
        };
        let Some((device, facts)) = found(id) else {
            return missing;
        };
        match task.map_or(Ok(()), |task| scan::check(task, &facts)) {
            Ok(()) => Stage::Waiting(device),
            Err(why) => Stage::Failed(why),
        }
    }

    /// Gets one request going, if there is a slot and room. `ahead` chunks of
    /// its session are there already.
    fn start(
        &mut self,
        owner: Owner,
        device: DeviceIndex,
        ahead: usize,
        now: Instant,
        devices: &mut impl Devices,
    ) -> bool {
        let (_, index) = owner;
        if self.is_written(device, index) {
            return false;
        }
        let Memory { queue, cache, .. } = &mut *self.memory;
        let Some(open) = queue.get(index) else { return false };
        let (key, reads, anew) = match &open.work {
            Work::Fetch(work) => {
                let reads = matches!(work.fetch.task, Task::Read(_));
                (work.key, reads, work.fetch.grant.first() == 0)
            }
            Work::Flush { .. } => {
                let (job, purpose) = (Job::Flush, Purpose::Flush);
                return self
                    .start_job(owner, device, job, purpose, now, devices);
            }
            Work::Arm { arm, .. } => {
                let arm = *arm;
                return self.start_arm(owner, device, arm, now, devices);
            }
            Work::Write { write, .. } => {
                let write = *write;
                return self.start_write(owner, device, write, now, devices);
            }
            Work::Disarm { .. } => {
                return self.start_disarm(owner, device, now, devices);
            }
            _ => return false,
        };
        if let Some(chunk) = cache.pin(key, anew, now) {
            self.enter(index, Stage::Ready(chunk));
            return true;
        }
        // The same chunk is being made already, for this session or another.
        if self.is_being_made(key) || !self.has_room(ahead) {
            return false;
        }
        if !reads {
            let logical = devices.facts(device).map(|it| it.logical_sector);
            return self.start_scan(owner, device, logical.unwrap_or(0), now);
        }
        let mut batch = Batch::new();
        if let Some(work) = self.memory.queue.fetch_mut(index)
            && let Task::Read(ranges) = &work.fetch.task
        {
            batch.extend(ranges.iter().map(|range| range.bytes()));
        }
        let (job, purpose) = (Job::Read(&batch), Purpose::Read(key));
        self.start_job(owner, device, job, purpose, now, devices)
    }

    /// Submits the job of a request; `false` when it has to wait.
    pub(crate) fn start_job(
        &mut self,
        owner: Owner,
        device: DeviceIndex,
        job: Job<'_>,
        purpose: Purpose,
        now: Instant,
        devices: &mut impl Devices,
    ) -> bool {
        match self.submit(Some(owner), device, job, purpose, now, devices) {
            Submitted::Yes(slot) => self.enter(owner.1, Stage::Running(slot)),
            Submitted::Never(why) => self.enter(owner.1, Stage::Failed(why)),
            Submitted::Later => return false,
        }
        true
    }

    /// Whether some job makes the chunk of this key for somebody.
    fn is_being_made(&self, key: Key) -> bool {
        self.running.iter().flatten().any(|running| {
            running.owner.is_some() && running.purpose == Purpose::Read(key)
        })
    }

    /// Whether the cache has room for one more chunk besides all that are
    /// being made; for a session that has some already, one more is left for
    /// the others.
    fn has_room(&self, ahead: usize) -> bool {
        let reading = self.running.iter().flatten().filter(|running| {
            running.owner.is_some()
                && matches!(running.purpose, Purpose::Read(_))
        });
        let being_made = reading
            .count()
            .saturating_add(usize::from(self.scanning.is_some()));
        let spare = if ahead == 0 { 1 } else { 2 };
        let chunks = being_made.saturating_add(spare);
        self.memory.cache.available_pages()
            >= chunks.saturating_mul(CHUNK_PAGES_MAX)
    }

    pub(crate) fn submit(
        &mut self,
        owner: Option<Owner>,
        device: DeviceIndex,
        job: Job<'_>,
        purpose: Purpose,
        now: Instant,
        devices: &mut impl Devices,
    ) -> Submitted {
        let of = (owner, device);
        submit(&mut self.running, of, job, purpose, now, devices)
    }

    fn start_scan(
        &mut self,
        owner: Owner,
        device: DeviceIndex,
        logical: u32,
        now: Instant,
    ) -> bool {
        if self.hangs(device, now) {
            return false;
        }
        if let Some(scanning) = self.scanning {
            // It gives way if its device hangs, and starts over later.
            if !self.hangs(scanning.device, now) {
                return false;
            }
            let (_, index) = scanning.owner;
            self.let_go(index);
            self.enter(index, Stage::New);
            self.notice(Notice::ScanPutBack);
        }
        self.scanning = Some(Scanning { owner, device });
        self.memory.scan.reset(logical);
        self.digester = RangeDigester::new();
        self.enter(owner.1, Stage::Scanning);
        true
    }

    /// Whether a device has been busy with one job for long.
    fn hangs(&self, device: DeviceIndex, now: Instant) -> bool {
        self.running.iter().flatten().any(|running| {
            running.device == device
                && now.since(running.since) >= SCAN_PATIENCE
        })
    }

    /// Submits the next piece of the running scan, or ends it.
    fn go_on_scanning(
        &mut self,
        now: Instant,
        devices: &mut impl Devices,
        encoder: &mut impl Encoder,
    ) {
        let Some(Scanning { owner, device }) = self.scanning else { return };
        let (_, index) = owner;
        let waits = self
            .running
            .iter()
            .flatten()
            .any(|running| running.owner == Some(owner));
        if waits {
            return;
        }
        let Memory { queue, scan, work, .. } = &mut *self.memory;
        let Some(FetchWork { fetch, key, .. }) = queue.fetch_mut(index) else {
            self.scanning = None;
            return;
        };
        let key = *key;
        if let Some(batch) = scan.next(&fetch.task) {
            let purpose = Purpose::Scan;
            let (owner, job) = (Some(owner), Job::Read(&batch));
            let submitted =
                self.submit(owner, device, job, purpose, now, devices);
            if let Submitted::Never(why) = submitted {
                self.enter(index, Stage::Failed(why));
            }
            return;
        }
        let stage = match scan.write_body(&fetch.task, &mut work.body) {
            Some(length) => self.encode(index, key, length, now, encoder),
            None => Stage::Failed(Failure::Unreasonable),
        };
        self.enter(index, stage);
    }

    fn feed_scan(&mut self, index: OpenIndex, sectors: &Sectors<'_>) -> Stage {
        let Memory { queue, scan, .. } = &mut *self.memory;
        let Some(work) = queue.fetch_mut(index) else {
            return Stage::Failed(Failure::NoDevice);
        };
        scan.feed(&work.fetch.task, sectors, &mut self.digester);
        Stage::Scanning
    }
}

/// Gives a job to a device, for a request or for nobody.
pub(crate) fn submit(
    running: &mut [Option<Running>; SLOTS_MAX],
    (owner, device): (Option<Owner>, DeviceIndex),
    job: Job<'_>,
    purpose: Purpose,
    now: Instant,
    devices: &mut impl Devices,
) -> Submitted {
    let of_device = running.iter().flatten();
    let count = of_device.filter(|this| this.device == device).count();
    let free = running.iter().position(Option::is_none);
    let Some(place) = free.filter(|_| count < SLOTS_PER_DEVICE) else {
        return Submitted::Later;
    };
    let Some(slot) = u8::try_from(place).ok().map(Slot) else {
        return Submitted::Later;
    };
    match devices.submit(slot, device, job) {
        Ok(()) => {
            if let Some(place) = running.get_mut(place) {
                *place = Some(Running { device, owner, since: now, purpose });
            }
            Submitted::Yes(slot)
        }
        Err(DeviceFault::NoWorker) => Submitted::Later,
        Err(fault) => Submitted::Never(failure(fault)),
    }
}

/// What came of the attempt to give a job to a device.
pub(crate) enum Submitted {
    Yes(Slot),
    /// No slot or worker is free.
    Later,
    Never(Failure),
}

const fn failure(fault: DeviceFault) -> Failure {
    match fault {
        DeviceFault::Gone => Failure::NoDevice,
        DeviceFault::Open(errno) => Failure::Open(errno),
        DeviceFault::Failed(errno) => Failure::Device(errno),
        DeviceFault::InUse(how) => Failure::InUse(how),
        DeviceFault::ReadOnly => Failure::ReadOnly,
        // The host arms again, which claims the device.
        DeviceFault::NotClaimed => Failure::NotArmed,
        DeviceFault::WriteFailed(errno) => Failure::WriteFailed(errno),
        // Asked again later, so never seen here.
        DeviceFault::NoWorker => Failure::Device(0),
    }
}
