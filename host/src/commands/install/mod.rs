//! `install`: writes an image back to a device, no more of it than differs.
//!
//! Without a token it shows what it would write. With the token of exactly
//! that plan on exactly that device, what lies there is saved first, then the
//! plan is carried out so that a cut at any place can be gone on from or
//! taken back.

mod content;
mod difference;
mod fetch;
mod identity;
mod inodes;
mod journal;
mod rehearse;
mod repair;
mod request;
mod select;

pub use request::{InodeChoice, InstallRequest, UndoRequest};

use std::cell::RefCell;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::commands::install::content::{Content, Depth, Proof};
use crate::commands::install::difference::{Compared, Comparison};
use crate::commands::install::identity::{Found, identify_device, refused};
use crate::commands::install::inodes::Chosen;
use crate::commands::install::repair::Repair;
use crate::commands::install::select::Wish;
use crate::commands::reach::Reach;
use crate::commands::writing::{
    Carry, Kept, LocalUndo, Reached, UndoOutputs, WritePlan, carry_out,
    refuse_active_mmp,
};
use crate::commands::{Outcome, Report};
use crate::error::{Error, ErrorKind, Result};
use crate::ext::superblock::{incompat, uuid_text};
use crate::install::Executed;
use crate::observer::{Event, Observer};
use crate::stop::Stop;
use crate::text;
use crate::undo::{Facts, UndoFile};

/// How it ended, and the plan, if that is what was asked for.
pub type Ended = (Report, Option<WritePlan>);

/// Installs an image, or says what that would do.
///
/// # Errors
///
/// [`ErrorKind::Refused`] when a guard says no: nothing was written then.
/// [`ErrorKind::WriteIncomplete`] when writing began and stopped. Else what
/// reading brings.
pub fn install(
    request: &InstallRequest,
    reach: &Reach,
    observer: &dyn Observer,
    stop: &Stop,
) -> Result<Ended> {
    let reached = Reached::open(reach, &request.device, observer, stop)?;
    install_to(request, &reached, &LocalUndo, observer, stop)
}

/// Installs an image on a device that was reached, or says what that would
/// do; `outputs` makes the undo file.
///
/// # Errors
///
/// As [`install`].
pub fn install_to(
    request: &InstallRequest,
    reached: &Reached<'_>,
    outputs: &dyn UndoOutputs,
    observer: &dyn Observer,
    stop: &Stop,
) -> Result<Ended> {
    reached.refuse_used()?;
    let carry = Carry {
        verb: "install",
        named_after: &request.image,
        undo: request.undo.as_deref(),
        audit: request.audit.as_deref(),
        reached,
        outputs,
        observer,
        stop,
    };
    if let Some(token) = &request.confirm
        && let Some((undo, path)) = carry.begun(token)?
    {
        observer.event(&Event::Warning {
            code: "resumed",
            message: format!("going on with the plan in {}", path.display()),
        });
        let done = carry_out(&carry, &undo, &path)?;
        return Ok((report_written(reached, &undo, &path, done), None));
    }
    if let Some(inodes) = &request.fetch_data {
        let report = fetch::fetch(request, inodes, reached, observer, stop)?;
        return Ok((report, None));
    }
    let (content, remarks) = open_content(request, reached, observer, stop)?;
    tell_holes(&content, observer);
    let chosen = Chosen::of(request, &content, observer, stop)?;
    let job = Job { request, content: &content, chosen, remarks, carry };
    job.run()
}

