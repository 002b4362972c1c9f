//! Each guard has its own message, its own way past it where there is one,
//! and its own test, which fails without it.

use e2wire_tests::rescue::{Ended, Rescue};
use e2wire_tests::{oracle, tools};

struct Scene {
    rescue: Rescue,
    image: String,
}

impl Scene {
    fn new(name: &str) -> Self {
        let rescue = Rescue::new(name);
        let image = rescue.image("image.qcow2", &[]);
        Self { image: image.to_str().unwrap().to_owned(), rescue }
    }

    fn install(&self, options: &[&str]) -> Ended {
        let words = [&["install"], options, &[&self.image, "disk"]].concat();
        self.rescue.run(&words)
    }

    /// The install is refused with these words, without a token, and the disk
    /// is as it was.
    fn refused(&self, options: &[&str], words: &str) {
        let before = self.rescue.bytes();
        let ended = self.install(options);
        assert_eq!(ended.code, 5, "{}", ended.said);
        assert_eq!(ended.event("result")["status"], "refused");
        assert!(ended.said.contains(words), "{words}: {}", ended.said);
        assert!(!ended.said.contains("\"confirm\":\""), "{}", ended.said);
        assert!(self.rescue.bytes() == before, "written all the same");
    }

    /// The install shows a plan to be confirmed.
    fn planned(&self, options: &[&str]) -> String {
        let ended = self.install(options);
        assert_eq!(ended.code, 5, "{}", ended.said);
        ended.token()
    }

    fn tune(&self, options: &[&str]) {
        let mut command = tools::command("tune2fs");
        command.args(options).arg(&self.rescue.disk);
        oracle::assert_success("tune2fs", &oracle::run(&mut command));
    }

    fn debugfs(&self, request: &str) {
        let disk = &self.rescue.disk;
        let _ = oracle::debugfs(&["-w"], request, disk);
    }
}

const ROOT_TABLE: u64 = 2048 + 10;

#[test]
fn another_filesystem_is_refused_by_its_uuid() {
    let scene = Scene::new("ext4-1k");
    // s_uuid; without metadata_csum nothing else depends on it.
    scene.rescue.poke(1024 + 0x68, &[7; 16]);
    scene.refused(&[], "UUID");
    let _ = scene.planned(&["--allow-uuid-change"]);
}

#[test]
fn a_filesystem_of_another_size_is_refused() {
    let scene = Scene::new("ext4-4k");
    let mut command = tools::command("resize2fs");
    command.arg("-f").arg(&scene.rescue.disk).arg("32M");
    let length = std::fs::metadata(&scene.rescue.disk).unwrap().len();
    oracle::assert_success("resize2fs", &oracle::run(&mut command));
    let disk = std::fs::OpenOptions::new()
        .write(true)
        .open(&scene.rescue.disk)
        .unwrap();
    disk.set_len(length).unwrap();
    scene.refused(&["--allow-changed"], "--allow-size-change");
    let _ = scene.planned(&["--allow-size-change", "--allow-changed"]);
}

#[test]
fn a_device_of_another_size_is_refused_and_a_shorter_one_always() {
    let scene = Scene::new("ext4-1k");
    scene.rescue.poke(ROOT_TABLE, &[1; 4]);
    let disk = std::fs::OpenOptions::new()
        .write(true)
        .open(&scene.rescue.disk)
        .unwrap();
    let length = disk.metadata().unwrap().len();
    disk.set_len(length + (1 << 20)).unwrap();
    scene.refused(&[], "--allow-size-change");
    let _ = scene.planned(&["--allow-size-change"]);
    disk.set_len(length - 1024).unwrap();
    scene.refused(&["--allow-size-change"], "has room for");
}

#[test]
fn a_device_without_a_superblock_must_be_known_by_something_else() {
    let scene = Scene::new("ext4-1k-full");
    scene.rescue.poke(1024, &[0; 1024]);
    // The copy in group 1 tells.
    let token = scene.planned(&[]);
    assert!(!token.is_empty());
    let said = scene.install(&[]).said;
    assert!(said.contains("copy in group 1"), "{said}");
    let disk = scene.rescue.bytes();
    let size = 1024 * 8192;
    for group in [1_usize, 3, 5] {
        let at = group * size + 1024;
        if at + 1024 <= disk.len() {
            scene.rescue.poke(at as u64, &[0; 1024]);
        }
    }
    scene.refused(&[], "--expect-serial");
    scene.refused(&["--expect-serial", "WD-1"], "another disk");
}

#[test]
fn an_image_that_is_not_what_it_was_is_refused() {
    let rescue = Rescue::new("ext4-1k-full");
    let image = rescue.image("image.raw", &[]);
    let scene = Scene { image: image.to_str().unwrap().to_owned(), rescue };
    e2wire_tests::rescue::poke(&image, ROOT_TABLE, &[1; 4]);
    scene.refused(&[], "--original");
    std::fs::remove_file(scene.rescue.path("image.raw.manifest.json")).unwrap();
    scene.refused(&[], "--unproven");
    let _ = scene.planned(&["--unproven"]);
}

#[test]
fn an_image_that_is_cut_short_is_refused() {
    let rescue = Rescue::new("ext4-1k-full");
    let image = rescue.image("image.e2i", &[]);
    std::fs::remove_file(rescue.path("image.e2i.manifest.json")).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(&image).unwrap();
    file.set_len(file.metadata().unwrap().len() / 2).unwrap();
    let scene = Scene { image: image.to_str().unwrap().to_owned(), rescue };
    let before = scene.rescue.bytes();
    let ended = scene.install(&[]);
    assert_ne!(ended.code, 0, "{}", ended.said);
    assert!(!ended.said.contains("\"confirm\":\""), "{}", ended.said);
    assert!(scene.rescue.bytes() == before);
}

