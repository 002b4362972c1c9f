//! The audit log: one line of JSON for everything that happens to a device.
//!
//! Only ever appended to, and on the disk before a device is armed. Fields:
//! `ts` (RFC 3339, UTC), `event` (`arm`, `write`, `end`), `verb`, `pid`; of
//! `arm` also `device`, `device_bytes`, `disk`, `plan`, `bytes`, `ranges`,
//! `undo`; of `write` also `at`, `bytes`, `outcome` (`written`, `there`,
//! `conflict`, `failed`); of `end` also `plan`, `result`, `error`.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::{Value, json};

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::install::Arming;
use crate::install::target::{Write, WriteTarget, Written};
use crate::local::places;
use crate::text;
use crate::undo::Facts;
use crate::units::{ByteOffset, ByteRange};

/// Where the log lies when nobody says: in the place that the XDG base
/// directory specification has for state, or here when there is no home.
#[must_use]
pub fn default_path() -> PathBuf {
    let state = places::of_user("XDG_STATE_HOME", ".local/state");
    state.map_or_else(
        || PathBuf::from("e2wire-audit.ndjson"),
        |state| state.join("e2wire/audit.ndjson"),
    )
}

/// An open log.
#[derive(Debug)]
pub struct Audit {
    out: BufWriter<File>,
    name: String,
    verb: &'static str,
}

impl Audit {
    /// Opens the log at `path`, or makes it.
    ///
    /// # Errors
    ///
    /// When it cannot be opened: then nothing is to be written to a device.
    pub fn open(path: &Path, verb: &'static str) -> Result<Self> {
        let name = path.display().to_string();
        if let Some(folder) = path.parent() {
            // What stands in its way, the next call says.
            let _ = std::fs::create_dir_all(folder);
        }
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path)
            .map_err(|error| failed(&name, error))?;
        Ok(Self { out: BufWriter::new(file), name, verb })
    }

    /// A device is about to be armed. On the disk when this returns.
    ///
    /// # Errors
    ///
    /// When the log cannot be written.
    pub fn arm(
        &mut self,
        facts: &Facts,
        arming: &Arming,
        undo: &Path,
    ) -> Result<()> {
        let ranges: Vec<Value> = arming
            .ranges
            .iter()
            .map(|range| json!([range.start().0, range.length().0]))
            .collect();
        self.line(json!({
            "event": "arm",
            "device": facts.device, "device_bytes": facts.device_bytes,
            "disk": facts.disk, "image": facts.image,
            "plan": hex(&arming.plan), "bytes": arming.bytes.0,
            "ranges": ranges, "undo": undo.display().to_string(),
        }))?;
        self.sync()
    }

    /// It is over. On the disk when this returns.
    ///
    /// # Errors
    ///
    /// When the log cannot be written.
    pub fn end<T>(&mut self, plan: &Digest, result: &Result<T>) -> Result<()> {
        let error = result.as_ref().err().map(ToString::to_string);
        let result = if error.is_none() { "done" } else { "failed" };
        self.line(json!({
            "event": "end", "plan": hex(plan), "result": result,
            "error": error,
        }))?;
        self.sync()
    }

    fn write(&mut self, at: u64, bytes: u64, outcome: &str) -> Result<()> {
        self.line(json!({
            "event": "write", "at": at, "bytes": bytes, "outcome": outcome,
        }))
    }

    fn line(&mut self, mut value: Value) -> Result<()> {
        value["ts"] = text::timestamp(SystemTime::now()).into();
        value["verb"] = self.verb.into();
        value["pid"] = std::process::id().into();
        let line = text::escape_json(&value.to_string()).into_owned();
        writeln!(self.out, "{line}").map_err(|e| failed(&self.name, e))
    }

    fn sync(&mut self) -> Result<()> {
        self.out
            .flush()
            .and_then(|()| self.out.get_ref().sync_data())
            .map_err(|error| failed(&self.name, error))
    }
}

fn hex(digest: &Digest) -> String {
    blake3::Hash::from_bytes(*digest).to_string()
}

fn failed(name: &str, error: std::io::Error) -> Error {
    Error::io(format!("cannot write the audit log {name}"), error)
        .hint("--audit FILE names another place")
}

/// A target of which every write is logged.
pub struct Audited<'a> {
    /// What is written to.
    pub target: Box<dyn WriteTarget + 'a>,
    /// The log.
    pub audit: &'a mut Audit,
}

impl Audited<'_> {
    fn logged(
        &mut self,
        at: ByteOffset,
        bytes: &[u8],
        done: Result<Written>,
    ) -> Result<Written> {
        let length = bytes.len() as u64;
        match done {
            Ok(done) => self.outcome(at, length, done).map(|()| done),
            Err(error) => {
                self.audit.write(at.0, length, "failed")?;
                Err(error)
            }
        }
    }

    fn outcome(
        &mut self,
        at: ByteOffset,
        bytes: u64,
        done: Written,
    ) -> Result<()> {
        let outcome = match done {
            Written::Written => "written",
            Written::AlreadyThere => "there",
            Written::Conflict => "conflict",
        };
        self.audit.write(at.0, bytes, outcome)
    }
}

impl WriteTarget for Audited<'_> {
    fn read(&mut self, range: ByteRange) -> Result<Vec<u8>> {
        self.target.read(range)
    }

    fn digests(&mut self, ranges: &[ByteRange]) -> Result<Vec<Digest>> {
        self.target.digests(ranges)
    }

    fn write(
        &mut self,
        at: ByteOffset,
        bytes: &[u8],
        old: &Digest,
    ) -> Result<Written> {
        let done = self.target.write(at, bytes, old);
        self.logged(at, bytes, done)
    }

    fn mend(
        &mut self,
        at: ByteOffset,
        old: &[u8],
        new: &[u8],
    ) -> Result<Written> {
        let done = self.target.mend(at, old, new);
        self.logged(at, new, done)
    }

    fn write_all(
        &mut self,
        writes: &[Write],
        done: &mut dyn FnMut(usize, Written) -> Result<()>,
    ) -> Result<()> {
        let mut ended: Vec<(usize, Written)> = Vec::new();
        let result = self.target.write_all(writes, &mut |place, written| {
            ended.push((place, written));
            done(place, written)
        });
        let mut open = vec![true; writes.len()];
        for (place, written) in ended {
            if let Some(write) = writes.get(place) {
                open[place] = false;
                self.outcome(write.at, write.bytes.len() as u64, written)?;
            }
        }
        if result.is_err() {
            let unknown = writes.iter().zip(open).filter(|(_, open)| *open);
            for (write, _) in unknown {
                let length = write.bytes.len() as u64;
                self.audit.write(write.at.0, length, "failed")?;
            }
        }
        result
    }

    fn was_restarted(&mut self) -> bool {
        self.target.was_restarted()
    }

    fn flush(&mut self) -> Result<()> {
        self.target.flush()
    }

    fn disarm(&mut self) -> Result<()> {
        self.target.disarm()
    }
}
