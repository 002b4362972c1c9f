//! Digests, comparisons and searches: tasks that read much and answer little.
//!
//! One runs at a time, chunk by chunk, so it never holds up reads for longer
//! than the work on one chunk takes.

use e2wire_protocol::chunk::SectorRange;
use e2wire_protocol::digest::RangeDigester;
use e2wire_protocol::limits::{
    CHUNK_BYTES_MAX, CHUNK_SECTORS_MAX, FIND_CELL_BYTES_MAX,
    FIND_POSITIONS_MAX, RANGES_MAX, RESULT_BYTES_MAX, RETURN_BYTES_MAX,
    SECTOR_BYTES, SPAN_BYTES_MAX,
};
use e2wire_protocol::message::{
    DeviceFacts, DigestForm, DigestUnits, Failure, Find, SameUnits, Sameness,
    Task, VARINT_BYTES_MAX, put_varint,
};
use e2wire_protocol::units::{ByteRange, u64_from, usize_from};

use crate::device::{SectorMap, Sectors};

const SECTOR: u64 = u64_from(SECTOR_BYTES);

/// Ranges of one job.
pub(crate) type Batch = heapless::Vec<ByteRange, RANGES_MAX>;

/// The running scan: how far it is and what it found so far.
pub(crate) struct Scan {
    /// Sectors digested, pairs compared, or cells searched.
    done: u64,
    /// Sectors of the current pair that are compared.
    done_of_pair: u32,
    /// Sectors of the current unit that are done.
    done_of_unit: u32,
    /// Something of the current unit could not be read.
    unreadable: bool,
    /// Something of the current unit differs.
    different: bool,
    /// Units whose two bits are in the result.
    units: usize,
    /// The cell behind the last entry of the result.
    entry_end: u32,
    /// Cells behind `entry_end` and what else lies before them that could
    /// not be read: first one and how many.
    unreadable_cells: (u32, u32),
    /// Bytes of a logical sector of the device.
    logical: u32,
    /// There is no room for another entry.
    full: bool,
    length: usize,
    result: [u8; RESULT_BYTES_MAX],
}

impl Scan {
    pub(crate) const fn new() -> Self {
        Self {
            done: 0,
            done_of_pair: 0,
            done_of_unit: 0,
            unreadable: false,
            different: false,
            units: 0,
            entry_end: 0,
            unreadable_cells: (0, 0),
            logical: 0,
            full: false,
            length: 0,
            result: [0; RESULT_BYTES_MAX],
        }
    }

    /// Starts over, on a device of this logical sector.
    pub(crate) fn reset(&mut self, logical: u32) {
        self.logical = logical;
        self.done = 0;
        self.done_of_pair = 0;
        self.done_of_unit = 0;
        self.unreadable = false;
        self.different = false;
        self.units = 0;
        self.entry_end = 0;
        self.unreadable_cells = (0, 0);
        self.full = false;
        self.length = 0;
    }

    /// What has to be read next; `None` when all is done.
    pub(crate) fn next(&self, task: &Task) -> Option<Batch> {
        match task {
            Task::Read(_) => None,
            Task::Digest(digest) => self.next_digest(digest),
            Task::Same(same) => self.next_same(same),
            Task::Find(find) => self.next_find(find),
        }
    }

    /// Takes what was read.
    pub(crate) fn feed(
        &mut self,
        task: &Task,
        sectors: &Sectors<'_>,
        digester: &mut RangeDigester,
    ) {
        let done = match task {
            Task::Read(_) => None,
            Task::Digest(digest) => self.feed_digest(digest, sectors, digester),
            Task::Same(same) => self.feed_same(same, sectors),
            Task::Find(find) => self.feed_find(find, sectors),
        };
        // `check` has proven that nothing here runs out of bounds; should it
        // do so nevertheless, the result ends here.
        if done.is_none() {
            self.full = true;
        }
    }

