//! Control events over real sockets, most from a client that is not the worker.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::time::{Duration, Instant};

use base64::{Engine, prelude::BASE64_STANDARD};
use echo_sts::Config;
use serde_json::json;
use sts_protocol::{
    AudioConfig, AudioMode, Backpressure, BackpressureAction, BackpressureConfig,
    BackpressureSeverity, ControlMessage, ControlStatus, ErrorCode, ErrorRule, ErrorSimulation,
    LatencyConfig, ProcessedStatus, SimulateBackpressure, SimulateDisconnect, SimulateSessionLoss,
    WorkerMessage, event,
};
use support::{Client, Hello, PATIENCE, server};

const TONE: &[u8] = include_bytes!("../../fixtures/sts/audio/tone-997hz-2s.m4a");

fn errors(stream: Option<&str>, rules: Vec<ErrorRule>) -> ControlMessage {
    let stream_id = stream.map(str::to_owned);
    ControlMessage::Errors(ErrorSimulation {
        stream_id,
        enabled: true,
        rules,
    })
}

fn audio(stream: &str, mode: AudioMode) -> ControlMessage {
    let stream_id = Some(stream.to_owned());
    ControlMessage::Audio(AudioConfig {
        stream_id,
        ..AudioConfig::new(mode)
    })
}

fn disconnect(stream: Option<&str>, delay_ms: u64, refuse_for_ms: Option<u64>) -> ControlMessage {
    let stream_id = stream.map(str::to_owned);
    ControlMessage::Disconnect(SimulateDisconnect {
        stream_id,
        delay_ms,
        refuse_for_ms,
    })
}

async fn load(client: &mut Client) -> Backpressure {
    serde_json::from_value(client.wait_for(event::BACKPRESSURE).await.unwrap()).unwrap()
}

#[tokio::test]
async fn errors_can_be_ordered_for_a_stream_before_it_appears() {
    let server = server(Config::default()).await;
    let mut control = Client::controller(&server).await;
    let rules = vec![ErrorRule::sequence(1, ErrorCode::Timeout)];
    assert_eq!(
        control.control(&errors(Some("later"), rules)).await,
        "stream later"
    );

    let mut other = Client::worker(&server, "other").await;
    let mut later = Client::worker(&server, "later").await;
    for client in [&mut other, &mut later] {
        client.fragment("AAAA").await;
        client.fragment("BBBB").await;
    }
    for (client, status) in [
        (&mut other, ProcessedStatus::Success),
        (&mut later, ProcessedStatus::Failed),
    ] {
        assert_eq!(client.processed().await.status, ProcessedStatus::Success);
        assert_eq!(client.processed().await.status, status);
    }
    let entries = server.journal().entries();
    let simulated: Vec<_> = entries
        .iter()
        .filter(|e| e.event == "simulated_error")
        .collect();
    assert_eq!(simulated.len(), 1);
    assert_eq!(simulated[0].code.as_deref(), Some("TIMEOUT"));
    assert_eq!(simulated[0].sequence, Some(1));
    server.shutdown().await;
}

#[tokio::test]
async fn a_failed_fragment_carries_the_error_and_no_audio() {
    let server = server(Config::default()).await;
    let mut worker = Client::worker(&server, "s").await;
    let mut control = Client::controller(&server).await;
    let rule = ErrorRule {
        error_message: Some("the GPU is on fire".to_owned()),
        stage: Some("tts".to_owned()),
        ..ErrorRule::always(ErrorCode::GpuOom).times(1)
    };
    assert_eq!(
        control.control(&errors(None, vec![rule])).await,
        "every session"
    );
    worker.fragment("AAAA").await;
    let processed = worker.processed().await;
    let error = processed.error.unwrap();
    assert_eq!(processed.dubbed_audio, None);
    assert_eq!((error.code, error.retryable), (ErrorCode::GpuOom, true));
    assert_eq!(error.message, "the GPU is on fire");
    assert_eq!(error.stage.as_deref(), Some("tts"));
    worker.fragment("AAAA").await;
    assert_eq!(worker.processed().await.status, ProcessedStatus::Success);
    server.shutdown().await;
}

#[tokio::test]
async fn latency_without_a_stream_reaches_present_and_future_sessions() {
    let server = server(Config::default()).await;
    let mut present = Client::worker(&server, "present").await;
    let mut control = Client::controller(&server).await;
    let latency = LatencyConfig {
        base_ms: 80,
        ..LatencyConfig::default()
    };
    control.control(&ControlMessage::Latency(latency)).await;
    let mut future = Client::worker(&server, "future").await;
    for client in [&mut present, &mut future] {
        client.fragment("AAAA").await;
        assert_eq!(client.processed().await.processing_time_ms, 80);
    }
    server.shutdown().await;
}