/// The image, or what of a repaired copy may be written, and what to say
/// about it.
fn open_content(
    request: &InstallRequest,
    reached: &Reached<'_>,
    observer: &dyn Observer,
    stop: &Stop,
) -> Result<(Content, Vec<String>)> {
    let open =
        |path, depth, proof| Content::open(path, depth, proof, observer, stop);
    let proof = if request.unproven { Proof::None } else { Proof::Manifest };
    let depth = if request.data { Depth::Data } else { Depth::Metadata };
    let Some(original) = &request.original else {
        return Ok((open(&request.image, depth, proof)?, Vec::new()));
    };
    let original = open(original, Depth::Traced, proof)?;
    let mut copy = open(&request.image, Depth::Traced, Proof::None)?;
    if copy.geometry() != original.geometry() {
        return Err(refused(format!(
            "{} is no copy of {}: the filesystems have different shapes",
            request.image.display(),
            request
                .original
                .iter()
                .map(|p| p.display())
                .next()
                .map_or_else(String::new, |name| name.to_string()),
        )));
    }
    copy.manifest.clone_from(&original.manifest);
    identify_device(request, &copy, reached)?;
    let device = reached.source();
    if !request.allow_changed {
        difference::refuse_changed(request, &original, device, stop)?;
    }
    let repair = Repair {
        original: &original,
        copy: &copy,
        device,
        offset: request.dest_offset,
    };
    let class = repair.classify()?;
    copy.held = class.known;
    Ok((copy, class.remarks))
}

/// The blocks that the image lacks because they could not be read.
fn tell_holes(content: &Content, observer: &dyn Observer) {
    let holes = content.manifest.as_ref().map_or(0, |m| m.holes_blocks);
    if holes > 0 {
        observer.event(&Event::Warning {
            code: "image_holes",
            message: format!(
                "the image lacks {} that could not be read: the device keeps \
                 what lies there",
                text::count(holes, "block")
            ),
        });
    }
}

struct Job<'a, 'w> {
    request: &'a InstallRequest,
    content: &'a Content,
    /// The inodes that the plan is restricted to, if it is.
    chosen: Option<Chosen>,
    remarks: Vec<String>,
    carry: Carry<'a, 'w>,
}

impl Job<'_, '_> {
    fn run(&self) -> Result<Ended> {
        let (request, reached) = (self.request, self.carry.reached);
        let found = identify_device(request, self.content, reached)?;
        refuse_active_mmp(reached, request.dest_offset, self.carry.stop)?;
        let chosen = self.chosen.as_ref();
        let wish = Wish::new(request, &self.content.walk, chosen);
        journal::refuse_recovery(self.content, &found, &wish)?;
        let comparison = Comparison {
            request,
            content: self.content,
            device: reached.source(),
            wish: &wish,
            superblock: found.bytes,
            kept: RefCell::new(Kept::default()),
            observer: self.carry.observer,
            stop: self.carry.stop,
        };
        let compared = comparison.run()?;
        let mut shown = self.describe(&compared, &found);
        if compared.plan.is_empty() {
            shown.confirm = None;
            let report = Report::new(Outcome::Done)
                .line(format!(
                    "{} holds all of it already: nothing to do.",
                    reached.name()
                ))
                .fact("changed", false);
            return Ok((report, Some(shown)));
        }
        refuse_newer(request, self.content, &found, &shown)?;
        if request.rehearse {
            let said =
                rehearse::rehearse(self.content, &comparison, &compared.plan)?;
            shown.remarks.push(said);
        }
        let Some(confirmed) = &request.confirm else {
            if request.dry_run {
                shown.confirm = None;
            }
            return Ok((unconfirmed(request.dry_run), Some(shown)));
        };
        if shown.confirm.as_ref() != Some(confirmed) {
            return Err(other_plan(&shown));
        }
        let (undo, path) = self.carry.save(
            &compared.plan,
            &self.facts(&compared, &found),
            &mut |entries| comparison.both(entries),
        )?;
        let done = carry_out(&self.carry, &undo, &path)?;
        Ok((report_written(reached, &undo, &path, done), None))
    }

