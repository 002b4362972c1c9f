//! `tcp:HOST:PORT` calls an agent or a console server; `listen:ADDR:PORT`
//! waits for agents that call.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::event::PollFlags;

use crate::error::{Error, ErrorKind, Result};
use crate::remote::port::{Nature, Patience, Port, Wire, no_link};
use crate::remote::target::HostPort;

/// How long one of several addresses of a host may take before the next one
/// is tried.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// Calls somebody who listens.
#[derive(Debug)]
pub(super) struct Caller {
    peer: HostPort,
}

impl Caller {
    pub(super) const fn new(peer: HostPort) -> Self {
        Self { peer }
    }

    fn failed(&self, error: io::Error) -> Error {
        let hint = match error.kind() {
            io::ErrorKind::ConnectionRefused => {
                "nobody listens there: has the agent started, with \
                 --listen and this port?"
            }
            io::ErrorKind::TimedOut => {
                "no answer at all: is the machine up, and does a firewall \
                 let the port through?"
            }
            _ => "check the name, the port and the network",
        };
        no_link(format!("cannot connect to {}", self.name()))
            .because(error)
            .hint(hint)
    }
}

impl Port for Caller {
    fn name(&self) -> String {
        format!("tcp:{}", self.peer)
    }

    fn nature(&self) -> Nature {
        // A console server may be what answers.
        Nature { baud: None, console: true, listens: false }
    }

    fn open(&mut self, patience: &Patience<'_>) -> Result<Wire> {
        let timed_out = || io::Error::from(io::ErrorKind::TimedOut);
        let HostPort { host, port } = self.peer.clone();
        let resolved = patience.run(move || {
            (host.as_str(), port)
                .to_socket_addrs()
                .map(Iterator::collect::<Vec<SocketAddr>>)
        })?;
        let addresses = match resolved {
            Some(Ok(addresses)) => addresses,
            Some(Err(error)) => {
                return Err(no_link(format!(
                    "there is no host {}",
                    self.peer.host
                ))
                .because(error)
                .hint("check the name, or give the address itself"));
            }
            None => return Err(self.failed(timed_out())),
        };
        let mut last = timed_out();
        for address in addresses {
            let Some(left) = patience.left()? else { break };
            let within = left.min(CONNECT_MAX);
            let connected = patience
                .run(move || TcpStream::connect_timeout(&address, within))?;
            match connected {
                Some(Ok(stream)) => {
                    let peer = address.to_string();
                    return wire(stream, Some(peer));
                }
                Some(Err(error)) => last = error,
                None => last = timed_out(),
            }
        }
        Err(self.failed(last))
    }
}

/// Waits for agents that call; one after the other is served.
#[derive(Debug)]
pub(super) struct Listener {
    at: HostPort,
    /// Bound at the first use and kept: whoever calls while another agent is
    /// served waits in its queue.
    listener: Option<TcpListener>,
}

impl Listener {
    pub(super) const fn new(at: HostPort) -> Self {
        Self { at, listener: None }
    }

    fn bound(&mut self) -> Result<&TcpListener> {
        if self.listener.is_none() {
            let HostPort { host, port } = &self.at;
            let host = if host == "*" { "::" } else { host };
            let listener = TcpListener::bind((host, *port))
                .and_then(|listener| {
                    listener.set_nonblocking(true)?;
                    Ok(listener)
                })
                .map_err(|error| self.cannot_listen(error))?;
            self.listener = Some(listener);
        }
        self.listener.as_ref().ok_or_else(|| {
            Error::new(ErrorKind::Internal, "the listening socket is gone")
        })
    }

    fn cannot_listen(&self, error: io::Error) -> Error {
        let hint = match error.kind() {
            io::ErrorKind::AddrInUse => {
                "another program has this port: end it, or take another one"
            }
            io::ErrorKind::AddrNotAvailable => {
                "this machine has no such address; 0.0.0.0 stands for all"
            }
            io::ErrorKind::PermissionDenied => {
                "ports below 1024 are root's: take a higher one"
            }
            _ => "check the address and the port",
        };
        no_link(format!("cannot listen on {}", self.at))
            .because(error)
            .hint(hint)
    }
}

impl Port for Listener {
    fn name(&self) -> String {
        format!("listen:{}", self.at)
    }

    fn nature(&self) -> Nature {
        Nature { baud: None, console: false, listens: true }
    }

    fn open(&mut self, patience: &Patience<'_>) -> Result<Wire> {
        let at = self.at.clone();
        let listener = self.bound()?;
        while patience.wait_for(listener.as_fd(), PollFlags::IN)? {
            match listener.accept() {
                Ok((stream, peer)) => {
                    return wire(stream, Some(peer.to_string()));
                }
                // The caller may have gone between poll and accept.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error)
                    if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    return Err(no_link(format!("nobody can call at {at}"))
                        .because(error));
                }
            }
        }
        Err(no_link(format!("no agent called at {at}")).hint(
            "start it with --connect and this machine's address; --wait says \
             how long to wait for it",
        ))
    }
}

fn wire(stream: TcpStream, peer: Option<String>) -> Result<Wire> {
    // Requests are small and somebody waits for each of them.
    stream.set_nodelay(true).map_err(|error| {
        no_link("cannot set up the connection".to_owned()).because(error)
    })?;
    Wire::duplex(stream.into(), peer, Box::new(()))
}
