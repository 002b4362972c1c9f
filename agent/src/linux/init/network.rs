//! The network of an agent that is init: one interface, one address.

use core::ffi::CStr;
use core::net::{Ipv4Addr, SocketAddrV4};

use e2wire_agent::clock::{Duration, Instant};
use rustix::event::{PollFd, PollFlags};
use rustix::fd::OwnedFd;
use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::ioctl::{self, Opcode, Setter};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv,
    sendto, socket_with, sockopt,
};
use rustix::rand::{GetRandomFlags, getrandom};

use super::dhcp::{Change, Client, PACKET_BYTES_MAX};
use super::parameters::{Address, Net};
use crate::linux::file::Attribute;
use crate::linux::sysfs::{Text, for_each_in, text};
use crate::linux::text::Path;

/// Interfaces are looked at this often until one has a link.
const LOOK_MILLIS: u32 = 500;

/// `ARPHRD_ETHER` in /sys/class/net/NAME/type.
const ETHERNET: u64 = 1;

/// The network and how far it has come.
pub(crate) struct Network {
    wanted: Net,
    /// Only this interface, if one was named.
    named: Option<Text>,
    state: State,
    next_look: Instant,
}

enum State {
    /// No interface with a link was found yet.
    Looking,
    /// The address was given and is set.
    Set,
    /// A server is asked for one.
    Asking { interface: Text, client: Client, socket: OwnedFd },
}

impl Network {
    /// Not begun.
    pub(crate) fn new(wanted: Net, named: Option<Text>) -> Self {
        Self {
            wanted,
            named,
            state: State::Looking,
            next_look: Instant::default(),
        }
    }

    /// Does what is due.
    pub(crate) fn turn(&mut self, now: Instant) {
        if self.wanted == Net::Off {
            return;
        }
        match &mut self.state {
            State::Set => {}
            State::Asking { interface, client, socket } => {
                ask(interface, client, socket, now);
            }
            State::Looking if self.next_look <= now => {
                self.next_look = now.after(Duration::from_millis(LOOK_MILLIS));
                if let Some(interface) = self.look() {
                    self.begin(interface, now);
                }
            }
            State::Looking => {}
        }
    }

    /// When something is due.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match &self.state {
            _ if self.wanted == Net::Off => None,
            State::Set => None,
            State::Looking => Some(self.next_look),
            State::Asking { client, .. } => Some(client.deadline()),
        }
    }

    /// What becomes readable when a server answers.
    pub(crate) fn poll_fd(&self) -> Option<PollFd<'_>> {
        match &self.state {
            State::Asking { socket, .. } => {
                Some(PollFd::new(socket, PollFlags::IN))
            }
            _ => None,
        }
    }

    /// Brings all interfaces up, so that they find their link, and returns
    /// the first that has one.
    fn look(&self) -> Option<Text> {
        let mut found = None;
        for_each_in(c"/sys/class/net", &mut |name| {
            let wanted = match &self.named {
                Some(named) => named.as_bytes() == name.to_bytes(),
                None => attribute(name, b"type").number() == Some(ETHERNET),
            };
            if !wanted {
                return;
            }
            let name_text = text(name.to_bytes());
            if let Err(error) = bring_up(&name_text) {
                defmt::warn!(
                    "{=str} does not come up: errno {=i32}",
                    name_text.as_str(),
                    error.raw_os_error()
                );
            }
            if attribute(name, b"carrier").is_set() && found.is_none() {
                found = Some(name_text);
            }
        });
        found
    }

    fn begin(&mut self, interface: Text, now: Instant) {
        let done = match self.wanted {
            Net::Off => return,
            Net::Static(address) => {
                set_address(&interface, Some(address)).map(|()| State::Set)
            }
            Net::Dhcp => dhcp_socket(&interface).map(|socket| State::Asking {
                client: Client::new(hardware_address(&interface), seed(), now),
                interface: interface.clone(),
                socket,
            }),
        };
        match done {
            Ok(state) => {
                defmt::info!("network at {=str}", interface.as_str());
                self.state = state;
            }
            Err(error) => defmt::warn!(
                "no network at {=str}: errno {=i32}",
                interface.as_str(),
                error.raw_os_error()
            ),
        }
    }
}

