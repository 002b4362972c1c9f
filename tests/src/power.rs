//! A machine of one disk and one undo file, of which the power fails at a
//! chosen step: after any write, flush, fsync or rename, whichever of the two
//! it is for. What was not brought to the medium is half lost, in sectors, and
//! a sector in flight may be unreadable afterwards.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use e2wire::commands::writing::{Reached, UndoOutput, UndoOutputs, Way};
use e2wire::digest::Digest;
use e2wire::error::{Error, ErrorKind, Result};
use e2wire::install::Arming;
use e2wire::install::target::{WriteTarget, Written};
use e2wire::local::usage::Usage;
use e2wire::local::{LocalOutput, OutputOptions};
use e2wire::output::OutputFile;
use e2wire::source::{
    BlockSource, DiskIdentity, Each, FileIdentity, Payload, Piece, ReadFault,
    SourceFacts, SourceKind,
};
use e2wire::units::{ByteCount, ByteOffset, ByteRange};

use crate::sim::{Medium, Random};

const SECTOR: usize = 512;

/// What is wrong with the place of the undo file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    /// It is full after so many writes.
    Full(u64),
    /// It does not bring to its medium what it was given.
    Sync,
}

/// The machine; its disk outlives a power cut, which ends everything else.
#[derive(Clone)]
pub struct Machine(Arc<Mutex<State>>);

struct State {
    disk: Medium,
    length: u64,
    random: Random,
    steps: u64,
    cut_at: Option<u64>,
    is_off: bool,
    fault: Option<Fault>,
}

impl Machine {
    /// With a disk that holds `bytes`.
    #[must_use]
    pub fn new(bytes: &Arc<Vec<u8>>, seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            disk: Medium::new(Arc::clone(bytes)),
            length: bytes.len() as u64,
            random: Random::new(seed),
            steps: 0,
            cut_at: None,
            is_off: false,
            fault: None,
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Switches it on, for so many steps or for ever.
    pub fn switch_on(&self, steps: Option<u64>) {
        let mut state = self.state();
        state.is_off = false;
        state.steps = 0;
        state.cut_at = steps;
    }

    /// The place of the undo file has this fault from now on.
    pub fn set_fault(&self, fault: Option<Fault>) {
        self.state().fault = fault;
    }

    /// Steps since it was switched on.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.state().steps
    }

    /// Writes and flushes of the disk, ever.
    #[must_use]
    pub fn disk_jobs(&self) -> u64 {
        self.state().disk.jobs()
    }

    /// Sectors of the disk that cannot be read.
    #[must_use]
    pub fn lost(&self) -> usize {
        self.state().disk.lost()
    }

    /// What the disk holds.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        self.state().disk.bytes()
    }

    /// The disk, as install and undo reach it.
    #[must_use]
    pub fn reached(&self) -> Reached<'static> {
        let facts = SourceFacts {
            name: "/dev/simulated".to_owned(),
            kind: SourceKind::BlockDevice,
            length: ByteCount(self.state().length),
            sector_bytes: 512,
            file: None,
            disk: DiskIdentity::default(),
            mounted_rw: false,
        };
        let source = Disk { machine: self.clone(), facts };
        let usage = Usage { id: b"simulated".to_vec(), ..Usage::default() };
        Reached::with(Box::new(source), usage, Box::new(self.clone()))
    }

    /// Fails once the power is gone.
    fn check(&self) -> io::Result<()> {
        match self.state().is_off {
            true => Err(io::Error::other("the power is gone")),
            false => Ok(()),
        }
    }

    /// One step is done; the power may fail right after it.
    fn step(&self) -> io::Result<()> {
        let mut state = self.state();
        state.steps += 1;
        if state.cut_at == Some(state.steps) {
            state.is_off = true;
            let State { disk, random, .. } = &mut *state;
            disk.power_cut(random);
        }
        drop(state);
        self.check()
    }

    fn below(&self, bound: u64) -> u64 {
        self.state().random.below(bound)
    }
}

