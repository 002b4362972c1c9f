//! What was typed, turned into requests. Touches nothing: no file is looked
//! at here, so every test is a table.

use std::ffi::OsString;
use std::path::PathBuf;

use clap_complete::Shell;

use crate::cli::args::{
    Args, ConfirmArgs, ConvertArgs, ImageArgs, InstallArgs, OutputArgs,
    PlanArgs, SelectionArgs, UndoArgs, Verb,
};
use crate::cli::speaker::{Manner, Stream};
use crate::commands::agent_log::LogWish;
use crate::commands::console::ConsoleRequest;
use crate::commands::diff::DiffRequest;
use crate::commands::install::{InstallRequest, UndoRequest};
use crate::commands::ls::LsRequest;
use crate::commands::plan::PlanRequest;
use crate::commands::power::PowerRequest;
use crate::commands::reach::Reach;
use crate::commands::{ConvertRequest, ImageRequest, Output, VerifyRequest};
use crate::error::{Error, ErrorKind, Result};
use crate::ext::{JournalMode, Scope, Selection};
use crate::image::format::{Format, Qcow2Compression, Qcow2Layout};
use crate::remote::session::Patience;
use crate::remote::target::Target;
use crate::units::ByteOffset;

/// All that was asked of the program.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Job {
    /// Where the devices are, and how long to wait for them.
    pub reach: Reach,
    /// How to speak about it.
    pub manner: Manner,
    /// What to do.
    pub task: Task,
}

/// What to do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Task {
    /// List devices and what lies on them.
    Ls(LsRequest),
    /// Say who answers at the other end of a line.
    Probe,
    /// Join this terminal with the other end of a line.
    Console(ConsoleRequest),
    /// Restart the machine at the other end, or switch it off.
    Power(PowerRequest),
    /// Say what an image would cost.
    Plan(PlanRequest),
    /// Save metadata in an image.
    Image(ImageRequest),
    /// Check an image.
    Verify(VerifyRequest),
    /// Compare two images or devices.
    Diff(DiffRequest),
    /// Turn an image into one of another format.
    Convert(ConvertRequest),
    /// Write an image back to a device.
    Install(InstallRequest),
    /// Take an install back.
    Undo(UndoRequest),
    /// Print a completion script.
    Completions(Shell),
    /// Print or write manual pages.
    Man {
        /// The verb that the page is about.
        page: Option<String>,
        /// Where to write all pages.
        into: Option<PathBuf>,
    },
}

impl Task {
    /// The verb.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Ls(_) => "ls",
            Self::Probe => "probe",
            Self::Console(_) => "console",
            Self::Power(_) => "reboot",
            Self::Plan(_) => "plan",
            Self::Image(_) => "image",
            Self::Verify(_) => "verify",
            Self::Diff(_) => "diff",
            Self::Convert(_) => "convert",
            Self::Install(_) => "install",
            Self::Undo(_) => "undo",
            Self::Completions(_) => "completions",
            Self::Man { .. } => "man",
        }
    }

    /// The devices that it speaks of, by whatever name they were given.
    pub(super) fn devices_mut(&mut self) -> Vec<&mut PathBuf> {
        match self {
            Self::Ls(request) => request.devices.iter_mut().collect(),
            Self::Plan(request) => vec![&mut request.device],
            Self::Image(request) => vec![&mut request.device],
            Self::Verify(request) => request.against.iter_mut().collect(),
            Self::Diff(request) => {
                vec![&mut request.left, &mut request.right]
            }
            Self::Install(request) => vec![&mut request.device],
            Self::Undo(request) => request.device.iter_mut().collect(),
            Self::Probe
            | Self::Console(_)
            | Self::Power(_)
            | Self::Convert(_)
            | Self::Completions(_)
            | Self::Man { .. } => Vec::new(),
        }
    }

    /// Whether the devices of this machine are the only ones it can reach.
    const fn is_local(&self) -> bool {
        matches!(self, Self::Verify(_) | Self::Convert(_))
    }

    /// Whether the image goes where text would go otherwise.
    pub(super) const fn takes_stdout(&self) -> bool {
        let output = match self {
            Self::Image(request) => &request.output,
            Self::Convert(request) => &request.output,
            _ => return false,
        };
        matches!(output, Output::Stdout)
    }
}

