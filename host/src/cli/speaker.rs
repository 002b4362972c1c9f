//! Everything that is printed is printed here: answers, reports, errors,
//! events. So there is one place that escapes, one that knows what a reader
//! who went away means, and one that decides how the program ends.

use std::ffi::OsString;
use std::io::{self, IsTerminal as _, Write as _};
use std::time::Instant;

use crate::cli::exit::ExitCode;
use crate::cli::json::Json;
use crate::cli::listing::{table, tree, write_table};
use crate::cli::progress::{Bar, Lines};
use crate::commands::Report;
use crate::commands::plan::Plan;
use crate::commands::writing::WritePlan;
use crate::error::{Error, Result};
use crate::inventory::Device;
use crate::observer::Observer;
use crate::text;

/// One of the two streams of this process.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Stream {
    /// Standard output.
    #[default]
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    /// Writes all of `bytes`.
    ///
    /// A reader who went away (`| head`) is no error: whoever cares about the
    /// job still gets its exit code.
    pub(super) fn write(self, bytes: &[u8]) -> io::Result<()> {
        let written = match self {
            Self::Stdout => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(bytes).and_then(|()| stdout.flush())
            }
            Self::Stderr => io::stderr().lock().write_all(bytes),
        };
        match written {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => other,
        }
    }

    /// Writes what nobody can be told about when it fails.
    pub(super) fn say(self, text: &str) {
        let _ = self.write(text.as_bytes());
    }
}

/// How to speak.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Manner {
    /// NDJSON instead of text.
    pub json: bool,
    /// No progress, no report.
    pub quiet: bool,
    /// Every finding.
    pub verbose: bool,
    /// Where reports and events go: not where an image goes.
    pub text: Stream,
}

impl Manner {
    /// The manner that was meant by arguments that could not be understood:
    /// a script that asked for JSON gets its last line in any case.
    pub(super) fn guess(typed: &[OsString]) -> Self {
        let mut options =
            typed.iter().skip(1).take_while(|argument| *argument != "--");
        let has = |wanted: &str| typed.iter().any(|typed| typed == wanted);
        Self {
            json: options.any(|argument| argument == "--json"),
            text: if has("-") { Stream::Stderr } else { Stream::Stdout },
            ..Self::default()
        }
    }
}

/// Speaks to whoever started the program.
#[derive(Debug)]
pub(super) struct Speaker {
    manner: Manner,
    json: Option<Json>,
    started: Instant,
}

impl Speaker {
    pub(super) fn new(manner: &Manner) -> Self {
        Self {
            json: manner.json.then(|| Json::new(manner.text)),
            manner: manner.clone(),
            started: Instant::now(),
        }
    }

    /// Says who speaks; only scripts want to know.
    pub(super) fn hello(&self, command: &str) {
        if let Some(json) = &self.json {
            json.hello(command);
        }
    }

