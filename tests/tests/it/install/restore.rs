//! What is put back is what was there, and what e2image would put back.

use std::path::Path;

use e2wire_tests::fixtures::{RECIPES, fixture, in_parallel};
use e2wire_tests::rescue::Rescue;
use e2wire_tests::{oracle, tools};

/// Spoils a few of the tables of every kind that a normal image has, by what
/// dumpe2fs says of the first group.
fn spoil(rescue: &Rescue) -> Vec<(u64, u64)> {
    let said = oracle::dumpe2fs(&[], &rescue.disk);
    let number = |key: &str| -> u64 {
        let (_, rest) = said
            .split_once(key)
            .unwrap_or_else(|| panic!("dumpe2fs does not say {key}: {said}"));
        let digits: String = rest
            .trim_start()
            .chars()
            .take_while(char::is_ascii_digit)
            .collect();
        digits.parse().unwrap()
    };
    let size = number("Block size:");
    let (_, group) = said.split_once("Group 0:").unwrap();
    let in_group = |key: &str| -> Option<u64> {
        let (_, rest) = group.split_once(key)?;
        let digits: String =
            rest.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().ok()
    };
    let descriptors = ["Group descriptors at ", "Group descriptor at "];
    let blocks = [
        descriptors.into_iter().find_map(in_group).unwrap(),
        in_group("Block bitmap at ").unwrap(),
        in_group("Inode bitmap at ").unwrap(),
        in_group("Inode table at ").unwrap(),
    ];
    let mut places = vec![(1024 + 0x78, 4)];
    places.extend(blocks.iter().map(|block| (block * size + 64, 40)));
    for &(at, length) in &places {
        rescue.poke(at, &vec![0xA5; usize::try_from(length).unwrap()]);
    }
    places
}

#[test]
fn every_byte_comes_back_and_an_undo_brings_the_damage_back() {
    let cases = [
        ("ext4-1k-full", "a.raw"),
        ("ext4-4k-full", "a.qcow2"),
        ("ext2-2k-full", "a.e2i"),
        ("ext4-64k-full", "a.qcow2"),
    ];
    for (name, image) in cases {
        let rescue = Rescue::new(name);
        let image = rescue.image(image, &[]);
        let image = image.to_str().unwrap();
        let good = rescue.copy(&rescue.disk, "good");
        spoil(&rescue);
        let bad = rescue.copy(&rescue.disk, "bad");
        let token = rescue.confirm(&["install", image, "disk"]);
        rescue.assert_same(&good, &format!("{name}: installed"));
        let again = rescue.run(&["install", image, "disk"]);
        assert_eq!(again.code, 0, "{name}: {}", again.said);
        assert_eq!(again.event("result")["changed"], false);

        let undo = format!("{image}.{token}.undo");
        let back = rescue.confirm(&["undo", &undo, "disk"]);
        rescue.assert_same(&bad, &format!("{name}: undone"));
        let undo = format!("{undo}.{back}.undo");
        rescue.confirm(&["undo", &undo, "disk"]);
        rescue.assert_same(&good, &format!("{name}: the undo undone"));
    }
}

/// Fields that an install by e2image changes: write time, what was written
/// over the whole life, and the checksum over them.
fn without_clocks(superblock: &[u8]) -> Vec<u8> {
    let mut superblock = superblock.to_vec();
    for field in [0x30..0x34, 0x178..0x180, 0x274..0x275, 0x3FC..0x400] {
        superblock[field].fill(0);
    }
    superblock
}

/// Installs the same image by both, and compares.
fn differential(name: &str) -> Result<(), String> {
    let rescue = Rescue::new(name);
    let image = rescue.path("image.e2i");
    let made = oracle::E2image::default().run(&rescue.disk, &image);
    if !made.status.success() {
        return Err(format!("{name}: {}", oracle::text(&made)));
    }
    let places = spoil(&rescue);
    let theirs = rescue.copy(&rescue.disk, "theirs");
    let mut command = tools::command("e2image");
    command.arg("-I").arg(&theirs).arg(&image);
    oracle::assert_success("e2image -I", &oracle::run(&mut command));
    // The superblock's own checksum is wrong now, and its magic is not.
    rescue.confirm(&[
        "install",
        "--allow-changed",
        image.to_str().unwrap(),
        "disk",
    ]);
    let (ours, theirs) = (rescue.bytes(), std::fs::read(&theirs).unwrap());
    assert_eq!(ours.len(), theirs.len(), "{name}");
    assert_eq!(
        without_clocks(&ours[1024..2048]),
        without_clocks(&theirs[1024..2048]),
        "{name}: superblock"
    );
    let rest = |bytes: &[u8]| [&bytes[..1024], &bytes[2048..]].concat();
    let (ours, theirs) = (rest(&ours), rest(&theirs));
    let differs = ours.iter().zip(&theirs).position(|(a, b)| a != b);
    assert_eq!(differs, None, "{name}: after spoiling {places:?}");
    Ok(())
}

