//! Machines that boot into the real agent, under the real kernel.
//!
//! Each test is one thing that happens to an admin at night. Two machines run
//! at once at most; all of them end within six minutes on two processors.

mod machines;

use std::net::TcpListener;
use std::time::Duration;

use e2wire_protocol::message::{LogStream, PowerAction, Rights};
use e2wire_tests::kernels::Flavour;
use e2wire_tests::qemu::{Bus, Disk, NbdServer, Port};
use e2wire_tests::wire::Wire;

use machines::{
    Scene, accept, at_port, device, filesystem, hello, over_tcp, segment,
};

/// A machine under emulation, beside another one, may take so long.
const BOOT: Duration = Duration::from_secs(120);
/// For all that follows the boot.
const SOON: Duration = Duration::from_secs(40);

#[test]
fn an_nvme_disk_is_read_over_the_console() {
    let disk = filesystem();
    let mut machine = Scene::new(Flavour::Cloud)
        .builder()
        .port(Port::Socket)
        .disk(Disk::file(Bus::Nvme, disk.path(), "NVME0"))
        .start()
        .unwrap();
    // A person who looks at the console sees who is there.
    machine.wait_for_text(0, "e2wire-agent", BOOT).unwrap();
    let mut wire = at_port(&machine, 0);
    let greeting = hello(&mut wire, &mut machine);
    assert_eq!(greeting.port, "ttyS0");
    assert!(greeting.rights.has(Rights::READ.with(Rights::INSECURE)));
    assert!(!greeting.rights.has(Rights::WRITE));
    assert!(greeting.kernel.contains("cloud"), "{}", greeting.kernel);
    let found = device(&mut wire, "NVME0");
    assert_eq!(found.name, "nvme0n1");
    let content = wire.read_all(&found, SOON).unwrap();
    assert!(content.unreadable.is_empty());
    assert!(content.bytes == std::fs::read(disk.path()).unwrap());
}

#[test]
fn kernel_messages_inside_of_frames_cost_only_those_frames() {
    let disk = filesystem();
    let machine = Scene::new(Flavour::Cloud)
        .noisy()
        .builder()
        .port(Port::Socket)
        .disk(Disk::file(Bus::Nvme, disk.path(), "NVME0"))
        .start()
        .unwrap();
    let mut machine = machine;
    let mut wire = at_port(&machine, 0);
    hello(&mut wire, &mut machine);
    let found = device(&mut wire, "NVME0");
    let expected = std::fs::read(disk.path()).unwrap();
    let monitor = machine.monitor().unwrap();
    let noise = machines::Noise::start(monitor);
    let content = wire.read_all(&found, SOON).unwrap();
    let messages = noise.stop().unwrap();
    assert!(messages > 5, "only {messages} messages were forced");
    assert!(content.bytes == expected);
    // It was the line itself that was shared, and nothing of it is lost.
    assert!(wire.text().contains("NMI received"), "{}", wire.text());

    // A BREAK and the letter that would restart the machine, if the agent
    // had left that open.
    machine.send_break(0).unwrap();
    wire.type_raw(b"b").unwrap();
    wire.echo(SOON).unwrap();
    assert!(!wire.text().contains("sysrq: Resetting"));
    assert!(machine.runs().unwrap());
}

#[test]
fn a_virtio_disk_is_read_over_tcp_with_an_address_from_dhcp() {
    let disk = filesystem();
    let mut machine = Scene::new(Flavour::Cloud)
        .with("ip=dhcp e2wire.listen=7220")
        .builder()
        .port(Port::Socket)
        .disk(Disk::file(Bus::Virtio, disk.path(), "VIRTIO0"))
        .forward(7220)
        .start()
        .unwrap();
    let mut wire = over_tcp(&mut machine);
    let found = device(&mut wire, "VIRTIO0");
    assert_eq!(found.name, "vda");
    let content = wire.read_all(&found, SOON).unwrap();
    assert!(content.bytes == std::fs::read(disk.path()).unwrap());
}

