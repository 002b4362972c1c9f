//! What the kernel's command line says to an agent that is init.
//!
//! Words of /e2wire/cmdline, which was packed with the agent, then those of
//! /proc/cmdline: who boots the machine has the last word. What cannot be
//! understood is ignored: an agent that does not come up helps nobody.

use core::net::{IpAddr, Ipv4Addr, SocketAddr};

use heapless::Vec;

use crate::linux::options::{self, Endpoint, TCP_PORT};
use crate::linux::sysfs::{Text, text};

/// The most ports that may be named.
pub(crate) const PORTS_MAX: usize = 8;
/// The most consoles that may be named.
pub(crate) const CONSOLES_MAX: usize = 8;

/// How the machine gets its address.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Net {
    /// Not at all.
    Off,
    /// From a DHCP server.
    Dhcp,
    /// Given.
    Static(Address),
}

/// An address, the network it is in, and the way out of that.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Address {
    /// The machine's own.
    pub(crate) address: Ipv4Addr,
    /// The mask of its network.
    pub(crate) netmask: Ipv4Addr,
    /// The router, if there is one.
    pub(crate) gateway: Option<Ipv4Addr>,
}

/// All of it.
#[derive(Debug)]
pub(crate) struct Parameters {
    /// `e2wire.insecure`: serve whoever comes.
    pub(crate) insecure: bool,
    /// `e2wire.rw`: let hosts write.
    pub(crate) rw: bool,
    /// `e2wire.quiet=0` leaves the kernel's messages on the console.
    pub(crate) quiet: bool,
    /// `e2wire.port=NAME[,BAUD]`: only these serial ports.
    pub(crate) ports: Vec<Endpoint, PORTS_MAX>,
    /// `console=NAME[,BAUD]`.
    pub(crate) consoles: Vec<(Text, Option<u32>), CONSOLES_MAX>,
    /// `e2wire.listen=[ADDR:]PORT`.
    pub(crate) listen: Option<SocketAddr>,
    /// `e2wire.connect=ADDR[:PORT]`.
    pub(crate) connect: Option<SocketAddr>,
    /// `ip=` in the kernel's syntax.
    pub(crate) net: Net,
    /// The interface that `ip=` names.
    pub(crate) interface: Option<Text>,
    /// `e2wire.idle-reboot=`: seconds without a session until a restart.
    pub(crate) idle_reboot_seconds: Option<u32>,
    /// `e2wire.modules=none` loads none.
    pub(crate) modules: bool,
    /// `panic=`: seconds from a panic to the restart.
    pub(crate) panic_seconds: u32,
    /// `e2wire.test-panic` panics at once, for whoever wants to see that the
    /// machine comes back by itself.
    pub(crate) test_panic: bool,
}

/// Time to read what a panic said, where nothing else is asked for.
const PANIC_SECONDS: u32 = 60;

impl Parameters {
    /// As if nothing was said.
    pub(crate) const fn new() -> Self {
        Self {
            insecure: false,
            rw: false,
            quiet: true,
            ports: Vec::new(),
            consoles: Vec::new(),
            listen: None,
            connect: None,
            net: Net::Off,
            interface: None,
            idle_reboot_seconds: None,
            modules: true,
            panic_seconds: PANIC_SECONDS,
            test_panic: false,
        }
    }

    /// What was packed with the agent, overridden by what the kernel was
    /// booted with.
    pub(crate) fn from_lines(packed: &[u8], kernel: &[u8]) -> Self {
        let mut parameters = Self::new();
        parameters.read(packed);
        // Lists grow, and the kernel's ports take the place of the others.
        let before = core::mem::take(&mut parameters.ports);
        parameters.read(kernel);
        if parameters.ports.is_empty() {
            parameters.ports = before;
        }
        parameters
    }

    /// Takes in the words of a command line.
    pub(crate) fn read(&mut self, line: &[u8]) {
        let words = line.split(|b| b.is_ascii_whitespace() || *b == 0);
        for word in words.filter(|word| !word.is_empty()) {
            self.word(word);
        }
    }

