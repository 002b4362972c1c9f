//! What of a repaired copy may be written to the device.
//!
//! e2fsck on an image of the metadata reads zeros where file contents would
//! be. When it gives a file blocks of its own that two files claimed, it
//! copies these zeros: written back, they would silently take the place of
//! the contents. So every block that the repaired copy refers to, and that
//! the image it was made from did not hold, is put in a class here:
//!
//! - structure (directories, maps, attributes, bitmaps, the journal's own
//!   blocks) that the repair wrote belongs to the plan; structure that nobody
//!   ever saw is refused;
//! - contents that lie where they lay are left alone, but for those that the
//!   journal held and the repair replayed;
//! - contents that the repair moved belong to the plan only if the copy has
//!   what the device has at the old place; else the file is refused by name.

use std::collections::{BTreeMap, BTreeSet};

use crate::block_set::BlockSet;
use crate::commands::install::content::Content;
use crate::commands::install::identity::refused;
use crate::commands::install::journal::replayed;
use crate::commands::paths::Paths;
use crate::commands::writing::{read_bytes, same_or_read};
use crate::error::Result;
use crate::ext::{BlockKind, Traced};
use crate::source::BlockSource;
use crate::text;
use crate::units::{BlockCount, BlockNumber, BlockRun, ByteOffset, ByteRange};

/// So many files are named.
const NAMED_MAX: usize = 20;

/// So many blocks are asked about together.
const ASKED_AT_ONCE: usize = 256;

/// The unit in which a sparse file tells what was written to it.
const PAGE_BYTES: u64 = 4096;

/// A repaired copy, what it was made from, and the device.
pub(super) struct Repair<'a> {
    pub(super) original: &'a Content,
    pub(super) copy: &'a Content,
    pub(super) device: &'a dyn BlockSource,
    /// Where the filesystem starts on the device.
    pub(super) offset: ByteOffset,
}

/// What a file is refused for.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Doubt {
    /// Its contents were moved, and the copy does not have them.
    Moved,
    /// It got contents that the device does not have.
    Changed,
}

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Classified {
    /// The blocks of the copy that may be written.
    pub(super) known: BlockSet,
    /// What to know before confirming.
    pub(super) remarks: Vec<String>,
}

