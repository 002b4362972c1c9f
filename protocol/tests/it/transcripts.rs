//! Recorded conversations: what went over a line, byte by byte, and what both
//! ends understood. A later version must still understand all of it.

use std::fs;
use std::path::PathBuf;

use e2wire_protocol::frame::{Decoder, Event, Kind};
use e2wire_protocol::message::{Reply, Request};

/// Everything on the line, in the form of the recordings: a frame's kind,
/// coding and message, the rest as text.
fn understood(line: &[u8]) -> String {
    let mut decoder = Decoder::new();
    let mut input = line;
    let mut all = String::new();
    while let Some(event) = decoder.next(&mut input) {
        match event {
            Event::Text(text) => {
                all += &format!("text {}\n", text.escape_ascii());
            }
            Event::Broken(bytes) => {
                all += &format!("broken {}\n", bytes.len());
            }
            Event::Frame(frame) => {
                let tail = |tail: &[u8]| match tail.len() {
                    0 => String::new(),
                    length => format!(" + {length}"),
                };
                all += &match frame.kind {
                    Kind::PlainRequest => {
                        let (request, rest) =
                            Request::decode(frame.message).unwrap();
                        format!(
                            "{:?} {request:?}{}\n",
                            frame.coding,
                            tail(rest)
                        )
                    }
                    _ => {
                        let (reply, rest) =
                            Reply::decode(frame.message).unwrap();
                        format!("{:?} {reply:?}{}\n", frame.coding, tail(rest))
                    }
                };
            }
        }
    }
    all
}

/// The recordings are made by the agent's own test of the same name; what is
/// understood of a new one is written down by `E2WIRE_RECORD=v2` here, too.
fn check(name: &str) {
    let folder =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/it/transcripts");
    for side in ["requests", "replies"] {
        let line = folder.join(format!("{name}.{side}"));
        let understood = understood(&fs::read(line).unwrap());
        let text = folder.join(format!("{name}.{side}.txt"));
        if std::env::var_os("E2WIRE_RECORD").is_some_and(|it| it == name) {
            fs::write(&text, &understood).unwrap();
        }
        assert_eq!(understood, fs::read_to_string(text).unwrap());
    }
}

#[test]
fn version_1_is_still_understood() {
    check("v1");
}

#[test]
fn version_2_is_still_understood() {
    check("v2");
}
