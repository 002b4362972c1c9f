//! Any bytes may come: no message panics, and what decodes comes back.

use e2wire_protocol::chunk::{Codec, Grant, Ranges, SectorRange};
use e2wire_protocol::coding::Coding;
use e2wire_protocol::digest::{BootId, DeviceId};
use e2wire_protocol::frame::{Decoder, Event, Kind};
use e2wire_protocol::limits::LINE_BYTES_MAX;
use e2wire_protocol::message::{
    Fetch, Matches, MessageError, Reply, ReplyBody, Request, RequestBody, Task,
    VARINT_BYTES_MAX, cut, put_varint,
};
use proptest::prelude::*;

fn requests() -> impl Strategy<Value = Request> {
    let grant = (256_u16..=16384, 0_u16..1000, 1_u16..1000).prop_map(
        |(payload, first, count)| Grant::new(payload, first, count).unwrap(),
    );
    let ranges = prop::collection::vec((0_u64..1 << 45, 1_u32..9), 1..64)
        .prop_map(|gaps| {
            let mut ranges = Ranges::new();
            for (gap, count) in gaps {
                let first = ranges.end() + gap;
                ranges.push(SectorRange::new(first, count).unwrap()).unwrap();
            }
            ranges
        });
    let codec = prop_oneof![
        Just(Codec::Stored),
        any::<u8>().prop_map(Codec::Zstd),
        any::<(u8, u16)>().prop_map(|(level, stride)| {
            Codec::ZstdColumns { level, stride }
        }),
    ];
    let fetch = (any::<[u8; 8]>(), ranges, codec, grant).prop_map(
        |(device, ranges, codec, grant)| {
            RequestBody::Fetch(Fetch {
                device: DeviceId(device),
                task: Task::Read(ranges),
                codec,
                grant,
            })
        },
    );
    let body = prop_oneof![
        4 => fetch,
        1 => Just(RequestBody::Echo),
        1 => Just(RequestBody::Cancel),
    ];
    (any::<[u8; 8]>(), any::<u32>(), body).prop_map(|(boot, number, body)| {
        Request { boot: BootId(boot), number, body }
    })
}

proptest! {
    #[test]
    fn requests_come_back_over_any_coding(
        request in requests(),
        printable in any::<bool>(),
        tail in prop::collection::vec(any::<u8>(), 0..100),
    ) {
        let coding =
            if printable { Coding::Printable } else { Coding::Binary };
        let tail =
            if request.body == RequestBody::Echo { tail } else { vec![] };
        let mut line = vec![0; LINE_BYTES_MAX];
        let length = request.encode(coding, &tail, &mut line).unwrap();
        let mut decoder = Decoder::new();
        let mut input = &line[..length];
        let Some(Event::Frame(frame)) = decoder.next(&mut input) else {
            panic!("no frame");
        };
        prop_assert_eq!(frame.kind, Kind::PlainRequest);
        prop_assert_eq!(frame.coding, coding);
        let decoded = Request::decode(frame.message).unwrap();
        prop_assert_eq!(decoded, (request, tail.as_slice()));
    }

    #[test]
    fn no_bytes_upset_a_decoder_of_messages(
        bytes in prop::collection::vec(
            prop_oneof![2 => any::<u8>(), 1 => 0_u8..4], 0..300),
        variant in 0_u8..13,
        behind in any::<bool>(),
    ) {
        // Half of them get past the numbers in front.
        let mut message = vec![];
        if behind {
            message.extend([0xb0; 8]);
            message.extend([1, variant]);
        }
        message.extend(&bytes);
        if let Ok((request, tail)) = Request::decode(&message) {
            let again = postcard::to_allocvec(&request).unwrap();
            // Varints may come in a longer form than they have to.
            prop_assert!(again.len() + tail.len() <= message.len());
            let (decoded, _) = Request::decode(&again).unwrap();
            prop_assert_eq!(decoded, request);
        }
        let mut message = vec![];
        if behind {
            message.extend([1, 1, 1, variant]);
        }
        message.extend(&bytes);
        if let Ok((reply, tail)) = Reply::decode(&message) {
            let again = postcard::to_allocvec(&reply).unwrap();
            prop_assert!(again.len() + tail.len() <= message.len());
        }
    }

    #[test]
    fn no_bytes_upset_the_reader_of_a_search(
        body in prop::collection::vec(any::<u8>(), 0..300),
        cells in any::<u32>(),
        return_length in 0_u16..300,
    ) {
        if let Ok(matches) = Matches::new(&body, cells, return_length) {
            prop_assert!(matches.searched() <= cells);
            prop_assert!(matches.count() <= body.len());
        }
    }

    #[test]
    fn varints_of_any_value_come_back(value in any::<u32>()) {
        let mut buffer = [0; VARINT_BYTES_MAX];
        let written = put_varint(value, &mut buffer);
        let ours = postcard::to_allocvec(&value).unwrap();
        prop_assert_eq!(written, ours.as_slice());
        let matches = Matches::new(written, u32::MAX, 0).unwrap();
        prop_assert_eq!(matches.searched(), value);
    }

    #[test]
    fn a_cut_text_is_a_text(text in "\\PC*", length_max in 0_usize..80) {
        let short = cut(&text, length_max);
        prop_assert!(short.len() <= length_max.max(text.len()));
        prop_assert!(text.starts_with(short));
        prop_assert!(short.len() <= length_max || short == text);
    }
}

#[test]
fn bytes_left_over_are_never_overlooked() {
    let request =
        Request { boot: BootId([1; 8]), number: 1, body: RequestBody::Cancel };
    let mut bytes = postcard::to_allocvec(&request).unwrap();
    bytes.push(0);
    assert_eq!(Request::decode(&bytes).err(), Some(MessageError::LeftOver));
    let mut out = [0; 100];
    let error = request.encode(Coding::Binary, b"x", &mut out);
    assert_eq!(error, Err(MessageError::LeftOver));
    let reply = Reply { number: 1, seen: 1, answers: 1, body: ReplyBody::Done };
    let mut bytes = postcard::to_allocvec(&reply).unwrap();
    bytes.push(0);
    assert_eq!(Reply::decode(&bytes).err(), Some(MessageError::LeftOver));
    let error = reply.encode(Coding::Binary, &[b"x"], &mut out);
    assert_eq!(error, Err(MessageError::LeftOver));
}

#[test]
fn a_message_of_a_later_version_is_told_apart_from_a_broken_one() {
    let mut bytes = vec![1; 8];
    bytes.extend([1, 100]);
    assert_eq!(Request::decode(&bytes).err(), Some(MessageError::Unknown));
    assert_eq!(Request::decode(&[]).err(), Some(MessageError::Unknown));
}
