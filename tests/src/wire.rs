//! The plainest host there can be: asks for one thing, waits, asks again.
//!
//! It shows that a machine's agent answers on a port, apart from all that the
//! real host does to be fast. Whoever tests that host runs `e2wire` itself.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use e2wire_protocol::chunk::{
    Codec, Grant, Layout, Ranges, RunKind, SectorRange,
};
use e2wire_protocol::coding::Coding;
use e2wire_protocol::digest::{BootId, DeviceId, SessionId, Tag};
use e2wire_protocol::frame::{Decoder, Event, Kind};
use e2wire_protocol::limits::{BODY_BYTES_MAX, LINE_BYTES_MAX, SECTOR_BYTES};
use e2wire_protocol::message::{
    Fetch, Hello, ListDevices, LogStream, PowerAction, Reply, ReplyBody,
    Request, RequestBody, Rights, Task,
};
use e2wire_protocol::version::Versions;

/// What is under way at most.
const WINDOW_BYTES: u32 = 64 * 1024;
/// The payload of a fragment.
const FRAGMENT_BYTES: u16 = 1024;
/// How many fragments are granted at once.
const GRANT: u16 = 32;
/// How long to wait in silence before asking again.
const PATIENCE: Duration = Duration::from_millis(500);

/// A line to an agent.
trait Line: Read + Write + Send {}
impl<T: Read + Write + Send> Line for T {}

/// A host on a line.
pub struct Wire {
    line: Box<dyn Line>,
    decoder: Box<Decoder>,
    /// Read from the line, not yet decoded.
    pending: Vec<u8>,
    /// What came between frames.
    text: Vec<u8>,
    coding: Coding,
    session: SessionId,
    boot: BootId,
    number: u32,
}

/// What an agent says of itself.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Greeting {
    /// Names this run of the agent.
    pub boot: BootId,
    /// The port, by the agent's name for it.
    pub port: String,
    /// What may be asked for.
    pub rights: Rights,
    /// The release of the machine's kernel.
    pub kernel: String,
}

/// A device of the machine.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Device {
    /// Its name in requests.
    pub id: DeviceId,
    /// The kernel's name for it.
    pub name: String,
    /// Its serial number.
    pub serial: String,
    /// Its size in bytes.
    pub size: u64,
}

/// What was read of a device.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Content {
    /// The bytes; zeros where they could not be read.
    pub bytes: Vec<u8>,
    /// The sectors, counted from the start of what was asked for, that could
    /// not be read.
    pub unreadable: Vec<u64>,
}

/// What a reply means to whoever waits for it.
enum Verdict<T> {
    /// That is it.
    Done(T),
    /// There is more to come.
    More,
    /// It is about something else.
    Other,
}

impl Wire {
    /// Over a UNIX socket.
    ///
    /// # Errors
    ///
    /// When nobody listens there.
    pub fn unix(path: &str) -> Result<Self> {
        let stream = UnixStream::connect(path)
            .with_context(|| format!("cannot connect to {path}"))?;
        stream.set_read_timeout(Some(Duration::from_millis(100)))?;
        Ok(Self::new(Box::new(stream), Coding::Binary))
    }

    /// Over TCP.
    ///
    /// # Errors
    ///
    /// When the timeout cannot be set.
    pub fn tcp(stream: TcpStream) -> Result<Self> {
        stream.set_read_timeout(Some(Duration::from_millis(100)))?;
        stream.set_nodelay(true)?;
        Ok(Self::new(Box::new(stream), Coding::Binary))
    }

    fn new(line: Box<dyn Line>, coding: Coding) -> Self {
        // Two hosts of one test must not end each other's session.
        static COUNT: std::sync::atomic::AtomicU32 =
            std::sync::atomic::AtomicU32::new(1);
        let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let mut session = [0; 8];
        session[..4].copy_from_slice(&count.to_le_bytes());
        session[4..].copy_from_slice(&std::process::id().to_le_bytes());
        Self {
            line,
            decoder: Box::new(Decoder::new()),
            pending: Vec::new(),
            text: Vec::new(),
            coding,
            session: SessionId(session),
            boot: BootId::default(),
            number: 0,
        }
    }

