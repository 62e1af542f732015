//! Every way a connection can die: noticed within its bound, told exactly once.

mod support;

use std::time::{Duration, Instant};

use dub_engine::{ProtocolErrorKind, SessionFact};
use serde_json::json;
use sts_client::StsClientConfig;
use support::{AT_ONCE, PATIENCE, Peer, Worker, config, fragment, listen, patient};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{sleep, timeout};

/// For silence, with the short pings of [`config`]: interval + timeout + 300 ms, and the above.
const SILENCE: Duration = Duration::from_millis(500 + 300 + 600);

#[tokio::test]
async fn a_killed_service() {
    let (listener, url) = listen().await;
    let mut worker = Worker::connect(patient(&url));
    let peer = Peer::joined(&listener).await;
    worker.connected(1).await;
    peer.reset();
    worker
        .ended(1)
        .await
        .within(AT_ONCE, "the connection broke");
}

#[tokio::test]
async fn a_service_that_falls_silent() {
    let (listener, url) = listen().await;
    let mut worker = Worker::connect(config(&url));
    // The handshake announces pings every 25 s: only the worker's own bound can notice.
    let _peer = Peer::joined(&listener).await;
    worker.connected(1).await;
    let ended = worker.ended(1).await.within(SILENCE, "nothing heard for");
    assert!(
        ended.after >= Duration::from_millis(700),
        "too early: {ended:?}"
    );
}

#[tokio::test]
async fn a_service_silent_by_its_own_handshake() {
    let (listener, url) = listen().await;
    let mut worker = Worker::connect(patient(&url));
    // Here only the library knows how short the pings are.
    let mut peer = Peer::accept(&listener, (700, 500)).await;
    peer.join().await;
    worker.connected(1).await;
    worker
        .ended(1)
        .await
        .within(Duration::from_millis(1_500) + AT_ONCE, "nothing heard for");
}

#[tokio::test]
async fn pings_alone_keep_a_link_alive() {
    let (listener, url) = listen().await;
    let mut worker = Worker::connect(config(&url));
    let mut peer = Peer::joined(&listener).await;
    worker.connected(1).await;
    // Three times the silence that would end it, with nothing but pings on the wire.
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(1_500) {
        peer.ping().await;
        sleep(Duration::from_millis(150)).await;
    }
    assert_eq!(worker.waiting(), 0, "an idle link was given up");
    worker.client.init(1);
    assert_eq!(peer.received().await.0, "stream:init");
}

/// On a busy machine it is the worker that is late; what waits to be read is no silence.
#[tokio::test]
async fn a_worker_that_was_late_itself_does_not_blame_the_service() {
    let (listener, url) = listen().await;
    let mut worker = Worker::connect(StsClientConfig {
        max_silence: Duration::from_millis(100),
        ..config(&url)
    });
    let mut peer = Peer::joined(&listener).await;
    worker.connected(1).await;
    for round in 0..10 {
        peer.ping().await;
        // Nothing in this thread's runtime turns over.
        std::thread::sleep(Duration::from_millis(450));
        sleep(Duration::from_millis(30)).await;
        assert_eq!(worker.waiting(), 0, "given up in round {round}");
    }
    worker.ended(1).await.within(SILENCE, "nothing heard for");
}

#[tokio::test]
async fn the_service_leaves_the_namespace() {
    let (listener, url) = listen().await;
    let mut worker = Worker::connect(patient(&url));
    let mut peer = Peer::joined(&listener).await;
    worker.connected(1).await;
    // What was said before the goodbye is told before it.
    peer.event(
        "error",
        &json!({ "code": "AUTH_FAILED", "message": "token expired" }),
    )
    .await;
    peer.raw("41").await;
    let ended = worker
        .ended(1)
        .await
        .within(AT_ONCE, "the service ended the session");
    assert!(
        matches!(&ended.before[..], [SessionFact::StsError { link: _, code, fatal: true, .. }] if code == "AUTH_FAILED"),
        "{ended:?}"
    );
    assert_eq!(peer.packet().await, None, "the worker left TCP open");
}

