//! Linux, by system calls alone: no C library, no heap.

pub(crate) mod block;
pub(crate) mod clock;
pub(crate) mod devices;
pub(crate) mod endpoint;
pub(crate) mod file;
pub(crate) mod identify;
#[cfg_attr(
    not(all(feature = "bare", panic = "abort")),
    expect(dead_code, reason = "only the freestanding agent is process 1")
)]
pub(crate) mod init;
pub(crate) mod kmsg;
pub(crate) mod line;
pub(crate) mod log;
pub(crate) mod machine;
pub(crate) mod once;
pub(crate) mod options;
pub(crate) mod pool;
pub(crate) mod read;
pub(crate) mod serial;
pub(crate) mod serve;
pub(crate) mod signal;
pub(crate) mod start;
pub(crate) mod stdio;
pub(crate) mod sysfs;
pub(crate) mod tcp;
pub(crate) mod text;
pub(crate) mod thread;
pub(crate) mod usage;
pub(crate) mod zstd;
