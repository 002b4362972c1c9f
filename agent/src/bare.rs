//! What a C library would do for the freestanding agent: entry point,
//! stack, memory functions, start of threads, panic.
//!
//! Everything here is x86_64. Another target needs its own assembly and a
//! machine to test it on.

use core::arch::global_asm;
use core::cell::UnsafeCell;
use core::ffi::{CStr, c_char, c_void};

use rustix::system::RebootCommand;

use crate::linux::init::{self, kernel_log};
use crate::linux::stdio::{say, stderr};
use crate::linux::thread;

mod mem;

#[cfg(not(target_arch = "x86_64"))]
compile_error!("the freestanding agent exists for x86_64 only so far");

/// Bytes of the main stack, without its guard page. The loop's state lies at
/// its lower end and takes half of it; what is never reached costs nothing.
const STACK_BYTES: usize = 256 * 1024;
/// The guard page below a stack.
const GUARD_BYTES: usize = 4096;

/// A stack, with room for a guard page at its lower end.
#[repr(C, align(4096))]
struct Stack<const SIZE: usize> {
    guard: UnsafeCell<[u8; GUARD_BYTES]>,
    used: UnsafeCell<[u8; SIZE]>,
}

// SAFETY: Rust code never touches the contents: the processor does, and the
// kernel, when it protects the guard page.
unsafe impl<const SIZE: usize> Sync for Stack<SIZE> {}

impl<const SIZE: usize> Stack<SIZE> {
    const fn new() -> Self {
        Self {
            guard: UnsafeCell::new([0; GUARD_BYTES]),
            used: UnsafeCell::new([0; SIZE]),
        }
    }

    /// Makes an overflow a fault. Where the kernel refuses, an overflow
    /// would go unnoticed, and all else works.
    fn protect(&self) {
        // SAFETY: nobody uses the guard page.
        let _ = unsafe {
            rustix::mm::mprotect(
                self.guard.get().cast::<c_void>(),
                GUARD_BYTES,
                rustix::mm::MprotectFlags::empty(),
            )
        };
    }
}

static STACK: Stack<STACK_BYTES> = Stack::new();
static THREAD_STACKS: [Stack<{ thread::STACK_BYTES }>; thread::THREADS_MAX] =
    [const { Stack::new() }; thread::THREADS_MAX];

global_asm!(
    include_str!("bare/start.s"),
    stack = sym STACK,
    stack_size = const GUARD_BYTES + STACK_BYTES,
    entry = sym entry,
    options(att_syntax)
);
global_asm!(
    ".globl memcpy, memmove, memset, memcmp, bcmp, strlen",
    ".set memcpy, e2wire_memmove",
    ".set memmove, e2wire_memmove",
    ".set memset, e2wire_memset",
    ".set memcmp, e2wire_memcmp",
    ".set bcmp, e2wire_memcmp",
    ".set strlen, e2wire_strlen",
    options(att_syntax)
);

/// Most arguments that are looked at; a kernel passes 32 to init.
const MAX_ARGUMENTS: usize = 64;

/// Called by `_start` with the stack pointer that the kernel gave us: the
/// argument count, then that many pointers, then a null pointer.
unsafe extern "C" fn entry(initial: *const usize) -> ! {
    STACK.protect();
    let mut arguments: [&CStr; MAX_ARGUMENTS] = [c""; MAX_ARGUMENTS];
    // SAFETY: the kernel's layout of a new program's stack, see above.
    let count = unsafe { *initial }.min(MAX_ARGUMENTS);
    for (i, argument) in arguments.iter_mut().take(count).enumerate() {
        // SAFETY: as above; the strings live as long as the process.
        *argument = unsafe {
            CStr::from_ptr(*initial.add(1 + i).cast::<*const c_char>())
        };
    }
    let arguments = arguments.get(1..count).unwrap_or(&[]);
    // The kernel hands its init what it does not know itself; only a person
    // who runs us as the first process of a container gives options.
    let is_init = rustix::process::getpid().is_init()
        && !arguments.iter().any(|word| word.to_bytes().starts_with(b"--"));
    if is_init {
        init::run();
    }
    exit(crate::run(arguments))
}

fn exit(code: u8) -> ! {
    // SAFETY: exit_group never returns and touches no memory.
    unsafe {
        core::arch::asm!(
            "syscall",
            "ud2",
            in("rax") 231_usize,
            in("rdi") usize::from(code),
            options(noreturn, nostack)
        )
    }
}

/// Says where, in one line. As process 1 it leaves a person time to read it
/// and restarts the machine: the kernel would panic if we ended.
#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    use core::fmt::Write;
    struct Stderr;
    impl Write for Stderr {
        fn write_str(&mut self, text: &str) -> core::fmt::Result {
            say(stderr(), text.as_bytes());
            Ok(())
        }
    }
    // There is nobody left to tell of a failure.
    let _ = write!(Stderr, "\r\ne2wire-agent: {info}\r\n");
    if rustix::process::getpid().is_init() {
        kernel_log::wait_for_panic_seconds();
        init::end(RebootCommand::Restart);
    }
    exit(101)
}

/// Named by the unwind tables of the prebuilt core library; never called,
/// since a panic aborts.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

/// zstd's dynamic contexts would call this. Static ones never do: a call is
/// a bug, and "no memory" is the honest answer to it.
#[unsafe(no_mangle)]
extern "C" fn malloc(_size: usize) -> *mut c_void {
    core::ptr::null_mut()
}

/// See [`malloc`].
#[unsafe(no_mangle)]
extern "C" fn calloc(_count: usize, _size: usize) -> *mut c_void {
    core::ptr::null_mut()
}

/// See [`malloc`]: there is never anything to free.
#[unsafe(no_mangle)]
extern "C" fn free(_pointer: *mut c_void) {}

unsafe extern "C" {
    fn e2wire_clone(
        flags: usize,
        stack_top: *mut c_void,
        run: extern "C" fn(usize),
        argument: usize,
    ) -> isize;
}

/// `CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD |
/// CLONE_SYSVSEM`: a thread, as in every C library, but without thread-local
/// storage, which nothing here has.
const THREAD_FLAGS: usize = 0x0005_0f00;

/// Starts thread `number`, which calls `run(number)` on a stack of its own;
/// whether that worked. A number must be used once only.
pub(crate) fn start_thread(number: usize, run: extern "C" fn(usize)) -> bool {
    let Some(stack) = THREAD_STACKS.get(number) else {
        return false;
    };
    stack.protect();
    let top = stack.used.get().wrapping_add(1).cast::<c_void>();
    // SAFETY: nobody else runs on this stack, it lives for ever, and all
    // that threads share is static and synchronised.
    unsafe { e2wire_clone(THREAD_FLAGS, top, run, number) > 0 }
}
