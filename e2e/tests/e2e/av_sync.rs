//! User story 2: lips match, and nobody hears how.
//!
//! Six runs side by side. One minute under random STS latency; an input whose audio steps forward,
//! one whose audio steps back; a steady tone through many joins; a hole in the audio; an audio clock
//! that runs half a percent fast. What counts is what is seen and heard (flash, beep, tone); the
//! worker's own numbers must agree with it.

use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use e2e::clock::{ClipSpec, cached};
use e2e::media::publish::{Drift, record_with_drift};
use e2e::probe::audio::{self, Sound, Verdict};
use e2e::probe::clock::{self, Beep, Clock, Skew};
use e2e::probe::logs::Record;
use e2e::runner::Context;
use e2e::services::echo_sts::EchoStsOptions;
use e2e::story::{Evidence, quietly};

use crate::stage::{MINUTE, Stage};
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

const STEP_CLIP: u32 = 36;
/// Between two beeps and inside a segment.
const STEP_AT: f64 = 10.5;
/// From one beep to the next; the worker slews by 2 %.
const STEEPEST_MS: f64 = 30.0;

const TONE_HZ: f64 = 997.0;
const TONE_CLIP: u32 = 20;

const GAP_CLIP: u32 = 20;
/// From here two seconds without audio, so that the beeps of seconds 8 and 9 are missing.
const GAP_AT: &str = "7.5";

const DRIFT_CLIP: u32 = 36;
const DRIFT: Drift = Drift(0.005);

/// One of the runs, judged.
type Run = fn(&Context) -> Result<()>;

