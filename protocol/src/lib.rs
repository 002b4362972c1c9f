//! What host and agent share: the units they count in and the messages they
//! exchange.
//!
//! No heap, no I/O, no clock, no cargo features. Nothing here knows ext4.
//! `PROTOCOL.md` beside this crate tells the wire on paper.

#![no_std]
#![forbid(unsafe_code)]
#![warn(clippy::arithmetic_side_effects, clippy::as_conversions)]

pub mod chunk;
pub mod coding;
pub mod digest;
pub mod frame;
pub mod limits;
pub mod message;
pub mod patch;
pub mod units;
pub mod version;
