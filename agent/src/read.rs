//! Bodies of reads: which sectors are data, zero or unreadable, and the data.
//!
//! Zero runs are never sent, whatever the codec. Behind zstd only runs of
//! 4 KiB are worth an entry in the layout: a shorter one compresses to less
//! than that.

use e2wire_protocol::chunk::{Codec, RunKind, write_layout};
use e2wire_protocol::limits::{CHUNK_BYTES_MAX, SECTOR_BYTES};
use e2wire_protocol::units::usize_from;

use crate::device::Sectors;

const SECTORS_MAX: usize = CHUNK_BYTES_MAX / SECTOR_BYTES;

/// Sectors that a run of zeros has at least when it is compressed anyway.
const ZERO_RUN_MIN: u32 = 8;

type Run = (u32, RunKind);
type Runs = heapless::Vec<Run, SECTORS_MAX>;

/// Writes the body of what was read into `out` and returns its length;
/// `None` when `sectors` is not a whole number of them, at most a chunk.
pub(crate) fn write_body(
    sectors: &Sectors<'_>,
    codec: Codec,
    out: &mut [u8],
) -> Option<usize> {
    let run_min = match codec {
        Codec::Stored => 1,
        Codec::Zstd(_) | Codec::ZstdColumns { .. } => ZERO_RUN_MIN,
    };
    let runs = runs_of(sectors, run_min)?;
    let mut to = write_layout(runs.iter().copied(), out)?;
    let mut from = 0_usize;
    for (count, kind) in runs {
        let length = usize_from(count).checked_mul(SECTOR_BYTES)?;
        let end = from.checked_add(length)?;
        if kind == RunKind::Data {
            let next = to.checked_add(length)?;
            let place = out.get_mut(to..next)?;
            place.copy_from_slice(sectors.bytes.get(from..end)?);
            to = next;
        }
        from = end;
    }
    Some(to)
}

/// Sectors of one kind in a row, where zeros make a run of their own from
/// `run_min` sectors on.
fn runs_of(sectors: &Sectors<'_>, run_min: u32) -> Option<Runs> {
    let (all, rest) = sectors.bytes.as_chunks::<SECTOR_BYTES>();
    if !rest.is_empty() {
        return None;
    }
    let mut runs = Runs::new();
    for (i, sector) in all.iter().enumerate() {
        let kind = if sectors.unreadable.has(i) {
            RunKind::Unreadable
        } else if is_zero(sector) {
            RunKind::Zero
        } else {
            RunKind::Data
        };
        if !extend(&mut runs, kind) {
            if run_min > 1 {
                fold_short_zeros(&mut runs, run_min);
            }
            runs.push((1, kind)).ok()?;
        }
    }
    if run_min > 1 {
        fold_short_zeros(&mut runs, run_min);
    }
    Some(runs)
}

/// Adds a sector to the last run if it is of the same kind.
fn extend(runs: &mut Runs, kind: RunKind) -> bool {
    match runs.last_mut() {
        Some((count, last)) if *last == kind => {
            *count = count.saturating_add(1);
            true
        }
        _ => false,
    }
}

/// The last run is complete: if it is zeros and short, it becomes data; data
/// next to data becomes one run.
fn fold_short_zeros(runs: &mut Runs, run_min: u32) {
    if let Some((count, kind)) = runs.last_mut()
        && *kind == RunKind::Zero
        && *count < run_min
    {
        *kind = RunKind::Data;
    }
    if let [.., (_, RunKind::Data), (_, RunKind::Data)] = runs.as_slice()
        && let Some((more, _)) = runs.pop()
        && let Some((count, _)) = runs.last_mut()
    {
        *count = count.saturating_add(more);
    }
}

fn is_zero(sector: &[u8; SECTOR_BYTES]) -> bool {
    // Without an early end inside a group the compiler uses wide registers.
    let (groups, _) = sector.as_chunks::<64>();
    groups.iter().all(|group| group.iter().fold(0, |or, b| or | b) == 0)
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "tests may panic")]
mod tests {
    extern crate std;

    use std::vec;
    use std::vec::Vec;

    use RunKind::{Data, Unreadable, Zero};
    use e2wire_protocol::chunk::Layout;
    use e2wire_protocol::limits::BODY_BYTES_MAX;

    use super::*;
    use crate::device::SectorMap;

    /// A body of sectors drawn as text: `d`ata, `0`, `x` unreadable.
    fn body(drawn: &str, codec: Codec) -> Vec<Run> {
        let mut bytes = Vec::new();
        let mut unreadable = SectorMap::new();
        for (i, sector) in drawn.bytes().enumerate() {
            let fill = if sector == b'd' { 7 } else { 0 };
            bytes.extend([fill; SECTOR_BYTES - 1]);
            bytes.push(0);
            if sector == b'x' {
                unreadable.set(i);
            }
        }
        let sectors = Sectors { bytes: &bytes, unreadable: &unreadable };
        let mut out = vec![0; BODY_BYTES_MAX];
        let length = write_body(&sectors, codec, &mut out).unwrap();
        let count = u32::try_from(drawn.len()).unwrap();
        let layout = Layout::check(&out[..length], count).unwrap();
        let mut at = 0;
        layout
            .map(|run| {
                let length = usize_from(run.sectors) * SECTOR_BYTES;
                if run.kind == Data {
                    assert_eq!(run.bytes, &bytes[at..at + length]);
                }
                at += length;
                (run.sectors, run.kind)
            })
            .collect()
    }

    #[test]
    fn zeros_are_never_sent_when_nothing_compresses_them() {
        assert_eq!(
            body("dd0d000xx0", Codec::Stored),
            [
                (2, Data),
                (1, Zero),
                (1, Data),
                (3, Zero),
                (2, Unreadable),
                (1, Zero)
            ]
        );
        assert_eq!(body(&"0".repeat(512), Codec::Stored), [(512, Zero)]);
    }

    #[test]
    fn short_runs_of_zeros_are_left_to_the_compressor() {
        let codec = Codec::Zstd(3);
        assert_eq!(
            body("0ddd0000d0000000dxdd00000000d0", codec),
            [(17, Data), (1, Unreadable), (2, Data), (8, Zero), (2, Data)]
        );
        assert_eq!(body("x0x", codec), {
            [(1, Unreadable), (1, Data), (1, Unreadable)]
        });
    }

    #[test]
    fn the_worst_chunk_fits_a_body() {
        assert_eq!(body(&"d0".repeat(256), Codec::Stored).len(), 512);
        assert_eq!(body(&"dx".repeat(256), Codec::Zstd(1)).len(), 512);
        assert_eq!(body(&"d".repeat(512), Codec::Stored), [(512, Data)]);
    }
}
