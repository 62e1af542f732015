//! A short, repeatable run of what `fuzz/` does without end: bytes bent at random never panic, never
//! loop, and never cost more than they are.

use bytes::BytesMut;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use sts_client::readers::{Incoming, Packet, Reader, read};
use sts_protocol::heard;

const TEXTS: [&str; 10] = [
    r#"0{"sid":"x","upgrades":[],"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000}"#,
    "40{\"sid\":\"y\"}",
    "2",
    r#"44{"message":"no","data":{"code":"AUTH_FAILED"}}"#,
    r#"42["stream:ready",{"stream_id":"s","max_inflight":3,"capabilities":{"a":true}}]"#,
    r#"42["fragment:ack",{"fragment_id":"7c1f0c52-6f0e-4d0f-9f5c-2b8d3a1e4f60","status":"queued"}]"#,
    r#"42["fragment:processed",{"fragment_id":"7c1f0c52-6f0e-4d0f-9f5c-2b8d3a1e4f60","status":"success","processing_time_ms":NaN,"transcript":"\ud83d\ude00","dubbed_audio":{"format":"wav","sample_rate_hz":24000,"channels":1,"duration_ms":10,"data_base64":"UklGRg=="}}]"#,
    r#"451-["fragment:processed",{"dubbed_audio":{"_placeholder":true,"num":0}}]"#,
    r#"42/other,17["error",{"code":"QUEUE_FULL","message":"4 of 3","retryable":null}]"#,
    "41",
];

/// Frames as a server sends them.
fn frames(random: &mut StdRng) -> Vec<u8> {
    let mut wire = vec![];
    for _ in 0..random.random_range(1..5) {
        let text = TEXTS[random.random_range(0..TEXTS.len())].as_bytes();
        let (first, rest) = text.split_at(random.random_range(0..=text.len()));
        let whole = random.random::<bool>();
        for (opcode, part) in if whole {
            vec![(0x81, text)]
        } else {
            vec![(0x01, first), (0x80, rest)]
        } {
            wire.push(opcode);
            wire.push(126);
            wire.extend(u16::try_from(part.len()).expect("short").to_be_bytes());
            wire.extend(part);
        }
    }
    wire
}

fn take(text: &str) {
    match read(text) {
        Packet::Event { json, .. } => {
            for fact in heard::read_event(json, &[], "s") {
                assert!(format!("{fact:?}").len() < 2_000, "{text}");
            }
        }
        Packet::Refused(json) => assert!(heard::read_refusal(json).message.len() < 2_000),
        _ => {}
    }
}

#[test]
fn bytes_bent_at_random_are_read_or_refused() {
    let mut random = StdRng::seed_from_u64(12);
    let (mut messages, mut refused) = (0, 0);
    for round in 0..30_000 {
        let mut wire = frames(&mut random);
        // Every fourth is left as it is.
        for _ in 0..round % 4 {
            let at = random.random_range(0..wire.len());
            match random.random_range(0..4) {
                0 => wire[at] = random.random(),
                1 => wire[at] ^= 1 << random.random_range(0..8),
                2 => wire.insert(at, random.random()),
                _ => wire.truncate(at.max(1)),
            }
        }
        let (mut reader, mut input) = (Reader::default(), BytesMut::new());
        'wire: for part in wire.chunks(random.random_range(1..200)) {
            input.extend_from_slice(part);
            loop {
                match reader.next(&mut input) {
                    Ok(Some(Incoming::Text(bytes))) => {
                        messages += 1;
                        take(&String::from_utf8_lossy(&bytes));
                    }
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(_) => {
                        refused += 1;
                        break 'wire;
                    }
                }
            }
        }
    }
    assert!(
        messages > 30_000 && refused > 1_000,
        "{messages} read, {refused} refused"
    );
}