/// What `args` ask for.
///
/// # Errors
///
/// [`ErrorKind::Usage`] for options that contradict each other.
pub fn from_args(args: Args) -> Result<Job> {
    let Args { globals, verb } = args;
    let target = globals.target.unwrap_or_default();
    let task = match verb {
        Verb::Ls { devices } => Task::Ls(LsRequest { devices }),
        Verb::Probe => Task::Probe,
        Verb::Console { escape, kernel_log } => {
            Task::Console(ConsoleRequest { escape, kernel_log })
        }
        Verb::Reboot { poweroff } => Task::Power(PowerRequest { poweroff }),
        Verb::Plan(args) => Task::Plan(plan(args, &target)?),
        Verb::Image(args) => Task::Image(image(args, &target)?),
        Verb::Verify(args) => Task::Verify(VerifyRequest {
            image: args.image,
            against: args.against,
        }),
        Verb::Diff(args) => Task::Diff(DiffRequest {
            left: args.left,
            right: args.right,
            source_offset: args.source_offset,
        }),
        Verb::Convert(args) => Task::Convert(convert(args)?),
        Verb::Install(args) => Task::Install(install(args)?),
        Verb::Undo(args) => Task::Undo(undo(args)),
        Verb::Completions { shell } => Task::Completions(shell),
        Verb::Man { page, into } => Task::Man { page, into },
    };
    let defaults = Patience::default();
    let reach = Reach {
        target,
        patience: Patience {
            connect: globals.connect_timeout.unwrap_or(defaults.connect),
            wait: globals.wait.unwrap_or(defaults.wait),
            appear: globals.wait,
            deadline: globals.deadline,
        },
        agent_log: globals
            .agent_log
            .map(|level| LogWish { level, table: globals.agent_log_table }),
    };
    if reach.target != Target::Local && task.is_local() {
        return Err(contradiction(
            format!(
                "`{}` reaches the devices of this machine only",
                task.name()
            ),
            "leave out --target and E2WIRE_TARGET",
        ));
    }
    let text =
        if task.takes_stdout() { Stream::Stderr } else { Stream::Stdout };
    Ok(Job {
        reach,
        manner: Manner {
            json: globals.json,
            quiet: globals.quiet,
            verbose: globals.verbose,
            text,
        },
        task,
    })
}

fn plan(args: PlanArgs, target: &Target) -> Result<PlanRequest> {
    let format = args.format.unwrap_or(Format::Qcow2);
    let scope = scope(format, &args.selection)?;
    let selection = args.selection;
    Ok(PlanRequest {
        device: args.device,
        selection: selection.select,
        journal: journal(&selection, target),
        scope,
        superblock: selection.superblock,
        block_size: selection.block_size,
        full_tables: full_tables(&selection, format),
        source_offset: selection.source_offset,
    })
}

/// The old part of a journal costs little here, and hours on a slow line.
fn journal(selection: &SelectionArgs, target: &Target) -> JournalMode {
    selection.journal.unwrap_or(match target {
        Target::Local => JournalMode::Full,
        _ => JournalMode::Live,
    })
}

/// How far a selection goes that a format can hold.
fn scope(format: Format, selection: &SelectionArgs) -> Result<Scope> {
    if format != Format::Normal {
        return Ok(match selection.data {
            true => Scope::Data,
            false => Scope::Metadata,
        });
    }
    if selection.data {
        return Err(contradiction(
            "a normal image cannot hold the contents of files",
            "leave out --data, or take --format raw or qcow2",
        ));
    }
    if selection.superblock.is_some() {
        return Err(contradiction(
            "a normal image always begins with the first superblock",
            "leave out --superblock, or take --format raw or qcow2",
        ));
    }
    Ok(Scope::Tables)
}

/// e2image writes the tables of a normal image whole.
fn full_tables(selection: &SelectionArgs, format: Format) -> bool {
    selection.full_tables
        || (selection.select == Selection::E2image && format == Format::Normal)
}

