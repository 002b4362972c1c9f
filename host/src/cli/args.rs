//! What can be typed: one definition per option feeds `-h`, `--help`, the
//! man pages and the completions.
//!
//! This only records and validates; [`super::job`] decides what it means.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};
use clap_complete::Shell;

use crate::cli::examples;
use crate::cli::values;
use crate::commands::agent_log::LogLevel;
use crate::ext::{JournalMode, Selection};
use crate::image::format::{Format, Qcow2Compression, Qcow2Layout};
use crate::remote::target::Target;
use crate::units::{BlockNumber, BlockSize, ByteOffset};

/// Saves, checks, converts and restores the metadata of ext2/3/4
/// filesystems.
///
/// Devices are only read, but by `install` and `undo`, which show a plan and
/// want it confirmed. Images are normal (as of e2image), raw or qcow2; damage
/// is reported and worked around.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "e2wire",
    version,
    arg_required_else_help = true,
    subcommand_required = true,
    disable_help_subcommand = true,
    max_term_width = 100,
    after_help = "See `e2wire COMMAND --help` for details and examples.",
    after_long_help = examples::overview(),
)]
pub struct Args {
    /// Options that every command takes.
    #[command(flatten)]
    pub globals: Globals,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// Options that every command takes.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Global options")]
pub struct Globals {
    /// Where the devices are [default: local:]
    ///
    /// `local:` is this machine and the default. An agent is reached by
    /// `serial:/dev/ttyUSB0?baud=115200`, `tcp:HOST:PORT`,
    /// `listen:ADDR:PORT` (the agent calls), `unix:PATH`, `exec:COMMAND LINE`
    /// (in a terminal: ipmitool, ssh) or `pipe:COMMAND LINE`.
    #[arg(
        short,
        long,
        global = true,
        env = "E2WIRE_TARGET",
        hide_env_values = true,
        value_name = "TARGET"
    )]
    pub target: Option<Target>,

    /// How long the port may take to open and the agent to answer
    /// [default: 10s]
    #[arg(
        long,
        global = true,
        value_name = "TIME",
        value_parser = values::duration
    )]
    pub connect_timeout: Option<Duration>,

    /// How long to wait for an agent that is not there yet, or is away
    ///
    /// When it is given, a port that does not open is tried again until then,
    /// and silence is no error before. An agent that has answered may be away
    /// for 60 s without it.
    #[arg(
        long,
        global = true,
        value_name = "TIME",
        value_parser = values::duration
    )]
    pub wait: Option<Duration>,

    /// How long a job over a line may take in all
    ///
    /// It ends with exit code 8 then, and the same command goes on from
    /// there.
    #[arg(
        long,
        global = true,
        value_name = "TIME",
        value_parser = values::duration
    )]
    pub deadline: Option<Duration>,

    /// Show the agent's own log
    ///
    /// This level and what matters more, from the agent's start on. Nothing
    /// of it crosses the line without this option.
    #[arg(long, global = true, value_enum, value_name = "LEVEL")]
    pub agent_log: Option<LogLevel>,

    /// The texts of the agent's log [default: found by its build]
    ///
    /// The file e2wire-agent-BUILD.defmt that build-initrd writes, or the
    /// agent's ELF. Looked for in this folder, ~/.local/share/e2wire,
    /// /usr/local/share/e2wire and /usr/share/e2wire.
    #[arg(long, global = true, value_name = "FILE", requires = "agent_log")]
    pub agent_log_table: Option<PathBuf>,

    /// Report in JSON, one event a line
    ///
    /// Standard output then carries nothing but events (standard error
    /// does, when the image itself goes to standard output). The last line
    /// is always the `result` event with the exit code. The schema is in
    /// host/src/cli/SCHEMA.md.
    #[arg(long, global = true)]
    pub json: bool,

    /// Say nothing but errors, warnings and what was asked for
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,

    /// Say more: every finding instead of the first few
    #[arg(short, long, global = true)]
    pub verbose: bool,

    /// Never ask anything
    ///
    /// What would need an answer is refused with exit code 5 instead.
    #[arg(long, global = true)]
    pub non_interactive: bool,
}

