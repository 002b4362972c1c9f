//! An agent on a bench: disks in memory, ports as byte queues, a clock that
//! the test turns. Everything goes through bytes.

use std::collections::BTreeSet;
use std::thread;

use e2wire_agent::agent::{Agent, Facts};
use e2wire_agent::clock::{Duration, Instant};
use e2wire_agent::compress::Encoder;
use e2wire_agent::device::{
    DeviceFault, DeviceIndex, Devices, Job, SectorMap, Sectors, Settled, Slot,
    State,
};
use e2wire_agent::inventory::id_of;
use e2wire_agent::memory::{Memory, SLOTS_MAX};
use e2wire_agent::port::{PortKind, PortNumber};
use e2wire_protocol::chunk::{Codec, Grant, Ranges, SectorRange, from_columns};
use e2wire_protocol::coding::Coding;
use e2wire_protocol::digest::{BootId, BuildId, DeviceId, SessionId};
use e2wire_protocol::frame::{Decoder, Event, Kind};
use e2wire_protocol::limits::{LINE_BYTES_MAX, SECTOR_BYTES};
use e2wire_protocol::message::{
    DeviceFacts, DeviceFlags, DeviceKind, Failure, Fetch, Hello, InUse,
    Machine, Reply, ReplyBody, Request, RequestBody, Rights, Task,
};
use e2wire_protocol::version::Versions;

pub(crate) const BOOT: BootId = BootId([0xb0; 8]);

/// A disk in memory.
pub(crate) struct Disk {
    pub(crate) name: &'static str,
    pub(crate) bytes: Vec<u8>,
    pub(crate) logical: u32,
    /// Sectors of 512 bytes that cannot be read.
    pub(crate) bad: BTreeSet<usize>,
    /// Jobs do not end.
    pub(crate) hangs: bool,
    /// Jobs are refused.
    pub(crate) fault: Option<DeviceFault>,
    pub(crate) gone: bool,
    /// Jobs that were submitted so far.
    pub(crate) jobs: usize,
    /// Open for writing.
    pub(crate) claimed: bool,
    /// Somebody uses it.
    pub(crate) in_use: Option<InUse>,
    /// Writes so far, where and how long.
    pub(crate) writes: Vec<(usize, usize)>,
    /// Writes do not keep what they are given.
    pub(crate) forgets: bool,
    /// Jobs that are refused for want of a worker.
    pub(crate) busy: usize,
    /// Nobody knows yet who it is.
    pub(crate) unknown: bool,
}

impl Disk {
    /// Whose content looks like metadata: much that repeats, some noise,
    /// stretches of zeros.
    pub(crate) fn new(name: &'static str, sectors: usize) -> Self {
        let mut state = 0x9e37_79b9_u64;
        let mut bytes = vec![0; sectors * SECTOR_BYTES];
        for (i, sector) in bytes.chunks_mut(SECTOR_BYTES).enumerate() {
            if i % 40 < 12 {
                continue;
            }
            for (j, byte) in sector.iter_mut().enumerate() {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                *byte = if i % 40 < 16 || j % 32 == 0 {
                    state.to_le_bytes()[0]
                } else {
                    j.to_le_bytes()[0]
                };
            }
        }
        Self {
            name,
            bytes,
            logical: 512,
            bad: BTreeSet::new(),
            hangs: false,
            fault: None,
            gone: false,
            jobs: 0,
            claimed: false,
            in_use: None,
            writes: Vec::new(),
            forgets: false,
            busy: 0,
            unknown: false,
        }
    }

    pub(crate) fn facts(&self) -> DeviceFacts<'_> {
        DeviceFacts {
            name: self.name,
            kind: DeviceKind::Disk,
            flags: DeviceFlags::DIRECT,
            size: u64::try_from(self.bytes.len()).unwrap(),
            logical_sector: self.logical,
            physical_sector: 4096,
            serial: self.name,
            ..DeviceFacts::default()
        }
    }

    pub(crate) fn id(&self) -> DeviceId {
        id_of(&self.facts())
    }

    /// The bytes of ranges, one behind the other; zeros where unreadable.
    pub(crate) fn read(&self, ranges: &Ranges) -> Vec<u8> {
        let mut all = Vec::new();
        for range in ranges.iter() {
            for sector in range.first()..range.end() {
                let sector = usize::try_from(sector).unwrap();
                let at = sector * SECTOR_BYTES;
                if self.bad.contains(&sector) {
                    all.extend([0; SECTOR_BYTES]);
                } else {
                    all.extend(&self.bytes[at..at + SECTOR_BYTES]);
                }
            }
        }
        all
    }
}

