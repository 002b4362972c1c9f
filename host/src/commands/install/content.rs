//! What an image has to give: which blocks of it are known, what each is
//! for, and the bytes.

use std::path::Path;

use crate::block_set::BlockSet;
use crate::commands::capture::Capture;
use crate::commands::install::identity::{range, refused};
use crate::commands::verify;
use crate::commands::writing::read_bytes;
use crate::digest::RangeRecord;
use crate::error::{Error, ErrorKind, Result};
use crate::ext::claims::Claim;
use crate::ext::{
    BlockKind, Geometry, Scope, Selection, Walk, WalkOptions, Walker,
};
use crate::image::format::Format;
use crate::image::{self, OpenImage};
use crate::manifest::{self, Manifest};
use crate::observer::Observer;
use crate::source::BlockSource;
use crate::stop::Stop;
use crate::units::{BlockCount, BlockNumber, BlockSize, ByteOffset, ByteRange};

/// Where in a filesystem the superblock lies.
pub(super) const SUPERBLOCK_AT: u64 = 1024;

/// An image that was opened and walked.
pub(super) struct Content {
    image: OpenImage,
    options: WalkOptions,
    /// What the walk found.
    pub(super) walk: Walk,
    /// Its manifest, if it has one.
    pub(super) manifest: Option<Manifest>,
    /// The blocks that the image is known to hold.
    pub(super) held: BlockSet,
    /// Blocks of zeros that it perhaps never held.
    pub(super) doubtful: BlockCount,
}

/// How far an image is walked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Depth {
    /// What the structure is made of.
    Metadata,
    /// Also the contents of files.
    Data,
    /// The same, and whose each stretch is.
    Traced,
}

/// How much an image has to prove before it is believed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Proof {
    /// Its manifest, block by block.
    Manifest,
    /// Nothing: somebody changed it on purpose, or says so.
    None,
}

impl Content {
    /// Opens the image at `path` and walks it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Refused`] when it cannot prove that it is what it was
    /// when it was made; else as opening and walking it.
    pub(super) fn open(
        path: &Path,
        depth: Depth,
        proof: Proof,
        observer: &dyn Observer,
        stop: &Stop,
    ) -> Result<Self> {
        let known = match (manifest::read(path), proof) {
            (Ok(known), _) => known,
            // What a manifest said before a repair is of no use afterwards.
            (Err(_), Proof::None) => None,
            (Err(error), Proof::Manifest) => return Err(error),
        };
        if let Some((known, _)) = &known {
            known.refuse_shifted(path).map_err(|error| {
                error.hint("turn it into an image of its own first")
            })?;
        }
        let image = image::open(path, None)?;
        if proof == Proof::Manifest {
            prove(path, &image, known.as_ref(), observer, stop)?;
        }
        let options = WalkOptions {
            selection: Selection::Complete,
            scope: match (image.format, depth) {
                (Format::Normal, _) => Scope::Tables,
                (_, Depth::Metadata) => Scope::Metadata,
                (_, Depth::Data | Depth::Traced) => Scope::Data,
            },
            trace: depth == Depth::Traced,
            device_length: Some(image.source().facts().length),
            ..WalkOptions::default()
        };
        let source = image.source();
        let walk = Capture::new(source, observer, stop)
            .walk(Walker::new(options), None)?;
        let size = walk.geometry.block_size;
        let mut doubtful = BlockCount(0);
        let held = match (&known, proof) {
            (Some((_, records)), Proof::Manifest) => {
                records.iter().map(|record| record.run).collect()
            }
            _ if image.format == Format::Normal => image.stored.touched(size),
            _ => {
                let mut held = image.stored.touched(size);
                let zeros = unproven_zeros(source, &walk, &held, stop)?;
                doubtful = zeros.count();
                held.subtract(&zeros);
                held
            }
        };
        let manifest = known.map(|(manifest, _)| manifest);
        let place = BlockSize::MIN.bytes_u64();
        let superblock = read_bytes(source, range(place, place)?)?;
        let superblock = superblock.first_chunk().copied().unwrap_or([0; 1024]);
        if *walk.superblock != superblock {
            return Err(refused(format!(
                "the first superblock in {} is lost: what a copy says is too \
                 old to be written back",
                path.display()
            ))
            .hint(
                "repair a copy of the image, then install that: --original",
            ));
        }
        Ok(Self { image, options, walk, manifest, held, doubtful })
    }

    pub(super) fn source(&self) -> &dyn BlockSource {
        self.image.source()
    }

    /// Who claims `blocks`: the same walk once more.
    ///
    /// # Errors
    ///
    /// When the image cannot be read at all.
    pub(super) fn claims(
        &self,
        blocks: BlockSet,
        observer: &dyn Observer,
        stop: &Stop,
    ) -> Result<Vec<Claim>> {
        let options = WalkOptions { trace: false, ..self.options };
        let walker = Walker::new(options).watching(blocks);
        let again =
            Capture::new(self.source(), observer, stop).walk(walker, None)?;
        Ok(again.claims)
    }

