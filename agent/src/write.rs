//! Arming and writing.
//!
//! One session at a time may write, one plan on one device: the one that
//! armed it last. Each write first reads what lies there; when that is what
//! the host expects, the patch makes the new bytes of it, they are proven,
//! written and read back. Everything that a write needs it names itself, so
//! it may be asked for again at any time: what is there already is not
//! written twice.

use e2wire_protocol::digest::{
    DeviceId, PlanId, RangeDigest, ShortDigest, Tag,
};
use e2wire_protocol::limits::{
    ARMED_RANGES_MAX, SECTOR_BYTES, WRITE_SECTORS_MAX,
};
use e2wire_protocol::message::{
    Arm, ArmedRange, ArmedRanges, DeviceFacts, Failure, Write,
};
use e2wire_protocol::patch;
use e2wire_protocol::units::u64_from;

use crate::agent::Agent;
use crate::clock::{Duration, Instant};
use crate::device::{DeviceIndex, Devices, Job, Sectors, Slot};
use crate::memory::Memory;
use crate::port::PortNumber;
use crate::queue::{OpenIndex, Stage, Work, Wrote};
use crate::schedule::{Owner, Purpose, Submitted};
use crate::uploads::Shelf;

/// A session that has armed a plan and was silent for so long gives way to
/// another one with another plan.
const GIVES_WAY_AFTER: Duration = Duration::from_millis(10_000);

/// What may be written.
pub(crate) struct Armed {
    /// Whose session; nobody's when nothing is armed.
    port: Option<PortNumber>,
    device: DeviceId,
    index: DeviceIndex,
    plan: PlanId,
    /// Bytes that may still be written.
    left: u64,
    count: usize,
    firsts: [u64; ARMED_RANGES_MAX],
    ends: [u64; ARMED_RANGES_MAX],
}

/// The running write.
#[derive(Clone, Copy)]
pub(crate) struct Writing {
    pub(crate) owner: Owner,
    pub(crate) device: DeviceIndex,
}

/// What a write does next.
#[derive(Clone, Copy)]
pub(crate) enum Next {
    /// Write so many bytes of the workspace.
    New(usize),
    /// Read them back.
    Back,
}

impl Armed {
    pub(crate) const fn new() -> Self {
        Self {
            port: None,
            device: DeviceId([0; 8]),
            index: DeviceIndex(0),
            plan: PlanId([0; 16]),
            left: 0,
            count: 0,
            firsts: [0; ARMED_RANGES_MAX],
            ends: [0; ARMED_RANGES_MAX],
        }
    }

    /// Whether `write` is permitted.
    fn admit(&self, port: PortNumber, write: &Write) -> Result<(), Failure> {
        let armed = self.port == Some(port)
            && self.device == write.device
            && self.plan == write.plan;
        if !armed {
            return Err(Failure::NotArmed);
        }
        let range = write.range;
        let firsts = self.firsts.get(..self.count).unwrap_or(&[]);
        let behind = firsts.partition_point(|first| *first <= range.first());
        let end = behind.checked_sub(1).and_then(|last| self.ends.get(last));
        if end.is_some_and(|end| range.end() <= *end) {
            Ok(())
        } else {
            Err(Failure::Outside)
        }
    }

    fn set_ranges(&mut self, ranges: ArmedRanges<'_>) {
        self.count = 0;
        let places = self.firsts.iter_mut().zip(&mut self.ends);
        for (range, (first, end)) in ranges.zip(places) {
            *first = range.first;
            *end = range.first.saturating_add(range.count);
            self.count = self.count.saturating_add(1);
        }
    }
}

/// Checks a write against the device it names.
pub(crate) fn check(
    write: &Write,
    facts: &DeviceFacts<'_>,
) -> Result<(), Failure> {
    let range = write.range;
    if range.count() > WRITE_SECTORS_MAX {
        return Err(Failure::Unreasonable);
    }
    let (first, count) = (range.first(), u64::from(range.count()));
    check_range(ArmedRange { first, count }, facts)
}

