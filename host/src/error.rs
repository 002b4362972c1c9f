//! What went wrong, in a form that scripts can branch on and people can act
//! on.
//!
//! A kind decides the exit code (README, "Exit codes"). The text says what
//! and where; two more lines may say what was left intact and what to try.
//! Damage on a disk is no error, it is a [`crate::ext::Finding`].

use std::fmt;

/// `Result` with this crate's error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The few kinds that callers and scripts tell apart.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A defect of e2wire itself.
    Internal,
    /// The command line asks for what cannot be.
    Usage,
    /// Two things that should be equal differ.
    Differs,
    /// Refused, or a confirmation is needed; nothing was written.
    Refused,
    /// The peer does not let us in, or we do not trust it.
    NotAuthorised,
    /// Nobody answers, or not in time.
    NoLink,
    /// Interrupted; the same command goes on from here.
    Interrupted,
    /// No such device or filesystem, or one that is not supported.
    NoFilesystem,
    /// Reading or writing a local file failed.
    LocalIo,
    /// A write began and did not complete.
    WriteIncomplete,
    /// The peer speaks another version, or nonsense.
    Protocol,
}

/// An error: kind, what and where, what is intact, what to try.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    what: String,
    intact: Option<String>,
    hint: Option<String>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of `kind`; `what` says what failed and where, without a
    /// full stop.
    #[must_use]
    pub fn new(kind: ErrorKind, what: impl Into<String>) -> Self {
        Self { kind, what: what.into(), intact: None, hint: None, source: None }
    }

    /// A local file could not be read or written.
    #[must_use]
    pub fn io(what: impl Into<String>, source: std::io::Error) -> Self {
        Self::new(ErrorKind::LocalIo, what).because(source)
    }

    /// Adds the cause.
    #[must_use]
    pub fn because(
        mut self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Adds what was left intact.
    #[must_use]
    pub fn intact(mut self, intact: impl Into<String>) -> Self {
        self.intact = Some(intact.into());
        self
    }

    /// Adds what to try.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The kind, which decides the exit code.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What was left intact, if that is worth saying.
    #[must_use]
    pub fn what_is_intact(&self) -> Option<&str> {
        self.intact.as_deref()
    }

    /// What to try, if we know.
    #[must_use]
    pub fn what_to_try(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        // The chain is told once, here: callers print one line.
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.source {
            Some(source) => Some(source.as_ref()),
            None => None,
        }
    }
}
