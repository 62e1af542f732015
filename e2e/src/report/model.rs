//! What happened when: the worker's log and the journal of the STS service on one axis, joined by
//! fragment id.
//!
//! Pure. Both programs ran on this machine and stamp what they write with its wall clock, so their
//! times compare directly. Everything read is treated as possibly missing, doubled or absurd.

use serde::Serialize;

use super::{
    lanes::Lanes,
    rows::{Row, rows},
};
use crate::failure::Place;
use crate::probe::{
    journal::Journal,
    logs::{Log, Record},
};

/// What is further from the start of a run than this is a broken clock, not an event of the run.
const PLAUSIBLE_MS: f64 = 24.0 * 3600.0 * 1e3;

/// What a run left behind, as far as the timeline needs it.
pub(super) struct Run<'a> {
    /// Wall time of the first media packet in Unix ms; 0 if none was sent.
    pub(super) first_packet_ms: f64,
    pub(super) log: &'a Log,
    pub(super) journal: &'a Journal,
    /// Output latency over time: Unix ms and seconds.
    pub(super) latency: &'a [(f64, f64)],
}

/// The common time axis: seconds since something, which `zero` names.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Axis {
    pub(super) zero: &'static str,
    pub(super) zero_ms: f64,
}

impl Axis {
    fn of(run: &Run<'_>) -> Self {
        let usable = |ms: &f64| ms.is_finite() && *ms > 0.0;
        let mut lines = run.log.records.iter().filter_map(|it| it.unix_ms().ok());
        let mut entries = run.journal.entries().iter().map(|entry| entry.time_ms);
        let choices = [
            (
                "the first media packet was sent",
                Some(run.first_packet_ms).filter(usable),
            ),
            ("the worker logged its first line", lines.find(usable)),
            ("the STS service saw its first event", entries.find(usable)),
        ];
        let found = choices.into_iter().find_map(|(zero, ms)| Some((zero, ms?)));
        let (zero, zero_ms) = found.unwrap_or(("", 0.0));
        Self { zero, zero_ms }
    }

    /// When a moment of the wall clock is on this axis; nothing if it cannot belong to the run.
    pub(super) fn seconds(&self, unix_ms: f64) -> Option<f64> {
        let since = unix_ms - self.zero_ms;
        (!self.zero.is_empty() && since.abs() < PLAUSIBLE_MS).then_some(since / 1e3)
    }

    /// When a log line was written.
    pub(super) fn record(&self, record: &Record) -> Option<f64> {
        self.seconds(record.unix_ms().ok()?)
    }
}

/// A named event of the worker with its time.
pub(super) struct Timed<'a> {
    pub(super) at: f64,
    pub(super) name: &'a str,
    pub(super) record: &'a Record,
}

impl Timed<'_> {
    /// A field that counts something.
    pub(super) fn count(&self, field: &str) -> Option<u64> {
        let value = self.record.number(field)?;
        (value >= 0.0 && value < 2f64.powi(53) && value.fract() == 0.0).then_some(value as u64)
    }

    /// A field that is a length in ms.
    pub(super) fn millis(&self, field: &str) -> Option<f64> {
        let value = self.record.number(field)?;
        (value.is_finite() && value.abs() < PLAUSIBLE_MS).then_some(value)
    }

    pub(super) fn text(&self, field: &str) -> Option<String> {
        self.record.text(field).map(str::to_owned)
    }
}

/// Everything that the page draws.
#[derive(Debug, Serialize)]
pub(super) struct Timeline {
    pub(super) axis: Axis,
    /// First and last second shown; one after the other.
    pub(super) begin: f64,
    pub(super) end: f64,
    /// One per fragment, or per segment that never became one; in the order of batches.
    pub(super) rows: Vec<Row>,
    /// States and numbers over time.
    pub(super) lanes: Lanes,
}

impl Timeline {
    pub(super) fn of(run: &Run<'_>) -> Self {
        let axis = Axis::of(run);
        let timed = |record| {
            Some(Timed {
                at: axis.record(record)?,
                name: record.event()?,
                record,
            })
        };
        let events: Vec<Timed<'_>> = run.log.records.iter().filter_map(timed).collect();
        let rows = rows(&events, run.journal, &axis);
        let (begin, end) = extent(run, &axis, &rows);
        let lanes = Lanes::of(&events, run, &axis, &rows, (begin, end));
        Self {
            axis,
            begin,
            end,
            rows,
            lanes,
        }
    }

    /// Where a place of a failure is on the axis: what concerns a segment is seen where it is on air.
    pub(super) fn seconds(&self, place: Place) -> Option<f64> {
        let shown = |row: &Row| row.at("on_air").or(row.at("decided")).or(row.at("ready"));
        match place {
            Place::Wall(ms) => self.axis.seconds(ms),
            Place::Batch(batch) => {
                let mut rows = self.rows.iter().filter(|row| row.batch == Some(batch));
                rows.next().and_then(shown)
            }
            Place::Media(seconds) => {
                let mut begins = 0.0;
                for row in self.rows.iter().filter(|row| row.batch.is_some()) {
                    let length = row.duration_ms? / 1e3;
                    if seconds < begins + length {
                        return Some(shown(row)? + seconds - begins);
                    }
                    begins += length;
                }
                Some(seconds.clamp(self.begin, self.end))
            }
        }
    }
}

/// First and last second of anything that happened, and of what is on air then.
fn extent(run: &Run<'_>, axis: &Axis, rows: &[Row]) -> (f64, f64) {
    let logged = run
        .log
        .records
        .iter()
        .filter_map(|record| axis.record(record));
    let entries = run.journal.entries().iter();
    let seen = entries.filter_map(|entry| axis.seconds(entry.time_ms));
    let drawn = rows
        .iter()
        .flat_map(|row| [row.at("from"), row.at("until")]);
    let all = logged.chain(seen).chain(drawn.flatten());
    let (begin, end) = all.fold((0.0_f64, 0.0_f64), |(low, high), at| {
        (low.min(at), high.max(at))
    });
    // An instant still needs a width to be drawn in.
    (begin, end.max(begin + 1.0))
}
