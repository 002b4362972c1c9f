//! Whole images of real filesystems, compared byte by byte with what e2image
//! makes of the same.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::{MemoryFile, MemoryStream};
use crate::ext::{Scope, Selection, Step, WalkOptions, Walker};
use crate::image::normal::HostFacts;
use crate::image::normal::sink::NormalSink;
use crate::image::qcow2::classic::ClassicSink;
use crate::image::raw::{RawOptions, RawSink};
use crate::image::*;
use crate::source::{Payload, Piece};
use crate::units::{BlockCount, ByteCount, u64_from};

/// A filesystem made for a test.
pub(super) struct Fixture {
    folder: tempfile::TempDir,
    pub(super) bytes: Vec<u8>,
}

pub(super) fn tool(
    name: &str,
    package: &str,
    arguments: &[&str],
) -> (bool, String) {
    let output = Command::new(name)
        .args(arguments)
        .env("MKE2FS_CONFIG", "/dev/null")
        .output()
        .unwrap_or_else(|e| panic!("needs {name} ({package}): {e}"));
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

pub(super) fn e2fsprogs(name: &str, arguments: &[&str]) -> String {
    let (done, text) = tool(name, "apt-get install e2fsprogs", arguments);
    assert!(done, "{name} {arguments:?}: {text}");
    text
}

impl Fixture {
    /// A filesystem of `blocks` blocks with some folders, links and files.
    pub(super) fn new(options: &[&str], blocks: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let tree = folder.path().join("tree");
        for d in 0..7 {
            let sub = tree.join(format!("folder-{d}/below"));
            fs::create_dir_all(&sub).unwrap();
            for f in 0..40 {
                let name = format!("a file with a longer name {f}");
                fs::write(sub.join(name), vec![b'x'; f * 997]).unwrap();
            }
            let target = format!("{}/{d}", "long target/".repeat(9));
            std::os::unix::fs::symlink(target, sub.join("link")).unwrap();
        }
        let path = folder.path().join("fs.img");
        let path = path.to_str().unwrap().to_owned();
        let tree = tree.to_str().unwrap().to_owned();
        let mut arguments = vec!["-q", "-F", "-U", UUID, "-d", &tree];
        arguments.extend(options);
        arguments.extend([path.as_str(), blocks]);
        e2fsprogs("mke2fs", &arguments);
        let bytes = fs::read(&path).unwrap();
        Self { folder, bytes }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(super) fn walk(&self, scope: Scope, full_tables: bool) -> Walk {
        let mut walker = Walker::new(WalkOptions {
            selection: Selection::E2image,
            scope,
            full_tables,
            device_length: Some(ByteCount(u64_from(self.bytes.len()))),
            ..WalkOptions::default()
        });
        loop {
            match walker.next_step().unwrap() {
                Step::Restart => {}
                Step::Waiting => walker.resume(true),
                Step::Done => return walker.finish().unwrap(),
                Step::Read(level) => {
                    for range in level.ranges {
                        walker.supply(Piece {
                            at: range.start(),
                            what: Payload::Bytes(
                                self.at(range.start().0, range.length().0),
                            ),
                        });
                    }
                }
            }
        }
    }

    fn at(&self, start: u64, length: u64) -> &[u8] {
        let start = usize::try_from(start).unwrap();
        &self.bytes[start..start + usize::try_from(length).unwrap()]
    }

    /// Makes an image; runs come in pieces of up to `cut` blocks.
    pub(super) fn feed(&self, sink: &mut dyn ImageSink, walk: &Walk, cut: u64) {
        let size = walk.geometry.block_size;
        let plan = ImagePlan { geometry: &walk.geometry, walk: Some(walk) };
        sink.begin(&plan).unwrap();
        for pass in sink.passes(walk) {
            for run in pass.runs() {
                let mut at = run.first().0;
                while at < run.end().0 {
                    let count = cut.min(run.end().0 - at);
                    let piece =
                        BlockRun::new(BlockNumber(at), BlockCount(count));
                    let bytes = piece.unwrap().bytes(size).unwrap();
                    let data = self.at(bytes.start().0, bytes.length().0);
                    sink.put(BlockNumber(at), data).unwrap();
                    at += count;
                }
            }
        }
        sink.finish().unwrap();
    }

    fn e2image(&self, options: &[&str]) -> Vec<u8> {
        let out = self.path("e2image.out");
        let _ = fs::remove_file(&out);
        let source = self.path("fs.img");
        let mut arguments = options.to_vec();
        arguments.extend([source.to_str().unwrap(), out.to_str().unwrap()]);
        e2fsprogs("e2image", &arguments);
        fs::read(out).unwrap()
    }

    /// What the header of a normal image says of this machine.
    fn host(&self, image: &[u8]) -> HostFacts {
        let number = |at: usize| {
            u64::from(u32::from_le_bytes(image[at..at + 4].try_into().unwrap()))
        };
        HostFacts {
            hostname: image[0x14..0x54].to_vec(),
            device: image[0x7C..0xBC].to_vec(),
            device_number: number(0x78),
            image_device: number(0xF0),
            image_inode: number(0xF4),
            time: number(0xF8),
        }
    }
}

/// What mke2fs.conf usually says, whatever it says on this machine.
pub(super) const EXT4: &str = "has_journal,ext_attr,resize_inode,dir_index,filetype,\
    extent,64bit,flex_bg,metadata_csum,sparse_super,large_file,huge_file,\
    dir_nlink,extra_isize";

const UUID: &str = "0d0c0b0a-0908-4706-8504-030201000000";

fn differ(what: &str, ours: &[u8], theirs: &[u8]) {
    if ours == theirs {
        return;
    }
    let at = ours.iter().zip(theirs).position(|(a, b)| a != b);
    panic!(
        "{what}: {} against {} bytes, first difference at {at:x?}",
        ours.len(),
        theirs.len()
    );
}

/// Every format of `fixture`, against e2image's.
fn compare(name: &str, fixture: &Fixture) {
    let metadata = fixture.walk(Scope::Metadata, false);
    let data = fixture.walk(Scope::Data, false);
    let tables = fixture.walk(Scope::Tables, true);

    let mut file = MemoryFile::default();
    let mut sink = RawSink::new(&mut file, "x", RawOptions::default());
    fixture.feed(&mut sink, &metadata, 100);
    differ(&format!("{name} -r"), &file.bytes, &fixture.e2image(&["-r"]));

    for (walk, option) in [(&metadata, "-Q"), (&data, "-Qa")] {
        let mut file = MemoryFile::default();
        let mut sink = ClassicSink::new(&mut file, "x");
        fixture.feed(&mut sink, walk, 33);
        let theirs = fixture.e2image(&[option]);
        differ(&format!("{name} {option}"), &file.bytes, &theirs);
    }

    let theirs = fixture.e2image(&[]);
    let host = fixture.host(&theirs);
    let mut file = MemoryFile::default();
    let target = Target::File(&mut file);
    let mut sink = NormalSink::new(target, "x", host.clone());
    fixture.feed(&mut sink, &tables, 19);
    differ(&format!("{name} normal"), &file.bytes, &theirs);
    let mut stream = MemoryStream::default();
    let target = Target::Stream(&mut stream);
    let mut sink = NormalSink::new(target, "x", host);
    fixture.feed(&mut sink, &tables, 7);
    differ(&format!("{name} normal to a pipe"), &stream.0, &theirs);
}

#[test]
fn every_format_is_what_e2image_makes() {
    let recipes: [(&str, &str, &str, &str); 5] = [
        ("revision 1 of old", "1024", "none,filetype,sparse_super", "9000"),
        ("ext4", "1024", EXT4, "40000"),
        ("4k", "4096", EXT4, "20000"),
        ("bigalloc", "1024", "bigalloc,extent,uninit_bg,flex_bg", "60000"),
        (
            "meta_bg",
            "1024",
            "^resize_inode,meta_bg,extent,64bit,metadata_csum",
            "150000",
        ),
    ];
    for (name, block_bytes, features, blocks) in recipes {
        let options = ["-b", block_bytes, "-O", features];
        compare(name, &Fixture::new(&options, blocks));
    }
}
