extern crate std;

use std::vec;
use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::limits::{BODY_BYTES_MAX, LAYOUT_BYTES_MAX};

fn range(first: u64, count: u32) -> SectorRange {
    SectorRange::new(first, count).unwrap()
}

#[test]
fn ranges_are_ascending_disjoint_and_bounded() {
    let mut ranges = Ranges::new();
    ranges.push(range(8, 8)).unwrap();
    assert_eq!(ranges.push(range(15, 1)), Err(RangesError::Order));
    ranges.push(range(16, 500)).unwrap();
    assert_eq!(ranges.push(range(600, 5)), Err(RangesError::Full));
    ranges.push(range(600, 4)).unwrap();
    assert_eq!((ranges.len(), ranges.sectors()), (3, 512));
    let mut many = Ranges::new();
    for i in 0..64 {
        many.push(range(2 * i, 1)).unwrap();
    }
    assert_eq!(many.push(range(1000, 1)), Err(RangesError::Full));
    assert_eq!(many.end(), 127);
}

#[test]
fn ranges_that_no_device_holds_cannot_be_made() {
    assert_eq!(SectorRange::new(0, 0), None);
    assert_eq!(SectorRange::new(u64::MAX, 1), None);
    assert_eq!(SectorRange::new(u64::MAX / 512, 1), None);
    let last = range(u64::MAX / 512 - 1, 1);
    assert_eq!(last.bytes().end().0 % 512, 0);
    for (start, length) in [(1, 512), (512, 1), (0, 0)] {
        let bytes =
            ByteRange::new(ByteOffset(start), ByteCount(length)).unwrap();
        assert_eq!(SectorRange::from_bytes(bytes), None);
    }
}

#[test]
fn a_wire_that_lies_about_ranges_is_refused() {
    let cases: [(&str, &[u8]); 5] = [
        ("no range", &[0]),
        ("an empty range", &[1, 8, 0]),
        ("longer than a chunk", &[1, 0, 0x81, 0x04]),
        ("cut short", &[2, 0, 1, 5]),
        (
            "beyond 64 bits of bytes",
            &[1, 255, 255, 255, 255, 255, 255, 255, 127, 1],
        ),
    ];
    for (what, bytes) in cases {
        assert!(postcard::from_bytes::<Ranges>(bytes).is_err(), "{what}");
    }
    let ranges: Ranges = postcard::from_bytes(&[2, 8, 1, 3, 2]).unwrap();
    assert!(ranges.iter().eq([range(8, 1), range(12, 2)]));
}

#[test]
fn a_grant_names_only_fragments_that_exist() {
    let grant = Grant::new(1000, 1, 2).unwrap();
    assert_eq!(grant.fragment(0, 5000), None);
    assert_eq!(grant.fragment(1, 5000), Some((1000, 1000)));
    assert_eq!(grant.fragment(2, 2001), Some((2000, 1)));
    assert_eq!(grant.fragment(2, 2000), None);
    assert_eq!(grant.fragment(3, 5000), None);
    assert_eq!(Grant::new(255, 0, 1), None);
    assert_eq!(Grant::new(16385, 0, 1), None);
    assert_eq!(Grant::new(256, 0, 0), None);
    assert_eq!(Grant::new(256, u16::MAX, 1), None);
    let last = Grant::new(16384, u16::MAX - 1, 1).unwrap();
    assert_eq!(last.fragment(u16::MAX - 1, u32::MAX), {
        let start = 65534 * 16384;
        Some((start, 16384))
    });
}

fn body(runs: &[(u32, RunKind)]) -> Vec<u8> {
    let mut out = vec![0; LAYOUT_BYTES_MAX];
    let length = write_layout(runs.iter().copied(), &mut out).unwrap();
    out.truncate(length);
    for (i, (count, kind)) in (0_u8..).zip(runs) {
        if *kind == RunKind::Data {
            out.extend(vec![i; usize_from(*count) * 512]);
        }
    }
    out
}

#[test]
fn a_body_says_what_each_sector_is() {
    use RunKind::{Data, Unreadable, Zero};
    let runs = [(3, Data), (31, Zero), (32, Data), (1, Unreadable)];
    let body = body(&runs);
    assert!(body.len() <= BODY_BYTES_MAX);
    let layout = Layout::check(&body, 67).unwrap();
    let read: Vec<_> =
        layout.map(|run| (run.sectors, run.kind, run.bytes.len())).collect();
    assert_eq!(
        read,
        [
            (3, Data, 3 * 512),
            (31, Zero, 0),
            (32, Data, 32 * 512),
            (1, Unreadable, 0),
        ]
    );
    let check = |body: &[u8], sectors| Layout::check(body, sectors).err();
    assert_eq!(check(&body, 66), Some(LayoutError::Bytes));
    assert_eq!(check(&body, 65), Some(LayoutError::Sectors));
    assert_eq!(check(&body, 68), Some(LayoutError::Run));
    assert_eq!(check(&body[..body.len() - 1], 67), Some(LayoutError::Bytes));
    assert_eq!(check(&[], 1), Some(LayoutError::Run));
    // An empty run, an unknown kind, a varint that is not the shortest.
    assert_eq!(check(&[0], 1), Some(LayoutError::Run));
    assert_eq!(check(&[7], 1), Some(LayoutError::Run));
    assert_eq!(check(&[0x85, 0], 1), Some(LayoutError::Run));
}

fn kinds() -> impl Strategy<Value = RunKind> {
    prop_oneof![
        Just(RunKind::Data),
        Just(RunKind::Zero),
        Just(RunKind::Unreadable)
    ]
}

proptest! {
    #[test]
    fn ranges_of_any_kind_come_back(
        gaps in prop::collection::vec((0_u64..1 << 40, 1_u32..9), 1..64),
    ) {
        let mut ranges = Ranges::new();
        for (gap, count) in gaps {
            ranges.push(range(ranges.end() + gap, count)).unwrap();
        }
        let mut buffer = [0; 1024];
        let bytes = postcard::to_slice(&ranges, &mut buffer).unwrap();
        prop_assert_eq!(postcard::from_bytes::<Ranges>(bytes).unwrap(), ranges);
    }

    #[test]
    fn layouts_of_any_kind_come_back(
        runs in prop::collection::vec((1_u32..40, kinds()), 1..13),
    ) {
        let body = body(&runs);
        let sectors = runs.iter().map(|run| run.0).sum();
        let read: Vec<_> = Layout::check(&body, sectors)
            .unwrap()
            .map(|run| (run.sectors, run.kind))
            .collect();
        prop_assert_eq!(read, runs);
    }

    #[test]
    fn no_bytes_upset_the_layout(
        body in prop::collection::vec(any::<u8>(), 0..2000),
        sectors in 0_u32..600,
    ) {
        if let Ok(layout) = Layout::check(&body, sectors) {
            prop_assert_eq!(layout.map(|run| run.sectors).sum::<u32>(), sectors);
        }
    }
}
