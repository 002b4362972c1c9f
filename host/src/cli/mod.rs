//! The command line: what users type, and what they see.
//!
//! Two layers of arguments: [`args`] only records and validates what was
//! typed, [`job`] turns it into requests; neither touches the system. Only
//! then does anything happen, in `commands`. Every word that is printed goes
//! through [`speaker`], every end of the program through [`exit`].

pub mod args;
mod examples;
pub mod exit;
pub mod job;
mod json;
mod listing;
mod manual;
mod progress;
mod speaker;
mod terminal;
mod values;

use std::ffi::OsString;
use std::io::IsTerminal as _;
use std::sync::Arc;

use clap::Parser as _;
use clap::error::ErrorKind as ClapErrorKind;

use crate::cli::args::Args;
use crate::cli::exit::ExitCode;
use crate::cli::job::{Job, Task};
use crate::cli::speaker::{Manner, Speaker};
use crate::commands::{self, Report};
use crate::error::{Error, ErrorKind, Result};
use crate::remote::target::Target;
use crate::stop::Stop;
use crate::text;

/// Runs the program with the arguments and streams of this process.
#[must_use]
pub fn main() -> std::process::ExitCode {
    let typed: Vec<OsString> = std::env::args_os().collect();
    run(&typed).into()
}

fn run(typed: &[OsString]) -> ExitCode {
    let args = match Args::try_parse_from(typed) {
        Ok(args) => args,
        Err(error) => return not_parsed(typed, &error),
    };
    let mut job = match job::from_args(args) {
        Ok(job) => job,
        Err(error) => {
            return Speaker::new(&Manner::guess(typed)).finish(Err(error));
        }
    };
    let speaker = Speaker::new(&job.manner);
    speaker.hello(job.task.name());
    let ended = refuse_terminal(&job.task)
        .and_then(|()| stop_on_signals())
        .and_then(|stop| {
            name_devices(&mut job, &stop)?;
            work(&job, &speaker, &stop)
        });
    speaker.finish(ended)
}

/// Puts paths in the place of `UUID=` and the like.
fn name_devices(job: &mut Job, stop: &Stop) -> Result<()> {
    // Those of another machine are found over its line.
    if job.reach.target != Target::Local {
        return Ok(());
    }
    for device in job.task.devices_mut() {
        *device = commands::selector::resolve(device, stop)?;
    }
    Ok(())
}

/// The one place where verbs begin.
fn work(job: &Job, speaker: &Speaker, stop: &Stop) -> Result<Report> {
    match &job.task {
        Task::Plan(request) => {
            let plan = {
                let observer = speaker.observer();
                commands::plan::plan(
                    request,
                    &job.reach,
                    observer.as_ref(),
                    stop,
                )?
            };
            speaker.plan(&plan)?;
            Ok(Report::default())
        }
        Task::Image(request) => {
            commands::image(request, &job.reach, &*speaker.observer(), stop)
        }
        Task::Convert(request) => {
            commands::convert(request, speaker.observer().as_ref(), stop)
        }
        Task::Verify(request) => {
            commands::verify(request, speaker.observer().as_ref(), stop)
        }
        Task::Diff(request) => {
            commands::diff(request, &job.reach, &*speaker.observer(), stop)
        }
        Task::Ls(request) => {
            let devices = {
                let observer = speaker.observer();
                commands::ls::ls(request, &job.reach, observer.as_ref(), stop)?
            };
            speaker.devices(&devices)?;
            let count: usize =
                devices.iter().map(|d| d.with_partitions().count()).sum();
            Ok(Report::default().fact("devices", count))
        }
        Task::Probe => {
            commands::probe(&job.reach, speaker.observer().as_ref(), stop)
        }
        Task::Console(request) => {
            let observer = speaker.observer();
            let mut desk = terminal::desk(&job.manner, observer.as_ref());
            commands::console(request, &job.reach, desk.as_mut(), stop)
        }
        Task::Power(request) => {
            let observer = speaker.observer();
            commands::power(request, &job.reach, observer.as_ref(), stop)
        }
        Task::Install(request) => {
            let (report, plan) = {
                let observer = speaker.observer();
                commands::install(request, &job.reach, &*observer, stop)?
            };
            plan.map_or(Ok(()), |plan| speaker.write_plan(&plan))?;
            Ok(report)
        }
        Task::Undo(request) => {
            let (report, plan) = {
                let observer = speaker.observer();
                commands::undo(request, &job.reach, &*observer, stop)?
            };
            plan.map_or(Ok(()), |plan| speaker.write_plan(&plan))?;
            Ok(report)
        }
        Task::Completions(shell) => manual::completions(*shell, speaker),
        Task::Man { page, into } => {
            manual::man(page.as_deref(), into.as_deref(), speaker)
        }
    }
}