fn check_range(
    range: ArmedRange,
    facts: &DeviceFacts<'_>,
) -> Result<(), Failure> {
    let sector = u64_from(SECTOR_BYTES);
    let logical = u64::from(facts.logical_sector);
    let multiple = |sectors: u64| {
        sectors.wrapping_mul(sector).checked_rem(logical) == Some(0)
    };
    let end = range.end().map_or(u64::MAX, |end| end.wrapping_mul(sector));
    if end > facts.size {
        return Err(Failure::BeyondEnd(facts.size));
    }
    if !multiple(range.first) || !multiple(range.count) {
        return Err(Failure::Misaligned(facts.logical_sector));
    }
    Ok(())
}

impl Agent<'_> {
    /// The session of `port` may not write any more.
    pub(crate) fn disarm(&mut self, port: PortNumber) {
        let Memory { armed, uploads, cache, .. } = &mut *self.memory;
        if armed.port == Some(port) {
            armed.port = None;
            Shelf { uploads, cache }.clear();
            self.unclaim_later(self.memory.armed.index);
        }
    }

    /// A claim that served nobody is given back.
    pub(crate) fn unclaim_unless_armed(&mut self, device: DeviceIndex) {
        let armed = &self.memory.armed;
        if armed.port.is_none() || armed.index != device {
            self.unclaim_later(device);
        }
    }

    fn unclaim_later(&mut self, device: DeviceIndex) {
        if !self.unclaim.contains(&device) {
            // There is a place for each device.
            let _fits = self.unclaim.push(device);
        }
    }

    /// Lets go of devices that need not be claimed any more.
    pub(crate) fn unclaim(&mut self, now: Instant, devices: &mut impl Devices) {
        let mut place = 0;
        while let Some(device) = self.unclaim.get(place).copied() {
            let (job, purpose) = (Job::Unclaim, Purpose::Unclaim);
            match self.submit(None, device, job, purpose, now, devices) {
                Submitted::Later => place = place.saturating_add(1),
                Submitted::Yes(_) | Submitted::Never(_) => {
                    self.unclaim.remove(place);
                }
            }
        }
    }

    /// Begins to arm: claims the device.
    pub(crate) fn start_arm(
        &mut self,
        owner: Owner,
        device: DeviceIndex,
        arm: Arm,
        now: Instant,
        devices: &mut impl Devices,
    ) -> bool {
        if self.writing.is_some() {
            return false;
        }
        if let Err(why) = self.may_arm(owner.0, arm, now) {
            self.enter(owner.1, Stage::Failed(why));
            return true;
        }
        self.unclaim.retain(|this| *this != device);
        let (job, purpose) = (Job::Claim, Purpose::Claim);
        self.start_job(owner, device, job, purpose, now, devices)
    }

    fn may_arm(
        &mut self,
        port: PortNumber,
        arm: Arm,
        now: Instant,
    ) -> Result<(), Failure> {
        let Memory { lines, armed, uploads, cache, .. } = &mut *self.memory;
        if let Some(other) = armed.port.filter(|other| *other != port)
            && armed.plan != arm.plan
            && let Some(line) = lines.get(other.index())
            && now.since(line.heard) < GIVES_WAY_AFTER
        {
            return Err(Failure::ArmedElsewhere);
        }
        Shelf { uploads, cache }.check(arm.ranges)
    }

    /// The device is claimed: the session may write.
    pub(crate) fn finish_arm(
        &mut self,
        (port, index): Owner,
        device: DeviceIndex,
        devices: &impl Devices,
    ) -> Stage {
        let gone = Stage::Failed(Failure::NoDevice);
        let before = (self.memory.armed.port, self.memory.armed.index);
        let Memory { queue, armed, uploads, cache, work, .. } =
            &mut *self.memory;
        let Some(Work::Arm { arm, .. }) =
            queue.get(index).map(|open| &open.work)
        else {
            return gone;
        };
        let Some(facts) = devices.facts(device) else { return gone };
        let mut shelf = Shelf { uploads, cache };
        let length = match shelf.copy(arm.ranges, &mut work.body) {
            Ok(length) => length,
            Err(why) => return Stage::Failed(why),
        };
        shelf.remove(arm.ranges);
        let list = work.body.get(..length).unwrap_or(&[]);
        let ranges = ArmedRanges::check(list)
            .ok()
            .filter(|_| Tag::of_upload(list) == arm.ranges.tag);
        let Some(ranges) = ranges else {
            return Stage::Failed(Failure::BadUpload);
        };
        for range in ranges {
            if let Err(why) = check_range(range, &facts) {
                return Stage::Failed(why);
            }
        }
        armed.port = Some(port);
        armed.device = arm.device;
        armed.index = device;
        armed.plan = arm.plan;
        armed.left = arm.bytes;
        armed.set_ranges(ranges);
        if let (Some(_), other) = before
            && other != device
        {
            self.unclaim_later(other);
        }
        Stage::Ended
    }

    /// Lets the session write no more.
    pub(crate) fn start_disarm(
        &mut self,
        owner: Owner,
        device: DeviceIndex,
        now: Instant,
        devices: &mut impl Devices,
    ) -> bool {
        let armed = &self.memory.armed;
        if armed.port != Some(owner.0) || armed.index != device {
            self.enter(owner.1, Stage::Ended);
            return true;
        }
        let (job, purpose) = (Job::Unclaim, Purpose::Unclaim);
        let started = self.start_job(owner, device, job, purpose, now, devices);
        if started {
            let Memory { armed, uploads, cache, .. } = &mut *self.memory;
            armed.port = None;
            Shelf { uploads, cache }.clear();
        }
        started
    }

    /// Begins a write: reads what lies there.
    pub(crate) fn start_write(
        &mut self,
        owner: Owner,
        device: DeviceIndex,
        write: Write,
        now: Instant,
        devices: &mut impl Devices,
    ) -> bool {
        if self.writing.is_some() {
            return false;
        }
        let Memory { armed, uploads, cache, .. } = &mut *self.memory;
        let admitted = armed
            .admit(owner.0, &write)
            .and_then(|()| Shelf { uploads, cache }.check(write.patch));
        if let Err(why) = admitted {
            self.enter(owner.1, Stage::Failed(why));
            return true;
        }
        let range = [write.range.bytes()];
        let (job, purpose) = (Job::Read(&range), Purpose::Old);
        if !self.start_job(owner, device, job, purpose, now, devices) {
            return false;
        }
        if matches!(
            self.memory.queue.stage_mut(owner.1),
            Some(Stage::Running(_))
        ) {
            self.writing = Some(Writing { owner, device });
        }
        true
    }

    /// Whether a write of another request is under way on `device`: whatever
    /// comes later has to wait for it.
    pub(crate) fn is_written(
        &self,
        device: DeviceIndex,
        index: OpenIndex,
    ) -> bool {
        self.writing
            .is_some_and(|it| it.device == device && it.owner.1 != index)
    }

    /// What lies there was read: decides what becomes of the write.
    pub(crate) fn decide(
        &mut self,
        (port, index): Owner,
        slot: Slot,
        sectors: &Sectors<'_>,
    ) -> (Stage, Option<Next>) {
        let decided = self.try_decide(port, index, sectors);
        match decided {
            Ok(Err(length)) => (Stage::Running(slot), Some(Next::New(length))),
            Ok(Ok(wrote)) => (Stage::Wrote(wrote), None),
            Err(why) => (Stage::Failed(why), None),
        }
    }

    /// What came of the write, or else the length of the new bytes, which lie
    /// in the workspace.
    fn try_decide(
        &mut self,
        port: PortNumber,
        index: OpenIndex,
        sectors: &Sectors<'_>,
    ) -> Result<Result<Wrote, usize>, Failure> {
        let Memory { queue, armed, uploads, cache, work, conflict, .. } =
            &mut *self.memory;
        let Some(Work::Write { write, .. }) =
            queue.get(index).map(|open| &open.work)
        else {
            return Err(Failure::NotArmed);
        };
        let mut shelf = Shelf { uploads, cache };
        let now = digest_of(sectors);
        if now == write.new {
            shelf.remove(write.patch);
            return Ok(Ok(Wrote::AlreadyThere));
        }
        if now != write.old {
            let places = conflict.as_chunks_mut::<16>().0;
            for (place, digest) in places.iter_mut().zip(short_digests(sectors))
            {
                *place = digest.0;
            }
            return Ok(Ok(Wrote::Conflict(now)));
        }
        // It may have been disarmed meanwhile.
        armed.admit(port, write)?;
        if write.range.bytes().length().0 > armed.left {
            return Err(Failure::Outside);
        }
        let length = shelf.copy(write.patch, &mut work.encoded)?;
        let patch = work.encoded.get(..length).unwrap_or(&[]);
        let bytes = work.body.get_mut(..sectors.bytes.len());
        let bytes = bytes.ok_or(Failure::Unreasonable)?;
        bytes.copy_from_slice(sectors.bytes);
        patch::apply(patch, bytes).map_err(|_| Failure::BadUpload)?;
        if RangeDigest::of(bytes) != write.new {
            return Err(Failure::BadUpload);
        }
        Ok(Err(bytes.len()))
    }

    /// Takes the next step of a write whose last job was released.
    pub(crate) fn go_on_writing(
        &mut self,
        owner: Owner,
        device: DeviceIndex,
        next: Next,
        now: Instant,
        devices: &mut impl Devices,
    ) {
        let Some(Work::Write { write, .. }) =
            self.memory.queue.get(owner.1).map(|open| &open.work)
        else {
            return;
        };
        let range = write.range.bytes();
        let running = &mut self.running;
        let of = (Some(owner), device);
        let submitted = match next {
            Next::New(length) => {
                let bytes = self.memory.work.body.get(..length);
                let job = Job::Write(range, bytes.unwrap_or(&[]));
                super::schedule::submit(
                    running,
                    of,
                    job,
                    Purpose::New,
                    now,
                    devices,
                )
            }
            Next::Back => super::schedule::submit(
                running,
                of,
                Job::Read(&[range]),
                Purpose::Back,
                now,
                devices,
            ),
        };
        let stage = match submitted {
            Submitted::Yes(slot) => Stage::Running(slot),
            // From the beginning, when there is room.
            Submitted::Later => Stage::New,
            Submitted::Never(why) => Stage::Failed(why),
        };
        self.enter(owner.1, stage);
    }

    /// What was written was read back.
    pub(crate) fn prove(
        &mut self,
        index: OpenIndex,
        sectors: &Sectors<'_>,
    ) -> Stage {
        let Memory { queue, armed, uploads, cache, .. } = &mut *self.memory;
        let Some(Work::Write { write, .. }) =
            queue.get(index).map(|open| &open.work)
        else {
            return Stage::Failed(Failure::NotArmed);
        };
        if digest_of(sectors) != write.new {
            return Stage::Failed(Failure::NotKept);
        }
        let length = write.range.bytes().length().0;
        armed.left = armed.left.saturating_sub(length);
        Shelf { uploads, cache }.remove(write.patch);
        Stage::Wrote(Wrote::Written)
    }
}

/// The digest of a range; zeros when some of it cannot be read.
fn digest_of(sectors: &Sectors<'_>) -> RangeDigest {
    if sectors.unreadable.is_empty() {
        RangeDigest::of(sectors.bytes)
    } else {
        RangeDigest([0; 32])
    }
}

/// The short digest of every sector; zeros for one that cannot be read.
fn short_digests<'s>(
    sectors: &'s Sectors<'_>,
) -> impl Iterator<Item = ShortDigest> + 's {
    let all = sectors.bytes.chunks(SECTOR_BYTES);
    (0..).zip(all).map(|(at, bytes)| {
        if sectors.unreadable.has(at) {
            ShortDigest([0; 16])
        } else {
            RangeDigest::of(bytes).short()
        }
    })
}
