//! Everything that is not the host.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::agent::{Machinery, Order, SimAgent};
use super::disk::Medium;
use super::wire::Wire;
use super::{Faults, Random};

/// Under what conditions a job has to be done.
#[derive(Clone, Debug)]
pub struct Conditions {
    /// The disk.
    pub bytes: Arc<Vec<u8>>,
    /// Sectors that cannot be read.
    pub bad: Vec<u64>,
    /// Microseconds that the disk thinks about a read at most.
    pub disk_slow: u64,
    /// Bits per second; 0 for a connection as fast as memory.
    pub baud: u32,
    /// Microseconds from one end to the other.
    pub latency: u64,
    /// What happens to bytes of the agent; those of the host fare as badly.
    pub faults: Faults,
    /// The agent's machine restarts after so many microseconds, again and
    /// again; 0 for never.
    pub reboot_every: u64,
    /// What happens after so many writes and flushes, once.
    pub trip: Option<(u64, Trip)>,
}

/// What is cut in the middle of a job that writes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Trip {
    /// The machine's power: what was not flushed is half lost.
    Power,
    /// The agent; the machine's disk keeps what it was given.
    Agent,
    /// The line, for the host to open again.
    Line,
    /// The host, for ever.
    Host,
}

/// What a job has cost on the line.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Tally {
    /// Bytes that the agent sent.
    pub from_agent: u64,
    /// Bytes that the host sent.
    pub from_host: u64,
    /// How often the machine was restarted.
    pub reboots: u64,
}

/// Wire, agent, disk and clock.
pub struct World {
    now: u64,
    machinery: Machinery,
    agent: Option<SimAgent>,
    to_agent: Wire,
    to_host: Wire,
    /// When the agent wants to be stepped, if nothing else happens.
    wake: Option<u64>,
    more: bool,
    random: Random,
    reboot_every: u64,
    reboot_at: Option<u64>,
    boots_at: u64,
    reboots: u64,
    is_serial: bool,
    medium: Arc<Mutex<Medium>>,
    trip: Option<Trip>,
    /// What the host's end of the line has to notice.
    cut: Option<Trip>,
}

impl World {
    /// From one seed.
    #[must_use]
    pub fn new(seed: u64, conditions: &Conditions) -> Self {
        let mut random = Random::new(seed);
        let mut medium = Medium::new(Arc::clone(&conditions.bytes));
        if let Some((jobs, _)) = conditions.trip {
            medium.trip_after(jobs);
        }
        let medium = Arc::new(Mutex::new(medium));
        let machinery = Machinery {
            medium: Arc::clone(&medium),
            bad: Arc::new(conditions.bad.clone()),
            slow: conditions.disk_slow,
            serial: conditions.baud > 0,
            baud: conditions.baud,
        };
        let byte_nanos = match conditions.baud {
            0 => 8,
            baud => 10_000_000_000 / u64::from(baud),
        };
        let mut wire = || {
            Wire::new(
                random.next(),
                conditions.faults,
                byte_nanos,
                conditions.latency,
            )
        };
        let (to_agent, to_host) = (wire(), wire());
        let mut world = Self {
            now: 0,
            machinery,
            agent: None,
            to_agent,
            to_host,
            wake: None,
            more: false,
            random,
            reboot_every: conditions.reboot_every,
            reboot_at: None,
            boots_at: 0,
            reboots: 0,
            is_serial: conditions.baud > 0,
            medium,
            trip: conditions.trip.map(|(_, trip)| trip),
            cut: None,
        };
        world.boot();
        world
    }

    /// Virtual microseconds since the beginning.
    #[must_use]
    pub const fn now(&self) -> u64 {
        self.now
    }

    /// What the disk holds.
    pub fn medium(&self) -> MutexGuard<'_, Medium> {
        self.medium.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was cut at the host's end, told once.
    pub(super) const fn take_cut(&mut self) -> Option<Trip> {
        self.cut.take()
    }

    /// Whether something at the host's end was cut.
    pub(super) const fn is_cut(&self) -> bool {
        self.cut.is_some()
    }

    /// Whether the line is a serial one.
    #[must_use]
    pub const fn is_serial(&self) -> bool {
        self.is_serial
    }

