//! A TCP port that hands every connection on to another one, slowly.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::Result;

use super::pump::{self, Direction, Input};
use super::{Carried, Counts, Pace};

/// A TCP port that hands every connection on, with the pace and the faults
/// of a longer way.
#[derive(Debug)]
pub struct Relay {
    at: SocketAddr,
    counts: Arc<Counts>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Relay {
    /// Whoever calls the relay is connected to `agent`.
    ///
    /// # Errors
    ///
    /// When there is no free port.
    pub fn to(agent: SocketAddr, pace: Pace) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let at = listener.local_addr()?;
        let counts = Arc::new(Counts::default());
        let over = Arc::new(AtomicBool::new(false));
        let (stop, count) = (Arc::clone(&over), Arc::clone(&counts));
        let thread = thread::Builder::new()
            .name("relay".into())
            .spawn(move || serve(&listener, agent, pace, &stop, &count))?;
        Ok(Self { at, counts, over, thread: Some(thread) })
    }

    /// Whom to call.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.at
    }

    /// What it has carried so far, over all connections.
    #[must_use]
    pub fn carried(&self) -> Carried {
        self.counts.carried()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(
    listener: &TcpListener,
    agent: SocketAddr,
    pace: Pace,
    over: &Arc<AtomicBool>,
    counts: &Arc<Counts>,
) {
    let mut pumps = Vec::new();
    while !over.load(Ordering::Relaxed) {
        let Ok((caller, _)) = listener.accept() else {
            thread::sleep(Duration::from_millis(2));
            continue;
        };
        // Whoever is not there hangs up on the caller, too.
        let Ok(mut directions) = connect(caller, agent, pace) else {
            continue;
        };
        let (stop, count) = (Arc::clone(over), Arc::clone(counts));
        pumps.push(thread::spawn(move || {
            pump::run(&mut directions, &stop, &count.0);
        }));
    }
    for pump in pumps {
        let _ = pump.join();
    }
}

fn connect(
    caller: TcpStream,
    agent: SocketAddr,
    pace: Pace,
) -> Result<[Direction; 2]> {
    let called = TcpStream::connect(agent)?;
    let [near, far] = [caller, called].map(|stream| {
        stream.set_nodelay(true)?;
        pump::never_block(stream.as_fd())?;
        anyhow::Ok(OwnedFd::from(stream))
    });
    let (near, far) = (near?, far?);
    let [there, back] = pace.wires();
    Ok([
        Direction::new(
            Input::Socket,
            near.try_clone()?,
            far.try_clone()?,
            there,
        ),
        Direction::new(Input::Socket, far, near, back),
    ])
}
