//! `exec:COMMAND LINE` and `pipe:COMMAND LINE`: a program carries the bytes.
//!
//! `exec:` gives it a pseudo-terminal in raw mode, since programs such as
//! ipmitool ask their standard input for its terminal settings; `pipe:` gives
//! it plain pipes, which is what `ssh host e2wire-agent --stdio` wants. The
//! program keeps our controlling terminal, so it can ask for a password
//! there. What it says on standard error is shown in errors.

use std::fs::OpenOptions;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{
    OptionalActions, Winsize, tcgetattr, tcsetattr, tcsetwinsize,
};

use crate::error::{Error, Result};
use crate::remote::port::{Nature, Patience, Port, Wire, no_link};

/// The most that is kept of what a program says on standard error.
const COMPLAINT_BYTES_MAX: u64 = 4096;

/// How long a program may take to end by itself once its input has ended,
/// and again after it was asked to.
const END_MAX: Duration = Duration::from_millis(300);

/// A program in a pseudo-terminal.
#[derive(Debug)]
pub(super) struct InTerminal {
    line: String,
}

impl InTerminal {
    pub(super) const fn new(line: String) -> Self {
        Self { line }
    }
}

impl Port for InTerminal {
    fn name(&self) -> String {
        format!("exec:{}", self.line)
    }

    fn nature(&self) -> Nature {
        Nature { baud: None, console: true, listens: false }
    }

    fn open(&mut self, patience: &Patience<'_>) -> Result<Wire> {
        patience.left()?;
        let (ours, theirs) = terminal().map_err(|error| {
            Error::io("cannot make a pseudo-terminal", error)
        })?;
        let copy = theirs.try_clone().map_err(|error| {
            Error::io("cannot make a pseudo-terminal", error)
        })?;
        let running =
            Running::start(&self.line, Stdio::from(copy), Stdio::from(theirs))?;
        Wire::duplex(ours, None, Box::new(running))
    }
}

/// A program on plain pipes.
#[derive(Debug)]
pub(super) struct OnPipes {
    line: String,
}

impl OnPipes {
    pub(super) const fn new(line: String) -> Self {
        Self { line }
    }
}

impl Port for OnPipes {
    fn name(&self) -> String {
        format!("pipe:{}", self.line)
    }

    fn nature(&self) -> Nature {
        Nature { baud: None, console: false, listens: false }
    }

    fn open(&mut self, patience: &Patience<'_>) -> Result<Wire> {
        patience.left()?;
        let mut running =
            Running::start(&self.line, Stdio::piped(), Stdio::piped())?;
        let (Some(input), Some(output)) =
            (running.child.stdout.take(), running.child.stdin.take())
        else {
            return Err(no_link(format!("{} has no pipes", self.name())));
        };
        Wire::new(input.into(), output.into(), None, Box::new(running))
    }
}

/// A program that runs; it ends with this value.
#[derive(Debug)]
pub(in crate::remote) struct Running {
    child: Child,
    complaint: Arc<Mutex<Vec<u8>>>,
}

impl Running {
    fn start(line: &str, stdin: Stdio, stdout: Stdio) -> Result<Self> {
        let mut child = Command::new("/bin/sh")
            .arg("-c")
            .arg(line)
            .stdin(stdin)
            .stdout(stdout)
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| {
                no_link(format!("cannot start `{line}`")).because(error)
            })?;
        let complaint = Arc::new(Mutex::new(Vec::new()));
        if let Some(stderr) = child.stderr.take() {
            let kept = Arc::clone(&complaint);
            thread::spawn(move || listen(stderr, &kept));
        }
        Ok(Self { child, complaint })
    }

    /// How the program ended, if it did, and what it last said about it.
    pub(in crate::remote) fn obituary(&mut self) -> Option<String> {
        let deadline = Instant::now() + END_MAX;
        let status = loop {
            match self.child.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) if Instant::now() < deadline => {
                    thread::sleep(Duration::from_millis(10));
                }
                _ => return None,
            }
        };
        let said =
            self.complaint.lock().unwrap_or_else(PoisonError::into_inner);
        let said = String::from_utf8_lossy(&said);
        let last = said.lines().rev().find(|line| !line.trim().is_empty());
        Some(match last {
            Some(line) => format!("the program ended ({status}): {line}"),
            None => format!("the program ended ({status})"),
        })
    }

    fn ended_within(&mut self, time: Duration) -> bool {
        let deadline = Instant::now() + time;
        loop {
            match self.child.try_wait() {
                Ok(Some(_)) | Err(_) => return true,
                Ok(None) if Instant::now() >= deadline => return false,
                Ok(None) => thread::sleep(Duration::from_millis(5)),
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Its input has ended by now: most programs end of that. ipmitool
        // wants to be asked, so that it closes its session with the BMC.
        if self.ended_within(END_MAX) {
            return;
        }
        if let Some(pid) = i32::try_from(self.child.id())
            .ok()
            .and_then(rustix::process::Pid::from_raw)
        {
            let _ = rustix::process::kill_process(
                pid,
                rustix::process::Signal::TERM,
            );
        }
        if !self.ended_within(END_MAX) {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}

fn listen(mut stderr: impl Read, kept: &Mutex<Vec<u8>>) {
    let mut buffer = [0; 512];
    while let Ok(count @ 1..) = stderr.read(&mut buffer) {
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend_from_slice(&buffer[..count]);
        let excess = (kept.len() as u64).saturating_sub(COMPLAINT_BYTES_MAX);
        kept.drain(..usize::try_from(excess).unwrap_or(0));
    }
}

/// A pseudo-terminal in raw mode: our side and the program's side.
pub(in crate::remote) fn terminal() -> std::io::Result<(OwnedFd, OwnedFd)> {
    let ours =
        openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&ours)?;
    unlockpt(&ours)?;
    let name = ptsname(&ours, Vec::new())?;
    let theirs = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(OFlags::NOCTTY.bits().cast_signed())
        .open(std::ffi::OsStr::from_bytes(name.as_bytes()))?;
    let mut settings = tcgetattr(&theirs)?;
    settings.make_raw();
    tcsetattr(&theirs, OptionalActions::Now, &settings)?;
    let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&theirs, size)?;
    Ok((ours, theirs.into()))
}
