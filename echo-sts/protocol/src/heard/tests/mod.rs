//! What the wire may bring, and what becomes of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use super::{BrokenRule, CompleteStats, Fact, MAX_DELAY, read_event, read_refusal};
use crate::{BackpressureAction, StsAckStatus as AckStatus, event};

mod processed;
mod random;

const STREAM: &str = "match-7";
/// Reads an event made of `name` and `args`.
fn read(name: &str, args: Vec<Value>, stream_id: &str) -> Vec<Fact> {
    let mut parts = vec![json!(name)];
    parts.extend(args);
    read_event(&Value::Array(parts).to_string(), &[], stream_id)
}

const ID: &str = "7c1f0c52-6f0e-4d0f-9f5c-2b8d3a1e4f60";

fn one(name: &str, payload: Value) -> Fact {
    let mut facts = read(name, vec![payload], STREAM);
    assert_eq!(facts.len(), 1, "{facts:?}");
    facts.remove(0)
}

/// The kinds of broken rules, in order, and the fact that was understood all the same.
fn split(facts: Vec<Fact>) -> (Vec<BrokenRule>, Option<Fact>) {
    let mut kinds = vec![];
    let mut rest = vec![];
    for fact in facts {
        match fact {
            Fact::Malformed { kind, .. } => kinds.push(kind),
            other => rest.push(other),
        }
    }
    assert!(rest.len() <= 1, "{rest:?}");
    (kinds, rest.pop())
}

fn golden(dir: &str) -> Vec<(PathBuf, String, Value)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fixtures/sts")
        .join(dir);
    let mut files: Vec<_> = fs::read_dir(&root)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    files.sort();
    files
        .into_iter()
        .map(|path| {
            let mut value: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            let name = value["event"].as_str().unwrap().to_owned();
            (path, name, value["payload"].take())
        })
        .collect()
}

#[test]
fn every_golden_message_of_a_service_is_understood_without_complaint() {
    let mut seen = 0;
    for (path, name, payload) in golden("sts") {
        let fact = one(&name, payload);
        assert!(
            !matches!(fact, Fact::Malformed { .. }),
            "{}: {fact:?}",
            path.display()
        );
        seen += 1;
    }
    assert!(seen >= 12, "only {seen} golden messages");
}

#[test]
fn sloppy_but_lawful_messages_are_understood_without_complaint() {
    let mut seen = 0;
    for (path, name, mut payload) in golden("lenient") {
        let from_sts = [
            "fragment-processed",
            "error",
            "backpressure",
            "stream-ready",
            "fragment-ack",
        ];
        let file = path.file_stem().unwrap().to_str().unwrap();
        if !from_sts.iter().any(|prefix| file.starts_with(prefix)) {
            continue;
        }
        // Whatever stream the file speaks of is ours.
        let stream = payload["stream_id"].take();
        let stream = stream.as_str().unwrap_or(STREAM);
        payload["stream_id"] = json!(stream);
        let (kinds, fact) = split(read(&name, vec![payload], stream));
        // A load report without an action asks for nothing that could be done.
        if file == "backpressure-defaults" {
            continue;
        }
        assert_eq!(kinds, [], "{file}");
        assert!(fact.is_some(), "{file}");
        seen += 1;
    }
    assert!(seen >= 6, "only {seen} lenient messages");
}

