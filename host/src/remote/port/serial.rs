//! `serial:PATH`: a serial port of this machine, 8N1, alone on it.
//!
//! The crate serialport sets the line up; bytes move through a descriptor of
//! our own. Its `read` drops what a peer sent just before it hung up, and its
//! `write` ignores the timeout: both go away with a descriptor that never
//! blocks and is read to the end.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{OFlags, major};
use rustix::io::Errno;
use rustix::termios::ioctl_tiocexcl;
use serialport::{DataBits, FlowControl, Parity, StopBits, TTYPort};

use crate::error::{Error, ErrorKind, Result};
use crate::remote::port::{Nature, Patience, Port, Wire, no_link};
use crate::remote::target::Flow;

/// Device numbers of pseudo-terminals (Linux Documentation/admin-guide/
/// devices.txt): whoever made one keeps it open, which takes nothing from us.
const PTY_MAJORS: std::ops::RangeInclusive<u32> = 136..=143;

/// A serial port.
#[derive(Debug)]
pub(super) struct SerialPort {
    path: PathBuf,
    baud: u32,
    flow: Flow,
}

impl SerialPort {
    pub(super) const fn new(path: PathBuf, baud: u32, flow: Flow) -> Self {
        Self { path, baud, flow }
    }

    fn set_up(&self) -> Result<()> {
        let Some(path) = self.path.to_str() else {
            return Err(no_link(format!(
                "{} is no name that can be opened",
                self.path.display()
            )));
        };
        let settings = serialport::new(path, self.baud)
            .data_bits(DataBits::Eight)
            .parity(Parity::None)
            .stop_bits(StopBits::One)
            .flow_control(match self.flow {
                Flow::None => FlowControl::None,
                Flow::RtsCts => FlowControl::Hardware,
            })
            .exclusive(false);
        // What was set stays set while a descriptor is open: ours is.
        TTYPort::open(&settings).map(drop).map_err(|error| {
            no_link(format!(
                "{path} cannot be set to {} baud, 8N1",
                self.baud
            ))
            .because(error)
            .hint(
                "is there a UART behind this name? `dmesg | grep tty` lists \
                 those that are; not every adapter reaches every speed",
            )
        })
    }

    fn busy(&self) -> Error {
        let path = self.path.display();
        match holder(&self.path) {
            Some(holder) => no_link(format!("{path} is taken by {holder}"))
                .hint(format!(
                    "end that program (two readers steal each other's \
                     bytes): `kill {}`, or `systemctl stop \
                     serial-getty@NAME` for a getty",
                    holder.pid
                )),
            None => no_link(format!("{path} is taken by another program"))
                .hint(format!("`fuser -v {path}` as root names it")),
        }
    }

    fn cannot_open(&self, error: io::Error) -> Error {
        let path = self.path.display();
        if error.raw_os_error() == Some(Errno::BUSY.raw_os_error()) {
            return self.busy();
        }
        let hint = match error.kind() {
            io::ErrorKind::NotFound => match present() {
                ports if ports.is_empty() => {
                    "this machine has no serial port now: is the adapter \
                     plugged in?"
                        .to_owned()
                }
                ports => format!("there are: {}", ports.join(", ")),
            },
            io::ErrorKind::PermissionDenied => denied(&self.path),
            _ => "is there a UART behind this name? `dmesg | grep tty` lists \
                  those that are"
                .to_owned(),
        };
        no_link(format!("cannot open {path}")).because(error).hint(hint)
    }

    fn lock(&self, file: &File) -> Result<()> {
        match file.try_lock() {
            Ok(()) => Ok(()),
            Err(TryLockError::WouldBlock) => Err(self.busy()),
            Err(TryLockError::Error(error)) => {
                Err(no_link(format!("cannot lock {}", self.path.display()))
                    .because(error))
            }
        }
    }
}

impl Port for SerialPort {
    fn name(&self) -> String {
        format!("serial:{}", self.path.display())
    }

