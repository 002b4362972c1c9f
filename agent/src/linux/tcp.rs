//! TCP: connections that come, and one that is made.

use core::net::SocketAddr;
use core::time::Duration;

use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketFlags, SocketType, accept_with, bind, connect,
    ipproto, listen, socket_with, sockopt,
};

/// A peer that vanished without a word is noticed after about a minute.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_COUNT: u32 = 3;
const UNACKNOWLEDGED_MILLIS_MAX: u32 = 60_000;

fn socket(address: SocketAddr) -> Result<OwnedFd, Errno> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    socket_with(
        family,
        SocketType::STREAM,
        SocketFlags::NONBLOCK | SocketFlags::CLOEXEC,
        Some(ipproto::TCP),
    )
}

/// Waits for connections at `address`.
///
/// # Errors
///
/// What the kernel says.
pub(crate) fn listen_at(address: SocketAddr) -> Result<OwnedFd, Errno> {
    let fd = socket(address)?;
    sockopt::set_socket_reuseaddr(&fd, true)?;
    bind(&fd, &address)?;
    listen(&fd, 8)?;
    Ok(fd)
}

/// The next connection, `None` when there is none now.
///
/// # Errors
///
/// The socket itself is no good.
pub(crate) fn accept(listener: &OwnedFd) -> Result<Option<OwnedFd>, Errno> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    match accept_with(listener, flags) {
        Ok(fd) => {
            tune(&fd);
            Ok(Some(fd))
        }
        Err(error @ (Errno::BADF | Errno::INVAL | Errno::NOTSOCK)) => {
            Err(error)
        }
        // Nobody there, gone again, or no memory: later is soon enough.
        Err(_) => Ok(None),
    }
}

/// Begins to connect to `address`; done when the socket becomes writable.
///
/// # Errors
///
/// What the kernel says at once.
pub(crate) fn begin_connect(address: SocketAddr) -> Result<OwnedFd, Errno> {
    let fd = socket(address)?;
    match connect(&fd, &address) {
        Ok(()) | Err(Errno::INPROGRESS | Errno::INTR) => Ok(fd),
        Err(error) => Err(error),
    }
}

/// Whether a connection that was begun is there now.
///
/// # Errors
///
/// Why not.
pub(crate) fn finish_connect(fd: &OwnedFd) -> Result<(), Errno> {
    sockopt::socket_error(fd)??;
    tune(fd);
    Ok(())
}

/// Small frames at once, and a dead peer noticed. None of it is essential.
fn tune(fd: impl AsFd) {
    let fd = fd.as_fd();
    let _ = sockopt::set_tcp_nodelay(fd, true);
    let _ = sockopt::set_socket_keepalive(fd, true);
    let _ = sockopt::set_tcp_keepidle(fd, KEEPALIVE_IDLE);
    let _ = sockopt::set_tcp_keepintvl(fd, KEEPALIVE_INTERVAL);
    let _ = sockopt::set_tcp_keepcnt(fd, KEEPALIVE_COUNT);
    let _ = sockopt::set_tcp_user_timeout(fd, UNACKNOWLEDGED_MILLIS_MAX);
}