#[test]
fn a_normal_image_puts_back_what_e2image_puts_back() {
    let names: Vec<&str> = RECIPES
        .iter()
        // dumpe2fs knows no offset; a journal to be replayed is refused;
        // what is large takes long and shows nothing more.
        .filter(|recipe| recipe.offset == 0 && recipe.kib <= 32 << 10)
        .map(|recipe| recipe.name)
        .filter(|name| !name.contains("dirty"))
        .collect();
    let results = in_parallel(&names, |name| differential(name));
    let compared = results.iter().filter(|result| result.is_ok()).count();
    let refused: Vec<&String> =
        results.iter().filter_map(|result| result.as_ref().err()).collect();
    assert!(compared >= 25, "only {compared}: {refused:?}");
}

#[test]
fn a_clone_has_the_contents_of_files_too() {
    let rescue = Rescue::new("ext4-4k-full");
    let image = rescue.image("all.raw", &["--data"]);
    let good = rescue.copy(&rescue.disk, "good");
    let length = std::fs::metadata(&rescue.disk).unwrap().len();
    std::fs::File::create(&rescue.disk).unwrap().set_len(length).unwrap();
    let image = image.to_str().unwrap();
    let refused = rescue.run(&["install", "--data", image, "disk"]);
    assert_eq!(refused.code, 5, "{}", refused.said);
    assert!(refused.said.contains("--expect-serial"), "{}", refused.said);
    // A copy of the superblock says whose disk this is.
    let whole = std::fs::read(&good).unwrap();
    let copy = 32768 * 4096;
    if whole.len() > copy + 1024 {
        rescue.poke(copy as u64, &whole[copy..copy + 1024]);
        rescue.confirm(&["install", "--data", image, "disk"]);
        let verdict = oracle::e2fsck(&rescue.disk);
        assert_eq!(verdict.status, 0, "{}", verdict.messages);
    }
}

#[test]
fn only_what_is_asked_for_is_written() {
    let rescue = Rescue::new("groups-many");
    let image = rescue.image("a.qcow2", &[]);
    let image = image.to_str().unwrap();
    let good = rescue.bytes();
    let places = spoil(&rescue);
    let bad = rescue.bytes();
    rescue.confirm(&["install", "--only", "inode-bitmap", image, "disk"]);
    let now = rescue.bytes();
    for (index, &(at, length)) in places.iter().enumerate() {
        let place = usize::try_from(at).unwrap();
        let place = place..place + usize::try_from(length).unwrap();
        let expected = if index == 3 { &good } else { &bad };
        assert!(now[place.clone()] == expected[place], "{at}");
    }
    // Descriptors lie together, groups do not.
    let descriptors = 2048_u64;
    rescue.poke(descriptors + 64 * 5, &[1; 8]);
    rescue.poke(descriptors + 64 * 9, &[1; 8]);
    let words =
        ["install", "--only", "descriptors", "--groups", "7-9", image, "disk"];
    rescue.confirm(&words);
    let now = rescue.bytes();
    let slot = |bytes: &[u8], group: usize| {
        let at = usize::try_from(descriptors).unwrap() + 64 * group;
        bytes[at..at + 8].to_vec()
    };
    assert_eq!(slot(&now, 5), [1; 8]);
    assert_eq!(slot(&now, 9), slot(&good, 9));
}

#[test]
fn a_filesystem_inside_a_disk_is_found_by_its_offset() {
    let disk = fixture("offset");
    let rescue = Rescue::new("offset");
    let offset = disk.offset().to_string();
    let image = rescue.image("a.raw", &["--source-offset", &offset]);
    let good = rescue.copy(&rescue.disk, "good");
    rescue.poke(disk.offset() + 4096, &[0xEE; 300]);
    let image = image.to_str().unwrap();
    let words = ["install", "--dest-offset", &offset, image, "disk"];
    let token = rescue.confirm(&words);
    rescue.assert_same(&good, "installed at an offset");
    let undo = format!("{image}.{token}.undo");
    let list = rescue.run(&["undo", "--list", &undo]);
    let result = list.event("result");
    let first = &result["entries"][0];
    assert_eq!(first["at"], disk.offset() + 1024, "{}", list.said);
    assert!(Path::new(&undo).exists());
}

