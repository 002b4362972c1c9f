//! Disks of a machine: how it sees them, and what lies behind them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::wait_for;
use crate::tools;

/// The controller that a machine finds a disk behind.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Bus {
    /// `/dev/nvme0n1`.
    Nvme,
    /// `/dev/vda`.
    Virtio,
    /// `/dev/sda`, behind the SATA controller of the chipset.
    Ahci,
}

/// A disk.
#[derive(Clone, Debug)]
pub struct Disk {
    pub(super) bus: Bus,
    pub(super) backing: Backing,
    pub(super) serial: String,
}

#[derive(Clone, Debug)]
pub(super) enum Backing {
    File { path: PathBuf, bad_sectors: Vec<u64> },
    Nbd { socket: PathBuf },
}

impl Disk {
    /// A disk with the content of a file; the machine may write to it.
    #[must_use]
    pub fn file(bus: Bus, path: &Path, serial: &str) -> Self {
        let backing =
            Backing::File { path: path.to_owned(), bad_sectors: vec![] };
        Self { bus, backing, serial: serial.to_owned() }
    }

    /// The same, but these sectors (of 512 bytes) cannot be read.
    #[must_use]
    pub fn with_bad_sectors(mut self, sectors: &[u64]) -> Self {
        if let Backing::File { bad_sectors, .. } = &mut self.backing {
            bad_sectors.extend(sectors);
        }
        self
    }

    /// A disk that an NBD server provides.
    #[must_use]
    pub fn nbd(bus: Bus, server: &NbdServer, serial: &str) -> Self {
        let backing = Backing::Nbd { socket: server.socket.clone() };
        Self { bus, backing, serial: serial.to_owned() }
    }

    /// QEMU's options for disk number `index`.
    pub(super) fn arguments(&self, index: usize) -> Vec<String> {
        let node = format!("disk{index}");
        let protocol = match &self.backing {
            Backing::File { path, bad_sectors } => {
                let file = json!({"driver": "file", "filename": path});
                if bad_sectors.is_empty() {
                    file
                } else {
                    with_read_errors(&file, bad_sectors)
                }
            }
            Backing::Nbd { socket } => json!({
                "driver": "nbd",
                "server": {"type": "unix", "path": socket},
            }),
        };
        let device = match self.bus {
            Bus::Nvme => "nvme",
            Bus::Virtio => "virtio-blk-pci",
            Bus::Ahci => "ide-hd",
        };
        let serial = &self.serial;
        let mut device = format!("{device},drive={node},serial={serial}");
        if self.bus == Bus::Ahci {
            device.push_str(&format!(",bus=ide.{index}"));
        }
        let blockdev =
            json!({"driver": "raw", "node-name": node, "file": protocol});
        vec![
            "-blockdev".to_owned(),
            blockdev.to_string(),
            "-device".to_owned(),
            device,
        ]
    }
}

fn with_read_errors(file: &Value, sectors: &[u64]) -> Value {
    let errors: Vec<Value> = sectors
        .iter()
        .map(|sector| {
            json!({
                "event": "read_aio",
                "iotype": "read",
                // The number of EIO.
                "errno": 5,
                "sector": sector,
                "once": false,
            })
        })
        .collect();
    json!({"driver": "blkdebug", "image": file, "inject-error": errors})
}

/// A server that provides one file as a network block device, and that can
/// be stopped: then the disk stalls without an error.
#[derive(Debug)]
pub struct NbdServer {
    child: Child,
    socket: PathBuf,
    _folder: tempfile::TempDir,
}

impl NbdServer {
    /// Provides the file.
    ///
    /// # Errors
    ///
    /// When the server does not start.
    pub fn start(path: &Path) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let socket = folder.path().join("nbd");
        let child = tools::command("qemu-nbd")
            .args(["--format=raw", "--persistent", "--shared=2", "--socket"])
            .arg(&socket)
            .arg(path)
            .stdin(Stdio::null())
            .spawn()
            .context("qemu-nbd cannot be run")?;
        let mut server = Self { child, socket, _folder: folder };
        wait_for("the NBD server", Duration::from_secs(20), || {
            if let Some(status) = server.child.try_wait()? {
                anyhow::bail!("qemu-nbd ended: {status}");
            }
            Ok(fs::exists(&server.socket)?.then_some(()))
        })?;
        Ok(server)
    }

    /// Answers nothing from now on.
    ///
    /// # Errors
    ///
    /// When the signal cannot be sent.
    pub fn stall(&self) -> Result<()> {
        self.signal(rustix::process::Signal::STOP)
    }

    /// Answers again, also what was asked meanwhile.
    ///
    /// # Errors
    ///
    /// When the signal cannot be sent.
    pub fn resume(&self) -> Result<()> {
        self.signal(rustix::process::Signal::CONT)
    }

    fn signal(&self, signal: rustix::process::Signal) -> Result<()> {
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, signal)
            .context("cannot signal the NBD server")
    }
}

impl Drop for NbdServer {
    fn drop(&mut self) {
        // Killing ends a stopped process too.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
