//! What goes wrong at the edges: each row of "When things go wrong", and what surrounds it.
//!
//! Every row is a run of its own on a short clip; a few run side by side.

mod input;
mod output;
mod sts;

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::clock::{self, ClipSpec};
use e2e::pipeline::{Evidence, Pipeline};
use e2e::runner::{Context, Part};
use e2e::services::echo_sts::EchoStsOptions;

use crate::stage::Stage as _;

/// Segments of the rows: short, so that a few seconds of clip have several.
const SEGMENT: Duration = Duration::from_secs(2);

type Row = (&'static str, fn(&Context, &'static str) -> Result<()>);

const ROWS: [Row; 24] = [
    ("stalled_log", output::stalled_log),
    ("no_input", input::no_input),
    ("input_returns", input::returns),
    ("never_answers", sts::never_answers),
    ("session_lost_in_pause", sts::session_lost_in_pause),
    ("ping_timeout", sts::ping_timeout),
    ("input_server_lost", input::server_lost),
    ("delayed_audio", input::delayed_audio),
    ("output_lost", output::lost),
    ("output_returns", output::returns),
    ("sigterm", output::sigterm),
    ("second_signal", output::second_signal),
    ("no_audio", input::no_audio),
    ("no_video", input::no_video),
    ("output_refused", output::refused),
    ("auth_failed", sts::auth_failed),
    ("config_refused", sts::config_refused),
    ("bad_option", output::bad_option),
    ("b_frames", input::b_frames),
    ("mono_44100", input::mono_44100),
    ("bundled_audio", input::bundled_audio),
    ("passthrough", output::passthrough),
    ("clock_back", input::clock_back),
    ("disk_full", output::disk_full),
];

pub(crate) fn run(context: &Context) -> Result<()> {
    let rows = ROWS.map(|(name, row)| (name, move || row(context, name)));
    let parts: Vec<Part<'_>> = rows.iter().map(|(name, row)| (*name, row as _)).collect();
    context.parts(&parts)
}

/// A clip of this many seconds with the fixture's clock, small and quick to decode.
fn clip(seconds: u32) -> ClipSpec {
    ClipSpec::clock(seconds).small()
}

/// A run of a row: marked dubs, short segments.
fn pipeline(context: &Context, row: &'static str, spec: &ClipSpec) -> Result<Pipeline> {
    Ok(context
        .part(
            row,
            clock::cached(spec)?,
            Duration::from_secs(u64::from(spec.seconds)),
        )
        .sts(EchoStsOptions::mode("mark"))
        .worker(|options| options.segment_duration = Some(SEGMENT)))
}

/// Every frame of the clip is in the recording, by picture and by coded bytes.
fn complete(evidence: &Evidence, spec: &ClipSpec) -> Result<()> {
    evidence.require_every_picture(spec.frames())?;
    evidence.require_every_coded_frame()
}

/// The pictures of the recording are the first of the clip, without a hole; returns how many.
fn prefix(evidence: &Evidence) -> Result<u32> {
    let clock = evidence.clock()?;
    let count = u32::try_from(clock.pictures.len())?;
    let sequence = clock.sequence(0..count);
    ensure!(
        sequence.is_perfect(),
        "the recording is no gapless beginning of the clip: {sequence}"
    );
    Ok(count)
}

/// The worker's last words say this.
fn says(evidence: &Evidence, text: &str) -> Result<()> {
    let failed = evidence
        .log
        .events("failed")
        .last()
        .context("the worker did not say why it stops")?;
    let error = failed.text("error").unwrap_or_default();
    ensure!(
        error.contains(text),
        "the worker says {error:?}, which does not mention {text:?}"
    );
    Ok(())
}

fn fallbacks(evidence: &Evidence, reason: &str) -> Result<u64> {
    evidence.count("worker_fallback_total", &[("reason", reason)])
}
