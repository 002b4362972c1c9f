//! Real lines with the pace and the faults of bad ones: between two
//! pseudo-terminals, or between callers and somebody who listens.
//!
//! What happens to bytes on the way is the simulation's own wire; here it is
//! driven by the clock on the wall. Programs on both ends see an ordinary
//! serial port or an ordinary socket.

mod pump;
mod relay;
mod uart;

use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::fs::OFlags;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

use crate::sim::{Faults, Random, Wire};
use pump::{Direction, Ends, Input, Speaker};

pub use relay::Relay;

/// How a line treats what it carries.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    /// Bits per second, ten for a byte; 0 for as fast as it goes.
    pub baud: u32,
    /// From one end to the other.
    pub latency: Duration,
    /// What happens to bytes of either side.
    pub faults: Faults,
    /// The same number, the same faults (at the same bytes).
    pub seed: u64,
    /// An end that is set to another speed than the one that speaks hears
    /// what a UART of that speed would.
    pub speeds_matter: bool,
}

impl Pace {
    /// A clean serial line.
    #[must_use]
    pub fn serial(baud: u32) -> Self {
        Self { baud, ..Self::default() }
    }

    /// A clean connection that takes so long in each direction.
    #[must_use]
    pub fn latent(latency: Duration) -> Self {
        Self { latency, ..Self::default() }
    }

    /// Both directions.
    fn wires(&self) -> [Wire; 2] {
        let mut random = Random::new(self.seed);
        let byte_nanos = match self.baud {
            // A gigabyte a second.
            0 => 1,
            baud => 10_000_000_000 / u64::from(baud),
        };
        let latency = self.latency.as_micros() as u64;
        [(); 2].map(|()| {
            Wire::new(random.next(), self.faults, byte_nanos, latency)
        })
    }
}

/// What a line has carried so far, in bytes that were put into it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Carried {
    /// From the near end, the host's.
    pub to_far: u64,
    /// From the far end, the agent's.
    pub to_near: u64,
}

#[derive(Debug, Default)]
struct Counts([AtomicU64; 2]);

impl Counts {
    fn carried(&self) -> Carried {
        let [to_far, to_near] =
            [0, 1].map(|i: usize| self.0[i].load(Ordering::Relaxed));
        Carried { to_far, to_near }
    }
}

/// Two pseudo-terminals and a line between them.
///
/// Neither end ever sees the other hang up, as on a real serial line.
#[derive(Debug)]
pub struct PtyPair {
    near: PathBuf,
    far: PathBuf,
    /// Keeps the far end open, and says things there.
    voice: File,
    counts: Arc<Counts>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl PtyPair {
    /// Makes both ends; the line works until this value is dropped.
    ///
    /// # Errors
    ///
    /// When the system has no more pseudo-terminals.
    pub fn new(pace: &Pace) -> Result<Self> {
        let (near_line, near_end, near) = terminal()?;
        let (far_line, far_end, far) = terminal()?;
        let voice = far_end.try_clone()?.into();
        let ends = Ends {
            near: near_end,
            far: far_end,
            speeds_matter: pace.speeds_matter,
        };
        let ends = Arc::new(ends);
        let counts = Arc::new(Counts::default());
        let over = Arc::new(AtomicBool::new(false));
        let [there, back] = pace.wires();
        let mut directions = [
            Direction::new(
                Input::Terminal(Arc::clone(&ends), Speaker::Near),
                near_line.try_clone()?,
                far_line.try_clone()?,
                there,
            ),
            Direction::new(
                Input::Terminal(ends, Speaker::Far),
                far_line,
                near_line,
                back,
            ),
        ];
        let (stop, count) = (Arc::clone(&over), Arc::clone(&counts));
        let thread = thread::Builder::new()
            .name("paced line".into())
            .spawn(move || pump::run(&mut directions, &stop, &count.0))?;
        let thread = Some(thread);
        Ok(Self { near, far, voice, counts, over, thread })
    }

    /// The device node of the host's end.
    #[must_use]
    pub fn near(&self) -> &Path {
        &self.near
    }

    /// The device node of the agent's end.
    #[must_use]
    pub fn far(&self) -> &Path {
        &self.far
    }

    /// What e2wire calls the host's end, set to this speed.
    #[must_use]
    pub fn target(&self, baud: u32) -> String {
        format!("serial:{}?baud={baud}", self.near.display())
    }

    /// Says something at the far end, as a kernel or a login prompt would.
    ///
    /// # Errors
    ///
    /// When the terminal does not take it.
    pub fn say(&self, text: &[u8]) -> Result<()> {
        std::io::Write::write_all(&mut (&self.voice), text)
            .context("the far end of the line")
    }

    /// The far end's descriptor, to read what the near end sends.
    #[must_use]
    pub const fn far_end(&self) -> &File {
        &self.voice
    }

    /// What it has carried so far.
    #[must_use]
    pub fn carried(&self) -> Carried {
        self.counts.carried()
    }
}

impl Drop for PtyPair {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A pseudo-terminal in raw mode: the line's side, the end that programs
/// open, and its name.
///
/// # Errors
///
/// When the system has no more of them.
pub fn terminal() -> Result<(OwnedFd, OwnedFd, PathBuf)> {
    let failed = "cannot make a pseudo-terminal";
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let line = openpt(flags).context(failed)?;
    grantpt(&line)?;
    unlockpt(&line)?;
    let name = ptsname(&line, Vec::new())?;
    let name = PathBuf::from(std::ffi::OsStr::from_bytes(name.as_bytes()));
    // Not as our controlling terminal.
    let flags = OFlags::NOCTTY | OFlags::CLOEXEC;
    let end: OwnedFd = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(flags.bits().cast_signed())
        .open(&name)
        .context(failed)?
        .into();
    let mut settings = tcgetattr(&end)?;
    settings.make_raw();
    tcsetattr(&end, OptionalActions::Now, &settings)?;
    pump::never_block(line.as_fd())?;
    Ok((line, end, name))
}
