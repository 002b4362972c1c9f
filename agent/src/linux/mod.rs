//! Linux, by system calls alone: no C library, no heap.

pub(crate) mod block;
pub(crate) mod clock;
pub(crate) mod devices;
pub(crate) mod file;
pub(crate) mod log;
pub(crate) mod once;
pub(crate) mod pool;
pub(crate) mod read;
pub(crate) mod stdio;
pub(crate) mod sysfs;
pub(crate) mod text;
pub(crate) mod thread;
pub(crate) mod usage;
pub(crate) mod zstd;
