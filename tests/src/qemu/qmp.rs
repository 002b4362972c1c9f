//! QEMU's own console, by its machine protocol (QMP).

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

/// A connection to the monitor of one machine.
#[derive(Debug)]
pub struct Qmp {
    reader: BufReader<UnixStream>,
}

impl Qmp {
    /// Connects and greets.
    ///
    /// # Errors
    ///
    /// When QEMU does not answer in time.
    pub fn connect(socket: &Path) -> Result<Self> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        stream.set_write_timeout(Some(Duration::from_secs(20)))?;
        let mut qmp = Self { reader: BufReader::new(stream) };
        let greeting = qmp.line()?;
        ensure!(greeting.get("QMP").is_some(), "not QMP: {greeting}");
        qmp.execute("qmp_capabilities", &json!({}))?;
        Ok(qmp)
    }

    /// Runs a command and returns what it returned.
    ///
    /// # Errors
    ///
    /// What QEMU says against it.
    pub fn execute(&mut self, command: &str, with: &Value) -> Result<Value> {
        let request = json!({"execute": command, "arguments": with});
        let stream = self.reader.get_mut();
        writeln!(stream, "{request}").context("QEMU takes no commands")?;
        loop {
            let mut reply = self.line()?;
            if let Some(error) = reply.get("error") {
                bail!("QEMU refuses {command}: {error}");
            }
            // Events come in between.
            if let Some(value) = reply.get_mut("return") {
                return Ok(value.take());
            }
        }
    }

    fn line(&mut self) -> Result<Value> {
        let mut line = String::new();
        let count =
            self.reader.read_line(&mut line).context("QEMU does not answer")?;
        ensure!(count > 0, "QEMU has closed its monitor");
        Ok(serde_json::from_str(&line)?)
    }
}
