//! Every byte the agent ever uses, as constants.
//!
//! There is no heap. What the state machine needs is one struct; what the
//! platform around it needs (the buffers of the disk workers, the
//! compressor's workspace, stacks) is sized here too, so that the sum is
//! checked at compile time.

use e2wire_protocol::limits::{
    BODY_BYTES_MAX, CHUNK_BYTES_MAX, CONFLICT_BYTES_MAX, ECHO_BYTES_MAX,
    ENCODED_BYTES_MAX, LINE_BYTES_MAX, OPEN_REQUESTS_MAX, UPLOAD_BYTES_MAX,
};
use e2wire_protocol::message::PARTS_MAX;

use crate::cache::Cache;
use crate::inventory::Inventory;
use crate::log::Ring;
use crate::queue::Queue;
use crate::scan::Scan;
use crate::session::Line;
use crate::uploads::Uploads;
use crate::write::Armed;

/// The most memory of the agent: static, stack and mapped.
pub const AGENT_BYTES_MAX: usize = 8 * 1024 * 1024;

/// The largest program file, all of which may get mapped.
pub const PROGRAM_BYTES_MAX: usize = 640 * 1024;

/// The most ports served at once.
pub const PORTS_MAX: usize = 16;

/// The most devices listed.
pub const DEVICES_MAX: usize = 128;

/// The most jobs that disks work on at once, each with a buffer.
pub const SLOTS_MAX: usize = 6;

/// The most jobs that one device works on at once: one is read while the
/// other is waited for.
pub const SLOTS_PER_DEVICE: usize = 2;

/// The buffer of a slot: one chunk. The platform allocates it, aligned for
/// direct I/O, where worker and loop both see it.
pub const SLOT_BYTES: usize = CHUNK_BYTES_MAX;

/// The workspace of the compressor, which the platform allocates.
pub const ENCODER_BYTES: usize = 1536 * 1024;

/// What the platform may use besides: stacks, tables, its log ring.
pub const PLATFORM_BYTES: usize = 640 * 1024;

/// The most bytes that are moved to or from a port in one go; on the stack.
pub const TRANSFER_BYTES: usize = 4096;

/// What waits to be sent on a port: the longest frame in either coding.
pub const OUT_BYTES: usize = LINE_BYTES_MAX;

/// Bytes of a page of the cache of encoded chunks.
pub const PAGE_BYTES: usize = 4096;

/// Pages of the cache of encoded chunks.
pub const PAGES: usize = 384;

/// The most pages that one encoded chunk takes.
pub const CHUNK_PAGES_MAX: usize = ENCODED_BYTES_MAX.div_ceil(PAGE_BYTES);

/// The most encoded chunks that are kept.
pub const CACHED_CHUNKS_MAX: usize = 256;

/// The most uploads that are kept.
pub const UPLOADS_MAX: usize = 64;

/// The most pages of the cache that uploads take: the largest one fits twice,
/// and reads keep room for three chunks.
pub const UPLOAD_PAGES_MAX: usize = 160;

/// The most open requests of all sessions together.
pub const OPEN_TOTAL_MAX: usize = 384;

/// The most open requests of one session.
pub const SESSION_OPEN_MAX: usize = 256;

/// Open requests that every session is sure of.
pub const OPEN_SURE: usize = 8;

/// What is kept of an echo until it goes out.
pub const ECHO_BYTES: usize = 1024;

/// What is kept of the kernel's log.
pub const KERNEL_LOG_BYTES: usize = 64 * 1024;

/// What is kept of the agent's own log.
pub const AGENT_LOG_BYTES: usize = 16 * 1024;

/// Where chunks are put together and encoded: by one at a time.
pub(crate) struct Workspace {
    pub(crate) body: [u8; BODY_BYTES_MAX],
    pub(crate) encoded: [u8; ENCODED_BYTES_MAX],
    /// The body in columns.
    pub(crate) columns: [u8; BODY_BYTES_MAX],
}

impl Workspace {
    pub(crate) const fn new() -> Self {
        Self {
            body: [0; BODY_BYTES_MAX],
            encoded: [0; ENCODED_BYTES_MAX],
            columns: [0; BODY_BYTES_MAX],
        }
    }
}

/// The memory of the state machine.
///
/// Its initial value is all zeros, so a static of it takes no place in the
/// program file.
pub struct Memory {
    pub(crate) lines: [Line; PORTS_MAX],
    pub(crate) queue: Queue,
    pub(crate) cache: Cache,
    pub(crate) work: Workspace,
    pub(crate) scan: Scan,
    pub(crate) inventory: Inventory,
    pub(crate) kernel_log: Ring<KERNEL_LOG_BYTES>,
    pub(crate) agent_log: Ring<AGENT_LOG_BYTES>,
    pub(crate) uploads: Uploads,
    pub(crate) armed: Armed,
    /// Digests of what lies where the present write was to go.
    pub(crate) conflict: [u8; CONFLICT_BYTES_MAX],
}

impl Memory {
    /// All of it unused.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            lines: [const { Line::new() }; PORTS_MAX],
            queue: Queue::new(),
            cache: Cache::new(),
            work: Workspace::new(),
            scan: Scan::new(),
            inventory: Inventory::new(),
            kernel_log: Ring::new(),
            agent_log: Ring::new(),
            uploads: Uploads::new(),
            armed: Armed::new(),
            conflict: [0; CONFLICT_BYTES_MAX],
        }
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

const _: () = {
    assert!(
        size_of::<Memory>()
            + SLOTS_MAX * SLOT_BYTES
            + ENCODER_BYTES
            + PLATFORM_BYTES
            + PROGRAM_BYTES_MAX
            <= AGENT_BYTES_MAX
    );
    // One chunk of any size can always be worked on while another waits.
    assert!(PAGES >= 2 * CHUNK_PAGES_MAX);
    // Uploads leave room for reads, and the largest fits twice.
    assert!(PAGES >= UPLOAD_PAGES_MAX + 3 * CHUNK_PAGES_MAX);
    assert!(UPLOAD_PAGES_MAX >= 2 * UPLOAD_BYTES_MAX.div_ceil(PAGE_BYTES));
    assert!(CACHED_CHUNKS_MAX <= PAGES);
    assert!(OPEN_TOTAL_MAX >= PORTS_MAX * OPEN_SURE + OPEN_SURE);
    assert!(OPEN_TOTAL_MAX > SESSION_OPEN_MAX);
    assert!(SESSION_OPEN_MAX == 256 && OPEN_REQUESTS_MAX == 256);
    assert!(SLOTS_MAX > SLOTS_PER_DEVICE);
    // A fragment of 16 KiB touches five pages.
    assert!(PARTS_MAX > 16 * 1024 / PAGE_BYTES);
    assert!(ECHO_BYTES_MAX == 1024 && ECHO_BYTES == 1024);
    assert!(PAGES < 1 << 16 && CACHED_CHUNKS_MAX < 1 << 16);
    assert!(OPEN_TOTAL_MAX < 1 << 16 && DEVICES_MAX < 1 << 16);
};