    /// What came between the frames so far.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.text).into_owned()
    }

    /// Writes bytes to the line as they are, as a person at a terminal would.
    ///
    /// # Errors
    ///
    /// When the line is gone.
    pub fn type_raw(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.line.write_all(bytes)?)
    }

    /// Begins a session; waits until an agent answers.
    ///
    /// # Errors
    ///
    /// When none does in time.
    pub fn hello(&mut self, limit: Duration) -> Result<Greeting> {
        let hello = Hello {
            versions: Versions::OURS,
            session: self.session,
            coding: Coding::Binary,
            window: WINDOW_BYTES,
        };
        self.boot = BootId::default();
        let session = self.session;
        let greeting =
            self.ask(&RequestBody::Hello(hello), limit, |reply, _| {
                Ok(match reply.body {
                    ReplyBody::Hello(hello) if hello.session == session => {
                        Verdict::Done(Greeting {
                            boot: hello.boot,
                            port: hello.port.to_owned(),
                            rights: hello.rights,
                            kernel: hello.machine.kernel.to_owned(),
                        })
                    }
                    _ => Verdict::Other,
                })
            })?;
        self.boot = greeting.boot;
        Ok(greeting)
    }

    /// All devices, after looking for new ones.
    ///
    /// # Errors
    ///
    /// When the list does not come in time.
    pub fn devices(&mut self) -> Result<Vec<Device>> {
        let mut devices: Vec<Device> = Vec::new();
        loop {
            let first = u16::try_from(devices.len())?;
            let list = ListDevices { rescan: first == 0, first, count: 1 };
            let body = RequestBody::Devices(list);
            let next =
                self.ask(&body, Duration::from_secs(20), |reply, _| {
                    Ok(match reply.body {
                        ReplyBody::Device(device) if device.index == first => {
                            Verdict::Done(Some(Device {
                                id: device.id,
                                name: device.facts.name.to_owned(),
                                serial: device.facts.serial.to_owned(),
                                size: device.facts.size,
                            }))
                        }
                        ReplyBody::NoMoreDevices(_) => Verdict::Done(None),
                        _ => Verdict::Other,
                    })
                })?;
            match next {
                Some(device) => devices.push(device),
                None => return Ok(devices),
            }
        }
    }

    /// Reads up to 256 KiB in whole sectors.
    ///
    /// # Errors
    ///
    /// When the agent refuses, or the bytes do not come in time.
    pub fn read(
        &mut self,
        device: DeviceId,
        first_sector: u64,
        sectors: u32,
        limit: Duration,
    ) -> Result<Content> {
        let range =
            SectorRange::new(first_sector, sectors).context("no such range")?;
        let task = Task::Read(Ranges::one(range)?);
        let body = self.fetch(device, task, limit)?;
        let layout = Layout::check(&body, sectors)?;
        let mut content = Content { bytes: vec![], unreadable: vec![] };
        for run in layout {
            let start = content.bytes.len();
            let length = usize::try_from(run.sectors)? * SECTOR_BYTES;
            content.bytes.resize(start + length, 0);
            match run.kind {
                RunKind::Data => {
                    content.bytes[start..].copy_from_slice(run.bytes);
                }
                RunKind::Zero => {}
                RunKind::Unreadable => {
                    let first = u64::try_from(start / SECTOR_BYTES)?;
                    let end = first + u64::from(run.sectors);
                    content.unreadable.extend(first..end);
                }
            }
        }
        Ok(content)
    }

    /// Reads a whole device.
    ///
    /// # Errors
    ///
    /// When a part does not come in time.
    pub fn read_all(
        &mut self,
        device: &Device,
        limit: Duration,
    ) -> Result<Content> {
        let end = Instant::now() + limit;
        let mut all = Content { bytes: vec![], unreadable: vec![] };
        let total = device.size / u64::try_from(SECTOR_BYTES)?;
        let mut at = 0;
        while at < total {
            let count = u32::try_from((total - at).min(512))?;
            let left = end.saturating_duration_since(Instant::now());
            let piece = self.read(device.id, at, count, left)?;
            all.bytes.extend(piece.bytes);
            all.unreadable.extend(piece.unreadable.iter().map(|s| s + at));
            at += u64::from(count);
        }
        Ok(all)
    }

    /// Sends bytes there and back.
    ///
    /// # Errors
    ///
    /// When they do not come back in time, or changed.
    pub fn echo(&mut self, limit: Duration) -> Result<()> {
        self.ask(&RequestBody::Echo, limit, |reply, _| {
            Ok(match reply.body {
                ReplyBody::Echo => Verdict::Done(()),
                _ => Verdict::Other,
            })
        })
    }

    /// Whether the agent says that it waits for this device.
    ///
    /// # Errors
    ///
    /// When it says nothing at all in time.
    pub fn reads_or_waits(
        &mut self,
        device: DeviceId,
        first_sector: u64,
        limit: Duration,
    ) -> Result<bool> {
        let range = SectorRange::new(first_sector, 8).context("no range")?;
        let body = RequestBody::Fetch(Fetch {
            device,
            task: Task::Read(Ranges::one(range)?),
            codec: Codec::Stored,
            grant: Grant::new(FRAGMENT_BYTES, 0, GRANT).context("no grant")?,
        });
        self.ask(&body, limit, |reply, _| {
            Ok(match reply.body {
                ReplyBody::Busy(busy) if busy.device == device => {
                    Verdict::Done(false)
                }
                ReplyBody::Fragment(part) if part.device == device => {
                    Verdict::Done(true)
                }
                _ => Verdict::Other,
            })
        })
    }

    /// Restarts the machine, or switches it off.
    ///
    /// # Errors
    ///
    /// When the agent refuses or does not answer.
    pub fn power(&mut self, action: PowerAction) -> Result<()> {
        let limit = Duration::from_secs(10);
        self.ask(&RequestBody::Power(action), limit, |reply, _| {
            Ok(match reply.body {
                ReplyBody::Done => Verdict::Done(()),
                _ => Verdict::Other,
            })
        })
    }

    /// The beginning of a log of the agent.
    ///
    /// # Errors
    ///
    /// When it does not come in time.
    pub fn log(&mut self, stream: LogStream, from: u64) -> Result<Vec<u8>> {
        let body = RequestBody::Log(e2wire_protocol::message::DrainLog {
            stream,
            from,
            bytes: 4096,
            wait_millis: 0,
        });
        self.ask(&body, Duration::from_secs(10), |reply, tail| {
            Ok(match reply.body {
                ReplyBody::Log(piece) if piece.stream == stream => {
                    Verdict::Done(tail.to_vec())
                }
                _ => Verdict::Other,
            })
        })
    }

    /// The decoded body of one chunk.
    fn fetch(
        &mut self,
        device: DeviceId,
        task: Task,
        limit: Duration,
    ) -> Result<Vec<u8>> {
        let end = Instant::now() + limit;
        let mut join = Join::default();
        let mut fetch = Fetch {
            device,
            task,
            codec: Codec::Zstd(1),
            grant: Grant::new(FRAGMENT_BYTES, 0, GRANT).context("no grant")?,
        };
        loop {
            let first = join.first_missing();
            fetch.grant =
                Grant::new(FRAGMENT_BYTES, first, GRANT).context("no grant")?;
            let body = RequestBody::Fetch(fetch.clone());
            let left = end.saturating_duration_since(Instant::now());
            self.ask(&body, left, |reply, tail| {
                let ReplyBody::Fragment(part) = reply.body else {
                    return Ok(Verdict::Other);
                };
                if part.device != device {
                    return Ok(Verdict::Other);
                }
                join.add(&part, tail)?;
                let granted = join.has(first, GRANT);
                Ok(if granted { Verdict::Done(()) } else { Verdict::More })
            })?;
            if let Some((codec, encoded)) = join.whole() {
                if fetch.tag(codec, [encoded]) != join.tag {
                    // An answer to something that was asked before.
                    join = Join::default();
                    continue;
                }
                return match codec {
                    Codec::Stored => Ok(encoded.to_vec()),
                    Codec::Zstd(_) => {
                        Ok(zstd::bulk::decompress(encoded, BODY_BYTES_MAX)?)
                    }
                };
            }
        }
    }

    /// Sends a request until `judge` has its answer.
    fn ask<T>(
        &mut self,
        body: &RequestBody,
        limit: Duration,
        mut judge: impl FnMut(&Reply<'_>, &[u8]) -> Result<Verdict<T>>,
    ) -> Result<T> {
        let end = Instant::now() + limit;
        self.number += 1;
        let number = self.number;
        let request = Request { boot: self.boot, number, body: body.clone() };
        let mut frame = vec![0; LINE_BYTES_MAX];
        let length = request.encode(self.coding, &[], &mut frame)?;
        while Instant::now() < end {
            // A line that takes nothing right now is asked again, too.
            match self.line.write_all(&frame[..length]) {
                Err(e) if is_timeout(e.kind()) => {}
                result => result.context("the line is gone")?,
            }
            let mut again = Instant::now() + PATIENCE;
            while Instant::now() < again.min(end) {
                let verdict = self.step(number, &mut judge)?;
                match verdict {
                    Some(Verdict::Done(value)) => return Ok(value),
                    Some(Verdict::More) => again = Instant::now() + PATIENCE,
                    _ => {}
                }
            }
        }
        bail!("no answer to {body:?} within {} s", limit.as_secs_f32())
    }

    /// Takes what is there from the line, and the next reply from that.
    fn step<T>(
        &mut self,
        number: u32,
        judge: &mut impl FnMut(&Reply<'_>, &[u8]) -> Result<Verdict<T>>,
    ) -> Result<Option<Verdict<T>>> {
        if self.pending.is_empty() {
            let mut bytes = vec![0; 64 * 1024];
            match self.line.read(&mut bytes) {
                Ok(0) => bail!("the line was closed"),
                Ok(count) => self.pending.extend(&bytes[..count]),
                Err(e) if is_timeout(e.kind()) => return Ok(None),
                Err(e) => return Err(e).context("the line is gone"),
            }
        }
        let mut input = self.pending.as_slice();
        let mut verdict = None;
        while verdict.is_none() {
            let Some(event) = self.decoder.next(&mut input) else { break };
            match event {
                Event::Text(text) | Event::Broken(text) => {
                    self.text.extend(text);
                }
                Event::Frame(frame) if frame.kind == Kind::PlainReply => {
                    let Ok((reply, tail)) = Reply::decode(frame.message) else {
                        continue;
                    };
                    if let ReplyBody::Failed(failure) = reply.body {
                        ensure!(
                            reply.answers != number,
                            "the agent refuses: {failure:?}"
                        );
                    }
                    match judge(&reply, tail)? {
                        Verdict::Other => {}
                        other => verdict = Some(other),
                    }
                }
                Event::Frame(_) => {}
            }
        }
        self.pending = input.to_vec();
        Ok(verdict)
    }
}

fn is_timeout(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
    )
}

