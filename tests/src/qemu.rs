//! Whole machines, emulated by QEMU without any help of the processor (so
//! that they run everywhere, inside of virtual machines too).
//!
//! A [`Machine`] ends with the value that stands for it, and every wait has
//! an end. If a test fails while it runs, the consoles' last lines are
//! printed with the failure.

mod disk;
mod qmp;

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::json;

pub use disk::{Bus, Disk, NbdServer};
pub use qmp::Qmp;

use crate::tools;

/// How a serial port of the machine appears here.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Port {
    /// A UNIX socket.
    Socket,
    /// A terminal, as a USB adapter would be.
    Terminal,
}

/// What to build a machine of.
#[derive(Clone, Debug)]
pub struct Builder {
    kernel: PathBuf,
    initrd: PathBuf,
    command_line: String,
    memory_mib: u32,
    ports: Vec<Port>,
    disks: Vec<Disk>,
    forwarded: Option<u16>,
    network: bool,
    name_server: Option<Ipv4Addr>,
    restarts: bool,
}

impl Builder {
    /// A machine with 256 MiB of memory, no disk, no port, no network.
    #[must_use]
    pub fn new(kernel: &Path, initrd: &Path, command_line: &str) -> Self {
        Self {
            kernel: kernel.to_owned(),
            initrd: initrd.to_owned(),
            command_line: command_line.to_owned(),
            memory_mib: 256,
            ports: Vec::new(),
            disks: Vec::new(),
            forwarded: None,
            network: false,
            name_server: None,
            restarts: false,
        }
    }

    /// So much memory.
    #[must_use]
    pub fn memory_mib(mut self, memory_mib: u32) -> Self {
        self.memory_mib = memory_mib;
        self
    }

    /// One more serial port: the first is `ttyS0`.
    #[must_use]
    pub fn port(mut self, port: Port) -> Self {
        self.ports.push(port);
        self
    }

    /// One more disk.
    #[must_use]
    pub fn disk(mut self, disk: Disk) -> Self {
        self.disks.push(disk);
        self
    }

    /// A virtio network card, on a network with a DHCP server. From there,
    /// this machine is 10.0.2.2.
    #[must_use]
    pub fn network(mut self) -> Self {
        self.network = true;
        self
    }

    /// The same, and the machine's TCP port `port` can be reached at
    /// [`Machine::forwarded`].
    #[must_use]
    pub fn forward(mut self, port: u16) -> Self {
        self.forwarded = Some(port);
        self.network()
    }

    /// The same, and the network's name server has this address: one more
    /// that answers there.
    #[must_use]
    pub fn name_server(mut self, address: Ipv4Addr) -> Self {
        self.name_server = Some(address);
        self.network()
    }

    /// A reset starts the machine again; otherwise it ends it.
    #[must_use]
    pub fn restarts(mut self) -> Self {
        self.restarts = true;
        self
    }

    /// Switches it on.
    ///
    /// # Errors
    ///
    /// When QEMU (Debian package qemu-system-x86) does not start.
    pub fn start(&self) -> Result<Machine> {
        let turn = Turn::take();
        let folder = tempfile::Builder::new().prefix("e2wire-vm").tempdir()?;
        let forwarded = self.forwarded.map(|_| free_port()).transpose()?;
        let mut command = self.command(folder.path(), forwarded)?;
        let errors = fs::File::create(folder.path().join("qemu.log"))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(errors.try_clone()?)
            .stderr(errors)
            .spawn()
            .context("QEMU cannot be run")?;
        let mut machine = Machine {
            child,
            folder,
            ports: self.ports.clone(),
            forwarded,
            _turn: turn,
        };
        let monitor = machine.path("qmp");
        let connected = wait_for("QEMU", Duration::from_secs(60), || {
            machine.check_runs()?;
            Ok(Qmp::connect(&monitor).ok())
        });
        connected.with_context(|| machine.log("qemu.log"))?;
        Ok(machine)
    }

