//! `cargo xtask agent`: the freestanding agent, the program that boots.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use crate::project::{cargo, root, run};

/// Builds the freestanding agent, with its symbols, and returns where it
/// lies. The same sources give the same bytes wherever they lie.
pub(crate) fn build() -> Result<PathBuf> {
    let mut command = cargo(&["build", "--locked", "--quiet"]);
    command
        .args(["--profile", "agent"])
        .args(["--package", "e2wire-agent", "--features", "bare"])
        // Read by the agent's build script.
        .env("E2WIRE_AGENT_BARE", "1")
        // Without it the agent would be built without any log message.
        .env("DEFMT_LOG", "info");
    let (rust, c) = remap_flags()?;
    command.env("CARGO_ENCODED_RUSTFLAGS", rust).env("CFLAGS", c);
    run(command)?;
    let path = e2wire_tests::target().join("agent/e2wire-agent");
    ensure!(path.is_file(), "{} was not built", path.display());
    Ok(path)
}

/// Flags for rustc and for the C compiler that keep the folders of this
/// machine out of the program, in the form of the variables that carry them.
fn remap_flags() -> Result<(String, String)> {
    let cargo_home = match std::env::var_os("CARGO_HOME") {
        Some(home) => PathBuf::from(home),
        None => {
            let home = std::env::home_dir().context("there is no $HOME")?;
            home.join(".cargo")
        }
    };
    let mut rust = Vec::new();
    let mut c = Vec::new();
    let root = root();
    let target = e2wire_tests::target();
    // Where several fit, the last one counts for rustc.
    let folders: [(&Path, &str); 3] =
        [(&cargo_home, "/cargo"), (&root, "/e2wire"), (&target, "/target")];
    for (folder, name) in folders {
        let folder = folder
            .to_str()
            .with_context(|| format!("{} is not text", folder.display()))?;
        ensure!(
            !folder.contains(char::is_whitespace),
            "{folder:?}: folders with spaces in their names cannot be passed \
             to the C compiler"
        );
        rust.push(format!("--remap-path-prefix={folder}={name}"));
        c.push(format!("-ffile-prefix-map={folder}={name}"));
    }
    // CARGO_ENCODED_RUSTFLAGS separates by this control character.
    Ok((rust.join("\u{1f}"), c.join(" ")))
}
