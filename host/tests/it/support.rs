//! Running e2wire, and making filesystems for it.

use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Every verb, as `e2wire --help` lists them.
pub(crate) const VERBS: &[&str] = &[
    "ls",
    "probe",
    "console",
    "reboot",
    "plan",
    "image",
    "verify",
    "diff",
    "convert",
    "install",
    "undo",
    "completions",
    "man",
];

/// A directory of its own for a test, and e2wire started in it.
pub(crate) struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn e2wire(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_e2wire"));
        command
            .args(arguments)
            .current_dir(self.path())
            .env_remove("E2WIRE_TARGET")
            .env("XDG_STATE_HOME", self.path())
            .env("XDG_CACHE_HOME", self.path())
            .stdin(Stdio::null());
        command
    }

    /// Runs e2wire to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ended {
        Ended::of(&self.e2wire(arguments).output().unwrap())
    }

    /// A sparse file.
    pub(crate) fn file(&self, name: &str, bytes: u64) {
        let file = std::fs::File::create(self.path().join(name)).unwrap();
        file.set_len(bytes).unwrap();
    }

    /// A small ext4 with files in it.
    pub(crate) fn ext4(&self, name: &str, label: &str) {
        self.file(name, 16 << 20);
        let tree = self.path().join("tree");
        std::fs::create_dir_all(tree.join("folder")).unwrap();
        std::fs::write(tree.join("folder/file"), "contents").unwrap();
        self.tool(
            "e2fsprogs",
            &[
                "mke2fs",
                "-q",
                "-t",
                "ext4",
                "-b",
                "1024",
                "-L",
                label,
                "-M",
                "/srv/mail",
                "-d",
                "tree",
                name,
            ],
        );
    }

    /// Runs a tool of the Debian package `package`.
    pub(crate) fn tool(&self, package: &str, words: &[&str]) -> String {
        let path = format!(
            "{}:/usr/sbin:/sbin",
            std::env::var("PATH").unwrap_or_default()
        );
        let output = Command::new(words[0])
            .args(&words[1..])
            .current_dir(self.path())
            .env("PATH", path)
            .stdin(Stdio::null())
            .output()
            .unwrap_or_else(|error| {
                panic!("{}: {error}; apt-get install {package}", words[0])
            });
        let text = Ended::of(&output);
        assert_eq!(text.code, Some(0), "{words:?}: {}", text.stderr);
        text.stdout
    }
}

/// How a program ended and what it said.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    pub(crate) fn of(output: &Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// The events in `text`: every line is one.
pub(crate) fn events(text: &str) -> Vec<serde_json::Value> {
    text.lines()
        .map(|line| {
            serde_json::from_str(line)
                .unwrap_or_else(|error| panic!("{error}: {line}"))
        })
        .collect()
}
