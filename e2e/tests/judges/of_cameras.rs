//! The judges of what cameras send.

use std::path::Path;
use std::time::Duration;

use camera::Manner;
use camera::sent::{Picture, Played, Sent};
use e2e::clock::samples;
use e2e::pipeline::Evidence;
use e2e::probe::frames::CodedFrames;
use serde_json::json;

use super::cameras::{Row, also};
use super::shared::words_of;
use super::{FILES, recording, require_words, run, spec};

/// What the camera would say it sent, if that were recorded.
fn sent(recording: &Path) -> Sent {
    let pictures = CodedFrames::video(recording).unwrap().0.into_iter();
    let picture = |frame: e2e::probe::frames::CodedFrame| Picture {
        slices: frame.hash.iter().map(|it| format!("{it:02x}")).collect(),
        pts_ms: frame.pts_ms,
        keyframe: frame.keyframe,
    };
    let played = Played {
        pictures: pictures.map(picture).collect(),
        ..Played::default()
    };
    Sent {
        sessions: vec![played],
        ..Sent::default()
    }
}

/// A run of which this was recorded, all that was sent.
fn run_of(recording: &Path, latency_ms: u64, metrics: &str) -> Evidence {
    let log = |log: &mut Vec<serde_json::Value>| {
        let pairs = log.iter_mut().filter(|it| it["event"] == "pair_started");
        pairs.for_each(|it| it["latency_ms"] = json!(latency_ms));
    };
    let mut evidence = run(recording, log, |_| (), |text| text + metrics);
    evidence.peak_kib = 100 * 1024;
    evidence.sent = Some(sent(recording));
    evidence
}

const CORRECTED: &str = "worker_av_sync_corrections_total ";

fn well() -> Evidence {
    run_of(&FILES.clip, 3_000, &format!("{CORRECTED}0\n"))
}

fn judged(evidence: &Evidence) -> String {
    let row = Row::new("a camera", spec().seconds, Manner::default());
    let said = row.judge(evidence);
    said.map_or_else(|error| format!("{error:#}"), |_| "fine".to_owned())
}

#[test]
fn a_camera_whose_pictures_sound_latency_or_memory_are_wrong_is_named() {
    assert_eq!(judged(&well()), "fine");
    let with = |change: fn(&mut Evidence)| {
        let mut evidence = well();
        change(&mut evidence);
        judged(&evidence)
    };
    require_words(&with(|it| it.peak_kib = 0), "memory could not be read");
    require_words(&with(|it| it.peak_kib = 151 * 1024), "had 151 MiB at once");
    for (latency, words) in [(5_100, "is 5.1 s behind"), (0, "is 0.0 s behind")] {
        let evidence = run_of(&FILES.clip, latency, &format!("{CORRECTED}0\n"));
        require_words(&judged(&evidence), words);
    }
    let corrected = run_of(&FILES.clip, 3_000, &format!("{CORRECTED}1\n"));
    require_words(&judged(&corrected), "corrected 1 times");
    // Bit for bit.
    fn pictures(evidence: &mut Evidence) -> &mut Vec<Picture> {
        &mut evidence.sent.as_mut().unwrap().sessions[0].pictures
    }
    let altered = "180 pictures were sent, 180 came out, 1 of those sent are missing or altered";
    require_words(&with(|it| pictures(it)[3].slices.clear()), altered);
    let swapped = "180 came out, 0 of those sent are missing";
    require_words(&with(|it| pictures(it).swap(3, 4)), swapped);
    let fewer = with(|it| drop(pictures(it).pop()));
    require_words(&fewer, "sent 179 pictures, not 180");
    let again = with(|it| it.sent.as_mut().unwrap().sessions.push(Played::default()));
    require_words(&again, "2 sessions");
    require_words(&with(|it| it.sent = None), "did not say what it sent");
}

/// Of what was sent, too: a camera's own pictures may be wrong.
#[test]
fn a_camera_whose_pictures_or_beeps_are_elsewhere_is_named() {
    let sound = samples(&spec());
    let all: Vec<u32> = (0..spec().frames()).collect();
    let mut twice = all.clone();
    twice[100] = 99;
    let judge = |name: &str, numbers: &[u32], sound: Vec<f32>| {
        let path = recording(name, numbers, sound);
        judged(&run_of(&path, 3_000, &format!("{CORRECTED}0\n")))
    };
    require_words(&judge("camera-twice.mp4", &twice, sound.clone()), "100");
    let silent = judge("camera-silent.mp4", &all, vec![0.0; sound.len()]);
    require_words(&silent, "no beep in seconds [0, 1, 2");
    let mut late = vec![0.0; 2 * 960];
    late.extend(&sound[..sound.len() - late.len()]);
    let late = judge("camera-late.mp4", &all, late);
    require_words(&late, "flash and beep are 2");
}

#[test]
fn a_drain_that_takes_long_or_loses_pictures_is_named() {
    let drained = |stop: f64, exit: Option<f64>| {
        let lines = |log: &mut Vec<serde_json::Value>| {
            let mut say = |seconds: f64, event: &str| {
                let time = std::time::UNIX_EPOCH + Duration::from_secs_f64(1.7e9 + seconds);
                let time = humantime::format_rfc3339_micros(time).to_string();
                log.push(
                    json!({"timestamp": time, "level": "INFO", "event": event, "message": event}),
                );
            };
            say(stop, "stop_requested");
            if let Some(exit) = exit {
                say(exit, "exiting");
            }
        };
        let mut evidence = run(&FILES.clip, lines, |_| (), |text| text);
        let mut sent = sent(&FILES.clip);
        // These came when it had been told long ago, or not.
        let after = (0..10).map(|n| Picture {
            slices: String::new(),
            pts_ms: f64::from(n).mul_add(40.0, 20_000.0),
            keyframe: false,
        });
        sent.sessions[0].pictures.extend(after);
        evidence.sent = Some(sent);
        words_of(also::drained(&evidence))
    };
    assert_eq!(drained(7.0, Some(15.0)), "fine");
    require_words(&drained(7.0, None), "no exit was logged");
    require_words(&drained(7.0, Some(20.5)), "it took 13500 ms to drain");
    let lost = "190 pictures had come when it was told to stop, 180 are out";
    require_words(&drained(60.0, Some(61.0)), lost);
}

#[test]
fn sessions_that_are_not_kept_alive_and_losses_that_are_not_told_are_named() {
    let asked = |requests: &[(&str, u64)]| {
        let mut evidence = well();
        let requests = requests
            .iter()
            .map(|(name, count)| ((*name).to_owned(), *count));
        evidence.sent.as_mut().unwrap().requests = requests.collect();
        words_of(also::kept_alive(&evidence))
    };
    assert_eq!(asked(&[("OPTIONS", 1), ("GET_PARAMETER", 2)]), "fine");
    let once = asked(&[("OPTIONS", 1), ("PLAY", 3)]);
    require_words(&once, "kept alive 1 times");
    let told = |count: u32| {
        let lost = format!("worker_input_anomalies_total{{kind=\"packets_lost\"}} {count}\n");
        words_of(also::losses_are_told(&run_of(&FILES.clip, 0, &lost)))
    };
    assert_eq!(told(1), "fine");
    require_words(&told(0), "nothing was counted of what got lost");
}
