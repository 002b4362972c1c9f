//! The agent as a program: the only place that knows Linux.
//!
//! Built in two ways. By default it is an ordinary hosted program, for tests,
//! ssh and labs. With the feature `bare` and the profile `agent` it stands
//! alone, without C library and heap, fit to be the only program of an
//! initramfs. Both run the same loop over the same library.

#![cfg_attr(all(feature = "bare", panic = "abort"), no_std, no_main)]
#![cfg_attr(
    not(test),
    warn(clippy::arithmetic_side_effects, clippy::as_conversions)
)]

use core::ffi::CStr;

#[cfg(all(feature = "bare", panic = "abort"))]
#[expect(unsafe_code, reason = "stands in for a C library")]
mod bare;
#[cfg(all(test, target_arch = "x86_64"))]
#[expect(unsafe_code, reason = "calls the assembly that it tests")]
#[path = "bare/mem.rs"]
mod mem;

#[expect(unsafe_code, reason = "talks to the kernel")]
#[allow(dead_code)]
mod linux;

const VERSION: &str = concat!("e2wire-agent ", env!("CARGO_PKG_VERSION"), "\n");

/// Writes all of `text` to a standard stream, as far as it takes it.
fn say(stream: rustix::fd::BorrowedFd<'_>, text: &[u8]) {
    let mut rest = text;
    while let Ok(written @ 1..) = rustix::io::write(stream, rest) {
        rest = rest.get(written..).unwrap_or_default();
    }
}

/// Does what the arguments ask for; the exit status.
fn run(arguments: &[&CStr]) -> u8 {
    defmt::info!("agent up");
    match arguments {
        [argument] if *argument == c"--version" => {
            say(linux::stdio::stdout(), VERSION.as_bytes());
            0
        }
        _ => {
            say(linux::stdio::stderr(), b"usage: e2wire-agent --version\n");
            2
        }
    }
}

#[cfg(not(all(feature = "bare", panic = "abort")))]
fn main() -> std::process::ExitCode {
    use std::ffi::CString;
    use std::os::unix::ffi::OsStringExt;

    let arguments: Vec<CString> = std::env::args_os()
        .skip(1)
        .filter_map(|argument| CString::new(argument.into_vec()).ok())
        .collect();
    let arguments: Vec<&CStr> =
        arguments.iter().map(|argument| argument.as_c_str()).collect();
    run(&arguments).into()
}
