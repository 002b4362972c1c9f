//! A disk that does not mount any more is put right from a distance.

use std::path::Path;

use e2wire_tests::desk::{Desk, PATIENCE};
use e2wire_tests::fixtures::fixture;
use e2wire_tests::qemu::{Bus, Disk, Port};
use e2wire_tests::rescue::poke;
use e2wire_tests::scene::Scene;
use e2wire_tests::{binaries, compare, oracle, tools};

use super::{disk, nvme};

/// What the machine does when it boots as it always did.
const MOUNTS: &str = "/busybox mount -t devtmpfs devtmpfs /dev\n\
    if /busybox mount -t ext4 /dev/nvme0n1 /mnt && /busybox ls /mnt\n\
    then echo IT-MOUNTS; else echo IT-DOES-NOT; fi\n\
    /busybox umount /mnt\n\
    exec /busybox sleep 10000";

/// Runs a command that wants a confirmation, and confirms it; answers the
/// token.
fn confirm(desk: &Desk, words: &[&str]) -> String {
    let words = [words, &["--audit", "audit.ndjson"]].concat();
    let planned = desk.run(&words).unwrap().expect(5).unwrap();
    let plan = planned.of_type("plan").last().expect("a plan");
    let token = plan["confirm"].as_str().expect("a token").to_owned();
    let words = [&words[..], &["--confirm", &token]].concat();
    desk.run(&words).unwrap().expect(0).unwrap();
    token
}

/// Whether e2fsck finds nothing to mend.
fn is_clean(disk: &Path) -> bool {
    let mut command = tools::command("e2fsck");
    oracle::run(command.arg("-fn").arg(disk)).status.success()
}

#[test]
fn a_damaged_disk_is_repaired_over_serial_and_tcp_and_mounts() {
    let name = "ext4-4k-full";
    let disk = disk(name);
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("good.qcow2");
    let mut command = binaries::e2wire();
    command.args(["image", "--no-sync"]).arg(disk.path()).arg(&image);
    oracle::assert_success("e2wire image", &oracle::run(&mut command));
    let image = image.to_str().unwrap();
    // The descriptors of all groups, and some of the first inode table.
    poke(disk.path(), 4096, &[0xA5; 4096]);
    assert!(!is_clean(disk.path()), "the damage hurts nobody");

    let scene = Scene::behind(MOUNTS, "repair.img").unwrap();
    let words = "rdinit=/e2wire-agent e2wire.rw ip=dhcp e2wire.listen=7220";
    let rescue = scene.clone().with(words).builder().forward(7220);
    let (rescue, serial, device) = nvme(rescue, disk.path());
    let token = confirm(&serial, &["install", image, &device]);
    let tcp = Desk::over_tcp(&rescue).unwrap();
    let undo = format!("{image}.{token}.undo");
    confirm(&tcp, &["undo", &undo, &device]);
    confirm(&tcp, &["install", image, &device, "--undo", "second.undo"]);
    drop(rescue);

    let good = fixture(name).path;
    let differs = compare::first_difference(disk.path(), &good).unwrap();
    assert_eq!(differs, None, "another byte than before the damage");
    assert!(is_clean(disk.path()));
    let mut normal = scene
        .builder()
        .port(Port::Socket)
        .disk(Disk::file(Bus::Nvme, disk.path(), "NVME0"))
        .start()
        .unwrap();
    normal.wait_for_text(0, "IT-", PATIENCE).unwrap();
    normal.wait_for_text(0, "IT-MOUNTS", PATIENCE).unwrap();
}