#[test]
fn acks_ready_complete_and_load_reports() {
    assert_eq!(
        one(
            "fragment:ack",
            json!({ "fragment_id": ID, "status": "processing", "queue_position": "x" })
        ),
        Fact::Acked {
            id: ID.into(),
            status: AckStatus::Processing
        }
    );
    assert_eq!(
        split(read(
            "fragment:ack",
            vec![json!({ "fragment_id": ID, "status": "applied" })],
            STREAM
        )),
        (vec![BrokenRule::BadValue], None)
    );
    assert_eq!(
        one(
            "stream:ready",
            json!({ "stream_id": STREAM, "session_id": "s1", "max_inflight": -2 })
        ),
        Fact::Ready {
            max_inflight: Some(-2),
            session_id: Some("s1".into())
        }
    );
    assert_eq!(
        split(read(
            "stream:ready",
            vec![json!({ "max_inflight": "3", "session_id": {} })],
            STREAM
        )),
        (
            vec![BrokenRule::WrongType, BrokenRule::WrongType],
            Some(Fact::Ready {
                max_inflight: None,
                session_id: None
            })
        )
    );
    assert_eq!(
        one("stream:ready", json!({ "max_inflight": 1e300 })),
        Fact::Ready {
            max_inflight: Some(i64::MAX),
            session_id: None
        }
    );
    assert_eq!(
        one(
            "stream:complete",
            json!({ "total_fragments": 10, "statistics": { "success_count": 9.0 } })
        ),
        Fact::Complete {
            stats: CompleteStats {
                total: Some(10),
                success: Some(9),
                partial: None,
                failed: None
            }
        }
    );
    let load = |payload: Value| split(read("backpressure", vec![payload], STREAM));
    let report = |action, delay: Option<u64>| {
        Some(Fact::Backpressure {
            action,
            delay: delay.map(Duration::from_millis),
        })
    };
    assert_eq!(
        load(json!({ "action": "slow_down", "recommended_delay_ms": 500 })),
        (vec![], report(BackpressureAction::SlowDown, Some(500)))
    );
    assert_eq!(
        load(json!({ "action": "pause", "recommended_delay_ms": null })),
        (vec![], report(BackpressureAction::Pause, None))
    );
    assert_eq!(
        load(json!({ "action": "slow_down", "recommended_delay_ms": -1 })),
        (
            vec![BrokenRule::BadValue],
            report(BackpressureAction::SlowDown, None)
        )
    );
    assert_eq!(
        load(json!({ "action": "slow_down", "recommended_delay_ms": 1e18 })),
        (
            vec![BrokenRule::BadValue],
            Some(Fact::Backpressure {
                action: BackpressureAction::SlowDown,
                delay: Some(MAX_DELAY)
            })
        )
    );
    assert_eq!(
        load(json!({ "action": "explode" })),
        (vec![BrokenRule::BadValue], None)
    );
    assert_eq!(
        load(json!({ "action": null })),
        (vec![BrokenRule::MissingField], None)
    );
}

#[test]
fn errors_keep_what_is_needed_to_act_and_no_more() {
    let Fact::Error {
        code,
        retryable,
        fatal,
        id,
        message,
    } = one(
        "error",
        json!({ "code": "AUTH_FAILED", "message": format!("no\n\u{1b}[31m{}", "x".repeat(5_000)), "fragment_id": ID }),
    )
    else {
        panic!()
    };
    assert_eq!(
        (code.as_str(), retryable, fatal, id.as_deref()),
        ("AUTH_FAILED", false, true, Some(ID))
    );
    assert_eq!(message.chars().count(), 301);
    assert!(!message.contains(char::is_control));
    let (kinds, fact) = split(read(
        "error",
        vec![json!({ "message": 5, "severity": "fatal" })],
        STREAM,
    ));
    assert_eq!(kinds, [BrokenRule::WrongType, BrokenRule::MissingField]);
    assert!(
        matches!(&fact, Some(Fact::Error { code, fatal: true, .. }) if code == "UNKNOWN"),
        "{fact:?}"
    );
}

#[test]
fn what_is_not_about_us_changes_nothing() {
    for name in event::FROM_STS {
        let other = json!({ "stream_id": "match-8", "fragment_id": ID, "status": "queued",
                            "action": "pause", "code": "AUTH_FAILED", "max_inflight": 1 });
        assert_eq!(
            split(read(name, vec![other], STREAM)),
            (vec![BrokenRule::BadValue], None),
            "{name}"
        );
        let odd = json!({ "stream_id": 7 });
        assert_eq!(
            split(read(name, vec![odd], STREAM)),
            (vec![BrokenRule::WrongType], None),
            "{name}"
        );
    }
}

#[test]
fn payloads_that_are_no_object() {
    for name in event::FROM_STS {
        for (args, expected) in [
            (vec![], BrokenRule::MissingField),
            (vec![json!(null)], BrokenRule::MissingField),
            (vec![json!([1])], BrokenRule::WrongType),
            (vec![json!("x")], BrokenRule::WrongType),
        ] {
            assert_eq!(
                split(read(name, args, STREAM)),
                (vec![expected], None),
                "{name}"
            );
        }
    }
    let twice = vec![json!({ "action": "none" }), json!({ "action": "pause" })];
    assert_eq!(
        split(read("backpressure", twice, STREAM)),
        (
            vec![BrokenRule::BadValue],
            Some(Fact::Backpressure {
                action: BackpressureAction::None,
                delay: None
            })
        )
    );
    assert_eq!(
        read(&"evil\n".repeat(100), vec![], STREAM),
        [Fact::Malformed {
            kind: BrokenRule::UnknownEvent,
            detail: format!("{}…", "evil ".repeat(13).get(..64).unwrap()),
        }]
    );
}

