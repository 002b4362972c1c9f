//! The manifest: what an image is of, how it was made, and what proves it.
//!
//! It stands beside the image as `OUTPUT.manifest.json`. Everything but
//! `image` is the same whatever the format of the image.
//!
//! # The file
//!
//! One JSON object. A reader refuses another `format` or a greater `version`
//! and ignores names it does not know: names are only ever added in a
//! version.
//!
//! ```text
//! format       "e2wire-manifest"
//! version      1
//! program      who wrote it
//! source       name, kind, bytes, model, serial, wwn: what was read
//! filesystem   uuid, block_bytes, blocks, first_data_block, groups,
//!              superblock_at
//! image        format, and what else the format has to say
//! options      what was asked for, by the names of the command line
//! selected     number of selected blocks for each kind
//! stored       number of blocks that the ranges hold
//! holes        runs of selected blocks that could not be read:
//!              first, count, why; where known: kind, group, inodes (the
//!              first and the last), path, copies (blocks that hold one),
//!              journal (the newest copy in the journal: block,
//!              journal_block, transaction, replayed, escaped);
//!              holes_blocks counts all of them
//! partial      stored blocks with zeros in a part that could not be read: as
//!              holes, and sectors (byte address and length of that part)
//! findings     damage: structure, group, inode, block, text;
//!              findings_total counts all of it
//! content      the content digest, hexadecimal (see `digest`)
//! ranges       the ranges: first, count, blake3, crc32c: hexadecimal, eight
//!              digits a block; or else
//! digests      bytes, blake3: the ranges stand in OUTPUT.digests
//! ```
//!
//! More than 10,000 ranges, or more than 250,000 blocks, go to
//! `OUTPUT.digests`, whose form [`digests`] describes.

#![cfg_attr(
    not(test),
    warn(clippy::arithmetic_side_effects, clippy::as_conversions)
)]

pub mod digests;
mod hex;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::digest::{Digest, RangeRecord, content};
use crate::error::{Error, ErrorKind, Result};
use crate::ext::Walk;
use crate::ext::superblock::uuid_text;
use crate::local::output::{LocalOutput, OutputOptions, beside};
use crate::output::OutputFile;
use crate::source::{SourceFacts, SourceKind};
use crate::units::{
    BlockCount, BlockNumber, BlockRun, BlockSize, ByteOffset, u64_from,
};
use digests::DigestsReader;

/// What [`Manifest::format`] says.
pub const FORMAT: &str = "e2wire-manifest";
/// The version that is written, and the greatest that is read.
pub const VERSION: u32 = 1;

/// What is appended to the image's name.
pub const MANIFEST_SUFFIX: &str = ".manifest.json";
/// What is appended to the image's name for many ranges.
pub const DIGESTS_SUFFIX: &str = ".digests";

/// More ranges than this go into a file of their own.
const INLINE_RANGES_MAX: usize = 10_000;
/// So do the ranges of more blocks than this: their CRCs are most of it.
const INLINE_BLOCKS_MAX: u64 = 250_000;

/// Entries of `holes` and `findings`; their numbers are exact all the same.
const LIST_MAX: usize = 10_000;

/// A manifest that is larger was not written by e2wire.
const MANIFEST_BYTES_MAX: u64 = 64 << 20;

/// What an image is of, how it was made, and what proves it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Always [`FORMAT`].
    pub format: String,
    /// The version of this form.
    pub version: u32,
    /// Who wrote it.
    pub program: String,
    /// What was read.
    pub source: SourceIdentity,
    /// The filesystem on it.
    pub filesystem: FilesystemIdentity,
    /// The image itself: `format`, and what else that has to say.
    pub image: Map<String, Value>,
    /// What was asked for, by the names of the command line.
    pub options: Map<String, Value>,
    /// How many blocks of each kind were selected.
    pub selected: BTreeMap<String, u64>,
    /// How many blocks the ranges hold.
    pub stored: u64,
    /// Selected blocks that could not be read (the first 10,000 runs).
    pub holes: Vec<Hole>,
    /// How many blocks could not be read in all.
    pub holes_blocks: u64,
    /// Stored blocks of which a part could not be read.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub partial: Vec<Hole>,
    /// Damage (the first 10,000).
    pub findings: Vec<FindingRecord>,
    /// How much damage in all.
    pub findings_total: u64,
    /// The content digest.
    #[serde(with = "hex::digest")]
    pub content: Digest,
    /// The ranges, if they are few.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    ranges: Option<Vec<RangeEntry>>,
    /// The file that they stand in, if they are many.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    digests: Option<DigestsEntry>,
}

