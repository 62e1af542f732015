//! Judges that several scenarios share and that look at nothing but what a run left behind. Each must be
//! able to say no: `e2e/tests/judges`.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::pipeline::Evidence;
use e2e::probe::audio::{self, Sound};
use e2e::probe::clock::{Skew, Sync};
use e2e::probe::metrics::ScrapeSample;
use e2e::threads::quietly;
use sts_protocol::{Direction, event};

use crate::wire;

/// What a viewer begins to notice.
pub(crate) const NOTICED_MS: f64 = 40.0;
/// How far the log and the sound may be apart: flashes lie on frames, timestamps on milliseconds.
pub(crate) const AGREEMENT_MS: f64 = 15.0;
const AV_DELTA: &str = "worker_av_sync_delta_ms";
/// Seconds at either end in which a codec's priming and padding lie.
const EDGE: f64 = 0.05;
/// Most memory the worker may have had at once.
const MOST_MEMORY_KIB: u64 = 200 * 1024;
/// Growth that is none: over the 18 s of a minute's third, 0.1 MiB was measured; three segments that are
/// kept are 1.7 MiB and more.
const GROWTH_MIB: f64 = 1.5;
/// Threads that come with a connection or a decoder and go again.
const MORE_THREADS: f64 = 2.0;

/// Every pair with its delta by the log, ms.
pub(crate) fn pairs(evidence: &Evidence) -> Result<Vec<(u64, f64)>> {
    evidence
        .log
        .events("pair_started")
        .map(|record| {
            let delta = record
                .number("av_delta_ms")
                .context("a pair without a delta")?;
            Ok((wire::number(record, "batch")?, delta))
        })
        .collect()
}

/// Fails unless all of these lie at `ms`.
///
/// # Errors
/// With the first that does not.
pub(crate) fn require_near(when: &str, skews: &[Skew], ms: f64) -> Result<()> {
    ensure!(!skews.is_empty(), "nothing was measured {when}");
    for skew in skews {
        ensure!(
            (skew.ms - ms).abs() <= NOTICED_MS,
            "{when}, second {} is at {:.1} ms, not {ms}: {skews:?}",
            skew.second,
            skew.ms
        );
    }
    Ok(())
}

/// Fails unless the delta that the worker states at the start of each pair is what is heard there,
/// against where the sound belongs by its own time stamps at that time, and the gauge goes through it.
///
/// # Errors
/// With the first pair that sounds otherwise.
pub(crate) fn agree(
    evidence: &Evidence,
    sync: &Sync,
    length: Duration,
    belongs: impl Fn(f64) -> f64,
) -> Result<()> {
    let pairs = pairs(evidence)?;
    for (batch, delta) in &pairs {
        let start = *batch as f64 * length.as_secs_f64();
        let Some(skew) = sync
            .skews
            .iter()
            .find(|skew| f64::from(skew.second) == start)
        else {
            continue; // less than a segment at the end
        };
        let stated = belongs(start) + delta;
        ensure!(
            (skew.ms - stated).abs() <= AGREEMENT_MS,
            "pair {batch} sounds {:.1} ms off, the worker says {stated:.1}",
            skew.ms
        );
    }
    gauge_follows(evidence, &pairs)
}

/// The gauge takes no value that is not the next pair's delta, sign included.
fn gauge_follows(evidence: &Evidence, pairs: &[(u64, f64)]) -> Result<()> {
    let mut deltas = std::iter::once(0.0).chain(pairs.iter().map(|(_, delta)| *delta));
    let mut last = None;
    for sample in &evidence.samples {
        let shown = sample.scrape.value(AV_DELTA, &[])?;
        let near = |delta: f64| (shown - delta).abs() < 0.001;
        if last.is_some_and(near) {
            continue;
        }
        last = deltas.find(|delta| near(*delta));
        ensure!(
            last.is_some(),
            "{AV_DELTA} is {shown} ms after {:.1} s, no pair from there on is: {pairs:?}",
            sample.at.as_secs_f64()
        );
    }
    // The very last pair may be too short for a sample.
    let end = &pairs[pairs.len().saturating_sub(2)..];
    let moved = |shown: f64| end.iter().any(|(_, delta)| (shown - delta).abs() < 0.001);
    ensure!(
        last.is_some_and(moved),
        "{AV_DELTA} stands still at {last:?}, the last pairs are {end:?}"
    );
    Ok(())
}

