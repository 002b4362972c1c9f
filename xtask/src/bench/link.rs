//! Imaging over a line: bytes on the wire, use of the line, whole jobs.
//!
//! Bytes are counted by the line itself, over a pseudo-terminal that claims to
//! be a serial port and is many times faster: how many there are does not
//! depend on it. How well a line is used, also a bad one, comes from virtual
//! time, and TCP from the clock on the wall.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2wire_tests::agents::{Agent, free_address};
use e2wire_tests::paced::{Pace, PtyPair, Relay};
use e2wire_tests::sim::{Faults, LineUse, line_uses};
use e2wire_tests::{binaries, compare, tools};

use super::Options;
use super::figure::{Figure, Figures, Goal, float};
use super::measure::{median, run as measure};
use super::samples::empty_folder;

const BAUD: u32 = 115_200;

/// So many times faster than it claims to be.
const ACCELERATION: u32 = 400;

/// What `sz` makes of such a line (performance.md).
const SZ_LINE_USE: f64 = 0.96;

/// What the expert types, and its result counted.
const ZSTD_19: &str = "e2image -r \"$1\" - | zstd -q -19 | wc -c";

/// The same over TCP, to whoever listens.
const ZSTD_3_NCAT: &str =
    "e2image -r \"$1\" - | zstd -q -3 -T2 | ncat --send-only 127.0.0.1 \"$2\"";

struct Bench<'a> {
    options: &'a Options,
    e2wire: PathBuf,
    agent: PathBuf,
    out: PathBuf,
    figures: Figures,
}

/// Measures what `options` name; fails when a target is missed.
pub(super) fn run(options: &Options) -> Result<()> {
    let out = empty_folder("out-link")?;
    let e2wire = binaries::build_in("release", "e2wire", "e2wire");
    let agent = binaries::build_in("release", "e2wire-agent", "e2wire-agent");
    let mut bench = Bench {
        options,
        e2wire,
        agent,
        out,
        figures: Figures::new(options.json),
    };
    bench.line_use();
    for sample in &options.samples {
        let image = sample.image()?;
        bench.wire_bytes(sample.name, &image)?;
        if sample.name == "medium" {
            bench.tcp(sample.name, &image)?;
        }
    }
    fs::remove_dir_all(&bench.out)?;
    bench.figures.judge()
}

