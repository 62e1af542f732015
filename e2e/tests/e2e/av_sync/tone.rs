//! A steady tone through the joins of segments.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::clock::{ClipSpec, cached};
use e2e::probe::audio;
use e2e::runner::Context;
use e2e::services::echo_sts::EchoStsOptions;
use e2e::threads::quietly;

use crate::judge::{pairs, seamless};
use crate::stage::Stage;

const HZ: f64 = 997.0;
const CLIP: u32 = 48;
const SEGMENT: Duration = Duration::from_secs(6);
const SEGMENTS: usize = 8;
/// How much more than elsewhere may be left around a join.
const MOST_DB: f64 = 1.0;

/// What remains of a steady tone around the joins is what remains of it elsewhere.
pub(super) fn steady(stage: &Context) -> Result<()> {
    let spec = ClipSpec::tone(HZ, CLIP).small();
    let evidence = stage
        .part("tone", cached(&spec)?, Duration::from_secs(CLIP.into()))
        .sts(EchoStsOptions::mode("echo"))
        .worker(|options| options.segment_duration = Some(SEGMENT))
        .run(|_| Ok(()))?;
    evidence.require_every_coded_frame()?;
    let pairs = pairs(&evidence)?;
    ensure!(pairs.len() == SEGMENTS, "{} pairs went out", pairs.len());
    let sound = evidence.sound()?;
    let joins: Vec<f64> = (1..pairs.len())
        .map(|n| n as f64 * SEGMENT.as_secs_f64())
        .collect();
    let report = {
        let sound = sound.clone();
        quietly(move || Ok(audio::residual_without_tone(&sound, HZ, &joins)))?
    };
    ensure!(
        report.joins.len() == SEGMENTS - 1,
        "joins are missing: {report:?}"
    );
    ensure!(
        (report.tone_db - -6.0).abs() <= 1.0,
        "the tone is at {:.1} dB",
        report.tone_db
    );
    let (joins, elsewhere) = (report.median_at_joins(), report.median_elsewhere());
    ensure!(
        joins - elsewhere <= MOST_DB,
        "joins are heard: {joins:.1} dB is left around them, {elsewhere:.1} dB elsewhere: {:?}",
        report.joins
    );
    // An encoder's own noise comes and goes. No single join stands out of it.
    let worst = report.worst_join().context("there is no join")?;
    ensure!(
        report.share_elsewhere_below(worst.db - MOST_DB) < 1.0,
        "the join at {:.2} s is heard: {:.1} dB is left there, less everywhere else",
        worst.at,
        worst.db
    );
    seamless(sound)
}
