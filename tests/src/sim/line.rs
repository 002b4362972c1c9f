//! The host's end of the simulated line.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use e2wire::error::{Error, ErrorKind, Result};
use e2wire::remote::line::{Line, Received, Waker};
use e2wire::remote::moment::Moment;
use e2wire::remote::port::Nature;
use e2wire::stop::Stop;

use super::{Trip, World};

/// The host's end of the simulated line; the world outlives it.
pub struct SimLine {
    world: Arc<Mutex<World>>,
    nature: Nature,
    /// From then on the host is dead, in virtual microseconds.
    dies_at: Option<u64>,
    is_dead: bool,
    is_open: bool,
}

impl SimLine {
    /// A line into `world`, for a host that dies at some moment.
    #[must_use]
    pub const fn new(
        world: Arc<Mutex<World>>,
        nature: Nature,
        dies_at: Option<u64>,
    ) -> Self {
        Self { world, nature, dies_at, is_dead: false, is_open: false }
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_dead(&self) -> bool {
        if self.is_dead {
            return true;
        }
        self.dies_at.is_some_and(|at| at <= self.world().now())
    }
}

impl Line for SimLine {
    fn name(&self) -> String {
        "sim:".to_owned()
    }

    fn nature(&self) -> Nature {
        self.nature
    }

    fn now(&self) -> Moment {
        Moment::at(Duration::from_micros(self.world().now()))
    }

    fn send(&mut self, bytes: &[u8]) {
        self.world().send(bytes);
    }

    fn send_break(&mut self) -> Result<()> {
        Err(Error::new(ErrorKind::Refused, "nobody sends a break here"))
    }

    fn unsent(&self) -> usize {
        0
    }

    fn receive(&mut self, until: Moment, into: &mut Vec<u8>) -> Received {
        if self.is_dead() || !self.is_open {
            return Received::Closed("the host was killed".to_owned());
        }
        // Rounded up, or the time asked for would never come.
        let until = until.since_start().as_nanos().div_ceil(1000);
        let until = u64::try_from(until).unwrap_or(u64::MAX);
        let until = self.dies_at.map_or(until, |at| at.min(until));
        if self.world().receive(until, into) {
            return Received::Bytes;
        }
        let cut = self.world().take_cut();
        match cut {
            None => Received::Nothing,
            Some(Trip::Host) => {
                self.is_dead = true;
                Received::Closed("the host was killed".to_owned())
            }
            Some(_) => {
                self.is_open = false;
                Received::Closed("the line was cut".to_owned())
            }
        }
    }

    fn open(&mut self, _: Duration, stop: &Stop) -> Result<()> {
        stop.check()?;
        if self.is_dead() {
            return Err(Error::new(ErrorKind::Interrupted, "killed"));
        }
        self.is_open = true;
        self.world().open();
        Ok(())
    }

    fn pause(&mut self, time: Duration) {
        let mut world = self.world();
        let until = world.now() + time.as_micros() as u64;
        let mut lost = Vec::new();
        while world.receive(until, &mut lost) {}
    }

    fn waker(&self) -> Option<Waker> {
        None
    }
}
