//! Signals that would end the agent for no good reason.

/// Lets a peer that went away, or a terminal that hung up, be an error of a
/// read or write instead of the end of the process.
pub(crate) fn ignore_hangups() {
    const SIGHUP: usize = 1;
    const SIGPIPE: usize = 13;
    for signal in [SIGHUP, SIGPIPE] {
        ignore(signal);
    }
}

/// rustix offers no way to set a disposition; this is `rt_sigaction` with
/// `SIG_IGN`, for which no return trampoline is needed.
#[cfg(target_arch = "x86_64")]
fn ignore(signal: usize) {
    const RT_SIGACTION: usize = 13;
    const SIG_IGN: usize = 1;
    /// Bytes of the kernel's signal set.
    const SET_BYTES: usize = 8;
    // Handler, flags, restorer, mask.
    let action: [usize; 4] = [SIG_IGN, 0, 0, 0];
    // SAFETY: the kernel reads `action` and changes no memory of ours. It can
    // fail only for a signal that does not exist.
    unsafe {
        core::arch::asm!(
            "syscall",
            inlateout("rax") RT_SIGACTION => _,
            in("rdi") signal,
            in("rsi") action.as_ptr(),
            in("rdx") 0_usize,
            in("r10") SET_BYTES,
            out("rcx") _,
            out("r11") _,
            options(nostack, readonly)
        );
    }
}

/// The standard library of the hosted build ignores SIGPIPE itself; a
/// terminal that hangs up ends the agent there.
#[cfg(not(target_arch = "x86_64"))]
fn ignore(_signal: usize) {}