#[tokio::test]
async fn the_service_leaves_in_the_same_breath() {
    // Welcome, refusal and goodbye arrive before the worker has looked once.
    for _ in 0..20 {
        let (listener, url) = listen().await;
        let mut worker = Worker::connect(patient(&url));
        let mut peer = Peer::accept(&listener, (25_000, 10_000)).await;
        peer.join().await;
        peer.event("error", &json!({ "code": "AUTH_FAILED" })).await;
        peer.raw("41").await;
        worker.connected(1).await;
        match worker.kind(1).await {
            SessionFact::StsError {
                link: _,
                fatal: true,
                ..
            } => {}
            other => panic!("{other:?}"),
        }
        let end = worker.kind(1).await;
        assert!(matches!(end, SessionFact::Disconnected { .. }), "{end:?}");
    }
}

#[tokio::test]
async fn a_clean_websocket_close() {
    let (listener, url) = listen().await;
    let mut worker = Worker::connect(patient(&url));
    let peer = Peer::joined(&listener).await;
    worker.connected(1).await;
    // uvicorn on SIGTERM: the library says nothing at all.
    peer.close().await;
    worker
        .ended(1)
        .await
        .within(AT_ONCE, "the service closed the connection");
}

#[tokio::test]
async fn tcp_closed_without_a_websocket_close() {
    let (listener, url) = listen().await;
    let mut worker = Worker::connect(patient(&url));
    let mut peer = Peer::joined(&listener).await;
    worker.connected(1).await;
    peer.socket.get_mut().shutdown().await.expect("shutdown");
    worker.ended(1).await.within(AT_ONCE, "");
}

#[tokio::test]
async fn a_message_over_the_protocols_limit() {
    let (listener, url) = listen().await;
    let mut worker = Worker::connect(patient(&url));
    let mut peer = Peer::joined(&listener).await;
    worker.connected(1).await;
    // The header of a 51 MiB text frame is enough; nobody has to wait for the rest.
    let mut header = vec![0x81, 127];
    header.extend((51_u64 << 20).to_be_bytes());
    peer.socket
        .get_mut()
        .write_all(&header)
        .await
        .expect("header");
    let ended = worker.ended(1).await.within(AT_ONCE, "over 50 MiB");
    let [
        SessionFact::Malformed {
            link: _,
            kind: ProtocolErrorKind::Oversize,
            ..
        },
    ] = &ended.before[..]
    else {
        panic!("{ended:?}")
    };
}

#[tokio::test]
async fn a_peer_that_closes_its_side_and_takes_nothing() {
    let (listener, url) = listen().await;
    let mut worker = Worker::connect(patient(&url));
    let mut peer = Peer::joined(&listener).await;
    worker.connected(1).await;
    // The fragment holds the writer; the end is noticed all the same.
    worker.client.send(1, fragment(0, 7 << 20));
    sleep(Duration::from_millis(200)).await;
    peer.ping().await;
    peer.socket.get_mut().shutdown().await.expect("shutdown");
    worker
        .ended(1)
        .await
        .within(AT_ONCE, "the service closed the connection");
    drop(peer);
}

