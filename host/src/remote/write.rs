//! A device at the other end of a session, as what a plan is written to.
//!
//! Only what differs of the old bytes crosses the line. An agent that was
//! restarted, or lost the line, is armed again and asked for the rest; what
//! it had done already it finds done.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use e2wire_protocol::chunk::SectorRange;
use e2wire_protocol::digest::{
    BootId, DeviceId, PlanId, RangeDigest, ShortDigest,
};
use e2wire_protocol::limits::{ARMED_RANGES_MAX, PATCH_BYTES_MAX};
use e2wire_protocol::message::{
    ArmedRange, Failure, Upload, Write as WriteRequest, put_armed_range,
};
use e2wire_protocol::patch;

use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};
use crate::install::Arming;
use crate::install::target::{Write, WriteTarget, Written};
use crate::remote::client::{DeviceRecord, Ticket, Trouble, Wrote};
use crate::remote::session::{Session, trouble_error};
use crate::remote::source::RemoteDevice;
use crate::source::{BlockSource, Payload};
use crate::units::{ByteCount, ByteOffset, ByteRange};

/// The most bytes of one write: on a slow line what is lost of it shall not
/// cost much.
const PIECE_BYTES_MAX: usize = 64 * 1024;

/// Writes under way at once, and the bytes that they send at most: the agent
/// keeps 64 loads of together 640 KiB.
const WRITES_MAX: usize = 32;
const WRITES_BYTES_MAX: usize = 384 * 1024;

/// Armings in a row without any write that came through.
const ARMINGS_MAX: u32 = 50;

/// The unit in which a cut write is told.
const SECTOR_BYTES: usize = 512;

/// A device at the other end of a session, armed for one plan.
pub struct RemoteTarget<'w> {
    session: Arc<Mutex<Session<'w>>>,
    source: RemoteDevice<'w>,
    id: DeviceId,
    size: u64,
    sector: u64,
    plan: PlanId,
    bytes: u64,
    ranges: Vec<u8>,
    /// The run of the agent that was seen last.
    boot: Option<BootId>,
    /// How often it was armed.
    armed: u64,
    /// How often in a row, without any write that came through.
    armings: u32,
}

/// A part of a write, in whole sectors of the device.
struct Piece {
    /// Of which write.
    index: usize,
    range: SectorRange,
    /// The digest of what lies there.
    old: RangeDigest,
    before: Vec<u8>,
    after: Vec<u8>,
}

/// A write that is under way.
struct Open {
    piece: Piece,
    /// Bytes that it sends.
    bytes: usize,
    /// Under which arming.
    armed: u64,
}

/// How the pieces of a write came out.
#[derive(Clone, Copy)]
struct Outcome {
    left: usize,
    written: Written,
}

impl<'w> RemoteTarget<'w> {
    /// Arms `device` for what `arming` says.
    ///
    /// # Errors
    ///
    /// As [`Session::arm`]; [`ErrorKind::Internal`] when the ranges do not
    /// lie on the device.
    pub fn arm(
        session: Arc<Mutex<Session<'w>>>,
        device: DeviceRecord,
        arming: &Arming,
    ) -> Result<Self> {
        let mut plan = PlanId([0; 16]);
        plan.0.copy_from_slice(&arming.plan[..16]);
        let (id, size) = (device.id, device.size);
        let sector = u64::from(device.logical_sector.max(512));
        let source =
            RemoteDevice::new(Arc::clone(&session), device, ByteOffset(0))?;
        let mut target = Self {
            session,
            source,
            id,
            size,
            sector,
            plan,
            bytes: 0,
            ranges: Vec::new(),
            boot: None,
            armed: 0,
            armings: 0,
        };
        target.set_ranges(arming)?;
        target.arm_again()?;
        let boot = target.session().boot();
        target.boot = boot;
        Ok(target)
    }

