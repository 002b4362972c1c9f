//! The programs of others that tests, demo and bench run, and the Debian
//! packages that bring them. The only list of them.

use std::path::PathBuf;
use std::process::Command;

/// A program and where it comes from.
#[derive(Clone, Copy, Debug)]
pub struct Tool {
    /// What is run.
    pub program: &'static str,
    /// The Debian package that holds it.
    pub package: &'static str,
}

const fn tool(program: &'static str, package: &'static str) -> Tool {
    Tool { program, package }
}

/// All that the tests need beyond Rust and a C compiler.
pub const TOOLS: &[Tool] = &[
    tool("mke2fs", "e2fsprogs"),
    tool("debugfs", "e2fsprogs"),
    tool("dumpe2fs", "e2fsprogs"),
    tool("e2fsck", "e2fsprogs"),
    tool("e2image", "e2fsprogs"),
    tool("resize2fs", "e2fsprogs"),
    tool("tune2fs", "e2fsprogs"),
    tool("qemu-img", "qemu-utils"),
    tool("qemu-nbd", "qemu-utils"),
    tool("qemu-system-x86_64", "qemu-system-x86"),
    tool("ddrescuelog", "gddrescue"),
    tool("objcopy", "binutils"),
    tool("dpkg-deb", "dpkg"),
    tool("apt-get", "apt"),
    tool("apt-cache", "apt"),
    tool("setpriv", "util-linux"),
    tool("busybox", "busybox-static"),
    tool("cpio", "cpio"),
    tool("stty", "coreutils"),
    tool("sh", "dash"),
    tool("mkswap", "util-linux"),
    tool("blkid", "util-linux"),
    tool("losetup", "mount"),
    tool("mount", "mount"),
    tool("umount", "mount"),
    tool("swapon", "mount"),
    tool("swapoff", "mount"),
    tool("blockdev", "util-linux"),
    tool("qemu-io", "qemu-utils"),
    tool("strace", "strace"),
    tool("sfdisk", "fdisk"),
    tool("bash", "bash"),
    tool("jq", "jq"),
    tool("zstd", "zstd"),
    tool("man", "man-db"),
];

/// What `cargo xtask bench` needs besides.
pub const BENCH_TOOLS: &[Tool] =
    &[tool("sync", "coreutils"), tool("cp", "coreutils"), tool("ncat", "ncat")];

/// Where `program` lies. Administrators' programs count even when the
/// caller's search path leaves them out.
#[must_use]
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from))
        .map(|directory| directory.join(program))
        .find(|candidate| candidate.is_file())
}

/// A command that runs `program` the same way on every machine: fixed clock
/// and locale, and no configuration of this machine.
///
/// # Panics
///
/// When it is not installed; the message names the package.
#[must_use]
pub fn command(program: &str) -> Command {
    let path = find(program).unwrap_or_else(|| {
        let package = TOOLS
            .iter()
            .chain(BENCH_TOOLS)
            .find(|tool| tool.program == program)
            .map_or("?", |tool| tool.package);
        panic!(
            "{program} is not installed: apt-get install {package} \
             (or run `cargo xtask test`)"
        )
    });
    let mut command = Command::new(path);
    command
        .env("E2FSPROGS_FAKE_TIME", "1700000000")
        .env("E2FSCK_TIME", "1700000000")
        .env("LC_ALL", "C")
        .env("TZ", "UTC")
        .env("MKE2FS_CONFIG", "/dev/null");
    command
}

/// A file as a block device of its own, by the kernel's loop driver; given
/// back with this value.
#[derive(Debug)]
pub struct LoopDevice {
    path: String,
}

impl LoopDevice {
    /// Of `file`.
    ///
    /// # Panics
    ///
    /// When there is none to be had: it takes root.
    #[must_use]
    pub fn new(file: &std::path::Path) -> Self {
        let mut command = command("losetup");
        command.args(["--find", "--show"]).arg(file);
        // Another process may take the free one that was found.
        for _ in 0..20 {
            let output = command.output().expect("losetup runs");
            let said = String::from_utf8_lossy(&output.stdout);
            if output.status.success() {
                let device = Self { path: said.trim().to_owned() };
                // A number that was used before remembers that it was
                // read-only.
                device.let_write();
                return device;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        panic!("no loop device for {}: run as root", file.display());
    }

    fn let_write(&self) {
        let mut command = command("blockdev");
        let _ = command.args(["--setrw", &self.path]).status();
    }

    /// Its name, `/dev/loop7`.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        self.let_write();
        let mut command = command("losetup");
        let _ = command.args(["--detach", &self.path]).status();
    }
}

/// Whether we run as root.
#[must_use]
pub fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;

    std::fs::metadata("/proc/self").is_ok_and(|self_| self_.uid() == 0)
}
