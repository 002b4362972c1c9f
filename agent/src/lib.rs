//! The agent: lists devices, reads, digests and compresses, for whoever
//! asks over one of its ports.
//!
//! No heap, no I/O of its own: the program that links this supplies ports,
//! devices and a clock.

#![no_std]
#![forbid(unsafe_code)]
