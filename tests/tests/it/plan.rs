//! What `plan` says and keeps, beside what `image` then does.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use e2wire_tests::agents::{Agent, Build};
use e2wire_tests::binaries::e2wire;
use e2wire_tests::fixtures::fixture;
use e2wire_tests::oracle;
use e2wire_tests::paced::{Pace, PtyPair};
use serde_json::Value;

/// The event of a type that a command prints.
fn event(words: &[&str], paths: &[&Path], kind: &str) -> Value {
    let mut command = e2wire();
    command.arg("--json").args(words).args(paths);
    let output = oracle::run(&mut command);
    oracle::assert_success("e2wire", &output);
    let lines = output.stdout.split(|byte| *byte == b'\n');
    lines
        .filter_map(|line| serde_json::from_slice::<Value>(line).ok())
        .find(|event| event["type"] == kind)
        .unwrap_or_else(|| panic!("no {kind}: {output:?}"))
}

#[test]
fn what_live_saves_is_what_the_images_differ_in() {
    let folder = tempfile::tempdir_in(e2wire_tests::target()).unwrap();
    for name in ["ext4-1k-full", "journal-dirty", "journal-dirty-ext3"] {
        let device = fixture(name).path;
        let bytes = |journal: &str| {
            let output = folder.path().join(format!("{name}.{journal}.raw"));
            let words = ["image", "--journal", journal];
            let result = event(&words, &[&device, &output], "result");
            result["stored_blocks"].as_u64().unwrap()
                * result["block_size"].as_u64().unwrap()
        };
        let (full, live) = (bytes("full"), bytes("live"));
        assert!(live < full, "{name}");
        for journal in ["full", "live", "none"] {
            let words = ["plan", "--journal", journal];
            let plan = event(&words, &[&device], "plan");
            assert_eq!(plan["live_saves_bytes"], full - live, "{name}: {plan}");
            let percent = (full - live) * 100 / full;
            assert_eq!(plan["live_saves_percent"], percent, "{name}: {plan}");
        }
    }
    let said = oracle::run(e2wire().arg("plan").arg(fixture("ext2-1k").path));
    let said = oracle::text(&said);
    assert!(!said.contains("journal"), "it has none: {said}");
}

/// Runs a command over the line; whether it took over what was here already.
fn takes_over(line: &PtyPair, words: &[&str], cache: &Path) -> bool {
    let mut command = e2wire();
    command
        .args(["--connect-timeout", "100s", "--wait", "100s"])
        .args(["-t", &line.target(921_600)])
        .env("XDG_CACHE_HOME", cache)
        .args(words);
    let output = oracle::run(&mut command);
    oracle::assert_success("e2wire", &output);
    oracle::text(&output).contains("are here already")
}

#[test]
fn an_image_does_not_fetch_again_what_a_plan_has_fetched() {
    let folder = tempfile::tempdir_in(e2wire_tests::target()).unwrap();
    let path = |name: &str| folder.path().join(name);
    let device = path("device");
    fs::copy(fixture("ext4-1k-full").path, &device).unwrap();
    let line = PtyPair::new(&Pace::serial(921_600)).unwrap();
    let _agent =
        Agent::on_serial(Build::Hosted, &device, line.far(), 921_600).unwrap();
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let (cache, disk) = (path("cache"), text(&device));
    let image = |name: &str| {
        let output = text(&path(name));
        takes_over(&line, &["image", "--no-manifest", &disk, &output], &cache)
    };
    assert!(!image("alone.qcow2"));
    for name in ["kept.qcow2", "kept.raw"] {
        assert!(!takes_over(&line, &["plan", &disk], &cache));
        assert!(takes_over(&line, &["plan", &disk], &cache));
        assert!(image(name), "{name}");
        let left = fs::read_dir(cache.join("e2wire")).unwrap().count();
        assert_eq!(left, 0, "a plan has served");
    }
    let local = path("local.raw");
    let of_now = || {
        let words = ["image", "--overwrite", "--journal", "live"];
        event(&words, &[&device, &local], "result");
        fs::read(&local).unwrap()
    };
    assert!(fs::read(path("kept.raw")).unwrap() == of_now());
    // A block that changes meanwhile, far from all that tells of a change.
    assert!(!takes_over(&line, &["plan", &disk], &cache));
    let image_now = of_now();
    let last = image_now.chunks(1024).rposition(|block| block[..] != [0; 1024]);
    let file = fs::File::options().write(true).open(&device).unwrap();
    file.write_all_at(&[0x5A; 8], last.unwrap() as u64 * 1024).unwrap();
    assert!(of_now() != image_now, "the change is in the image");
    assert!(!image("changed.raw"), "nothing of it is believed any more");
    assert!(fs::read(path("changed.raw")).unwrap() == of_now());
}
