//! States and numbers over time: input, connection, breaker, backpressure, in flight, A/V delta,
//! latency.

use std::collections::BTreeSet;

use serde::Serialize;
use sts_protocol::{Direction, JournalEntry, event};

use super::model::{Axis, Run, Timed};
use super::rows::Row;
use crate::probe::{journal::count_open, logs::Level};

/// How a state or a mark is to be taken: nothing to see, as it should be, under way, degraded, broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Tone {
    Quiet,
    Good,
    Busy,
    Warn,
    Bad,
}
use Tone::{Bad, Busy, Good, Quiet, Warn};

/// A state, or something else that lasted, from one second to another.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Band {
    pub(super) from: f64,
    pub(super) to: f64,
    pub(super) label: &'static str,
    pub(super) tone: Tone,
    pub(super) detail: String,
}

/// Something that happened at one moment.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Mark {
    pub(super) at: f64,
    pub(super) tone: Tone,
    pub(super) detail: String,
}

/// States that last until the next one begins, and what happened in between.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Lane {
    pub(super) bands: Vec<Band>,
    pub(super) marks: Vec<Mark>,
    /// All of it in a few words, if there is anything to say.
    pub(super) remark: String,
}

impl Lane {
    /// A state begins and the one before ends.
    fn to(&mut self, at: f64, label: &'static str, tone: Tone, detail: impl Into<String>) {
        // Threads log side by side: a line may be stamped a little before the one above it.
        let from = self.bands.last().map_or(at, |last| at.max(last.from));
        self.until(from);
        self.bands.push(Band {
            from,
            to: from,
            label,
            tone,
            detail: detail.into(),
        });
    }

    /// Like [`to`](Self::to), but only if there is another state to end.
    fn end(&mut self, at: f64, label: &'static str, detail: &str) {
        if self.bands.last().is_some_and(|last| last.label != label) {
            self.to(at, label, Quiet, detail);
        }
    }

    fn until(&mut self, at: f64) {
        if let Some(last) = self.bands.last_mut() {
            last.to = at.max(last.from);
        }
    }

    /// A state was in force before anything was said.
    fn begin(&mut self, (begin, end): (f64, f64), label: &'static str, tone: Tone) {
        let to = self.bands.first().map_or(end, |band| band.from.max(begin));
        let first = Band {
            from: begin,
            to,
            label,
            tone,
            detail: "from the start".to_owned(),
        };
        self.bands.insert(0, first);
    }

    fn mark(&mut self, at: f64, tone: Tone, detail: impl Into<String>) {
        let detail = detail.into();
        self.marks.push(Mark { at, tone, detail });
    }
}

#[derive(Debug, Default, Serialize)]
pub(super) struct Lanes {
    /// The worker's RTSP input, and its connection to the STS service.
    pub(super) input: Lane,
    pub(super) link: Lane,
    /// What the service did of its own accord.
    pub(super) service: Lane,
    /// Fragments in flight after each change, and the limit in force from each moment on.
    pub(super) in_flight: Vec<(f64, usize)>,
    pub(super) limit: Vec<(f64, u64)>,
    pub(super) breaker: Lane,
    /// Pace that the service asked for.
    pub(super) pace: Lane,
    /// Audio minus video when a pair went on air: second, batch, ms. Marks: slews and holes.
    pub(super) deltas: Vec<(f64, u64, f64)>,
    pub(super) corrections: Lane,
    /// Content latency in seconds: while it runs, and as each pair starts.
    pub(super) latency: Vec<(f64, f64)>,
    /// When the output waited, and while it played faster to win back lost latency.
    pub(super) stalls: Vec<Band>,
    pub(super) catch_up: Vec<Band>,
}