/// What was read.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct SourceIdentity {
    /// As the user named it.
    pub name: String,
    /// `file`, `block-device`, `image` or `remote`.
    pub kind: String,
    /// Its length.
    pub bytes: u64,
    /// The disk's model, where the system tells.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub model: Option<String>,
    /// The disk's serial number.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub serial: Option<String>,
    /// The disk's world-wide name.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub wwn: Option<String>,
}

/// The filesystem.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct FilesystemIdentity {
    /// As people write it.
    pub uuid: String,
    /// Size of a block.
    pub block_bytes: u64,
    /// Number of blocks.
    pub blocks: u64,
    /// The first block of group 0.
    pub first_data_block: u64,
    /// Number of groups.
    pub groups: u32,
    /// The block of the superblock that was used.
    pub superblock_at: u64,
}

/// Blocks that could not be read.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Hole {
    /// The first.
    pub first: u64,
    /// How many.
    pub count: u64,
    /// Why.
    pub why: String,
    /// What they were for.
    #[serde(flatten)]
    pub lost: Map<String, Value>,
}

/// Damage that the walk found.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct FindingRecord {
    /// The kind of the damaged structure.
    pub structure: String,
    /// Its group.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub group: Option<u32>,
    /// Its inode.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub inode: Option<u32>,
    /// Its block.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub block: Option<u64>,
    /// All of it in words.
    pub text: String,
}

/// A range in the manifest.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
struct RangeEntry {
    first: u64,
    count: u64,
    #[serde(with = "hex::digest")]
    blake3: Digest,
    #[serde(with = "hex::crcs")]
    crc32c: Vec<u32>,
}

/// The file with the ranges.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
struct DigestsEntry {
    bytes: u64,
    #[serde(with = "hex::digest")]
    blake3: Digest,
}

impl Manifest {
    /// The manifest of an image of what `walk` selected, as far as the walk
    /// and the source know it. The rest is filled in by whoever made the
    /// image; [`prepare`] fills in the ranges.
    #[must_use]
    pub fn new(source: &SourceFacts, walk: &Walk) -> Self {
        let geometry = &walk.geometry;
        let findings = walk.findings.iter().take(LIST_MAX);
        Self {
            format: FORMAT.to_owned(),
            version: VERSION,
            program: concat!("e2wire ", env!("CARGO_PKG_VERSION")).to_owned(),
            source: SourceIdentity::of(source),
            filesystem: FilesystemIdentity {
                uuid: uuid_text(&geometry.uuid),
                block_bytes: geometry.block_size.bytes_u64(),
                blocks: geometry.blocks.0,
                first_data_block: geometry.first_data_block.0,
                groups: geometry.groups,
                superblock_at: walk.superblock_at.0,
            },
            image: Map::new(),
            options: Map::new(),
            selected: walk
                .kinds
                .iter()
                .map(|(kind, set)| (kind.name().to_owned(), set.count().0))
                .collect(),
            stored: 0,
            holes: Vec::new(),
            holes_blocks: 0,
            partial: Vec::new(),
            findings: findings
                .map(|finding| FindingRecord {
                    structure: finding.structure.name().to_owned(),
                    group: finding.group,
                    inode: finding.inode,
                    block: finding.block.map(|block| block.0),
                    text: finding.to_string(),
                })
                .collect(),
            findings_total: walk.findings_total,
            content: [0; 32],
            ranges: None,
            digests: None,
        }
    }

    /// Adds blocks that could not be read.
    pub fn add_hole(
        &mut self,
        run: BlockRun,
        why: impl ToString,
        lost: Map<String, Value>,
    ) {
        self.holes_blocks = self.holes_blocks.saturating_add(run.count().0);
        if self.holes.len() < LIST_MAX {
            self.holes.push(Hole {
                first: run.first().0,
                count: run.count().0,
                why: why.to_string(),
                lost,
            });
        }
    }

    /// Adds a stored block of which a part could not be read.
    pub fn add_partial(
        &mut self,
        run: BlockRun,
        why: impl ToString,
        lost: Map<String, Value>,
    ) {
        if self.partial.len() < LIST_MAX {
            self.partial.push(Hole {
                first: run.first().0,
                count: run.count().0,
                why: why.to_string(),
                lost,
            });
        }
    }

    /// The name of the image's format.
    #[must_use]
    pub fn image_format(&self) -> &str {
        self.image.get("format").and_then(Value::as_str).unwrap_or_default()
    }

    /// Where in its file a raw image starts, in bytes.
    #[must_use]
    pub fn dest_offset(&self) -> u64 {
        number(&self.image, "dest_offset")
    }

