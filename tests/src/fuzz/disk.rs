//! Structures of ext, each in its place on a small filesystem: so all that
//! is reached from it is reached as in earnest.
//!
//! The first byte of an input says which features and options hold.

use e2wire::block_set::BlockSet;
use e2wire::ext::directory::{Entries, salvage};
use e2wire::ext::walk::{JournalMode, Scope, Selection, WalkOptions};
use e2wire::ext::xattr::Xattrs;

use crate::memory::drive;

const BLOCK: usize = 1024;
const BLOCKS: usize = 64;
/// Where each thing lies, in blocks.
const SUPERBLOCK: usize = 1;
const DESCRIPTORS: usize = 2;
const TABLE: usize = 5;
const ROOT: usize = 9;
const NODE: usize = 10;
const INDIRECT: usize = 11;
const XATTR: usize = 12;
const JOURNAL: usize = 16;
const JOURNAL_BLOCKS: u32 = 32;

const INODES: u32 = 16;
const INODE_BYTES: usize = 256;

/// What the first byte of an input asks for.
const METADATA_CSUM: u8 = 1;
const AS_E2IMAGE: u8 = 2;
const WITH_DATA: u8 = 4;
const LIVE_JOURNAL: u8 = 8;

fn put16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_le_bytes());
}

fn put32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

/// A filesystem of 64 blocks of 1 KiB with a root directory, a file with an
/// extent tree, one with indirect blocks, an attribute block and a journal.
#[must_use]
pub fn template() -> Vec<u8> {
    let mut disk = vec![0; BLOCKS * BLOCK];
    let superblock = &mut disk[SUPERBLOCK * BLOCK..][..BLOCK];
    put32(superblock, 0x00, INODES);
    put32(superblock, 0x04, BLOCKS as u32);
    put32(superblock, 0x14, 1);
    put32(superblock, 0x20, 8192);
    put32(superblock, 0x24, 8192);
    put32(superblock, 0x28, INODES);
    put16(superblock, 0x38, 0xEF53);
    put32(superblock, 0x4C, 1);
    put32(superblock, 0x54, 11);
    put16(superblock, 0x58, INODE_BYTES as u16);
    // has_journal; filetype, extents.
    put32(superblock, 0x5C, 4);
    put32(superblock, 0x60, 0x42);
    superblock[0x68..0x78].fill(7);
    put32(superblock, 0xE0, 8);
    let group = &mut disk[DESCRIPTORS * BLOCK..];
    for (at, block) in [(0, 3), (4, 4), (8, TABLE as u32)] {
        put32(group, at, block);
    }
    extents(inode(&mut disk, 2, 0x41ED), 0, ROOT, 1);
    extents(
        inode(&mut disk, 8, 0x8180),
        0,
        JOURNAL,
        u16::try_from(JOURNAL_BLOCKS).expect("a small number"),
    );
    extents(inode(&mut disk, 12, 0x81A4), 1, NODE, 0);
    let indirect = inode(&mut disk, 13, 0x81A4);
    for slot in 12..15 {
        put32(indirect, 40 + slot * 4, INDIRECT as u32);
    }
    put32(inode(&mut disk, 14, 0x81A4), 0x68, XATTR as u32);
    entries(&mut disk[ROOT * BLOCK..][..BLOCK]);
    let node = &mut disk[NODE * BLOCK..][..BLOCK];
    for (at, half) in [(0, 0xF30A), (2, 1), (4, 84), (16, 4), (20, 60)] {
        put16(node, at, half);
    }
    put32(&mut disk[INDIRECT * BLOCK..], 0, 61);
    put32(&mut disk[XATTR * BLOCK..], 0, 0xEA02_0000);
    journal_superblock(&mut disk[JOURNAL * BLOCK..][..BLOCK]);
    disk
}

fn inode(disk: &mut [u8], number: usize, mode: u16) -> &mut [u8] {
    let at = TABLE * BLOCK + (number - 1) * INODE_BYTES;
    let inode = &mut disk[at..at + INODE_BYTES];
    put16(inode, 0x00, mode);
    put32(inode, 0x04, 4096);
    put16(inode, 0x1A, 1);
    put32(inode, 0x1C, 8);
    put16(inode, 0x80, 32);
    inode
}

