//! A whole job in one process and in virtual time, replayed from one seed:
//! the agent's state machine, a disk, a line that damages what it carries,
//! and the host's own code.
//!
//! The line of the host *is* the simulation: while the host waits for bytes,
//! wire, agent, disk and clock move on to the next thing that happens.

mod agent;
mod disk;
mod line;
mod line_use;
mod play;
mod random;
mod wire;
mod world;

pub use disk::{Medium, Sector};
pub use line::SimLine;
pub use line_use::{LineUse, line_uses};
pub use play::play;
pub use random::Random;
pub use wire::Faults;
pub(crate) use wire::Wire;
pub use world::{Conditions, Tally, Trip, World};
