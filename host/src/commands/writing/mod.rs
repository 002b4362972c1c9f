//! What `install` and `undo` share: a device that is looked at, guarded and
//! then written, the plan as it is shown, and the log of all of it.

pub mod audit;
mod bytes;
mod carry;
mod mmp;
mod outputs;
mod reached;
mod shown;

pub(super) use bytes::{
    Both, Kept, Lain, SECTOR, read_bytes, read_lenient, same_or_read,
};
pub(super) use carry::{Carry, carry_out};
pub(super) use mmp::refuse_active_mmp;
pub use outputs::{LocalUndo, UndoOutput, UndoOutputs};
pub use reached::{Reached, Way};
pub use shown::{KindWrites, WritePlan};
