//! `cargo xtask ci`: what has to hold before a change is merged.

use anyhow::Result;

use crate::project::{cargo, run};
use crate::{test, tidy};

/// Formatting, lints with and without features, tidy, every test.
pub(crate) fn run_all() -> Result<()> {
    run(cargo(&["fmt", "--all", "--check"]))?;
    tidy::run()?;
    let clippy = ["clippy", "--workspace", "--all-targets"];
    for features in [&[][..], &["--all-features"]] {
        let mut command = cargo(&clippy);
        command.args(features).args(["--", "-D", "warnings"]);
        run(command)?;
    }
    test::run_tests(&[])
}
