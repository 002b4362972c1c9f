//! A DHCP client as a state machine: it takes replies and the time, and
//! gives packets and a lease (RFC 2131).
//!
//! It always broadcasts, also to renew: that is what rebinding does, it needs
//! no route, and a server that moved still answers.

use core::net::Ipv4Addr;

use e2wire_agent::clock::{Duration, Instant};
use edge_dhcp::{DhcpOption, MessageType, Options, Packet, Settings};
use heapless::Vec;

use super::parameters::Address;

/// The longest packet that is made or taken: every server may send 576
/// bytes, and few send more.
pub(crate) const PACKET_BYTES_MAX: usize = 1024;

/// The first pause before a packet is sent again; it doubles.
const AGAIN_MILLIS_MIN: u32 = 1_000;
/// The longest pause.
const AGAIN_MILLIS_MAX: u32 = 16_000;
/// Requests without an answer before the search starts anew.
const REQUESTS_MAX: u32 = 4;
/// A lease of a server that says nothing of its time.
const LEASE_SECONDS: u32 = 3600;
/// A lease is never renewed more often.
const LEASE_SECONDS_MIN: u32 = 60;

/// Options that are asked for (RFC 2132).
const SUBNET_MASK: u8 = 1;
const ROUTER: u8 = 3;
const LEASE_TIME: u8 = 51;

/// Where a packet has its flags; the first bit asks for broadcast answers.
const FLAGS: core::ops::Range<usize> = 10..12;

/// How far it has come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    /// Nobody has offered anything.
    Selecting,
    /// This was offered, and asked for.
    Requesting { offer: Ipv4Addr, server: Option<Ipv4Addr> },
    /// It is ours until `expires`; renewed from `again` on.
    Bound { lease: Ipv4Addr, expires: Instant },
}

/// What a reply changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Change {
    /// The address is ours, for the first time or again.
    Leased(Address),
    /// The address is not ours any more.
    Lost,
}

/// The client of one interface.
pub(crate) struct Client {
    mac: [u8; 6],
    state: State,
    /// Names the exchange.
    xid: u32,
    /// When the next packet is due.
    again: Instant,
    pause_millis: u32,
    sent: u32,
    began: Instant,
}

impl Client {
    /// For the interface with this hardware address. `seed` tells its
    /// exchanges from those of others.
    pub(crate) fn new(mac: [u8; 6], seed: u32, now: Instant) -> Self {
        Self {
            mac,
            state: State::Selecting,
            xid: seed,
            again: now,
            pause_millis: AGAIN_MILLIS_MIN,
            sent: 0,
            began: now,
        }
    }

    /// When `turn` has something to do.
    pub(crate) fn deadline(&self) -> Instant {
        match self.state {
            State::Bound { expires, .. } => self.again.min(expires),
            _ => self.again,
        }
    }

    /// The lease ran out without anybody renewing it.
    pub(crate) fn expire(&mut self, now: Instant) -> Option<Change> {
        match self.state {
            State::Bound { expires, .. } if expires <= now => {
                self.start_over(now);
                Some(Change::Lost)
            }
            _ => None,
        }
    }

    fn start_over(&mut self, now: Instant) {
        self.state = State::Selecting;
        self.xid = self.xid.wrapping_add(1);
        self.again = now;
        self.pause_millis = AGAIN_MILLIS_MIN;
        self.sent = 0;
        self.began = now;
    }

