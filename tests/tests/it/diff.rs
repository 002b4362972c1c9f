//! `diff` names exactly what differs, and nothing where nothing does.

use std::path::Path;

use e2wire_tests::agents::{BUILDS, Build};
use e2wire_tests::fixtures::{fixture, in_parallel};
use e2wire_tests::rescue::{Ended, Rescue, poke};
use e2wire_tests::{oracle, tools};
use serde_json::Value;

fn debugfs(disk: &Path, request: &str) {
    let mut command = tools::command("debugfs");
    command.args(["-w", "-R", request]).arg(disk);
    oracle::assert_success("debugfs", &oracle::run(&mut command));
}

/// Compares two files in the folder.
fn diff(rescue: &Rescue, left: &str, right: &str) -> Ended {
    rescue.run(&["diff", left, right])
}

/// The kinds of which blocks differ.
fn kinds(result: &Value) -> Vec<&str> {
    let kinds = result["kinds"].as_array().unwrap().iter();
    kinds
        .filter(|kind| kind["differing"].as_u64() > Some(0))
        .map(|kind| kind["kind"].as_str().unwrap())
        .collect()
}

fn inodes(result: &Value) -> Vec<u64> {
    let inodes = result["inodes"].as_array().unwrap().iter();
    inodes.map(|inode| inode["inode"].as_u64().unwrap()).collect()
}

/// What is said of one of `list`, found by its number.
fn one<'v>(list: &'v Value, key: &str, number: u64) -> &'v Value {
    let mut all = list.as_array().unwrap().iter();
    all.find(|one| one[key] == number)
        .unwrap_or_else(|| panic!("no {key} {number}: {list}"))
}

fn field<'v>(fields: &'v Value, name: &str) -> &'v Value {
    let mut all = fields.as_array().unwrap().iter();
    all.find(|field| field["field"] == name)
        .unwrap_or_else(|| panic!("no field {name}: {fields}"))
}

#[test]
fn every_change_is_named() {
    let tables = ["inode-table"];
    let punched = ["descriptors", "block-bitmap", "inode-table", "map"];
    // What debugfs does, the kinds that differ then, and the inodes.
    let changes: [(&str, &[&str], &[u64]); 7] = [
        ("sif <108> mtime 0x12345678", &tables, &[108]),
        ("unlink /punched", &["directory"], &[2]),
        ("freei <110>", &["descriptors", "inode-bitmap"], &[110]),
        ("freeb 1 3", &["descriptors", "block-bitmap"], &[]),
        ("ssv volume_name lost", &[], &[]),
        ("set_bg 0 free_blocks_count 7", &["descriptors"], &[]),
        ("punch <108> 400 499", &punched, &[108]),
    ];
    let results =
        in_parallel(&changes, |(request, kinds_then, inodes_then)| {
            let rescue = Rescue::new("ext4-1k-full");
            let changed = rescue.copy(&rescue.disk, "changed");
            debugfs(&changed, request);
            let ended = diff(&rescue, "disk", "changed");
            assert_eq!(ended.code, 4, "{request}: {}", ended.said);
            let result = ended.event("result");
            assert_eq!(kinds(&result), *kinds_then, "{request}");
            assert_eq!(inodes(&result), *inodes_then, "{request}");
            result
        });
    let [time, unlinked, freed, blocks, superblock, group, _] = &results[..]
    else {
        panic!("a result for each");
    };
    let inode = one(&time["inodes"], "inode", 108);
    assert_eq!(inode["left_path"], "/holes-500");
    let mtime = field(&inode["fields"], "i_mtime");
    assert_eq!(mtime["left"], 0x6553_f100);
    assert_eq!(mtime["right"], 0x1234_5678);
    let root = one(&unlinked["inodes"], "inode", 2);
    let entries = root["entries"].as_array().unwrap();
    assert_eq!(entries.len(), 1, "{entries:?}");
    assert_eq!(entries[0]["name"], "punched");
    assert_eq!(entries[0]["left"], 109);
    assert!(entries[0]["right"].is_null());
    assert_eq!(one(&freed["inodes"], "inode", 110)["used_now"], false);
    let first = one(&blocks["groups"], "group", 0);
    assert_eq!(first["clusters_free_now"], 3);
    assert_eq!(first["clusters_used_now"], 0);
    let name = field(&superblock["superblock"], "s_volume_name");
    assert_eq!(name["right"], "lost");
    let first = one(&group["groups"], "group", 0);
    let free = field(&first["fields"], "bg_free_blocks_count_lo");
    assert_eq!(free["right"], 7);
}