/// Fails on jumping timestamps, clicks and holes.
///
/// # Errors
/// With the first of them.
pub(crate) fn seamless(sound: Sound) -> Result<()> {
    ensure!(
        sound.breaks().is_empty(),
        "audio timestamps are not continuous: {:?}",
        sound.breaks()
    );
    // Music that is cut off where a clip begins or ends is no click on the way.
    let inside = sound.start() + EDGE..sound.end() - EDGE;
    let (mut clicks, dropouts) =
        quietly(move || Ok((audio::clicks(&sound), audio::dropouts(&sound))))?;
    clicks.retain(|click| inside.contains(&click.at));
    ensure!(clicks.is_empty(), "clicks in the output: {clicks:?}");
    ensure!(dropouts.is_empty(), "dropouts in the output: {dropouts:?}");
    Ok(())
}

/// When each action was on the wire, Unix ms.
pub(crate) fn actions(evidence: &Evidence) -> Vec<(String, f64)> {
    let events = evidence.journal.events(Direction::Out, event::BACKPRESSURE);
    events
        .filter_map(|entry| Some((entry.action.clone()?, entry.time_ms)))
        .collect()
}

/// Journal, log and metrics agree on what was asked, in order and by action.
///
/// # Errors
/// With the first disagreement.
pub(crate) fn backpressure_agrees(evidence: &Evidence) -> Result<()> {
    let said: Vec<_> = actions(evidence)
        .into_iter()
        .map(|(action, _)| action)
        .collect();
    let logged: Vec<_> = evidence
        .log
        .events("backpressure")
        .filter_map(|record| record.text("action"))
        .collect();
    // What changes nothing is counted, not logged; at first nothing is asked.
    let mut news = vec!["none"];
    news.extend(said.iter().map(String::as_str));
    news.dedup();
    ensure!(
        logged == news[1..],
        "echo-sts said {said:?}, the worker heard {logged:?}"
    );
    for action in ["pause", "slow_down", "none"] {
        let counted = evidence.count("worker_backpressure_events_total", &[("action", action)])?;
        let expected = said.iter().filter(|said| *said == action).count() as u64;
        ensure!(
            counted == expected,
            "{action} was counted {counted} times, not {expected}"
        );
    }
    Ok(())
}

/// Fails if the worker had more memory at once than it may, KiB, or if that is not known.
///
/// # Errors
/// With how much it had.
pub(crate) fn require_small(most: u64) -> Result<()> {
    ensure!(most > 0, "the worker's memory could not be read");
    ensure!(
        most < MOST_MEMORY_KIB,
        "the worker had {} MiB at once",
        most / 1024
    );
    Ok(())
}

/// Fails if the worker has more memory or threads late in a run than early in it: the least of the last
/// third against the least of the middle one, of what lies between its first and its last pair.
///
/// # Errors
/// With both numbers.
pub(crate) fn require_steady(samples: &[ScrapeSample], from: Duration, to: Duration) -> Result<()> {
    let third = to.saturating_sub(from) / 3;
    let least = |name: &str, scale: f64, start: Duration| -> Result<f64> {
        let inside = samples
            .iter()
            .filter(|sample| (start..start + third).contains(&sample.at));
        let mut least = f64::INFINITY;
        let mut count = 0;
        for sample in inside {
            least = least.min(sample.scrape.value(name, &[])? / scale);
            count += 1;
        }
        ensure!(count >= 20, "only {count} samples of {name} to compare");
        Ok(least)
    };
    for (what, name, scale, more) in [
        (
            "MiB",
            "process_resident_memory_bytes",
            1024.0 * 1024.0,
            GROWTH_MIB,
        ),
        ("threads", "process_threads", 1.0, MORE_THREADS),
    ] {
        let early = least(name, scale, from + third)?;
        let late = least(name, scale, from + third * 2)?;
        println!("{what}: {early:.1} early, {late:.1} late");
        ensure!(
            late <= early + more,
            "the worker grows: {early:.1} {what} at least in the middle of the run, {late:.1} at its end"
        );
    }
    Ok(())
}
