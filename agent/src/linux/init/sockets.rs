//! Socket options that rustix does not have.

use rustix::fd::{AsRawFd, OwnedFd};
use rustix::io::Errno;

/// `SO_BINDTODEVICE`: in and out through this interface only.
#[cfg(target_arch = "x86_64")]
pub(crate) fn bind_to_device(
    socket: &OwnedFd,
    interface: &[u8],
) -> Result<(), Errno> {
    const SETSOCKOPT: isize = 54;
    const SOL_SOCKET: usize = 1;
    const SO_BINDTODEVICE: usize = 25;
    let number = usize::try_from(socket.as_raw_fd()).unwrap_or(usize::MAX);
    let result: isize;
    // SAFETY: the kernel reads the name, which is as long as we say, and
    // changes no memory of ours.
    unsafe {
        core::arch::asm!(
            "syscall",
            inlateout("rax") SETSOCKOPT => result,
            in("rdi") number,
            in("rsi") SOL_SOCKET,
            in("rdx") SO_BINDTODEVICE,
            in("r10") interface.as_ptr(),
            in("r8") interface.len(),
            out("rcx") _,
            out("r11") _,
            options(nostack, readonly)
        );
    }
    let error = i32::try_from(result.saturating_neg()).unwrap_or(i32::MAX);
    if result < 0 { Err(Errno::from_raw_os_error(error)) } else { Ok(()) }
}

/// There is no such agent that is init yet.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn bind_to_device(
    _socket: &OwnedFd,
    _interface: &[u8],
) -> Result<(), Errno> {
    Err(Errno::NOTSUP)
}
