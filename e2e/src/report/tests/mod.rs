//! What the model says of a run with faults, and of what may be missing or absurd; what the lists say.

mod browser;
mod sample;

use serde_json::json;

use self::sample::{ZERO_MS, journal, journal_of, log, log_of, moments};
use super::lanes::Tone;
use super::model::{Run, Timeline};
use super::rows::Outcome;
use super::*;
use crate::failure::Place;

fn timeline(first_packet_ms: f64, log: &Log, journal: &Journal) -> Timeline {
    Timeline::of(&Run {
        first_packet_ms,
        log,
        journal,
        latency: &[(ZERO_MS + 7_000.0, 6.25), (ZERO_MS + 7_100.0, 0.0)],
    })
}

fn sample_run() -> Timeline {
    timeline(ZERO_MS, &log(), &journal())
}

fn rounded(value: Option<f64>) -> Option<f64> {
    value.map(|seconds| (seconds * 1e3).round() / 1e3)
}

fn at(row: &rows::Row, moments: &[&str]) -> Vec<Option<f64>> {
    moments.iter().map(|name| rounded(row.at(name))).collect()
}

fn labels(lane: &lanes::Lane) -> Vec<&'static str> {
    lane.bands.iter().map(|band| band.label).collect()
}

#[test]
fn log_and_journal_are_joined_by_fragment() {
    let rows = sample_run().rows;
    let batches: Vec<_> = rows.iter().map(|row| row.batch).collect();
    assert_eq!(batches, (0..5).map(Some).collect::<Vec<_>>());
    let row = &rows[1];
    let moments = [
        "ready",
        "sent",
        "queued",
        "processed",
        "applied",
        "on_air",
        "until",
    ];
    let expected = [12.0, 12.01, 12.03, 12.42, 12.5, 12.8, 18.8].map(Some);
    assert_eq!(at(row, &moments), expected);
    assert_eq!(
        (row.session, row.rtt_ms, row.stall_ms),
        (Some(1), Some(410.0), Some(500.0))
    );
    assert_eq!(row.outcome, Outcome::Dubbed);
}

#[test]
fn every_fallback_has_its_reason_and_its_end() {
    let rows = sample_run().rows;
    let reasons: Vec<_> = rows[2..]
        .iter()
        .map(|row| (row.outcome, row.reason.as_deref()))
        .collect();
    let fallback = |reason| (Outcome::Fallback, Some(reason));
    assert_eq!(
        reasons,
        ["timeout", "disconnected", "breaker_open"].map(fallback)
    );
    // Timed out, then answered all the same; lost with its connection; never sent.
    assert_eq!(at(&rows[2], &["settled", "late"]), [Some(24.2), Some(24.4)]);
    assert_eq!(at(&rows[3], &["back", "late"]), [Some(24.5), None]);
    assert_eq!(at(&rows[4], &["left", "decided"]), [None, Some(30.0)]);
}