    fn command(
        &self,
        folder: &Path,
        forwarded: Option<u16>,
    ) -> Result<Command> {
        let qemu = tools::command("qemu-system-x86_64");
        // Ends with us, also when we are killed.
        let mut command = tools::command("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(qemu.get_program());
        command
            .args(["-nodefaults", "-no-user-config", "-display", "none"])
            .args(["-machine", "q35,accel=tcg"])
            .args(["-m", &format!("{}M", self.memory_mib)])
            .args(["-rtc", "base=utc"])
            .arg("-kernel")
            .arg(&self.kernel)
            .arg("-initrd")
            .arg(&self.initrd)
            .args(["-append", &self.command_line]);
        if !self.restarts {
            command.arg("-no-reboot");
        }
        let monitor = option_value(&folder.join("qmp"))?;
        command.args(["-qmp", &format!("unix:{monitor},server=on,wait=off")]);
        for (index, port) in self.ports.iter().enumerate() {
            let path = option_value(&folder.join(format!("ttyS{index}")))?;
            let kind = match port {
                Port::Socket => {
                    format!("socket,path={path},server=on,wait=off")
                }
                Port::Terminal => "pty".to_owned(),
            };
            let chardev = format!(
                "{kind},id=ttyS{index},logfile={path}.log,logappend=off"
            );
            command
                .args(["-chardev", &chardev])
                .args(["-serial", &format!("chardev:ttyS{index}")]);
        }
        for (index, disk) in self.disks.iter().enumerate() {
            command.args(disk.arguments(index));
        }
        if self.network {
            let mut user = "user,id=net0".to_owned();
            if let (Some(outer), Some(inner)) = (forwarded, self.forwarded) {
                user.push_str(&format!(
                    ",hostfwd=tcp:127.0.0.1:{outer}-:{inner}"
                ));
            }
            if let Some(address) = self.name_server {
                user.push_str(&format!(",dns={address}"));
            }
            command
                .args(["-netdev", &user])
                .args(["-device", "virtio-net-pci,netdev=net0,romfile="]);
        }
        Ok(command)
    }
}

/// A running machine.
#[derive(Debug)]
pub struct Machine {
    child: Child,
    folder: tempfile::TempDir,
    ports: Vec<Port>,
    forwarded: Option<u16>,
    _turn: Turn,
}

impl Machine {
    /// What `e2wire -t` takes to reach serial port `index`.
    ///
    /// # Errors
    ///
    /// When QEMU does not tell.
    pub fn serial_target(&self, index: usize) -> Result<String> {
        let kind = self.ports.get(index).context("no such serial port")?;
        match kind {
            Port::Socket => {
                let path = self.path(&format!("ttyS{index}"));
                Ok(format!("unix:{}", path.display()))
            }
            Port::Terminal => {
                let list =
                    self.monitor()?.execute("query-chardev", &json!({}))?;
                let label = format!("ttyS{index}");
                let terminal = list
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter(|port| port["label"] == *label)
                    .find_map(|port| {
                        port["filename"].as_str()?.strip_prefix("pty:")
                    })
                    .context("QEMU does not name the terminal")?;
                Ok(format!("serial:{terminal}"))
            }
        }
    }

    /// The local TCP port that leads to the machine's.
    ///
    /// # Errors
    ///
    /// When none was asked for.
    pub fn forwarded(&self) -> Result<u16> {
        self.forwarded.context("no TCP port leads to this machine")
    }

    /// All that serial port `index` has said so far, since it was switched
    /// on; what is not text is replaced.
    #[must_use]
    pub fn console(&self, index: usize) -> String {
        self.log(&format!("ttyS{index}.log"))
    }

    /// Where all is kept that serial port `index` says.
    #[must_use]
    pub fn log_path(&self, index: usize) -> PathBuf {
        self.path(&format!("ttyS{index}.log"))
    }

    /// Waits until serial port `index` has said `text`.
    ///
    /// # Errors
    ///
    /// When it does not in time, or when the machine ends.
    pub fn wait_for_text(
        &mut self,
        index: usize,
        text: &str,
        limit: Duration,
    ) -> Result<()> {
        let what = format!("{text:?} on serial port {index}");
        wait_for(&what, limit, || {
            if self.console(index).contains(text) {
                return Ok(Some(()));
            }
            self.check_runs()?;
            Ok(None)
        })
    }

    /// Waits until the machine has switched itself off (or, unless it
    /// restarts, has reset itself).
    ///
    /// # Errors
    ///
    /// When it does not in time.
    pub fn wait_for_end(&mut self, limit: Duration) -> Result<ExitStatus> {
        wait_for("the machine's end", limit, || Ok(self.child.try_wait()?))
    }

