//! A conversation as it should be: what the service sees of the worker, byte for byte.

mod support;

use std::time::{Duration, Instant};

use dub_engine::{AckStatus, Outcome, SessionFact};
use futures_util::{SinkExt as _, StreamExt as _};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::{TimeVal, TimeValLike as _};
use serde_json::{Value, json};
use sts_client::{InitParams, Secret, StsClient, StsClientConfig, StsConfigError};
use support::{Peer, STREAM, WORKER, Worker, config, fragment, listen, patient};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

/// Takes the only value that no test can know.
fn without_time(mut payload: Value) -> Value {
    let time = payload["timestamp"].take();
    assert!(
        time.as_u64().is_some_and(|ms| ms > 1_700_000_000_000),
        "{time}"
    );
    payload.as_object_mut().expect("object").remove("timestamp");
    payload
}

#[tokio::test]
async fn a_stream_from_init_to_complete() {
    let (listener, url) = listen().await;
    let init = InitParams {
        target_language: "de".into(),
        voice_profile: "anna".into(),
        max_inflight: 2,
        ..InitParams::default()
    };
    let mut worker = Worker::connect(StsClientConfig {
        init,
        ..patient(&url)
    });
    let mut peer = Peer::joined(&listener).await;
    assert_eq!(peer.path, "/socket.io/?EIO=4&transport=websocket");
    assert!(
        peer.headers
            .contains(&("x-stream-id".into(), STREAM.into())),
        "{:?}",
        peer.headers
    );
    assert!(
        peer.headers
            .contains(&("x-worker-id".into(), WORKER.into())),
        "{:?}",
        peer.headers
    );
    assert_eq!(peer.auth, None, "nothing to authenticate with");
    worker.connected(1).await;

    worker.client.init(1);
    let (name, payload) = peer.received().await;
    assert_eq!(name, "stream:init");
    assert_eq!(
        payload,
        json!({
            "stream_id": STREAM, "worker_id": WORKER, "max_inflight": 2, "timeout_ms": 8000,
            "config": {
                "source_language": "en", "target_language": "de", "voice_profile": "anna",
                "chunk_duration_ms": 6000, "sample_rate_hz": 48000, "channels": 2, "format": "m4a"
            }
        })
    );
    let ready = json!({ "stream_id": STREAM, "session_id": "session-9", "max_inflight": 1,
                        "capabilities": { "batch_processing": false, "async_delivery": true } });
    peer.event("stream:ready", &ready).await;
    assert_eq!(
        worker.kind(1).await,
        SessionFact::Ready {
            link: 1,
            max_inflight: Some(1)
        }
    );

    worker.client.send(1, fragment(0, 4));
    let (name, payload) = peer.received().await;
    assert_eq!(name, "fragment:data");
    let id = fragment(0, 0).id;
    assert_eq!(
        without_time(payload),
        json!({
            "fragment_id": id, "stream_id": STREAM, "sequence_number": 0,
            "audio": { "format": "m4a", "sample_rate_hz": 48000, "channels": 2,
                       "duration_ms": 6000, "data_base64": "WlpaWg==" },
            "metadata": { "pts_ns": 0, "source_pts_ns": 0 }
        })
    );
    peer.event(
        "fragment:ack",
        &json!({ "fragment_id": id, "status": "queued", "queue_position": 0 }),
    )
    .await;
    assert_eq!(
        worker.kind(1).await,
        SessionFact::Acked {
            link: 1,
            id: id.clone(),
            status: AckStatus::Queued
        }
    );
    let processed = json!({
        "fragment_id": id, "stream_id": STREAM, "sequence_number": 0, "status": "success",
        "processing_time_ms": 40.5, "transcript": null, "error": null,
        "dubbed_audio": { "format": "adts", "sample_rate_hz": 44100, "channels": 1,
                          "duration_ms": 6016, "data_base64": "//E=" }
    });
    peer.event("fragment:processed", &processed).await;
    let SessionFact::Processed {
        link: _,
        id: got,
        sequence: Some(0),
        outcome: Outcome::Audio,
    } = worker.kind(1).await
    else {
        panic!()
    };
    let audio = worker.audio.take().expect("audio").expect("good audio");
    assert_eq!(
        (got.as_str(), audio.format.as_str(), &audio.bytes[..]),
        (id.as_str(), "adts", &[0xff, 0xf1][..])
    );
    worker.client.applied(1, &id);
    let (name, payload) = peer.received().await;
    assert_eq!(name, "fragment:ack");
    assert_eq!(
        without_time(payload),
        json!({ "fragment_id": id, "status": "applied" })
    );

    worker.client.end(1, "");
    assert_eq!(
        peer.received().await,
        ("stream:end".into(), json!({ "stream_id": STREAM }))
    );
    let complete = json!({ "stream_id": STREAM, "total_fragments": 1, "total_duration_ms": 6000,
                           "statistics": { "success_count": 1, "partial_count": 0, "failed_count": 0 } });
    peer.event("stream:complete", &complete).await;
    assert_eq!(
        worker.kind(1).await,
        SessionFact::StreamComplete { link: 1 }
    );
    // The server closes after complete.
    peer.raw("41").await;
    worker
        .ended(1)
        .await
        .within(Duration::from_millis(600), "the service ended the session");
}