struct RunningJob {
    device: usize,
    read: Option<(Vec<u8>, SectorMap)>,
    fault: Option<DeviceFault>,
}

pub(crate) struct Disks {
    pub(crate) disks: Vec<Disk>,
    jobs: [Option<RunningJob>; SLOTS_MAX],
    unknown: usize,
}

impl Disks {
    /// A job has ended: the platform would wake its loop.
    fn has_ended(&self) -> bool {
        let mut jobs = self.jobs.iter().flatten();
        jobs.any(|job| !self.disks[job.device].hangs)
    }
}

impl Devices for Disks {
    fn rescan(&mut self) {}

    fn facts(&self, index: DeviceIndex) -> Option<DeviceFacts<'_>> {
        let disk = self.disks.get(usize::from(index.0))?;
        (!disk.gone && !disk.unknown).then(|| disk.facts())
    }

    fn settle(&mut self) -> Settled {
        let unknown = self.disks.iter().filter(|disk| disk.unknown).count();
        let changed = std::mem::replace(&mut self.unknown, unknown) != unknown;
        Settled { changed, whole: unknown == 0 }
    }

    fn submit(
        &mut self,
        slot: Slot,
        index: DeviceIndex,
        job: Job<'_>,
    ) -> Result<(), DeviceFault> {
        let device = usize::from(index.0);
        let disk = &mut self.disks[device];
        if let Some(fault) = disk.fault {
            return Err(fault);
        }
        if disk.busy > 0 {
            disk.busy -= 1;
            return Err(DeviceFault::NoWorker);
        }
        disk.jobs += 1;
        let mut fault = None;
        let read = match job {
            Job::Flush => None,
            Job::Claim => {
                fault = disk.in_use.map(DeviceFault::InUse);
                disk.claimed = fault.is_none();
                None
            }
            Job::Unclaim => {
                disk.claimed = false;
                None
            }
            Job::Write(range, bytes) => {
                let at = usize::try_from(range.start().0).unwrap();
                assert_eq!(usize::try_from(range.length().0), Ok(bytes.len()));
                if disk.claimed {
                    disk.writes.push((at, bytes.len()));
                    let first = at / SECTOR_BYTES;
                    let end = first + bytes.len() / SECTOR_BYTES;
                    disk.bad.retain(|bad| !(first..end).contains(bad));
                    if !disk.forgets {
                        disk.bytes[at..at + bytes.len()].copy_from_slice(bytes);
                    }
                } else {
                    fault = Some(DeviceFault::NotClaimed);
                }
                None
            }
            Job::Read(ranges) => {
                let mut bytes = Vec::new();
                let mut map = SectorMap::new();
                for range in ranges {
                    let start = usize::try_from(range.start().0).unwrap();
                    let end = usize::try_from(range.end().0).unwrap();
                    let logical = usize::try_from(disk.logical).unwrap();
                    assert_eq!((start % logical, end % logical), (0, 0));
                    for at in (start..end).step_by(SECTOR_BYTES) {
                        if disk.bad.contains(&(at / SECTOR_BYTES)) {
                            map.set(bytes.len() / SECTOR_BYTES);
                            bytes.extend([0; SECTOR_BYTES]);
                        } else {
                            bytes.extend(&disk.bytes[at..at + SECTOR_BYTES]);
                        }
                    }
                }
                assert!(bytes.len() <= e2wire_agent::memory::SLOT_BYTES);
                Some((bytes, map))
            }
        };
        let place = &mut self.jobs[usize::from(slot.0)];
        assert!(place.is_none(), "the slot is taken");
        *place = Some(RunningJob { device, read, fault });
        Ok(())
    }

    fn poll(&self, slot: Slot) -> State<'_> {
        let job = self.jobs[usize::from(slot.0)].as_ref().unwrap();
        if self.disks[job.device].hangs {
            return State::Pending { done: 512 };
        }
        match (&job.read, job.fault) {
            (_, Some(fault)) => State::Failed(fault),
            (Some((bytes, unreadable)), None) => {
                State::Read(Sectors { bytes, unreadable })
            }
            (None, None) => State::Done,
        }
    }

    fn release(&mut self, slot: Slot) {
        self.jobs[usize::from(slot.0)].take().unwrap();
    }
}

