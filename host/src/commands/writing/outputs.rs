//! Where an undo file is made: complete under its name, or not there at all.

use std::path::Path;

use crate::error::Result;
use crate::local::{LocalOutput, OutputOptions};
use crate::output::OutputFile;
use crate::source::FileIdentity;

/// Makes undo files. Those of the tests fail on purpose.
pub trait UndoOutputs {
    /// Starts the file that will be called `path`; `sources` is what it must
    /// not be.
    ///
    /// # Errors
    ///
    /// As [`LocalOutput::create`].
    fn create(
        &self,
        path: &Path,
        sources: &[FileIdentity],
    ) -> Result<Box<dyn UndoOutput>>;
}

/// An undo file in the making; it goes when this does, unless published.
pub trait UndoOutput {
    /// What is written.
    fn file(&mut self) -> &mut dyn OutputFile;

    /// Brings file and name to the disk.
    ///
    /// # Errors
    ///
    /// As [`LocalOutput::publish`].
    fn publish(self: Box<Self>) -> Result<()>;
}

/// Makes undo files of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct LocalUndo;

impl UndoOutputs for LocalUndo {
    fn create(
        &self,
        path: &Path,
        sources: &[FileIdentity],
    ) -> Result<Box<dyn UndoOutput>> {
        let options = OutputOptions { overwrite: false, sync: true, sources };
        let output = LocalOutput::create(path, options)?;
        Ok(Box::new(output))
    }
}

impl UndoOutput for LocalOutput {
    fn file(&mut self) -> &mut dyn OutputFile {
        Self::file(self)
    }

    fn publish(self: Box<Self>) -> Result<()> {
        Self::publish(*self)
    }
}

/// `f_type` of tmpfs and of ramfs, see statfs(2).
const TMPFS_MAGIC: rustix::fs::FsWord = 0x0102_1994;
const RAMFS_MAGIC: rustix::fs::FsWord = 0x8584_58F6;

/// What to know of the place of an undo file, if it is one that the next
/// power cut empties: that of a rescue system often is.
pub(in crate::commands) fn remark_on_place(path: &Path) -> Option<String> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let kind = rustix::fs::statfs(folder).ok()?.f_type;
    [TMPFS_MAGIC, RAMFS_MAGIC].contains(&kind).then(|| {
        format!(
            "The undo file will lie in memory ({}): a power cut here loses \
             it. --undo FILE names a better place.",
            folder.display()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_in_memory_is_told_and_another_is_not() {
        let said = remark_on_place(Path::new("/dev/shm/image.undo"));
        assert!(said.is_some_and(|said| said.contains("/dev/shm")));
        assert_eq!(remark_on_place(Path::new("/proc/image.undo")), None);
    }
}
