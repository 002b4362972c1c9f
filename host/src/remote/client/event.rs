//! What a client tells whoever drives it.

use e2wire_protocol::chunk::{Ranges, SectorRange};
use e2wire_protocol::digest::{
    BootId, BuildId, DeviceId, RangeDigest, ShortDigest,
};
use e2wire_protocol::message::{
    AgentLimits, Busy, DeviceFlags, DeviceKind, DeviceReply, Failure,
    HelloReply, LogPiece, Rights,
};

/// Names something that was asked of a client.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Ticket(pub(super) u64);

/// Something that happened.
#[derive(Debug)]
pub enum Event {
    /// An agent answered, for the first time or after it was away.
    Up(Box<AgentFacts>),
    /// Nobody has answered for a while; the client keeps asking.
    Silent,
    /// Host and agent have no version in common.
    NoCommonVersion(String),
    /// Text of the console that shares the line, in pieces of any length.
    Text(Vec<u8>),
    /// The body of a chunk that was asked for by itself, checked.
    Body(Ticket, Vec<u8>),
    /// One device of a list.
    Device(Ticket, Box<DeviceRecord>),
    /// A piece of a log.
    Log(Ticket, LogPiece, Vec<u8>),
    /// What was asked for is done; a list is complete.
    Done(Ticket),
    /// What came of a write.
    Wrote(Ticket, Wrote),
    /// What was asked for was refused or failed.
    Failed(Ticket, Trouble),
    /// The agent waits for a disk.
    Busy(Busy),
}

/// What came of a write.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Wrote {
    /// It was written and read back.
    Written,
    /// It was there already.
    AlreadyThere,
    /// Something else lies there; nothing was written.
    Conflict {
        /// Where.
        range: SectorRange,
        /// The digest of what lies there; zeros when some of it cannot be
        /// read.
        now: RangeDigest,
        /// The short digest of every sector, zeros for one that cannot be
        /// read.
        sectors: Vec<ShortDigest>,
    },
}

/// Blocks that were wanted.
#[derive(Debug)]
pub struct Fetched {
    /// Of which device.
    pub device: DeviceId,
    /// Which ranges.
    pub ranges: Ranges,
    /// The body of the chunk, layout and bytes, checked; or why it cannot be
    /// had.
    pub body: Result<Vec<u8>, Trouble>,
}

/// Why something cannot be had.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Trouble {
    /// The agent says so.
    Refused(Failure),
    /// What it sent did not prove right, again and again.
    Nonsense,
}

/// Who answered.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AgentFacts {
    /// This run of the agent.
    pub boot: BootId,
    /// Whether it is another run than the one before.
    pub new_boot: bool,
    /// Its build.
    pub build: BuildId,
    /// What this session may ask for.
    pub rights: Rights,
    /// Its bounds.
    pub limits: AgentLimits,
    /// How long it has been running, in milliseconds.
    pub uptime_millis: u64,
    /// The port, as the agent calls it.
    pub port: String,
    /// The speed that the agent's serial port is set to; 0 for others.
    pub port_baud: u32,
    /// The agent's version.
    pub version: String,
    /// Who made the machine, its model, serial number, UUID, host name and
    /// kernel; empty where unknown.
    pub vendor: String,
    /// The machine's model.
    pub product: String,
    /// The machine's serial number.
    pub serial: String,
    /// The UUID that the firmware has for the machine.
    pub uuid: String,
    /// The machine's host name.
    pub host: String,
    /// The release of its kernel.
    pub kernel: String,
}

impl AgentFacts {
    /// Whether both may be about the same machine: nothing that is known of
    /// both says otherwise. The kernel and the host name change when another
    /// system is booted, these do not.
    #[must_use]
    pub fn may_be_same_machine(&self, other: &Self) -> bool {
        [
            (&self.vendor, &other.vendor),
            (&self.product, &other.product),
            (&self.serial, &other.serial),
            (&self.uuid, &other.uuid),
        ]
        .into_iter()
        .all(|(one, two)| one.is_empty() || two.is_empty() || one == two)
    }

    /// What people tell the machine by.
    #[must_use]
    pub fn machine_name(&self) -> String {
        let names = [&self.vendor, &self.product, &self.serial, &self.host];
        let known: Vec<&str> = names
            .into_iter()
            .map(String::as_str)
            .filter(|name| !name.is_empty())
            .collect();
        if known.is_empty() {
            return "an unnamed machine".to_owned();
        }
        known.join(" ")
    }

    /// What tells the machine from others, the same after a reboot; empty
    /// when the firmware does not say.
    #[must_use]
    pub fn machine(&self) -> String {
        let words = [&self.vendor, &self.product, &self.serial, &self.uuid];
        let known = words.into_iter().filter(|word| !word.is_empty());
        known.map(String::as_str).collect::<Vec<_>>().join(", ")
    }

    pub(super) fn new(hello: &HelloReply<'_>, new_boot: bool) -> Self {
        Self {
            boot: hello.boot,
            new_boot,
            build: hello.build,
            rights: hello.rights,
            limits: hello.limits,
            uptime_millis: hello.uptime_millis,
            port: hello.port.to_owned(),
            port_baud: hello.port_baud,
            version: hello.agent.to_owned(),
            vendor: hello.machine.vendor.to_owned(),
            product: hello.machine.product.to_owned(),
            serial: hello.machine.serial.to_owned(),
            uuid: hello.machine.uuid.to_owned(),
            host: hello.machine.host.to_owned(),
            kernel: hello.machine.kernel.to_owned(),
        }
    }
}

/// A device of the agent's list.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DeviceRecord {
    /// Its place in the list.
    pub index: u16,
    /// Its name in requests, the same in every run of the agent.
    pub id: DeviceId,
    /// The kernel's name now, or the path of a file.
    pub name: String,
    /// What kind of thing it is.
    pub kind: DeviceKind,
    /// Its properties.
    pub flags: DeviceFlags,
    /// Its size in bytes.
    pub size: u64,
    /// Bytes of a logical sector: what reads are made of.
    pub logical_sector: u32,
    /// Bytes of a physical sector.
    pub physical_sector: u32,
    /// Where a partition starts on its disk, in bytes.
    pub partition_start: u64,
    /// The number of a partition; 0 otherwise.
    pub partition: u32,
    /// The disk that a partition lies on.
    pub parent: String,
    /// The model of the disk.
    pub model: String,
    /// The serial number of the disk.
    pub serial: String,
    /// The world-wide name of the disk.
    pub wwn: String,
    /// Where the disk is attached.
    pub path: String,
    /// What holds it.
    pub holders: String,
}

impl DeviceRecord {
    pub(super) fn new(reply: &DeviceReply<'_>) -> Self {
        let facts = &reply.facts;
        Self {
            index: reply.index,
            id: reply.id,
            name: facts.name.to_owned(),
            kind: facts.kind,
            flags: facts.flags,
            size: facts.size,
            logical_sector: facts.logical_sector,
            physical_sector: facts.physical_sector,
            partition_start: facts.partition_start,
            partition: facts.partition,
            parent: facts.parent.to_owned(),
            model: facts.model.to_owned(),
            serial: facts.serial.to_owned(),
            wwn: facts.wwn.to_owned(),
            path: facts.path.to_owned(),
            holders: facts.holders.to_owned(),
        }
    }
}
