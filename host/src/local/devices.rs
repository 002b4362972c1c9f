//! The block devices of this machine, as sysfs and procfs tell. Nothing is
//! opened here.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::inventory::{Device, DeviceKind, Mount};
use crate::source::DiskIdentity;
use crate::text;
use crate::units::{ByteCount, ByteOffset};

/// sysfs counts in these, whatever the device's own sector.
const SYSFS_SECTOR_BYTES: u64 = 512;

/// Where the system tells of its devices; another place in tests.
#[derive(Clone, Debug)]
pub struct SystemPaths {
    /// `/sys`
    pub sys: PathBuf,
    /// `/proc`
    pub proc: PathBuf,
}

impl Default for SystemPaths {
    fn default() -> Self {
        Self { sys: "/sys".into(), proc: "/proc".into() }
    }
}

impl SystemPaths {
    /// Every block device that holds anything, in the order of names, with
    /// its partitions. What lies on them is not looked at.
    ///
    /// # Errors
    ///
    /// When sysfs cannot be read.
    pub fn devices(&self) -> Result<Vec<Device>> {
        let blocks = self.sys.join("block");
        let used = InUse {
            mounts: self.read_proc("self/mountinfo"),
            swaps: self.read_proc("swaps"),
        };
        let mut names = names_in(&blocks).map_err(|error| {
            Error::io(format!("cannot list {}", blocks.display()), error)
                .hint("is sysfs mounted? name the devices: e2wire ls DEVICE...")
        })?;
        names.sort_by_key(|name| natural(name));
        Ok(names
            .iter()
            .filter_map(|name| disk(&blocks.join(name), name, &used))
            .collect())
    }

    fn read_proc(&self, name: &str) -> String {
        // Without it, nothing is known to be in use.
        fs::read(self.proc.join(name))
            .map(|bytes| text::from_bytes(&bytes))
            .unwrap_or_default()
    }
}

struct InUse {
    mounts: String,
    swaps: String,
}

fn names_in(folder: &Path) -> std::io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        names.extend(entry?.file_name().into_string().ok());
    }
    Ok(names)
}

/// A sort key by which `sda10` comes behind `sda9`.
pub(crate) fn natural(name: &str) -> (String, u64) {
    let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
    let number = name.get(stem.len()..).and_then(|n| n.parse().ok());
    (stem.to_owned(), number.unwrap_or(0))
}

/// The first line of an attribute, if it says anything.
fn attribute(folder: &Path, name: &str) -> Option<String> {
    let bytes = fs::read(folder.join(name)).ok()?;
    let text = text::from_bytes(&bytes);
    let line = text.lines().next()?.trim();
    (!line.is_empty()).then(|| line.to_owned())
}

fn number(folder: &Path, name: &str) -> Option<u64> {
    attribute(folder, name)?.parse().ok()
}

fn size(folder: &Path) -> Option<ByteCount> {
    number(folder, "size")?.checked_mul(SYSFS_SECTOR_BYTES).map(ByteCount)
}

/// The device in `folder`; none when there is no medium in it, or when it is
/// a hidden path of another one.
fn disk(folder: &Path, name: &str, used: &InUse) -> Option<Device> {
    let size = size(folder).filter(|size| size.0 > 0)?;
    if number(folder, "hidden") == Some(1) {
        return None;
    }
    let (kind, alias) = kind(folder, name);
    let path = match (&kind, &alias) {
        (DeviceKind::Mapped, Some(alias)) => format!("/dev/mapper/{alias}"),
        _ => device_path(name),
    };
    let sector = |name, fallback| {
        number(folder, name)
            .and_then(|bytes| u32::try_from(bytes).ok())
            .unwrap_or(fallback)
    };
    let logical = sector("queue/logical_block_size", 512);
    let mut device = Device {
        alias,
        logical_sector_bytes: logical,
        physical_sector_bytes: sector("queue/physical_block_size", logical),
        removable: number(folder, "removable") == Some(1),
        disk: identity(folder),
        ..Device::new(path, kind, size)
    };
    look_around(&mut device, folder, name, used);
    let mut parts: Vec<(u64, Device)> = names_in(folder)
        .unwrap_or_default()
        .iter()
        .filter_map(|part| partition(&folder.join(part), part, &device, used))
        .collect();
    parts.sort_by_key(|(number, _)| *number);
    device.partitions = parts.into_iter().map(|(_, part)| part).collect();
    Some(device)
}

