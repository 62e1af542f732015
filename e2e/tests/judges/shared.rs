//! The judges that scenarios share, and the viewer's.

use std::sync::Arc;
use std::time::{Duration, Instant};

use e2e::clock::{ClipSpec, samples};
use e2e::pipeline::Evidence;
use e2e::probe::audio::Sound;
use e2e::probe::clock::{Skew, Sync};
use e2e::probe::metrics::Scrape;
use e2e::probe::metrics::ScrapeSample;
use e2e::services::viewer::Arrival;
use serde_json::json;

use super::{DELTAS, FILES, SEGMENT, good, judge, require_words, run, seen};

/// Scrapes of the worker, one each second; `text` says what is shown after so many seconds.
fn scrapes(seconds: u64, text: impl Fn(u64) -> String) -> Vec<ScrapeSample> {
    let start = Instant::now();
    let sample = |second: u64| {
        let at = Duration::from_secs(second);
        ScrapeSample {
            asked: start + at,
            answered: start + at,
            at,
            scrape: Arc::new(Scrape::parse(&text(second)).unwrap()),
        }
    };
    (0..seconds).map(sample).collect()
}

pub(super) fn words_of<T>(judged: anyhow::Result<T>) -> String {
    judged.map_or_else(|error| format!("{error:#}"), |_| "fine".to_owned())
}

/// Flash and beep of each second, so far apart.
fn sync(ms: [f64; 6]) -> Sync {
    let skew = |(second, ms): (u32, f64)| Skew {
        second,
        flash_at: f64::from(second),
        beep_at: f64::from(second) + ms / 1e3,
        ms,
    };
    Sync {
        skews: (0..).zip(ms).map(skew).collect(),
        flash_only: Vec::new(),
        stray_beeps: Vec::new(),
    }
}

#[test]
fn what_is_heard_must_be_what_the_worker_says_sign_included() {
    let gauge = |values: [f64; 3]| {
        let mut evidence = good();
        evidence.samples = scrapes(4, |second| {
            let value = match second {
                0 => 0.0,
                n => values[n as usize - 1],
            };
            format!("worker_av_sync_delta_ms {value}\n")
        });
        evidence
    };
    let judge = |evidence: &Evidence, ms: [f64; 6], belongs: f64| {
        words_of(judge::agree(evidence, &sync(ms), SEGMENT, |_| belongs))
    };
    let heard = [3.0, 0.0, -20.0, 0.0, 35.0, 0.0];
    assert_eq!(judge(&gauge(DELTAS), heard, 0.0), "fine");
    assert_eq!(
        judge(&gauge(DELTAS), heard.map(|ms| ms + 200.0), 200.0),
        "fine"
    );
    require_words(
        &judge(&gauge(DELTAS), [3.0, 0.0, 12.5, 0.0, 35.0, 0.0], 0.0),
        "pair 1 sounds 12.5 ms off, the worker says -12.5",
    );
    require_words(
        &judge(&gauge(DELTAS.map(|ms| -ms)), heard, 0.0),
        "worker_av_sync_delta_ms is 12.5 ms after 2.0 s, no pair from there on is",
    );
    let [first, second, third] = DELTAS;
    require_words(
        &judge(&gauge([first, third, second]), heard, 0.0),
        "is -12.5 ms after 3.0 s",
    );
    assert_eq!(
        judge(&gauge([first, third, third]), heard, 0.0),
        "fine",
        "a scrape may miss one"
    );
    for still in [[0.0; 3], [first; 3]] {
        require_words(&judge(&gauge(still), heard, 0.0), "stands still");
    }
    require_words(&judge(&good(), heard, 0.0), "stands still at None");
}

