//! The model on a run with faults, and on what may be missing or absurd.

use serde_json::json;

use super::{
    story::{ZERO_MS, journal, journal_of, log, log_of},
    *,
};
use crate::report::model::{Outcome, Tone, track::Band};

fn timeline(first_packet_ms: f64, log: &Log, journal: &Journal) -> Timeline {
    Timeline::of(&Run {
        first_packet_ms,
        log,
        journal,
        latency: &[],
    })
}

fn story() -> Timeline {
    timeline(ZERO_MS, &log(), &journal())
}

fn at(value: Option<f64>) -> Option<f64> {
    value.map(|seconds| (seconds * 1e3).round() / 1e3)
}

#[test]
fn log_and_journal_are_joined_by_fragment() {
    let rows = story().rows;
    assert_eq!(
        rows.iter().map(|row| row.batch).collect::<Vec<_>>(),
        (0..5).map(Some).collect::<Vec<_>>()
    );
    let row = &rows[1];
    assert_eq!(
        (at(row.ready), at(row.sent), at(row.queued)),
        (Some(12.0), Some(12.01), Some(12.03))
    );
    assert_eq!(
        (at(row.processed), at(row.applied), at(row.on_air)),
        (Some(12.42), Some(12.5), Some(12.8))
    );
    assert_eq!(
        (row.session, row.rtt_ms, row.stall_ms),
        (Some(1), Some(410.0), Some(500.0))
    );
    assert_eq!(row.outcome, Outcome::Dubbed);
    assert_eq!(at(row.on_air_until()), Some(18.8));
}

#[test]
fn every_fallback_has_its_reason_and_its_end() {
    let rows = story().rows;
    let reasons: Vec<_> = rows[2..].iter().map(|row| row.outcome.clone()).collect();
    let fallback = |reason: &str| Outcome::Fallback(reason.to_owned());
    assert_eq!(
        reasons,
        [
            fallback("timeout"),
            fallback("disconnected"),
            fallback("breaker_open")
        ]
    );
    // Timed out, then answered all the same.
    assert_eq!(
        (at(rows[2].settled), at(rows[2].late_answer())),
        (Some(24.2), Some(24.4))
    );
    // Lost with its connection.
    assert_eq!(
        (at(rows[3].back()), rows[3].late_answer()),
        (Some(24.5), None)
    );
    // Never sent.
    assert_eq!((rows[4].left(), at(rows[4].decided)), (None, Some(30.0)));
}

#[test]
fn in_flight_rises_and_falls_to_zero() {
    let lanes = story().lanes;
    let counts: Vec<_> = lanes.in_flight.iter().map(|(_, count)| *count).collect();
    assert_eq!(counts, [1, 0, 1, 0, 1, 2, 1, 0]);
    assert_eq!(
        lanes
            .limit
            .iter()
            .map(|(_, limit)| *limit)
            .collect::<Vec<_>>(),
        [3, 3]
    );
}

#[test]
fn bands_follow_each_other_without_holes() {
    let timeline = story();
    let lanes = &timeline.lanes;
    let labels = |bands: &[Band]| bands.iter().map(|band| band.label).collect::<Vec<_>>();
    assert_eq!(
        labels(&lanes.link.bands),
        [
            "connecting",
            "connected",
            "ready",
            "away",
            "connecting",
            "away",
            "connecting",
            "connected",
            "ready"
        ]
    );
    assert_eq!(labels(&lanes.breaker.bands), ["closed", "open"]);
    // The lost session takes the slow-down with it.
    assert_eq!(
        labels(&lanes.pace.bands),
        ["none", "pause", "none", "slow down", "none"]
    );
    assert_eq!(lanes.link.bands[3].detail, "connection reset <&> by peer");
    for bands in [
        &lanes.link.bands,
        &lanes.breaker.bands,
        &lanes.pace.bands,
        &lanes.input.bands,
    ] {
        assert!(
            bands
                .windows(2)
                .all(|pair| pair[0].to <= pair[1].from + 1e-9 && pair[0].from <= pair[0].to)
        );
        assert!((bands.last().unwrap().to - timeline.end).abs() < 1e-9);
    }
    assert_eq!(lanes.link.marks.len(), 3);
    assert_eq!(lanes.link.remark, "attempts: 1 failed, 1 succeeded");
}

