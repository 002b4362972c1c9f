//! `undo`: takes an install back. An undo file is a plan with both sides, so
//! this is the install of the old one, guarded and undoable alike.

use std::collections::BTreeMap;

use crate::commands::install::{
    Ended, UndoRequest, now_s, other_plan, report_written, unconfirmed,
};
use crate::commands::reach::Reach;
use crate::commands::writing::{
    Carry, Reached, WritePlan, carry_out, read_bytes,
};
use crate::commands::{Outcome, Report};
use crate::error::{Error, ErrorKind, Result};
use crate::ext::superblock::Superblock;
use crate::install::{Plan, Planner, marked};
use crate::observer::Observer;
use crate::stop::Stop;
use crate::text;
use crate::undo::{Entry, Facts, Stage, UndoFile};
use crate::units::{BlockSize, ByteCount, ByteOffset, ByteRange};

/// What a disk writes whole.
const SECTOR: usize = 512;

/// How many entries `--list` shows to scripts.
const LISTED_MAX: usize = 10_000;

/// Takes back what the undo file says, or says what that would do.
///
/// # Errors
///
/// As [`crate::commands::install::install`].
pub fn undo(
    request: &UndoRequest,
    reach: &Reach,
    observer: &dyn Observer,
    stop: &Stop,
) -> Result<Ended> {
    if request.list {
        return Ok((list(&UndoFile::open(&request.file)?, request), None));
    }
    let Some(device) = &request.device else {
        return Err(Error::new(ErrorKind::Usage, "undo which DEVICE?")
            .hint("--list only says what the file holds"));
    };
    let reached = Reached::open(reach, device, observer, stop)?;
    reached.refuse_used()?;
    let carry = Carry {
        verb: "undo",
        named_after: &request.file,
        undo: request.undo.as_deref(),
        audit: request.audit.as_deref(),
        reached: &reached,
        observer,
        stop,
    };
    if let Some(token) = &request.confirm
        && let Some((begun, path)) = carry.begun(token)?
    {
        let done = carry_out(&carry, &begun, &path)?;
        return Ok((report_written(&begun, &path, done), None));
    }
    let file = UndoFile::open(&request.file)?;
    refuse_other_device(&file, &reached)?;
    let mirror = Mirror::new(&file, &reached, stop)?;
    let mut shown = WritePlan::of("undo", &mirror.plan, mirror.unit)
        .confirmable(&carry, &mirror.plan);
    shown.image = request.file.display().to_string();
    shown.uuid.clone_from(&file.facts.uuid);
    if mirror.plan.is_empty() {
        shown.confirm = None;
        let report = Report::new(Outcome::Done)
            .line(format!("{} is as it was before.", reached.name()))
            .fact("changed", false);
        return Ok((report, Some(shown)));
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
    let facts = Facts {
        verb: "undo".to_owned(),
        device: reached.name().to_owned(),
        device_bytes: reached.length().0,
        disk: reached.disk_facts(),
        image: request.file.display().to_string(),
        created_s: now_s(),
        bytes: mirror.plan.bytes().0,
        ..file.facts.clone()
    };
    let (own, path) =
        carry.save(&mirror.plan, &facts, &mut |entry| mirror.bytes(entry))?;
    let done = carry_out(&carry, &own, &path)?;
    Ok((report_written(&own, &path, done), None))
}

/// The device must be the one that the plan was made for.
fn refuse_other_device(file: &UndoFile, reached: &Reached<'_>) -> Result<()> {
    let facts = &file.facts;
    let refuse = |what: String| {
        Err(Error::new(ErrorKind::Refused, what)
            .intact("nothing was written")
            .hint("name the device that the plan was carried out on"))
    };
    if facts.device_bytes != reached.length().0 {
        return refuse(format!(
            "the undo file is of a device of {} bytes, {} has {}",
            facts.device_bytes,
            reached.name(),
            reached.length()
        ));
    }
    let disk = reached.disk_facts();
    if !facts.disk.is_empty() && facts.disk != disk {
        return refuse(format!(
            "the undo file is of another disk ({}), {} is {}",
            facts.disk.join(", "),
            reached.name(),
            disk.join(", ")
        ));
    }
    Ok(())
}

/// The plan that leads back from what lies on the device now.
struct Mirror<'a, 'w> {
    file: &'a UndoFile,
    reached: &'a Reached<'w>,
    plan: Plan,
    /// The unit that people are told blocks of.
    unit: BlockSize,
    /// The superblock now, and as it was.
    superblock: ([u8; 1024], [u8; 1024]),
}

impl<'a, 'w> Mirror<'a, 'w> {
    fn new(
        file: &'a UndoFile,
        reached: &'a Reached<'w>,
        stop: &Stop,
    ) -> Result<Self> {
        let mut planner = Planner::default();
        let mut superblocks = Vec::new();
        for (index, entry) in file.entries().enumerate() {
            stop.check()?;
            let (old, new) = file.bytes(index)?;
            let range = entry.range();
            if matches!(entry.stage, Stage::Mark | Stage::Superblock) {
                superblocks.push((*entry, old, new));
                continue;
            }
            let now = read_bytes(reached.source(), range)?;
            refuse_strange(entry, &now, &[&old, &new])?;
            planner.compare(range.start(), entry.kind, SECTOR, &now, &old)?;
        }
        let superblock = superblock(&superblocks, file, reached)?;
        let offset = ByteOffset(file.facts.offset);
        let plan = planner.finish(offset, &superblock.0, &superblock.1)?;
        let unit = Superblock::check(&superblock.1, None, None)
            .map_or(BlockSize::MIN, |own| own.geometry.block_size);
        Ok(Self { file, reached, plan, unit, superblock })
    }

    fn bytes(&self, entry: &Entry) -> Result<(Vec<u8>, Vec<u8>)> {
        let (now, then) = &self.superblock;
        let mark = marked(now, then);
        match entry.stage {
            Stage::Mark => return Ok((now.to_vec(), mark.to_vec())),
            Stage::Superblock => return Ok((mark.to_vec(), then.to_vec())),
            _ => {}
        }
        let now = read_bytes(self.reached.source(), entry.range())?;
        let mut then = now.clone();
        for (index, other) in self.file.entries().enumerate() {
            let range = other.range();
            let outside = range.end() <= entry.range().start()
                || entry.range().end() <= range.start()
                || matches!(other.stage, Stage::Mark | Stage::Superblock);
            if !outside {
                let (old, _) = self.file.bytes(index)?;
                lay_over(&mut then, entry.range(), &old, range);
            }
        }
        Ok((now, then))
    }
}

/// Copies what `bytes` (at `from`) have for `place` into `into`.
fn lay_over(into: &mut [u8], place: ByteRange, bytes: &[u8], from: ByteRange) {
    let start = place.start().max(from.start()).0;
    let end = place.end().min(from.end()).0;
    let within = |base: ByteOffset| {
        let at = |place: u64| usize::try_from(place - base.0).unwrap_or(0);
        at(start)..at(end)
    };
    into[within(place.start())].copy_from_slice(&bytes[within(from.start())]);
}

/// The superblock now, and as it was before the install.
fn superblock(
    entries: &[(Entry, Vec<u8>, Vec<u8>)],
    file: &UndoFile,
    reached: &Reached<'_>,
) -> Result<([u8; 1024], [u8; 1024])> {
    let at = ByteOffset(file.facts.offset.saturating_add(1024));
    let place = ByteRange::new(at, ByteCount(1024)).ok_or_else(strange_file)?;
    let now = read_bytes(reached.source(), place)?;
    let before = entries
        .iter()
        .find(|(entry, ..)| entry.stage == Stage::Mark)
        .filter(|(entry, ..)| entry.range() == place);
    let Some((entry, then, _)) = before else {
        return Err(strange_file());
    };
    let sides: Vec<&Vec<u8>> =
        entries.iter().flat_map(|(_, old, new)| [old, new]).collect();
    refuse_strange(entry, &now, &sides)?;
    let whole = |bytes: &[u8]| {
        bytes.first_chunk::<1024>().copied().ok_or_else(strange_file)
    };
    Ok((whole(&now)?, whole(then)?))
}

fn strange_file() -> Error {
    Error::new(
        ErrorKind::Refused,
        "the undo file does not say what the superblock was",
    )
    .intact("nothing was written")
}

/// Every sector must be one that the install found or wrote: else somebody
/// else wrote there since, and going back would destroy that.
fn refuse_strange(entry: &Entry, now: &[u8], sides: &[&Vec<u8>]) -> Result<()> {
    let strange = now.chunks(SECTOR).enumerate().find(|(index, now)| {
        !sides.iter().any(|side| side.chunks(SECTOR).nth(*index) == Some(now))
    });
    let Some((index, _)) = strange else { return Ok(()) };
    let at = entry.range().start().0 + (index * SECTOR) as u64;
    Err(Error::new(
        ErrorKind::Refused,
        format!(
            "the {} at byte {at} of the device is neither what lay there \
             before nor what was installed",
            entry.kind
        ),
    )
    .intact("nothing was written")
    .hint(
        "the device was used after the install (mounted, checked): going \
         back now would destroy more than it mends",
    ))
}

fn list(file: &UndoFile, request: &UndoRequest) -> Report {
    let facts = &file.facts;
    let mut kinds: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for entry in file.entries() {
        let sum = kinds.entry(entry.kind.name()).or_default();
        sum.0 += 1;
        sum.1 += entry.range().length().0;
    }
    let mut report = Report::new(Outcome::Done)
        .line(format!(
            "{}: {} of {} to {} ({} bytes long)",
            request.file.display(),
            facts.verb,
            facts.image,
            facts.device,
            facts.device_bytes
        ))
        .line(format!(
            "plan {}, made {}",
            blake3::Hash::from_bytes(file.plan_digest()),
            text::timestamp(
                std::time::UNIX_EPOCH
                    + std::time::Duration::from_secs(facts.created_s)
            )
        ));
    for (kind, (writes, bytes)) in &kinds {
        let size = text::bytes(ByteCount(*bytes));
        let writes = text::count(*writes, "write");
        report = report.line(format!("  {kind:<22} {writes:>12} {size:>11}"));
    }
    let entries: Vec<serde_json::Value> = file
        .entries()
        .take(LISTED_MAX)
        .map(|entry| {
            serde_json::json!({
                "at": entry.range().start().0,
                "bytes": entry.range().length().0,
                "kind": entry.kind.name(),
            })
        })
        .collect();
    report
        .fact("verb", facts.verb.clone())
        .fact("device", facts.device.clone())
        .fact("device_bytes", facts.device_bytes)
        .fact("image", facts.image.clone())
        .fact("uuid", facts.uuid.clone())
        .fact("writes", file.entries().len())
        .fact("entries", entries)
}
