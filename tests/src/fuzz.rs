//! Everything that reads what strangers wrote, one function each: any input
//! may be refused, none may make it panic, hang or read what is not there.
//!
//! `tests/fuzz` runs these under libFuzzer; the tests run them over the
//! corpora that are committed there and over changes of these by chance.

mod disk;
mod images;
mod maps;
mod wire;

use std::path::PathBuf;

pub use disk::template;

/// Something that is fed any bytes.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// The name of the target and of the folder of its corpus.
    pub name: &'static str,
    /// Feeds it; panics when it does what it must not do.
    pub run: fn(&[u8]),
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "superblock", run: disk::superblock },
    Target { name: "group", run: disk::group },
    Target { name: "inode", run: disk::inode_table },
    Target { name: "extent", run: disk::extent },
    Target { name: "indirect", run: disk::indirect },
    Target { name: "directory", run: disk::directory },
    Target { name: "xattr", run: disk::xattr },
    Target { name: "journal", run: disk::journal },
    Target { name: "qcow2", run: images::qcow2 },
    Target { name: "normal", run: images::normal },
    Target { name: "undo", run: images::undo },
    Target { name: "manifest", run: images::manifest },
    Target { name: "mapfile", run: maps::mapfile },
    Target { name: "part_map", run: maps::part_map },
    Target { name: "frame", run: wire::frame },
    Target { name: "request", run: wire::request },
    Target { name: "reply", run: wire::reply },
    Target { name: "agent", run: crate::sim::play },
];

/// The target called `name`.
///
/// # Panics
///
/// When there is none.
#[must_use]
pub fn target(name: &str) -> Target {
    TARGETS
        .iter()
        .copied()
        .find(|target| target.name == name)
        .unwrap_or_else(|| panic!("no fuzz target is called {name}"))
}

/// Where the corpus of a target lies.
#[must_use]
pub fn corpus(name: &str) -> PathBuf {
    crate::root().join("tests/fuzz/corpus").join(name)
}
