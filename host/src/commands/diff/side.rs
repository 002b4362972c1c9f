//! One side of a comparison: an image or a device, walked, and which of its
//! blocks it is known to hold.

use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

use crate::block_set::BlockSet;
use crate::commands::capture::Capture;
use crate::commands::diff::compare::is_in_normal;
use crate::commands::presumed::Presumed;
use crate::commands::reach::{Origin, Reach};
use crate::digest::RangeRecord;
use crate::error::{Error, ErrorKind, Result};
use crate::ext::claims::Claim;
use crate::ext::{BlockKind, Scope, Selection, Walk, WalkOptions, Walker};
use crate::image::format::Format;
use crate::image::{self, OpenImage};
use crate::local::{LocalFile, LocalSource};
use crate::manifest;
use crate::observer::Observer;
use crate::source::BlockSource;
use crate::spool::{Identity, Spool, Store, StoreOptions};
use crate::stop::Stop;
use crate::units::{
    BlockCount, BlockNumber, BlockRun, BlockSize, ByteOffset, ByteRange,
};

/// What is behind a side.
pub(super) enum Opened<'a> {
    /// An image in a file, and the records of its manifest, if it has one.
    Image(OpenImage, Option<Vec<RangeRecord>>),
    /// A device, or a file that is taken for one. It holds everything.
    Device(Box<dyn BlockSource + 'a>),
}

/// The unit in which a sparse file tells what was written to it.
const PAGE_BYTES: u64 = 4096;

impl<'a> Opened<'a> {
    /// The image or device `path` of this machine. Anything but a block
    /// device is an image, unless it begins at an `offset`.
    ///
    /// # Errors
    ///
    /// When it cannot be opened, or is a damaged image.
    pub(super) fn here(path: &Path, offset: ByteOffset) -> Result<Self> {
        let is_device = std::fs::metadata(path)
            .is_ok_and(|metadata| metadata.file_type().is_block_device());
        if is_device || offset > ByteOffset(0) {
            let source = LocalSource::open(path, offset)?;
            return Ok(Self::Device(Box::new(source)));
        }
        let known = match manifest::read(path) {
            // Whatever is wrong with it: the image is what is compared.
            Err(error) if error.kind() == ErrorKind::Differs => None,
            known => known?,
        };
        if let Some((known, _)) = &known {
            known.refuse_shifted(path).map_err(|error| {
                error.hint("name it second, with --source-offset")
            })?;
        }
        let image = image::open(path, None)?;
        Ok(Self::Image(image, known.map(|(_, records)| records)))
    }

    /// The device `path` of a target, presumed to be what `other` is.
    ///
    /// # Errors
    ///
    /// As [`Origin::new`].
    pub(super) fn there(
        reach: &Reach,
        path: &Path,
        offset: ByteOffset,
        other: &'a Opened<'_>,
        observer: &'a dyn Observer,
        stop: &Stop,
    ) -> Result<Self> {
        let origin = Origin::new(reach, path, offset, observer, stop)?;
        let device = match origin {
            Origin::Local(source) => {
                return Ok(Self::Device(Box::new(source)));
            }
            Origin::Remote(device) => *device,
        };
        let presumed = Presumed::new(device, other.source(), other.ranges());
        let store = Store::open(
            Box::new(LocalFile::temporary()?),
            Box::new(LocalFile::temporary()?),
            &Identity::new(),
            StoreOptions::new(ByteOffset(0), false),
        )?;
        Ok(Self::Device(Box::new(Spool::open(presumed, store)?)))
    }

    pub(super) fn source(&self) -> &dyn BlockSource {
        match self {
            Self::Image(image, _) => image.source(),
            Self::Device(source) => source.as_ref(),
        }
    }

    /// Whether it holds tables only.
    pub(super) const fn is_normal(&self) -> bool {
        matches!(self, Self::Image(image, _)
            if matches!(image.format, Format::Normal))
    }

    /// What it is called in a report.
    pub(super) const fn what(&self) -> &'static str {
        match self {
            Self::Image(image, _) => image.format.name(),
            Self::Device(_) => "device",
        }
    }

    /// What it may hold; nothing of a device, which need not be presumed.
    fn ranges(&self) -> Vec<ByteRange> {
        match self {
            Self::Image(image, _) => image.stored.ranges().to_vec(),
            Self::Device(_) => Vec::new(),
        }
    }
}

