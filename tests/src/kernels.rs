//! Debian's kernels, for machines of ours to boot: fetched as packages,
//! unpacked below `target`, never installed.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::tools;

/// A flavour of Debian's kernel.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Flavour {
    /// Made for virtual machines: NVMe is built in, SATA is missing. Boots in
    /// two seconds.
    Cloud,
    /// Made for hardware: all drivers are modules. Boots in five seconds.
    Standard,
}

impl Flavour {
    /// The package that always depends on the current kernel.
    const fn meta_package(self) -> &'static str {
        match self {
            Self::Cloud => "linux-image-cloud-amd64",
            Self::Standard => "linux-image-amd64",
        }
    }

    const fn folder(self) -> &'static str {
        match self {
            Self::Cloud => "cloud",
            Self::Standard => "standard",
        }
    }
}

/// An unpacked kernel package.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// The image that boots.
    pub image: PathBuf,
    /// Its modules (`lib/modules/RELEASE`; without what depmod makes).
    pub modules: PathBuf,
}

/// The unpacked kernel of a flavour: what a run before has left, or a new
/// one.
///
/// # Errors
///
/// When it cannot be fetched; says from where and what to try.
pub fn debian(flavour: Flavour) -> Result<Kernel> {
    let cache = crate::target().join("debian-kernels");
    fs::create_dir_all(&cache)?;
    // One fetches, the others wait. Gone with the process.
    let lock = File::create(cache.join(".lock"))?;
    lock.lock().context("cannot lock the cache of kernels")?;
    let folder = cache.join(flavour.folder());
    if !folder.is_dir() {
        let unpacked = fetch(flavour, &cache).with_context(|| {
            format!(
                "cannot fetch the kernel package of {}; it comes from the \
                 Debian archive that this machine installs from: see that \
                 `apt-get update` works and try again",
                flavour.meta_package()
            )
        })?;
        let unpacked = unpacked.keep();
        fs::rename(&unpacked, &folder).context("cannot keep the kernel")?;
    }
    let modules = only_entry(&folder.join("lib/modules"))?;
    let release = modules.file_name().unwrap_or_default().to_string_lossy();
    let image = folder.join(format!("boot/vmlinuz-{release}"));
    ensure!(
        image.is_file() && modules.is_dir(),
        "{} is not a whole kernel: remove it and try again",
        folder.display()
    );
    Ok(Kernel { image, modules })
}

fn fetch(flavour: Flavour, cache: &Path) -> Result<tempfile::TempDir> {
    let package = current_package(flavour.meta_package())?;
    let download = tempfile::tempdir_in(cache)?;
    let output = tools::command("apt-get")
        .current_dir(download.path())
        .args(["download", "--quiet", &package])
        .output()?;
    ensure!(
        output.status.success(),
        "apt-get download {package}: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    let archive = only_entry(download.path())?;
    let unpacked = tempfile::tempdir_in(cache)?;
    let status = Command::new("dpkg-deb")
        .arg("--extract")
        .arg(&archive)
        .arg(unpacked.path())
        .status()
        .context("dpkg-deb cannot be run")?;
    ensure!(status.success(), "{} cannot be unpacked", archive.display());
    Ok(unpacked)
}

/// The package with the kernel itself, such as
/// `linux-image-6.1.0-56-cloud-amd64`.
fn current_package(meta_package: &str) -> Result<String> {
    let output = tools::command("apt-cache")
        .args(["depends", "--important", meta_package])
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .find(|package| package.starts_with("linux-image-"))
        .map(str::to_owned)
        .with_context(|| {
            format!("no kernel package is known to apt as {meta_package}")
        })
}

fn only_entry(folder: &Path) -> Result<PathBuf> {
    let mut entries = fs::read_dir(folder)
        .with_context(|| format!("cannot list {}", folder.display()))?;
    let first = entries.next().transpose()?.map(|entry| entry.path());
    let first =
        first.with_context(|| format!("{} is empty", folder.display()))?;
    ensure!(
        entries.next().is_none(),
        "{} holds more than one entry",
        folder.display()
    );
    Ok(first)
}
