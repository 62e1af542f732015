//! What each event and fact changes in `/metrics` and `/status`, and that every series is moved by one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use dub_engine::timeline::DropReason;
use dub_engine::{
    BackpressureAction, BreakerState, DubFitHow, Event, LoudnessChange, OriginalReason,
    ProtocolErrorKind, Track,
};
use dub_media::bus::ERROR_KINDS;
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::Value;

use super::{Fact, Observer, Status, samples};
use crate::telemetry::metrics;

/// Series that are not moved here, with who moves them.
const OTHERS: [&str; 1] = [
    // `check_log`, which needs a log that nobody reads (worker/tests/program.rs).
    "worker_log_lines_dropped_total",
];

/// What is shown, by name; histograms by their sums and counts.
struct Shown {
    observer: Observer,
    handle: PrometheusHandle,
    last: BTreeMap<String, String>,
    moved: BTreeSet<String>,
    text: String,
}

impl Shown {
    fn now(&self) -> BTreeMap<String, String> {
        let page = self.handle.render();
        let series = page
            .lines()
            .filter(|line| !line.starts_with('#') && !line.contains("_bucket{"));
        let series = series.filter_map(|line| line.rsplit_once(' '));
        let mut all: BTreeMap<_, _> = series
            .map(|(name, value)| (name.replace("stream_id=\"news\"", ""), value.to_owned()))
            .map(|(name, value)| {
                (
                    name.replace("{,", "{").replace(",}", "}").replace("{}", ""),
                    value,
                )
            })
            .collect();
        let status = serde_json::to_value(self.observer.board().snapshot()).unwrap();
        flatten("status", &status, &mut all);
        all.remove("status.uptime_seconds");
        // Older ones only move down.
        all.retain(|name, _| !name.starts_with("status.segments[") || name.contains("[0]"));
        all
    }

    /// Notes what `what` has changed.
    fn after(&mut self, what: &str) {
        let now = self.now();
        self.text += &what.chars().take(100).collect::<String>();
        self.text.push('\n');
        for (name, value) in &now {
            let before = self.last.get(name).map_or("nothing", String::as_str);
            if before != value {
                self.text += &format!("    {name}: {before} -> {value}\n");
                self.moved.insert(name.clone());
            }
        }
        for name in self.last.keys().filter(|name| !now.contains_key(*name)) {
            self.text += &format!("    {name}: gone\n");
        }
        self.last = now;
    }

    fn event(&mut self, event: &Event) {
        self.observer.event(event);
        self.after(&format!("{event:?}"));
    }

    fn fact(&mut self, fact: &Fact<'_>) {
        self.observer.fact(fact);
        self.after(&format!("{fact:?}"));
    }

    fn call(&mut self, what: &str, call: impl FnOnce(&Observer)) {
        call(&self.observer);
        self.after(what);
    }
}

fn flatten(name: &str, value: &Value, all: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(fields) => fields
            .iter()
            .for_each(|(field, value)| flatten(&format!("{name}.{field}"), value, all)),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .for_each(|(at, value)| flatten(&format!("{name}[{at}]"), value, all)),
        value => drop(all.insert(name.to_owned(), value.to_string())),
    }
}

/// What the driver calls beside telling facts.
fn calls(shown: &mut Shown) {
    for (track, bytes) in [(Track::Video, 900), (Track::Audio, 300)] {
        shown.call(&format!("received {track:?}, {bytes} bytes"), |it| {
            it.received(track, bytes);
        });
        shown.call(&format!("sent {track:?}"), |it| it.sent(track));
    }
    for stage in ["received", "placed"] {
        shown.call(&format!("video_unit {stage}"), |it| it.video_unit(stage));
    }
    for reason in DropReason::ALL {
        shown.call(&format!("dropped 3 {reason:?}"), |it| it.dropped(reason, 3));
    }
    for connected in [true, false, true] {
        shown.call(&format!("output_connected {connected}"), |it| {
            it.output_connected(connected);
        });
    }
    // A new connection counts from 0 again.
    for bytes in [1000, 1500, 200] {
        shown.call(&format!("output_bytes {bytes}"), |it| {
            it.output_bytes(bytes);
        });
    }
    for fragments in [2, 0] {
        shown.call(&format!("in_flight {fragments}"), |it| {
            it.in_flight(fragments);
        });
    }
    shown.call("latency 7.25 s", |it| {
        it.latency(Duration::from_millis(7250));
    });
}