    /// Writes the body that answers `task` into `out`.
    pub(crate) fn write_body(
        &mut self,
        task: &Task,
        out: &mut [u8],
    ) -> Option<usize> {
        let mut to = 0;
        if let Task::Find(_) = task {
            self.put_unreadable_cells()?;
            let searched = u32::try_from(self.done).ok()?;
            let mut buffer = [0; VARINT_BYTES_MAX];
            let count = put_varint(searched, &mut buffer);
            out.get_mut(..count.len())?.copy_from_slice(count);
            to = count.len();
        }
        let end = to.checked_add(self.length)?;
        let result = self.result.get(..self.length)?;
        out.get_mut(to..end)?.copy_from_slice(result);
        Some(end)
    }

    fn put(&mut self, bytes: &[u8]) -> Option<()> {
        let end = self.length.checked_add(bytes.len())?;
        self.result.get_mut(self.length..end)?.copy_from_slice(bytes);
        self.length = end;
        Some(())
    }

    fn next_digest(&self, task: &DigestUnits) -> Option<Batch> {
        let left = u64::from(task.range.count()).checked_sub(self.done)?;
        let count =
            u32::try_from(left.min(u64::from(CHUNK_SECTORS_MAX))).ok()?;
        let first = task.range.first().checked_add(self.done)?;
        let range = SectorRange::new(first, count)?;
        (!self.full).then_some(())?;
        Batch::from_slice(&[range.bytes()]).ok()
    }

    fn feed_digest(
        &mut self,
        task: &DigestUnits,
        sectors: &Sectors<'_>,
        digester: &mut RangeDigester,
    ) -> Option<()> {
        let total = u64::from(task.range.count());
        for (i, sector) in sectors.bytes.chunks(SECTOR_BYTES).enumerate() {
            self.unreadable |= sectors.unreadable.has(i);
            digester.update(sector);
            self.done = self.done.checked_add(1)?;
            self.done_of_unit = self.done_of_unit.checked_add(1)?;
            if self.done_of_unit == task.unit_sectors || self.done == total {
                let mut digest = digester.finish();
                if self.unreadable {
                    digest.0 = [0; 32];
                }
                match task.form {
                    DigestForm::Range => self.put(&digest.0)?,
                    DigestForm::Short => self.put(&digest.short().0)?,
                }
                self.unreadable = false;
                self.done_of_unit = 0;
            }
        }
        Some(())
    }

    fn next_same(&self, task: &SameUnits) -> Option<Batch> {
        let pair = task.pairs.get(usize::try_from(self.done).ok()?)?;
        let left = pair.one.count().checked_sub(self.done_of_pair)?;
        let count = left.min(CHUNK_SECTORS_MAX / 2);
        let offset = u64::from(self.done_of_pair);
        let one = pair.one.first().checked_add(offset)?;
        let other = pair.other_first.checked_add(offset)?;
        let one = SectorRange::new(one, count)?.bytes();
        let other = SectorRange::new(other, count)?.bytes();
        (!self.full).then_some(())?;
        Batch::from_slice(&[one, other]).ok()
    }

    fn feed_same(
        &mut self,
        task: &SameUnits,
        sectors: &Sectors<'_>,
    ) -> Option<()> {
        let pair = task.pairs.get(usize::try_from(self.done).ok()?)?;
        let half = sectors.bytes.len().checked_div(2)?;
        let (one, other) = sectors.bytes.split_at_checked(half)?;
        let count = half.checked_div(SECTOR_BYTES)?;
        let both = one.chunks(SECTOR_BYTES).zip(other.chunks(SECTOR_BYTES));
        for (i, (one, other)) in both.enumerate() {
            self.unreadable |= sectors.unreadable.has(i)
                || sectors.unreadable.has(i.checked_add(count)?);
            self.different |= one != other;
            self.done_of_pair = self.done_of_pair.checked_add(1)?;
            self.done_of_unit = self.done_of_unit.checked_add(1)?;
            let pair_ends = self.done_of_pair == pair.one.count();
            if pair_ends || self.done_of_unit == task.unit_sectors {
                self.put_sameness()?;
            }
            if pair_ends {
                self.done = self.done.checked_add(1)?;
                self.done_of_pair = 0;
            }
        }
        Some(())
    }

