//! One open device or file, as a worker sees it.

use core::ffi::CStr;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use e2wire_agent::device::DeviceFault;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use super::pool::{Buffer, Task, Work};
use super::read::{Progress, ReadAt, read_range};
use super::text::Path;

/// Which device a job is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Target {
    /// Tells targets apart for as long as the process lives; never 0.
    pub(crate) key: u64,
    /// Where to open it.
    pub(crate) path: Path,
    /// The block device that must be found there; `None` for a plain file.
    pub(crate) rdev: Option<u64>,
    /// Bytes of a logical sector.
    pub(crate) sector: u32,
}

impl Target {
    /// No device at all.
    pub(crate) const NONE: Self =
        Self { key: 0, path: Path::new(), rdev: None, sector: 0 };
}

/// The device that a worker holds open.
pub(crate) struct OpenDevice {
    key: u64,
    file: Option<File>,
}

struct File {
    fd: OwnedFd,
    /// Reads bypass the page cache.
    direct: AtomicBool,
}

impl OpenDevice {
    /// Nothing open yet.
    pub(crate) const fn none() -> Self {
        Self { key: 0, file: None }
    }

    /// Does what `work` says and leaves the result in it.
    pub(crate) fn carry_out(
        &mut self,
        work: &mut Work,
        buffer: &mut Buffer,
        done: &AtomicU32,
    ) {
        work.unreadable.clear();
        work.length = 0;
        let result = self.try_carry_out(work, buffer, done);
        work.failed = result.is_err();
        if let Err(fault) = result {
            work.fault = fault;
            // The next job may find it well again, or another in its place.
            self.file = None;
        }
    }

    fn try_carry_out(
        &mut self,
        work: &mut Work,
        buffer: &mut Buffer,
        done: &AtomicU32,
    ) -> Result<(), DeviceFault> {
        if self.key != work.target.key {
            self.file = None;
            self.key = work.target.key;
        }
        let file = match &mut self.file {
            Some(file) => file,
            empty => empty.insert(open(&work.target)?),
        };
        match work.task {
            Task::Flush => rustix::fs::fsync(&file.fd).map_err(failed),
            Task::Read => read_ranges(file, work, buffer, done),
        }
    }
}

fn read_ranges(
    file: &File,
    work: &mut Work,
    buffer: &mut Buffer,
    done: &AtomicU32,
) -> Result<(), DeviceFault> {
    let mut progress =
        Progress { done, unreadable: &mut work.unreadable, position: 0 };
    let mut rest = buffer.0.as_mut_slice();
    for range in &work.ranges {
        let length = usize::try_from(range.length().0)
            .ok()
            .filter(|length| *length <= rest.len())
            .ok_or(DeviceFault::Failed(errno(Errno::OVERFLOW)))?;
        let (piece, behind) = rest.split_at_mut(length);
        rest = behind;
        let sector = work.target.sector;
        read_range(file, range.start().0, piece, sector, &mut progress)
            .map_err(failed)?;
    }
    work.length = progress.position;
    Ok(())
}

/// Opens `target` for reading, past the page cache where it is a device.
fn open(target: &Target) -> Result<File, DeviceFault> {
    let refused = |error| match error {
        Errno::NOENT | Errno::NODEV | Errno::NXIO | Errno::NOMEDIUM => {
            DeviceFault::Gone
        }
        error => DeviceFault::Open(errno(error)),
    };
    let path = target.path.as_c_str();
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY;
    let Some(rdev) = target.rdev else {
        let fd = open_path(path, flags).map_err(refused)?;
        return Ok(File { fd, direct: AtomicBool::new(false) });
    };
    let (fd, direct) = match open_path(path, flags | OFlags::DIRECT) {
        Ok(fd) => (fd, true),
        Err(Errno::INVAL) => (open_path(path, flags).map_err(refused)?, false),
        Err(error) => return Err(refused(error)),
    };
    let stat = rustix::fs::fstat(&fd).map_err(refused)?;
    let is_block =
        FileType::from_raw_mode(stat.st_mode) == FileType::BlockDevice;
    if !is_block || stat.st_rdev != rdev {
        // Another device took the name since the list was made.
        return Err(DeviceFault::Gone);
    }
    Ok(File { fd, direct: AtomicBool::new(direct) })
}

fn open_path(path: &CStr, flags: OFlags) -> Result<OwnedFd, Errno> {
    loop {
        match rustix::fs::open(path, flags, Mode::empty()) {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}

impl ReadAt for File {
    fn read_at(&self, buffer: &mut [u8], at: u64) -> Result<usize, Errno> {
        match rustix::io::pread(&self.fd, &mut *buffer, at) {
            Err(Errno::INVAL) if self.direct.load(Ordering::Relaxed) => {
                // A device that wants another alignment than its sector's.
                self.direct.store(false, Ordering::Relaxed);
                let fd = self.fd.as_fd();
                let flags = rustix::fs::fcntl_getfl(fd)?;
                rustix::fs::fcntl_setfl(fd, flags.difference(OFlags::DIRECT))?;
                rustix::io::pread(fd, buffer, at)
            }
            other => other,
        }
    }
}

fn failed(error: Errno) -> DeviceFault {
    match error {
        Errno::NODEV | Errno::NXIO | Errno::NOMEDIUM => DeviceFault::Gone,
        error => DeviceFault::Failed(errno(error)),
    }
}

fn errno(error: Errno) -> u16 {
    u16::try_from(error.raw_os_error()).unwrap_or(u16::MAX)
}
