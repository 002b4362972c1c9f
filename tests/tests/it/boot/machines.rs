//! What the boot tests' machines are made of.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use e2wire_tests::kernels::{self, Flavour, Kernel};
use e2wire_tests::qemu::{Builder, Bus, Disk, Machine, Port, Qmp, wait_for};
use e2wire_tests::wire::{Device, Greeting, Wire};
use e2wire_tests::{initrds, tools};

use super::{BOOT, SOON};

/// A kernel, an initrd with drivers for all that machines have, and a
/// command line.
pub(super) struct Scene {
    kernel: Kernel,
    initrd: PathBuf,
    console: &'static str,
    words: String,
}

impl Scene {
    pub(super) fn new(flavour: Flavour) -> Self {
        static CLOUD: OnceLock<PathBuf> = OnceLock::new();
        static STANDARD: OnceLock<PathBuf> = OnceLock::new();
        let kernel = kernels::debian(flavour).unwrap();
        let (cell, name, drivers) = match flavour {
            Flavour::Cloud => (&CLOUD, "cloud.img", initrds::CLOUD_DRIVERS),
            Flavour::Standard => {
                (&STANDARD, "standard.img", initrds::STANDARD_DRIVERS)
            }
        };
        let initrd = cell.get_or_init(|| {
            let arguments = initrds::modules(&kernel.modules, drivers);
            initrds::build(name, &arguments).unwrap()
        });
        Self {
            kernel,
            initrd: initrd.clone(),
            console: "console=ttyS0,115200n8",
            // On a busy host the emulated timer may be late, and the kernel
            // would give up on it.
            words: "no_timer_check loglevel=0 sysctl.kernel.sysrq=0 panic=60"
                .to_owned(),
        }
    }

    /// More words for the kernel's command line.
    pub(super) fn with(mut self, words: &str) -> Self {
        self.words = format!("{} {words}", self.words);
        self
    }

    /// Everything that the kernel says goes to the console, as on a machine
    /// whose owner wanted it so.
    pub(super) fn noisy(mut self) -> Self {
        self.words = "loglevel=7 ignore_loglevel printk.devkmsg=on panic=60 \
             e2wire.quiet=0"
            .to_owned();
        self
    }

    /// The kernel has no console at all.
    pub(super) fn without_console(mut self) -> Self {
        self.console = "console=ttyS31";
        self
    }

    pub(super) fn builder(&self) -> Builder {
        let line = format!("{} {}", self.console, self.words);
        Builder::new(&self.kernel.image, &self.initrd, &line)
    }
}

/// What ext4 is made of, since the harness leaves out all configuration.
const FEATURES: &str = "has_journal,extent,dir_index,filetype,64bit,\
    metadata_csum,flex_bg,sparse_super";

/// A filesystem with files in it.
pub(super) fn filesystem() -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(8 << 20).unwrap();
    let output = tools::command("mke2fs")
        .args(["-q", "-O", FEATURES, "-I", "256", "-d"])
        .arg(e2wire_tests::root().join("protocol/src"))
        .arg(file.path())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "mke2fs: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    file
}

/// A host at serial port `index`.
pub(super) fn at_port(machine: &Machine, index: usize) -> Wire {
    let target = machine.serial_target(index).unwrap();
    let path = target.strip_prefix("unix:").expect("a socket");
    Wire::unix(path).unwrap()
}

/// Waits for the machine's agent.
pub(super) fn hello(wire: &mut Wire, machine: &mut Machine) -> Greeting {
    let greeting = wire.hello(BOOT);
    assert!(machine.runs().unwrap(), "the machine has ended");
    greeting.unwrap()
}

/// A host at the machine's TCP port. QEMU accepts connections before the
/// machine does, so only an answer tells.
pub(super) fn over_tcp(machine: &mut Machine) -> Wire {
    let port = machine.forwarded().unwrap();
    wait_for("the agent on TCP", BOOT, || {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        let mut wire = Wire::tcp(stream)?;
        Ok(wire.hello(Duration::from_secs(2)).ok().map(|_| wire))
    })
    .unwrap()
}

/// A host that was called.
pub(super) fn accept(listener: &TcpListener, limit: Duration) -> Result<Wire> {
    listener.set_nonblocking(true)?;
    let stream = wait_for("a call", limit, || Ok(listener.accept().ok()))?.0;
    stream.set_nonblocking(false)?;
    Wire::tcp(stream)
}

/// The disk with this serial number. Drivers may still be looking for it.
pub(super) fn device(wire: &mut Wire, serial: &str) -> Device {
    wait_for(serial, SOON, || {
        let devices = wire.devices()?;
        Ok(devices.into_iter().find(|device| device.serial == serial))
    })
    .unwrap()
}

