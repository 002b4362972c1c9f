//! The command line of `cargo xtask build-initrd`.

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
    str::FromStr,
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Parser;

use super::{profile::Profile, segment::Compression};

/// Builds an initrd in which the agent is the whole system.
///
/// Exit status: 0 done; 2 usage; 3 done, but drivers or firmware that were
/// asked for are not there (they are named); 1 anything else.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "cargo xtask build-initrd",
    bin_name = "cargo xtask build-initrd"
)]
pub(crate) struct Options {
    /// The initrd to write; OUT.manifest.json and the agent's log table are
    /// written beside it
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
    /// Put the agent behind everything in INITRD: what is written boots as
    /// INITRD does, and with rdinit=/e2wire-agent it rescues
    #[arg(long, value_name = "INITRD")]
    pub(crate) append_to: Option<PathBuf>,
    /// The modules of the kernel that will boot it, as /lib/modules/RELEASE
    #[arg(long, value_name = "DIR")]
    pub(crate) modules_dir: Option<PathBuf>,
    /// serial (disks and consoles), net, full, or modules separated by commas
    #[arg(
        long,
        value_name = "PROFILE",
        default_value = "serial",
        requires = "modules_dir"
    )]
    pub(crate) profile: Profile,
    /// Firmware for those modules [default: lib/firmware beside lib/modules]
    #[arg(long, value_name = "DIR")]
    pub(crate) firmware_dir: Option<PathBuf>,
    /// The kernel's configuration [default: found beside the modules]
    #[arg(long, value_name = "FILE")]
    pub(crate) kernel_config: Option<PathBuf>,
    /// The kernel itself, to check that the modules fit [default: found
    /// beside the modules]
    #[arg(long, value_name = "FILE")]
    pub(crate) kernel: Option<PathBuf>,
    /// Serve whoever reaches a port of the machine, without any key
    #[arg(long)]
    pub(crate) insecure: bool,
    /// Let a host write to the disks, after it has armed a plan; e2wire.rw=0
    /// on the kernel's command line takes that back
    #[arg(long)]
    pub(crate) rw: bool,
    /// How the agent gets its address: dhcp, none, or IP/PREFIX[,GATEWAY]
    #[arg(long, value_name = "HOW")]
    pub(crate) net: Option<Net>,
    /// Wait for the host on this TCP port
    #[arg(long, value_name = "PORT",
        value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) listen: Option<u16>,
    /// Call the host at this address (numbers only: no names are resolved)
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) connect: Option<std::net::SocketAddrV4>,
    /// zstd, gzip or none
    #[arg(long, value_name = "HOW", default_value = "zstd")]
    pub(crate) compress: Compression,
    /// The console for the command line that is printed
    #[arg(long, value_name = "CONSOLE", default_value = "ttyS0,115200n8")]
    pub(crate) console: String,
}

/// How the agent gets its address.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Net {
    /// From a DHCP server.
    Dhcp,
    /// Not at all.
    None,
    /// Given.
    Static {
        /// The machine's address.
        address: Ipv4Addr,
        /// How many leading bits name the network.
        prefix: u8,
        /// The way out of it.
        gateway: Option<Ipv4Addr>,
    },
}

impl Net {
    /// As a kernel parameter (Documentation/admin-guide/nfs/nfsroot.rst).
    pub(crate) fn parameter(self) -> String {
        match self {
            Self::Dhcp => "ip=dhcp".to_owned(),
            Self::None => "ip=off".to_owned(),
            Self::Static { address, prefix, gateway } => {
                let host_bits = 32_u32.saturating_sub(u32::from(prefix));
                let mask = u32::MAX.checked_shl(host_bits).unwrap_or(0);
                let mask = Ipv4Addr::from(mask);
                let gateway = gateway
                    .map(|gateway| gateway.to_string())
                    .unwrap_or_default();
                format!("ip={address}::{gateway}:{mask}:::off")
            }
        }
    }
}

impl FromStr for Net {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "dhcp" => return Ok(Self::Dhcp),
            "none" => return Ok(Self::None),
            _ => {}
        }
        let form = "not dhcp, none or IP/PREFIX[,GATEWAY]";
        let (network, gateway) = match text.split_once(',') {
            Some((network, gateway)) => (network, Some(gateway)),
            None => (text, None),
        };
        let (address, prefix) = network.split_once('/').context(form)?;
        let address: Ipv4Addr = address.parse().context(form)?;
        let prefix: u8 = prefix.parse().context(form)?;
        ensure!(
            (1..=32).contains(&prefix),
            "the prefix of an IPv4 network is 1 to 32"
        );
        let gateway = gateway
            .map(|gateway| gateway.parse::<Ipv4Addr>().context(form))
            .transpose()?;
        if gateway == Some(address) {
            bail!("the machine cannot be its own gateway");
        }
        Ok(Self::Static { address, prefix, gateway })
    }
}

