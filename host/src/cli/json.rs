//! The NDJSON stream: one event a line, described in SCHEMA.md.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;
use serde_json::{Map, Value};

use crate::cli::exit::ExitCode;
use crate::cli::listing::{DeviceEvent, PlanEvent, WritePlanEvent};
use crate::cli::progress::{Meter, Pulse, Reading, phase_names};
use crate::cli::speaker::Stream;
use crate::commands::Report;
use crate::commands::plan::Plan;
use crate::commands::writing::WritePlan;
use crate::error::{Error, ErrorKind, Result};
use crate::ext::Finding;
use crate::ext::finding::{Effect, Fault};
use crate::inventory::Device;
use crate::observer::{Event, Observer};
use crate::source::ReadFault;
use crate::text;

/// The version of the schema; it changes when a field changes its meaning,
/// not when one is added.
const VERSION: u32 = 1;

/// `progress` is told this often.
const EVERY: Duration = Duration::from_secs(1);

/// So many `finding` and `hole` events at most: a wrecked disk must not fill
/// the log of whoever reads this.
const INCIDENTS_MAX: u64 = 10_000;

/// One line.
#[derive(Serialize)]
struct Line<'a, T> {
    v: u32,
    seq: u64,
    ts: String,
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(flatten)]
    body: T,
}

#[derive(Serialize)]
struct Hello<'a> {
    tool: &'a str,
    command: &'a str,
}

#[derive(Serialize)]
struct Text<'a> {
    text: &'a str,
}

#[derive(Serialize)]
struct PhaseBegins {
    phase: &'static str,
}

#[derive(Serialize)]
struct Progress {
    phase: &'static str,
    done_bytes: u64,
    total_bytes: u64,
    rate_bps: u64,
    eta_s: Option<u64>,
    idle_s: u64,
}

#[derive(Serialize)]
struct Found {
    structure: &'static str,
    group: Option<u32>,
    inode: Option<u32>,
    block: Option<u64>,
    fault: &'static str,
    value: Option<u64>,
    count: Option<u64>,
    field: Option<&'static str>,
    effect: &'static str,
    copy: Option<u64>,
}

#[derive(Serialize)]
struct Hole {
    first: u64,
    count: u64,
    reason: &'static str,
}

#[derive(Serialize)]
struct Warning<'a> {
    code: &'a str,
    message: &'a str,
}

#[derive(Serialize)]
struct Ended<'a> {
    status: &'a str,
    exit: u8,
    seconds: f64,
    error: Option<Failure<'a>>,
    #[serde(skip_serializing_if = "is_zero")]
    incidents_left_out: u64,
    #[serde(flatten)]
    facts: &'a Map<String, Value>,
}

#[derive(Serialize)]
struct Failure<'a> {
    kind: &'static str,
    message: &'a str,
    intact: Option<&'a str>,
    #[serde(rename = "try")]
    hint: Option<&'a str>,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde calls it with a reference"
)]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Writes events.
#[derive(Clone, Debug)]
pub(super) struct Json {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug)]
struct Shared {
    stream: Stream,
    seq: u64,
    incidents: u64,
    failed: Option<std::io::Error>,
}

impl Json {
    pub(super) fn new(stream: Stream) -> Self {
        let shared = Shared { stream, seq: 0, incidents: 0, failed: None };
        Self { shared: Arc::new(Mutex::new(shared)) }
    }

    /// The first event: who speaks, and about what.
    pub(super) fn hello(&self, command: &str) {
        let tool = env!("CARGO_PKG_VERSION");
        self.write("hello", &Hello { tool, command });
    }

    /// An answer that is no JSON: a script, a manual page.
    pub(super) fn text(&self, text: &str) {
        self.write("text", &Text { text });
    }

    /// A device of a listing.
    pub(super) fn device(&self, device: &Device, parent: Option<&str>) {
        self.write("device", &DeviceEvent::new(device, parent));
    }

