//! Whole initrds, of a stand-in for the agent and of modules made of nothing
//! but `.modinfo`. What the kernel makes of real ones is proven by the boot
//! suite.

use std::io::Read as _;

use clap::Parser as _;

use super::*;
use made::add_module;

pub(crate) mod made;

fn agent() -> Agent {
    Agent {
        build_id: "00ff".to_owned(),
        program: (0..40_000_u32).flat_map(u32::to_le_bytes).collect(),
        log_table: b"table".to_vec(),
    }
}

fn options(words: &[&str]) -> Options {
    let program = ["build-initrd", "--out", "x", "--insecure"];
    Options::try_parse_from(program.iter().chain(words)).unwrap()
}

/// A kernel's files below a new folder: its modules directory is returned.
fn kernel(config: &str) -> (tempfile::TempDir, PathBuf) {
    let root = tempfile::tempdir().unwrap();
    let modules = root.path().join("lib/modules/1.2.3");
    add_module(&modules, "net/nic.ko", &["depends=bus", "firmware=a/nic.fw"]);
    add_module(&modules, "bus/bus.ko", &[]);
    let boot = root.path().join("boot");
    fs::create_dir_all(&boot).unwrap();
    fs::write(boot.join("config-1.2.3"), config).unwrap();
    (root, modules)
}

const GOOD_CONFIG: &str = "CONFIG_RD_ZSTD=y\nCONFIG_BLK_DEV_INITRD=y\n\
    CONFIG_BINFMT_ELF=y\nCONFIG_DEVTMPFS=y\nCONFIG_PROC_FS=y\n\
    CONFIG_SYSFS=y\nCONFIG_INET=y\n";

/// Path and content of every entry of an uncompressed archive.
fn list(mut archive: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    loop {
        let mut reader = cpio::newc::Reader::new(archive).unwrap();
        if reader.entry().is_trailer() {
            return files;
        }
        let name = reader.entry().name().to_owned();
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).unwrap();
        files.push((name, bytes));
        archive = reader.finish().unwrap();
    }
}

fn names(built: &Built) -> Vec<String> {
    list(&built.bytes).into_iter().map(|(name, _)| name).collect()
}

#[test]
fn an_initrd_alone_holds_init_and_the_nodes_of_a_console() {
    let built = build(&options(&["--compress", "none"]), &agent()).unwrap();
    assert_eq!(
        names(&built),
        [
            "dev",
            "proc",
            "sys",
            "dev/console",
            "dev/null",
            "e2wire-agent",
            "init",
            "e2wire",
            "e2wire/cmdline"
        ]
    );
    assert!(built.is_complete());
}

#[test]
fn modules_are_listed_in_the_order_of_loading() {
    let (_root, modules) = kernel(GOOD_CONFIG);
    let modules = modules.to_str().unwrap();
    let words = ["--compress", "none", "--modules-dir", modules];
    let words = [words.as_slice(), &["--profile", "nic"]].concat();
    let built = build(&options(&words), &agent()).unwrap();
    let files = list(&built.bytes);
    let (_, text) =
        files.iter().find(|(name, _)| name == MODULES_LIST).unwrap();
    assert_eq!(
        std::str::from_utf8(text).unwrap(),
        "/e2wire/modules/bus.ko\n/e2wire/modules/nic.ko\n"
    );
    assert!(!built.is_complete(), "its firmware is not there");
    let report = built.report(&options(&words));
    assert!(report.contains("firmware for nic: a/nic.fw"), "{report}");
}

#[test]
fn firmware_beside_the_modules_is_taken_along() {
    let (root, modules) = kernel(GOOD_CONFIG);
    let folder = root.path().join("lib/firmware/a");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("nic.fw"), b"code").unwrap();
    let modules = modules.to_str().unwrap();
    let words = ["--compress", "none", "--modules-dir", modules];
    let words = [words.as_slice(), &["--profile", "nic"]].concat();
    let built = build(&options(&words), &agent()).unwrap();
    assert!(built.is_complete());
    let names = names(&built);
    let at = |name: &str| names.iter().position(|n| n == name).unwrap();
    assert!(at("e2wire/firmware") < at("e2wire/firmware/a"));
    assert!(at("e2wire/firmware/a") < at("e2wire/firmware/a/nic.fw"));
}

