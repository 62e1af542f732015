//! The harness's own judges: each lets a good run pass and names what is wrong with a bad one. The run
//! is made up: a recording that was rendered, a log, a journal and metrics that agree with it.
#![expect(
    clippy::unwrap_used,
    reason = "a test may fail where its preparations fail"
)]

use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use e2e::clock::{ClipSpec, render, render_edited, samples};
use e2e::pipeline::Evidence;
use e2e::probe::audio::Verdict;
use e2e::probe::{journal::Journal, logs::Log, metrics::Scrape};
use e2e::services::media_server::Kind;
use serde_json::json;
use sts_protocol::mark;

mod of_cameras;
mod of_services;
mod shared;

#[path = "../e2e/cameras/mod.rs"]
#[allow(dead_code, reason = "scenarios use the rest")]
mod cameras;
#[path = "../e2e/hostile_sts/mod.rs"]
#[allow(dead_code, reason = "scenarios use the rest")]
mod hostile_sts;
#[path = "../e2e/judge.rs"]
#[allow(dead_code, reason = "scenarios use the rest")]
mod judge;
#[path = "../e2e/late_answer/seen.rs"]
#[allow(dead_code, reason = "scenarios use the rest")]
mod seen;
#[path = "../e2e/stage.rs"]
#[allow(dead_code, reason = "scenarios use the rest")]
mod stage;
#[path = "../e2e/wire.rs"]
#[allow(dead_code, reason = "scenarios use the rest")]
mod wire;

const SEGMENT: Duration = Duration::from_secs(2);
const SEGMENTS: u64 = 3;
/// Segment 1 falls back, the others are dubbed.
const AWAY: [(std::ops::Range<u64>, &str); 1] = [(1..2, "timeout")];

/// What the worker says of each pair, ms.
const DELTAS: [f64; 3] = [0.0, -12.5, 30.25];

fn spec() -> ClipSpec {
    ClipSpec::clock(6).small()
}

/// What is heard of a run: marked where it is dubbed. `from` says where each segment comes from.
fn sound(from: [usize; 3]) -> Vec<f32> {
    let all = samples(&spec());
    let segment = 2 * 2 * 48_000;
    let gain = 10_f64.powf(mark::ORIGINAL_GAIN_DB / 20.0) as f32;
    let level = 10_f64.powf(mark::TONE_DBFS / 20.0);
    (0..all.len())
        .map(|at| {
            let value = all[from[at / segment] * segment + at % segment];
            let time = (at / 2) as f64 / 48_000.0;
            let tone = level * (mark::TONE_HZ * time * std::f64::consts::TAU).sin();
            if at / segment == 1 {
                value
            } else {
                value * gain + tone as f32
            }
        })
        .collect()
}

/// Clip and recordings, rendered once. What is static is never dropped, so they stay below `target`, until
/// the next run.
struct Files {
    directory: PathBuf,
    clip: PathBuf,
    good: PathBuf,
}

static FILES: LazyLock<Files> = LazyLock::new(|| {
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("judges");
    let _ = std::fs::remove_dir_all(&directory);
    std::fs::create_dir_all(&directory).unwrap();
    let clip = directory.join("clip.mp4");
    render(&spec(), &clip).unwrap();
    let good = directory.join("good.mp4");
    let numbers: Vec<u32> = (0..spec().frames()).collect();
    render_edited(&spec(), &numbers, sound([0, 1, 2]), &good).unwrap();
    Files {
        directory,
        clip,
        good,
    }
});

fn recording(name: &str, numbers: &[u32], sound: Vec<f32>) -> PathBuf {
    let path = FILES.directory.join(name);
    render_edited(&spec(), numbers, sound, &path).unwrap();
    path
}

