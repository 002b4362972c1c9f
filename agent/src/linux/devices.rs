//! The table of devices, and the jobs on them.

use e2wire_agent::device::{
    DeviceFault, DeviceFlags, DeviceIndex, Devices, Job, Sectors, Settled,
    Slot, State,
};
use e2wire_agent::memory::DEVICES_MAX;
use e2wire_protocol::message::DeviceFacts;
use heapless::Vec;
use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::io::Errno;

use super::block::Target;
use super::identify::Identifiers;
use super::once::Once;
use super::pool::{Pool, Stage, Task, Work};
use super::sysfs::{self, Device, Facts};
use super::text::Path;
use super::usage::for_each_use;

/// The most files and devices that may be offered by name.
pub(crate) const NAMED_MAX: usize = 16;

/// A place in the table.
#[derive(Clone, Debug)]
struct Entry {
    /// Tells this device from all others that ever were; 0 for nobody.
    key: u64,
    facts: Facts,
    /// Offered by this path of `Disks::named`, rather than found.
    named: Option<usize>,
    /// Seen by the present scan.
    seen: bool,
    /// Who it is has been found out.
    known: bool,
}

type Table = [Entry; DEVICES_MAX];

static TABLE: Once<Table> = Once::new(
    [const {
        Entry {
            key: 0,
            facts: Facts::new(),
            named: None,
            seen: false,
            known: false,
        }
    }; DEVICES_MAX],
);

/// All devices of this machine, or those that were named. There is one.
pub(crate) struct Disks {
    pool: Pool,
    identifiers: Identifiers,
    /// Some device is not known yet.
    unsettled: bool,
    named: Vec<Path, NAMED_MAX>,
    entries: &'static mut Table,
    /// Keys given so far.
    keys: u64,
}

impl Disks {
    /// Offers the devices at `named`, or all there are if that is empty.
    ///
    /// # Errors
    ///
    /// The kernel gives no event descriptor, or this was asked before.
    pub(crate) fn take(named: Vec<Path, NAMED_MAX>) -> Result<Self, Errno> {
        let pool = Pool::take()?;
        let entries = TABLE.take().ok_or(Errno::BUSY)?;
        let identifiers = Identifiers::take().ok_or(Errno::BUSY)?;
        Ok(Self {
            pool,
            identifiers,
            unsettled: false,
            named,
            entries,
            keys: 0,
        })
    }

    /// What becomes readable when a job ends.
    pub(crate) fn poll_fd(&self) -> PollFd<'_> {
        PollFd::from_borrowed_fd(self.pool.wake_fd(), PollFlags::IN)
    }

    /// Jobs that ended up to now have been taken note of.
    pub(crate) fn clear_wake(&self) {
        self.pool.clear_wake();
    }

    fn scan_named(&mut self) {
        for index in 0..self.named.len() {
            let Some(path) = self.named.get(index) else {
                continue;
            };
            if let Ok(facts) = sysfs::named_facts(path) {
                self.saw(facts, Some(index));
            }
        }
    }

    fn scan_all(&mut self) {
        sysfs::for_each_device(|name| {
            let Some(device) = Device::by_name(name) else {
                return;
            };
            // Drives without a medium and unused loop devices have no size.
            let Some(facts) = device.present_facts().filter(|f| f.size > 0)
            else {
                return;
            };
            self.saw(facts, None);
        });
    }

    /// Takes note of a device. Who one is that was not in the table yet, has
    /// to be found out.
    fn saw(&mut self, mut facts: Facts, named: Option<usize>) {
        let known = self.entries.iter_mut().find(|entry| {
            entry.key != 0
                && entry.named == named
                && entry.facts.is_same_device(&facts)
        });
        if let Some(entry) = known {
            entry.seen = true;
            facts.model = entry.facts.model.clone();
            facts.serial = entry.facts.serial.clone();
            facts.wwn = entry.facts.wwn.clone();
            facts.path = entry.facts.path.clone();
            entry.facts = facts;
            return;
        }
        // A place that was never used, so that what went away leaves its own
        // empty for as long as there is room.
        let never = self.entries.iter().position(|e| e.facts.size == 0);
        let empty = || self.entries.iter().position(|entry| entry.key == 0);
        let Some(index) = never.or_else(empty) else {
            return;
        };
        self.keys = self.keys.saturating_add(1);
        // A file has told all there is.
        let known = facts.rdev == 0;
        if let Some(entry) = self.entries.get_mut(index) {
            let key = self.keys;
            *entry = Entry { key, facts, named, seen: true, known };
        }
    }

    /// Has devices looked at that are not known yet.
    fn identify(&mut self) {
        for entry in self.entries.iter() {
            let unknown = entry.key != 0 && !entry.known;
            if unknown
                && !self.identifiers.is_asked(entry.key)
                && !self.identifiers.ask(entry.key, entry.facts.rdev)
            {
                return;
            }
        }
    }

    /// Marks what is mounted or swap, and the disks below it.
    fn mark_uses(&mut self) {
        for_each_use(|usage| {
            for entry in self.entries.iter_mut() {
                let facts = &mut entry.facts;
                if usage.rdev == Some(facts.rdev) && facts.rdev != 0
                    || !usage.name.is_empty()
                        && facts.name.as_bytes() == usage.name
                {
                    facts.flags = facts.flags.with(DeviceFlags::IN_USE);
                    if usage.writes {
                        facts.flags =
                            facts.flags.with(DeviceFlags::MOUNTED_READ_WRITE);
                    }
                }
            }
        });
        for index in 0..self.entries.len() {
            let Some(Entry { key: 1.., facts, .. }) = self.entries.get(index)
            else {
                continue;
            };
            let (flags, parent) = (facts.flags, facts.parent.clone());
            if !flags.has(DeviceFlags::IN_USE) || parent.is_empty() {
                continue;
            }
            let disk = self
                .entries
                .iter_mut()
                .find(|entry| entry.key != 0 && entry.facts.name == parent);
            if let Some(disk) = disk {
                let inherited = DeviceFlags(
                    flags.0
                        & DeviceFlags::IN_USE
                            .with(DeviceFlags::MOUNTED_READ_WRITE)
                            .0,
                );
                disk.facts.flags = disk.facts.flags.with(inherited);
            }
        }
    }

    fn entry(&self, index: DeviceIndex) -> Option<&Entry> {
        let entry = self.entries.get(usize::from(index.0));
        entry.filter(|entry| entry.key != 0 && entry.known)
    }

    fn target(&self, entry: &Entry) -> Option<Target> {
        let facts = &entry.facts;
        let path = match entry.named {
            Some(index) => *self.named.get(index)?,
            None => device_path(facts.name.as_bytes())?,
        };
        Some(Target {
            key: entry.key,
            path,
            rdev: Some(facts.rdev).filter(|rdev| *rdev != 0),
            sector: facts.logical_sector,
        })
    }
}

