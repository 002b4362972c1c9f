//! Devices and plans as people and scripts see them.

mod event;
mod plan;
mod tree;

pub(super) use event::DeviceEvent;
pub(super) use plan::{PlanEvent, table};
pub(super) use tree::tree;
