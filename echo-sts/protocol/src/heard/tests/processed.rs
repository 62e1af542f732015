//! `fragment:processed`: audio, failures, and what is neither.

use crate::limits;
use serde_json::{Value, json};

use super::super::{BrokenRule, Fact, Outcome};
use super::{ID, STREAM, one, read, split};

#[test]
fn audio_comes_out_as_bytes() {
    let fact = one(
        "fragment:processed",
        json!({
            "fragment_id": ID, "stream_id": STREAM, "sequence_number": 3, "status": "success",
            "processing_time_ms": "not looked at", "transcript": 7,
            "dubbed_audio": { "format": "WAV", "sample_rate_hz": 24000, "channels": 1,
                              "duration_ms": 6016.4, "data_base64": "UklGRg==" },
            "error": null
        }),
    );
    let Fact::Processed {
        id,
        sequence: Some(3),
        outcome: Outcome::Audio(audio),
    } = fact
    else {
        panic!("{fact:?}")
    };
    assert_eq!(id, ID);
    assert_eq!(
        (audio.format.as_str(), &audio.bytes[..]),
        ("WAV", &b"RIFF"[..])
    );
    assert_eq!(
        (audio.sample_rate, audio.channels, audio.duration_ms),
        (Some(24_000), Some(1), Some(6_016))
    );
    assert_eq!(
        format!("{audio:?}"),
        "DubbedAudio { format: \"WAV\", sample_rate: Some(24000), channels: Some(1), \
         duration_ms: Some(6016), bytes: <4 bytes> }"
    );
}

#[test]
fn audio_that_cannot_be_used_fails_its_fragment_at_once() {
    use BrokenRule::{BadValue, MissingField, Oversize, WrongType};
    let audio = |patch: Value| {
        let mut audio = json!({ "format": "m4a", "sample_rate_hz": 48000, "channels": 2,
                                "duration_ms": 6000, "data_base64": "AAAA" });
        for (key, value) in patch.as_object().unwrap() {
            audio[key] = value.clone();
        }
        audio
    };
    let too_large = "A".repeat(limits::MAX_AUDIO_BASE64 + 4);
    let largest = "A".repeat(limits::MAX_AUDIO_BASE64);
    for (dubbed, expected) in [
        (json!(null), Some(MissingField)),
        (json!("AAAA"), Some(WrongType)),
        (json!([]), Some(WrongType)),
        (json!({}), Some(MissingField)),
        (audio(json!({ "data_base64": null })), Some(MissingField)),
        (audio(json!({ "data_base64": "" })), Some(BadValue)),
        (audio(json!({ "data_base64": 5 })), Some(WrongType)),
        (audio(json!({ "data_base64": "~~~~" })), Some(BadValue)),
        (audio(json!({ "data_base64": "AAAAA" })), Some(BadValue)),
        (audio(json!({ "data_base64": too_large })), Some(Oversize)),
        (audio(json!({ "data_base64": largest })), None),
        (audio(json!({ "data_base64": "AAA" })), None),
        (audio(json!({ "format": null })), Some(MissingField)),
        (audio(json!({ "format": 7 })), Some(WrongType)),
        (audio(json!({ "sample_rate_hz": "48000" })), Some(WrongType)),
        (audio(json!({ "sample_rate_hz": 0 })), Some(BadValue)),
        (audio(json!({ "sample_rate_hz": -1e300 })), Some(BadValue)),
        (audio(json!({ "sample_rate_hz": 22050.0 })), None),
        (
            audio(json!({ "sample_rate_hz": null, "channels": null, "duration_ms": null })),
            None,
        ),
        (
            audio(json!({ "format": "pcm_s16le", "channels": null })),
            Some(MissingField),
        ),
        (audio(json!({ "channels": 6 })), Some(BadValue)),
        (audio(json!({ "duration_ms": -4 })), None),
        (audio(json!({ "duration_ms": "6000" })), None),
        (audio(json!({ "duration_ms": [] })), None),
    ] {
        let shown: String = dubbed.to_string().chars().take(120).collect();
        let payload = json!({ "fragment_id": ID, "stream_id": STREAM, "sequence_number": 0,
                              "status": "success", "dubbed_audio": dubbed });
        let (kinds, fact) = split(read("fragment:processed", vec![payload], STREAM));
        assert_eq!(kinds, expected.into_iter().collect::<Vec<_>>(), "{shown}");
        let Some(Fact::Processed { id, outcome, .. }) = fact else {
            panic!("{shown}")
        };
        assert_eq!(id, ID);
        let usable = matches!(outcome, Outcome::Audio(_));
        assert_eq!(usable, expected.is_none(), "{shown}");
        assert!(
            usable || matches!(outcome, Outcome::BadAudio { .. }),
            "{shown}"
        );
    }
}

