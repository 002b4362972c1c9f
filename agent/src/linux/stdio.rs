//! The standard streams: as a port, and for messages to people.

use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::fs::{CWD, Mode, OFlags, fcntl_getfl, fcntl_setfl, openat};
use rustix::io::Errno;
use rustix::termios::{OptionalActions, isatty, tcgetattr, tcsetattr};

use super::line::Io;

/// Standard input.
fn stdin() -> BorrowedFd<'static> {
    // SAFETY: nothing in this program closes a standard stream.
    unsafe { BorrowedFd::borrow_raw(0) }
}

/// Standard output.
pub(crate) fn stdout() -> BorrowedFd<'static> {
    // SAFETY: nothing in this program closes a standard stream.
    unsafe { BorrowedFd::borrow_raw(1) }
}

/// Standard error.
pub(crate) fn stderr() -> BorrowedFd<'static> {
    // SAFETY: nothing in this program closes a standard stream.
    unsafe { BorrowedFd::borrow_raw(2) }
}

/// Writes all of `text` to a stream, as far as it takes it.
pub(crate) fn say(stream: BorrowedFd<'_>, text: &[u8]) {
    let mut rest = text;
    while let Ok(written @ 1..) = rustix::io::write(stream, rest) {
        rest = rest.get(written..).unwrap_or_default();
    }
}

/// Standard input and output as a port. A terminal is made raw: behind it is
/// a host that reached us through ssh or a console.
///
/// # Errors
///
/// A stream is closed.
pub(crate) fn open() -> Result<Io, Errno> {
    if isatty(stdin()) {
        let mut settings = tcgetattr(stdin())?;
        settings.make_raw();
        tcsetattr(stdin(), OptionalActions::Now, &settings)?;
    }
    Ok(Io::Pair(
        unblocked(stdin(), c"/proc/self/fd/0", OFlags::RDONLY)?,
        unblocked(stdout(), c"/proc/self/fd/1", OFlags::WRONLY)?,
    ))
}

/// A non-blocking descriptor for what `stream` is.
///
/// Where that can be had, it is an opening of our own, since others may share
/// the one that we were given and would be surprised.
fn unblocked(
    stream: BorrowedFd<'static>,
    path: &core::ffi::CStr,
    flags: OFlags,
) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    if let Ok(fd) = openat(CWD, path, flags, Mode::empty()) {
        return Ok(fd);
    }
    // A socket cannot be opened again.
    let fd = rustix::io::fcntl_dupfd_cloexec(stream, 3)?;
    fcntl_setfl(&fd, fcntl_getfl(&fd)? | OFlags::NONBLOCK)?;
    Ok(fd)
}
