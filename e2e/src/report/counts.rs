//! The run in numbers, and the same counts as each side has them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sts_protocol::{Direction, event};

use super::{model::Timeline, rows::Outcome};
use crate::probe::{
    FALLBACK_REASONS,
    journal::Journal,
    logs::{Level, Log},
    metrics::Scrape,
};

/// Numbers for the head of the page and for `report.json`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Numbers {
    /// Segments cut, and the length of all of them.
    pub segments: u64,
    /// Length of what was cut.
    pub media_ms: f64,
    /// Segments with dubbed audio on air.
    pub dubbed: u64,
    /// Segments that keep their audio as intended.
    pub original: u64,
    /// Segments that fell back, by reason.
    pub fallback: BTreeMap<String, u64>,
    /// Log lines at WARN.
    pub warnings: u64,
    /// Log lines at ERROR, and lines that no logger wrote.
    pub errors: u64,
    /// Exit code of the worker, as it logged it.
    pub exit: Option<i64>,
}

impl Numbers {
    pub(super) fn of(timeline: &Timeline, log: &Log) -> Self {
        let at = |level| log.records.iter().filter(|it| it.level == level).count() as u64;
        let last = log
            .events("exiting")
            .last()
            .and_then(|it| it.number("code"));
        let mut numbers = Self {
            warnings: at(Level::Warn),
            errors: at(Level::Error) + log.strays.len() as u64,
            exit: last.map(|code| code as i64),
            ..Self::default()
        };
        for row in &timeline.rows {
            if row.at("ready").is_some() {
                numbers.segments += 1;
                numbers.media_ms += row.duration_ms.unwrap_or_default();
            }
            match row.outcome {
                Outcome::Dubbed => numbers.dubbed += 1,
                Outcome::Original => numbers.original += 1,
                Outcome::Fallback => {
                    let reason = row.reason.clone().unwrap_or_default();
                    *numbers.fallback.entry(reason).or_default() += 1;
                }
                Outcome::Unknown => {}
            }
        }
        numbers
    }
}

/// A count as metrics, log and journal have it; nothing where a side cannot know it.
pub(super) type Count = (String, Option<u64>, Option<u64>, Option<u64>);

/// The counts that more than one side has, without those that are zero everywhere.
pub(super) fn counts(scrape: &Scrape, log: &Log, journal: &Journal) -> Vec<Count> {
    let metric = |name: &str, labels: &[(&str, &str)]| {
        scrape
            .has(name)
            .then(|| scrape.sum(name, labels).max(0.0) as u64)
    };
    let fragments = |status| metric("worker_audio_fragments_total", &[("status", status)]);
    let logged = |name: &str| log.events(name).count() as u64;
    let with = |name: &str, field: &str, value: &str| {
        log.events(name)
            .filter(|it| it.text(field) == Some(value))
            .count() as u64
    };
    // Without a journal nobody knows, which is not the same as none.
    let seen = |count: usize| (!journal.entries().is_empty()).then_some(count as u64);
    let status = |direction, event, status: &str| {
        let entries = journal.events(direction, event);
        seen(
            entries
                .filter(|it| it.status.as_deref() == Some(status))
                .count(),
        )
    };
    let on_air = log
        .events("pair_started")
        .filter(|it| it.flag("dubbed") == Some(true))
        .count();
    let mut all: Vec<Count> = Vec::new();
    let mut add = |what: &str, metrics, log, journal| {
        all.push((what.to_owned(), metrics, Some(log), journal));
    };
    let cut = metric("worker_segments_total", &[("kind", "audio")]);
    add("segments cut (audio)", cut, logged("segment_ready"), None);
    let arrived = seen(journal.fragments().len());
    add(
        "fragments sent",
        fragments("sent"),
        logged("fragment_sent"),
        arrived,
    );
    let answered = status(Direction::Out, event::FRAGMENT_PROCESSED, "success");
    add(
        "answered with audio",
        fragments("processed"),
        logged("fragment_processed"),
        answered,
    );
    let applied = status(Direction::In, event::FRAGMENT_ACK, "applied");
    add("dubbed audio on air", None, on_air as u64, applied);
    let failed = logged("fragment_failed") + logged("fragment_timeout");
    add("failed or timed out", fragments("failed"), failed, None);
    for reason in FALLBACK_REASONS {
        let counted = metric("worker_fallback_total", &[("reason", reason)]);
        add(
            &format!("fallback: {reason}"),
            counted,
            with("fallback", "reason", reason),
            None,
        );
    }
    for action in ["pause", "slow_down", "none"] {
        let counted = metric("worker_backpressure_events_total", &[("action", action)]);
        let sent = journal.events(Direction::Out, event::BACKPRESSURE);
        let sent = seen(
            sent.filter(|it| it.action.as_deref() == Some(action))
                .count(),
        );
        add(
            &format!("backpressure: {action}"),
            counted,
            with("backpressure", "action", action),
            sent,
        );
    }
    for (what, name, event) in [
        ("reconnections", "worker_reconnection_total", "reconnected"),
        (
            "stalls of the output",
            "worker_output_stalls_total",
            "stall",
        ),
        (
            "corrections of A/V sync",
            "worker_av_sync_corrections_total",
            "av_correction",
        ),
    ] {
        add(what, metric(name, &[]), logged(event), None);
    }
    all.retain(|(_, metrics, log, journal)| {
        [metrics, log, journal]
            .into_iter()
            .flatten()
            .any(|count| *count > 0)
    });
    all
}
