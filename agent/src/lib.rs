//! The agent: serves the disks of a machine that no longer boots.
//!
//! This library is the part that knows neither Linux nor a clock nor a heap:
//! a state machine that takes bytes and the time, and returns bytes and
//! deadlines. The platform around it implements the three traits of
//! [`device`], [`port`] and [`clock`], and [`compress::Encoder`].
//!
//! It knows nothing of filesystems, so a rescue image never needs rebuilding
//! because a feature bit is new.

#![no_std]
#![forbid(unsafe_code)]
#![warn(clippy::arithmetic_side_effects, clippy::as_conversions)]

pub mod agent;
mod cache;
pub mod clock;
pub mod compress;
pub mod device;
mod dispatch;
pub mod inventory;
mod log;
pub mod memory;
pub mod port;
mod queue;
mod read;
mod scan;
mod schedule;
mod send;
mod session;
mod uploads;
mod write;
