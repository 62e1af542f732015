//! States and numbers over time: input, connection, breaker, backpressure, in flight, A/V delta,
//! latency.

use std::collections::BTreeSet;

use sts_protocol::{Direction, event};

use super::{
    Axis, Row, Run, Timed,
    track::{Band, Tone, Track, Tracks},
};
use crate::{probe::logs::Level, report::text::plural};

/// Something that happened at one moment.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::report) struct Mark {
    pub(in crate::report) at: f64,
    pub(in crate::report) tone: Tone,
    pub(in crate::report) detail: String,
}

/// Audio minus video when a pair went on air.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::report) struct Delta {
    pub(in crate::report) at: f64,
    pub(in crate::report) batch: u64,
    pub(in crate::report) ms: f64,
}

/// The output waited.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::report) struct Stall {
    pub(in crate::report) from: f64,
    pub(in crate::report) to: f64,
    pub(in crate::report) batch: u64,
}

/// States with what happened in between.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::report) struct Lane {
    pub(in crate::report) bands: Vec<Band>,
    pub(in crate::report) marks: Vec<Mark>,
    /// All of it in a few words, if there is anything to say.
    pub(in crate::report) remark: String,
}

/// All lanes.
#[derive(Debug, Default)]
pub(in crate::report) struct Lanes {
    /// The worker's RTSP input.
    pub(in crate::report) input: Lane,
    /// The worker's connection to the STS service.
    pub(in crate::report) link: Lane,
    /// What the service did of its own accord.
    pub(in crate::report) service: Vec<Mark>,
    /// Number of fragments in flight after each change.
    pub(in crate::report) in_flight: Vec<(f64, usize)>,
    /// The limit in force from each moment on.
    pub(in crate::report) limit: Vec<(f64, u64)>,
    /// Circuit breaker.
    pub(in crate::report) breaker: Lane,
    /// Pace that the service asked for.
    pub(in crate::report) pace: Lane,
    /// Per pair.
    pub(in crate::report) deltas: Vec<Delta>,
    /// Slews of the audio and holes in it.
    pub(in crate::report) corrections: Vec<Mark>,
    /// Content latency in seconds: while it runs, and as each pair starts.
    pub(in crate::report) latency: Vec<(f64, f64)>,
    /// When the output waited.
    pub(in crate::report) stalls: Vec<Stall>,
    /// While output played faster to win back lost latency.
    pub(in crate::report) catch_up: Vec<Band>,
}

