//! The judges of services that are late, hostile or away.

use std::time::Duration;

use e2e::pipeline::Evidence;
use serde_json::{Value, json};

use super::hostile_sts::plan::What;
use super::hostile_sts::random::{self, Delivered};
use super::hostile_sts::{Fate, fates};
use super::shared::words_of;
use super::{FILES, good, require_words, run, seen};

#[test]
fn latency_that_does_not_grow_or_come_back_is_named() {
    let judge = |latencies: [u64; 8], catch_ups: &[u64]| {
        let log = |log: &mut Vec<Value>| {
            let one = log.pop().unwrap();
            log.clear();
            let mut say = |event: &str, field: &str, value: u64| {
                let mut line = one.clone();
                line["event"] = json!(event);
                line[field] = json!(value);
                log.push(line);
            };
            for ms in latencies {
                say("pair_started", "latency_ms", ms);
            }
            for ms in catch_ups {
                say("catch_up_started", "excess_ms", *ms);
            }
        };
        words_of(seen::latency_is_back(&run(
            &FILES.good,
            log,
            |_| (),
            |text| text,
        )))
    };
    let usual = [3_000, 3_000, 3_000, 3_000, 3_000, 7_400, 5_000, 3_200];
    // What the start cost is little.
    assert_eq!(judge(usual, &[300, 4_400]), "fine");
    let mut still = usual;
    still[5] = 3_100;
    require_words(&judge(still, &[4_400]), "latency after the stall");
    let mut slow = usual;
    slow[7] = 3_300;
    require_words(&judge(slow, &[4_400]), "latency at the end");
    require_words(&judge(usual, &[300]), "began 0 times");
    require_words(&judge(usual, &[4_400, 4_000]), "began 2 times");
}

/// Segments of 1 s, of which the third fell back.
fn third_fell_back(
    change: impl FnOnce(&mut Vec<Value>),
    change_metrics: impl FnOnce(String) -> String,
) -> Evidence {
    let log = |log: &mut Vec<Value>| {
        for line in log.iter_mut() {
            if line["event"] == "pair_started" {
                line["dubbed"] = json!(line["batch"] != 2);
            } else if line["event"] == "fallback" {
                line["batch"] = json!(2);
            }
        }
        change(log);
    };
    let metrics = |text: String| text + "worker_segments_total{kind=\"audio\"} 3\n";
    run(
        &FILES.good,
        log,
        |_| (),
        |text| change_metrics(metrics(text)),
    )
}

#[test]
fn a_segment_whose_log_sound_or_count_says_otherwise_is_named() {
    let fates = |evidence: &Evidence| fates(evidence, 3);
    let good = fates(&third_fell_back(|_| (), |text| text)).unwrap();
    let fallback = Fate::Fallback("timeout".to_owned());
    assert_eq!(good, [Fate::Dubbed, Fate::Dubbed, fallback]);
    let logged = |change: fn(&mut Vec<Value>)| words_of(fates(&third_fell_back(change, |it| it)));
    let silent = logged(|log| log.retain(|it| it["event"] != "fallback"));
    require_words(&silent, "no fallback of batch 2");
    let lost = logged(|log| log.retain(|it| it["event"] != "pair_started" || it["batch"] != 1));
    require_words(&lost, "no pair_started of batch 1");
    let twice = logged(|log| {
        let mut again = log.last().unwrap().clone();
        again["batch"] = json!(3);
        log.push(again);
    });
    require_words(&twice, "4 of 3 segments were on air");
    let unheard = logged(|log| {
        for line in log {
            if line["event"] == "pair_started" {
                line["dubbed"] = json!(line["batch"] != 1);
            } else if line["event"] == "fallback" {
                line["batch"] = json!(1);
            }
        }
    });
    require_words(&unheard, "log and sound disagree on segments 1: ");
    let other = logged(|log| {
        let fallback = log.iter_mut().find(|it| it["event"] == "fallback");
        fallback.unwrap()["reason"] = json!("error");
    });
    require_words(
        &other,
        "1 fallbacks for timeout were counted, 0 were logged",
    );
    let unknown = logged(|log| {
        let fallback = log.iter_mut().find(|it| it["event"] == "fallback");
        fallback.unwrap()["reason"] = json!("mood");
    });
    require_words(
        &unknown,
        "1 fallbacks for timeout were counted, 0 were logged",
    );
    let counted = |from: &str, to: &str| {
        words_of(fates(&third_fell_back(
            |_| (),
            |text| text.replace(from, to),
        )))
    };
    let processed = counted("\"processed\"} 2", "\"processed\"} 3");
    require_words(&processed, "3 fragments were counted as processed, not 2");
    let cut = counted("\"audio\"} 3", "\"audio\"} 4");
    require_words(&cut, "4 segments were cut");
}