#[test]
fn a_journal_to_be_replayed_is_refused_unless_it_is_replaced() {
    let scene = Scene::new("ext4-1k-full");
    scene.debugfs("feature needs_recovery");
    scene.rescue.poke(ROOT_TABLE, &[1; 4]);
    let only = ["--only", "superblock,descriptors", "--allow-changed"];
    scene.refused(&only, "still to be replayed");
    let _ = scene.planned(&["--allow-changed"]);
}

#[test]
fn what_was_written_since_the_image_is_not_rolled_back() {
    let scene = Scene::new("ext4-1k-full");
    let mut command = tools::command("debugfs");
    command
        .env("E2FSPROGS_FAKE_TIME", "1800000000")
        .args(["-w", "-R", "mkdir later"])
        .arg(&scene.rescue.disk);
    let _ = oracle::run(&mut command);
    scene.refused(&[], "these structures differ");
    scene.refused(&[], "inode-table");
    let _ = scene.planned(&["--allow-changed"]);
}

#[test]
fn a_filesystem_that_another_host_has_mounted_is_refused() {
    let scene = Scene::new("mmp");
    let said = oracle::dumpe2fs(&["-h"], &scene.rescue.disk);
    let (_, rest) = said.split_once("MMP block number:").expect("MMP");
    let block: u64 =
        rest.trim_start().lines().next().unwrap().trim().parse().unwrap();
    let (_, rest) = said.split_once("Block size:").unwrap();
    let size: u64 =
        rest.trim_start().lines().next().unwrap().trim().parse().unwrap();
    let descriptors = if size == 1024 { 2048 } else { size };
    scene.rescue.poke(descriptors + 10, &[1; 4]);
    // mmp_seq: e2fsck is at work.
    scene.rescue.poke(block * size + 4, &0xE24D_4D50_u32.to_le_bytes());
    scene.refused(&[], "multiple-mount protection");
    // Mounted: the number moves.
    let disk = scene.rescue.disk.clone();
    scene.rescue.poke(block * size + 4, &[1, 0, 0, 0]);
    let over = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let ended = std::sync::Arc::clone(&over);
    let other = std::thread::spawn(move || {
        let mut seq = 1_u32;
        while !ended.load(std::sync::atomic::Ordering::Relaxed) {
            seq += 1;
            let at = block * size + 4;
            e2wire_tests::rescue::poke(&disk, at, &seq.to_le_bytes());
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    });
    let ended = scene.install(&[]);
    over.store(true, std::sync::atomic::Ordering::Relaxed);
    other.join().unwrap();
    assert_eq!(ended.code, 5, "{}", ended.said);
    assert!(ended.said.contains("another host"), "{}", ended.said);
}

#[test]
fn a_member_of_an_array_is_refused() {
    let scene = Scene::new("ext4-1k");
    scene.rescue.poke(ROOT_TABLE, &[1; 4]);
    // A RAID superblock of format 1.0 near the end: magic, version, where
    // it lies.
    let length = std::fs::metadata(&scene.rescue.disk).unwrap().len();
    let at = (length - 16 * 512) & !4095;
    scene.rescue.poke(at, &0xa92b_4efc_u32.to_le_bytes());
    scene.rescue.poke(at + 4, &1_u32.to_le_bytes());
    scene.rescue.poke(at + 144, &(at / 512).to_le_bytes());
    scene.refused(&[], "md-member");
}

#[test]
fn a_token_is_good_for_one_plan_on_one_device() {
    let scene = Scene::new("ext4-1k-full");
    scene.rescue.poke(ROOT_TABLE, &[1; 4]);
    let token = scene.planned(&[]);
    for wrong in ["abcdefghij", "", "../../etc/x", &token.to_uppercase()] {
        scene.refused(&["--confirm", wrong], "the token");
    }
    // The same bytes on another disk: another device.
    let twin = scene.rescue.copy(&scene.rescue.disk, "twin");
    let words = ["install", "--confirm", &token, &scene.image, "twin"];
    let ended = scene.rescue.run(&words);
    assert_eq!(ended.code, 5, "{}", ended.said);
    // Another plan on the same disk.
    scene.rescue.poke(ROOT_TABLE + 64, &[1; 4]);
    scene.refused(&["--confirm", &token], "the token");
    assert!(twin.exists());
}

#[test]
fn an_undo_goes_back_only_where_nobody_wrote_since() {
    let scene = Scene::new("ext4-1k-full");
    scene.rescue.poke(ROOT_TABLE, &[1; 4]);
    let words = ["install", &scene.image, "disk"];
    let token = scene.rescue.confirm(&words);
    let undo = format!("{}.{token}.undo", scene.image);
    scene.rescue.poke(ROOT_TABLE, &[2; 4]);
    let ended = scene.rescue.run(&["undo", &undo, "disk"]);
    assert_eq!(ended.code, 5, "{}", ended.said);
    assert!(ended.said.contains("nor what was installed"), "{}", ended.said);
    let longer = scene.rescue.copy(&scene.rescue.disk, "longer");
    std::fs::OpenOptions::new()
        .write(true)
        .open(&longer)
        .unwrap()
        .set_len(1 << 30)
        .unwrap();
    let ended = scene.rescue.run(&["undo", &undo, "longer"]);
    assert_eq!(ended.code, 5, "{}", ended.said);
    assert!(ended.said.contains("of a device of"), "{}", ended.said);
    scene.tune(&["-l"]);
}
