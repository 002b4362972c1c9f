//! The person at the desk: runs the real `e2wire` against a target and reads
//! what it reports.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::qemu::{Machine, wait_for};
use crate::{binaries, compare};

/// Long enough for a boot on a machine that is ten times slower than ours:
/// only a failure takes so long.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// The header of a normal image tells when, where and of what device it was
/// made.
const NORMAL_HEADER_BYTES: usize = 332;

/// A folder to work in, and a target.
#[derive(Debug)]
pub struct Desk {
    target: String,
    folder: tempfile::TempDir,
}

impl Desk {
    /// At the end of a line: `target` is what `e2wire -t` takes.
    ///
    /// # Errors
    ///
    /// When there is no place for a folder.
    pub fn new(target: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        Ok(Self { target: target.to_owned(), folder })
    }

    /// At serial port `index` of a machine.
    ///
    /// # Errors
    ///
    /// When it has no such port.
    pub fn at_port(machine: &Machine, index: usize) -> Result<Self> {
        Self::new(&machine.serial_target(index)?)
    }

    /// At the TCP port that leads to a machine.
    ///
    /// # Errors
    ///
    /// When none does.
    pub fn over_tcp(machine: &Machine) -> Result<Self> {
        Self::new(&format!("tcp:127.0.0.1:{}", machine.forwarded()?))
    }

    /// The folder that commands run in.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where `name` lies in the folder.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Begins a command of e2wire at the target. Of global options that are
    /// given twice, those in `arguments` count.
    ///
    /// # Errors
    ///
    /// When the program cannot be run.
    pub fn start(&self, arguments: &[&str]) -> Result<Job> {
        let seconds = PATIENCE.as_secs();
        let mut command = binaries::e2wire();
        command.args(["--json", "--target", &self.target]);
        for option in ["--connect-timeout", "--wait"] {
            if !arguments.contains(&option) {
                command.args([option, &format!("{seconds}s")]);
            }
        }
        command.args(arguments).current_dir(self.folder());
        Job::start(command)
    }

    /// Runs a command of e2wire at the target to its end.
    ///
    /// # Errors
    ///
    /// When it does not end; not when it fails.
    pub fn run(&self, arguments: &[&str]) -> Result<Said> {
        self.start(arguments)?.finish()
    }

    /// All devices, partitions behind their disks, as `ls` reports them.
    ///
    /// # Errors
    ///
    /// When `ls` fails.
    pub fn devices(&self) -> Result<Vec<Value>> {
        let said = self.run(&["ls"])?.expect(0)?;
        Ok(said.of_type("device").cloned().collect())
    }

    /// The path of the disk with this serial number. Drivers may still be
    /// looking for it.
    ///
    /// # Errors
    ///
    /// When it does not come up.
    pub fn disk(&self, serial: &str) -> Result<String> {
        wait_for(serial, PATIENCE, || {
            let mut devices = self.devices()?.into_iter();
            let disk = devices.find(|device| {
                device["serial"] == serial && device["kind"] == "disk"
            });
            Ok(disk.map(|disk| text_of(&disk["path"]).to_owned()))
        })
    }

    /// Images `device` of the target to the file `output`, and `content`,
    /// which is what lies on it, with the same options on this machine, and
    /// makes sure that both images are the same.
    ///
    /// # Errors
    ///
    /// When one of them fails or they differ.
    pub fn image(
        &self,
        options: &[&str],
        device: &str,
        content: &Path,
        output: &str,
    ) -> Result<Said> {
        let arguments = [&["image"], options, &[device, output]].concat();
        let said = self.run(&arguments)?.expect(0)?;
        self.compare(options, content, output)?;
        Ok(said)
    }

    /// Makes sure that the finished image `output` is what a run with the
    /// same options makes of `content` on this machine.
    ///
    /// # Errors
    ///
    /// Where they differ.
    pub fn compare(
        &self,
        options: &[&str],
        content: &Path,
        output: &str,
    ) -> Result<()> {
        let local = self.local(options, content, output)?;
        if output.ends_with(".e2i") {
            let [one, other] = [&self.path(output), &local].map(fs::read);
            let (one, other) = (one?, other?);
            ensure!(
                one.get(NORMAL_HEADER_BYTES..)
                    == other.get(NORMAL_HEADER_BYTES..),
                "{output} differs behind its header"
            );
        } else {
            let first = compare::first_difference(&self.path(output), &local)?;
            ensure!(first.is_none(), "{output} differs at byte {first:?}");
        }
        let [here, there] = [self.content(output)?, {
            let name = local.file_name().unwrap_or_default();
            self.content(&name.to_string_lossy())?
        }];
        ensure!(here == there, "the manifest of {output} has another digest");
        Ok(())
    }

