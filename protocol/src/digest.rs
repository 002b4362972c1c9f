//! Digests and the identifiers made of them.
//!
//! All are BLAKE3. They are plain bytes on the wire, never varints, so their
//! length does not depend on their value.

use core::fmt;

use serde::{Deserialize, Serialize};

use crate::units::u64_from;

macro_rules! bytes {
    ($(#[$doc:meta])* $name:ident, $length:literal) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Default, Eq, Hash, Ord, PartialEq, PartialOrd,
            Deserialize, Serialize,
        )]
        pub struct $name(pub [u8; $length]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }
    };
}

bytes! {
    /// BLAKE3-256 of a range's bytes. All zeros stands for a range that could
    /// not be read; no real digest is that.
    RangeDigest, 32
}
bytes! {
    /// The first 16 bytes of a range digest, for finding equal blocks. What
    /// is taken over on its strength is confirmed by a range digest.
    ShortDigest, 16
}
bytes! {
    /// Names the encoded bytes of one chunk: which device and task, which
    /// codec, and every byte. Fragments of equal tags belong together.
    Tag, 8
}
bytes! {
    /// Names a device across boots of the agent.
    DeviceId, 8
}
bytes! {
    /// Names a plan: the first 16 bytes of its digest. What a session is
    /// armed for.
    PlanId, 16
}
bytes! {
    /// Names one run of the agent: random, made at its start.
    BootId, 8
}
bytes! {
    /// Names one life of a host's session: random, made by the host.
    SessionId, 8
}
bytes! {
    /// Names the build of an agent: its log table is found by it. Zeros where
    /// a build has none.
    BuildId, 20
}

impl RangeDigest {
    /// Of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// Its first half.
    #[must_use]
    pub const fn short(self) -> ShortDigest {
        match self.0.first_chunk() {
            Some(first) => ShortDigest(*first),
            None => ShortDigest([0; 16]),
        }
    }

    /// Whether it stands for a range that could not be read.
    #[must_use]
    pub fn is_unreadable(self) -> bool {
        self.0 == [0; 32]
    }
}

impl ShortDigest {
    /// Whether it stands for a range that could not be read.
    #[must_use]
    pub fn is_unreadable(self) -> bool {
        self.0 == [0; 16]
    }
}

/// A range digest in the making, of bytes that come piece by piece.
#[derive(Clone, Debug, Default)]
pub struct RangeDigester(blake3::Hasher);

impl RangeDigester {
    /// Of no bytes yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all bytes since `new` or the last call of this.
    pub fn finish(&mut self) -> RangeDigest {
        let digest = RangeDigest(*self.0.finalize().as_bytes());
        self.0.reset();
        digest
    }
}

impl DeviceId {
    /// From what does not change: the disk's own name (the first that is not
    /// empty of WWN, serial and path), its size, and where the partition
    /// starts, both in bytes.
    #[must_use]
    pub fn new(disk: &str, size: u64, partition_start: u64) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(DEVICE_CONTEXT);
        hasher.update(&u64_from(disk.len()).to_le_bytes());
        hasher.update(disk.as_bytes());
        hasher.update(&size.to_le_bytes());
        hasher.update(&partition_start.to_le_bytes());
        Self(first_bytes(&hasher))
    }
}

/// Separates the digests that are used as names from those of contents.
const DEVICE_CONTEXT: &str = "e2wire 2026 device id";
const TAG_CONTEXT: &str = "e2wire 2026 chunk tag";
const UPLOAD_CONTEXT: &str = "e2wire 2026 upload tag";

impl Tag {
    /// Of an upload: what a host sends in slices.
    #[must_use]
    pub fn of_upload(bytes: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(UPLOAD_CONTEXT);
        hasher.update(bytes);
        Self(first_bytes(&hasher))
    }
}

/// A tag in the making; see [`Tag`].
pub(crate) fn tag(
    device: DeviceId,
    task_and_codec: &[u8],
    encoded: &mut dyn Iterator<Item = &[u8]>,
) -> Tag {
    let mut hasher = blake3::Hasher::new_derive_key(TAG_CONTEXT);
    hasher.update(&device.0);
    hasher.update(&u64_from(task_and_codec.len()).to_le_bytes());
    hasher.update(task_and_codec);
    for piece in encoded {
        hasher.update(piece);
    }
    Tag(first_bytes(&hasher))
}

fn first_bytes(hasher: &blake3::Hasher) -> [u8; 8] {
    let mut bytes = [0; 8];
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}