    /// Refuses an image, the file `path`, whose filesystem does not begin
    /// where the file does.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Refused`], without a hint.
    pub fn refuse_shifted(&self, path: &Path) -> Result<()> {
        if self.dest_offset() == 0 {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Refused,
            format!(
                "the filesystem in {} does not begin where the file does",
                path.display()
            ),
        ))
    }

    /// Where on the source the filesystem started, in bytes.
    #[must_use]
    pub fn source_offset(&self) -> u64 {
        number(&self.options, "source_offset")
    }

    /// Whether the contents of files were asked for.
    #[must_use]
    pub fn with_data(&self) -> bool {
        self.options.get("data").and_then(Value::as_bool).unwrap_or(false)
    }

    /// The size of a block.
    ///
    /// # Errors
    ///
    /// When it is none that ext knows.
    pub fn block_size(&self) -> Result<BlockSize> {
        BlockSize::from_bytes(self.filesystem.block_bytes)
            .ok_or_else(|| untrue("its block size"))
    }
}

impl SourceIdentity {
    fn of(facts: &SourceFacts) -> Self {
        let kind = match facts.kind {
            SourceKind::File => "file",
            SourceKind::BlockDevice => "block-device",
            SourceKind::Image => "image",
            SourceKind::Remote => "remote",
        };
        Self {
            name: facts.name.clone(),
            kind: kind.to_owned(),
            bytes: facts.length.0,
            model: facts.disk.model.clone(),
            serial: facts.disk.serial.clone(),
            wwn: facts.disk.wwn.clone(),
        }
    }
}

fn number(map: &Map<String, Value>, name: &str) -> u64 {
    map.get(name).and_then(Value::as_u64).unwrap_or(0)
}

/// Writes the manifest of the image `image`, and the ranges beside it if they
/// are many: whole, but not under their names yet. `records` ascend.
///
/// # Errors
///
/// As [`LocalOutput::create`].
pub fn prepare(
    image: &Path,
    mut manifest: Manifest,
    records: &[RangeRecord],
    options: OutputOptions<'_>,
) -> Result<Vec<LocalOutput>> {
    manifest.content = content(records);
    manifest.stored = blocks_of(records);
    (manifest.ranges, manifest.digests) = (None, None);
    let mut files = Vec::new();
    if records.len() > INLINE_RANGES_MAX || manifest.stored > INLINE_BLOCKS_MAX
    {
        let path = beside(image, DIGESTS_SUFFIX);
        let (file, entry) = write_digests(&path, records, options)?;
        manifest.digests = Some(entry);
        files.push(file);
    } else {
        let entries = records.iter().map(RangeEntry::of).collect();
        manifest.ranges = Some(entries);
    }
    let mut text = serde_json::to_vec_pretty(&manifest).map_err(|e| {
        Error::new(ErrorKind::Internal, "a manifest that is no JSON").because(e)
    })?;
    text.push(b'\n');
    let path = beside(image, MANIFEST_SUFFIX);
    let mut file = LocalOutput::create(&path, options)?;
    file.file().write_at(ByteOffset(0), &text).map_err(|e| {
        Error::io(format!("cannot write {}", path.display()), e)
    })?;
    files.push(file);
    Ok(files)
}

fn write_digests(
    path: &Path,
    records: &[RangeRecord],
    options: OutputOptions<'_>,
) -> Result<(LocalOutput, DigestsEntry)> {
    let mut output = LocalOutput::create(path, options)?;
    let mut hasher = blake3::Hasher::new();
    let mut at = 0_u64;
    digests::write(records, &mut |bytes| {
        hasher.update(bytes);
        let place = ByteOffset(at);
        at = at.saturating_add(u64_from(bytes.len()));
        output.file().write_at(place, bytes).map_err(|e| {
            Error::io(format!("cannot write {}", path.display()), e)
        })
    })?;
    let blake3 = *hasher.finalize().as_bytes();
    Ok((output, DigestsEntry { bytes: at, blake3 }))
}

