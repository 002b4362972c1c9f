//! `cargo xtask demo [DEVICE]`: the main job, shown on a real filesystem, here
//! and at the other end of a serial line.
//!
//! Every command is printed before it runs, with what it shows; the demo
//! fails when anything is not as it says.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use e2wire_tests::agents::{Agent, Build};
use e2wire_tests::compare::first_difference;
use e2wire_tests::paced::{Pace, PtyPair};
use e2wire_tests::sim::Faults;
use e2wire_tests::{binaries, fixtures, target, tools};

use crate::project::parsed;

/// The speed of the line that is shown: what nearly every console has.
const BAUD: u32 = 115_200;

/// Shows the main job on a filesystem, each step explained.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask demo", bin_name = "cargo xtask demo")]
struct Options {
    /// A device or a file with a filesystem; it is only read [default: one
    /// made for the purpose]
    device: Option<PathBuf>,
    /// The serial line is so many times faster than 115200 baud; 1 is what
    /// it would take [default: 1, with DEVICE 200]
    #[arg(long, value_name = "FACTOR",
        value_parser = clap::value_parser!(u32).range(1..=1000))]
    accelerate: Option<u32>,
}

/// Runs the command with the words behind its name.
///
/// # Errors
///
/// When anything is not as it should be.
pub(crate) fn run(words: &[&str]) -> Result<ExitCode> {
    let options: Options = match parsed("cargo xtask demo", words)? {
        Ok(options) => options,
        Err(code) => return Ok(code),
    };
    crate::test::install_missing()?;
    println!("Building e2wire and its agent ...");
    let e2wire = binaries::build("e2wire", "e2wire");
    let agent = Build::Hosted;
    let _ = agent.path();
    let scratch = target().join("demo");
    let _ = fs::remove_dir_all(&scratch);
    fs::create_dir_all(&scratch)?;
    let own = options.device.is_none();
    let usual = if own { 1 } else { 200 };
    let accelerate = options.accelerate.unwrap_or(usual);
    let device = match options.device {
        Some(device) => device
            .canonicalize()
            .with_context(|| format!("no device {}", device.display()))?,
        None => made(&scratch)?,
    };
    let demo = Demo { e2wire, device, scratch };
    demo.raw()?;
    demo.qcow2()?;
    demo.normal()?;
    demo.verify()?;
    demo.serial(agent, accelerate)?;
    if own {
        demo.repair(agent, accelerate)?;
    } else {
        println!(
            "\n6. A repair from a distance is shown on a filesystem made for \
             it: leave out\n   the device, which is only read."
        );
    }
    println!(
        "\nAll as it should be. The images lie in {}; look around:\n  \
         debugfs -R 'ls -l /' {}",
        demo.scratch.display(),
        demo.out("complete.raw").display()
    );
    Ok(ExitCode::SUCCESS)
}

/// The disk at the other end of the line.
struct Distant<'a> {
    demo: &'a Demo,
    target: String,
    sick: PathBuf,
}

impl Distant<'_> {
    /// e2wire over the line; its log stays in the demo's folder.
    fn e2wire(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.demo.e2wire);
        command.args(["-t", &self.target]).args(words);
        command.env("XDG_STATE_HOME", &self.demo.scratch);
        command
    }

    /// Shows the plan of a command, then carries it out; answers its token.
    fn confirm(&self, mut command: Command) -> Result<String> {
        let planned = self.demo.show_lines(&mut command, 40)?;
        ensure!(planned.status.code() == Some(5), "no plan");
        let said = String::from_utf8_lossy(&planned.stdout);
        let token = said.split_once("--confirm ");
        let token = token.and_then(|(_, rest)| rest.split_whitespace().next());
        let token = token.context("the plan has no token")?.to_owned();
        self.demo.succeed(command.args(["--confirm", &token]))?;
        Ok(token)
    }
}

/// `cp`, holes and all.
fn copy(from: &Path, to: &Path) -> Command {
    let mut command = Command::new("cp");
    command.arg("--sparse=always").arg(from).arg(to);
    command
}

