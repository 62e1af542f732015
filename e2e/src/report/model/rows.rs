//! One row per fragment: from the cut of its segment to the air, as both sides saw it.

use std::collections::{BTreeMap, BTreeSet};

use sts_protocol::{Direction, JournalEntry, event};

use super::{Axis, Timed};
use crate::probe::journal::Journal;

/// What became of a segment's audio.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::report) enum Outcome {
    /// It was replaced by what the service sent.
    Dubbed,
    /// It stayed because dubbing did not work out; why.
    Fallback(String),
    /// It stayed as intended (passthrough, a tail too short); why.
    Original(String),
    /// Nothing says.
    #[default]
    Unknown,
}

/// A segment's audio on its way. Times are seconds on the axis, lengths are ms.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::report) struct Row {
    /// The segment's number; nothing if only the service knows the fragment.
    pub(in crate::report) batch: Option<u64>,
    /// `full`, `remainder` or `tail`.
    pub(in crate::report) kind: Option<String>,
    /// Length of the segment.
    pub(in crate::report) duration_ms: Option<f64>,
    /// The segment was complete.
    pub(in crate::report) ready: Option<f64>,
    /// The fragment's number since `stream:init`.
    pub(in crate::report) sequence: Option<u64>,
    /// The session it belonged to, counted by the service.
    pub(in crate::report) session: Option<u64>,
    /// The fragment's id.
    pub(in crate::report) fragment_id: Option<String>,
    /// The worker sent it.
    pub(in crate::report) sent: Option<f64>,
    /// The service had it.
    pub(in crate::report) arrived: Option<f64>,
    /// The service said that it is queued.
    pub(in crate::report) queued: Option<f64>,
    /// The service sent its answer.
    pub(in crate::report) answered: Option<f64>,
    /// The worker stopped waiting: it had an answer, an error, lost patience or the connection.
    pub(in crate::report) settled: Option<f64>,
    /// The worker had usable audio.
    pub(in crate::report) processed: Option<f64>,
    /// The worker told the service that the audio is in the output.
    pub(in crate::report) applied: Option<f64>,
    /// The worker decided for the original audio.
    pub(in crate::report) decided: Option<f64>,
    /// From sending to the answer or to the end of waiting.
    pub(in crate::report) rtt_ms: Option<f64>,
    /// Its first frame left.
    pub(in crate::report) on_air: Option<f64>,
    /// What became of it.
    pub(in crate::report) outcome: Outcome,
    /// Error code, or what was wrong with the audio.
    pub(in crate::report) detail: Option<String>,
    /// Audio minus video at the output.
    pub(in crate::report) delta_ms: Option<f64>,
    /// How long the output waited for it.
    pub(in crate::report) stall_ms: Option<f64>,
}

impl Row {
    /// When it left for the service, by the worker or else by the service.
    pub(in crate::report) fn left(&self) -> Option<f64> {
        self.sent.or(self.arrived)
    }

    /// When it stopped being in flight.
    pub(in crate::report) fn back(&self) -> Option<f64> {
        let back = self.settled.or(self.answered)?;
        Some(back.max(self.left()?))
    }

    /// While its segment was being filled.
    pub(in crate::report) fn input(&self) -> Option<(f64, f64)> {
        let ready = self.ready?;
        Some((
            ready - self.duration_ms.unwrap_or_default().max(0.0) / 1e3,
            ready,
        ))
    }

    /// When its last frame left.
    pub(in crate::report) fn on_air_until(&self) -> Option<f64> {
        Some(self.on_air? + self.duration_ms.unwrap_or_default().max(0.0) / 1e3)
    }

    /// When the service answered although the worker had given up on it.
    pub(in crate::report) fn late_answer(&self) -> Option<f64> {
        let answered = self.answered?;
        let late =
            self.processed.is_none() && self.settled.is_some_and(|settled| answered > settled);
        late.then_some(answered)
    }

    /// Short words for what became of it.
    pub(in crate::report) fn words(&self) -> (&'static str, String) {
        let detail = self.detail.as_deref().unwrap_or_default();
        match &self.outcome {
            Outcome::Dubbed => ("dubbed", String::new()),
            Outcome::Fallback(reason) => {
                ("fallback", format!("{reason} {detail}").trim().to_owned())
            }
            Outcome::Original(reason) => ("original", reason.clone()),
            Outcome::Unknown => ("unknown", detail.to_owned()),
        }
    }
}

