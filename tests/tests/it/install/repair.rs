//! Repair from a distance: image, repair a copy, write the difference back.
//! What comes of it is what a repair of the device itself would have made.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use e2wire_tests::rescue::{Ended, Rescue};
use e2wire_tests::{oracle, tools};

/// Every file of a filesystem with its contents, as debugfs reads them.
fn files(rescue: &Rescue, disk: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let folder = tempfile::tempdir_in(rescue.path("")).unwrap();
    let mut command = tools::command("debugfs");
    let request = format!("rdump / {}", folder.path().display());
    command.args(["-R", &request]).arg(disk);
    oracle::assert_success("debugfs", &oracle::run(&mut command));
    let mut files = BTreeMap::new();
    collect(folder.path(), folder.path(), &mut files);
    files
}

fn collect(root: &Path, at: &Path, files: &mut BTreeMap<PathBuf, Vec<u8>>) {
    for entry in std::fs::read_dir(at).unwrap().flatten() {
        let (path, kind) = (entry.path(), entry.file_type().unwrap());
        let name = path.strip_prefix(root).unwrap().to_owned();
        if kind.is_dir() {
            collect(root, &path, files);
            files.insert(name, b"a directory".to_vec());
        } else if kind.is_file() {
            files.insert(name, std::fs::read(&path).unwrap());
        } else if kind.is_symlink() {
            let target = std::fs::read_link(&path).unwrap();
            files.insert(name, target.into_os_string().into_encoded_bytes());
        }
    }
}

/// Repairs a filesystem, and fails where that fails.
fn repair(disk: &Path) {
    let mut command = tools::command("e2fsck");
    let output = oracle::run(command.arg("-fy").arg(disk));
    let code = output.status.code().unwrap();
    // 1: errors were corrected; 2: and a reboot would be needed.
    assert!([0, 1].contains(&code), "e2fsck: {}", oracle::text(&output));
}

/// A damaged disk, its image, a repaired copy of that, and what a repair of
/// the disk itself makes of it.
struct Loop {
    rescue: Rescue,
    control: PathBuf,
}

impl Loop {
    fn new(rescue: Rescue, options: &[&str]) -> Self {
        let _ = rescue.image("image.qcow2", options);
        let control = rescue.copy(&rescue.disk, "control");
        repair(&control);
        Self { rescue, control }
    }

    fn make_copy(&self) {
        let mut command = self.rescue.e2wire(&[
            "convert",
            "--overwrite",
            "image.qcow2",
            "copy.raw",
        ]);
        oracle::assert_success("convert", &oracle::run(&mut command));
    }

    fn repair_copy(&self) {
        repair(&self.rescue.path("copy.raw"));
    }

    const WORDS: [&str; 5] =
        ["install", "--original", "image.qcow2", "copy.raw", "disk"];

    fn plan(&self) -> Ended {
        self.rescue.run(&Self::WORDS)
    }

    /// The copies of superblock and descriptors in group 1 of 1 KiB blocks.
    fn backups(&self) -> Vec<u8> {
        let disk = self.rescue.bytes();
        disk.get(8193 * 1024..8195 * 1024).unwrap_or_default().to_vec()
    }

    /// Writes the repair back; then the disk is as the control. Copies in
    /// other groups stay what they are, whatever the repair did to those of
    /// the image, which never held them.
    fn install(&self, name: &str) {
        let backups = self.backups();
        self.rescue.confirm(&Self::WORDS);
        assert!(self.backups() == backups, "{name}: copies were changed");
        let verdict = oracle::e2fsck(&self.rescue.disk);
        assert_eq!(verdict.status, 0, "{name}: {}", verdict.messages);
        let now = files(&self.rescue, &self.rescue.disk);
        let right = files(&self.rescue, &self.control);
        let names = |files: &BTreeMap<PathBuf, Vec<u8>>| -> Vec<PathBuf> {
            files.keys().cloned().collect()
        };
        assert_eq!(names(&now), names(&right), "{name}");
        for (path, contents) in &right {
            assert!(now[path] == *contents, "{name}: {}", path.display());
        }
    }
}

fn debugfs(rescue: &Rescue, request: &str) {
    let mut command = tools::command("debugfs");
    command.args(["-w", "-R", request]).arg(&rescue.disk);
    oracle::assert_success("debugfs", &oracle::run(&mut command));
}

