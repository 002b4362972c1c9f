//! Reaching devices that are not here.
//!
//! Bottom up: a [`port`] opens, a [`line`](mod@line) moves bytes and tells the time.
//! Nothing below the session knows a message, and nothing here knows a
//! filesystem.

pub mod client;
pub mod inventory;
pub mod line;
pub mod moment;
pub mod port;
mod search;
pub mod session;
pub mod source;
pub mod target;
pub mod write;
