//! The harness that the system tests, `cargo xtask demo` and `cargo xtask
//! bench` share.
//!
//! Fixtures are real filesystems made by the real mke2fs and debugfs; the
//! oracle is the real e2image. A tool that is missing is a failure that names
//! its Debian package, never a test that is skipped. A harness for tests, so
//! it panics where a test would.

pub mod agents;
pub mod binaries;
pub mod compare;
pub mod desk;
pub mod fixtures;
pub mod fuzz;
pub mod initrds;
pub mod kernels;
pub mod memory;
pub mod oracle;
pub mod paced;
pub mod plans;
pub mod power;
pub mod qemu;
pub mod rescue;
pub mod scene;
pub mod shared_file;
pub mod sim;
pub mod subject;
pub mod tools;

use std::path::PathBuf;

/// The root of the repository.
#[must_use]
pub fn root() -> PathBuf {
    let member = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    member.parent().expect("a member lies in the workspace").to_owned()
}

/// Where cargo builds, and where we cache what is costly to make.
#[must_use]
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| root().join("target"), |dir| root().join(dir))
}
