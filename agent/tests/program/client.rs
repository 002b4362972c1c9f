//! A small honest host: asks, asks again, and joins what comes.

use std::io::{Read, Write};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use e2wire_protocol::chunk::{Codec, Grant, Ranges, SectorRange, from_columns};
use e2wire_protocol::coding::Coding;
use e2wire_protocol::digest::{BootId, BuildId, DeviceId, SessionId};
use e2wire_protocol::frame::{Decoder, Event};
use e2wire_protocol::limits::LINE_BYTES_MAX;
use e2wire_protocol::message::{
    DrainLog, Fetch, Hello, ListDevices, LogStream, Reply, ReplyBody, Request,
    RequestBody, Rights, Task,
};
use e2wire_protocol::version::Versions;

/// An answer that has not come by then will not come.
const PATIENCE: Duration = Duration::from_secs(60);
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// What an agent said of itself.
#[derive(Clone, Debug)]
pub(crate) struct AgentFacts {
    pub(crate) boot: BootId,
    pub(crate) build: BuildId,
    pub(crate) rights: Rights,
    pub(crate) zstd_level: u8,
    pub(crate) port: String,
    pub(crate) port_baud: u32,
    pub(crate) kernel: String,
}

/// What a list of devices holds that the tests look at.
#[derive(Clone, Debug)]
pub(crate) struct Device {
    pub(crate) id: DeviceId,
    pub(crate) name: String,
    pub(crate) size: u64,
}

pub(crate) struct Client {
    output: Box<dyn Write>,
    input: Receiver<Vec<u8>>,
    decoder: Box<Decoder>,
    session: SessionId,
    boot: BootId,
    number: u32,
    /// Console text that came between frames.
    pub(crate) text: Vec<u8>,
}