#[test]
fn failures_carry_code_message_and_whether_they_count() {
    let failed = |error: Value| {
        let payload =
            json!({ "fragment_id": ID, "sequence_number": 1, "status": "failed", "error": error });
        let (kinds, fact) = split(read("fragment:processed", vec![payload], STREAM));
        let Some(Fact::Processed { outcome, .. }) = fact else {
            panic!("{fact:?}")
        };
        let Outcome::Failed {
            code, retryable, ..
        } = outcome
        else {
            panic!("{outcome:?}")
        };
        (kinds, code, retryable)
    };
    let named = |code: &str, retryable| (vec![], code.to_owned(), retryable);
    assert_eq!(failed(json!({ "code": "TIMEOUT" })), named("TIMEOUT", true));
    assert_eq!(
        failed(json!({ "code": "INVALID_SEQUENCE", "retryable": null })),
        named("INVALID_SEQUENCE", false)
    );
    assert_eq!(
        failed(json!({ "code": "SOLAR_FLARE" })),
        named("SOLAR_FLARE", false)
    );
    assert_eq!(
        failed(json!({ "code": "SOLAR_FLARE", "retryable": true })),
        named("SOLAR_FLARE", true)
    );
    assert_eq!(failed(json!(null)), named("UNKNOWN", false));
    let (kinds, code, _) = failed(json!("TIMEOUT"));
    assert_eq!(
        (kinds, code.as_str()),
        (vec![BrokenRule::WrongType], "UNKNOWN")
    );
    let (kinds, code, retryable) = failed(json!({ "code": 5, "retryable": "yes" }));
    assert_eq!(kinds, [BrokenRule::WrongType, BrokenRule::WrongType]);
    assert_eq!((code.as_str(), retryable), ("UNKNOWN", false));
}

#[test]
fn a_partial_result_is_used_if_there_is_audio() {
    let partial = |audio: Value| {
        one(
            "fragment:processed",
            json!({ "fragment_id": ID, "sequence_number": 0, "status": "partial",
                                          "dubbed_audio": audio, "error": { "code": "MODEL_ERROR" } }),
        )
    };
    let with = partial(json!({ "format": "mp3", "data_base64": "AAAA" }));
    assert!(
        matches!(
            with,
            Fact::Processed {
                outcome: Outcome::Audio(_),
                ..
            }
        ),
        "{with:?}"
    );
    let without = partial(json!(null));
    assert!(
        matches!(&without, Fact::Processed { outcome: Outcome::Failed { code, .. }, .. } if code == "MODEL_ERROR"),
        "{without:?}"
    );
}

#[test]
fn an_odd_status_fails_the_fragment_and_an_odd_id_is_no_fragment() {
    let (kinds, fact) = split(read(
        "fragment:processed",
        vec![json!({ "fragment_id": ID, "sequence_number": -3, "status": "done" })],
        STREAM,
    ));
    assert_eq!(kinds, [BrokenRule::BadValue, BrokenRule::BadValue]);
    let Some(Fact::Processed {
        sequence: None,
        outcome: Outcome::Failed {
            retryable: false, ..
        },
        ..
    }) = fact
    else {
        panic!("{fact:?}")
    };
    for (id, expected) in [
        (json!(null), BrokenRule::MissingField),
        (json!(12), BrokenRule::WrongType),
        (json!(""), BrokenRule::BadValue),
        (json!("x".repeat(129)), BrokenRule::BadValue),
        (json!("line\nbreak"), BrokenRule::BadValue),
    ] {
        for name in ["fragment:processed", "fragment:ack"] {
            let payload = json!({ "fragment_id": id, "status": "queued" });
            assert_eq!(
                split(read(name, vec![payload], STREAM)),
                (vec![expected], None),
                "{name} {id}"
            );
        }
    }
}
