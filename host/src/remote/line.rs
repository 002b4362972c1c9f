//! A line: bytes to and from an agent, and the time.
//!
//! A session works on this trait only. The real line ([`PortLine`]) has a
//! thread that reads from the moment the port is open (what arrives before
//! the first read would be lost on some adapters) and one that writes, so
//! that neither direction ever waits for the other; the line of a simulation
//! steps agent, wire and clock instead.

use std::any::Any;
use std::collections::VecDeque;
use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;

use crate::error::{Error, ErrorKind, Result};
use crate::remote::moment::Moment;
use crate::remote::port::{Nature, Patience, Port, Running, Wire, wait};
use crate::stop::Stop;

/// The most that is read at once.
const READ_BYTES_MAX: usize = 64 * 1024;

/// How many reads wait to be handled at most; then the port is not read on,
/// and flow control or TCP holds the peer.
const READS_MAX: usize = 64;

/// What [`Line::receive`] saw.
#[derive(Debug)]
pub enum Received {
    /// Bytes arrived and are in the buffer.
    Bytes,
    /// Nothing until the given moment.
    Nothing,
    /// Somebody called the line's [`Waker`].
    Woken,
    /// The line ended; why, if that is known.
    Closed(String),
}

/// Bytes to and from an agent, and the time.
pub trait Line: Send {
    /// What users call the line.
    fn name(&self) -> String;

    /// What is known of the line.
    fn nature(&self) -> Nature;

    /// The time.
    fn now(&self) -> Moment;

    /// Queues `bytes` to be sent.
    fn send(&mut self, bytes: &[u8]);

    /// Holds the line in the break condition for a moment, which kernels and
    /// boot loaders take as a wish to be talked to.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Refused`] on a line that has none.
    fn send_break(&mut self) -> Result<()>;

    /// How many queued bytes have not been sent yet.
    fn unsent(&self) -> usize;

    /// Waits until `until` for bytes and puts them behind what is in `into`.
    fn receive(&mut self, until: Moment, into: &mut Vec<u8>) -> Received;

    /// Opens the line, again if it was open: what was queued or not yet
    /// received is forgotten.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NoLink`] when that does not work within `patience`;
    /// [`ErrorKind::Interrupted`] when asked to stop.
    fn open(&mut self, patience: Duration, stop: &Stop) -> Result<()>;

    /// Lets so much time pass.
    fn pause(&mut self, time: Duration);

    /// What ends a [`Self::receive`] early, from another thread; none on a
    /// line that is only used by one.
    fn waker(&self) -> Option<Waker>;
}

/// Ends a [`Line::receive`] from another thread.
#[derive(Clone, Debug)]
pub struct Waker {
    events: SyncSender<LineEvent>,
}

impl Waker {
    /// The present or next `receive` ends at once.
    pub fn wake(&self) {
        // A full queue means that it will not wait anyway.
        let _ = self.events.try_send(LineEvent::Woken);
    }
}

#[derive(Debug)]
enum LineEvent {
    /// From the reader of the numbered connection.
    Bytes(u64, Vec<u8>),
    /// The numbered connection ended.
    Closed(u64, Option<String>),
    Woken,
}

/// A line over a [`Port`].
pub struct PortLine {
    port: Box<dyn Port>,
    born: Instant,
    connection: Option<Connection>,
    /// Counts connections, so that late words of an earlier one are told
    /// apart.
    opened: u64,
    /// The connection ended, behind bytes that are still to be handled.
    closed: Option<Option<String>>,
    events: SyncSender<LineEvent>,
    arrived: Receiver<LineEvent>,
}

impl PortLine {
    /// A line over `port`, which is not opened yet.
    #[must_use]
    pub fn new(port: Box<dyn Port>) -> Self {
        let (events, arrived) = mpsc::sync_channel(READS_MAX);
        Self {
            port,
            born: Instant::now(),
            connection: None,
            opened: 0,
            closed: None,
            events,
            arrived,
        }
    }

    /// Ends the connection, if there is one; tells what its program said.
    fn hang_up(&mut self) -> Option<String> {
        self.closed = None;
        let Connection { outgoing, mut keeper, over, threads, breaker } =
            self.connection.take()?;
        outgoing.close();
        drop((over, breaker));
        // The lock of a port goes with the threads' descriptors, so they must
        // be gone before it is opened again. A reader may wait for room.
        while !threads.iter().all(JoinHandle::is_finished) {
            while self.arrived.try_recv().is_ok() {}
            thread::sleep(Duration::from_millis(1));
        }
        keeper.downcast_mut::<Running>()?.obituary()
    }
}

