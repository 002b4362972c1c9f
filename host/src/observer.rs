//! What a job tells while it runs.
//!
//! One event type for everybody who watches: the bar on a terminal, the line
//! every ten seconds and the NDJSON stream are observers in `cli`. Nothing
//! here prints.

use crate::ext::Finding;
use crate::source::ReadFault;
use crate::units::{BlockRun, ByteCount};

/// Watches a job. Called from the thread that works, so it must be quick.
pub trait Observer: Sync {
    /// Something happened.
    fn event(&self, event: &Event<'_>);
}

/// Something that happened.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A new part of the job begins.
    Phase(Phase),
    /// How far the current part is. `total` is a lower bound while the walk
    /// still finds more.
    Progress {
        /// Bytes of the source dealt with so far.
        done: ByteCount,
        /// Bytes known to be needed.
        total: ByteCount,
    },
    /// Damage was found.
    Finding(&'a Finding),
    /// Blocks that are needed could not be read.
    Hole {
        /// Which.
        run: BlockRun,
        /// Why.
        fault: ReadFault,
    },
    /// A line of text on the console that the link shares: it comes from
    /// another machine and may hold anything.
    Console(&'a str),
    /// A message of the agent's own log.
    AgentLog {
        /// How much it matters; `None` when it could not be read.
        level: Option<&'static str>,
        /// Seconds since the agent's machine started, as it gives them.
        time: Option<&'a str>,
        /// The message; or, when it could not be read, its bytes in
        /// hexadecimal.
        text: &'a str,
    },
    /// Something the user should know, and can act on.
    Warning {
        /// Stable name for scripts.
        code: &'static str,
        /// The text.
        message: String,
    },
}

/// The parts of a job.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Phase {
    /// Finding out which blocks matter (and copying them on the way where
    /// the output takes them in any order).
    Walk,
    /// Looking for copies of a lost superblock.
    Search,
    /// Copying blocks in ascending order.
    Copy,
    /// Trying again what was hard to read, when all else is there.
    Retry,
    /// Computing and comparing digests.
    Verify,
    /// Writing to a device.
    Write,
    /// Bringing the output to the disk.
    Sync,
}

/// Watches nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Observer for Silent {
    fn event(&self, _: &Event<'_>) {}
}
