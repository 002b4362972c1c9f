//! The agent's own log (`--agent-log`), read with the table of its build.
//!
//! An agent sends numbers and values only; the texts stay in its ELF, and in
//! the table `e2wire-agent-BUILD.defmt` that is kept for each build. Without
//! it the frames are shown as they came, in hexadecimal: they can be read
//! later.

use std::path::{Path, PathBuf};

use defmt_decoder::{DecodeError, Table};
use e2wire_protocol::digest::BuildId;

use crate::error::{Error, ErrorKind, Result};
use crate::observer::{Event, Observer};

/// A table has a few KiB, an agent with its debug information some MiB.
const TABLE_BYTES_MAX: u64 = 256 << 20;

/// What never ends is no frame; the agent's own buffer is smaller.
const FRAME_BYTES_MAX: usize = 8 * 1024;

/// How much a message matters. In order: the first matters most.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum LogLevel {
    /// Something does not work.
    Error,
    /// Something may not work.
    Warn,
    /// What happens.
    Info,
    /// What happens inside.
    Debug,
    /// All of it.
    Trace,
}

impl LogLevel {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Error, Self::Warn, Self::Info, Self::Debug, Self::Trace];

    /// What users call it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// What shall be shown of the agent's log.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LogWish {
    /// This level and what matters more.
    pub level: LogLevel,
    /// The table to read it with, instead of the one that is found.
    pub table: Option<PathBuf>,
}

/// Reads the log of one agent after the other.
pub(super) struct AgentLog {
    wish: LogWish,
    folders: Vec<PathBuf>,
    build: Option<BuildId>,
    table: Option<Table>,
    /// The beginning of a frame whose end has not come.
    begun: Vec<u8>,
    /// Where the next bytes have to begin.
    next: u64,
}

impl AgentLog {
    /// Nothing is known of the agent yet.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::LocalIo`] when the table that was named is none.
    pub(super) fn new(wish: LogWish) -> Result<Self> {
        let table = wish.table.as_deref().map(named_table).transpose()?;
        let folders = folders();
        let begun = Vec::new();
        Ok(Self { wish, folders, build: None, table, begun, next: 0 })
    }

    /// This build answers from now on.
    pub(super) fn answers(&mut self, build: BuildId, observer: &dyn Observer) {
        if self.build == Some(build) {
            return;
        }
        self.build = Some(build);
        if self.wish.table.is_some() {
            return;
        }
        self.table = find(&self.folders, build);
        if self.table.is_none() {
            observer.event(&Event::Warning {
                code: "agent_log_unreadable",
                message: format!(
                    "there is no table for the log of agent build {}: it is \
                     shown in hexadecimal. Give the file \
                     e2wire-agent-{0}.defmt that build-initrd wrote with \
                     --agent-log-table",
                    hex(&build.0)
                ),
            });
        }
    }

    /// Takes in what was logged from position `from` on.
    pub(super) fn take(
        &mut self,
        from: u64,
        bytes: &[u8],
        observer: &dyn Observer,
    ) {
        let mut bytes = bytes;
        if from != self.next {
            // What is between is lost, and with it the beginning of a frame.
            self.begun.clear();
            let lost = from != 0;
            let cut = bytes.iter().position(|byte| *byte == 0);
            if lost && let Some(cut) = cut {
                bytes = bytes.get(cut..).unwrap_or(&[]);
            }
        }
        self.next = from.saturating_add(bytes.len() as u64);
        for &byte in bytes {
            if byte != 0 {
                self.begun.push(byte);
            } else if !self.begun.is_empty() {
                self.frame(observer);
                self.begun.clear();
            }
            if self.begun.len() > FRAME_BYTES_MAX {
                self.begun.clear();
            }
        }
    }

    /// Tells the frame that lies in `begun`.
    fn frame(&self, observer: &dyn Observer) {
        let raw = |observer: &dyn Observer| {
            observer.event(&Event::AgentLog {
                level: None,
                time: None,
                text: &hex(&self.begun),
            });
        };
        let Some(table) = &self.table else { return raw(observer) };
        let mut decoder = table.new_stream_decoder();
        decoder.received(&self.begun);
        decoder.received(&[0]);
        let frame = match decoder.decode() {
            Ok(frame) => frame,
            Err(DecodeError::UnexpectedEof | DecodeError::Malformed) => {
                return raw(observer);
            }
        };
        let level = frame.level().and_then(|level| {
            let mut all = LogLevel::ALL.into_iter();
            all.find(|known| known.name() == level.as_str())
        });
        if level.is_some_and(|level| level > self.wish.level) {
            return;
        }
        let time = frame.display_timestamp().map(|time| time.to_string());
        observer.event(&Event::AgentLog {
            level: level.map(LogLevel::name),
            time: time.as_deref(),
            text: &frame.display_message().to_string(),
        });
    }
}

