//! Seeds that once failed. Each stays, with a word on what it found.

/// They run besides the others.
pub(super) const KEPT: &[u64] = &[];
