use super::*;

/// A sysfs made by hand: `(path, contents)`.
fn machine(files: &[(&str, &str)]) -> (tempfile::TempDir, SystemPaths) {
    let root = tempfile::tempdir().unwrap();
    for (path, contents) in files {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, contents).unwrap();
    }
    let paths = SystemPaths {
        sys: root.path().join("sys"),
        proc: root.path().join("proc"),
    };
    (root, paths)
}

const SERVER: &[(&str, &str)] = &[
    ("sys/block/sda/size", "3907029168\n"),
    ("sys/block/sda/dev", "8:0\n"),
    ("sys/block/sda/ro", "0\n"),
    ("sys/block/sda/queue/logical_block_size", "512\n"),
    ("sys/block/sda/queue/physical_block_size", "4096\n"),
    ("sys/block/sda/device/model", "WDC WD20EFRX-68E\n"),
    ("sys/block/sda/device/vpd_pg80", "\0\u{1}\0\u{c}   WD-1234567\n"),
    ("sys/block/sda/device/wwid", "naa.50014ee2b1234567\n"),
    ("sys/block/sda/sda10/partition", "10\n"),
    ("sys/block/sda/sda10/start", "4096\n"),
    ("sys/block/sda/sda10/size", "2048\n"),
    ("sys/block/sda/sda10/dev", "8:10\n"),
    ("sys/block/sda/sda10/ro", "1\n"),
    ("sys/block/sda/sda2/partition", "2\n"),
    ("sys/block/sda/sda2/start", "2048\n"),
    ("sys/block/sda/sda2/size", "2048\n"),
    ("sys/block/sda/sda2/dev", "8:2\n"),
    ("sys/block/sda/sda2/holders/dm-0/dm/name", "vg0-root\n"),
    ("sys/block/dm-0/size", "1024\n"),
    ("sys/block/dm-0/dev", "254:0\n"),
    ("sys/block/dm-0/dm/name", "vg0-root\n"),
    ("sys/block/cciss!c0d0/size", "8\n"),
    ("sys/block/md127/size", "8\n"),
    ("sys/block/md127/md/level", "raid1\n"),
    ("sys/block/loop0/size", "0\n"),
    ("sys/block/nvme0c0n1/size", "8\n"),
    ("sys/block/nvme0c0n1/hidden", "1\n"),
    (
        "proc/self/mountinfo",
        "36 35 254:0 / / rw shared:1 - ext4 /dev/mapper/vg0-root rw\n\
         37 35 8:10 / /a\\040b ro - ext4 /dev/sda10 ro,x\n\
         38 35 0:44 / /tank rw - btrfs /dev/md127 rw\n",
    ),
    (
        "proc/swaps",
        "Filename Type Size Used Priority\n/dev/sda2 partition 1 0 -2\n",
    ),
];

#[test]
fn a_machine_is_read_from_sysfs() {
    let (_root, paths) = machine(SERVER);
    let devices = paths.devices().unwrap();
    let names: Vec<&str> =
        devices.iter().map(|device| device.path.as_str()).collect();
    // Without a medium, or hidden: not listed.
    assert_eq!(
        names,
        ["/dev/cciss/c0d0", "/dev/mapper/vg0-root", "/dev/md127", "/dev/sda"]
    );
    let sda = &devices[3];
    assert_eq!(sda.size, ByteCount(2_000_398_934_016));
    assert_eq!(
        (sda.logical_sector_bytes, sda.physical_sector_bytes),
        (512, 4096)
    );
    assert_eq!(
        sda.disk,
        DiskIdentity {
            model: Some("WDC WD20EFRX-68E".to_owned()),
            serial: Some("WD-1234567".to_owned()),
            wwn: Some("naa.50014ee2b1234567".to_owned()),
        }
    );
    assert_eq!(devices[2].kind, DeviceKind::Raid);
    assert_eq!(devices[2].alias.as_deref(), Some("raid1"));
}

#[test]
fn partitions_come_in_their_order_with_their_use() {
    let (_root, paths) = machine(SERVER);
    let devices = paths.devices().unwrap();
    let [second, tenth] = devices[3].partitions.as_slice() else {
        panic!("two partitions")
    };
    assert_eq!(second.path, "/dev/sda2");
    assert_eq!(second.start, Some(ByteOffset(1 << 20)));
    assert_eq!(second.holders, ["/dev/mapper/vg0-root"]);
    assert!(second.swap_active && !second.read_only);
    assert_eq!(tenth.number, Some((8, 10)));
    assert!(tenth.read_only && !tenth.swap_active);
    let mount = Mount { at: "/a b".to_owned(), read_only: true };
    assert_eq!(tenth.mounts, [mount]);
}

#[test]
fn a_mount_is_found_by_number_or_by_name() {
    let (_root, paths) = machine(SERVER);
    let devices = paths.devices().unwrap();
    let root = Mount { at: "/".to_owned(), read_only: false };
    assert_eq!(devices[1].mounts, [root]);
    assert_eq!(devices[2].mounts[0].at, "/tank");
    assert!(devices[3].mounts.is_empty());
}

#[test]
fn without_sysfs_there_is_an_error_that_says_what_to_try() {
    let (_root, paths) = machine(&[]);
    let error = paths.devices().unwrap_err();
    assert!(error.what_to_try().unwrap().contains("e2wire ls DEVICE"));
}

#[test]
fn names_from_procfs_lose_their_escapes_only_once() {
    assert_eq!(unescape("/a\\040b\\134040"), "/a b\\040");
    assert_eq!(unescape("/x\\"), "/x\\");
    assert_eq!(unescape("/x\\777"), "/x\\777");
}
