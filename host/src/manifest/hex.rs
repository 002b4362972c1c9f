//! Digests and checksums as hexadecimal digits.

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serializer};

fn write(bytes: impl Iterator<Item = u8>, text: &mut String) {
    for byte in bytes {
        for nibble in [byte.wrapping_shr(4), byte & 0xF] {
            text.extend(char::from_digit(u32::from(nibble), 16));
        }
    }
}

/// The bytes of `text`; `None` if it is no even number of lower-case digits.
fn read(text: &str) -> Option<Vec<u8>> {
    let digit = |digit: u8| match digit {
        b'0'..=b'9' => digit.checked_sub(b'0'),
        b'a'..=b'f' => digit.checked_sub(b'a')?.checked_add(10),
        _ => None,
    };
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs
        .iter()
        .map(|&[high, low]| Some(digit(high)?.wrapping_shl(4) | digit(low)?))
        .collect()
}

/// A BLAKE3-256 digest, 64 digits.
pub(super) mod digest {
    use super::*;

    pub(in crate::manifest) fn serialize<S: Serializer>(
        digest: &[u8; 32],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let mut text = String::with_capacity(64);
        write(digest.iter().copied(), &mut text);
        serializer.serialize_str(&text)
    }

    pub(in crate::manifest) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<[u8; 32], D::Error> {
        let text = String::deserialize(deserializer)?;
        read(&text)
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or_else(|| D::Error::custom("not 64 hexadecimal digits"))
    }
}

/// A CRC-32C for each block, eight digits each.
pub(super) mod crcs {
    use super::*;

    pub(in crate::manifest) fn serialize<S: Serializer>(
        crcs: &[u32],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let mut text = String::with_capacity(crcs.len().saturating_mul(8));
        write(crcs.iter().flat_map(|crc| crc.to_be_bytes()), &mut text);
        serializer.serialize_str(&text)
    }

    pub(in crate::manifest) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<u32>, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = read(&text)
            .ok_or_else(|| D::Error::custom("not hexadecimal digits"))?;
        match bytes.as_chunks::<4>() {
            (crcs, []) => {
                Ok(crcs.iter().map(|crc| u32::from_be_bytes(*crc)).collect())
            }
            _ => Err(D::Error::custom("not eight digits a block")),
        }
    }
}
