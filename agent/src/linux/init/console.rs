//! The console, for the few lines that an agent without a host has to say.

use rustix::fd::OwnedFd;
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::dup2;

/// Makes the console the standard error, or nothing where there is none.
pub(crate) fn open() {
    let flags =
        OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let open = |path| openat(CWD, path, flags, Mode::empty());
    let Ok(fd) = open(c"/dev/console").or_else(|_| open(c"/dev/null")) else {
        return;
    };
    for number in [1, 2] {
        replace(number, &fd);
    }
}

fn replace(number: i32, with: &OwnedFd) {
    use rustix::fd::FromRawFd;
    // SAFETY: the number is open since the start (see `init`), and the owner
    // made here is never dropped.
    let place = unsafe { OwnedFd::from_raw_fd(number) };
    let mut place = core::mem::ManuallyDrop::new(place);
    let _ = dup2(with, &mut place);
}
