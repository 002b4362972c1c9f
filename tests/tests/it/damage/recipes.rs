//! The ways to break a filesystem.

use e2wire::ext::BlockKind;
use e2wire::ext::walk::Scope;

use super::disk::{Disk, get16, get32, put16, put32};

/// One way.
pub(super) struct Recipe {
    pub(super) name: &'static str,
    pub(super) fixture: &'static str,
    pub(super) damage: fn(&mut Disk),
    pub(super) scope: Scope,
    /// Whether e2image may be asked: it hangs on some.
    pub(super) oracle: bool,
}

const fn recipe(
    name: &'static str,
    fixture: &'static str,
    damage: fn(&mut Disk),
) -> Recipe {
    Recipe { name, fixture, damage, scope: Scope::Metadata, oracle: true }
}

impl Recipe {
    const fn with_data(mut self) -> Self {
        self.scope = Scope::Data;
        self
    }

    const fn without_oracle(mut self) -> Self {
        self.oracle = false;
        self
    }
}

fn lost_superblock(disk: &mut Disk) {
    disk.superblock().fill(0);
}

/// The first MiB, as a careless installer leaves it.
fn lost_head(disk: &mut Disk) {
    disk.bytes[..1 << 20].fill(0xAA);
}

/// Fields of `i_block` of a file with extents: header, then entries.
const ROOT: usize = 0x28;

