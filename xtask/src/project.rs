//! Where the repository is, and how its commands run other programs.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use clap::Parser;

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    let member = Path::new(env!("CARGO_MANIFEST_DIR"));
    member.parent().unwrap_or(member).to_owned()
}

/// The cargo that runs us, in the root of the repository.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(root()).args(arguments);
    command
}

/// Tells what is run, runs it, and fails when it fails.
pub(crate) fn run(mut command: Command) -> Result<()> {
    let mut line = Path::new(command.get_program())
        .file_name()
        .map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    for argument in command.get_args() {
        line.push(' ');
        line.push_str(&argument.to_string_lossy());
    }
    eprintln!("$ {line}");
    let status =
        command.status().with_context(|| format!("cannot run `{line}`"))?;
    if !status.success() {
        bail!("`{line}` failed: {status}");
    }
    Ok(())
}

/// The options of a command; or, when it was only asked for help or cannot
/// be understood, that is printed already, and this is how to end.
pub(crate) fn parsed<T: Parser>(
    program: &str,
    words: &[&str],
) -> Result<std::result::Result<T, ExitCode>> {
    let words = [program].into_iter().chain(words.iter().copied());
    match T::try_parse_from(words) {
        Ok(options) => Ok(Ok(options)),
        Err(error) => {
            error.print()?;
            let code = u8::try_from(error.exit_code()).unwrap_or(2);
            Ok(Err(ExitCode::from(code)))
        }
    }
}