    fn set_ranges(&mut self, arming: &Arming) -> Result<()> {
        let mut whole: Vec<ByteRange> = Vec::new();
        for range in &arming.ranges {
            let range = self.widened(*range)?;
            match whole.last_mut() {
                Some(last) if range.start() <= last.end() => {
                    let end = last.end().max(range.end());
                    *last =
                        ByteRange::between(last.start(), end).unwrap_or(*last);
                }
                _ => whole.push(range),
            }
        }
        if whole.len() > ARMED_RANGES_MAX {
            return Err(internal("a plan has too many ranges"));
        }
        let mut end = 0;
        let mut covered = 0_u64;
        for range in &whole {
            let unit = SECTOR_BYTES as u64;
            let armed = ArmedRange {
                first: range.start().0 / unit,
                count: range.length().0 / unit,
            };
            let mut bytes = [0; 20];
            let length = put_armed_range(armed, end, &mut bytes)
                .ok_or_else(|| internal("the ranges of a plan overlap"))?;
            self.ranges.extend(&bytes[..length]);
            end = armed.first + armed.count;
            covered = covered.saturating_add(range.length().0);
        }
        // A write of part of a sector writes the whole; the mark and the
        // superblock may share one with much else.
        self.bytes = match self.sector {
            512 => arming.bytes.0,
            _ => arming.bytes.0.saturating_add(covered.saturating_mul(8)),
        };
        Ok(())
    }

    fn session(&self) -> MutexGuard<'_, Session<'w>> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn arm_again(&mut self) -> Result<()> {
        self.armed += 1;
        self.armings += 1;
        if self.armings > ARMINGS_MAX {
            return Err(Error::new(
                ErrorKind::WriteIncomplete,
                "the agent forgets again and again what it is armed for",
            )
            .hint("does another run write to this device?"));
        }
        let list = self.ranges.clone();
        self.session().arm(self.id, self.plan, self.bytes, list)
    }

    /// The whole sectors that `range` lies in.
    fn widened(&self, range: ByteRange) -> Result<ByteRange> {
        let start = range.start().0 - range.start().0 % self.sector;
        let end = range.end().0.checked_next_multiple_of(self.sector);
        end.filter(|end| *end <= self.size)
            .and_then(|end| {
                ByteRange::between(ByteOffset(start), ByteOffset(end))
            })
            .ok_or_else(|| {
                internal("a plan writes beyond the end of the device")
            })
    }

    /// The pieces of a write of which the old bytes are known.
    fn pieces(
        &mut self,
        index: usize,
        at: ByteOffset,
        (before, after): (&[u8], &[u8]),
    ) -> Result<Vec<Piece>> {
        let length = ByteCount(after.len() as u64);
        let range = ByteRange::new(at, length)
            .filter(|_| before.len() == after.len())
            .ok_or_else(|| internal("the sides of a write do not fit"))?;
        let whole = self.widened(range)?;
        if whole == range {
            return cut(index, range, before, after);
        }
        // What shares the sectors stays as it is.
        let lies = self.read_now(whole)?;
        let skip = (range.start().0 - whole.start().0) as usize;
        let inner = skip..skip + after.len();
        let mut old = lies.clone();
        let mut new = lies.clone();
        new[inner.clone()].copy_from_slice(after);
        if lies[inner.clone()] != *after {
            // What is neither will be told as a conflict.
            old[inner].copy_from_slice(before);
        }
        cut(index, whole, &old, &new)
    }

    fn read_now(&mut self, range: ByteRange) -> Result<Vec<u8>> {
        self.session().flush(self.id)?;
        let mut bytes = vec![0; usize::try_from(range.length().0).unwrap_or(0)];
        let mut lost = None;
        let start = range.start().0;
        BlockSource::read(&self.source, &[range], &mut |piece| {
            let at = usize::try_from(piece.at.0.saturating_sub(start));
            let at = at.unwrap_or(usize::MAX);
            match piece.what {
                Payload::Bytes(part) => {
                    let end = at.saturating_add(part.len());
                    if let Some(place) = bytes.get_mut(at..end) {
                        place.copy_from_slice(part);
                    }
                }
                Payload::Zero(_) => {}
                Payload::Unreadable(..) => lost = Some(piece.at),
            }
            ControlFlow::Continue(())
        })?;
        match lost {
            None => Ok(bytes),
            Some(at) => Err(Error::new(
                ErrorKind::WriteIncomplete,
                format!("the device cannot read its bytes at {at}"),
            )),
        }
    }

