//! `console`: joins a terminal with the other end of a line.
//!
//! Works on the line itself, without a session: whoever is there, a kernel, a
//! boot loader, a login prompt, is shown as it is and gets what is typed.
//! Frames of an agent are left out. Where a line leads to nothing but an
//! agent, the kernel's log is asked for instead.

mod escape;
mod kernel;

use std::sync::mpsc::Receiver;
use std::time::Duration;

use e2wire_protocol::frame::{Decoder, Event};
use e2wire_protocol::message::LogStream;

use crate::commands::reach::{Reach, session};
use crate::commands::{Outcome, Report};
use crate::error::{Error, ErrorKind, Result};
use crate::remote::line::{Line, PortLine, Received, Waker};
use crate::remote::moment::Moment;
use crate::remote::port;
use crate::remote::session::not_in_time;
use crate::stop::Stop;
use escape::{Escape, Wish};
use kernel::KernelText;

/// The wish to stop is looked at so often.
const TICK: Duration = Duration::from_millis(200);

/// What looks like the beginning of a frame is none when it stops for so
/// long.
const EXPIRE_AFTER: Duration = Duration::from_millis(300);

/// The agent waits so long for something to be logged; keys wait as long.
const LOG_WAIT_MILLIS: u32 = 300;

/// What to join.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ConsoleRequest {
    /// The key that commands begin with.
    pub escape: u8,
    /// Show the kernel's log, asked from the agent, instead of the line.
    pub kernel_log: bool,
}

/// The near end of a console.
pub trait Desk {
    /// Begins to take keys; `waker`, if there is one, is called whenever some
    /// were typed. Once the channel is closed there are no more.
    ///
    /// # Errors
    ///
    /// When the terminal cannot be set up.
    fn start(&mut self, waker: Option<Waker>) -> Result<Receiver<Vec<u8>>>;

    /// Shows what came, as it came.
    ///
    /// # Errors
    ///
    /// When nobody can see it.
    fn show(&mut self, bytes: &[u8]) -> Result<()>;

    /// Says something of our own to whoever sits there.
    fn note(&mut self, text: &str);
}

/// Joins `desk` with the other end of a line, until the escape key ends it.
///
/// # Errors
///
/// [`ErrorKind::Usage`] for this machine; [`ErrorKind::NoLink`] when the line
/// does not open, or ends; [`ErrorKind::Interrupted`] when asked to stop or
/// when the deadline has come.
pub fn console(
    request: &ConsoleRequest,
    reach: &Reach,
    desk: &mut dyn Desk,
    stop: &Stop,
) -> Result<Report> {
    reach.require_line("a console is at the other end of a line")?;
    let line = PortLine::new(port::of(&reach.target)?);
    if request.kernel_log || !line.nature().console {
        return follow_kernel(request, reach, desk, stop);
    }
    Joined {
        line,
        escape: Escape::new(request.escape),
        decoder: Box::default(),
        deadline: reach.patience.deadline,
        stop,
    }
    .run(reach, desk)
}

fn left() -> Report {
    Report::new(Outcome::Done)
}

/// A desk and a line, joined.
struct Joined<'a> {
    line: PortLine,
    escape: Escape,
    decoder: Box<Decoder>,
    deadline: Option<Duration>,
    stop: &'a Stop,
}

impl Joined<'_> {
    fn run(mut self, reach: &Reach, desk: &mut dyn Desk) -> Result<Report> {
        let mut patience = reach.patience.connect;
        if let Some(deadline) = self.deadline {
            patience = patience.min(deadline);
        }
        self.line.open(patience, self.stop)?;
        let keys = desk.start(self.line.waker())?;
        desk.note(&format!("{}; {}", self.line.name(), self.escape.help()));
        let mut bytes = Vec::new();
        let mut quiet_at = Moment::NEVER;
        loop {
            self.stop.check()?;
            let now = self.line.now();
            if let Some(deadline) = self.deadline
                && now.since_start() >= deadline
            {
                return Err(not_in_time(deadline));
            }
            for typed in keys.try_iter() {
                if self.typed(&typed, desk)? {
                    return Ok(left());
                }
            }
            bytes.clear();
            let until = now.after(TICK).min(quiet_at);
            let received = self.line.receive(until, &mut bytes);
            self.heard(&bytes, desk)?;
            if let Received::Closed(why) = received {
                return Err(Error::new(
                    ErrorKind::NoLink,
                    format!("{} ended: {why}", self.line.name()),
                ));
            }
            let now = self.line.now();
            if !bytes.is_empty() {
                quiet_at = now.after(EXPIRE_AFTER);
            } else if quiet_at <= now {
                self.expire(desk)?;
                quiet_at = Moment::NEVER;
            }
        }
    }

    /// Sends what was typed; true when that was the wish to leave.
    fn typed(&mut self, typed: &[u8], desk: &mut dyn Desk) -> Result<bool> {
        for wish in self.escape.take(typed) {
            match wish {
                Wish::Send(bytes) => self.line.send(&bytes),
                Wish::Leave => return Ok(true),
                Wish::Break => match self.line.send_break() {
                    Ok(()) => desk.note("break sent"),
                    Err(error) => desk.note(&error.to_string()),
                },
                Wish::Help => desk.note(&self.escape.help()),
            }
        }
        Ok(false)
    }

    fn heard(&mut self, bytes: &[u8], desk: &mut dyn Desk) -> Result<()> {
        let mut input = bytes;
        while let Some(found) = self.decoder.next(&mut input) {
            match found {
                Event::Text(text) | Event::Broken(text) => desk.show(text)?,
                Event::Frame(_) => {}
            }
        }
        Ok(())
    }

    /// What looked like the beginning of a frame was none.
    fn expire(&mut self, desk: &mut dyn Desk) -> Result<()> {
        match self.decoder.expire() {
            Some(Event::Text(text) | Event::Broken(text)) => desk.show(text),
            _ => Ok(()),
        }
    }
}

/// Shows what the kernel of an agent's machine logs.
fn follow_kernel(
    request: &ConsoleRequest,
    reach: &Reach,
    desk: &mut dyn Desk,
    stop: &Stop,
) -> Result<Report> {
    let mut session = session(reach, stop)?;
    let agent = session.connect()?;
    let mut escape = Escape::new(request.escape);
    let keys = desk.start(None)?;
    desk.note(&format!(
        "what the kernel of {} logs; {}",
        agent.machine_name(),
        escape.help()
    ));
    let mut text = KernelText::default();
    let mut from = 0;
    loop {
        let typed: Vec<u8> = keys.try_iter().flatten().collect();
        for wish in escape.take(&typed) {
            match wish {
                Wish::Leave => return Ok(left()),
                Wish::Send(_) | Wish::Break => {
                    desk.note("an agent takes no keys");
                }
                Wish::Help => desk.note(&escape.help()),
            }
        }
        let (piece, bytes) =
            session.log(LogStream::Kernel, from, LOG_WAIT_MILLIS)?;
        if piece.from > from && from > 0 {
            text.gap();
        }
        from = piece.from.saturating_add(bytes.len() as u64);
        desk.show(&text.take(&bytes))?;
    }
}
