//! Runs one program and tells how long it took and what it cost.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2wire_tests::tools;
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

/// What one run cost.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cost {
    pub(crate) seconds: f64,
    /// Bytes that it read, from the cache or from the disk.
    pub(crate) read: u64,
    /// The most memory that it had at one time.
    pub(crate) memory: u64,
}

/// Runs a program to its end. Standard output goes to `output` when given.
pub(crate) fn run(mut command: Command, output: Option<&Path>) -> Result<Cost> {
    command.stdin(Stdio::null()).stderr(Stdio::piped());
    match output {
        Some(path) => command.stdout(fs::File::create(path)?),
        None => command.stdout(Stdio::null()),
    };
    let began = Instant::now();
    let mut child =
        command.spawn().with_context(|| format!("cannot run {command:?}"))?;
    let pid = Pid::from_child(&child);
    let process = format!("/proc/{}", child.id());
    let ended = AtomicBool::new(false);
    let (waited, memory) = std::thread::scope(|scope| {
        let sampler = scope.spawn(|| {
            let mut most = 0;
            while !ended.load(Ordering::Relaxed) {
                most = high_water(&process).unwrap_or(0).max(most);
                std::thread::sleep(Duration::from_millis(3));
            }
            most
        });
        // Leaves the process there, so that its counters can be read.
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        let waited = waitid(WaitId::Pid(pid), options);
        let seconds = began.elapsed().as_secs_f64();
        ended.store(true, Ordering::Relaxed);
        (waited.map(|_| seconds), sampler.join().unwrap_or(0))
    });
    let read = counter(&format!("{process}/io"), "rchar:").unwrap_or(0);
    let status = child.wait()?;
    let mut said = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        std::io::Read::read_to_string(&mut stderr, &mut said)?;
    }
    ensure!(status.success(), "{command:?}: {status}\n{said}");
    Ok(Cost { seconds: waited?, read, memory })
}

fn high_water(process: &str) -> Option<u64> {
    Some(counter(&format!("{process}/status"), "VmHWM:")? * 1024)
}

fn counter(file: &str, label: &str) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(label))?;
    line.split_whitespace().next()?.parse().ok()
}

/// How many system calls a program makes, with all its threads.
pub(crate) fn system_calls(command: &Command, scratch: &Path) -> Result<u64> {
    let summary = scratch.join("strace");
    let mut traced = tools::command("strace");
    traced
        .args(["-c", "-f", "-o"])
        .arg(&summary)
        .arg(command.get_program())
        .args(command.get_args());
    run(traced, None)?;
    let text = fs::read_to_string(&summary)?;
    let total = text
        .lines()
        .find(|line| line.trim_end().ends_with(" total"))
        .context("strace gave no total")?;
    let calls = total.split_whitespace().nth(3).context("no calls")?;
    Ok(calls.parse()?)
}

/// Forgets what the kernel has cached of files.
pub(crate) fn drop_caches() -> Result<()> {
    let status = tools::command("sync").status()?;
    ensure!(status.success(), "sync failed");
    fs::write("/proc/sys/vm/drop_caches", "3\n")
        .context("cannot drop the caches")
}

/// The middle one, and the smallest and largest.
pub(crate) fn median(values: &[f64]) -> (f64, f64, f64) {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
    let half = sorted.len() / 2;
    let middle = if sorted.len().is_multiple_of(2) && half > 0 {
        f64::midpoint(at(half - 1), at(half))
    } else {
        at(half)
    };
    (middle, at(0), at(sorted.len().saturating_sub(1)))
}

/// A command with `arguments`.
pub(crate) fn command<S: AsRef<OsStr>>(
    program: &Path,
    arguments: impl IntoIterator<Item = S>,
) -> Command {
    let mut command = Command::new(program);
    command.args(arguments);
    command
}