/// The node of a device. The kernel writes `/` in names as `!`.
fn device_path(name: &[u8]) -> Option<Path> {
    let mut path = Path::from_parts(&[b"/dev/"])?;
    for (i, part) in name.split(|byte| *byte == b'!').enumerate() {
        if i > 0 && !path.push(b"/") || !path.push(part) {
            return None;
        }
    }
    Some(path)
}

impl Devices for Disks {
    fn rescan(&mut self) {
        for entry in self.entries.iter_mut() {
            entry.seen = false;
        }
        if self.named.is_empty() {
            self.scan_all();
        } else {
            self.scan_named();
        }
        for entry in self.entries.iter_mut() {
            if !entry.seen {
                entry.key = 0;
            }
        }
        self.mark_uses();
        self.unsettled = true;
        self.identify();
    }

    fn settle(&mut self) -> Settled {
        let mut changed = false;
        if !self.unsettled {
            return Settled { changed, whole: true };
        }
        let entries = &mut *self.entries;
        self.identifiers.collect(|key, found| {
            let mut all = entries.iter_mut();
            if let Some(entry) = all.find(|entry| entry.key == key) {
                let facts = &mut entry.facts;
                facts.model = found.model.clone();
                facts.serial = found.serial.clone();
                facts.wwn = found.wwn.clone();
                facts.path = found.path.clone();
                entry.known = true;
                changed = true;
            }
        });
        if changed {
            self.identify();
        }
        let unknown = |entry: &Entry| entry.key != 0 && !entry.known;
        self.unsettled = self.entries.iter().any(unknown);
        Settled { changed, whole: !self.unsettled }
    }

    fn facts(&self, index: DeviceIndex) -> Option<DeviceFacts<'_>> {
        let facts = &self.entry(index)?.facts;
        Some(DeviceFacts {
            name: &facts.name,
            kind: facts.kind,
            flags: facts.flags,
            size: facts.size,
            logical_sector: facts.logical_sector,
            physical_sector: facts.physical_sector,
            partition_start: facts.partition_start,
            partition: facts.partition,
            parent: &facts.parent,
            model: &facts.model,
            serial: &facts.serial,
            wwn: &facts.wwn,
            path: &facts.path,
            holders: &facts.holders,
        })
    }

    fn submit(
        &mut self,
        slot: Slot,
        index: DeviceIndex,
        job: Job<'_>,
    ) -> Result<(), DeviceFault> {
        let entry = self.entry(index).ok_or(DeviceFault::Gone)?;
        let target = self.target(entry).ok_or(DeviceFault::Open(
            u16::try_from(Errno::NAMETOOLONG.raw_os_error()).unwrap_or(0),
        ))?;
        self.pool.submit(slot, target.key, |work, buffer| {
            work.target = target;
            work.ranges.clear();
            work.task = match job {
                Job::Flush => Task::Flush,
                Job::Claim => Task::Claim,
                Job::Unclaim => Task::Unclaim,
                Job::Write(range, bytes) => {
                    // One that does not fit would be the library's bug; it
                    // has no range then and is refused.
                    if let Some(place) = buffer.0.get_mut(..bytes.len()) {
                        place.copy_from_slice(bytes);
                        work.ranges.extend([range]);
                    }
                    Task::Write
                }
                Job::Read(ranges) => {
                    // More ranges than allowed would be the library's bug;
                    // they are not read then, and it sees fewer bytes.
                    work.ranges.extend(
                        ranges.iter().copied().take(work.ranges.capacity()),
                    );
                    Task::Read
                }
            };
        })
    }

    fn poll(&self, slot: Slot) -> State<'_> {
        match self.pool.poll(slot) {
            Stage::Free => State::Failed(DeviceFault::NoWorker),
            Stage::Running(done) => State::Pending { done },
            Stage::Ended(Work { failed: true, fault, .. }, _) => {
                State::Failed(*fault)
            }
            Stage::Ended(work @ Work { task: Task::Read, .. }, bytes) => {
                State::Read(Sectors { bytes, unreadable: &work.unreadable })
            }
            Stage::Ended(..) => State::Done,
        }
    }

    fn release(&mut self, slot: Slot) {
        self.pool.release(slot);
    }
}

#[cfg(test)]
mod tests;