    /// Writes pieces, as many at a time as are good for the line.
    fn write_pieces(
        &mut self,
        mut waiting: VecDeque<Piece>,
        done: &mut dyn FnMut(usize, Written) -> Result<()>,
    ) -> Result<()> {
        let mut outcomes: BTreeMap<usize, Outcome> = BTreeMap::new();
        for piece in &waiting {
            let outcome = outcomes
                .entry(piece.index)
                .or_insert(Outcome { left: 0, written: Written::AlreadyThere });
            outcome.left += 1;
        }
        let mut open: BTreeMap<Ticket, Open> = BTreeMap::new();
        let result = loop {
            if let Err(error) = self.begin_writes(&mut waiting, &mut open) {
                break Err(error);
            }
            if open.is_empty() {
                break Ok(());
            }
            let tickets = open.keys().copied().collect();
            let answer = self.session().wrote(&tickets);
            let (ticket, answer) = match answer {
                Ok(answer) => answer,
                Err(error) => break Err(error),
            };
            let Some(answered) = open.remove(&ticket) else { continue };
            let index = answered.piece.index;
            let written = match self.judge(answered, answer) {
                Ok(Judged::Done(written)) => written,
                Ok(Judged::Again(piece)) => {
                    waiting.push_front(piece);
                    continue;
                }
                Err(error) => break Err(error),
            };
            let Some(outcome) = outcomes.get_mut(&index) else { continue };
            outcome.left -= 1;
            outcome.written = worse(outcome.written, written);
            if outcome.left == 0
                && let Err(error) = done(index, outcome.written)
            {
                break Err(error);
            }
        };
        let left: BTreeSet<Ticket> = open.keys().copied().collect();
        self.session().forget_writes(&left);
        result
    }

    fn begin_writes(
        &mut self,
        waiting: &mut VecDeque<Piece>,
        open: &mut BTreeMap<Ticket, Open>,
    ) -> Result<()> {
        let mut bytes: usize = open.values().map(|open| open.bytes).sum();
        while open.len() < WRITES_MAX && bytes < WRITES_BYTES_MAX {
            let Some(piece) = waiting.pop_front() else { return Ok(()) };
            let mut load = vec![0; PATCH_BYTES_MAX];
            let length = patch::write(&piece.before, &piece.after, &mut load)
                .ok_or_else(|| internal("a patch does not fit"))?;
            load.truncate(length);
            let patch = Upload::of(&load)
                .ok_or_else(|| internal("a patch is too long"))?;
            let write = WriteRequest {
                device: self.id,
                plan: self.plan,
                range: piece.range,
                old: piece.old,
                new: RangeDigest::of(&piece.after),
                patch,
            };
            bytes += length;
            let ticket = self.session().begin_write(write, load);
            let armed = self.armed;
            open.insert(ticket, Open { piece, bytes: length, armed });
        }
        Ok(())
    }

    /// What an answer means for a piece.
    fn judge(
        &mut self,
        Open { piece, armed, .. }: Open,
        answer: std::result::Result<Wrote, Trouble>,
    ) -> Result<Judged> {
        match answer {
            Ok(Wrote::Written) => {
                self.armings = 0;
                Ok(Judged::Done(Written::Written))
            }
            Ok(Wrote::AlreadyThere) => {
                self.armings = 0;
                Ok(Judged::Done(Written::AlreadyThere))
            }
            Ok(Wrote::Conflict { now, sectors, .. }) => {
                Ok(match mended(piece, now, &sectors) {
                    Some(piece) => Judged::Again(piece),
                    None => Judged::Done(Written::Conflict),
                })
            }
            Err(Trouble::Refused(Failure::NotArmed)) => {
                // Others that were under way tell the same.
                if armed == self.armed {
                    self.arm_again()?;
                }
                Ok(Judged::Again(piece))
            }
            Err(trouble) => Err(trouble_error(trouble, &self.session().name())),
        }
    }
}

enum Judged {
    Done(Written),
    Again(Piece),
}