impl Client {
    /// Over any two streams.
    pub(crate) fn new(
        mut input: impl Read + Send + 'static,
        output: impl Write + 'static,
    ) -> Self {
        let (sender, receiver) = channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 65_536];
            while let Ok(count @ 1..) = input.read(&mut buffer) {
                if sender.send(buffer[..count].to_vec()).is_err() {
                    break;
                }
            }
        });
        let mut session = [0; 8];
        rustix::rand::getrandom(
            &mut session[..],
            rustix::rand::GetRandomFlags::empty(),
        )
        .unwrap();
        Self {
            output: Box::new(output),
            input: receiver,
            decoder: Box::new(Decoder::new()),
            session: SessionId(session),
            boot: BootId::default(),
            number: 0,
            text: Vec::new(),
        }
    }

    /// Bytes as they are.
    pub(crate) fn send_raw(&mut self, bytes: &[u8]) {
        self.output.write_all(bytes).unwrap();
        self.output.flush().unwrap();
    }

    /// A request as a frame, without waiting for anything.
    pub(crate) fn frame_of(&self, number: u32, body: &RequestBody) -> Vec<u8> {
        self.frame_with(number, body, &[])
    }

    fn frame_with(
        &self,
        number: u32,
        body: &RequestBody,
        tail: &[u8],
    ) -> Vec<u8> {
        let boot = match body {
            RequestBody::Hello(_) => BootId::default(),
            _ => self.boot,
        };
        let request = Request { boot, number, body: body.clone() };
        let mut frame = vec![0; LINE_BYTES_MAX];
        let n = request.encode(Coding::Binary, tail, &mut frame).unwrap();
        frame.truncate(n);
        frame
    }

    /// Takes what comes for `patience` and returns the text among it.
    pub(crate) fn listen(&mut self, patience: Duration) -> String {
        let deadline = Instant::now() + patience;
        while self.hear(deadline, |_, _| false) {}
        String::from_utf8_lossy(&self.text).into_owned()
    }

    /// Takes one piece of input; false when none came until `deadline`.
    fn hear(
        &mut self,
        deadline: Instant,
        mut take: impl FnMut(&Reply<'_>, &[u8]) -> bool,
    ) -> bool {
        let left = deadline.saturating_duration_since(Instant::now());
        let Ok(bytes) = self.input.recv_timeout(left) else {
            return false;
        };
        let mut rest = bytes.as_slice();
        while let Some(event) = self.decoder.next(&mut rest) {
            match event {
                Event::Frame(frame) => {
                    let Ok((reply, tail)) = Reply::decode(frame.message) else {
                        panic!("a reply that is none: {frame:?}");
                    };
                    take(&reply, tail);
                }
                Event::Text(text) => self.text.extend_from_slice(text),
                Event::Broken(_) => {}
            }
        }
        true
    }

    /// Asks until `pick` finds what it wants among the answers.
    pub(crate) fn ask<T>(
        &mut self,
        body: &RequestBody,
        pick: impl FnMut(&ReplyBody<'_>, &[u8]) -> Option<T>,
    ) -> T {
        self.ask_with(body, &[], pick)
    }

    /// The same with a tail.
    pub(crate) fn ask_with<T>(
        &mut self,
        body: &RequestBody,
        tail: &[u8],
        mut pick: impl FnMut(&ReplyBody<'_>, &[u8]) -> Option<T>,
    ) -> T {
        self.number += 1;
        let number = self.number;
        let frame = self.frame_with(number, body, tail);
        let start = Instant::now();
        let mut found = None;
        while start.elapsed() < PATIENCE {
            self.send_raw(&frame);
            let again = Instant::now() + ASK_AGAIN;
            while self.hear(again, |reply, tail| {
                if reply.answers == number && found.is_none() {
                    found = pick(&reply.body, tail);
                }
                found.is_some()
            }) {
                if let Some(found) = found.take() {
                    return found;
                }
            }
        }
        panic!("no answer to {body:?}; text: {:?}", self.text);
    }

    /// Begins a session.
    pub(crate) fn hello(&mut self) -> AgentFacts {
        let hello = RequestBody::Hello(Hello {
            versions: Versions::OURS,
            session: self.session,
            coding: Coding::Binary,
            window: 1 << 20,
        });
        let facts = self.ask(&hello, |body, _| match body {
            ReplyBody::Hello(hello) => Some(AgentFacts {
                boot: hello.boot,
                build: hello.build,
                rights: hello.rights,
                zstd_level: hello.limits.zstd_level,
                port: hello.port.to_owned(),
                port_baud: hello.port_baud,
                kernel: hello.machine.kernel.to_owned(),
            }),
            other => panic!("{other:?}"),
        });
        self.boot = facts.boot;
        facts
    }

    /// All devices.
    pub(crate) fn devices(&mut self) -> Vec<Device> {
        let mut devices = Vec::new();
        loop {
            let first = u16::try_from(devices.len()).unwrap();
            let list = ListDevices { rescan: first == 0, first, count: 1 };
            let next =
                self.ask(&RequestBody::Devices(list), |body, _| match body {
                    ReplyBody::Device(device) => Some(Some(Device {
                        id: device.id,
                        name: device.facts.name.to_owned(),
                        size: device.facts.size,
                    })),
                    ReplyBody::NoMoreDevices(_) => Some(None),
                    ReplyBody::Busy(_) => None,
                    other => panic!("{other:?}"),
                });
            match next {
                Some(device) => devices.push(device),
                None => return devices,
            }
        }
    }

    /// A chunk's body: its layout and its bytes, as the agent encoded them.
    pub(crate) fn fetch(
        &mut self,
        device: DeviceId,
        first: u64,
        sectors: u32,
        codec: Codec,
    ) -> Vec<u8> {
        let range = SectorRange::new(first, sectors).unwrap();
        let fetch = RequestBody::Fetch(Fetch {
            device,
            task: Task::Read(Ranges::one(range).unwrap()),
            codec,
            grant: Grant::new(16 * 1024, 0, 17).unwrap(),
        });
        let mut encoded: Vec<Option<u8>> = Vec::new();
        let (used, bytes) = self.ask(&fetch, |body, tail| match body {
            ReplyBody::Fragment(fragment) => {
                encoded.resize(fragment.encoded.try_into().unwrap(), None);
                let at = usize::try_from(fragment.at).unwrap();
                for (place, byte) in encoded[at..].iter_mut().zip(tail) {
                    *place = Some(*byte);
                }
                let whole: Option<Vec<u8>> = encoded.iter().copied().collect();
                whole.map(|bytes| (fragment.codec, bytes))
            }
            ReplyBody::Busy(_) => None,
            other => panic!("{other:?}"),
        });
        match used {
            Codec::Stored => bytes,
            Codec::Zstd(_) => zstd::bulk::decompress(&bytes, 1 << 20).unwrap(),
            Codec::ZstdColumns { stride, .. } => {
                let columns = zstd::bulk::decompress(&bytes, 1 << 20).unwrap();
                let mut body = vec![0; columns.len()];
                from_columns(&columns, stride, &mut body).unwrap();
                body
            }
        }
    }

    /// What the agent's own log holds.
    pub(crate) fn log(&mut self) -> Vec<u8> {
        let drain = RequestBody::Log(DrainLog {
            stream: LogStream::Agent,
            from: 0,
            bytes: 4096,
            wait_millis: 0,
        });
        self.ask(&drain, |body, tail| {
            matches!(body, ReplyBody::Log(_)).then(|| tail.to_vec())
        })
    }
}
