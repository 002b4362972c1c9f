//! The tests of the whole system. One binary, so that it links once.

mod boot;
mod compat;
mod damage;
mod diff;
mod efficiency;
mod fixtures;
mod fuzz;
mod holes;
mod install;
mod plan;
mod remote;
mod retries;
mod safety;
mod sim;
mod stalls;
mod unfinished;
mod walk;
