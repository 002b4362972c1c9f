use std::path::Path;

use super::*;
use crate::digest::Digest;
use crate::ext::BlockKind;
use crate::install::Planner;
use crate::local::{LocalOutput, OutputOptions};
use crate::observer::Silent;
use crate::undo::{Facts, UndoWriter};
use crate::units::{ByteOffset, ByteRange};

const SIZE: usize = 64 * 1024;

/// A disk that loses power at its n-th write: of what was not flushed, a
/// part reaches the medium, and the last write is torn between two sectors.
struct Disk {
    medium: Vec<u8>,
    cache: Vec<(usize, Vec<u8>)>,
    writes_left: usize,
    writes: usize,
}

impl Disk {
    fn new(medium: Vec<u8>) -> Self {
        Self { medium, cache: Vec::new(), writes_left: usize::MAX, writes: 0 }
    }

    fn seen(&self) -> Vec<u8> {
        let mut seen = self.medium.clone();
        for (at, bytes) in &self.cache {
            seen[*at..at + bytes.len()].copy_from_slice(bytes);
        }
        seen
    }

    fn power_cut(&mut self) {
        for (index, (at, bytes)) in self.cache.drain(..).enumerate() {
            let kept = match index % 3 {
                0 => bytes.len(),
                1 => 0,
                _ => bytes.len() / 2 / 512 * 512,
            };
            self.medium[at..at + kept].copy_from_slice(&bytes[..kept]);
        }
    }

    fn spend(&mut self) -> Result<()> {
        self.writes += 1;
        match self.writes_left.checked_sub(1) {
            Some(left) => {
                self.writes_left = left;
                Ok(())
            }
            None => {
                self.power_cut();
                Err(Error::new(ErrorKind::LocalIo, "power cut"))
            }
        }
    }
}

impl WriteTarget for Disk {
    fn read(&mut self, range: ByteRange) -> Result<Vec<u8>> {
        let at = range.start().0 as usize;
        Ok(self.seen()[at..at + range.length().0 as usize].to_vec())
    }

    fn write(
        &mut self,
        at: ByteOffset,
        bytes: &[u8],
        old: &Digest,
    ) -> Result<Written> {
        let at = at.0 as usize;
        let now = self.seen()[at..at + bytes.len()].to_vec();
        if now == bytes {
            return Ok(Written::AlreadyThere);
        }
        if *blake3::hash(&now).as_bytes() != *old {
            return Ok(Written::Conflict);
        }
        self.cache.push((at, bytes.to_vec()));
        self.spend()?;
        Ok(Written::Written)
    }

    fn flush(&mut self) -> Result<()> {
        self.spend()?;
        for (at, bytes) in self.cache.drain(..) {
            self.medium[at..at + bytes.len()].copy_from_slice(&bytes);
        }
        Ok(())
    }
}

fn old_disk() -> Vec<u8> {
    let mut disk: Vec<u8> = (0..SIZE).map(|i| (i / 512) as u8).collect();
    // The magic number, and s_state: clean.
    disk[1024 + 0x38..1024 + 0x3C].copy_from_slice(&[0x53, 0xEF, 1, 0]);
    disk
}

fn new_disk() -> Vec<u8> {
    let mut disk = old_disk();
    for block in [3, 4, 5, 9, 20, 40, 41] {
        disk[block * 1024..(block + 1) * 1024].fill(0xA0 + block as u8);
    }
    disk[1024 + 100] = 77;
    disk
}

fn kind_of(block: usize) -> BlockKind {
    match block {
        0..5 => BlockKind::Descriptors,
        5..10 => BlockKind::InodeTable,
        10..30 => BlockKind::Directory,
        _ => BlockKind::Journal,
    }
}

