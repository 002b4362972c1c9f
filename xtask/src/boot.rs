//! `cargo xtask boot`: a machine that has booted into the agent, for a person
//! to try e2wire on.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail, ensure};
use clap::Parser;
use e2wire_tests::kernels::{self, Flavour};
use e2wire_tests::qemu::{Builder, Bus, Disk, Port};
use e2wire_tests::{initrds, tools};

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
    let made = tempfile::tempdir()?;
    let disks = if options.disks.is_empty() {
        vec![make_disk(made.path())?]
    } else {
        options.disks.clone()
    };
    let machine = builder(&options, &disks)?.start()?;
    let tcp = machine.forwarded()?;
    let serial = machine.serial_target(0)?;
    println!("The machine boots. From another terminal:");
    println!("  cargo run -p e2wire -- -t {serial} ls");
    println!("  cargo run -p e2wire -- -t tcp:127.0.0.1:{tcp} ls");
    println!("Its console, as it was said: {}", machine.log_path(0).display());
    println!("Ctrl-C switches it off.");
    let status = machine.join()?;
    ensure!(status.success(), "QEMU failed: {status}");
    println!("The machine has switched itself off.");
    Ok(ExitCode::SUCCESS)
}

fn builder(options: &Options, disks: &[PathBuf]) -> Result<Builder> {
    let standard = options.standard || options.bus == Bus::Ahci;
    let (flavour, drivers) = if standard {
        (Flavour::Standard, initrds::STANDARD_DRIVERS)
    } else {
        (Flavour::Cloud, initrds::CLOUD_DRIVERS)
    };
    let kernel = kernels::debian(flavour)?;
    let port = AGENT_PORT.to_string();
    let mut arguments = initrds::modules(&kernel.modules, drivers);
    arguments.extend(["--net", "dhcp", "--listen", &port]);
    let initrd = initrds::build("boot.img", &arguments)?;
    let loglevel = if options.noisy { 7 } else { 0 };
    let command_line = format!(
        "console=ttyS0,115200n8 no_timer_check loglevel={loglevel} \
         sysctl.kernel.sysrq=0 panic=60"
    );
    let mut builder = Builder::new(&kernel.image, &initrd, &command_line)
        .memory_mib(options.memory)
        .port(Port::Socket)
        .forward(AGENT_PORT)
        .restarts();
    for (index, path) in disks.iter().enumerate() {
        ensure!(path.exists(), "{} is not there", path.display());
        let serial = format!("E2WIRE{index}");
        builder = builder.disk(Disk::file(options.bus, path, &serial));
    }
    Ok(builder)
}

/// What ext4 is made of: the harness leaves out all configuration.
const FEATURES: &str = "has_journal,extent,dir_index,filetype,64bit,\
    metadata_csum,flex_bg,sparse_super";

/// A filesystem with something in it.
fn make_disk(folder: &Path) -> Result<PathBuf> {
    let path = folder.join("disk.raw");
    let sources = crate::project::root().join("protocol");
    let status = tools::command("mke2fs")
        .args(["-q", "-L", "rescue-me", "-O", FEATURES, "-I", "256", "-d"])
        .arg(sources)
        .arg(&path)
        .arg("256M")
        .status()
        .context("mke2fs (Debian package e2fsprogs) cannot be run")?;
    ensure!(status.success(), "mke2fs failed: {status}");
    Ok(path)
}
