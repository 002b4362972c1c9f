//! Walks filesystems that lie in memory.

use e2wire::error::Result;
use e2wire::ext::walk::{Step, Walk, WalkOptions};
use e2wire::ext::{Checks, Findings, Walker};
use e2wire::source::{PIECE_ALIGN, Payload, Piece};
use e2wire::units::{BlockRun, BlockSize, ByteCount, ByteOffset, ByteRange};

/// Steps after which a walk counts as endless.
const STEPS_MAX: usize = 5_000;

/// A walk that was driven to its end.
#[derive(Debug)]
pub struct Walked {
    /// What it found.
    pub walk: Walk,
    /// How many steps it took.
    pub levels: usize,
}

/// Drives a walk over the device that consists of `bytes`.
///
/// # Errors
///
/// When there is no filesystem.
///
/// # Panics
///
/// When the walk asks for bytes outside the device, or does not end.
pub fn drive(bytes: &[u8], options: WalkOptions) -> Result<Walked> {
    let length = ByteCount(bytes.len() as u64);
    let device_length = Some(length);
    let mut walker = Walker::new(WalkOptions { device_length, ..options });
    let mut levels = 0;
    let mut findings = Findings::default();
    loop {
        levels += 1;
        assert!(levels < STEPS_MAX, "the walk does not end");
        match walker.next_step()? {
            Step::Read(level) => {
                for range in &level.ranges {
                    supply(&mut walker, bytes, *range);
                }
                let size = walker.geometry().map(|g| g.block_size);
                for range in &level.payload {
                    inspect(&level.checks, size, bytes, *range, &mut findings);
                }
            }
            Step::Restart => findings = Findings::default(),
            Step::Waiting => walker.resume(true),
            Step::Done => {
                let mut walk = walker.finish()?;
                walk.add_findings(findings);
                return Ok(Walked { walk, levels });
            }
        }
    }
}

fn inspect(
    checks: &Checks,
    size: Option<BlockSize>,
    bytes: &[u8],
    range: ByteRange,
    findings: &mut Findings,
) {
    let bytes = &bytes[range.start().0 as usize..range.end().0 as usize];
    let run = size.and_then(|size| {
        let count = size.blocks_for(range.length());
        BlockRun::new(size.block_of(range.start()), count)
    });
    if let Some(run) = run {
        checks.inspect(run, bytes, findings);
    }
}

fn supply(walker: &mut Walker, bytes: &[u8], range: ByteRange) {
    assert!(range.end().0 <= bytes.len() as u64, "asks beyond the device");
    let mut at = range.start().0;
    while at < range.end().0 {
        let end = ((at / PIECE_ALIGN + 1) * PIECE_ALIGN).min(range.end().0);
        let what = Payload::Bytes(&bytes[at as usize..end as usize]);
        walker.supply(Piece { at: ByteOffset(at), what });
        at = end;
    }
}