impl Repair<'_> {
    /// Puts every block in its class.
    ///
    /// # Errors
    ///
    /// [`crate::error::ErrorKind::Refused`], naming files or blocks, when
    /// writing the copy back would lose contents.
    pub(super) fn classify(&self) -> Result<Classified> {
        let mut class = Classified::default();
        self.structure(&mut class)?;
        self.contents(&mut class)?;
        Ok(class)
    }

    /// The blocks that the repair may have written: those that the file has
    /// and the image had not.
    fn written(&self) -> BlockSet {
        let mut written = self.copy.touched();
        written.subtract(&self.original.held);
        written
    }

    fn structure(&self, class: &mut Classified) -> Result<()> {
        let written = self.written();
        let exact = self.tells_what_was_written();
        let mut doubtful = Vec::new();
        for (kind, blocks) in &self.copy.walk.kinds {
            if *kind == BlockKind::Data {
                continue;
            }
            for block in each(blocks) {
                let sure = exact || *kind == BlockKind::Journal;
                let known = self.original.held.contains(block)
                    || written.contains(block)
                        && (sure || !self.is_zero(block)?);
                let hole = self.original.walk.selected.contains(block);
                // A bitmap is only an extract: the repair's is right.
                if known || is_bitmap(*kind) && !hole {
                    class.known.insert(block);
                } else if !hole {
                    doubtful.push((*kind, block));
                }
            }
        }
        let mut unseen = self.unlike_device(doubtful)?;
        let Some((kind, blocks)) = unseen.pop_first() else { return Ok(()) };
        let first = blocks.runs().next().map_or(0, |run| run.first().0);
        Err(refused(format!(
            "the copy relies on {} of kind {kind} that the image never held \
             (the first is {first})",
            text::count(blocks.count().0, "block"),
        ))
        .hint(
            "image the device once more, so that the image has them (inode \
             tables: --full-tables), and repair a copy of that",
        ))
    }

    /// Whether the file of the copy shows which blocks the repair wrote: one
    /// of 4 KiB pages cannot tell which of several blocks in a page, and one
    /// without holes tells nothing.
    fn tells_what_was_written(&self) -> bool {
        let all = self.copy.geometry().blocks;
        self.copy.size().bytes_u64() >= PAGE_BYTES
            && self.copy.touched().count() < all
    }

    /// Of blocks that the repair took for what the copy reads there, mostly
    /// zeros, those where the device has something else.
    fn unlike_device(
        &self,
        mut blocks: Vec<(BlockKind, BlockNumber)>,
    ) -> Result<BTreeMap<BlockKind, BlockSet>> {
        // What only says where structure may grow is never looked into, and
        // --journal live does not ask for the rest of the journal.
        blocks.retain(|(kind, _)| {
            !matches!(kind, BlockKind::ReservedDescriptors | BlockKind::Journal)
        });
        blocks.sort_unstable_by_key(|(_, block)| *block);
        let mut unlike: BTreeMap<BlockKind, BlockSet> = BTreeMap::new();
        for some in blocks.chunks(ASKED_AT_ONCE) {
            let mut wanted = Vec::with_capacity(some.len());
            for (_, block) in some {
                let place = self.place(*block)?;
                wanted.push((self.there(place)?, self.copy.bytes(place)?));
            }
            let asked: Vec<(ByteRange, &[u8])> =
                wanted.iter().map(|(at, b)| (*at, b.as_slice())).collect();
            let now = same_or_read(self.device, &asked)?;
            for (((kind, block), (_, new)), now) in
                some.iter().zip(&wanted).zip(now)
            {
                if now.is_some_and(|now| now != *new) {
                    unlike.entry(*kind).or_default().insert(*block);
                }
            }
        }
        Ok(unlike)
    }

    fn contents(&self, class: &mut Classified) -> Result<()> {
        let before = by_inode(&self.original.walk.traced);
        let written = self.written();
        let replayed = replayed(self.original)?;
        let mut doubts: BTreeMap<u32, Doubt> = BTreeMap::new();
        let mut mended = BTreeSet::new();
        let mut moved = 0_u64;
        let data = self.copy.walk.traced.iter();
        for now in data.filter(|traced| traced.kind == BlockKind::Data) {
            let then = before.get(&now.inode).map_or(&[][..], Vec::as_slice);
            for part in split(now, then) {
                let seen = match part.was {
                    Some(was) if was == part.physical => {
                        self.in_place(&part, &written, &replayed, class)?
                    }
                    Some(was) => {
                        moved += part.count;
                        self.moved(&part, was, class)?
                    }
                    None => {
                        self.appeared(&part, &written).inspect(|doubt| {
                            if doubt.is_none() {
                                mended.insert(now.inode);
                            }
                        })?
                    }
                };
                if let Some(doubt) = seen {
                    doubts.insert(now.inode, doubt);
                }
            }
        }
        self.refuse(&doubts)?;
        if moved > 0 {
            class.remarks.push(format!(
                "{} of file contents got another place; the copy has what \
                 the device has.",
                text::count(moved, "block")
            ));
        }
        if !mended.is_empty() {
            class.remarks.push(format!(
                "The maps of {} were mended: the contents are what lies at \
                 these places of the device.",
                text::count(mended.len() as u64, "file")
            ));
        }
        Ok(())
    }

    /// Contents that lie where they lay.
    fn in_place(
        &self,
        part: &Part,
        written: &BlockSet,
        replayed: &BlockSet,
        class: &mut Classified,
    ) -> Result<Option<Doubt>> {
        for block in blocks(part.physical, part.count) {
            if self.original.held.contains(block) {
                // An image with contents: what differs was changed on
                // purpose, and all of it is known.
                class.known.insert(block);
            } else if written.contains(block) {
                let is_zero = self.is_zero(block)?;
                if replayed.contains(block) {
                    class.known.insert(block);
                } else if !is_zero && !self.is_as_on_device(block, block)? {
                    return Ok(Some(Doubt::Changed));
                }
            }
        }
        Ok(None)
    }

    /// Contents that lay at `was` and now lie elsewhere.
    fn moved(
        &self,
        part: &Part,
        was: u64,
        class: &mut Classified,
    ) -> Result<Option<Doubt>> {
        let places =
            blocks(part.physical, part.count).zip(blocks(was, part.count));
        for (block, was) in places {
            if !self.is_as_on_device(block, was)? {
                return Ok(Some(Doubt::Moved));
            }
            class.known.insert(block);
        }
        Ok(None)
    }

    /// Contents that no map led to before: a map was mended, or somebody put
    /// them there.
    fn appeared(
        &self,
        part: &Part,
        written: &BlockSet,
    ) -> Result<Option<Doubt>> {
        for block in blocks(part.physical, part.count) {
            let held = self.original.held.contains(block);
            let touched = written.contains(block) && !self.is_zero(block)?;
            if (held || touched) && !self.is_as_on_device(block, block)? {
                return Ok(Some(Doubt::Changed));
            }
            // A block of zeros that was written on purpose cannot be told
            // from one beside it: only a place that was in use before, and
            // so was no clone's, is believed.
            let exact = self.copy.size().bytes_u64() >= PAGE_BYTES;
            if exact && written.contains(block) && !touched {
                return Ok(Some(Doubt::Changed));
            }
        }
        Ok(None)
    }

    fn refuse(&self, doubts: &BTreeMap<u32, Doubt>) -> Result<()> {
        if doubts.is_empty() {
            return Ok(());
        }
        let traced = self.copy.walk.traced.iter();
        let directories = traced
            .filter(|traced| traced.kind == BlockKind::Directory)
            .filter_map(|traced| {
                let first = BlockNumber(traced.physical);
                let run = BlockRun::new(first, BlockCount(traced.count))?;
                Some((traced.inode, run))
            });
        let source = self.copy.source();
        let paths = Paths::of(source, self.copy.size(), directories)?;
        let named: Vec<String> = doubts
            .iter()
            .take(NAMED_MAX)
            .map(|(inode, doubt)| {
                let what = match doubt {
                    Doubt::Moved => "moved",
                    Doubt::Changed => "changed",
                };
                format!("{}: {what}", paths.describe(*inode))
            })
            .collect();
        let more = match doubts.len().saturating_sub(NAMED_MAX) {
            0 => String::new(),
            more => format!("; and {more} more"),
        };
        let list: Vec<String> =
            doubts.keys().take(NAMED_MAX).map(ToString::to_string).collect();
        Err(refused(format!(
            "the copy does not have the contents of files that the repair \
             touched: {}{more}",
            named.join("; ")
        ))
        .hint(format!(
            "make the copy anew, add their contents by --fetch-data {}, and \
             repair it again",
            list.join(",")
        )))
    }

    fn place(&self, block: BlockNumber) -> Result<ByteRange> {
        let run = BlockRun::new(block, BlockCount(1));
        run.and_then(|run| run.bytes(self.copy.size()))
            .ok_or_else(|| refused(format!("no device has a block {block}")))
    }

    /// A place of the filesystem on the device.
    fn there(&self, place: ByteRange) -> Result<ByteRange> {
        let start = ByteOffset(place.start().0.saturating_add(self.offset.0));
        ByteRange::new(start, place.length())
            .ok_or_else(|| refused("no device is so long".to_owned()))
    }

    fn is_zero(&self, block: BlockNumber) -> Result<bool> {
        let bytes = self.copy.bytes(self.place(block)?)?;
        Ok(bytes.iter().all(|byte| *byte == 0))
    }

    /// Whether the copy has at `block` what the device has at `there`.
    fn is_as_on_device(
        &self,
        block: BlockNumber,
        there: BlockNumber,
    ) -> Result<bool> {
        let wanted = self.copy.bytes(self.place(block)?)?;
        let there = self.there(self.place(there)?)?;
        let asked = [(there, *blake3::hash(&wanted).as_bytes())];
        match self.device.differing(&asked)?.is_empty() {
            true => Ok(true),
            false => Ok(read_bytes(self.device, there)? == wanted),
        }
    }
}

