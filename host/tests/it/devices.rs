//! `ls` and `plan` on what real tools make.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;

use crate::support::{Bench, events};

/// What `ls` recognises on `file`, as an event.
fn listed(bench: &Bench, file: &str) -> Vec<serde_json::Value> {
    let ended = bench.run(&["--json", "ls", file]);
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    events(&ended.stdout)
        .into_iter()
        .filter(|event| event["type"] == "device")
        .collect()
}

#[test]
fn what_mke2fs_makes_is_recognised_with_all_it_says() {
    let bench = Bench::new();
    let uuid = "6b1c0a2e-7d0c-4f5b-9a33-0123456789ab";
    for kind in ["ext2", "ext3", "ext4"] {
        for block_size in ["1024", "4096"] {
            bench.file("disk.img", 64 << 20);
            bench.tool(
                "e2fsprogs",
                &[
                    "mke2fs",
                    "-q",
                    "-F",
                    "-t",
                    kind,
                    "-b",
                    block_size,
                    "-L",
                    "mail",
                    "-M",
                    "/srv/mail",
                    "-U",
                    uuid,
                    "disk.img",
                ],
            );
            let devices = listed(&bench, "disk.img");
            let content = &devices[0]["contents"][0];
            assert_eq!(content["kind"], kind);
            assert_eq!(content["label"], "mail");
            assert_eq!(content["uuid"], uuid);
            assert_eq!(content["last_mounted"], "/srv/mail");
            assert_eq!(content["size"], 64 << 20);
            assert_eq!(content["block_size"].to_string(), block_size);
            assert_eq!(content["state"], serde_json::json!(["clean"]));
        }
    }
}

#[test]
fn a_filesystem_without_its_superblock_is_still_found() {
    let bench = Bench::new();
    bench.ext4("disk.img", "mail");
    let path = bench.path().join("disk.img");
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&[0; 2048], 0).unwrap();
    let devices = listed(&bench, "disk.img");
    let content = &devices[0]["contents"][0];
    assert_eq!(content["superblock_copy"], 8193);
    assert_eq!(content["state"], serde_json::json!(["copy-used"]));
    let text = bench.run(&["ls", "disk.img"]).stdout;
    let hint = text.split("there is a copy: ").nth(1).unwrap().trim_end();
    // What it tells to type works.
    let mut words = vec!["plan", "disk.img"];
    words.extend(hint.split(' '));
    assert_eq!(bench.run(&words).code, Some(0), "{words:?}");
}

#[test]
fn swap_space_is_recognised() {
    let bench = Bench::new();
    bench.file("swap.img", 8 << 20);
    bench.tool("util-linux", &["mkswap", "-q", "-L", "sw", "swap.img"]);
    let devices = listed(&bench, "swap.img");
    let content = &devices[0]["contents"][0];
    assert_eq!(content["kind"], "swap");
    assert_eq!(content["label"], "sw");
    assert_eq!(content["size"], 8 << 20);
}

#[test]
fn partitions_of_a_disk_image_are_looked_into() {
    for (label, kind) in [("gpt", "gpt"), ("dos", "mbr")] {
        let bench = Bench::new();
        bench.ext4("part.img", "mail");
        bench.file("disk.img", 64 << 20);
        let script = format!("label: {label}\n,8M\n,16M\n");
        std::fs::write(bench.path().join("script"), script).unwrap();
        bench.tool(
            "fdisk",
            &["sh", "-c", "sfdisk -q --no-tell-kernel disk.img < script"],
        );
        bench.tool(
            "coreutils",
            &[
                "dd",
                "if=part.img",
                "of=disk.img",
                "bs=1M",
                "seek=9",
                "conv=notrunc",
                "status=none",
            ],
        );
        let devices = listed(&bench, "disk.img");
        assert_eq!(devices.len(), 3, "{devices:?}");
        let table = &devices[0]["contents"][0];
        assert_eq!(table["kind"], kind);
        assert_eq!(table["partitions"][1]["start"], 9 << 20);
        assert_eq!(devices[2]["parent"], "disk.img");
        assert_eq!(devices[2]["contents"][0]["label"], "mail");
        // And what it tells to type works.
        let offset = devices[2]["start"].to_string();
        let words = ["plan", "disk.img", "--source-offset", &offset];
        assert_eq!(bench.run(&words).code, Some(0));
    }
}

#[test]
fn a_damaged_gpt_is_replaced_by_its_copy() {
    let bench = Bench::new();
    bench.file("disk.img", 64 << 20);
    std::fs::write(bench.path().join("script"), "label: gpt\n,8M\n").unwrap();
    bench.tool(
        "fdisk",
        &["sh", "-c", "sfdisk -q --no-tell-kernel disk.img < script"],
    );
    let path = bench.path().join("disk.img");
    let file = OpenOptions::new().write(true).open(path).unwrap();
    // The name of the first entry, then the whole head of the disk.
    for (at, length) in [(1024 + 56, 4), (0, 4096)] {
        file.write_all_at(&vec![0xff; length], at).unwrap();
        let devices = listed(&bench, "disk.img");
        let table = &devices[0]["contents"][0];
        assert_eq!(table["kind"], "gpt");
        assert_eq!(table["state"], serde_json::json!(["copy-used"]));
        assert_eq!(table["partitions"].as_array().unwrap().len(), 1);
    }
}

#[test]
fn the_devices_of_this_machine_are_listed_without_trouble() {
    let bench = Bench::new();
    let ended = bench.run(&["--json", "ls"]);
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    let result = events(&ended.stdout).pop().unwrap();
    assert_eq!(result["status"], "ok");
}

#[test]
fn a_plan_counts_what_an_image_stores() {
    let bench = Bench::new();
    bench.ext4("disk.img", "mail");
    let of = |words: &[&str], kind: &str| {
        let ended = bench.run(words);
        let events = events(&ended.stdout);
        events.into_iter().find(|event| event["type"] == kind).unwrap()
    };
    for (format, name) in [("raw", "x.raw"), ("qcow2", "x.qcow2")] {
        let words = ["--json", "plan", "disk.img", "--format", format];
        let plan = of(&words, "plan");
        let image = of(&["--json", "image", "disk.img", name], "result");
        assert_eq!(plan["blocks"], image["blocks"]);
        assert_eq!(plan["bytes"], image["bytes"]);
        let sum: u64 = plan["kinds"]
            .as_array()
            .unwrap()
            .iter()
            .map(|kind| kind["blocks"].as_u64().unwrap())
            .sum();
        assert_eq!(plan["blocks"], sum);
    }
}

#[test]
fn a_selector_that_nothing_has_is_refused() {
    let bench = Bench::new();
    for name in ["UUID=0000-0000", "LABEL=no such label", "SERIAL=?", "WWN="] {
        let ended = bench.run(&["plan", name]);
        assert_eq!(ended.code, Some(9), "{}", ended.stderr);
        assert!(ended.stderr.contains(name), "{}", ended.stderr);
    }
    bench.ext4("LABEL=mail", "mail");
    assert_eq!(bench.run(&["plan", "./LABEL=mail"]).code, Some(0));
}
