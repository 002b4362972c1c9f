//! One open device or file, as a worker sees it.

use core::ffi::CStr;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use e2wire_agent::device::DeviceFault;
use e2wire_protocol::message::InUse;
use e2wire_protocol::units::u64_from;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use super::pool::{Buffer, Task, Work};
use super::read::{Progress, ReadAt, read_range};
use super::sysfs::{has_holders, is_read_only};
use super::text::Path;
use super::usage::for_each_use;

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
    /// Open for writing and for us alone, while it is claimed.
    writer: Option<File>,
}

struct File {
    fd: OwnedFd,
    /// Reads bypass the page cache.
    direct: AtomicBool,
}

impl OpenDevice {
    /// Nothing open yet.
    pub(crate) const fn none() -> Self {
        Self { key: 0, file: None, writer: None }
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
            if fault == DeviceFault::Gone {
                self.writer = None;
            }
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
            self.writer = None;
            self.key = work.target.key;
        }
        match work.task {
            Task::Claim => return self.claim(&work.target),
            Task::Unclaim => {
                self.writer = None;
                return Ok(());
            }
            Task::Write => {
                let writer =
                    self.writer.as_ref().ok_or(DeviceFault::NotClaimed)?;
                return write_range(writer, work, buffer, done);
            }
            Task::Flush | Task::Read => {}
        }
        let file = match &mut self.file {
            Some(file) => file,
            empty => empty.insert(open(&work.target, OFlags::RDONLY)?),
        };
        match work.task {
            Task::Read => read_ranges(file, work, buffer, done),
            _ => rustix::fs::fsync(&file.fd).map_err(failed),
        }
    }

    /// Opens the device for writing, if nobody uses it.
    fn claim(&mut self, target: &Target) -> Result<(), DeviceFault> {
        if self.writer.is_some() {
            return Ok(());
        }
        if let Some(rdev) = target.rdev {
            if let Some(how) = in_use(rdev, target.path.as_bytes()) {
                return Err(DeviceFault::InUse(how));
            }
            if is_read_only(rdev) {
                return Err(DeviceFault::ReadOnly);
            }
        }
        // Without O_CREAT this is the kernel's word for: for us alone. It
        // holds against mounts, swap, md and device mapper, also of a
        // partition of ours, from now on.
        let exclusive = match target.rdev {
            Some(_) => OFlags::RDWR | OFlags::EXCL,
            None => OFlags::RDWR,
        };
        let file = open(target, exclusive).map_err(|fault| match fault {
            DeviceFault::Open(number) if is(number, Errno::BUSY) => {
                DeviceFault::InUse(InUse::Exclusive)
            }
            DeviceFault::Open(number)
                if is(number, Errno::ROFS)
                    || is(number, Errno::ACCESS)
                    || is(number, Errno::PERM) =>
            {
                DeviceFault::ReadOnly
            }
            fault => fault,
        })?;
        self.writer = Some(file);
        Ok(())
    }
}

/// Who uses the block device, as far as the kernel tells.
fn in_use(rdev: u64, path: &[u8]) -> Option<InUse> {
    let name = path.strip_prefix(b"/dev/").unwrap_or_default();
    let mut how = None;
    for_each_use(|usage| {
        if usage.rdev == Some(rdev) {
            how = Some(InUse::Mounted);
        } else if usage.rdev.is_none() && usage.name == name {
            how = how.or(Some(InUse::Swap));
        }
    });
    how.or_else(|| has_holders(rdev).then_some(InUse::Held))
}

fn write_range(
    file: &File,
    work: &mut Work,
    buffer: &Buffer,
    done: &AtomicU32,
) -> Result<(), DeviceFault> {
    let invalid = DeviceFault::WriteFailed(errno(Errno::INVAL));
    let range = work.ranges.first().ok_or(invalid)?;
    let length = usize::try_from(range.length().0).map_err(|_| invalid)?;
    let mut rest = buffer.0.get(..length).ok_or(invalid)?;
    let mut at = range.start().0;
    while !rest.is_empty() {
        let count = match file.write_at(rest, at) {
            Ok(0) => return Err(DeviceFault::WriteFailed(errno(Errno::IO))),
            Ok(count) => count,
            Err(Errno::INTR) => continue,
            Err(error) => {
                return Err(match failed(error) {
                    DeviceFault::Failed(errno) => {
                        DeviceFault::WriteFailed(errno)
                    }
                    fault => fault,
                });
            }
        };
        rest = rest.get(count..).unwrap_or_default();
        at = at.saturating_add(u64_from(count));
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        done.fetch_add(count, Ordering::Relaxed);
    }
    Ok(())
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

/// Opens `target` as `access` says, past the page cache where it is a device.
fn open(target: &Target, access: OFlags) -> Result<File, DeviceFault> {
    let refused = |error| match error {
        Errno::NOENT | Errno::NODEV | Errno::NXIO | Errno::NOMEDIUM => {
            DeviceFault::Gone
        }
        error => DeviceFault::Open(errno(error)),
    };
    let path = target.path.as_c_str();
    let flags = access | OFlags::CLOEXEC | OFlags::NOCTTY;
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

impl File {
    /// Goes through the page cache from now on: a device that wants another
    /// alignment than its sector's.
    fn stop_direct(&self) -> Result<(), Errno> {
        self.direct.store(false, Ordering::Relaxed);
        let fd = self.fd.as_fd();
        let flags = rustix::fs::fcntl_getfl(fd)?;
        rustix::fs::fcntl_setfl(fd, flags.difference(OFlags::DIRECT))
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> Result<usize, Errno> {
        match rustix::io::pwrite(&self.fd, bytes, at) {
            Err(Errno::INVAL) if self.direct.load(Ordering::Relaxed) => {
                self.stop_direct()?;
                rustix::io::pwrite(&self.fd, bytes, at)
            }
            other => other,
        }
    }
}

impl ReadAt for File {
    fn read_at(&self, buffer: &mut [u8], at: u64) -> Result<usize, Errno> {
        match rustix::io::pread(&self.fd, &mut *buffer, at) {
            Err(Errno::INVAL) if self.direct.load(Ordering::Relaxed) => {
                self.stop_direct()?;
                rustix::io::pread(&self.fd, buffer, at)
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

fn is(number: u16, error: Errno) -> bool {
    number == errno(error)
}

fn errno(error: Errno) -> u16 {
    u16::try_from(error.raw_os_error()).unwrap_or(u16::MAX)
}
