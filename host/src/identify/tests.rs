//! Headers made by hand; tests/ls.rs compares with what real tools make.

#![expect(
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    reason = "the numbers are ours"
)]

use proptest::prelude::*;

use super::*;
use crate::inventory::PartitionEntry;
use crate::source::{
    DiskIdentity, Each, Payload, Piece, ReadFault, SourceFacts, SourceKind,
};
use crate::testing::range;
use crate::units::{ByteOffset, ByteRange};

/// Zeros with a few patches, and sectors that cannot be read.
struct Disk {
    facts: SourceFacts,
    patches: Vec<(u64, Vec<u8>)>,
    bad: Vec<ByteRange>,
}

const MIB: u64 = 1 << 20;

fn disk(length: u64) -> Disk {
    Disk {
        facts: SourceFacts {
            name: "test".to_owned(),
            kind: SourceKind::File,
            length: ByteCount(length),
            sector_bytes: 512,
            file: None,
            disk: DiskIdentity::default(),
            mounted_rw: false,
        },
        patches: Vec::new(),
        bad: Vec::new(),
    }
}

impl Disk {
    fn with(mut self, at: u64, bytes: impl Into<Vec<u8>>) -> Self {
        self.patches.push((at, bytes.into()));
        self
    }

    fn bad(mut self, start: u64, length: u64) -> Self {
        self.bad.push(range(start, length));
        self
    }

    fn contents(&self) -> Vec<Content> {
        identify(self).unwrap()
    }

    fn only(&self) -> Content {
        let mut contents = self.contents();
        assert_eq!(contents.len(), 1, "{contents:?}");
        contents.remove(0)
    }
}

impl BlockSource for Disk {
    fn facts(&self) -> &SourceFacts {
        &self.facts
    }