#[tokio::test]
async fn automatic_backpressure_goes_up_and_down_with_the_load() {
    let latency = LatencyConfig {
        base_ms: 150,
        ..LatencyConfig::default()
    };
    let server = server(Config {
        latency,
        ..Config::default()
    })
    .await;
    let mut worker = Client::worker(&server, "s").await;
    let mut control = Client::controller(&server).await;
    let on = BackpressureConfig {
        enabled: true,
        ..BackpressureConfig::default()
    };
    control.control(&ControlMessage::Backpressure(on)).await;
    for _ in 0..3 {
        worker.fragment("AAAA").await;
    }
    let mut reports = Vec::new();
    while reports.len() < 3 {
        let report = load(&mut worker).await;
        reports.push((report.current_inflight, report.severity, report.action));
    }
    assert_eq!(
        reports,
        [
            (2, BackpressureSeverity::Low, BackpressureAction::None),
            (3, BackpressureSeverity::High, BackpressureAction::Pause),
            (2, BackpressureSeverity::Low, BackpressureAction::None),
        ]
    );
    server.shutdown().await;
}

#[tokio::test]
async fn a_load_report_can_be_ordered_now() {
    let server = server(Config::default()).await;
    let mut worker = Client::worker(&server, "s").await;
    let mut control = Client::controller(&server).await;
    for (action, severity, delay) in [
        (
            BackpressureAction::SlowDown,
            BackpressureSeverity::Medium,
            Some(500),
        ),
        (BackpressureAction::Pause, BackpressureSeverity::High, None),
        (BackpressureAction::None, BackpressureSeverity::Low, None),
    ] {
        let event = SimulateBackpressure {
            stream_id: Some("s".to_owned()),
            action,
            severity: None,
            recommended_delay_ms: delay,
        };
        let told = control
            .control(&ControlMessage::SimulateBackpressure(event))
            .await;
        assert_eq!(told, "1 session");
        let report = load(&mut worker).await;
        assert_eq!((report.action, report.severity), (action, severity));
        assert_eq!(report.recommended_delay_ms, delay);
    }
    server.shutdown().await;
}

#[tokio::test]
async fn every_audio_mode_answers_as_documented() {
    let server = server(Config::default()).await;
    let mut worker = Client::worker(&server, "s").await;
    let mut control = Client::controller(&server).await;
    let text = BASE64_STANDARD.encode(TONE);
    for (mode, format, ms) in [
        (AudioMode::Mark, "wav", 2_000),
        (AudioMode::Silence, "wav", 2_000),
        // It keeps the label, which is a lie by then.
        (AudioMode::Corrupt, "m4a", 6_000),
        (AudioMode::Echo, "m4a", 6_000),
    ] {
        control.control(&audio("s", mode)).await;
        worker.fragment(&text).await;
        let dubbed = worker.processed().await.dubbed_audio.unwrap();
        assert_eq!(
            (dubbed.format.as_str(), dubbed.duration_ms),
            (format, ms),
            "{mode:?}"
        );
        assert_eq!(
            dubbed.data_base64 == text,
            mode == AudioMode::Echo,
            "{mode:?}"
        );
    }
    let resize =
        json!({ "stream_id": "s", "mode": "resize", "ratio": 0.92, "format": "pcm_s16le" });
    let ack = control.control_raw(event::CONFIG_AUDIO, resize).await;
    assert_eq!(ack.status, ControlStatus::Accepted);
    worker.fragment(&text).await;
    let dubbed = worker.processed().await.dubbed_audio.unwrap();
    assert_eq!(
        (dubbed.format.as_str(), dubbed.duration_ms),
        ("pcm_s16le", 1_840)
    );

    control.control(&audio("s", AudioMode::Mark)).await;
    worker.fragment("AAAA").await;
    let error = worker.processed().await.error.unwrap();
    assert_eq!(
        error.code,
        ErrorCode::ModelError,
        "what cannot be decoded cannot be marked"
    );
    server.shutdown().await;
}

#[tokio::test]
async fn hold_for_one_fragment_leaves_only_that_one_unanswered() {
    let server = server(Config::default()).await;
    let mut worker = Client::worker(&server, "s").await;
    let mut control = Client::controller(&server).await;
    let hold = AudioConfig {
        count: Some(1),
        ..AudioConfig::new(AudioMode::Hold)
    };
    control.control(&ControlMessage::Audio(hold)).await;
    worker.fragment("AAAA").await;
    worker.fragment("BBBB").await;
    assert_eq!(worker.processed().await.sequence_number, 1);
    server.shutdown().await;
}

