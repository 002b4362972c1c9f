//! What stands in the way of writing to a device of this machine, and which
//! device it is.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use rustix::fs::{major, minor};

use crate::error::{Error, Result};
use crate::inventory::Device;
use crate::local::devices::SystemPaths;
use crate::source::DiskIdentity;

/// A device as one that is to be written to.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Usage {
    /// What uses it now, in words; empty when nothing does.
    pub used_by: Vec<String>,
    /// Its identity: the same tomorrow, and another one for another device.
    pub id: Vec<u8>,
    /// The disk, as far as the system tells.
    pub disk: DiskIdentity,
}

/// Looks at the device or file `path`.
///
/// # Errors
///
/// When the system does not tell: then nobody can say that it is free.
pub fn usage(path: &Path, system: &SystemPaths) -> Result<Usage> {
    let failed =
        |error| Error::io(format!("cannot look at {}", path.display()), error);
    let metadata = fs::metadata(path).map_err(failed)?;
    let devices = system.devices()?;
    if !metadata.file_type().is_block_device() {
        let real = fs::canonicalize(path).map_err(failed)?;
        let file = format!("file {} {}", metadata.dev(), metadata.ino());
        return Ok(Usage {
            used_by: attached(&devices, &real),
            id: file.into_bytes(),
            disk: DiskIdentity::default(),
        });
    }
    let number = (major(metadata.rdev()), minor(metadata.rdev()));
    let mut usage = of_number(&devices, number);
    // A loop device does not keep others from what it is made of.
    let real = fs::canonicalize(path).map_err(failed)?;
    usage.used_by.extend(attached(&devices, &real));
    Ok(usage)
}

/// What uses the file or device `real` through a loop device.
fn attached(devices: &[Device], real: &Path) -> Vec<String> {
    devices
        .iter()
        .filter(|device| {
            device.alias.as_deref().is_some_and(|file| real == Path::new(file))
        })
        .map(|device| format!("attached as {}", device.path))
        .collect()
}

fn of_number(devices: &[Device], number: (u32, u32)) -> Usage {
    for disk in devices {
        if disk.number == Some(number) {
            let all = disk.with_partitions();
            let used_by = all.flat_map(used_by).collect();
            return Usage {
                used_by,
                id: id(disk, disk),
                disk: disk.disk.clone(),
            };
        }
        let part = disk.partitions.iter().find(|p| p.number == Some(number));
        if let Some(part) = part {
            // What is built on the whole disk covers its parts.
            let mut used_by = used_by(part);
            used_by.extend(self::used_by(disk));
            return Usage {
                used_by,
                id: id(disk, part),
                disk: disk.disk.clone(),
            };
        }
    }
    Usage {
        used_by: vec!["not listed by the system".to_owned()],
        ..Usage::default()
    }
}

fn used_by(device: &Device) -> Vec<String> {
    let path = &device.path;
    let mut used: Vec<String> = device
        .mounts
        .iter()
        .map(|mount| format!("{path} is mounted at {}", mount.at))
        .collect();
    if device.swap_active {
        used.push(format!("{path} is swap space"));
    }
    let holders = device.holders.iter();
    used.extend(holders.map(|by| format!("{path} is a part of {by}")));
    if device.read_only {
        used.push(format!("{path} is read-only"));
    }
    used
}

/// WWN or serial number, or else the name; size, and where it starts.
fn id(disk: &Device, device: &Device) -> Vec<u8> {
    let identity = &disk.disk;
    let who = identity
        .wwn
        .as_ref()
        .or(identity.serial.as_ref())
        .or(disk.alias.as_ref())
        .unwrap_or(&disk.path);
    let start = device.start.map_or(0, |start| start.0);
    format!("disk {who} {} {start}", device.size).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::{DeviceKind, Mount};
    use crate::units::{ByteCount, ByteOffset};

    fn machine() -> Vec<Device> {
        let device = |path: &str, kind, number| Device {
            number: Some((8, number)),
            ..Device::new(path, kind, ByteCount(1 << 30))
        };
        let mut disk = device("/dev/sda", DeviceKind::Disk, 0);
        disk.disk.serial = Some("WD-1".to_owned());
        let mut mounted = device("/dev/sda1", DeviceKind::Partition, 1);
        mounted.mounts = vec![Mount { at: "/srv".to_owned(), read_only: true }];
        let mut swap = device("/dev/sda2", DeviceKind::Partition, 2);
        swap.swap_active = true;
        let mut held = device("/dev/sda3", DeviceKind::Partition, 3);
        held.holders = vec!["/dev/mapper/vg-lv".to_owned()];
        let mut free = device("/dev/sda4", DeviceKind::Partition, 4);
        free.start = Some(ByteOffset(1 << 20));
        disk.partitions = vec![mounted, swap, held, free];
        let mut file = device("/dev/loop0", DeviceKind::Loop, 9);
        file.alias = Some("/tmp/disk".to_owned());
        vec![disk, file]
    }

    #[test]
    fn each_use_is_named_and_a_disk_has_those_of_its_parts() {
        let cases = [
            (1, "/dev/sda1 is mounted at /srv"),
            (2, "/dev/sda2 is swap space"),
            (3, "/dev/sda3 is a part of /dev/mapper/vg-lv"),
            (77, "not listed by the system"),
        ];
        for (number, words) in cases {
            let used = of_number(&machine(), (8, number)).used_by;
            assert_eq!(used, [words], "8:{number}");
        }
        assert_eq!(of_number(&machine(), (8, 0)).used_by.len(), 3);
        assert!(of_number(&machine(), (8, 4)).used_by.is_empty());
        let used = attached(&machine(), Path::new("/tmp/disk"));
        assert_eq!(used, ["attached as /dev/loop0"]);
    }

    #[test]
    fn every_device_has_an_identity_of_its_own() {
        let devices = machine();
        let ids: std::collections::BTreeSet<Vec<u8>> =
            [0, 4, 9].map(|n| of_number(&devices, (8, n)).id).into();
        assert_eq!(ids.len(), 3);
    }
}
