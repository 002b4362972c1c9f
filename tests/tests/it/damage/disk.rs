//! A filesystem in memory that can be broken by the names of its parts.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use e2wire::block_set::BlockSet;
use e2wire::error::Result;
use e2wire::ext::BlockKind;
use e2wire::ext::walk::{Walk, WalkOptions};
use e2wire_tests::fixtures::{self, Fixture};
use e2wire_tests::memory::{Walked, drive};

const PAGE: usize = 4096;

/// The bytes of a filesystem, and what it was while it was sound.
pub(super) struct Disk {
    fixture: Fixture,
    sound: Vec<u8>,
    pub(super) bytes: Vec<u8>,
    pub(super) walk: Walk,
}

impl Disk {
    pub(super) fn open(fixture: &str) -> Self {
        let fixture = fixtures::fixture(fixture);
        assert_eq!(fixture.offset(), 0, "fixtures that begin at once");
        let sound = fs::read(&fixture.path).unwrap();
        let walk = drive(&sound, WalkOptions::default()).unwrap().walk;
        Self { fixture, bytes: sound.clone(), sound, walk }
    }

    /// Writes it to a file: what was cut off is cut off there.
    pub(super) fn save(&self, path: &Path) {
        self.fixture.copy_to(path).unwrap();
        let file = fs::File::options().write(true).open(path).unwrap();
        file.set_len(self.bytes.len() as u64).unwrap();
        let pages = self.bytes.chunks(PAGE).zip(self.sound.chunks(PAGE));
        for (index, (now, was)) in pages.enumerate() {
            if now != was {
                file.write_all_at(now, (index * PAGE) as u64).unwrap();
            }
        }
    }

    pub(super) fn walk(&self, options: WalkOptions) -> Result<Walked> {
        drive(&self.bytes, options)
    }

    pub(super) fn is_cut(&self) -> bool {
        self.bytes.len() < self.sound.len()
    }

    pub(super) fn cut(&mut self, bytes: usize) {
        self.bytes.truncate(bytes);
    }

    pub(super) fn block_size(&self) -> usize {
        self.walk.geometry.block_size.bytes()
    }

    /// A block; empty beyond the end of the device.
    pub(super) fn bytes_of(&self, block: u64) -> &[u8] {
        let from = block as usize * self.block_size();
        let to = (from + self.block_size()).min(self.bytes.len());
        self.bytes.get(from..to).unwrap_or_default()
    }

    /// A block, to be broken.
    pub(super) fn block(&mut self, block: u64) -> &mut [u8] {
        let size = self.block_size();
        let from = block as usize * size;
        &mut self.bytes[from..from + size]
    }

    /// The superblock.
    pub(super) fn superblock(&mut self) -> &mut [u8] {
        &mut self.bytes[1024..2048]
    }

    /// Where block `index` of the descriptors lies.
    pub(super) fn descriptor_block(&self, index: usize) -> u64 {
        let set = self.walk.kind(BlockKind::Descriptors).unwrap();
        blocks(set).nth(index).unwrap()
    }

    /// The descriptor of a group.
    pub(super) fn descriptor(&mut self, group: usize) -> &mut [u8] {
        let size = self.walk.geometry.descriptor_size as usize;
        let per_block = self.block_size() / size;
        let block = self.descriptor_block(group / per_block);
        let from = group % per_block * size;
        &mut self.block(block)[from..from + size]
    }

    /// The first block of group `group`.
    pub(super) fn group(&self, group: u64) -> u64 {
        let geometry = &self.walk.geometry;
        geometry.first_data_block.0
            + group * u64::from(geometry.blocks_per_group)
    }

    /// An inode.
    pub(super) fn inode(&mut self, number: u32) -> &mut [u8] {
        let geometry = &self.walk.geometry;
        let index = number - 1;
        let group = index / geometry.inodes_per_group;
        let table = self.walk.groups[group as usize].inode_table.0;
        let size = geometry.inode_size as usize;
        let from = table as usize * self.block_size()
            + (index % geometry.inodes_per_group) as usize * size;
        &mut self.bytes[from..from + size]
    }

    /// The blocks of a kind, ascending.
    pub(super) fn kind(&self, kind: BlockKind) -> Vec<u64> {
        blocks(self.walk.kind(kind).unwrap()).collect()
    }

    /// Inverts a byte of block `index` of a kind.
    pub(super) fn flip(&mut self, kind: BlockKind, index: usize, at: usize) {
        let block = self.kind(kind)[index];
        self.block(block)[at] ^= 0xFF;
    }

    /// The first inode for which `is` holds.
    pub(super) fn find_inode(&mut self, is: impl Fn(&[u8]) -> bool) -> u32 {
        let count = self.walk.geometry.inodes_per_group;
        (11..=count)
            .find(|number| {
                let inode = self.inode(*number);
                get16(inode, 0x1A) > 0 && is(inode)
            })
            .expect("the fixture has such an inode")
    }

    /// A file with a tree of extents of depth 1 or more.
    pub(super) fn extents_file(&mut self) -> u32 {
        self.find_inode(|inode| {
            get16(inode, 0x28) == 0xF30A && get16(inode, 0x2E) > 0
        })
    }

    /// A file with an indirect block.
    pub(super) fn indirect_file(&mut self) -> u32 {
        self.find_inode(|inode| {
            inode[1] >> 4 == 8
                && get32(inode, 0x20) & 0x8_0000 == 0
                && get32(inode, 0x28 + 48) != 0
        })
    }

    /// A directory in blocks of its own.
    pub(super) fn directory(&mut self) -> u32 {
        self.find_inode(|inode| {
            inode[1] >> 4 == 4 && get32(inode, 0x20) & 0x1000_0000 == 0
        })
    }
}

/// The blocks of a set, one by one.
pub(super) fn blocks(set: &BlockSet) -> impl Iterator<Item = u64> + '_ {
    set.runs().flat_map(|run| run.first().0..run.end().0)
}

pub(super) fn get16(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

pub(super) fn get32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

pub(super) fn put16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_le_bytes());
}

pub(super) fn put32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}