/// In memory where there is such a place: every undo file is synced.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// Writes the undo file that turns `old` into `new`.
fn undo_file(path: &Path, old: &[u8], new: &[u8]) -> UndoFile {
    let mut planner = Planner::default();
    for block in 2..SIZE / 1024 {
        let bytes = block * 1024..(block + 1) * 1024;
        planner
            .compare(
                ByteOffset(bytes.start as u64),
                kind_of(block),
                512,
                &old[bytes.clone()],
                &new[bytes],
            )
            .unwrap();
    }
    let superblock = |disk: &[u8]| disk[1024..2048].try_into().unwrap();
    let (from, to) = (superblock(old), superblock(new));
    let plan = planner.finish(ByteOffset(0), &from, &to).unwrap();
    let options = OutputOptions { overwrite: true, sync: false, sources: &[] };
    let mut out = LocalOutput::create(path, options).unwrap();
    let mut writer = UndoWriter::begin(out.file(), &Facts::default()).unwrap();
    for entry in plan.entries {
        let at = entry.range().start().0 as usize;
        let bytes = at..at + entry.length();
        let mark = crate::install::marked(&from, &to);
        let (before, after) = match entry.stage {
            Stage::Mark => (&old[bytes], &mark[..]),
            Stage::Superblock => (&mark[..], &new[bytes]),
            _ => (&old[bytes.clone()], &new[bytes]),
        };
        writer.add(entry, before, after).unwrap();
    }
    writer.seal().unwrap();
    out.publish().unwrap();
    UndoFile::open(path).unwrap()
}

fn run(undo: &UndoFile, disk: &mut Disk) -> Result<Executed> {
    execute(undo, disk, &Silent, &Stop::new())
}

#[test]
fn a_cut_at_any_write_or_flush_can_be_resumed_and_undone() {
    let folder = folder();
    let undo = undo_file(&folder.path().join("a"), &old_disk(), &new_disk());
    let mut whole = Disk::new(old_disk());
    run(&undo, &mut whole).unwrap();
    assert!(whole.medium == new_disk());
    assert!(whole.writes > 10);
    let (old, new) = (old_disk(), new_disk());
    for cut in 0..whole.writes {
        let mut disk = Disk::new(old_disk());
        disk.writes_left = cut;
        let error = run(&undo, &mut disk).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WriteIncomplete, "cut {cut}");
        for (at, byte) in disk.medium.iter().enumerate() {
            let legal =
                [old[at], new[at]].contains(byte) || (1024..2048).contains(&at);
            assert!(legal, "byte {at} after cut {cut}");
        }
        // Undone: a plan from what lies there to what lay there.
        let path = folder.path().join("b");
        let back = undo_file(&path, &disk.medium, &old_disk());
        let mut undone = Disk::new(disk.medium.clone());
        run(&back, &mut undone).unwrap();
        assert!(undone.medium == old_disk(), "undone after cut {cut}");
        // Resumed.
        disk.writes_left = usize::MAX;
        run(&undo, &mut disk).unwrap();
        assert!(disk.medium == new_disk(), "resumed after cut {cut}");
    }
}

#[test]
fn what_somebody_else_wrote_is_never_written_over() {
    let folder = folder();
    let undo = undo_file(&folder.path().join("a"), &old_disk(), &new_disk());
    let mut disk = Disk::new(old_disk());
    disk.medium[20 * 1024 + 700] ^= 1;
    let theirs = disk.medium[20 * 1024..21 * 1024].to_vec();
    let error = run(&undo, &mut disk).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WriteIncomplete);
    assert!(disk.medium[20 * 1024..21 * 1024] == theirs);
    // The filesystem still says that it is not whole.
    assert_eq!(disk.medium[1024 + 0x3A] & 2, 2);
}

#[test]
fn a_second_run_finds_everything_in_place() {
    let folder = folder();
    let undo = undo_file(&folder.path().join("a"), &old_disk(), &new_disk());
    let mut disk = Disk::new(old_disk());
    let first = run(&undo, &mut disk).unwrap();
    let second = run(&undo, &mut disk).unwrap();
    assert_eq!(second.written, ByteCount(0));
    assert_eq!(second.found.0 + 1024, first.written.0);
    assert!(disk.medium == new_disk());
}

#[test]
fn the_superblock_is_marked_first_and_made_whole_last() {
    let folder = folder();
    let undo = undo_file(&folder.path().join("a"), &old_disk(), &new_disk());
    let stages: Vec<Stage> = undo.entries().map(|e| e.stage).collect();
    assert!(stages.is_sorted());
    assert_eq!(stages.first(), Some(&Stage::Mark));
    assert_eq!(stages.last(), Some(&Stage::Superblock));
    let mut disk = Disk::new(old_disk());
    disk.writes_left = 3;
    run(&undo, &mut disk).unwrap_err();
    assert_eq!(disk.medium[1024 + 0x3A] & 2, 2);
}
