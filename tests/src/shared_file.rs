//! A file in memory, for whoever writes outputs.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use e2wire::output::OutputFile;
use e2wire::units::{ByteCount, ByteOffset};

/// A file in memory that outlives whoever writes it, until a kill: then
/// nothing more gets there.
#[derive(Clone, Debug, Default)]
pub struct SharedFile {
    bytes: Arc<Mutex<Vec<u8>>>,
    dead: Arc<AtomicBool>,
}

impl SharedFile {
    /// A file that holds `bytes`.
    #[must_use]
    pub fn of(bytes: Vec<u8>) -> Self {
        let file = Self::default();
        *file.bytes() = bytes;
        file
    }

    /// What it holds.
    pub fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing more gets there from whoever holds this one.
    pub fn kill(&self) {
        self.dead.store(true, Ordering::Relaxed);
    }

    /// The same file, for another process.
    #[must_use]
    pub fn reopened(&self) -> Self {
        Self { bytes: Arc::clone(&self.bytes), dead: Arc::default() }
    }

    fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Relaxed)
    }
}

impl OutputFile for SharedFile {
    fn write_at(&mut self, at: ByteOffset, bytes: &[u8]) -> io::Result<()> {
        if self.is_dead() {
            return Ok(());
        }
        let mut file = self.bytes();
        let start = at.0 as usize;
        let length = file.len().max(start + bytes.len());
        file.resize(length, 0);
        file[start..start + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn read_at(&self, at: ByteOffset, into: &mut [u8]) -> io::Result<()> {
        let file = self.bytes();
        let bytes = usize::try_from(at.0)
            .ok()
            .and_then(|start| file.get(start..start.checked_add(into.len())?));
        into.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn length(&self) -> io::Result<ByteCount> {
        Ok(ByteCount(self.bytes().len() as u64))
    }

    fn set_length(&mut self, length: ByteCount) -> io::Result<()> {
        if !self.is_dead() {
            self.bytes().resize(length.0 as usize, 0);
        }
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn starts_zeroed(&self) -> bool {
        true
    }
}
