//! What host and agent share: the units they count in and the messages they
//! exchange.
//!
//! No heap, no I/O, no clock, no cargo features. Nothing here knows ext4.

#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    warn(clippy::arithmetic_side_effects, clippy::as_conversions)
)]

pub mod units;