#[test]
fn an_agent_calls_home_and_calls_again() {
    let disk = filesystem();
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    // From the machine's network, this one is 10.0.2.2.
    let home = format!("ip=dhcp e2wire.connect=10.0.2.2:{port}");
    let mut machine = Scene::new(Flavour::Cloud)
        .with(&home)
        .builder()
        .port(Port::Socket)
        .disk(Disk::file(Bus::Virtio, disk.path(), "VIRTIO0"))
        .network()
        .start()
        .unwrap();
    let first = {
        let mut wire = accept(&listener, BOOT).unwrap();
        hello(&mut wire, &mut machine).boot
    };
    // The host is gone; it comes back.
    let mut wire = accept(&listener, SOON).unwrap();
    assert_eq!(hello(&mut wire, &mut machine).boot, first);
    let found = device(&mut wire, "VIRTIO0");
    let content = wire.read_all(&found, SOON).unwrap();
    assert!(content.bytes == std::fs::read(disk.path()).unwrap());
}

#[test]
fn the_host_may_sit_at_the_second_of_two_ports() {
    let (first, second) = (filesystem(), filesystem());
    let mut machine = Scene::new(Flavour::Cloud)
        .builder()
        .port(Port::Socket)
        .port(Port::Socket)
        .disk(Disk::file(Bus::Nvme, first.path(), "FIRST"))
        .disk(Disk::file(Bus::Nvme, second.path(), "SECOND"))
        .start()
        .unwrap();
    let mut wire = at_port(&machine, 1);
    assert_eq!(hello(&mut wire, &mut machine).port, "ttyS1");
    for (serial, file) in [("SECOND", &second), ("FIRST", &first)] {
        let found = device(&mut wire, serial);
        let content = wire.read_all(&found, SOON).unwrap();
        assert!(content.bytes == std::fs::read(file.path()).unwrap());
    }
    // The first port is no worse for it.
    let mut console = at_port(&machine, 0);
    assert_eq!(hello(&mut console, &mut machine).port, "ttyS0");
}

#[test]
fn one_file_boots_as_before_and_rescues() {
    let disk = filesystem();
    let (kernel, initrd) = segment();
    let machine = |command_line: &str| {
        e2wire_tests::qemu::Builder::new(&kernel.image, &initrd, command_line)
            .port(Port::Socket)
            .disk(Disk::file(Bus::Nvme, disk.path(), "NVME0"))
            .start()
            .unwrap()
    };
    let console = "console=ttyS0,115200n8 no_timer_check panic=60";
    let mut normal = machine(console);
    normal.wait_for_text(0, "A-NORMAL-BOOT", BOOT).unwrap();
    drop(normal);
    let mut rescue = machine(&format!("{console} rdinit=/e2wire-agent"));
    let mut wire = at_port(&rescue, 0);
    hello(&mut wire, &mut rescue);
    let found = device(&mut wire, "NVME0");
    let content = wire.read_all(&found, SOON).unwrap();
    assert!(content.bytes == std::fs::read(disk.path()).unwrap());
    assert!(!rescue.console(0).contains("A-NORMAL-BOOT"));
}

#[test]
fn a_sata_disk_is_read_under_the_kernel_for_hardware() {
    let disk = filesystem();
    let mut machine = Scene::new(Flavour::Standard)
        .builder()
        .port(Port::Socket)
        .disk(Disk::file(Bus::Ahci, disk.path(), "SATA0"))
        .start()
        .unwrap();
    let mut wire = at_port(&machine, 0);
    hello(&mut wire, &mut machine);
    let found = device(&mut wire, "SATA0");
    assert_eq!(found.name, "sda");
    let content = wire.read_all(&found, SOON).unwrap();
    assert!(content.bytes == std::fs::read(disk.path()).unwrap());
}

#[test]
fn after_a_restart_the_same_disk_has_the_same_name_in_requests() {
    let disk = filesystem();
    let mut machine = Scene::new(Flavour::Cloud)
        .builder()
        .port(Port::Socket)
        .disk(Disk::file(Bus::Nvme, disk.path(), "NVME0"))
        .restarts()
        .start()
        .unwrap();
    let mut wire = at_port(&machine, 0);
    let before = hello(&mut wire, &mut machine).boot;
    let found = device(&mut wire, "NVME0");
    let half = wire.read(found.id, 0, 512, SOON).unwrap();
    machine.reset().unwrap();
    // What is asked of the run before is refused, not answered by this one.
    let after = hello(&mut wire, &mut machine).boot;
    assert_ne!(before, after);
    let again = device(&mut wire, "NVME0");
    assert_eq!(again, found);
    assert_eq!(wire.read(again.id, 0, 512, SOON).unwrap(), half);
    // A restart that the host asks for, and the end.
    wire.power(PowerAction::Reboot).unwrap();
    let last = hello(&mut wire, &mut machine).boot;
    assert_ne!(after, last);
    wire.power(PowerAction::PowerOff).unwrap();
    machine.wait_for_end(SOON).unwrap();
}

