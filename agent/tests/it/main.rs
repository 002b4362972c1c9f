//! The agent's state machine, driven through bytes alone.

mod fetch;
mod hostile;
mod memory;
mod recorded;
mod rig;
mod scans;
mod sessions;
mod writes;