    fn word(&mut self, word: &[u8]) {
        let equals = word.iter().position(|byte| *byte == b'=');
        let (name, value) = match equals.and_then(|n| word.split_at_checked(n))
        {
            Some((name, value)) => (name, value.get(1..).unwrap_or_default()),
            None => (word, &b""[..]),
        };
        match name {
            b"e2wire.insecure" => self.insecure = value != b"0",
            b"e2wire.rw" => self.rw = value != b"0",
            b"e2wire.quiet" => self.quiet = value != b"0",
            b"e2wire.port" => {
                if let Some(port) = options::serial(value) {
                    // Those beyond the eighth are ignored.
                    let _ = self.ports.push(port);
                }
            }
            b"console" => {
                let mut parts = value.split(|byte| *byte == b',');
                let name = text(parts.next().unwrap_or_default());
                let baud = parts.next().and_then(options::baud);
                let _ = self.consoles.push((name, baud));
            }
            b"e2wire.listen" => self.listen = listen_address(value),
            b"e2wire.connect" => {
                self.connect = options::socket_address(value);
            }
            b"ip" => self.ip(value),
            b"e2wire.idle-reboot" => {
                self.idle_reboot_seconds = seconds(value);
            }
            b"e2wire.modules" => self.modules = value != b"none",
            b"e2wire.test-panic" => self.test_panic = value != b"0",
            b"panic" => {
                // 0 is the kernel's "for ever", which helps nobody here.
                self.panic_seconds = seconds(value)
                    .filter(|seconds| *seconds > 0)
                    .unwrap_or(PANIC_SECONDS);
            }
            _ => {}
        }
    }

    /// `dhcp`, `off`, or `CLIENT:SERVER:GATEWAY:NETMASK:HOST:DEVICE:HOW`.
    fn ip(&mut self, value: &[u8]) {
        let mut fields = value.split(|byte| *byte == b':');
        let mut field = || fields.next().unwrap_or_default();
        let (client, _server, gateway, netmask) =
            (field(), field(), field(), field());
        let (_host, device, how) = (field(), field(), field());
        let address = |bytes| {
            core::str::from_utf8(bytes)
                .ok()?
                .parse()
                .ok()
                .filter(|address: &Ipv4Addr| !address.is_unspecified())
        };
        self.interface = (!device.is_empty()).then(|| text(device));
        let how = if value.contains(&b':') { how } else { client };
        self.net = match address(client) {
            Some(client) => Net::Static(Address {
                address: client,
                netmask: address(netmask).unwrap_or_else(|| class_mask(client)),
                gateway: address(gateway),
            }),
            None if [&b"off"[..], b"none"].contains(&how) => Net::Off,
            None => Net::Dhcp,
        };
    }

    /// The speed of the consoles, if one of them has one.
    pub(crate) fn console_baud(&self) -> Option<u32> {
        self.consoles.iter().find_map(|(_, baud)| *baud)
    }
}

/// The mask that an address had before masks were written down.
fn class_mask(address: Ipv4Addr) -> Ipv4Addr {
    match address.octets() {
        [0..128, ..] => Ipv4Addr::new(255, 0, 0, 0),
        [128..192, ..] => Ipv4Addr::new(255, 255, 0, 0),
        _ => Ipv4Addr::new(255, 255, 255, 0),
    }
}

/// `7220`, `10.0.0.1:7220`, or nothing for any address and our port.
fn listen_address(value: &[u8]) -> Option<SocketAddr> {
    let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    if value.is_empty() {
        return Some(SocketAddr::new(any, TCP_PORT));
    }
    let port = core::str::from_utf8(value).ok()?.parse().ok();
    port.filter(|port| *port != 0)
        .map(|port| SocketAddr::new(any, port))
        .or_else(|| options::socket_address(value))
}

