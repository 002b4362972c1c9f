//! raw: every block at its own place, holes between.
//!
//! The file is as long as the filesystem. A block that is not selected, could
//! not be read or is zero is a hole; nothing in the format tells the three
//! apart, the manifest does.

use std::fs::File;

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

use crate::error::{Error, ErrorKind, Result};
use crate::image::stored::StoredSet;
use crate::image::writer::{StreamWriter, Writer, stretches, too_far};
use crate::image::{ImagePlan, ImageSink, Shape, WriteOrder};
use crate::output::{OutputFile, OutputStream};
use crate::units::{BlockNumber, BlockRun, ByteOffset, ByteRange};

/// How a raw image lies in its output.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct RawOptions {
    /// Where in the output the filesystem starts.
    pub dest_offset: ByteOffset,
    /// Leave the length of the output as it is: for a block device, and for
    /// a file that holds more than this filesystem.
    pub keep_length: bool,
}

/// A raw image in a file or on a device, written in any order.
pub struct RawSink<'a> {
    writer: Writer<'a>,
    options: RawOptions,
    shape: Option<Shape>,
}

impl<'a> RawSink<'a> {
    /// A raw image in `out`, which errors call `name`.
    #[must_use]
    pub fn new(
        out: &'a mut dyn OutputFile,
        name: &str,
        options: RawOptions,
    ) -> Self {
        Self { writer: Writer::new(out, name), options, shape: None }
    }

    /// Writes what was gathered.
    ///
    /// # Errors
    ///
    /// When the output fails.
    pub fn flush(&mut self) -> Result<()> {
        self.writer.flush()
    }

    fn place(&self, run: BlockRun) -> Result<(u64, u64)> {
        let (start, length) = Shape::of(self.shape)?.bytes(run)?;
        let start = start
            .checked_add(self.options.dest_offset.0)
            .ok_or_else(too_far)?;
        Ok((start, length))
    }
}

impl ImageSink for RawSink<'_> {
    fn order(&self) -> WriteOrder {
        WriteOrder::Any
    }

    fn begin(&mut self, plan: &ImagePlan<'_>) -> Result<()> {
        let shape = Shape::new(plan.geometry)?;
        shape
            .length()
            .checked_add(self.options.dest_offset.0)
            .ok_or_else(too_far)?;
        self.shape = Some(shape);
        self.writer.start_over()
    }

    fn put(&mut self, at: BlockNumber, bytes: &[u8]) -> Result<()> {
        let shape = Shape::of(self.shape)?;
        let (start, _) = self.place(shape.run_of(at, bytes)?)?;
        if !self.writer.starts_zeroed() {
            return self.writer.write(start, bytes);
        }
        let block_bytes = shape.block_size().bytes_u64();
        for part in stretches(bytes, shape.block_size()) {
            if !part.zero {
                let skip = part.block.saturating_mul(block_bytes);
                self.writer.write(start.saturating_add(skip), part.bytes)?;
            }
        }
        Ok(())
    }

    fn zero(&mut self, run: BlockRun) -> Result<()> {
        let (start, length) = self.place(run)?;
        self.writer.zero(start, length)
    }

    /// On a device, too, zeros: what it held before belongs to another
    /// filesystem.
    fn hole(&mut self, run: BlockRun) -> Result<()> {
        self.zero(run)
    }

    fn finish(&mut self) -> Result<()> {
        let length = Shape::of(self.shape)?.length();
        if self.options.keep_length {
            return self.writer.flush();
        }
        let length = length
            .checked_add(self.options.dest_offset.0)
            .ok_or_else(too_far)?;
        self.writer.set_length(length)
    }
}

/// A raw image in a pipe: zeros for what lies between.
pub struct RawStream<'a> {
    writer: StreamWriter<'a>,
    shape: Option<Shape>,
}

impl<'a> RawStream<'a> {
    /// A raw image into `out`, which errors call `name`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Usage`] for an offset or a kept length, which a pipe
    /// does not have.
    pub fn new(
        out: &'a mut dyn OutputStream,
        name: &str,
        options: RawOptions,
    ) -> Result<Self> {
        if options != RawOptions::default() {
            return Err(Error::new(
                ErrorKind::Usage,
                format!("an offset needs a file, {name} is none"),
            ));
        }
        Ok(Self { writer: StreamWriter::new(out, name), shape: None })
    }
}

impl ImageSink for RawStream<'_> {
    fn order(&self) -> WriteOrder {
        WriteOrder::Ascending
    }

    fn begin(&mut self, plan: &ImagePlan<'_>) -> Result<()> {
        self.shape = Some(Shape::new(plan.geometry)?);
        self.writer.must_be_fresh()
    }

    fn put(&mut self, at: BlockNumber, bytes: &[u8]) -> Result<()> {
        let shape = Shape::of(self.shape)?;
        let (start, _) = shape.bytes(shape.run_of(at, bytes)?)?;
        self.writer.zeros_to(start)?;
        self.writer.write(bytes)
    }

    fn zero(&mut self, run: BlockRun) -> Result<()> {
        Shape::of(self.shape)?.bytes(run).map(|_| ())
    }

    fn hole(&mut self, run: BlockRun) -> Result<()> {
        self.zero(run)
    }

    fn finish(&mut self) -> Result<()> {
        self.writer.zeros_to(Shape::of(self.shape)?.length())?;
        self.writer.flush()
    }
}

/// The parts of a file that are no holes, up to `length`. A device, and a
/// filesystem that does not know of holes, has none.
pub(super) fn stored(file: &File, length: u64) -> Result<StoredSet> {
    let mut stored = StoredSet::default();
    let mut at = 0;
    while at < length {
        let data = match seek(file, SeekFrom::Data(at)) {
            Ok(data) => data,
            // No data behind `at`.
            Err(Errno::NXIO) => break,
            // It cannot say.
            Err(Errno::INVAL | Errno::OPNOTSUPP) => at,
            Err(error) => return Err(failed(error)),
        };
        let hole = match seek(file, SeekFrom::Hole(data)) {
            Ok(hole) if hole > data => hole,
            Ok(_) | Err(Errno::INVAL | Errno::OPNOTSUPP) => length,
            // The file has become shorter.
            Err(Errno::NXIO) => break,
            Err(error) => return Err(failed(error)),
        };
        let end = hole.min(length);
        let (start, end) = (ByteOffset(data), ByteOffset(end));
        if let Some(range) = ByteRange::between(start, end) {
            stored.push(range);
        }
        at = hole;
    }
    Ok(stored)
}

fn failed(error: Errno) -> Error {
    Error::io("cannot find the holes of the image", error.into())
}
