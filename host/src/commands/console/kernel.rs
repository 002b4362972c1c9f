//! Lines of `/dev/kmsg` as `dmesg` shows them.

/// The longest record of the kernel, and then some: what is longer is no
/// record.
const RECORD_BYTES_MAX: usize = 16 * 1024;

/// Makes readable lines of records that come in pieces.
#[derive(Debug, Default)]
pub(super) struct KernelText {
    line: Vec<u8>,
}

impl KernelText {
    /// What was between is lost.
    pub(super) fn gap(&mut self) {
        self.line.clear();
    }

    /// The text of what is whole now.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut text = Vec::new();
        for &byte in bytes {
            if byte != b'\n' {
                if self.line.len() < RECORD_BYTES_MAX {
                    self.line.push(byte);
                }
                continue;
            }
            readable(&self.line, &mut text);
            self.line.clear();
        }
        text
    }
}

/// Of a record `level,sequence,microseconds,flags;text` (Linux
/// Documentation/ABI/testing/dev-kmsg) time and text; nothing of the lines of
/// its dictionary, which begin with a space. What steers a terminal was
/// already escaped by the kernel, as `\x1b`.
fn readable(line: &[u8], text: &mut Vec<u8>) {
    if line.is_empty() || line.starts_with(b" ") {
        return;
    }
    let parts = std::str::from_utf8(line).ok().and_then(|line| {
        let (head, message) = line.split_once(';')?;
        let micros: u64 = head.split(',').nth(2)?.parse().ok()?;
        Some((micros, message))
    });
    match parts {
        Some((micros, message)) => {
            let (seconds, rest) = (micros / 1_000_000, micros % 1_000_000);
            let time = format!("[{seconds:5}.{rest:06}] ");
            text.extend_from_slice(time.as_bytes());
            text.extend_from_slice(message.as_bytes());
        }
        None => text.extend_from_slice(line),
    }
    text.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_shown_as_dmesg_does() {
        let mut kernel = KernelText::default();
        let records = b"6,339,5140900,-;NET: Registered\n SUBSYSTEM=net\n\
            3,340,12000000001,c;ata3: \\x1b[2J link down\nodd\n";
        let mut text = Vec::new();
        for piece in records.chunks(7) {
            text.extend(kernel.take(piece));
        }
        assert_eq!(
            String::from_utf8(text).unwrap(),
            "[    5.140900] NET: Registered\r\n\
             [12000.000001] ata3: \\x1b[2J link down\r\nodd\r\n"
        );
    }
}