/// One side, walked.
pub(super) struct Side<'a> {
    pub(super) opened: &'a Opened<'a>,
    /// How the user named it.
    pub(super) name: String,
    pub(super) walk: Walk,
    scope: Scope,
    /// Blocks that it holds for certain; `None` of a device: all.
    exact: Option<BlockSet>,
    /// Blocks that it holds unless they are zeros, as everything is there
    /// that an image does not hold.
    perhaps: BlockSet,
}

impl<'a> Side<'a> {
    /// Walks it.
    ///
    /// # Errors
    ///
    /// When there is no filesystem, or reading fails.
    pub(super) fn walk(
        opened: &'a Opened<'a>,
        path: &Path,
        scope: Scope,
        observer: &dyn Observer,
        stop: &Stop,
    ) -> Result<Self> {
        let source = opened.source();
        let name = path.display().to_string();
        let walk = Capture::new(source, observer, stop)
            .walk(walker(source, scope), None)
            .map_err(|error| name_it(error, &name))?;
        let mut side = Self {
            opened,
            name,
            walk,
            scope,
            exact: None,
            perhaps: BlockSet::new(),
        };
        side.know();
        Ok(side)
    }

    /// Finds out which blocks it holds.
    fn know(&mut self) {
        let Opened::Image(image, records) = self.opened else { return };
        let size = self.size();
        let touched = image.stored.touched(size);
        let unit = match image.format {
            Format::Raw => PAGE_BYTES,
            Format::Normal | Format::Qcow2 => image.unit,
        };
        let fine = unit <= size.bytes_u64();
        let mut exact = BlockSet::new();
        if fine {
            exact.union_with(&touched);
        }
        self.perhaps = touched.clone();
        if let Some(records) = records {
            exact.union_with(&records.iter().map(|r| r.run).collect());
        } else {
            // What its own structure is made of is what was kept of it.
            let mut structure = BlockSet::new();
            for (kind, blocks) in &self.walk.kinds {
                match kind {
                    BlockKind::Data => {}
                    // No image leaves these out; zeros may be holes.
                    kind if is_in_normal(*kind) => exact.union_with(blocks),
                    _ => structure.union_with(blocks),
                }
            }
            self.perhaps.union_with(&structure);
            structure.intersect_with(&touched);
            exact.union_with(&structure);
        }
        self.perhaps.union_with(&exact);
        self.exact = Some(exact);
    }

    pub(super) fn source(&self) -> &dyn BlockSource {
        self.opened.source()
    }

    pub(super) fn size(&self) -> BlockSize {
        self.walk.geometry.block_size
    }

    /// Those of `blocks` that it may hold.
    pub(super) fn may_hold(&self, blocks: &BlockSet) -> BlockSet {
        let mut held = blocks.clone();
        let end = BlockNumber(self.walk.geometry.blocks.0);
        let beyond = blocks.last().and_then(|last| last.checked_since(end));
        if let Some(beyond) = beyond {
            let count = BlockCount(beyond.0.saturating_add(1));
            if let Some(run) = BlockRun::new(end, count) {
                held.remove_run(run);
            }
        }
        if self.exact.is_some() {
            held.intersect_with(&self.perhaps);
        }
        held
    }

    /// Whether it holds `block`, which is zero.
    pub(super) fn holds_zero(&self, block: BlockNumber) -> bool {
        self.exact.as_ref().is_none_or(|exact| exact.contains(block))
    }

    /// Who claims `blocks`, and every block of a directory.
    ///
    /// # Errors
    ///
    /// When reading fails.
    pub(super) fn claims(
        &self,
        blocks: &BlockSet,
        observer: &dyn Observer,
        stop: &Stop,
    ) -> Result<Vec<Claim>> {
        let mut watched = blocks.clone();
        if let Some(directories) = self.walk.kind(BlockKind::Directory) {
            watched.union_with(directories);
        }
        let walker = walker(self.source(), self.scope).watching(watched);
        let again =
            Capture::new(self.source(), observer, stop).walk(walker, None)?;
        Ok(again.claims)
    }
}

fn walker(source: &dyn BlockSource, scope: Scope) -> Walker {
    Walker::new(WalkOptions {
        selection: Selection::Complete,
        scope,
        device_length: Some(source.facts().length),
        ..WalkOptions::default()
    })
}

/// Says of which side an error speaks.
fn name_it(error: Error, name: &str) -> Error {
    if error.kind() != ErrorKind::NoFilesystem {
        return error;
    }
    let hint = error.what_to_try().map(str::to_owned);
    let named = Error::new(ErrorKind::NoFilesystem, format!("{name}: {error}"));
    match hint {
        Some(hint) => named.hint(hint),
        None => named,
    }
}