/// One turn of a DHCP client.
fn ask(interface: &Text, client: &mut Client, socket: &OwnedFd, now: Instant) {
    let mut buffer = [0; PACKET_BYTES_MAX];
    let mut change = client.expire(now);
    while let Ok((count, _)) = recv(socket, &mut buffer, RecvFlags::empty()) {
        let bytes = buffer.get(..count).unwrap_or_default();
        change = client.received(bytes, now).or(change);
    }
    let result = match change {
        Some(Change::Leased(address)) => {
            defmt::info!(
                "{=str} has the address {=u32:x}",
                interface.as_str(),
                address.address.to_bits()
            );
            set_address(interface, Some(address))
        }
        Some(Change::Lost) => set_address(interface, None),
        None => Ok(()),
    };
    if let Err(error) = result {
        defmt::warn!("address not set: errno {=i32}", error.raw_os_error());
    }
    if let Some(packet) = client.turn(now, &mut buffer) {
        let everybody = SocketAddrV4::new(Ipv4Addr::BROADCAST, 67);
        // A link that is down now may be up at the next attempt.
        let _ = sendto(socket, packet, SendFlags::empty(), &everybody);
    }
}

/// The file `name` of an interface in /sys.
fn attribute(interface: &CStr, name: &[u8]) -> Attribute {
    let parts: [&[u8]; 4] =
        [b"/sys/class/net/", interface.to_bytes(), b"/", name];
    let path = Path::from_parts(&parts).unwrap_or(Path::new());
    Attribute::read(CWD, path.as_c_str())
}

fn hardware_address(interface: &Text) -> [u8; 6] {
    let path = Path::from_parts(&[interface.as_bytes()]);
    let path = path.unwrap_or(Path::new());
    let attribute = attribute(path.as_c_str(), b"address");
    let mut address = [0; 6];
    let text = core::str::from_utf8(attribute.bytes()).unwrap_or_default();
    for (byte, digits) in address.iter_mut().zip(text.trim().split(':')) {
        *byte = u8::from_str_radix(digits, 16).unwrap_or(0);
    }
    address
}

fn seed() -> u32 {
    let mut seed = [0; 4];
    // It keeps exchanges apart; without it the hardware address does.
    let _ = getrandom(&mut seed[..], GetRandomFlags::INSECURE);
    u32::from_ne_bytes(seed)
}

fn dhcp_socket(interface: &Text) -> Result<OwnedFd, Errno> {
    let socket = socket_with(
        AddressFamily::INET,
        SocketType::DGRAM,
        SocketFlags::NONBLOCK | SocketFlags::CLOEXEC,
        None,
    )?;
    sockopt::set_socket_broadcast(&socket, true)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    bind_to_device(&socket, interface)?;
    bind(&socket, &SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 68))?;
    Ok(socket)
}

/// Without it, a packet to everybody has no way out of an interface that has
/// no address yet.
fn bind_to_device(socket: &OwnedFd, interface: &Text) -> Result<(), Errno> {
    super::sockets::bind_to_device(socket, interface.as_bytes())
}

// From <linux/sockios.h>.
const SIOCADDRT: Opcode = 0x890b;
const SIOCGIFFLAGS: Opcode = 0x8913;
const SIOCSIFFLAGS: Opcode = 0x8914;
const SIOCSIFADDR: Opcode = 0x8916;
const SIOCSIFNETMASK: Opcode = 0x891c;

const IFF_UP: u16 = 1;
const RTF_UP: u16 = 1;
const RTF_GATEWAY: u16 = 2;
const AF_INET: u16 = 2;

/// `struct ifreq`, with an address or flags in its union.
#[repr(C)]
#[derive(Clone, Copy)]
struct InterfaceRequest {
    name: [u8; 16],
    value: [u8; 24],
}

