//! The real binary, as users and scripts meet it.

mod command_line;
mod devices;
mod examples;
mod schema;
mod signals;
mod support;
