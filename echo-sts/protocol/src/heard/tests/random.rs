//! Whatever arrives: no panic, and bounded words about it.

use base64::Engine as _;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};

use super::super::read_refusal;
use super::{STREAM, read};

/// Random JSON under real names and fields: never a panic, always bounded, always something said.
#[test]
fn nothing_on_the_wire_is_a_panic() {
    let mut random = StdRng::seed_from_u64(7);
    let events = crate::event::FROM_STS;
    for round in 0..20_000 {
        let name = events[random.random_range(0..events.len())];
        let args: Vec<Value> = (0..random.random_range(0..3))
            .map(|_| value(&mut random, 3))
            .collect();
        let facts = read(name, args, STREAM);
        assert!(
            !facts.is_empty() && facts.len() < 12,
            "round {round}: {facts:?}"
        );
        for fact in &facts {
            let shown = format!("{fact:?}");
            assert!(
                shown.len() < 2_000,
                "round {round}: {} bytes of {name}",
                shown.len()
            );
        }
        let _ = read_refusal(&value(&mut random, 3).to_string());
    }
}

fn value(random: &mut StdRng, depth: u32) -> Value {
    const KEYS: [&str; 16] = [
        "fragment_id",
        "stream_id",
        "sequence_number",
        "status",
        "dubbed_audio",
        "format",
        "sample_rate_hz",
        "channels",
        "duration_ms",
        "data_base64",
        "error",
        "code",
        "retryable",
        "action",
        "recommended_delay_ms",
        "max_inflight",
    ];
    const TEXTS: [&str; 10] = [
        "",
        "match-7",
        "success",
        "failed",
        "partial",
        "queued",
        "pause",
        "AAAA",
        "fatal",
        "\u{0}\u{202e}é",
    ];
    match random.random_range(0..if depth == 0 { 6 } else { 9 }) {
        0 => Value::Null,
        1 => json!(random.random::<bool>()),
        2 => json!(random.random::<i64>()),
        3 => json!(random.random_range(-1e300..1e300_f64)),
        4 => json!(TEXTS[random.random_range(0..TEXTS.len())]),
        5 => {
            let bytes: Vec<u8> = (0..random.random_range(0..400))
                .map(|_| random.random())
                .collect();
            json!(base64::engine::general_purpose::STANDARD.encode(bytes))
        }
        6 => (0..random.random_range(0..4))
            .map(|_| value(random, depth - 1))
            .collect(),
        _ => (0..random.random_range(0..10))
            .map(|_| {
                let key = KEYS[random.random_range(0..KEYS.len())].to_owned();
                (key, value(random, depth - 1))
            })
            .collect::<serde_json::Map<_, _>>()
            .into(),
    }
}