pub(crate) fn run(stage: &Context) -> Result<()> {
    let parts: [(&str, Run); 6] = [
        ("random latency", random_latency),
        ("a step forward", |stage| step(stage, "forward", 200)),
        ("a step back", |stage| step(stage, "back", -200)),
        ("a steady tone", tone),
        ("a gap", gap),
        ("drift", drift),
    ];
    let results: Vec<_> = thread::scope(|scope| {
        let running: Vec<_> = parts
            .iter()
            .map(|&(name, part)| scope.spawn(move || part(stage).context(name)))
            .collect();
        running
            .into_iter()
            .map(|part| {
                part.join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
            .collect()
    });
    let failed: Vec<String> = results
        .into_iter()
        .filter_map(|result| Some(format!("{:#}", result.err()?)))
        .collect();
    if failed.is_empty() {
        Ok(())
    } else {
        bail!("{}", failed.join("\nand "))
    }
}

fn sts(mode: &str) -> EchoStsOptions {
    EchoStsOptions {
        audio_mode: Some(mode.to_owned()),
        ..EchoStsOptions::default()
    }
}

/// A run of a small clip in segments of two seconds.
fn short(
    stage: &Context,
    part: &str,
    spec: &ClipSpec,
    mode: &str,
    faults: &[&str],
) -> Result<Evidence> {
    let evidence = stage
        .part(
            part,
            cached(spec)?,
            Duration::from_secs(spec.seconds.into()),
        )
        .sts(sts(mode))
        .publisher(faults)
        .worker(|options| options.segment_duration = Some(SEGMENT))
        .run(|_| Ok(()))?;
    stage.report(&evidence)?;
    Ok(evidence)
}

/// A minute with answers that take between no time and half a second.
fn random_latency(stage: &Context) -> Result<()> {
    let sts = EchoStsOptions {
        jitter: Some(Duration::from_millis(500)),
        seed: Some(2),
        ..sts("mark")
    };
    let evidence = stage
        .part("latency", stage.fixture(), MINUTE)
        .sts(sts)
        .run(|_| Ok(()))?;
    stage.report(&evidence)?;

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
    agree(&evidence, &clock, Duration::from_secs(6), |_| 0.0)?;
    let heard = evidence.heard(10, Duration::from_secs(6))?;
    ensure!(
        heard.iter().all(|verdict| *verdict == Verdict::Dubbed),
        "heard {heard:?}"
    );
    seamless(evidence.sound()?)
}

/// From `STEP_AT` on, audio time stamps are off, and by the sender reports rightly so: sound belongs
/// elsewhere than before, and is led there so gently that nobody notices.
fn step(stage: &Context, part: &str, step_ms: i64) -> Result<()> {
    let spec = ClipSpec::clock(STEP_CLIP).small();
    let faults = [
        "--audio-step-ms",
        &step_ms.to_string(),
        "--step-at",
        &STEP_AT.to_string(),
    ];
    let evidence = short(stage, part, &spec, "mark", &faults)?;
    let pictures = evidence.require_every_picture(spec.frames())?;
    evidence.require_every_coded_frame()?;
    let clock = heard_at_any_speed(&pictures, evidence.sound()?)?;
    let step = step_ms as f64;
    let sync = clock.sync();
    ensure!(
        sync.skews.len() == STEP_CLIP as usize,
        "not every second was measured: {sync:?}"
    );
    let (before, after): (Vec<Skew>, Vec<Skew>) = sync
        .skews
        .iter()
        .partition(|skew| f64::from(skew.second) < STEP_AT);
    require_near("before the step", &before, 0.0)?;
    // Two hundred milliseconds at 20 a second take ten; a step is over once it is known.
    let settled: Vec<Skew> = after
        .iter()
        .copied()
        .filter(|skew| f64::from(skew.second) > STEP_AT + 14.0)
        .collect();
    require_near("once corrected", &settled, step)?;
    for pair in sync.skews.windows(2) {
        let moved = pair[1].ms - pair[0].ms;
        ensure!(
            moved.abs() <= STEEPEST_MS && moved * step.signum() >= -AGREEMENT_MS,
            "the sound jumps by {moved:.1} ms at second {}: {:?}",
            pair[1].second,
            sync.skews
        );
    }
    let under_way = after
        .iter()
        .filter(|skew| (20.0..=180.0).contains(&skew.ms.abs()))
        .count();
    ensure!(under_way >= 5, "the slew took {under_way} s: {after:?}");

    let slewed = corrections(&evidence)?;
    ensure!(
        (slewed.iter().sum::<f64>() - step).abs() <= NOTICED_MS / 2.0,
        "corrected {slewed:?} ms in all, not {step}"
    );
    ensure!(
        evidence.count("worker_av_sync_corrections_total", &[])? == slewed.len() as u64,
        "{} corrections were logged, others counted",
        slewed.len()
    );
    agree(&evidence, &clock, SEGMENT, |at| {
        if at < STEP_AT { 0.0 } else { step }
    })?;
    seamless(evidence.sound()?)
}

/// What remains of a steady tone around the joins is what remains of it elsewhere.
fn tone(stage: &Context) -> Result<()> {
    let spec = ClipSpec::tone(TONE_HZ, TONE_CLIP).small();
    let evidence = short(stage, "tone", &spec, "echo", &[])?;
    evidence.require_every_coded_frame()?;
    let pairs = pairs(&evidence)?;
    ensure!(pairs.len() == 10, "{} pairs went out", pairs.len());
    let sound = evidence.sound()?;
    let joins: Vec<f64> = (1..pairs.len())
        .map(|n| n as f64 * SEGMENT.as_secs_f64())
        .collect();
    let report = {
        let sound = sound.clone();
        quietly(move || Ok(audio::residual_without_tone(&sound, TONE_HZ, &joins)))?
    };
    ensure!(report.joins.len() == 9, "joins are missing: {report:?}");
    ensure!(
        (report.tone_db - -6.0).abs() <= 1.0,
        "the tone is at {:.1} dB",
        report.tone_db
    );
    let (joins, elsewhere) = (report.median_at_joins(), report.median_elsewhere());
    ensure!(
        joins - elsewhere <= 1.0,
        "joins are heard: {joins:.1} dB is left around them, {elsewhere:.1} dB elsewhere: {:?}",
        report.joins
    );
    seamless(sound)
}

/// Two seconds without audio are silent, and everything after them is where it was.
fn gap(stage: &Context) -> Result<()> {
    let spec = ClipSpec::clock(GAP_CLIP).small();
    let faults = ["--audio-gap-ms", "2000", "--gap-at", GAP_AT];
    // Echoed, for a marker would be heard in the silence too.
    let evidence = short(stage, "gap", &spec, "echo", &faults)?;
    let clock = evidence.require_every_picture(spec.frames())?;
    evidence.require_every_coded_frame()?;
    let sync = clock.sync();
    ensure!(
        sync.flash_only == [8, 9],
        "seconds {:?} have no beep",
        sync.flash_only
    );
    require_near("around the gap", &sync.skews, 0.0)?;
    let sound = evidence.sound()?;
    ensure!(
        sound.breaks().is_empty(),
        "audio timestamps are not continuous: {:?}",
        sound.breaks()
    );
    let holes = quietly(move || Ok(audio::dropouts(&sound)))?;
    let silent: f64 = holes.iter().map(|hole| hole.length_ms).sum();
    ensure!(
        holes.len() == 1 && (silent - 2_000.0).abs() <= 100.0,
        "the gap sounds like {holes:?}"
    );
    Ok(())
}

/// An audio clock half a percent fast, as a source with two crystals sends it.
fn drift(stage: &Context) -> Result<()> {
    let folder = tempfile::tempdir().context("no place for a clip")?;
    let clip = folder.path().join("drifted.mp4");
    let spec = ClipSpec::clock(DRIFT_CLIP).small();
    record_with_drift(&cached(&spec)?, DRIFT, &clip)?;
    let evidence = stage
        .part("drift", clip, Duration::from_secs(DRIFT_CLIP.into()))
        .sts(sts("mark"))
        .publisher(&["--audio-drift", "0.5%"])
        .worker(|options| options.segment_duration = Some(SEGMENT))
        .run(|_| Ok(()))?;
    stage.report(&evidence)?;
    let pictures = evidence.require_every_picture(spec.frames())?;
    evidence.require_every_coded_frame()?;
    let clock = heard_at_any_speed(&pictures, evidence.sound()?)?;
    let sync = clock.sync();
    ensure!(
        sync.skews.len() == DRIFT_CLIP as usize,
        "not every second was measured: {sync:?}"
    );
    // Uncorrected it would be 180 ms at the end.
    require_near("while the clocks drift", &sync.skews, 0.0)?;
    let slewed = corrections(&evidence)?;
    let total: f64 = slewed.iter().sum();
    ensure!(
        slewed.len() >= 5 && (-220.0..=-100.0).contains(&total),
        "corrected {slewed:?} ms, {total} in all"
    );
    ensure!(
        evidence.count("worker_av_sync_corrections_total", &[])? == slewed.len() as u64,
        "{} corrections were logged, others counted",
        slewed.len()
    );
    seamless(evidence.sound()?)
}

/// Reads the beeps of sound whose speed changes on the way: a slew of 2 % moves their pitch further
/// than the probe looks. So it looks at the sound played at every speed in question.
fn heard_at_any_speed(clock: &Clock, sound: Sound) -> Result<Clock> {
    let flashes = clock.flashes.clone();
    let beeps = quietly(move || {
        let mut found: Vec<Beep> = Vec::new();
        for step in -8..=8 {
            let speed = 1.0 + f64::from(step) * 0.003;
            let rate = (f64::from(sound.rate) / speed).round();
            let played = Sound::from_samples(rate as u32, 0.0, sound.samples.clone());
            found.extend(clock::beeps(&played).into_iter().map(|beep| Beep {
                at: sound.time_of(beep.at * rate),
                ..beep
            }));
        }
        // At the right speed a beep is loudest.
        Ok(flashes
            .iter()
            .filter_map(|flash| {
                found
                    .iter()
                    .filter(|beep| beep.second == Some(flash.second % 60))
                    .filter(|beep| (beep.at - flash.at).abs() < 0.4)
                    .max_by(|a, b| a.level.total_cmp(&b.level))
            })
            .copied()
            .collect())
    })?;
    Ok(Clock::new(clock.fps, clock.pictures.clone(), beeps))
}

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
fn corrections(evidence: &Evidence) -> Result<Vec<f64>> {
    let slewed = |record: &Record| {
        record
            .number("slewed_ms")
            .context("a correction of nothing")
    };
    evidence.log.events("av_correction").map(slewed).collect()
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
