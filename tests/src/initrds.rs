//! Initrds with the real agent, made by `cargo xtask build-initrd`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

/// Drivers for every disk and network card that a [`crate::qemu`] machine can
/// have, beside what the cloud kernel has built in.
pub const CLOUD_DRIVERS: &str = "virtio_pci,virtio_blk,virtio_net";

/// The same with the standard kernel.
pub const STANDARD_DRIVERS: &str =
    "virtio_pci,virtio_blk,virtio_net,nvme,ahci,sd_mod";

/// Builds `target/initrds/NAME` with these arguments and says where it lies.
///
/// # Errors
///
/// What the command says against it.
pub fn build(name: &str, arguments: &[&str]) -> Result<PathBuf> {
    let folder = crate::target().join("initrds");
    fs::create_dir_all(&folder)?;
    // Cargo builds one thing at a time anyway; so nobody reads half a file.
    let lock = File::create(folder.join(".lock"))?;
    lock.lock().context("cannot lock the folder of initrds")?;
    let path = folder.join(name);
    let output = Command::new(env!("CARGO"))
        .current_dir(crate::root())
        .args(["run", "--quiet", "--package", "xtask", "--"])
        .args(["build-initrd", "--insecure", "--out"])
        .arg(&path)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .context("cargo cannot be run")?;
    ensure!(
        output.status.success(),
        "cargo xtask build-initrd {arguments:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(path)
}

/// `--modules-dir` of a kernel and its drivers, as arguments.
#[must_use]
pub fn modules<'a>(modules: &'a Path, drivers: &'a str) -> Vec<&'a str> {
    let modules = modules.to_str().expect("the path of target is text");
    vec!["--modules-dir", modules, "--profile", drivers]
}