/// The input is known after the client is made.
#[tokio::test]
async fn an_init_asks_for_what_was_set_last() {
    let (listener, url) = listen().await;
    let mut worker = Worker::connect(config(&url));
    let mut peer = Peer::joined(&listener).await;
    worker.connected(1).await;
    let init = InitParams {
        rate: 44_100,
        channels: 1,
        ..InitParams::default()
    };
    assert_ne!(*worker.client.asks(), init);
    worker.client.set_init(init.clone());
    assert_eq!(*worker.client.asks(), init);
    worker.client.init(1);
    let asked = peer.received().await.1["config"].take();
    assert_eq!(
        (&asked["sample_rate_hz"], &asked["channels"]),
        (&json!(44_100), &json!(1))
    );
}

/// What the processor has done for this thread, which is all of a test's runtime.
fn used() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_THREAD).expect("Linux");
    let times = [usage.user_time(), usage.system_time()];
    let micros: i64 = times.iter().map(TimeVal::num_microseconds).sum();
    Duration::from_micros(micros.unsigned_abs())
}

#[tokio::test]
async fn an_idle_link_costs_nothing() {
    let (listener, url) = listen().await;
    let mut worker = Worker::connect(patient(&url));
    let _peer = Peer::joined(&listener).await;
    worker.connected(1).await;
    let before = used();
    worker.silent(Duration::from_millis(500)).await;
    let cost = used().checked_sub(before).expect("time goes on");
    assert!(cost < Duration::from_millis(25), "{cost:?}");
}

#[tokio::test]
async fn pings_of_both_kinds_are_answered_in_their_words() {
    let (listener, url) = listen().await;
    let mut worker = Worker::connect(config(&url));
    let mut peer = Peer::joined(&listener).await;
    worker.connected(1).await;
    for (ping, pong) in [
        (
            Message::Ping("a frame".into()),
            Message::Pong("a frame".into()),
        ),
        (Message::text("2a packet"), Message::text("3a packet")),
    ] {
        peer.socket.send(ping).await.expect("ping");
        let answer = peer.socket.next().await.expect("an answer");
        assert_eq!(answer.expect("an answer"), pong);
    }
}

#[tokio::test]
async fn orders_keep_their_order() {
    let (listener, url) = listen().await;
    let mut worker = Worker::connect(config(&url));
    let mut peer = Peer::joined(&listener).await;
    worker.connected(1).await;
    worker.client.init(1);
    for n in 0..10 {
        worker.client.send(1, fragment(n, 100_000));
        worker.client.applied(1, n.to_string());
    }
    assert_eq!(peer.received().await.0, "stream:init");
    for n in 0..10 {
        assert_eq!(peer.received().await.1["sequence_number"], n);
        assert_eq!(peer.received().await.1["fragment_id"], n.to_string());
    }
}

