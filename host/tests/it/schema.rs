//! SCHEMA.md says what `--json` prints; this test holds both together.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::FileExt as _;

use serde_json::Value;

use crate::support::{Bench, events};

const SCHEMA: &str = include_str!("../../src/cli/SCHEMA.md");

/// The fields of each event type, as the tables list them.
fn documented() -> BTreeMap<String, BTreeSet<String>> {
    let mut types = BTreeMap::new();
    let mut current = String::new();
    for line in SCHEMA.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            current = match title.split('`').nth(1) {
                Some(name) => name.to_owned(),
                None => "every".to_owned(),
            };
        } else if let Some(row) = line.strip_prefix("| `") {
            let field = row.split('`').next().unwrap().to_owned();
            let fields: &mut BTreeSet<String> =
                types.entry(current.clone()).or_default();
            assert!(fields.insert(field), "listed twice: {line}");
        }
    }
    types
}

/// The names of all fields in `value`, nested ones with their path.
fn fields(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                let path = match path {
                    "" => name.clone(),
                    path => format!("{path}.{name}"),
                };
                found.insert(path.clone());
                fields(value, &path, found);
            }
        }
        Value::Array(values) => {
            for value in values {
                fields(value, &format!("{path}[]"), found);
            }
        }
        _ => {}
    }
}

/// Checks the stream of one run and counts the event types in it.
fn check(stream: &str, code: Option<i32>, seen: &mut BTreeSet<String>) {
    let documented = documented();
    let events = events(stream);
    for (index, event) in events.iter().enumerate() {
        let kind = event["type"].as_str().unwrap();
        seen.insert(kind.to_owned());
        assert_eq!(event["v"], 1);
        assert_eq!(event["seq"], index);
        let ts = event["ts"].as_str().unwrap();
        assert!(ts.len() == 24 && ts.ends_with('Z'), "{ts}");
        let mut found = BTreeSet::new();
        fields(event, "", &mut found);
        let own = documented.get(kind).unwrap_or_else(|| {
            panic!("SCHEMA.md does not know the event `{kind}`")
        });
        for field in found {
            assert!(
                own.contains(&field) || documented["every"].contains(&field),
                "SCHEMA.md does not know `{field}` of `{kind}`"
            );
        }
        assert_eq!(kind == "result", index + 1 == events.len(), "{event}");
    }
    let last = events.last().expect("there is always a result");
    assert_eq!(last["exit"].as_i64(), code.map(i64::from));
}

#[test]
fn every_event_is_as_the_schema_says() {
    let bench = Bench::new();
    bench.ext4("disk.img", "mail");
    bench.ext4("damaged.img", "mail");
    bench.ext4("short.img", "mail");
    // The first group descriptor.
    let damaged = bench.path().join("damaged.img");
    let damaged = std::fs::OpenOptions::new().write(true).open(damaged);
    damaged.unwrap().write_all_at(&[0xff; 8], 2048).unwrap();
    bench.tool("coreutils", &["truncate", "-s", "500K", "short.img"]);
    // An inode, the directory that names it, and its bitmap.
    bench.ext4("changed.img", "mail");
    for request in ["sif <11> size 7", "freei <11>", "unlink /lost+found"] {
        let words = ["debugfs", "-w", "-R", request, "changed.img"];
        bench.tool("e2fsprogs", &words);
    }
    let runs: &[&[&str]] = &[
        &["ls", "disk.img"],
        &["plan", "disk.img"],
        &["plan", "damaged.img"],
        &["image", "disk.img", "a.raw"],
        &["image", "disk.img", "a.qcow2"],
        &["image", "disk.img", "a.raw"],
        &["image", "damaged.img", "b.raw"],
        &["convert", "a.raw", "d.qcow2"],
        &["verify", "a.raw"],
        &["verify", "a.raw", "--against", "disk.img"],
        &["verify", "a.raw", "--against", "damaged.img"],
        &["diff", "a.raw", "disk.img"],
        &["diff", "a.raw", "damaged.img"],
        &["diff", "disk.img", "changed.img"],
        &["verify", "missing.raw"],
        &["install", "a.qcow2", "damaged.img", "--allow-uuid-change"],
        &["install", "a.qcow2", "disk.img"],
        &["install", "a.qcow2", "damaged.img"],
        &["undo", "a.undo", "--list"],
        &["undo", "a.undo", "disk.img"],
        &["image", "short.img", "c.raw", "--data"],
        &["image", "disk.img", "no-suffix"],
        &["image", "--no-such-option"],
        &["plan", "missing.img"],
        &["man", "image"],
        &["man", "--into", "."],
        &["completions", "bash"],
    ];
    let mut seen = BTreeSet::new();
    confirm(&bench, &mut seen);
    for run in runs {
        let words = [&["--json"], *run].concat();
        let ended = bench.run(&words);
        assert_eq!(ended.stderr, "", "{words:?}");
        check(&ended.stdout, ended.code, &mut seen);
    }
    let must = ["hello", "phase", "device", "plan", "text", "finding", "hole"];
    for kind in must {
        assert!(seen.contains(kind), "no run had an event `{kind}`");
    }
}

/// An install that is carried out, and leaves `a.undo`.
fn confirm(bench: &Bench, seen: &mut BTreeSet<String>) {
    assert_eq!(bench.run(&["image", "disk.img", "i.qcow2"]).code, Some(0));
    let disk = bench.path().join("disk.img");
    let disk = std::fs::OpenOptions::new().write(true).open(disk).unwrap();
    disk.write_all_at(&[1; 8], 2048).unwrap();
    let words = ["--json", "install", "i.qcow2", "disk.img"];
    let planned = bench.run(&words);
    check(&planned.stdout, Some(5), seen);
    let events = events(&planned.stdout);
    let plan = events.iter().find(|event| event["type"] == "plan").unwrap();
    let token = plan["confirm"].as_str().unwrap();
    let more = ["--confirm", token, "--undo", "a.undo"];
    let done = bench.run(&[&words[..], &more].concat());
    check(&done.stdout, Some(0), seen);
}

#[test]
fn nothing_but_no_verb_at_all_is_still_answered_in_json() {
    let bench = Bench::new();
    let ended = bench.run(&["--json"]);
    check(&ended.stdout, ended.code, &mut BTreeSet::new());
}
