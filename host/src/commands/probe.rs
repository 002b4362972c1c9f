//! `probe`: who answers at the other end of a line, and what is there when
//! nobody does.

use crate::commands::reach::{Reach, session};
use crate::commands::{Outcome, Report};
use crate::error::{Error, ErrorKind, Result};
use crate::observer::Observer;
use crate::remote::session::Seen;
use crate::remote::target::Target;
use crate::stop::Stop;
use crate::text;

use e2wire_protocol::message::Rights;

/// Asks who is there.
///
/// # Errors
///
/// [`ErrorKind::NoLink`] when no agent answers, with what was seen instead
/// and what to do about it.
pub fn probe(reach: &Reach, _: &dyn Observer, stop: &Stop) -> Result<Report> {
    if reach.target == Target::Local {
        return Err(Error::new(
            ErrorKind::Usage,
            "probe looks at the other end of a line",
        )
        .hint("name the line with --target, as serial:/dev/ttyUSB0"));
    }
    let mut session = session(reach, stop)?;
    let agent = match session.connect() {
        Ok(agent) => agent,
        Err(error) if error.kind() == ErrorKind::NoLink => {
            return Err(explain(error, session.seen()));
        }
        Err(error) => return Err(error),
    };
    let rights = if agent.rights.has(Rights::WRITE) {
        "read and write"
    } else {
        "read only"
    };
    let round_trip = session.client().round_trip();
    Ok(Report::new(Outcome::Done)
        .line(format!(
            "Agent {} on {} of {}, {rights}, up for {}.",
            agent.version,
            agent.port,
            agent.machine_name(),
            text::duration(agent.uptime_millis / 1000)
        ))
        .line(format!(
            "The line: {} coding, {} ms there and back.",
            match session.client().coding() {
                e2wire_protocol::coding::Coding::Binary => "binary",
                e2wire_protocol::coding::Coding::Printable => "printable",
            },
            round_trip.as_millis()
        ))
        .fact("agent", agent.version)
        .fact("port", agent.port)
        .fact("host", agent.host)
        .fact("writable", agent.rights.has(Rights::WRITE))
        .fact("round_trip_ms", round_trip.as_secs_f64() * 1000.0))
}

/// Adds what was seen on the line to the error that nobody answered.
fn explain(error: Error, seen: &Seen) -> Error {
    if seen.bytes == 0 && error.what_to_try().is_some() && !is_silence(&error) {
        // The port did not even open.
        return error;
    }
    let (what, hint) = diagnose(seen);
    Error::new(ErrorKind::NoLink, format!("{error}; {what}")).hint(hint)
}

fn is_silence(error: &Error) -> bool {
    error.to_string().contains("no agent answers")
}

/// What is at the other end, and what to do.
fn diagnose(seen: &Seen) -> (String, &'static str) {
    let shown = String::from_utf8_lossy(&seen.text);
    let has = |words: &[&str]| words.iter().any(|word| shown.contains(word));
    if seen.bytes == 0 {
        return (
            "the line is silent".to_owned(),
            "is the machine on, the cable in the right port, and the agent \
             booted with this port as its console?",
        );
    }
    let strange = seen
        .text
        .iter()
        .filter(|byte| !matches!(byte, b' '..=b'~' | b'\r' | b'\n' | 0x1b))
        .count();
    if strange * 4 > seen.text.len() || seen.text.is_empty() {
        return (
            format!("{} bytes came that are no text", seen.bytes),
            "is the speed right? try ?baud=9600, 38400, 57600",
        );
    }
    if has(&["Kernel panic", "end Kernel panic"]) {
        return (
            "the kernel there has panicked".to_owned(),
            "restart the machine and boot the agent",
        );
    }
    if has(&["login:", "Password:"]) {
        return (
            "a system is running there and asks for a login".to_owned(),
            "log in and boot the agent, by its GRUB entry or kexec",
        );
    }
    if has(&["GNU GRUB", "grub>", "grub rescue>"]) {
        return (
            "GRUB is waiting there".to_owned(),
            "choose the agent's entry, or boot it from the GRUB prompt",
        );
    }
    if has(&["(initramfs)", "# ", "$ "]) {
        return (
            "there seems to be a shell".to_owned(),
            "start the agent from it, or boot it",
        );
    }
    let last = shown.lines().rev().find(|line| !line.trim().is_empty());
    (
        format!("the last line there was: {}", last.unwrap_or("").trim()),
        "wait until the machine has booted the agent, then try again",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_seen_says_what_is_there() {
        for (text, word) in [
            (&b""[..], "silent"),
            (b"\r\nmail7 login: ", "login"),
            (b"GNU GRUB  version 2.06", "GRUB"),
            (b"[ 1.0] Kernel panic - not syncing", "panicked"),
            (b"\xff\xfe\x80\x91\xfc\x00\xe0\xf8", "no text"),
            (b"(initramfs) ", "shell"),
            (b"Loading Linux 6.1 ...\r\n", "Loading Linux"),
        ] {
            let seen = Seen { text: text.to_vec(), bytes: text.len() as u64 };
            let (what, _) = diagnose(&seen);
            assert!(what.contains(word), "{what}");
        }
    }
}
