//! Every bound of the protocol, each tied to the others at compile time.
//!
//! Both sides size their memory by these, so nothing that a peer says can
//! make them allocate more.

use crate::units::usize_from;

/// The unit of every range on the wire: the smallest sector there is. The
/// logical sector of a device may be a multiple of it.
pub const SECTOR_BYTES: usize = 512;

/// The most bytes of a device that one chunk covers (design: chunk).
pub const CHUNK_BYTES_MAX: usize = 256 * 1024;

/// The most sectors that one chunk covers.
pub const CHUNK_SECTORS_MAX: u32 = 512;

/// The most ranges that one chunk is gathered from.
pub const RANGES_MAX: usize = 64;

/// The most bytes that a device may be asked to digest, compare or search in
/// one request: a bound on time, not on memory.
pub const SPAN_BYTES_MAX: u64 = 1 << 30;

/// The most positions that one search looks at.
pub const FIND_POSITIONS_MAX: u64 = 1 << 22;

/// The most pairs that one comparison looks at.
pub const PAIRS_MAX: usize = 32;

/// The most bytes of a result of a digest, comparison or search.
pub const RESULT_BYTES_MAX: usize = 64 * 1024;

/// The longest pattern of a search.
pub const PATTERN_BYTES_MAX: usize = 64;

/// The most bytes around a match that a search returns.
pub const RETURN_BYTES_MAX: usize = 256;

/// The largest stride of a search whose cells are read whole; of larger ones
/// only the sectors around the pattern are read.
pub const FIND_CELL_BYTES_MAX: u64 = 64 * 1024;

/// The smallest unit of a list of digests.
pub const DIGEST_UNIT_BYTES_MIN: u64 = 512;

/// The smallest payload of a fragment.
pub const FRAGMENT_BYTES_MIN: u16 = 256;

/// The largest payload of a fragment.
pub const FRAGMENT_BYTES_MAX: u16 = 16 * 1024;

/// The most bytes of a layout: one entry of two bytes for each sector.
pub const LAYOUT_BYTES_MAX: usize = 2 * (CHUNK_BYTES_MAX / SECTOR_BYTES);

/// The longest body of a chunk before it is compressed: its layout and all
/// of its bytes.
pub const BODY_BYTES_MAX: usize = CHUNK_BYTES_MAX + LAYOUT_BYTES_MAX;

/// The longest encoded chunk. A codec that would need more is not used.
pub const ENCODED_BYTES_MAX: usize = BODY_BYTES_MAX;

/// The most ranges that a plan is armed with.
pub const ARMED_RANGES_MAX: usize = 1024;

/// The most bytes of the list of ranges that a plan is armed with: two
/// varints of 64 bits for each would be more, but ranges that far apart and
/// that long do not exist a thousand times.
pub const ARMED_BYTES_MAX: usize = 16 * 1024;

/// The most sectors that one write covers.
pub const WRITE_SECTORS_MAX: u32 = CHUNK_SECTORS_MAX;

/// The longest patch: all bytes of the largest write, and the heads of a few
/// runs.
pub const PATCH_BYTES_MAX: usize = CHUNK_BYTES_MAX + 8;

/// The longest upload: a patch, or a list of ranges.
pub const UPLOAD_BYTES_MAX: usize = PATCH_BYTES_MAX;

/// Slices of an upload start and end at multiples of this, or at its end.
pub const UPLOAD_UNIT_BYTES: usize = 256;

/// The most bytes of a reply that tells what lies where a write was to go:
/// one short digest for each sector.
pub const CONFLICT_BYTES_MAX: usize = usize_from(CHUNK_SECTORS_MAX) * 16;

/// The most bytes that an encoded log reply carries.
pub const LOG_BYTES_MAX: u16 = 4096;

/// The most bytes that an echo carries.
pub const ECHO_BYTES_MAX: u16 = 1024;

/// The longest text in a device record or a Hello, in bytes of UTF-8.
pub const TEXT_BYTES_MAX: usize = 64;

/// The longest list of holders and the longest path in a device record.
pub const LONG_TEXT_BYTES_MAX: usize = 192;

/// The most bytes of a message's typed head.
pub const HEAD_BYTES_MAX: usize = 1536;

/// The most bytes of a message's raw tail.
pub const TAIL_BYTES_MAX: usize = 16 * 1024;

/// The most bytes between the delimiters of a frame before COBS: kind byte,
/// head, tail, checksum.
pub const FRAME_BYTES_MAX: usize = 1 + HEAD_BYTES_MAX + TAIL_BYTES_MAX + 4;

/// The most bytes between the delimiters of a frame in binary coding.
pub const BINARY_BYTES_MAX: usize =
    FRAME_BYTES_MAX + FRAME_BYTES_MAX.div_ceil(254);

/// The most bytes between the delimiters of a frame in printable coding:
/// five characters for each four bytes.
pub const PRINTABLE_BYTES_MAX: usize = FRAME_BYTES_MAX.div_ceil(4) * 5;

/// The most bytes of a frame on the line, delimiters included.
pub const LINE_BYTES_MAX: usize = PRINTABLE_BYTES_MAX + 4;

/// The highest zstd level a request may name.
pub const LEVEL_MAX: u8 = 22;

/// How long a session with open requests stays silent at most: then the
/// agent says that it is busy, and with what.
pub const BUSY_INTERVAL_MILLIS: u32 = 250;

/// The most requests of a session that the agent keeps at once.
pub const OPEN_REQUESTS_MAX: u16 = 256;

/// The longest time that a log request waits for something to be logged.
pub const LOG_WAIT_MILLIS_MAX: u32 = 60_000;

const _: () = {
    assert!(CHUNK_BYTES_MAX == usize_from(CHUNK_SECTORS_MAX) * SECTOR_BYTES);
    // A range's count is kept in 16 bits.
    assert!(CHUNK_SECTORS_MAX <= 1 << 16);
    // A layout entry is a varint of two bytes at most, see chunk.rs.
    assert!(usize_from(CHUNK_SECTORS_MAX) << 2 < 1 << 14);
    // The index of a fragment is 16 bits wide.
    assert!(ENCODED_BYTES_MAX.div_ceil(FRAGMENT_MIN) <= 1 << 16);
    assert!(FRAGMENT_MAX <= TAIL_BYTES_MAX);
    assert!(FRAGMENT_BYTES_MIN <= FRAGMENT_BYTES_MAX);
    assert!(LOG_BYTES_MAX <= FRAGMENT_BYTES_MAX);
    assert!(ECHO_BYTES_MAX <= FRAGMENT_BYTES_MAX);
    // A match and its surroundings fit one cell and one chunk.
    assert!(RETURN_BYTES_MAX * 2 < CHUNK_BYTES_MAX);
    assert!(BINARY_BYTES_MAX < PRINTABLE_BYTES_MAX);
    // A list of ranges and an answer of digests go out in one frame each.
    assert!(ARMED_BYTES_MAX <= TAIL_BYTES_MAX);
    assert!(CONFLICT_BYTES_MAX <= TAIL_BYTES_MAX);
    assert!(ARMED_BYTES_MAX <= UPLOAD_BYTES_MAX);
    // An upload is kept where encoded chunks are.
    assert!(UPLOAD_BYTES_MAX <= ENCODED_BYTES_MAX);
    assert!(UPLOAD_UNIT_BYTES == FRAGMENT_MIN);
    // The head of a run in a patch is a varint of three bytes at most.
    assert!(CHUNK_BYTES_MAX << 2 < 1 << 21);
};

const FRAGMENT_MIN: usize = 256;
const FRAGMENT_MAX: usize = 16 * 1024;
