//! The real program, killed while it writes.

use std::time::Duration;

use e2wire_tests::rescue::Rescue;

/// Kills e2wire at some time during an install, then goes on, or goes back.
#[test]
fn a_killed_install_can_be_gone_on_from_and_taken_back() {
    let rescue = Rescue::new("ext4-1k-full");
    let image = rescue.image("all.qcow2", &["--data"]);
    let image = image.to_str().unwrap().to_owned();
    // A lot to do: every block but the superblock's.
    let length = rescue.bytes().len();
    rescue.poke(2048, &vec![0x5A; length - 2048]);
    let bad = rescue.copy(&rescue.disk, "bad");
    let words = ["install", "--data", &image, "disk"];
    let planned = rescue.run(&words);
    let token = planned.token();
    let confirmed = [&words[..], &["--confirm", &token]].concat();
    let undo = format!("{image}.{token}.undo");
    let done = rescue.run(&confirmed);
    assert_eq!(done.code, 0, "{}", done.said);
    let good = rescue.copy(&rescue.disk, "good");
    let mut outcomes = [0, 0, 0];
    for step in 0..12_u32 {
        // From before the undo file to behind the end.
        let _ = std::fs::remove_file(&undo);
        std::fs::copy(&bad, &rescue.disk).unwrap();
        let mut child = rescue.e2wire(&confirmed).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(u64::from(step * step * 2)));
        child.kill().unwrap();
        let _ = child.wait();
        let untouched = std::fs::read(&bad).unwrap() == rescue.bytes();
        if !std::path::Path::new(&undo).exists() {
            assert!(untouched, "written before the undo file was whole");
            outcomes[0] += 1;
            continue;
        }
        outcomes[if untouched { 1 } else { 2 }] += 1;
        if step % 2 == 0 {
            let ended = rescue.run(&confirmed);
            assert_eq!(ended.code, 0, "step {step}: {}", ended.said);
            rescue.assert_same(&good, "gone on from");
        } else {
            let back = rescue.run(&["undo", &undo, "disk"]);
            if back.code == 5 {
                let token = back.token();
                let words = ["undo", &undo, "disk", "--confirm", &token];
                let ended = rescue.run(&words);
                assert_eq!(ended.code, 0, "step {step}: {}", ended.said);
            } else {
                assert_eq!(back.code, 0, "step {step}: {}", back.said);
            }
            rescue.assert_same(&bad, "taken back");
        }
    }
    println!("before the undo file, before the writing, later: {outcomes:?}");
}

#[test]
fn what_happened_stands_in_the_log() {
    let rescue = Rescue::new("ext4-1k-full");
    let image = rescue.image("a.raw", &[]);
    rescue.poke(2048 + 10, &[1; 4]);
    let image = image.to_str().unwrap();
    rescue.confirm(&["install", image, "disk"]);
    let log = std::fs::read_to_string(rescue.path("e2wire/audit.ndjson"));
    let events: Vec<serde_json::Value> = log
        .expect("the log")
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let kinds: Vec<&str> =
        events.iter().filter_map(|e| e["event"].as_str()).collect();
    // The mark, the descriptors, the superblock.
    assert_eq!(kinds, ["arm", "write", "write", "write", "end"]);
    assert_eq!(events[0]["ranges"], serde_json::json!([[1024, 2048]]));
    assert_eq!(events[4]["result"], "done");
}
