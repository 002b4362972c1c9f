use proptest::prelude::*;

use super::*;
use e2wire_protocol::message::{VARINT_BYTES_MAX, put_varint};

const SOUGHT: Sought = Sought {
    pattern: b"\x53\xef",
    offset: 0x38,
    head_bytes: 0x5C,
    // The byte behind the pattern says which KiB this is.
    fits: |kib, head| head[0x3a] == kib as u8,
};

type Answer = Box<dyn FnMut(&Find) -> Result<Vec<u8>>>;

/// An agent whose every word the test chooses.
struct Agent {
    answer: Answer,
    asked: Vec<Find>,
    forgotten: usize,
}

impl Finder for Agent {
    type Ticket = usize;

    fn ask(&mut self, find: Find) -> usize {
        self.asked.push(find);
        self.asked.len() - 1
    }

    fn answer(&mut self, ticket: usize) -> Result<Vec<u8>> {
        (self.answer)(&self.asked[ticket].clone())
    }

    fn forget(&mut self, _: usize) {
        self.forgotten += 1;
    }
}

fn agent(answer: impl FnMut(&Find) -> Result<Vec<u8>> + 'static) -> Agent {
    let answer = Box::new(answer);
    Agent { answer, asked: Vec::new(), forgotten: 0 }
}

fn varint(value: u32) -> Vec<u8> {
    put_varint(value, &mut [0; VARINT_BYTES_MAX]).to_vec()
}

/// What an honest agent answers that says no more than `most` matches.
fn honest(disk: &[u8], find: &Find, most: usize) -> Vec<u8> {
    let mut entries = Vec::new();
    let mut next = 0;
    let mut searched = 0;
    let mut found = 0;
    for cell in 0..find.cells {
        let start = find.first + u64::from(cell * find.stride_sectors);
        let start = start as usize * 512;
        let within = |at: u32, length: usize| {
            let at = at as usize;
            assert!(at + length <= find.stride_sectors as usize * 512);
            &disk[start + at..][..length]
        };
        if within(find.offset, 2) == find.pattern.as_slice() {
            if found == most {
                break;
            }
            found += 1;
            entries.extend(varint((cell - next) * 2));
            let length = usize::from(find.return_length);
            entries.extend(within(find.return_offset, length));
            next = cell + 1;
        }
        searched = cell + 1;
    }
    [varint(searched), entries].concat()
}

/// Plants what is sought.
fn plant(disk: &mut [u8], base: usize, kib: usize) {
    let at = base + kib * 1024;
    disk[at + 0x38..at + 0x3a].copy_from_slice(SOUGHT.pattern);
    disk[at + 0x3a] = kib as u8;
}

fn range(start: u64, end: u64) -> ByteRange {
    ByteRange::between(ByteOffset(start), ByteOffset(end)).unwrap()
}

const WHOLE: Scout<'_> = Scout { sector: 512, base: 0, sought: &SOUGHT };

fn run(search: &Scout<'_>, agent: &mut Agent, end: u64) -> Found {
    search.run(agent, &[range(0, end)], &mut |_| {}).unwrap()
}

#[test]
fn what_is_no_answer_ends_the_search_and_keeps_what_was_found() {
    let right = [varint(64), varint(2 * 5), vec![0; 0x5c]].concat();
    let mut right = right;
    right[2 + 0x3a] = 5;
    let lies: [Vec<u8>; 6] = [
        Vec::new(),
        vec![0xff; 6],
        // More cells than were asked about.
        varint(65),
        // A match beyond them.
        [varint(64), varint(2 * 64), vec![0; 0x5c]].concat(),
        // A match cut short.
        [varint(64), varint(0), vec![0; 0x5b]].concat(),
        // No way forward.
        varint(0),
    ];
    for lie in lies {
        let mut answers = vec![lie.clone(), right.clone()];
        let mut agent = agent(move |_| Ok(answers.pop().unwrap()));
        let ranges =
            [range(0, 64 << 10), range(1 << 20, (1 << 20) + (64 << 10))];
        let found = WHOLE.run(&mut agent, &ranges, &mut |_| {}).unwrap();
        assert_eq!(found.places, [range(5 << 10, 6 << 10)], "{lie:?}");
        assert!(found.ended.is_some(), "{lie:?}");
    }
}

