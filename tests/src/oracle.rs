//! The old tools, asked for the right answer.
//!
//! Each function runs one of them, asserts that it did what it should, and
//! gives back what it said. A test that uses them therefore cannot pass
//! because a tool quietly did nothing.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::tools;

/// What e2image is asked to do.
#[derive(Clone, Copy, Debug, Default)]
pub struct E2image<'a> {
    /// Options, such as `-ra` or `-b`.
    pub options: &'a [&'a str],
    /// The filesystem starts at this byte of the device.
    pub offset: u64,
}

impl E2image<'_> {
    /// Runs e2image from `device` to `output` and says how it went.
    #[must_use]
    pub fn run(&self, device: &Path, output: &Path) -> Output {
        run(self.command(device).arg(output))
    }

    fn command(&self, device: &Path) -> Command {
        let mut command = tools::command("e2image");
        command.args(self.options);
        if self.offset > 0 {
            command.args(["-o", &self.offset.to_string()]);
        }
        command.arg(device);
        command
    }

    /// Makes an image; e2image has to succeed and to leave one.
    ///
    /// # Panics
    ///
    /// When it does not.
    pub fn image(&self, device: &Path, output: &Path) {
        let result = self.run(device, output);
        assert_success("e2image", &result);
        let length = std::fs::metadata(output).map_or(0, |file| file.len());
        assert!(length > 0, "e2image left nothing: {}", text(&result));
    }
}

/// The blocks that e2image writes into a raw image, ascending; with `all`
/// those of file contents too.
///
/// # Errors
///
/// What e2image said when it refused the filesystem.
///
/// # Panics
///
/// When it succeeds but lists nothing.
pub fn block_list(
    device: &Path,
    offset: u64,
    options: &[&str],
) -> Result<Vec<u64>, String> {
    let options = [&["-rn"], options].concat();
    let asked = E2image { options: &options, offset };
    let result = run(asked.command(device).arg("-"));
    if !result.status.success() {
        return Err(text(&result));
    }
    // Between the lines lies the image itself: zeros up to the next block.
    let blocks: Vec<u64> = result
        .stdout
        .split(|byte| *byte == b'\n')
        .filter_map(|line| {
            let start = line.iter().position(|byte| *byte != 0)?;
            let line = std::str::from_utf8(&line[start..]).ok()?;
            line.strip_prefix("Writing block ")?.parse().ok()
        })
        // The length of the output is written as one byte at its end.
        .filter(|block| *block != u64::MAX)
        .collect();
    assert!(!blocks.is_empty(), "e2image lists no block of {device:?}");
    assert!(blocks.is_sorted(), "e2image lists blocks out of order");
    Ok(blocks)
}

/// What e2fsck thinks of a filesystem.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Verdict {
    /// Its exit status.
    pub status: i32,
    /// All that it said, without the name of the file.
    pub messages: String,
}

/// Asks e2fsck without letting it write.
///
/// # Panics
///
/// When it was killed.
#[must_use]
pub fn e2fsck(device: &Path) -> Verdict {
    let output = run(tools::command("e2fsck").arg("-fn").arg(device));
    let status = output.status.code();
    let messages = text(&output).replace(&*device.to_string_lossy(), "DEVICE");
    let status = status.unwrap_or_else(|| panic!("e2fsck died: {messages}"));
    Verdict { status, messages }
}

/// Whether `qemu-img check` finds neither an error nor a leak; else what it
/// says.
///
/// # Errors
///
/// Its report.
pub fn qemu_check(image: &Path) -> Result<(), String> {
    let output = run(tools::command("qemu-img")
        .args(["check", "-f", "qcow2"])
        .arg(image));
    if output.status.success() { Ok(()) } else { Err(text(&output)) }
}

/// Turns a qcow2 image into a raw one by qemu-img.
///
/// # Panics
///
/// When qemu-img refuses the image.
pub fn qemu_to_raw(image: &Path, raw: &Path) {
    let output = run(tools::command("qemu-img")
        .args(["convert", "-f", "qcow2", "-O", "raw"])
        .arg(image)
        .arg(raw));
    assert_success("qemu-img convert", &output);
}

/// What debugfs answers to one request about a device or, with `-i`, about a
/// normal image.
///
/// # Panics
///
/// When it cannot open it.
#[must_use]
pub fn debugfs(options: &[&str], request: &str, device: &Path) -> String {
    let output = run(tools::command("debugfs")
        .args(options)
        .args(["-R", request])
        .arg(device));
    assert_success("debugfs", &output);
    // It succeeds whatever happens; complaints stand behind its version.
    let complaints = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(complaints.lines().count(), 1, "debugfs: {complaints}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What dumpe2fs says of a device or, with `-i`, of a normal image.
///
/// # Panics
///
/// When it cannot open it.
#[must_use]
pub fn dumpe2fs(options: &[&str], device: &Path) -> String {
    let output = run(tools::command("dumpe2fs").args(options).arg(device));
    assert_success("dumpe2fs", &output);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs `command` without input.
///
/// # Panics
///
/// When it cannot be started.
pub fn run(command: &mut Command) -> Output {
    command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"))
}

/// All that a program said.
#[must_use]
pub fn text(output: &Output) -> String {
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    text
}

/// Fails when a program did.
///
/// # Panics
///
/// Then, with all that it said.
pub fn assert_success(program: &str, output: &Output) {
    let status = output.status;
    assert!(status.success(), "{program}: {status}\n{}", text(output));
}
