//! The disks of the simulated machine.

use std::sync::Arc;

use e2wire_agent::device::{
    DeviceFault, DeviceIndex, Devices, Job, SectorMap, Sectors, Slot, State,
};
use e2wire_agent::memory::SLOTS_MAX;
use e2wire_protocol::message::{DeviceFacts, DeviceFlags, DeviceKind};

use super::Random;

/// One disk, in memory.
pub(super) struct SimDisk {
    bytes: Arc<Vec<u8>>,
    /// Sectors that cannot be read.
    bad: Arc<Vec<u64>>,
    random: Random,
    /// Microseconds that a job takes at most, besides 10 ns a byte.
    slow: u64,
    pub(super) now: u64,
    slots: Vec<Option<Running>>,
}

struct Running {
    ready: u64,
    bytes: Vec<u8>,
    unreadable: SectorMap,
}

impl SimDisk {
    pub(super) fn new(
        bytes: Arc<Vec<u8>>,
        bad: Arc<Vec<u64>>,
        seed: u64,
        slow: u64,
    ) -> Self {
        Self {
            bytes,
            bad,
            random: Random::new(seed),
            slow,
            now: 0,
            slots: (0..SLOTS_MAX).map(|_| None).collect(),
        }
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
            size: self.bytes.len() as u64,
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
        let mut bytes = Vec::new();
        let mut unreadable = SectorMap::new();
        if let Job::Read(ranges) = job {
            for range in ranges {
                let sectors = range.start().0 / 512..range.end().0 / 512;
                for sector in sectors {
                    let at = sector as usize * 512;
                    if self.bad.binary_search(&sector).is_ok() {
                        unreadable.set(bytes.len() / 512);
                        bytes.extend_from_slice(&[0; 512]);
                    } else {
                        bytes.extend_from_slice(&self.bytes[at..at + 512]);
                    }
                }
            }
        }
        // Mostly quick; now and then a disk thinks about it for long.
        let mut time = self.random.below(self.slow.max(1) / 20 + 1);
        if self.random.below(50) == 0 {
            time = self.random.below(self.slow.max(1));
        }
        let ready = self.now + time + bytes.len() as u64 / 100;
        self.slots[usize::from(slot.0)] =
            Some(Running { ready, bytes, unreadable });
        Ok(())
    }

    fn poll(&self, slot: Slot) -> State<'_> {
        match &self.slots[usize::from(slot.0)] {
            Some(job) if job.ready <= self.now => State::Read(Sectors {
                bytes: &job.bytes,
                unreadable: &job.unreadable,
            }),
            _ => State::Pending { done: 0 },
        }
    }

    fn release(&mut self, slot: Slot) {
        self.slots[usize::from(slot.0)] = None;
    }
}
