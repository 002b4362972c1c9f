//! Builds the programs under test, once per run, in the profile of the test.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// The command-line tool `e2wire`.
///
/// # Panics
///
/// When it does not build.
#[must_use]
pub fn e2wire() -> Command {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    let mut command =
        Command::new(PATH.get_or_init(|| build("e2wire", "e2wire")));
    // Nothing of the caller's environment changes what a test sees.
    command
        .env_remove("E2WIRE_TARGET")
        .env_remove("E2WIRE_KEY")
        // Nor does what another test has left in a cache.
        .env("XDG_CACHE_HOME", "/dev/null")
        .env("LC_ALL", "C")
        .env("TZ", "UTC")
        .stdin(Stdio::null());
    command
}

/// Builds the binary `name` of `package` in the profile that this harness was
/// built in, and says where it lies.
///
/// # Panics
///
/// When it does not build.
#[must_use]
pub fn build(package: &str, name: &str) -> PathBuf {
    build_in(profile(), package, name)
}

/// The same in another profile.
///
/// # Panics
///
/// When it does not build.
#[must_use]
pub fn build_in(profile: &str, package: &str, name: &str) -> PathBuf {
    let mut command = Command::new(env!("CARGO"));
    command
        .current_dir(crate::root())
        .args(["build", "--quiet", "--package", package, "--bin", name])
        .args(["--profile", profile]);
    let status = command.status().expect("cargo can be run");
    assert!(status.success(), "{name} does not build: {status}");
    // The dev profile alone has a directory of another name.
    let directory = if profile == "dev" { "debug" } else { profile };
    let path = crate::target().join(directory).join(name);
    assert!(path.is_file(), "{} was not built", path.display());
    path
}

fn profile() -> &'static str {
    if cfg!(debug_assertions) { "dev" } else { "release" }
}