/// Help, the version, or a command line that clap cannot make sense of.
fn not_parsed(typed: &[OsString], error: &clap::Error) -> ExitCode {
    let text = error.render().to_string();
    match error.kind() {
        ClapErrorKind::DisplayHelp | ClapErrorKind::DisplayVersion => {
            // Asked for, so it is the answer: never NDJSON.
            let speaker = Speaker::new(&Manner::default());
            let written =
                speaker.answer(format!("{}\n", text.trim_end()).as_bytes());
            speaker.finish(written.map(|()| Report::default()))
        }
        ClapErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let error = Error::new(ErrorKind::Usage, "no command given")
                .hint("e2wire --help lists the commands");
            Speaker::new(&Manner::guess(typed)).finish(Err(error))
        }
        kind => Speaker::new(&Manner::guess(typed))
            .finish(Err(usage_error(typed, kind, text))),
    }
}

/// What clap says in several paragraphs, as an error of ours: the first is
/// what is wrong, tips and usage are what to try.
fn usage_error(
    typed: &[OsString],
    kind: ClapErrorKind,
    mut text: String,
) -> Error {
    // The arguments stand in the text: no blank line of theirs may look like
    // a paragraph of clap's.
    for argument in typed {
        let argument = argument.to_string_lossy();
        let escaped = text::escape(&argument);
        if escaped != argument {
            text = text.replace(argument.as_ref(), &escaped);
        }
    }
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let mut paragraphs = text.split("\n\n").map(|paragraph| {
        let words: Vec<&str> = paragraph.split_whitespace().collect();
        words.join(" ")
    });
    let what = paragraphs.next().unwrap_or_default();
    let tips: Vec<String> = paragraphs
        .filter_map(|paragraph| {
            let usage = || {
                // For a conflict clap shows half of what was typed.
                let helps = kind != ClapErrorKind::ArgumentConflict;
                paragraph.strip_prefix("Usage: ").filter(|_| helps)
            };
            let tip = paragraph.strip_prefix("tip: ").or_else(usage)?;
            Some(tip.to_owned())
        })
        .chain(["--help says more".to_owned()])
        .collect();
    Error::new(ErrorKind::Usage, what).hint(tips.join("; "))
}

/// An image on a terminal helps nobody, and may leave it unusable.
fn refuse_terminal(task: &Task) -> Result<()> {
    if !task.takes_stdout() || !std::io::stdout().is_terminal() {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Refused, "the image would go to the terminal")
        .intact("nothing was read or written")
        .hint("redirect standard output, or name a file"))
}

/// A flag that SIGINT and SIGTERM set. The second one ends the program at
/// once: the first was not answered, perhaps because a disk does not.
fn stop_on_signals() -> Result<Stop> {
    use signal_hook::consts::{SIGINT, SIGTERM, SIGXFSZ};
    use signal_hook::flag;

    let uncaught = |error| {
        Error::new(ErrorKind::Internal, "cannot catch signals").because(error)
    };
    let stop = Stop::new();
    let status = i32::from(ExitCode::Interrupted.number());
    for signal in [SIGINT, SIGTERM] {
        // In this order: the first signal finds the flag unset.
        flag::register_conditional_shutdown(signal, status, stop.flag())
            .and_then(|_| flag::register(signal, stop.flag()))
            .map_err(uncaught)?;
    }
    // Caught, so that a file that may not grow is an error that we can tell
    // of, and not our end.
    flag::register(SIGXFSZ, Arc::default()).map_err(uncaught)?;
    Ok(stop)
}
