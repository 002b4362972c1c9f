//! The protocol as the other side sees it: bytes.

mod messages;
mod overhead;
mod transcripts;
mod wire_v1;
mod wire_v2;
mod wire_v3;
