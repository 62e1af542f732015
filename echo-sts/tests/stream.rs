//! A stream's life over real sockets.

mod support;

use std::time::{Duration, Instant};

use echo_sts::Config;
use serde_json::json;
use sts_protocol::{
    ControlMessage, Direction, ErrorCode, LatencyConfig, ProcessedStatus, Severity, StreamInit,
    StsMessage, WorkerAck, WorkerAckStatus, WorkerMessage, event, limits,
};
use support::{Client, Hello, PATIENCE, fragment, server};

/// `event` of every journal line of session 1, with what tells them apart.
fn transcript(entries: &[sts_protocol::JournalEntry]) -> Vec<String> {
    let line = |entry: &sts_protocol::JournalEntry| {
        let way = match entry.direction {
            Direction::In => ">",
            Direction::Out => "<",
            Direction::Local => "-",
        };
        let sequence = entry.sequence.map(|n| n.to_string());
        let rest = [sequence, entry.status.clone(), entry.code.clone()];
        let rest: Vec<_> = rest.into_iter().flatten().collect();
        format!("{way} {} {}", entry.event, rest.join(" "))
            .trim_end()
            .to_owned()
    };
    entries.iter().map(line).collect()
}

#[tokio::test]
async fn ten_fragments_go_through_in_order_and_come_back_as_sent() {
    let config = Config {
        close_after: Duration::from_millis(50),
        ..Config::default()
    };
    let server = server(config).await;
    let hello = Hello {
        stream: Some("s"),
        worker: Some("w"),
        token: None,
    };
    let mut client = Client::connect(&server, hello).await.unwrap();
    let ready = client.init().await;
    assert_eq!((ready.stream_id.as_str(), ready.max_inflight), ("s", 3));
    for n in 0..10 {
        let sent = client.fragment(&format!("AAA{n}")).await;
        let processed = client.processed().await;
        assert_eq!(processed.fragment_id, sent.fragment_id);
        assert_eq!(processed.sequence_number, n);
        assert_eq!(processed.status, ProcessedStatus::Success);
        assert_eq!(processed.dubbed_audio, Some(sent.audio));
        assert!(processed.transcript.unwrap().starts_with("[ECHO] "));
        assert!(processed.translated_text.unwrap().starts_with("[ECHO] "));
        let (fragment_id, status) = (sent.fragment_id, WorkerAckStatus::Applied);
        client
            .send(&WorkerMessage::Ack(WorkerAck {
                fragment_id,
                status,
                timestamp: 1,
            }))
            .await;
    }
    client.signal(WorkerMessage::End).await;
    let Some(StsMessage::Complete(complete)) = client.finish().await.pop() else {
        panic!()
    };
    assert_eq!(
        (complete.total_fragments, complete.total_duration_ms),
        (10, 60_000)
    );
    assert_eq!(complete.statistics.success_count, 10);
    client.wait_for("close").await;

    let gone = |entries: &[sts_protocol::JournalEntry]| {
        entries.iter().any(|entry| entry.event == "disconnect")
    };
    let entries = server.journal().wait_for(PATIENCE, gone).await.unwrap();
    let mut expected = vec!["- connect".to_owned(), "> stream:init".to_owned()];
    expected.push("< stream:ready".to_owned());
    for n in 0..10 {
        expected.push(format!("> fragment:data {n}"));
        expected.push("< fragment:ack queued".to_owned());
        expected.push(format!("< fragment:processed {n} success"));
        expected.push("> fragment:ack applied".to_owned());
    }
    expected.extend(["> stream:end", "< stream:complete", "- disconnect"].map(str::to_owned));
    assert_eq!(transcript(&entries), expected);
    assert!(
        entries
            .iter()
            .all(|entry| entry.stream_id.as_deref() == Some("s"))
    );
    assert!(entries[1..].iter().all(|entry| entry.session == Some(1)));
    assert!(entries.is_sorted_by(|a, b| a.at_ms <= b.at_ms));
    server.shutdown().await;
}

#[tokio::test]
async fn answers_come_in_order_under_jitter() {
    let latency = LatencyConfig {
        base_ms: 0,
        jitter_ms: Some(60),
        seed: Some(3),
        stream_id: None,
    };
    let server = server(Config {
        latency,
        ..Config::default()
    })
    .await;
    let mut client = Client::connect(&server, Hello::default()).await.unwrap();
    let init = StreamInit {
        max_inflight: 10,
        ..StreamInit::new("plain", "w")
    };
    client.send(&WorkerMessage::Init(init)).await;
    client.wait_for(event::STREAM_READY).await;
    for n in 0..10 {
        client.fragment(&format!("AAA{n}")).await;
    }
    let mut times = Vec::new();
    for n in 0..10 {
        let processed = client.processed().await;
        assert_eq!(processed.sequence_number, n);
        times.push(processed.processing_time_ms);
    }
    assert!(
        !times.is_sorted(),
        "the jitter must have mixed the processing: {times:?}"
    );
    server.shutdown().await;
}

