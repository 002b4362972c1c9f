//! The list of devices and their names on the wire.

use e2wire_protocol::digest::DeviceId;
use e2wire_protocol::limits::{LONG_TEXT_BYTES_MAX, TEXT_BYTES_MAX};
use e2wire_protocol::message::{DeviceFacts, cut};

use crate::device::{DeviceIndex, Devices};
use crate::memory::DEVICES_MAX;

/// The identifiers of the devices, by their place in the platform's table.
pub(crate) struct Inventory {
    ids: [DeviceId; DEVICES_MAX],
    present: [bool; DEVICES_MAX],
}

impl Inventory {
    pub(crate) const fn new() -> Self {
        Self {
            ids: [DeviceId([0; 8]); DEVICES_MAX],
            present: [false; DEVICES_MAX],
        }
    }

    /// Looks at all places of the table.
    pub(crate) fn refresh(&mut self, devices: &impl Devices) {
        let places = self.ids.iter_mut().zip(&mut self.present);
        for (index, (id, present)) in (0..).zip(places) {
            let facts = devices.facts(DeviceIndex(index));
            *present = facts.is_some();
            *id = facts.as_ref().map(id_of).unwrap_or_default();
        }
    }

    /// Where the device `id` is.
    pub(crate) fn find(&self, id: DeviceId) -> Option<DeviceIndex> {
        self.all().find(|(_, this)| *this == id).map(|(index, _)| index)
    }

    /// The device at `place` of the list.
    pub(crate) fn at(&self, place: u16) -> Option<(DeviceIndex, DeviceId)> {
        self.all().nth(usize::from(place))
    }

    /// How many devices there are.
    pub(crate) fn total(&self) -> u16 {
        u16::try_from(self.all().count()).unwrap_or(u16::MAX)
    }

    fn all(&self) -> impl Iterator<Item = (DeviceIndex, DeviceId)> {
        let places = self.ids.iter().zip(&self.present);
        (0..)
            .zip(places)
            .filter(|(_, (_, present))| **present)
            .map(|(index, (id, _))| (DeviceIndex(index), *id))
    }
}

/// What names a device over the boots of its machine: the first of its
/// world-wide name, serial number and path that is known, its size, and where
/// a partition starts.
#[must_use]
pub fn id_of(facts: &DeviceFacts<'_>) -> DeviceId {
    let names = [facts.wwn, facts.serial, facts.path, facts.name];
    let disk = names.into_iter().find(|name| !name.is_empty());
    DeviceId::new(disk.unwrap_or(""), facts.size, facts.partition_start)
}

/// The same facts with every text cut to its bound on the wire.
pub(crate) fn bounded<'a>(facts: &DeviceFacts<'a>) -> DeviceFacts<'a> {
    let short = |text: &'a str| cut(text, TEXT_BYTES_MAX);
    let long = |text: &'a str| cut(text, LONG_TEXT_BYTES_MAX);
    DeviceFacts {
        name: long(facts.name),
        parent: short(facts.parent),
        model: short(facts.model),
        serial: short(facts.serial),
        wwn: short(facts.wwn),
        path: long(facts.path),
        holders: long(facts.holders),
        ..*facts
    }
}
