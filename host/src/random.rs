//! Bytes that nobody can guess.

use std::fs::File;
use std::io::Read as _;

use crate::error::{Error, ErrorKind, Result};

/// Fills `bytes` with random ones.
///
/// # Errors
///
/// [`ErrorKind::Internal`] when the system has none.
pub fn fill(bytes: &mut [u8]) -> Result<()> {
    File::open("/dev/urandom")
        .and_then(|mut random| random.read_exact(bytes))
        .map_err(|error| {
            Error::new(ErrorKind::Internal, "no random bytes").because(error)
        })
}
