//! The undo file.
//!
//! ```text
//! magic            16 bytes
//! version          u32 LE, 1
//! facts_bytes      u32 LE, at most 1 MiB
//! facts            JSON, UTF-8
//! check            BLAKE3-256 of everything before
//! entry...         head (96 bytes, see `entry`), old bytes, new bytes
//! end              "e2wire undo end\n", count (u64 LE), plan digest
//! ```
//!
//! A file without its end is not a plan: the install that wrote it never
//! wrote to the device.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};
use crate::output::OutputFile;
use crate::undo::entry::{Entry, HEAD_BYTES, plan_digest};
use crate::units::{ByteOffset, u64_from, usize_from};

/// The first 16 bytes of every undo file.
pub const MAGIC: [u8; 16] = *b"e2wire undo\0\r\n\x1a\n";

const END: [u8; 16] = *b"e2wire undo end\n";
const VERSION: u32 = 1;
const FACTS_BYTES_MAX: u32 = 1 << 20;
/// More entries than any filesystem of e2wire's size needs: 256 TiB of
/// single blocks would be more, but not a plan that anybody confirms.
const ENTRIES_MAX: usize = 16 << 20;

/// What the plan is for. Everything a later `undo` needs to recognise the
/// device, and a person to recognise the file.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Facts {
    /// What is done: `install` or `undo`.
    pub verb: String,
    /// The device as the user named it, with its target.
    pub device: String,
    /// Its length in bytes.
    pub device_bytes: u64,
    /// Its identity (model, serial, WWN), as far as it was known.
    pub disk: Vec<String>,
    /// The filesystem's UUID before, hexadecimal, if there was one.
    pub uuid: Option<String>,
    /// Where the filesystem starts on the device.
    pub offset: u64,
    /// The image that the new content comes from.
    pub image: String,
    /// When, in seconds since 1970.
    pub created_s: u64,
    /// How many bytes the plan writes.
    pub bytes: u64,
}

/// Writes an undo file.
pub struct UndoWriter<'a> {
    out: &'a mut dyn OutputFile,
    at: u64,
    entries: Vec<Entry>,
}

impl<'a> UndoWriter<'a> {
    /// Starts the file with its facts.
    ///
    /// # Errors
    ///
    /// When the output fails or the facts are absurdly long.
    pub fn begin(out: &'a mut dyn OutputFile, facts: &Facts) -> Result<Self> {
        let json = serde_json::to_vec(facts).map_err(|error| {
            Error::new(ErrorKind::Internal, "cannot write the plan's facts")
                .because(error)
        })?;
        let length = u32::try_from(json.len())
            .ok()
            .filter(|&length| length <= FACTS_BYTES_MAX)
            .ok_or_else(|| {
                Error::new(
                    ErrorKind::Usage,
                    "the names in the plan are too long",
                )
            })?;
        let mut head = Vec::from(MAGIC);
        head.extend_from_slice(&VERSION.to_le_bytes());
        head.extend_from_slice(&length.to_le_bytes());
        head.extend_from_slice(&json);
        let check = blake3::hash(&head);
        head.extend_from_slice(check.as_bytes());
        let mut writer = Self { out, at: 0, entries: Vec::new() };
        writer.append(&head)?;
        Ok(writer)
    }

    /// Adds an entry with the bytes of both sides.
    ///
    /// # Errors
    ///
    /// When the output fails, or when the bytes are not what the entry says:
    /// then the device or the image changed since the plan was made.
    pub fn add(&mut self, entry: Entry, old: &[u8], new: &[u8]) -> Result<()> {
        let right = old.len() == entry.length()
            && new.len() == entry.length()
            && *blake3::hash(old).as_bytes() == entry.old
            && *blake3::hash(new).as_bytes() == entry.new;
        if !right {
            return Err(Error::new(
                ErrorKind::Refused,
                format!(
                    "{} bytes at offset {} changed since the plan was made",
                    entry.range().length(),
                    entry.range().start()
                ),
            )
            .intact("nothing was written to the device")
            .hint("make a new plan"));
        }
        self.append(&entry.head())?;
        self.append(old)?;
        self.append(new)?;
        self.entries.push(entry);
        Ok(())
    }