/// Reads the manifest of the image `image`; `None` if it has none.
///
/// # Errors
///
/// [`ErrorKind::LocalIo`] when it cannot be read, [`ErrorKind::Differs`] when
/// it is damaged or not what e2wire writes: then nothing it says is to be
/// believed.
pub fn read(image: &Path) -> Result<Option<(Manifest, Vec<RangeRecord>)>> {
    let path = beside(image, MANIFEST_SUFFIX);
    let name = path.display();
    let failed = |e| Error::io(format!("cannot read {name}"), e);
    let mut file = match File::open(&path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed(e)),
    };
    let mut text = Vec::new();
    file.by_ref()
        .take(MANIFEST_BYTES_MAX.saturating_add(1))
        .read_to_end(&mut text)
        .map_err(failed)?;
    let named = |error: Error| {
        Error::new(ErrorKind::Differs, format!("{name} cannot be believed"))
            .because(error)
            .intact("the image itself may be")
            .hint("compare the image with the device: verify --against")
    };
    let manifest = parse(&text).map_err(named)?;
    let records = match &manifest.digests {
        None => inline_records(&manifest).map_err(named)?,
        Some(entry) => {
            let path = beside(image, DIGESTS_SUFFIX);
            let failed =
                |e| Error::io(format!("cannot read {}", path.display()), e);
            let file = File::open(&path).map_err(failed)?;
            file_records(&manifest, entry, file).map_err(named)?
        }
    };
    if blocks_of(&records) != manifest.stored
        || content(&records) != manifest.content
    {
        return Err(named(untrue("its content digest")));
    }
    Ok(Some((manifest, records)))
}

/// The manifest without the ranges.
fn parse(text: &[u8]) -> Result<Manifest> {
    if u64_from(text.len()) > MANIFEST_BYTES_MAX {
        return Err(untrue("its length"));
    }
    // Version first: a later form may not even look like this one.
    #[derive(Deserialize)]
    struct Head {
        format: String,
        version: u32,
    }
    let no_json = |e: serde_json::Error| untrue("its form").because(e);
    let head: Head = serde_json::from_slice(text).map_err(no_json)?;
    if head.format != FORMAT {
        return Err(untrue("its format"));
    }
    if head.version > VERSION || head.version == 0 {
        return Err(untrue("its version").hint("a newer e2wire may read it"));
    }
    let manifest: Manifest = serde_json::from_slice(text).map_err(no_json)?;
    if manifest.ranges.is_some() == manifest.digests.is_some() {
        return Err(untrue("where it keeps its ranges"));
    }
    Ok(manifest)
}

fn inline_records(manifest: &Manifest) -> Result<Vec<RangeRecord>> {
    let mut checker = Checker::new(manifest)?;
    let entries = manifest.ranges.as_deref().unwrap_or(&[]);
    entries
        .iter()
        .map(|entry| {
            let run = checker.check(entry.first, entry.count)?;
            if u64_from(entry.crc32c.len()) != entry.count {
                return Err(untrue("the checksums of a range"));
            }
            Ok(RangeRecord {
                run,
                digest: entry.blake3,
                block_crcs: entry.crc32c.clone(),
            })
        })
        .collect()
}

fn file_records(
    manifest: &Manifest,
    entry: &DigestsEntry,
    file: File,
) -> Result<Vec<RangeRecord>> {
    let mut checker = Checker::new(manifest)?;
    let mut reader = DigestsReader::new(file);
    reader.magic()?;
    let mut records = Vec::new();
    while let Some((first, count)) = reader.head()? {
        let run = checker.check(first, u64::from(count))?;
        records.push(reader.rest(run, count)?);
    }
    let (bytes, digest) = reader.finish();
    if bytes != entry.bytes || digest != entry.blake3 {
        return Err(untrue("the file with its ranges"));
    }
    Ok(records)
}

/// Checks ranges before anything is allocated for them.
struct Checker {
    size: BlockSize,
    blocks: u64,
    /// The end of the range before.
    end: u64,
}

impl Checker {
    fn new(manifest: &Manifest) -> Result<Self> {
        let size = manifest.block_size()?;
        Ok(Self { size, blocks: manifest.filesystem.blocks, end: 0 })
    }

    /// A range lies behind the one before, in the filesystem, and crosses no
    /// multiple of 1 MiB.
    fn check(&mut self, first: u64, count: u64) -> Result<BlockRun> {
        let run = BlockRun::new(BlockNumber(first), BlockCount(count))
            .filter(|run| first >= self.end && run.end().0 <= self.blocks)
            .ok_or_else(|| untrue("the place of a range"))?;
        if crate::digest::cut(run, self.size).next() != Some(run) {
            return Err(untrue("the length of a range"));
        }
        self.end = run.end().0;
        Ok(run)
    }
}

impl RangeEntry {
    fn of(record: &RangeRecord) -> Self {
        Self {
            first: record.run.first().0,
            count: record.run.count().0,
            blake3: record.digest,
            crc32c: record.block_crcs.clone(),
        }
    }
}

fn blocks_of(records: &[RangeRecord]) -> u64 {
    records
        .iter()
        .fold(0, |sum: u64, record| sum.saturating_add(record.run.count().0))
}

/// The manifest says something that cannot be true.
fn untrue(what: &str) -> Error {
    Error::new(ErrorKind::Differs, format!("{what} cannot be right"))
}

#[cfg(test)]
mod tests;