#[test]
fn a_rehearsal_tells_a_good_repair_from_a_bad_one() {
    let rescue = two_files("has_journal,extent,metadata_csum", 1024);
    debugfs(&rescue, "unlink /folder");
    let table = Loop::new(rescue, &[]);
    table.make_copy();
    let words = [&["install", "--rehearse"], &Loop::WORDS[1..]].concat();
    debugfs(&table.rescue, "ssv free_blocks_count 7");
    // Not repaired yet, and the disk is no longer what the image says.
    let with = [&words[..], &["--allow-changed"]].concat();
    let refused = table.rescue.run(&with);
    assert_eq!(refused.code, 5, "{}", refused.said);
    assert!(refused.said.contains("would not be content"), "{}", refused.said);
    table.repair_copy();
    let planned = table.rescue.run(&with);
    let remarks = planned.event("plan")["remarks"].to_string();
    assert!(remarks.contains("e2fsck -fn finds nothing"), "{remarks}");
    let _ = planned.token();
}

/// A filesystem of our own with two files of known contents.
fn two_files(features: &str, block: u64) -> Rescue {
    let rescue = Rescue::new("ext4-1k");
    let tree = rescue.path("tree");
    std::fs::create_dir_all(tree.join("folder")).unwrap();
    let block = usize::try_from(block).unwrap();
    std::fs::write(tree.join("one"), vec![b'1'; block * 5 + 7]).unwrap();
    std::fs::write(tree.join("two"), vec![b'2'; block * 3 + 9]).unwrap();
    std::fs::write(tree.join("folder/three"), vec![b'3'; 100]).unwrap();
    std::fs::File::create(&rescue.disk).unwrap().set_len(16 << 20).unwrap();
    let mut command = tools::command("mke2fs");
    command
        .args(["-q", "-I", "256", "-O"])
        .arg(format!(
            "none,ext_attr,dir_index,filetype,sparse_super,large_file,\
             extra_isize,{features}"
        ))
        .args(["-b", &block.to_string(), "-d"])
        .arg(&tree)
        .arg(&rescue.disk);
    oracle::assert_success("mke2fs", &oracle::run(&mut command));
    rescue
}

/// The number that debugfs answers.
fn number(rescue: &Rescue, request: &str) -> u64 {
    let said = oracle::debugfs(&[], request, &rescue.disk);
    let digits = said.split_whitespace().last().unwrap_or_default();
    digits.parse().unwrap_or_else(|_| panic!("{request}: {said}"))
}

#[test]
fn a_repair_of_a_copy_is_a_repair_of_the_disk() {
    // What is damaged, where: bitmaps, tables, a directory's entry, counts.
    let damages: [(&str, &[&str]); 5] = [
        ("ext4-1k-full", &["freei <12>", "freeb 400 20"]),
        ("ext4-4k-full", &["set_bg 0 free_blocks_count 7", "freei <2>"]),
        ("ext3-1k-full", &["unlink /", "ssv free_inodes_count 1"]),
        ("orphans-extents", &[]),
        ("orphans-indirect", &["ssv free_blocks_count 1"]),
    ];
    for (name, requests) in damages {
        let rescue = Rescue::new(name);
        for request in requests {
            debugfs(&rescue, request);
        }
        let table = Loop::new(rescue, &[]);
        table.make_copy();
        table.repair_copy();
        table.install(name);
    }
}

#[test]
fn what_lost_its_name_is_found_again() {
    let rescue = two_files("has_journal,extent,metadata_csum", 1024);
    debugfs(&rescue, "unlink /folder");
    debugfs(&rescue, "unlink /two");
    let table = Loop::new(rescue, &["--journal", "live"]);
    table.make_copy();
    table.repair_copy();
    table.install("lost+found");
    let now = files(&table.rescue, &table.rescue.disk);
    let found = |contents: &[u8]| {
        now.iter().any(|(path, own)| {
            path.starts_with("lost+found") && own.starts_with(contents)
        })
    };
    assert!(found(&[b'2'; 2000]) && found(&[b'3'; 100]), "{:?}", now.keys());
}

#[test]
fn a_truncated_file_keeps_what_it_had() {
    let rescue = two_files("uninit_bg", 4096);
    debugfs(&rescue, "sif /one size 5000");
    debugfs(&rescue, "sif /one blocks 999");
    let table = Loop::new(rescue, &[]);
    table.make_copy();
    table.repair_copy();
    table.install("truncated");
}