/// Makes the kernel say something, again and again: an interrupt that nobody
/// can explain is told of at the highest level.
pub(super) struct Noise {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<u32>>,
}

impl Noise {
    pub(super) fn start(mut monitor: Qmp) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut count = 0;
            while !stopped.load(Ordering::Relaxed) {
                monitor.execute("inject-nmi", &serde_json::json!({}))?;
                count += 1;
                std::thread::sleep(Duration::from_millis(40));
            }
            Ok(count)
        });
        Self { stop, thread }
    }

    /// How many messages were forced.
    pub(super) fn stop(self) -> Result<u32> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the thread does not panic")
    }
}

/// An initrd of somebody else's, which boots into a shell script, as
/// initramfs-tools would write it.
fn foreign_initrd(folder: &Path, script: &str) -> PathBuf {
    let tree = folder.join("tree");
    fs::create_dir_all(tree.join("dev")).unwrap();
    fs::create_dir_all(tree.join("proc")).unwrap();
    let busybox = tools::find("busybox").expect(
        "busybox is not installed: apt-get install busybox-static (or run \
         `cargo xtask test`)",
    );
    fs::copy(busybox, tree.join("busybox")).unwrap();
    let init = tree.join("init");
    fs::write(&init, format!("#!/busybox sh\n{script}\n")).unwrap();
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&init, executable).unwrap();
    let archive = tools::command("sh")
        .current_dir(&tree)
        .args(["-c", "find . | cpio --quiet -o -H newc | gzip"])
        .output()
        .unwrap();
    assert!(archive.status.success());
    let path = folder.join("initrd.img");
    fs::write(&path, archive.stdout).unwrap();
    path
}

/// Somebody else's initrd with the agent behind it.
pub(super) fn segment() -> (Kernel, PathBuf) {
    let kernel = kernels::debian(Flavour::Cloud).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let script = "echo A-NORMAL-BOOT; exec /busybox sleep 1000";
    let base = foreign_initrd(folder.path(), script);
    let base = base.to_str().unwrap();
    let mut arguments =
        initrds::modules(&kernel.modules, initrds::CLOUD_DRIVERS);
    arguments.extend(["--append-to", base]);
    let initrd = initrds::build("segment.img", &arguments).unwrap();
    (kernel, initrd)
}

/// A machine with 96 MiB of memory whose shell runs the agent on the second
/// port, and what tells the most memory that the agent has used, in KiB.
pub(super) fn in_little_memory(
    disk: &Path,
) -> (Machine, impl Fn(&mut Machine) -> u64) {
    let kernel = kernels::debian(Flavour::Cloud).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let script = "/busybox mount -t proc proc /proc\n\
        /busybox mkdir /sys\n\
        /busybox mount -t sysfs sysfs /sys\n\
        /busybox mount -t devtmpfs devtmpfs /dev\n\
        /e2wire-agent --serial /dev/ttyS1,115200 --insecure &\n\
        while /busybox sleep 1; do\n\
        /busybox grep VmHWM /proc/$!/status; done";
    let base = foreign_initrd(folder.path(), script);
    let base = base.to_str().unwrap();
    let initrd = initrds::build(
        "little.img",
        &["--append-to", base, "--compress", "gzip"],
    )
    .unwrap();
    let line = "console=ttyS0,115200n8 no_timer_check loglevel=0 panic=60";
    let machine = Builder::new(&kernel.image, &initrd, line)
        .memory_mib(96)
        .port(Port::Socket)
        .port(Port::Socket)
        .disk(Disk::file(Bus::Nvme, disk, "NVME0"))
        .start()
        .unwrap();
    let peak = |machine: &mut Machine| {
        // The line that is printed after all that was asked for.
        let before = machine.console(0).matches("VmHWM").count();
        let start = Instant::now();
        loop {
            let console = machine.console(0);
            if console.matches("VmHWM").count() > before + 1 {
                return last_peak(&console).unwrap();
            }
            assert!(start.elapsed() < SOON, "no VmHWM: {console}");
            std::thread::sleep(Duration::from_millis(100));
        }
    };
    (machine, peak)
}

fn last_peak(console: &str) -> Result<u64> {
    console
        .lines()
        .rev()
        .skip(1)
        .find_map(|line| line.trim().strip_prefix("VmHWM:"))
        .and_then(|rest| rest.trim().strip_suffix(" kB"))
        .context("no peak on the console")?
        .parse()
        .context("not a number")
}
