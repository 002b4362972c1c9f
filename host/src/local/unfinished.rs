//! An output that a later run can go on with: `NAME.part`, and the map of
//! what is in it beside.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::local::output::{MAP_SUFFIX, beside};
use crate::local::{LocalFile, LocalOutput, OutputOptions};
use crate::output::OutputFile;

/// `NAME.part` and `NAME.part.map`, as they are found.
#[derive(Debug)]
pub struct Unfinished {
    /// The output itself.
    pub output: LocalOutput,
    map: LocalFile,
    map_path: PathBuf,
}

impl Unfinished {
    /// Opens what an earlier run has left of `path`, or begins it.
    ///
    /// # Errors
    ///
    /// As [`LocalOutput::resume`].
    pub fn open(path: &Path, options: OutputOptions<'_>) -> Result<Self> {
        let output = LocalOutput::resume(path, options)?;
        let map_path = beside(path, MAP_SUFFIX);
        let map = LocalFile::open(&map_path)?;
        Ok(Self { output, map, map_path })
    }

    /// The data and the map, for whoever fills them.
    ///
    /// # Errors
    ///
    /// As [`LocalFile::again`].
    pub fn files(
        &mut self,
    ) -> Result<(Box<dyn OutputFile>, Box<dyn OutputFile>)> {
        let data = self.output.file().again()?;
        Ok((Box::new(data), Box::new(self.map.again()?)))
    }

    /// Lets `publish` give the output its name; then the map is gone.
    ///
    /// # Errors
    ///
    /// What `publish` answers.
    pub fn finish(
        self,
        publish: impl FnOnce(LocalOutput) -> Result<()>,
    ) -> Result<()> {
        publish(self.output)?;
        // One that is left over speaks of no file, and is not believed.
        let _ = fs::remove_file(&self.map_path);
        Ok(())
    }

    /// The run failed: what a later one can go on with stays, and the error
    /// says so; the rest goes.
    #[must_use]
    pub fn leave(self, error: Error) -> Error {
        let noted = self.map.length().is_ok_and(|length| length.0 > 0);
        if noted {
            let part = self.output.part().display().to_string();
            return match error.what_is_intact() {
                Some(_) => error,
                None => error
                    .intact(format!("what is in {part}"))
                    .hint("the same command goes on from there"),
            };
        }
        self.output.abandon();
        let _ = fs::remove_file(&self.map_path);
        error
    }
}
