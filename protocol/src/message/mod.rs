//! What host and agent say to each other.
//!
//! Every enum here is append-only: variants are never reordered, removed or
//! changed, since postcard numbers them by position. A new shape is a new
//! variant; see `PROTOCOL.md`.

mod device;

pub use device::{DeviceFacts, DeviceFlags, DeviceKind, Rights};