#[tokio::test]
async fn a_disconnect_waits_for_its_stream_and_its_delay() {
    let server = server(Config::default()).await;
    let mut control = Client::controller(&server).await;
    let told = control.control(&disconnect(Some("late"), 200, None)).await;
    assert_eq!(told, "waits for stream late");
    let mut other = Client::worker(&server, "other").await;
    let mut late = Client::worker(&server, "late").await;
    let start = Instant::now();
    late.wait_for("close").await;
    let waited = start.elapsed();
    assert!((150..1_000).contains(&waited.as_millis()), "{waited:?}");

    let mut again = Client::worker(&server, "late").await;
    assert_eq!(
        again.listen(Duration::from_millis(400)).await,
        [],
        "it acts once"
    );
    other.fragment("AAAA").await;
    assert_eq!(other.processed().await.status, ProcessedStatus::Success);
    server.shutdown().await;
}

#[tokio::test]
async fn refusing_one_stream_lets_others_in_and_ends_on_time() {
    let server = server(Config::default()).await;
    let mut worker = Client::worker(&server, "s").await;
    let mut control = Client::controller(&server).await;
    assert_eq!(
        control.control(&disconnect(Some("s"), 0, Some(600))).await,
        "1 session"
    );
    let start = Instant::now();
    worker.wait_for("close").await;
    let hello = Hello {
        stream: Some("s"),
        worker: Some("w"),
        token: None,
    };
    assert!(Client::connect(&server, hello).await.is_err(), "refused");
    Client::worker(&server, "another").await;
    while Client::connect(&server, hello).await.is_err() {
        assert!(start.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let refused = start.elapsed();
    assert!(
        (550..2_000).contains(&refused.as_millis()),
        "refused for {refused:?}"
    );
    let entries = server.journal().entries();
    assert!(
        entries
            .iter()
            .any(|e| e.event == "refused" && e.stream_id.as_deref() == Some("s"))
    );
    server.shutdown().await;
}

#[tokio::test]
async fn refusing_everyone_refuses_everyone() {
    let server = server(Config::default()).await;
    let mut worker = Client::worker(&server, "s").await;
    let mut control = Client::controller(&server).await;
    control.control(&disconnect(None, 0, Some(400))).await;
    worker.wait_for("close").await;
    assert!(Client::connect(&server, Hello::default()).await.is_err());
    // The controller stays: it has no session.
    control
        .control(&ControlMessage::Latency(LatencyConfig::default()))
        .await;
    server.shutdown().await;
}

#[tokio::test]
async fn a_lost_session_is_not_found_until_the_stream_is_opened_again() {
    let server = server(Config::default()).await;
    let mut worker = Client::worker(&server, "s").await;
    let mut control = Client::controller(&server).await;
    worker.signal(WorkerMessage::Pause).await;
    let lose = SimulateSessionLoss {
        stream_id: Some("s".to_owned()),
        delay_ms: 0,
    };
    control.control(&ControlMessage::SessionLoss(lose)).await;
    worker.signal(WorkerMessage::Resume).await;
    let error = worker.error().await;
    assert_eq!(
        (error.code, error.retryable),
        (ErrorCode::StreamNotFound, false)
    );
    assert_eq!(worker.init().await.session_id, "session-2");
    worker.fragment("AAAA").await;
    assert_eq!(worker.processed().await.sequence_number, 0);
    server.shutdown().await;
}

#[tokio::test]
async fn a_control_event_that_makes_no_sense_is_rejected_with_the_reason() {
    let server = server(Config::default()).await;
    let mut control = Client::controller(&server).await;
    for (event, payload, reason) in [
        (
            event::CONFIG_AUDIO,
            json!({ "mode": "loud" }),
            "mode: unknown variant `loud`",
        ),
        (
            event::CONFIG_AUDIO,
            json!({ "mode": "resize" }),
            "ratio: resize needs it",
        ),
        (
            event::CONFIG_LATENCY,
            json!({ "base_ms": -1 }),
            "base_ms: -1 is not",
        ),
        (event::CONFIG_LATENCY, json!({}), "missing field `base_ms`"),
        (
            event::CONFIG_ERROR_SIMULATION,
            json!([]),
            "expected one JSON object",
        ),
        (
            event::CONFIG_BACKPRESSURE,
            json!({ "enabled": true, "threshold_high": 0.1 }),
            "thresholds must rise",
        ),
        (
            event::SIMULATE_BACKPRESSURE,
            json!({ "action": "panic" }),
            "unknown variant `panic`",
        ),
        (
            event::SIMULATE_DISCONNECT,
            json!({ "delay_ms": "soon" }),
            "delay_ms",
        ),
    ] {
        let ack = control.control_raw(event, payload).await;
        assert_eq!(ack.status, ControlStatus::Rejected, "{event}");
        let message = ack.message.unwrap();
        assert!(
            message.contains(reason),
            "{event}: {message:?} lacks {reason:?}"
        );
    }
    server.shutdown().await;
}