/// The bytes that a command writes to `path`, as the kernel counts them.
fn written_to(path: &Path, rescue: &Rescue, command: &[String]) -> u64 {
    let trace = rescue.path("trace");
    let mut strace = tools::command("strace");
    strace
        .current_dir(rescue.path(""))
        .env("XDG_STATE_HOME", rescue.path(""))
        .args(["-f", "-y", "-e", "trace=write,pwrite64,pwritev,writev", "-o"])
        .arg(&trace)
        .args(command);
    oracle::assert_success(&command[0], &oracle::run(&mut strace));
    let place = format!("<{}>", path.display());
    std::fs::read_to_string(&trace)
        .unwrap()
        .lines()
        .filter(|line| line.contains(&place))
        .map(|line| {
            let (_, count) = line.rsplit_once("= ").unwrap();
            count
                .trim()
                .parse::<u64>()
                .unwrap_or_else(|e| panic!("{line}: {e}"))
        })
        .sum()
}

/// Target 13: after a change of 1 % of the inodes, both sides in one run.
#[test]
fn an_install_writes_what_differs_and_e2image_all() {
    let rescue = Rescue::new("ext4-1k");
    let tree = rescue.path("tree");
    std::fs::create_dir(&tree).unwrap();
    for file in 0..2000 {
        std::fs::write(tree.join(file.to_string()), "").unwrap();
    }
    std::fs::File::create(&rescue.disk).unwrap().set_len(32 << 20).unwrap();
    let mut mke2fs = tools::command("mke2fs");
    mke2fs.args(["-q", "-I", "256", "-b", "4096", "-N", "4096", "-O"]);
    mke2fs
        .arg("none,has_journal,extent,filetype,metadata_csum,64bit,dir_index");
    mke2fs.arg("-d").arg(&tree).arg(&rescue.disk);
    oracle::assert_success("mke2fs", &oracle::run(&mut mke2fs));
    let image = rescue.path("image.e2i");
    let made = oracle::E2image::default().run(&rescue.disk, &image);
    oracle::assert_success("e2image", &made);
    let touch: Vec<String> = (12..2000)
        .step_by(100)
        .map(|inode| format!("sif <{inode}> mtime 20230101"))
        .collect();
    let commands = rescue.path("commands");
    std::fs::write(&commands, touch.join("\n")).unwrap();
    let mut debugfs = tools::command("debugfs");
    debugfs.args(["-w", "-f"]).arg(&commands).arg(&rescue.disk);
    oracle::assert_success("debugfs", &oracle::run(&mut debugfs));
    let theirs = rescue.copy(&rescue.disk, "theirs");
    let image = image.to_str().unwrap();
    let words = ["install", "--allow-changed", image, "disk"];
    let token = rescue.run(&words).token();
    let program = |program: &std::ffi::OsStr, words: &[&str]| {
        let mut all = vec![program.to_str().unwrap().to_owned()];
        all.extend(words.iter().map(|word| (*word).to_owned()));
        all
    };
    let e2image = tools::command("e2image");
    let words = [&words[..], &["--confirm", &token]].concat();
    let e2wire = rescue.e2wire(&[]);
    let ours = program(e2wire.get_program(), &words);
    let ours = written_to(&rescue.disk, &rescue, &ours);
    let all = ["-I", theirs.to_str().unwrap(), image];
    let all = program(e2image.get_program(), &all);
    let all = written_to(&theirs, &rescue, &all);
    println!("e2wire wrote {ours} bytes, e2image {all}");
    assert!(ours > 0 && ours * 5 <= all, "{ours} of {all}");
    // And the same came of it.
    let (ours, theirs) = (rescue.bytes(), std::fs::read(&theirs).unwrap());
    assert!(ours[2048..] == theirs[2048..]);
}