#[test]
fn what_e2fsck_did_to_a_copy_is_told_by_inode_and_path() {
    let rescue = Rescue::new("ext4-1k-full");
    for request in ["sif <108> links_count 9", "unlink /punched", "freei <110>"]
    {
        debugfs(&rescue.disk, request);
    }
    let _ = rescue.image("image.qcow2", &[]);
    let mut convert = rescue.e2wire(&["convert", "image.qcow2", "copy.raw"]);
    oracle::assert_success("convert", &oracle::run(&mut convert));
    let same = diff(&rescue, "image.qcow2", "copy.raw");
    assert_eq!(same.code, 0, "{}", same.said);
    let mut command = tools::command("e2fsck");
    command.arg("-fy").arg(rescue.path("copy.raw"));
    assert_eq!(oracle::run(&mut command).status.code(), Some(1));
    let ended = diff(&rescue, "image.qcow2", "copy.raw");
    assert_eq!(ended.code, 4, "{}", ended.said);
    let result = ended.event("result");
    let links = one(&result["inodes"], "inode", 108);
    assert_eq!(links["right_path"], "/holes-500");
    let links = field(&links["fields"], "i_links_count");
    assert_eq!(links["left"], 9);
    assert_eq!(links["right"], 1);
    let found = one(&result["inodes"], "inode", 11);
    assert_eq!(found["right_path"], "/lost+found");
    let entry = &found["entries"][0];
    assert_eq!(entry["name"], "#109");
    assert_eq!(entry["right"], 109);
    assert_eq!(one(&result["inodes"], "inode", 110)["used_now"], true);
    // People read the same.
    let mut command = rescue.e2wire(&["diff", "image.qcow2", "copy.raw"]);
    let said = oracle::text(&oracle::run(&mut command));
    for line in [
        "image.qcow2 -> copy.raw",
        "inode 108 /holes-500:",
        "  i_links_count 9 -> 1",
        "  entry \"#109\" (inode 109) is new",
    ] {
        assert!(said.lines().any(|own| own == line), "{line}: {said}");
    }
}

#[test]
fn an_image_is_the_same_in_every_format() {
    let names = [
        "ext4-1k-full",
        "ext2-4k-full",
        "ext4-64k-full",
        "bigalloc-16k",
        "orphans-indirect",
        "groups-many",
        "ext2-rev0",
        "journal-dirty",
    ];
    in_parallel(&names, |name| {
        let rescue = Rescue::new(name);
        let mut sides = Vec::new();
        for (file, options) in [
            ("a.qcow2", &[][..]),
            ("a.raw", &[]),
            ("a.e2i", &[]),
            ("bare.raw", &["--no-manifest"]),
            ("all.raw", &["--data"]),
            ("live.qcow2", &["--journal", "live"]),
        ] {
            let _ = rescue.image(file, options);
            sides.push(file);
        }
        for (file, option) in
            [("theirs.raw", "-r"), ("theirs.qcow2", "-Q"), ("theirs.e2i", "")]
        {
            let mut oracle = oracle::E2image::default();
            let options = [option];
            if !option.is_empty() {
                oracle.options = &options;
            }
            // It refuses some filesystems.
            if oracle.run(&rescue.disk, &rescue.path(file)).status.success() {
                sides.push(file);
            }
        }
        assert!(sides.len() >= 8, "{name}: {sides:?}");
        for side in &sides {
            for (left, right) in [(side, &"disk"), (&"a.qcow2", side)] {
                let ended = diff(&rescue, left, right);
                let said = &ended.said;
                assert_eq!(ended.code, 0, "{name}: {left} {right}: {said}");
                let result = ended.event("result");
                assert_eq!(result["differing_blocks"], 0, "{left} {right}");
            }
        }
    });
}

#[test]
fn contents_are_compared_where_both_sides_hold_them() {
    let rescue = Rescue::new("ext4-1k-full");
    let _ = rescue.image("metadata.qcow2", &[]);
    let _ = rescue.image("before.raw", &["--data"]);
    let block = oracle::debugfs(&[], "bmap <107> 0", &rescue.disk);
    let words = block.split_whitespace().last().unwrap_or_default().to_owned();
    let block: u64 = words.parse().unwrap_or_else(|_| panic!("{block}"));
    assert!(block > 0);
    rescue.poke(block * 1024 + 100, b"other");
    let _ = rescue.image("after.raw", &["--data"]);
    let ended = diff(&rescue, "before.raw", "after.raw");
    assert_eq!(ended.code, 4, "{}", ended.said);
    let result = ended.event("result");
    assert_eq!(kinds(&result), ["data"]);
    assert_eq!(inodes(&result), [107]);
    let inode = one(&result["inodes"], "inode", 107);
    assert_eq!(inode["right_path"], "/far");
    // An image of the metadata has nothing to say about it, and says so.
    let ended = diff(&rescue, "metadata.qcow2", "after.raw");
    assert_eq!(ended.code, 0, "{}", ended.said);
    let result = ended.event("result");
    let mut kinds = result["kinds"].as_array().unwrap().iter();
    let data = kinds.find(|kind| kind["kind"] == "data").unwrap();
    assert!(data["only_right"].as_u64() > Some(0), "{data}");
}