#[test]
fn answers_without_end_end() {
    // One match at a time, for ever; it even lies where it says.
    let mut kib = 0_u8;
    let mut one = agent(move |_| {
        let mut head = vec![0; 0x5c];
        head[0x3a] = kib;
        kib = kib.wrapping_add(1);
        Ok([varint(1), varint(0), head].concat())
    });
    let found = run(&WHOLE, &mut one, 8 << 20);
    assert!(found.ended.unwrap().contains("too much"));
    assert!(one.asked.len() < 100, "{}", one.asked.len());
    // As many as there can be, and all of them fit.
    let fits = |_: u64, _: &[u8]| true;
    let sought = Sought { head_bytes: 0, fits, ..SOUGHT };
    let search = Scout { sought: &sought, ..WHOLE };
    let all = |find: &Find| [varint(find.cells), vec![0; 8192]].concat();
    let mut many = agent(move |find| Ok(all(find)));
    let found = run(&search, &mut many, 129 << 20);
    assert!(found.ended.unwrap().contains("too much"));
    let bytes: u64 = found.places.iter().map(|place| place.length().0).sum();
    assert_eq!(bytes, PLACES_MAX * PLACE_BYTES);
    assert_eq!(many.forgotten, OPEN_MAX - 1, "what nobody waits for");
}

#[test]
fn an_agent_that_will_not_look_ends_the_search_and_one_that_is_gone_all() {
    for (kind, ends) in [
        (ErrorKind::Refused, true),
        (ErrorKind::Protocol, true),
        (ErrorKind::NoFilesystem, false),
        (ErrorKind::Interrupted, false),
    ] {
        let mut agent = agent(move |_| Err(Error::new(kind, "no")));
        let ranges = [range(0, 16 << 20)];
        let result = WHOLE.run(&mut agent, &ranges, &mut |_| {});
        match result {
            Ok(found) => assert!(ends && found.ended.is_some()),
            Err(error) => assert!(!ends && error.kind() == kind),
        }
    }
    for sector in [3 * 512, 128 * 1024] {
        let mut agent = agent(|_| panic!("asked"));
        let search = Scout { sector, ..WHOLE };
        assert!(run(&search, &mut agent, 1 << 20).ended.is_some());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn a_search_finds_what_a_plain_loop_finds(
        sector in prop::sample::select(vec![512_usize, 1024, 4096]),
        base in 0_usize..20,
        planted in prop::collection::vec(0_usize..200, 0..40),
        edges in prop::collection::btree_set(0_u64..200 * 1024, 4),
        most in 1_usize..5,
    ) {
        let base = base * 512;
        // Devices end with a sector.
        let length = (base + 200 * 1024).next_multiple_of(sector);
        let mut disk = vec![0; length];
        for kib in planted {
            plant(&mut disk, base, kib);
        }
        let edges: Vec<u64> = edges.into_iter().map(|at| at & !511).collect();
        let ranges: Vec<ByteRange> = edges
            .chunks(2)
            .map(|pair| range(pair[0], pair[1]))
            .filter(|range| !range.is_empty())
            .collect();
        let mut expected = RangeSet::new();
        for kib in 0..200_u64 {
            let place = range(kib * 1024, (kib + 1) * 1024);
            let inside = ranges.iter().any(|range| {
                range.start() <= place.start() && place.end() <= range.end()
            });
            let at = base + kib as usize * 1024 + 0x38;
            if inside && disk[at..at + 2] == *SOUGHT.pattern {
                expected.insert(place);
            }
        }
        let search = Scout {
            sector: sector as u64,
            base: base as u64,
            sought: &SOUGHT,
        };
        let mut agent = agent(move |find| {
            assert!((find.first * 512).is_multiple_of(sector as u64));
            Ok(honest(&disk, find, most))
        });
        let mut last = 0;
        let found = search
            .run(&mut agent, &ranges, &mut |done| last = done.0)
            .unwrap();
        prop_assert_eq!(&found.ended, &None);
        let expected: Vec<ByteRange> = expected.iter().collect();
        prop_assert_eq!(found.places, expected);
        let most: u64 = ranges.iter().map(|range| range.length().0).sum();
        prop_assert!(last <= most);
    }
}
