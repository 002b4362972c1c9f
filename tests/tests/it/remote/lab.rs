//! What scripts in a lab rely on: events and exit codes, many machines at
//! once, waiting for those that are not there yet, never a question.

use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};

use e2wire_tests::agents::{Agent, Build, free_address};
use e2wire_tests::binaries::{build, e2wire};
use e2wire_tests::paced::{Pace, PtyPair, Relay};
use e2wire_tests::tools;
use serde_json::Value;

use super::Case;

const BAUD: u32 = 115_200;

/// The last event, which is the result.
fn result(output: &Output) -> Value {
    let said = String::from_utf8_lossy(&output.stdout);
    let last = said.lines().last().expect("there is always a result");
    serde_json::from_str(last).expect("events are JSON")
}

/// Images eight machines at once. All that it knows of them is the events
/// that it reads and the codes that the programs end with.
const SCRIPT: &str = r#"
set -u
status=0
image() {
    "$E2WIRE" --json --non-interactive --connect-timeout 100s --wait 100s \
        -t "$2" image --no-manifest "$DISK" "$FOLDER/lab-$1.raw" \
        > "$FOLDER/lab-$1.ndjson"
    echo $? > "$FOLDER/lab-$1.code"
}
number=0
for target in "$@"; do
    number=$((number + 1))
    image "$number" "$target" &
