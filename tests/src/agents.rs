//! Agents that run on this machine, as programs of both builds.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use anyhow::{Context as _, Result, ensure};

use crate::binaries;

/// Which build of the agent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Build {
    /// The ordinary program.
    Hosted,
    /// The ELF that stands alone, which machines boot into.
    Freestanding,
}

/// Both of them.
pub const BUILDS: [Build; 2] = [Build::Hosted, Build::Freestanding];

impl Build {
    /// The program, built when it is not yet.
    ///
    /// # Panics
    ///
    /// When it does not build.
    #[must_use]
    pub fn path(self) -> &'static Path {
        static PATHS: [OnceLock<PathBuf>; 2] = [const { OnceLock::new() }; 2];
        match self {
            Self::Hosted => PATHS[0].get_or_init(|| {
                binaries::build("e2wire-agent", "e2wire-agent")
            }),
            Self::Freestanding => PATHS[1].get_or_init(|| {
                freestanding().expect("the freestanding agent builds")
            }),
        }
    }
}

fn freestanding() -> Result<PathBuf> {
    let output = Command::new(env!("CARGO"))
        .current_dir(crate::root())
        .args(["run", "--quiet", "--package", "xtask", "--", "agent"])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("cargo cannot be run")?;
    ensure!(output.status.success(), "`cargo xtask agent` failed");
    let said = String::from_utf8(output.stdout)?;
    let path = said.lines().find_map(|line| line.strip_prefix("agent "));
    Ok(path.context("`cargo xtask agent` names no agent")?.trim().into())
}

/// A running agent that ends with this value.
#[derive(Debug)]
pub struct Agent(Child);

impl Agent {
    /// One that offers `device`, reached by `ways`, its options.
    ///
    /// # Errors
    ///
    /// When it cannot be run.
    pub fn start(build: Build, device: &Path, ways: &[&str]) -> Result<Self> {
        Self::run(build.path(), device, ways)
    }

    /// The same, of any build.
    ///
    /// # Errors
    ///
    /// When it cannot be run.
    pub fn run(program: &Path, device: &Path, ways: &[&str]) -> Result<Self> {
        let mut command = Command::new(program);
        command.args(ways).arg("--insecure").arg("--device").arg(device);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        Ok(Self(command.spawn().context("the agent cannot be run")?))
    }

    /// One at a serial port.
    ///
    /// # Errors
    ///
    /// When it cannot be run.
    pub fn on_serial(
        build: Build,
        device: &Path,
        port: &Path,
        baud: u32,
    ) -> Result<Self> {
        let port = format!("{},{baud}", port.display());
        Self::start(build, device, &["--serial", &port])
    }

    /// One that listens at `address`, see [`free_address`].
    ///
    /// # Errors
    ///
    /// When it cannot be run.
    pub fn listening(
        build: Build,
        device: &Path,
        address: SocketAddr,
    ) -> Result<Self> {
        Self::start(build, device, &["--listen", &address.to_string()])
    }

    /// One that calls `address` until it answers.
    ///
    /// # Errors
    ///
    /// When it cannot be run.
    pub fn calling(
        build: Build,
        device: &Path,
        address: SocketAddr,
    ) -> Result<Self> {
        Self::start(build, device, &["--connect", &address.to_string()])
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A TCP port of this machine that nobody has at the moment.
///
/// # Errors
///
/// When there is none.
pub fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}
