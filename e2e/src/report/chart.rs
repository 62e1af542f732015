//! Draws the timeline: lanes under one another on a common axis.

mod fragments;
mod numbers;

pub(super) use fragments::{outcome, row_id};

use super::{
    model::{Lane, Mark, Timeline, Tone, Zero},
    svg::{Anchor, Scale, Svg},
    text::{Text, seconds, span},
};

/// Width of the drawing in its own units, about pixels on a laptop.
const WIDTH: f64 = 1240.0;
/// Where the plot begins; names of lanes are left of it.
const LEFT: f64 = 132.0;
/// Where it ends; remarks are right of it.
const RIGHT: f64 = 1050.0;
/// Space between lanes.
const GAP: f64 = 12.0;
/// A/V delta that a viewer must not see, in ms.
pub(super) const THRESHOLD_MS: f64 = 120.0;

/// The whole timeline as an `<svg>` element.
pub(super) fn draw(timeline: &Timeline) -> String {
    let room = (timeline.end - timeline.begin) * 0.012;
    let scale = Scale {
        begin: timeline.begin - room,
        end: timeline.end + room,
        left: LEFT,
        right: RIGHT,
    };
    let mut chart = Chart {
        svg: Svg::default(),
        scale,
        y: 26.0,
    };
    let lanes = &timeline.lanes;
    chart.states("input", "RTSP", &lanes.input, "no input");
    chart.states(
        "STS link",
        "seen by the worker",
        &lanes.link,
        "no connection",
    );
    chart.service(&lanes.service);
    chart.fragments(&timeline.rows);
    chart.in_flight(lanes);
    chart.states("breaker", "circuit to STS", &lanes.breaker, "not used");
    chart.states("backpressure", "asked by STS", &lanes.pace, "not used");
    chart.deltas(lanes);
    chart.latency(lanes);
    chart.finish(timeline)
}

struct Chart {
    svg: Svg,
    scale: Scale,
    y: f64,
}

impl Chart {
    /// Name of a lane whose middle is at `y`.
    fn name(&mut self, y: f64, name: &str, about: &str) {
        let up = if about.is_empty() { 0.0 } else { 6.0 };
        self.svg
            .text((LEFT - 14.0, y - up), Anchor::End, "name", name);
        if !about.is_empty() {
            self.svg
                .text((LEFT - 14.0, y + 7.0), Anchor::End, "about", about);
        }
    }

    fn remark(&mut self, y: f64, class: &str, text: &str) {
        self.svg.text((RIGHT + 12.0, y), Anchor::Start, class, text);
    }

    fn nothing(&mut self, y: f64, why: &str) {
        self.svg.text((LEFT + 8.0, y), Anchor::Start, "about", why);
    }

    /// Ends a lane of this height.
    fn next(&mut self, height: f64) {
        self.y += height + GAP / 2.0;
        self.svg.line((8.0, self.y), (WIDTH - 8.0, self.y), "sep");
        self.y += GAP / 2.0;
    }

    /// Bands of states, and what happened under them.
    fn states(&mut self, name: &str, about: &str, lane: &Lane, empty: &str) {
        let under = if lane.marks.is_empty() { 0.0 } else { 11.0 };
        let height = 24.0 + under;
        let middle = self.y + 12.0;
        self.name(self.y + height / 2.0, name, about);
        if lane.bands.is_empty() {
            self.nothing(middle, empty);
        }
        for band in &lane.bands {
            let (from, to) = (self.scale.x(band.from), self.scale.x(band.to));
            let tip = format!(
                "{name}: {} from {} s to {} s ({}){}",
                band.label,
                seconds(band.from),
                seconds(band.to),
                span((band.to - band.from) * 1e3),
                if band.detail.is_empty() {
                    String::new()
                } else {
                    format!("\n{}", band.detail)
                }
            );
            // A state that lasted a moment is still one that was there.
            let width = (to - from).max(1.5);
            self.svg.rect(
                (from, middle - 8.0),
                (width, 16.0),
                &format!("band {}", tone(band.tone)),
                &tip,
            );
            if width > band.label.len() as f64 * 5.7 + 8.0 {
                self.svg
                    .text((from + 6.0, middle), Anchor::Start, "in-band", band.label);
            }
        }
        self.marks(&lane.marks, middle + under + 4.0, 4.5);
        self.remark(self.y + height / 2.0, "about", &lane.remark);
        self.next(height);
    }

