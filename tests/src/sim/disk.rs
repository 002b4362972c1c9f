//! The disks of the simulated machine.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use e2wire_agent::device::{
    DeviceFault, DeviceIndex, Devices, Job, SectorMap, Sectors, Slot, State,
};
use e2wire_agent::memory::SLOTS_MAX;
use e2wire_protocol::message::{DeviceFacts, DeviceFlags, DeviceKind};
use e2wire_protocol::units::ByteRange;

use super::Random;

/// What a disk holds, also while no agent runs. A write is seen at once and
/// safe after a flush.
#[derive(Clone, Debug)]
pub struct Medium {
    base: Arc<Vec<u8>>,
    /// Sectors that differ from the base.
    changed: BTreeMap<usize, Sector>,
    /// Sectors that lost their power while they were written: unreadable
    /// until they are written again.
    lost: BTreeSet<usize>,
    /// Sectors that fail so many times before they can be read.
    weak: BTreeMap<usize, u32>,
    /// Reads of weak sectors so far.
    attempts: Vec<usize>,
    /// Writes since the last flush: where, before, after.
    unflushed: Vec<(usize, Sector, Sector)>,
    /// Writes and flushes so far.
    jobs: u64,
    /// After so many of them something happens.
    trip_at: Option<u64>,
    tripped: bool,
}

/// A sector of 512 bytes.
pub type Sector = [u8; 512];

impl Medium {
    /// Holding `base`.
    #[must_use]
    pub const fn new(base: Arc<Vec<u8>>) -> Self {
        Self {
            base,
            changed: BTreeMap::new(),
            lost: BTreeSet::new(),
            weak: BTreeMap::new(),
            attempts: Vec::new(),
            unflushed: Vec::new(),
            jobs: 0,
            trip_at: None,
            tripped: false,
        }
    }

    /// All of it, as it is seen now.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.base.to_vec();
        for (sector, content) in &self.changed {
            bytes[sector * 512..][..512].copy_from_slice(content);
        }
        bytes
    }

    /// Writes and flushes so far.
    #[must_use]
    pub const fn jobs(&self) -> u64 {
        self.jobs
    }

    /// These sectors shall fail so many times before they can be read.
    pub fn weaken(&mut self, sectors: impl Iterator<Item = usize>, times: u32) {
        self.weak.extend(sectors.map(|sector| (sector, times)));
    }

    /// Reads of weak sectors so far, in their order.
    #[must_use]
    pub fn attempts(&self) -> &[usize] {
        &self.attempts
    }

    /// Reads a weak sector; false when it fails this time.
    fn attempt(&mut self, sector: usize) -> bool {
        let Some(left) = self.weak.get_mut(&sector) else { return true };
        self.attempts.push(sector);
        let is_good = *left == 0;
        *left = left.saturating_sub(1);
        is_good
    }

    /// Whether a sector cannot be read now.
    #[must_use]
    pub fn is_lost(&self, sector: usize) -> bool {
        self.lost.contains(&sector)
    }

    /// Sectors that cannot be read now.
    #[must_use]
    pub fn lost(&self) -> usize {
        self.lost.len()
    }

    /// What a sector holds.
    #[must_use]
    pub fn sector(&self, sector: usize) -> Sector {
        let base = || {
            let bytes = &self.base[sector * 512..][..512];
            bytes.try_into().expect("a sector")
        };
        self.changed.get(&sector).copied().unwrap_or_else(base)
    }

    /// Writes whole sectors, which is seen at once and not safe yet.
    pub fn write(&mut self, at: usize, bytes: &[u8]) {
        for (index, after) in bytes.as_chunks::<512>().0.iter().enumerate() {
            let sector = at / 512 + index;
            self.unflushed.push((sector, self.sector(sector), *after));
            self.changed.insert(sector, *after);
            self.lost.remove(&sector);
        }
        self.job();
    }

    /// Makes safe what was written.
    pub fn flush(&mut self) {
        self.unflushed.clear();
        self.job();
    }

    fn job(&mut self) {
        self.jobs += 1;
        self.tripped |= self.trip_at == Some(self.jobs);
    }

    /// Something shall happen after so many more writes and flushes.
    pub(super) const fn trip_after(&mut self, jobs: u64) {
        self.trip_at = Some(self.jobs + jobs);
    }

    /// Whether it has to happen now.
    pub(super) const fn take_trip(&mut self) -> bool {
        std::mem::replace(&mut self.tripped, false)
    }

    /// The power fails: of what was not flushed some sectors are kept, and
    /// now and then one is neither.
    pub fn power_cut(&mut self, random: &mut Random) {
        let lost = std::mem::take(&mut self.unflushed);
        for (sector, before, _) in lost.iter().rev() {
            self.changed.insert(*sector, *before);
        }
        for (sector, _, after) in lost {
            match random.below(8) {
                0 => {
                    self.lost.insert(sector);
                }
                1..4 => {
                    self.changed.insert(sector, after);
                }
                _ => {}
            }
        }
    }
}

