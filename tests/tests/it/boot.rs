//! Machines that boot into the real agent under the real kernel, and a person
//! at the desk with the real `e2wire`.
//!
//! Each test is one thing that happens to an admin at night. Two machines run
//! at once at most; all of them end within six minutes on two processors.
//! Here are the ways to disks; `init` is what the agent does besides serving,
//! `trouble` what goes wrong.

mod init;
mod repair;
mod stacks;
mod trouble;

use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::path::Path;

use e2wire_tests::desk::{Desk, PATIENCE};
use e2wire_tests::fixtures::fixture;
use e2wire_tests::kernels::Flavour;
use e2wire_tests::qemu::{Builder, Bus, Disk, Machine, Port, free_port};
use e2wire_tests::scene::Scene;

/// A copy of a fixture, for a machine that may write to its disk.
pub(crate) fn disk(name: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    fixture(name).copy_to(file.path()).unwrap();
    file
}

/// Adds a serial port and an NVMe disk with this content, and switches it on:
/// the machine, a person at its first port, and the disk's path.
fn nvme(builder: Builder, disk: &Path) -> (Machine, Desk, String) {
    let machine = builder
        .port(Port::Socket)
        .disk(Disk::file(Bus::Nvme, disk, "NVME0"))
        .start()
        .unwrap();
    let desk = Desk::at_port(&machine, 0).unwrap();
    let device = desk.disk("NVME0").unwrap();
    (machine, desk, device)
}

/// Types into serial port `index`, as a person at a terminal would. Nobody
/// else may be connected.
fn type_at(machine: &Machine, index: usize, bytes: &[u8]) {
    let target = machine.serial_target(index).unwrap();
    let path = target.strip_prefix("unix:").expect("a socket");
    UnixStream::connect(path).unwrap().write_all(bytes).unwrap();
}

#[test]
fn an_nvme_disk_is_imaged_over_the_console() {
    let disk = disk("ext4-4k-full");
    let mut machine = Scene::new(Flavour::Cloud)
        .unwrap()
        .builder()
        .port(Port::Socket)
        .disk(Disk::file(Bus::Nvme, disk.path(), "NVME0"))
        .start()
        .unwrap();
    // A person who looks at the console sees who is there.
    machine.wait_for_text(0, "ready on ttyS0", PATIENCE).unwrap();
    let desk = Desk::at_port(&machine, 0).unwrap();
    let probe = desk.run(&["probe"]).unwrap().expect(0).unwrap();
    assert_eq!(probe.result()["port"], "ttyS0");
    assert_eq!(probe.result()["writable"], false);
    let device = desk.disk("NVME0").unwrap();
    assert_eq!(device, "/dev/nvme0n1");
    desk.image(&[], &device, disk.path(), "full.raw").unwrap();
    let live = ["--journal", "live", "--select", "e2image"];
    desk.image(&live, "SERIAL=NVME0", disk.path(), "live.qcow2").unwrap();
    // Without `restarts`, that is QEMU's end.
    desk.run(&["reboot"]).unwrap().expect(0).unwrap();
    machine.wait_for_end(PATIENCE).unwrap();
}

#[test]
fn a_virtio_disk_is_imaged_over_tcp_with_an_address_from_dhcp() {
    let disk = disk("ext4-1k-full");
    let machine = Scene::new(Flavour::Cloud)
        .unwrap()
        .with("ip=dhcp e2wire.listen=7220")
        .builder()
        .disk(Disk::file(Bus::Virtio, disk.path(), "VIRTIO0"))
        .forward(7220)
        .start()
        .unwrap();
    let desk = Desk::over_tcp(&machine).unwrap();
    let device = desk.disk("VIRTIO0").unwrap();
    assert_eq!(device, "/dev/vda");
    desk.image(&["--data"], &device, disk.path(), "vda.qcow2").unwrap();
}