impl Drop for PortLine {
    fn drop(&mut self) {
        self.hang_up();
    }
}

impl Line for PortLine {
    fn name(&self) -> String {
        self.port.name()
    }

    fn nature(&self) -> Nature {
        self.port.nature()
    }

    fn now(&self) -> Moment {
        Moment::at(self.born.elapsed())
    }

    fn send(&mut self, bytes: &[u8]) {
        if let Some(connection) = &self.connection {
            connection.outgoing.push(bytes);
        }
    }

    fn send_break(&mut self) -> Result<()> {
        let terminal = self.connection.as_ref().and_then(|c| {
            self.port.nature().baud?;
            c.breaker.as_ref()
        });
        let Some(terminal) = terminal else {
            return Err(Error::new(
                ErrorKind::Refused,
                "only a serial port of this machine can send a break",
            ));
        };
        rustix::termios::tcsendbreak(terminal).map_err(|error| {
            Error::io("cannot send a break", io::Error::from(error))
        })
    }

    fn unsent(&self) -> usize {
        self.connection.as_ref().map_or(0, |c| c.outgoing.length())
    }

    fn receive(&mut self, until: Moment, into: &mut Vec<u8>) -> Received {
        if self.connection.is_none() {
            return Received::Closed("it is not open".to_owned());
        }
        if let Some(why) = self.closed.take() {
            return self.ended(why);
        }
        loop {
            let left = until.since(self.now());
            // A thread cannot wait for ever: an hour at a time.
            let left = left.min(Duration::from_secs(3600));
            match self.arrived.recv_timeout(left) {
                Ok(LineEvent::Bytes(number, bytes)) => {
                    if number == self.opened {
                        into.extend_from_slice(&bytes);
                        self.take_waiting(into);
                        return Received::Bytes;
                    }
                }
                Ok(LineEvent::Closed(number, why)) => {
                    if number == self.opened {
                        return self.ended(why);
                    }
                }
                Ok(LineEvent::Woken) => return Received::Woken,
                Err(RecvTimeoutError::Timeout) => return Received::Nothing,
                Err(RecvTimeoutError::Disconnected) => {
                    return Received::Closed("its threads died".to_owned());
                }
            }
        }
    }

    fn open(&mut self, patience: Duration, stop: &Stop) -> Result<()> {
        self.hang_up();
        let wire = self.port.open(&Patience::lasting(patience, stop))?;
        self.opened += 1;
        let connection =
            Connection::start(wire, self.opened, self.events.clone())?;
        self.connection = Some(connection);
        Ok(())
    }

    fn pause(&mut self, time: Duration) {
        thread::sleep(time);
    }

    fn waker(&self) -> Option<Waker> {
        Some(Waker { events: self.events.clone() })
    }
}

impl PortLine {
    /// Takes what else has arrived; the end of the line, if it is next, is
    /// told after the bytes before it were handled.
    fn take_waiting(&mut self, into: &mut Vec<u8>) {
        while into.len() < READS_MAX * READ_BYTES_MAX {
            match self.arrived.try_recv() {
                Ok(LineEvent::Bytes(number, bytes)) => {
                    if number == self.opened {
                        into.extend_from_slice(&bytes);
                    }
                }
                Ok(LineEvent::Closed(number, why)) => {
                    if number == self.opened {
                        self.closed = Some(why);
                        return;
                    }
                }
                Ok(LineEvent::Woken) => {}
                Err(_) => return,
            }
        }
    }

    fn ended(&mut self, why: Option<String>) -> Received {
        let of_program = self.hang_up();
        Received::Closed(
            of_program
                .or(why)
                .unwrap_or_else(|| "the other side hung up".to_owned()),
        )
    }
}

/// An open port and its two threads.
struct Connection {
    outgoing: Arc<Outgoing>,
    /// What must live as long as the connection.
    keeper: Box<dyn Any + Send>,
    /// Ends the threads' waits when it is dropped.
    over: PipeWriter,
    threads: [JoinHandle<()>; 2],
    /// What a break is sent through.
    breaker: Option<OwnedFd>,
}

