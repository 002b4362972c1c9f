//! Sessions: their begin and end, what they may do, lists, logs, power.

use e2wire_agent::agent::Notice;
use e2wire_agent::memory::PORTS_MAX;
use e2wire_agent::port::PortKind;
use e2wire_protocol::coding::Coding;
use e2wire_protocol::digest::{BootId, SessionId};
use e2wire_protocol::limits::LINE_BYTES_MAX;
use e2wire_protocol::message::{
    DrainLog, Failure, Hello, ListDevices, LogStream, PowerAction, ReplyBody,
    Request, RequestBody, Rights,
};
use e2wire_protocol::version::Versions;

use crate::rig::{BOOT, Disk, RIGHTS, Rig};

#[test]
fn hello_tells_who_and_what_is_there() {
    let mut rig = Rig::new(vec![]);
    let mut client = rig.connect(PortKind::Stream);
    rig.hello(&mut client, 5);
    rig.pass(20);
    let got = rig.run(&mut client);
    let ReplyBody::Hello(hello) = got[0].body() else { panic!("{got:?}") };
    assert_eq!(hello.versions, Versions::OURS);
    assert_eq!((hello.session, hello.boot), (SessionId([5; 8]), BOOT));
    assert!(hello.rights.has(Rights::INSECURE));
    assert!(!hello.rights.has(Rights::WRITE));
    assert_eq!((hello.port, hello.machine.vendor), ("port0", "Bench"));
    assert_eq!((hello.limits.zstd_level, hello.uptime_millis), (9, 20));
    let reply = got[0].reply();
    assert_eq!((reply.number, reply.seen, reply.answers), (1, 1, 1));
    assert_eq!(
        rig.agent.next_notice(),
        Some(Notice::SessionBegan(client.port))
    );
}

#[test]
fn a_repeated_hello_is_answered_again_and_ends_nothing() {
    let mut rig = Rig::new(vec![Disk::new("sda", 1000)]);
    let mut client = rig.host();
    rig.send(&mut client, RequestBody::Echo);
    rig.hello(&mut client, 1);
    let got = rig.run(&mut client);
    assert!(matches!(got[0].body(), ReplyBody::Echo));
    assert_eq!(got[0].tail(), b"echo me");
    assert!(matches!(got[1].body(), ReplyBody::Hello(_)));
    assert_eq!(got[1].reply().number, 3);
    // Another session starts counting anew and drops what was open.
    rig.send(&mut client, RequestBody::Echo);
    rig.hello(&mut client, 2);
    let got = rig.run(&mut client);
    assert_eq!(got.len(), 1);
    assert_eq!((got[0].reply().number, got[0].reply().seen), (1, 5));
}

#[test]
fn nothing_is_served_before_hello_nor_to_another_run_or_version() {
    let mut rig = Rig::new(vec![]);
    let mut client = rig.connect(PortKind::Stream);
    rig.send(&mut client, RequestBody::Echo);
    assert_eq!(rig.run(&mut client)[0].failure(), Failure::NoSession);
    let mut client = rig.host();
    let request =
        Request { boot: BootId([1; 8]), number: 9, body: RequestBody::Echo };
    let mut line = vec![0; LINE_BYTES_MAX];
    let length = request.encode(Coding::Binary, b"", &mut line).unwrap();
    rig.agent.received(client.port, &line[..length], rig.now);
    let got = rig.run(&mut client);
    assert_eq!(got[0].failure(), Failure::Boot(BOOT));
    assert_eq!(got[0].reply().answers, 9);
    let versions = Versions { min: 900, current: 901 };
    let session = SessionId([9; 8]);
    let (coding, window) = (Coding::Binary, 1);
    let hello = Hello { versions, session, coding, window };
    rig.send(&mut client, RequestBody::Hello(hello));
    rig.send(&mut client, RequestBody::Echo);
    let got = rig.run(&mut client);
    let hello = got.iter().find_map(|got| match got.body() {
        ReplyBody::Hello(hello) => Some(hello.versions),
        _ => None,
    });
    assert_eq!(hello, Some(Versions::OURS));
    let refused = got.iter().any(|got| {
        got.body() == ReplyBody::Failed(Failure::Version(Versions::OURS))
    });
    assert!(refused, "{got:?}");
}

#[test]
fn a_printable_host_is_answered_as_it_wishes() {
    for (asked, expected) in [
        (Coding::Binary, Coding::Binary),
        (Coding::Printable, Coding::Printable),
    ] {
        let mut rig = Rig::new(vec![]);
        let mut client = rig.connect(PortKind::Serial);
        rig.run(&mut client);
        let hello = Hello {
            versions: Versions::OURS,
            session: SessionId([3; 8]),
            coding: asked,
            window: 4096,
        };
        // The request itself is printable in either case.
        client.coding = Coding::Printable;
        rig.send(&mut client, RequestBody::Hello(hello));
        rig.send(&mut client, RequestBody::Echo);
        let got = rig.run(&mut client);
        assert_eq!(got.len(), 2);
        assert!(got.iter().all(|got| got.coding == expected));
        assert_eq!(client.broken, 0);
    }
}