    fn read(&self, ranges: &[ByteRange], each: Each<'_>) -> Result<()> {
        let mut before = ByteOffset(0);
        for asked in ranges {
            assert!(asked.start() >= before && !asked.is_empty());
            before = asked.end();
            for at in (asked.start().0..asked.end().0).step_by(512) {
                let end = (at + 512).min(asked.end().0);
                let mut bytes = vec![0; (end - at) as usize];
                for (start, patch) in &self.patches {
                    for (offset, byte) in patch.iter().enumerate() {
                        let place = start + offset as u64;
                        if (at..end).contains(&place) {
                            bytes[(place - at) as usize] = *byte;
                        }
                    }
                }
                let bad = self
                    .bad
                    .iter()
                    .any(|bad| bad.start().0 < end && at < bad.end().0);
                let what = if at >= self.facts.length.0 {
                    Payload::Unreadable(
                        ByteCount(end - at),
                        ReadFault::BeyondEnd,
                    )
                } else if bad {
                    Payload::Unreadable(ByteCount(end - at), ReadFault::Medium)
                } else {
                    Payload::Bytes(&bytes)
                };
                if each(Piece { at: ByteOffset(at), what }).is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

fn md_1(superblock_sector: u64) -> Vec<u8> {
    let mut bytes = vec![0; 4096];
    put(&mut bytes, 0, &MD_MAGIC);
    put(&mut bytes, 4, &1_u32.to_le_bytes());
    put(&mut bytes, 16, &(0x10..0x20).collect::<Vec<u8>>());
    put(&mut bytes, 32, b"host:0");
    put(&mut bytes, 72, &1_u32.to_le_bytes());
    put(&mut bytes, 80, &40_000_u64.to_le_bytes());
    put(&mut bytes, 92, &2_u32.to_le_bytes());
    put(&mut bytes, 144, &superblock_sector.to_le_bytes());
    put(&mut bytes, 160, &1_u32.to_le_bytes());
    put(&mut bytes, 200, &42_u64.to_le_bytes());
    put(&mut bytes, 220, &2_u32.to_le_bytes());
    put(&mut bytes, 256, &[0, 0, 1, 0]);
    let sum: u64 = bytes[..260]
        .chunks(4)
        .map(|word| u64::from(u32::from_le_bytes(word.try_into().unwrap())))
        .sum();
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    put(&mut bytes, 216, &(sum as u32).to_le_bytes());
    bytes
}

const MD_MAGIC: [u8; 4] = [0xfc, 0x4e, 0x2b, 0xa9];

#[test]
fn raid_members_are_found_wherever_their_format_puts_the_superblock() {
    // An odd length, so that the rounding matters.
    let length = 30 * MIB + 1536;
    let places =
        [("1.1", 0), ("1.2", 4096), ("1.0", (length / 512 - 16) / 8 * 4096)];
    for (version, at) in places {
        let member = disk(length).with(at, md_1(at / 512)).only();
        assert_eq!(member.kind, ContentKind::MdMember);
        assert_eq!(member.version.as_deref(), Some(version));
        assert_eq!(member.part_of.as_deref(), Some("host:0"));
        assert_eq!(
            member.uuid.as_deref(),
            Some("10111213:14151617:18191a1b:1c1d1e1f")
        );
        assert_eq!(
            member.detail.as_deref(),
            Some("raid1, device 1 of 2, 42 events")
        );
        assert_eq!(member.state, []);
    }
    // A superblock that a larger device left behind is none of this one.
    let stray = disk(length).with(4096, md_1(99)).contents();
    assert_eq!(stray, []);
}

#[test]
fn a_damaged_raid_superblock_is_shown_as_such() {
    let mut bytes = md_1(8);
    bytes[200] ^= 1;
    let member = disk(30 * MIB).with(4096, bytes).only();
    assert_eq!(member.state, [State::BadChecksum]);
}

#[test]
fn raid_members_of_the_old_format_lie_near_the_end() {
    let length = 30 * MIB + 1536;
    let mut bytes = vec![0; 4096];
    put(&mut bytes, 0, &MD_MAGIC);
    put(&mut bytes, 8, &90_u32.to_le_bytes());
    put(&mut bytes, 20, &0x1122_3344_u32.to_le_bytes());
    put(&mut bytes, 28, &5_u32.to_le_bytes());
    put(&mut bytes, 32, &20_000_u32.to_le_bytes());
    put(&mut bytes, 40, &3_u32.to_le_bytes());
    put(&mut bytes, 156, &17_u64.to_le_bytes());
    put(&mut bytes, 3980, &2_u32.to_le_bytes());
    let member = disk(length).with(30 * MIB - 65536, bytes).only();
    assert_eq!(member.version.as_deref(), Some("0.90"));
    assert_eq!(
        member.detail.as_deref(),
        Some("raid5, device 2 of 3, 17 events")
    );
    assert!(member.uuid.unwrap().starts_with("11223344:"));
}

fn volume(group: &[u8]) -> Disk {
    let mut label = vec![0; 512];
    put(&mut label, 0, b"LABELONE");
    put(&mut label, 8, &1_u64.to_le_bytes());
    put(&mut label, 20, &32_u32.to_le_bytes());
    put(&mut label, 24, b"LVM2 001");
    put(&mut label, 32, b"abcdef1234567890ABCDEFGHIJKLMNOP");
    put(&mut label, 64, &(40 * MIB).to_le_bytes());
    put(&mut label, 72, &MIB.to_le_bytes());
    // The list of data areas ends at 88; the metadata area is at 4096.
    put(&mut label, 104, &4096_u64.to_le_bytes());
    put(&mut label, 112, &(MIB - 4096).to_le_bytes());
    let mut area = vec![0; 512];
    put(&mut area, 4, b" LVM2 x[5A%r0N*>");
    put(&mut area, 40, &1024_u64.to_le_bytes());
    put(&mut area, 48, &900_u64.to_le_bytes());
    let text = [group, b" {\nid = \"x\"\n"].concat();
    disk(40 * MIB).with(512, label).with(4096, area).with(4096 + 1024, text)
}

#[test]
fn a_physical_volume_names_its_group() {
    let pv = volume(b"my-vg.1").only();
    assert_eq!(pv.kind, ContentKind::LvmPv);
    assert_eq!(pv.part_of.as_deref(), Some("my-vg.1"));
    assert_eq!(
        pv.uuid.as_deref(),
        Some("abcdef-1234-5678-90AB-CDEF-GHIJ-KLMNOP")
    );
    assert_eq!(pv.size, Some(ByteCount(40 * MIB)));
    // A volume without a group, or with a name that no group can have.
    assert_eq!(volume(b"").only().part_of, None);
    assert_eq!(volume(b"a\x1b[2J").only().part_of, None);
}

#[test]
fn encryption_is_found_by_its_second_header_too() {
    let mut header = vec![0; 512];
    put(&mut header, 0, b"LUKS\xba\xbe\x00\x02");
    put(&mut header, 24, b"vault");
    put(&mut header, 168, b"b271e35f-8281-436e-9b2b-878a4050dc15");
    let luks = disk(20 * MIB).with(0, header.clone()).only();
    assert_eq!(luks.label.as_deref(), Some("vault"));
    assert_eq!(luks.version.as_deref(), Some("2"));
    put(&mut header, 0, b"SKUL");
    let luks = disk(20 * MIB).with(0x4000, header).only();
    assert_eq!(luks.state, [State::CopyUsed]);
}

/// What mke2fs writes, so far as it is looked at.
fn ext(log_block: u32, features: [u32; 3], group: u16) -> Vec<u8> {
    let mut bytes = vec![0; 1024];
    put(&mut bytes, 0x4, &25_600_u32.to_le_bytes());
    put(&mut bytes, 0x18, &log_block.to_le_bytes());
    put(&mut bytes, 0x38, &0xef53_u16.to_le_bytes());
    put(&mut bytes, 0x3a, &1_u16.to_le_bytes());
    put(&mut bytes, 0x4c, &1_u32.to_le_bytes());
    put(&mut bytes, 0x5a, &group.to_le_bytes());
    for (at, feature) in [0x5c, 0x60, 0x64].into_iter().zip(features) {
        put(&mut bytes, at, &feature.to_le_bytes());
    }
    bytes
}

#[test]
fn the_features_tell_ext2_ext3_and_ext4_apart() {
    let cases = [
        ([0x38, 0x2, 0x3], ContentKind::Ext2, vec![State::Clean]),
        ([0x3c, 0x2, 0x3], ContentKind::Ext3, vec![State::Clean]),
        ([0x3c, 0x6, 0x3], ContentKind::Ext3, vec![State::NeedsRecovery]),
        ([0x3c, 0x42, 0x3], ContentKind::Ext4, vec![State::Clean]),
        ([0x38, 0x2, 0xb], ContentKind::Ext4, vec![State::Clean]),
        ([0x0, 0x8, 0x0], ContentKind::ExtJournal, vec![]),
    ];
    for (features, kind, state) in cases {
        let found = disk(25 * MIB).with(1024, ext(0, features, 0)).only();
        assert_eq!((found.kind, found.state), (kind, state));
        assert_eq!(found.size, Some(ByteCount(25 * MIB)));
    }
}

#[test]
fn what_the_superblock_says_of_its_state_is_shown() {
    let with = |at: usize, value: &[u8]| {
        let mut bytes = ext(0, [0x3c, 0x2, 0x3], 0);
        put(&mut bytes, at, value);
        disk(25 * MIB).with(1024, bytes).only().state
    };
    assert_eq!(with(0x3a, &[0, 0]), [State::NotClean]);
    assert_eq!(with(0x3a, &[3, 0]), [State::Errors]);
    assert_eq!(with(0xe8, &[9, 0]), [State::Orphans]);
    // metadata_csum without a right checksum.
    assert_eq!(with(0x64, &[3, 4]), [State::Clean, State::BadChecksum]);
    // Twice as long as the device.
    assert_eq!(with(0x4, &[0, 200, 0, 0]), [State::Clean, State::Truncated]);
}

#[test]
fn a_lost_superblock_is_replaced_by_its_first_copy() {
    for (log_block, block) in [(0, 8193), (1, 16_384), (2, 32_768)] {
        let at = block << (10 + log_block);
        let copy = ext(log_block, [0x3c, 0x42, 0x3], 1);
        let found = disk(200 * MIB).with(at, copy).only();
        assert_eq!(found.state, [State::CopyUsed]);
        assert_eq!(found.superblock_copy.unwrap().0, block);
        // The first superblock of a filesystem that lies there is no copy.
        let other = ext(log_block, [0x3c, 0x42, 0x3], 0);
        assert_eq!(disk(200 * MIB).with(at, other).contents(), []);
    }
}

#[test]
fn bad_sectors_hide_only_what_lies_on_them() {
    let found = disk(200 * MIB)
        .with(1024, ext(2, [0x3c, 0x42, 0x3], 0))
        .with(32_768 * 4096, ext(2, [0x3c, 0x42, 0x3], 1))
        .bad(1024, 512)
        .bad(8192, 4096)
        .only();
    assert_eq!(found.state, [State::CopyUsed]);
}

fn dos_entry(type_id: u8, first: u32, count: u32) -> Vec<u8> {
    let mut entry = vec![0, 0, 0, 0, type_id, 0, 0, 0];
    entry.extend(first.to_le_bytes());
    entry.extend(count.to_le_bytes());
    entry
}

fn dos_table(entries: &[Vec<u8>]) -> Vec<u8> {
    let mut sector = vec![0; 512];
    put(&mut sector, 446, &entries.concat());
    put(&mut sector, 510, &[0x55, 0xaa]);
    sector
}

fn places(content: &Content) -> Vec<(u32, u64, u64)> {
    let place = |entry: &PartitionEntry| {
        let range = entry.range;
        (entry.number, range.start().0 / 512, range.length().0 / 512)
    };
    content.partitions.iter().map(place).collect()
}

#[test]
fn logical_partitions_are_followed_link_by_link() {
    let table = dos_table(&[
        dos_entry(0x83, 2048, 4096),
        dos_entry(0x0f, 8192, 16_384),
    ]);
    let first =
        dos_table(&[dos_entry(0x83, 64, 1000), dos_entry(0x05, 4096, 4096)]);
    let second = dos_table(&[dos_entry(0x82, 64, 2000)]);
    let found = disk(100 * MIB)
        .with(0, table)
        .with(8192 * 512, first)
        .with((8192 + 4096) * 512, second)
        .only();
    assert_eq!(
        places(&found),
        [
            (1, 2048, 4096),
            (2, 8192, 16_384),
            (5, 8256, 1000),
            (6, 12_352, 2000)
        ]
    );
}

#[test]
fn a_chain_that_bites_its_tail_ends() {
    let table = dos_table(&[dos_entry(0x05, 8192, 16_384)]);
    let link =
        dos_table(&[dos_entry(0x83, 64, 1000), dos_entry(0x05, 0, 16_384)]);
    let found = disk(100 * MIB).with(0, table).with(8192 * 512, link).only();
    assert!(found.partitions.len() < 200, "{}", found.partitions.len());
}

#[test]
fn program_code_is_no_partition_table() {
    let mut code = vec![0x90; 512];
    put(&mut code, 510, &[0x55, 0xaa]);
    assert_eq!(disk(MIB).with(0, code).contents(), []);
    let beyond = dos_table(&[dos_entry(0x83, 1_000_000, 5)]);
    assert_eq!(disk(MIB).with(0, beyond).contents(), []);
}

proptest! {
    #[test]
    fn any_bytes_are_looked_at_without_harm(
        magic in 0..12_usize,
        at in prop::sample::select(vec![0_u64, 512, 1024, 4096, 16384, 65536]),
        noise in prop::collection::vec(any::<u8>(), 0..2048),
        length in 0..300_000_u64,
    ) {
        const MAGICS: [(usize, &[u8]); 12] = [
            (0, b""), (0, b"LABELONE\0\0\0\0\0\0\0\0"), (0, b"EFI PART"),
            (0, b"XFSB"), (0x40, b"_BHRfS_M"), (0, b"LUKS\xba\xbe"),
            (0, &MD_MAGIC), (56, &[0x53, 0xef]), (3, b"NTFS    "),
            (3, b"EXFAT   "), (82, b"FAT32   "), (510, &[0x55, 0xaa]),
        ];
        let mut noise = noise;
        let (offset, bytes) = MAGICS[magic];
        if noise.len() >= offset + bytes.len() {
            put(&mut noise, offset, bytes);
        }
        let found = disk(length).with(at, noise).contents();
        for content in found {
            prop_assert!(content.partitions.len() <= 1024 + 132);
        }
    }
}
