//! What comes over a line.

use e2wire_protocol::chunk::Layout;
use e2wire_protocol::coding::Coding;
use e2wire_protocol::frame::{self, Decoder, Event, Kind};
use e2wire_protocol::message::{Matches, Reply, Request};

#[derive(Debug, PartialEq)]
enum Seen {
    Frame(u8, Vec<u8>),
    Text(Vec<u8>),
    Broken(Vec<u8>),
}

fn events(line: &[u8], piece: usize) -> Vec<Seen> {
    let mut decoder = Box::new(Decoder::new());
    let mut all = Vec::new();
    for mut input in line.chunks(piece.max(1)) {
        while let Some(event) = decoder.next(&mut input) {
            match (event, all.last_mut()) {
                (Event::Text(text), Some(Seen::Text(before))) => {
                    before.extend(text);
                }
                (Event::Text(text), _) => all.push(Seen::Text(text.to_vec())),
                (Event::Broken(bytes), _) => {
                    all.push(Seen::Broken(bytes.to_vec()));
                }
                (Event::Frame(frame), _) => {
                    let kind = frame.kind.byte();
                    all.push(Seen::Frame(kind, frame.message.to_vec()));
                }
            }
        }
    }
    all
}

/// Any line gives the same events in pieces of any length, and the next
/// honest frame is found.
pub(super) fn frame(input: &[u8]) {
    let Some((piece, bytes)) = input.split_first() else { return };
    let mut line = bytes.to_vec();
    let mut honest = vec![0; 100];
    let message: [&[u8]; 1] = [b"honest"];
    let length = frame::encode(
        Coding::Binary,
        Kind::PlainRequest,
        &message,
        &mut honest,
    )
    .expect("it fits");
    line.extend(&honest[..length]);
    let whole = events(&line, line.len());
    assert_eq!(whole, events(&line, usize::from(*piece) + 1));
    let kind = Kind::PlainRequest.byte();
    let honest = Seen::Frame(kind, b"honest".to_vec());
    assert_eq!(whole.last(), Some(&honest));
}

/// What decodes is encoded again into the same.
pub(super) fn request(message: &[u8]) {
    let Ok((request, tail)) = Request::decode(message) else { return };
    let mut again = postcard::to_allocvec(&request).expect("there is memory");
    assert!(again.len() + tail.len() <= message.len());
    again.extend(tail);
    assert_eq!(Request::decode(&again), Ok((request, tail)));
}

/// The same of replies, and of the bodies inside.
pub(super) fn reply(input: &[u8]) {
    let Some((head, bytes)) = input.split_at_checked(4) else { return };
    if let Ok((reply, tail)) = Reply::decode(bytes) {
        let mut again = postcard::to_allocvec(&reply).expect("memory");
        assert!(again.len() + tail.len() <= bytes.len());
        again.extend(tail);
        assert_eq!(Reply::decode(&again), Ok((reply, tail)));
    }
    let count = u32::from(u16::from_le_bytes([head[0], head[1]]));
    let length = u16::from_le_bytes([head[2], head[3]]);
    if let Ok(layout) = Layout::check(bytes, count) {
        let sectors: u32 = layout.map(|run| run.sectors).sum();
        assert_eq!(sectors, count);
    }
    if let Ok(matches) = Matches::new(bytes, count, length) {
        let searched = matches.searched();
        assert!(searched <= count && matches.count() <= bytes.len());
    }
}
