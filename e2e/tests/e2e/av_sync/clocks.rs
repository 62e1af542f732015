//! Inputs whose clocks disagree: steps, drift, wandering reports, a hole.

use anyhow::{Context as _, Result, ensure};
use camera::Manner;
use camera::manner::{Hole, Jump, Reports, TrackManner};
use e2e::clock::{ClipSpec, cached};
use e2e::pipeline::Evidence;
use e2e::probe::audio::{Sound, dropouts};
use e2e::probe::clock::{self, Beep, Clock, Skew};
use e2e::runner::Context;
use e2e::services::echo_sts::EchoStsOptions;
use e2e::threads::quietly;

use super::{SEGMENT, corrections, random, short};
use crate::judge::{AGREEMENT_MS, NOTICED_MS, agree, require_near, seamless};

const STEP_CLIP: u32 = 36;
/// Between two beeps and inside a segment.
const STEP_AT: f64 = 10.5;
/// From one beep to the next; the worker slews by 2 %.
const STEEPEST_MS: f64 = 30.0;

const GAP_CLIP: u32 = 20;
/// From here two seconds without audio, so that the beeps of seconds 8 and 9 are missing.
const GAP: Hole = Hole {
    at: 7.5,
    seconds: 2.0,
};

const DRIFT_CLIP: u32 = 36;

const WANDER_CLIP: u32 = 36;
const WANDER_MS: f64 = 80.0;

/// From `STEP_AT` on, audio time stamps are off, and by the sender reports rightly so: sound belongs
/// elsewhere than before, and is led there so gently that nobody notices.
pub(super) fn step(stage: &Context, part: &str, step_ms: i64) -> Result<()> {
    let spec = ClipSpec::clock(STEP_CLIP).small();
    let jump = Jump {
        at: STEP_AT,
        ms: step_ms as f64,
        ..Jump::default()
    };
    let manner = audio(TrackManner {
        jumps: vec![jump],
        ..TrackManner::default()
    });
    let evidence = short(
        stage,
        part,
        (cached(&spec)?, &spec),
        EchoStsOptions::mode("mark"),
        manner,
    )?;
    let clock = every_second(&evidence, &spec)?;
    let step = step_ms as f64;
    let sync = clock.sync();
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
    agree(&evidence, &clock.sync(), SEGMENT, |at| {
        if at < STEP_AT { 0.0 } else { step }
    })?;
    seamless(evidence.sound()?)
}

/// Two seconds without audio are silent, and everything after them is where it was.
pub(super) fn gap(stage: &Context) -> Result<()> {
    let spec = ClipSpec::clock(GAP_CLIP).small();
    let manner = audio(TrackManner {
        holes: vec![GAP],
        ..TrackManner::default()
    });
    // Echoed, for a marker would be heard in the silence too.
    let evidence = short(
        stage,
        "gap",
        (cached(&spec)?, &spec),
        EchoStsOptions::mode("echo"),
        manner,
    )?;
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
    let holes = quietly(move || Ok(dropouts(&sound)))?;
    let silent: f64 = holes.iter().map(|hole| hole.length_ms).sum();
    ensure!(
        holes.len() == 1 && (silent - 2_000.0).abs() <= 100.0,
        "the gap sounds like {holes:?}"
    );
    Ok(())
}

/// An audio clock that runs fast or slow, as a source with two crystals sends it, under random latency.
pub(super) fn drift(stage: &Context, part: &str, drift: f64) -> Result<()> {
    let folder = tempfile::tempdir().context("no place for a clip")?;
    let clip = folder.path().join("drifted.mp4");
    let spec = ClipSpec::clock(DRIFT_CLIP).small();
    // As many samples as such a clock would have counted: a camera with that drift sends every sound, by
    // its reports, together with its picture, and only who does not follow them loses lip sync.
    let counted = (48e3 * (1.0 + drift)).round() as u32;
    e2e_ffmpeg::reclock(&cached(&spec)?, counted, 48_000, &clip).run()?;
    let manner = audio(TrackManner {
        drift,
        ..TrackManner::default()
    });
    let evidence = short(
        stage,
        part,
        (clip, &spec),
        random(EchoStsOptions::mode("mark")),
        manner,
    )?;
    let clock = every_second(&evidence, &spec)?;
    // Uncorrected it would be 180 ms at the end.
    require_near("while the clocks drift", &clock.sync().skews, 0.0)?;
    let slewed = corrections(&evidence)?;
    let total = slewed.iter().sum::<f64>() * -drift.signum();
    ensure!(
        slewed.len() >= 5 && (100.0..=220.0).contains(&total),
        "corrected {slewed:?} ms"
    );
    seamless(evidence.sound()?)
}

/// Sender reports that say something else each time: sound is led after them, and never jumps.
pub(super) fn wander(stage: &Context) -> Result<()> {
    let spec = ClipSpec::clock(WANDER_CLIP).small();
    let manner = Manner {
        audio: TrackManner {
            reports_wander_ms: WANDER_MS,
            ..TrackManner::default()
        },
        reports: Reports {
            every: 3.0,
            ..Reports::default()
        },
        seed: 4,
        ..Manner::default()
    };
    let evidence = short(
        stage,
        "wander",
        (cached(&spec)?, &spec),
        EchoStsOptions::mode("mark"),
        manner,
    )?;
    let sync = measured(&evidence, &spec)?.sync();
    // Speed changes where a segment begins, every two seconds. A beep in two speeds may be one of no
    // speed to the probe.
    let unheard = &sync.flash_only;
    ensure!(
        unheard.len() <= 3 && unheard.iter().all(|second| second % 2 == 0),
        "not every second was measured: {sync:?}"
    );
    for skew in &sync.skews {
        ensure!(
            skew.ms.abs() <= WANDER_MS + AGREEMENT_MS,
            "second {} is {:.1} ms off, which no report said: {:?}",
            skew.second,
            skew.ms,
            sync.skews
        );
    }
    for pair in sync.skews.windows(2) {
        let moved = pair[1].ms - pair[0].ms;
        ensure!(
            moved.abs() <= STEEPEST_MS * f64::from(pair[1].second - pair[0].second),
            "the sound jumps by {moved:.1} ms at second {}: {:?}",
            pair[1].second,
            sync.skews
        );
    }
    // The reports did move, and the sound with them.
    let (least, most) = super::extremes(sync.skews.iter().map(|skew| skew.ms));
    let slewed = corrections(&evidence)?;
    ensure!(
        most - least > NOTICED_MS && slewed.len() >= 4,
        "from {least:.1} to {most:.1} ms, corrected {slewed:?} ms"
    );
    seamless(evidence.sound()?)
}

/// A camera whose audio is wrong in this way.
fn audio(audio: TrackManner) -> Manner {
    Manner {
        audio,
        ..Manner::default()
    }
}

/// Every frame is there. Flashes, and beeps at any speed.
fn measured(evidence: &Evidence, spec: &ClipSpec) -> Result<Clock> {
    let pictures = evidence.require_every_picture(spec.frames())?;
    evidence.require_every_coded_frame()?;
    heard_at_any_speed(&pictures, evidence.sound()?)
}

/// Every frame is there, and every second has its flash and its beep.
fn every_second(evidence: &Evidence, spec: &ClipSpec) -> Result<Clock> {
    let clock = measured(evidence, spec)?;
    let sync = clock.sync();
    ensure!(
        sync.skews.len() == spec.seconds as usize,
        "not every second was measured: {sync:?}"
    );
    Ok(clock)
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
