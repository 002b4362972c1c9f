extern crate std;

use std::vec;
use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::limits::LINE_BYTES_MAX;

/// An event that owns its bytes.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Seen {
    Frame(Kind, Coding, Vec<u8>),
    Text(Vec<u8>),
    Broken(Vec<u8>),
}

fn seen(event: Event<'_>) -> Seen {
    match event {
        Event::Frame(frame) => {
            Seen::Frame(frame.kind, frame.coding, frame.message.to_vec())
        }
        Event::Text(text) => Seen::Text(text.to_vec()),
        Event::Broken(bytes) => Seen::Broken(bytes.to_vec()),
    }
}

/// All events of `line`, handed over in pieces of `piece` bytes; text in a
/// row is joined.
fn events(decoder: &mut Decoder, line: &[u8], piece: usize) -> Vec<Seen> {
    let mut all = Vec::new();
    for mut input in line.chunks(piece) {
        while let Some(event) = decoder.next(&mut input) {
            match (seen(event), all.last_mut()) {
                (Seen::Text(text), Some(Seen::Text(before))) => {
                    before.extend(text);
                }
                (event, _) => all.push(event),
            }
        }
        assert!(input.is_empty());
    }
    all
}

fn frame_of(coding: Coding, kind: Kind, message: &[u8]) -> Vec<u8> {
    let mut out = vec![0xaa; LINE_BYTES_MAX];
    let length = encode(coding, kind, &[message], &mut out).unwrap();
    out.truncate(length);
    out
}

fn binary(message: &[u8]) -> Vec<u8> {
    frame_of(Coding::Binary, Kind::PlainReply, message)
}

fn whole(message: &[u8]) -> Seen {
    Seen::Frame(Kind::PlainReply, Coding::Binary, message.to_vec())
}

fn text(text: &str) -> Seen {
    Seen::Text(text.as_bytes().to_vec())
}

#[test]
fn frames_among_text_come_out_with_the_text() {
    let mut line = b"[    1.234567] console text\r\n".to_vec();
    line.extend(binary(b"one"));
    line.extend(b"login: {not a frame} ");
    line.extend(binary(b""));
    line.extend(binary(&[0; 300]));
    for piece in [1, 2, 3, 7, 1000] {
        assert_eq!(
            events(&mut Decoder::new(), &line, piece),
            [
                text("[    1.234567] console text\r\n"),
                whole(b"one"),
                text("login: {not a frame} "),
                whole(b""),
                whole(&[0; 300]),
            ]
        );
    }
}

#[test]
fn text_comes_out_before_anything_follows_it() {
    let mut decoder = Decoder::new();
    events(&mut decoder, &binary(b"one"), 1000);
    assert_eq!(events(&mut decoder, b"pan", 1), [text("pan")]);
    assert!(!decoder.is_waiting());
    // One byte behind a zero may yet become a frame, but not for ever.
    events(&mut decoder, &binary(b"two"), 1000);
    assert_eq!(events(&mut decoder, b"$", 1), []);
    assert!(decoder.is_waiting());
    let expired = decoder.expire().map(seen);
    assert_eq!(expired, Some(Seen::Broken(b"$".to_vec())));
    assert_eq!(decoder.expire().map(seen), None);
}

#[test]
fn text_inside_a_frame_costs_that_frame_only() {
    let mut hit = binary(&[7; 400]);
    hit.splice(100..100, *b"[ 12.0] ata3: hard resetting link\r\n");
    let mut line = binary(b"before");
    line.extend(&hit);
    line.extend(binary(b"behind"));
    let inner = hit[1..hit.len() - 1].to_vec();
    assert_eq!(
        events(&mut Decoder::new(), &line, 64),
        [whole(b"before"), Seen::Broken(inner), whole(b"behind")]
    );
}

#[test]
fn both_codings_are_told_apart_by_themselves() {
    for message in [&b"hello"[..], b"", b"1", b"12", b"123", b"1234"] {
        let kind = Kind::PlainRequest;
        let printable = frame_of(Coding::Printable, kind, message);
        let expected = Seen::Frame(kind, Coding::Printable, message.to_vec());
        let zeros_lost: Vec<u8> =
            printable.iter().copied().filter(|byte| *byte != 0).collect();
        for line in [&printable, &zeros_lost] {
            let all = events(&mut Decoder::new(), line, 3);
            assert_eq!(all, vec![expected.clone()]);
        }
    }
}

#[test]
fn a_console_is_never_given_a_byte_that_it_might_act_on() {
    let message: Vec<u8> = (0..=255).collect();
    let line = frame_of(Coding::Printable, Kind::PlainRequest, &message);
    let (first, rest) = line.split_first().unwrap();
    let (last, inner) = rest.split_last().unwrap();
    assert_eq!((*first, *last), (0, 0));
    assert!(inner.iter().all(u8::is_ascii_graphic));
    assert!(!inner.iter().any(|byte| b"~&^\\'\"`".contains(byte)));
}

