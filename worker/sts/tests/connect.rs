//! How a link begins, or fails to, and how the worker ends it.

mod support;

use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use serde_json::json;
use sts_client::{FactKind, Outcome, StsClientConfig};
use support::{AT_ONCE, PATIENCE, Peer, Worker, config, fragment, listen, patient};
use tokio::io::AsyncWriteExt as _;
use tokio::time::{sleep, timeout};

fn failed(kind: FactKind) -> (String, Option<sts_client::Refused>) {
    match kind {
        FactKind::ConnectFailed { reason, fatal } => (reason, fatal),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn tcp_accepted_and_then_nothing() {
    let (listener, url) = listen().await;
    let mut worker = Worker::connect(config(&url));
    let (_held, _) = listener.accept().await.expect("accept");
    let start = Instant::now();
    let (reason, fatal) = failed(worker.kind(1).await);
    assert_eq!((reason.as_str(), fatal), ("no answer within 1000 ms", None));
    assert!(
        start.elapsed() < Duration::from_secs(1) + AT_ONCE,
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test]
async fn a_namespace_request_that_is_never_answered() {
    let (listener, url) = listen().await;
    let mut worker = Worker::connect(config(&url));
    let peer = Peer::accept(&listener, (25_000, 10_000)).await;
    let (reason, fatal) = failed(worker.kind(1).await);
    assert_eq!((reason.as_str(), fatal), ("no answer within 1000 ms", None));
    drop(peer);
    worker.silent(Duration::from_millis(300)).await;
}

#[tokio::test]
async fn nobody_listens() {
    let (listener, url) = listen().await;
    drop(listener);
    let mut worker = Worker::connect(config(&url));
    let (reason, fatal) = failed(worker.kind(1).await);
    assert!(
        reason.contains("Connection refused") && fatal.is_none(),
        "{reason}"
    );
}

#[tokio::test]
async fn http_that_is_no_websocket() {
    for (status, is_final) in [
        ("503 Service Unavailable", false),
        ("401 Unauthorized", true),
    ] {
        let (listener, url) = listen().await;
        let mut worker = Worker::connect(config(&url));
        let (mut stream, _) = listener.accept().await.expect("accept");
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        stream.write_all(answer.as_bytes()).await.expect("answer");
        let (reason, fatal) = failed(worker.kind(1).await);
        assert!(reason.contains(status), "{reason}");
        assert_eq!(
            fatal.map(|refused| refused.code),
            is_final.then(|| "AUTH_FAILED".to_owned())
        );
    }
}

#[tokio::test]
async fn a_refused_namespace_is_final() {
    for (payload, code, message) in [
        (
            r#"{"message":"AUTH_FAILED: bad token"}"#,
            Some("AUTH_FAILED"),
            "bad token",
        ),
        (
            r#"{"message":"Connection rejected by server"}"#,
            Some("AUTH_FAILED"),
            "rejected",
        ),
        (
            r#"{"message":"full","data":{"code":"QUEUE_FULL"}}"#,
            None,
            "full",
        ),
    ] {
        let (listener, url) = listen().await;
        let mut worker = Worker::connect(config(&url));
        let mut peer = Peer::accept(&listener, (25_000, 10_000)).await;
        peer.raw(format!("44{payload}")).await;
        let (reason, fatal) = failed(worker.kind(1).await);
        assert!(reason.contains(message), "{reason}");
        assert_eq!(fatal.map(|refused| refused.code).as_deref(), code);
        assert_eq!(peer.packet().await, None, "the connection stays open");
    }
}

#[tokio::test]
async fn a_fragment_over_the_protocols_limit_fails_alone() {
    let (listener, url) = listen().await;
    let mut worker = Worker::connect(patient(&url));
    let mut peer = Peer::joined(&listener).await;
    worker.connected(1).await;
    worker.client.send(1, fragment(0, 8 << 20));
    let FactKind::Processed {
        id,
        outcome:
            Outcome::Failed {
                code,
                retryable: false,
                ..
            },
        ..
    } = worker.kind(1).await
    else {
        panic!()
    };
    assert_eq!(
        (id, code.as_str()),
        (fragment(0, 0).id, "FRAGMENT_TOO_LARGE")
    );
    // Nothing of it went out, and the link goes on.
    worker.client.send(1, fragment(1, 10));
    assert_eq!(peer.received().await.1["sequence_number"], 1);
}

#[tokio::test]
async fn the_worker_says_goodbye() {
    let (listener, url) = listen().await;
    let mut worker = Worker::connect(patient(&url));
    let mut peer = Peer::joined(&listener).await;
    worker.connected(1).await;
    worker.client.end(1, "input ended");
    worker.client.disconnect(1);
    // What was ordered before goes out before.
    let (name, payload) = peer.received().await;
    assert_eq!(
        (name.as_str(), &payload["reason"]),
        ("stream:end", &json!("input ended"))
    );
    assert_eq!(peer.packet().await.as_deref(), Some("41"));
    assert_eq!(peer.packet().await.as_deref(), Some("1"));
    assert_eq!(peer.packet().await, None);
    worker
        .ended(1)
        .await
        .within(AT_ONCE, "closed by the worker");
}

#[tokio::test]
async fn given_up_while_connecting() {
    let (listener, url) = listen().await;
    let mut worker = Worker::connect(StsClientConfig {
        connect_timeout: PATIENCE,
        ..config(&url)
    });
    let (_held, _) = listener.accept().await.expect("accept");
    worker.client.disconnect(1);
    let (reason, fatal) = failed(worker.kind(1).await);
    assert_eq!(
        (reason.as_str(), fatal),
        ("given up before it was there", None)
    );
    worker.silent(Duration::from_millis(300)).await;
}

#[tokio::test]
async fn orders_for_another_link_do_nothing() {
    let (listener, url) = listen().await;
    let mut worker = Worker::connect(patient(&url));
    let mut peer = Peer::joined(&listener).await;
    worker.connected(1).await;
    worker.client.init(7);
    worker.client.disconnect(7);
    worker.client.init(1);
    assert_eq!(peer.received().await.0, "stream:init");
    // A new attempt ends the old one; facts say which is which.
    worker.client.connect(2);
    worker.client.init(1);
    let mut second = Peer::joined(&listener).await;
    let mut seen = vec![worker.fact().await, worker.fact().await];
    seen.sort_by_key(|fact| fact.link);
    assert!(
        matches!(seen[0].kind, FactKind::Disconnected { .. }),
        "{seen:?}"
    );
    assert_eq!(seen[1].kind, FactKind::Connected);
    worker.client.init(2);
    assert_eq!(second.received().await.0, "stream:init");
}

#[tokio::test]
async fn close_ends_everything_even_unread() {
    let (listener, url) = listen().await;
    let mut worker = Worker::connect(patient(&url));
    let mut peer = Peer::joined(&listener).await;
    worker.connected(1).await;
    // More facts than the channel holds, and nobody reads them.
    for _ in 0..200 {
        peer.event("backpressure", &json!({ "action": "none" }))
            .await;
    }
    sleep(Duration::from_millis(200)).await;
    let start = Instant::now();
    worker.client.close().await;
    assert!(
        start.elapsed() < Duration::from_millis(1_500),
        "{:?}",
        start.elapsed()
    );
    let gone = timeout(PATIENCE, async {
        while let Some(Ok(_)) = peer.socket.next().await {}
    });
    gone.await.expect("the connection is gone");
}
