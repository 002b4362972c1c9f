//! From a confirmed plan to a written device: undo file, audit log, arming,
//! writing.

use std::path::{Path, PathBuf};

use crate::commands::writing::audit::{self, Audit, Audited};
use crate::commands::writing::bytes::{Both, Lain, read_lenient};
use crate::commands::writing::outputs::{UndoOutputs, remark_on_place};
use crate::commands::writing::{Reached, WritePlan, refuse_active_mmp};
use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};
use crate::install::target::WriteTarget;
use crate::install::{Arming, Executed, Plan, batches, execute, token};
use crate::local::output::beside;
use crate::observer::{Event, Observer, Phase};
use crate::stop::Stop;
use crate::text;
use crate::undo::{Entry, Facts, UndoFile, UndoWriter};
use crate::units::{ByteOffset, ByteRange};

/// Where the bytes of some entries of a plan come from: those that lie there
/// and those that shall.
pub(in crate::commands) type Wanted<'a> =
    dyn FnMut(&[Entry]) -> Result<Vec<Both>> + 'a;

/// What a confirmed plan is carried out with.
pub(in crate::commands) struct Carry<'a, 'w> {
    pub(in crate::commands) verb: &'static str,
    /// What the undo file is named after.
    pub(in crate::commands) named_after: &'a Path,
    /// The undo file, if somebody named it.
    pub(in crate::commands) undo: Option<&'a Path>,
    /// The audit log, if somebody named it.
    pub(in crate::commands) audit: Option<&'a Path>,
    pub(in crate::commands) reached: &'a Reached<'w>,
    pub(in crate::commands) outputs: &'a dyn UndoOutputs,
    pub(in crate::commands) observer: &'a dyn Observer,
    pub(in crate::commands) stop: &'a Stop,
}

impl Carry<'_, '_> {
    /// The undo file of the plan with this token.
    pub(in crate::commands) fn undo_path(&self, token: &str) -> PathBuf {
        let name = || beside(self.named_after, &format!(".{token}.undo"));
        self.undo.map_or_else(name, Path::to_owned)
    }

    /// The plan that an earlier run with this token began, if there is one.
    ///
    /// # Errors
    ///
    /// When a file that was named holds another plan, or cannot be read.
    pub(in crate::commands) fn begun(
        &self,
        confirmed: &str,
    ) -> Result<Option<(UndoFile, PathBuf)>> {
        // A token is a part of a file's name: nothing else may be.
        if !confirmed.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Ok(None);
        }
        let path = self.undo_path(confirmed);
        let exists = path.try_exists().map_err(|error| {
            Error::io(format!("cannot look for {}", path.display()), error)
        })?;
        if !exists {
            return Ok(None);
        }
        let undo = UndoFile::open(&path)?;
        let other = |whose: String| {
            Err(Error::new(
                ErrorKind::Refused,
                format!("{} holds {whose}", path.display()),
            )
            .intact("nothing was written")
            .hint("name another file by --undo"))
        };
        if token(&undo.plan_digest(), self.reached.id()) != confirmed {
            return other("another plan".to_owned());
        }
        // A token stands for what was seen, and that began with a name.
        let facts = &undo.facts;
        if facts.verb != self.verb
            || !is_same_file(Path::new(&facts.image), self.named_after)
        {
            return other(format!(
                "the plan to {} {}, which is not what is asked for now",
                facts.verb, facts.image
            ));
        }
        refuse_active_mmp(self.reached, ByteOffset(facts.offset), self.stop)?;
        Ok(Some((undo, path)))
    }

    /// Writes the undo file of a plan that was confirmed.
    ///
    /// # Errors
    ///
    /// As [`UndoOutputs::create`] and [`UndoWriter::add`]; nothing was
    /// written to the device then.
    pub(in crate::commands) fn save(
        &self,
        plan: &Plan,
        facts: &Facts,
        wanted: &mut Wanted<'_>,
    ) -> Result<(UndoFile, PathBuf)> {
        let path = self.undo_path(&plan.token(self.reached.id()));
        let sources: Vec<_> =
            self.reached.source().facts().file.into_iter().collect();
        self.observer.event(&Event::Phase(Phase::Copy));
        let mut out = self.outputs.create(&path, &sources)?;
        let mut writer = UndoWriter::begin(out.file(), facts)?;
        for some in batches(&plan.entries, |entry| entry) {
            self.stop.check()?;
            let both = wanted(some)?;
            for (index, entry) in some.iter().enumerate() {
                let (old, new) = both.get(index).cloned().unwrap_or_default();
                writer.add(*entry, &old, &new)?;
            }
        }
        writer.seal()?;
        out.publish()?;
        Ok((UndoFile::open(&path)?, path))
    }
}

