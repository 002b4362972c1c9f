//! Devices as people and scripts see them: a tree, and `device` events.

mod event;
mod tree;

pub(super) use event::DeviceEvent;
pub(super) use tree::tree;