fn gone(error: io::Error) -> Error {
    Error::io("the machine is off", error)
}

struct Disk {
    machine: Machine,
    facts: SourceFacts,
}

impl BlockSource for Disk {
    fn facts(&self) -> &SourceFacts {
        &self.facts
    }

    fn read(&self, ranges: &[ByteRange], each: Each<'_>) -> Result<()> {
        self.machine.check().map_err(gone)?;
        let state = self.machine.state();
        for sector in ranges.iter().flat_map(|r| r.cut(SECTOR as u64)) {
            let (at, length) = (sector.start(), sector.length());
            let index = at.0 as usize / SECTOR;
            let skip = at.0 as usize % SECTOR;
            let bytes = state.disk.sector(index);
            let what = match state.disk.is_lost(index) {
                true => Payload::Unreadable(length, ReadFault::Medium),
                false => Payload::Bytes(&bytes[skip..skip + length.0 as usize]),
            };
            if each(Piece { at, what }).is_break() {
                return Ok(());
            }
        }
        Ok(())
    }
}

impl Way for Machine {
    fn arm(&self, arming: &Arming) -> Result<Box<dyn WriteTarget + '_>> {
        let armed = arming.ranges.clone();
        Ok(Box::new(Writer { machine: self.clone(), armed }))
    }
}

struct Writer {
    machine: Machine,
    armed: Vec<ByteRange>,
}

impl Writer {
    /// Sector by sector; `None` for one that cannot be read.
    fn sectors(&self, range: ByteRange) -> Vec<Option<[u8; SECTOR]>> {
        let state = self.machine.state();
        let first = range.start().0 as usize / SECTOR;
        let count = range.length().0 as usize / SECTOR;
        let one = |index| {
            let lost = state.disk.is_lost(index);
            (!lost).then(|| state.disk.sector(index))
        };
        (first..first + count).map(one).collect()
    }

    fn put(&self, at: ByteOffset, bytes: &[u8]) -> Result<Written> {
        let end = at.0 + bytes.len() as u64;
        let armed = self
            .armed
            .iter()
            .any(|armed| armed.start() <= at && ByteOffset(end) <= armed.end());
        assert!(armed, "a write outside of the plan");
        self.machine.check().map_err(gone)?;
        self.machine.state().disk.write(at.0 as usize, bytes);
        self.machine.step().map_err(gone)?;
        Ok(Written::Written)
    }
}

impl WriteTarget for Writer {
    fn read(&mut self, range: ByteRange) -> Result<Vec<u8>> {
        self.machine.check().map_err(gone)?;
        let sectors: Option<Vec<_>> = self.sectors(range).into_iter().collect();
        let sectors = sectors.ok_or_else(|| {
            Error::new(ErrorKind::LocalIo, "a sector cannot be read")
        })?;
        Ok(sectors.concat())
    }

    fn digests(&mut self, ranges: &[ByteRange]) -> Result<Vec<Digest>> {
        self.machine.check().map_err(gone)?;
        let digest = |range: &ByteRange| match self.read(*range) {
            Ok(bytes) => *blake3::hash(&bytes).as_bytes(),
            Err(_) => [0; 32],
        };
        Ok(ranges.iter().map(digest).collect())
    }

    fn write(
        &mut self,
        at: ByteOffset,
        bytes: &[u8],
        old: &Digest,
    ) -> Result<Written> {
        let length = ByteCount(bytes.len() as u64);
        let range = ByteRange::new(at, length).expect("a range");
        match self.digests(&[range])?[0] {
            now if now == *blake3::hash(bytes).as_bytes() => {
                Ok(Written::AlreadyThere)
            }
            now if now == *old => self.put(at, bytes),
            _ => Ok(Written::Conflict),
        }
    }

