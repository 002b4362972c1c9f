//! Devices and plans as people and scripts see them.

mod event;
mod plan;
mod tree;
mod write;

pub(super) use event::DeviceEvent;
pub(super) use plan::{PlanEvent, table};
pub(super) use tree::tree;
pub(super) use write::{WritePlanEvent, write_table};
