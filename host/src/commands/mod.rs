//! One file per verb: the only code that joins sources and sinks.
//!
//! A verb takes a request that says all it needs, tells an
//! [`crate::observer::Observer`] how far it is, looks at a
//! [`crate::stop::Stop`] and ends in a [`Report`]. Nothing here parses
//! arguments or prints.

pub mod agent_log;
pub mod capture;
pub mod console;
pub mod convert;
mod destination;
pub mod diff;
mod duplicates;
pub mod holes;
pub mod image;
pub mod install;
pub mod journal;
pub mod ls;
mod paths;
pub mod plan;
mod planned;
pub mod power;
mod presumed;
mod probe;
pub mod reach;
pub mod report;
pub mod request;
pub mod selector;
pub mod undo;
pub mod verify;
pub mod writing;

pub use console::console;
pub use convert::convert;
pub use diff::diff;
pub use image::image;
pub use install::install;
pub use power::power;
pub use probe::probe;
pub use report::{Outcome, Report};
pub use request::{ConvertRequest, ImageRequest, Output, VerifyRequest};
pub use undo::undo;
pub use verify::verify;
