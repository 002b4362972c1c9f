//! A device that is damaged and mended by `e2wire install` and `undo`, in a
//! folder of its own.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

use crate::fixtures::fixture;
use crate::{binaries, compare, oracle};

/// The folder, with `disk` in it.
#[derive(Debug)]
pub struct Rescue {
    folder: TempDir,
    /// What is damaged and mended.
    pub disk: PathBuf,
}

/// How a command ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// The exit code.
    pub code: i32,
    /// Everything that it said, NDJSON and errors.
    pub said: String,
}

impl Ended {
    /// The event of this type, the last one if there are several.
    ///
    /// # Panics
    ///
    /// When there is none.
    #[must_use]
    pub fn event(&self, kind: &str) -> Value {
        self.said
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .rfind(|event| event["type"] == kind)
            .unwrap_or_else(|| panic!("no event {kind}: {}", self.said))
    }

    /// The token in the plan.
    ///
    /// # Panics
    ///
    /// When there is none.
    #[must_use]
    pub fn token(&self) -> String {
        let plan = self.event("plan");
        let token = plan["confirm"].as_str();
        token.unwrap_or_else(|| panic!("no token: {}", self.said)).to_owned()
    }
}

impl Rescue {
    /// With a copy of the fixture `name` as the disk.
    ///
    /// # Panics
    ///
    /// When the fixture cannot be made.
    #[must_use]
    pub fn new(name: &str) -> Self {
        // In memory where there is such a place: every write is synced.
        let folder = tempfile::tempdir_in("/dev/shm")
            .or_else(|_| tempfile::tempdir_in(crate::target()))
            .expect("a folder");
        let disk = folder.path().join("disk");
        fixture(name).copy_to(&disk).expect("a copy of the fixture");
        Self { folder, disk }
    }

    /// A file in the folder.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Makes an image of the disk.
    ///
    /// # Panics
    ///
    /// When that fails.
    #[must_use]
    pub fn image(&self, name: &str, options: &[&str]) -> PathBuf {
        let output = self.path(name);
        let mut command = self.e2wire(&["image", "--no-sync"]);
        command.args(options).arg(&self.disk).arg(&output);
        oracle::assert_success("e2wire image", &oracle::run(&mut command));
        output
    }

    /// A copy of a file in the folder, holes and all.
    ///
    /// # Panics
    ///
    /// When that fails.
    #[must_use]
    pub fn copy(&self, from: &Path, name: &str) -> PathBuf {
        let to = self.path(name);
        let mut command = Command::new("cp");
        command.args(["--sparse=always", "--"]).arg(from).arg(&to);
        oracle::assert_success("cp", &oracle::run(&mut command));
        to
    }

    /// e2wire, in this folder, with the log in it.
    #[must_use]
    pub fn e2wire(&self, words: &[&str]) -> Command {
        let mut command = binaries::e2wire();
        command
            .current_dir(self.folder.path())
            .env("XDG_STATE_HOME", self.folder.path())
            .args(words);
        command
    }

    /// Runs e2wire with `--json`.
    ///
    /// # Panics
    ///
    /// When it dies.
    #[must_use]
    pub fn run(&self, words: &[&str]) -> Ended {
        let words = [&["--json"], words].concat();
        let output: Output = oracle::run(&mut self.e2wire(&words));
        let said = oracle::text(&output);
        let code = output.status.code();
        let code = code.unwrap_or_else(|| panic!("{words:?} died: {said}"));
        Ended { code, said }
    }

    /// Runs a command that wants a confirmation, and confirms it; answers the
    /// token.
    ///
    /// # Panics
    ///
    /// When either run ends otherwise than it should, or the first one writes
    /// to the disk.
    #[expect(
        clippy::must_use_candidate,
        reason = "it changes the disk; not every test goes back"
    )]
    pub fn confirm(&self, words: &[&str]) -> String {
        let before = std::fs::read(&self.disk).expect("the disk");
        let planned = self.run(words);
        assert_eq!(planned.code, 5, "{words:?}: {}", planned.said);
        let now = std::fs::read(&self.disk).expect("the disk");
        assert!(now == before, "{words:?} wrote without a confirmation");
        let token = planned.token();
        let done = self.run(&[words, &["--confirm", &token]].concat());
        assert_eq!(done.code, 0, "{words:?}: {}", done.said);
        token
    }

    /// Writes over the disk.
    ///
    /// # Panics
    ///
    /// When that fails.
    pub fn poke(&self, at: u64, bytes: &[u8]) {
        poke(&self.disk, at, bytes);
    }

    /// What the disk holds.
    ///
    /// # Panics
    ///
    /// When it cannot be read.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        std::fs::read(&self.disk).expect("the disk")
    }

    /// Fails when the disk is not as `other`.
    ///
    /// # Panics
    ///
    /// Then, with the first byte that differs.
    pub fn assert_same(&self, other: &Path, when: &str) {
        let differs = compare::first_difference(&self.disk, other);
        assert_eq!(differs.expect("both files"), None, "{when}");
    }
}

/// Writes over a file.
///
/// # Panics
///
/// When that fails.
pub fn poke(path: &Path, at: u64, bytes: &[u8]) {
    let file: File =
        OpenOptions::new().write(true).open(path).expect("the file");
    file.write_all_at(bytes, at).expect("it can be written");
}