#[test]
fn people_at_a_serial_line_are_told_who_is_there() {
    let mut rig = Rig::new(vec![]);
    let mut client = rig.connect(PortKind::Serial);
    rig.run(&mut client);
    let text = String::from_utf8(std::mem::take(&mut client.text)).unwrap();
    assert!(text.contains("e2wire-agent 0.1.0 ready on port0, ro"), "{text}");
    assert!(text.contains("--insecure"), "{text}");
    rig.pass(1000);
    rig.run(&mut client);
    assert_eq!(client.text, b"");
    rig.agent.received(client.port, b"\r", rig.now);
    rig.run(&mut client);
    assert!(!client.text.is_empty());
    client.text.clear();
    assert_eq!(
        rig.agent.deadline().unwrap().since(rig.now).micros(),
        10_000_000
    );
    rig.pass(10_000);
    rig.run(&mut client);
    assert!(!client.text.is_empty());
    client.text.clear();
    // Not while a host speaks, and never on a connection.
    rig.hello(&mut client, 1);
    rig.run(&mut client);
    rig.pass(60_000);
    rig.run(&mut client);
    assert_eq!(client.text, b"");
    let mut stream = rig.connect(PortKind::Stream);
    rig.pass(60_000);
    rig.run(&mut stream);
    assert_eq!(stream.text, b"");
}