impl WriteTarget for RemoteTarget<'_> {
    fn read(&mut self, range: ByteRange) -> Result<Vec<u8>> {
        let whole = self.widened(range)?;
        let bytes = self.read_now(whole)?;
        let skip = (range.start().0 - whole.start().0) as usize;
        let length = usize::try_from(range.length().0).unwrap_or(0);
        Ok(bytes[skip..skip + length].to_vec())
    }

    fn digests(&mut self, ranges: &[ByteRange]) -> Result<Vec<Digest>> {
        let mut digests = vec![[0; 32]; ranges.len()];
        let mut asked = Vec::new();
        let mut places = Vec::new();
        for (place, range) in ranges.iter().enumerate() {
            match SectorRange::from_bytes(*range) {
                Some(sectors) if self.widened(*range)? == *range => {
                    asked.push(sectors);
                    places.push(place);
                }
                // Parts of sectors cannot be digested over there.
                _ => {
                    let bytes = self.read(*range)?;
                    digests[place] = *blake3::hash(&bytes).as_bytes();
                }
            }
        }
        let now = {
            let mut session = self.session();
            session.flush(self.id)?;
            session.digests(self.id, &asked)?
        };
        for (place, digest) in places.into_iter().zip(now) {
            digests[place] = digest.0;
        }
        Ok(digests)
    }

    fn write(
        &mut self,
        at: ByteOffset,
        bytes: &[u8],
        old: &Digest,
    ) -> Result<Written> {
        let length = ByteCount(bytes.len() as u64);
        let range = ByteRange::new(at, length)
            .ok_or_else(|| internal("a write has no end"))?;
        let before = self.read(range)?;
        if before == bytes {
            return Ok(Written::AlreadyThere);
        }
        if blake3::hash(&before).as_bytes() != old {
            return Ok(Written::Conflict);
        }
        let pieces = self.pieces(0, at, (&before, bytes))?;
        let mut written = Written::AlreadyThere;
        self.write_pieces(pieces.into(), &mut |_, how| {
            written = how;
            Ok(())
        })?;
        Ok(written)
    }

    fn write_all(
        &mut self,
        writes: &[Write],
        done: &mut dyn FnMut(usize, Written) -> Result<()>,
    ) -> Result<()> {
        let mut pieces = VecDeque::new();
        for (index, write) in writes.iter().enumerate() {
            let sides = (&write.before[..], &write.bytes[..]);
            pieces.extend(self.pieces(index, write.at, sides)?);
        }
        self.write_pieces(pieces, done)
    }

    fn was_restarted(&mut self) -> bool {
        let boot = self.session().boot();
        std::mem::replace(&mut self.boot, boot) != boot
    }

    fn flush(&mut self) -> Result<()> {
        let id = self.id;
        self.session().flush(id)
    }

    fn disarm(&mut self) -> Result<()> {
        let id = self.id;
        self.session().let_go(id)
    }
}

/// Cuts a write into pieces that go over the line one by one.
fn cut(
    index: usize,
    range: ByteRange,
    before: &[u8],
    after: &[u8],
) -> Result<Vec<Piece>> {
    let sides =
        before.chunks(PIECE_BYTES_MAX).zip(after.chunks(PIECE_BYTES_MAX));
    let mut at = range.start();
    let mut pieces = Vec::new();
    for (before, after) in sides {
        let length = ByteCount(after.len() as u64);
        let range = ByteRange::new(at, length)
            .and_then(SectorRange::from_bytes)
            .ok_or_else(|| internal("a write is no whole sectors"))?;
        at = range.bytes().end();
        pieces.push(Piece {
            index,
            range,
            old: RangeDigest::of(before),
            before: before.to_vec(),
            after: after.to_vec(),
        });
    }
    Ok(pieces)
}

/// The same write again where every sector is an old or a new one, or cannot
/// be read: an earlier one was cut by a power failure. `None` when somebody
/// else's bytes lie there.
fn mended(
    piece: Piece,
    now: RangeDigest,
    sectors: &[ShortDigest],
) -> Option<Piece> {
    let mut lies = Vec::with_capacity(piece.after.len());
    let old = piece.before.chunks(SECTOR_BYTES);
    let new = piece.after.chunks(SECTOR_BYTES);
    for ((old, new), digest) in old.zip(new).zip(sectors) {
        let short = |bytes| RangeDigest::of(bytes).short();
        if digest.is_unreadable() {
            // Nothing of it is kept, whatever lies there.
            lies.extend(new.iter().map(|byte| !byte));
        } else if *digest == short(new) {
            lies.extend(new);
        } else if *digest == short(old) {
            lies.extend(old);
        } else {
            return None;
        }
    }
    let proven = now.is_unreadable() || RangeDigest::of(&lies) == now;
    if lies.len() != piece.after.len() || !proven || now == piece.old {
        return None;
    }
    if now.is_unreadable() {
        // What was told by half a digest only is not relied on, either.
        lies = piece.after.iter().map(|byte| !byte).collect();
    }
    Some(Piece { old: now, before: lies, ..piece })
}

/// How two parts of a write came out together.
fn worse(one: Written, other: Written) -> Written {
    match (one, other) {
        (Written::Conflict, _) | (_, Written::Conflict) => Written::Conflict,
        (Written::Written, _) | (_, Written::Written) => Written::Written,
        _ => Written::AlreadyThere,
    }
}

fn internal(what: &str) -> Error {
    Error::new(ErrorKind::Internal, what.to_owned())
}