#[test]
fn a_refusal_has_a_code_only_if_the_service_gives_one() {
    for (payload, code, message) in [
        (
            r#"{"message":"Connection rejected by server"}"#,
            "UNKNOWN",
            "Connection rejected by server",
        ),
        (r#"{"message":"AUTH_FAILED"}"#, "AUTH_FAILED", "AUTH_FAILED"),
        (
            r#"{"message":"QUEUE_FULL: come back later"}"#,
            "QUEUE_FULL",
            "QUEUE_FULL: come back later",
        ),
        (
            r#"{"message":"no","data":{"code":"RATE_LIMIT","message":"slow down"}}"#,
            "RATE_LIMIT",
            "slow down",
        ),
        (
            r#"{"message":"no","code":"AUTH_FAILED","retryable":true}"#,
            "AUTH_FAILED",
            "no",
        ),
        (r#""Invalid namespace""#, "UNKNOWN", "Invalid namespace"),
        ("", "UNKNOWN", "connection refused without a message"),
        ("[[[", "UNKNOWN", "connection refused without a message"),
    ] {
        let refused = read_refusal(payload);
        assert_eq!(
            (refused.code.as_str(), refused.message.as_str()),
            (code, message),
            "{payload}"
        );
    }
}

/// An answer with `audio` in it and `more` fields around.
fn answer(audio: &str, more: &str) -> String {
    format!(
        r#"["fragment:processed",{{"fragment_id":"{ID}","status":"success","dubbed_audio":{audio}{more}}}]"#
    )
}

fn bytes_of(fact: Option<Fact>) -> Vec<u8> {
    match fact {
        Some(Fact::Processed {
            outcome: super::Outcome::Audio(audio),
            ..
        }) => audio.bytes.to_vec(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_not_quite_json_is_named_and_the_dub_is_used() {
    for more in [
        r#","processing_time_ms":NaN"#,
        r#","metadata":{"confidence":-Infinity,"x":[Infinity]}"#,
        r#","sequence_number":1e999"#,
        r#","error":{"message":"\ud83d"}"#,
    ] {
        let json = answer(r#"{"format":"wav","data_base64":"UklGRg=="}"#, more);
        let (kinds, fact) = split(read_event(&json, &[], STREAM));
        assert_eq!(kinds, [BrokenRule::BadJson], "{more}");
        assert_eq!(bytes_of(fact), b"RIFF");
    }
    // Text that nobody looks at is not even looked into.
    let json = answer(
        r#"{"format":"wav","data_base64":"UklGRg=="}"#,
        r#","transcript":"\udc00"#,
    ) + "";
    let json = json.replace(r"\udc00", "\\udc00\"");
    assert_eq!(bytes_of(split(read_event(&json, &[], STREAM)).1), b"RIFF");
}

#[test]
fn an_answer_that_cannot_be_read_fails_its_fragment_at_once() {
    let json = answer("{]", "");
    let (kinds, fact) = split(read_event(&json, &[], STREAM));
    assert_eq!(kinds, [BrokenRule::BadJson]);
    assert!(
        matches!(&fact, Some(Fact::Processed { id, outcome: super::Outcome::BadAudio { .. }, .. }) if id == ID),
        "{fact:?}"
    );
    for json in [
        "",
        "[",
        "{}",
        "7",
        r#"["fragment:processed",{"fragment_id":"x"#,
    ] {
        let (kinds, fact) = split(read_event(json, &[], STREAM));
        assert_eq!((kinds, fact), (vec![BrokenRule::BadJson], None), "{json}");
    }
}

#[test]
fn bytes_beside_the_text_are_audio() {
    let part = r#"{"_placeholder":true,"num":0}"#;
    let parts = [bytes::Bytes::from_static(b"OggS")];
    for audio in [
        part.to_owned(),
        format!(r#"{{"format":"ogg","data_base64":{part}}}"#),
        format!(r#"{{"format":"ogg","data":{part}}}"#),
        format!(r#"{{"format":"ogg","bytes":{part},"data_base64":null}}"#),
    ] {
        let json = answer(&audio, "");
        let (kinds, fact) = split(read_event(&json, &parts, STREAM));
        assert_eq!(
            (kinds, bytes_of(fact)),
            (vec![], b"OggS".to_vec()),
            "{audio}"
        );
        let (kinds, _) = split(read_event(&json, &[], STREAM));
        assert_eq!(kinds, [BrokenRule::MissingField], "{audio}");
    }
}

#[test]
fn base64_as_services_write_it() {
    for text in [
        "+/+/UklG",
        "-_-_UklG",
        r"+/+/\r\nUklG\n",
        "data:audio/wav;base64,+/+/UklG",
    ] {
        let json = answer(&format!(r#"{{"format":"wav","data_base64":"{text}"}}"#), "");
        let (kinds, fact) = split(read_event(&json, &[], STREAM));
        assert_eq!(
            (kinds, bytes_of(fact)),
            (vec![], b"\xfb\xff\xbfRIF".to_vec()),
            "{text}"
        );
    }
}