#[tokio::test]
async fn small_messages_leave_at_once() {
    let (listener, url) = listen().await;
    let mut worker = Worker::connect(config(&url));
    let mut peer = Peer::joined(&listener).await;
    worker.connected(1).await;
    let start = Instant::now();
    for n in 0..20 {
        // Under Nagle's algorithm the second waits for a delayed acknowledgement: 40 ms a round.
        worker.client.applied(1, format!("{n}a"));
        worker.client.applied(1, format!("{n}b"));
        peer.received().await;
        peer.received().await;
        // Whoever answers is a peer that delays its acknowledgements.
        peer.event("backpressure", &json!({ "action": "none" }))
            .await;
        worker.kind(1).await;
    }
    assert!(
        start.elapsed() < Duration::from_millis(400),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test]
async fn the_token_goes_to_the_service_and_nowhere_else() {
    const TOKEN: &str = "s3cret-t0ken";
    let (listener, address) = listen().await;
    // A URL may hold a secret too.
    let url = format!(
        "{}/?key=hush-hush",
        address.replace("http://", "http://user:passw0rd@")
    );
    let config = StsClientConfig {
        token: Some(Secret::new(TOKEN)),
        ..config(&url)
    };
    let shown = format!("{config:?}");
    assert!(shown.contains("[redacted]"), "{shown}");
    let mut worker = Worker::connect(config);
    let mut peer = Peer::joined(&listener).await;
    assert_eq!(peer.auth, Some(json!({ "token": TOKEN })));
    let mut said = vec![shown, format!("{:?}", worker.client)];
    worker.connected(1).await;
    // Services quote what they got.
    peer.event(
        "error",
        &json!({ "code": "X", "message": format!("{TOKEN}, passw0rd, hush-hush: expire soon") }),
    )
    .await;
    said.push(format!("{:?}", worker.kind(1).await));
    peer.event(&format!("odd {TOKEN}"), &json!({})).await;
    said.push(format!("{:?}", worker.kind(1).await));
    let status = json!({ "fragment_id": format!("id={TOKEN}"), "status": "queued" });
    peer.event("fragment:ack", &status).await;
    said.push(format!("{:?}", worker.kind(1).await));
    let last = said.last().expect("said");
    assert!(last.contains("id=[redacted]"), "{last}");
    for (name, payload) in [
        (
            "error",
            json!({ "code": TOKEN, "fragment_id": TOKEN, "message": "no" }),
        ),
        (
            "fragment:ack",
            json!({ "fragment_id": TOKEN, "status": "queued" }),
        ),
        (
            "fragment:processed",
            json!({ "fragment_id": TOKEN, "status": "failed",
                    "error": { "code": format!("OUT_OF {TOKEN}"), "message": format!("{TOKEN}: quota") } }),
        ),
    ] {
        peer.event(name, &payload).await;
        said.push(format!("{:?}", worker.kind(1).await));
    }
    // What no decoder knows is logged.
    let audio = json!({ "format": TOKEN, "data_base64": "//E=" });
    peer.event(
        "fragment:processed",
        &json!({ "fragment_id": "f", "status": "success", "dubbed_audio": audio }),
    )
    .await;
    said.push(format!("{:?}", worker.kind(1).await));
    said.push(format!("{:?}", worker.audio.take().expect("audio")));
    let frame = CloseFrame {
        code: CloseCode::Library(4000),
        reason: format!("{TOKEN} has had its day").into(),
    };
    peer.socket.close(Some(frame)).await.expect("close");
    said.push(format!("{:?}", worker.kind(1).await));
    worker.client.connect(2);
    let mut second = Peer::accept(&listener, (25_000, 10_000)).await;
    second
        .raw(format!("44{{\"message\":\"AUTH_FAILED: {TOKEN} is bad\"}}"))
        .await;
    said.push(format!("{:?}", worker.fact().await));
    assert!(
        said.last()
            .is_some_and(|last| last.contains("[redacted] is bad")),
        "{said:?}"
    );
    for secret in [TOKEN, "passw0rd", "hush-hush"] {
        assert!(
            !said.iter().any(|said| said.contains(secret)),
            "{secret} in {said:?}"
        );
    }
    let close = "[redacted] has had its day";
    assert!(said.iter().any(|said| said.contains(close)), "{said:?}");
}

#[tokio::test]
async fn websocket_urls_and_paths_work_as_given() {
    for (scheme, path, expected) in [
        ("ws", "", "/socket.io/?EIO=4&transport=websocket"),
        (
            "http",
            "/dub/socket.io/",
            "/dub/socket.io/?EIO=4&transport=websocket",
        ),
    ] {
        let (listener, url) = listen().await;
        let url = format!("{}{path}", url.replace("http", scheme));
        let mut worker = Worker::connect(config(&url));
        let peer = Peer::joined(&listener).await;
        assert_eq!(peer.path, expected);
        worker.connected(1).await;
    }
}

#[test]
fn what_the_wire_cannot_carry_is_refused_before() {
    let new = |url: &str, stream: &str, worker: &str| {
        StsClient::new(StsClientConfig::new(url, stream, worker)).err()
    };
    let url = "http://localhost:8080";
    assert_eq!(new(url, "stream_1-A", &"w".repeat(64)), None);
    assert_eq!(new("wss://sts.example", "s", "w"), None);
    for bad in ["", "a b", "a\r\nX-Evil: 1", "ä", "a/b", &"s".repeat(65)] {
        assert_eq!(
            new(url, bad, "w"),
            Some(StsConfigError::Header("X-Stream-ID")),
            "{bad:?}"
        );
        assert_eq!(
            new(url, "s", bad),
            Some(StsConfigError::Header("X-Worker-ID")),
            "{bad:?}"
        );
    }
    for bad in [
        "",
        "localhost:8080",
        "ftp://localhost",
        "http://",
        "/socket.io/",
    ] {
        let error = new(bad, "s", "w");
        assert!(
            matches!(error, Some(StsConfigError::Url(_))),
            "{bad:?}: {error:?}"
        );
    }
}
