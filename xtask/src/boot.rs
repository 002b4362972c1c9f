//! `cargo xtask boot`: a machine that has booted into the agent, for a person
//! to try e2wire on.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Result, bail, ensure};
use clap::Parser;
use e2wire_tests::fixtures::fixture;
use e2wire_tests::kernels::Flavour;
use e2wire_tests::qemu::{Builder, Bus, Disk, Port};
use e2wire_tests::scene::Scene;

use crate::project::parsed;

/// The TCP port that the agent listens on inside of the machine.
const AGENT_PORT: u16 = 7220;

/// Boots an emulated machine whose whole system is the agent, says how to
/// reach it, and ends with it (or with Ctrl-C).
#[derive(Debug, Parser)]
#[command(name = "cargo xtask boot", bin_name = "cargo xtask boot")]
struct Options {
    /// A disk's content [default: a new ext4 filesystem]; may be repeated
    #[arg(value_name = "FILE")]
    disks: Vec<PathBuf>,
    /// What the disks hang on: nvme, virtio or ahci
    #[arg(long, default_value = "nvme", value_parser = parse_bus)]
    bus: Bus,
    /// Boot Debian's standard kernel instead of the one for virtual machines
    /// (ahci needs it)
    #[arg(long)]
    standard: bool,
    /// Memory of the machine
    #[arg(long, value_name = "MIB", default_value_t = 256,
        value_parser = clap::value_parser!(u32).range(64..=65_536))]
    memory: u32,
    /// Let the kernel talk on the console that the agent serves
    #[arg(long)]
    noisy: bool,
}

fn parse_bus(text: &str) -> Result<Bus> {
    match text {
        "nvme" => Ok(Bus::Nvme),
        "virtio" => Ok(Bus::Virtio),
        "ahci" => Ok(Bus::Ahci),
        _ => bail!("not one of nvme, virtio, ahci"),
    }
}

/// Runs the command with the words behind its name.
///
/// # Errors
///
/// When the machine cannot be built or started.
pub(crate) fn run(words: &[&str]) -> Result<ExitCode> {
    let options: Options = match parsed("cargo xtask boot", words)? {
        Ok(options) => options,
        Err(code) => return Ok(code),
    };
    crate::test::install_missing()?;
    println!("Preparing a kernel, the agent and its initrd ...");
    let made = tempfile::tempdir()?;
    let disks = if options.disks.is_empty() {
        vec![make_disk(made.path())?]
    } else {
        options.disks.clone()
    };
    let machine = builder(&options, &disks)?.start()?;
    // Ctrl-C ends QEMU, too, and what was made for it is cleared away then.
    let noticed = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGINT, noticed)?;
    let tcp = machine.forwarded()?;
    let serial = machine.serial_target(0)?;
    println!("The machine boots. From another terminal, over its console:");
    println!("  cargo run -qp e2wire -- -t {serial} ls");
    println!("or, once it has an address, over TCP:");
    println!("  cargo run -qp e2wire -- -t tcp:127.0.0.1:{tcp} ls");
    println!("  cargo run -qp e2wire -- -t tcp:127.0.0.1:{tcp} \\");
    println!("    image {} disk.qcow2", name_of(options.bus));
    println!("All that the console says: {}", machine.log_path(0).display());
    println!("Ctrl-C switches it off.");
    let status = machine.join()?;
    ensure!(status.success(), "QEMU failed: {status}");
    println!("The machine has switched itself off.");
    Ok(ExitCode::SUCCESS)
}

/// What the machine calls its first disk.
const fn name_of(bus: Bus) -> &'static str {
    match bus {
        Bus::Nvme => "/dev/nvme0n1",
        Bus::Virtio => "/dev/vda",
        Bus::Ahci => "/dev/sda",
    }
}

fn builder(options: &Options, disks: &[PathBuf]) -> Result<Builder> {
    for path in disks {
        ensure!(path.exists(), "{} is not there", path.display());
    }
    let standard = options.standard || options.bus == Bus::Ahci;
    let flavour = if standard { Flavour::Standard } else { Flavour::Cloud };
    let mut scene = Scene::new(flavour)?;
    if options.noisy {
        scene = scene.noisy();
    }
    let mut builder = scene
        .with(&format!("ip=dhcp e2wire.listen={AGENT_PORT}"))
        .builder()
        .memory_mib(options.memory)
        .port(Port::Socket)
        .forward(AGENT_PORT)
        .restarts();
    for (index, path) in disks.iter().enumerate() {
        let serial = format!("E2WIRE{index}");
        builder = builder.disk(Disk::file(options.bus, path, &serial));
    }
    Ok(builder)
}

/// A filesystem with something in it, that the machine may write to.
fn make_disk(folder: &Path) -> Result<PathBuf> {
    let path = folder.join("disk.raw");
    fixture("ext4-4k-full").copy_to(&path)?;
    Ok(path)
}
