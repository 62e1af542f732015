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

/// Moments as text: second, level or direction, event, fields.
pub(super) fn moments(text: &str) -> Vec<(f64, &str, &str, Value)> {
    let lines = text.lines().filter(|line| !line.is_empty());
    let moment = |line| {
        let mut words = str::splitn(line, 4, ' ');
        let mut next = || words.next().unwrap();
        let (at, kind, event) = (next().parse().unwrap(), next(), next());
        (at, kind, event, serde_json::from_str(next()).unwrap())
    };
    lines.map(moment).collect()
}

/// Two dubbed segments (the second late), one that times out, one lost with the connection, one that
/// meets an open breaker.
pub(super) fn log_lines() -> String {
    lines_of(&moments(LOG))
}

/// What the service saw of it.
pub(super) fn journal_lines() -> String {
    entries_of(&moments(JOURNAL))
}

const LOG: &str = r#"
-0.5 INFO metrics_listening {"addr": "127.0.0.1:9"}
-0.4 INFO sts_connecting {"link": 1}
-0.4 INFO input_connected {"connection": 1}
-0.3 INFO sts_connected {"link": 1}
-0.2 INFO sts_ready {"link": 1, "max_inflight": 3}
6.0 INFO segment_ready {"batch": 0, "kind": "full", "duration_ms": 6000}
6.01 INFO fragment_sent {"batch": 0, "sequence": 0, "fragment_id": "a"}
6.11 INFO fragment_processed {"batch": 0, "sequence": 0, "fragment_id": "a", "rtt_ms": 100}
6.3 INFO pair_started {"batch": 0, "av_delta_ms": 0.0, "latency_ms": 6300, "dubbed": true}
12.0 INFO segment_ready {"batch": 1, "kind": "full", "duration_ms": 6000}
12.01 INFO fragment_sent {"batch": 1, "sequence": 1, "fragment_id": "b"}
12.42 INFO fragment_processed {"batch": 1, "sequence": 1, "fragment_id": "b", "rtt_ms": 410}
12.8 WARN stall {"batch": 1, "duration_ms": 500}
12.8 INFO pair_started {"batch": 1, "av_delta_ms": -1.5, "latency_ms": 6300, "dubbed": true}
13.0 INFO backpressure {"action": "pause"}
14.0 INFO catch_up_started {"batch": 1, "excess_ms": 200}
15.0 INFO backpressure {"action": "none"}
15.5 INFO catch_up_done {"batch": 1, "latency_ms": 6100}
16.0 INFO backpressure {"action": "slow_down", "delay_ms": 500}
18.0 INFO segment_ready {"batch": 2, "kind": "full", "duration_ms": 6000}
18.01 INFO fragment_sent {"batch": 2, "sequence": 2, "fragment_id": "c"}
24.0 INFO segment_ready {"batch": 3, "kind": "full", "duration_ms": 6000}
24.01 INFO fragment_sent {"batch": 3, "sequence": 3, "fragment_id": "d"}
24.2 WARN fragment_timeout {"batch": 2, "sequence": 2, "fragment_id": "c", "after_ms": 6190}
24.2 WARN breaker {"from": "closed", "to": "open"}
24.2 WARN fallback {"batch": 2, "reason": "timeout"}
24.3 INFO pair_started {"batch": 2, "av_delta_ms": 40.0, "latency_ms": 6300, "dubbed": false}
24.5 WARN sts_disconnected {"link": 1, "reason": "connection reset <&> by peer", "in_flight": 1}
24.5 WARN fallback {"batch": 3, "reason": "disconnected"}
24.5 WARN reconnect_scheduled {"attempt": 1, "delay_ms": 2000}
26.5 INFO sts_connecting {"link": 2}
26.6 WARN sts_connect_failed {"link": 2, "reason": "refused"}
26.6 WARN reconnect_attempt {"attempt": 1, "success": false}
30.0 INFO segment_ready {"batch": 4, "kind": "full", "duration_ms": 6000}
30.0 WARN fallback {"batch": 4, "reason": "breaker_open"}
30.3 INFO pair_started {"batch": 3, "av_delta_ms": 1.5, "latency_ms": 6300, "dubbed": false}
30.6 INFO sts_connecting {"link": 3}
30.7 INFO sts_connected {"link": 3}
30.8 INFO sts_ready {"link": 3, "max_inflight": 3}
30.8 INFO reconnect_attempt {"attempt": 2, "success": true}
30.8 INFO reconnected {"link": 3, "away_ms": 6300}
36.3 INFO pair_started {"batch": 4, "av_delta_ms": 1.0, "latency_ms": 6300, "dubbed": false}
43.0 INFO exiting {"code": 0}
"#;

const JOURNAL: &str = r#"
-0.3 local connect {}
6.02 in fragment:data {"fragment_id": "a", "sequence": 0, "session": 1, "duration_ms": 6000}
6.03 out fragment:ack {"fragment_id": "a", "status": "queued"}
6.10 out fragment:processed {"fragment_id": "a", "status": "success"}
6.2 in fragment:ack {"fragment_id": "a", "status": "applied"}
12.02 in fragment:data {"fragment_id": "b", "sequence": 1, "session": 1, "duration_ms": 6000}
12.03 out fragment:ack {"fragment_id": "b", "status": "queued"}
12.41 out fragment:processed {"fragment_id": "b", "status": "success"}
12.5 in fragment:ack {"fragment_id": "b", "status": "applied"}
12.99 out backpressure {"action": "pause"}
14.0 out error {"code": "SERVER_OVERLOADED"}
14.99 out backpressure {"action": "none"}
15.99 out backpressure {"action": "slow_down"}
18.02 in fragment:data {"fragment_id": "c", "sequence": 2, "session": 1, "duration_ms": 6000}
18.03 out fragment:ack {"fragment_id": "c", "status": "queued"}
24.02 in fragment:data {"fragment_id": "d", "sequence": 3, "session": 1, "duration_ms": 6000}
24.4 out fragment:processed {"fragment_id": "c", "status": "success"}
24.45 local simulated_disconnect {"session": 1}
"#;
