//! `probe`: who answers at the other end of a line, and what is there when
//! nobody does.

mod seen;

use std::time::Duration;

use e2wire_protocol::coding::Coding;
use e2wire_protocol::message::Rights;

use crate::commands::reach::{Reach, session};
use crate::commands::{Outcome, Report};
use crate::error::{Error, ErrorKind, Result};
use crate::observer::{Event, Observer};
use crate::remote::client::AgentFacts;
use crate::remote::session::Session;
use crate::remote::target::Target;
use crate::stop::Stop;
use crate::text;
use seen::{Diagnosis, diagnose};

/// Speeds that consoles have, the usual ones first.
const SPEEDS: [u32; 9] = [
    115_200, 9600, 57_600, 38_400, 19_200, 230_400, 460_800, 921_600, 1_500_000,
];

/// How long each of them is tried: several Hellos, and an answer of some
/// hundred bytes at the slowest.
const SPEED_PATIENCE: Duration = Duration::from_millis(1200);
const SLOW_SPEED_PATIENCE: Duration = Duration::from_millis(3500);

/// Asks who is there.
///
/// # Errors
///
/// [`ErrorKind::NoLink`] when no agent answers, with what was seen instead
/// and what to do about it.
pub fn probe(
    reach: &Reach,
    observer: &dyn Observer,
    stop: &Stop,
) -> Result<Report> {
    reach.require_line("probe looks at the other end of a line")?;
    let mut session = session(reach, stop)?;
    match session.connect() {
        Ok(agent) => {
            let rate = match session.measure() {
                Err(error) if error.kind() == ErrorKind::Interrupted => {
                    return Err(error);
                }
                // An agent that may not read is an answer, too.
                measured => measured.unwrap_or_default(),
            };
            Ok(report(&session, &agent, rate))
        }
        Err(error)
            if error.kind() == ErrorKind::NoLink && session.seen().opened =>
        {
            let first = diagnose(session.seen());
            // The port must be free before it is opened at another speed.
            drop(session);
            Err(explain(reach, &error, first, observer, stop)?)
        }
        Err(error) => Err(error),
    }
}

fn report(
    session: &Session<'_>,
    agent: &AgentFacts,
    rate: Option<u64>,
) -> Report {
    let writable = agent.rights.has(Rights::WRITE);
    let rights = if writable { "read and write" } else { "read only" };
    let round_trip = session.client().round_trip();
    let coding = match session.client().coding() {
        Coding::Binary => "binary",
        Coding::Printable => "printable",
    };
    let report = Report::new(Outcome::Done)
        .line(format!(
            "Agent {} on {} of {}, {rights}, up for {}.",
            agent.version,
            agent.port,
            agent.machine_name(),
            text::duration(agent.uptime_millis / 1000)
        ))
        .line(format!(
            "The line: {coding} coding, {} ms there and back.",
            round_trip.as_millis()
        ))
        .fact("agent", agent.version.clone())
        .fact("port", agent.port.clone())
        .fact("host", agent.host.clone())
        .fact("machine", agent.machine())
        .fact("boot", hex(&agent.boot.0))
        .fact("writable", writable)
        .fact("coding", coding)
        .fact("round_trip_ms", round_trip.as_secs_f64() * 1000.0);
    match rate {
        Some(rate) => report
            .line(format!("It carries {rate} bytes a second."))
            .fact("bytes_per_second", rate),
        None => report,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The error that nobody answered, with what is there instead.
///
/// # Errors
///
/// [`ErrorKind::Interrupted`] when asked to stop on the way.
fn explain(
    reach: &Reach,
    error: &Error,
    mut found: Diagnosis,
    observer: &dyn Observer,
    stop: &Stop,
) -> Result<Error> {
    if let Target::Serial { baud, .. } = &reach.target
        && !found.readable
    {
        observer.event(&Event::Warning {
            code: "other_speeds",
            message: format!(
                "at {baud} baud {}; trying other speeds, which takes about \
                 {} s",
                found.what,
                search_time(*baud).as_secs()
            ),
        });
        if let Some(other) = at_other_speeds(reach, stop)? {
            found = other;
        } else {
            found.what.push_str(", also at the other usual speeds");
        }
    }
    Ok(Error::new(ErrorKind::NoLink, format!("{error}; {}", found.what))
        .hint(found.hint))
}

/// How long a speed is tried.
const fn patience_at(baud: u32) -> Duration {
    if baud < 20_000 { SLOW_SPEED_PATIENCE } else { SPEED_PATIENCE }
}

/// How long all speeds but this one take.
fn search_time(named: u32) -> Duration {
    let others = SPEEDS.into_iter().filter(|baud| *baud != named);
    others.map(patience_at).sum()
}

/// What there is at another speed than the one that was named.
fn at_other_speeds(reach: &Reach, stop: &Stop) -> Result<Option<Diagnosis>> {
    let Target::Serial { path, baud: named, flow } = &reach.target else {
        return Ok(None);
    };
    for baud in SPEEDS.into_iter().filter(|baud| baud != named) {
        let mut other = reach.clone();
        other.target = Target::Serial { path: path.clone(), baud, flow: *flow };
        other.patience.appear = None;
        other.patience.connect = patience_at(baud);
        let mut session = session(&other, stop)?;
        let hint = format!("it is -t '{}'", other.target);
        match session.connect() {
            Ok(agent) => {
                let what = format!(
                    "but one does at {baud} baud, on {}",
                    agent.machine_name()
                );
                return Ok(Some(Diagnosis { what, hint, readable: true }));
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {
                return Err(error);
            }
            // Not every adapter reaches every speed.
            Err(_) => {}
        }
        let found = diagnose(session.seen());
        if found.readable {
            let what = format!("the line runs at {baud} baud: {}", found.what);
            let hint = format!("{hint}; {}", found.hint);
            return Ok(Some(Diagnosis { what, hint, readable: true }));
        }
    }
    Ok(None)
}
