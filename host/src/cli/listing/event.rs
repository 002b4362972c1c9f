//! A device as a `device` event.

use serde::Serialize;

use crate::inventory::{Content, Contents, Device, PartitionEntry};

/// What stands in the event; the names are the schema.
#[derive(Serialize)]
pub(in crate::cli) struct DeviceEvent<'a> {
    path: &'a str,
    /// The disk that this is a partition of.
    parent: Option<&'a str>,
    kind: &'static str,
    size: u64,
    start: Option<u64>,
    logical_sector: u32,
    physical_sector: u32,
    read_only: bool,
    removable: bool,
    model: Option<&'a str>,
    serial: Option<&'a str>,
    wwn: Option<&'a str>,
    alias: Option<&'a str>,
    number: Option<String>,
    mounts: Vec<MountPoint<'a>>,
    swap_active: bool,
    holders: &'a [String],
    unreadable: Option<&'a str>,
    contents: Vec<Recognised<'a>>,
}

#[derive(Serialize)]
struct MountPoint<'a> {
    at: &'a str,
    read_only: bool,
}

#[derive(Serialize)]
struct Recognised<'a> {
    kind: &'static str,
    version: Option<&'a str>,
    label: Option<&'a str>,
    uuid: Option<&'a str>,
    size: Option<u64>,
    block_size: Option<u64>,
    last_mounted: Option<&'a str>,
    part_of: Option<&'a str>,
    detail: Option<&'a str>,
    state: Vec<&'static str>,
    superblock_copy: Option<u64>,
    partitions: Vec<Entry<'a>>,
}

#[derive(Serialize)]
struct Entry<'a> {
    number: u32,
    start: u64,
    size: u64,
    type_id: &'a str,
    name: Option<&'a str>,
    uuid: Option<&'a str>,
}

impl<'a> DeviceEvent<'a> {
    pub(in crate::cli) fn new(
        device: &'a Device,
        parent: Option<&'a str>,
    ) -> Self {
        Self {
            path: &device.path,
            parent,
            kind: device.kind.name(),
            size: device.size.0,
            start: device.start.map(|start| start.0),
            logical_sector: device.logical_sector_bytes,
            physical_sector: device.physical_sector_bytes,
            read_only: device.read_only,
            removable: device.removable,
            model: device.disk.model.as_deref(),
            serial: device.disk.serial.as_deref(),
            wwn: device.disk.wwn.as_deref(),
            alias: device.alias.as_deref(),
            number: device
                .number
                .map(|(major, minor)| format!("{major}:{minor}")),
            mounts: device
                .mounts
                .iter()
                .map(|mount| MountPoint {
                    at: &mount.at,
                    read_only: mount.read_only,
                })
                .collect(),
            swap_active: device.swap_active,
            holders: &device.holders,
            unreadable: match &device.contents {
                Contents::Unreadable(why) => Some(why),
                Contents::Unknown | Contents::Known(_) => None,
            },
            contents: device
                .known_contents()
                .iter()
                .map(Recognised::new)
                .collect(),
        }
    }
}

impl<'a> Recognised<'a> {
    fn new(content: &'a Content) -> Self {
        Self {
            kind: content.kind.name(),
            version: content.version.as_deref(),
            label: content.label.as_deref(),
            uuid: content.uuid.as_deref(),
            size: content.size.map(|size| size.0),
            block_size: content.block_size.map(|size| size.bytes_u64()),
            last_mounted: content.last_mounted.as_deref(),
            part_of: content.part_of.as_deref(),
            detail: content.detail.as_deref(),
            state: content.state.iter().map(|state| state.name()).collect(),
            superblock_copy: content.superblock_copy.map(|block| block.0),
            partitions: content.partitions.iter().map(Entry::new).collect(),
        }
    }
}

impl<'a> Entry<'a> {
    fn new(entry: &'a PartitionEntry) -> Self {
        Self {
            number: entry.number,
            start: entry.range.start().0,
            size: entry.range.length().0,
            type_id: &entry.type_id,
            name: entry.name.as_deref(),
            uuid: entry.uuid.as_deref(),
        }
    }
}