impl Bench<'_> {
    /// Targets 8 and 9.
    fn line_use(&mut self) {
        let lost = Faults { lose: 1e-5, ..Faults::default() };
        let flipped = Faults { flip: 1e-5, ..Faults::default() };
        let near = Duration::from_micros(50);
        let far = Duration::from_millis(20);
        let clean = Faults::default();
        let rows = [
            ("8", "clean line: part that is payload", near, clean, 0.985),
            ("9", "1e-5 lost: part that is payload", near, lost, 0.93),
            ("9", "1e-5 flipped: part that is payload", near, flipped, 0.93),
            ("9", "40 ms there and back: the same", far, clean, 0.97),
        ];
        for (target, what, latency, faults, least) in rows {
            let uses = line_uses(1..=8, latency, faults);
            self.used(target, what, &uses, |one| one.payload, least);
            if target == "8" {
                let connect = uses.iter().map(|one| one.connect).max();
                let seconds = connect.unwrap_or_default().as_secs_f64();
                let what = "clean line: seconds to connect";
                let goal = Goal::AtMost(1.);
                self.figures.exact(
                    "8",
                    "virtual",
                    what,
                    seconds,
                    goal,
                    String::new(),
                );
            }
        }
    }

    fn used(
        &mut self,
        target: &'static str,
        what: &'static str,
        uses: &[LineUse],
        pick: fn(&LineUse) -> f64,
        least: f64,
    ) {
        let (value, low, high) =
            median(&uses.iter().map(pick).collect::<Vec<_>>());
        let stall = uses.iter().map(|one| one.stall).max().unwrap_or_default();
        self.figures.add(Figure {
            target,
            sample: "virtual",
            what,
            value,
            spread: (low, high),
            goal: Goal::AtLeast(least),
            note: format!("longest pause {:.2} s", stall.as_secs_f64()),
        });
    }

    /// Targets 6, 7 and 10.
    fn wire_bytes(&mut self, name: &'static str, image: &Path) -> Result<()> {
        let theirs = float(shell(ZSTD_19, &[image])?.trim().parse()?);
        let e2image = self.out.join("e2image");
        let made = tools::command("e2image")
            .arg("-r")
            .args([image, &e2image])
            .status();
        ensure!(made?.success(), "e2image refuses {name}");
        let jobs = [
            ("6", "as e2image: part of its bytes", FULL, 0.55, 1.8),
            ("7", "live journal: part of its bytes", LIVE, 0.48, 2.),
        ];
        for (target, what, arguments, most, faster) in jobs {
            let out = self.out.join("e2wire");
            let ours = float(self.serial(image, arguments, &out)?);
            if target == "6" {
                let differs = compare::first_difference(&e2image, &out)?;
                ensure!(differs.is_none(), "{name} differs at {differs:?}");
            }
            self.clear();
            let note = format!("{ours} of {theirs} bytes");
            let goal = Goal::AtMost(most);
            self.figures.exact(target, name, what, ours / theirs, goal, note);
            // Framing is in our bytes, and what sz adds in its line use.
            let rate = f64::from(BAUD) / 10.;
            let times = (theirs / rate / SZ_LINE_USE, ours / rate);
            let what = match target {
                "6" => "as e2image: times faster than sz",
                _ => "live journal: times faster than sz",
            };
            let note = format!("{:.0} s and {:.0} s", times.0, times.1);
            let goal = Goal::AtLeast(faster);
            self.figures.exact("10", name, what, times.0 / times.1, goal, note);
        }
        fs::remove_file(e2image)?;
        Ok(())
    }

    /// Bytes that the agent sends while `image` is imaged over a serial line.
    fn serial(
        &self,
        image: &Path,
        arguments: &[&str],
        out: &Path,
    ) -> Result<u64> {
        let line = PtyPair::new(&Pace::serial(BAUD * ACCELERATION))?;
        let port = format!("{},{BAUD}", line.far().display());
        let agent = Agent::run(&self.agent, image, &["--serial", &port])?;
        self.image(&line.target(BAUD), image, arguments, out)?;
        drop(agent);
        Ok(line.carried().to_near)
    }

    fn image(
        &self,
        target: &str,
        image: &Path,
        arguments: &[&str],
        out: &Path,
    ) -> Result<f64> {
        let mut command = Command::new(&self.e2wire);
        command.args(["-q", "-t", target, "--connect-timeout", "60s", "image"]);
        command.args(arguments).arg(image).arg(out);
        Ok(measure(command, None)?.seconds)
    }

    /// Target 12.
    fn tcp(&mut self, name: &'static str, image: &Path) -> Result<()> {
        let out = self.out.join("e2wire");
        let address = free_address()?;
        let agent = Agent::run(
            &self.agent,
            image,
            &["--listen", &address.to_string()],
        )?;
        let relay =
            Relay::to(address, Pace::latent(Duration::from_millis(25)))?;
        let near_relay = Relay::to(address, Pace::default())?;
        let (mut ratios, mut extra, mut times) = (vec![], vec![], vec![]);
        for pair in 0..=self.options.pairs {
            let theirs = ncat(image, &self.out.join("ncat"))?;
            let job = |address| -> Result<f64> {
                let target = format!("tcp:{address}");
                let time = self.image(&target, image, FULL, &out)?;
                self.clear();
                Ok(time)
            };
            let ours = job(address)?;
            let near = job(near_relay.address())?;
            let far = job(relay.address())?;
            if pair > 0 {
                ratios.push(theirs / ours);
                extra.push(far - near);
                times.push(ours);
            }
        }
        drop(agent);
        let (value, low, high) = median(&ratios);
        self.figures.add(Figure {
            target: "12",
            sample: name,
            what: "TCP: times faster than zstd -3, ncat",
            value,
            spread: (low, high),
            goal: Goal::AtLeast(8.),
            note: format!("{:.3} s", median(&times).0),
        });
        let (value, low, high) = median(&extra);
        self.figures.add(Figure {
            target: "12",
            sample: name,
            what: "TCP: seconds more for 50 ms of way",
            value,
            spread: (low, high),
            goal: Goal::AtMost(0.3),
            note: String::new(),
        });
        Ok(())
    }

    /// Takes the last output away: every one is fresh.
    fn clear(&self) {
        for suffix in ["", ".manifest.json", ".digests"] {
            // It may not be there.
            let _ = fs::remove_file(self.out.join(format!("e2wire{suffix}")));
        }
    }
}

const FULL: &[&str] = &[
    "--no-sync",
    "--format",
    "raw",
    "--select",
    "e2image",
    "--journal",
    "full",
];
const LIVE: &[&str] = &["--no-sync", "--format", "raw", "--journal", "live"];

/// Runs a line of shell, whose `$1` and so on are given, and returns what it
/// prints.
fn shell(line: &str, arguments: &[&Path]) -> Result<String> {
    let mut command = tools::command("sh");
    command.args(["-c", line, "sh"]).args(arguments).stderr(Stdio::null());
    let output = command.output()?;
    ensure!(output.status.success(), "`{line}` failed: {}", output.status);
    Ok(String::from_utf8(output.stdout)?)
}

/// The seconds that the usual pipeline takes to bring `image` to the file
/// `out` through a socket.
fn ncat(image: &Path, out: &Path) -> Result<f64> {
    for tool in ["e2image", "zstd", "ncat"] {
        tools::find(tool).with_context(|| format!("{tool} is missing"))?;
    }
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port().to_string();
    let began = Instant::now();
    thread::scope(|scope| {
        let taken = scope.spawn(|| -> Result<u64> {
            let (mut caller, _) = listener.accept()?;
            Ok(std::io::copy(&mut caller, &mut fs::File::create(out)?)?)
        });
        shell(ZSTD_3_NCAT, &[image, Path::new(&port)])?;
        let bytes = taken.join().ok().context("nobody listened")??;
        ensure!(bytes > 0, "nothing came");
        anyhow::Ok(())
    })?;
    let seconds = began.elapsed().as_secs_f64();
    fs::remove_file(out)?;
    Ok(seconds)
}
