//! Reaching devices that are not here: target URLs now, links and sessions
//! behind them.

pub mod target;