fn log() -> Vec<serde_json::Value> {
    let line = |seconds: f64, level: &str, event: &str, fields: serde_json::Value| {
        let time = std::time::UNIX_EPOCH + Duration::from_secs_f64(1.7e9 + seconds);
        let mut line = json!({"timestamp": humantime::format_rfc3339_micros(time).to_string(), "level": level, "event": event, "message": event});
        let all = line.as_object_mut().unwrap();
        all.extend(fields.as_object().unwrap().clone());
        line
    };
    let mut lines = Vec::new();
    for batch in 0..SEGMENTS {
        let at = batch as f64 * 2.0 + 2.0;
        let id = format!("id-{batch}");
        lines.push(line(at, "INFO", "segment_ready", json!({"batch": batch})));
        let sent = json!({"batch": batch, "sequence": batch, "fragment_id": id});
        lines.push(line(at, "INFO", "fragment_sent", sent));
        if batch == 1 {
            lines.push(line(
                at + 1.0,
                "WARN",
                "fallback",
                json!({"batch": 1, "reason": "timeout"}),
            ));
            lines.push(line(
                at + 1.0,
                "WARN",
                "stall",
                json!({"batch": 1, "duration_ms": 900}),
            ));
        }
        lines.push(line(
            at + 1.0,
            "INFO",
            "pair_started",
            json!({"batch": batch, "dubbed": batch != 1, "av_delta_ms": DELTAS[batch as usize]}),
        ));
    }
    lines
}

fn journal() -> Vec<serde_json::Value> {
    let line = |ms: u64, direction: &str, event: &str, batch: u64, status: Option<&str>| {
        json!({"time_ms": 1.7e12 + ms as f64, "at_ms": ms, "direction": direction, "event": event, "stream_id": "test",
               "session": 1, "sequence": batch, "fragment_id": format!("id-{batch}"), "status": status})
    };
    let mut lines = Vec::new();
    for batch in 0..SEGMENTS {
        let at = batch * 2000 + 2001;
        lines.push(line(at, "in", "fragment:data", batch, None));
        lines.push(line(at, "out", "fragment:ack", batch, Some("queued")));
        if batch != 1 {
            lines.push(line(
                at + 9,
                "out",
                "fragment:processed",
                batch,
                Some("success"),
            ));
            lines.push(line(at + 10, "in", "fragment:ack", batch, Some("applied")));
        }
    }
    lines
}

fn metrics() -> String {
    let mut text = String::new();
    for reason in e2e::probe::FALLBACK_REASONS {
        text += &format!(
            "worker_fallback_total{{reason=\"{reason}\"}} {}\n",
            u8::from(reason == "timeout")
        );
    }
    for (status, count) in [
        ("sent", 3),
        ("processed", 2),
        ("failed", 1),
        ("fallback", 1),
    ] {
        text += &format!("worker_audio_fragments_total{{status=\"{status}\"}} {count}\n");
    }
    text + "worker_output_stalls_total 1\n"
}

/// The run, with changes.
fn run(
    recording: &Path,
    change_log: impl FnOnce(&mut Vec<serde_json::Value>),
    change_journal: impl FnOnce(&mut Vec<serde_json::Value>),
    change_metrics: impl FnOnce(String) -> String,
) -> Evidence {
    let (mut lines, mut entries) = (log(), journal());
    change_log(&mut lines);
    change_journal(&mut entries);
    let text = |values: &[serde_json::Value]| {
        values
            .iter()
            .map(|it| format!("{it}\n"))
            .collect::<String>()
    };
    Evidence {
        kind: Kind::Default,
        directory: FILES.directory.clone(),
        clip: FILES.clip.clone(),
        recording: Ok(recording.to_owned()),
        journal: Journal::parse(&text(&entries)).unwrap(),
        log: Log::parse(text(&lines).lines()),
        metrics: Arc::new(Scrape::parse(&change_metrics(metrics())).unwrap()),
        samples: Vec::new(),
        sent: None,
        reading_after: Duration::ZERO,
        first_packet_ms: 1.7e12,
        late: None,
        peak_kib: 0,
        took: Duration::from_secs(9),
    }
}

fn good() -> Evidence {
    run(&FILES.good, |_| (), |_| (), |text| text)
}