/// The compressor as the platform will have it.
pub(crate) struct Zstd {
    pub(crate) calls: usize,
}

impl Encoder for Zstd {
    fn level_max(&self) -> u8 {
        9
    }

    fn encode(
        &mut self,
        level: u8,
        plain: &[u8],
        out: &mut [u8],
    ) -> Option<usize> {
        self.calls += 1;
        assert!((1..=self.level_max()).contains(&level));
        zstd::bulk::compress_to_buffer(plain, out, level.into()).ok()
    }
}

/// A reply as it arrived, with the tail.
#[derive(Clone, Debug)]
pub(crate) struct Got {
    message: Vec<u8>,
    pub(crate) coding: Coding,
}

impl Got {
    pub(crate) fn reply(&self) -> Reply<'_> {
        Reply::decode(&self.message).unwrap().0
    }

    pub(crate) fn body(&self) -> ReplyBody<'_> {
        self.reply().body
    }

    pub(crate) fn tail(&self) -> &[u8] {
        Reply::decode(&self.message).unwrap().1
    }

    pub(crate) fn failure(&self) -> Failure {
        match self.body() {
            ReplyBody::Failed(failure) => failure,
            other => panic!("no failure: {other:?}"),
        }
    }
}

/// A host's end of a port.
pub(crate) struct Client {
    pub(crate) port: PortNumber,
    pub(crate) coding: Coding,
    pub(crate) number: u32,
    decoder: Decoder,
    pub(crate) text: Vec<u8>,
    pub(crate) broken: usize,
}

pub(crate) struct Rig {
    pub(crate) agent: Agent<'static>,
    pub(crate) disks: Disks,
    pub(crate) zstd: Zstd,
    pub(crate) now: Instant,
}

pub(crate) const RIGHTS: Rights = Rights::READ.with(Rights::INSECURE);

impl Rig {
    pub(crate) fn new(disks: Vec<Disk>) -> Self {
        Self::with_rights(disks, RIGHTS)
    }

    pub(crate) fn with_rights(disks: Vec<Disk>, rights: Rights) -> Self {
        // Too large for the stack that a test has.
        let memory = thread::Builder::new()
            .stack_size(64 << 20)
            .spawn(|| Box::leak(Box::new(Memory::new())))
            .unwrap()
            .join()
            .unwrap();
        let now = Instant::from_micros(1_000_000);
        let facts = Facts {
            boot: BOOT,
            build: BuildId([7; 20]),
            version: "0.1.0",
            rights,
            machine: Machine { vendor: "Bench", ..Machine::default() },
            started: now,
        };
        Self {
            agent: Agent::new(memory, facts),
            disks: Disks {
                disks,
                jobs: [const { None }; SLOTS_MAX],
                unknown: 0,
            },
            zstd: Zstd { calls: 0 },
            now,
        }
    }

    /// A port without a session.
    pub(crate) fn connect(&mut self, kind: PortKind) -> Client {
        let port =
            self.agent.open_port("port0", kind, 115_200, self.now).unwrap();
        Client {
            port,
            coding: Coding::Binary,
            number: 0,
            decoder: Decoder::new(),
            text: Vec::new(),
            broken: 0,
        }
    }

    /// A port with a session.
    pub(crate) fn host(&mut self) -> Client {
        let mut client = self.connect(PortKind::Stream);
        self.hello(&mut client, 1);
        let got = self.run(&mut client);
        assert!(matches!(got[0].body(), ReplyBody::Hello(_)), "{got:?}");
        client
    }

    pub(crate) fn hello(&mut self, client: &mut Client, session: u8) {
        let hello = Hello {
            versions: Versions::OURS,
            session: SessionId([session; 8]),
            coding: client.coding,
            window: 8 << 20,
        };
        self.send(client, RequestBody::Hello(hello));
    }

    /// Sends a request under the next number, which is returned.
    pub(crate) fn send(
        &mut self,
        client: &mut Client,
        body: RequestBody,
    ) -> u32 {
        client.number += 1;
        self.repeat(client, client.number, body);
        client.number
    }

    /// The same with a tail.
    pub(crate) fn send_with(
        &mut self,
        client: &mut Client,
        body: RequestBody,
        tail: &[u8],
    ) -> u32 {
        client.number += 1;
        self.transmit(client, client.number, body, tail);
        client.number
    }

