//! The checksums of ext4's metadata.
//!
//! They are verified and reported, never obeyed: a rescue tool reads what is
//! there, right or wrong.

use crc::{CRC_16_MODBUS, Crc};

/// CRC-16 as ext4 uses it for group descriptors without metadata_csum:
/// polynomial 0x8005 reflected, all ones to begin with, not inverted.
const CRC16: Crc<u16> = Crc::<u16>::new(&CRC_16_MODBUS);

/// CRC-32C as the kernel counts it: without the inversion at the end, so
/// that a result can seed the next call.
#[must_use]
pub(super) fn crc32c(seed: u32, bytes: &[u8]) -> u32 {
    !crc32c::crc32c_append(!seed, bytes)
}

/// CRC-32C of several parts that lie one behind the other.
#[must_use]
pub(super) fn crc32c_parts(seed: u32, parts: &[&[u8]]) -> u32 {
    parts.iter().fold(seed, |crc, part| crc32c(crc, part))
}

/// CRC-16 of several parts that lie one behind the other.
#[must_use]
pub(super) fn crc16_parts(parts: &[&[u8]]) -> u16 {
    let mut digest = CRC16.digest();
    for part in parts {
        digest.update(part);
    }
    digest.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc32c_can_be_counted_in_parts() {
        // RFC 3720 B.4: 32 bytes of zeros give 8A9136AA.
        assert_eq!(!crc32c(!0, &[0; 32]), 0x8A91_36AA);
        assert_eq!(
            crc32c_parts(!0, &[&[0; 7], &[], &[0; 25]]),
            crc32c(!0, &[0; 32])
        );
    }

    #[test]
    fn crc16_is_the_one_of_the_catalogue() {
        assert_eq!(crc16_parts(&[b"1234", b"56789"]), 0x4B37);
    }
}
