//! The near end of a console: the terminal that e2wire runs in, or the
//! streams that a script gave it.

use std::io::{self, IsTerminal as _, Read as _};
use std::sync::mpsc::{self, Receiver};
use std::thread;

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

use crate::cli::speaker::{Manner, Stream};
use crate::commands::console::Desk;
use crate::commands::reach::ConsoleLines;
use crate::error::{Error, Result};
use crate::observer::Observer;
use crate::remote::line::Waker;

/// Where a console shows what comes, in this manner.
pub(super) fn desk<'o>(
    manner: &Manner,
    observer: &'o dyn Observer,
) -> Box<dyn Desk + 'o> {
    if manner.json {
        let lines = ConsoleLines::default();
        return Box::new(Events { observer, lines });
    }
    Box::new(Terminal { before: None, quiet: manner.quiet })
}

/// Every key goes to the other end, also Ctrl-C, and what comes from there is
/// not touched. Nothing is changed where there is no terminal.
fn raw() -> Result<Option<Termios>> {
    let stdin = io::stdin();
    if !stdin.is_terminal() || !io::stdout().is_terminal() {
        return Ok(None);
    }
    let failed = |error: rustix::io::Errno| {
        Error::io("cannot set up the terminal", error.into())
    };
    let before = tcgetattr(&stdin).map_err(failed)?;
    let mut settings = before.clone();
    settings.make_raw();
    tcsetattr(&stdin, OptionalActions::Now, &settings).map_err(failed)?;
    Ok(Some(before))
}

/// Keys as they are typed, read by a thread that ends with the program.
fn keys(waker: Option<Waker>) -> Receiver<Vec<u8>> {
    let (typed, keys) = mpsc::channel();
    thread::spawn(move || {
        let mut buffer = [0; 1024];
        while let Ok(count @ 1..) = io::stdin().read(&mut buffer) {
            if typed.send(buffer[..count].to_vec()).is_err() {
                return;
            }
            if let Some(waker) = &waker {
                waker.wake();
            }
        }
    });
    keys
}

/// People, or a script's pipes.
struct Terminal {
    /// How the terminal was, when there is one and the console has begun.
    before: Option<Termios>,
    quiet: bool,
}

impl Desk for Terminal {
    fn start(&mut self, waker: Option<Waker>) -> Result<Receiver<Vec<u8>>> {
        self.before = raw()?;
        Ok(keys(waker))
    }

    fn show(&mut self, bytes: &[u8]) -> Result<()> {
        Stream::Stdout.write(bytes).map_err(|error| {
            Error::io("cannot write to standard output", error)
        })
    }

    fn note(&mut self, text: &str) {
        if self.before.is_some() && !self.quiet {
            let text = crate::text::escape(text);
            Stream::Stderr.say(&format!("\r\n[e2wire: {text}]\r\n"));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, before);
            Stream::Stderr.say("\r\n");
        }
    }
}

/// A script that reads events.
struct Events<'o> {
    observer: &'o dyn Observer,
    lines: ConsoleLines,
}

impl Desk for Events<'_> {
    fn start(&mut self, waker: Option<Waker>) -> Result<Receiver<Vec<u8>>> {
        Ok(keys(waker))
    }

    fn show(&mut self, bytes: &[u8]) -> Result<()> {
        self.lines.take(bytes, self.observer);
        Ok(())
    }

    fn note(&mut self, _: &str) {}
}

impl Drop for Events<'_> {
    fn drop(&mut self) {
        // A prompt ends in no line feed.
        self.lines.end(self.observer);
    }
}