/// The commands.
#[derive(Clone, Debug, Subcommand)]
pub enum Verb {
    /// List devices and what lies on them
    ///
    /// Looks for partition tables, ext2/3/4, XFS, Btrfs, FAT, NTFS, swap,
    /// and members of LVM, RAID and encryption. Needs the right to read the
    /// devices, usually root's.
    #[command(after_long_help = examples::of("ls"))]
    Ls {
        /// Only these devices or files
        #[arg(value_name = "DEVICE")]
        devices: Vec<PathBuf>,
    },
    /// Say who answers at the other end of a line
    ///
    /// Where no agent answers, it says what was seen there instead, and
    /// what to do.
    #[command(after_long_help = examples::of("probe"))]
    Probe,
    /// Join this terminal with the other end of a line
    ///
    /// Shows what is said there, by a kernel, a boot loader or a login prompt,
    /// and sends what is typed; no agent is needed. The escape key and then a
    /// dot end it, and with a question mark it tells what else it can do.
    /// Without a terminal it sends its standard input and goes on showing
    /// until the line ends or `--deadline` has come.
    ///
    /// An agent's own words are left out. On a port that leads to nothing but
    /// an agent (`listen:`, `pipe:`) it shows what the machine's kernel logs.
    #[command(after_long_help = examples::of("console"))]
    Console {
        /// The key that commands begin with
        #[arg(
            long,
            value_name = "KEY",
            default_value = "^]",
            value_parser = values::control_key
        )]
        escape: u8,

        /// Ask the agent for what the kernel logs, instead of the line
        #[arg(long)]
        kernel_log: bool,
    },
    /// Restart the machine at the other end of a line
    ///
    /// Only an agent that the machine has booted into can do that; on a
    /// machine that runs a system, restart it there.
    #[command(after_long_help = examples::of("reboot"))]
    Reboot {
        /// Switch it off instead
        #[arg(long)]
        poweroff: bool,
    },
    /// Say what an image would cost, and what is damaged
    ///
    /// Walks the filesystem as `image` would and writes nothing.
    Plan(PlanArgs),
    /// Save a filesystem's metadata in an image
    Image(ImageArgs),
    /// Check an image, and compare it with a device
    Verify(VerifyArgs),
    /// Say what two images, or an image and a device, hold otherwise
    Diff(DiffArgs),
    /// Turn an image into one of another format
    Convert(ConvertArgs),
    /// Write an image back to a device: only what differs, and undoable
    Install(InstallArgs),
    /// Take an install back
    Undo(UndoArgs),
    /// Print a completion script for a shell
    ///
    /// Where it belongs: for bash in
    /// ~/.local/share/bash-completion/completions/e2wire, for zsh as _e2wire
    /// in a directory of $fpath, for fish in
    /// ~/.config/fish/completions/e2wire.fish.
    #[command(after_long_help = examples::of("completions"))]
    Completions {
        /// The shell
        #[arg(value_name = "SHELL")]
        shell: Shell,
    },
    /// Print a manual page, or write all of them
    #[command(after_long_help = examples::of("man"))]
    Man {
        /// The command that the page is about; without it, e2wire as a whole
        #[arg(value_name = "COMMAND", conflicts_with = "into")]
        page: Option<String>,

        /// Write every page into this directory, which must exist
        #[arg(long, value_name = "DIR")]
        into: Option<PathBuf>,
    },
}

/// How the filesystem is found and which of its blocks are selected.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Selection")]
pub struct SelectionArgs {
    /// Also the contents of files
    #[arg(short = 'a', long)]
    pub data: bool,

    /// Which rules select blocks
    #[arg(long, value_enum, default_value = "complete", value_name = "RULES")]
    pub select: Selection,

    /// How much of the journal to take [default: full; live over a line]
    ///
    /// A journal is often most of an image, and nearly all of it is old. What
    /// is left out is a hole of the image, and recorded in its manifest.
    #[arg(long, value_enum, value_name = "PART")]
    pub journal: Option<JournalMode>,

    /// Inode tables whole, also where inodes were never used
    ///
    /// Without it the parts of a normal image that belong to inodes never
    /// used are holes. With `--select e2image` a normal image always
    /// has them.
    #[arg(long)]
    pub full_tables: bool,

    /// Use the superblock at this block
    ///
    /// Without it the first one is used, or if that is lost a copy that is
    /// looked for. The number counts blocks of `--blocksize`: usually 32768
    /// with 4 KiB blocks, 8193 with 1 KiB blocks.
    #[arg(
        short = 'b',
        long,
        value_name = "N",
        requires = "block_size",
        value_parser = values::block
    )]
    pub superblock: Option<BlockNumber>,

    /// The block size that the filesystem must have
    #[arg(
        short = 'B',
        long = "blocksize",
        value_name = "BYTES",
        value_parser = values::block_size
    )]
    pub block_size: Option<BlockSize>,

    /// Where the filesystem starts on DEVICE, in bytes
    ///
    /// K, M, G and T stand for powers of 1024, s for 512-byte sectors: a
    /// partition that begins at sector 2048 is `2048s`.
    #[arg(
        long,
        value_name = "BYTES",
        default_value = "0",
        hide_default_value = true,
        value_parser = values::offset
    )]
    pub source_offset: ByteOffset,
}

/// Where an image goes and what it looks like.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Output")]
pub struct OutputArgs {
    /// The format [default: by the suffix .e2i, .raw or .img, .qcow2]
    #[arg(long, value_enum)]
    pub format: Option<Format>,

    /// How the clusters of a qcow2 image are laid out
    #[arg(long, value_enum, value_name = "LAYOUT")]
    pub qcow2_layout: Option<Qcow2Layout>,

    /// How the clusters of a qcow2 image are compressed
    #[arg(long, value_enum, value_name = "METHOD")]
    pub qcow2_compress: Option<Qcow2Compression>,

    /// Replace an existing output
    ///
    /// The old file stays until the new one is complete.
    #[arg(long)]
    pub overwrite: bool,