#[test]
fn what_the_service_did_is_marked_and_a_clean_end_is_not_trouble() {
    use Tone::{Bad, Busy, Good, Quiet, Warn};
    let tones = |journal: &Journal| {
        let marks = timeline(ZERO_MS, &Log::default(), journal).lanes.service;
        marks.into_iter().map(|mark| mark.tone).collect::<Vec<_>>()
    };
    assert_eq!(tones(&journal()), [Good, Warn, Bad, Quiet, Warn, Warn]);
    let end = (1.0, "in", "stream:end", json!({"session": 1}));
    let gone = |session: u64| (2.0, "local", "disconnect", json!({"session": session}));
    assert_eq!(
        tones(&journal_of(&[end, gone(1), gone(2)])),
        [Busy, Quiet, Bad]
    );
}

#[test]
fn the_end_of_the_input_is_taken_as_the_worker_takes_it() {
    let lane = |level| {
        let moments = [
            (1.0, "INFO", "input_connected", json!({})),
            (2.0, level, "input_lost", json!({"error": "closed"})),
            (
                2.0,
                level,
                "input_retry",
                json!({"attempt": 1, "delay_ms": 1000}),
            ),
            (3.0, "INFO", "input_ended", json!({"reason": "over"})),
        ];
        timeline(ZERO_MS, &log_of(&moments), &Journal::default())
            .lanes
            .input
    };
    let (calm, alarmed) = (lane("INFO"), lane("WARN"));
    assert_eq!(
        (calm.bands[1].tone, alarmed.bands[1].tone),
        (Tone::Busy, Tone::Warn)
    );
    assert_eq!(
        (calm.marks[0].tone, alarmed.marks[0].tone),
        (Tone::Busy, Tone::Warn)
    );
    assert_eq!(calm.remark, "1 retry");
    assert_eq!(
        calm.bands.iter().map(|band| band.label).collect::<Vec<_>>(),
        ["connected", "lost", "ended"]
    );
}

#[test]
fn a_stall_lasts_until_its_pair_starts() {
    let stalls = story().lanes.stalls;
    assert_eq!(stalls.len(), 1);
    assert_eq!(
        (
            at(Some(stalls[0].from)),
            at(Some(stalls[0].to)),
            stalls[0].batch
        ),
        (Some(12.3), Some(12.8), 1)
    );
}

#[test]
fn catching_up_lasts_until_it_is_done_or_the_run_is_over() {
    let spans = |timeline: &Timeline| {
        let bands = timeline.lanes.catch_up.iter();
        bands
            .map(|band| (at(Some(band.from)), at(Some(band.to))))
            .collect::<Vec<_>>()
    };
    assert_eq!(spans(&story()), [(Some(14.0), Some(15.5))]);
    let log = log_of(&[
        (1.0, "INFO", "catch_up_started", json!({"excess_ms": 200})),
        (5.0, "INFO", "exiting", json!({"code": 0})),
    ]);
    let cut = timeline(ZERO_MS, &log, &Journal::default());
    assert_eq!(spans(&cut), [(Some(1.0), Some(5.0))]);
}

#[test]
fn the_axis_has_room_for_what_came_before_the_first_packet() {
    let timeline = story();
    assert_eq!(timeline.axis.zero(), Zero::FirstPacket);
    assert!((timeline.begin + 0.5).abs() < 1e-6, "{}", timeline.begin);
    assert!((timeline.end - 43.0).abs() < 1e-6, "{}", timeline.end);
}

#[test]
fn without_a_first_packet_the_first_word_is_zero() {
    let (log, journal) = (log(), journal());
    let by_log = timeline(0.0, &log, &journal);
    assert_eq!(by_log.axis.zero(), Zero::FirstLine);
    assert!(
        by_log.begin.abs() < 1e-6 && (by_log.end - 43.5).abs() < 1e-3,
        "{} {}",
        by_log.begin,
        by_log.end
    );
    let by_journal = timeline(f64::NAN, &Log::default(), &journal);
    assert_eq!(by_journal.axis.zero(), Zero::FirstEntry);
    let nothing = timeline(0.0, &Log::default(), &Journal::default());
    assert_eq!(
        (nothing.axis.zero(), nothing.rows.len()),
        (Zero::Nothing, 0)
    );
    assert!(nothing.end > nothing.begin);
}