/// Every label's value, and both signs.
fn more(shown: &mut Shown) {
    for (batch, reason) in (20..).zip(OriginalReason::FALLBACKS) {
        shown.event(&Event::Fallback { batch, reason });
    }
    for (batch, delta) in [(20, -12_500_000), (26, 0), (30, 40_000_000)] {
        let latency = Duration::from_millis(8000 + batch);
        shown.fact(&Fact::PairStarted {
            batch,
            delta,
            latency,
            dubbed: delta > 0,
        });
    }
    let one = |batch, video, audio| Fact::SegmentReady {
        batch,
        kind: "full",
        cut: "grid",
        duration: Duration::from_secs(6),
        video,
        audio,
    };
    shown.fact(&one(31, 0, 281));
    shown.fact(&one(32, 180, 0));
    for (from, to) in [
        (BreakerState::Open, BreakerState::HalfOpen),
        (BreakerState::HalfOpen, BreakerState::Closed),
    ] {
        shown.event(&Event::Breaker { from, to });
    }
    for action in [BackpressureAction::Pause, BackpressureAction::None] {
        shown.event(&Event::Backpressure {
            action,
            delay: None,
            changed: false,
        });
    }
    for how in DubFitHow::ALL {
        shown.event(&Event::DubFitted {
            batch: 33,
            how,
            speed_permille: 1100,
            spill: Duration::ZERO,
            cut: Duration::ZERO,
        });
    }
    for change in LoudnessChange::ALL {
        let (difference_tenths, gain_tenths) = (-80, 20);
        shown.event(&Event::DubLevelled {
            batch: 33,
            change,
            difference_tenths,
            gain_tenths,
        });
    }
    for kind in ProtocolErrorKind::ALL {
        let detail = String::new();
        shown.event(&Event::ProtocolError {
            kind,
            first: false,
            count: 2,
            detail,
        });
    }
    for kind in ERROR_KINDS {
        shown.fact(&Fact::BusError { kind, text: "no" });
    }
}

/// What is connected is not any more at the end.
fn ends(shown: &mut Shown) {
    let end = dub_engine::End::Complete;
    for event in [Event::StsConnected { link: 9 }, Event::Drained { end }] {
        shown.event(&event);
    }
    let news = dub_engine::input::InputNews::Connected { connection: 2 };
    let (reason, signal, bytes) = ("over", "SIGTERM", 9);
    shown.fact(&Fact::Input { news: &news });
    shown.fact(&Fact::InputEnded { reason });
    shown.fact(&Fact::Input { news: &news });
    shown.fact(&Fact::StopRequested { signal });
    shown.call("output_connected true", |it| it.output_connected(true));
    shown.fact(&Fact::OutputFinished { bytes });
}

#[test]
fn every_event_moves_its_series_and_nothing_else() {
    let recorder = metrics::recorder("news").unwrap();
    let handle = recorder.handle();
    ::metrics::with_local_recorder(&recorder, || {
        metrics::create_all();
        let status = Status {
            stream_id: "news".into(),
            run_id: "1".into(),
            ..Status::default()
        };
        let observer = Observer::new(status, None);
        let mut shown = Shown {
            observer: observer.clone(),
            handle,
            last: BTreeMap::new(),
            moved: BTreeSet::new(),
            text: String::new(),
        };
        shown.last = shown.now();
        let series: BTreeSet<_> = shown
            .last
            .keys()
            .filter(|name| !name.starts_with("status"))
            .cloned()
            .collect();
        for event in samples::events() {
            shown.event(&event);
        }
        samples::facts(&observer, |fact| shown.after(&fact));
        calls(&mut shown);
        more(&mut shown);
        ends(&mut shown);
        let still: Vec<_> = series.difference(&shown.moved).collect();
        assert_eq!(still, OTHERS, "nothing moves these series");
        insta::assert_snapshot!(shown.text);
    });
}
