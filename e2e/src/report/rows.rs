//! One row per fragment: from the cut of its segment to the air, as both sides saw it.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use sts_protocol::{Direction, JournalEntry, event};

use super::model::{Axis, Timed};
use crate::probe::journal::Journal;

/// What became of a segment's audio.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Outcome {
    /// It was replaced by what the service sent.
    Dubbed,
    /// It stayed because dubbing did not work out.
    Fallback,
    /// It stayed as intended (passthrough, a tail too short).
    Original,
    /// Nothing says.
    #[default]
    Unknown,
}

/// A segment's audio on its way. Lengths are ms.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Row {
    /// The segment's number; nothing if only the service knows the fragment.
    pub(super) batch: Option<u64>,
    /// `full`, `remainder` or `tail`.
    pub(super) kind: Option<String>,
    pub(super) duration_ms: Option<f64>,
    /// The fragment's number since `stream:init`, and the session, counted by the service.
    pub(super) sequence: Option<u64>,
    pub(super) session: Option<u64>,
    pub(super) fragment_id: Option<String>,
    pub(super) outcome: Outcome,
    /// Why it is not dubbed, and the error code or what was wrong with the audio.
    pub(super) reason: Option<String>,
    pub(super) detail: Option<String>,
    /// From sending to the answer or to the end of waiting.
    pub(super) rtt_ms: Option<f64>,
    /// Audio minus video at the output, and how long the output waited for it.
    pub(super) delta_ms: Option<f64>,
    pub(super) stall_ms: Option<f64>,
    /// Moments by name, seconds on the axis: `ready`, `sent`, `arrived` at the service, `queued`,
    /// `answered` by it, `settled` (the worker waits no more), `processed` (it has usable audio),
    /// `decided` (for the original), `applied`, `on_air`. Derived: `from` (first packet), `left`,
    /// `back`, `until` (last frame on air), `late` (answered after the worker had given up).
    pub(super) at: BTreeMap<&'static str, f64>,
}

impl Row {
    /// A moment by its name.
    pub(super) fn at(&self, moment: &str) -> Option<f64> {
        self.at.get(moment).copied()
    }

    fn set(&mut self, moment: &'static str, at: f64) {
        self.at.insert(moment, at);
    }

    /// Keeps the first of several.
    fn first(&mut self, moment: &'static str, at: f64) {
        self.at.entry(moment).or_insert(at);
    }