#[tokio::test]
async fn what_breaks_the_rules_is_refused_with_its_code() {
    let server = server(Config {
        max_chunk_ms: 5_000,
        ..Config::default()
    })
    .await;
    let mut client = Client::connect(&server, Hello::default()).await.unwrap();

    client.fragment("AAAA").await;
    let error = client.error().await;
    assert_eq!(error.code, ErrorCode::StreamNotFound);
    assert_eq!(
        error.fragment_id.unwrap(),
        fragment("plain", 0, "").fragment_id
    );

    client
        .send_raw(event::STREAM_INIT, json!({ "stream_id": "plain" }))
        .await;
    let error = client.error().await;
    assert_eq!(error.code, ErrorCode::InvalidConfig);
    assert_eq!((error.severity, error.retryable), (Severity::Error, false));
    assert_eq!(error.message, "missing field `worker_id`");

    client.send_raw(event::STREAM_INIT, json!("plain")).await;
    assert!(
        client
            .error()
            .await
            .message
            .contains("expected one JSON object, found a string")
    );

    client
        .send(&WorkerMessage::Init(StreamInit::new("plain", "w")))
        .await;
    let error = client.error().await;
    assert_eq!(error.code, ErrorCode::InvalidConfig);
    assert!(
        error.message.contains("over this server's limit of 5000"),
        "{}",
        error.message
    );
    assert_eq!(error.stream_id.as_deref(), Some("plain"));

    let mut init = StreamInit::new("plain", "w");
    init.config.chunk_duration_ms = 5_000;
    client.send(&WorkerMessage::Init(init)).await;
    client.wait_for(event::STREAM_READY).await;

    for (data, code) in [
        (fragment("plain", 1, "AAAA"), ErrorCode::InvalidSequence),
        (fragment("other", 0, "AAAA"), ErrorCode::StreamNotFound),
        (fragment("plain", 0, "@@@@"), ErrorCode::InvalidConfig),
        (fragment("plain", 1, ""), ErrorCode::InvalidConfig),
    ] {
        let id = data.fragment_id.clone();
        client.send(&WorkerMessage::Data(Box::new(data))).await;
        let error = client.error().await;
        assert_eq!(
            (error.code, error.fragment_id.as_ref()),
            (code, Some(&id)),
            "{}",
            error.message
        );
    }
    client
        .send(&WorkerMessage::Data(Box::new(fragment("plain", 2, "AAAA"))))
        .await;
    assert_eq!(client.processed().await.sequence_number, 2);

    client.send_raw("no:such:event", json!({})).await;
    client.signal(WorkerMessage::End).await;
    assert!(matches!(
        client.finish().await.pop(),
        Some(StsMessage::Complete(_))
    ));
    server.shutdown().await;
}

#[tokio::test]
async fn a_fragment_of_10_mib_is_echoed_and_one_of_a_byte_more_is_refused() {
    let server = server(Config::default()).await;
    let mut client = Client::worker(&server, "big").await;
    let audio = "A".repeat(limits::MAX_AUDIO_BASE64);
    client.fragment(&audio).await;
    let echoed = client.processed().await.dubbed_audio.unwrap().data_base64;
    assert!(echoed == audio, "{} bytes came back", echoed.len());

    client.fragment(&format!("{audio}A")).await;
    assert_eq!(client.error().await.code, ErrorCode::FragmentTooLarge);

    client.fragment("AAAA").await;
    assert_eq!(
        client.processed().await.sequence_number,
        2,
        "the stream goes on"
    );
    server.shutdown().await;
}

#[tokio::test]
async fn ten_sessions_run_at_once_without_mixing() {
    let latency = LatencyConfig {
        base_ms: 20,
        ..LatencyConfig::default()
    };
    let server = server(Config {
        latency,
        ..Config::default()
    })
    .await;
    let work = (0..10).map(|n| {
        let server = &server;
        async move {
            let mut client = Client::worker(server, &format!("stream-{n}")).await;
            for f in 0..5 {
                client.fragment(&format!("AA{n}{f}")).await;
                let processed = client.processed().await;
                assert_eq!(processed.stream_id, format!("stream-{n}"));
                assert_eq!(
                    processed.dubbed_audio.unwrap().data_base64,
                    format!("AA{n}{f}")
                );
            }
            client
        }
    });
    let clients = futures_util::future::join_all(work).await;
    let entries = server.journal().entries();
    let sessions: std::collections::BTreeSet<_> =
        entries.iter().filter_map(|e| e.session).collect();
    assert_eq!(sessions, (1..=10).collect());
    drop(clients);
    server.shutdown().await;
}

