//! `undo`: takes an install back. An undo file is a plan with both sides, so
//! this is the install of the old one, guarded and undoable alike.

use std::collections::BTreeMap;

use crate::commands::install::{
    Ended, UndoRequest, now_s, other_plan, report_written, unconfirmed,
};
use crate::commands::reach::Reach;
use crate::commands::writing::{
    Both, Carry, Kept, Lain, LocalUndo, Reached, SECTOR, UndoOutputs,
    WritePlan, carry_out, read_lenient, refuse_active_mmp,
};
use crate::commands::{Outcome, Report};
use crate::error::{Error, ErrorKind, Result};
use crate::ext::superblock::Superblock;
use crate::install::{Plan, Planner, batches, marked};
use crate::observer::Observer;
use crate::stop::Stop;
use crate::text;
use crate::undo::{Entry, Facts, Stage, UndoFile};
use crate::units::{BlockSize, ByteCount, ByteOffset, ByteRange};

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
    undo_on(request, &reached, &LocalUndo, observer, stop)
}

/// Takes back what the undo file says on a device that was reached, or says
/// what that would do; `outputs` makes its own undo file.
///
/// # Errors
///
/// As [`undo`].
pub fn undo_on(
    request: &UndoRequest,
    reached: &Reached<'_>,
    outputs: &dyn UndoOutputs,
    observer: &dyn Observer,
    stop: &Stop,
) -> Result<Ended> {
    reached.refuse_used()?;
    let carry = Carry {
        verb: "undo",
        named_after: &request.file,
        undo: request.undo.as_deref(),
        audit: request.audit.as_deref(),
        reached,
        outputs,
        observer,
        stop,
    };
    if let Some(token) = &request.confirm
        && let Some((begun, path)) = carry.begun(token)?
    {
        let done = carry_out(&carry, &begun, &path)?;
        return Ok((report_written(reached, &begun, &path, done), None));
    }
    let file = UndoFile::open(&request.file)?;
    refuse_other_device(&file, reached)?;
    refuse_active_mmp(reached, ByteOffset(file.facts.offset), stop)?;
    let mirror = Mirror::new(&file, reached, stop)?;
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
        carry.save(&mirror.plan, &facts, &mut |some| mirror.both(some))?;
    let done = carry_out(&carry, &own, &path)?;
    Ok((report_written(reached, &own, &path, done), None))
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
    /// What the plan replaces, for its own undo file.
    kept: Kept,
    /// The entries of the file by their place, without the superblock's.
    places: Vec<(ByteRange, usize)>,
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
        let entries: Vec<(usize, Entry)> =
            file.entries().copied().enumerate().collect();
        let (own, others): (Vec<_>, Vec<_>) =
            entries.into_iter().partition(|(_, entry)| of_superblock(entry));
        let superblock = superblock(&own, file, reached)?;
        let mut planner = Planner::default();
        let mut kept = Kept::default();
        for some in batches(&others, |(_, entry)| entry) {
            stop.check()?;
            let ranges: Vec<ByteRange> =
                some.iter().map(|(_, entry)| entry.range()).collect();
            let now = read_lenient(reached.source(), &ranges)?;
            for ((index, entry), mut now) in some.iter().zip(now) {
                let (old, new) = file.bytes(*index)?;
                let start = entry.range().start();
                refuse_strange(entry, &now, &[&old, &new])?;
                fill_lost(&mut now, start, &new);
                let kind = (entry.kind, SECTOR);
                let lost = |at| now.is_lost(at);
                let sides = (&now.bytes[..], &old[..]);
                planner.compare_or(start, kind, sides, lost)?;
                kept.keep(start, &now.bytes);
            }
        }
        let offset = ByteOffset(file.facts.offset);
        let plan = planner.finish(offset, &superblock.0, &superblock.1)?;
        let unit = Superblock::check(&superblock.1, None, None)
            .map_or(BlockSize::MIN, |own| own.geometry.block_size);
        let mut places: Vec<(ByteRange, usize)> =
            others.iter().map(|(i, entry)| (entry.range(), *i)).collect();
        places.sort_unstable();
        Ok(Self { file, reached, plan, kept, places, unit, superblock })
    }

    fn both(&self, entries: &[Entry]) -> Result<Vec<Both>> {
        let (now, then) = &self.superblock;
        let mark = marked(now, then);
        let ranges: Vec<ByteRange> = entries
            .iter()
            .filter(|entry| !of_superblock(entry))
            .map(Entry::range)
            .collect();
        let old = self.kept.all(self.reached.source(), &ranges)?;
        let mut old = old.into_iter();
        let both = |entry: &Entry| match entry.stage {
            Stage::Mark => Ok((now.to_vec(), mark.to_vec())),
            Stage::Superblock => Ok((mark.to_vec(), then.to_vec())),
            _ => {
                let now = old.next().unwrap_or_default();
                let then = self.then(entry.range(), now.clone())?;
                Ok((now, then))
            }
        };
        entries.iter().map(both).collect()
    }

    /// What lay at `place` before the install, where it holds `bytes` now.
    fn then(&self, place: ByteRange, mut bytes: Vec<u8>) -> Result<Vec<u8>> {
        let from =
            self.places.partition_point(|(r, _)| r.end() <= place.start());
        let behind = self.places.get(from..).unwrap_or_default();
        let here = behind.iter().take_while(|(r, _)| r.start() < place.end());
        for (range, index) in here {
            let (old, _) = self.file.bytes(*index)?;
            lay_over(&mut bytes, place, &old, *range);
        }
        Ok(bytes)
    }
}