    fn put_sameness(&mut self) -> Option<()> {
        let sameness = if self.unreadable {
            Sameness::Unreadable
        } else if self.different {
            Sameness::Different
        } else {
            Sameness::Same
        };
        if self.units.checked_rem(4)? == 0 {
            self.put(&[0])?;
        }
        let place = self.units.checked_div(4)?;
        let shift = u32::try_from(self.units.checked_rem(4)?).ok()?;
        let bits = sameness.bits().wrapping_shl(shift.checked_mul(2)?);
        *self.result.get_mut(place)? |= bits;
        self.units = self.units.checked_add(1)?;
        self.unreadable = false;
        self.different = false;
        self.done_of_unit = 0;
        Some(())
    }

    fn next_find(&self, task: &Find) -> Option<Batch> {
        let left = u64::from(task.cells).checked_sub(self.done)?;
        if self.full || left == 0 {
            return None;
        }
        let window = Window::of(task, self.logical)?;
        let count = u64::from(window.cells_at_once).min(left);
        let mut batch = Batch::new();
        let cell = |cell: u64| {
            let stride = u64::from(task.stride_sectors);
            let offset = cell.checked_mul(stride)?;
            task.first.checked_add(offset)?.checked_add(window.first.into())
        };
        if window.whole {
            let first = cell(self.done)?;
            let count = count.checked_mul(window.sectors.into())?;
            let count = u32::try_from(count).ok()?;
            batch.push(SectorRange::new(first, count)?.bytes()).ok()?;
        } else {
            for i in 0..count {
                let first = cell(self.done.checked_add(i)?)?;
                let range = SectorRange::new(first, window.sectors)?;
                batch.push(range.bytes()).ok()?;
            }
        }
        Some(batch)
    }

    fn feed_find(&mut self, task: &Find, sectors: &Sectors<'_>) -> Option<()> {
        let window = Window::of(task, self.logical)?;
        let bytes_per_cell =
            usize_from(window.sectors).checked_mul(SECTOR_BYTES)?;
        for (i, cell) in sectors.bytes.chunks(bytes_per_cell).enumerate() {
            let index = u32::try_from(self.done).ok()?;
            let first_sector = i.checked_mul(usize_from(window.sectors))?;
            // Whatever comes next fits, or the search ends here.
            let most = 4 * VARINT_BYTES_MAX + RETURN_BYTES_MAX;
            if self.length.checked_add(most)? > RESULT_BYTES_MAX {
                self.full = true;
                return Some(());
            }
            let needed = window.looked_at(task, first_sector)?;
            if any(sectors.unreadable, needed) {
                if self.unreadable_cells.1 == 0 {
                    self.unreadable_cells.0 = index;
                }
                self.unreadable_cells.1 =
                    self.unreadable_cells.1.checked_add(1)?;
            } else {
                self.put_unreadable_cells()?;
                self.find_in_cell(task, &window, index, cell)?;
            }
            self.done = self.done.checked_add(1)?;
        }
        Some(())
    }

    fn find_in_cell(
        &mut self,
        task: &Find,
        window: &Window,
        index: u32,
        cell: &[u8],
    ) -> Option<()> {
        let at = window.inside(task.offset)?;
        let found = cell.get(at..)?.get(..task.pattern.len())?;
        if found == task.pattern.as_slice() {
            let at = window.inside(task.return_offset)?;
            let length = usize::from(task.return_length);
            let returned = cell.get(at..)?.get(..length)?;
            self.put_entry(index, 0)?;
            self.put(returned)?;
            self.entry_end = index.checked_add(1)?;
        }
        Some(())
    }

    /// The head of an entry: how many cells it skips, and its kind.
    fn put_entry(&mut self, index: u32, kind: u32) -> Option<()> {
        let skipped = index.checked_sub(self.entry_end)?;
        let value = skipped.checked_mul(2)?.checked_add(kind)?;
        let mut buffer = [0; VARINT_BYTES_MAX];
        self.put(put_varint(value, &mut buffer))
    }

    fn put_unreadable_cells(&mut self) -> Option<()> {
        let (first, count) = self.unreadable_cells;
        if count > 0 {
            self.put_entry(first, 1)?;
            let mut buffer = [0; VARINT_BYTES_MAX];
            self.put(put_varint(count, &mut buffer))?;
            self.entry_end = first.checked_add(count)?;
            self.unreadable_cells = (0, 0);
        }
        Some(())
    }
}