#[tokio::test]
async fn one_session_more_than_allowed_gets_rate_limit() {
    let server = server(Config {
        max_sessions: 1,
        ..Config::default()
    })
    .await;
    let first = Client::worker(&server, "first").await;
    let mut second = Client::connect(&server, Hello::default()).await.unwrap();
    second
        .send(&WorkerMessage::Init(StreamInit::new("plain", "w")))
        .await;
    let error = second.error().await;
    assert_eq!(
        (error.code, error.severity),
        (ErrorCode::RateLimit, Severity::Warning)
    );
    first.disconnect().await;
    let gone = |entries: &[sts_protocol::JournalEntry]| {
        entries.iter().any(|entry| entry.event == "disconnect")
    };
    server.journal().wait_for(PATIENCE, gone).await.unwrap();
    assert_eq!(second.init().await.stream_id, "plain");
    server.shutdown().await;
}

#[tokio::test]
async fn an_echo_of_a_6_s_fragment_takes_less_than_50_ms() {
    let server = server(Config::default()).await;
    let mut client = Client::worker(&server, "fast").await;
    // 6 s of AAC at 160 kbit/s, in base64.
    let audio = "A".repeat(160_000);
    let mut times = Vec::new();
    for _ in 0..20 {
        let start = Instant::now();
        client.fragment(&audio).await;
        client.processed().await;
        times.push(start.elapsed());
    }
    times.sort();
    // The middle one: a busy machine may delay single ones.
    assert!(times[10] < Duration::from_millis(50), "{times:?}");
    server.shutdown().await;
}

#[tokio::test]
async fn a_bad_token_is_auth_failed_and_the_connection_ends() {
    let config = Config {
        auth_token: Some("secret".to_owned()),
        ..Config::default()
    };
    let server = server(config).await;
    for token in [None, Some("guess")] {
        let mut client = Client::connect(
            &server,
            Hello {
                token,
                ..Hello::default()
            },
        )
        .await
        .unwrap();
        let error = client.error().await;
        assert_eq!(
            (error.code, error.severity),
            (ErrorCode::AuthFailed, Severity::Fatal)
        );
        client.wait_for("close").await;
    }
    let hello = Hello {
        token: Some("secret"),
        ..Hello::default()
    };
    let mut client = Client::connect(&server, hello).await.unwrap();
    client.init().await;
    let journal = format!("{:?}", server.journal().entries());
    assert!(journal.contains("AUTH_FAILED") && !journal.contains("secret"));
    server.shutdown().await;
}

#[tokio::test]
async fn headers_are_checked_and_must_agree_with_the_init() {
    let server = server(Config::default()).await;
    let long = "x".repeat(65);
    for bad in ["no spaces please", long.as_str()] {
        let hello = Hello {
            stream: Some(bad),
            ..Hello::default()
        };
        let mut client = Client::connect(&server, hello).await.unwrap();
        let error = client.error().await;
        assert_eq!(error.code, ErrorCode::InvalidConfig);
        assert!(
            error.message.starts_with("X-Stream-ID: needs"),
            "{}",
            error.message
        );
        client.wait_for("close").await;
    }
    let hello = Hello {
        stream: Some("a"),
        worker: Some("w"),
        token: None,
    };
    let mut client = Client::connect(&server, hello).await.unwrap();
    client
        .send(&WorkerMessage::Init(StreamInit::new("b", "w")))
        .await;
    let error = client.error().await;
    assert_eq!(error.message, "stream_id: \"b\" but X-Stream-ID: \"a\"");
    server.shutdown().await;
}

#[tokio::test]
async fn a_pause_delays_processing_until_resume() {
    let server = server(Config::default()).await;
    let mut client = Client::worker(&server, "s").await;
    client.signal(WorkerMessage::Pause).await;
    client.fragment("AAAA").await;
    client.wait_for(event::FRAGMENT_ACK).await;
    assert_eq!(
        client.listen(Duration::from_millis(200)).await,
        [],
        "nothing while paused"
    );
    client.signal(WorkerMessage::Resume).await;
    assert_eq!(client.processed().await.sequence_number, 0);
    server.shutdown().await;
}

#[tokio::test]
async fn latency_set_by_the_worker_itself_is_kept_to() {
    let server = server(Config::default()).await;
    let mut client = Client::worker(&server, "s").await;
    let latency = LatencyConfig {
        base_ms: 150,
        ..LatencyConfig::default()
    };
    assert_eq!(
        client.control(&ControlMessage::Latency(latency)).await,
        "stream s"
    );
    let start = Instant::now();
    client.fragment("AAAA").await;
    let processed = client.processed().await;
    assert!(start.elapsed() >= Duration::from_millis(150));
    assert_eq!(processed.processing_time_ms, 150);
    let timings = processed.stage_timings.unwrap();
    assert_eq!(
        timings.asr_ms + timings.translation_ms + timings.tts_ms,
        150
    );
    server.shutdown().await;
}
