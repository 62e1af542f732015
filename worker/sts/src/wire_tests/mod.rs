//! What the wire may bring, and what becomes of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use super::fact::{
    AckStatus, BackpressureAction, CompleteStats, FactKind, MAX_DELAY, MalformedKind,
};
use super::wire::{read, read_refusal};

mod processed;
mod random;

const STREAM: &str = "match-7";
const ID: &str = "7c1f0c52-6f0e-4d0f-9f5c-2b8d3a1e4f60";

fn one(name: &str, payload: Value) -> FactKind {
    let mut facts = read(name, vec![payload], STREAM);
    assert_eq!(facts.len(), 1, "{facts:?}");
    facts.remove(0)
}

/// The kinds of broken rules, in order, and the fact that was understood all the same.
fn split(facts: Vec<FactKind>) -> (Vec<MalformedKind>, Option<FactKind>) {
    let mut kinds = vec![];
    let mut rest = vec![];
    for fact in facts {
        match fact {
            FactKind::Malformed { kind, .. } => kinds.push(kind),
            other => rest.push(other),
        }
    }
    assert!(rest.len() <= 1, "{rest:?}");
    (kinds, rest.pop())
}

fn golden(dir: &str) -> Vec<(PathBuf, String, Value)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../fixtures/sts")
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
            !matches!(fact, FactKind::Malformed { .. }),
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
        FactKind::Acked {
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
        (vec![MalformedKind::BadValue], None)
    );
    assert_eq!(
        one(
            "stream:ready",
            json!({ "stream_id": STREAM, "session_id": "s1", "max_inflight": -2 })
        ),
        FactKind::Ready {
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
            vec![MalformedKind::WrongType, MalformedKind::WrongType],
            Some(FactKind::Ready {
                max_inflight: None,
                session_id: None
            })
        )
    );
    assert_eq!(
        one("stream:ready", json!({ "max_inflight": 1e300 })),
        FactKind::Ready {
            max_inflight: Some(i64::MAX),
            session_id: None
        }
    );
    assert_eq!(
        one(
            "stream:complete",
            json!({ "total_fragments": 10, "statistics": { "success_count": 9.0 } })
        ),
        FactKind::Complete {
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
        Some(FactKind::Backpressure {
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
            vec![MalformedKind::BadValue],
            report(BackpressureAction::SlowDown, None)
        )
    );
    assert_eq!(
        load(json!({ "action": "slow_down", "recommended_delay_ms": 1e18 })),
        (
            vec![MalformedKind::BadValue],
            Some(FactKind::Backpressure {
                action: BackpressureAction::SlowDown,
                delay: Some(MAX_DELAY)
            })
        )
    );
    assert_eq!(
        load(json!({ "action": "explode" })),
        (vec![MalformedKind::BadValue], None)
    );
    assert_eq!(
        load(json!({ "action": null })),
        (vec![MalformedKind::MissingField], None)
    );
}

#[test]
fn errors_keep_what_is_needed_to_act_and_no_more() {
    let FactKind::Error {
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
    assert_eq!(
        kinds,
        [MalformedKind::WrongType, MalformedKind::MissingField]
    );
    assert!(
        matches!(&fact, Some(FactKind::Error { code, fatal: true, .. }) if code == "UNKNOWN"),
        "{fact:?}"
    );
}

#[test]
fn what_is_not_about_us_changes_nothing() {
    for name in sts_protocol::event::FROM_STS {
        let other = json!({ "stream_id": "match-8", "fragment_id": ID, "status": "queued",
                            "action": "pause", "code": "AUTH_FAILED", "max_inflight": 1 });
        assert_eq!(
            split(read(name, vec![other], STREAM)),
            (vec![MalformedKind::BadValue], None),
            "{name}"
        );
        let odd = json!({ "stream_id": 7 });
        assert_eq!(
            split(read(name, vec![odd], STREAM)),
            (vec![MalformedKind::WrongType], None),
            "{name}"
        );
    }
}

#[test]
fn payloads_that_are_no_object() {
    for name in sts_protocol::event::FROM_STS {
        for (args, expected) in [
            (vec![], MalformedKind::MissingField),
            (vec![json!(null)], MalformedKind::MissingField),
            (vec![json!([1])], MalformedKind::WrongType),
            (vec![json!("x")], MalformedKind::WrongType),
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
            vec![MalformedKind::BadValue],
            Some(FactKind::Backpressure {
                action: BackpressureAction::None,
                delay: None
            })
        )
    );
    assert_eq!(
        read(&"evil\n".repeat(100), vec![], STREAM),
        [FactKind::Malformed {
            kind: MalformedKind::UnknownEvent,
            count: 1,
            detail: format!("{}…", "evil ".repeat(13).get(..64).unwrap()),
        }]
    );
}

#[test]
fn refusals_are_final_unless_their_code_says_otherwise() {
    for (payload, code, message, retryable) in [
        (
            r#"{"message":"Connection rejected by server"}"#,
            "AUTH_FAILED",
            "Connection rejected by server",
            false,
        ),
        (
            r#"{"message":"AUTH_FAILED"}"#,
            "AUTH_FAILED",
            "AUTH_FAILED",
            false,
        ),
        (
            r#"{"message":"QUEUE_FULL: come back later"}"#,
            "QUEUE_FULL",
            "QUEUE_FULL: come back later",
            true,
        ),
        (
            r#"{"message":"no","data":{"code":"RATE_LIMIT","message":"slow down"}}"#,
            "RATE_LIMIT",
            "slow down",
            true,
        ),
        (
            r#"{"message":"no","code":"AUTH_FAILED","retryable":true}"#,
            "AUTH_FAILED",
            "no",
            false,
        ),
        (
            r#"{"message":"no","data":{"code":"MAINTENANCE","retryable":true}}"#,
            "MAINTENANCE",
            "no",
            true,
        ),
        (
            r#""Invalid namespace""#,
            "AUTH_FAILED",
            "Invalid namespace",
            false,
        ),
        (
            "",
            "AUTH_FAILED",
            "connection refused without a message",
            false,
        ),
        (
            "[[[",
            "AUTH_FAILED",
            "connection refused without a message",
            false,
        ),
    ] {
        let (refused, again) = read_refusal(payload);
        assert_eq!(
            (refused.code.as_str(), refused.message.as_str(), again),
            (code, message, retryable),
            "{payload}"
        );
    }
}
