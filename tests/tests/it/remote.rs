//! The same image through a real agent, over ports of several kinds.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use e2wire_tests::binaries::{build, e2wire};
use e2wire_tests::fixtures::fixture;

/// Ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn run(command: &mut Command) -> String {
    let output = command.output().expect("e2wire can be run");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{command:?}: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn an_image_over_any_port_is_the_local_one() {
    let agent = build("e2wire-agent", "e2wire-agent");
    let disk = fixture("ext4-1k-full").path;
    let folder = tempfile::tempdir().expect("a folder for the images");
    let local = folder.path().join("local.raw");
    run(e2wire().args(["image", "--no-manifest"]).arg(&disk).arg(&local));
    let right = std::fs::read(&local).expect("the local image");

    let (agent, device) = (agent.display(), disk.display());
    let command = format!("{agent} --stdio --device {device} --insecure");
    let mut caller = None;
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = free.local_addr().expect("its number").port();
    drop(free);
    for (index, target) in [
        format!("pipe:{command}"),
        format!("exec:{command}"),
        format!("listen:127.0.0.1:{port}"),
    ]
    .into_iter()
    .enumerate()
    {
        if target.starts_with("listen:") {
            let child = Command::new(agent.to_string())
                .args(["--connect", &format!("127.0.0.1:{port}")])
                .args(["--device", &device.to_string(), "--insecure"])
                .stdin(Stdio::null())
                .spawn()
                .expect("the agent can be run");
            caller = Some(Running(child));
        }
        let output = folder.path().join(format!("{index}.raw"));
        run(e2wire()
            .args(["--connect-timeout", "60s", "-t", &target])
            .args(["image", "--no-manifest"])
            .arg(&disk)
            .arg(&output));
        let image = std::fs::read(&output).expect("the image");
        assert!(image == right, "{target}: another image");
    }
    drop(caller);
    let left: Vec<_> = std::fs::read_dir(folder.path())
        .expect("the folder")
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    assert_eq!(left.len(), 4, "spools are gone once a job is done: {left:?}");
}

#[test]
fn what_answers_no_hello_is_named() {
    let mut child = e2wire()
        .args(["--json", "--connect-timeout", "2s"])
        .args(["-t", "exec:printf 'mail7 login: '; exec sleep 60", "probe"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("e2wire can be run");
    let lines = BufReader::new(child.stdout.take().expect("its output"));
    let last = lines.lines().map_while(Result::ok).last();
    let status = child.wait().expect("e2wire ends");
    assert_eq!(status.code(), Some(7));
    assert!(last.is_some_and(|line| line.contains("login")));
}
