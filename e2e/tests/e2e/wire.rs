//! What scenarios about a misbehaving STS share: one stable picture of the wire, and the check that
//! sound, log, journal and metrics tell the same story.
//!
//! Answers of several fragments that are in flight at once cross each other on the wire in an order
//! that differs between runs. What each fragment went through does not, nor does the order in which
//! the worker sends: these are what snapshots hold.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::failure;
use e2e::pipeline::Evidence;
use e2e::probe::FALLBACK_REASONS;
use e2e::probe::audio::Verdict;
use e2e::probe::journal::{Fragment, Journal};
use e2e::probe::logs::{Log, Record};
use serde::Serialize;
use sts_protocol::{Direction, event};

use crate::stage;

/// The worker's `timeout_ms` as `echo-sts` can measure it: the worker's clock starts before the
/// data arrives and its next fragment follows at once, so equality would depend on microseconds.
pub(crate) const TIMEOUT_SEEN: Duration = Duration::from_millis(7_900);

/// Times of two programs, of which one counts whole milliseconds.
const CLOCKS_MS: f64 = 5.0;
/// How long a word may be on its way through a busy machine.
const LATE_WORD_MS: f64 = 500.0;

const STALLS: &str = "worker_output_stalls_total";

/// The wire between the worker and `echo-sts`.
#[derive(Debug, Serialize)]
pub(crate) struct Wire {
    /// Everything but answers and acks, in order.
    order: Vec<String>,
    /// Each fragment with all that happened to it, in order.
    fragments: Vec<String>,
}

/// What went over the wire up to `stream:complete`, the same on every run.
///
/// How the connection ends afterwards depends on who is faster.
pub(crate) fn wire(evidence: &Evidence) -> Wire {
    let journal = evidence.journal.of_stream("test");
    let mut order = Vec::new();
    let mut fragments: Vec<(String, String)> = Vec::new();
    for (entry, text) in journal.entries().iter().zip(journal.transcript()) {
        if entry.stream_id.is_none() || event::CONTROL.contains(&entry.event.as_str()) {
            continue; // the control client, whose timing is the harness's own
        }
        match entry.fragment_id.as_deref() {
            None => order.push(text),
            Some(id) if entry.event == event::FRAGMENT_DATA => {
                fragments.push((id.to_owned(), text.clone()));
                order.push(text);
            }
            Some(id) => {
                if let Some((_, line)) = fragments.iter_mut().find(|(known, _)| known == id) {
                    *line += " ";
                    *line += &text;
                }
            }
        }
        if entry.event == event::STREAM_COMPLETE {
            break;
        }
    }
    let fragments = fragments.into_iter().map(|(_, line)| line).collect();
    Wire { order, fragments }
}

/// A fragment of the journal with the batch that the worker's log says it was.
#[derive(Debug)]
pub(crate) struct Sent {
    /// Number of its segment.
    pub batch: u64,
    /// When its segment was ready, Unix ms.
    pub ready: f64,
    /// What `echo-sts` saw; its times are since the start of `echo-sts`.
    pub seen: Fragment,
    /// When its data arrived, Unix ms.
    pub data: f64,
}

/// Every fragment that arrived, joined with the log by its id.
///
/// # Errors
/// When the two do not agree on ids and sequence numbers, or an id is not unique.
pub(crate) fn sent(evidence: &Evidence) -> Result<Vec<Sent>> {
    let logged: Vec<&Record> = evidence.log.events("fragment_sent").collect();
    let seen = evidence.journal.fragments();
    ensure!(
        logged.len() == seen.len(),
        "{} fragments sent, {} arrived",
        logged.len(),
        seen.len()
    );
    let ids: BTreeSet<&str> = seen
        .iter()
        .map(|fragment| fragment.fragment_id.as_str())
        .collect();
    ensure!(ids.len() == seen.len(), "a fragment id was used twice");
    let joined = logged.into_iter().zip(seen).map(|(record, seen)| {
        let (id, sequence) = (record.text("fragment_id"), number(record, "sequence")?);
        ensure!(
            id == Some(seen.fragment_id.as_str()) && Some(sequence) == seen.sequence,
            "sent {id:?} with sequence {sequence}, arrived: {seen:?}"
        );
        let batch = number(record, "batch")?;
        let ready = of_batch(&evidence.log, "segment_ready", batch)?.unix_ms()?;
        let data = seen.data_ms + epoch(&evidence.journal)?;
        Ok(Sent {
            batch,
            ready,
            seen,
            data,
        })
    });
    joined.collect()
}

