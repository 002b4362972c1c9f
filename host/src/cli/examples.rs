//! The examples and the exit codes that help and manual show. The tests run
//! every example.

use std::fmt::Write as _;

use crate::cli::exit::ExitCode;

/// One command that a reader can type.
pub(super) struct Example {
    /// The verb that it belongs to.
    pub(super) verb: &'static str,
    /// What it does.
    pub(super) what: &'static str,
    /// What to type.
    pub(super) line: &'static str,
}

const fn example(
    verb: &'static str,
    what: &'static str,
    line: &'static str,
) -> Example {
    Example { verb, what, line }
}

/// Every example, in the order in which they are shown.
pub(super) const EXAMPLES: &[Example] = &[
    example(
        "ls",
        "See which disks there are and what lies on them",
        "e2wire ls",
    ),
    example(
        "ls",
        "For a script: the names of all devices",
        "e2wire --json ls | jq -r 'select(.type == \"device\").path'",
    ),
    example(
        "probe",
        "Who is at the other end of the serial line",
        "e2wire -t serial:/dev/ttyUSB0 probe",
    ),
    example(
        "console",
        "See what the machine says, and talk to its boot loader",
        "e2wire -t serial:/dev/ttyUSB0 console",
    ),
    example(
        "console",
        "For a script: all that the machine says within ten minutes",
        "e2wire -t serial:/dev/ttyUSB0 --deadline 10m console > boot.log",
    ),
    example(
        "reboot",
        "Leave the rescue: start the machine's own system again",
        "e2wire -t serial:/dev/ttyUSB0 reboot",
    ),
    example(
        "plan",
        "A device by what does not change when disks change their names",
        "e2wire plan UUID=0a1b2c3d-0001-0002-0003-0123456789ab",
    ),
    example(
        "plan",
        "Is it worth it? How much, how long, what is damaged",
        "e2wire plan /dev/sda3",
    ),
    example(
        "image",
        "Save the metadata of a partition for QEMU, qemu-nbd or debugfs",
        "e2wire image /dev/sda3 sda3.qcow2",
    ),
    example(
        "image",
        "A sparse raw file, with the contents of files",
        "e2wire image --data /dev/sda3 sda3.img",
    ),
    example(
        "image",
        "Through a pipe, compressed",
        "e2wire image --format raw /dev/sda3 - | zstd > sda3.raw.zst",
    ),
    example(
        "image",
        "The first superblock is lost: use the copy in group 1",
        "e2wire image -b 32768 -B 4096 /dev/sda3 sda3.qcow2",
    ),
    example(
        "verify",
        "Check an image against its manifest",
        "e2wire verify sda3.qcow2",
    ),
    example(
        "verify",
        "See whether the device still holds the same",
        "e2wire verify sda3.qcow2 --against /dev/sda3",
    ),
    example(
        "diff",
        "See what e2fsck changed in a copy, and in which files",
        "e2wire diff sda3.qcow2 copy.raw",
    ),
    example(
        "diff",
        "See what changed on the disk since the image was made",
        "e2wire diff sda3.qcow2 /dev/sda3",
    ),
    example(
        "convert",
        "A normal image, for debugfs -i",
        "e2wire convert sda3.qcow2 sda3.e2i",
    ),
    example(
        "install",
        "See what would be written back, and the token that confirms it",
        "e2wire install sda3.qcow2 /dev/sda3",
    ),
    example(
        "install",
        "Only the group descriptors and bitmaps",
        "e2wire install --only descriptors,block-bitmap sda3.qcow2 /dev/sda3",
    ),
    example(
        "install",
        "Only one file's inode, map and attributes",
        "e2wire install --inodes /lost+found sda3.qcow2 /dev/sda3",
    ),
    example(
        "undo",
        "See what an undo file holds",
        "e2wire undo --list sda3.qcow2.k7w2m9xq4e.undo",
    ),
    example("completions", "For bash", "e2wire completions bash > e2wire.bash"),
    example(
        "man",
        "Read the page about one command",
        "e2wire man image | man -l -",
    ),
    example(
        "man",
        "Install all pages",
        "e2wire man --into /usr/local/share/man/man1",
    ),
];

/// The examples of one verb, as a section of its help.
pub(super) fn of(verb: &str) -> String {
    section(|example| example.verb == verb)
}

/// A few examples and the exit codes: the end of `e2wire --help`.
pub(super) fn overview() -> String {
    let mut first = None;
    let mut text = section(|example| {
        let new = first != Some(example.verb);
        first = Some(example.verb);
        new && !matches!(example.verb, "completions" | "man")
    });
    text.push_str("\n\nExit status:");
    for code in ExitCode::ALL {
        // Writing to a string cannot fail.
        let _ = write!(text, "\n  {:>2}  {}", code.number(), code.meaning());
    }
    text
}

fn section(mut wanted: impl FnMut(&Example) -> bool) -> String {
    let mut text = "Examples:".to_owned();
    for example in EXAMPLES.iter().filter(|example| wanted(example)) {
        // Writing to a string cannot fail.
        let _ = write!(text, "\n  {}:\n    {}", example.what, example.line);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_example_is_folded_on_a_usual_terminal() {
        for example in EXAMPLES {
            assert!(example.line.len() <= 75, "{}", example.line);
            assert!(example.what.len() <= 76, "{}", example.what);
        }
    }
}