    fn mend(
        &mut self,
        at: ByteOffset,
        old: &[u8],
        new: &[u8],
    ) -> Result<Written> {
        let length = ByteCount(new.len() as u64);
        let range = ByteRange::new(at, length).expect("a range");
        let sides = old.chunks(SECTOR).zip(new.chunks(SECTOR));
        let legal =
            self.sectors(range).iter().zip(sides).all(|(now, (old, new))| {
                now.is_none_or(|now| now[..] == *old || now[..] == *new)
            });
        match legal {
            true => self.put(at, new),
            false => Ok(Written::Conflict),
        }
    }

    fn flush(&mut self) -> Result<()> {
        self.machine.check().map_err(gone)?;
        self.machine.state().disk.flush();
        self.machine.step().map_err(gone)
    }
}

impl UndoOutputs for Machine {
    fn create(
        &self,
        path: &Path,
        sources: &[FileIdentity],
    ) -> Result<Box<dyn UndoOutput>> {
        self.check().map_err(gone)?;
        let options = OutputOptions { overwrite: false, sync: false, sources };
        // What a power cut leaves of it stays there.
        let mut output = match self.state().fault {
            None => LocalOutput::resume(path, options)?,
            Some(_) => LocalOutput::create(path, options)?,
        };
        let file = output.file();
        file.set_length(ByteCount(0)).map_err(|e| Error::io("no file", e))?;
        let machine = self.clone();
        let file = Cached {
            machine,
            output: Some(output),
            unsynced: vec![],
            writes: 0,
        };
        Ok(Box::new(file))
    }
}

/// A file of which only what was synced is safe.
struct Cached {
    machine: Machine,
    output: Option<LocalOutput>,
    unsynced: Vec<(ByteOffset, Vec<u8>)>,
    writes: u64,
}

impl Cached {
    fn output(&mut self) -> &mut LocalOutput {
        self.output.as_mut().expect("it is not published yet")
    }

    /// The power failed: some sectors of what was not synced are there.
    fn spill(&mut self) -> io::Result<()> {
        for (at, bytes) in std::mem::take(&mut self.unsynced) {
            for (index, part) in bytes.chunks(SECTOR).enumerate() {
                if self.machine.below(2) == 0 {
                    let at = ByteOffset(at.0 + (index * SECTOR) as u64);
                    self.output().file().write_at(at, part)?;
                }
            }
        }
        Ok(())
    }

    fn step(&mut self) -> io::Result<()> {
        let stepped = self.machine.step();
        if stepped.is_err() && self.output.is_some() {
            self.spill()?;
        }
        stepped
    }
}

impl OutputFile for Cached {
    fn write_at(&mut self, at: ByteOffset, bytes: &[u8]) -> io::Result<()> {
        self.machine.check()?;
        self.writes += 1;
        let fault = self.machine.state().fault;
        if matches!(fault, Some(Fault::Full(most)) if self.writes > most) {
            // ENOSPC, with a part of it written.
            let half = &bytes[..bytes.len() / 2];
            self.output().file().write_at(at, half)?;
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.unsynced.push((at, bytes.to_vec()));
        self.step()
    }

    fn read_at(&self, _: ByteOffset, _: &mut [u8]) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn length(&self) -> io::Result<ByteCount> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn set_length(&mut self, _: ByteCount) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.machine.check()?;
        if self.machine.state().fault == Some(Fault::Sync) {
            return Err(io::Error::from_raw_os_error(5));
        }
        for (at, bytes) in std::mem::take(&mut self.unsynced) {
            self.output().file().write_at(at, &bytes)?;
        }
        self.step()
    }

    fn starts_zeroed(&self) -> bool {
        true
    }
}

impl UndoOutput for Cached {
    fn file(&mut self) -> &mut dyn OutputFile {
        self
    }

    fn publish(mut self: Box<Self>) -> Result<()> {
        // The name may be there before what was not synced is.
        self.spill().map_err(gone)?;
        self.machine.check().map_err(gone)?;
        let output = self.output.take().expect("it is published once");
        output.publish()?;
        self.step().map_err(gone)
    }
}