/// Whether an entry has the superblock's own way.
const fn of_superblock(entry: &Entry) -> bool {
    matches!(entry.stage, Stage::Mark | Stage::Superblock)
}

/// A sector that cannot be read was lost when the install wrote it: it
/// counts as holding what was to lie there.
fn fill_lost(now: &mut Lain, start: ByteOffset, new: &[u8]) {
    let lost: Vec<bool> = (0..now.bytes.len() / SECTOR)
        .map(|index| {
            let at = start.0.saturating_add((index * SECTOR) as u64);
            now.is_lost(ByteOffset(at))
        })
        .collect();
    let sectors = now.bytes.chunks_mut(SECTOR).zip(new.chunks(SECTOR));
    for ((now, new), lost) in sectors.zip(lost) {
        if lost {
            now.copy_from_slice(new);
        }
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
    entries: &[(usize, Entry)],
    file: &UndoFile,
    reached: &Reached<'_>,
) -> Result<([u8; 1024], [u8; 1024])> {
    let at = ByteOffset(file.facts.offset.saturating_add(1024));
    let place = ByteRange::new(at, ByteCount(1024)).ok_or_else(strange_file)?;
    let mut sides = Vec::new();
    let mut before = None;
    for (index, entry) in entries {
        let (old, new) = file.bytes(*index)?;
        if entry.stage == Stage::Mark && entry.range() == place {
            before = Some((entry, old.clone()));
        }
        sides.extend([old, new]);
    }
    let Some((entry, then)) = before else { return Err(strange_file()) };
    let now = read_lenient(reached.source(), &[place])?.pop();
    let mut now = now.ok_or_else(strange_file)?;
    let every: Vec<&Vec<u8>> = sides.iter().collect();
    refuse_strange(entry, &now, &every)?;
    if let Some(last) = sides.last() {
        fill_lost(&mut now, at, last);
    }
    let whole = |bytes: &[u8]| {
        bytes.first_chunk::<1024>().copied().ok_or_else(strange_file)
    };
    Ok((whole(&now.bytes)?, whole(&then)?))
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
fn refuse_strange(entry: &Entry, now: &Lain, sides: &[&Vec<u8>]) -> Result<()> {
    let strange = now.strange_sector(entry.range().start(), sides);
    let Some(index) = strange else { return Ok(()) };
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