    /// Ends the file and brings it to the disk: only now may the device be
    /// written.
    ///
    /// # Errors
    ///
    /// When the output fails.
    pub fn seal(mut self) -> Result<Digest> {
        let digest = plan_digest(&self.entries);
        let mut end = Vec::from(END);
        end.extend_from_slice(&u64_from(self.entries.len()).to_le_bytes());
        end.extend_from_slice(&digest);
        self.append(&end)?;
        self.out.sync().map_err(write_error)?;
        Ok(digest)
    }

    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_at(ByteOffset(self.at), bytes).map_err(write_error)?;
        self.at = self.at.saturating_add(u64_from(bytes.len()));
        Ok(())
    }
}

fn write_error(error: io::Error) -> Error {
    Error::io("cannot write the undo file", error)
        .intact("nothing was written to the device")
        .hint("name a place with room by --undo FILE")
}

/// An undo file, checked: sealed, and every head whole.
#[derive(Debug)]
pub struct UndoFile {
    file: File,
    name: String,
    /// What the plan is for.
    pub facts: Facts,
    entries: Vec<(Entry, u64)>,
    digest: Digest,
}

impl UndoFile {
    /// Opens and checks `path`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::LocalIo`] when it cannot be read;
    /// [`ErrorKind::Refused`] when it is no undo file, torn or damaged.
    pub fn open(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let file = File::open(path)
            .map_err(|e| Error::io(format!("cannot open {name}"), e))?;
        let reader = Reader { file: &file, name: &name };
        let (facts, mut at) = reader.facts()?;
        let mut entries = Vec::new();
        let digest = loop {
            let mut head = [0; HEAD_BYTES];
            reader.read(at, &mut head[..16])?;
            if head[..16] == END {
                break reader.end(at, &entries)?;
            }
            reader.read(at, &mut head)?;
            let entry = Entry::from_head(&head)
                .filter(|_| entries.len() < ENTRIES_MAX)
                .ok_or_else(|| reader.damaged(at))?;
            let data = at.saturating_add(u64_from(HEAD_BYTES));
            entries.push((entry, data));
            at =
                data.saturating_add(entry.range().length().0.saturating_mul(2));
        };
        Ok(Self { file, name, facts, entries, digest })
    }

    /// The entries in the order in which they are written.
    #[must_use]
    pub fn entries(&self) -> impl ExactSizeIterator<Item = &Entry> {
        self.entries.iter().map(|(entry, _)| entry)
    }

    /// The plan's digest.
    #[must_use]
    pub const fn plan_digest(&self) -> Digest {
        self.digest
    }

    /// The old and the new bytes of entry `index`, proven by their digests.
    ///
    /// # Errors
    ///
    /// When the file cannot be read or is damaged there.
    pub fn bytes(&self, index: usize) -> Result<(Vec<u8>, Vec<u8>)> {
        let reader = Reader { file: &self.file, name: &self.name };
        let Some((entry, at)) = self.entries.get(index) else {
            return Err(Error::new(
                ErrorKind::Internal,
                format!("the plan has no entry {index}"),
            ));
        };
        let mut old = vec![0; entry.length()];
        let mut new = vec![0; entry.length()];
        reader.read(*at, &mut old)?;
        reader.read(at.saturating_add(u64_from(old.len())), &mut new)?;
        let right = *blake3::hash(&old).as_bytes() == entry.old
            && *blake3::hash(&new).as_bytes() == entry.new;
        if right { Ok((old, new)) } else { Err(reader.damaged(*at)) }
    }
}

struct Reader<'a> {
    file: &'a File,
    name: &'a str,
}