#[test]
fn lanes_follow_what_happened_without_holes() {
    let timeline = sample_run();
    let lanes = &timeline.lanes;
    let counts: Vec<_> = lanes.in_flight.iter().map(|(_, count)| *count).collect();
    assert_eq!(counts, [1, 0, 1, 0, 1, 2, 1, 0]);
    assert_eq!(
        labels(&lanes.link),
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
    assert_eq!(labels(&lanes.breaker), ["closed", "open"]);
    // The lost session takes the slow-down with it.
    assert_eq!(
        labels(&lanes.pace),
        ["none", "pause", "none", "slow down", "none"]
    );
    assert_eq!(lanes.link.bands[3].detail, "connection reset <&> by peer");
    for lane in [&lanes.link, &lanes.breaker, &lanes.pace, &lanes.input] {
        let ordered =
            |pair: &[lanes::Band]| pair[0].to <= pair[1].from + 1e-9 && pair[0].from <= pair[0].to;
        assert!(lane.bands.windows(2).all(ordered), "{lane:?}");
        assert_eq!(lane.bands.last().map(|band| band.to), Some(timeline.end));
    }
    assert_eq!(lanes.link.marks.len(), 3);
    assert_eq!(lanes.link.remark, "attempts: 1 failed, 1 succeeded");
    let stall = &lanes.stalls[0];
    assert_eq!(
        (
            lanes.stalls.len(),
            rounded(Some(stall.from)),
            rounded(Some(stall.to))
        ),
        (1, Some(12.3), Some(12.8))
    );
    let faster: Vec<_> = lanes
        .catch_up
        .iter()
        .map(|it| (it.from.round(), it.to))
        .collect();
    assert_eq!(faster, [(14.0, 15.5)]);
    assert_eq!(
        lanes.latency.iter().filter(|point| point.1 == 6.25).count(),
        1
    );
    assert!((timeline.begin + 0.5).abs() < 1e-6 && (timeline.end - 43.0).abs() < 1e-6);
}

#[test]
fn what_the_service_did_is_marked_and_a_clean_end_is_not_trouble() {
    use Tone::{Bad, Busy, Good, Quiet, Warn};
    let tones = |journal: &Journal| {
        let marks = timeline(ZERO_MS, &Log::default(), journal)
            .lanes
            .service
            .marks;
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
        let retry = json!({"attempt": 1, "delay_ms": 1000});
        let moments = [
            (1.0, "INFO", "input_connected", json!({})),
            (2.0, level, "input_lost", json!({"error": "closed"})),
            (2.0, level, "input_retry", retry),
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
    assert_eq!(labels(&calm), ["connected", "lost", "ended"]);
}

#[test]
fn one_side_is_enough_and_so_is_none() {
    let by_log = timeline(0.0, &log(), &Journal::default());
    assert_eq!(by_log.axis.zero, "the worker logged its first line");
    assert_eq!((by_log.rows.len(), by_log.rows[0].at("queued")), (5, None));
    let by_journal = timeline(f64::NAN, &Log::default(), &journal());
    assert_eq!(by_journal.axis.zero, "the STS service saw its first event");
    assert_eq!((by_journal.rows.len(), by_journal.rows[0].batch), (4, None));
    assert_eq!(by_journal.rows[3].outcome, Outcome::Unknown);
    assert_eq!(
        by_journal.lanes.in_flight.last().map(|(_, count)| *count),
        Some(1)
    );
    assert!(by_journal.lanes.breaker.bands.is_empty());
    let nothing = timeline(0.0, &Log::default(), &Journal::default());
    assert_eq!((nothing.axis.zero, nothing.rows.len()), ("", 0));
    assert!(nothing.end > nothing.begin);
}

#[test]
fn a_segment_that_is_sent_again_is_another_row() {
    let sent = |id: &str| json!({"batch": 7, "sequence": 0, "fragment_id": id});
    let ready = json!({"batch": 7, "kind": "full", "duration_ms": 1000});
    let processed = json!({"batch": 7, "fragment_id": "y", "rtt_ms": 100});
    let log = log_of(&[
        (1.0, "INFO", "segment_ready", ready),
        (1.1, "INFO", "fragment_sent", sent("x")),
        (1.2, "WARN", "session_lost", json!({"link": 1})),
        (1.3, "INFO", "fragment_sent", sent("y")),
        (1.4, "INFO", "fragment_processed", processed),
    ]);
    let rows = timeline(ZERO_MS, &log, &Journal::default()).rows;
    let told: Vec<_> = rows
        .iter()
        .map(|row| (at(row, &["ready", "back"]), row.outcome))
        .collect();
    assert_eq!(
        told,
        [
            (vec![Some(1.0), Some(1.2)], Outcome::Unknown),
            (vec![Some(1.0), Some(1.4)], Outcome::Dubbed)
        ]
    );
}

#[test]
fn absurd_values_are_left_out() {
    let log = log_of(&moments(
        r#"
0.0 INFO segment_ready {"batch": -1, "duration_ms": 6000}
1.0 INFO segment_ready {"batch": 0.5}
2.0 INFO segment_ready {"batch": "3", "kind": 7, "duration_ms": 1e300}
3.0 INFO pair_started {"batch": 3, "av_delta_ms": "x", "dubbed": "yes"}
1e9 INFO segment_ready {"batch": 4}
"#,
    ));
    let journal = journal_of(&moments(
        r#"
1.0 out fragment:processed {"fragment_id": "never sent"}
-2e9 in fragment:data {"fragment_id": "long ago"}
2.0 local disconnect {}
"#,
    ));
    let timeline = timeline(ZERO_MS, &log, &journal);
    assert_eq!(timeline.rows.len(), 1, "{:?}", timeline.rows);
    let row = &timeline.rows[0];
    assert_eq!(
        (row.batch, &row.kind, row.duration_ms, row.delta_ms),
        (Some(3), &None, None, None)
    );
    assert!(timeline.lanes.deltas.is_empty() && (timeline.end - 7.0).abs() < 4.1);
}

#[test]
fn a_failure_is_found_on_the_axis() {
    let timeline = sample_run();
    let seconds = |place| rounded(timeline.seconds(place));
    assert_eq!(seconds(Place::Batch(1)), Some(12.8));
    // Second 7 of the media is the second of segment 1, which is on air from 12.8 on.
    assert_eq!(seconds(Place::Media(7.0)), Some(13.8));
    assert_eq!(seconds(Place::Wall(ZERO_MS + 24_500.0)), Some(24.5));
    assert_eq!(seconds(Place::Batch(99)), None);
}

#[test]
fn numbers_and_counts_tell_sides_apart() {
    let (log, journal) = (log(), journal());
    let numbers = Numbers::of(&sample_run(), &log);
    assert_eq!(
        (numbers.segments, numbers.dubbed, numbers.fallback.len()),
        (5, 2, 3)
    );
    assert_eq!(
        (numbers.fallback["timeout"], numbers.errors, numbers.exit),
        (1, 0, Some(0))
    );
    let text = "# TYPE worker_audio_fragments_total counter\n\
                worker_audio_fragments_total{status=\"sent\"} 4\n\
                worker_audio_fragments_total{status=\"processed\"} 2\n";
    let scrape = Scrape::parse(text).unwrap();
    let all = counts::counts(&scrape, &log, &journal);
    let find = |what: &str| {
        all.iter()
            .find(|count| count.0 == what)
            .map(|it| (it.1, it.2, it.3))
    };
    assert_eq!(find("fragments sent"), Some((Some(4), Some(4), Some(4))));
    // The answer that came too late left the service all the same.
    assert_eq!(
        find("answered with audio"),
        Some((Some(2), Some(2), Some(3)))
    );
    assert_eq!(find("stalls of the output"), Some((None, Some(1), None)));
    assert_eq!(find("backpressure: pause"), Some((None, Some(1), Some(1))));
    assert_eq!(find("fallback: bad_audio"), None);
    let blind = counts::counts(&scrape, &log, &Journal::default());
    assert!(blind.iter().all(|count| count.3.is_none()));
    assert_eq!(
        counts::counts(&Scrape::default(), &Log::default(), &Journal::default()),
        []
    );
}

#[test]
fn an_endless_log_is_cut_in_the_middle() {
    let line = "{\"timestamp\":\"2026-01-01T00:00:01Z\",\"level\":\"INFO\",\"message\":\"again\"}";
    let log = Log::parse(std::iter::repeat_n(line, 50_000));
    let (kept, skipped) = lines(&log, &sample_run().axis, &Map::new());
    assert_eq!((kept.len(), skipped), (MOST_LINES, 44_000));
}

/// A directory as a failed run leaves it.
fn left_behind(directory: &Path, part: &Part) {
    std::fs::create_dir_all(directory).unwrap();
    std::fs::write(directory.join("worker.log"), sample::log_lines()).unwrap();
    std::fs::write(directory.join("journal.jsonl"), sample::journal_lines()).unwrap();
    write(directory, part).unwrap();
}

fn failed() -> Part {
    let failure = Failure::new("the coded frames are not those of the input");
    Part {
        scenario: "a_run".into(),
        verdict: Verdict::Failed,
        failures: vec![
            failure
                .expected("5 frames")
                .actual("4 frames")
                .at(Place::Batch(1)),
        ],
        first_packet_ms: ZERO_MS,
        // As long as a real run's.
        latency: (0..400)
            .map(|n| (ZERO_MS + 100.0 * f64::from(n), 6.0 + 0.001 * f64::from(n)))
            .collect(),
        ..Part::default()
    }
}

#[test]
fn lists_know_every_run_and_pages_can_be_made_again() {
    let root = tempfile::tempdir().unwrap();
    let run = |name: &str, part: Part| {
        let directory = root.path().join(name);
        left_behind(&directory, &part);
        index::Run::new(&directory, part, Numbers::default())
    };
    let passed = Part {
        verdict: Verdict::Passed,
        ..Part::default()
    };
    update(
        root.path(),
        vec![run("a", failed()), run("b", passed.clone())],
    )
    .unwrap();
    let junit = std::fs::read_to_string(root.path().join("junit.xml")).unwrap();
    let document = roxmltree::Document::parse(&junit).unwrap();
    let suite = document
        .descendants()
        .find(|node| node.has_tag_name("testsuite"))
        .unwrap();
    assert_eq!(
        (suite.attribute("tests"), suite.attribute("failures")),
        (Some("2"), Some("1"))
    );
    let failure = document
        .descendants()
        .find(|node| node.has_tag_name("failure"))
        .unwrap();
    assert!(
        failure
            .text()
            .unwrap()
            .contains("expected 5 frames, found 4 frames")
    );
    // Later only one of them runs: the other is still listed, and is not part of that run.
    update(root.path(), vec![run("b", passed)]).unwrap();
    let text = std::fs::read_to_string(root.path().join("report.json")).unwrap();
    let all: Vec<index::Run> = serde_json::from_str(&text).unwrap();
    let verdicts: Vec<_> = all
        .iter()
        .map(|run| (run.name.as_str(), run.part.verdict))
        .collect();
    assert_eq!(verdicts, [("a", Verdict::Failed), ("b", Verdict::Passed)]);
    assert!(
        !std::fs::read_to_string(root.path().join("junit.xml"))
            .unwrap()
            .contains("failure ")
    );
    for name in ["a/report.html", "index.html"] {
        std::fs::remove_file(root.path().join(name)).unwrap();
    }
    assert_eq!(
        rebuild(root.path()).unwrap(),
        root.path().join("index.html")
    );
    assert!(
        root.path().join("a/report.html").is_file() && root.path().join("index.html").is_file()
    );
    assert!(rebuild(&root.path().join("nothing")).is_err());
}

#[test]
fn no_text_can_leave_the_data_and_the_page_needs_nothing_from_anywhere() {
    const EVIL: &str = "</script><script>alert(1)</script><img src=x onerror=y>{TITLE}{DATA}";
    let directory = tempfile::tempdir().unwrap();
    let part = Part {
        about: EVIL.into(),
        failures: vec![Failure::new(EVIL)],
        ..failed()
    };
    left_behind(directory.path(), &part);
    let html = std::fs::read_to_string(directory.path().join(FILE)).unwrap();
    assert_eq!(
        html.matches("</script>").count(),
        2,
        "the data and the script"
    );
    assert!(!html.contains("<img"));
    for reference in ["https://", "@import", "<link"] {
        assert!(!html.contains(reference), "{reference}");
    }
    for (element, content) in [("script", SCRIPT), ("style", STYLE)] {
        let hash = STANDARD.encode(Sha256::digest(content));
        assert!(
            html.contains(&format!("{element}-src 'sha256-{hash}'")),
            "{element}"
        );
        assert!(
            html.contains(&format!("<{element}>{content}</{element}>")),
            "{element}"
        );
    }
}