done
wait
for number in $(seq "$number"); do
    code=$(cat "$FOLDER/lab-$number.code")
    verdict=$(jq -r 'select(.type == "result")
        | "\(.status) \(.exit) \(.content)"' "$FOLDER/lab-$number.ndjson")
    echo "$number $code $verdict"
    [ "$code" = 0 ] || status=1
done
exit $status
"#;

#[test]
fn eight_machines_are_imaged_at_once_by_a_script() {
    let case = Case::new("ext4-1k-full");
    let mut keep: Vec<Box<dyn std::any::Any>> = Vec::new();
    let mut targets = Vec::new();
    for number in 0..8 {
        let disk = &case.disk;
        match number % 4 {
            // Some on serial lines, some behind a network, some that call.
            0 | 1 => {
                let line = PtyPair::new(&Pace::serial(BAUD)).expect("a line");
                targets.push(line.target(BAUD));
                let agent =
                    Agent::on_serial(Build::Hosted, disk, line.far(), BAUD);
                keep.push(Box::new((line, agent.expect("the agent runs"))));
            }
            2 => {
                let address = free_address().expect("a port");
                let agent = Agent::listening(Build::Hosted, disk, address);
                let pace = Pace::latent(Duration::from_millis(10));
                let relay = Relay::to(address, pace).expect("a port");
                targets.push(format!("tcp:{}", relay.address()));
                keep.push(Box::new((relay, agent.expect("the agent runs"))));
            }
            _ => {
                let address = free_address().expect("a port");
                let agent = Agent::calling(Build::Hosted, disk, address);
                targets.push(format!("listen:{address}"));
                keep.push(Box::new(agent.expect("the agent runs")));
            }
        }
    }
    let output = tools::command("bash")
        .args(["-c", SCRIPT, "lab"])
        .args(&targets)
        .env("E2WIRE", build("e2wire", "e2wire"))
        .env("DISK", &case.disk)
        .env("FOLDER", case.folder.path())
        .env_remove("E2WIRE_TARGET")
        .output()
        .expect("bash runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}{errors}");
    assert_eq!(said.lines().count(), 8, "{said}");
    let mut contents: Vec<&str> = Vec::new();
    for (number, line) in (1..).zip(said.lines()) {
        let (head, content) = line.rsplit_once(' ').expect("three words");
        assert_eq!(head, format!("{number} 0 ok 0"), "{said}");
        contents.push(content);
        case.compare(&case.output(&format!("lab-{number}.raw")));
    }
    contents.dedup();
    assert_eq!(contents.len(), 1, "one disk, one content: {contents:?}");
    assert!(errors.is_empty(), "events go to standard output: {errors}");
}

#[test]
fn machines_that_call_are_served_one_after_the_other() {
    let case = Case::new("ext4-1k-full");
    let address = free_address().expect("a port");
    let target = format!("listen:{address}");
    // All three call at once and go on calling; a job takes whoever is next.
    let agents: Vec<Agent> = (0..3)
        .map(|_| Agent::calling(Build::Hosted, &case.disk, address))
        .map(|agent| agent.expect("the agent runs"))
        .collect();
    let mut boots = Vec::new();
    let end = Instant::now() + Duration::from_secs(200);
    while boots.len() < 3 {
        assert!(Instant::now() < end, "only {boots:?} were served");
        let output = e2wire()
            .args(["--json", "--connect-timeout", "100s", "-t", &target])
            .arg("probe")
            .output()
            .expect("e2wire runs");
        let result = result(&output);
        assert_eq!(output.status.code(), Some(0), "{result}");
        let boot = result["boot"].as_str().expect("a boot id").to_owned();
        if !boots.contains(&boot) {
            boots.push(boot);
        }
    }
    case.check("called.raw", &target);
    drop(agents);
}

#[test]
fn a_job_waits_for_an_agent_that_is_not_there_yet() {
    let case = Case::new("ext4-1k-full");
    let _ = Build::Hosted.path();
    let address = free_address().expect("a port");
    let line = PtyPair::new(&Pace::serial(BAUD)).expect("a line");
    for (name, target) in [
        ("tcp.raw", format!("tcp:{address}")),
        ("serial.raw", line.target(BAUD)),
    ] {
        let output = case.output(name);
        // It would give up after a second if nobody said --wait.
        let mut host = e2wire()
            .args(["--connect-timeout", "1s", "--wait", "100s"])
            .args(["-t", &target, "image", "--no-manifest"])
            .args(["--journal", "full"])
            .arg(&case.disk)
            .arg(&output)
            .spawn()
            .expect("e2wire runs");
        std::thread::sleep(Duration::from_millis(2500));
        assert!(host.try_wait().expect("it runs").is_none(), "{target}");
        let agent = if target.starts_with("tcp:") {
            Agent::listening(Build::Hosted, &case.disk, address)
        } else {
            Agent::on_serial(Build::Hosted, &case.disk, line.far(), BAUD)
        };
        assert!(host.wait().expect("it ends").success(), "{target}");
        case.compare(&output);
        drop(agent);
    }
}

/// Runs a job that cannot succeed; answers its exit code and the kind of its
/// error.
fn fails(arguments: &[&str], device: &Path, output: &Path) -> (i32, String) {
    let mut command = e2wire();
    command.args(["--json", "--non-interactive"]).args(arguments);
    command.args(["image", "--no-manifest"]).arg(device).arg(output);
    let output = command.output().expect("e2wire runs");
    let result = result(&output);
    let kind = result["error"]["kind"].as_str().unwrap_or("none").to_owned();
    (output.status.code().expect("a code"), kind)
}

#[test]
fn time_that_is_up_ends_a_job_with_its_own_code() {
    let case = Case::new("ext4-1k-full");
    let output = case.output("late.raw");
    let address = free_address().expect("a port");
    let tcp = format!("tcp:{address}");
    let listen = format!("listen:{address}");
    let line = PtyPair::new(&Pace::serial(1200)).expect("a line");
    let serial = line.target(BAUD);
    let started = Instant::now();
    for (arguments, code, kind) in [
        // Nobody is there.
        (["--connect-timeout", "300ms", "-t", &tcp], 7, "no-link"),
        (["--connect-timeout", "300ms", "-t", &listen], 7, "no-link"),
        (["--connect-timeout", "300ms", "-t", &serial], 7, "no-link"),
        (["--wait", "300ms", "-t", &tcp], 7, "no-link"),
        (["--deadline", "300ms", "-t", &listen], 8, "interrupted"),
        (["--deadline", "300ms", "-t", &serial], 8, "interrupted"),
    ] {
        let ended = fails(&arguments, &case.disk, &output);
        assert_eq!(ended, (code, kind.to_owned()), "{arguments:?}");
    }
    // Somebody is, but so slow that the job cannot be done in time.
    let _agent = Agent::on_serial(Build::Hosted, &case.disk, line.far(), BAUD)
        .expect("the agent runs");
    let deadline = ["--deadline", "6s", "-t", &serial];
    let ended = fails(&deadline, &case.disk, &output);
    assert_eq!(ended, (8, "interrupted".to_owned()));
    assert!(!output.exists(), "half an image has no name of its own");
    assert!(started.elapsed() < Duration::from_secs(120), "it hung");
}