#[test]
fn other_shapes_and_sizes_are_said() {
    let rescue = Rescue::new("ext4-1k");
    fixture("ext4-4k").copy_to(&rescue.path("other")).unwrap();
    let ended = diff(&rescue, "disk", "other");
    assert_eq!(ended.code, 4, "{}", ended.said);
    let result = ended.event("result");
    assert_eq!(result["same_shape"], false);
    let remarks = result["remarks"].to_string();
    assert!(remarks.contains("block size 1024 -> 4096"), "{remarks}");
    let size = field(&result["superblock"], "s_log_block_size");
    assert_eq!(size["left"], 0);
    assert_eq!(size["right"], 2);
    // A filesystem that has grown is compared as far as both reach.
    let grown = rescue.copy(&rescue.disk, "grown");
    let file = std::fs::OpenOptions::new().write(true).open(&grown).unwrap();
    file.set_len(32 << 20).unwrap();
    let mut command = tools::command("resize2fs");
    command.arg("-f").arg(&grown);
    oracle::assert_success("resize2fs", &oracle::run(&mut command));
    let ended = diff(&rescue, "disk", "grown");
    assert_eq!(ended.code, 4, "{}", ended.said);
    let result = ended.event("result");
    assert_eq!(result["same_shape"], true);
    let remarks = result["remarks"].to_string();
    assert!(remarks.contains("different sizes"), "{remarks}");
    assert!(kinds(&result).contains(&"descriptors"), "{result}");
}

#[test]
fn what_is_no_image_is_refused_and_damage_is_only_a_difference() {
    let rescue = Rescue::new("ext4-1k-full");
    let image = rescue.image("a.qcow2", &[]);
    let file = |name: &str, bytes: &[u8]| {
        std::fs::write(rescue.path(name), bytes).unwrap();
    };
    file("empty", &[]);
    file("junk", &[0x5A; 300_000]);
    file("cut.qcow2", &std::fs::read(&image).unwrap()[..100_000]);
    std::fs::create_dir(rescue.path("folder")).unwrap();
    for name in ["empty", "junk", "cut.qcow2", "folder", "missing"] {
        for (left, right) in [(name, "disk"), ("a.qcow2", name)] {
            let ended = diff(&rescue, left, right);
            assert_eq!(ended.code, 9, "{left} {right}: {}", ended.said);
            assert!(ended.said.contains(name), "{name}: {}", ended.said);
        }
    }
    // Noise in the structure: 40 places that a small generator picks.
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    let mut next = |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    let bad = rescue.copy(&rescue.disk, "bad");
    for turn in 0..40 {
        // The superblock itself from time to time, else what follows it.
        let below = if turn % 8 == 0 { 2048 } else { 600 << 10 };
        let bytes: Vec<u8> = (0..64).map(|_| next(256) as u8).collect();
        poke(&bad, 1024 + next(below), &bytes);
        let (left, right) =
            if turn % 2 == 0 { ("a.qcow2", "bad") } else { ("bad", "disk") };
        let ended = diff(&rescue, left, right);
        let said = &ended.said;
        assert!([0, 4, 9].contains(&ended.code), "turn {turn}: {said}");
        if ended.code == 9 {
            std::fs::copy(&rescue.disk, &bad).unwrap();
        }
    }
}

#[test]
fn a_device_at_the_end_of_a_line_differs_as_one_here_does() {
    let rescue = Rescue::new("ext4-1k-full");
    let _ = rescue.image("a.qcow2", &[]);
    let _ = rescue.image("a.e2i", &[]);
    let disk = rescue.disk.to_str().unwrap();
    let target = |build: Build| {
        format!(
            "pipe:{} --stdio --insecure --device {disk}",
            build.path().display()
        )
    };
    for build in BUILDS {
        let target = target(build);
        let words = ["-t", &target, "diff", "a.qcow2", disk];
        let same = rescue.run(&words);
        assert_eq!(same.code, 0, "{}", same.said);
    }
    for request in ["sif <108> links_count 9", "unlink /punched", "freei <110>"]
    {
        debugfs(&rescue.disk, request);
    }
    let target = target(Build::Hosted);
    for image in ["a.qcow2", "a.e2i"] {
        let there = rescue.run(&["-t", &target, "diff", image, disk]);
        let here = diff(&rescue, image, disk);
        assert_eq!((there.code, here.code), (4, 4), "{}", there.said);
        let (there, here) = (there.event("result"), here.event("result"));
        for key in ["superblock", "kinds", "groups", "inodes"] {
            if key == "inodes" && image == "a.e2i" {
                // No directory is read over a line for their names only.
                assert_eq!(inodes(&there), inodes(&here));
            } else {
                assert_eq!(there[key], here[key], "{image}: {key}");
            }
        }
    }
}