/// Two files that claim the same blocks: e2fsck gives each its own, and on
/// an image of the metadata it has only zeros for them.
#[test]
fn contents_that_nobody_has_are_never_written() {
    for block in [1024, 4096] {
        let rescue = two_files("uninit_bg", block);
        let shared = number(&rescue, "bmap /one 0");
        debugfs(&rescue, &format!("sif /two block[0] {shared}"));
        let inodes = ["/one", "/two"].map(|path| {
            let said =
                oracle::debugfs(&[], &format!("stat {path}"), &rescue.disk);
            let (_, rest) = said.split_once("Inode: ").unwrap();
            rest.split_whitespace().next().unwrap().to_owned()
        });
        let table = Loop::new(rescue, &[]);
        table.make_copy();
        table.repair_copy();
        let before = table.rescue.bytes();
        let refused = table.plan();
        assert_eq!(refused.code, 5, "{}", refused.said);
        assert!(refused.said.contains("--fetch-data"), "{}", refused.said);
        let named =
            refused.said.contains("/one") || refused.said.contains("/two");
        assert!(named, "{}", refused.said);
        assert!(table.rescue.bytes() == before);

        table.make_copy();
        let list = inodes.join(",");
        let words = ["install", "--fetch-data", &list, "copy.raw", "disk"];
        let fetched = table.rescue.run(&words);
        assert_eq!(fetched.code, 0, "{}", fetched.said);
        assert!(table.rescue.bytes() == before);
        table.repair_copy();
        table.install("shared blocks");
    }
}

/// The journal may hold contents of files: these are real, and belong to the
/// repair.
#[test]
fn contents_in_the_journal_are_replayed() {
    let rescue = two_files("has_journal,extent,64bit", 1024);
    let block = number(&rescue, "bmap /one 2");
    let fresh = rescue.path("fresh");
    std::fs::write(&fresh, [b'J'; 1024]).unwrap();
    let commands = rescue.path("commands");
    let lines = format!("jo\njw -b {block} {}\njc\n", fresh.display());
    std::fs::write(&commands, lines).unwrap();
    let mut command = tools::command("debugfs");
    command.args(["-w", "-f"]).arg(&commands).arg(&rescue.disk);
    oracle::assert_success("debugfs", &oracle::run(&mut command));
    for journal in ["full", "live"] {
        let disk = rescue.copy(&rescue.disk, "again");
        let again = Rescue::new("ext4-1k");
        std::fs::copy(&disk, &again.disk).unwrap();
        let table = Loop::new(again, &["--journal", journal]);
        table.make_copy();
        table.repair_copy();
        table.install(journal);
        let now = files(&table.rescue, &table.rescue.disk);
        let one = &now[Path::new("one")];
        assert!(one[2048..3072] == [b'J'; 1024], "{journal}: not replayed");
    }
}

#[test]
fn a_device_that_changed_meanwhile_is_refused() {
    let rescue = two_files("has_journal,extent,metadata_csum", 1024);
    debugfs(&rescue, "unlink /folder");
    let table = Loop::new(rescue, &[]);
    table.make_copy();
    table.repair_copy();
    debugfs(&table.rescue, "mkdir /meanwhile");
    let refused = table.plan();
    assert_eq!(refused.code, 5, "{}", refused.said);
    assert!(refused.said.contains("these structures"), "{}", refused.said);
    assert!(refused.said.contains("directory"), "{}", refused.said);
}

/// A repair that no longer believes what a descriptor says of unused inodes
/// relies on tables that no image holds, and reads zeros there: right if the
/// device has zeros as well, and dangerous if not.
#[test]
fn what_the_image_never_held_is_only_relied_on_where_it_is_so() {
    for (name, group, block) in
        [("ext4-1k-full", 1, 1024), ("ext4-4k-full", 0, 4096_u64)]
    {
        let table = Loop::new(Rescue::new(name), &[]);
        let said = oracle::dumpe2fs(&[], &table.rescue.disk);
        let (_, of_group) =
            said.split_once(&format!("Group {group}:")).unwrap();
        let (_, rest) = of_group.split_once("Inode table at ").unwrap();
        let (_, rest) = rest.split_once('-').unwrap();
        let digits: String =
            rest.chars().take_while(char::is_ascii_digit).collect();
        let last: u64 = digits.parse().unwrap();
        table.make_copy();
        let commands = table.rescue.path("commands");
        let lines = ["flags 4", "itable_unused 0", "checksum calc"]
            .map(|what| format!("set_bg {group} {what}"));
        std::fs::write(&commands, lines.join("\n")).unwrap();
        let mut command = tools::command("debugfs");
        command.args(["-w", "-f"]).arg(&commands);
        command.arg(table.rescue.path("copy.raw"));
        oracle::assert_success("debugfs", &oracle::run(&mut command));
        // All of the table counts now, and nobody knows its last block.
        let before = table.rescue.bytes();
        table.rescue.poke(last * block, b"an inode that was in use");
        let refused = table.plan();
        assert_eq!(refused.code, 5, "{name}: {}", refused.said);
        assert!(refused.said.contains("--full-tables"), "{}", refused.said);
        assert!(refused.said.contains("inode-table"), "{}", refused.said);
        table.rescue.poke(last * block, &[0; 24]);
        assert!(table.rescue.bytes() == before);
        let _ = table.plan().token();
        table.repair_copy();
        table.install(name);
    }
}
