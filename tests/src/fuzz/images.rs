//! Files that are read back: images, undo files, manifests.

use std::io::Write as _;
use std::ops::ControlFlow;

use e2wire::image::format::Format;
use e2wire::source::BlockSource;
use e2wire::undo::UndoFile;
use e2wire::units::{ByteCount, ByteOffset, ByteRange};
use e2wire::{image, manifest};

/// How much of an image is read: small inputs may claim to be large.
const READ_MAX: u64 = 4 << 20;
/// How many entries of an undo file are read.
const ENTRIES_MAX: usize = 200;

fn open(input: &[u8], format: Format) {
    let mut file = tempfile::NamedTempFile::new().expect("a place for it");
    file.write_all(input).expect("room for it");
    let Ok(opened) = image::open(file.path(), Some(format)) else { return };
    let source = opened.source();
    let length = source.facts().length.0;
    for range in opened.stored.ranges() {
        assert!(range.end().0 <= length, "holds what lies outside");
    }
    read(source, 0, length);
    read(source, length.saturating_sub(READ_MAX), length);
}

fn read(source: &dyn BlockSource, from: u64, to: u64) {
    let count = ByteCount((to - from).min(READ_MAX));
    let range = ByteRange::new(ByteOffset(from), count).expect("it is inside");
    if range.is_empty() {
        return;
    }
    let mut come = 0;
    let ended = source.read(&[range], &mut |piece| {
        assert!(piece.at.0 >= from);
        come += piece.what.length().0;
        ControlFlow::Continue(())
    });
    if ended.is_ok() {
        assert_eq!(come, count.0, "not every byte comes once");
    }
}

pub(super) fn qcow2(input: &[u8]) {
    open(input, Format::Qcow2);
}

pub(super) fn normal(input: &[u8]) {
    open(input, Format::Normal);
}

pub(super) fn undo(input: &[u8]) {
    let mut file = tempfile::NamedTempFile::new().expect("a place for it");
    file.write_all(input).expect("room for it");
    let Ok(undo) = UndoFile::open(file.path()) else { return };
    for index in 0..undo.entries().len().min(ENTRIES_MAX) {
        let _ = undo.bytes(index);
    }
}

pub(super) fn manifest(input: &[u8]) {
    let folder = tempfile::tempdir().expect("a place for it");
    let image = folder.path().join("image");
    let mut name = image.clone().into_os_string();
    name.push(".manifest.json");
    std::fs::write(&name, input).expect("room for it");
    let Ok(Some((manifest, records))) = manifest::read(&image) else {
        return;
    };
    let _ = (manifest.block_size(), manifest.source_offset());
    assert!(records.len() <= input.len(), "more ranges than bytes");
}