/// `90`, `90s`, `30m`, `2h`. A negative number, as `panic=` may have, is none.
fn seconds(value: &[u8]) -> Option<u32> {
    let (number, unit) = match value.split_last()? {
        (b's', number) => (number, 1),
        (b'm', number) => (number, 60),
        (b'h', number) => (number, 3600),
        _ => (value, 1),
    };
    let number: u32 = core::str::from_utf8(number).ok()?.parse().ok()?;
    number.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Parameters {
        let mut parameters = Parameters::new();
        parameters.read(line.as_bytes());
        parameters
    }

    #[test]
    fn addresses_are_understood_as_the_kernel_does() {
        let fixed = |address: &str, netmask: &str, gateway: Option<&str>| {
            Net::Static(Address {
                address: address.parse().unwrap(),
                netmask: netmask.parse().unwrap(),
                gateway: gateway.map(|gateway| gateway.parse().unwrap()),
            })
        };
        for (line, net) in [
            ("quiet", Net::Off),
            ("ip=dhcp", Net::Dhcp),
            ("ip=on", Net::Dhcp),
            ("ip=off", Net::Off),
            ("ip=none", Net::Off),
            ("ip=::::::dhcp", Net::Dhcp),
            ("ip=:::::eth0:none", Net::Off),
            (
                "ip=10.0.2.15:::255.255.255.0:::off",
                fixed("10.0.2.15", "255.255.255.0", None),
            ),
            (
                "ip=192.0.2.9:1.1.1.1:192.0.2.10:255.255.255.252:h:eth1:off",
                fixed("192.0.2.9", "255.255.255.252", Some("192.0.2.10")),
            ),
            ("ip=172.16.0.1", fixed("172.16.0.1", "255.255.0.0", None)),
            // The last word counts.
            ("ip=dhcp root=x ip=off", Net::Off),
        ] {
            assert_eq!(read(line).net, net, "{line}");
        }
        let named = read("ip=:::::eth7:dhcp").interface;
        assert_eq!(named.unwrap().as_str(), "eth7");
    }

    #[test]
    fn the_kernels_command_line_overrides_what_was_packed() {
        let packed = b"e2wire.insecure e2wire.rw e2wire.listen=7220 ip=dhcp \
            e2wire.port=ttyS0";
        let found = Parameters::from_lines(
            packed,
            b"console=ttyS1 e2wire.rw=0 ip=off e2wire.port=ttyS2",
        );
        assert!(found.insecure && !found.rw);
        assert_eq!((found.net, found.ports.len()), (Net::Off, 1));
        assert_eq!(found.ports.first(), options::serial(b"ttyS2").as_ref());
        assert_eq!(found.listen, Some("0.0.0.0:7220".parse().unwrap()));
        let found = Parameters::from_lines(packed, b"quiet");
        assert!(found.insecure && found.rw && found.net == Net::Dhcp);
        assert_eq!(found.ports.len(), 1);
        let closed = Parameters::from_lines(packed, b"e2wire.insecure=0");
        assert!(!closed.insecure);
    }

    #[test]
    fn ports_and_consoles_keep_their_speeds() {
        let found = read(
            "console=tty0 console=ttyS1,57600n8 e2wire.port=ttyS2,9600 \
             e2wire.port=hvc0 console=ttyS0",
        );
        assert_eq!(found.console_baud(), Some(57600));
        assert_eq!(found.consoles.len(), 3);
        assert_eq!(found.ports.len(), 2);
        assert!(matches!(found.ports[0], Endpoint::Serial(_, Some(9600))));
        assert!(matches!(found.ports[1], Endpoint::Serial(_, None)));
    }

    #[test]
    fn the_rest_is_understood_or_ignored() {
        let found = read(
            "e2wire.insecure e2wire.listen=7221 e2wire.idle-reboot=30m \
             e2wire.connect=10.0.2.2 panic=5 e2wire.modules=none e2wire.x=y \
             e2wire.quiet=0 e2wire.rw\n",
        );
        assert!(found.rw && !read("e2wire.rw e2wire.rw=0").rw);
        assert!(found.insecure && !found.modules && !found.quiet);
        assert_eq!(found.listen, Some("0.0.0.0:7221".parse().unwrap()));
        assert_eq!(found.connect, Some("10.0.2.2:7220".parse().unwrap()));
        assert_eq!(found.idle_reboot_seconds, Some(1800));
        assert_eq!(found.panic_seconds, 5);
        assert!(!found.test_panic && read("e2wire.test-panic").test_panic);
        let odd = read("panic=-1 e2wire.listen=70000 e2wire.idle-reboot=x =");
        assert_eq!(odd.panic_seconds, 60);
        assert_eq!(odd.listen, None);
        assert_eq!(odd.idle_reboot_seconds, None);
        assert!(!odd.insecure && !odd.rw && odd.modules && odd.quiet);
    }
}
