//! What `install` and `undo` share: a device that is looked at, guarded and
//! then written, the plan as it is shown, and the log of all of it.

pub mod audit;
mod bytes;
mod carry;
mod reached;
mod shown;

pub(super) use bytes::{read_bytes, same_or_read};
pub(super) use carry::{Carry, carry_out};
pub use reached::Reached;
pub use shown::{KindWrites, WritePlan};
