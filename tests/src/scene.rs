//! Machines that boot into the real agent: Debian's kernel, an initrd made by
//! `cargo xtask build-initrd`, and a command line.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Context, Result, ensure};

use crate::kernels::{self, Flavour, Kernel};
use crate::qemu::Builder;
use crate::{initrds, tools};

/// On a busy host the emulated timer may be late, and the kernel would give
/// up on it.
const EMULATED: &str = "no_timer_check";

/// What build-initrd says to put on the command line, besides the console.
const QUIET: &str = "loglevel=1 sysctl.kernel.sysrq=0 panic=60";

/// A kernel, an initrd with drivers for all that [`crate::qemu`] machines can
/// have, and a command line.
#[derive(Clone, Debug)]
pub struct Scene {
    kernel: Kernel,
    initrd: PathBuf,
    console: &'static str,
    words: String,
}

impl Scene {
    /// The agent is all that boots.
    ///
    /// # Errors
    ///
    /// When the kernel cannot be fetched or the initrd cannot be built.
    pub fn new(flavour: Flavour) -> Result<Self> {
        let (place, name, drivers) = match flavour {
            Flavour::Cloud => (&CLOUD, "cloud.img", initrds::CLOUD_DRIVERS),
            Flavour::Standard => {
                (&STANDARD, "standard.img", initrds::STANDARD_DRIVERS)
            }
        };
        let kernel = kernels::debian(flavour)?;
        let initrd = match place.get() {
            Some(initrd) => initrd.clone(),
            None => {
                let arguments = initrds::modules(&kernel.modules, drivers);
                let initrd = initrds::build(name, &arguments)?;
                // Whoever builds it at the same time builds the same.
                place.get_or_init(|| initrd).clone()
            }
        };
        Ok(Self::of(kernel, initrd))
    }

    /// Somebody else's initrd with the agent behind it, for the cloud kernel.
    /// On its own it runs `script` by busybox, as initramfs-tools would;
    /// `name` is what the file is called in `target/initrds`.
    ///
    /// # Errors
    ///
    /// As [`Self::new`].
    pub fn behind(script: &str, name: &str) -> Result<Self> {
        let kernel = kernels::debian(Flavour::Cloud)?;
        let folder = tempfile::tempdir()?;
        let base = foreign_initrd(folder.path(), script)?;
        let base = base.to_str().context("a path that is not text")?;
        let drivers = initrds::CLOUD_DRIVERS;
        let mut arguments = initrds::modules(&kernel.modules, drivers);
        arguments.extend(["--append-to", base]);
        let initrd = initrds::build(name, &arguments)?;
        Ok(Self::of(kernel, initrd))
    }

    /// A machine that only runs `script` by busybox, on the cloud kernel; its
    /// initrd lies in `folder`.
    ///
    /// # Errors
    ///
    /// As [`Self::new`].
    pub fn of_script(script: &str, folder: &Path) -> Result<Self> {
        let kernel = kernels::debian(Flavour::Cloud)?;
        Ok(Self::of(kernel, foreign_initrd(folder, script)?))
    }

    fn of(kernel: Kernel, initrd: PathBuf) -> Self {
        Self {
            kernel,
            initrd,
            console: "console=ttyS0,115200n8",
            words: QUIET.to_owned(),
        }
    }

    /// More words for the kernel's command line; of words that contradict
    /// each other the last one counts.
    #[must_use]
    pub fn with(mut self, words: &str) -> Self {
        self.words.push(' ');
        self.words.push_str(words);
        self
    }

    /// Everything that the kernel says goes to the console, as on a machine
    /// whose owner wanted it so.
    #[must_use]
    pub fn noisy(mut self) -> Self {
        self.words = "loglevel=7 ignore_loglevel printk.devkmsg=on panic=60 \
                      e2wire.quiet=0"
            .to_owned();
        self
    }

    /// The kernel has no console at all.
    #[must_use]
    pub fn without_console(mut self) -> Self {
        self.console = "console=ttyS31";
        self
    }

    /// A machine of it, to be given disks and ports.
    #[must_use]
    pub fn builder(&self) -> Builder {
        let line = format!("{} {EMULATED} {}", self.console, self.words);
        Builder::new(&self.kernel.image, &self.initrd, &line)
    }
}

// Built once in a process.
static CLOUD: OnceLock<PathBuf> = OnceLock::new();
static STANDARD: OnceLock<PathBuf> = OnceLock::new();

/// An initrd that boots into a shell script.
fn foreign_initrd(folder: &Path, script: &str) -> Result<PathBuf> {
    let tree = folder.join("tree");
    for name in ["dev", "proc", "sys", "mnt"] {
        fs::create_dir_all(tree.join(name))?;
    }
    let busybox = tools::command("busybox");
    fs::copy(busybox.get_program(), tree.join("busybox"))?;
    let init = tree.join("init");
    fs::write(&init, format!("#!/busybox sh\n{script}\n"))?;
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755))?;
    let archive = tools::command("sh")
        .current_dir(&tree)
        .args(["-c", "find . | cpio --quiet -o -H newc | gzip"])
        .output()?;
    ensure!(archive.status.success(), "cpio failed: {archive:?}");
    let path = folder.join("initrd.img");
    fs::write(&path, archive.stdout)?;
    Ok(path)
}
