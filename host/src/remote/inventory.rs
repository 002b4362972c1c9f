//! The devices of a remote machine in the shape of those of this one, and
//! how one of them is picked.

use e2wire_protocol::message::{DeviceFlags, DeviceKind as Kind};

use crate::error::{Error, ErrorKind, Result};
use crate::inventory::{Contents, Device, DeviceKind, Mount};
use crate::local::devices::natural;
use crate::remote::client::DeviceRecord;
use crate::source::DiskIdentity;
use crate::text;
use crate::units::{ByteCount, ByteOffset};

/// How a user names a device.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Selector {
    /// By the kernel's name there, or the path of a file.
    Name(String),
    /// `UUID=` of the filesystem.
    Uuid(String),
    /// `LABEL=` of the filesystem.
    Label(String),
    /// `SERIAL=` of the disk.
    Serial(String),
    /// `WWN=` of the disk.
    Wwn(String),
}

impl Selector {
    /// From what was typed.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let value = |value: &str| value.to_owned();
        match text.split_once('=') {
            Some(("UUID", uuid)) => Self::Uuid(value(uuid)),
            Some(("LABEL", label)) => Self::Label(value(label)),
            Some(("SERIAL", serial)) => Self::Serial(value(serial)),
            Some(("WWN", wwn)) => Self::Wwn(value(wwn)),
            _ => Self::Name(value(text)),
        }
    }

    /// Whether the contents of devices have to be known to decide.
    #[must_use]
    pub const fn needs_contents(&self) -> bool {
        matches!(self, Self::Uuid(_) | Self::Label(_))
    }

    fn matches(&self, device: &Device) -> bool {
        let same = |value: &Option<String>, wanted: &str| {
            value.as_deref() == Some(wanted)
        };
        let mut contents = device.known_contents().iter();
        match self {
            Self::Name(name) => {
                device.path == *name
                    || device.path.strip_prefix("/dev/") == Some(name)
            }
            Self::Uuid(uuid) => contents.any(|content| {
                content
                    .uuid
                    .as_ref()
                    .is_some_and(|this| this.eq_ignore_ascii_case(uuid))
            }),
            Self::Label(label) => {
                contents.any(|content| same(&content.label, label))
            }
            // A disk's identity is its partitions' too; the disk is meant.
            Self::Serial(serial) => {
                device.kind != DeviceKind::Partition
                    && same(&device.disk.serial, serial)
            }
            Self::Wwn(wwn) => {
                device.kind != DeviceKind::Partition
                    && same(&device.disk.wwn, wwn)
            }
        }
    }

    /// The one device that is meant.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NoFilesystem`] when there is none; [`ErrorKind::Refused`]
    /// when there are several, all of which are named.
    pub fn pick<'d>(&self, devices: &'d [Device]) -> Result<&'d Device> {
        let all = devices.iter().flat_map(Device::with_partitions);
        let found: Vec<&Device> =
            all.filter(|device| self.matches(device)).collect();
        match found.as_slice() {
            [one] => Ok(one),
            [] => Err(Error::new(
                ErrorKind::NoFilesystem,
                format!("there is no device {self}"),
            )
            .hint("`e2wire ls` with the same --target lists the devices")),
            several => {
                let names: Vec<String> =
                    several.iter().map(|device| describe(device)).collect();
                Err(Error::new(
                    ErrorKind::Refused,
                    format!("{self} fits several: {}", names.join("; ")),
                )
                .intact("nothing was read or written")
                .hint("name one of them by its path"))
            }
        }
    }
}

impl std::fmt::Display for Selector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Uuid(uuid) => write!(f, "UUID={uuid}"),
            Self::Label(label) => write!(f, "LABEL={label}"),
            Self::Serial(serial) => write!(f, "SERIAL={serial}"),
            Self::Wwn(wwn) => write!(f, "WWN={wwn}"),
        }
    }
}

