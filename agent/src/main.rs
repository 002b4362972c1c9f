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
#[expect(unsafe_code, reason = "talks to the kernel and to C")]
mod linux;
#[cfg(all(test, target_arch = "x86_64"))]
#[expect(unsafe_code, reason = "calls the assembly that it tests")]
#[path = "bare/mem.rs"]
mod mem;

use linux::options::{self, Command, Options};
use linux::start::serve;
use linux::stdio::{say, stderr, stdout};

const VERSION: &str = concat!("e2wire-agent ", env!("CARGO_PKG_VERSION"), "\n");

const HELP: &str = "\
Serves the disks of this machine to e2wire, over any number of ports.

usage: e2wire-agent PORT... [--device PATH]... --insecure

ports:
  --stdio                 standard input and output
  --listen ADDR[:PORT]    TCP connections (port 7220 unless named)
  --connect ADDR[:PORT]   calls a waiting e2wire until it answers
  --serial PATH[,BAUD]    a serial line, at its present speed unless named

  --device PATH           offers this file or device instead of all devices
  --rw                    lets a host write, after it has armed a plan; without
                          this nothing is ever written to a device
  --insecure              serves whoever comes; there are no keys yet
  --version, --help
";

/// Does what the arguments ask for; the exit status.
fn run(arguments: &[&CStr]) -> u8 {
    match options::parse(arguments) {
        Ok(Command::Serve(options)) => start(options),
        Ok(Command::Version) => {
            say(stdout(), VERSION.as_bytes());
            0
        }
        Ok(Command::Help) => {
            say(stdout(), HELP.as_bytes());
            0
        }
        Err(error) => {
            say(stderr(), b"e2wire-agent: ");
            for piece in error.pieces() {
                say(stderr(), piece);
            }
            say(stderr(), b"\n");
            2
        }
    }
}

fn start(options: Options) -> u8 {
    match serve(options) {
        Ok(_) => 0,
        Err(error) => {
            say(stderr(), b"e2wire-agent: ");
            say(stderr(), error.as_bytes());
            say(stderr(), b"\n");
            1
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