impl Reader<'_> {
    fn read(&self, at: u64, into: &mut [u8]) -> Result<()> {
        self.file.read_exact_at(into, at).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => Error::new(
                ErrorKind::Refused,
                format!("{} ends too early: it was never sealed", self.name),
            )
            .intact("the install that wrote it had not touched the device"),
            _ => Error::io(format!("cannot read {}", self.name), error),
        })
    }

    fn facts(&self) -> Result<(Facts, u64)> {
        let mut head = [0; 24];
        self.read(0, &mut head).map_err(|_| self.foreign())?;
        let word = |at: usize| {
            let bytes = head.get(at..)?.first_chunk()?;
            Some(u32::from_le_bytes(*bytes))
        };
        if head[..16] != MAGIC {
            return Err(self.foreign());
        }
        if word(16) != Some(VERSION) {
            return Err(Error::new(
                ErrorKind::Refused,
                format!("{} was written by a newer e2wire", self.name),
            )
            .hint("use that version, or a newer one"));
        }
        let length = word(20)
            .filter(|&length| length <= FACTS_BYTES_MAX)
            .ok_or_else(|| self.damaged(20))?;
        let mut whole = head.to_vec();
        let facts_end = usize_from(length).saturating_add(whole.len());
        whole.resize(facts_end, 0);
        self.read(24, &mut whole[24..])?;
        let mut check = [0; 32];
        self.read(u64_from(facts_end), &mut check)?;
        if *blake3::hash(&whole).as_bytes() != check {
            return Err(self.damaged(24));
        }
        let facts = serde_json::from_slice(&whole[24..])
            .map_err(|error| self.damaged(24).because(error))?;
        Ok((facts, u64_from(facts_end.saturating_add(check.len()))))
    }

    fn end(&self, at: u64, entries: &[(Entry, u64)]) -> Result<Digest> {
        let mut end = [0; 56];
        self.read(at, &mut end)?;
        let digest = plan_digest(entries.iter().map(|(entry, _)| entry));
        let right = end[16..24] == u64_from(entries.len()).to_le_bytes()
            && end[24..] == digest;
        if right { Ok(digest) } else { Err(self.damaged(at)) }
    }

    fn foreign(&self) -> Error {
        Error::new(
            ErrorKind::Refused,
            format!("{} is no undo file of e2wire", self.name),
        )
    }

    fn damaged(&self, at: u64) -> Error {
        Error::new(
            ErrorKind::Refused,
            format!("{} is damaged at byte {at}", self.name),
        )
        .intact("nothing was written")
        .hint("use another copy of the undo file")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ext::BlockKind;
    use crate::local::{LocalOutput, OutputOptions};
    use crate::undo::Stage;
    use crate::units::{ByteCount, ByteRange};

    fn entry(at: u64, old: &[u8], new: &[u8]) -> Entry {
        let length = ByteCount(old.len() as u64);
        Entry::new(
            ByteRange::new(ByteOffset(at), length).unwrap(),
            Stage::InodeTables,
            BlockKind::InodeTable,
            *blake3::hash(old).as_bytes(),
            *blake3::hash(new).as_bytes(),
        )
        .unwrap()
    }

    fn write(path: &Path) -> Digest {
        let options =
            OutputOptions { overwrite: true, sync: true, sources: &[] };
        let mut out = LocalOutput::create(path, options).unwrap();
        let facts = Facts { verb: "install".into(), ..Facts::default() };
        let mut writer = UndoWriter::begin(out.file(), &facts).unwrap();
        for at in [0_u64, 8192] {
            let (old, new) = ([at as u8; 1024], [at as u8 + 1; 1024]);
            writer.add(entry(at, &old, &new), &old, &new).unwrap();
        }
        let wrong = [9; 1024];
        let refused = writer.add(entry(0, &wrong, &wrong), &[8; 1024], &wrong);
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Refused);
        let digest = writer.seal().unwrap();
        out.publish().unwrap();
        digest
    }

    #[test]
    fn what_was_written_is_read_back_with_both_sides() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("undo");
        let digest = write(&path);
        let undo = UndoFile::open(&path).unwrap();
        assert_eq!(undo.facts.verb, "install");
        assert_eq!(undo.entries().len(), 2);
        assert_eq!(undo.plan_digest(), digest);
        let (old, new) = undo.bytes(0).unwrap();
        assert_eq!((old[0], new[0], old.len()), (0, 1, 1024));
    }

    #[test]
    fn a_file_that_is_cut_or_has_a_flipped_bit_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("undo");
        write(&path);
        let whole = std::fs::read(&path).unwrap();
        for length in (0..whole.len()).step_by(7) {
            std::fs::write(&path, &whole[..length]).unwrap();
            let error = UndoFile::open(&path).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Refused, "cut at {length}");
        }
        for byte in (0..whole.len()).step_by(13) {
            let mut torn = whole.clone();
            torn[byte] ^= 4;
            std::fs::write(&path, &torn).unwrap();
            let sound = UndoFile::open(&path).and_then(|undo| {
                (0..undo.entries().len())
                    .try_for_each(|index| undo.bytes(index).map(drop))
            });
            assert!(sound.is_err(), "flipped at {byte}");
        }
    }
}