fn describe(device: &Device) -> String {
    let mut words = vec![device.path.clone(), text::bytes(device.size)];
    words.extend(device.disk.model.clone());
    words.extend(device.disk.serial.clone().map(|s| format!("serial {s}")));
    words.join(", ")
}

/// The path that users give for a device.
#[must_use]
pub fn path(record: &DeviceRecord) -> String {
    if record.name.starts_with('/') {
        record.name.clone()
    } else {
        format!("/dev/{}", record.name)
    }
}

/// The devices by name, partitions below their disks. An agent lists them as
/// they come. What lies on them is not known yet.
#[must_use]
pub fn devices(records: &[DeviceRecord]) -> Vec<Device> {
    let mut devices: Vec<Device> = Vec::new();
    let names: Vec<&str> =
        records.iter().map(|record| record.name.as_str()).collect();
    let mut records: Vec<&DeviceRecord> = records.iter().collect();
    records.sort_by_key(|record| natural(&record.name));
    for &record in &records {
        let of_listed = record.kind == Kind::Partition
            && names.contains(&record.parent.as_str());
        if !of_listed {
            let mut device = one(record);
            device.partitions = records
                .iter()
                .filter(|part| {
                    part.kind == Kind::Partition && part.parent == record.name
                })
                .map(|part| one(part))
                .collect();
            devices.push(device);
        }
    }
    devices
}

fn one(record: &DeviceRecord) -> Device {
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let kind = match record.kind {
        Kind::Disk | Kind::Other => DeviceKind::Disk,
        Kind::Partition => DeviceKind::Partition,
        Kind::Mapper => DeviceKind::Mapped,
        Kind::Md => DeviceKind::Raid,
        Kind::Loop => DeviceKind::Loop,
        Kind::File => DeviceKind::File,
    };
    let mounted = record.flags.has(DeviceFlags::MOUNTED_READ_WRITE);
    Device {
        start: (record.kind == Kind::Partition)
            .then_some(ByteOffset(record.partition_start)),
        logical_sector_bytes: record.logical_sector,
        physical_sector_bytes: record.physical_sector,
        read_only: record.flags.has(DeviceFlags::READ_ONLY),
        removable: record.flags.has(DeviceFlags::REMOVABLE),
        disk: DiskIdentity {
            model: text(&record.model),
            serial: text(&record.serial),
            wwn: text(&record.wwn),
        },
        holders: record.holders.split_whitespace().map(str::to_owned).collect(),
        mounts: mounted
            .then(|| Mount { at: "?".to_owned(), read_only: false })
            .into_iter()
            .collect(),
        contents: Contents::Unknown,
        ..Device::new(path(record), kind, ByteCount(record.size))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::Content;

    fn device(path: &str, serial: &str, uuid: &str) -> Device {
        let content =
            Content { uuid: Some(uuid.to_owned()), ..Content::default() };
        Device {
            disk: DiskIdentity {
                serial: Some(serial.to_owned()),
                ..DiskIdentity::default()
            },
            contents: Contents::Known(vec![content]),
            ..Device::new(path, DeviceKind::Disk, ByteCount(1 << 30))
        }
    }

    #[test]
    fn a_clone_is_ambiguous_and_both_are_named() {
        let devices = [
            device("/dev/sda", "A1", "aaaa-1"),
            device("/dev/sdb", "B2", "aaaa-1"),
            device("/dev/sdc", "C3", "cccc-3"),
        ];
        let pick = |text: &str| Selector::parse(text).pick(&devices);
        let error = pick("UUID=AAAA-1").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused);
        for name in ["/dev/sda", "/dev/sdb", "B2"] {
            assert!(error.to_string().contains(name), "{error}");
        }
        assert_eq!(pick("UUID=cccc-3").unwrap().path, "/dev/sdc");
        assert_eq!(pick("SERIAL=B2").unwrap().path, "/dev/sdb");
        assert_eq!(pick("sda").unwrap().path, "/dev/sda");
        let none = pick("LABEL=srv").unwrap_err();
        assert_eq!(none.kind(), ErrorKind::NoFilesystem);
    }
}