/// A filesystem to show things on: files, links, attributes, a directory with
/// thousands of names.
fn made(scratch: &Path) -> Result<PathBuf> {
    let fixture = fixtures::fixture("ext4-4k-full");
    let device = scratch.join("disk.img");
    fixture.copy_to(&device)?;
    println!("Made an ext4 filesystem in {}.", device.display());
    Ok(device)
}

struct Demo {
    e2wire: PathBuf,
    device: PathBuf,
    scratch: PathBuf,
}

impl Demo {
    fn out(&self, name: &str) -> PathBuf {
        self.scratch.join(name)
    }

    fn raw(&self) -> Result<()> {
        println!(
            "\n1. A raw image: a sparse file with every block of metadata at \
             its place."
        );
        let (theirs, ours) = (self.out("e2image.raw"), self.out("e2wire.raw"));
        self.image(&["--select", "e2image", "--format", "raw"], &ours)?;
        self.e2image(&["-r"], &theirs)?;
        same(&theirs, &ours)?;
        let all = self.out("complete.raw");
        self.image(&["--format", "raw"], &all)?;
        println!(
            "   Without --select e2image, e2wire also saves what e2image \
             forgets: blocks of\n   deleted files that are still open, and \
             large attributes. e2fsck judges:"
        );
        let original = self.fsck(&self.device)?;
        let image = self.fsck(&all)?;
        ensure!(original == image, "e2fsck judges the image otherwise");
        println!("   -> the image is exactly as sound as the original");
        Ok(())
    }

    fn qcow2(&self) -> Result<()> {
        println!("\n2. A qcow2 image: small, for QEMU, qemu-nbd and qemu-img.");
        let ours = self.out("e2wire.qcow2");
        self.image(&["--select", "e2image"], &ours)?;
        let mut check = tools::command("qemu-img");
        check.args(["check", "-f", "qcow2"]).arg(&ours);
        self.succeed(&mut check)?;
        println!("   -> no errors and no leaked clusters");
        let raw = self.out("from-qcow2.raw");
        let mut convert = tools::command("qemu-img");
        convert.args(["convert", "-f", "qcow2", "-O", "raw"]);
        self.succeed(convert.arg(&ours).arg(&raw))?;
        same(&self.out("e2image.raw"), &raw)?;
        let (theirs, classic) =
            (self.out("e2image.qcow2"), self.out("classic.qcow2"));
        let layout = ["--select", "e2image", "--qcow2-layout", "classic"];
        self.image(&layout, &classic)?;
        self.e2image(&["-Q"], &theirs)?;
        same(&theirs, &classic)
    }

    fn normal(&self) -> Result<()> {
        println!(
            "\n3. A normal image: the tables only, for debugfs -i and \
             dumpe2fs -i."
        );
        let (theirs, ours) = (self.out("e2image.e2i"), self.out("e2wire.e2i"));
        self.image(&["--select", "e2image"], &ours)?;
        self.e2image(&[], &theirs)?;
        let mut answers = vec![];
        for image in [&theirs, &ours] {
            let mut dumpe2fs = tools::command("dumpe2fs");
            answers.push(self.succeed(dumpe2fs.arg("-i").arg(image))?.stdout);
        }
        ensure!(
            answers.first() == answers.last(),
            "dumpe2fs -i sees a difference"
        );
        println!("   -> dumpe2fs sees the same in both");
        Ok(())
    }

    fn verify(&self) -> Result<()> {
        println!("\n4. The manifest beside an image proves what it holds.");
        let image = self.out("complete.raw");
        let verify = |image: &Path| {
            let mut command = Command::new(&self.e2wire);
            command.arg("verify").arg(image);
            command
        };
        self.succeed(&mut verify(&image))?;
        println!("   -> not a bit has changed. Now one is flipped ...");
        let damaged = self.out("damaged.raw");
        for suffix in ["", ".manifest.json"] {
            let beside = |path: &Path| {
                PathBuf::from(format!("{}{suffix}", path.display()))
            };
            fs::copy(beside(&image), beside(&damaged))?;
        }
        // In the volume's name, s_volume_name of the superblock.
        flip(&damaged, 1024 + 0x78)?;
        let output = self.show(&mut verify(&damaged))?;
        ensure!(
            output.status.code() == Some(4),
            "the flipped bit was not found: {}",
            output.status
        );
        println!("   -> found, and what it belongs to");
        Ok(())
    }

