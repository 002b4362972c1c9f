//! What a UART hears of another one that has a different speed.

/// Bits of a byte on the line: start, eight, stop.
const BITS: usize = 10;

/// What a receiver at `hearing` bits per second makes of `bytes` that were
/// sent, 8N1, at `speaking` ones, one behind the other.
///
/// Bytes with a wrong stop bit are delivered as they are, which is what a
/// raw terminal of Linux does (neither INPCK nor PARMRK).
pub(super) fn heard(bytes: &[u8], speaking: u32, hearing: u32) -> Vec<u8> {
    if speaking == hearing || speaking == 0 || hearing == 0 {
        return bytes.to_vec();
    }
    // Lengths of bits, in an exact common unit.
    let common = u64::from(greatest_divisor(speaking, hearing));
    let (sent, own) =
        (u64::from(hearing) / common, u64::from(speaking) / common);
    let end = (bytes.len() * BITS) as u64 * sent;
    let level = |at: u64| {
        let bit = (at / sent) as usize;
        match (bytes.get(bit / BITS), bit % BITS) {
            (None, _) | (_, 9) => true,
            (_, 0) => false,
            (Some(byte), bit) => byte >> (bit - 1) & 1 == 1,
        }
    };
    let mut out = Vec::new();
    let mut at = 0;
    loop {
        // A start bit begins where the level falls.
        while at < end && level(at) {
            at += 1;
        }
        if at >= end {
            return out;
        }
        let middle = |bit: u64| at + own * bit + own / 2;
        let byte = (1..=8)
            .rev()
            .fold(0, |byte, bit| (byte << 1) | u8::from(level(middle(bit))));
        out.push(byte);
        at = middle(9);
        // After a wrong stop bit it waits until the line is idle.
        while at < end && !level(at) {
            at += 1;
        }
    }
}

const fn greatest_divisor(mut one: u32, mut two: u32) -> u32 {
    while two > 0 {
        (one, two) = (two, one % two);
    }
    one
}

#[cfg(test)]
mod tests {
    use super::heard;

    #[test]
    fn equal_speeds_hear_each_other() {
        assert_eq!(heard(b"login: ", 9600, 9600), b"login: ");
        // A percent of difference is what crystals have.
        assert_eq!(heard(b"login: ", 115_200, 116_400), b"login: ");
    }

    #[test]
    fn other_speeds_hear_nonsense() {
        let text = b"mail7 login: ";
        let fast = heard(text, 9600, 115_200);
        assert!(fast.len() > text.len(), "{fast:?}");
        let slow = heard(text, 115_200, 9600);
        assert!(!slow.is_empty() && slow.len() < text.len(), "{slow:?}");
        assert!(!String::from_utf8_lossy(&fast).contains("login"));
    }
}