    /// Who watches the job.
    pub(super) fn observer(&self) -> Box<dyn Observer + '_> {
        let Manner { quiet, verbose, .. } = self.manner;
        if let Some(json) = &self.json {
            return Box::new(json.watch());
        }
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        if quiet || dumb || !io::stderr().is_terminal() {
            return Box::new(Lines::new(quiet, verbose));
        }
        let columns = columns(Stream::Stderr).unwrap_or(COLUMNS_DEFAULT);
        Box::new(Bar::new(columns, verbose))
    }

    /// Prints a whole answer as it is: a script, a manual page. Made by us,
    /// so nothing is escaped.
    ///
    /// # Errors
    ///
    /// When standard output cannot be written to.
    pub(super) fn answer(&self, bytes: &[u8]) -> Result<()> {
        if let Some(json) = &self.json {
            json.text(&String::from_utf8_lossy(bytes));
            return Ok(());
        }
        self.manner.text.write(bytes).map_err(unwritable)
    }

    /// Lists devices.
    ///
    /// # Errors
    ///
    /// When standard output cannot be written to.
    pub(super) fn devices(&self, devices: &[Device]) -> Result<()> {
        if let Some(json) = &self.json {
            for disk in devices {
                json.device(disk, None);
                for part in &disk.partitions {
                    json.device(part, Some(&disk.path));
                }
            }
            return Ok(());
        }
        let text = tree(devices, columns(self.manner.text));
        self.manner.text.write(text.as_bytes()).map_err(unwritable)
    }

    /// Shows what an image would cost.
    ///
    /// # Errors
    ///
    /// When standard output cannot be written to.
    pub(super) fn plan(&self, plan: &Plan) -> Result<()> {
        if let Some(json) = &self.json {
            json.plan(plan);
            return Ok(());
        }
        self.manner.text.write(table(plan).as_bytes()).map_err(unwritable)
    }

    /// Shows what would be written, and how to say yes.
    ///
    /// # Errors
    ///
    /// When standard output cannot be written to.
    pub(super) fn write_plan(&self, plan: &WritePlan) -> Result<()> {
        if let Some(json) = &self.json {
            json.write_plan(plan);
            return Ok(());
        }
        let text = write_table(plan);
        self.manner.text.write(text.as_bytes()).map_err(unwritable)
    }

    /// Tells how it ended and says with which code to end.
    pub(super) fn finish(self, ended: Result<Report>) -> ExitCode {
        let code = match &ended {
            Ok(report) => report.outcome.into(),
            Err(error) => error.kind().into(),
        };
        if let Some(json) = &self.json {
            let told = json.result(&ended, code, self.started.elapsed());
            return match told.map_err(unwritable) {
                Ok(()) => code,
                Err(error) => {
                    complain(&error);
                    error.kind().into()
                }
            };
        }
        match ended {
            Ok(report) => match self.print(&report) {
                Ok(()) => code,
                Err(error) => {
                    complain(&error);
                    error.kind().into()
                }
            },
            Err(error) => {
                complain(&error);
                code
            }
        }
    }

    fn print(&self, report: &Report) -> Result<()> {
        if self.manner.quiet {
            return Ok(());
        }
        let mut text = String::new();
        for line in &report.lines {
            text.push_str(&text::escape(line));
            text.push('\n');
        }
        self.manner.text.write(text.as_bytes()).map_err(unwritable)
    }
}

/// What a terminal has that does not know its size; a serial console often
/// does not.
const COLUMNS_DEFAULT: u16 = 80;

/// The width of the terminal behind a stream, if there is one.
fn columns(stream: Stream) -> Option<u16> {
    let size = match stream {
        Stream::Stdout => rustix::termios::tcgetwinsize(io::stdout()),
        Stream::Stderr => rustix::termios::tcgetwinsize(io::stderr()),
    };
    size.ok().map(|size| match size.ws_col {
        0 => COLUMNS_DEFAULT,
        columns => columns,
    })
}

/// An error as people read it: what and where, what is intact, what to try.
fn complain(error: &Error) {
    let mut said = format!("e2wire: {}\n", text::escape(&error.to_string()));
    for (label, line) in
        [("intact", error.what_is_intact()), ("try", error.what_to_try())]
    {
        if let Some(line) = line {
            said.push_str(&format!("  {label}: {}\n", text::escape(line)));
        }
    }
    Stream::Stderr.say(&said);
}

fn unwritable(error: io::Error) -> Error {
    Error::io("cannot write to standard output", error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_understood_is_still_answered_in_json() {
        let guess = |typed: &str| {
            let typed: Vec<OsString> =
                typed.split(' ').map(OsString::from).collect();
            let manner = Manner::guess(&typed);
            (manner.json, manner.text)
        };
        assert_eq!(guess("e2wire image --json x"), (true, Stream::Stdout));
        assert_eq!(guess("e2wire --json image x -"), (true, Stream::Stderr));
        assert_eq!(guess("e2wire image -- --json"), (false, Stream::Stdout));
    }
}
