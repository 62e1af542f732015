//! Against the reference service, in this process.

mod support;

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dub_engine::{AckStatus, BackpressureAction, Outcome, SessionFact};
use echo_sts::{Config, Running, Server};
use rust_socketio::TransportType;
use rust_socketio::asynchronous::ClientBuilder;
use serde_json::{Value, json};
use sts_client::{InitParams, OutgoingFragment, Secret, StsClientConfig};
use support::{PATIENCE, STREAM, Worker, config, fragment};
use tokio::time::{sleep, timeout};

const AT_ONCE: Duration = Duration::from_millis(600);

async fn server(config: Config) -> Running {
    Server::start(config).await.expect("echo-sts")
}

fn patient(url: &str) -> StsClientConfig {
    StsClientConfig {
        connect_timeout: PATIENCE,
        max_silence: Duration::from_secs(35),
        ..config(url)
    }
}

/// Two seconds of real AAC.
fn tone(sequence: u64) -> OutgoingFragment {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/sts/audio/tone-997hz-2s.m4a");
    let m4a = Bytes::from(std::fs::read(path).expect("the golden tone"));
    OutgoingFragment {
        m4a,
        duration_ms: 2_000,
        ..fragment(sequence, 0)
    }
}

async fn ready(worker: &mut Worker, link: u32) {
    worker.connected(link).await;
    worker.client.init(link);
    let kind = worker.kind(link).await;
    assert!(
        matches!(
            kind,
            SessionFact::Ready {
                link: _,
                max_inflight: Some(3)
            }
        ),
        "{kind:?}"
    );
}

async fn there_and_back(worker: &mut Worker, link: u32, sent: OutgoingFragment) {
    worker.client.send(link, sent.clone());
    let kind = worker.kind(link).await;
    assert_eq!(
        kind,
        SessionFact::Acked {
            link,
            id: sent.id.clone(),
            status: AckStatus::Queued
        }
    );
    match worker.kind(link).await {
        SessionFact::Processed {
            link: _,
            id,
            sequence,
            outcome: Outcome::Audio,
        } => {
            let audio = worker.audio.take().expect("audio").expect("good audio");
            assert_eq!((id, sequence), (sent.id.clone(), Some(sent.sequence)));
            assert_eq!(
                (audio.format.as_str(), audio.sample_rate, audio.channels),
                ("m4a", Some(48_000), Some(2))
            );
            assert_eq!(audio.bytes, sent.m4a, "the echo is not what was sent");
        }
        other => panic!("{other:?}"),
    }
    worker.client.applied(link, sent.id);
}

/// What a test harness does: a client of its own gives one order.
async fn control(server: &Running, event: &str, payload: Value) {
    let client = ClientBuilder::new(server.url())
        .transport_type(TransportType::Websocket)
        .reconnect(false)
        .connect()
        .await
        .expect("control client");
    // Until the namespace is joined, socketioxide takes events for a breach of protocol.
    let joined = |entries: &[sts_protocol::JournalEntry]| {
        entries
            .iter()
            .filter(|entry| entry.event == "connect")
            .count()
            >= 2
    };
    server
        .journal()
        .wait_for(PATIENCE, joined)
        .await
        .expect("joined");
    sleep(Duration::from_millis(50)).await;
    client.emit(event, payload).await.expect("an order");
}

#[tokio::test]
async fn twenty_fragments_over_two_sessions() {
    let server = server(Config::default()).await;
    let mut worker = Worker::connect(patient(&server.url()));
    ready(&mut worker, 1).await;
    let start = Instant::now();
    for n in 0..10 {
        there_and_back(&mut worker, 1, tone(n)).await;
    }
    println!("ten fragments there and back in {:?}", start.elapsed());
    control(
        &server,
        "simulate:disconnect",
        json!({ "stream_id": STREAM }),
    )
    .await;
    worker
        .ended(1)
        .await
        .within(AT_ONCE, "the service ended the session");
    worker.client.connect(2);
    ready(&mut worker, 2).await;
    for n in 0..10 {
        there_and_back(&mut worker, 2, tone(n)).await;
    }
    worker.client.end(2, "input ended");
    match worker.kind(2).await {
        SessionFact::StreamComplete { .. } => {}
        other => panic!("{other:?}"),
    }
    worker.client.disconnect(2);
    worker
        .ended(2)
        .await
        .within(AT_ONCE, "closed by the worker");
    // The other side's view: ten of each per session, the acks of the worker included.
    let seen = |entries: &[sts_protocol::JournalEntry]| {
        entries
            .iter()
            .filter(|e| e.event == "fragment:ack" && e.status.as_deref() == Some("applied"))
            .count()
            == 20
            && entries
                .iter()
                .any(|e| e.event == "disconnect" && e.session == Some(2))
    };
    let journal = server.journal().wait_for(PATIENCE, seen).await;
    let journal = journal.unwrap_or_else(|journal| panic!("{journal:#?}"));
    for session in [1, 2] {
        let numbers: Vec<u64> = journal
            .iter()
            .filter(|e| e.event == "fragment:data" && e.session == Some(session))
            .filter_map(|e| e.sequence)
            .collect();
        assert!(
            numbers.iter().copied().eq(0..10),
            "session {session}: {numbers:?}"
        );
    }
    server.shutdown().await;
}

