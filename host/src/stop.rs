//! The wish to stop: set by a signal, looked at between two pieces of work.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, ErrorKind, Result};

/// A flag that a job looks at often enough to end within a moment.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    flag: Arc<AtomicBool>,
}

impl Stop {
    /// A flag that nobody has set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks the job to end.
    pub fn request(&self) {
        self.flag.store(true, Ordering::Relaxed);
    }

    /// Whether the job was asked to end.
    #[must_use]
    pub fn requested(&self) -> bool {
        self.flag.load(Ordering::Relaxed)
    }

    /// Ends a job with `?` when it was asked to end.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Interrupted`], once the flag is set.
    pub fn check(&self) -> Result<()> {
        if self.requested() {
            return Err(Error::new(ErrorKind::Interrupted, "interrupted"));
        }
        Ok(())
    }

    /// The flag itself, for a signal handler to set.
    #[must_use]
    pub fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.flag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_clone_sees_the_wish() {
        let stop = Stop::new();
        let seen_by_the_job = stop.clone();
        assert!(!seen_by_the_job.requested() && stop.check().is_ok());
        stop.flag().store(true, Ordering::Relaxed);
        assert!(seen_by_the_job.requested());
        assert_eq!(
            seen_by_the_job.check().unwrap_err().kind(),
            ErrorKind::Interrupted
        );
    }
}
