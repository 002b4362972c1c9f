//! The real `e2wire` and the real agent, both builds, over lines of every
//! kind: the image is always the local one.

mod agent_log;
mod console;
mod lab;
mod lines;
mod ports;
mod probe;
mod search;
mod writes;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use e2wire_tests::binaries::e2wire;
use e2wire_tests::fixtures::fixture;

/// A filesystem, and the image that a local run makes of it.
struct Case {
    disk: PathBuf,
    folder: tempfile::TempDir,
    right: Vec<u8>,
}

impl Case {
    fn new(name: &'static str) -> Self {
        let disk = fixture(name).path;
        let folder = tempfile::tempdir().expect("a folder for the images");
        let local = folder.path().join("local.raw");
        let mut command = e2wire();
        command.args(["image", "--no-manifest", "--journal", "full"]);
        done(command.arg(&disk).arg(&local));
        let right = std::fs::read(&local).expect("the local image");
        Self { disk, folder, right }
    }

    fn output(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A command that images the same filesystem over a line.
    fn image(&self, target: &str, output: &Path) -> Command {
        let mut command = e2wire();
        // Machines that test may be ten times slower than ours.
        command.args(["--connect-timeout", "100s", "--wait", "100s"]);
        command.args(["-t", target, "image", "--no-manifest"]);
        command.args(["--journal", "full"]).arg(&self.disk).arg(output);
        command
    }

    /// Images it over a line, and compares.
    fn check(&self, name: &str, target: &str) {
        let output = self.output(name);
        done(&mut self.image(target, &output));
        self.compare(&output);
    }

    fn compare(&self, output: &Path) {
        let image = std::fs::read(output).expect("the image");
        assert!(image == self.right, "{}: another image", output.display());
    }
}

/// Runs a command that must succeed; answers what it printed.
fn done(command: &mut Command) -> String {
    let output = command.output().expect("e2wire can be run");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{command:?}: {said}");
    text(&output)
}

/// What a command printed.
fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}
