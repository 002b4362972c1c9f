//! What must not be lost is not lost: sources are never written to, and an
//! earlier output stays until the new one is complete.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use e2wire_tests::fixtures::{self, Fixture};
use e2wire_tests::{oracle, subject, tools};
use tempfile::TempDir;

const FORMATS: &[&str] = &["raw", "qcow2", "normal"];

/// A fixture that may be spoiled, in a directory of its own.
struct Scene {
    directory: TempDir,
    device: PathBuf,
    before: Vec<u8>,
}

impl Scene {
    fn new(name: &str) -> Self {
        let directory = tempfile::tempdir_in(e2wire_tests::target()).unwrap();
        let device = directory.path().join("disk");
        let fixture: Fixture = fixtures::fixture(name);
        fixture.copy_to(&device).unwrap();
        let before = fs::read(&device).unwrap();
        Self { directory, device, before }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// An image from earlier, which must stay as it is.
    fn earlier(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, b"an image from earlier").unwrap();
        path
    }

    fn assert_untouched(&self, earlier: Option<&Path>) {
        let now = fs::read(&self.device).unwrap();
        assert!(now == self.before, "the source was written to");
        if let Some(path) = earlier {
            let kept = fs::read(path).unwrap();
            assert_eq!(kept, b"an image from earlier", "{}", path.display());
        }
    }
}

/// Runs `e2wire image` with these arguments; asserts its exit code and
/// answers what it said.
fn image(arguments: &[&str], paths: [&Path; 2], code: i32) -> String {
    let output = oracle::run(subject::image(arguments).args(paths));
    let said = oracle::text(&output);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
    said
}

#[test]
fn a_source_is_never_its_own_output() {
    let scene = Scene::new("ext4-1k");
    let (soft, hard) = (scene.path("soft"), scene.path("hard"));
    symlink(&scene.device, &soft).unwrap();
    fs::hard_link(&scene.device, &hard).unwrap();
    for format in FORMATS {
        for output in [&scene.device, &soft, &hard] {
            let arguments = ["--format", format, "--overwrite"];
            image(&arguments, [&scene.device, output], 5);
            scene.assert_untouched(None);
        }
    }
}

#[test]
fn an_existing_output_needs_overwrite() {
    let scene = Scene::new("ext4-1k");
    for format in FORMATS {
        let output = scene.earlier(format);
        let paths = [&*scene.device, &*output];
        let said = image(&["--format", format], paths, 5);
        assert!(said.contains("--overwrite"), "no way out: {said}");
        scene.assert_untouched(Some(&output));
        image(&["--format", format, "--overwrite"], paths, 0);
        assert!(fs::metadata(&output).unwrap().len() > 1000);
        scene.assert_untouched(None);
    }
}

#[test]
fn images_are_for_their_owner_only() {
    let scene = Scene::new("ext4-1k");
    for format in FORMATS {
        let output = scene.path(format);
        image(&["--format", format], [&scene.device, &output], 0);
        let mode = fs::metadata(&output).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{format}");
    }
}

#[test]
fn a_full_disk_costs_neither_source_nor_earlier_image() {
    let scene = Scene::new("ext4-4k-full");
    for format in FORMATS {
        let output = scene.earlier(format);
        let made = subject::image(&["--format", format, "--overwrite"]);
        // No file may grow beyond 64 KiB: as a disk that is full.
        let mut limited = Command::new(tools::find("sh").unwrap());
        limited
            .args(["-c", "ulimit -f 128; exec \"$@\"", "sh"])
            .arg(made.get_program())
            .args(made.get_args())
            .args([&scene.device, &output]);
        let result = oracle::run(&mut limited);
        let said = oracle::text(&result);
        assert_eq!(result.status.code(), Some(10), "{format}: {said}");
        scene.assert_untouched(Some(&output));
    }
}

#[test]
fn what_is_no_filesystem_is_said_to_be_none() {
    let scene = Scene::new("ext4-1k");
    let (device, output) = (scene.path("noise"), scene.earlier("image"));
    for length in [0, 100, 5000, 300_000] {
        fs::write(&device, vec![0xA5; length]).unwrap();
        let arguments = ["--format", "raw", "--overwrite"];
        image(&arguments, [&device, &output], 9);
        scene.assert_untouched(Some(&output));
    }
    let missing = scene.path("missing");
    image(&["--format", "raw"], [&missing, &scene.path("x")], 9);
}

#[test]
fn standard_output_gets_the_same_bytes() {
    let scene = Scene::new("ext4-1k-full");
    for (format, same) in [("raw", true), ("qcow2", false)] {
        let (file, stream) = (scene.path("file"), scene.path("stream"));
        let arguments = ["--format", format, "--overwrite"];
        image(&arguments, [&scene.device, &file], 0);
        let mut command = subject::image(&["--format", format]);
        command.arg(&scene.device).arg("-");
        let output = oracle::run(&mut command);
        oracle::assert_success("e2wire", &output);
        fs::write(&stream, &output.stdout).unwrap();
        if same {
            assert!(fs::read(&file).unwrap() == output.stdout, "{format}");
        } else {
            // Laid out otherwise, but the same to whoever reads it.
            oracle::qemu_check(&stream).unwrap();
            let raws = [scene.path("a.raw"), scene.path("b.raw")];
            oracle::qemu_to_raw(&file, &raws[0]);
            oracle::qemu_to_raw(&stream, &raws[1]);
            assert!(fs::read(&raws[0]).unwrap() == fs::read(&raws[1]).unwrap());
        }
    }
}

/// Each place, as an offset in a raw image, and the kind of its block.
const BITS: &[(u64, &str)] = &[(1024 + 0x78, "superblock"), (2048, "descr")];

#[test]
fn a_flipped_bit_is_found_and_named() {
    let scene = Scene::new("ext4-1k-full");
    let output = scene.path("image.raw");
    let mut command = e2wire_tests::binaries::e2wire();
    command.args(["image", "--no-sync"]).args([&scene.device, &output]);
    oracle::assert_success("e2wire", &oracle::run(&mut command));
    let verify = |expected: i32| {
        let mut command = e2wire_tests::binaries::e2wire();
        let result = oracle::run(command.arg("verify").arg(&output));
        let said = oracle::text(&result);
        assert_eq!(result.status.code(), Some(expected), "{said}");
        said
    };
    verify(0);
    let good = fs::read(&output).unwrap();
    for (at, kind) in BITS {
        let mut bad = good.clone();
        bad[usize::try_from(*at).unwrap()] ^= 0x10;
        fs::write(&output, &bad).unwrap();
        let said = verify(4);
        let block = at / 1024;
        assert!(said.contains(&format!("block {block}")), "{said}");
        assert!(said.contains(kind), "{said}");
    }
    fs::write(&output, &good).unwrap();
    verify(0);
}

#[test]
fn what_e2image_refuses_is_imaged_all_the_same() {
    let scene = Scene::new("inline-long-link");
    let output = scene.path("image.raw");
    image(&["--format", "raw"], [&scene.device, &output], 0);
    assert_eq!(oracle::e2fsck(&scene.device), oracle::e2fsck(&output));
}
