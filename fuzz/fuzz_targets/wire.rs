//! What an STS service may send, from the first byte of a frame to the engine's facts.
//!
//! `cargo +nightly fuzz run wire`; a short run with a fixed seed is in worker/sts/tests/readers.rs.

#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use sts_client::readers::{Incoming, Packet, Reader, read};
use sts_protocol::heard;

fuzz_target!(|data: &[u8]| {
    // The text readers alone, and all of it through frames.
    packet(&String::from_utf8_lossy(data));
    let mut input = BytesMut::from(data);
    let mut reader = Reader::default();
    while let Ok(Some(incoming)) = reader.next(&mut input) {
        if let Incoming::Text(bytes) = incoming {
            packet(&String::from_utf8_lossy(&bytes));
        }
    }
});

fn packet(text: &str) {
    match read(text) {
        Packet::Event { json, .. } => drop(heard::read_event(json, &[], "stream")),
        Packet::Refused(json) => drop(heard::read_refusal(json)),
        _ => {}
    }
}