#[test]
fn sound_that_is_elsewhere_is_named_with_its_second() {
    let near = |ms, at| words_of(judge::require_near("after the step", &sync(ms).skews, at));
    assert_eq!(near([-30.0, 30.0, 0.0, 39.0, 0.0, 0.0], 0.0), "fine");
    require_words(
        &near([0.0, 0.0, 41.0, 0.0, 0.0, 0.0], 0.0),
        "after the step, second 2 is at 41.0 ms, not 0",
    );
    require_words(&near([0.0; 6], 200.0), "second 0 is at 0.0 ms, not 200");
    let none = judge::require_near("after the step", &[], 0.0);
    require_words(&words_of(none), "nothing was measured after the step");
}

#[test]
fn clicks_and_holes_are_heard() {
    let sound = |change: fn(&mut Vec<f32>)| {
        let all = samples(&ClipSpec::tone(440.0, 4).small());
        let mut mono: Vec<_> = all
            .chunks_exact(2)
            .map(|pair| f32::midpoint(pair[0], pair[1]))
            .collect();
        change(&mut mono);
        words_of(judge::seamless(Sound::from_samples(48_000, 0.0, mono)))
    };
    assert_eq!(sound(|_| ()), "fine");
    require_words(
        &sound(|it| it[96_000] += 0.5),
        "clicks in the output: [Click { at: 2.0",
    );
    let hole = sound(|it| {
        // With ramps, so that it is no click.
        for (n, value) in it[90_000..102_000].iter_mut().enumerate() {
            let from_edge = n.min(12_000 - n) as f32;
            *value *= (1.0 - from_edge / 2_000.0).max(0.0);
        }
    });
    require_words(&hole, "dropouts in the output");
}

#[test]
fn pauses_that_are_not_heard_logged_and_counted_alike_are_named() {
    let judge = |said: [&str; 3], logged: &[&str], pauses: u32| {
        let evidence = run(
            &FILES.good,
            |log| {
                for action in logged {
                    let mut line = log[0].clone();
                    line["event"] = json!("backpressure");
                    line["action"] = json!(action);
                    log.push(line);
                }
            },
            |journal| {
                for (at, action) in said.into_iter().enumerate() {
                    let mut line = journal[1].clone();
                    line["event"] = json!("backpressure");
                    line["action"] = json!(action);
                    line["time_ms"] = json!(1.7e12 + at as f64);
                    journal.push(line);
                }
            },
            |text| {
                let series = "worker_backpressure_events_total";
                text + &format!(
                    "{series}{{action=\"pause\"}} {pauses}\n{series}{{action=\"slow_down\"}} 0\n\
                     {series}{{action=\"none\"}} 1\n"
                )
            },
        );
        words_of(judge::backpressure_agrees(&evidence))
    };
    let said = ["pause", "pause", "none"];
    assert_eq!(judge(said, &["pause", "none"], 2), "fine");
    require_words(&judge(said, &["pause"], 2), "the worker heard [\"pause\"]");
    require_words(
        &judge(said, &["none", "pause"], 2),
        "the worker heard [\"none\"",
    );
    require_words(
        &judge(said, &["pause", "none"], 1),
        "pause was counted 1 times, not 2",
    );
    require_words(
        &judge(
            ["slow_down", "pause", "none"],
            &["slow_down", "pause", "none"],
            1,
        ),
        "slow_down was counted 0",
    );
}

#[test]
fn a_worker_that_grows_or_is_large_is_named() {
    let judge = |mib: fn(u64) -> u64, threads: fn(u64) -> u64| {
        let samples = scrapes(90, |second| {
            let bytes = mib(second) << 20;
            format!(
                "process_resident_memory_bytes {bytes}\nprocess_threads {}\n",
                threads(second)
            )
        });
        words_of(judge::require_steady(
            &samples,
            Duration::from_secs(5),
            Duration::from_secs(85),
        ))
    };
    // What comes and goes again is no growth, nor is what is there from the start.
    assert_eq!(judge(|it| 60 + it % 10, |it| 20 + it % 7), "fine");
    assert_eq!(judge(|it| 40 + it.min(30), |it| 10 + it.min(20)), "fine");
    require_words(
        &judge(|it| 60 + it / 3, |_| 20),
        "MiB at least in the middle of the run",
    );
    require_words(
        &judge(|_| 60, |it| 20 + it / 6),
        "threads at least in the middle",
    );
    let few = scrapes(30, |_| {
        "process_resident_memory_bytes 1\nprocess_threads 1\n".to_owned()
    });
    let few = judge::require_steady(&few, Duration::ZERO, Duration::from_secs(30));
    require_words(&words_of(few), "only 10 samples");
    judge::require_small(60 << 10).unwrap();
    require_words(
        &words_of(judge::require_small(201 << 10)),
        "had 201 MiB at once",
    );
    require_words(&words_of(judge::require_small(0)), "could not be read");
}