impl Lanes {
    pub(super) fn of(
        events: &[Timed<'_>],
        run: &Run<'_>,
        axis: &Axis,
        rows: &[Row],
        (begin, end): (f64, f64),
    ) -> Self {
        let mut lanes = Self::default();
        let mut speed = Lane::default();
        for event in events {
            lanes.connections(event);
            lanes.session(event);
            lanes.output(event, &mut speed);
        }
        for lane in [
            &mut lanes.input,
            &mut lanes.link,
            &mut lanes.breaker,
            &mut lanes.pace,
            &mut speed,
        ] {
            lane.until(end);
        }
        lanes.catch_up = speed.bands;
        lanes.catch_up.retain(|band| band.tone == Busy);
        // Without a session there is no breaker to show, only a line that says nothing.
        if events
            .iter()
            .any(|it| ["sts_connecting", "breaker"].contains(&it.name))
        {
            lanes.breaker.begin((begin, end), "closed", Good);
            lanes.pace.begin((begin, end), "none", Quiet);
        }
        lanes.remarks(events);
        lanes.service.marks = service(run, axis);
        let out = rows
            .iter()
            .filter_map(|row| Some((row.at("left")?, row.at("back"))));
        lanes.in_flight = count_open(out);
        lanes.latency = latency(run, axis, events);
        lanes
    }

    fn remarks(&mut self, events: &[Timed<'_>]) {
        let several = |count: usize, one: &str, many: &str| match count {
            0 => String::new(),
            1 => format!("1 {one}"),
            _ => format!("{count} {many}"),
        };
        self.input.remark = several(self.input.marks.len(), "retry", "retries");
        self.pace.remark = several(self.pace.marks.len(), "event", "events");
        let attempts = events.iter().filter(|it| it.name == "reconnect_attempt");
        let (back, failed): (Vec<_>, Vec<_>) =
            attempts.partition(|it| it.record.flag("success") == Some(true));
        if !(back.is_empty() && failed.is_empty()) {
            let (back, failed) = (back.len(), failed.len());
            self.link.remark = format!("attempts: {failed} failed, {back} succeeded");
        }
    }

    /// The input and the link to the service.
    fn connections(&mut self, event: &Timed<'_>) {
        let at = event.at;
        let text = |field| event.text(field).unwrap_or_default();
        let attempt = || {
            let number = event.count("attempt").unwrap_or_default();
            let delay = event.millis("delay_ms").unwrap_or_default();
            (number, format!("attempt {number} in {delay} ms"))
        };
        let (input, link) = (&mut self.input, &mut self.link);
        match event.name {
            "input_connected" => input.to(at, "connected", Good, ""),
            // Its end looks like a loss at first; the worker's level tells how it takes it.
            "input_lost" => input.to(at, "lost", loudness(event), text("error")),
            "input_ended" => input.to(at, "ended", Quiet, text("reason")),
            "input_retry" => {
                if input.bands.is_empty() {
                    input.to(at, "waiting", Warn, attempt().1);
                }
                input.mark(at, loudness(event), attempt().1);
            }
            "sts_connecting" => link.to(at, "connecting", Busy, ""),
            "sts_connected" => link.to(at, "connected", Busy, "waiting for stream:ready"),
            "sts_ready" => link.to(at, "ready", Good, ""),
            "session_lost" => link.to(at, "session lost", Warn, "initialising again"),
            "sts_disconnected" | "sts_connect_failed" => link.to(at, "away", Bad, text("reason")),
            "sts_gone" => link.to(at, "given up", Bad, "all attempts failed"),
            "sts_refused" => link.to(at, "refused", Bad, text("code")),
            "stream_ending" => link.to(at, "ending", Busy, ""),
            "stream_complete" => link.to(at, "complete", Quiet, ""),
            "reconnect_scheduled" => link.mark(at, Warn, attempt().1),
            "reconnect_attempt" => {
                let success = event.record.flag("success") == Some(true);
                let (tone, end) = if success {
                    (Good, "succeeded")
                } else {
                    (Bad, "failed")
                };
                link.mark(at, tone, format!("attempt {} {end}", attempt().0));
            }
            _ => {}
        }
    }

    /// What the session with the service decides.
    fn session(&mut self, event: &Timed<'_>) {
        let at = event.at;
        let text = |field| event.text(field).unwrap_or_default();
        match event.name {
            "sts_ready" => {
                let limit = event.count("max_inflight");
                self.limit.extend(limit.map(|limit| (at, limit)));
                self.pace.end(at, "none", "a fresh session");
            }
            "sts_disconnected" | "session_lost" => self.pace.end(at, "none", "the session is gone"),
            "breaker" => {
                let (label, tone) = match text("to").as_str() {
                    "closed" => ("closed", Good),
                    "half_open" => ("half-open", Warn),
                    "open" => ("open", Bad),
                    _ => ("unknown", Busy),
                };
                self.breaker
                    .to(at, label, tone, format!("was {}", text("from")));
            }
            "backpressure" => {
                let (label, tone) = match text("action").as_str() {
                    "pause" => ("pause", Bad),
                    "slow_down" => ("slow down", Warn),
                    "none" => ("none", Quiet),
                    _ => ("unknown", Busy),
                };
                let delay = event.millis("delay_ms").map(|ms| format!(" by {ms} ms"));
                let detail = format!("{label}{}", delay.unwrap_or_default());
                self.pace.to(at, label, tone, detail.clone());
                self.pace.mark(at, tone, detail);
            }
            _ => {}
        }
    }

    fn output(&mut self, event: &Timed<'_>, speed: &mut Lane) {
        let (at, batch) = (event.at, event.count("batch"));
        match event.name {
            "pair_started" => {
                let delta = batch.zip(event.millis("av_delta_ms"));
                self.deltas.extend(delta.map(|(batch, ms)| (at, batch, ms)));
            }
            "stall" => {
                // Logged when the wait is over.
                let wait = event.millis("duration_ms").unwrap_or_default().max(0.0);
                self.stalls.extend(batch.map(|batch| Band {
                    from: at - wait / 1e3,
                    to: at,
                    label: "stall",
                    tone: Warn,
                    detail: format!("output waited {wait} ms for batch {batch}"),
                }));
            }
            "catch_up_started" => {
                let excess = event.millis("excess_ms").unwrap_or_default();
                speed.to(at, "faster", Busy, format!("{excess} ms to win back"));
            }
            "catch_up_done" => speed.to(at, "usual pace", Quiet, ""),
            "av_correction" => self.corrections.mark(at, Busy, event.record.to_string()),
            "av_gap_filled" | "av_over_threshold" => {
                self.corrections.mark(at, Warn, event.record.to_string());
            }
            _ => {}
        }
    }
}

fn loudness(event: &Timed<'_>) -> Tone {
    match event.record.level {
        Level::Error => Bad,
        Level::Warn => Warn,
        _ => Busy,
    }
}

/// What the service did of its own accord: faults it played, errors and refusals it sent.
fn service(run: &Run<'_>, axis: &Axis) -> Vec<Mark> {
    let mut ended = BTreeSet::new();
    let mut tone = |entry: &JournalEntry| {
        Some(match (entry.direction, entry.event.as_str()) {
            (Direction::Local, "connect") => Good,
            (Direction::Local, "disconnect") if ended.contains(&entry.session) => Quiet,
            (Direction::Local, "disconnect" | "refused") | (Direction::Out, event::ERROR) => Bad,
            (Direction::Local, name) if name.starts_with("simulated_") => Warn,
            (Direction::In, event::STREAM_INIT) => Busy,
            (Direction::In, event::STREAM_END) => {
                ended.insert(entry.session);
                Busy
            }
            (Direction::Out, event::FRAGMENT_PROCESSED) if entry.code.is_some() => Bad,
            (Direction::Out, event::BACKPRESSURE) => match entry.action.as_deref() {
                Some("none") => Quiet,
                _ => Warn,
            },
            _ => return None,
        })
    };
    let mark = |entry: &JournalEntry| {
        let at = axis.seconds(entry.time_ms)?;
        let tone = tone(entry)?;
        let mut detail = entry.event.replace('_', " ");
        for part in [&entry.code, &entry.action, &entry.status, &entry.detail]
            .into_iter()
            .flatten()
        {
            detail.push(' ');
            detail.push_str(part);
        }
        Some(Mark { at, tone, detail })
    };
    run.journal.entries().iter().filter_map(mark).collect()
}

fn latency(run: &Run<'_>, axis: &Axis, events: &[Timed<'_>]) -> Vec<(f64, f64)> {
    let samples = run.latency.iter();
    let sampled = samples.filter_map(|(ms, latency)| Some((axis.seconds(*ms)?, *latency)));
    let pairs = events.iter().filter(|event| event.name == "pair_started");
    let started = pairs.filter_map(|event| Some((event.at, event.millis("latency_ms")? / 1e3)));
    let all = sampled.chain(started);
    // The gauge says 0 until there is an output.
    let mut points: Vec<_> = all.filter(|(_, it)| it.is_finite() && *it > 0.0).collect();
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    // A level stretch needs its ends only.
    let level = |a: f64, b: f64| (a - b).abs() < 1e-3;
    let inside = |n: usize| {
        n > 0
            && n + 1 < points.len()
            && level(points[n - 1].1, points[n].1)
            && level(points[n].1, points[n + 1].1)
    };
    (0..points.len())
        .filter(|n| !inside(*n))
        .map(|n| points[n])
        .collect()
}
