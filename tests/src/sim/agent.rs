//! An agent in a thread of its own, in lock-step: its memory is one big
//! borrowed struct, which a thread's stack frame can lend.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use e2wire_agent::agent::{Agent, Facts};
use e2wire_agent::clock::Instant;
use e2wire_agent::compress::Encoder;
use e2wire_agent::memory::Memory;
use e2wire_agent::port::PortKind;
use e2wire_protocol::digest::{BootId, BuildId};
use e2wire_protocol::message::{Machine, Rights};

use super::disk::{Medium, SimDisk};

/// What the agent shall do.
pub(super) enum Order {
    /// These bytes came in at this time, and the line takes so many.
    Step { now: u64, bytes: Vec<u8>, room: usize },
    /// The connection is another one.
    Reopen { now: u64 },
}

/// What it did.
pub(super) struct Answer {
    /// What it sends.
    pub(super) bytes: Vec<u8>,
    /// More waits to be sent.
    pub(super) more: bool,
    /// When it wants to be stepped again.
    pub(super) deadline: Option<u64>,
}

/// A running agent.
pub(super) struct SimAgent {
    orders: Option<Sender<Order>>,
    answers: Receiver<Answer>,
    thread: Option<JoinHandle<()>>,
}

/// How an agent is attached.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attachment {
    pub(super) boot: u64,
    pub(super) serial: bool,
    pub(super) baud: u32,
}

impl SimAgent {
    pub(super) fn start(
        disk: SimDisk,
        attachment: Attachment,
        now: u64,
    ) -> Self {
        let (orders, take) = channel();
        let (give, answers) = channel();
        let thread = thread::Builder::new()
            .name("agent".into())
            .stack_size(64 << 20)
            .spawn(move || run(disk, attachment, now, &take, &give))
            .expect("a thread can be started");
        Self { orders: Some(orders), answers, thread: Some(thread) }
    }

    pub(super) fn order(&self, order: Order) -> Answer {
        let orders = self.orders.as_ref().expect("the agent runs");
        orders.send(order).expect("the agent runs");
        self.answers.recv().expect("the agent did not panic")
    }
}

impl Drop for SimAgent {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            if !thread::panicking() {
                ended.expect("the agent did not panic");
            }
        }
    }
}

fn run(
    mut disk: SimDisk,
    attachment: Attachment,
    now: u64,
    orders: &Receiver<Order>,
    answers: &Sender<Answer>,
) {
    let mut memory = Box::new(Memory::new());
    let facts = Facts {
        boot: BootId(attachment.boot.to_le_bytes()),
        build: BuildId::default(),
        version: "0.1.0",
        rights: Rights::READ.with(Rights::WRITE).with(Rights::INSECURE),
        machine: Machine { host: "simulated", ..Machine::default() },
        started: Instant::from_micros(now),
    };
    let mut agent = Agent::new(&mut memory, facts);
    let kind =
        if attachment.serial { PortKind::Serial } else { PortKind::Stream };
    let mut encoder = Zstd;
    let open = |agent: &mut Agent<'_>, now| {
        agent
            .open_port("ttyS1", kind, attachment.baud, now)
            .expect("a port is free")
    };
    let mut port = open(&mut agent, Instant::from_micros(now));
    for order in orders {
        let answer = match order {
            Order::Reopen { now } => {
                agent.close_port(port);
                port = open(&mut agent, Instant::from_micros(now));
                Answer { bytes: Vec::new(), more: false, deadline: Some(now) }
            }
            Order::Step { now, bytes, room } => {
                let at = Instant::from_micros(now);
                disk.now = now;
                agent.received(port, &bytes, at);
                agent.step(at, &mut disk, &mut encoder);
                let mut out = Vec::new();
                while out.len() < room {
                    let waiting = agent.to_send(port);
                    let count = waiting.len().min(room - out.len());
                    if count == 0 {
                        break;
                    }
                    out.extend_from_slice(&waiting[..count]);
                    agent.sent(port, count, at);
                    agent.step(at, &mut disk, &mut encoder);
                }
                let deadline = agent.deadline().map(Instant::micros);
                Answer {
                    more: !agent.to_send(port).is_empty(),
                    deadline: [deadline, disk.next()]
                        .into_iter()
                        .flatten()
                        .min(),
                    bytes: out,
                }
            }
        };
        if answers.send(answer).is_err() {
            return;
        }
    }
}

pub(super) struct Zstd;

impl Encoder for Zstd {
    /// The lowest level at which a host asks for columns as well.
    fn level_max(&self) -> u8 {
        4
    }

    fn encode(
        &mut self,
        level: u8,
        plain: &[u8],
        out: &mut [u8],
    ) -> Option<usize> {
        zstd::bulk::compress_to_buffer(plain, out, i32::from(level)).ok()
    }
}

/// What an agent is started from.
#[derive(Clone)]
pub(super) struct Machinery {
    pub(super) medium: Arc<Mutex<Medium>>,
    pub(super) bad: Arc<Vec<u64>>,
    pub(super) slow: u64,
    pub(super) serial: bool,
    pub(super) baud: u32,
}

impl Machinery {
    pub(super) fn boot(&self, boot: u64, now: u64) -> SimAgent {
        let disk = SimDisk::new(
            Arc::clone(&self.medium),
            Arc::clone(&self.bad),
            boot,
            self.slow,
        );
        let attachment =
            Attachment { boot, serial: self.serial, baud: self.baud };
        SimAgent::start(disk, attachment, now)
    }
}