    fn serial(&self, agent: Build, accelerate: u32) -> Result<()> {
        println!(
            "\n5. The same over a serial line, as from a machine that only \
             has a console.\n   An agent serves the device behind a line of \
             {BAUD} baud{}\n   that loses a byte in ten thousand and lets \
             the kernel talk in between.",
            match accelerate {
                1 => String::new(),
                factor => format!(", {factor} times accelerated,"),
            }
        );
        let line = PtyPair::new(&pace(accelerate))?;
        let agent = Agent::on_serial(agent, &self.device, line.far(), BAUD)?;
        let target = line.target(BAUD);
        let over_line = |words: &[&str]| {
            let mut command = Command::new(&self.e2wire);
            command.args(["-t", &target]).args(words);
            command
        };
        self.succeed(&mut over_line(&["probe"]))?;
        let image = self.out("serial.raw");
        let before = line.carried().to_near;
        let started = Instant::now();
        // What a local run takes by default, so that both can be compared.
        let image_it = |deadline: &[&str]| {
            let mut command = over_line(deadline);
            command.args(["image", "--journal", "full"]);
            command.arg(&self.device).arg(&image);
            command
        };
        println!("   A job that ends too early goes on where it was:");
        let output = self.show(&mut image_it(&["--deadline", "700ms"]))?;
        match output.status.code() {
            Some(0) => println!("   -> it was fast enough"),
            Some(8) => {
                println!("   -> exit code 8; the same command again:");
                self.succeed(&mut image_it(&[]))?;
            }
            _ => bail!("not interrupted, but {}", output.status),
        }
        let seconds = started.elapsed().as_secs_f64();
        drop(agent);
        let (one, other) = (self.out("complete.raw"), &image);
        if let Some(at) = first_difference(&one, other)? {
            bail!("the image over the line differs from byte {at} on");
        }
        let bytes = line.carried().to_near - before;
        println!(
            "   -> the same as the local image, byte for byte: {bytes} bytes \
             on the line,\n      {seconds:.1} s here, {:.0} s without \
             acceleration",
            // Ten bits for a byte.
            bytes as f64 * 10.0 / f64::from(BAUD)
        );
        Ok(())
    }

    fn repair(&self, agent: Build, accelerate: u32) -> Result<()> {
        println!(
            "\n6. A repair from a distance: the disk at the other end of the \
             line is damaged,\n   a copy of its metadata is repaired here, \
             and only what the repair changed\n   goes back."
        );
        let sick = self.out("sick.img");
        self.succeed(&mut copy(&self.device, &sick))?;
        for request in
            ["sif <108> links_count 9", "unlink /punched", "freei <110>"]
        {
            let mut debugfs = tools::command("debugfs");
            debugfs.args(["-w", "-R", request]).arg(&sick);
            self.succeed(&mut debugfs)?;
        }
        let before = self.out("sick-before.img");
        self.succeed(&mut copy(&sick, &before))?;
        let line = PtyPair::new(&pace(accelerate))?;
        let port = format!("{},{BAUD}", line.far().display());
        let agent = Agent::start(agent, &sick, &["--serial", &port, "--rw"])?;
        let distant = Distant { demo: self, target: line.target(BAUD), sick };
        let (image, repair) = (self.out("sick.qcow2"), self.out("copy.raw"));
        self.succeed(
            distant.e2wire(&["image"]).arg(&distant.sick).arg(&image),
        )?;
        let mut convert = Command::new(&self.e2wire);
        self.succeed(convert.arg("convert").arg(&image).arg(&repair))?;
        let mut e2fsck = tools::command("e2fsck");
        let repaired = self.show(e2fsck.arg("-fy").arg(&repair))?;
        ensure!(repaired.status.code() == Some(1), "e2fsck repaired nothing");
        println!("   What did it change, and in which files?");
        let mut diff = Command::new(&self.e2wire);
        let output =
            self.show_lines(diff.arg("diff").arg(&image).arg(&repair), 40)?;
        ensure!(output.status.code() == Some(4), "diff found no difference");
        println!("   The plan, tried out first, and carried out then:");
        let mut words = distant.e2wire(&["install", "--rehearse"]);
        words.arg("--original").arg(&image).arg(&repair).arg(&distant.sick);
        let token = distant.confirm(words)?;
        let (code, said) = self.fsck(&distant.sick)?;
        ensure!(code == Some(0), "the disk is not repaired: {said}");
        println!("   -> the disk is sound. And back again, to the last byte:");
        let undo = format!("{}.{token}.undo", repair.display());
        let mut words = distant.e2wire(&["undo", &undo]);
        words.arg(&distant.sick);
        distant.confirm(words)?;
        drop(agent);
        let differs = first_difference(&distant.sick, &before)?;
        ensure!(differs.is_none(), "the undo left byte {differs:?} otherwise");
        let carried = line.carried();
        println!(
            "   -> every byte is what it was; all of this took {} bytes on \
             the line",
            carried.to_near.saturating_add(carried.to_far)
        );
        Ok(())
    }