    /// What an image would cost.
    pub(super) fn plan(&self, plan: &Plan) {
        self.write("plan", &PlanEvent::new(plan));
    }

    /// What would be written.
    pub(super) fn write_plan(&self, plan: &WritePlan) {
        self.write("plan", &WritePlanEvent::new(plan));
    }

    /// The last event. The error, if the stream itself could not be written
    /// to.
    pub(super) fn result(
        &self,
        ended: &Result<Report>,
        code: ExitCode,
        took: Duration,
    ) -> std::io::Result<()> {
        let none = Map::new();
        let message;
        let (status, error, facts) = match ended {
            Ok(report) => (report.outcome.name(), None, &report.facts),
            Err(error) => {
                message = error.to_string();
                (status(error), Some(failure(error, &message)), &none)
            }
        };
        let incidents_left_out =
            self.lock().incidents.saturating_sub(INCIDENTS_MAX);
        self.write(
            "result",
            &Ended {
                status,
                exit: code.number(),
                seconds: took.as_secs_f64(),
                error,
                incidents_left_out,
                facts,
            },
        );
        match self.lock().failed.take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// An observer that writes here.
    pub(super) fn watch(&self) -> Watch {
        let meter = Arc::new(Mutex::new(Meter::default()));
        let (json, measured) = (self.clone(), Arc::clone(&meter));
        let mut told = None;
        let pulse = Pulse::start(EVERY, move || {
            let reading = measured
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .read(Instant::now());
            if let Some(reading) = reading
                && worth_telling(told.as_ref(), &reading)
            {
                json.write("progress", &progress(&reading));
                told = Some(reading);
            }
        });
        Watch { json: self.clone(), meter, _pulse: pulse }
    }

    fn incident<T: Serialize>(&self, kind: &str, body: &T) {
        let told = {
            let mut shared = self.lock();
            shared.incidents = shared.incidents.saturating_add(1);
            shared.incidents <= INCIDENTS_MAX
        };
        if told {
            self.write(kind, body);
        }
    }

    fn write<T: Serialize>(&self, kind: &str, body: &T) {
        let mut shared = self.lock();
        let line = Line {
            v: VERSION,
            seq: shared.seq,
            ts: text::timestamp(SystemTime::now()),
            kind,
            body,
        };
        let written = serde_json::to_string(&line)
            .map_err(std::io::Error::from)
            .and_then(|line| {
                let line = text::escape_json(&line);
                shared.stream.write(format!("{line}\n").as_bytes())
            });
        shared.seq = shared.seq.saturating_add(1);
        if let Err(error) = written {
            shared.failed.get_or_insert(error);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The observer.
#[derive(Debug)]
pub(super) struct Watch {
    json: Json,
    meter: Arc<Mutex<Meter>>,
    _pulse: Pulse,
}

impl Observer for Watch {
    fn event(&self, event: &Event<'_>) {
        self.meter
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .note(event, Instant::now());
        match event {
            Event::Phase(phase) => {
                let (phase, _) = phase_names(*phase);
                self.json.write("phase", &PhaseBegins { phase });
            }
            // Told by the pulse.
            Event::Progress { .. } => {}
            Event::Finding(finding) => {
                self.json.incident("finding", &found(finding));
            }
            Event::Hole { run, fault } => {
                let hole = Hole {
                    first: run.first().0,
                    count: run.count().0,
                    reason: reason_name(*fault),
                };
                self.json.incident("hole", &hole);
            }
            Event::Console(text) => {
                self.json.write("console", &Console { text });
            }
            Event::AgentLog { level, time, text } => {
                let log = AgentLog { level: *level, time: *time, text };
                self.json.write("agent_log", &log);
            }
            Event::Warning { code, message } => {
                self.json.write("warning", &Warning { code, message });
            }
        }
    }
}

/// A line of text on a console.
#[derive(serde::Serialize)]
struct Console<'a> {
    text: &'a str,
}

/// A message of the agent's own log.
#[derive(serde::Serialize)]
struct AgentLog<'a> {
    level: Option<&'static str>,
    time: Option<&'a str>,
    text: &'a str,
}

/// Whatever moved, and a stall every ten seconds.
fn worth_telling(told: Option<&Reading>, now: &Reading) -> bool {
    let moved = told.is_none_or(|told| {
        (told.phase, told.done, told.total) != (now.phase, now.done, now.total)
    });
    moved || now.idle.checked_rem(10) == Some(0)
}

const fn progress(reading: &Reading) -> Progress {
    Progress {
        phase: phase_names(reading.phase).0,
        done_bytes: reading.done,
        total_bytes: reading.total,
        rate_bps: reading.rate,
        eta_s: reading.left,
        idle_s: reading.idle,
    }
}

fn found(finding: &Finding) -> Found {
    let (fault, value) = match finding.fault {
        Fault::Unreadable => ("unreadable", None),
        Fault::BadMagic => ("bad-magic", None),
        Fault::BadChecksum => ("bad-checksum", None),
        Fault::BadField(_) => ("bad-field", None),
        Fault::OutOfRange(block) => ("out-of-range", Some(block.0)),
        Fault::BadCount(count) => ("bad-count", Some(count)),
        Fault::BadOrder => ("bad-order", None),
        Fault::Cycle(block) => ("cycle", Some(block.0)),
        Fault::DuplicateClaim(block) => ("duplicate-claim", Some(block.0)),
        Fault::Truncated(block) => ("truncated", Some(block.0)),
        Fault::DuplicateIn(run) => ("duplicate-claim", Some(run.first().0)),
        Fault::Missing => ("missing", None),
    };
    Found {
        structure: finding.structure.name(),
        group: finding.group,
        inode: finding.inode,
        block: finding.block.map(|block| block.0),
        fault,
        value,
        effect: match finding.effect {
            Effect::None => "none",
            Effect::EntrySkipped => "entry-skipped",
            Effect::SubtreeSkipped => "subtree-skipped",
            Effect::CopyUsed(_) => "copy-used",
        },
        field: match finding.fault {
            Fault::BadField(name) => Some(name),
            _ => None,
        },
        count: match finding.fault {
            Fault::DuplicateIn(run) => Some(run.count().0),
            _ => None,
        },
        copy: match finding.effect {
            Effect::CopyUsed(block) => Some(block.0),
            _ => None,
        },
    }
}

const fn reason_name(fault: ReadFault) -> &'static str {
    match fault {
        ReadFault::Medium => "medium",
        ReadFault::BeyondEnd => "beyond-end",
        ReadFault::NotInImage => "not-in-image",
        ReadFault::KnownBad => "known-bad",
        ReadFault::Skipped => "skipped",
    }
}

const fn status(error: &Error) -> &'static str {
    match error.kind() {
        ErrorKind::Refused => "refused",
        ErrorKind::Interrupted => "interrupted",
        ErrorKind::Differs => "differs",
        _ => "failed",
    }
}

fn failure<'a>(error: &'a Error, message: &'a str) -> Failure<'a> {
    Failure {
        kind: match error.kind() {
            ErrorKind::Internal => "internal",
            ErrorKind::Usage => "usage",
            ErrorKind::Differs => "differs",
            ErrorKind::Refused => "refused",
            ErrorKind::NotAuthorised => "not-authorised",
            ErrorKind::NoLink => "no-link",
            ErrorKind::Interrupted => "interrupted",
            ErrorKind::NoFilesystem => "no-filesystem",
            ErrorKind::LocalIo => "local-io",
            ErrorKind::WriteIncomplete => "write-incomplete",
            ErrorKind::Protocol => "protocol",
        },
        message,
        intact: error.what_is_intact(),
        hint: error.what_to_try(),
    }
}
