//! Whether a device or the file behind a loop device is mounted read/write.
//!
//! An answer for warnings and refusals, not a lock: the system may mount it a
//! moment later.

use std::fs::{self, Metadata};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use rustix::fs::{major, minor};

/// Whether `path` (whose metadata is given) is mounted read/write right now,
/// itself or through a loop device.
pub(crate) fn is_mounted_rw(path: &Path, metadata: &Metadata) -> bool {
    let Ok(mounts) = fs::read_to_string("/proc/self/mountinfo") else {
        return false;
    };
    let mut devices = loop_devices_of(path);
    if metadata.file_type().is_block_device() {
        let device = metadata.rdev();
        devices.push(format!("{}:{}", major(device), minor(device)));
    }
    devices.iter().any(|device| has_rw_mount(&mounts, device))
}

/// Whether `mountinfo` mounts the device `major:minor` read/write.
fn has_rw_mount(mountinfo: &str, device: &str) -> bool {
    // proc_pid_mountinfo(5): the third field is the device; after the lone
    // "-" come type, source and the superblock's own options.
    mountinfo.lines().any(|line| {
        line.split(' ').nth(2) == Some(device)
            && line
                .split(" - ")
                .nth(1)
                .and_then(|rest| rest.split(' ').nth(2))
                .is_some_and(|options| {
                    options.split(',').any(|option| option == "rw")
                })
    })
}

/// The loop devices whose backing file is `path`, as `major:minor`.
fn loop_devices_of(path: &Path) -> Vec<String> {
    let Ok(path) = fs::canonicalize(path) else {
        return Vec::new();
    };
    let Ok(blocks) = fs::read_dir("/sys/block") else {
        return Vec::new();
    };
    blocks
        .flatten()
        .filter_map(|entry| {
            let folder = entry.path();
            let backing =
                fs::read_to_string(folder.join("loop/backing_file")).ok()?;
            (Path::new(backing.trim_end()) == path)
                .then(|| fs::read_to_string(folder.join("dev")).ok())
                .flatten()
                .map(|device| device.trim_end().to_owned())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::has_rw_mount;

    const MOUNTS: &str = "\
36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=go
37 35 98:1 / /mnt3 ro,noatime - ext4 /dev/b ro
38 35 98:2 / /mnt4 ro shared:2 master:3 - ext4 /dev/c rw,x";

    #[test]
    fn the_superblocks_own_options_decide() {
        assert!(has_rw_mount(MOUNTS, "98:0"));
        assert!(!has_rw_mount(MOUNTS, "98:1"));
        // Mounted read-only here, but writable underneath.
        assert!(has_rw_mount(MOUNTS, "98:2"));
        assert!(!has_rw_mount(MOUNTS, "98:3"));
    }
}
