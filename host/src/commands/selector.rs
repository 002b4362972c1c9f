//! Devices by what does not change from boot to boot: `UUID=`, `LABEL=`,
//! `SERIAL=`, `WWN=`.
//!
//! Names like `/dev/sda` go to whichever disk answers first; a rescue system
//! often gives them out in another order than the one that broke.

use std::path::{Path, PathBuf};

use crate::commands::ls::{LsRequest, ls};
use crate::commands::reach::Reach;
use crate::error::{Error, ErrorKind, Result};
use crate::inventory::{Contents, Device};
use crate::observer::Silent;
use crate::stop::Stop;
use crate::text;

/// What a device is chosen by.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Property {
    Uuid,
    Label,
    Serial,
    Wwn,
}

const PROPERTIES: [(&str, Property); 4] = [
    ("UUID=", Property::Uuid),
    ("LABEL=", Property::Label),
    ("SERIAL=", Property::Serial),
    ("WWN=", Property::Wwn),
];

/// The device that `name` stands for: a path as it is, a selector as the one
/// device of this machine that has the property.
///
/// # Errors
///
/// [`ErrorKind::NoFilesystem`] when no device has it, or more than one.
pub fn resolve(name: &Path, stop: &Stop) -> Result<PathBuf> {
    let Some((property, value)) = parse(name) else {
        return Ok(name.to_owned());
    };
    let here = Reach::default();
    let devices = ls(&LsRequest::default(), &here, &Silent, stop)?;
    choose(name, property, value, &devices)
}

fn parse(name: &Path) -> Option<(Property, &str)> {
    let text = name.to_str()?;
    PROPERTIES.into_iter().find_map(|(prefix, property)| {
        Some((property, text.strip_prefix(prefix)?))
    })
}

fn choose(
    name: &Path,
    property: Property,
    value: &str,
    devices: &[Device],
) -> Result<PathBuf> {
    let all = || devices.iter().flat_map(Device::with_partitions);
    let found: Vec<&Device> =
        all().filter(|device| has(device, property, value)).collect();
    let name = name.display();
    match found.as_slice() {
        [device] => Ok(PathBuf::from(&device.path)),
        [] => {
            let unreadable = all()
                .filter(|device| {
                    matches!(device.contents, Contents::Unreadable(_))
                })
                .count();
            let unreadable = u64::try_from(unreadable).unwrap_or(u64::MAX);
            let mut what = format!("no device has {name}");
            if unreadable > 0 {
                let devices = text::count(unreadable, "device");
                what.push_str(&format!(" ({devices} could not be read)"));
            }
            Err(Error::new(ErrorKind::NoFilesystem, what)
                .hint("`e2wire ls` lists what there is"))
        }
        several => {
            let list: Vec<String> =
                several.iter().map(|device| describe(device)).collect();
            Err(Error::new(
                ErrorKind::NoFilesystem,
                format!("{name} is ambiguous: {}", list.join("; ")),
            )
            .intact("nothing was read or written")
            .hint("give the path of the one that you mean"))
        }
    }
}

fn has(device: &Device, property: Property, value: &str) -> bool {
    // Identities are hexadecimal, and people type them as they like.
    let same = |own: &String| own.eq_ignore_ascii_case(value);
    match property {
        Property::Uuid => device
            .known_contents()
            .iter()
            .any(|content| content.uuid.as_ref().is_some_and(same)),
        Property::Label => device
            .known_contents()
            .iter()
            .any(|content| content.label.as_deref() == Some(value)),
        Property::Serial => device.disk.serial.as_deref() == Some(value),
        Property::Wwn => device.disk.wwn.as_ref().is_some_and(|wwn| {
            // sysfs writes the kind before it: naa.5000..., eui.0025...
            let bare = wwn.split_once('.').map_or("", |(_, bare)| bare);
            same(wwn) || bare.eq_ignore_ascii_case(value)
        }),
    }
}

/// What tells one candidate from another.
fn describe(device: &Device) -> String {
    let mut facts = vec![text::bytes(device.size)];
    facts.extend(device.alias.clone());
    if let Some(serial) = &device.disk.serial {
        facts.push(format!("serial {serial}"));
    }
    for mount in &device.mounts {
        facts.push(format!("mounted at {}", mount.at));
    }
    if !device.holders.is_empty() {
        facts.push(format!("used by {}", device.holders.join(" ")));
    }
    format!("{} ({})", device.path, facts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::{Content, DeviceKind};
    use crate::units::ByteCount;

    fn machine() -> Vec<Device> {
        let part = |path: &str, label: &str, uuid: &str| Device {
            contents: Contents::Known(vec![Content {
                label: Some(label.to_owned()),
                uuid: Some(uuid.to_owned()),
                ..Content::default()
            }]),
            ..Device::new(path, DeviceKind::Partition, ByteCount(1 << 30))
        };
        let mut sda =
            Device::new("/dev/sda", DeviceKind::Disk, ByteCount(1 << 40));
        sda.disk.serial = Some("WD-1".to_owned());
        sda.disk.wwn = Some("naa.50014ee2".to_owned());
        sda.partitions = vec![
            part("/dev/sda1", "mail", "aaaa-01"),
            part("/dev/sda2", "twin", "aaaa-02"),
        ];
        let mut sdb = sda.clone();
        sdb.path = "/dev/sdb".to_owned();
        sdb.disk.serial = Some("WD-2".to_owned());
        sdb.disk.wwn = None;
        sdb.contents = Contents::Unreadable("locked".to_owned());
        sdb.partitions = vec![part("/dev/sdb1", "twin", "aaaa-02")];
        vec![sda, sdb]
    }

    fn chosen(name: &str) -> Result<PathBuf> {
        let path = Path::new(name);
        let (property, value) = parse(path).expect(name);
        choose(path, property, value, &machine())
    }

    #[test]
    fn a_property_that_one_device_has_stands_for_it() {
        let cases = [
            ("UUID=AAAA-01", "/dev/sda1"),
            ("LABEL=mail", "/dev/sda1"),
            ("SERIAL=WD-2", "/dev/sdb"),
            ("WWN=naa.50014ee2", "/dev/sda"),
            ("WWN=50014EE2", "/dev/sda"),
        ];
        for (name, path) in cases {
            assert_eq!(chosen(name).unwrap(), Path::new(path), "{name}");
        }
    }

    #[test]
    fn twins_are_listed_and_none_is_chosen() {
        let error = chosen("UUID=aaaa-02").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NoFilesystem);
        let text = error.to_string();
        assert!(text.contains("/dev/sda2") && text.contains("/dev/sdb1"));
    }

    #[test]
    fn nothing_is_guessed() {
        for name in ["UUID=", "LABEL=MAIL", "SERIAL=WD", "WWN=", "UUID=aaaa"] {
            let error = chosen(name).unwrap_err();
            assert!(error.to_string().contains("could not be read"), "{name}");
        }
    }

    #[test]
    fn a_path_is_a_path() {
        for name in ["/dev/sda", "./LABEL=x", "uuid=1", "disk.img", ""] {
            assert_eq!(parse(Path::new(name)), None, "{name}");
        }
    }
}