    fn derive(&mut self) {
        let length = self.duration_ms.unwrap_or_default().max(0.0) / 1e3;
        let left = self.at("sent").or(self.at("arrived"));
        let back = self.at("settled").or(self.at("answered"));
        let late = self.at("answered").filter(|answered| {
            let given_up = self
                .at("settled")
                .is_some_and(|settled| *answered > settled);
            given_up && self.at("processed").is_none()
        });
        let derived = [
            ("from", self.at("ready").map(|ready| ready - length)),
            ("left", left),
            ("back", back.zip(left).map(|(back, left)| back.max(left))),
            ("until", self.at("on_air").map(|at| at + length)),
            ("late", late),
        ];
        for (moment, at) in derived {
            self.at.extend(at.map(|at| (moment, at)));
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
        if let Some(at) = axis.seconds(entry.time_ms) {
            table.journal(at, entry);
        }
    }
    let mut rows = table.rows;
    rows.sort_by_key(|row| (row.batch.is_none(), row.batch));
    rows.iter_mut().for_each(Row::derive);
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
    fn add(&mut self, row: Row) -> usize {
        self.rows.push(row);
        self.rows.len() - 1
    }

    /// The row of a batch, made if there is none.
    fn batch(&mut self, batch: u64) -> usize {
        if let Some(index) = self.by_batch.get(&batch) {
            return *index;
        }
        let index = self.add(Row {
            batch: Some(batch),
            ..Row::default()
        });
        self.by_batch.insert(batch, index);
        index
    }

    fn log(&mut self, event: &Timed<'_>) {
        match (event.name, event.count("batch")) {
            // Whoever loses the session forgets what is out.
            ("sts_disconnected" | "session_lost", _) => {
                for index in std::mem::take(&mut self.out) {
                    self.rows[index].set("settled", event.at);
                }
            }
            ("fragment_sent", Some(batch)) => self.sent(batch, event),
            (
                "segment_ready" | "fragment_processed" | "fragment_failed" | "fragment_timeout"
                | "bad_audio" | "fallback" | "segment_original" | "pair_started" | "stall",
                Some(batch),
            ) => self.follow(batch, event),
            _ => {}
        }
    }

    fn sent(&mut self, batch: u64, event: &Timed<'_>) {
        let mut index = self.batch(batch);
        if self.rows[index].at("sent").is_some() {
            // A segment that is sent again is another fragment.
            let before = &self.rows[index];
            let ready = before.at("ready").map(|at| ("ready", at));
            let again = Row {
                batch: Some(batch),
                kind: before.kind.clone(),
                duration_ms: before.duration_ms,
                at: ready.into_iter().collect(),
                ..Row::default()
            };
            index = self.add(again);
            self.by_batch.insert(batch, index);
        }
        let row = &mut self.rows[index];
        row.set("sent", event.at);
        row.sequence = event.count("sequence");
        row.fragment_id = event.text("fragment_id");
        if let Some(id) = row.fragment_id.clone() {
            self.by_id.insert(id, index);
        }
        self.out.insert(index);
    }

    fn follow(&mut self, batch: u64, event: &Timed<'_>) {
        let id = event.record.text("fragment_id");
        let known = id.and_then(|id| self.by_id.get(id)).copied();
        let index = known.unwrap_or_else(|| self.batch(batch));
        let waited_for = self.out.contains(&index);
        let row = &mut self.rows[index];
        let mut settled = false;
        match event.name {
            "segment_ready" => {
                row.set("ready", event.at);
                row.kind = event.text("kind");
                row.duration_ms = event.millis("duration_ms");
            }
            "fragment_processed" => {
                row.set("processed", event.at);
                row.rtt_ms = event.millis("rtt_ms");
                if row.outcome == Outcome::Unknown {
                    row.outcome = Outcome::Dubbed;
                }
                settled = true;
            }
            "fragment_failed" | "fragment_timeout" => {
                row.detail = event.text("code").or(row.detail.take());
                settled = true;
            }
            "bad_audio" => row.detail = event.text("reason"),
            "fallback" | "segment_original" => {
                row.set("decided", event.at);
                row.reason = event.text("reason");
                (row.outcome, settled) = match event.name {
                    // Whatever falls back is not waited for any more.
                    "fallback" => (Outcome::Fallback, waited_for),
                    _ => (Outcome::Original, false),
                };
            }
            "pair_started" => {
                row.set("on_air", event.at);
                row.delta_ms = event.millis("av_delta_ms");
                // What is on air is the truth.
                match (event.record.flag("dubbed"), row.outcome) {
                    (Some(true), _) => row.outcome = Outcome::Dubbed,
                    (Some(false), Outcome::Dubbed | Outcome::Unknown) => {
                        row.outcome = Outcome::Original;
                    }
                    _ => {}
                }
            }
            _ => row.stall_ms = event.millis("duration_ms"),
        }
        if settled {
            row.set("settled", event.at);
            let waited = row.at("sent").map(|sent| (event.at - sent) * 1e3);
            row.rtt_ms = row.rtt_ms.or(waited);
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
                let index = self.add(Row {
                    fragment_id: Some(id.to_owned()),
                    duration_ms: entry.duration_ms.map(|ms| ms as f64),
                    ..Row::default()
                });
                self.by_id.insert(id.to_owned(), index);
                index
            }
            // An answer to nothing that was ever sent belongs to no row.
            None => return,
        };
        let row = &mut self.rows[index];
        match (
            entry.direction,
            entry.event.as_str(),
            entry.status.as_deref(),
        ) {
            (Direction::In, event::FRAGMENT_DATA, _) => {
                row.first("arrived", at);
                row.session = row.session.or(entry.session);
                row.sequence = row.sequence.or(entry.sequence);
            }
            (Direction::Out, event::FRAGMENT_ACK, Some("queued")) => row.first("queued", at),
            (Direction::Out, event::FRAGMENT_PROCESSED | event::ERROR, _) => {
                row.first("answered", at);
                if row.detail.is_none() && row.outcome != Outcome::Dubbed {
                    row.detail.clone_from(&entry.code);
                }
            }
            (Direction::In, event::FRAGMENT_ACK, Some("applied")) => row.first("applied", at),
            _ => {}
        }
    }
}
