//! A run with faults, for tests: a log and a journal that belong together.

use serde_json::{Value, json};

use crate::probe::{journal::Journal, logs::Log};

/// 2026-01-01T00:00:00Z, when the first packet of the run was sent.
pub(super) const ZERO_MS: f64 = 1_767_225_600_000.0;

/// A log of these moments: seconds, level, event, fields.
pub(super) fn log_of(moments: &[(f64, &str, &str, Value)]) -> Log {
    Log::parse(lines_of(moments).lines())
}

fn lines_of(moments: &[(f64, &str, &str, Value)]) -> String {
    let lines: Vec<String> = moments
        .iter()
        .map(|(at, level, event, fields)| {
            let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs_f64((ZERO_MS + at * 1e3) / 1e3);
            let mut line = json!({
                "timestamp": humantime::format_rfc3339_micros(time).to_string(),
                "level": level, "event": event, "message": event.replace('_', " "), "stream_id": "test",
            });
            let fields = fields.as_object().unwrap().clone();
            line.as_object_mut().unwrap().extend(fields);
            line.to_string()
        })
        .collect();
    lines.join("\n")
}

pub(super) fn journal_of(moments: &[(f64, &str, &str, Value)]) -> Journal {
    Journal::parse(&entries_of(moments)).unwrap()
}

fn entries_of(moments: &[(f64, &str, &str, Value)]) -> String {
    moments
        .iter()
        .map(|(at, direction, event, fields)| {
            // `at_ms` starts again when the service does: it must not be used.
            let mut line = json!({
                "time_ms": ZERO_MS + at * 1e3, "at_ms": at * 7.0, "direction": direction, "event": event,
            });
            let fields = fields.as_object().unwrap().clone();
            line.as_object_mut().unwrap().extend(fields);
            line.to_string() + "\n"
        })
        .collect()
}

pub(super) fn log() -> Log {
    Log::parse(log_lines().lines())
}

pub(super) fn journal() -> Journal {
    Journal::parse(&journal_lines()).unwrap()
}

