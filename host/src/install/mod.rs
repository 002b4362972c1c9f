//! Writing over a device: what differs becomes a plan, the plan is carried
//! out in an order that survives a cut at any place.
//!
//! The same for an install and for an undo, which is an install of the old
//! bytes. This room makes plans and carries them out; which content is wanted
//! and who may ask for it is decided in `commands`.

mod arming;
mod execute;
mod plan;
pub mod target;

pub use arming::{ARMED_RANGES_MAX, Arming};
pub use execute::{Executed, batches, execute};
pub use plan::{Plan, Planner, marked, token};