#[test]
fn journals_that_disagree_are_named() {
    let fallback = Fate::Fallback("timeout".to_owned());
    let usual = [Fate::Dubbed, fallback.clone(), Fate::Dubbed];
    let judge = |evidence: &Evidence, fates: &[Fate]| words_of(random::journalled(evidence, fates));
    assert_eq!(judge(&good(), &usual), "fine");
    let unanswered = judge(&good(), &[Fate::Dubbed, Fate::Dubbed, Fate::Dubbed]);
    require_words(&unanswered, "dubbed {0, 1, 2}, answered only {0: ");
    let unheard = judge(&good(), &[Fate::Dubbed, fallback.clone(), fallback]);
    require_words(&unheard, "applied {0, 2}, dubbed only {0}");
    let logged =
        |change: fn(&mut Vec<Value>)| judge(&run(&FILES.good, change, |_| (), |text| text), &usual);
    let twice = logged(|log| log.push(log[1].clone()));
    require_words(&twice, "id-0 was sent twice");
    let renamed = logged(|log| {
        let mut sent = log[1].clone();
        sent["fragment_id"] = json!("id-9");
        log.push(sent);
    });
    require_words(&renamed, "a segment was sent twice");
    let stranger = logged(|log| log.retain(|it| it["fragment_id"] != "id-2"));
    require_words(&stranger, "the worker never sent");
    let journalled =
        |change: fn(&mut Vec<Value>)| judge(&run(&FILES.good, |_| (), change, |text| text), &usual);
    let untold = journalled(|it| it.retain(|it| it["status"] != "applied" || it["sequence"] != 2));
    require_words(&untold, "segment 2 is dubbed, and the service was not told");
}

/// Hits that come 5 s after a session of 10 s has begun, and when the worker notices, in seconds.
struct Siege {
    hits: Vec<Delivered>,
    noticed: Vec<f64>,
    back: u64,
}

impl Siege {
    fn new() -> Self {
        let still = What::Stop(Duration::from_secs(2));
        let hit = |(n, what): (u32, What)| {
            let from = 1.7e12 + f64::from(n).mul_add(10_000.0, 5_000.0);
            let lasts = if what == still { 2_000.0 } else { 0.0 };
            let (to, cut) = (from + lasts, (what == What::Reset).then_some(1));
            Delivered {
                what,
                from,
                to,
                cut,
            }
        };
        let all = [
            What::Kill,
            still,
            What::Reset,
            What::Kill,
            still,
            What::HangUp,
        ];
        Self {
            hits: (0..).zip(all).map(hit).collect(),
            noticed: (0..6).map(|n| f64::from(n).mul_add(10.0, 5.5)).collect(),
            back: 0,
        }
    }

    fn judged(&self) -> String {
        let log = |log: &mut Vec<Value>| {
            let mut say = |seconds: f64, event: &str| {
                let time = std::time::UNIX_EPOCH + Duration::from_secs_f64(1.7e9 + seconds);
                let time = humantime::format_rfc3339_micros(time).to_string();
                log.push(
                    json!({"timestamp": time, "level": "INFO", "event": event, "message": event}),
                );
            };
            for (n, noticed) in (0..).zip(&self.noticed) {
                say(f64::from(n) * 10.0, "sts_ready");
                say(*noticed, "sts_disconnected");
            }
        };
        let back = format!("worker_reconnection_total {}\n", self.back);
        let evidence = run(&FILES.good, log, |_| (), |text| text + &back);
        words_of(random::felt(&evidence, &self.hits))
    }
}

#[test]
fn a_hit_that_is_not_noticed_and_a_loss_without_a_hit_are_named() {
    assert_eq!(Siege::new().judged(), "fine");
    let with = |change: fn(&mut Siege)| {
        let mut hits = Siege::new();
        change(&mut hits);
        hits.judged()
    };
    let late = with(|it| it.noticed[0] += 3.0);
    require_words(&late, "hit 0, kill, was not noticed");
    let uncut = with(|it| it.hits[2].cut = Some(0));
    require_words(&uncut, "hit 2, reset, cut no connection");
    let causeless = with(|it| it.noticed.push(69.0));
    require_words(&causeless, "a session was lost for nothing");
    let few = with(|it| {
        it.hits.pop();
        it.noticed.pop();
    });
    require_words(&few, "too few hits found a session");
    require_words(&with(|it| it.back = 1), "1 reconnections counted");
}