#[test]
fn two_builds_give_the_same_bytes() {
    let (_root, modules) = kernel(GOOD_CONFIG);
    let words = ["--modules-dir", modules.to_str().unwrap()];
    let words = [words.as_slice(), &["--profile", "nic"]].concat();
    let folder = tempfile::tempdir().unwrap();
    let mut outputs = Vec::new();
    for name in ["first", "second"] {
        let out = folder.path().join(name);
        build(&options(&words), &agent()).unwrap().write(&out).unwrap();
        outputs.push((
            fs::read(&out).unwrap(),
            fs::read(manifest_path(&out)).unwrap(),
        ));
    }
    assert_eq!(outputs[0], outputs[1]);
    let table = folder.path().join("e2wire-agent-00ff.defmt");
    assert_eq!(fs::read(table).unwrap(), b"table");
}

#[test]
fn a_segment_leaves_the_other_initrd_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let base = folder.path().join("initrd.img");
    let content = archive::newc_archive(&[
        Entry::file("init", 0o755, b"normal".to_vec()),
        Entry::symlink("lib", "usr/lib"),
    ])
    .unwrap();
    fs::write(&base, &content).unwrap();
    let words = ["--compress", "none", "--append-to", base.to_str().unwrap()];
    let built = build(&options(&words), &agent()).unwrap();
    assert!(built.bytes.starts_with(&content));
    let at = content.len().next_multiple_of(segment::SEGMENT_ALIGNMENT);
    let ours = list(&built.bytes[at..]);
    let names: Vec<&str> = ours.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["e2wire-agent", "e2wire", "e2wire/cmdline"]);
    assert!(!built.problems.is_empty(), "it has no modules");
}

#[test]
fn a_kernel_that_could_not_unpack_it_is_named_before_anything_is_written() {
    let (_root, modules) = kernel(GOOD_CONFIG);
    let modules = modules.to_str().unwrap();
    let words = ["--modules-dir", modules, "--compress", "gzip"];
    let error = build(&options(&words), &agent()).unwrap_err().to_string();
    assert!(error.contains("CONFIG_RD_GZIP=y"), "{error}");
}

#[test]
fn a_kernel_of_another_release_is_named() {
    let (root, modules) = kernel(GOOD_CONFIG);
    let mut image = vec![0; 0x600];
    image[0x202..0x206].copy_from_slice(b"HdrS");
    image[0x20f] = 0x02;
    image[0x400..0x405].copy_from_slice(b"4.5.6");
    let path = root.path().join("boot/vmlinuz-1.2.3");
    fs::write(path, image).unwrap();
    let words = ["--modules-dir", modules.to_str().unwrap()];
    let error = build(&options(&words), &agent()).unwrap_err().to_string();
    assert!(error.contains("4.5.6") && error.contains("1.2.3"), "{error}");
}

#[test]
fn missing_drivers_of_a_cloud_kernel_are_said_to_be_its_nature() {
    let (root, modules) = kernel(GOOD_CONFIG);
    let cloud = modules.with_file_name("1.2.3-cloud");
    let entries = ["vermagic=1.2.3-cloud SMP "];
    add_module(&cloud, "block/virtio_blk.ko", &entries);
    let words = ["--modules-dir", cloud.to_str().unwrap()];
    let built = build(&options(&words), &agent()).unwrap();
    assert!(!built.is_complete());
    let missing = &built.manifest.missing_drivers;
    assert!(missing.iter().any(|name| name == "ahci"));
    assert!(!missing.iter().any(|name| name == "virtio_blk"));
    assert!(built.problems.iter().any(|p| p.contains("cloud kernel")));
    drop(root);
}