    fn describe(&self, compared: &Compared, found: &Found) -> WritePlan {
        let size = self.content.size();
        let mut shown = WritePlan::of("install", &compared.plan, size)
            .confirmable(&self.carry, &compared.plan);
        shown.image = self.request.image.display().to_string();
        shown.uuid = Some(uuid_text(&self.content.geometry().uuid));
        shown.groups.clone_from(&compared.groups);
        shown.remarks.extend(found.remarks.iter().cloned());
        shown.remarks.extend(self.remarks.iter().cloned());
        if self.content.doubtful.0 > 0 && self.request.original.is_none() {
            shown.remarks.push(format!(
                "{} of zeros in the image stay out of the plan: without a \
                 manifest nobody can tell whether it ever held them.",
                text::count(self.content.doubtful.0, "block")
            ));
        }
        if let Some(chosen) = &self.chosen {
            shown.remarks.extend(chosen.remarks.iter().cloned());
        }
        if journal::lacks_journal(self.content) {
            shown.remarks.push(
                "The image says that its journal is still to be replayed, \
                 and does not hold it: run e2fsck afterwards."
                    .to_owned(),
            );
        }
        shown
    }

    fn facts(&self, compared: &Compared, found: &Found) -> Facts {
        let reached = self.carry.reached;
        Facts {
            verb: "install".to_owned(),
            device: reached.name().to_owned(),
            device_bytes: reached.length().0,
            disk: reached.disk_facts(),
            uuid: found.raw.as_ref().map(|raw| uuid_text(&raw.s_uuid)),
            offset: self.request.dest_offset.0,
            image: self.request.image.display().to_string(),
            created_s: now_s(),
            bytes: compared.plan.bytes().0,
        }
    }
}

/// Refuses to go back behind what was written after the image was made.
fn refuse_newer(
    request: &InstallRequest,
    content: &Content,
    found: &Found,
    shown: &WritePlan,
) -> Result<()> {
    let Some(raw) = &found.raw else { return Ok(()) };
    let then = journal::written_s(&content.superblock());
    let now = journal::written_s(&found.bytes);
    let other = raw.s_uuid != content.geometry().uuid;
    if request.allow_changed || other || now <= then {
        return Ok(());
    }
    let kinds: Vec<String> = shown
        .kinds
        .iter()
        .map(|kind| format!("{} {}", kind.blocks, kind.kind))
        .collect();
    Err(refused(format!(
        "the filesystem on {} was written to {} after the image was made; \
         these structures differ: {}",
        shown.device,
        text::duration(now - then),
        kinds.join(", ")
    ))
    .hint(
        "make a new image; to go back to the old state all the same, at the \
         cost of what was made since: --allow-changed",
    ))
}

pub(super) fn unconfirmed(dry_run: bool) -> Report {
    let outcome = match dry_run {
        true => Outcome::Done,
        false => Outcome::Unconfirmed,
    };
    Report::new(outcome).fact("changed", false)
}

pub(super) fn other_plan(shown: &WritePlan) -> Error {
    Error::new(
        ErrorKind::Refused,
        format!(
            "the token is not that of this plan on {}: device, image or \
             options are not what they were",
            shown.device
        ),
    )
    .intact("nothing was written")
    .hint("run the command without --confirm, and read the plan again")
}

pub(super) fn report_written(
    reached: &Reached<'_>,
    undo: &UndoFile,
    path: &std::path::Path,
    done: Executed,
) -> Report {
    let what = match done.found.0 {
        0 => String::new(),
        _ => format!(" ({} were there already)", text::bytes(done.found)),
    };
    Report::new(Outcome::Done)
        .line(format!(
            "Wrote {} to {} and read them back{what}.",
            text::bytes(done.written),
            undo.facts.device
        ))
        .line(format!("To go back: {}", reached.undo_command(path)))
        .fact("changed", done.written.0 > 0)
        .fact("written_bytes", done.written.0)
        .fact("found_bytes", done.found.0)
        .fact("undo", path.display().to_string())
        .fact("undo_command", reached.undo_command(path))
}

pub(super) fn now_s() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |since| since.as_secs())
}

/// Whether the journal has to be replayed before the filesystem is whole.
fn needs_recovery(raw: &crate::ext::superblock::RawSuperblock) -> bool {
    raw.s_feature_incompat.get() & incompat::RECOVER != 0
}
