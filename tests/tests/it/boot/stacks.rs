//! A disk with members of larger things beside a filesystem: `ls` names them,
//! and the filesystem in its partition can be imaged.

use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Stdio;

use e2wire_tests::fixtures::fixture;
use e2wire_tests::kernels::Flavour;
use e2wire_tests::scene::Scene;
use e2wire_tests::tools;

use super::nvme;

const MIB: u64 = 1 << 20;
/// Where partitions 1, 2 and 3 begin; partition 4 begins at `EXT4`.
const PLACES: [u64; 3] = [MIB, 9 * MIB, 17 * MIB];
const EXT4: u64 = 25 * MIB;

#[test]
fn members_of_lvm_raid_and_encryption_are_named() {
    let filesystem = fixture("ext4-1k");
    let disk = tempfile::NamedTempFile::new().unwrap();
    filesystem.copy_to(disk.path()).unwrap();
    let content = std::fs::read(disk.path()).unwrap();
    let sectors = content.len() / 512;
    let file = disk.as_file();
    file.set_len(0).unwrap();
    file.set_len(EXT4 + content.len() as u64 + MIB).unwrap();
    partition(disk.path(), sectors);
    let members = [lvm(), md(), luks()];
    for (place, headers) in PLACES.into_iter().zip(&members) {
        for (at, bytes) in headers {
            file.write_all_at(bytes, place + at).unwrap();
        }
    }
    file.write_all_at(&content, EXT4).unwrap();
    // Others take them for the same.
    let known = ["LVM2_member", "linux_raid_member", "crypto_LUKS"];
    for (place, name) in PLACES.into_iter().zip(known) {
        assert_eq!(blkid(disk.path(), place), name);
    }

    let scene = Scene::new(Flavour::Cloud).unwrap();
    let (machine, desk, device) = nvme(scene.builder(), disk.path());
    let devices = desk.devices().unwrap();
    let found: Vec<[&str; 3]> = devices
        .iter()
        .map(|device| {
            let lies = &device["contents"][0];
            [&device["path"], &lies["kind"], &lies["part_of"]]
                .map(|value| value.as_str().unwrap_or_default())
        })
        .collect();
    assert_eq!(
        found,
        [
            ["/dev/nvme0n1", "gpt", ""],
            ["/dev/nvme0n1p1", "lvm2-pv", "vg-mail"],
            ["/dev/nvme0n1p2", "md-member", "mail7:0"],
            ["/dev/nvme0n1p3", "luks", ""],
            ["/dev/nvme0n1p4", "ext4", ""],
        ]
    );
    let partition = format!("{device}p4");
    let image = |options: &[&str], device: &str, name: &str| {
        desk.image(options, device, &filesystem.path, name).unwrap();
    };
    image(&[], &partition, "partition.raw");
    // The same by its place on the disk, where no partition says it.
    let at = EXT4.to_string();
    let said = desk
        .run(&["image", "--source-offset", &at, &device, "place.raw"])
        .unwrap();
    said.expect(0).unwrap();
    desk.compare(&[], &filesystem.path, "place.raw").unwrap();
    drop(machine);
}

/// A table for the places above.
fn partition(disk: &Path, sectors: usize) {
    let mut script = "label: gpt\n".to_owned();
    for place in PLACES {
        script.push_str(&format!("start={}, size=8MiB\n", place / 512));
    }
    script.push_str(&format!("start={}, size={sectors}\n", EXT4 / 512));
    let mut child = tools::command("sfdisk")
        .args(["--quiet", "--no-reread", "--no-tell-kernel"])
        .arg(disk)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}

