//! User story 2: lips match, and nobody hears how.
//!
//! Eight runs, four at a time. One minute under random STS latency; a steady tone through many joins;
//! an input whose audio steps forward, one whose audio steps back; audio clocks that run half a
//! percent fast and slow; sender reports that wander; a hole in the audio. What counts is what is
//! seen and heard (flash, beep, tone); the worker's own numbers must agree with it.

mod clocks;
mod latency;
mod tone;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use camera::Manner;
use e2e::clock::ClipSpec;
use e2e::environment::Way;
use e2e::pipeline::Evidence;
use e2e::probe::logs::Record;
use e2e::runner::Context;
use e2e::services::echo_sts::EchoStsOptions;

use crate::cameras;
use crate::stage::Stage;

const SEGMENT: Duration = Duration::from_secs(2);
/// What counts as out of sync.
const THRESHOLD_MS: f64 = 120.0;

pub(crate) fn run(stage: &Context) -> Result<()> {
    // The longest first.
    stage.parts(&[
        ("latency", &|| latency::random(stage)),
        ("tone", &|| tone::steady(stage)),
        ("forward", &|| clocks::step(stage, "forward", 200)),
        ("back", &|| clocks::step(stage, "back", -200)),
        ("fast", &|| clocks::drift(stage, "fast", 0.005)),
        ("slow", &|| clocks::drift(stage, "slow", -0.005)),
        ("wander", &|| clocks::wander(stage)),
        ("gap", &|| clocks::gap(stage)),
        ("ffmpeg_b_frames", &|| {
            cameras::published(stage, "ffmpeg_b_frames")
        }),
    ])
}

/// Answers that take between no time and half a second.
fn random(sts: EchoStsOptions) -> EchoStsOptions {
    sts.with("--jitter-ms", 500).with("--seed", 2)
}

/// A run of `clip`, which was made to `spec`, in segments of two seconds.
fn short(
    stage: &Context,
    part: &str,
    (clip, spec): (PathBuf, &ClipSpec),
    sts: EchoStsOptions,
    manner: Manner,
) -> Result<Evidence> {
    stage
        .part(part, clip, Duration::from_secs(spec.seconds.into()))
        .sts(sts)
        .way(Way::Camera)
        .manner(manner)
        .worker(|options| options.segment_duration = Some(SEGMENT))
        .run(|_| Ok(()))
}

/// The least and the most.
fn extremes(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold(
        (f64::INFINITY, f64::NEG_INFINITY),
        |(least, most), value| (least.min(value), most.max(value)),
    )
}

/// How much each correction moved the sound, ms; positive: later.
///
/// # Errors
/// When log and metric disagree on how many there were.
fn corrections(evidence: &Evidence) -> Result<Vec<f64>> {
    let slewed = |record: &Record| {
        record
            .number("slewed_ms")
            .context("a correction of nothing")
    };
    let slewed: Vec<f64> = evidence
        .log
        .events("av_correction")
        .map(slewed)
        .collect::<Result<_>>()?;
    ensure!(
        evidence.count("worker_av_sync_corrections_total", &[])? == slewed.len() as u64,
        "{} corrections were logged, others counted",
        slewed.len()
    );
    Ok(slewed)
}
