//! Services that say too much, or the wrong thing.

mod support;

use std::time::{Duration, Instant};

use dub_engine::{BackpressureAction, Outcome, ProtocolErrorKind, SessionFact};
use futures_util::SinkExt as _;
use serde_json::{Value, json};
use sts_client::StsClientConfig;
use support::{Peer, STREAM, Worker, config, fragment, listen};
use tokio::io::AsyncWriteExt as _;
use tokio::time::sleep;
use tokio_tungstenite::tungstenite::Message;

async fn pair() -> (Worker, Peer) {
    let (listener, url) = listen().await;
    let patient = StsClientConfig {
        max_silence: Duration::from_secs(35),
        ..config(&url)
    };
    let mut worker = Worker::connect(patient);
    let peer = Peer::joined(&listener).await;
    worker.connected(1).await;
    (worker, peer)
}

fn answer(sequence: u64, audio: &Value) -> Value {
    json!({ "fragment_id": fragment(sequence, 0).id, "stream_id": STREAM, "status": "success",
            "sequence_number": sequence, "processing_time_ms": 5, "dubbed_audio": audio })
}

fn audio(base64: &str) -> Value {
    json!({ "format": "m4a", "sample_rate_hz": 48000, "channels": 2, "duration_ms": 6000,
            "data_base64": base64 })
}

/// The link still works both ways.
async fn still_alive(worker: &mut Worker, peer: &mut Peer) {
    worker.client.init(1);
    assert_eq!(peer.received().await.0, "stream:init");
    peer.event(
        "stream:ready",
        &json!({ "stream_id": STREAM, "session_id": "s", "max_inflight": 3 }),
    )
    .await;
    let kind = worker.kind(1).await;
    assert_eq!(
        kind,
        SessionFact::Ready {
            link: 1,
            max_inflight: Some(3)
        }
    );
}