impl Lanes {
    pub(super) fn of(
        events: &[Timed<'_>],
        run: &Run<'_>,
        axis: &Axis,
        rows: &[Row],
        begin: f64,
        end: f64,
    ) -> Self {
        let mut tracks = Tracks::default();
        let mut lanes = Self::default();
        for event in events {
            lanes.event(event, &mut tracks);
        }
        lanes.input.bands = tracks.input.finish(end);
        lanes.catch_up = tracks.catch_up.finish(end);
        lanes.catch_up.retain(|band| band.tone == Tone::Busy);
        lanes.link.bands = tracks.link.finish(end);
        let named = |name: &str| events.iter().any(|event| event.name == name);
        // Without a session there is no breaker to show, only a line that says nothing.
        if named("sts_connecting") || named("breaker") {
            lanes.breaker.bands = tracks.breaker.finish_from(begin, end, "closed", Tone::Good);
            lanes.pace.bands = tracks.pace.finish_from(begin, end, "none", Tone::Quiet);
        }
        lanes.remarks(events);
        lanes.service = service(run, axis);
        lanes.in_flight = in_flight(rows);
        lanes.latency = latency(run, axis, events);
        lanes
    }

    fn remarks(&mut self, events: &[Timed<'_>]) {
        let retries = self.input.marks.len();
        if retries > 0 {
            self.input.remark = format!(
                "{retries} {}",
                if retries == 1 { "retry" } else { "retries" }
            );
        }
        let attempts = |success| {
            let ended = events
                .iter()
                .filter(|event| event.name == "reconnect_attempt");
            ended
                .filter(|event| event.record.flag("success") == Some(success))
                .count()
        };
        let (back, failed) = (attempts(true), attempts(false));
        if back + failed > 0 {
            self.link.remark = format!("attempts: {failed} failed, {back} succeeded");
        }
        let asked = self.pace.marks.len();
        if asked > 0 {
            self.pace.remark = plural(asked as u64, "event");
        }
    }

    fn event(&mut self, event: &Timed<'_>, tracks: &mut Tracks) {
        self.input(event, &mut tracks.input);
        self.link(event, &mut tracks.link);
        let (at, text) = (event.at, |field: &str| {
            event.text(field).unwrap_or_default()
        });
        match event.name {
            "sts_ready" => {
                self.limit
                    .extend(event.count("max_inflight").map(|limit| (at, limit)));
                tracks.pace.end(at, "none", Tone::Quiet, "a fresh session");
            }
            "sts_disconnected" | "session_lost" => {
                tracks
                    .pace
                    .end(at, "none", Tone::Quiet, "the session is gone");
            }
            "breaker" => {
                let (label, tone) = match text("to").as_str() {
                    "closed" => ("closed", Tone::Good),
                    "half_open" => ("half-open", Tone::Warn),
                    "open" => ("open", Tone::Bad),
                    _ => ("unknown", Tone::Busy),
                };
                tracks
                    .breaker
                    .to(at, label, tone, &format!("was {}", text("from")));
            }
            "backpressure" => {
                let (label, tone) = match text("action").as_str() {
                    "pause" => ("pause", Tone::Bad),
                    "slow_down" => ("slow down", Tone::Warn),
                    "none" => ("none", Tone::Quiet),
                    _ => ("unknown", Tone::Busy),
                };
                let delay = event
                    .millis("delay_ms")
                    .map(|ms| format!(" by {ms} ms"))
                    .unwrap_or_default();
                let detail = format!("{label}{delay}");
                tracks.pace.to(at, label, tone, &detail);
                self.pace.marks.push(Mark { at, tone, detail });
            }
            "pair_started" => {
                self.deltas.extend(
                    event
                        .count("batch")
                        .zip(event.millis("av_delta_ms"))
                        .map(|(batch, ms)| Delta { at, batch, ms }),
                );
            }
            "stall" => {
                // Logged when the wait is over.
                let wait = event.millis("duration_ms").unwrap_or_default().max(0.0) / 1e3;
                self.stalls.extend(event.count("batch").map(|batch| Stall {
                    from: at - wait,
                    to: at,
                    batch,
                }));
            }
            "catch_up_started" => {
                let excess = event.millis("excess_ms").unwrap_or_default();
                let detail = format!("{excess} ms to win back");
                tracks.catch_up.to(at, "faster", Tone::Busy, &detail);
            }
            "catch_up_done" => tracks.catch_up.to(at, "usual pace", Tone::Quiet, ""),
            "av_correction" | "av_gap_filled" | "av_over_threshold" => {
                let tone = if event.name == "av_correction" {
                    Tone::Busy
                } else {
                    Tone::Warn
                };
                self.corrections.push(Mark {
                    at,
                    tone,
                    detail: event.record.to_string(),
                });
            }
            _ => {}
        }
    }

    fn input(&mut self, event: &Timed<'_>, track: &mut Track) {
        let at = event.at;
        let text = |field| event.text(field).unwrap_or_default();
        match event.name {
            "input_connected" => track.to(at, "connected", Tone::Good, ""),
            // Its end looks like a loss at first; the worker's level tells how it takes it.
            "input_lost" => track.to(at, "lost", loudness(event), &text("error")),
            "input_ended" => track.to(at, "ended", Tone::Quiet, &text("reason")),
            "input_retry" => {
                let (attempt, delay) = (event.count("attempt"), event.millis("delay_ms"));
                let detail = format!(
                    "attempt {} in {} ms",
                    attempt.unwrap_or_default(),
                    delay.unwrap_or_default()
                );
                track.start(at, "waiting", Tone::Warn, &detail);
                self.input.marks.push(Mark {
                    at,
                    tone: loudness(event),
                    detail,
                });
            }
            _ => {}
        }
    }

    fn link(&mut self, event: &Timed<'_>, track: &mut Track) {
        let at = event.at;
        let text = |field| event.text(field).unwrap_or_default();
        match event.name {
            "sts_connecting" => track.to(at, "connecting", Tone::Busy, ""),
            "sts_connected" => track.to(at, "connected", Tone::Busy, "waiting for stream:ready"),
            "sts_ready" => track.to(at, "ready", Tone::Good, ""),
            "session_lost" => track.to(at, "session lost", Tone::Warn, "initialising again"),
            "sts_disconnected" | "sts_connect_failed" => {
                track.to(at, "away", Tone::Bad, &text("reason"));
            }
            "sts_gone" => track.to(at, "given up", Tone::Bad, "all attempts failed"),
            "sts_refused" => track.to(at, "refused", Tone::Bad, &text("code")),
            "stream_ending" => track.to(at, "ending", Tone::Busy, ""),
            "stream_complete" => track.to(at, "complete", Tone::Quiet, ""),
            "reconnect_scheduled" => {
                let (attempt, delay) = (event.count("attempt"), event.millis("delay_ms"));
                let detail = format!(
                    "attempt {} in {} ms",
                    attempt.unwrap_or_default(),
                    delay.unwrap_or_default()
                );
                self.link.marks.push(Mark {
                    at,
                    tone: Tone::Warn,
                    detail,
                });
            }
            "reconnect_attempt" => {
                let success = event.record.flag("success") == Some(true);
                let (tone, end) = if success {
                    (Tone::Good, "succeeded")
                } else {
                    (Tone::Bad, "failed")
                };
                let detail = format!(
                    "attempt {} {end}",
                    event.count("attempt").unwrap_or_default()
                );
                self.link.marks.push(Mark { at, tone, detail });
            }
            _ => {}
        }
    }
}

fn loudness(event: &Timed<'_>) -> Tone {
    match event.record.level {
        Level::Error => Tone::Bad,
        Level::Warn => Tone::Warn,
        _ => Tone::Busy,
    }
}

/// What the service did of its own accord: faults it played, errors and refusals it sent.
fn service(run: &Run<'_>, axis: &Axis) -> Vec<Mark> {
    let mut marks = Vec::new();
    let mut ended = BTreeSet::new();
    for entry in run.journal.entries() {
        let Some(at) = axis.entry(entry) else {
            continue;
        };
        let tone = match (entry.direction, entry.event.as_str()) {
            (Direction::Local, "connect") => Tone::Good,
            (Direction::Local, "disconnect") if ended.contains(&entry.session) => Tone::Quiet,
            (Direction::Local, "disconnect" | "refused") | (Direction::Out, event::ERROR) => {
                Tone::Bad
            }
            (Direction::Local, name) if name.starts_with("simulated_") => Tone::Warn,
            (Direction::In, event::STREAM_INIT) => Tone::Busy,
            (Direction::In, event::STREAM_END) => {
                ended.insert(entry.session);
                Tone::Busy
            }
            (Direction::Out, event::FRAGMENT_PROCESSED) if entry.code.is_some() => Tone::Bad,
            (Direction::Out, event::BACKPRESSURE) if entry.action.as_deref() == Some("none") => {
                Tone::Quiet
            }
            (Direction::Out, event::BACKPRESSURE) => Tone::Warn,
            _ => continue,
        };
        let parts = [&entry.code, &entry.action, &entry.status, &entry.detail];
        let mut detail = entry.event.replace('_', " ");
        for part in parts.into_iter().flatten() {
            detail.push(' ');
            detail.push_str(part);
        }
        marks.push(Mark { at, tone, detail });
    }
    marks
}

fn in_flight(rows: &[Row]) -> Vec<(f64, usize)> {
    let mut changes: Vec<(f64, i64)> = Vec::new();
    for row in rows {
        let Some(left) = row.left() else { continue };
        changes.push((left, 1));
        changes.extend(row.back().map(|back| (back, -1)));
    }
    // At the same moment the answer comes before the fragment that it made room for.
    changes.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let mut now = 0_i64;
    changes
        .into_iter()
        .map(|(at, change)| {
            now += change;
            (at, now.max(0) as usize)
        })
        .collect()
}

fn latency(run: &Run<'_>, axis: &Axis, events: &[Timed<'_>]) -> Vec<(f64, f64)> {
    let sampled = run
        .latency
        .iter()
        .filter_map(|(ms, latency)| Some((axis.seconds(*ms)?, *latency)));
    let started = events
        .iter()
        .filter(|event| event.name == "pair_started")
        .filter_map(|event| Some((event.at, event.millis("latency_ms")? / 1e3)));
    // The gauge says 0 until there is an output.
    let mut points: Vec<_> = sampled
        .chain(started)
        .filter(|(_, latency)| latency.is_finite() && *latency > 0.0)
        .collect();
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    points
}