#[tokio::test]
async fn the_token_decides() {
    let server = server(Config {
        auth_token: Some("right".into()),
        ..Config::default()
    })
    .await;
    let token = Some(Secret::new("right"));
    let mut worker = Worker::connect(StsClientConfig {
        token,
        ..patient(&server.url())
    });
    ready(&mut worker, 1).await;
    let token = Some(Secret::new("wrong"));
    let mut worker = Worker::connect(StsClientConfig {
        token,
        ..patient(&server.url())
    });
    worker.connected(1).await;
    let ended = worker.ended(1).await.within(AT_ONCE, "the service");
    assert!(
        matches!(&ended.before[..], [SessionFact::StsError { link: _, code, fatal: true, .. }] if code == "AUTH_FAILED"),
        "{ended:?}"
    );
    server.shutdown().await;
}

#[tokio::test]
async fn an_old_service_says_what_it_does_not_take() {
    let server = server(Config {
        max_chunk_ms: 5_000,
        ..Config::default()
    })
    .await;
    let init = InitParams {
        chunk_ms: 6_000,
        ..InitParams::default()
    };
    let mut worker = Worker::connect(StsClientConfig {
        init,
        ..patient(&server.url())
    });
    worker.connected(1).await;
    worker.client.init(1);
    match worker.kind(1).await {
        SessionFact::StsError {
            link: _,
            code,
            retryable: false,
            message,
            ..
        } => {
            assert_eq!(code, "INVALID_CONFIG");
            assert!(message.contains("chunk_duration_ms"), "{message}");
        }
        other => panic!("{other:?}"),
    }
    server.shutdown().await;
}

#[tokio::test]
async fn connections_refused_for_a_while_are_no_final_no() {
    let server = server(Config::default()).await;
    let mut worker = Worker::connect(patient(&server.url()));
    ready(&mut worker, 1).await;
    control(
        &server,
        "simulate:disconnect",
        json!({ "stream_id": STREAM, "refuse_for_ms": 1_000 }),
    )
    .await;
    worker.ended(1).await;
    worker.client.connect(2);
    match worker.kind(2).await {
        SessionFact::ConnectFailed {
            link: _,
            reason,
            fatal: None,
        } => assert!(reason.contains("503"), "{reason}"),
        other => panic!("{other:?}"),
    }
    let mut link = 3;
    let again = async {
        loop {
            worker.client.connect(link);
            if worker.kind(link).await == (SessionFact::Connected { link }) {
                break;
            }
            link += 1;
            sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(PATIENCE, again)
        .await
        .expect("it lets the worker in again");
    server.shutdown().await;
}

#[tokio::test]
async fn load_reports_arrive() {
    let server = server(Config::default()).await;
    let mut worker = Worker::connect(patient(&server.url()));
    ready(&mut worker, 1).await;
    let order = json!({ "stream_id": STREAM, "action": "slow_down", "recommended_delay_ms": 500 });
    control(&server, "simulate:backpressure", order).await;
    assert_eq!(
        worker.kind(1).await,
        SessionFact::Backpressure {
            link: 1,
            action: BackpressureAction::SlowDown,
            delay: Some(Duration::from_millis(500))
        }
    );
    server.shutdown().await;
}

#[tokio::test]
async fn its_pings_keep_an_idle_link_and_its_end_is_noticed() {
    let server = server(Config {
        ping_interval: Duration::from_millis(300),
        ping_timeout: Duration::from_millis(200),
        ..Config::default()
    })
    .await;
    let mut worker = Worker::connect(config(&server.url()));
    ready(&mut worker, 1).await;
    worker.silent(Duration::from_secs(2)).await;
    there_and_back(&mut worker, 1, tone(0)).await;
    server.shutdown().await;
    worker.ended(1).await.within(AT_ONCE, "the service");
}

#[tokio::test]
async fn the_largest_fragment_goes_through() {
    let server = server(Config::default()).await;
    let mut worker = Worker::connect(StsClientConfig {
        stuck_timeout: PATIENCE,
        ..patient(&server.url())
    });
    ready(&mut worker, 1).await;
    // 10 MiB of base64, to the byte.
    let largest = fragment(0, (10 << 20) / 4 * 3);
    let start = Instant::now();
    there_and_back(&mut worker, 1, largest).await;
    println!("10 MiB there and back in {:?}", start.elapsed());
    server.shutdown().await;
}