/// Where tables are looked for: here, where data of users and of the system
/// lies, and where this program was built.
fn folders() -> Vec<PathBuf> {
    let mut folders = vec![PathBuf::from(".")];
    let data = std::env::var_os("XDG_DATA_HOME").map(PathBuf::from);
    let data = data
        .filter(|path| path.is_absolute())
        .or_else(|| std::env::home_dir().map(|home| home.join(".local/share")));
    folders.extend(data.map(|data| data.join("e2wire")));
    folders.push(PathBuf::from("/usr/local/share/e2wire"));
    folders.push(PathBuf::from("/usr/share/e2wire"));
    let program = std::env::current_exe().ok();
    let beside = program.as_deref().and_then(Path::parent);
    if let Some(beside) = beside {
        folders.push(beside.to_owned());
        folders.extend(beside.parent().map(|target| target.join("agent")));
    }
    folders
}

/// The table of a build: kept by its name, or in the agent itself.
fn find(folders: &[PathBuf], build: BuildId) -> Option<Table> {
    let id = hex(&build.0);
    let kept = [format!("e2wire-agent-{id}.defmt"), format!("{id}.defmt")];
    for folder in folders {
        for name in &kept {
            // One that cannot be read is as good as none.
            if let Ok(Some(table)) = read_table(&folder.join(name)) {
                return Some(table);
            }
        }
        let agent = folder.join("e2wire-agent");
        let bytes = read_bounded(&agent).unwrap_or_default();
        if build != BuildId::default()
            && bytes.windows(build.0.len()).any(|found| found == build.0)
            && let Ok(Some(table)) = Table::parse(&bytes)
        {
            return Some(table);
        }
    }
    None
}

/// The table that the user named.
fn named_table(path: &Path) -> Result<Table> {
    let what = || format!("{} holds no texts of a log", path.display());
    let hint = "name the file that ends in .defmt, or the agent's ELF";
    match read_table(path) {
        Ok(Some(table)) => Ok(table),
        Ok(None) => Err(Error::new(ErrorKind::LocalIo, what()).hint(hint)),
        Err(error) => Err(Error::new(ErrorKind::LocalIo, what())
            .because(error)
            .hint(hint)),
    }
}

fn read_table(path: &Path) -> std::io::Result<Option<Table>> {
    let bytes = read_bounded(path)?;
    Table::parse(&bytes)
        .map_err(|error| std::io::Error::other(error.to_string()))
}

fn read_bounded(path: &Path) -> std::io::Result<Vec<u8>> {
    let file = std::fs::File::open(path)?;
    if !file.metadata()?.is_file() {
        return Err(std::io::Error::other("it is no regular file"));
    }
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(
        &mut std::io::Read::take(file, TABLE_BYTES_MAX),
        &mut bytes,
    )?;
    Ok(bytes)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use proptest::prelude::*;

    use super::*;

    #[derive(Default)]
    struct Lines(Mutex<Vec<String>>);

    impl Observer for Lines {
        fn event(&self, event: &Event<'_>) {
            let line = match event {
                Event::AgentLog { level, time, text } => {
                    format!(
                        "{} {} {text}",
                        level.unwrap_or("?"),
                        time.is_some()
                    )
                }
                Event::Warning { code, .. } => (*code).to_owned(),
                _ => return,
            };
            self.0.lock().unwrap().push(line);
        }
    }

    fn log(level: LogLevel) -> AgentLog {
        AgentLog {
            wish: LogWish { level, table: None },
            folders: Vec::new(),
            build: None,
            table: None,
            begun: Vec::new(),
            next: 0,
        }
    }

    #[test]
    fn without_a_table_frames_are_shown_as_they_came() {
        let (lines, mut log) = (Lines::default(), log(LogLevel::Info));
        log.answers(BuildId([7; 20]), &lines);
        log.answers(BuildId([7; 20]), &lines);
        log.take(0, &[1, 2, 0, 3], &lines);
        log.take(4, &[4, 0, 0], &lines);
        // Some was lost: what is left of the frame in between is none.
        log.take(20, &[9, 9, 0, 5, 0], &lines);
        let lines = lines.0.into_inner().unwrap();
        let expected = ["agent_log_unreadable", "? false 0102", "? false 0304"];
        assert_eq!(lines[..3], expected);
        assert_eq!(lines[3..], ["? false 05"]);
    }

    /// The table of a real agent.
    fn table() -> Table {
        // In memory of its own: an ELF header has to be aligned.
        let bytes = include_bytes!("agent_log/sample.defmt").to_vec();
        Table::parse(&bytes).unwrap().unwrap()
    }

    proptest! {
        /// What an agent sends is never trusted.
        #[test]
        fn no_bytes_of_an_agent_end_the_job(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
            first in 0_u8..40,
        ) {
            let (lines, mut log) = (Lines::default(), log(LogLevel::Trace));
            log.table = Some(table());
            // The number of some message, rzcobs leaves it as it is often.
            let mut frame = vec![first, 0x7f];
            frame.extend(bytes);
            log.take(0, &frame, &lines);
            log.take(frame.len() as u64, &[0], &lines);
        }
    }
}