/// Unix time in ms of the journal's time 0.
///
/// # Errors
/// When the journal is empty.
pub(crate) fn epoch(journal: &Journal) -> Result<f64> {
    let first = journal.entries().first().context("the journal is empty")?;
    Ok(first.time_ms - first.at_ms)
}

/// The one log record of this event about this batch.
///
/// # Errors
/// When there is none, or more than one.
pub(crate) fn of_batch<'a>(log: &'a Log, event: &'a str, batch: u64) -> Result<&'a Record> {
    let mut found = log
        .events(event)
        .filter(|record| number(record, "batch").is_ok_and(|n| n == batch));
    let record = found
        .next()
        .with_context(|| format!("no {event} of batch {batch} in the log"))?;
    ensure!(
        found.next().is_none(),
        "more than one {event} of batch {batch} in the log"
    );
    Ok(record)
}

/// A whole number of a log record.
///
/// # Errors
/// When it is not there.
pub(crate) fn number(record: &Record, field: &str) -> Result<u64> {
    let value = record
        .number(field)
        .with_context(|| format!("{record:?} has no {field}"))?;
    Ok(value as u64)
}

/// Segments that must fall back, with the reason's label.
pub(crate) type Fallbacks<'a> = &'a [(Range<u64>, &'a str)];

/// Fails unless exactly these of `segments` fell back for these reasons, all others were dubbed with
/// their own echo, and log, recorded sound, journal and metrics agree on it.
///
/// # Errors
/// With the first disagreement.
pub(crate) fn require_outcome(
    evidence: &Evidence,
    segments: u64,
    length: Duration,
    fallbacks: Fallbacks,
) -> Result<()> {
    // Each answer where it belongs, and not in its neighbour's place.
    evidence.require_identity(|_| true)?;
    require_dubs(evidence, segments, length, fallbacks)
}

/// [`require_outcome`] of a service whose answers hold nothing of the input.
///
/// # Errors
/// With the first disagreement.
pub(crate) fn require_dubs(
    evidence: &Evidence,
    segments: u64,
    length: Duration,
    fallbacks: Fallbacks,
) -> Result<()> {
    let expected: BTreeMap<u64, &str> = fallbacks
        .iter()
        .flat_map(|(batches, reason)| batches.clone().map(move |batch| (batch, *reason)))
        .collect();

    let log = &evidence.log;
    let mut logged = BTreeMap::new();
    for record in log.events("fallback") {
        let reason = record
            .text("reason")
            .context("a fallback without a reason")?;
        let twice = logged.insert(number(record, "batch")?, reason);
        ensure!(twice.is_none(), "{record:?} is the second for its segment");
    }
    ensure!(
        logged == expected,
        "fell back {logged:?}, expected {expected:?}"
    );

    let heard = evidence.heard(segments as usize, length)?;
    for (batch, verdict) in (0_u64..).zip(&heard) {
        let wanted = if expected.contains_key(&batch) {
            Verdict::Original
        } else {
            Verdict::Dubbed
        };
        ensure!(
            *verdict == wanted,
            "segment {batch} sounds {verdict:?}, not {wanted:?}: {heard:?}"
        );
        let on_air = of_batch(log, "pair_started", batch)?.flag("dubbed");
        ensure!(
            on_air == Some(wanted == Verdict::Dubbed),
            "the log says of {batch}: dubbed {on_air:?}"
        );
    }

    let sent = sent(evidence)?;
    let applied: BTreeSet<u64> = sent
        .iter()
        .filter(|fragment| fragment.seen.applied_ms.is_some())
        .map(|fragment| fragment.batch)
        .collect();
    let dubbed: BTreeSet<u64> = (0..segments)
        .filter(|batch| !expected.contains_key(batch))
        .collect();
    ensure!(
        applied == dubbed,
        "applied by the journal: {applied:?}, dubbed: {dubbed:?}"
    );

    require_applied_when_mixed(log, &sent, epoch(&evidence.journal)?)?;

    for reason in FALLBACK_REASONS {
        let counted = evidence.count("worker_fallback_total", &[("reason", reason)])?;
        let wanted = expected.values().filter(|known| **known == reason).count() as u64;
        ensure!(
            counted == wanted,
            "{counted} fallbacks for {reason} were counted, not {wanted}"
        );
    }
    for (status, wanted) in [
        ("sent", sent.len()),
        ("processed", dubbed.len()),
        ("fallback", expected.len()),
    ] {
        let counted = evidence.count("worker_audio_fragments_total", &[("status", status)])?;
        ensure!(
            counted == wanted as u64,
            "{counted} fragments were counted as {status}, not {wanted}"
        );
    }
    Ok(())
}

/// Segments are mixed in order, so none is applied before those in front of it are applied or given up,
/// nor after it is on air.
fn require_applied_when_mixed(log: &Log, sent: &[Sent], epoch: f64) -> Result<()> {
    let mut earliest = 0.0_f64;
    for fragment in sent {
        let batch = fragment.batch;
        let Some(applied) = fragment.seen.applied_ms.map(|ms| ms + epoch) else {
            let given_up = of_batch(log, "fallback", batch)?.unix_ms()?;
            earliest = earliest.max(given_up);
            continue;
        };
        let on_air = of_batch(log, "pair_started", batch)?.unix_ms()?;
        ensure!(
            applied + CLOCKS_MS >= earliest && applied <= on_air + LATE_WORD_MS,
            "segment {batch} was applied {:.0} ms after those in front of it were decided and {:.0} ms \
             before it was on air",
            applied - earliest,
            on_air - applied
        );
        earliest = earliest.max(applied);
    }
    Ok(())
}

/// [`stage::metric_set`] without the number of stalls: a busy machine adds some of its own. It is
/// [`require_stalls`] that looks at them.
pub(crate) fn metric_set(evidence: &Evidence) -> Vec<String> {
    let lines = stage::metric_set(evidence).into_iter();
    lines
        .map(|line| match line.rsplit_once(' ') {
            Some((series, _)) if series.starts_with(STALLS) => format!("{series} [TIME]"),
            _ => line,
        })
        .collect()
}

/// Fails unless output waited for these segments, which were late by design, and the metric counts
/// what the log says.
///
/// # Errors
/// With the first disagreement.
pub(crate) fn require_stalls(evidence: &Evidence, late: &[u64]) -> Result<()> {
    let mut logged = BTreeSet::new();
    for record in evidence.log.events("stall") {
        logged.insert(number(record, "batch")?);
    }
    let missing: Vec<_> = late
        .iter()
        .filter(|batch| !logged.contains(batch))
        .collect();
    ensure!(
        missing.is_empty(),
        "output did not wait for {missing:?}, only for {logged:?}"
    );
    let counted = evidence.count(STALLS, &[])?;
    ensure!(
        counted == logged.len() as u64,
        "{counted} stalls counted, logged: {logged:?}"
    );
    Ok(())
}

/// The values a gauge went through, repetitions left out.
///
/// # Errors
/// When a scrape does not have it.
pub(crate) fn gauge(evidence: &Evidence, name: &str) -> Result<Vec<u64>> {
    let mut values = Vec::new();
    for sample in &evidence.samples {
        values.push(sample.scrape.count(name, &[])?);
    }
    values.dedup();
    Ok(values)
}

/// How many journal entries `echo-sts` made of this doing of its own.
pub(crate) fn simulated(evidence: &Evidence, event: &str) -> usize {
    evidence.journal.events(Direction::Local, event).count()
}

/// What the worker's own watch over its deadlines says: whether something came late because the
/// machine was too busy, or because of the worker.
pub(crate) fn lateness(log: &Log) -> String {
    let lines: Vec<String> = log
        .events("behind")
        .map(|record| {
            let ms = |field| record.number(field).unwrap_or_default();
            format!("{} ms late, {} ms in a turn", ms("late_ms"), ms("turn_ms"))
        })
        .collect();
    if lines.is_empty() {
        "the worker itself was never behind".to_owned()
    } else {
        format!("the worker was behind: {}", lines.join("; "))
    }
}

/// Fails unless `low <= value <= high`.
///
/// # Errors
/// With `what` and the numbers.
pub(crate) fn within(what: &str, value: f64, low: f64, high: f64) -> Result<()> {
    failure::within(what, value, &(low..=high), "ms")
}