#[test]
fn an_agent_calls_home_and_calls_again() {
    let disk = disk("ext3-1k-full");
    let port = free_port().unwrap();
    // From the machine's network, this one is 10.0.2.2.
    let machine = Scene::new(Flavour::Cloud)
        .unwrap()
        .with(&format!("ip=dhcp e2wire.connect=10.0.2.2:{port}"))
        .builder()
        .port(Port::Socket)
        .disk(Disk::file(Bus::Virtio, disk.path(), "VIRTIO0"))
        .network()
        .start()
        .unwrap();
    let desk = Desk::new(&format!("listen:127.0.0.1:{port}")).unwrap();
    let device = desk.disk("VIRTIO0").unwrap();
    desk.image(&[], &device, disk.path(), "home.e2i").unwrap();
    drop(machine);
}

#[test]
fn the_host_may_sit_at_the_second_of_two_ports() {
    let (first, second) = (disk("ext4-1k"), disk("htree-1k"));
    let machine = Scene::new(Flavour::Cloud)
        .unwrap()
        .builder()
        .port(Port::Socket)
        .port(Port::Terminal)
        .disk(Disk::file(Bus::Nvme, first.path(), "FIRST"))
        .disk(Disk::file(Bus::Nvme, second.path(), "SECOND"))
        .start()
        .unwrap();
    let desk = Desk::at_port(&machine, 1).unwrap();
    let probe = desk.run(&["probe"]).unwrap().expect(0).unwrap();
    assert_eq!(probe.result()["port"], "ttyS1");
    for (serial, disk) in [("SECOND", &second), ("FIRST", &first)] {
        let device = desk.disk(serial).unwrap();
        let output = format!("{serial}.raw");
        desk.image(&[], &device, disk.path(), &output).unwrap();
    }
    // The first port is no worse for it.
    let desk = Desk::at_port(&machine, 0).unwrap();
    let probe = desk.run(&["probe"]).unwrap().expect(0).unwrap();
    assert_eq!(probe.result()["port"], "ttyS0");
}

#[test]
fn one_file_boots_as_before_and_rescues() {
    let disk = disk("ext2-1k-full");
    let script = "echo A-NORMAL-BOOT; exec /busybox sleep 10000";
    let scene = Scene::behind(script, "segment.img").unwrap();
    let normal = scene.builder().port(Port::Socket);
    let mut normal = normal.start().unwrap();
    normal.wait_for_text(0, "A-NORMAL-BOOT", PATIENCE).unwrap();
    drop(normal);
    let rescue = scene.with("rdinit=/e2wire-agent").builder();
    let (rescue, desk, device) = nvme(rescue, disk.path());
    desk.image(&[], &device, disk.path(), "rescue.raw").unwrap();
    assert!(!rescue.console(0).contains("A-NORMAL-BOOT"));
}

#[test]
fn a_sata_disk_is_imaged_under_the_kernel_for_hardware() {
    let disk = disk("ext4-2k-full");
    let machine = Scene::new(Flavour::Standard)
        .unwrap()
        .builder()
        .port(Port::Socket)
        .disk(Disk::file(Bus::Ahci, disk.path(), "SATA0"))
        .start()
        .unwrap();
    let desk = Desk::at_port(&machine, 0).unwrap();
    let device = desk.disk("SATA0").unwrap();
    assert_eq!(device, "/dev/sda");
    desk.image(&[], &device, disk.path(), "sata.raw").unwrap();
}

#[test]
fn neither_a_console_nor_a_network_driver_is_needed() {
    let disk = disk("orphans-extents");
    let scene = Scene::new(Flavour::Cloud)
        .unwrap()
        .without_console()
        .with("ip=dhcp e2wire.listen=7220 e2wire.modules=none");
    let builder = scene.builder().network();
    let (machine, desk, device) = nvme(builder, disk.path());
    desk.image(&[], &device, disk.path(), "alone.raw").unwrap();
    drop(machine);
}