    fn marks(&mut self, marks: &[Mark], y: f64, arm: f64) {
        for mark in marks {
            let tip = format!("{} s: {}", seconds(mark.at), mark.detail);
            let at = (self.scale.x(mark.at), y);
            self.svg
                .diamond(at, arm, &format!("mark {}", tone(mark.tone)), &tip);
        }
    }

    fn service(&mut self, marks: &[Mark]) {
        const HEIGHT: f64 = 18.0;
        let middle = self.y + HEIGHT / 2.0;
        self.name(middle, "echo-sts", "what it did");
        if marks.is_empty() {
            self.nothing(middle, "nothing in its journal");
        }
        self.marks(marks, middle, 5.0);
        self.next(HEIGHT);
    }

    /// Puts the grid behind everything and the element around it.
    fn finish(self, timeline: &Timeline) -> String {
        let bottom = self.y;
        let mut grid = Svg::default();
        for tick in self.scale.ticks() {
            let x = self.scale.x(tick);
            let (style, label) = match (tick == 0.0, timeline.axis.zero()) {
                (true, Zero::FirstPacket) => ("origin", "0 s".to_owned()),
                _ => ("grid", format!("{} s", trimmed(tick))),
            };
            grid.line((x, 20.0), (x, bottom), style);
            grid.text((x, 10.0), Anchor::Middle, "tick", &label);
            grid.text((x, bottom + 10.0), Anchor::Middle, "tick", &label);
        }
        let height = bottom + 24.0;
        let Scale { begin, end, .. } = self.scale;
        format!(
            "<svg id=\"chart\" viewBox=\"0 0 {WIDTH} {height:.0}\" role=\"img\" aria-label=\"{}\" \
             data-left=\"{LEFT}\" data-right=\"{RIGHT}\" data-begin=\"{begin:.4}\" data-end=\"{end:.4}\">\
             {}{}\
             <g id=\"cursor\" visibility=\"hidden\"><line class=\"cursor\" x1=\"0\" x2=\"0\" y1=\"18\" y2=\"{bottom:.0}\"/>\
             <text class=\"cursor\" text-anchor=\"middle\" x=\"0\" y=\"{:.0}\"></text></g></svg>",
            Text("Timeline of the run; the tables below hold the same in words"),
            grid.into_inner(),
            self.svg.into_inner(),
            bottom + 14.0,
        )
    }
}

fn trimmed(tick: f64) -> String {
    let text = seconds(tick);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn tone(tone: Tone) -> &'static str {
    match tone {
        Tone::Quiet => "quiet",
        Tone::Good => "good",
        Tone::Busy => "busy",
        Tone::Warn => "warn",
        Tone::Bad => "bad",
    }
}

#[cfg(test)]
mod tests {
    use super::super::model::{Run, story};
    use super::*;
    use crate::probe::{journal::Journal, logs::Log};

    fn drawn(log: &Log, journal: &Journal, latency: &[(f64, f64)]) -> String {
        draw(&Timeline::of(&Run {
            first_packet_ms: story::ZERO_MS,
            log,
            journal,
            latency,
        }))
    }

    #[test]
    fn a_run_is_drawn_with_every_lane_and_is_well_formed() {
        let svg = drawn(
            &story::log(),
            &story::journal(),
            &[(story::ZERO_MS + 7_000.0, 6.25)],
        );
        let document = roxmltree::Document::parse(&svg).unwrap();
        let words: Vec<_> = document
            .descendants()
            .filter_map(|node| node.text())
            .collect();
        for expected in [
            "input",
            "STS link",
            "echo-sts",
            "in flight",
            "breaker",
            "backpressure",
            "A/V delta",
        ] {
            assert!(words.contains(&expected), "{expected} is missing");
        }
        let tips = words.join("\n");
        for expected in [
            "STS link: away from",
            "connection reset <&> by peer",
            "attempt 1 in 2000 ms",
            "breaker: open from",
            "backpressure: pause from",
            "stall: output waited 500 ms for batch 1",
            "error SERVER OVERLOADED",
        ] {
            assert!(
                tips.replace('_', " ").contains(expected),
                "{expected} is missing:\n{tips}"
            );
        }
    }

    #[test]
    fn nothing_is_drawn_as_nothing() {
        let svg = drawn(&Log::default(), &Journal::default(), &[]);
        roxmltree::Document::parse(&svg).unwrap();
        for why in [
            "no input",
            "no connection",
            "nothing in its journal",
            "no segment was cut",
            "nothing went out",
        ] {
            assert!(svg.contains(why), "{why}");
        }
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }
}