/// A disk as an agent's machine sees it.
pub(super) struct SimDisk {
    medium: Arc<Mutex<Medium>>,
    /// Sectors that cannot be read.
    bad: Arc<Vec<u64>>,
    random: Random,
    /// Microseconds that a job takes at most, besides 10 ns a byte.
    slow: u64,
    claimed: bool,
    pub(super) now: u64,
    slots: Vec<Option<Running>>,
}

struct Running {
    ready: u64,
    result: Result<Option<(Vec<u8>, SectorMap)>, DeviceFault>,
}

impl SimDisk {
    pub(super) fn new(
        medium: Arc<Mutex<Medium>>,
        bad: Arc<Vec<u64>>,
        seed: u64,
        slow: u64,
    ) -> Self {
        Self {
            medium,
            bad,
            random: Random::new(seed),
            slow,
            claimed: false,
            now: 0,
            slots: (0..SLOTS_MAX).map(|_| None).collect(),
        }
    }

    fn medium(&self) -> MutexGuard<'_, Medium> {
        self.medium.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, ranges: &[ByteRange]) -> (Vec<u8>, SectorMap) {
        let mut bytes = Vec::new();
        let mut unreadable = SectorMap::new();
        let mut medium = self.medium();
        for range in ranges {
            for sector in range.start().0 / 512..range.end().0 / 512 {
                let is_lost = medium.is_lost(sector as usize)
                    || !medium.attempt(sector as usize);
                if is_lost || self.bad.binary_search(&sector).is_ok() {
                    unreadable.set(bytes.len() / 512);
                    bytes.extend_from_slice(&[0; 512]);
                } else {
                    bytes.extend(medium.sector(sector as usize));
                }
            }
        }
        (bytes, unreadable)
    }

    /// When the next job ends.
    pub(super) fn next(&self) -> Option<u64> {
        let running = self.slots.iter().flatten();
        running.map(|job| job.ready).filter(|at| *at > self.now).min()
    }
}

impl Devices for SimDisk {
    fn rescan(&mut self) {}

    fn facts(&self, index: DeviceIndex) -> Option<DeviceFacts<'_>> {
        (index.0 == 0).then(|| DeviceFacts {
            name: "sda3",
            kind: DeviceKind::Partition,
            flags: DeviceFlags::DIRECT,
            size: self.medium().base.len() as u64,
            logical_sector: 512,
            physical_sector: 4096,
            partition_start: 1 << 20,
            partition: 3,
            parent: "sda",
            model: "SIM 1",
            serial: "S1",
            wwn: "naa.5000000000000001",
            path: "pci-0000:00:1f.2-ata-1",
            holders: "",
        })
    }

    fn submit(
        &mut self,
        slot: Slot,
        index: DeviceIndex,
        job: Job<'_>,
    ) -> Result<(), DeviceFault> {
        if index.0 != 0 {
            return Err(DeviceFault::Gone);
        }
        let mut length = 0;
        let result = match job {
            Job::Read(ranges) => {
                let read = self.read(ranges);
                length = read.0.len();
                Ok(Some(read))
            }
            Job::Flush => {
                self.medium().flush();
                Ok(None)
            }
            Job::Claim => {
                self.claimed = true;
                Ok(None)
            }
            Job::Unclaim => {
                self.claimed = false;
                Ok(None)
            }
            Job::Write(range, bytes) if self.claimed => {
                length = bytes.len();
                self.medium().write(range.start().0 as usize, bytes);
                Ok(None)
            }
            Job::Write(..) => Err(DeviceFault::NotClaimed),
        };
        // Mostly quick; now and then a disk thinks about it for long.
        let mut time = self.random.below(self.slow.max(1) / 20 + 1);
        if self.random.below(50) == 0 {
            time = self.random.below(self.slow.max(1));
        }
        let ready = self.now + time + length as u64 / 100;
        self.slots[usize::from(slot.0)] = Some(Running { ready, result });
        Ok(())
    }

    fn poll(&self, slot: Slot) -> State<'_> {
        match &self.slots[usize::from(slot.0)] {
            Some(job) if job.ready <= self.now => match &job.result {
                Ok(Some((bytes, unreadable))) => {
                    State::Read(Sectors { bytes, unreadable })
                }
                Ok(None) => State::Done,
                Err(fault) => State::Failed(*fault),
            },
            _ => State::Pending { done: 0 },
        }
    }

    fn release(&mut self, slot: Slot) {
        self.slots[usize::from(slot.0)] = None;
    }
}