fn any(map: &SectorMap, mut sectors: core::ops::Range<usize>) -> bool {
    sectors.any(|sector| map.has(sector))
}

/// What is read of each cell of a search.
struct Window {
    /// The first sector of it within its cell.
    first: u32,
    /// How many sectors.
    sectors: u32,
    /// It is the whole cell, so cells can be read in one go.
    whole: bool,
    /// How many cells fit one job.
    cells_at_once: u32,
}

impl Window {
    fn of(task: &Find, logical: u32) -> Option<Self> {
        let stride = task.stride_sectors;
        let cell_bytes = u64::from(stride).checked_mul(SECTOR)?;
        if cell_bytes <= FIND_CELL_BYTES_MAX {
            let cells_at_once = CHUNK_SECTORS_MAX.checked_div(stride)?;
            let whole = true;
            return Some(Self {
                first: 0,
                sectors: stride,
                whole,
                cells_at_once,
            });
        }
        let per_logical = logical.checked_div(512)?;
        let pattern_end =
            u64::from(task.offset).checked_add(u64_from(task.pattern.len()))?;
        let return_end = u64::from(task.return_offset)
            .checked_add(u64::from(task.return_length))?;
        let start = u64::from(task.offset.min(task.return_offset));
        let end = pattern_end.max(return_end);
        let first = u32::try_from(start.checked_div(SECTOR)?).ok()?;
        let first = first.checked_sub(first.checked_rem(per_logical)?)?;
        let end = u32::try_from(end.div_ceil(SECTOR)).ok()?;
        let end = end.checked_next_multiple_of(per_logical)?;
        let sectors = end.checked_sub(first)?;
        let cells_at_once = CHUNK_SECTORS_MAX
            .checked_div(sectors)?
            .min(u32::try_from(RANGES_MAX).ok()?);
        let whole = false;
        Some(Self { first, sectors, whole, cells_at_once })
    }

    /// Where an offset within a cell lies in what was read of it.
    fn inside(&self, offset: u32) -> Option<usize> {
        let start = usize_from(self.first).checked_mul(SECTOR_BYTES)?;
        usize_from(offset).checked_sub(start)
    }

    /// The sectors of the job that pattern and returned bytes lie in, for the
    /// cell whose first sector of the job is given.
    fn looked_at(
        &self,
        task: &Find,
        first_sector: usize,
    ) -> Option<core::ops::Range<usize>> {
        let pattern = self.inside(task.offset)?;
        let returned = self.inside(task.return_offset)?;
        let pattern_end = pattern.checked_add(task.pattern.len())?;
        let return_end =
            returned.checked_add(usize::from(task.return_length))?;
        let start = if task.return_length == 0 {
            pattern
        } else {
            pattern.min(returned)
        };
        let end = if task.return_length == 0 {
            pattern_end
        } else {
            pattern_end.max(return_end)
        };
        let start = start.checked_div(SECTOR_BYTES)?;
        let end = end.div_ceil(SECTOR_BYTES);
        let start = first_sector.checked_add(start)?;
        Some(start..first_sector.checked_add(end)?)
    }
}

/// Whether the device can do `task`, and the task is within bounds.
pub(crate) fn check(
    task: &Task,
    facts: &DeviceFacts<'_>,
) -> Result<(), Failure> {
    match task {
        Task::Read(ranges) => {
            ranges.iter().try_for_each(|range| check_range(range, facts))
        }
        Task::Digest(digest) => check_digest(digest, facts),
        Task::Same(same) => check_same(same, facts),
        Task::Find(find) => check_find(find, facts),
    }
}

fn check_range(
    range: SectorRange,
    facts: &DeviceFacts<'_>,
) -> Result<(), Failure> {
    let bytes = range.bytes();
    if bytes.end().0 > facts.size {
        return Err(Failure::BeyondEnd(facts.size));
    }
    let aligned = |offset: u64| {
        offset.checked_rem(u64::from(facts.logical_sector)) == Some(0)
    };
    if aligned(bytes.start().0) && aligned(bytes.end().0) {
        Ok(())
    } else {
        Err(Failure::Misaligned(facts.logical_sector))
    }
}