    /// Write no OUTPUT.manifest.json beside the image
    #[arg(long)]
    pub no_manifest: bool,

    /// Do not wait until the image is on the disk
    ///
    /// Faster, but a power cut shortly afterwards may cost the image.
    #[arg(long)]
    pub no_sync: bool,
}

/// `e2wire plan`
#[derive(Clone, Debug, clap::Args)]
#[command(after_long_help = examples::of("plan"))]
pub struct PlanArgs {
    /// The device or file that the filesystem lies on; only read
    ///
    /// A device of this machine may also be named by what it is: UUID=,
    /// LABEL=, SERIAL= or WWN= and the value, as `e2wire ls` shows it.
    #[arg(value_name = "DEVICE")]
    pub device: PathBuf,

    /// How the filesystem is found and selected.
    #[command(flatten)]
    pub selection: SelectionArgs,

    /// The format that the image would have [default: raw or qcow2]
    #[arg(long, value_enum)]
    pub format: Option<Format>,
}

/// `e2wire image`
#[derive(Clone, Debug, clap::Args)]
#[command(after_long_help = examples::of("image"))]
pub struct ImageArgs {
    /// The device or file that the filesystem lies on; only read
    ///
    /// A device of this machine may also be named by what it is: UUID=,
    /// LABEL=, SERIAL= or WWN= and the value, as `e2wire ls` shows it.
    #[arg(value_name = "DEVICE")]
    pub device: PathBuf,

    /// The image to write, `-` for standard output
    #[arg(value_name = "OUTPUT")]
    pub output: OsString,

    /// How the filesystem is found and selected.
    #[command(flatten)]
    pub selection: SelectionArgs,

    /// What the image looks like.
    #[command(flatten)]
    pub out: OutputArgs,

    /// Where the filesystem starts in a raw OUTPUT, in bytes
    #[arg(
        long,
        value_name = "BYTES",
        default_value = "0",
        hide_default_value = true,
        help_heading = "Output",
        value_parser = values::offset
    )]
    pub dest_offset: ByteOffset,

    /// Keep a mapfile of GNU ddrescue
    ///
    /// Areas of DEVICE that FILE lists as bad are not read at all. In the end
    /// FILE says of every area whether it is in the image, bad or not read,
    /// and `ddrescuelog` understands it.
    #[arg(long, value_name = "FILE", help_heading = "Damaged devices")]
    pub map: Option<PathBuf>,

    /// Passes over sectors that stay bad, at the end: 0 to 100 [default: 1]
    ///
    /// What is hard to read is left alone until all else is copied; then it is
    /// tried in pieces of 4 KiB, then sector by sector, the most important
    /// first, and at last N times more, every other time backwards. With
    /// this option these passes also try what a mapfile of an earlier run
    /// lists as bad.
    #[arg(
        long,
        value_name = "N",
        help_heading = "Damaged devices",
        value_parser = clap::value_parser!(u32).range(0..=100)
    )]
    pub retries: Option<u32>,

    /// Also when the filesystem is mounted read/write
    ///
    /// It changes while it is read, so the image may contradict itself.
    #[arg(short, long)]
    pub force: bool,

    /// Read and check everything, write nothing
    #[arg(short = 'n', long)]
    pub dry_run: bool,
}

/// `e2wire verify`
#[derive(Clone, Debug, clap::Args)]
#[command(after_long_help = examples::of("verify"))]
pub struct VerifyArgs {
    /// The image; its manifest is looked for beside it
    #[arg(value_name = "IMAGE")]
    pub image: PathBuf,

    /// The device that must still hold the same
    #[arg(long, value_name = "DEVICE")]
    pub against: Option<PathBuf>,
}

/// `e2wire diff`
#[derive(Clone, Debug, clap::Args)]
#[command(after_long_help = examples::of("diff"))]
pub struct DiffArgs {
    /// An image, or a device of this machine
    #[arg(value_name = "LEFT")]
    pub left: PathBuf,

    /// Another one; with --target a device over there
    ///
    /// Over a line the far end digests what LEFT has, and only what differs
    /// crosses it; an agent without --rw will do.
    #[arg(value_name = "RIGHT")]
    pub right: PathBuf,

    /// Where the filesystem starts on RIGHT, a device or a file like one, in
    /// bytes
    #[arg(
        long,
        value_name = "BYTES",
        default_value = "0",
        hide_default_value = true,
        value_parser = values::offset
    )]
    pub source_offset: ByteOffset,
}

/// `e2wire convert`
#[derive(Clone, Debug, clap::Args)]
#[command(after_long_help = examples::of("convert"))]
pub struct ConvertArgs {
    /// The image to read; its format is found by its contents
    #[arg(value_name = "INPUT")]
    pub input: PathBuf,

    /// The image to write, `-` for standard output
    #[arg(value_name = "OUTPUT")]
    pub output: OsString,

    /// What the new image looks like.
    #[command(flatten)]
    pub out: OutputArgs,
}

mod write;

pub use write::{ConfirmArgs, InstallArgs, UndoArgs};

#[cfg(test)]
mod tests;
