//! The run in numbers, and the same counts as each side has them.

use std::collections::BTreeMap;

use sts_protocol::{Direction, event};

use super::model::{Outcome, Timeline};
use crate::probe::{
    FALLBACK_REASONS,
    journal::Journal,
    logs::{Level, Log},
    metrics::Scrape,
};

/// Numbers for the head of the page.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Facts {
    /// Segments cut.
    pub(super) segments: u64,
    /// Segments with dubbed audio.
    pub(super) dubbed: u64,
    /// Segments that keep their audio as intended.
    pub(super) original: u64,
    /// Segments that fell back, by reason.
    pub(super) fallback: BTreeMap<String, u64>,
    /// Times the output waited, and for how long in all, in ms.
    pub(super) stalls: (u64, f64),
    /// Successful reconnections, and attempts that failed.
    pub(super) reconnects: (u64, u64),
    /// A/V delta of pairs, absolute, in ms.
    pub(super) delta: Option<Spread>,
    /// Round trips through the service in ms.
    pub(super) rtt: Option<Spread>,
    /// Latency in seconds: as the output started, and the most there was.
    pub(super) latency: Option<(f64, f64)>,
    /// The most fragments in flight at once, and the limit.
    pub(super) in_flight: (usize, Option<u64>),
    /// Log lines at WARN, and at ERROR or not log lines at all.
    pub(super) trouble: (u64, u64),
    /// Exit code of the worker.
    pub(super) exit: Option<i64>,
    /// Length of the input that was cut, in ms.
    pub(super) media_ms: f64,
}

/// Median and extreme of some values.
#[derive(Debug, PartialEq)]
pub(super) struct Spread {
    /// Middle value.
    pub(super) median: f64,
    /// Largest value.
    pub(super) worst: f64,
}

impl Spread {
    fn of(values: impl Iterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.filter(|value| value.is_finite()).collect();
        values.sort_by(f64::total_cmp);
        let (half, odd) = (values.len() / 2, values.len() % 2 == 1);
        let worst = *values.last()?;
        let median = if odd {
            values[half]
        } else {
            f64::midpoint(values[half - 1], values[half])
        };
        Some(Self { median, worst })
    }
}

impl Facts {
    /// Counts what the timeline shows and the log says.
    pub(super) fn of(timeline: &Timeline, log: &Log) -> Self {
        let mut facts = Self::default();
        for row in &timeline.rows {
            facts.segments += u64::from(row.ready.is_some());
            facts.media_ms += row.ready.and(row.duration_ms).unwrap_or_default();
            match &row.outcome {
                Outcome::Dubbed => facts.dubbed += 1,
                Outcome::Fallback(reason) => {
                    *facts.fallback.entry(reason.clone()).or_default() += 1;
                }
                Outcome::Original(_) => facts.original += 1,
                Outcome::Unknown => {}
            }
        }
        let lanes = &timeline.lanes;
        let waited = lanes
            .stalls
            .iter()
            .map(|stall| (stall.to - stall.from) * 1e3)
            .sum();
        facts.stalls = (lanes.stalls.len() as u64, waited);
        facts.reconnects = (
            log.events("reconnected").count() as u64,
            log.events("reconnect_attempt")
                .filter(|it| it.flag("success") == Some(false))
                .count() as u64,
        );
        facts.delta = Spread::of(lanes.deltas.iter().map(|delta| delta.ms.abs()));
        facts.rtt = Spread::of(
            timeline
                .rows
                .iter()
                .filter(|row| row.processed.is_some())
                .filter_map(|row| row.rtt_ms),
        );
        facts.latency = lanes.latency.first().map(|first| {
            let most = lanes
                .latency
                .iter()
                .map(|point| point.1)
                .fold(first.1, f64::max);
            (first.1, most)
        });
        let most = lanes
            .in_flight
            .iter()
            .map(|(_, count)| *count)
            .max()
            .unwrap_or(0);
        facts.in_flight = (most, lanes.limit.last().map(|(_, limit)| *limit));
        let at = |level| {
            log.records
                .iter()
                .filter(|record| record.level == level)
                .count() as u64
        };
        facts.trouble = (at(Level::Warn), at(Level::Error) + log.strays.len() as u64);
        facts.exit = log
            .events("exiting")
            .last()
            .and_then(|it| it.number("code"))
            .map(|code| code as i64);
        facts
    }