const fn is_bitmap(kind: BlockKind) -> bool {
    matches!(kind, BlockKind::BlockBitmap | BlockKind::InodeBitmap)
}

/// A stretch of a file, and where it lay before.
struct Part {
    physical: u64,
    count: u64,
    was: Option<u64>,
}

/// The stretches of each inode, in the order of the file.
fn by_inode(traced: &[Traced]) -> BTreeMap<u32, Vec<Traced>> {
    let mut all: BTreeMap<u32, Vec<Traced>> = BTreeMap::new();
    for part in traced {
        all.entry(part.inode).or_default().push(*part);
    }
    all
}

/// `now` in parts that each lay in one stretch of `then`, or nowhere.
fn split(now: &Traced, then: &[Traced]) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut at = now.logical;
    let end = now.logical.saturating_add(now.count);
    while at < end {
        // Damaged maps overlap: the stretch that lies where it lay wins.
        let covers = |old: &&Traced| {
            old.logical <= at && at < old.logical.saturating_add(old.count)
        };
        let physical = now.physical + (at - now.logical);
        let place = |old: &Traced| old.physical + (at - old.logical);
        let was = then
            .iter()
            .filter(covers)
            .find(|old| place(old) == physical)
            .or_else(|| then.iter().find(covers));
        let next = then
            .iter()
            .flat_map(|old| [old.logical, old.logical + old.count])
            .filter(|edge| *edge > at)
            .min();
        let until = next.unwrap_or(end).min(end);
        parts.push(Part { physical, count: until - at, was: was.map(place) });
        at = until;
    }
    parts
}

fn blocks(first: u64, count: u64) -> impl Iterator<Item = BlockNumber> {
    (first..first.saturating_add(count)).map(BlockNumber)
}

fn each(set: &BlockSet) -> impl Iterator<Item = BlockNumber> + '_ {
    set.runs().flat_map(|run| blocks(run.first().0, run.count().0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn traced(logical: u64, physical: u64, count: u64) -> Traced {
        let kind = BlockKind::Data;
        Traced { inode: 12, logical, physical, count, kind }
    }

    #[test]
    fn a_stretch_is_cut_where_its_past_was() {
        let then = [traced(0, 100, 4), traced(4, 200, 4)];
        let parts = |now| -> Vec<(u64, u64, Option<u64>)> {
            split(&now, &then)
                .into_iter()
                .map(|part| (part.physical, part.count, part.was))
                .collect()
        };
        assert_eq!(parts(traced(0, 100, 4)), [(100, 4, Some(100))]);
        assert_eq!(
            parts(traced(2, 102, 8)),
            [(102, 2, Some(102)), (104, 4, Some(200)), (108, 2, None)]
        );
        assert_eq!(parts(traced(90, 7, 1)), [(7, 1, None)]);
        let twice = [traced(0, 50, 4), traced(0, 100, 4)];
        let part = &split(&traced(0, 100, 4), &twice)[0];
        assert_eq!(part.was, Some(100));
    }
}