    fn nature(&self) -> Nature {
        Nature { baud: Some(self.baud), console: true, listens: false }
    }

    fn open(&mut self, patience: &Patience<'_>) -> Result<Wire> {
        patience.left()?;
        // Without O_NONBLOCK the open waits for a carrier.
        let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(flags.bits().cast_signed())
            .open(&self.path)
            .map_err(|error| self.cannot_open(error))?;
        let metadata =
            file.metadata().map_err(|error| self.cannot_open(error))?;
        if !metadata.file_type().is_char_device() {
            return Err(Error::new(
                ErrorKind::Usage,
                format!("{} is no serial port", self.path.display()),
            )
            .hint("a file that holds a filesystem needs no --target"));
        }
        self.lock(&file)?;
        if !PTY_MAJORS.contains(&major(metadata.rdev()))
            && holder(&self.path).is_some()
        {
            return Err(self.busy());
        }
        // The crate insists on a lock of its own.
        file.unlock().map_err(|error| self.cannot_open(error))?;
        self.set_up()?;
        self.lock(&file)?;
        // Nobody but root opens it while we have it. A pseudo-terminal of
        // a test may refuse.
        let _ = ioctl_tiocexcl(&file);
        Wire::duplex(file.into(), None, Box::new(()))
    }
}

/// A process that has a port open.
struct Holder {
    pid: u32,
    name: String,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (process {})", self.name, self.pid)
    }
}

/// Who else has `path` open, as far as this user may see it.
fn holder(path: &Path) -> Option<Holder> {
    let device = fs::metadata(path).ok()?.rdev();
    let processes = fs::read_dir("/proc").ok()?;
    processes.flatten().find_map(|process| {
        let pid: u32 = process.file_name().to_str()?.parse().ok()?;
        if pid == std::process::id() {
            return None;
        }
        let open = fs::read_dir(process.path().join("fd")).ok()?;
        open.flatten()
            .any(|fd| {
                fs::metadata(fd.path()).is_ok_and(|metadata| {
                    metadata.file_type().is_char_device()
                        && metadata.rdev() == device
                })
            })
            .then(|| Holder { pid, name: name_of(&process.path()) })
    })
}

fn name_of(process: &Path) -> String {
    fs::read_to_string(process.join("comm"))
        .map_or_else(|_| "?".to_owned(), |name| name.trim_end().to_owned())
}

/// What to do about a port that may not be opened.
fn denied(path: &Path) -> String {
    let Ok(metadata) = fs::metadata(path) else {
        return "run e2wire as a user who may open it".to_owned();
    };
    let group = group_name(metadata.gid());
    // Write permission of the group, inode(7).
    if metadata.mode() & 0o020 == 0 || metadata.gid() == 0 {
        return "only root may open it".to_owned();
    }
    format!(
        "group {group} may open it: `sudo usermod -aG {group} $USER`, then \
         log in again"
    )
}

fn group_name(gid: u32) -> String {
    // group(5): name, password, number, members.
    fs::read_to_string("/etc/group")
        .unwrap_or_default()
        .lines()
        .find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            (fields.nth(1)?.parse() == Ok(gid)).then(|| name.to_owned())
        })
        .unwrap_or_else(|| gid.to_string())
}

/// The serial ports of this machine that have hardware behind them.
fn present() -> Vec<String> {
    let Ok(terminals) = fs::read_dir("/sys/class/tty") else {
        return Vec::new();
    };
    let mut ports: Vec<String> = terminals
        .flatten()
        .filter(|terminal| terminal.path().join("device").exists())
        .filter(|terminal| {
            // ttyS0 to ttyS3 exist on every machine; type 0 is no UART.
            fs::read_to_string(terminal.path().join("type"))
                .map_or(true, |kind| kind.trim() != "0")
        })
        .filter_map(|terminal| {
            let name = terminal.file_name();
            Some(format!("/dev/{}", name.to_str()?))
        })
        .collect();
    ports.sort();
    ports
}
