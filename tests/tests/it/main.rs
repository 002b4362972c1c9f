//! The tests of the whole system. One binary, so that it links once.

mod compat;
mod fixtures;
mod sim;
mod walk;
