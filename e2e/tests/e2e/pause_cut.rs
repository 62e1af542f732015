//! `--segment-cut pause`: somebody talks, and is cut between the sentences; music is cut by the clock.
//!
//! A minute of talk whose pauses the clip's generator knows, and half a minute of the usual tune, side by
//! side. What is silent is read from the clip's own sound, not from what the worker says of it.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::clock::{ClipSpec, cached, talk};
use e2e::pipeline::Evidence;
use e2e::probe::audio::{self, Sound, Verdict};
use e2e::runner::{self, Context};
use e2e::services::echo_sts::EchoStsOptions;
use e2e::threads::quietly;

use crate::stage::{MINUTE, Stage};
use crate::wire;

const MIN: f64 = 3.0;
const MAX: f64 = 10.0;
/// Of the clip with music.
const TUNE: u32 = 25;
/// Quieter than this (RMS of 40 ms) nobody talks; syllables are 30 dB louder.
const SILENT_DB: f64 = -50.0;

pub(crate) fn run(stage: &Context) -> Result<()> {
    let talking = || talking(&play(stage, "talk", &ClipSpec::talk(60), MINUTE)?);
    let tune = || {
        let length = Duration::from_secs(TUNE.into());
        by_the_clock(&play(stage, "tune", &ClipSpec::clock(TUNE), length)?)
    };
    let parts: [runner::Part<'_>; 2] = [("talk", &talking), ("tune", &tune)];
    stage.parts(&parts)
}

fn play(stage: &Context, part: &str, spec: &ClipSpec, length: Duration) -> Result<Evidence> {
    let spec = spec.clone().small();
    let evidence = stage
        .part(part, cached(&spec)?, length)
        .sts(EchoStsOptions::mode("mark"))
        .worker(|options| options.set("WORKER_SEGMENT_CUT", "pause"))
        .run(|_| Ok(()))?;
    evidence.require_every_picture(spec.frames())?;
    evidence.require_every_coded_frame()?;
    evidence.require_clean_log()?;
    same_lengths(&evidence)?;
    all_dubbed(&evidence)?;
    in_time(&evidence)?;
    Ok(evidence)
}

/// Where segments end, in seconds of the clip, the last one's end included.
fn ends(evidence: &Evidence) -> Result<Vec<f64>> {
    let mut at = 0.0;
    let mut ends = Vec::new();
    for record in evidence.log.events("segment_ready") {
        at += record.number("duration_ms").context("for no time")? / 1e3;
        ends.push(at);
    }
    ensure!(!ends.is_empty(), "no segment was cut");
    Ok(ends)
}

/// Each fragment carries its own length, and says so.
fn same_lengths(evidence: &Evidence) -> Result<()> {
    let sent = wire::sent(evidence)?;
    let cut: Vec<_> = evidence.log.events("segment_ready").collect();
    ensure!(
        sent.len() == cut.len(),
        "{} cut, {} sent",
        cut.len(),
        sent.len()
    );
    for (fragment, segment) in sent.iter().zip(cut) {
        let length = segment.number("duration_ms").context("for no time")?;
        let told = fragment.seen.duration_ms.context("no length was sent")? as f64;
        // An AAC frame is 21 ms, and both lengths are rounded to milliseconds.
        wire::within(
            "the fragment's length beside the segment's",
            told - length,
            -24.0,
            24.0,
        )?;
    }
    Ok(())
}

/// Every segment is heard dubbed from its start to its end.
fn all_dubbed(evidence: &Evidence) -> Result<()> {
    let ends = ends(evidence)?;
    let starts = std::iter::once(0.0).chain(ends.iter().copied());
    let stretches: Vec<_> = starts.zip(ends.iter().copied()).collect();
    let heard = audio::segments(&evidence.sound()?, &stretches, sts_protocol::mark::TONE_HZ);
    ensure!(
        heard
            .iter()
            .all(|segment| segment.verdict == Verdict::Dubbed),
        "not all is dubbed: {heard:?}"
    );
    Ok(())
}

/// Latency is that of the longest segment from the start, and stays.
fn in_time(evidence: &Evidence) -> Result<()> {
    let latencies = evidence.log.events("pair_started");
    let latencies: Vec<_> = latencies
        .filter_map(|record| record.number("latency_ms"))
        .collect();
    for latency in &latencies[1..] {
        wire::within("the latency", *latency, MAX * 1e3, MAX * 1e3 + 1_500.0)?;
    }
    // What the start took longer is won back; nothing is lost again.
    let mut least = f64::MAX;
    for latency in &latencies[1..] {
        least = least.min(*latency);
        wire::within("what latency is lost", latency - least, 0.0, 800.0)?;
    }
    Ok(())
}

fn talking(evidence: &Evidence) -> Result<()> {
    let ends = ends(evidence)?;
    let clip = evidence.clip.clone();
    let sound = quietly(move || Sound::read(&clip))?;
    let inner = &ends[..ends.len() - 1];
    let mut before = 0.0;
    for end in inner {
        let length = end - before;
        ensure!(
            (MIN - 0.001..=MAX + 0.001).contains(&length),
            "a segment of {length:.3} s: {ends:?}"
        );
        before = *end;
    }
    let level = |at: f64| audio::decibels(audio::rms(sound.between(at - 0.02, at + 0.02)));
    let silent: Vec<_> = inner.iter().map(|end| level(*end) < SILENT_DB).collect();
    let count = silent.iter().filter(|silent| **silent).count();
    ensure!(
        count * 10 >= inner.len() * 8,
        "{count} of {} cuts are silent: {ends:?}",
        inner.len()
    );
    let sentences = talk::sentences(MINUTE.as_secs_f64());
    let inside = |at: f64| {
        sentences
            .iter()
            .any(|(from, to)| (*from..*to).contains(&at))
    };
    let words_cut = inner.iter().filter(|end| inside(**end)).count();
    ensure!(
        words_cut * 10 <= inner.len() * 2,
        "{words_cut} sentences are cut: {ends:?}"
    );
    let told = evidence.log.events("segment_ready");
    let told = told
        .filter(|record| record.text("cut") == Some("pause"))
        .count();
    ensure!(
        told == count,
        "the log says {told} pauses, {count} are heard"
    );
    Ok(())
}

fn by_the_clock(evidence: &Evidence) -> Result<()> {
    let ends = ends(evidence)?;
    for (n, end) in ends[..ends.len() - 1].iter().enumerate() {
        wire::within(
            "a cut beside the grid",
            (end - 6.0 * (n + 1) as f64) * 1e3,
            -1.0,
            1.0,
        )?;
    }
    ensure!(ends.len() == 4, "music is cut at {ends:?}");
    Ok(())
}
