//! How much the kernel says on the console, and how long a panic stays there.

use core::sync::atomic::{AtomicU32, Ordering};

use rustix::thread::{NanosleepRelativeResult, Timespec, nanosleep};

static PANIC_SECONDS: AtomicU32 = AtomicU32::new(60);

/// Lets only emergencies reach the console: its line is ours. The first thing
/// of all, before there is a /proc to say it in.
pub(crate) fn quieten() {
    const SYSLOG_ACTION_CONSOLE_LEVEL: usize = 8;
    /// The kernel takes 1 to 8.
    const EMERGENCIES_ONLY: usize = 1;
    syslog(SYSLOG_ACTION_CONSOLE_LEVEL, EMERGENCIES_ONLY);
}

/// rustix has no `syslog(2)`.
#[cfg(target_arch = "x86_64")]
fn syslog(action: usize, argument: usize) {
    const SYSLOG: usize = 103;
    // SAFETY: this action takes no buffer.
    unsafe {
        core::arch::asm!(
            "syscall",
            inlateout("rax") SYSLOG => _,
            in("rdi") action,
            in("rsi") 0_usize,
            in("rdx") argument,
            out("rcx") _,
            out("r11") _,
            options(nostack, nomem)
        );
    }
}

/// Elsewhere /proc/sys/kernel/printk has to do.
#[cfg(not(target_arch = "x86_64"))]
fn syslog(_action: usize, _argument: usize) {}

/// What `panic=` says.
pub(crate) fn set_panic_seconds(seconds: u32) {
    PANIC_SECONDS.store(seconds, Ordering::Relaxed);
}

/// Leaves a person time to read the last line.
pub(crate) fn wait_for_panic_seconds() {
    sleep_seconds(PANIC_SECONDS.load(Ordering::Relaxed));
}

/// Sleeps, whatever interrupts it.
pub(crate) fn sleep_seconds(seconds: u32) {
    let mut left = Timespec { tv_sec: i64::from(seconds), tv_nsec: 0 };
    while let NanosleepRelativeResult::Interrupted(rest) = nanosleep(&left) {
        left = rest;
    }
}