/// `struct rtentry` of 64-bit machines.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct RouteEntry {
    pad1: u64,
    target: [u8; 16],
    gateway: [u8; 16],
    netmask: [u8; 16],
    flags: u16,
    pad2: u16,
    pad3: u64,
    pad4: u64,
    metric: u16,
    device: usize,
    mtu: u64,
    window: u64,
    round_trip: u16,
}

const _: () = assert!(size_of::<InterfaceRequest>() == 40);
const _: () = assert!(size_of::<RouteEntry>() == 120);

/// `struct sockaddr_in`.
fn socket_address(address: Ipv4Addr) -> [u8; 16] {
    let mut bytes = [0; 16];
    let family = AF_INET.to_ne_bytes();
    for (place, byte) in bytes
        .iter_mut()
        .zip(family.into_iter().chain([0, 0]).chain(address.octets()))
    {
        *place = byte;
    }
    bytes
}

impl InterfaceRequest {
    fn new(interface: &Text) -> Option<Self> {
        let mut request = Self { name: [0; 16], value: [0; 24] };
        // The last byte stays zero.
        let place = request.name.get_mut(..interface.len())?;
        place.copy_from_slice(interface.as_bytes());
        (interface.len() < 16).then_some(request)
    }

    fn with_address(mut self, address: Ipv4Addr) -> Self {
        let bytes = socket_address(address);
        for (place, byte) in self.value.iter_mut().zip(bytes) {
            *place = byte;
        }
        self
    }
}

/// A socket to ask the kernel about interfaces with.
fn any_socket() -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC;
    socket_with(AddressFamily::INET, SocketType::DGRAM, flags, None)
}

fn bring_up(interface: &Text) -> Result<(), Errno> {
    let socket = any_socket()?;
    let mut request = InterfaceRequest::new(interface).ok_or(Errno::INVAL)?;
    // SAFETY: this request reads and writes a `struct ifreq`.
    unsafe {
        ioctl::ioctl(
            &socket,
            ioctl::Updater::<SIOCGIFFLAGS, _>::new(&mut request),
        )?;
    }
    let flags = request.value.first_chunk_mut::<2>().ok_or(Errno::INVAL)?;
    let up = u16::from_ne_bytes(*flags) | IFF_UP;
    if up == u16::from_ne_bytes(*flags) {
        return Ok(());
    }
    *flags = up.to_ne_bytes();
    // SAFETY: this request reads a `struct ifreq`.
    unsafe { ioctl::ioctl(&socket, Setter::<SIOCSIFFLAGS, _>::new(request)) }
}

/// Gives `interface` an address with its routes, or takes it away.
fn set_address(
    interface: &Text,
    address: Option<Address>,
) -> Result<(), Errno> {
    let socket = any_socket()?;
    let request = InterfaceRequest::new(interface).ok_or(Errno::INVAL)?;
    let own = address.map_or(Ipv4Addr::UNSPECIFIED, |a| a.address);
    // SAFETY: this request reads a `struct ifreq`.
    unsafe {
        let request = request.with_address(own);
        ioctl::ioctl(&socket, Setter::<SIOCSIFADDR, _>::new(request))?;
    }
    let Some(address) = address else {
        return Ok(());
    };
    // SAFETY: this request reads a `struct ifreq`.
    unsafe {
        let request = request.with_address(address.netmask);
        ioctl::ioctl(&socket, Setter::<SIOCSIFNETMASK, _>::new(request))?;
    }
    let Some(gateway) = address.gateway else {
        return Ok(());
    };
    let route = RouteEntry {
        target: socket_address(Ipv4Addr::UNSPECIFIED),
        gateway: socket_address(gateway),
        netmask: socket_address(Ipv4Addr::UNSPECIFIED),
        flags: RTF_UP | RTF_GATEWAY,
        ..RouteEntry::default()
    };
    // SAFETY: this request reads a `struct rtentry`, whose device is none.
    match unsafe { ioctl::ioctl(&socket, Setter::<SIOCADDRT, _>::new(route)) } {
        Err(Errno::EXIST) => Ok(()),
        other => other,
    }
}
