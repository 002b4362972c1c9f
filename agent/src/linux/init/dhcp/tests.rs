use super::*;

const MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
const GIVEN: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);

fn seconds(seconds: u64) -> Instant {
    Instant::from_micros(seconds * 1_000_000)
}

/// What a client sent, as far as a server looks at it.
#[derive(Debug, PartialEq)]
struct Sent {
    kind: MessageType,
    xid: u32,
    own: Ipv4Addr,
    requested: Option<Ipv4Addr>,
    server: Option<Ipv4Addr>,
    broadcast: bool,
}

fn turn(client: &mut Client, now: Instant) -> Option<Sent> {
    let mut buffer = [0; PACKET_BYTES_MAX];
    let bytes = client.turn(now, &mut buffer)?;
    let broadcast = bytes[10] & 0x80 != 0;
    let packet = Packet::decode(bytes).unwrap();
    let mut sent = Sent {
        kind: MessageType::Decline,
        xid: packet.xid,
        own: packet.ciaddr,
        requested: None,
        server: None,
        broadcast,
    };
    for option in packet.options.iter() {
        match option {
            DhcpOption::MessageType(kind) => sent.kind = kind,
            DhcpOption::RequestedIpAddress(ip) => sent.requested = Some(ip),
            DhcpOption::ServerIdentifier(ip) => sent.server = Some(ip),
            _ => {}
        }
    }
    Some(sent)
}

/// A server's reply.
fn reply(
    kind: MessageType,
    xid: u32,
    mac: [u8; 6],
    ip: Ipv4Addr,
) -> Vec<u8, 600> {
    let options = [
        DhcpOption::MessageType(kind),
        DhcpOption::ServerIdentifier(SERVER),
        DhcpOption::IpAddressLeaseTime(600),
        DhcpOption::SubnetMask(Ipv4Addr::new(255, 255, 255, 0)),
    ];
    let asked = Packet::new_request(mac, xid, 0, None, true, Options::new(&[]));
    let packet = asked.new_reply(Some(ip), Options::new(&options));
    let mut buffer = [0; 600];
    Vec::from_slice(packet.encode(&mut buffer).unwrap()).unwrap()
}

/// A client that has just got its lease, at second 1.
fn bound() -> Client {
    let mut client = Client::new(MAC, 77, seconds(0));
    let discover = turn(&mut client, seconds(0)).unwrap();
    let offer = reply(MessageType::Offer, discover.xid, MAC, GIVEN);
    assert_eq!(client.received(&offer, seconds(1)), None);
    let request = turn(&mut client, seconds(1)).unwrap();
    assert_eq!(
        request,
        Sent {
            kind: MessageType::Request,
            xid: discover.xid,
            own: Ipv4Addr::UNSPECIFIED,
            requested: Some(GIVEN),
            server: Some(SERVER),
            broadcast: true,
        }
    );
    let ack = reply(MessageType::Ack, request.xid, MAC, GIVEN);
    assert_eq!(
        client.received(&ack, seconds(1)),
        Some(Change::Leased(Address {
            address: GIVEN,
            netmask: Ipv4Addr::new(255, 255, 255, 0),
            gateway: None,
        }))
    );
    client
}

#[test]
fn a_search_is_repeated_with_growing_pauses_until_somebody_offers() {
    let mut client = Client::new(MAC, 77, seconds(0));
    let mut times = std::vec::Vec::new();
    for now in 0..60 {
        if let Some(sent) = turn(&mut client, seconds(now)) {
            assert_eq!(sent.kind, MessageType::Discover);
            assert!(sent.broadcast);
            times.push(now);
        }
    }
    assert_eq!(times, [0, 1, 3, 7, 15, 31, 47]);
}

#[test]
fn a_lease_is_renewed_at_half_time_and_lost_at_its_end() {
    let mut client = bound();
    assert_eq!(turn(&mut client, seconds(300)), None);
    let renewal = turn(&mut client, seconds(301)).unwrap();
    assert_eq!(renewal.kind, MessageType::Request);
    assert_eq!(renewal.own, GIVEN);
    assert_eq!((renewal.requested, renewal.server), (None, None));
    assert_eq!(client.expire(seconds(600)), None);
    let mut late = bound();
    assert_eq!(late.expire(seconds(601)), Some(Change::Lost));
    let search = turn(&mut late, seconds(601)).unwrap();
    assert_eq!(search.kind, MessageType::Discover);

    let ack = reply(MessageType::Ack, renewal.xid, MAC, GIVEN);
    assert!(matches!(
        client.received(&ack, seconds(302)),
        Some(Change::Leased(_))
    ));
    assert_eq!(client.expire(seconds(900)), None);
    assert_eq!(client.expire(seconds(902)), Some(Change::Lost));
}

#[test]
fn an_offer_that_nobody_stands_by_leads_to_a_new_search() {
    let mut client = Client::new(MAC, 77, seconds(0));
    let discover = turn(&mut client, seconds(0)).unwrap();
    let offer = reply(MessageType::Offer, discover.xid, MAC, GIVEN);
    client.received(&offer, seconds(0));
    let mut kinds = std::vec::Vec::new();
    for now in 0..60 {
        kinds.extend(turn(&mut client, seconds(now)).map(|sent| sent.kind));
    }
    assert_eq!(kinds[..4], [MessageType::Request; 4]);
    assert_eq!(kinds[4], MessageType::Discover);

    let mut refused = bound();
    let renewal = turn(&mut refused, seconds(301)).unwrap();
    let nak = reply(MessageType::Nak, renewal.xid, MAC, GIVEN);
    assert_eq!(refused.received(&nak, seconds(301)), Some(Change::Lost));
}

#[test]
fn what_is_meant_for_others_or_makes_no_sense_changes_nothing() {
    let mut client = Client::new(MAC, 77, seconds(0));
    let xid = turn(&mut client, seconds(0)).unwrap().xid;
    let good = reply(MessageType::Offer, xid, MAC, GIVEN);
    for bytes in [
        &reply(MessageType::Offer, xid + 1, MAC, GIVEN)[..],
        &reply(MessageType::Offer, xid, [1; 6], GIVEN),
        &reply(MessageType::Offer, xid, MAC, Ipv4Addr::UNSPECIFIED),
        &reply(MessageType::Offer, xid, MAC, Ipv4Addr::BROADCAST),
        &reply(MessageType::Ack, xid, MAC, GIVEN),
        b"",
    ] {
        assert_eq!(client.received(bytes, seconds(1)), None);
        assert_eq!(client.state, State::Selecting);
    }
    // Every cut and every flipped bit is taken without a panic.
    for length in 0..good.len() {
        client.received(&good[..length], seconds(1));
    }
    for bit in 0..good.len() * 8 {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        bound().received(&bytes, seconds(1));
    }
}
