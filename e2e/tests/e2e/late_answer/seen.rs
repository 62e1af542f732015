//! The output of [`late_answer`](super) through the eyes of a viewer with a stopwatch.

use std::time::Instant;

use anyhow::{Result, ensure};
use e2e::pipeline::Evidence;
use e2e::probe::logs::Record;
use e2e::services::viewer::Arrival;

use crate::wire;

/// The segment whose answer is late.
pub(crate) const LATE: u64 = 5;
/// No machine costs that much, milliseconds: the late answer does.
const MUCH: f64 = 1_000.0;
/// The worker's own figures.
pub(crate) const CATCH_UP: f64 = 1.04;
const LATENCY: &str = "worker_output_latency_seconds";
/// What the log and the metric count from is the arrival at the worker; what the viewer sees has also
/// been on its way from the publisher and to the viewer.
const ON_THE_WAY: f64 = 0.4;
/// The gauge is set once a second.
const GAUGE_PERIOD: f64 = 1.2;
/// Frames of the stream per second.
const FPS: f64 = 30.0;
/// What a player looks at before it plays comes in a lump: these frames say nothing.
const LUMP: usize = 4 * FPS as usize;

/// What the viewer saw, in seconds since the first packet was published.
pub(crate) struct Seen {
    sent_at: Instant,
    /// When each frame arrived, and which.
    frames: Vec<(f64, usize)>,
}

impl Seen {
    /// The arrivals at a viewer of what was sent from then on.
    pub(crate) fn new(arrivals: &[Arrival], sent_at: Instant) -> Self {
        let mut seen = Self {
            sent_at,
            frames: Vec::new(),
        };
        seen.frames = arrivals
            .iter()
            .map(|arrival| (seen.since_sent(arrival.at), arrival.frame))
            .collect();
        seen
    }

    fn since_sent(&self, at: Instant) -> f64 {
        at.saturating_duration_since(self.sent_at).as_secs_f64()
    }

    /// Every frame from the first one seen came once and in order, never faster than it may, and but
    /// for the one wait never slower than real time.
    ///
    /// # Errors
    /// With what was seen.
    pub(crate) fn gentle(&self) -> Result<()> {
        let arrivals = &self.frames;
        let whole = arrivals.windows(2).all(|pair| pair[1].1 == pair[0].1 + 1);
        ensure!(
            whole && arrivals.len() as f64 > 110.0 * FPS,
            "the viewer saw {} frames, whole: {whole}",
            arrivals.len()
        );
        let settled = &arrivals[LUMP..];
        let apart = 10 * FPS as usize;
        let mut waits = 0;
        for (one, other) in settled.iter().zip(&settled[apart..]) {
            let (wall, media) = (other.0 - one.0, apart as f64 / FPS);
            ensure!(
                wall >= media / CATCH_UP - 0.3,
                "at {:.1} s: {media} s of video within {wall:.2} s",
                one.0
            );
            waits += usize::from(wall > media + 0.3);
        }
        ensure!(
            waits <= apart,
            "output waited more than once: {waits} of {} windows",
            settled.len()
        );
        let longest = settled
            .windows(2)
            .map(|pair| pair[1].0 - pair[0].0)
            .fold(0.0, f64::max);
        ensure!(
            (4.0..5.2).contains(&longest),
            "the picture stood still for {longest:.2} s"
        );
        Ok(())
    }

    /// How old the newest frame is at `at`, and when it arrived.
    fn age(&self, at: f64) -> Option<(f64, f64)> {
        let after = self.frames.partition_point(|(arrived, _)| *arrived <= at);
        let (arrived, frame) = *self.frames.get(after.checked_sub(1)?)?;
        Some((at - frame as f64 / FPS, arrived))
    }

    /// The gauge says at every scrape how old what is seen is, also while output waits.
    ///
    /// # Errors
    /// With the first scrape that says something else.
    pub(crate) fn agrees_with(&self, evidence: &Evidence) -> Result<()> {
        let settled = self.frames[LUMP].0;
        let last = self.frames[self.frames.len() - 1].0;
        let mut compared = 0;
        for sample in &evidence.samples {
            let at = self.since_sent(sample.asked);
            let Some((age, arrived)) = self.age(at).filter(|_| (settled..last).contains(&at))
            else {
                continue;
            };
            let told = sample.scrape.value(LATENCY, &[])?;
            // While the picture stands, it ages by a second a second.
            let behind = if at - arrived > 0.2 {
                GAUGE_PERIOD
            } else {
                ON_THE_WAY
            };
            // On a busy machine the answer is younger than the question, and the picture older.
            let until = sample.answered.saturating_duration_since(sample.asked);
            let oldest = age + until.as_secs_f64();
            ensure!(
                told >= age - behind && told <= oldest + 0.1,
                "{at:.1} s after the start the gauge says {told:.2} s, what is seen is {age:.2} s old"
            );
            compared += 1;
        }
        ensure!(compared > 500, "only {compared} scrapes were compared");
        Ok(())
    }
}

/// The catch-up after the late answer. What the start or a busy machine cost is won back too, before and
/// after it: that is another matter, and little.
pub(crate) fn after_the_stall(record: &Record, event: &str) -> bool {
    let is = |field, least| record.number(field).is_some_and(|value| value >= least);
    record.event() == Some(event)
        && match event {
            "catch_up_started" => is("excess_ms", MUCH),
            // The late answer itself ends the one before.
            _ => is("batch", LATE as f64 + 1.0),
        }
}

/// By the worker's own account.
pub(crate) fn latency_is_back(evidence: &Evidence) -> Result<()> {
    let mut latencies = Vec::new();
    for record in evidence.log.events("pair_started") {
        latencies.push(wire::number(record, "latency_ms")? as f64);
    }
    // The very first unit is late at ingest and looks younger than it is.
    let (before, last) = (latencies[LATE as usize - 1], latencies[latencies.len() - 1]);
    let most = latencies.iter().copied().fold(0.0, f64::max);
    wire::within("latency after the stall", most - before, 4_000.0, 5_000.0)?;
    // What the start cost, on a busy machine a second, is won back with it.
    wire::within("latency at the end", last - before, -1_500.0, 250.0)?;
    let records = evidence.log.events("catch_up_started");
    let times = records
        .filter(|record| after_the_stall(record, "catch_up_started"))
        .count();
    ensure!(
        times == 1,
        "a catch-up of over a second began {times} times"
    );
    Ok(())
}