    /// The packet that is due, to be broadcast.
    pub(crate) fn turn<'b>(
        &mut self,
        now: Instant,
        buffer: &'b mut [u8; PACKET_BYTES_MAX],
    ) -> Option<&'b [u8]> {
        if now < self.again {
            return None;
        }
        if matches!(self.state, State::Requesting { .. })
            && self.sent >= REQUESTS_MAX
        {
            self.start_over(now);
        }
        self.sent = self.sent.saturating_add(1);
        self.again = now.after(Duration::from_millis(self.pause_millis));
        self.pause_millis =
            self.pause_millis.saturating_mul(2).min(AGAIN_MILLIS_MAX);
        let (kind, own) = match self.state {
            State::Selecting => (MessageType::Discover, None),
            State::Requesting { .. } => (MessageType::Request, None),
            State::Bound { lease, .. } => (MessageType::Request, Some(lease)),
        };
        // Renewing names the address as its own instead of asking for it.
        let (requested, server) = match self.state {
            State::Requesting { offer, server } => (Some(offer), server),
            _ => (None, None),
        };
        let parameters = [SUBNET_MASK, ROUTER, LEASE_TIME];
        let wanted = [
            Some(DhcpOption::MessageType(kind)),
            Some(DhcpOption::ParameterRequestList(&parameters)),
            requested.map(DhcpOption::RequestedIpAddress),
            server.map(DhcpOption::ServerIdentifier),
        ];
        let mut options: Vec<DhcpOption<'_>, 4> = Vec::new();
        options.extend(wanted.into_iter().flatten());
        let seconds = now.since(self.began).micros().wrapping_div(1_000_000);
        let packet = Packet::new_request(
            self.mac,
            self.xid,
            u16::try_from(seconds).unwrap_or(u16::MAX),
            own,
            // A broadcast answer reaches an interface without an address.
            own.is_none(),
            Options::new(&options),
        );
        let length = packet.encode(buffer).ok()?.len();
        if let Some(flags) = buffer.get_mut(FLAGS) {
            // edge-dhcp 0.8 sets a reserved bit instead.
            flags.copy_from_slice(if own.is_none() {
                &[0x80, 0]
            } else {
                &[0, 0]
            });
        }
        buffer.get(..length)
    }

    /// Takes a packet that came in.
    pub(crate) fn received(
        &mut self,
        bytes: &[u8],
        now: Instant,
    ) -> Option<Change> {
        let packet = Packet::decode(bytes).ok()?;
        if !packet.reply || !packet.is_for_us(&self.mac, self.xid) {
            return None;
        }
        let kind = packet.options.iter().find_map(|option| match option {
            DhcpOption::MessageType(kind) => Some(kind),
            _ => None,
        })?;
        match (self.state, kind) {
            (State::Selecting, MessageType::Offer) => {
                let settings = Settings::new(&packet);
                if is_usable(settings.ip) {
                    self.state = State::Requesting {
                        offer: settings.ip,
                        server: settings.server_ip,
                    };
                    self.again = now;
                    self.pause_millis = AGAIN_MILLIS_MIN;
                    self.sent = 0;
                }
                None
            }
            (
                State::Requesting { .. } | State::Bound { .. },
                MessageType::Ack,
            ) => self.acknowledged(&Settings::new(&packet), now),
            (State::Requesting { .. }, MessageType::Nak) => {
                self.start_over(now);
                None
            }
            (State::Bound { .. }, MessageType::Nak) => {
                self.start_over(now);
                Some(Change::Lost)
            }
            _ => None,
        }
    }

    fn acknowledged(
        &mut self,
        settings: &Settings<'_>,
        now: Instant,
    ) -> Option<Change> {
        if !is_usable(settings.ip) {
            return None;
        }
        let seconds = settings
            .lease_time_secs
            .unwrap_or(LEASE_SECONDS)
            .max(LEASE_SECONDS_MIN);
        let after = |seconds: u32| {
            let micros = u64::from(seconds).saturating_mul(1_000_000);
            now.after(Duration::from_micros(micros))
        };
        self.state =
            State::Bound { lease: settings.ip, expires: after(seconds) };
        self.again = after(seconds.wrapping_div(2));
        self.pause_millis = AGAIN_MILLIS_MAX;
        self.sent = 0;
        self.xid = self.xid.wrapping_add(1);
        Some(Change::Leased(Address {
            address: settings.ip,
            netmask: settings.subnet.unwrap_or(Ipv4Addr::new(255, 255, 255, 0)),
            gateway: settings.gateway.filter(|ip| is_usable(*ip)),
        }))
    }
}

/// An address that a machine can have.
fn is_usable(address: Ipv4Addr) -> bool {
    !address.is_unspecified()
        && !address.is_broadcast()
        && !address.is_multicast()
        && !address.is_loopback()
}

#[cfg(test)]
mod tests;
