//! `cargo xtask test`: installs what the tests need, runs all of them.

use std::collections::BTreeSet;
use std::process::Command;

use anyhow::{Result, bail};
use e2wire_tests::tools;

use crate::project::{cargo, run};

/// Makes sure of the Debian packages, then runs every test of the workspace;
/// `rest` goes to `cargo test`.
pub(crate) fn run_tests(rest: &[&str]) -> Result<()> {
    install_missing()?;
    let mut command = cargo(&["test", "--workspace"]);
    command.args(rest);
    run(command)
}

/// Installs the missing packages of [`tools::TOOLS`] when we are root, else
/// says which line to run.
pub(crate) fn install_missing() -> Result<()> {
    // Twice: a package may push another one out, whose version does not fit
    // it (qemu-system-x86 does that to a newer qemu-utils).
    for _ in 0..2 {
        let missing = missing_packages();
        if missing.is_empty() {
            return Ok(());
        }
        install(&missing.into_iter().collect::<Vec<_>>())?;
    }
    let still: Vec<_> = missing_packages().into_iter().collect();
    if still.is_empty() {
        return Ok(());
    }
    bail!("installed, but still not there: {}", still.join(", "))
}

fn install(packages: &[&str]) -> Result<()> {
    let line = format!(
        "apt-get install --no-install-recommends {}",
        packages.join(" ")
    );
    if !tools::is_root() || tools::find("apt-get").is_none() {
        bail!(
            "the tests need programs that are not installed; \
             as root, run:\n    {line}"
        );
    }
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive").args(arguments);
        command
    };
    run(apt(&["update", "--quiet"]))?;
    let mut install =
        apt(&["install", "--yes", "--quiet", "--no-install-recommends"]);
    install.args(packages);
    run(install)
}

fn missing_packages() -> BTreeSet<&'static str> {
    tools::TOOLS
        .iter()
        .filter(|tool| tools::find(tool.program).is_none())
        .map(|tool| tool.package)
        .collect()
}