    /// All fallbacks.
    pub(super) fn fallbacks(&self) -> u64 {
        self.fallback.values().sum()
    }
}

/// One count as the worker's metrics, its log and the journal have it; nothing where a side cannot
/// know it.
#[derive(Debug, PartialEq)]
pub(super) struct Count {
    pub(super) what: String,
    pub(super) metrics: Option<u64>,
    pub(super) log: Option<u64>,
    pub(super) journal: Option<u64>,
}

impl Count {
    /// Whether all sides that know it agree.
    pub(super) fn agrees(&self) -> bool {
        let mut known = [self.metrics, self.log, self.journal].into_iter().flatten();
        let first = known.next();
        known.all(|count| Some(count) == first)
    }
}

/// The counts that more than one side has, without those that are zero everywhere.
pub(super) fn counts(scrape: &Scrape, log: &Log, journal: &Journal) -> Vec<Count> {
    let metric = |name: &str, labels: &[(&str, &str)]| {
        scrape
            .families()
            .contains_key(name)
            .then(|| scrape.sum(name, labels).max(0.0) as u64)
    };
    let fragments = |status| metric("worker_audio_fragments_total", &[("status", status)]);
    let logged = |name: &str| Some(log.events(name).count() as u64);
    let with = |name: &str, field: &str, value: &str| {
        Some(
            log.events(name)
                .filter(|it| it.text(field) == Some(value))
                .count() as u64,
        )
    };
    // Without a journal nobody knows, which is not the same as none.
    let seen = |count: usize| (!journal.entries().is_empty()).then_some(count as u64);
    let arrived = seen(journal.fragments().len());
    let answered = journal.events(Direction::Out, event::FRAGMENT_PROCESSED);
    let answered = seen(
        answered
            .filter(|it| it.status.as_deref() == Some("success"))
            .count(),
    );
    let applied = journal.events(Direction::In, event::FRAGMENT_ACK);
    let applied = seen(
        applied
            .filter(|it| it.status.as_deref() == Some("applied"))
            .count(),
    );
    let on_air = log
        .events("pair_started")
        .filter(|it| it.flag("dubbed") == Some(true))
        .count() as u64;

    let count = |what: &str, metrics, log, journal| Count {
        what: what.to_owned(),
        metrics,
        log,
        journal,
    };
    let failed = logged("fragment_failed")
        .zip(logged("fragment_timeout"))
        .map(|(error, late)| error + late);
    let mut all = vec![
        count(
            "segments cut (audio)",
            metric("worker_segments_total", &[("kind", "audio")]),
            logged("segment_ready"),
            None,
        ),
        count(
            "fragments sent",
            fragments("sent"),
            logged("fragment_sent"),
            arrived,
        ),
        count(
            "answered with audio",
            fragments("processed"),
            logged("fragment_processed"),
            answered,
        ),
        count("dubbed audio on air", None, Some(on_air), applied),
        count("failed or timed out", fragments("failed"), failed, None),
    ];
    for reason in FALLBACK_REASONS {
        all.push(count(
            &format!("fallback: {reason}"),
            metric("worker_fallback_total", &[("reason", reason)]),
            with("fallback", "reason", reason),
            None,
        ));
    }
    for action in ["pause", "slow_down", "none"] {
        let sent = journal.events(Direction::Out, event::BACKPRESSURE);
        let sent = seen(
            sent.filter(|it| it.action.as_deref() == Some(action))
                .count(),
        );
        all.push(count(
            &format!("backpressure: {action}"),
            metric("worker_backpressure_events_total", &[("action", action)]),
            with("backpressure", "action", action),
            sent,
        ));
    }
    all.extend([
        count(
            "reconnections",
            metric("worker_reconnection_total", &[]),
            logged("reconnected"),
            None,
        ),
        count(
            "stalls of the output",
            metric("worker_output_stalls_total", &[]),
            logged("stall"),
            None,
        ),
        count(
            "corrections of A/V sync",
            metric("worker_av_sync_corrections_total", &[]),
            logged("av_correction"),
            None,
        ),
    ]);
    all.retain(|it| {
        [it.metrics, it.log, it.journal]
            .into_iter()
            .flatten()
            .any(|count| count > 0)
    });
    all
}

