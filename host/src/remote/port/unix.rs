//! `unix:PATH`: a stream socket of this machine, usually a virtual machine's
//! serial port.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use crate::error::Result;
use crate::remote::port::{Nature, Patience, Port, Wire, no_link};

/// A socket to connect to.
#[derive(Debug)]
pub(super) struct SocketPort {
    path: PathBuf,
}

impl SocketPort {
    pub(super) const fn new(path: PathBuf) -> Self {
        Self { path }
    }
}

impl Port for SocketPort {
    fn name(&self) -> String {
        format!("unix:{}", self.path.display())
    }

    fn nature(&self) -> Nature {
        Nature { baud: None, console: true, listens: false }
    }

    fn open(&mut self, patience: &Patience<'_>) -> Result<Wire> {
        let path = self.path.clone();
        // Connecting blocks while the listener's queue is full.
        let connected = patience.run(move || UnixStream::connect(path))?;
        match connected {
            Some(Ok(stream)) => Wire::duplex(stream.into(), None, Box::new(())),
            Some(Err(error)) => {
                let hint = match error.kind() {
                    io::ErrorKind::NotFound => {
                        "is the virtual machine running, and is this the \
                         path of its serial socket?"
                    }
                    io::ErrorKind::ConnectionRefused => {
                        "the socket is left over: whoever made it is gone"
                    }
                    io::ErrorKind::PermissionDenied => {
                        "run e2wire as the user who owns the socket"
                    }
                    _ => "is this the path of a stream socket?",
                };
                Err(no_link(format!("cannot connect to {}", self.name()))
                    .because(error)
                    .hint(hint))
            }
            None => Err(no_link(format!("{} takes nobody in", self.name()))
                .hint("another program is connected to it: end that one")),
        }
    }
}