fn outcome(evidence: &Evidence) -> String {
    let judged = wire::require_outcome(evidence, SEGMENTS, SEGMENT, &AWAY);
    judged.map_or_else(|error| format!("{error:#}"), |()| "fine".to_owned())
}

fn require_words(said: &str, words: &str) {
    assert!(said.contains(words), "{words:?} is not in: {said}");
}

#[test]
fn an_outcome_is_compared_from_all_sides() {
    assert_eq!(outcome(&good()), "fine");
    let with_log = |change: fn(&mut Vec<serde_json::Value>)| {
        outcome(&run(&FILES.good, change, |_| (), |text| text))
    };
    require_words(
        &with_log(|log| log.retain(|it| it["event"] != "fallback")),
        "expected {1: \"timeout\"}",
    );
    require_words(
        &with_log(|log| log[5]["reason"] = json!("x")),
        "fell back {1:",
    );
    require_words(
        &with_log(|log| log.last_mut().unwrap()["dubbed"] = json!(false)),
        "the log says of 2",
    );
    require_words(
        &with_log(|log| log.retain(|it| it["event"] != "fragment_sent" || it["batch"] != 2)),
        "2 fragments sent, 3 arrived",
    );
    let with_journal = |change: fn(&mut Vec<serde_json::Value>)| {
        outcome(&run(&FILES.good, |_| (), change, |text| text))
    };
    require_words(
        &with_journal(|journal| journal.retain(|it| it["status"] != "applied")),
        "applied by the journal: {}",
    );
    require_words(
        &with_journal(|journal| journal[0]["fragment_id"] = json!("id-1")),
        "arrived",
    );
    // As soon as its audio is good: 1 s before segment 1, in front of it, is given up. And long after.
    let said = |at_ms: u64| {
        move |journal: &mut Vec<serde_json::Value>| {
            let applied = journal.last_mut().unwrap();
            assert_eq!(
                (&applied["status"], &applied["sequence"]),
                (&json!("applied"), &json!(2))
            );
            applied["at_ms"] = json!(at_ms);
        }
    };
    for (at_ms, words) in [
        (
            4_000,
            "segment 2 was applied -1000 ms after those in front of it were decided",
        ),
        (9_000, "-2000 ms before it was on air"),
    ] {
        let early = run(&FILES.good, |_| (), said(at_ms), |text| text);
        require_words(&outcome(&early), words);
    }
    for (from, to, words) in [
        (
            "reason=\"timeout\"} 1",
            "reason=\"timeout\"} 2",
            "fallbacks for timeout",
        ),
        (
            "reason=\"error\"} 0",
            "reason=\"error\"} 1",
            "fallbacks for error",
        ),
        (
            "status=\"sent\"} 3",
            "status=\"sent\"} 4",
            "counted as sent",
        ),
        (
            "status=\"processed\"} 2",
            "status=\"processed\"} 3",
            "counted as processed",
        ),
        (
            "status=\"fallback\"} 1",
            "status=\"fallback\"} 0",
            "counted as fallback",
        ),
    ] {
        require_words(
            &outcome(&run(
                &FILES.good,
                |_| (),
                |_| (),
                |text| text.replace(from, to),
            )),
            words,
        );
    }
}

#[test]
fn what_is_heard_is_compared_too() {
    let numbers: Vec<u32> = (0..spec().frames()).collect();
    // Nothing is marked; an answer stands in its neighbour's place.
    let plain = recording("plain.mp4", &numbers, samples(&spec()));
    let said = outcome(&run(&plain, |_| (), |_| (), |text| text));
    require_words(&said, "segment 0 sounds Original");
    let swapped = recording("swapped.mp4", &numbers, sound([2, 1, 0]));
    let swapped = run(&swapped, |_| (), |_| (), |text| text);
    let heard = swapped.heard(3, SEGMENT).unwrap();
    assert_eq!(
        heard,
        [Verdict::Dubbed, Verdict::Original, Verdict::Dubbed],
        "the marker alone does not tell"
    );
    require_words(&outcome(&swapped), "second 0");
}