impl Connection {
    fn start(
        wire: Wire,
        number: u64,
        events: SyncSender<LineEvent>,
    ) -> Result<Self> {
        let failed = |error| {
            Error::new(ErrorKind::Internal, "cannot start a line's threads")
                .because(error)
        };
        let (reader_over, over) = io::pipe().map_err(failed)?;
        let writer_over = reader_over.try_clone().map_err(failed)?;
        let outgoing = Arc::new(Outgoing::default());
        let queue = Arc::clone(&outgoing);
        let (input, output, keeper) = wire.into_parts();
        let breaker = output.try_clone().ok();
        let ended = events.clone();
        let reader = thread::Builder::new()
            .name("line reader".into())
            .spawn(move || {
                let why = read_all(&input, &reader_over, number, &events);
                let _ = events.send(LineEvent::Closed(number, why));
            })
            .map_err(failed)?;
        let writer = thread::Builder::new()
            .name("line writer".into())
            .spawn(move || {
                if let Some(why) = write_all(&output, &writer_over, &queue) {
                    let _ = ended.send(LineEvent::Closed(number, Some(why)));
                }
            })
            .map_err(failed)?;
        Ok(Self { outgoing, keeper, over, threads: [reader, writer], breaker })
    }
}

/// What waits to be written.
#[derive(Debug, Default)]
struct Outgoing {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    bytes: VecDeque<u8>,
    closed: bool,
}

impl Outgoing {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, bytes: &[u8]) {
        self.lock().bytes.extend(bytes);
        self.changed.notify_all();
    }

    fn length(&self) -> usize {
        self.lock().bytes.len()
    }

    fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// Waits for something to write; `None` once the line is closed.
    fn front(&self, into: &mut [u8]) -> Option<usize> {
        let mut queue = self.lock();
        while queue.bytes.is_empty() && !queue.closed {
            queue = self
                .changed
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
        }
        if queue.closed {
            return None;
        }
        let count = queue.bytes.len().min(into.len());
        for (to, from) in into.iter_mut().zip(&queue.bytes) {
            *to = *from;
        }
        Some(count)
    }

    fn written(&self, count: usize) {
        let mut queue = self.lock();
        let count = count.min(queue.bytes.len());
        queue.bytes.drain(..count);
    }
}

/// Reads until the end; says why it ended, if that is worth saying.
fn read_all(
    input: &OwnedFd,
    over: &PipeReader,
    number: u64,
    events: &SyncSender<LineEvent>,
) -> Option<String> {
    let mut buffer = vec![0; READ_BYTES_MAX];
    loop {
        match rustix::io::read(input, buffer.as_mut_slice()) {
            Ok(0) => return None,
            Ok(count) => {
                let bytes = buffer.get(..count)?.to_vec();
                events.send(LineEvent::Bytes(number, bytes)).ok()?;
            }
            Err(Errno::AGAIN) => {
                let mut fds = [
                    PollFd::new(input, PollFlags::IN),
                    PollFd::new(over, PollFlags::IN),
                ];
                wait(&mut fds, None);
                if !fds[1].revents().is_empty() {
                    return None;
                }
            }
            Err(Errno::INTR) => {}
            // What a terminal says when its other side is closed.
            Err(Errno::IO) => return None,
            Err(error) => return Some(io::Error::from(error).to_string()),
        }
    }
}

/// Writes until the line is closed; says why it cannot go on otherwise.
fn write_all(
    output: &OwnedFd,
    over: &PipeReader,
    queue: &Outgoing,
) -> Option<String> {
    let mut buffer = [0; 4096];
    while let Some(count) = queue.front(&mut buffer) {
        match rustix::io::write(output, buffer.get(..count)?) {
            Ok(written) => queue.written(written),
            Err(Errno::AGAIN) => {
                let mut fds = [
                    PollFd::new(output, PollFlags::OUT),
                    PollFd::from_borrowed_fd(over.as_fd(), PollFlags::IN),
                ];
                wait(&mut fds, None);
                if !fds[1].revents().is_empty() {
                    return None;
                }
            }
            Err(Errno::INTR) => {}
            // The reader tells of a hangup, after the last bytes.
            Err(Errno::IO | Errno::PIPE | Errno::CONNRESET) => return None,
            Err(error) => return Some(io::Error::from(error).to_string()),
        }
    }
    None
}

#[cfg(test)]
mod tests;