#[test]
fn devices_are_listed_page_by_page() {
    let names = ["sda", "sdb", "sdc"];
    let disks = names.map(|name| Disk::new(name, 8));
    let ids: Vec<_> = disks.iter().map(Disk::id).collect();
    let mut rig = Rig::new(disks.into());
    let mut client = rig.host();
    let list = |first, count| {
        RequestBody::Devices(ListDevices { rescan: true, first, count })
    };
    rig.send(&mut client, list(0, 2));
    rig.send(&mut client, list(2, 50));
    rig.send(&mut client, list(3, 1));
    let got = rig.run(&mut client);
    assert_eq!(got.len(), 4);
    for (i, got) in got[..3].iter().enumerate() {
        let ReplyBody::Device(device) = got.body() else { panic!("{got:?}") };
        assert_eq!((usize::from(device.index), device.total), (i, 3));
        assert_eq!((device.facts.name, device.id), (names[i], ids[i]));
        assert_eq!(device.facts.size, 4096);
    }
    let ReplyBody::NoMoreDevices(count) = got[3].body() else { panic!() };
    assert_eq!(count.total, 3);
    // A disk that is pulled is gone from the list.
    rig.disks.disks[1].gone = true;
    rig.send(&mut client, list(0, 9));
    let got = rig.run(&mut client);
    let listed: Vec<_> = got
        .iter()
        .map(|got| match got.body() {
            ReplyBody::Device(device) => (device.facts.name, device.total),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(listed, [("sda", 2), ("sdc", 2)]);
}

#[test]
fn a_disk_that_does_not_say_who_it_is_holds_up_nobody_for_long() {
    let mut disks = vec![Disk::new("sda", 8), Disk::new("sdb", 8)];
    disks[1].unknown = true;
    let late = disks[1].id();
    let mut rig = Rig::new(disks);
    let mut client = rig.host();
    let list = ListDevices { rescan: true, first: 0, count: 9 };
    rig.send(&mut client, RequestBody::Devices(list));
    rig.send(&mut client, RequestBody::Flush(late));
    assert!(rig.run(&mut client).is_empty());
    // Others are served meanwhile.
    rig.send(&mut client, RequestBody::Echo);
    assert_eq!(rig.run(&mut client).len(), 1);
    rig.pass(1900);
    rig.run(&mut client);
    rig.pass(200);
    let got = rig.run(&mut client);
    assert_eq!(got.len(), 2, "{got:?}");
    assert!(matches!(got[0].body(), ReplyBody::Device(it) if it.total == 1));
    assert_eq!(got[1].failure(), Failure::NoDevice);
    // One that answers in time is there.
    rig.send(&mut client, RequestBody::Devices(list));
    rig.send(&mut client, RequestBody::Flush(late));
    assert!(rig.run(&mut client).is_empty());
    rig.disks.disks[1].unknown = false;
    let got = rig.run(&mut client);
    assert_eq!(got.len(), 3, "{got:?}");
    assert!(got.iter().any(|got| got.body() == ReplyBody::Done));
}

#[test]
fn the_longest_texts_of_devices_are_cut_and_still_fit() {
    let long: &'static str = Box::leak("\u{e9}x".repeat(4000).into());
    let mut rig = Rig::new(vec![Disk::new(long, 8)]);
    let mut client = rig.host();
    let list = ListDevices { rescan: false, first: 0, count: 1 };
    rig.send(&mut client, RequestBody::Devices(list));
    let got = rig.run(&mut client);
    let ReplyBody::Device(device) = got[0].body() else { panic!("{got:?}") };
    assert_eq!(device.facts.name.len(), 192);
    // The next character would be cut in two.
    assert_eq!(device.facts.serial.len(), 63);
}

#[test]
fn logs_come_when_asked_for_and_no_byte_otherwise() {
    let mut rig = Rig::new(vec![]);
    let mut client = rig.host();
    rig.agent.log(LogStream::Kernel, b"6,1,0,-;ata3: hard resetting link\n");
    rig.agent.log(LogStream::Agent, b"\x01\x02");
    assert_eq!(rig.run(&mut client).len(), 0);
    let ask = |stream, from, bytes, wait_millis| {
        RequestBody::Log(DrainLog { stream, from, bytes, wait_millis })
    };
    rig.send(&mut client, ask(LogStream::Kernel, 7, 4, 1000));
    rig.send(&mut client, ask(LogStream::Agent, 0, 400, 0));
    let got = rig.run(&mut client);
    let ReplyBody::Log(piece) = got[0].body() else { panic!("{got:?}") };
    assert_eq!((piece.from, piece.end, got[0].tail()), (7, 34, &b";ata"[..]));
    let ReplyBody::Log(piece) = got[1].body() else { panic!("{got:?}") };
    assert_eq!((piece.stream, piece.end), (LogStream::Agent, 2));
    // A request that waits is answered as soon as there is something.
    rig.send(&mut client, ask(LogStream::Kernel, 34, 400, 5000));
    assert_eq!(rig.run(&mut client).len(), 0);
    assert_eq!(
        rig.agent.deadline().unwrap().since(rig.now).micros(),
        5_000_000
    );
    rig.pass(1000);
    assert_eq!(rig.run(&mut client).len(), 0, "no Busy for a log");
    rig.agent.log(LogStream::Kernel, b"panic");
    let got = rig.run(&mut client);
    assert_eq!(got[0].tail(), b"panic");
    rig.send(&mut client, ask(LogStream::Kernel, 39, 400, 5000));
    rig.run(&mut client);
    rig.pass(5000);
    let got = rig.run(&mut client);
    assert_eq!((got.len(), got[0].tail()), (1, &b""[..]));
}

#[test]
fn power_needs_its_right_and_the_answer_goes_first() {
    let mut rig = Rig::new(vec![]);
    let mut client = rig.host();
    let reboot = RequestBody::Power(PowerAction::Reboot);
    rig.send(&mut client, reboot.clone());
    let got = rig.run(&mut client);
    assert_eq!(got[0].failure(), Failure::Rights(Rights::POWER));
    assert_eq!(rig.agent.power_action(rig.now), None);
    let mut rig = Rig::with_rights(vec![], RIGHTS.with(Rights::POWER));
    let mut client = rig.host();
    rig.send(&mut client, reboot);
    rig.step();
    assert_eq!(rig.agent.power_action(rig.now), None);
    let got = rig.run(&mut client);
    assert!(matches!(got[0].body(), ReplyBody::Done));
    let action = rig.agent.power_action(rig.now);
    assert_eq!(action, Some(PowerAction::Reboot));
    assert_eq!(rig.agent.power_action(rig.now), None);
}

#[test]
fn ports_are_given_again_and_their_number_is_bounded() {
    let mut rig = Rig::new(vec![]);
    let clients: Vec<_> =
        (0..PORTS_MAX).map(|_| rig.connect(PortKind::Stream)).collect();
    let more = rig.agent.open_port("more", PortKind::Stream, 0, rig.now);
    assert_eq!(more, None);
    rig.agent.close_port(clients[3].port);
    let mut again = rig.host();
    assert_eq!(again.port, clients[3].port);
    rig.send(&mut again, RequestBody::Echo);
    assert_eq!(rig.run(&mut again).len(), 1);
}

#[test]
fn a_cancel_drops_what_is_open_and_nothing_later() {
    let mut disk = Disk::new("sda", 1000);
    disk.hangs = true;
    let id = disk.id();
    let mut rig = Rig::new(vec![disk]);
    let mut client = rig.host();
    rig.send(&mut client, RequestBody::Flush(id));
    assert_eq!(rig.run(&mut client).len(), 0);
    let cancel = rig.send(&mut client, RequestBody::Cancel);
    let flush = rig.send(&mut client, RequestBody::Flush(id));
    rig.disks.disks[0].hangs = false;
    let got = rig.run(&mut client);
    let answers: Vec<_> = got.iter().map(|got| got.reply().answers).collect();
    assert_eq!(answers, [cancel, flush]);
    assert!(got.iter().all(|got| matches!(got.body(), ReplyBody::Done)));
}
