//! Linux, by system calls alone: no C library, no heap.

pub(crate) mod stdio;