    pub(crate) fn repeat(
        &mut self,
        client: &Client,
        number: u32,
        body: RequestBody,
    ) {
        let tail: &[u8] =
            if body == RequestBody::Echo { b"echo me" } else { b"" };
        self.transmit(client, number, body, tail);
    }

    fn transmit(
        &mut self,
        client: &Client,
        number: u32,
        body: RequestBody,
        tail: &[u8],
    ) {
        let request = Request { boot: BOOT, number, body };
        let mut line = vec![0; LINE_BYTES_MAX];
        let length = request.encode(client.coding, tail, &mut line).unwrap();
        self.agent.received(client.port, &line[..length], self.now);
    }

    pub(crate) fn pass(&mut self, millis: u32) {
        self.now = self.now.after(Duration::from_millis(millis));
    }

    pub(crate) fn step(&mut self) {
        self.agent.step(self.now, &mut self.disks, &mut self.zstd);
    }

    /// Lets the agent work until nothing moves, and returns what it said.
    pub(crate) fn run(&mut self, client: &mut Client) -> Vec<Got> {
        let mut got = Vec::new();
        for _round in 0..10_000 {
            self.step();
            let bytes = self.agent.to_send(client.port).to_vec();
            if bytes.is_empty() && !self.disks.has_ended() {
                return got;
            }
            self.agent.sent(client.port, bytes.len(), self.now);
            got.extend(client.hear(&bytes));
        }
        panic!("the agent never falls silent");
    }
}

impl Client {
    pub(crate) fn hear(&mut self, mut bytes: &[u8]) -> Vec<Got> {
        let mut got = Vec::new();
        while let Some(event) = self.decoder.next(&mut bytes) {
            match event {
                Event::Frame(frame) => {
                    assert_eq!(frame.kind, Kind::PlainReply);
                    got.push(Got {
                        message: frame.message.to_vec(),
                        coding: frame.coding,
                    });
                }
                Event::Text(text) => self.text.extend(text),
                Event::Broken(_) => self.broken += 1,
            }
        }
        got
    }
}

pub(crate) fn range(first: u64, count: u32) -> SectorRange {
    SectorRange::new(first, count).unwrap()
}

pub(crate) fn ranges(all: &[(u64, u32)]) -> Ranges {
    let mut ranges = Ranges::new();
    for (first, count) in all {
        ranges.push(range(*first, *count)).unwrap();
    }
    ranges
}

/// A fetch of everything a task brings, in fragments of 4 KiB.
pub(crate) fn fetch(device: DeviceId, task: Task, codec: Codec) -> Fetch {
    let grant = Grant::new(4096, 0, 100).unwrap();
    Fetch { device, task, codec, grant }
}

/// The encoded chunk that fragments make up, and its codec: checks that they
/// are complete, in order, and of one tag, which is the right one.
pub(crate) fn join(fetch: &Fetch, got: &[Got]) -> (Vec<u8>, Codec) {
    let mut encoded = Vec::new();
    let mut first = None;
    for got in got {
        let ReplyBody::Fragment(fragment) = got.body() else {
            panic!("no fragment: {:?}", got.body());
        };
        let first = *first.get_or_insert(fragment);
        assert_eq!((fragment.tag, fragment.codec), (first.tag, first.codec));
        assert_eq!(fragment.encoded, first.encoded);
        assert_eq!(usize::try_from(fragment.at).unwrap(), encoded.len());
        assert_eq!(fragment.device, fetch.device);
        encoded.extend(got.tail());
    }
    let first = first.expect("no fragment at all");
    assert_eq!(encoded.len(), usize::try_from(first.encoded).unwrap());
    let tag = fetch.tag(first.codec, [encoded.as_slice()]).unwrap();
    assert_eq!(tag, first.tag);
    (encoded, first.codec)
}

/// The body that an encoded chunk holds.
pub(crate) fn decode(encoded: Vec<u8>, codec: Codec) -> Vec<u8> {
    match codec {
        Codec::Stored => encoded,
        Codec::Zstd(_) => zstd::bulk::decompress(&encoded, 1 << 20).unwrap(),
        Codec::ZstdColumns { stride, .. } => {
            let columns = zstd::bulk::decompress(&encoded, 1 << 20).unwrap();
            let mut body = vec![0; columns.len()];
            from_columns(&columns, stride, &mut body).unwrap();
            body
        }
    }
}