#[test]
fn stalls_need_their_cause_and_their_count() {
    let judge = |evidence: &Evidence, late: &[u64]| {
        wire::require_stalls(evidence, late)
            .map_or_else(|error| error.to_string(), |()| "fine".to_owned())
    };
    assert_eq!(judge(&good(), &[1]), "fine");
    require_words(&judge(&good(), &[2]), "output did not wait for [2]");
    let counted = run(
        &FILES.good,
        |_| (),
        |_| (),
        |text| text.replace("stalls_total 1", "stalls_total 2"),
    );
    require_words(&judge(&counted, &[1]), "2 stalls counted");
}

#[test]
fn a_clean_log_has_no_warning_and_no_stray_line() {
    let judge = |change: fn(&mut Vec<serde_json::Value>)| {
        let judged = run(&FILES.good, change, |_| (), |text| text).require_clean_log();
        judged.map_or_else(|error| error.to_string(), |()| "fine".to_owned())
    };
    let quiet = |log: &mut Vec<serde_json::Value>| log.retain(|it| it["level"] == "INFO");
    assert_eq!(judge(quiet), "fine");
    require_words(&judge(|_| ()), "the worker logged trouble");
    let stray = |log: &mut Vec<serde_json::Value>| {
        log.retain(|it| it["level"] == "INFO");
        log.push(json!("thread 'main' panicked"));
    };
    require_words(&judge(stray), "thread 'main' panicked");

    good().require_no_panic().unwrap();
    let survived = |log: &mut Vec<serde_json::Value>| {
        let mut record = log[0].clone();
        record["event"] = json!("panic");
        log.push(record);
    };
    let survived = run(&FILES.good, survived, |_| (), |text| text).require_no_panic();
    require_words(&survived.unwrap_err().to_string(), "the worker panicked");
}

#[test]
fn pictures_that_are_missing_doubled_or_swapped_are_named_with_their_place() {
    let judge = |name: &str, numbers: &[u32]| {
        let path = recording(name, numbers, sound([0, 1, 2]));
        let evidence = run(&path, |_| (), |_| (), |text| text);
        let error = evidence.require_every_picture(spec().frames()).unwrap_err();
        (error.to_string(), e2e::failure::Failure::of(&error).place)
    };
    good().require_every_picture(spec().frames()).unwrap();
    let all: Vec<u32> = (0..spec().frames()).collect();
    let mut missing = all.clone();
    missing.remove(60);
    let (said, place) = judge("missing.mp4", &missing);
    require_words(&said, "missing 1: 60");
    assert_eq!(place, Some(e2e::failure::Place::Media(2.0)));
    let mut doubled = all.clone();
    doubled.insert(60, 59);
    require_words(&judge("doubled.mp4", &doubled).0, "doubled 1: 59");
    let mut swapped = all;
    swapped.swap(60, 61);
    require_words(&judge("pictures.mp4", &swapped).0, "swapped 1: 60");
}

#[test]
fn coded_frames_of_another_encoding_are_not_the_input() {
    let copy = run(&FILES.clip, |_| (), |_| (), |text| text);
    copy.require_every_coded_frame().unwrap();
    let larger = FILES.directory.join("other.mp4");
    render(&ClipSpec { gop: 15, ..spec() }, &larger).unwrap();
    let other = run(&larger, |_| (), |_| (), |text| text);
    let error = other.require_every_coded_frame().unwrap_err().to_string();
    require_words(&error, "altered");
    let none = Evidence {
        recording: Err("nobody recorded".to_owned()),
        ..good()
    };
    require_words(
        &none.require_every_coded_frame().unwrap_err().to_string(),
        "nobody recorded",
    );
}

#[test]
fn a_time_outside_its_limits_is_named_with_them() {
    wire::within("the retry", 2000.0, 1900.0, 2100.0).unwrap();
    let error = wire::within("the retry", 2500.0, 1900.0, 2100.0).unwrap_err();
    require_words(
        &error.to_string(),
        "the retry: expected 1900 to 2100 ms, found 2500.0 ms",
    );
}
