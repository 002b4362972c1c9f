//! `ls`: which devices there are, and what lies on them.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use crate::commands::reach::{Reach, connect, devices};
use crate::error::{Error, ErrorKind, Result};
use crate::identify::{Window, identify};
use crate::inventory::{Contents, Device, DeviceKind};
use crate::local::LocalSource;
use crate::local::devices::SystemPaths;
use crate::observer::Observer;
use crate::remote::inventory::Selector;
use crate::remote::target::Target;
use crate::source::{BlockSource as _, SourceKind};
use crate::stop::Stop;
use crate::units::ByteOffset;

/// A disk that has not answered in this time is listed without its contents:
/// one that hangs must not hide the others.
const PATIENCE: Duration = Duration::from_secs(20);

/// How often the wish to stop is looked at meanwhile.
const GLANCE: Duration = Duration::from_millis(100);

/// Lists devices.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct LsRequest {
    /// Only these devices or files; all devices when empty.
    pub devices: Vec<PathBuf>,
}

/// The devices that were asked for, with their contents.
///
/// # Errors
///
/// When a device that was named does not exist or cannot be opened, or when
/// the devices of the system cannot be listed. A device that was not named
/// and cannot be read is listed as such.
pub fn ls(
    request: &LsRequest,
    reach: &Reach,
    observer: &dyn Observer,
    stop: &Stop,
) -> Result<Vec<Device>> {
    if reach.target != Target::Local {
        return there(request, reach, observer, stop);
    }
    let mut devices = if request.devices.is_empty() {
        SystemPaths::default().devices()?
    } else {
        named(&request.devices)?
    };
    let mut waiting = Vec::new();
    for device in &mut devices {
        waiting.extend(ask(&device.path, &mut device.contents)?);
        for part in &mut device.partitions {
            waiting.extend(ask(&part.path, &mut part.contents)?);
        }
    }
    let deadline = Instant::now() + PATIENCE;
    for (contents, told) in waiting {
        *contents = answer(&told, deadline, stop)?;
    }
    Ok(devices)
}

/// The same over a line.
fn there(
    request: &LsRequest,
    reach: &Reach,
    observer: &dyn Observer,
    stop: &Stop,
) -> Result<Vec<Device>> {
    let session = connect(reach, observer, stop)?;
    let (devices, _) = devices(&session, true)?;
    if request.devices.is_empty() {
        return Ok(devices);
    }
    let named = request.devices.iter().map(|device| {
        Selector::parse(&device.to_string_lossy()).pick(&devices).cloned()
    });
    named.collect()
}

/// Lets a thread of its own look at a device, unless that was done already:
/// nothing else ends a read from a disk that hangs.
fn ask<'a>(
    path: &str,
    contents: &'a mut Contents,
) -> Result<Option<(&'a mut Contents, Receiver<Contents>)>> {
    if *contents != Contents::Unknown {
        return Ok(None);
    }
    let (tell, told) = channel();
    let device = PathBuf::from(path);
    std::thread::Builder::new()
        .name(format!("look at {path}"))
        .spawn(move || {
            // Fails when nobody waits any more.
            let _ = tell.send(look(&device));
        })
        .map_err(|error| Error::io("cannot start a thread", error))?;
    Ok(Some((contents, told)))
}

fn answer(
    told: &Receiver<Contents>,
    deadline: Instant,
    stop: &Stop,
) -> Result<Contents> {
    loop {
        stop.check()?;
        let why = match told.recv_timeout(GLANCE) {
            Ok(contents) => return Ok(contents),
            Err(RecvTimeoutError::Disconnected) => "no answer".to_owned(),
            Err(RecvTimeoutError::Timeout) if Instant::now() < deadline => {
                continue;
            }
            Err(RecvTimeoutError::Timeout) => {
                format!("no answer in {} s", PATIENCE.as_secs())
            }
        };
        return Ok(Contents::Unreadable(why));
    }
}

fn look(path: &Path) -> Contents {
    match LocalSource::open(path, ByteOffset(0))
        .and_then(|source| identify(&source))
    {
        Ok(contents) => Contents::Known(contents),
        Err(error) => Contents::Unreadable(error.to_string()),
    }
}

/// Devices of the system by any name of theirs, and files.
fn named(paths: &[PathBuf]) -> Result<Vec<Device>> {
    let mut found = Vec::with_capacity(paths.len());
    let mut system: Option<Vec<Device>> = None;
    for path in paths {
        let source = LocalSource::open(path, ByteOffset(0))?;
        if source.facts().kind != SourceKind::BlockDevice {
            found.push(file(&source)?);
            continue;
        }
        if system.is_none() {
            system = Some(SystemPaths::default().devices()?);
        }
        let number = source.facts().file.map(|file| {
            let raw = file.raw_device;
            (rustix::fs::major(raw), rustix::fs::minor(raw))
        });
        let device = system
            .iter()
            .flatten()
            .flat_map(Device::with_partitions)
            .find(|device| number.is_some() && device.number == number);
        found.push(device.cloned().ok_or_else(|| {
            Error::new(
                ErrorKind::NoFilesystem,
                format!("{} is not in /sys/block", path.display()),
            )
            .hint("e2wire ls, without a name, lists what is there")
        })?);
    }
    Ok(found)
}

/// A file, with the partitions that its table lists.
fn file(source: &LocalSource) -> Result<Device> {
    let facts = source.facts();
    let mut device =
        Device::new(facts.name.clone(), DeviceKind::File, facts.length);
    let contents = identify(source)?;
    for entry in contents.iter().flat_map(|content| &content.partitions) {
        let window = Window::new(source, entry.range);
        // An extended partition holds nothing but the next table.
        let extended = ["0x05", "0x0f", "0x85"];
        let contents = match extended.contains(&entry.type_id.as_str()) {
            true => Vec::new(),
            false => identify(&window)?,
        };
        device.partitions.push(Device {
            start: Some(entry.range.start()),
            contents: Contents::Known(contents),
            ..Device::new(
                format!("partition {}", entry.number),
                DeviceKind::Partition,
                entry.range.length(),
            )
        });
    }
    device.contents = Contents::Known(contents);
    Ok(device)
}
