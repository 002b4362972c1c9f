//! Exit codes, help, errors, streams and signals.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::process::Stdio;

use crate::support::{Bench, Ended, VERBS, events};

#[test]
fn exit_codes_are_what_the_contract_says() {
    let bench = Bench::new();
    bench.ext4("disk.img", "mail");
    bench.file("empty.img", 1 << 20);
    bench.file("exists.raw", 0);
    let cases: &[(i32, &[&str])] = &[
        (0, &["--version"]),
        (0, &["--help"]),
        (0, &["image", "-h"]),
        (0, &["plan", "disk.img"]),
        (0, &["ls", "disk.img", "empty.img"]),
        (0, &["image", "disk.img", "good.raw"]),
        (0, &["completions", "zsh"]),
        (0, &["man", "image"]),
        (2, &[]),
        (2, &["frobnicate"]),
        (2, &["image", "disk.img", "no-suffix"]),
        (2, &["image", "disk.img", "x.raw", "--no-such-option"]),
        (2, &["-t", "gopher:h", "ls"]),
        (2, &["-t", "tcp:localhost:1", "verify", "disk.img"]),
        (2, &["probe"]),
        (2, &["console"]),
        (2, &["reboot"]),
        (2, &["-t", "serial:/dev/ttyS0", "console", "--escape", "x"]),
        (2, &["man", "frobnicate"]),
        (0, &["diff", "disk.img", "disk.img"]),
        (9, &["diff", "disk.img", "empty.img"]),
        (7, &["-t", "tcp:127.0.0.1:1", "diff", "disk.img", "sda1"]),
        (5, &["image", "disk.img", "exists.raw"]),
        (5, &["-t", "tcp:127.0.0.1:1", "image", "sda1", "exists.raw"]),
        (7, &["-t", "tcp:127.0.0.1:1", "ls"]),
        (7, &["-t", "tcp:127.0.0.1:1", "image", "sda1", "x.raw"]),
        (7, &["-t", "serial:/dev/no-such-port", "probe"]),
        (9, &["plan", "missing.img"]),
        (9, &["plan", "empty.img"]),
        (9, &["ls", "missing.img"]),
        (9, &["image", "empty.img", "x.raw"]),
        (10, &["image", "disk.img", "no/such/folder/x.raw"]),
        (10, &["man", "--into", "missing"]),
    ];
    for (code, arguments) in cases {
        let ended = bench.run(arguments);
        assert_eq!(ended.code, Some(*code), "{arguments:?}: {ended:?}");
        if *code == 0 {
            assert_eq!(ended.stderr, "", "{arguments:?}");
        } else {
            let first = ended.stderr.lines().next().unwrap();
            assert!(first.starts_with("e2wire: "), "{arguments:?}: {first}");
        }
    }
}

#[test]
fn an_error_says_what_where_and_what_to_try() {
    let bench = Bench::new();
    let ended = bench.run(&["image", "missing.img", "x.raw"]);
    assert!(ended.stderr.contains("missing.img"), "{}", ended.stderr);
    assert!(ended.stderr.contains("\n  try: "), "{}", ended.stderr);
    assert!(!bench.path().join("x.raw").exists());
}

/// Output that a reader would rather see whole. No version stands in it, so
/// it changes only when the command line does.
#[test]
fn help_is_what_it_was() {
    let bench = Bench::new();
    let golden = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/it/help.txt");
    let mut help = String::new();
    for verb in std::iter::once(None).chain(VERBS.iter().map(Some)) {
        let words: Vec<&str> =
            verb.into_iter().copied().chain(["-h"]).collect();
        let output =
            bench.e2wire(&words).env("COLUMNS", "80").output().unwrap();
        let ended = Ended::of(&output);
        help += &format!("$ e2wire {}\n{}\n", words.join(" "), ended.stdout);
    }
    if std::env::var_os("E2WIRE_BLESS").is_some() {
        fs::write(&golden, &help).unwrap();
    }
    let expected = fs::read_to_string(&golden).unwrap();
    assert_eq!(
        help, expected,
        "the help changed; if that was meant: E2WIRE_BLESS=1 cargo test"
    );
}

#[test]
fn what_steers_a_terminal_is_never_printed() {
    let bench = Bench::new();
    bench.ext4("disk.img", "a\x1b[31mb");
    let evil = "no\x1b]0;title\x07such\nfile";
    let ends = [
        bench.run(&["ls", "disk.img"]),
        bench.run(&["plan", "disk.img"]),
        bench.run(&["--json", "ls", "disk.img"]),
        bench.run(&["plan", evil]),
        bench.run(&["image", "disk.img", evil]),
        bench.run(&["--json", "plan", evil]),
        bench.run(&[evil]),
        bench.run(&["-t", evil, "ls"]),
        bench.run(&["image", "disk.img", "x.raw", "--format", evil]),
    ];
    for ended in ends {
        let said = format!("{}{}", ended.stdout, ended.stderr);
        let bad = |c: char| c.is_control() && c != '\n';
        assert!(!said.contains(bad), "{said:?}");
        assert!(!said.contains("such\nfile"), "{said:?}");
    }
}