/// What util-linux sees at `offset`.
fn blkid(disk: &Path, offset: u64) -> String {
    let output = tools::command("blkid")
        .args(["--probe", "--offset", &offset.to_string()])
        .args(["--size", &(8 * MIB).to_string()])
        .args(["--output", "value", "--match-tag", "TYPE"])
        .arg(disk)
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Bytes and where they stand in a partition.
type Headers = Vec<(u64, Vec<u8>)>;

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

/// A physical volume of the group `vg-mail`: label, PV header, metadata area
/// (as in LVM2's own documentation of its on-disk format).
fn lvm() -> Headers {
    let mut label = vec![0; 512];
    put(&mut label, 0, b"LABELONE");
    put(&mut label, 8, &1_u64.to_le_bytes());
    put(&mut label, 20, &32_u32.to_le_bytes());
    put(&mut label, 24, b"LVM2 001");
    put(&mut label, 32, b"abcdef1234567890ABCDEFGHIJKLMNOP");
    put(&mut label, 64, &(8 * MIB).to_le_bytes());
    // Data from 1 MiB on; the list ends. Metadata at 4 KiB.
    put(&mut label, 72, &MIB.to_le_bytes());
    put(&mut label, 104, &4096_u64.to_le_bytes());
    put(&mut label, 112, &(MIB - 4096).to_le_bytes());
    let sum = lvm_sum(&label[20..]);
    put(&mut label, 16, &sum.to_le_bytes());
    let text = b"vg-mail {\nid = \"x\"\nseqno = 1\n}\n\0";
    let mut area = vec![0; 512];
    put(&mut area, 4, b" LVM2 x[5A%r0N*>");
    put(&mut area, 20, &1_u32.to_le_bytes());
    put(&mut area, 24, &4096_u64.to_le_bytes());
    put(&mut area, 32, &(MIB - 4096).to_le_bytes());
    put(&mut area, 40, &512_u64.to_le_bytes());
    put(&mut area, 48, &(text.len() as u64).to_le_bytes());
    let sum = lvm_sum(&area[4..]);
    put(&mut area, 0, &sum.to_le_bytes());
    vec![(512, label), (4096, area), (4096 + 512, text.to_vec())]
}

/// CRC-32 with LVM2's own first value, and not inverted.
fn lvm_sum(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0xf597_a6cf_u32, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
            (sum >> 1) ^ (0xedb8_8320 & (sum & 1).wrapping_neg())
        })
    })
}

/// A member of the array `mail7:0`, format 1.2 (Linux
/// include/uapi/linux/raid/md_p.h).
fn md() -> Headers {
    let mut bytes = vec![0; 260];
    put(&mut bytes, 0, &0xa92b_4efc_u32.to_le_bytes());
    put(&mut bytes, 4, &1_u32.to_le_bytes());
    put(&mut bytes, 16, &[0x5e; 16]);
    put(&mut bytes, 32, b"mail7:0");
    put(&mut bytes, 72, &1_u32.to_le_bytes());
    put(&mut bytes, 80, &8192_u64.to_le_bytes());
    put(&mut bytes, 92, &2_u32.to_le_bytes());
    put(&mut bytes, 128, &2048_u64.to_le_bytes());
    put(&mut bytes, 136, &8192_u64.to_le_bytes());
    put(&mut bytes, 144, &8_u64.to_le_bytes());
    put(&mut bytes, 160, &1_u32.to_le_bytes());
    put(&mut bytes, 200, &42_u64.to_le_bytes());
    put(&mut bytes, 220, &2_u32.to_le_bytes());
    put(&mut bytes, 256, &[0, 0, 1, 0]);
    let (words, _) = bytes.as_chunks::<4>();
    let sum: u64 =
        words.iter().map(|word| u64::from(u32::from_le_bytes(*word))).sum();
    let folded = (sum & 0xffff_ffff) + (sum >> 32);
    put(&mut bytes, 216, &(folded as u32).to_le_bytes());
    vec![(4096, bytes)]
}

/// The header of LUKS version 1 (its on-disk format specification).
fn luks() -> Headers {
    let mut bytes = vec![0; 592];
    put(&mut bytes, 0, b"LUKS\xba\xbe\x00\x01");
    put(&mut bytes, 8, b"aes");
    put(&mut bytes, 40, b"xts-plain64");
    put(&mut bytes, 72, b"sha256");
    put(&mut bytes, 104, &4096_u32.to_be_bytes());
    put(&mut bytes, 108, &64_u32.to_be_bytes());
    put(&mut bytes, 168, b"b271e35f-8281-436e-9b2b-878a4050dc15");
    vec![(0, bytes)]
}