fn extents(inode: &mut [u8], depth: u16, block: usize, count: u16) {
    put32(inode, 0x20, 0x8_0000);
    for (at, half) in [(0, 0xF30A), (2, 1), (4, 4), (6, depth)] {
        put16(inode, 40 + at, half);
    }
    let block = u32::try_from(block).expect("a small number");
    if depth == 0 {
        put16(inode, 40 + 16, count);
        put32(inode, 40 + 20, block);
    } else {
        put32(inode, 40 + 16, block);
    }
}

fn entries(block: &mut [u8]) {
    let names: [(u32, u16, &[u8]); 3] =
        [(2, 12, b"."), (2, 12, b".."), (12, 1000, b"file")];
    let mut at = 0;
    for (number, length, name) in names {
        put32(block, at, number);
        put16(block, at + 4, length);
        block[at + 6] = u8::try_from(name.len()).expect("short");
        block[at + 8..at + 8 + name.len()].copy_from_slice(name);
        at += usize::from(length);
    }
}

fn journal_superblock(block: &mut [u8]) {
    let words = [0xC03B_3998, 4, 0, 1024, JOURNAL_BLOCKS, 1, 1, 1];
    for (index, word) in words.into_iter().enumerate() {
        block[index * 4..][..4].copy_from_slice(&u32::to_be_bytes(word));
    }
}

/// Puts the input over the template from `block` on and walks it.
fn overlay(input: &[u8], block: usize) {
    let Some((flags, bytes)) = input.split_first() else { return };
    let mut disk = template();
    let room = &mut disk[block * BLOCK..];
    let count = bytes.len().min(room.len());
    room[..count].copy_from_slice(&bytes[..count]);
    if flags & METADATA_CSUM != 0 {
        disk[SUPERBLOCK * BLOCK + 0x65] |= 4;
    }
    walk(&disk, *flags);
}

fn walk(disk: &[u8], flags: u8) {
    let either = |flag: u8| flags & flag != 0;
    let options = WalkOptions {
        selection: if either(AS_E2IMAGE) {
            Selection::E2image
        } else {
            Selection::Complete
        },
        scope: if either(WITH_DATA) { Scope::Data } else { Scope::Metadata },
        journal: if either(LIVE_JOURNAL) {
            JournalMode::Live
        } else {
            JournalMode::Full
        },
        ..WalkOptions::default()
    };
    let Ok(walked) = drive(disk, options) else { return };
    let walk = walked.walk;
    let blocks = walk.geometry.blocks.0;
    assert!(walk.selected.last().is_none_or(|last| last.0 < blocks));
    let mut all = BlockSet::new();
    for (_, set) in &walk.kinds {
        all.union_with(set);
    }
    all.subtract(&walk.selected);
    assert!(all.is_empty(), "a kind has what is not selected");
    assert!(walk.findings.len() as u64 <= walk.findings_total);
    for finding in walk.findings.iter().take(100) {
        assert!(!finding.to_string().is_empty());
    }
}

pub(super) fn superblock(input: &[u8]) {
    overlay(input, SUPERBLOCK);
}

pub(super) fn group(input: &[u8]) {
    overlay(input, DESCRIPTORS);
}

pub(super) fn inode_table(input: &[u8]) {
    overlay(input, TABLE);
}

pub(super) fn extent(input: &[u8]) {
    overlay(input, NODE);
}

pub(super) fn indirect(input: &[u8]) {
    overlay(input, INDIRECT);
}

pub(super) fn journal(input: &[u8]) {
    let Some((flags, bytes)) = input.split_first() else { return };
    let live = [&[flags | LIVE_JOURNAL], bytes].concat();
    overlay(&live, JOURNAL);
}

pub(super) fn directory(input: &[u8]) {
    overlay(input, ROOT);
    let bytes = input.get(1..).unwrap_or_default();
    let lists = [
        Some(Entries::new(bytes)),
        Entries::inline(bytes).map(|(_, entries)| entries),
    ];
    for mut list in lists.into_iter().flatten() {
        let count = list.by_ref().count();
        assert!(count <= bytes.len() / 8);
    }
    assert!(salvage(bytes, INODES).len() <= bytes.len() / 4);
}

pub(super) fn xattr(input: &[u8]) {
    overlay(input, XATTR);
    let bytes = input.get(1..).unwrap_or_default();
    let lists =
        [Xattrs::block(bytes).ok(), Xattrs::behind_inode(bytes).ok().flatten()];
    for mut list in lists.into_iter().flatten() {
        let count = list.by_ref().count();
        assert!(count <= bytes.len() / 16);
    }
}
