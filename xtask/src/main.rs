//! What is done to this repository. Each command is one file.
//!
//! Nothing of this is shipped.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "commands for people at a terminal"
)]

use std::process::ExitCode;

mod agent;
mod bench;
mod boot;
mod build_initrd;
mod ci;
mod demo;
mod fixtures;
mod line;
mod project;
mod test;
mod tidy;

const USAGE: &str = "\
cargo xtask COMMAND

  demo [DEVICE]    the main job on a real filesystem, each step explained
                   (--help: how fast its serial line is)
  test [ARGS]      installs what is missing, runs every test
                   (ARGS go to `cargo test`)
  agent            builds the freestanding agent and checks it
  ci               formatting, lints, tidy and every test
  tidy             the walls and sizes of the house
  build-initrd     the file that boots on a machine to be rescued (--help)
  boot [FILE...]   boots such a file in an emulated machine (--help)
  line             a slow, bad serial line between two terminals (--help)
  bench local      e2wire beside e2image, in ratios (needs root)
  fixtures [DIR]   makes every test filesystem, lists them, copies them to DIR
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["build-initrd", rest @ ..] => return exit(build_initrd::run(rest)),
        ["boot", rest @ ..] => return exit(boot::run(rest)),
        ["demo", rest @ ..] => return exit(demo::run(rest)),
        ["line", rest @ ..] => return exit(line::run(rest)),
        ["test", rest @ ..] => test::run_tests(rest),
        ["agent"] => agent::run_command(),
        ["ci"] => ci::run_all(),
        ["tidy"] => tidy::run(),
        ["bench", rest @ ..] => bench::run(rest),
        ["fixtures"] => fixtures::run(None),
        ["fixtures", directory] => fixtures::run(Some(directory)),
        [] | ["help" | "-h" | "--help"] => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        _ => {
            eprint!("unknown command: {}\n\n{USAGE}", words.join(" "));
            return ExitCode::from(2);
        }
    };
    exit(result.map(|()| ExitCode::SUCCESS))
}

fn exit(result: anyhow::Result<ExitCode>) -> ExitCode {
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
