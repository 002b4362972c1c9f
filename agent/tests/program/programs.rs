//! The two builds of the agent, and running them.

use std::io::{Read, Write};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use object::{Object as _, ObjectSymbol as _};

use crate::client::Client;

/// Which build of the agent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Build {
    Hosted,
    Freestanding,
}

/// Both of them.
pub(crate) const BUILDS: [Build; 2] = [Build::Hosted, Build::Freestanding];

/// What `cargo xtask agent` says of the freestanding build.
pub(crate) struct Freestanding {
    pub(crate) path: PathBuf,
    pub(crate) build_id: String,
}

/// Builds and checks the freestanding agent, once for all tests.
pub(crate) fn freestanding() -> &'static Freestanding {
    static BUILT: OnceLock<Freestanding> = OnceLock::new();
    BUILT.get_or_init(|| {
        let output = Command::new(env!("CARGO"))
            .args(["run", "--quiet", "--package", "xtask", "--", "agent"])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .stderr(Stdio::inherit())
            .output()
            .unwrap();
        assert!(output.status.success(), "`cargo xtask agent` failed");
        let text = String::from_utf8(output.stdout).unwrap();
        let field = |name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name))
                .unwrap_or_else(|| panic!("no `{name}` in {text}"))
                .trim()
                .to_owned()
        };
        Freestanding {
            path: field("agent ").into(),
            build_id: field("build id "),
        }
    })
}

impl Freestanding {
    /// Where the static of this mangled name lies, and its size.
    fn symbol(&self, name: &str) -> (u64, u64) {
        let elf = std::fs::read(self.path.with_extension("")).unwrap();
        let elf = object::File::parse(elf.as_slice()).unwrap();
        let symbol = elf
            .symbols()
            .find(|symbol| symbol.name().is_ok_and(|n| n.contains(name)))
            .unwrap_or_else(|| panic!("the agent has no {name}"));
        (symbol.address(), symbol.size())
    }
}

impl Build {
    /// The program.
    pub(crate) fn path(self) -> &'static Path {
        match self {
            Self::Hosted => Path::new(env!("CARGO_BIN_EXE_e2wire-agent")),
            Self::Freestanding => &freestanding().path,
        }
    }

    /// A command that runs it with `arguments`.
    pub(crate) fn command(self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.path());
        command.args(arguments);
        command
    }
}

/// A running agent that ends with its test.
pub(crate) struct Agent(pub(crate) Child);

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Agent {
    /// Runs it with `arguments`, its standard streams as given.
    pub(crate) fn start(build: Build, arguments: &[&str]) -> Self {
        let mut command = build.command(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        Self(command.spawn().unwrap())
    }

    /// Runs it with `--stdio`, and a host at its pipes.
    pub(crate) fn over_pipes(
        build: Build,
        arguments: &[&str],
    ) -> (Self, Client) {
        let mut command = build.command(arguments);
        command.args(["--stdio", "--insecure"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let output = child.stdin.take().unwrap();
        let input = child.stdout.take().unwrap();
        (Self(child), Client::new(input, output))
    }

    /// The most memory it has used so far, in bytes.
    pub(crate) fn high_water_bytes(&self) -> u64 {
        let path = format!("/proc/{}/status", self.0.id());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:"));
        let kib = line.unwrap().split_whitespace().nth(1).unwrap();
        kib.parse::<u64>().unwrap() * 1024
    }

    /// How many bytes at the lower end of its main stack and of each stack
    /// of a thread were never touched. Of the freestanding build, whose
    /// stacks are static; each has a guard page below.
    pub(crate) fn unused_stack_bytes(&self) -> (u64, Vec<u64>) {
        const PAGE: u64 = 4096;
        const THREAD: u64 = 16 * 1024;
        let path = format!("/proc/{}/pagemap", self.0.id());
        let pages = std::fs::File::open(path).unwrap();
        let is_touched = |at: &u64| {
            let mut entry = [0; 8];
            pages.read_exact_at(&mut entry, at / PAGE * 8).unwrap();
            // Present, or swapped out.
            u64::from_le_bytes(entry) >> 62 != 0
        };
        let unused = |guard: u64, bytes: u64| {
            let stack = (guard + PAGE..guard + bytes).step_by(PAGE as usize);
            stack.take_while(|at| !is_touched(at)).count() as u64 * PAGE
        };
        let (main, bytes) = freestanding().symbol("bare5STACK");
        let (threads, all) = freestanding().symbol("bare13THREAD_STACKS");
        let step = (PAGE + THREAD) as usize;
        let threads = (threads..threads + all)
            .step_by(step)
            .map(|at| unused(at, PAGE + THREAD))
            .collect();
        (unused(main, bytes), threads)
    }

    /// Its exit status, once it ends.
    pub(crate) fn exit_code_within(
        &mut self,
        patience: Duration,
    ) -> Option<i32> {
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        None
    }
}

/// A plain file with known contents: compressible, and no two sectors alike.
pub(crate) struct Disk {
    file: tempfile::NamedTempFile,
    pub(crate) bytes: Vec<u8>,
}

impl Disk {
    pub(crate) fn new(length: usize) -> Self {
        let mut state = 7_u64;
        let bytes = (0..length)
            .map(|i| {
                state = state.wrapping_mul(6_364_136_223_846_793_005) + 1;
                match i % 512 {
                    0..8 => (i / 512).to_le_bytes()[i % 8],
                    8..128 => state.to_be_bytes()[0],
                    _ => 0x20,
                }
            })
            .collect::<Vec<u8>>();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&bytes).unwrap();
        Self { file, bytes }
    }

    pub(crate) fn path(&self) -> &str {
        self.file.path().to_str().unwrap()
    }
}

/// What `command` prints, and its exit status.
pub(crate) fn output_of(mut command: Command) -> (String, Option<i32>) {
    command.stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut text = String::new();
    child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    (text, child.wait().unwrap().code())
}