    fn image(&self, arguments: &[&str], output: &Path) -> Result<()> {
        let mut command = Command::new(&self.e2wire);
        command.arg("image").args(arguments).arg(&self.device).arg(output);
        self.succeed(&mut command).map(drop)
    }

    fn e2image(&self, options: &[&str], output: &Path) -> Result<()> {
        let mut command = tools::command("e2image");
        command.args(options).arg(&self.device).arg(output);
        self.succeed(&mut command).map(drop)
    }

    /// Exit status and words of e2fsck, without the name of the file.
    fn fsck(&self, device: &Path) -> Result<(Option<i32>, String)> {
        let mut command = tools::command("e2fsck");
        let output = self.show(command.arg("-fn").arg(device))?;
        let said = String::from_utf8_lossy(&output.stdout)
            .replace(&*device.to_string_lossy(), "");
        Ok((output.status.code(), said))
    }
}

/// A console's line that loses a byte in ten thousand, with a kernel that
/// talks.
fn pace(accelerate: u32) -> Pace {
    Pace {
        baud: BAUD.saturating_mul(accelerate),
        latency: Duration::from_millis(2),
        faults: Faults { lose: 1e-4, text: 1e-4, ..Faults::default() },
        seed: 4,
        speeds_matter: false,
    }
}

fn same(theirs: &Path, ours: &Path) -> Result<()> {
    match first_difference(theirs, ours)? {
        None => {
            println!("   -> the same as e2image's, byte for byte");
            Ok(())
        }
        Some(at) => bail!(
            "{} and {} differ from byte {at} on",
            theirs.display(),
            ours.display()
        ),
    }
}

fn flip(path: &Path, at: u64) -> Result<()> {
    use std::os::unix::fs::FileExt;

    let file = fs::OpenOptions::new().read(true).write(true).open(path)?;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at)?;
    file.write_all_at(&[byte[0] ^ 1], at)?;
    Ok(())
}

impl Demo {
    /// Prints a command, runs it, prints what it says: the beginning of it.
    fn show(&self, command: &mut Command) -> Result<Output> {
        // dumpe2fs lists every group; the beginning is enough here.
        self.show_lines(command, 6)
    }

    /// The same, with so many lines of what it says.
    fn show_lines(&self, command: &mut Command, most: usize) -> Result<Output> {
        let here = format!("{}/", self.scratch.display());
        let name = |part: &std::ffi::OsStr| part.to_string_lossy().into_owned();
        let mut words = vec![
            Path::new(command.get_program())
                .file_name()
                .map(name)
                .unwrap_or_default(),
        ];
        words.extend(command.get_args().map(name));
        println!("   $ {}", words.join(" ").replace(&here, ""));
        let output = command.stdin(Stdio::null()).output()?;
        let said = [&output.stdout[..], &output.stderr[..]].concat();
        let said = String::from_utf8_lossy(&said);
        for line in said.lines().take(most) {
            println!("     {}", line.replace(&here, ""));
        }
        Ok(output)
    }

    fn succeed(&self, command: &mut Command) -> Result<Output> {
        let output = self.show(command)?;
        ensure!(
            output.status.success(),
            "{}: {}\n{}",
            command.get_program().to_string_lossy(),
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(output)
    }
}
