//! The lane of fragments: a row for each, from the first packet of its segment to the last on air.

use std::fmt::Write as _;

use super::{Anchor, Chart, LEFT, RIGHT};
use crate::report::{
    model::{Outcome, Row},
    text::{millis, seconds, shorten, span},
};

/// A row is this high while there are few.
const ROW: f64 = 19.0;
/// All rows together are not higher than this, unless rows would become invisible.
const MOST: f64 = 900.0;
/// Below this there is no room for words.
const READABLE: f64 = 11.0;
/// Characters that fit right of the plot.
const REMARK: usize = 30;

impl Chart {
    pub(super) fn fragments(&mut self, rows: &[Row]) {
        if rows.is_empty() {
            let middle = self.y + ROW / 2.0;
            self.name(middle, "fragments", "");
            self.nothing(middle, "no segment was cut");
            return self.next(ROW);
        }
        let height = (MOST / rows.len() as f64).clamp(5.0, ROW);
        let every = (READABLE / height).ceil() as usize;
        for (index, row) in rows.iter().enumerate() {
            let middle = self.y + height * (index as f64 + 0.5);
            self.row(index, row, middle, height, index % every == 0);
        }
        self.next(height * rows.len() as f64);
    }

    fn row(&mut self, index: usize, row: &Row, middle: f64, height: f64, words: bool) {
        let scale = self.scale;
        let half = (height * 0.28).max(2.0);
        let class = outcome(&row.outcome);
        let svg = &mut self.svg;
        svg.link(&row_id(index), &describe(row), |svg| {
            // Whole rows answer to the pointer, not only their thin shapes.
            svg.rect(
                (8.0, middle - height / 2.0),
                (RIGHT + 180.0, height),
                "row",
                "",
            );
            if words {
                svg.text((LEFT - 14.0, middle), Anchor::End, "row-name", &name(row));
                svg.text(
                    (RIGHT + 12.0, middle),
                    Anchor::Start,
                    &format!("remark {class}"),
                    &shorten(&remark(row), REMARK),
                );
            }
            if let Some((from, to)) = row.input() {
                let (from, to) = (scale.x(from), scale.x(to));
                svg.rect(
                    (from, middle - half * 0.35),
                    (to - from, half * 0.7),
                    "cut",
                    "",
                );
                svg.line((to, middle - half), (to, middle + half), "ready");
            }
            // From the moment it could have left to the moment it was needed.
            let waits = row.ready.or(row.left());
            if let (Some(from), Some(to)) = (waits, row.on_air.or(row.decided).or(row.back())) {
                svg.line((scale.x(from), middle), (scale.x(to), middle), "wait");
            }
            if let Some(left) = row.left() {
                let (from, to) = (
                    scale.x(left),
                    row.back().map_or(RIGHT, |back| scale.x(back)),
                );
                let open = if row.back().is_none() { " open" } else { "" };
                svg.rect(
                    (from, middle - half),
                    ((to - from).max(3.0), half * 2.0),
                    &format!("sts {class}{open}"),
                    "",
                );
            }
            if let (Some(from), Some(to)) = (row.on_air, row.on_air_until()) {
                let (from, to) = (scale.x(from), scale.x(to));
                svg.rect(
                    (from, middle - half),
                    ((to - from - 1.0).max(1.5), half * 2.0),
                    &format!("air {class}"),
                    "",
                );
            }
            if let Some(at) = row.queued {
                svg.circle((scale.x(at), middle + half + 1.5), 1.6, "queued", "");
            }
            if let Some(at) = row.applied {
                svg.diamond((scale.x(at), middle - half - 1.0), 2.4, "applied", "");
            }
            if let (Some(at), Outcome::Fallback(_)) = (row.decided, &row.outcome) {
                svg.cross((scale.x(at), middle), half, "gave-up", "");
            }
            if let Some(at) = row.late_answer() {
                svg.circle((scale.x(at), middle), half * 0.8, "late", "");
            }
        });
    }
}

/// Where the row is found in the table.
pub(in crate::report) fn row_id(index: usize) -> String {
    format!("f{index}")
}

/// The class that colours an outcome.
pub(in crate::report) fn outcome(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Dubbed => "dubbed",
        Outcome::Fallback(_) => "fallback",
        Outcome::Original(_) => "original",
        Outcome::Unknown => "unknown",
    }
}

fn name(row: &Row) -> String {
    match (row.batch, row.sequence) {
        (Some(batch), Some(sequence)) => format!("batch {batch} · seq {sequence}"),
        (Some(batch), None) => format!("batch {batch} · not sent"),
        (None, Some(sequence)) => format!("seq {sequence}"),
        (None, None) => "unknown".to_owned(),
    }
}

fn remark(row: &Row) -> String {
    let (outcome, why) = row.words();
    let time = row
        .rtt_ms
        .filter(|_| row.outcome == Outcome::Dubbed)
        .map(|ms| format!("{} ms", millis(ms)));
    let parts = [Some(outcome.to_owned()), time, Some(why)];
    parts
        .into_iter()
        .flatten()
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join(" · ")
}

/// Everything known about a row, a line for each moment.
fn describe(row: &Row) -> String {
    let mut text = name(row);
    if let Some(ms) = row.duration_ms {
        let _ = write!(
            text,
            ", {}, {}",
            row.kind.as_deref().unwrap_or("fragment"),
            span(ms)
        );
    }
    if let Some(id) = &row.fragment_id {
        let _ = write!(text, "\n{id}");
    }
    let moments = [
        ("ready", row.ready),
        ("sent", row.sent),
        ("arrived at STS", row.arrived),
        ("queued by STS", row.queued),
        ("answered by STS", row.answered),
        ("processed", row.processed),
        ("given up", row.settled.filter(|_| row.processed.is_none())),
        ("original audio chosen", row.decided),
        ("applied", row.applied),
        ("on air", row.on_air),
    ];
    for (what, at) in moments {
        let Some(at) = at else { continue };
        let after = row
            .ready
            .map(|ready| format!(" (ready + {} ms)", millis((at - ready) * 1e3)));
        let after = after.filter(|_| what != "ready").unwrap_or_default();
        let _ = write!(text, "\n{what} {} s{after}", seconds(at));
    }
    let _ = write!(text, "\n{}", remark(row));
    if let Some(ms) = row.stall_ms {
        let _ = write!(text, "\noutput waited {} for it", span(ms));
    }
    text
}