    /// What the image may hold: blocks of which the file has any byte, and
    /// perhaps their neighbours.
    pub(super) fn touched(&self) -> BlockSet {
        self.image.stored.touched(self.size())
    }

    /// Its format.
    pub(super) const fn format(&self) -> Format {
        self.image.format
    }

    pub(super) fn geometry(&self) -> &Geometry {
        &self.walk.geometry
    }

    pub(super) fn size(&self) -> BlockSize {
        self.walk.geometry.block_size
    }

    /// The superblock as the image has it.
    pub(super) fn superblock(&self) -> [u8; 1024] {
        *self.walk.superblock
    }

    /// The bytes of a stretch.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Refused`] when the image does not hold it whole.
    pub(super) fn bytes(&self, range: ByteRange) -> Result<Vec<u8>> {
        read_bytes(self.source(), range)
    }

    /// The known blocks of each kind, each block in one kind only. The
    /// superblock is not among them: it has its own way.
    pub(super) fn by_kind(&self) -> Vec<(BlockKind, BlockSet)> {
        let mut seen = BlockSet::new();
        seen.insert(self.superblock_block());
        if let Some(superblock) = self.walk.kind(BlockKind::Superblock) {
            seen.union_with(superblock);
        }
        let mut all = Vec::new();
        for (kind, blocks) in &self.walk.kinds {
            if *kind == BlockKind::Superblock {
                continue;
            }
            let mut own = blocks.clone();
            own.intersect_with(&self.held);
            own.subtract(&seen);
            seen.union_with(&own);
            if !own.is_empty() {
                all.push((*kind, own));
            }
        }
        all
    }

    /// The block that the superblock lies in. With bigalloc and 1 KiB blocks
    /// that is not the first block of group 0.
    fn superblock_block(&self) -> BlockNumber {
        self.size().block_of(ByteOffset(SUPERBLOCK_AT))
    }

    /// Whether the superblock itself is known.
    pub(super) fn holds_superblock(&self) -> bool {
        self.held.contains(self.superblock_block())
    }
}

/// How much of an image is looked at in one step.
const STEP_BYTES: u64 = 1 << 20;

/// The blocks of zeros in `touched` that an image without a manifest perhaps
/// never held: a file tells no more than whether any of a page, or of a
/// cluster, was written. What every image has all of is believed.
fn unproven_zeros(
    source: &dyn BlockSource,
    walk: &Walk,
    touched: &BlockSet,
    stop: &Stop,
) -> Result<BlockSet> {
    let size = walk.geometry.block_size;
    let mut zeros = BlockSet::new();
    for (kind, blocks) in &walk.kinds {
        let in_every_image = matches!(
            kind,
            BlockKind::Superblock
                | BlockKind::Descriptors
                | BlockKind::BlockBitmap
                | BlockKind::InodeBitmap
                | BlockKind::InodeTable
        );
        if in_every_image {
            continue;
        }
        let mut own = blocks.clone();
        own.intersect_with(touched);
        let runs = own.runs().filter_map(|run| run.bytes(size));
        for part in runs.flat_map(|run| run.cut(STEP_BYTES)) {
            stop.check()?;
            let first = size.block_of(part.start()).0;
            let bytes = read_bytes(source, part)?;
            for (block, bytes) in (first..).zip(bytes.chunks(size.bytes())) {
                if bytes.iter().all(|byte| *byte == 0) {
                    zeros.insert(BlockNumber(block));
                }
            }
        }
    }
    Ok(zeros)
}

fn prove(
    path: &Path,
    image: &OpenImage,
    known: Option<&(Manifest, Vec<RangeRecord>)>,
    observer: &dyn Observer,
    stop: &Stop,
) -> Result<()> {
    let name = path.display();
    let Some((manifest, records)) = known else {
        // Nobody repairs a normal image, no tool can.
        if image.format == Format::Normal {
            return Ok(());
        }
        return Err(Error::new(
            ErrorKind::Refused,
            format!(
                "{name} has no manifest that proves that it is what it was \
                 when it was made"
            ),
        )
        .intact("nothing was written")
        .hint(
            "if it was repaired, name the image that it was made from: \
             --original IMAGE; if you know that nobody changed it: \
             --unproven",
        ));
    };
    let size = manifest.block_size()?;
    let bad =
        verify::against_records(image.source(), records, size, observer, stop)?;
    if bad.is_empty() {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Refused,
        format!(
            "{name} is not what its manifest says: {} differ",
            crate::text::count(bad.count().0, "block")
        ),
    )
    .intact("nothing was written")
    .hint(
        "`e2wire verify` says which; if it was repaired on purpose, name the \
         image that it was made from: --original IMAGE",
    ))
}
