//! Golden wire messages (`fixtures/sts`), both ways.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::{collections::BTreeSet, fs, path::PathBuf};

use serde_json::Value;
use sts_protocol::{
    Audio, ControlMessage, ErrorCode, FragmentData, Refusal, Severity, StsMessage, WorkerMessage,
    check_header_id, event, limits,
};

/// One direction's messages behind one interface.
enum Message {
    Worker(WorkerMessage),
    Sts(StsMessage),
    Control(ControlMessage),
}

impl Message {
    fn parse(direction: &str, name: &str, payload: Value) -> Result<Self, Refusal> {
        let known = match direction {
            "worker" => WorkerMessage::parse(name, payload).map(|m| m.map(Self::Worker)),
            "sts" => StsMessage::parse(name, payload).map(|m| m.map(Self::Sts)),
            "control" => ControlMessage::parse(name, payload).map(|m| m.map(Self::Control)),
            other => panic!("unknown direction {other}"),
        };
        known.unwrap_or_else(|| panic!("{direction} does not know event {name}"))
    }

    fn validate(&self) -> Result<(), Refusal> {
        match self {
            Self::Worker(WorkerMessage::Init(init)) => init.validate(),
            Self::Worker(WorkerMessage::Data(data)) => data.validate(),
            Self::Sts(StsMessage::Processed(processed)) => processed.validate(),
            _ => Ok(()),
        }
    }

    fn event(&self) -> &'static str {
        match self {
            Self::Worker(m) => m.event(),
            Self::Sts(m) => m.event(),
            Self::Control(m) => m.event(),
        }
    }

    fn payload(&self) -> Value {
        match self {
            Self::Worker(m) => m.payload(),
            Self::Sts(m) => m.payload(),
            Self::Control(m) => m.payload(),
        }
        .unwrap()
    }
}

/// Every golden file of a folder, by name.
fn goldens(folder: &str) -> Vec<(String, Value)> {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../fixtures/sts")
        .join(folder);
    let mut files: Vec<_> = fs::read_dir(&dir)
        .unwrap_or_else(|error| panic!("{}: {error}", dir.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no golden messages in {folder}");
    files
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            let value = serde_json::from_str(&text)
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            (
                format!("{folder}/{}", path.file_stem().unwrap().to_string_lossy()),
                value,
            )
        })
        .collect()
}

fn text<'a>(golden: &'a Value, key: &str) -> &'a str {
    golden[key]
        .as_str()
        .unwrap_or_else(|| panic!("golden without {key}: {golden}"))
}

#[test]
fn canonical_messages_come_back_as_the_same_json() {
    for (folder, names) in [
        ("worker", event::FROM_WORKER.as_slice()),
        ("sts", event::FROM_STS.as_slice()),
        ("control", event::CONTROL.as_slice()),
    ] {
        let mut seen = BTreeSet::new();
        for (file, golden) in goldens(folder) {
            let message = Message::parse(folder, text(&golden, "event"), golden["payload"].clone())
                .unwrap_or_else(|refusal| panic!("{file}: {refusal}"));
            message
                .validate()
                .unwrap_or_else(|refusal| panic!("{file}: {refusal}"));
            assert_eq!(message.payload(), golden["payload"], "{file}");
            assert_eq!(message.event(), text(&golden, "event"), "{file}");
            seen.insert(message.event());
        }
        assert_eq!(
            seen,
            names.iter().copied().collect(),
            "every {folder} event has a golden"
        );
    }
}

#[test]
fn sloppy_messages_are_read_as_what_they_mean() {
    for (file, golden) in goldens("lenient") {
        let direction = text(&golden, "direction");
        let message = Message::parse(direction, text(&golden, "event"), golden["payload"].clone())
            .unwrap_or_else(|refusal| panic!("{file}: {refusal}"));
        message
            .validate()
            .unwrap_or_else(|refusal| panic!("{file}: {refusal}"));
        assert_eq!(message.payload(), golden["reads_as"], "{file}");
    }
}

#[test]
fn broken_messages_are_refused_with_a_code_and_a_reason() {
    for (file, golden) in goldens("refused") {
        let direction = text(&golden, "direction");
        let refusal = Message::parse(direction, text(&golden, "event"), golden["payload"].clone())
            .and_then(|message| message.validate())
            .expect_err(&file);
        assert_eq!(refusal.code.as_str(), text(&golden, "code"), "{file}");
        let says = text(&golden, "says");
        assert!(
            refusal.message.contains(says),
            "{file}: {:?} lacks {says:?}",
            refusal.message
        );
    }
}

#[test]
fn an_event_of_the_other_side_is_not_known() {
    assert!(WorkerMessage::parse(event::STREAM_READY, Value::Null).is_none());
    assert!(StsMessage::parse(event::STREAM_INIT, Value::Null).is_none());
    assert!(ControlMessage::parse(event::ERROR, Value::Null).is_none());
}

#[test]
fn the_table_of_codes_is_the_protocols() {
    use Severity::{Error, Fatal, Warning};
    let table: Vec<_> = ErrorCode::KNOWN
        .iter()
        .map(|code| (code.as_str(), code.severity(), code.retryable()))
        .collect();
    assert_eq!(
        table,
        [
            ("AUTH_FAILED", Fatal, Some(false)),
            ("STREAM_NOT_FOUND", Error, Some(false)),
            ("INVALID_CONFIG", Error, Some(false)),
            ("FRAGMENT_TOO_LARGE", Error, Some(false)),
            ("INVALID_SEQUENCE", Error, Some(false)),
            ("TIMEOUT", Error, Some(true)),
            ("MODEL_ERROR", Error, Some(true)),
            ("GPU_OOM", Error, Some(true)),
            ("QUEUE_FULL", Warning, Some(true)),
            ("RATE_LIMIT", Warning, Some(true)),
        ]
    );
    assert_eq!(ErrorCode::from("NEW"), ErrorCode::Other("NEW".to_owned()));
    assert_eq!(ErrorCode::from("NEW").retryable(), None);
}

#[test]
fn audio_of_exactly_10_mib_is_accepted_and_one_byte_more_is_too_large() {
    let mut data = FragmentData {
        fragment_id: "7c1f0c52-6f0e-4d0f-9f5c-2b8d3a1e4f60".to_owned(),
        stream_id: "s".to_owned(),
        sequence_number: 0,
        timestamp: 0,
        audio: Audio {
            format: "m4a".to_owned(),
            sample_rate_hz: 48_000,
            channels: 2,
            duration_ms: 6_000,
            data_base64: "A".repeat(limits::MAX_AUDIO_BASE64),
        },
        metadata: None,
    };
    assert_eq!(data.validate(), Ok(()));
    data.audio.data_base64.push('A');
    assert_eq!(
        data.validate().unwrap_err().code,
        ErrorCode::FragmentTooLarge
    );
    assert!(
        format!("{data:?}").len() < 500,
        "Debug must not show the audio"
    );
}

#[test]
fn header_ids_follow_their_alphabet_and_length() {
    for good in ["a", "Match_7-b", &"x".repeat(64)] {
        assert_eq!(
            check_header_id(limits::STREAM_ID_HEADER, good),
            Ok(()),
            "{good}"
        );
    }
    for bad in ["", "a b", "ä", "a/b", &"x".repeat(65)] {
        let refusal = check_header_id(limits::STREAM_ID_HEADER, bad).unwrap_err();
        assert!(refusal.message.contains("X-Stream-ID"), "{refusal}");
    }
}