/// What a viewer sees who is `latency` behind: every frame from the first on, with one wait of 4.4 s
/// that is won back at 3 %; `change` bends when a frame arrives.
fn viewer(start: Instant, change: impl Fn(usize, f64) -> f64) -> Vec<Arrival> {
    let mut behind = 8.0_f64;
    let arrival = |frame: usize| {
        match frame {
            600 => behind += 4.4,
            601.. if behind > 8.0 => behind -= 0.03 / 30.0,
            _ => (),
        }
        let at = change(frame, frame as f64 / 30.0 + behind);
        let at = start + Duration::from_secs_f64(at);
        Arrival { at, frame }
    };
    (0..4500).map(arrival).collect()
}

#[test]
fn what_a_viewer_sees_must_be_gentle_and_what_the_gauge_says() {
    let start = Instant::now();
    let gentle = |arrivals: &[Arrival]| words_of(seen::Seen::new(arrivals, start).gentle());
    let good = viewer(start, |_, at| at);
    assert_eq!(gentle(&good), "fine");
    let mut lost = good.clone();
    lost.remove(1000);
    require_words(&gentle(&lost), "whole: false");
    let hasty = viewer(start, |frame, at| if frame > 2000 { at - 2.0 } else { at });
    require_words(&gentle(&hasty), "s of video within");
    let twice = viewer(start, |frame, at| if frame > 2000 { at + 3.0 } else { at });
    require_words(&gentle(&twice), "output waited more than once");

    let seen = seen::Seen::new(&good, start);
    let gauge = |told: fn(f64) -> f64| {
        let mut evidence = super::good();
        let scrape = |tenths: u64| {
            let at = Duration::from_millis(tenths * 200);
            let second = at.as_secs_f64();
            // The age of the newest frame at that time.
            let newest = good.iter().rev().find(|it| it.at <= start + at);
            let age = newest.map_or(8.0, |it| second - it.frame as f64 / 30.0);
            ScrapeSample {
                asked: start + at,
                answered: start + at,
                at,
                scrape: Arc::new(
                    Scrape::parse(&format!("worker_output_latency_seconds {}\n", told(age)))
                        .unwrap(),
                ),
            }
        };
        evidence.samples = (0..750).map(scrape).collect();
        words_of(seen.agrees_with(&evidence))
    };
    assert_eq!(gauge(|age| age - 0.2), "fine");
    require_words(&gauge(|_| 8.0), "the gauge says 8.00 s, what is seen is");
    require_words(&gauge(|age| age + 0.5), "s old");
    require_words(&gauge(|age| age - 1.5), "s old");
}

#[test]
fn rules_that_say_something_else_are_told() {
    let mut evidence = good();
    evidence.samples = scrapes(30, |_| "worker_input_connected{stream_id=\"t\"} 1\n".into());
    let firing = "count(ALERTS{alertstate=\"firing\"}) or vector(0)";
    let none = evidence.require_rules(&[(firing, 0.0)]);
    if none
        .as_ref()
        .is_err_and(anyhow::Error::is::<e2e::failure::Skipped>)
    {
        println!("SKIPPED: {}", words_of(none));
        return;
    }
    assert_eq!(words_of(none), "fine");
    require_words(
        &words_of(evidence.require_rules(&[(firing, 1.0)])),
        "the rules say something else",
    );
}
