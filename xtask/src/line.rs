//! `cargo xtask line`: a slow and bad serial line between two
//! pseudo-terminals, for people who want to see what e2wire makes of it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Parser;
use e2wire_tests::agents::{Agent, Build};
use e2wire_tests::paced::{Carried, Pace, PtyPair};
use e2wire_tests::sim::Faults;

use crate::project::parsed;

/// A serial line with the pace and the faults of a real one, between two
/// pseudo-terminals, until Ctrl-C.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask line", bin_name = "cargo xtask line")]
struct Options {
    /// Bits per second that the line claims to have
    #[arg(long, value_name = "BAUD", default_value_t = 115_200,
        value_parser = clap::value_parser!(u32).range(300..=4_000_000))]
    baud: u32,
    /// So many times faster than that, for the impatient
    #[arg(long, value_name = "FACTOR", default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..=1000))]
    accelerate: u32,
    /// Milliseconds from one end to the other
    #[arg(long, value_name = "MS", default_value_t = 0)]
    latency: u64,
    /// Flip a bit with this probability per byte, as 1e-5
    #[arg(long, value_name = "P", default_value_t = 0.0,
        value_parser = probability)]
    flip: f64,
    /// Lose a byte with this probability
    #[arg(long, value_name = "P", default_value_t = 0.0,
        value_parser = probability)]
    lose: f64,
    /// Lose up to 600 bytes in a row with this probability at each byte
    #[arg(long, value_name = "P", default_value_t = 0.0,
        value_parser = probability)]
    cut: f64,
    /// Put a line of kernel text between two bytes with this probability
    #[arg(long, value_name = "P", default_value_t = 0.0,
        value_parser = probability)]
    text: f64,
    /// Stand still for up to 800 ms with this probability at each byte
    #[arg(long, value_name = "P", default_value_t = 0.0,
        value_parser = probability)]
    stall: f64,
    /// The same number gives the same faults
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
    /// An end that is set to another speed hears nonsense, as on real lines
    #[arg(long)]
    speeds_matter: bool,
    /// Run an agent at the far end that offers this file or device
    #[arg(long, value_name = "PATH")]
    device: Option<PathBuf>,
}

fn probability(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| "expected a number")?;
    if (0.0..=1.0).contains(&value) {
        Ok(value)
    } else {
        Err("a probability lies between 0 and 1".to_owned())
    }
}

impl Options {
    fn pace(&self) -> Pace {
        Pace {
            baud: self.baud.saturating_mul(self.accelerate),
            latency: Duration::from_millis(self.latency),
            faults: Faults {
                flip: self.flip,
                lose: self.lose,
                cut: self.cut,
                text: self.text,
                stall: self.stall,
            },
            seed: self.seed,
            speeds_matter: self.speeds_matter,
        }
    }
}

/// Runs the command with the words behind its name.
///
/// # Errors
///
/// When there are no pseudo-terminals, or the agent does not start.
pub(crate) fn run(words: &[&str]) -> Result<ExitCode> {
    let options: Options = match parsed("cargo xtask line", words)? {
        Ok(options) => options,
        Err(code) => return Ok(code),
    };
    let device = match &options.device {
        Some(path) => Some(
            path.canonicalize()
                .with_context(|| format!("no device {}", path.display()))?,
        ),
        None => None,
    };
    let line = PtyPair::new(&options.pace())?;
    let target = line.target(options.baud);
    println!("The host's end:  {target}");
    println!("The agent's end: {},{}", line.far().display(), options.baud);
    let _agent = match device {
        Some(device) => {
            println!("An agent is there. From another terminal:");
            println!("  cargo run -p e2wire -- -t '{target}' ls");
            Some(Agent::on_serial(
                Build::Hosted,
                &device,
                line.far(),
                options.baud,
            )?)
        }
        None => {
            println!("Nobody is there yet. Put an agent there:");
            println!(
                "  cargo run -p e2wire-agent -- --insecure --device FILE \
                 --serial {},{}",
                line.far().display(),
                options.baud
            );
            None
        }
    };
    println!("Ctrl-C ends it.");
    tell(&line)
}

/// Says every ten seconds what the line has carried, when that has changed.
fn tell(line: &PtyPair) -> ! {
    let mut before = Carried::default();
    loop {
        std::thread::sleep(Duration::from_secs(10));
        let now = line.carried();
        if now != before {
            println!(
                "{} bytes from the agent's end, {} from the host's",
                now.to_near, now.to_far
            );
            before = now;
        }
    }
}
