//! How a link begins, or fails to, and how the worker ends it.

mod support;

use std::time::{Duration, Instant};

use dub_engine::{BackpressureAction, ProtocolErrorKind, SessionFact};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::json;
use sts_client::{Secret, StsClientConfig};
use support::{AT_ONCE, PATIENCE, Peer, Worker, config, fragment, listen, patient};
use tokio::io::AsyncWriteExt as _;
use tokio::time::sleep;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

fn failed(kind: SessionFact) -> (String, Option<dub_engine::Fatal>) {
    match kind {
        SessionFact::ConnectFailed {
            link: _,
            reason,
            fatal,
        } => (reason, fatal),
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
    let said = format!("{}: no answer within ", url.replace("http://", ""));
    assert!(reason.starts_with(&said) && fatal.is_none(), "{reason}");
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
    let address = url.replace("http://", "");
    let said = format!("{address}: no answer to the handshake within 1000 ms");
    assert_eq!((reason, fatal), (said, None));
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
    for (status, body, said, is_final) in [
        ("503 Service Unavailable", "", "", false),
        ("403 Forbidden", "", ": not allowed, or wrong path?", false),
        ("404 Not Found", "", ": wrong path?", false),
        // A page for browsers is no word of the service, but this is.
        ("502 Bad Gateway", "<html>nginx</html>", "", false),
        ("429 Too Many Requests", "slow down", ": slow down", false),
        ("200 OK", "", ": not a Socket.IO server", false),
        ("401 Unauthorized", "", "", true),
    ] {
        let (listener, url) = listen().await;
        let mut worker = Worker::connect(config(&url));
        let (mut stream, _) = listener.accept().await.expect("accept");
        let len = body.len();
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {len}\r\n\r\n{body}");
        stream.write_all(answer.as_bytes()).await.expect("answer");
        let (reason, fatal) = failed(worker.kind(1).await);
        let server = url.replace("http://", "");
        let path = if is_final { "" } else { " (path /socket.io/)" };
        assert_eq!(reason, format!("{server}: HTTP {status}{said}{path}"));
        assert_eq!(
            fatal.map(|refused| refused.code),
            is_final.then(|| "AUTH_FAILED".to_owned())
        );
    }
}

#[tokio::test]
async fn something_else_that_listens() {
    for (said, named) in [
        (&b"SSH-2.0-OpenSSH_9.2\r\n\r\n"[..], "does not speak HTTP"),
        (
            b"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: x\r\n\r\n",
            "does not speak WebSocket",
        ),
        (b"", "closed the connection during the handshake"),
    ] {
        let (listener, url) = listen().await;
        let mut worker = Worker::connect(config(&url));
        let (mut stream, _) = listener.accept().await.expect("accept");
        let mut request = [0; 2048];
        let _ = tokio::io::AsyncReadExt::read(&mut stream, &mut request).await;
        stream.write_all(said).await.expect("answer");
        drop(stream);
        let (reason, fatal) = failed(worker.kind(1).await);
        assert!(reason.contains(named) && fatal.is_none(), "{reason}");
    }
    // A WebSocket that is no Socket.IO.
    for (hello, named) in [
        (Message::text("hello"), "\"hello\""),
        (Message::binary(vec![0]), "something binary or huge first"),
    ] {
        let (listener, url) = listen().await;
        let mut worker = Worker::connect(config(&url));
        let (stream, _) = listener.accept().await.expect("accept");
        let mut socket = tokio_tungstenite::accept_async(stream)
            .await
            .expect("websocket");
        socket.send(hello).await.expect("hello");
        let (reason, _) = failed(worker.kind(1).await);
        let named = format!("not a Socket.IO server: it said {named}");
        assert!(reason.ends_with(&named), "{reason}");
    }
}

#[tokio::test]
async fn only_the_protocols_own_words_make_a_refusal_final() {
    for (payload, code, message) in [
        (
            r#"{"message":"AUTH_FAILED: bad token"}"#,
            Some("AUTH_FAILED"),
            "bad token",
        ),
        (
            r#"{"message":"no","data":{"code":"INVALID_CONFIG"}}"#,
            Some("INVALID_CONFIG"),
            "no",
        ),
        // `return False` of python-socketio, and any middleware's error.
        (
            r#"{"message":"Connection rejected by server"}"#,
            None,
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

/// `emit("error", …)` in python-socketio's connect handler comes before the answer to the namespace.
#[tokio::test]
async fn an_error_said_before_the_refusal_is_its_reason() {
    let token = Some(Secret::new("t0ken"));
    let early = r#"42["error",{"code":"AUTH_FAILED","message":"t0ken is bad"}]"#;
    let full = r#"42["error",{"code":"QUEUE_FULL","message":"no room"}]"#;
    let rejected = r#"44{"message":"Connection rejected by server"}"#;
    let (bad, no_room) = ("AUTH_FAILED: [redacted] is bad", "QUEUE_FULL: no room");
    for (first, then, reason, is_final) in [
        (early, rejected, bad, true),
        (full, rejected, no_room, false),
        (
            early,
            r#"44{"message":"INVALID_CONFIG: no"}"#,
            "INVALID_CONFIG",
            true,
        ),
        (early, "41", bad, true),
        (
            r#"42["backpressure",{"action":"pause"}]"#,
            rejected,
            "rejected by server",
            false,
        ),
        (
            r#"42/other,["error",{"code":"AUTH_FAILED"}]"#,
            rejected,
            "rejected by server",
            false,
        ),
    ] {
        let (listener, url) = listen().await;
        let mut worker = Worker::connect(StsClientConfig {
            token: token.clone(),
            ..config(&url)
        });
        let mut peer = Peer::accept(&listener, (25_000, 10_000)).await;
        peer.raw(first).await;
        peer.raw(then).await;
        let (said, fatal) = failed(worker.kind(1).await);
        assert!(said.contains(reason), "{first}, {then}: {said}");
        assert_eq!(fatal.is_some(), is_final, "{first}, {then}");
        assert!(!format!("{said} {fatal:?}").contains("t0ken"), "{fatal:?}");
    }
}

/// A session begins with a free pace, so what was said before it is told behind its beginning.
#[tokio::test]
async fn events_before_the_welcome_are_told_behind_it_and_counted_beyond_a_bound() {
    let (listener, url) = listen().await;
    let mut worker = Worker::connect(patient(&url));
    let mut peer = Peer::accept(&listener, (25_000, 10_000)).await;
    for _ in 0..10 {
        peer.event("backpressure", &json!({ "action": "pause" }))
            .await;
    }
    peer.join().await;
    worker.connected(1).await;
    for _ in 0..8 {
        let fact = worker.kind(1).await;
        assert!(
            matches!(
                fact,
                SessionFact::Backpressure {
                    action: BackpressureAction::Pause,
                    ..
                }
            ),
            "{fact:?}"
        );
    }
    let fact = worker.kind(1).await;
    assert!(
        matches!(
            fact,
            SessionFact::Malformed {
                kind: ProtocolErrorKind::Flood,
                count: 2,
                ..
            }
        ),
        "{fact:?}"
    );
    worker.client.init(1);
    assert_eq!(peer.received().await.0, "stream:init");
    // By their size, too: 64 KiB of JSON.
    worker.client.connect(2);
    let mut peer = Peer::accept(&listener, (25_000, 10_000)).await;
    let error = |message: &str| json!({ "code": "MODEL_ERROR", "message": message });
    let around = json!(["error", error("")]).to_string().len();
    for len in [200, 65_536 - 200, 200, 200] {
        let message = "x".repeat(len - around);
        peer.event("error", &error(&message)).await;
    }
    peer.join().await;
    // With the end of the first link.
    let mut facts = vec![];
    for _ in 0..5 {
        facts.push(worker.fact().await);
    }
    let count = |is: fn(&SessionFact) -> bool| facts.iter().filter(|fact| is(fact)).count();
    assert_eq!(
        count(|fact| matches!(fact, SessionFact::StsError { link: 2, .. })),
        2
    );
    assert_eq!(
        count(|fact| matches!(fact, SessionFact::Malformed { count: 2, .. })),
        1
    );
}

#[tokio::test]
async fn whatever_else_comes_before_the_welcome_is_not_in_its_way() {
    let (listener, url) = listen().await;
    let mut worker = Worker::connect(StsClientConfig {
        connect_timeout: PATIENCE,
        ..patient(&url)
    });
    let mut peer = Peer::accept(&listener, (25_000, 10_000)).await;
    // A second hello asks for nothing, and a ping is answered.
    peer.raw("0{}").await;
    peer.raw("2early").await;
    assert_eq!(peer.packet().await.as_deref(), Some("3early"));
    let attachment = Message::binary(vec![1]);
    peer.socket.send(attachment).await.expect("attachment");
    // More than is kept of any message.
    peer.raw("x".repeat(17 << 20)).await;
    peer.join().await;
    worker.connected(1).await;
    let fact = worker.kind(1).await;
    assert!(
        matches!(
            fact,
            SessionFact::Malformed {
                kind: ProtocolErrorKind::Flood,
                count: 1,
                ..
            }
        ),
        "{fact:?}"
    );
    worker.client.init(1);
    assert_eq!(peer.received().await.0, "stream:init");
}

/// Code and words of a close are told whenever it comes.
#[tokio::test]
async fn a_close_during_the_handshake_is_told_in_its_words() {
    let (listener, url) = listen().await;
    let mut worker = Worker::connect(patient(&url));
    let mut peer = Peer::accept(&listener, (25_000, 10_000)).await;
    let frame = [&[0x88, 15, 0x11, 0x31][..], &b"token expired"[..]].concat();
    peer.socket
        .get_mut()
        .write_all(&frame)
        .await
        .expect("close");
    let (reason, fatal) = failed(worker.kind(1).await);
    let said = "during the handshake: the service closed the connection (code 4401): token expired";
    assert!(reason.ends_with(said) && fatal.is_none(), "{reason}");
}

/// What a refusal says may come in a second piece, and what is no answer yet before the answer.
#[tokio::test]
async fn a_refusal_is_passed_on_in_its_words_and_early_hints_are_none() {
    let (listener, url) = listen().await;
    let mut worker = Worker::connect(config(&url));
    let (mut stream, _) = listener.accept().await.expect("accept");
    let head = b"HTTP/1.1 402 Payment Required\r\nContent-Length: 738\r\n\r\n";
    stream.write_all(head).await.expect("head");
    stream.flush().await.expect("flush");
    // Long enough to be a piece of its own, and a twentieth of what is waited for it.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let words = format!("quota of {} exceeded", "😀".repeat(180));
    stream.write_all(words.as_bytes()).await.expect("words");
    let (reason, _) = failed(worker.kind(1).await);
    assert!(reason.contains(&words), "{reason}");

    let (listener, url) = listen().await;
    let mut worker = Worker::connect(patient(&url));
    let (mut stream, _) = listener.accept().await.expect("accept");
    let hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n";
    stream.write_all(hints).await.expect("hints");
    let mut peer = Peer::upgraded(stream, (25_000, 10_000)).await;
    peer.raw(r#"44{"message":"come later"}"#).await;
    let (reason, _) = failed(worker.kind(1).await);
    assert!(reason.contains("come later"), "{reason}");
}

/// Answers the first request with a redirect, and says what path it was for.
async fn redirect(listener: &tokio::net::TcpListener, to: &str) {
    let (mut stream, _) = listener.accept().await.expect("accept");
    let answer = format!("HTTP/1.1 301 Moved Permanently\r\nLocation: {to}\r\n\r\n");
    stream.write_all(answer.as_bytes()).await.expect("answer");
    let mut rest = vec![];
    let _ = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut rest).await;
}

#[tokio::test]
async fn a_redirect_on_the_same_host_is_followed_and_another_is_named() {
    let (listener, url) = listen().await;
    let (behind, target) = listen().await;
    let mut worker = Worker::connect(patient(&url));
    redirect(&listener, &format!("{target}/moved/socket.io/?EIO=4")).await;
    let peer = Peer::joined(&behind).await;
    assert_eq!(peer.path, "/moved/socket.io/?EIO=4&transport=websocket");
    worker.connected(1).await;
    let mut worker = Worker::connect(patient(&url));
    redirect(&listener, "https://elsewhere.example/socket.io/?t=1").await;
    let (reason, fatal) = failed(worker.kind(1).await);
    assert!(
        reason.contains("redirected to https://elsewhere.example/socket.io/") && fatal.is_none(),
        "{reason}"
    );
}

#[tokio::test]
async fn credentials_prefix_and_query_reach_the_service() {
    let (listener, url) = listen().await;
    let url = url.replace("http://", "http://dub:pass%20word@") + "/sts/v1?room=7";
    let mut worker = Worker::connect(patient(&url));
    let peer = Peer::joined(&listener).await;
    assert_eq!(
        peer.path,
        "/sts/v1/socket.io/?room=7&EIO=4&transport=websocket"
    );
    let basic = (
        "authorization".to_owned(),
        "Basic ZHViOnBhc3Mgd29yZA==".to_owned(),
    );
    assert!(peer.headers.contains(&basic), "{:?}", peer.headers);
    // Firewalls refuse who does not say who they are.
    let agent = peer.headers.iter().find(|(name, _)| name == "user-agent");
    assert!(
        agent.is_some_and(|(_, who)| who.starts_with("dub-worker/")),
        "{agent:?}"
    );
    worker.connected(1).await;
}

#[tokio::test]
async fn a_path_that_is_no_prefix_is_the_whole() {
    let (listener, url) = listen().await;
    let mut worker = Worker::connect(patient(&(url + "/ws")));
    let (mut stream, _) = listener.accept().await.expect("accept");
    stream
        .write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        .await
        .expect("answer");
    let peer = Peer::joined(&listener).await;
    assert_eq!(peer.path, "/ws?EIO=4&transport=websocket");
    worker.connected(1).await;
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
    let close = peer.socket.next().await.expect("a word").expect("a frame");
    assert!(
        matches!(&close, Message::Close(Some(why)) if why.code == CloseCode::Normal),
        "{close:?}"
    );
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
    seen.sort_by_key(support::link_of);
    assert!(
        matches!(seen[0], SessionFact::Disconnected { .. }),
        "{seen:?}"
    );
    assert_eq!(seen[1], SessionFact::Connected { link: 2 });
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
    assert_eq!(peer.packet().await.as_deref(), Some("41"), "no goodbye");
    assert_eq!(peer.packet().await.as_deref(), Some("1"));
    assert_eq!(peer.packet().await, None);
}

#[tokio::test]
async fn close_waits_for_a_service_that_takes_its_time() {
    let (listener, url) = listen().await;
    let close_timeout = Duration::from_millis(300);
    let mut worker = Worker::connect(StsClientConfig {
        close_timeout,
        ..patient(&url)
    });
    let _reads_nothing = Peer::joined(&listener).await;
    worker.connected(1).await;
    // More than buffers hold.
    worker.client.send(1, fragment(0, 2 << 20));
    let start = Instant::now();
    worker.client.close().await;
    assert!(start.elapsed() >= close_timeout, "{:?}", start.elapsed());
}