/// Fragments of one chunk.
#[derive(Default)]
struct Join {
    tag: Option<Tag>,
    codec: Codec,
    encoded: Vec<u8>,
    there: Vec<bool>,
}

impl Join {
    fn add(
        &mut self,
        part: &e2wire_protocol::message::Fragment,
        payload: &[u8],
    ) -> Result<()> {
        if self.tag != Some(part.tag) {
            let length = usize::try_from(part.encoded)?;
            self.tag = Some(part.tag);
            self.codec = part.codec;
            self.encoded = vec![0; length];
            self.there =
                vec![false; length.div_ceil(usize::from(FRAGMENT_BYTES))];
        }
        let at = usize::try_from(part.at)?;
        let place = self
            .encoded
            .get_mut(at..at + payload.len())
            .context("a fragment lies outside of its chunk")?;
        place.copy_from_slice(payload);
        let index = at / usize::from(FRAGMENT_BYTES);
        *self.there.get_mut(index).context("no such fragment")? = true;
        Ok(())
    }

    fn has(&self, first: u16, count: u16) -> bool {
        self.there
            .iter()
            .skip(usize::from(first))
            .take(usize::from(count))
            .all(|there| *there)
    }

    fn first_missing(&self) -> u16 {
        let missing = self.there.iter().position(|there| !there);
        u16::try_from(missing.unwrap_or(0)).unwrap_or(u16::MAX)
    }

    fn whole(&self) -> Option<(Codec, &[u8])> {
        let whole = self.tag.is_some() && self.there.iter().all(|t| *t);
        whole.then_some((self.codec, self.encoded.as_slice()))
    }
}
