//! What happened when: the worker's log and the journal of `echo-sts` on one axis, joined by
//! fragment id.
//!
//! Pure. Both programs ran on this machine and stamp what they write with its wall clock, so their
//! times compare directly. Everything read is treated as possibly missing, doubled or absurd.

mod lanes;
mod rows;
#[cfg(test)]
pub(super) mod story;
#[cfg(test)]
mod tests;
mod track;

use sts_protocol::JournalEntry;

use crate::probe::{
    journal::Journal,
    logs::{Log, Record},
};
pub(super) use lanes::{Lane, Lanes, Mark};
pub(super) use rows::{Outcome, Row};
pub(super) use track::Tone;

/// What is further from the start of a run than this is a broken clock, not an event of the run.
const PLAUSIBLE_MS: f64 = 24.0 * 3600.0 * 1e3;

/// What a run left behind, as far as the timeline needs it.
pub(super) struct Run<'a> {
    /// Wall time of the first media packet in Unix ms; 0 if none was sent.
    pub(super) first_packet_ms: f64,
    /// What the worker logged.
    pub(super) log: &'a Log,
    /// What `echo-sts` saw.
    pub(super) journal: &'a Journal,
    /// Output latency over time: Unix ms and seconds.
    pub(super) latency: &'a [(f64, f64)],
}

/// What second 0 of the axis is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Zero {
    /// The first media packet was sent.
    FirstPacket,
    /// The worker said its first word.
    FirstLine,
    /// `echo-sts` saw its first event.
    FirstEntry,
    /// Nothing has a time.
    Nothing,
}

/// The common time axis: seconds since [`Zero`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Axis {
    zero: Zero,
    zero_ms: f64,
}

impl Axis {
    fn of(run: &Run<'_>) -> Self {
        let usable = |ms: &f64| ms.is_finite() && *ms > 0.0;
        let line = || {
            run.log
                .records
                .iter()
                .find_map(|record| record.unix_ms().ok().filter(usable))
        };
        let entry = || {
            run.journal
                .entries()
                .iter()
                .map(|entry| entry.time_ms)
                .find(usable)
        };
        let (zero, zero_ms) = Some(run.first_packet_ms)
            .filter(usable)
            .map(|ms| (Zero::FirstPacket, ms))
            .or_else(|| line().map(|ms| (Zero::FirstLine, ms)))
            .or_else(|| entry().map(|ms| (Zero::FirstEntry, ms)))
            .unwrap_or((Zero::Nothing, 0.0));
        Self { zero, zero_ms }
    }

    /// What second 0 is.
    pub(super) fn zero(&self) -> Zero {
        self.zero
    }

    /// Wall time of second 0 in Unix ms.
    pub(super) fn zero_ms(&self) -> f64 {
        self.zero_ms
    }

    /// When a moment of the wall clock is on this axis; nothing if it cannot belong to the run.
    pub(super) fn seconds(&self, unix_ms: f64) -> Option<f64> {
        let since = unix_ms - self.zero_ms;
        (self.zero != Zero::Nothing && since.abs() < PLAUSIBLE_MS).then_some(since / 1e3)
    }

    /// When a log line was written.
    pub(super) fn record(&self, record: &Record) -> Option<f64> {
        self.seconds(record.unix_ms().ok()?)
    }

    fn entry(&self, entry: &JournalEntry) -> Option<f64> {
        self.seconds(entry.time_ms)
    }
}

/// A named event of the worker with its time.
struct Timed<'a> {
    at: f64,
    name: &'a str,
    record: &'a Record,
}

impl Timed<'_> {
    /// A field that counts something.
    fn count(&self, field: &str) -> Option<u64> {
        let value = self.record.number(field)?;
        (value >= 0.0 && value < 2f64.powi(53) && value.fract() == 0.0).then_some(value as u64)
    }

    /// A field that is a length in ms.
    fn millis(&self, field: &str) -> Option<f64> {
        self.record
            .number(field)
            .filter(|ms| ms.is_finite() && ms.abs() < PLAUSIBLE_MS)
    }

    fn text(&self, field: &str) -> Option<String> {
        self.record.text(field).map(str::to_owned)
    }
}

/// Everything that the page draws.
pub(super) struct Timeline {
    /// Its axis.
    pub(super) axis: Axis,
    /// First second shown.
    pub(super) begin: f64,
    /// Last second shown; after `begin`.
    pub(super) end: f64,
    /// One per fragment, or per segment that never became one; in the order of batches.
    pub(super) rows: Vec<Row>,
    /// States and numbers over time.
    pub(super) lanes: Lanes,
}

impl Timeline {
    /// Builds the timeline of a run.
    pub(super) fn of(run: &Run<'_>) -> Self {
        let axis = Axis::of(run);
        let events: Vec<Timed<'_>> = run
            .log
            .records
            .iter()
            .filter_map(|record| {
                Some(Timed {
                    at: axis.record(record)?,
                    name: record.event()?,
                    record,
                })
            })
            .collect();
        let rows = rows::rows(&events, run.journal, &axis);
        let (begin, end) = extent(run, &axis, &rows);
        let lanes = Lanes::of(&events, run, &axis, &rows, begin, end);
        Self {
            axis,
            begin,
            end,
            rows,
            lanes,
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
    let seen = run
        .journal
        .entries()
        .iter()
        .filter_map(|entry| axis.entry(entry));
    let drawn = rows
        .iter()
        .flat_map(|row| [row.input().map(|(from, _)| from), row.on_air_until()]);
    let all = logged.chain(seen).chain(drawn.flatten()).chain([0.0]);
    let (begin, end) = all.fold((0.0_f64, 0.0_f64), |(low, high), at| {
        (low.min(at), high.max(at))
    });
    // An instant still needs a width to be drawn in.
    (begin, end.max(begin + 1.0))
}