#[tokio::test]
async fn a_peer_that_takes_a_message_slowly_is_not_stuck() {
    let (listener, url) = listen().await;
    let mut worker = Worker::connect(patient(&url));
    let mut peer = Peer::joined(&listener).await;
    worker.connected(1).await;
    worker.client.send(1, fragment(0, 7 << 20));
    // Three times as long as a peer may take nothing.
    let start = Instant::now();
    let mut taken = vec![0; 256 * 1024];
    while start.elapsed() < Duration::from_millis(2_100) {
        peer.socket
            .get_mut()
            .read_exact(&mut taken)
            .await
            .expect("bytes");
        sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(worker.waiting(), 0, "a slow link was given up");
}

/// Takes 60 kB a second of what the worker sends, and lets through at once what it is told.
async fn slow_link(target: String) -> String {
    let (listener, url) = listen().await;
    tokio::spawn(async move {
        let (from, _) = listener.accept().await.expect("accept");
        let to = tokio::net::TcpStream::connect(target)
            .await
            .expect("target");
        let ((mut from, mut told), (mut back, mut to)) = (from.into_split(), to.into_split());
        tokio::spawn(async move { tokio::io::copy(&mut back, &mut told).await });
        let mut piece = vec![0; 6_000];
        while let Ok(len) = from.read(&mut piece).await {
            if len == 0 || to.write_all(&piece[..len]).await.is_err() {
                return;
            }
            sleep(Duration::from_millis(len as u64 / 60)).await;
        }
    });
    url
}

#[tokio::test]
async fn a_link_of_60_kb_per_second_is_slow_and_not_stuck() {
    let (listener, url) = listen().await;
    let url = slow_link(url.replace("http://", "")).await;
    let mut worker = Worker::connect(StsClientConfig {
        // TCP takes in pieces of 64 KiB and more.
        stuck_timeout: Duration::from_secs(3),
        ..patient(&url)
    });
    let mut peer = Peer::joined(&listener).await;
    worker.connected(1).await;
    let start = Instant::now();
    // 400 kB of messages, more than buffers hold.
    for n in 0..5 {
        worker.client.send(1, fragment(n, 60_000));
    }
    peer.ping().await;
    for n in 0..5 {
        let (name, payload) = peer.received().await;
        assert_eq!(
            (name.as_str(), &payload["sequence_number"]),
            ("fragment:data", &json!(n))
        );
    }
    assert!(
        start.elapsed() > Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(worker.waiting(), 0, "a slow link was given up");
}

/// Silence says nothing about sizes, even right after a fragment.
#[tokio::test]
async fn a_message_is_not_to_blame_for_silence_or_a_restart() {
    let (listener, url) = listen().await;
    let mut worker = Worker::connect(config(&url));
    let mut peer = Peer::joined(&listener).await;
    worker.connected(1).await;
    worker.client.send(1, fragment(0, 100_000));
    assert_eq!(peer.received().await.0, "fragment:data");
    let ended = worker.ended(1).await.within(SILENCE, "nothing heard for");
    assert!(ended.before.is_empty(), "{ended:?}");
    for (code, blamed) in [
        (1000, true),
        (1001, false),
        (1008, false),
        (1009, true),
        (1011, false),
        (1012, false),
        (3000, false),
        (4003, false),
        (5000, true),
    ] {
        let mut worker = Worker::connect(patient(&url));
        let mut peer = Peer::joined(&listener).await;
        worker.connected(1).await;
        worker.client.send(1, fragment(0, 100_000));
        assert_eq!(peer.received().await.0, "fragment:data");
        let [high, low] = u16::to_be_bytes(code);
        let frame = [&[0x88, 13, high, low][..], &b"quota: 0 s."[..]].concat();
        peer.socket
            .get_mut()
            .write_all(&frame)
            .await
            .expect("close");
        let ended = worker.ended(1).await;
        assert!(ended.reason.contains(": quota: 0 s."), "{ended:?}");
        let certain = code == 1009;
        let cut = |fact: &SessionFact| matches!(fact, SessionFact::MessageCut { certain: c, .. } if *c == certain);
        assert_eq!(ended.before.iter().any(cut), blamed, "{code}: {ended:?}");
        assert_eq!(
            ended.reason.contains("size limit"),
            blamed,
            "{code}: {ended:?}"
        );
    }
    // Its own goodbye: a limit acts on the transport, which knows none.
    let mut worker = Worker::connect(patient(&url));
    let mut peer = Peer::joined(&listener).await;
    worker.connected(1).await;
    worker.client.send(1, fragment(0, 100_000));
    assert_eq!(peer.received().await.0, "fragment:data");
    peer.raw("41").await;
    let ended = worker.ended(1).await;
    assert_eq!(ended.reason, "the service ended the session");
    assert!(ended.before.is_empty(), "{ended:?}");
}

#[tokio::test]
async fn killed_while_sending() {
    let (listener, url) = listen().await;
    let mut worker = Worker::connect(patient(&url));
    let peer = Peer::joined(&listener).await;
    worker.connected(1).await;
    // More than the socket buffers take, to a peer that reads nothing and is then killed.
    worker.client.send(1, fragment(0, 7 << 20));
    sleep(Duration::from_millis(100)).await;
    peer.reset();
    worker
        .ended(1)
        .await
        .within(AT_ONCE, "its message size limit may be lower");
}

#[tokio::test]
async fn a_service_that_stops_reading() {
    let (listener, url) = listen().await;
    let mut worker = Worker::connect(patient(&url));
    let peer = Peer::joined(&listener).await;
    worker.connected(1).await;
    worker.client.send(1, fragment(0, 7 << 20));
    // Making the message out of 7 MiB takes most of a second in a debug build, and is no delay of
    // the service: the time runs from the first byte on.
    let mut byte = [0];
    let offered = peer.socket.get_ref().peek(&mut byte);
    timeout(PATIENCE, offered)
        .await
        .expect("in time")
        .expect("a byte");
    let bound = Duration::from_millis(700) + AT_ONCE;
    worker.ended(1).await.within(
        bound,
        "the service took nothing for 700 ms (fragment:data of",
    );
    drop(peer);
}

#[tokio::test]
async fn a_service_that_stops_reading_is_also_left_in_time() {
    let (listener, url) = listen().await;
    let mut worker = Worker::connect(StsClientConfig {
        stuck_timeout: PATIENCE,
        ..patient(&url)
    });
    let peer = Peer::joined(&listener).await;
    worker.connected(1).await;
    worker.client.send(1, fragment(0, 7 << 20));
    sleep(Duration::from_millis(100)).await;
    worker.client.disconnect(1);
    let bound = Duration::from_millis(500) + AT_ONCE;
    worker
        .ended(1)
        .await
        .within(bound, "closed by the worker with messages unsent");
    drop(peer);
}

/// Services may go as soon as they are told goodbye, or told nothing more.
#[tokio::test]
async fn a_message_is_not_to_blame_for_an_end_that_the_worker_wants() {
    let (listener, url) = listen().await;
    let mut worker = Worker::connect(StsClientConfig {
        close_timeout: PATIENCE,
        ..patient(&url)
    });
    let peer = Peer::joined(&listener).await;
    worker.connected(1).await;
    worker.client.send(1, fragment(0, 2 << 20));
    worker.client.disconnect(1);
    sleep(Duration::from_millis(100)).await;
    peer.reset();
    let ended = worker
        .ended(1)
        .await
        .within(AT_ONCE, "the connection broke");
    assert!(!ended.reason.contains("size limit"), "{ended:?}");
    assert!(ended.before.is_empty(), "{ended:?}");
}

#[tokio::test]
async fn a_message_limit_is_named() {
    let (listener, url) = listen().await;
    let mut worker = Worker::connect(patient(&url));
    let mut peer = Peer::joined(&listener).await;
    worker.connected(1).await;
    worker.client.send(1, fragment(0, 900_000));
    worker.client.applied(1, "a small message behind it");
    assert_eq!(peer.received().await.0, "fragment:data");
    // What python-socketio does to a message over its 1 MB: no word, a closed socket.
    peer.close().await;
    let ended = worker.ended(1).await;
    assert_eq!(
        ended.reason,
        "the service closed the connection; peer closed right after a 1200282 byte message: \
         its message size limit may be lower"
    );
}

#[tokio::test]
async fn a_large_message_that_was_answered_is_not_to_blame() {
    let (listener, url) = listen().await;
    let mut worker = Worker::connect(patient(&url));
    let mut peer = Peer::joined(&listener).await;
    worker.connected(1).await;
    worker.client.send(1, fragment(0, 900_000));
    let (_, data) = peer.received().await;
    peer.event(
        "fragment:ack",
        &json!({ "fragment_id": data["fragment_id"], "status": "queued" }),
    )
    .await;
    assert!(matches!(worker.kind(1).await, SessionFact::Acked { .. }));
    peer.close().await;
    assert_eq!(
        worker.ended(1).await.reason,
        "the service closed the connection"
    );
}