/// Carries out the plan in `undo`, which lies at `path`.
///
/// # Errors
///
/// [`ErrorKind::WriteIncomplete`] when writing began: the text names the undo
/// file. Other kinds when nothing was written.
pub(in crate::commands) fn carry_out(
    carry: &Carry<'_, '_>,
    undo: &UndoFile,
    path: &Path,
) -> Result<Executed> {
    let arming = Arming::of(undo);
    let log = carry.audit.map_or_else(audit::default_path, Path::to_owned);
    let mut log = Audit::open(&log, carry.verb)?;
    refuse_changed(carry, undo)?;
    let target = carry.reached.arm(&arming)?;
    log.arm(&undo.facts, &arming, path)?;
    let mut audited = Audited { target, audit: &mut log };
    let done = execute(undo, &mut audited, carry.observer, carry.stop);
    if done.is_err() {
        // A device that stays armed keeps another plan waiting. When the
        // line is gone there is nobody to tell.
        let _told = WriteTarget::disarm(&mut audited);
    }
    drop(audited);
    let logged = log.end(&arming.plan, &done);
    let done = done.map_err(|error| {
        let intact = format!(
            "what lay there before is in {}; nothing outside the plan was \
             written",
            path.display()
        );
        let hint = format!(
            "the same command with the same token goes on; `{}` goes back",
            carry.reached.undo_command(path)
        );
        error.intact(intact).hint(hint)
    })?;
    logged.map(|()| done)
}

/// Whether both name one file, as far as anybody can tell.
fn is_same_file(one: &Path, other: &Path) -> bool {
    let real = |path: &Path| path.canonicalize().ok();
    one == other || real(one).is_some_and(|one| Some(one) == real(other))
}

/// Before the first write: everything must be as the plan says, old or (after
/// an earlier run) new, or lost with an earlier run's power. A conflict
/// half-way is the last resort, not the rule.
fn refuse_changed(carry: &Carry<'_, '_>, undo: &UndoFile) -> Result<()> {
    let source = carry.reached.source();
    let mut all: Vec<(usize, &Entry)> = undo.entries().enumerate().collect();
    // The superblock's place comes twice: the mark first.
    all.sort_by_key(|(_, entry)| (entry.range(), entry.stage));
    let here = |range: ByteRange| {
        let from = all.partition_point(|(_, e)| e.range() < range);
        let to = all.partition_point(|(_, e)| e.range() <= range);
        all.get(from..to).unwrap_or_default()
    };
    let mut asked: Vec<(ByteRange, Digest)> =
        all.iter().map(|(_, entry)| (entry.range(), entry.old)).collect();
    asked.dedup_by_key(|(range, _)| *range);
    let ranges: Vec<ByteRange> = asked.iter().map(|(r, _)| *r).collect();
    source.recheck(&ranges)?;
    for some in asked.chunks(ASKED_AT_ONCE) {
        carry.stop.check()?;
        let differing = source.differing(some)?;
        let now = read_lenient(source, &differing)?;
        for (range, now) in differing.into_iter().zip(now) {
            refuse_strange((range, &now), here(range), undo)?;
        }
    }
    Ok(())
}

/// How many places are looked at in one question.
const ASKED_AT_ONCE: usize = 256;

/// `now` must be made of sectors of what the entries for this place replace
/// and write.
fn refuse_strange(
    (range, now): (ByteRange, &Lain),
    here: &[(usize, &Entry)],
    undo: &UndoFile,
) -> Result<()> {
    let digest = *blake3::hash(&now.bytes).as_bytes();
    let is_known = |e: &Entry| e.old == digest || e.new == digest;
    if now.lost.is_empty() && here.iter().any(|(_, e)| is_known(e)) {
        return Ok(());
    }
    let mut sides = Vec::new();
    for (index, _) in here {
        let (old, new) = undo.bytes(*index)?;
        sides.extend([old, new]);
    }
    let strange = now.strange_sector(range.start(), &sides);
    if strange.is_none() {
        return Ok(());
    }
    let entry = here.first().map(|(_, entry)| **entry);
    let (kind, at) =
        entry.map_or(("", 0), |e| (e.kind.name(), e.range().start().0));
    Err(Error::new(
        ErrorKind::Refused,
        format!(
            "the device changed since the plan was made: the {kind} at byte \
             {at} is neither what the plan replaces nor what it writes"
        ),
    )
    .intact("nothing was written")
    .hint("find out who writes to this device; then make a new plan"))
}

impl WritePlan {
    /// Fills in where the undo file goes and what confirms the plan.
    pub(in crate::commands) fn confirmable(
        mut self,
        carry: &Carry<'_, '_>,
        plan: &Plan,
    ) -> Self {
        let token = plan.token(carry.reached.id());
        self.device = carry.reached.name().to_owned();
        self.undo = carry.undo_path(&token);
        self.confirm = Some(token);
        if let Some(said) = remark_on_place(&self.undo) {
            self.remarks.push(said);
        }
        if carry.reached.is_remote() && !plan.is_empty() {
            self.remarks.push(format!(
                "Up to {} go over the line, and take as long as it takes.",
                text::bytes(plan.bytes())
            ));
        }
        self
    }
}
