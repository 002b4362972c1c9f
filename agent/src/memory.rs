//! Every byte the agent ever uses, as constants.
//!
//! There is no heap. What the state machine needs is in one struct here; what
//! the platform around it needs (the buffers of the disk workers, the
//! compressor's workspace, stacks) is sized here too, so that the sum is
//! checked at compile time.

use e2wire_protocol::limits::CHUNK_BYTES_MAX;

/// The most memory of the agent: static, stack and mapped.
pub const AGENT_BYTES_MAX: usize = 8 * 1024 * 1024;

/// The most ports served at once.
pub const PORTS_MAX: usize = 16;

/// The most devices listed.
pub const DEVICES_MAX: usize = 128;

/// The most jobs that disks work on at once, each with a buffer.
pub const SLOTS_MAX: usize = 8;

/// The buffer of a slot: one chunk. The platform allocates it, aligned for
/// direct I/O, where worker and loop both see it.
pub const SLOT_BYTES: usize = CHUNK_BYTES_MAX;

/// The workspace of the compressor, which the platform allocates.
pub const ENCODER_BYTES: usize = 2 * 1024 * 1024;

/// What the platform may use besides: stacks, tables, its log ring.
pub const PLATFORM_BYTES: usize = 768 * 1024;
