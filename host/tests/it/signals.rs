//! The first signal ends a job in good order, the second one at once.

use std::io::Read as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::Bench;

/// A job that is stuck in the middle: it writes to a pipe that nobody reads.
fn stuck() -> (Bench, Child) {
    let bench = Bench::new();
    let noise: Vec<u8> = (0..48_u32 << 18)
        .flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes())
        .collect();
    std::fs::create_dir(bench.path().join("tree")).unwrap();
    std::fs::write(bench.path().join("tree/noise"), noise).unwrap();
    bench.file("disk.img", 80 << 20);
    bench.tool(
        "e2fsprogs",
        &["mke2fs", "-q", "-t", "ext4", "-d", "tree", "disk.img"],
    );
    let mut child = bench
        .e2wire(&["--json", "image", "-a", "disk.img", "-", "--format", "raw"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Once it writes, it catches signals, and a pipe is full soon.
    let stdout = child.stdout.as_mut().unwrap();
    stdout.read_exact(&mut [0]).unwrap();
    (bench, child)
}

fn signal(child: &Child, name: &str) {
    let script = format!("kill -{name} {}", child.id());
    let status = Command::new("bash").args(["-c", &script]).status();
    assert!(status.unwrap().success());
}

#[test]
fn the_first_signal_ends_a_job_in_good_order() {
    for name in ["INT", "TERM"] {
        let (_bench, child) = stuck();
        signal(&child, name);
        // The pipe is read now, so the job goes on, as far as it wants to.
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(8), "{name}");
        let stderr = String::from_utf8(output.stderr).unwrap();
        let last = stderr.lines().last().unwrap();
        assert!(last.contains("\"status\":\"interrupted\""), "{last}");
        assert!(output.stdout.len() < 80 << 20, "{}", output.stdout.len());
    }
}

#[test]
fn the_second_signal_ends_it_at_once() {
    let (_bench, mut child) = stuck();
    signal(&child, "INT");
    std::thread::sleep(Duration::from_millis(300));
    assert!(child.try_wait().unwrap().is_none(), "still stuck");
    signal(&child, "INT");
    let begun = Instant::now();
    while child.try_wait().unwrap().is_none() {
        assert!(begun.elapsed() < Duration::from_secs(20), "does not end");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(child.wait().unwrap().code(), Some(8));
    // Nothing more came.
    let mut rest = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut rest).unwrap();
    assert!(rest.len() < 8 << 20);
}