fn image(args: ImageArgs, target: &Target) -> Result<ImageRequest> {
    let output = output(args.output)?;
    let format = output.format(args.out.format)?;
    let (layout, compression) = qcow2(&args.out, format)?;
    let scope = scope(format, &args.selection)?;
    if format != Format::Raw && args.dest_offset != ByteOffset(0) {
        return Err(contradiction(
            "--dest-offset needs a raw output",
            "leave it out, or take --format raw",
        ));
    }
    Ok(ImageRequest {
        device: args.device,
        output,
        format: Some(format),
        selection: args.selection.select,
        journal: journal(&args.selection, target),
        scope,
        superblock: args.selection.superblock,
        block_size: args.selection.block_size,
        // e2image leaves unused tables out of every format but its own.
        full_tables: full_tables(&args.selection, format),
        layout,
        compression,
        force: args.force,
        dry_run: args.dry_run,
        overwrite: args.out.overwrite,
        no_manifest: args.out.no_manifest,
        no_sync: args.out.no_sync,
        map: args.map,
        retries: args.retries,
        source_offset: args.selection.source_offset,
        dest_offset: args.dest_offset,
    })
}

fn convert(args: ConvertArgs) -> Result<ConvertRequest> {
    let output = output(args.output)?;
    let format = output.format(args.out.format)?;
    let (layout, compression) = qcow2(&args.out, format)?;
    Ok(ConvertRequest {
        input: args.input,
        output,
        format: Some(format),
        layout,
        compression,
        overwrite: args.out.overwrite,
        no_manifest: args.out.no_manifest,
        no_sync: args.out.no_sync,
    })
}

fn install(args: InstallArgs) -> Result<InstallRequest> {
    let ConfirmArgs { confirm, undo, audit, dry_run } = args.confirm;
    if args.image == args.device {
        return Err(contradiction(
            "the image and the device are the same",
            "name the image first, then the device",
        ));
    }
    Ok(InstallRequest {
        image: args.image,
        device: args.device,
        original: args.original,
        only: args.only,
        groups: args.groups,
        inodes: args.inodes,
        fetch_data: args.fetch_data,
        rehearse: args.rehearse,
        data: args.data,
        undo,
        audit,
        confirm,
        dry_run,
        allow_uuid_change: args.allow_uuid_change,
        allow_size_change: args.allow_size_change,
        allow_changed: args.allow_changed,
        unproven: args.unproven,
        expect_serial: args.expect_serial,
        dest_offset: args.dest_offset,
    })
}

fn undo(args: UndoArgs) -> UndoRequest {
    let ConfirmArgs { confirm, undo, audit, dry_run } = args.confirm;
    UndoRequest {
        file: args.file,
        device: args.device,
        list: args.list,
        undo,
        audit,
        confirm,
        dry_run,
    }
}

fn output(typed: OsString) -> Result<Output> {
    if typed.is_empty() {
        return Err(Error::new(ErrorKind::Usage, "the output has no name"));
    }
    Ok(if typed == "-" { Output::Stdout } else { Output::File(typed.into()) })
}

fn qcow2(
    args: &OutputArgs,
    format: Format,
) -> Result<(Qcow2Layout, Qcow2Compression)> {
    let asked = args.qcow2_layout.is_some() || args.qcow2_compress.is_some();
    if asked && format != Format::Qcow2 {
        return Err(contradiction(
            format!(
                "--qcow2-layout and --qcow2-compress mean nothing for a {format} image"
            ),
            "leave them out, or take --format qcow2",
        ));
    }
    let layout = args.qcow2_layout.unwrap_or_default();
    let compression = args.qcow2_compress.unwrap_or_default();
    if layout == Qcow2Layout::Classic && compression != Qcow2Compression::None {
        return Err(contradiction(
            "the classic layout is never compressed",
            "leave out --qcow2-layout classic or --qcow2-compress",
        ));
    }
    Ok((layout, compression))
}

fn contradiction(what: impl Into<String>, hint: &str) -> Error {
    Error::new(ErrorKind::Usage, what).hint(hint)
}

#[cfg(test)]
mod tests;