    /// What it has cost so far.
    #[must_use]
    pub const fn tally(&self) -> Tally {
        Tally {
            from_agent: self.to_host.carried,
            from_host: self.to_agent.carried,
            reboots: self.reboots,
        }
    }

    fn boot(&mut self) {
        self.agent = Some(self.machinery.boot(self.random.next(), self.now));
        self.wake = Some(self.now);
        self.reboot_at = (self.reboot_every > 0).then(|| {
            self.now
                + self.reboot_every / 2
                + self.random.below(self.reboot_every)
        });
    }

    fn reboot(&mut self, without_power: bool) {
        if without_power {
            let mut random = Random::new(self.random.next());
            self.medium().power_cut(&mut random);
        }
        self.agent = None;
        self.more = false;
        self.wake = None;
        self.reboot_at = None;
        self.reboots += 1;
        self.boots_at = self.now + 500_000 + self.random.below(4_000_000);
        if self.is_serial {
            let text = b"\r\nLinux version 6.1.0 (boot)\r\nRun /init\r\n";
            self.to_host.take(self.now, text);
        }
    }

    /// The host opens its end: a connection is a new one for the agent, a
    /// serial line is not.
    pub(super) fn open(&mut self) {
        self.to_host.clear();
        if !self.is_serial {
            self.to_agent.clear();
            if let Some(agent) = &self.agent {
                self.wake =
                    agent.order(Order::Reopen { now: self.now }).deadline;
            }
        }
    }

    /// The host sends.
    pub(super) fn send(&mut self, bytes: &[u8]) {
        self.to_agent.take(self.now, bytes);
    }

    /// Time passes, until `until` at most or something arrives; true when it
    /// did.
    pub(super) fn receive(&mut self, until: u64, into: &mut Vec<u8>) -> bool {
        let mut steps = 0;
        loop {
            if self.to_host.arrived(self.now, into) {
                return true;
            }
            self.step_agent();
            steps += 1;
            assert!(
                steps < 100_000,
                "the world goes round and round at {} us: {:?}",
                self.now,
                self.nexts()
            );
            if self.now >= until || self.is_cut() {
                return false;
            }
            let next = self.nexts().into_iter().flatten().min();
            let next = next.unwrap_or(until);
            self.now = next.clamp(self.now + 1, until.max(self.now + 1));
        }
    }

    /// When the next of all that can happen does: bytes for the host, for
    /// the agent, its timers, a reboot, room on the line, its start.
    fn nexts(&self) -> [Option<u64>; 6] {
        [
            self.to_host.next(),
            self.to_agent.next(),
            self.wake,
            self.reboot_at,
            self.more.then(|| self.to_host.free_at()),
            self.agent.is_none().then_some(self.boots_at),
        ]
    }

    fn step_agent(&mut self) {
        if self.reboot_at.is_some_and(|at| at <= self.now) {
            self.reboot(true);
        }
        let mut bytes = Vec::new();
        self.to_agent.arrived(self.now, &mut bytes);
        if self.agent.is_none() && self.boots_at <= self.now {
            self.boot();
        }
        let Some(agent) = &self.agent else { return };
        let free = self.to_host.free_at() <= self.now;
        let due = self.wake.is_some_and(|at| at <= self.now);
        if bytes.is_empty() && !due && !(self.more && free) {
            return;
        }
        // A UART takes what its FIFO holds.
        let room = match (free, self.is_serial) {
            (false, _) => 0,
            (true, true) => 64,
            (true, false) => 64 << 10,
        };
        let answer = agent.order(Order::Step { now: self.now, bytes, room });
        if self.medium().take_trip() {
            match self.trip.take() {
                Some(Trip::Power) => return self.reboot(true),
                Some(Trip::Agent) => return self.reboot(false),
                cut => self.cut = cut,
            }
        }
        self.to_host.take(self.now, &answer.bytes);
        self.more = answer.more;
        self.wake = answer.deadline.map(|at| at.max(self.now + 1));
        if self.more && !answer.bytes.is_empty() {
            // It goes on as soon as the line is free.
            self.wake = Some(self.to_host.free_at().max(self.now + 1));
        }
    }
}
