//! A minute with answers of random latency.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::probe::audio::Verdict;
use e2e::runner::Context;
use e2e::services::echo_sts::EchoStsOptions;

use super::{THRESHOLD_MS, extremes};
use crate::judge::{agree, pairs, seamless};
use crate::stage::{MINUTE, Stage};
use crate::wire;

/// Answers take between no time and half a second.
pub(super) fn random(stage: &Context) -> Result<()> {
    let evidence = stage
        .part("latency", stage.fixture(), MINUTE)
        .sts(super::random(EchoStsOptions::mode("mark")))
        .run(|_| Ok(()))?;
    let took: Vec<f64> = wire::sent(&evidence)?
        .iter()
        .filter_map(|fragment| fragment.seen.processing_ms())
        .collect();
    let (least, most) = extremes(took.iter().copied());
    ensure!(
        took.len() == 10 && most < 1_000.0 && most - least > 150.0,
        "latency was not random: {took:?}"
    );
    // A later answer than the first one's may make output wait; nothing else may be wrong.
    let problems = evidence.log.problems();
    ensure!(
        problems.iter().all(|line| line.contains("event=\"stall\"")),
        "the worker logged trouble: {problems:?}"
    );
    evidence.require_every_coded_frame()?;

    let deltas: Vec<f64> = pairs(&evidence)?.into_iter().map(|pair| pair.1).collect();
    let metric = evidence
        .metrics
        .histogram("worker_av_sync_abs_delta_ms", &[])?;
    ensure!(
        metric.count == 10 && deltas.len() == 10,
        "{} pairs were measured, {} logged",
        metric.count,
        deltas.len()
    );
    let close = metric.at_most(THRESHOLD_MS)?;
    ensure!(
        close * 100 >= metric.count * 95,
        "only {close} pairs were in sync: {metric:?}"
    );
    let logged: f64 = deltas.iter().map(|delta| delta.abs()).sum();
    ensure!(
        (metric.sum - logged).abs() <= 1.0,
        "the metric adds up to {} ms, the log to {logged}",
        metric.sum
    );
    if !stage.is_own_fixture() {
        return Ok(());
    }
    let clock = evidence.require_every_picture(1800)?;
    let sync = clock.sync();
    ensure!(
        sync.skews.len() == 60,
        "not every second was measured: {sync:?}"
    );
    ensure!(
        sync.share_within(THRESHOLD_MS) >= 0.95,
        "flash and beep are apart: {:.1} ms",
        sync.worst_ms()
    );
    agree(&evidence, &sync, Duration::from_secs(6), |_| 0.0)?;
    let heard = evidence.heard(10, Duration::from_secs(6))?;
    ensure!(
        heard.iter().all(|verdict| *verdict == Verdict::Dubbed),
        "heard {heard:?}"
    );
    seamless(evidence.sound()?)
}
