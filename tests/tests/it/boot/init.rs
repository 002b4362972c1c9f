//! The agent as process 1, besides serving disks: its network, its memory,
//! and how it ends.

use std::net::Ipv4Addr;

use e2wire_tests::desk::{Desk, PATIENCE};
use e2wire_tests::kernels::Flavour;
use e2wire_tests::qemu::{Builder, Bus, Disk, Port, free_port, wait_for};
use e2wire_tests::scene::Scene;

use super::{disk, nvme};

/// A machine of the cloud kernel with one serial port and these words on its
/// command line.
fn machine(words: &str) -> Builder {
    let scene = Scene::new(Flavour::Cloud).unwrap();
    scene.with(words).builder().port(Port::Socket)
}

#[test]
fn a_given_address_and_gateway_lead_home() {
    let disk = disk("ext4-1k");
    let port = free_port().unwrap();
    // The only way from 10.0.2.128/25 to 10.0.2.2 is the gateway, which the
    // network knows as its name server.
    let gateway = Ipv4Addr::new(10, 0, 2, 130);
    let machine = machine(&format!(
        "ip=10.0.2.200::{gateway}:255.255.255.128::eth0:off \
         e2wire.connect=10.0.2.2:{port}"
    ))
    .disk(Disk::file(Bus::Virtio, disk.path(), "VIRTIO0"))
    .name_server(gateway)
    .start()
    .unwrap();
    let desk = Desk::new(&format!("listen:127.0.0.1:{port}")).unwrap();
    let device = desk.disk("VIRTIO0").unwrap();
    desk.image(&[], &device, disk.path(), "static.raw").unwrap();
    drop(machine);
}

#[test]
fn a_machine_that_nobody_comes_to_restarts() {
    let mut machine = machine("e2wire.idle-reboot=4s").start().unwrap();
    // Without --restarts, a restart is QEMU's end.
    machine.wait_for_end(PATIENCE).unwrap();
    let console = machine.console(0);
    assert!(console.contains("idle, restarting"), "{console}");
}

#[test]
fn a_panic_leaves_one_line_and_restarts() {
    let mut machine = machine("panic=2 e2wire.test-panic").start().unwrap();
    machine.wait_for_end(PATIENCE).unwrap();
    let console = machine.console(0);
    let said: Vec<&str> =
        console.lines().filter(|line| line.contains("panicked")).collect();
    assert_eq!(said.len(), 1, "{console}");
    // Our own words, not the kernel's about an init that has ended.
    assert!(!console.contains("Attempted to kill init"), "{console}");
}

/// The most memory that the agent may ever use.
const PEAK_KIB_MAX: u64 = 8 * 1024;

#[test]
fn a_machine_with_little_memory_is_enough() {
    let disk = disk("ext4-4k-full");
    // The script becomes the agent, so what is left of it watches process 1.
    // The port it reports to is not one of the agent's.
    let script = "\
        /busybox mount -t proc proc /proc\n\
        /busybox mount -t devtmpfs devtmpfs /dev\n\
        while /busybox sleep 1; do\n\
        /busybox grep -e Name -e VmHWM /proc/1/status > /dev/ttyS1; done &\n\
        exec /e2wire-agent";
    let machine = Scene::behind(script, "little.img")
        .unwrap()
        .with("e2wire.port=ttyS0")
        .builder()
        .memory_mib(96)
        .port(Port::Socket);
    let (machine, desk, device) = nvme(machine, disk.path());
    desk.image(&["--data"], &device, disk.path(), "little.raw").unwrap();
    // The second report from now on was made after all that was asked for.
    let reports = || machine.console(1).matches("VmHWM").count();
    let before = reports();
    wait_for("VmHWM", PATIENCE, || Ok((reports() > before + 1).then_some(())))
        .unwrap();
    let console = machine.console(1);
    let last = console.rsplit("Name:").next().unwrap();
    let mut words = last.split_whitespace();
    assert_eq!(words.next(), Some("e2wire-agent"), "{console}");
    let kib: u64 = words.nth(1).unwrap().parse().unwrap();
    assert!(kib <= PEAK_KIB_MAX, "the agent has used {kib} KiB");
}
