//! Lanes of numbers: fragments in flight, A/V delta, output latency with its stalls.

use super::{Anchor, Chart, LEFT, RIGHT, THRESHOLD_MS};
use crate::report::{
    model::Lanes,
    text::{millis, plural, seconds, span},
};

impl Chart {
    pub(super) fn in_flight(&mut self, lanes: &Lanes) {
        const HEIGHT: f64 = 46.0;
        let (top, bottom) = (self.y, self.y + HEIGHT);
        let most = lanes
            .in_flight
            .iter()
            .map(|(_, count)| *count)
            .max()
            .unwrap_or(0);
        let limit = lanes
            .limit
            .iter()
            .map(|(_, limit)| *limit)
            .max()
            .unwrap_or(0);
        // A limit far above what was ever used would press the line to the ground.
        let high = (most as f64)
            .max((limit as f64).min(most as f64 * 4.0 + 4.0))
            .max(1.0);
        let y = |count: f64| bottom - (count / high).min(1.0) * (HEIGHT - 8.0);
        self.name(top + HEIGHT / 2.0, "in flight", "sent, not settled");
        for (index, (from, limit)) in lanes.limit.iter().enumerate() {
            let to = lanes
                .limit
                .get(index + 1)
                .map_or(self.scale.end, |next| next.0);
            let level = y(*limit as f64);
            self.svg.line(
                (self.scale.x(*from), level),
                (self.scale.x(to), level),
                "limit",
            );
        }
        let mut points = vec![(LEFT, bottom)];
        for (at, count) in &lanes.in_flight {
            let before = points.last().map_or(bottom, |point| point.1);
            points.push((self.scale.x(*at), before));
            points.push((self.scale.x(*at), y(*count as f64)));
        }
        let last = points.last().map_or(bottom, |point| point.1);
        points.push((RIGHT, last));
        self.svg.polyline(&points, "steps");
        let limit = match lanes.limit.last() {
            Some((_, limit)) => format!("most {most}, limit {limit}"),
            None => format!("most {most}, no limit known"),
        };
        self.remark(top + HEIGHT / 2.0, "about", &limit);
        self.next(HEIGHT);
    }

    pub(super) fn deltas(&mut self, lanes: &Lanes) {
        const HEIGHT: f64 = 66.0;
        let middle = self.y + HEIGHT / 2.0;
        let worst = lanes
            .deltas
            .iter()
            .map(|delta| delta.ms.abs())
            .fold(0.0, f64::max);
        let high = (THRESHOLD_MS * 1.2).max(worst * 1.1);
        let y = |ms: f64| middle - ms / high * HEIGHT / 2.0;
        self.name(middle, "A/V delta", "audio − video, ms");
        for (ms, style) in [
            (THRESHOLD_MS, "limit"),
            (0.0, "zero"),
            (-THRESHOLD_MS, "limit"),
        ] {
            self.svg.line((LEFT, y(ms)), (RIGHT, y(ms)), style);
            let label = if ms == 0.0 {
                "0".to_owned()
            } else {
                format!("{}{}", if ms > 0.0 { "+" } else { "" }, millis(ms))
            };
            self.svg
                .text((RIGHT + 12.0, y(ms)), Anchor::Start, "about", &label);
        }
        for delta in &lanes.deltas {
            let over = delta.ms.abs() > THRESHOLD_MS;
            let tip = format!(
                "batch {} at {} s: {} ms",
                delta.batch,
                seconds(delta.at),
                millis(delta.ms)
            );
            let at = (self.scale.x(delta.at), y(delta.ms));
            self.svg
                .circle(at, 3.5, if over { "point bad" } else { "point good" }, &tip);
        }
        self.marks(&lanes.corrections, middle + HEIGHT / 2.0 - 4.0, 4.0);
        if lanes.deltas.is_empty() {
            self.nothing(middle - 10.0, "no pair went on air");
        } else {
            self.svg.text(
                (RIGHT + 46.0, middle),
                Anchor::Start,
                "about",
                &format!("worst {} ms", millis(worst)),
            );
        }
        self.next(HEIGHT);
    }

    pub(super) fn latency(&mut self, lanes: &Lanes) {
        const HEIGHT: f64 = 58.0;
        let (top, bottom) = (self.y, self.y + HEIGHT);
        self.name(top + HEIGHT / 2.0, "output latency", "and stalls, s");
        for stall in &lanes.stalls {
            let (from, to) = (self.scale.x(stall.from), self.scale.x(stall.to));
            let wait = span((stall.to - stall.from) * 1e3);
            let tip = format!(
                "stall: output waited {wait} for batch {} until {} s",
                stall.batch,
                seconds(stall.to)
            );
            self.svg
                .rect((from, top), ((to - from).max(2.0), HEIGHT), "stall", &tip);
        }
        let values = || lanes.latency.iter().map(|(_, latency)| *latency);
        let (low, high) = (
            values().fold(f64::MAX, f64::min),
            values().fold(0.0, f64::max),
        );
        if lanes.latency.is_empty() {
            self.nothing(top + HEIGHT / 2.0, "nothing went out");
        } else {
            // Not less than half a second from bottom to top: noise is not to look like drama.
            let spread = (high - low).max(0.5);
            let y = |latency: f64| bottom - 8.0 - (latency - low) / spread * (HEIGHT - 16.0);
            let points: Vec<_> = corners(&lanes.latency)
                .map(|(at, value)| (self.scale.x(at), y(value)))
                .collect();
            self.svg.polyline(&points, "curve");
            if high - low > 0.1 {
                self.remark(y(high).max(top + 6.0), "about", &format!("{high:.2} s"));
            }
            self.remark(y(low), "about", &format!("{low:.2} s"));
        }
        for band in &lanes.catch_up {
            let (from, to) = (self.scale.x(band.from), self.scale.x(band.to));
            let tip = format!(
                "output plays faster from {} s to {} s: {}",
                seconds(band.from),
                seconds(band.to),
                band.detail
            );
            self.svg.rect(
                (from, bottom - 3.0),
                ((to - from).max(2.0), 3.0),
                "faster",
                &tip,
            );
        }
        if !lanes.stalls.is_empty() {
            let waited: f64 = lanes.stalls.iter().map(|stall| stall.to - stall.from).sum();
            let text = format!(
                "{}, {}",
                plural(lanes.stalls.len() as u64, "stall"),
                span(waited * 1e3)
            );
            self.svg.text(
                (RIGHT + 62.0, top + HEIGHT / 2.0),
                Anchor::Start,
                "remark warn",
                &text,
            );
        }
        self.next(HEIGHT);
    }
}

/// Points of a line without those in the middle of a level stretch.
fn corners(points: &[(f64, f64)]) -> impl Iterator<Item = (f64, f64)> {
    let same = |a: f64, b: f64| (a - b).abs() < 1e-3;
    points.iter().enumerate().filter_map(move |(index, point)| {
        let level = |other: Option<&(f64, f64)>| other.is_some_and(|other| same(other.1, point.1));
        let inside = index > 0 && level(points.get(index - 1)) && level(points.get(index + 1));
        (!inside).then_some(*point)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_keeps_its_corners_only() {
        let points = [(0.0, 1.0), (1.0, 1.0), (2.0, 1.0), (3.0, 2.0), (4.0, 2.0)];
        let kept: Vec<_> = corners(&points).map(|(at, _)| at as i64).collect();
        assert_eq!(kept, [0, 2, 3, 4]);
    }
}
