//! The `e2wire` program: everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    e2wire::cli::main()
}