fn check_digest(
    task: &DigestUnits,
    facts: &DeviceFacts<'_>,
) -> Result<(), Failure> {
    let length = match task.form {
        DigestForm::Range => 32,
        DigestForm::Short => 16,
    };
    let units = match task.unit_sectors {
        0 => return Err(Failure::Unreasonable),
        unit => task.range.count().div_ceil(unit),
    };
    let result = u64::from(units).checked_mul(length);
    if task.range.bytes().length().0 > SPAN_BYTES_MAX
        || result.is_none_or(|bytes| bytes > u64_from(RESULT_BYTES_MAX))
    {
        return Err(Failure::Unreasonable);
    }
    check_range(task.range, facts)
}

fn check_same(
    task: &SameUnits,
    facts: &DeviceFacts<'_>,
) -> Result<(), Failure> {
    let mut units = 0_u64;
    let mut sectors = 0_u64;
    for pair in &task.pairs {
        if task.unit_sectors == 0 {
            return Err(Failure::Unreasonable);
        }
        let count = pair.one.count();
        let more = u64::from(count.div_ceil(task.unit_sectors));
        units = units.saturating_add(more);
        sectors = sectors.saturating_add(u64::from(count));
        let other = pair.other().ok_or(Failure::BeyondEnd(facts.size))?;
        check_range(pair.one, facts)?;
        check_range(other, facts)?;
    }
    let too_much = units.div_ceil(4) > u64_from(RESULT_BYTES_MAX)
        || sectors > SPAN_BYTES_MAX / SECTOR;
    if task.pairs.is_empty() || too_much {
        return Err(Failure::Unreasonable);
    }
    Ok(())
}

fn check_find(task: &Find, facts: &DeviceFacts<'_>) -> Result<(), Failure> {
    let unreasonable = Failure::Unreasonable;
    let cells = u64::from(task.cells);
    let stride = u64::from(task.stride_sectors);
    let cell_bytes = stride.saturating_mul(SECTOR);
    let within = |offset: u32, length: usize| {
        u64::from(offset).saturating_add(u64_from(length)) <= cell_bytes
    };
    if task.pattern.is_empty()
        || cells == 0
        || cells > FIND_POSITIONS_MAX
        || usize::from(task.return_length) > RETURN_BYTES_MAX
        || !within(task.offset, task.pattern.len())
        || !within(task.return_offset, task.return_length.into())
    {
        return Err(unreasonable);
    }
    let window = Window::of(task, facts.logical_sector).ok_or(unreasonable)?;
    let read = cells.saturating_mul(u64::from(window.sectors));
    if window.cells_at_once == 0
        || u64::from(window.sectors).saturating_mul(SECTOR)
            > FIND_CELL_BYTES_MAX
        || read.saturating_mul(SECTOR) > SPAN_BYTES_MAX
    {
        return Err(unreasonable);
    }
    let last = cells.saturating_sub(1).checked_mul(stride);
    let end = last
        .and_then(|sectors| sectors.checked_add(task.first))
        .and_then(|last| last.checked_add(window.first.into()))
        .and_then(|last| last.checked_add(window.sectors.into()))
        .and_then(|end| end.checked_mul(SECTOR));
    if end.is_none_or(|end| end > facts.size) {
        return Err(Failure::BeyondEnd(facts.size));
    }
    // With the first cell and the stride, every cell is aligned.
    let logical = u64::from(facts.logical_sector);
    let offsets = [task.first.saturating_mul(SECTOR), cell_bytes];
    if offsets.iter().any(|offset| offset.checked_rem(logical) != Some(0)) {
        return Err(Failure::Misaligned(facts.logical_sector));
    }
    Ok(())
}

const _: () = {
    assert!(FIND_CELL_BYTES_MAX <= u64_from(CHUNK_BYTES_MAX));
    assert!(RESULT_BYTES_MAX + VARINT_BYTES_MAX <= CHUNK_BYTES_MAX);
};
