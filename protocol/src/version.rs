//! Versions of the protocol.
//!
//! A version is raised when a variant or a flag is added that the other side
//! has to know. Nothing that a version once meant is ever changed, so a newer
//! side serves every version from [`MIN`] on.

/// The oldest version that is still spoken.
pub const MIN: u16 = 1;

/// The version of this build.
pub const CURRENT: u16 = 3;

/// The first version that knows writes.
pub const WRITES: u16 = 2;

/// The first version that knows bodies in columns.
pub const COLUMNS: u16 = 3;

const _: () = assert!(MIN <= CURRENT);
const _: () = assert!(WRITES <= CURRENT && COLUMNS <= CURRENT);

/// The versions that one side speaks, both ends included.
#[derive(
    Clone, Copy, Debug, Eq, PartialEq, serde::Deserialize, serde::Serialize,
)]
pub struct Versions {
    /// The oldest one.
    pub min: u16,
    /// The newest one.
    pub current: u16,
}

impl Versions {
    /// Those of this build.
    pub const OURS: Self = Self { min: MIN, current: CURRENT };

    /// The newest version that both sides speak.
    #[must_use]
    pub fn common(self, other: Self) -> Option<u16> {
        let newest = self.current.min(other.current);
        (newest >= self.min && newest >= other.min).then_some(newest)
    }
}