#[test]
fn neither_a_console_nor_a_network_driver_is_needed() {
    let disk = filesystem();
    let mut machine = Scene::new(Flavour::Cloud)
        .without_console()
        .with("ip=dhcp e2wire.listen=7220 e2wire.modules=none")
        .builder()
        .port(Port::Socket)
        .disk(Disk::file(Bus::Nvme, disk.path(), "NVME0"))
        .network()
        .start()
        .unwrap();
    let mut wire = at_port(&machine, 0);
    hello(&mut wire, &mut machine);
    let found = device(&mut wire, "NVME0");
    let content = wire.read_all(&found, SOON).unwrap();
    assert!(content.bytes == std::fs::read(disk.path()).unwrap());
}

#[test]
fn a_disk_that_stalls_leaves_the_line_alive() {
    let (slow, good) = (filesystem(), filesystem());
    let server = NbdServer::start(slow.path()).unwrap();
    let mut machine = Scene::new(Flavour::Cloud)
        .builder()
        .port(Port::Socket)
        .disk(Disk::nbd(Bus::Virtio, &server, "SLOW"))
        .disk(Disk::file(Bus::Virtio, good.path(), "GOOD"))
        .start()
        .unwrap();
    let mut wire = at_port(&machine, 0);
    hello(&mut wire, &mut machine);
    let stalled = device(&mut wire, "SLOW");
    let healthy = device(&mut wire, "GOOD");
    server.stall().unwrap();
    // 8 KiB that nothing has read before.
    let answered = wire.reads_or_waits(stalled.id, 4096, SOON).unwrap();
    assert!(!answered, "the disk answered although its server is stopped");
    wire.echo(Duration::from_secs(5)).unwrap();
    let content = wire.read_all(&healthy, SOON).unwrap();
    assert!(content.bytes == std::fs::read(good.path()).unwrap());
    server.resume().unwrap();
    let content = wire.read_all(&stalled, SOON).unwrap();
    assert!(content.bytes == std::fs::read(slow.path()).unwrap());
}

#[test]
fn bad_sectors_are_named_and_their_neighbours_read() {
    let disk = filesystem();
    let bad = [8, 4097, 4098];
    let mut machine = Scene::new(Flavour::Cloud)
        .builder()
        .port(Port::Socket)
        .disk(
            Disk::file(Bus::Nvme, disk.path(), "NVME0").with_bad_sectors(&bad),
        )
        .start()
        .unwrap();
    let mut wire = at_port(&machine, 0);
    hello(&mut wire, &mut machine);
    let found = device(&mut wire, "NVME0");
    let content = wire.read_all(&found, SOON).unwrap();
    assert_eq!(content.unreadable, bad);
    let mut expected = std::fs::read(disk.path()).unwrap();
    for sector in bad {
        let at = usize::try_from(sector).unwrap() * 512;
        expected[at..at + 512].fill(0);
    }
    assert!(content.bytes == expected);
    // The kernel's own words about it reach the host.
    let log = wire.log(LogStream::Kernel, 0).unwrap();
    assert!(!log.is_empty());
}

#[test]
fn a_machine_with_little_memory_is_enough() {
    let disk = filesystem();
    let (machine, peak) = machines::in_little_memory(disk.path());
    let mut machine = machine;
    let mut wire: Wire = at_port(&machine, 1);
    hello(&mut wire, &mut machine);
    let found = device(&mut wire, "NVME0");
    let content = wire.read_all(&found, SOON).unwrap();
    assert!(content.bytes == std::fs::read(disk.path()).unwrap());
    let kib = peak(&mut machine);
    assert!(kib <= 8 * 1024, "the agent has used {kib} KiB");
}
