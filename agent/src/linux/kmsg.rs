//! The kernel's log, record by record.

use rustix::event::{PollFd, PollFlags};
use rustix::fd::OwnedFd;
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;

/// The longest record that the kernel gives (`CONSOLE_EXT_LOG_MAX`).
const RECORD_BYTES_MAX: usize = 8192;

/// Records taken in one go, so that a chatty kernel cannot hold the loop.
const RECORDS_MAX: usize = 32;

/// `/dev/kmsg`, if we may read it.
pub(crate) struct KernelLog {
    fd: Option<OwnedFd>,
}

impl KernelLog {
    /// From the first record that the kernel still has.
    pub(crate) fn open() -> Self {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        Self { fd: openat(CWD, c"/dev/kmsg", flags, Mode::empty()).ok() }
    }

    /// What becomes readable with the next record.
    pub(crate) fn poll_fd(&self) -> Option<PollFd<'_>> {
        let fd = self.fd.as_ref()?;
        Some(PollFd::new(fd, PollFlags::IN))
    }

    /// Hands each new record to `take`, as the kernel writes it.
    pub(crate) fn read(&mut self, mut take: impl FnMut(&[u8])) {
        let Some(fd) = &self.fd else {
            return;
        };
        let mut buffer = [0; RECORD_BYTES_MAX];
        for _ in 0..RECORDS_MAX {
            match rustix::io::read(fd, &mut buffer) {
                Ok(count @ 1..) => {
                    take(buffer.get(..count).unwrap_or_default());
                }
                // Records were overwritten before we came; go on behind.
                Err(Errno::PIPE | Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Ok(0) | Err(_) => {
                    self.fd = None;
                    return;
                }
            }
        }
    }
}