impl Options {
    /// The agent's parameters, in the syntax of the kernel's command line.
    pub(crate) fn parameters(&self) -> String {
        let mut words = Vec::new();
        if self.insecure {
            words.push("e2wire.insecure".to_owned());
        }
        if self.rw {
            words.push("e2wire.rw".to_owned());
        }
        words.extend(self.net.map(Net::parameter));
        words.extend(self.listen.map(|port| format!("e2wire.listen={port}")));
        words.extend(self.connect.map(|peer| format!("e2wire.connect={peer}")));
        words.join(" ")
    }

    /// What to put on the kernel's command line.
    pub(crate) fn kernel_command_line(&self) -> String {
        let mut words = Vec::new();
        if self.append_to.is_some() {
            words.push("rdinit=/e2wire-agent".to_owned());
        }
        words.push(format!("console={}", self.console));
        // At 0 the kernel would not even say why it panics.
        words.push("loglevel=1".to_owned());
        words.push("sysctl.kernel.sysrq=0".to_owned());
        words.push("panic=60".to_owned());
        words.join(" ")
    }

    /// What cannot be asked for together.
    ///
    /// # Errors
    ///
    /// Names it.
    pub(crate) fn check(&self) -> Result<()> {
        ensure!(
            self.insecure,
            "an agent serves whoever holds one of its authorised keys, and \
             keys cannot be given yet: --insecure builds one that serves \
             whoever reaches its ports"
        );
        if self.listen.is_some() || self.connect.is_some() {
            ensure!(
                self.net.is_some_and(|net| net != Net::None),
                "--listen and --connect need an address: give --net dhcp or \
                 --net IP/PREFIX[,GATEWAY]"
            );
        }
        let folder = match self.out.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        ensure!(
            folder.is_dir(),
            "{} is no folder: --out cannot be written there",
            folder.display()
        );
        ensure!(
            !self.console.chars().any(|c| c.is_whitespace() || c.is_control()),
            "--console is one word, as in ttyS1,115200n8"
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &str) -> Options {
        let program = "build-initrd --out x";
        Options::try_parse_from(
            program.split(' ').chain(words.split_whitespace()),
        )
        .unwrap()
    }

    #[test]
    fn addresses_take_the_kernel_s_form() {
        for (text, parameter) in [
            ("dhcp", "ip=dhcp"),
            ("none", "ip=off"),
            ("10.0.2.15/24", "ip=10.0.2.15:::255.255.255.0:::off"),
            (
                "192.0.2.9/30,192.0.2.10",
                "ip=192.0.2.9::192.0.2.10:255.255.255.252:::off",
            ),
            ("192.0.2.9/32", "ip=192.0.2.9:::255.255.255.255:::off"),
            ("10.1.2.3/1", "ip=10.1.2.3:::128.0.0.0:::off"),
        ] {
            assert_eq!(text.parse::<Net>().unwrap().parameter(), parameter);
        }
        for bad in [
            "",
            "10.0.2.15",
            "10.0.2.15/0",
            "10.0.2.15/33",
            "10.0.2.15/24,",
            "10.0.2/24",
            "host/24",
            "10.0.0.1/8,10.0.0.1",
        ] {
            assert!(bad.parse::<Net>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn parameters_hold_what_was_asked_for() {
        let options = parse(
            "--insecure --rw --net dhcp --listen 7220 --connect 192.0.2.1:7221",
        );
        options.check().unwrap();
        assert_eq!(
            options.parameters(),
            "e2wire.insecure e2wire.rw ip=dhcp e2wire.listen=7220 \
             e2wire.connect=192.0.2.1:7221"
        );
        let line = options.kernel_command_line();
        assert_eq!(
            line,
            "console=ttyS0,115200n8 loglevel=1 sysctl.kernel.sysrq=0 panic=60"
        );
        let line = parse("--append-to y").kernel_command_line();
        assert!(line.starts_with("rdinit=/e2wire-agent "), "{line}");
    }

    #[test]
    fn what_cannot_work_is_refused() {
        for words in [
            "--out x",
            "--out x --insecure --listen 7220",
            "--out x --insecure --net none --connect 192.0.2.1:1",
            "--out x --insecure --console a\tb",
            "--out no-such-folder/x --insecure",
        ] {
            let words = ["build-initrd"].into_iter().chain(words.split(' '));
            let options = Options::try_parse_from(words).unwrap();
            assert!(options.check().is_err(), "{options:?}");
        }
        for words in ["--listen 0", "--connect example.org:1", "--profile net"]
        {
            let program = ["build-initrd", "--out", "x"];
            let words = program.into_iter().chain(words.split(' '));
            assert!(Options::try_parse_from(words).is_err());
        }
    }
}
