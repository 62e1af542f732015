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
use e2e::probe::audio::{self, Sound};
use e2e::probe::clock::{Clock, Skew};
use e2e::probe::logs::Record;
use e2e::runner::Context;
use e2e::services::echo_sts::EchoStsOptions;
use e2e::story::{Evidence, quietly};

use crate::cameras;
use crate::stage::Stage;
use crate::wire;

const SEGMENT: Duration = Duration::from_secs(2);
/// What a viewer begins to notice.
const NOTICED_MS: f64 = 40.0;
/// What counts as out of sync.
const THRESHOLD_MS: f64 = 120.0;
/// How far the log and the sound may be apart: flashes lie on frames, timestamps on milliseconds.
const AGREEMENT_MS: f64 = 15.0;

/// Seconds at either end in which a codec's priming and padding lie.
const EDGE: f64 = 0.05;

/// Runs at a time: with more of them, two cores are late by themselves.
const AT_ONCE: usize = 4;

pub(crate) fn run(stage: &Context) -> Result<()> {
    // The longest first.
    stage.parts(
        AT_ONCE,
        &[
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
        ],
    )
}

fn sts(mode: &str) -> EchoStsOptions {
    EchoStsOptions {
        audio_mode: Some(mode.to_owned()),
        ..EchoStsOptions::default()
    }
}

/// Answers that take between no time and half a second.
fn random(sts: EchoStsOptions) -> EchoStsOptions {
    EchoStsOptions {
        jitter: Some(Duration::from_millis(500)),
        seed: Some(2),
        ..sts
    }
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

/// Every pair with its delta by the log, ms.
fn pairs(evidence: &Evidence) -> Result<Vec<(u64, f64)>> {
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

fn require_near(when: &str, skews: &[Skew], ms: f64) -> Result<()> {
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
/// against where the sound belongs by its own time stamps at that time.
fn agree(
    evidence: &Evidence,
    clock: &Clock,
    length: Duration,
    belongs: impl Fn(f64) -> f64,
) -> Result<()> {
    let sync = clock.sync();
    for (batch, delta) in pairs(evidence)? {
        let start = batch as f64 * length.as_secs_f64();
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
    Ok(())
}

/// Fails on jumping timestamps, clicks and holes.
fn seamless(sound: Sound) -> Result<()> {
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