    /// Presses the reset button.
    ///
    /// # Errors
    ///
    /// When QEMU refuses.
    pub fn reset(&self) -> Result<()> {
        self.monitor()?.execute("system_reset", &json!({})).map(drop)
    }

    /// Stops the processor, as if time stood still in the machine.
    ///
    /// # Errors
    ///
    /// When QEMU refuses.
    pub fn pause(&self) -> Result<()> {
        self.monitor()?.execute("stop", &json!({})).map(drop)
    }

    /// Lets it run again.
    ///
    /// # Errors
    ///
    /// When QEMU refuses.
    pub fn go_on(&self) -> Result<()> {
        self.monitor()?.execute("cont", &json!({})).map(drop)
    }

    /// Holds the line of serial port `index` down for a moment (BREAK).
    ///
    /// # Errors
    ///
    /// When QEMU refuses.
    pub fn send_break(&self, index: usize) -> Result<()> {
        let port = json!({"id": format!("ttyS{index}")});
        self.monitor()?.execute("chardev-send-break", &port).map(drop)
    }

    /// Whether the machine has not ended.
    ///
    /// # Errors
    ///
    /// When the system cannot tell.
    pub fn runs(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// QEMU's own console. One at a time: another one waits.
    ///
    /// # Errors
    ///
    /// When QEMU does not answer.
    pub fn monitor(&self) -> Result<Qmp> {
        Qmp::connect(&self.path("qmp"))
    }

    /// Waits for QEMU's end, however long that takes. For people.
    ///
    /// # Errors
    ///
    /// When the system cannot tell.
    pub fn join(mut self) -> Result<ExitStatus> {
        Ok(self.child.wait()?)
    }

    fn check_runs(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("the machine has ended: {status}"),
        }
    }

    #[expect(clippy::print_stderr, reason = "belongs to a test's failure")]
    fn show_consoles(&self) {
        let ports = (0..self.ports.len()).map(|i| format!("ttyS{i}.log"));
        for name in ports.chain(["qemu.log".to_owned()]) {
            let text = self.log(&name);
            let lines: Vec<&str> = text.lines().collect();
            let skipped = lines.len().saturating_sub(TAIL_LINES);
            eprintln!("--- {name}, without its first {skipped} lines");
            for line in &lines[skipped..] {
                eprintln!("{}", line.escape_debug());
            }
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn log(&self, name: &str) -> String {
        let bytes = fs::read(self.path(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// How much of a console is shown with a failure.
const TAIL_LINES: usize = 40;

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            self.show_consoles();
        }
    }
}

/// Calls `poll` until it returns something.
///
/// # Errors
///
/// What `poll` says, or that the time is over.
pub fn wait_for<T>(
    what: &str,
    limit: Duration,
    mut poll: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        let failed = || format!("waiting for {what}");
        if let Some(value) = poll().with_context(failed)? {
            return Ok(value);
        }
        if start.elapsed() > limit {
            bail!("waited {} s for {what}, in vain", limit.as_secs());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A TCP port of this machine that nobody uses right now.
///
/// # Errors
///
/// When there is none.
pub fn free_port() -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    Ok(listener.local_addr()?.port())
}

/// A path inside one of QEMU's comma-separated options, where a comma is
/// doubled.
fn option_value(path: &Path) -> Result<String> {
    let text = path.to_str().context("a path that is not text")?;
    Ok(text.replace(',', ",,"))
}

/// How many machines run at once: each keeps one processor busy.
const MACHINES_MAX: usize = 2;

/// The right to run one machine.
#[derive(Debug)]
struct Turn;

static RUNNING: Mutex<usize> = Mutex::new(0);
static ENDED: Condvar = Condvar::new();

fn running() -> MutexGuard<'static, usize> {
    // A count is right whatever failed meanwhile.
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Turn {
    fn take() -> Self {
        let mut count = ENDED
            .wait_while(running(), |count| *count >= MACHINES_MAX)
            .unwrap_or_else(PoisonError::into_inner);
        *count += 1;
        Self
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *running() -= 1;
        ENDED.notify_one();
    }
}
