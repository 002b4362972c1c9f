//! Plans from one content of a disk to another, as files that are carried
//! out.

use std::path::Path;

use e2wire::ext::BlockKind;
use e2wire::install::{Planner, marked};
use e2wire::local::{LocalOutput, OutputOptions};
use e2wire::undo::{Facts, Stage, UndoFile, UndoWriter};
use e2wire::units::ByteOffset;

/// What is compared in one go, and of one kind: longer than one write over a
/// line.
const STRETCH: usize = 70 * 1024;

/// Writes the plan at `path` that turns `old` into `new`, in entries of all
/// kinds.
///
/// # Panics
///
/// When it cannot be written.
#[must_use]
pub fn undo_file(path: &Path, old: &[u8], new: &[u8]) -> UndoFile {
    let kinds = [
        BlockKind::Descriptors,
        BlockKind::InodeTable,
        BlockKind::Directory,
        BlockKind::BlockBitmap,
        BlockKind::Journal,
    ];
    let mut planner = Planner::default();
    for index in 0..old.len().div_ceil(STRETCH) {
        let start = (index * STRETCH).max(2048);
        let bytes = start..old.len().min((index + 1) * STRETCH);
        let kind = kinds[index % kinds.len()];
        let (old, new) = (&old[bytes.clone()], &new[bytes]);
        planner
            .compare(ByteOffset(start as u64), kind, 512, old, new)
            .expect("whole sectors are compared");
    }
    let superblock = |disk: &[u8]| -> [u8; 1024] {
        disk[1024..2048].try_into().expect("1 KiB")
    };
    let (from, to) = (superblock(old), superblock(new));
    let mark = marked(&from, &to);
    let plan = planner.finish(ByteOffset(0), &from, &to).expect("a plan");
    let options = OutputOptions { overwrite: true, sync: false, sources: &[] };
    let mut out = LocalOutput::create(path, options).expect("a file");
    let mut writer =
        UndoWriter::begin(out.file(), &Facts::default()).expect("a head");
    for entry in plan.entries {
        let at = entry.range().start().0 as usize;
        let bytes = at..at + entry.length();
        let (before, after) = match entry.stage {
            Stage::Mark => (&from[..], &mark[..]),
            Stage::Superblock => (&mark[..], &to[..]),
            _ => (&old[bytes.clone()], &new[bytes]),
        };
        writer.add(entry, before, after).expect("an entry");
    }
    writer.seal().expect("a seal");
    out.publish().expect("a file");
    UndoFile::open(path).expect("what was just written")
}