#[test]
fn names_that_are_no_text_are_names_all_the_same() {
    let bench = Bench::new();
    bench.ext4("disk.img", "mail");
    let name = std::ffi::OsStr::from_bytes(b"im\xffage.raw");
    let mut command = bench.e2wire(&["image", "disk.img"]);
    let ended = Ended::of(&command.arg(name).output().unwrap());
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(bench.path().join(name).exists());
}

#[test]
fn a_reader_who_goes_away_changes_nothing() {
    let bench = Bench::new();
    bench.ext4("disk.img", "mail");
    for arguments in [
        &["plan", "disk.img"][..],
        &["--json", "plan", "disk.img"],
        &["man"],
        &["--help"],
        &["image", "disk.img", "kept.raw"],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = bench.e2wire(arguments).stdout(writer).output().unwrap();
        let ended = Ended::of(&output);
        assert_eq!(ended.code, Some(0), "{arguments:?}: {}", ended.stderr);
        assert_eq!(ended.stderr, "", "{arguments:?}");
    }
    assert!(bench.path().join("kept.raw").exists());
}

#[test]
fn a_full_disk_behind_standard_output_is_an_error() {
    let bench = Bench::new();
    bench.ext4("disk.img", "mail");
    for arguments in
        [&["plan", "disk.img"][..], &["--json", "plan", "disk.img"]]
    {
        let full = fs::OpenOptions::new().write(true).open("/dev/full");
        let output = bench
            .e2wire(arguments)
            .stdout(Stdio::from(full.unwrap()))
            .output()
            .unwrap();
        let ended = Ended::of(&output);
        assert_eq!(ended.code, Some(10), "{}", ended.stderr);
        assert!(ended.stderr.contains("standard output"), "{}", ended.stderr);
    }
}

#[test]
fn an_image_on_standard_output_is_alone_there() {
    let bench = Bench::new();
    bench.ext4("disk.img", "mail");
    let plain = bench.e2wire(&["image", "disk.img", "-", "--format", "raw"]);
    let json =
        bench.e2wire(&["--json", "image", "disk.img", "-", "--format", "raw"]);
    bench.run(&["image", "disk.img", "file.raw"]);
    let expected = fs::read(bench.path().join("file.raw")).unwrap();
    for (mut command, is_json) in [(plain, false), (json, true)] {
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(0));
        assert!(output.stdout == expected, "the image has other bytes in it");
        if is_json {
            let stderr = String::from_utf8(output.stderr).unwrap();
            assert_eq!(events(&stderr).last().unwrap()["type"], "result");
        }
    }
}

#[test]
fn the_environment_names_the_target_and_the_option_wins() {
    let bench = Bench::new();
    bench.file("x.img", 4096);
    let mut command = bench.e2wire(&["ls", "x.img"]);
    let none = "serial:/dev/no-such-port";
    let output = command.env("E2WIRE_TARGET", none).output().unwrap();
    assert_eq!(output.status.code(), Some(7));
    let mut command = bench.e2wire(&["ls", "x.img", "-t", "local:"]);
    let output = command.env("E2WIRE_TARGET", "tcp:h:1").output().unwrap();
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn quiet_says_nothing_but_what_was_asked_for() {
    let bench = Bench::new();
    bench.ext4("disk.img", "mail");
    let ended = bench.run(&["-q", "image", "disk.img", "x.raw"]);
    assert_eq!((ended.stdout.as_str(), ended.stderr.as_str()), ("", ""));
    assert_ne!(bench.run(&["-q", "plan", "disk.img"]).stdout, "");
}

#[test]
fn completions_name_every_verb() {
    let bench = Bench::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = bench.run(&["completions", shell]).stdout;
        for verb in ["ls", "plan", "image", "verify", "convert", "man"] {
            assert!(script.contains(verb), "{shell} {verb}");
        }
    }
    let script = bench.run(&["completions", "bash"]).stdout;
    fs::write(bench.path().join("e2wire.bash"), script).unwrap();
    bench.tool("bash", &["bash", "-n", "e2wire.bash"]);
}

#[test]
fn there_is_a_page_for_every_verb() {
    let bench = Bench::new();
    fs::create_dir(bench.path().join("man1")).unwrap();
    let ended = bench.run(&["man", "--into", "man1"]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let pages = fs::read_dir(bench.path().join("man1")).unwrap().count();
    assert_eq!(pages, VERBS.len() + 1);
    let page = bench.run(&["man", "image"]).stdout;
    for section in ["NAME", "SYNOPSIS", "EXIT STATUS", "EXAMPLES"] {
        assert!(page.contains(section), "{section}");
    }
}

#[test]
fn a_manifest_of_an_earlier_image_goes_only_when_told_to() {
    let bench = Bench::new();
    bench.ext4("disk.img", "one");
    let manifest = bench.path().join("a.raw.manifest.json");
    fs::write(&manifest, "somebody's").unwrap();
    let image = ["image", "--no-manifest", "disk.img", "a.raw"];
    let ended = bench.run(&image);
    assert_eq!(ended.code, Some(5), "{}", ended.stderr);
    assert!(manifest.exists() && !bench.path().join("a.raw").exists());
    let over: Vec<&str> = image.into_iter().chain(["--overwrite"]).collect();
    assert_eq!(bench.run(&over).code, Some(0));
    assert!(!manifest.exists());
}