pub(super) const RECIPES: &[Recipe] = &[
    // Superblocks.
    recipe("superblock-zeroed", "ext4-1k-full", lost_superblock),
    recipe("superblock-zeroed-2k", "ext4-2k-full", |disk| {
        disk.superblock().fill(0);
    }),
    recipe("superblock-magic", "ext3-1k-full", |disk| {
        put16(disk.superblock(), 0x38, 0);
    }),
    recipe("superblock-checksum", "ext4-1k-full", |disk| {
        put32(disk.superblock(), 0x3FC, 1);
    }),
    recipe("superblock-block-size", "ext4-1k-full", |disk| {
        put32(disk.superblock(), 0x18, 77);
    }),
    recipe("superblock-block-count", "ext4-1k-full", |disk| {
        put32(disk.superblock(), 0x4, 0xFFFF_FFF0);
    }),
    recipe("superblock-inodes-per-group", "ext3-1k-full", |disk| {
        put32(disk.superblock(), 0x28, 0);
    }),
    recipe("superblock-blocks-per-group", "ext2-1k-full", |disk| {
        put32(disk.superblock(), 0x20, 3);
    }),
    recipe("superblock-unknown-feature", "ext3-1k-full", |disk| {
        put32(disk.superblock(), 0x60, 0x4000_0002);
    }),
    recipe("superblock-inode-size", "ext4-1k-full", |disk| {
        put16(disk.superblock(), 0x58, 512);
    })
    .without_oracle(),
    recipe("superblock-descriptor-size", "ext4-1k-full", |disk| {
        put16(disk.superblock(), 0xFE, 128);
    })
    .without_oracle(),
    recipe("superblock-uuid", "ext4-1k-full", |disk| {
        disk.superblock()[0x68] ^= 0xFF;
    }),
    recipe("superblock-features", "ext4-1k-full", |disk| {
        put32(disk.superblock(), 0x5C, u32::MAX);
    }),
    recipe("superblock-first-block", "ext2-1k-full", |disk| {
        put32(disk.superblock(), 0x14, 5081);
    })
    .without_oracle(),
    recipe("superblock-first-block-no-copies", "ext2-rev0", |disk| {
        put32(disk.superblock(), 0x14, 5081);
    })
    .without_oracle(),
    recipe("superblock-flex", "uninit-bg", |disk| {
        disk.superblock()[0x174] = 162;
    }),
    recipe("first-copy-lost-too", "ext4-1k-full", |disk| {
        disk.superblock().fill(0);
        let block = disk.group(1);
        disk.block(block).fill(0);
    }),
    recipe("odd-groups", "groups-small", lost_superblock),
    recipe("odd-groups-head", "groups-small", lost_head),
    recipe("sparse-super2-head", "sparse-super2", lost_head),
    recipe("meta-bg-head", "meta-bg", lost_head),
    recipe("head-gone", "ext4-1k-full", lost_head),
    recipe("head-gone-ext2", "ext2-1k-full", lost_head),
    // Descriptors.
    recipe("descriptors-zeroed", "ext4-1k-full", |disk| {
        let block = disk.descriptor_block(0);
        disk.block(block).fill(0);
    }),
    recipe("descriptors-zeroed-no-checksums", "ext3-1k-full", |disk| {
        let block = disk.descriptor_block(0);
        disk.block(block).fill(0);
    }),
    // By another UUID no checksum is right, nor in the copies.
    recipe("descriptor-and-uuid", "uninit-bg", |disk| {
        disk.superblock()[0x68] ^= 0xFF;
        disk.descriptor(1)[..12].fill(0xFF);
    }),
    recipe("descriptors-zeroed-meta-bg", "meta-bg", |disk| {
        let block = disk.descriptor_block(0);
        disk.block(block).fill(0);
    }),
    recipe("descriptor-checksum", "ext4-1k-full", |disk| {
        put16(disk.descriptor(1), 0x1E, 0x1234);
    }),
    recipe("descriptor-table-far", "ext4-1k-full", |disk| {
        put32(disk.descriptor(1), 0x8, 0x00FF_FFFF);
    }),
    recipe("descriptor-table-missing", "ext3-1k-full", |disk| {
        put32(disk.descriptor(1), 0x8, 0);
    }),
    recipe("descriptor-tables-overlap", "ext3-1k-full", |disk| {
        let table = get32(disk.descriptor(0), 0x8);
        put32(disk.descriptor(1), 0x8, table + 1);
    }),
    recipe("descriptor-bitmap-far", "ext2-1k-full", |disk| {
        put32(disk.descriptor(0), 0x0, 0x00FF_FFFF);
        put32(disk.descriptor(0), 0x4, 0);
    }),
    recipe("descriptor-unused-underflow", "ext4-1k-full", |disk| {
        put16(disk.descriptor(0), 0x1C, 0xFFFF);
    })
    .without_oracle(),
    recipe("all-descriptor-copies-lost", "ext3-1k-full", |disk| {
        let blocks = disk.walk.geometry.blocks.0;
        for group in [0, 1, 3] {
            let block = disk.group(group) + 1;
            if block < blocks {
                disk.block(block).fill(0);
            }
        }
    }),
    // The device.
    recipe("device-cut", "ext4-1k-full", |disk| disk.cut(20 << 20)),
    recipe("device-cut-in-a-block", "ext4-4k-full", |disk| {
        disk.cut((9 << 20) + 512);
    }),
    // Inodes.
    recipe("inode-checksum", "ext4-1k-full", |disk| {
        let number = disk.directory();
        disk.inode(number)[0x7C] ^= 0xFF;
    }),
    recipe("inode-table-block-noise", "ext4-1k-full", |disk| {
        let block = disk.kind(BlockKind::InodeTable)[2];
        let noise = (0..=255_u8).cycle();
        for (byte, noise) in disk.block(block).iter_mut().zip(noise) {
            *byte = noise.wrapping_mul(37) ^ 0x5A;
        }
    }),
    recipe("root-inode-zeroed", "ext4-1k-full", |disk| {
        disk.inode(2).fill(0);
    }),
    recipe("journal-inode-zeroed", "ext4-1k-full", |disk| {
        disk.inode(8).fill(0);
    }),
    recipe("journal-map-zeroed", "ext3-1k-full", |disk| {
        disk.inode(8)[0x28..0x64].fill(0);
    }),
    recipe("directory-of-no-type", "ext4-1k-full", |disk| {
        let number = disk.directory();
        put16(disk.inode(number), 0, 0xF1ED);
    }),
    recipe("directory-as-pipe", "ext2-1k-full", |disk| {
        let number = disk.directory();
        put16(disk.inode(number), 0, 0x11ED);
    }),
    recipe("root-as-device", "ext3-1k-full", |disk| {
        put16(disk.inode(2), 0, 0x21ED);
    }),
    recipe("file-of-no-type", "ext4-1k-full", |disk| {
        let number = disk.extents_file();
        put16(disk.inode(number), 0, 0x01A4);
    }),
    recipe("xattr-pointer-far", "ext4-4k-full", |disk| {
        let number = disk.directory();
        put32(disk.inode(number), 0x68, 0x00FF_FFFF);
    }),
    // Extents.
    recipe("extent-root-magic", "ext4-1k-full", |disk| {
        let number = disk.extents_file();
        put16(disk.inode(number), ROOT, 0);
    }),
    recipe("extent-root-entries", "ext4-1k-full", |disk| {
        let number = disk.extents_file();
        put16(disk.inode(number), ROOT + 2, 500);
    }),
    recipe("extent-root-depth", "ext4-1k-full", |disk| {
        let number = disk.extents_file();
        put16(disk.inode(number), ROOT + 6, 900);
    }),
    recipe("extent-index-far", "ext4-1k-full", |disk| {
        let number = disk.extents_file();
        put32(disk.inode(number), ROOT + 16, 0x00FF_FFFF);
    }),
    recipe("extent-node-loop", "extents-depth-3", |disk| {
        let number = disk.extents_file();
        let node = get32(disk.inode(number), ROOT + 16);
        put32(disk.block(u64::from(node)), 16, node);
    }),
    recipe("extent-node-magic", "ext4-1k-full", |disk| {
        let number = disk.extents_file();
        let node = get32(disk.inode(number), ROOT + 16);
        put16(disk.block(u64::from(node)), 0, 0xBEEF);
    }),
    recipe("extent-node-checksum", "ext4-1k-full", |disk| {
        let number = disk.extents_file();
        let node = u64::from(get32(disk.inode(number), ROOT + 16));
        let last = disk.block_size() - 1;
        disk.block(node)[last] ^= 1;
    }),
    recipe("extent-data-far", "ext4-1k-full", |disk| {
        let number = disk.extents_file();
        let node = u64::from(get32(disk.inode(number), ROOT + 16));
        put32(disk.block(node), 20, 0x00FF_FFFF);
    })
    .with_data(),
    recipe("extents-out-of-order", "ext4-1k-full", |disk| {
        let number = disk.extents_file();
        let node = u64::from(get32(disk.inode(number), ROOT + 16));
        put32(disk.block(node), 24, 0);
    })
    .with_data(),
    recipe("two-files-share-a-node", "ext4-1k-full", |disk| {
        let number = disk.extents_file();
        let root = disk.inode(number)[ROOT..ROOT + 60].to_vec();
        let other = disk.directory();
        disk.inode(other)[ROOT..ROOT + 60].copy_from_slice(&root);
    }),
    // Indirect maps.
    recipe("indirect-far", "ext3-1k-full", |disk| {
        let number = disk.indirect_file();
        put32(disk.inode(number), ROOT + 48, 0x00FF_FFFF);
    }),
    recipe("indirect-loop", "ext3-1k-full", |disk| {
        let number = disk.indirect_file();
        let block = get32(disk.inode(number), ROOT + 48);
        put32(disk.inode(number), ROOT + 52, block);
        put32(disk.inode(number), ROOT + 56, block);
        put32(disk.block(u64::from(block)), 0, block);
    }),
    recipe("indirect-noise", "ext2-1k-full", |disk| {
        let number = disk.indirect_file();
        let block = u64::from(get32(disk.inode(number), ROOT + 48));
        disk.block(block).fill(0x77);
    })
    .with_data(),
    // What only has a checksum to tell.
    recipe("block-bitmap-bit", "ext4-1k-full", |disk| {
        disk.flip(BlockKind::BlockBitmap, 0, 17);
    }),
    recipe("inode-bitmap-bit", "ext4-4k-full", |disk| {
        disk.flip(BlockKind::InodeBitmap, 0, 3);
    }),
    recipe("directory-bit", "ext4-4k-full", |disk| {
        disk.flip(BlockKind::Directory, 0, 9);
    }),
    recipe("directory-zeroed", "ext4-4k-full", |disk| {
        let block = disk.kind(BlockKind::Directory)[0];
        disk.block(block).fill(0);
    }),
    recipe("directory-without-checksums", "ext3-1k-full", |disk| {
        disk.flip(BlockKind::Directory, 0, 4);
    }),
    recipe("hash-index-root", "htree-1k", |disk| {
        let number = disk.find_inode(|inode| {
            inode[1] >> 4 == 4 && get32(inode, 0x20) & 0x1000 != 0
        });
        let root = get32(disk.inode(number), ROOT + 20);
        disk.block(u64::from(root))[44] ^= 1;
    }),
    recipe("hash-index-node", "large-dir", |disk| {
        let node = disk
            .kind(BlockKind::Directory)
            .into_iter()
            .find(|block| {
                let bytes = disk.bytes_of(*block);
                get32(bytes, 0) == 0 && get16(bytes, 4) == 1024
            })
            .expect("the index has inner nodes");
        disk.block(node)[20] ^= 1;
    }),
    recipe("xattr-bit", "ext4-4k-full", |disk| {
        disk.flip(BlockKind::Xattr, 0, 100);
    }),
    recipe("xattr-magic", "ext3-4k-full", |disk| {
        disk.flip(BlockKind::Xattr, 0, 2);
    }),
    recipe("mmp-magic", "mmp", |disk| disk.flip(BlockKind::Mmp, 0, 0)),
    recipe("mmp-bit", "mmp", |disk| disk.flip(BlockKind::Mmp, 0, 9)),
    recipe("orphan-file-bit", "orphan-file", |disk| {
        disk.flip(BlockKind::OrphanFile, 1, 5);
    }),
    recipe("orphan-file-magic", "orphan-file", |disk| {
        let last = disk.block_size() - 8;
        disk.flip(BlockKind::OrphanFile, 0, last);
    }),
    recipe("journal-block-size", "ext4-1k-full", |disk| {
        disk.flip(BlockKind::Journal, 0, 0x0E);
    }),
    recipe("journal-magic", "ext3-1k-full", |disk| {
        disk.flip(BlockKind::Journal, 0, 0);
    }),
    // Claims.
    recipe("two-directories-share-a-block", "ext3-1k-full", |disk| {
        let lost_found = get32(disk.inode(2), ROOT);
        let other = disk.directory();
        put32(disk.inode(other), ROOT, lost_found);
    }),
    recipe("directory-in-a-bitmap", "ext2-1k-full", |disk| {
        let bitmap = get32(disk.descriptor(0), 0);
        let other = disk.directory();
        put32(disk.inode(other), ROOT, bitmap);
    }),
    recipe("data-twice", "ext2-1k-full", |disk| {
        let file = disk.find_inode(|inode| {
            inode[1] >> 4 == 8 && get32(inode, ROOT + 4) != 0
        });
        let block = get32(disk.inode(file), ROOT + 4);
        put32(disk.inode(file), ROOT, block);
    })
    .with_data(),
];