#[test]
fn without_a_journal_the_log_is_enough() {
    let rows = timeline(ZERO_MS, &log(), &Journal::default()).rows;
    assert_eq!(
        (rows.len(), rows[0].queued, at(rows[0].back())),
        (5, None, Some(6.11))
    );
}

#[test]
fn without_a_log_the_journal_is_enough() {
    let timeline = timeline(ZERO_MS, &Log::default(), &journal());
    let rows = &timeline.rows;
    assert_eq!(
        (rows.len(), rows[0].batch, rows[0].sequence),
        (4, None, Some(0))
    );
    assert_eq!(
        (at(rows[0].left()), at(rows[0].back())),
        (Some(6.02), Some(6.1))
    );
    assert_eq!(
        (rows[3].back(), rows[3].outcome.clone()),
        (None, Outcome::Unknown)
    );
    assert_eq!(
        timeline.lanes.in_flight.last().map(|(_, count)| *count),
        Some(1)
    );
    assert!(timeline.lanes.breaker.bands.is_empty());
}

#[test]
fn a_segment_that_is_sent_again_is_another_row() {
    let sent = |id: &str| json!({"batch": 7, "sequence": 0, "fragment_id": id});
    let log = log_of(&[
        (
            1.0,
            "INFO",
            "segment_ready",
            json!({"batch": 7, "kind": "full", "duration_ms": 1000}),
        ),
        (1.1, "INFO", "fragment_sent", sent("x")),
        (1.2, "WARN", "session_lost", json!({"link": 1})),
        (1.3, "INFO", "fragment_sent", sent("y")),
        (
            1.4,
            "INFO",
            "fragment_processed",
            json!({"batch": 7, "fragment_id": "y", "rtt_ms": 100}),
        ),
    ]);
    let rows = timeline(ZERO_MS, &log, &Journal::default()).rows;
    assert_eq!(rows.len(), 2);
    assert_eq!(
        (at(rows[0].back()), rows[0].outcome.clone()),
        (Some(1.2), Outcome::Unknown)
    );
    assert_eq!(
        (
            at(rows[1].back()),
            rows[1].outcome.clone(),
            at(rows[1].ready)
        ),
        (Some(1.4), Outcome::Dubbed, Some(1.0))
    );
}

#[test]
fn absurd_values_are_left_out() {
    let log = log_of(&[
        (
            0.0,
            "INFO",
            "segment_ready",
            json!({"batch": -1, "duration_ms": 6000}),
        ),
        (1.0, "INFO", "segment_ready", json!({"batch": 0.5})),
        (
            2.0,
            "INFO",
            "segment_ready",
            json!({"batch": "3", "kind": 7, "duration_ms": 1e300}),
        ),
        (
            3.0,
            "INFO",
            "pair_started",
            json!({"batch": 3, "av_delta_ms": "x", "dubbed": "yes"}),
        ),
        (1e9, "INFO", "segment_ready", json!({"batch": 4})),
    ]);
    let journal = journal_of(&[
        (
            1.0,
            "out",
            "fragment:processed",
            json!({"fragment_id": "never sent"}),
        ),
        (
            -2e9,
            "in",
            "fragment:data",
            json!({"fragment_id": "long ago"}),
        ),
        (2.0, "local", "disconnect", json!({})),
    ]);
    let timeline = timeline(ZERO_MS, &log, &journal);
    assert_eq!(timeline.rows.len(), 1, "{:?}", timeline.rows);
    let row = &timeline.rows[0];
    assert_eq!(
        (row.batch, row.kind.clone(), row.duration_ms, row.delta_ms),
        (Some(3), None, None, None)
    );
    assert!(timeline.lanes.deltas.is_empty());
    assert!((timeline.end - 3.0).abs() < 1e-6 && timeline.begin.abs() < 1e-6);
}