#[tokio::test]
async fn events_that_break_the_rules_are_named_and_cost_nothing_else() {
    let (mut worker, mut peer) = pair().await;
    for (packet, expected) in [
        (
            r#"42["fragment:ack",null]"#,
            ProtocolErrorKind::MissingField,
        ),
        (r#"42["fragment:ack"]"#, ProtocolErrorKind::MissingField),
        (r#"42["fragment:ack",[]]"#, ProtocolErrorKind::WrongType),
        (
            r#"42["fragment:ack",{"fragment_id":5,"status":"queued"}]"#,
            ProtocolErrorKind::WrongType,
        ),
        (
            r#"42["stream:surprise",{}]"#,
            ProtocolErrorKind::UnknownEvent,
        ),
        (r#"42["surprise"]"#, ProtocolErrorKind::UnknownEvent),
        (r#"42["connect",{}]"#, ProtocolErrorKind::UnknownEvent),
        (r#"42["close",{}]"#, ProtocolErrorKind::UnknownEvent),
        (r#"42["message",{}]"#, ProtocolErrorKind::UnknownEvent),
        (r"42[5,{}]", ProtocolErrorKind::UnknownEvent),
        (r#"42["error",null]"#, ProtocolErrorKind::MissingField),
        (r#"42["error",7]"#, ProtocolErrorKind::WrongType),
        (
            r#"42["error","Error while parsing"]"#,
            ProtocolErrorKind::WrongType,
        ),
        ("42[]", ProtocolErrorKind::MissingField),
        (
            r#"4299["backpressure",{"action":null}]"#,
            ProtocolErrorKind::MissingField,
        ),
        (
            r#"42["backpressure",{"action":"none"},{}]"#,
            ProtocolErrorKind::BadValue,
        ),
    ] {
        peer.raw(packet).await;
        match worker.kind(1).await {
            SessionFact::Malformed {
                link: _,
                kind,
                count: 1,
                detail,
            } => {
                assert_eq!(kind, expected, "{packet}: {detail}");
                assert!(detail.len() < 120, "{packet}: {detail}");
            }
            other => panic!("{packet}: {other:?}"),
        }
    }
    // The last one was understood besides.
    let kind = worker.kind(1).await;
    assert_eq!(
        kind,
        SessionFact::Backpressure {
            link: 1,
            action: BackpressureAction::None,
            delay: None
        }
    );
    // A packet for another namespace, and an ack nobody asked for, are nobody's business.
    peer.raw("42/other,[\"fragment:ack\",{}]").await;
    peer.raw("431[]").await;
    still_alive(&mut worker, &mut peer).await;
}

#[tokio::test]
async fn an_event_named_error_is_the_protocols_not_the_librarys() {
    let (mut worker, mut peer) = pair().await;
    peer.event(
        "error",
        &json!({ "code": "QUEUE_FULL", "message": "4 of 3", "severity": "warning" }),
    )
    .await;
    assert_eq!(
        worker.kind(1).await,
        SessionFact::StsError {
            link: 1,
            code: "QUEUE_FULL".into(),
            retryable: true,
            fatal: false,
            id: None,
            message: "4 of 3".into()
        }
    );
    still_alive(&mut worker, &mut peer).await;
}

#[tokio::test]
async fn ten_thousand_events_in_a_second() {
    let (mut worker, mut peer) = pair().await;
    let start = Instant::now();
    let flood = tokio::spawn(async move {
        for n in 0..10_000 {
            peer.event("who:knows", &json!({ "n": n })).await;
        }
        peer.event("backpressure", &json!({ "action": "pause" }))
            .await;
        peer
    });
    let mut named = 0;
    let mut dropped = 0;
    let paused = loop {
        match worker.kind(1).await {
            SessionFact::Malformed {
                link: _,
                kind: ProtocolErrorKind::UnknownEvent,
                count,
                ..
            } => named += count,
            SessionFact::Malformed {
                link: _,
                kind: ProtocolErrorKind::Flood,
                count,
                ..
            } => dropped += count,
            other => break other,
        }
    };
    let took = start.elapsed();
    assert!(matches!(
        paused,
        SessionFact::Backpressure {
            link: _,
            action: BackpressureAction::Pause,
            ..
        }
    ));
    assert_eq!(named + dropped, 10_000, "{named} named, {dropped} dropped");
    assert!(took < Duration::from_secs(5), "{took:?}");
    let mut peer = flood.await.expect("flood");
    still_alive(&mut worker, &mut peer).await;
}

#[tokio::test]
async fn binary_attachments_are_audio() {
    let (mut worker, mut peer) = pair().await;
    let id = fragment(0, 0).id;
    let event = format!(
        r#"451-["fragment:processed",{{"fragment_id":"{id}","status":"success","dubbed_audio":{{"format":"wav","data_base64":{{"_placeholder":true,"num":0}}}}}}]"#
    );
    peer.raw(event.clone()).await;
    // Pings come whenever they come.
    peer.ping().await;
    let part = Message::binary(b"RIFF".to_vec());
    peer.socket.send(part.clone()).await.expect("attachment");
    let kind = worker.kind(1).await;
    assert!(
        matches!(
            kind,
            SessionFact::Processed {
                outcome: Outcome::Audio,
                ..
            }
        ),
        "{kind:?}"
    );
    let audio = worker.audio.take().expect("audio").expect("good audio");
    assert_eq!(
        (&audio.bytes[..], audio.format.as_str()),
        (&b"RIFF"[..], "wav")
    );
    // Without its attachment the event is still one about its fragment.
    peer.raw(event.clone()).await;
    peer.event("backpressure", &json!({ "action": "none" }))
        .await;
    assert!(matches!(
        worker.kind(1).await,
        SessionFact::Malformed { .. }
    ));
    assert!(matches!(
        worker.kind(1).await,
        SessionFact::Processed { .. }
    ));
    assert!(matches!(worker.audio, Some(Err(_))));
    assert!(matches!(
        worker.kind(1).await,
        SessionFact::Backpressure { .. }
    ));
    // Binary where text is expected, and more attachments than anything has.
    peer.socket.send(part.clone()).await.expect("binary");
    assert!(matches!(
        worker.kind(1).await,
        SessionFact::Malformed {
            kind: ProtocolErrorKind::WrongType,
            ..
        }
    ));
    peer.raw(event.replace("451-", "459-")).await;
    for _ in 0..10 {
        peer.socket.send(part.clone()).await.expect("binary");
    }
    assert!(matches!(
        worker.kind(1).await,
        SessionFact::Malformed {
            kind: ProtocolErrorKind::Oversize,
            ..
        }
    ));
    assert!(matches!(
        worker.kind(1).await,
        SessionFact::Processed { .. }
    ));
    // The tenth belongs to nothing.
    assert!(matches!(
        worker.kind(1).await,
        SessionFact::Malformed {
            kind: ProtocolErrorKind::WrongType,
            ..
        }
    ));
    still_alive(&mut worker, &mut peer).await;
}

#[tokio::test]
async fn what_cannot_be_read_costs_one_event() {
    let (mut worker, mut peer) = pair().await;
    let good = format!(
        "42{}",
        json!(["fragment:processed", answer(0, &audio("AAAA"))])
    );
    for packet in [
        "49",
        "42[",
        "4",
        "x",
        "451-[\"a\"]junk",
        "42not json",
        "45[]",
    ] {
        peer.raw(packet).await;
        if packet.starts_with("451-") {
            // Its attachment.
            peer.socket
                .send(Message::binary(vec![1]))
                .await
                .expect("binary");
        }
        let kind = worker.kind(1).await;
        assert!(
            matches!(
                kind,
                SessionFact::Malformed {
                    kind: ProtocolErrorKind::BadJson,
                    ..
                }
            ),
            "{packet}: {kind:?}"
        );
    }
    // Nothing wrong with the dub.
    for odd in [
        good.replace("\"processing_time_ms\":5", "\"processing_time_ms\":NaN"),
        good.replace(
            "\"processing_time_ms\":5",
            "\"error\":{\"message\":\"\\ud83d\"}",
        ),
    ] {
        assert_ne!(odd, good);
        peer.raw(odd).await;
        assert!(matches!(
            worker.kind(1).await,
            SessionFact::Malformed {
                kind: ProtocolErrorKind::BadJson,
                ..
            }
        ));
        assert!(matches!(
            worker.kind(1).await,
            SessionFact::Processed { .. }
        ));
        assert!(matches!(worker.audio, Some(Ok(_))));
    }
    // Not UTF-8: the fragment falls back at once.
    let mut frame = good
        .replace("\"processing_time_ms\":5", "\"transcript\":\"?\"")
        .into_bytes();
    let at = frame.iter().rposition(|byte| *byte == b'?').expect("there");
    frame[at] = 0xff;
    let mut wire = vec![0x81, 126];
    wire.extend(u16::try_from(frame.len()).expect("short").to_be_bytes());
    wire.extend(frame);
    peer.socket.get_mut().write_all(&wire).await.expect("frame");
    assert!(matches!(
        worker.kind(1).await,
        SessionFact::Malformed {
            kind: ProtocolErrorKind::BadJson,
            ..
        }
    ));
    let kind = worker.kind(1).await;
    assert!(
        matches!(&kind, SessionFact::Processed { id, .. } if *id == fragment(0, 0).id),
        "{kind:?}"
    );
    assert!(matches!(worker.audio, Some(Err(_))));
    still_alive(&mut worker, &mut peer).await;
}

#[tokio::test]
async fn the_end_is_told_even_behind_a_flood() {
    let (mut worker, mut peer) = pair().await;
    for _ in 0..5_000 {
        peer.event("backpressure", &json!({ "action": "none" }))
            .await;
    }
    peer.raw("41").await;
    sleep(Duration::from_millis(300)).await;
    let (mut told, mut dropped) = (0, 0);
    for kind in worker.ended(1).await.before {
        match kind {
            SessionFact::Backpressure { .. } => told += 1,
            SessionFact::Malformed {
                link: _,
                kind: ProtocolErrorKind::Flood,
                count,
                ..
            } => dropped += count,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(told + dropped, 5_000, "{told} told, {dropped} dropped");
}

#[tokio::test]
async fn audio_of_every_size() {
    let (mut worker, mut peer) = pair().await;
    // 10 MiB of base64 is allowed.
    peer.event(
        "fragment:processed",
        &answer(0, &audio(&"A".repeat(10 << 20))),
    )
    .await;
    match worker.kind(1).await {
        SessionFact::Processed {
            link: _,
            outcome: Outcome::Audio,
            ..
        } => {
            let audio = worker.audio.take().expect("audio").expect("good audio");
            assert_eq!(audio.bytes.len(), (10 << 20) / 4 * 3);
        }
        other => panic!("{other:?}"),
    }
    // 14 MB is read but refused; the fragment falls back at once.
    peer.event(
        "fragment:processed",
        &answer(1, &audio(&"A".repeat(14_000_000))),
    )
    .await;
    oversize_and_fails(&mut worker, 1).await;
    still_alive(&mut worker, &mut peer).await;
    // 20 MB is more than is kept: the fragment falls back at once all the same, wherever its id stands.
    let huge = json!([
        "fragment:processed",
        answer(2, &audio(&"A".repeat(20_000_000)))
    ]);
    let huge = format!("42{huge}");
    let id_first = huge.replacen(
        '{',
        &format!("{{\"fragment_id\":\"{}\",", fragment(3, 0).id),
        1,
    );
    for (n, text) in [(2, huge), (3, id_first)] {
        peer.raw(text).await;
        oversize_and_fails(&mut worker, n).await;
    }
    // As bytes it is too large as well, and beyond what is kept an attachment that is not there.
    for (n, size, named) in [
        (4, 12_000_000, ProtocolErrorKind::Oversize),
        (5, 20_000_000, ProtocolErrorKind::BadValue),
    ] {
        peer.raw(
            json!([
                "fragment:processed",
                answer(n, &json!({ "_placeholder": true, "num": 0 }))
            ])
            .to_string()
            .replacen('[', "451-[", 1),
        )
        .await;
        let bytes = Message::binary(vec![0; size]);
        peer.socket.send(bytes).await.expect("attachment");
        let kind = worker.kind(1).await;
        assert!(
            matches!(kind, SessionFact::Malformed { kind, .. } if kind == named),
            "{kind:?}"
        );
        let kind = worker.kind(1).await;
        assert!(
            matches!(&kind, SessionFact::Processed { id, .. } if *id == fragment(n, 0).id)
                && matches!(worker.audio, Some(Err(_))),
            "{kind:?}"
        );
    }
    still_alive(&mut worker, &mut peer).await;
}

async fn oversize_and_fails(worker: &mut Worker, sequence: u64) {
    let kind = worker.kind(1).await;
    assert!(
        matches!(
            kind,
            SessionFact::Malformed {
                kind: ProtocolErrorKind::Oversize,
                ..
            }
        ),
        "{kind:?}"
    );
    let kind = worker.kind(1).await;
    let ours = fragment(sequence, 0).id;
    assert!(
        matches!(&kind, SessionFact::Processed { id, outcome: Outcome::Audio, .. } if *id == ours)
            && matches!(worker.audio, Some(Err(_))),
        "{kind:?}"
    );
}

#[tokio::test]
async fn undecodable_audio_fails_its_fragment() {
    let (mut worker, mut peer) = pair().await;
    for (n, base64) in ["", "not base64!", "AAAAA"].into_iter().enumerate() {
        peer.event("fragment:processed", &answer(n as u64, &audio(base64)))
            .await;
        assert!(matches!(
            worker.kind(1).await,
            SessionFact::Malformed {
                link: _,
                kind: ProtocolErrorKind::BadValue,
                ..
            }
        ));
        let kind = worker.kind(1).await;
        let SessionFact::Processed {
            link: _,
            id,
            outcome: Outcome::Audio,
            ..
        } = kind
        else {
            panic!("{kind:?}")
        };
        assert_eq!(id, fragment(n as u64, 0).id);
    }
}

#[tokio::test]
async fn a_peer_cannot_make_the_worker_queue_without_bound() {
    let (mut worker, peer) = pair().await;
    // The peer reads nothing, and the driver goes on ordering: 12 x 7 MB are more than may wait.
    for n in 0..12 {
        worker.client.send(1, fragment(n, 7 << 20));
    }
    let ended = worker.ended(1).await;
    assert!(
        ended
            .reason
            .contains("more messages than the service takes"),
        "{ended:?}"
    );
    drop(peer);
}

/// Pings cost a turn each like anything else.
#[tokio::test]
async fn a_flood_of_pings_is_slowed_down() {
    let (mut worker, mut peer) = pair().await;
    let start = Instant::now();
    let flood = tokio::spawn(async move {
        for _ in 0..5_000 {
            peer.raw("2").await;
        }
        peer.event("backpressure", &json!({ "action": "pause" }))
            .await;
        peer
    });
    let paused = worker.kind(1).await;
    assert!(
        matches!(paused, SessionFact::Backpressure { .. }),
        "{paused:?}"
    );
    assert!(
        start.elapsed() > Duration::from_millis(700),
        "{:?}",
        start.elapsed()
    );
    let mut peer = flood.await.expect("flood");
    still_alive(&mut worker, &mut peer).await;
}