/// An image without a manifest: what it never held reads as zeros like what
/// it held as zeros, where both share a page of its file.
#[test]
fn zeros_that_an_image_perhaps_never_held_are_not_written() {
    let rescue = Rescue::new("ext4-1k-full");
    let image = rescue.image("a.raw", &["--no-manifest"]);
    let said = oracle::debugfs(&[], "bmap <2> 0", &rescue.disk);
    let root: u64 = said.split_whitespace().last().unwrap().parse().unwrap();
    e2wire_tests::rescue::poke(&image, root * 1024, &[0; 1024]);
    let good = rescue.bytes();
    rescue.poke(2048 + 10, &[1; 4]);
    let image = image.to_str().unwrap();
    let words = ["install", "--unproven", image, "disk"];
    let planned = rescue.run(&words);
    let remarks = planned.event("plan")["remarks"].to_string();
    assert!(remarks.contains("of zeros in the image stay out"), "{remarks}");
    rescue.confirm(&words);
    assert!(rescue.bytes() == good, "more than the damage was written");
}

/// Where an inode lies on the disk, as debugfs says.
fn place_of(rescue: &Rescue, inode: u32) -> u64 {
    let said = oracle::debugfs(&[], &format!("imap <{inode}>"), &rescue.disk);
    let (_, rest) = said.split_once("located at block ").unwrap();
    let (block, offset) = rest.split_once(", offset 0x").unwrap();
    let block: u64 = block.trim().parse().unwrap();
    let offset = u64::from_str_radix(offset.trim(), 16).unwrap();
    block * 1024 + offset
}

#[test]
fn of_a_table_only_the_inodes_that_are_asked_for_are_written() {
    let rescue = Rescue::new("ext4-1k-full");
    let image = rescue.image("a.qcow2", &[]);
    let image = image.to_str().unwrap();
    let good = rescue.bytes();
    // Two neighbours in one block, and the bitmap that is nobody's.
    let [one, other] = [108, 107].map(|inode| place_of(&rescue, inode));
    assert_eq!(one / 1024, other / 1024, "{one} {other}");
    rescue.poke(one + 0x1A, &[9]);
    rescue.poke(other + 0x1A, &[7]);
    let bad = rescue.bytes();
    let words = ["install", "--inodes", "100-105,108", image, "disk"];
    let plan = rescue.run(&words).event("plan");
    let remarks = plan["remarks"].to_string();
    assert!(remarks.contains("their neighbours stay"), "{remarks}");
    rescue.confirm(&words);
    let at = usize::try_from(one).unwrap() + 0x1A;
    let mut wanted = bad.clone();
    wanted[at] = good[at];
    assert!(rescue.bytes() == wanted);
    // By its path; and the kinds and groups that were left out stay out.
    for more in [["--only", "directory"], ["--groups", "1"]] {
        let words = ["install", "--inodes", "/far", image, "disk"];
        let none = rescue.run(&[&words[..], &more].concat());
        assert_eq!(none.code, 0, "{more:?}: {}", none.said);
    }
    rescue.confirm(&["install", "--inodes", "/far", image, "disk"]);
    assert!(rescue.bytes() == good);
}

#[test]
fn what_inodes_share_is_said_and_what_is_no_inode_is_refused() {
    let rescue = Rescue::new("ext4-1k-full");
    for inode in [108, 109] {
        let mut command = tools::command("debugfs");
        let request = format!("sif <{inode}> file_acl 20000");
        command.args(["-w", "-R", &request]).arg(&rescue.disk);
        oracle::assert_success("debugfs", &oracle::run(&mut command));
    }
    let image = rescue.image("a.qcow2", &[]);
    let image = image.to_str().unwrap();
    rescue.poke(20_000 * 1024, b"changed");
    let plan = |inodes: &str| {
        rescue.run(&["install", "--inodes", inodes, image, "disk"])
    };
    let shared = plan("108").event("plan");
    let remarks = shared["remarks"].to_string();
    assert!(
        remarks.contains("Other inodes claim 1 block of it as well: "),
        "{remarks}"
    );
    assert!(remarks.contains(" 109."), "{remarks}");
    assert_eq!(shared["kinds"][1]["kind"], "xattr", "{shared}");
    // The inode itself and its directory are not of this block.
    assert_eq!(plan("12").code, 0);
    for inodes in ["0", "9999999", "/no/such/file"] {
        let refused = plan(inodes);
        assert_eq!(refused.code, 5, "{inodes}: {}", refused.said);
        assert!(!refused.said.contains("\"plan\""), "{}", refused.said);
    }
    assert_eq!(plan("relative/path").code, 2);
}
