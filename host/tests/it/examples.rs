//! The examples of help and manual do what they say they do.

use std::fs;

use crate::support::{Bench, Ended, VERBS};

/// The commands under "Examples:" in the help of every verb.
fn examples(bench: &Bench) -> Vec<String> {
    let mut lines = Vec::new();
    // These need somebody at the other end of a line.
    let far = ["probe", "console", "reboot"];
    for verb in VERBS.iter().filter(|verb| !far.contains(verb)) {
        let help = bench.run(&[verb, "--help"]).stdout;
        let (_, examples) = help.split_once("Examples:\n").expect(verb);
        lines.extend(
            examples
                .lines()
                .filter_map(|line| line.strip_prefix("    "))
                .map(str::to_owned),
        );
    }
    lines
}

/// Damages the disk and installs the image, so that there is an undo file of
/// the name that the example gives it.
fn make_undo_file(bench: &Bench) {
    use std::os::unix::fs::FileExt as _;
    let disk =
        fs::OpenOptions::new().write(true).open(bench.path().join("disk"));
    disk.unwrap().write_all_at(&[1; 8], 4096 + 16).unwrap();
    let words = ["--json", "install", "sda3.qcow2", "disk"];
    let plan = bench.run(&words).stdout;
    let plan = crate::support::events(&plan);
    let plan = plan.iter().find(|event| event["type"] == "plan").unwrap();
    let token = plan["confirm"].as_str().unwrap();
    let undo = "sda3.qcow2.k7w2m9xq4e.undo";
    let words = [&words[..], &["--confirm", token, "--undo", undo]].concat();
    let done = bench.run(&words);
    assert_eq!(done.code, Some(0), "{}", done.stdout);
}

#[test]
fn every_example_works() {
    let bench = Bench::new();
    // 4 KiB blocks and more than one group, as the examples assume.
    bench.file("disk", 200 << 20);
    bench.tool(
        "e2fsprogs",
        &["mke2fs", "-q", "-t", "ext4", "-b", "4096", "disk"],
    );
    fs::create_dir(bench.path().join("man1")).unwrap();
    let lines = examples(&bench);
    assert!(lines.len() >= 8, "{lines:?}");
    for line in lines {
        // Two examples of `image` write the same file.
        if line.contains("-b 32768") {
            let image = bench.path().join("sda3.qcow2");
            fs::remove_file(&image).unwrap();
            fs::remove_file(image.with_added_extension("manifest.json"))
                .unwrap();
        }
        if line.contains("diff sda3.qcow2 copy.raw") {
            let ended = bench.run(&["convert", "sda3.qcow2", "copy.raw"]);
            assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        }
        if line.contains("undo --list") {
            make_undo_file(&bench);
        }
        let here = line
            .replace("/dev/sda3", "disk")
            .replace("UUID=0a1b2c3d-0001-0002-0003-0123456789ab", "disk")
            .replace("/usr/local/share/man/man1", "man1");
        let mut command = std::process::Command::new("bash");
        let program = std::path::Path::new(env!("CARGO_BIN_EXE_e2wire"));
        let path = format!(
            "{}:{}",
            program.parent().unwrap().display(),
            std::env::var("PATH").unwrap_or_default()
        );
        command
            .args(["-c", &format!("set -o pipefail; {here}")])
            .env("PATH", path)
            .env_remove("E2WIRE_TARGET")
            .current_dir(bench.path());
        let ended = Ended::of(&command.output().unwrap());
        assert_eq!(
            ended.code,
            Some(0),
            "{here}: {} (packages: jq, zstd, man-db)",
            ended.stderr
        );
    }
}
