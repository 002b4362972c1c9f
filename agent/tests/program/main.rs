//! The agent as a program, in both builds, driven through the ports that
//! users have: pipes, sockets, a terminal line, TCP both ways.

mod client;
mod limits;
mod ports;
mod programs;
mod writes;