#[cfg(test)]
mod tests {
    use super::super::model::{Run, story};
    use super::*;

    fn facts(log: &Log, journal: &Journal) -> Facts {
        let run = Run {
            first_packet_ms: 0.0,
            log,
            journal,
            latency: &[],
        };
        Facts::of(&Timeline::of(&run), log)
    }

    #[test]
    fn a_run_with_faults_in_numbers() {
        let (log, journal) = (story::log(), story::journal());
        let facts = facts(&log, &journal);
        assert_eq!((facts.segments, facts.dubbed, facts.fallbacks()), (5, 2, 3));
        assert_eq!(facts.fallback.get("timeout"), Some(&1));
        assert_eq!(facts.fallback.get("disconnected"), Some(&1));
        assert_eq!(facts.reconnects, (1, 1));
        assert_eq!((facts.in_flight.0, facts.in_flight.1), (2, Some(3)));
        assert_eq!(
            facts.rtt,
            Some(Spread {
                median: 255.0,
                worst: 410.0
            })
        );
        assert_eq!(
            facts.delta,
            Some(Spread {
                median: 1.5,
                worst: 40.0
            })
        );
        assert_eq!((facts.stalls.0, facts.exit), (1, Some(0)));
        assert!((facts.stalls.1 - 500.0).abs() < 1e-6);
        assert_eq!(facts.trouble.1, 0);
    }

    #[test]
    fn nothing_is_all_zero() {
        assert_eq!(
            facts(&Log::default(), &Journal::default()),
            Facts::default()
        );
        assert_eq!(
            counts(&Scrape::default(), &Log::default(), &Journal::default()),
            []
        );
    }

    #[test]
    fn sides_that_disagree_are_told_from_sides_that_do_not_know() {
        let text = "# TYPE worker_audio_fragments_total counter\n\
                    worker_audio_fragments_total{status=\"sent\"} 4\n\
                    worker_audio_fragments_total{status=\"processed\"} 2\n";
        let scrape = Scrape::parse(text).unwrap();
        let counts = counts(&scrape, &story::log(), &story::journal());
        let find = |what: &str| counts.iter().find(|count| count.what == what).unwrap();
        let sent = find("fragments sent");
        assert_eq!(
            (sent.metrics, sent.log, sent.journal),
            (Some(4), Some(4), Some(4))
        );
        assert!(sent.agrees());
        // The answer that came too late left the service all the same.
        let answered = find("answered with audio");
        assert_eq!(
            (answered.metrics, answered.log, answered.journal),
            (Some(2), Some(2), Some(3))
        );
        assert!(!answered.agrees());
        let stalls = find("stalls of the output");
        assert_eq!(
            (stalls.metrics, stalls.log, stalls.agrees()),
            (None, Some(1), true)
        );
        assert!(
            counts
                .iter()
                .all(|count| count.what != "fallback: bad_audio")
        );
        let pause = find("backpressure: pause");
        assert_eq!(
            (pause.metrics, pause.log, pause.journal),
            (None, Some(1), Some(1))
        );
        let blind = super::counts(&scrape, &story::log(), &Journal::default());
        assert!(blind.iter().all(|count| count.journal.is_none()));
    }

    #[test]
    fn the_median_of_an_even_number_is_between() {
        assert_eq!(
            Spread::of([4.0, 1.0].into_iter()),
            Some(Spread {
                median: 2.5,
                worst: 4.0
            })
        );
        assert_eq!(
            Spread::of([3.0, f64::NAN, 1.0, 2.0].into_iter()),
            Some(Spread {
                median: 2.0,
                worst: 3.0
            })
        );
        assert_eq!(Spread::of(std::iter::empty()), None);
    }
}