/// Two dubbed segments (the second late), one that times out, one lost with the connection, one that
/// meets an open breaker.
pub(super) fn log_lines() -> String {
    let reset = "connection reset <&> by peer";
    let ready = |batch: u64| json!({"batch": batch, "kind": "full", "duration_ms": 6000});
    let sent = |batch: u64, id: &str| json!({"batch": batch, "sequence": batch, "fragment_id": id});
    let air = |batch: u64, delta: f64, dubbed: bool| json!({"batch": batch, "av_delta_ms": delta, "latency_ms": 6300, "dubbed": dubbed});
    lines_of(&[
        (
            -0.5,
            "INFO",
            "metrics_listening",
            json!({"addr": "127.0.0.1:9"}),
        ),
        (-0.4, "INFO", "sts_connecting", json!({"link": 1})),
        (-0.4, "INFO", "input_connected", json!({"connection": 1})),
        (-0.3, "INFO", "sts_connected", json!({"link": 1})),
        (
            -0.2,
            "INFO",
            "sts_ready",
            json!({"link": 1, "max_inflight": 3}),
        ),
        (6.0, "INFO", "segment_ready", ready(0)),
        (6.01, "INFO", "fragment_sent", sent(0, "a")),
        (
            6.11,
            "INFO",
            "fragment_processed",
            json!({"batch": 0, "sequence": 0, "fragment_id": "a", "rtt_ms": 100}),
        ),
        (6.3, "INFO", "pair_started", air(0, 0.0, true)),
        (12.0, "INFO", "segment_ready", ready(1)),
        (12.01, "INFO", "fragment_sent", sent(1, "b")),
        (
            12.42,
            "INFO",
            "fragment_processed",
            json!({"batch": 1, "sequence": 1, "fragment_id": "b", "rtt_ms": 410}),
        ),
        (
            12.8,
            "WARN",
            "stall",
            json!({"batch": 1, "duration_ms": 500}),
        ),
        (12.8, "INFO", "pair_started", air(1, -1.5, true)),
        (13.0, "INFO", "backpressure", json!({"action": "pause"})),
        (
            14.0,
            "INFO",
            "catch_up_started",
            json!({"batch": 1, "excess_ms": 200}),
        ),
        (15.0, "INFO", "backpressure", json!({"action": "none"})),
        (
            15.5,
            "INFO",
            "catch_up_done",
            json!({"batch": 1, "latency_ms": 6100}),
        ),
        (
            16.0,
            "INFO",
            "backpressure",
            json!({"action": "slow_down", "delay_ms": 500}),
        ),
        (18.0, "INFO", "segment_ready", ready(2)),
        (18.01, "INFO", "fragment_sent", sent(2, "c")),
        (24.0, "INFO", "segment_ready", ready(3)),
        (24.01, "INFO", "fragment_sent", sent(3, "d")),
        (
            24.2,
            "WARN",
            "fragment_timeout",
            json!({"batch": 2, "sequence": 2, "fragment_id": "c", "after_ms": 6190}),
        ),
        (
            24.2,
            "WARN",
            "breaker",
            json!({"from": "closed", "to": "open"}),
        ),
        (
            24.2,
            "WARN",
            "fallback",
            json!({"batch": 2, "reason": "timeout"}),
        ),
        (24.3, "INFO", "pair_started", air(2, 40.0, false)),
        (
            24.5,
            "WARN",
            "sts_disconnected",
            json!({"link": 1, "reason": reset, "in_flight": 1}),
        ),
        (
            24.5,
            "WARN",
            "fallback",
            json!({"batch": 3, "reason": "disconnected"}),
        ),
        (
            24.5,
            "WARN",
            "reconnect_scheduled",
            json!({"attempt": 1, "delay_ms": 2000}),
        ),
        (26.5, "INFO", "sts_connecting", json!({"link": 2})),
        (
            26.6,
            "WARN",
            "sts_connect_failed",
            json!({"link": 2, "reason": "refused"}),
        ),
        (
            26.6,
            "WARN",
            "reconnect_attempt",
            json!({"attempt": 1, "success": false}),
        ),
        (30.0, "INFO", "segment_ready", ready(4)),
        (
            30.0,
            "WARN",
            "fallback",
            json!({"batch": 4, "reason": "breaker_open"}),
        ),
        (30.3, "INFO", "pair_started", air(3, 1.5, false)),
        (30.6, "INFO", "sts_connecting", json!({"link": 3})),
        (30.7, "INFO", "sts_connected", json!({"link": 3})),
        (
            30.8,
            "INFO",
            "sts_ready",
            json!({"link": 3, "max_inflight": 3}),
        ),
        (
            30.8,
            "INFO",
            "reconnect_attempt",
            json!({"attempt": 2, "success": true}),
        ),
        (
            30.8,
            "INFO",
            "reconnected",
            json!({"link": 3, "away_ms": 6300}),
        ),
        (36.3, "INFO", "pair_started", air(4, 1.0, false)),
        (43.0, "INFO", "exiting", json!({"code": 0})),
    ])
}

/// What the service saw of it.
pub(super) fn journal_lines() -> String {
    let data = |n: u64, id: &str| json!({"fragment_id": id, "sequence": n, "session": 1, "duration_ms": 6000});
    let ack = |id: &str, status: &str| json!({"fragment_id": id, "status": status});
    entries_of(&[
        (-0.3, "local", "connect", json!({})),
        (6.02, "in", "fragment:data", data(0, "a")),
        (6.03, "out", "fragment:ack", ack("a", "queued")),
        (6.10, "out", "fragment:processed", ack("a", "success")),
        (6.2, "in", "fragment:ack", ack("a", "applied")),
        (12.02, "in", "fragment:data", data(1, "b")),
        (12.03, "out", "fragment:ack", ack("b", "queued")),
        (12.41, "out", "fragment:processed", ack("b", "success")),
        (12.5, "in", "fragment:ack", ack("b", "applied")),
        (12.99, "out", "backpressure", json!({"action": "pause"})),
        (14.0, "out", "error", json!({"code": "SERVER_OVERLOADED"})),
        (14.99, "out", "backpressure", json!({"action": "none"})),
        (15.99, "out", "backpressure", json!({"action": "slow_down"})),
        (18.02, "in", "fragment:data", data(2, "c")),
        (18.03, "out", "fragment:ack", ack("c", "queued")),
        (24.02, "in", "fragment:data", data(3, "d")),
        (24.4, "out", "fragment:processed", ack("c", "success")),
        (
            24.45,
            "local",
            "simulated_disconnect",
            json!({"session": 1}),
        ),
    ])
}
