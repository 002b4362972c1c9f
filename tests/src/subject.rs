//! `e2wire image`, asked for what e2image makes.

use std::path::Path;
use std::process::{Command, Output};

use crate::{binaries, oracle};

/// A command of e2wire, with the arguments that keep it from leaving more
/// than the image.
#[must_use]
pub fn image(arguments: &[&str]) -> Command {
    let mut command = binaries::e2wire();
    command.args(["image", "--no-manifest", "--no-sync"]).args(arguments);
    command
}

/// Runs `e2wire image` with `arguments` from `device` to `output`, from byte
/// `offset` on.
///
/// # Errors
///
/// What it said, when it did not succeed.
pub fn make(
    arguments: &[&str],
    offset: u64,
    device: &Path,
    output: &Path,
) -> Result<(), String> {
    let mut command = image(arguments);
    if offset > 0 {
        command.args(["--source-offset", &offset.to_string()]);
    }
    success(&oracle::run(command.arg(device).arg(output)))
}

/// Whether a program succeeded; else what it said.
///
/// # Errors
///
/// Then.
pub fn success(output: &Output) -> Result<(), String> {
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{}: {}", output.status, oracle::text(output).trim()))
}