fn partition(
    folder: &Path,
    name: &str,
    disk: &Device,
    used: &InUse,
) -> Option<(u64, Device)> {
    let place = number(folder, "partition")?;
    let start = number(folder, "start")?.checked_mul(SYSFS_SECTOR_BYTES)?;
    let mut device = Device {
        start: Some(ByteOffset(start)),
        logical_sector_bytes: disk.logical_sector_bytes,
        physical_sector_bytes: disk.physical_sector_bytes,
        removable: disk.removable,
        ..Device::new(device_path(name), DeviceKind::Partition, size(folder)?)
    };
    look_around(&mut device, folder, name, used);
    Some((place, device))
}

/// What is the same for disks and partitions.
fn look_around(device: &mut Device, folder: &Path, name: &str, used: &InUse) {
    device.read_only = number(folder, "ro") == Some(1);
    device.number = attribute(folder, "dev").and_then(|dev| {
        let (major, minor) = dev.split_once(':')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    });
    device.holders = names_in(&folder.join("holders"))
        .unwrap_or_default()
        .iter()
        .map(|holder| {
            let folder = folder.join("holders").join(holder);
            attribute(&folder, "dm/name").map_or_else(
                || device_path(holder),
                |name| format!("/dev/mapper/{name}"),
            )
        })
        .collect();
    device.holders.sort();
    let plain = device_path(name);
    let names = [plain.as_str(), device.path.as_str()];
    device.swap_active = used
        .swaps
        .lines()
        .filter_map(|line| line.split_ascii_whitespace().next())
        .any(|swap| names.contains(&swap));
    device.mounts = mounts(&used.mounts, device.number, &names);
}

/// `/dev/NAME`; sysfs writes `!` where the name has a slash.
fn device_path(name: &str) -> String {
    format!("/dev/{}", name.replace('!', "/"))
}

fn kind(folder: &Path, name: &str) -> (DeviceKind, Option<String>) {
    if let Some(name) = attribute(folder, "dm/name") {
        return (DeviceKind::Mapped, Some(name));
    }
    if folder.join("md").is_dir() {
        return (DeviceKind::Raid, attribute(folder, "md/level"));
    }
    if let Some(file) = attribute(folder, "loop/backing_file") {
        return (DeviceKind::Loop, Some(file));
    }
    let ram = ["ram", "zram"].iter().any(|stem| {
        name.strip_prefix(stem).is_some_and(|rest| rest.parse::<u32>().is_ok())
    });
    (if ram { DeviceKind::Ram } else { DeviceKind::Disk }, None)
}

/// SCSI and ATA keep it in `device`, NVMe and virtio beside it too; page 0x80
/// is where a SCSI disk tells its serial number.
fn identity(folder: &Path) -> DiskIdentity {
    let first =
        |names: &[&str]| names.iter().find_map(|name| attribute(folder, name));
    let page_80 = || {
        let page = fs::read(folder.join("device/vpd_pg80")).ok()?;
        let serial = text::from_bytes(page.get(4..)?.trim_ascii());
        (!serial.is_empty()).then_some(serial)
    };
    DiskIdentity {
        model: first(&["device/model", "device/name"]),
        serial: first(&["device/serial", "serial"]).or_else(page_80),
        wwn: first(&["wwid", "device/wwid"]),
    }
}

/// Where a device is mounted: by its number, or (Btrfs mounts have numbers of
/// their own) by its name.
fn mounts(
    mountinfo: &str,
    number: Option<(u32, u32)>,
    names: &[&str],
) -> Vec<Mount> {
    let number = number.map(|(major, minor)| format!("{major}:{minor}"));
    // proc_pid_mountinfo(5): number is the third field, directory the fifth,
    // options the sixth; after the lone "-" come type, source and the
    // superblock's options.
    mountinfo
        .lines()
        .filter_map(|line| {
            let (own, shared) = line.split_once(" - ")?;
            let own: Vec<&str> = own.split(' ').collect();
            let shared: Vec<&str> = shared.split(' ').collect();
            let this = own.get(2).copied() == number.as_deref()
                || names.contains(shared.get(1)?);
            let read_only =
                |options: &str| options.split(',').any(|option| option == "ro");
            this.then(|| {
                Some(Mount {
                    at: unescape(own.get(4)?),
                    read_only: read_only(shared.get(2)?),
                })
            })?
        })
        .collect()
}

/// procfs writes blanks in names as three octal digits.
fn unescape(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, behind)) = rest.split_first() {
        let code = behind.get(..3).and_then(|digits| {
            let digits = std::str::from_utf8(digits).ok()?;
            u8::from_str_radix(digits, 8).ok()
        });
        match (byte, code) {
            (b'\\', Some(code)) => {
                out.push(code);
                rest = &behind[3..];
            }
            _ => {
                out.push(byte);
                rest = behind;
            }
        }
    }
    text::from_bytes(&out)
}

#[cfg(test)]
mod tests;