/// All rows, in the order of batches; what only the service knows comes last.
pub(super) fn rows(events: &[Timed<'_>], journal: &Journal, axis: &Axis) -> Vec<Row> {
    let mut table = Table::default();
    for event in events {
        table.log(event);
    }
    for entry in journal.entries() {
        if let Some(at) = axis.entry(entry) {
            table.journal(at, entry);
        }
    }
    let mut rows = table.rows;
    rows.sort_by_key(|row| (row.batch.is_none(), row.batch));
    rows
}

#[derive(Default)]
struct Table {
    rows: Vec<Row>,
    by_batch: BTreeMap<u64, usize>,
    by_id: BTreeMap<String, usize>,
    out: BTreeSet<usize>,
}

impl Table {
    /// The row of a batch, made if there is none.
    fn batch(&mut self, batch: u64) -> usize {
        *self.by_batch.entry(batch).or_insert_with(|| {
            self.rows.push(Row {
                batch: Some(batch),
                ..Row::default()
            });
            self.rows.len() - 1
        })
    }

    fn log(&mut self, event: &Timed<'_>) {
        match event.name {
            // Whoever loses the session forgets what is out.
            "sts_disconnected" | "session_lost" => {
                for index in std::mem::take(&mut self.out) {
                    self.rows[index].settled = Some(event.at);
                }
            }
            "fragment_sent" => self.sent(event),
            _ => self.follow(event),
        }
    }

    fn sent(&mut self, event: &Timed<'_>) {
        let Some(batch) = event.count("batch") else {
            return;
        };
        let mut index = self.batch(batch);
        if self.rows[index].sent.is_some() {
            // A segment that is sent again is another fragment.
            let Row {
                kind,
                duration_ms,
                ready,
                ..
            } = self.rows[index].clone();
            self.rows.push(Row {
                batch: Some(batch),
                kind,
                duration_ms,
                ready,
                ..Row::default()
            });
            index = self.rows.len() - 1;
            self.by_batch.insert(batch, index);
        }
        let row = &mut self.rows[index];
        row.sent = Some(event.at);
        row.sequence = event.count("sequence");
        row.fragment_id = event.text("fragment_id");
        if let Some(id) = row.fragment_id.clone() {
            self.by_id.insert(id, index);
        }
        self.out.insert(index);
    }

    fn follow(&mut self, event: &Timed<'_>) {
        const FOLLOWED: [&str; 9] = [
            "segment_ready",
            "fragment_processed",
            "fragment_failed",
            "fragment_timeout",
            "bad_audio",
            "fallback",
            "segment_original",
            "pair_started",
            "stall",
        ];
        let Some(batch) = event
            .count("batch")
            .filter(|_| FOLLOWED.contains(&event.name))
        else {
            return;
        };
        let known = event
            .record
            .text("fragment_id")
            .and_then(|id| self.by_id.get(id))
            .copied();
        let index = known.unwrap_or_else(|| self.batch(batch));
        let row = &mut self.rows[index];
        let at = Some(event.at);
        match event.name {
            "segment_ready" => {
                row.ready = at;
                row.kind = event.text("kind");
                row.duration_ms = event.millis("duration_ms");
            }
            "fragment_processed" => {
                row.processed = at;
                row.rtt_ms = event.millis("rtt_ms");
                if row.outcome == Outcome::Unknown {
                    row.outcome = Outcome::Dubbed;
                }
            }
            "fragment_failed" => row.detail = event.text("code"),
            "bad_audio" => row.detail = event.text("reason"),
            "fallback" => {
                row.decided = at;
                row.outcome = Outcome::Fallback(event.text("reason").unwrap_or_default());
            }
            "segment_original" => {
                row.decided = at;
                row.outcome = Outcome::Original(event.text("reason").unwrap_or_default());
            }
            "pair_started" => {
                row.on_air = at;
                row.delta_ms = event.millis("av_delta_ms");
                match (event.record.flag("dubbed"), &row.outcome) {
                    // What is on air is the truth.
                    (Some(true), _) => row.outcome = Outcome::Dubbed,
                    (Some(false), Outcome::Dubbed | Outcome::Unknown) => {
                        row.outcome = Outcome::Original(String::new());
                    }
                    _ => {}
                }
            }
            "stall" => row.stall_ms = event.millis("duration_ms"),
            _ => {}
        }
        let answered = matches!(
            event.name,
            "fragment_processed" | "fragment_failed" | "fragment_timeout"
        );
        // Whatever falls back is not waited for any more.
        let forgotten = event.name == "fallback" && self.out.contains(&index);
        if answered || forgotten {
            row.settled = at;
            row.rtt_ms = row.rtt_ms.or_else(|| Some((event.at - row.sent?) * 1e3));
            self.out.remove(&index);
        }
    }

    fn journal(&mut self, at: f64, entry: &JournalEntry) {
        let Some(id) = entry.fragment_id.as_deref() else {
            return;
        };
        let data = entry.direction == Direction::In && entry.event == event::FRAGMENT_DATA;
        let index = match self.by_id.get(id) {
            Some(index) => *index,
            None if data => {
                self.rows.push(Row {
                    fragment_id: Some(id.to_owned()),
                    duration_ms: entry.duration_ms.map(|ms| ms as f64),
                    ..Row::default()
                });
                self.by_id.insert(id.to_owned(), self.rows.len() - 1);
                self.rows.len() - 1
            }
            // An answer to nothing that was ever sent belongs to no row.
            None => return,
        };
        let row = &mut self.rows[index];
        let status = entry.status.as_deref();
        match (entry.direction, entry.event.as_str()) {
            (Direction::In, event::FRAGMENT_DATA) => {
                row.arrived.get_or_insert(at);
                row.session = row.session.or(entry.session);
                row.sequence = row.sequence.or(entry.sequence);
            }
            (Direction::Out, event::FRAGMENT_ACK) if status == Some("queued") => {
                row.queued.get_or_insert(at);
            }
            (Direction::Out, event::FRAGMENT_PROCESSED | event::ERROR) => {
                row.answered.get_or_insert(at);
                if row.detail.is_none() && !matches!(row.outcome, Outcome::Dubbed) {
                    row.detail.clone_from(&entry.code);
                }
            }
            (Direction::In, event::FRAGMENT_ACK) if status == Some("applied") => {
                row.applied.get_or_insert(at);
            }
            _ => {}
        }
    }
}