    /// Images `content` on this machine with the options of the image
    /// `output`; the path of the new image.
    ///
    /// # Errors
    ///
    /// When that fails.
    pub fn local(
        &self,
        options: &[&str],
        content: &Path,
        output: &str,
    ) -> Result<PathBuf> {
        let local = self.path(&format!("local-{output}"));
        let mut command = binaries::e2wire();
        command.args(["--json", "image", "--overwrite"]).args(options);
        if !options.contains(&"--journal") {
            // What is the default over a line only.
            command.args(["--journal", "live"]);
        }
        command.arg(content).arg(&local).current_dir(self.folder());
        Job::start(command)?.finish()?.expect(0)?;
        Ok(local)
    }

    /// The digest of what the image `output` stores, from its manifest.
    fn content(&self, output: &str) -> Result<Value> {
        let path = self.path(&format!("{output}.manifest.json"));
        let named = || format!("cannot read {}", path.display());
        let bytes = fs::read(&path).with_context(named)?;
        let manifest: Value = serde_json::from_slice(&bytes)?;
        let content = manifest["content"].clone();
        ensure!(!content.is_null(), "{} has no digest", path.display());
        Ok(content)
    }
}

/// A running e2wire. It ends with the value.
#[derive(Debug)]
pub struct Job {
    child: Child,
    events: Arc<Mutex<Vec<Value>>>,
    readers: Vec<JoinHandle<Result<String>>>,
}

impl Job {
    fn start(mut command: Command) -> Result<Self> {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("e2wire cannot be run")?;
        let events = Arc::new(Mutex::new(Vec::new()));
        let output = child.stdout.take().context("no standard output")?;
        let mut errors = child.stderr.take().context("no standard error")?;
        let told = Arc::clone(&events);
        let readers = vec![
            std::thread::spawn(move || {
                for line in BufReader::new(output).lines() {
                    let event = serde_json::from_str(&line?)?;
                    told.lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(event);
                }
                Ok(String::new())
            }),
            std::thread::spawn(move || {
                let mut text = String::new();
                errors.read_to_string(&mut text)?;
                Ok(text)
            }),
        ];
        Ok(Self { child, events, readers })
    }

    /// Everything that was reported so far.
    #[must_use]
    pub fn so_far(&self) -> Vec<Value> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for an event.
    ///
    /// # Errors
    ///
    /// When it does not come, or e2wire ends before.
    pub fn wait_for(
        &mut self,
        what: &str,
        is_it: impl Fn(&Value) -> bool,
    ) -> Result<()> {
        wait_for(what, PATIENCE, || {
            let ended = self.child.try_wait()?;
            let events = self.so_far();
            if events.iter().any(&is_it) {
                return Ok(Some(()));
            }
            match ended {
                None => Ok(None),
                Some(status) => bail!("e2wire ended ({status}): {events:#?}"),
            }
        })
    }

    /// Waits for the end.
    ///
    /// # Errors
    ///
    /// When it does not come, or what was printed is no report.
    pub fn finish(mut self) -> Result<Said> {
        let status =
            wait_for("e2wire's end", PATIENCE, || Ok(self.child.try_wait()?))
                .with_context(|| format!("so far: {:#?}", self.so_far()))?;
        let mut errors = String::new();
        for reader in self.readers.drain(..) {
            let text = reader.join().map_err(|_| {
                anyhow::anyhow!("reading e2wire's output panicked")
            })?;
            errors.push_str(&text?);
        }
        Ok(Said { code: status.code(), events: self.so_far(), errors })
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a command reported, to its end.
#[derive(Clone, Debug)]
pub struct Said {
    /// The exit code, `None` when it was killed.
    pub code: Option<i32>,
    /// Its events.
    pub events: Vec<Value>,
    /// Its standard error.
    pub errors: String,
}

impl Said {
    /// Makes sure of the exit code.
    ///
    /// # Errors
    ///
    /// When it is another one; with the whole report.
    pub fn expect(self, code: i32) -> Result<Self> {
        ensure!(
            self.code == Some(code),
            "exit code {code} expected: {self:#?}"
        );
        Ok(self)
    }

    /// All events of a type.
    pub fn of_type<'a>(
        &'a self,
        kind: &'a str,
    ) -> impl Iterator<Item = &'a Value> {
        self.events.iter().filter(move |event| event["type"] == kind)
    }

    /// Whether there was a warning with this code.
    #[must_use]
    pub fn warned_of(&self, code: &str) -> bool {
        self.of_type("warning").any(|warning| warning["code"] == code)
    }

    /// The last event.
    #[must_use]
    pub fn result(&self) -> &Value {
        self.events.last().unwrap_or(&Value::Null)
    }

    /// What was on the line beside the conversation.
    #[must_use]
    pub fn console(&self) -> String {
        let lines = self.of_type("console").map(|event| &event["text"]);
        lines.map(text_of).collect::<Vec<_>>().join("\n")
    }
}

fn text_of(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
