//! The compressor behind a trait, since its workspace and its C code belong
//! to the platform; and what is made of a body with it.

use e2wire_protocol::chunk::{Codec, to_columns};

use crate::memory::Workspace;

/// Compresses chunks, each on its own.
pub trait Encoder {
    /// The highest level that fits the workspace.
    fn level_max(&self) -> u8;

    /// Compresses `plain` (at most `BODY_BYTES_MAX` bytes) into `out` as one
    /// zstd frame without checksum, and returns its length.
    ///
    /// `level` is 1 to `level_max`. `None` when it does not fit `out` or the
    /// compressor fails; the chunk goes out as it is then.
    fn encode(
        &mut self,
        level: u8,
        plain: &[u8],
        out: &mut [u8],
    ) -> Option<usize>;
}

/// Encodes the body of `length` bytes that lies in the workspace: as is
/// wished, or plainer where that is shorter. `None` when there is no such
/// body.
pub(crate) fn encode<'w>(
    work: &'w mut Workspace,
    length: usize,
    wish: Codec,
    encoder: &mut impl Encoder,
) -> Option<(Codec, &'w [u8])> {
    let Workspace { body, encoded, columns } = work;
    let body = body.get(..length)?;
    let (level, stride) = match wish {
        Codec::Stored => return Some((Codec::Stored, body)),
        Codec::Zstd(level) => (level, None),
        Codec::ZstdColumns { level, stride } => (level, Some(stride)),
    };
    let level = level.clamp(1, encoder.level_max().max(1));
    let mut compress = |plain: &[u8], room: usize| {
        let out = encoded.get_mut(..room)?;
        encoder.encode(level, plain, out).filter(|length| *length > 0)
    };
    // What is not shorter than the body goes as it is.
    let mut shortest =
        compress(body, length).map(|it| (Codec::Zstd(level), it));
    if let Some(stride) = stride
        && let Some(columns) = columns.get_mut(..length)
        && to_columns(body, stride, columns).is_some()
    {
        let room = shortest.map_or(length, |(_, it)| it.saturating_sub(1));
        shortest = match compress(columns, room) {
            Some(it) => Some((Codec::ZstdColumns { level, stride }, it)),
            // That was written over.
            None => compress(body, length).map(|it| (Codec::Zstd(level), it)),
        };
    }
    match shortest {
        Some((codec, length)) => Some((codec, encoded.get(..length)?)),
        None => Some((Codec::Stored, body)),
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::boxed::Box;
    use std::vec::Vec;

    use super::*;

    /// Runs of equal bytes as pairs of length and byte.
    struct Runs;

    impl Encoder for Runs {
        fn level_max(&self) -> u8 {
            9
        }

        fn encode(
            &mut self,
            _: u8,
            plain: &[u8],
            out: &mut [u8],
        ) -> Option<usize> {
            let runs = plain.chunk_by(|a, b| a == b);
            let pairs: Vec<u8> = runs
                .flat_map(|run| [u8::try_from(run.len()).unwrap(), run[0]])
                .collect();
            out.get_mut(..pairs.len())?.copy_from_slice(&pairs);
            Some(pairs.len())
        }
    }

    fn codec_for(body: &[u8], wish: Codec) -> Codec {
        let work = &mut Box::new(Workspace::new());
        work.body[..body.len()].copy_from_slice(body);
        let (codec, encoded) =
            encode(work, body.len(), wish, &mut Runs).unwrap();
        let mut again = [0; 256];
        let expected = match codec {
            Codec::Stored => body.len(),
            Codec::Zstd(_) => Runs.encode(1, body, &mut again).unwrap(),
            Codec::ZstdColumns { stride, .. } => {
                let mut columns = std::vec![0; body.len()];
                to_columns(body, stride, &mut columns).unwrap();
                Runs.encode(1, &columns, &mut again).unwrap()
            }
        };
        assert_eq!(encoded.len(), expected);
        assert!(codec == Codec::Stored || encoded == &again[..expected]);
        codec
    }

    #[test]
    fn what_comes_out_shortest_is_sent() {
        let columns = Codec::ZstdColumns { level: 9, stride: 4 };
        let table = b"abcd".repeat(20);
        assert_eq!(codec_for(&table, columns), columns);
        assert_eq!(codec_for(&table, Codec::Zstd(9)), Codec::Stored);
        // No table: as without columns.
        let text = [[b'a'; 40], [b'b'; 40]].concat();
        assert_eq!(codec_for(&text, columns), Codec::Zstd(9));
        assert_eq!(codec_for(b"abcdefgh", columns), Codec::Stored);
        // Shorter than a row, or a row of nothing.
        assert_eq!(codec_for(b"aaa", columns), Codec::Zstd(9));
        let nothing = Codec::ZstdColumns { level: 9, stride: 0 };
        assert_eq!(codec_for(&text, nothing), Codec::Zstd(9));
        assert_eq!(codec_for(&text, Codec::Stored), Codec::Stored);
    }
}