#[test]
fn a_frame_inside_the_bytes_of_another_is_never_found() {
    // A file on the disk holds a frame; it travels as the tail of a reply,
    // and the line damages the reply's start so that it looks like text.
    let planted =
        frame_of(Coding::Printable, Kind::PlainReply, b"planted by a file");
    let planted: Vec<u8> =
        planted.into_iter().filter(|byte| *byte != 0).collect();
    let mut line = binary(b"the link speaks binary");
    let mut carrier = binary(&planted);
    carrier[2] = b' ';
    line.extend(&carrier);
    let mut decoder = Decoder::new();
    let all = events(&mut decoder, &line, 1000);
    assert!(
        !all.iter()
            .any(|event| matches!(event, Seen::Frame(_, Coding::Printable, _))),
        "{all:?}"
    );
    // A peer that really speaks it puts a zero in front.
    let real = frame_of(Coding::Printable, Kind::PlainReply, b"real");
    let all = events(&mut decoder, &real, 1000);
    let real = b"real".to_vec();
    assert_eq!(all, [Seen::Frame(Kind::PlainReply, Coding::Printable, real)]);
}

#[test]
fn an_endless_frame_is_given_up_and_the_next_one_found() {
    for (start, filler) in [(&b"\0\x05\x02"[..], 9), (b"\0{a", b'a')] {
        let mut line = start.to_vec();
        line.resize(3 * LINE_BYTES_MAX, filler);
        line.extend(binary(b"next"));
        let all = events(&mut Decoder::new(), &line, 4096);
        assert_eq!(all.last(), Some(&whole(b"next")));
        let bytes: usize = all
            .iter()
            .map(|event| match event {
                Seen::Text(bytes) | Seen::Broken(bytes) => bytes.len(),
                Seen::Frame(..) => 0,
            })
            .sum();
        // Nothing but the delimiter is swallowed.
        assert_eq!(bytes, 3 * LINE_BYTES_MAX - 1);
    }
}

#[test]
fn the_longest_message_fits_and_one_byte_more_does_not() {
    let longest = vec![0x55; FRAME_BYTES_MAX - FRAME_OVERHEAD_BYTES];
    for coding in [Coding::Binary, Coding::Printable] {
        let line = frame_of(coding, Kind::PlainReply, &longest);
        let all = events(&mut Decoder::new(), &line, 5000);
        let expected = Seen::Frame(Kind::PlainReply, coding, longest.clone());
        assert_eq!(all, [expected]);
        let mut out = vec![0; 2 * LINE_BYTES_MAX];
        let parts: [&[u8]; 2] = [&longest, b"!"];
        let error = encode(coding, Kind::PlainReply, &parts, &mut out);
        assert_eq!(error, Err(TooLong));
        let mut short = vec![0; line.len() - 1];
        let error = encode(coding, Kind::PlainReply, &[&longest], &mut short);
        assert_eq!(error, Err(TooLong));
    }
}

#[test]
fn a_frame_of_an_unknown_kind_is_broken() {
    // Kind 6, with its right CRC.
    let mut bytes = vec![6, b'x'];
    let sum = CRC.checksum(&bytes);
    bytes.extend(sum.to_le_bytes());
    let mut line = vec![0; 64];
    let length = cobs::encode(&bytes, &mut line[1..]);
    line.truncate(length + 2);
    let all = events(&mut Decoder::new(), &line, 100);
    assert!(!matches!(all[0], Seen::Frame(..)), "{all:?}");
}

fn codings() -> impl Strategy<Value = Coding> {
    prop_oneof![Just(Coding::Binary), Just(Coding::Printable)]
}

proptest! {
    #[test]
    fn every_message_comes_back(
        coding in codings(),
        parts in prop::collection::vec(
            prop::collection::vec(
                prop_oneof![4 => any::<u8>(), 1 => Just(0)], 0..700),
            0..4),
        piece in 1_usize..600,
    ) {
        let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        let mut line = vec![0; LINE_BYTES_MAX];
        let kind = Kind::SealedReply;
        let length = encode(coding, kind, &parts, &mut line).unwrap();
        let all = events(&mut Decoder::new(), &line[..length], piece);
        prop_assert_eq!(all, [Seen::Frame(kind, coding, parts.concat())]);
    }

    #[test]
    fn a_damaged_frame_is_never_taken_for_another(
        coding in codings(),
        message in prop::collection::vec(any::<u8>(), 0..300),
        place in any::<prop::sample::Index>(),
        flip in 1_u8..=255,
    ) {
        let mut line = frame_of(coding, Kind::PlainReply, &message);
        let place = place.index(line.len());
        line[place] ^= flip;
        line.extend(binary(b"next"));
        let all = events(&mut Decoder::new(), &line, 50);
        prop_assert_eq!(all.last(), Some(&whole(b"next")));
        for event in &all[..all.len() - 1] {
            if let Seen::Frame(_, _, found) = event {
                // Only a delimiter may be damaged without loss.
                prop_assert_eq!(found, &message);
            }
        }
    }

    #[test]
    fn any_bytes_leave_the_decoder_ready_for_the_next_frame(
        mut line in prop::collection::vec(
            prop_oneof![
                3 => any::<u8>(),
                2 => prop::sample::select(b"\0{}\x01\x02\x03a0".to_vec()),
            ],
            0..2000),
        piece in 1_usize..300,
    ) {
        line.extend(binary(b"next"));
        let whole_line = events(&mut Decoder::new(), &line, line.len());
        let pieces = events(&mut Decoder::new(), &line, piece);
        prop_assert_eq!(whole_line.last(), Some(&whole(b"next")));
        prop_assert_eq!(whole_line, pieces);
    }
}
