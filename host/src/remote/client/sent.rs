//! A request for fragments that is under way.

use e2wire_protocol::chunk::Grant;

use e2wire_protocol::digest::DeviceId;

/// A request for fragments that is under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    /// The chunk, by its place in the table.
    pub(super) chunk: u64,
    /// Which fragments.
    pub(super) grant: Grant,
    /// Of which device.
    pub(super) device: DeviceId,
    /// Its place among all that was sent.
    pub(super) order: u64,
    /// It was sent more than once, so nobody knows which one is answered.
    pub(super) resent: bool,
}
