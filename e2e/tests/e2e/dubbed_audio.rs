//! Dubbed audio of any usual kind is used; what cannot be used is refused, and the original is heard.
//!
//! Nine short runs. Where the answer is as long as it says, a marker tells dub from original. A
//! resized answer has another pitch, so there a steady tone tells them apart; in the last run, where
//! the original goes on under the dub, both are heard at once.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::clock::{ClipSpec, cached};
use e2e::pipeline::Evidence;
use e2e::probe::audio::{self, Sound, Verdict};
use e2e::probe::logs::Level;
use e2e::runner::{self, Context};
use e2e::services::echo_sts::EchoStsOptions;

use crate::stage::Stage;
use crate::wire;

const SEGMENT: Duration = Duration::from_secs(2);
const CLIP: u32 = 8;
const SEGMENTS: u64 = 4;
const TONE_HZ: f64 = 997.0;

/// What is to become of the answers.
#[derive(Clone, Copy, Debug)]
enum Expect {
    /// Used, and carrying the marker.
    Marked,
    /// Used, and this many times as long: the tone is as many times lower.
    Resized(f64),
    /// Used, and nothing is heard.
    Silent,
    Refused,
    /// As [`Expect::Resized`], over the original at [`UNDER_DB`]; one segment falls back.
    VoiceOver(f64),
}

/// Level of the original under the dub; not the worker's own default.
const UNDER_DB: f64 = -18.0;
/// What the worker takes from one level to the other, in seconds.
const RAMP: f64 = 0.3;
/// The segment that is not dubbed in the last run.
const ALONE: u64 = 2;
const ALONE_RULE: &str = r#"[{"trigger":"sequence_number","value":2,"error_code":"MODEL_ERROR"}]"#;

/// A part's name, the options of `echo-sts`, and what becomes of it.
type Part = (&'static str, &'static [&'static str], Expect);

const PARTS: [Part; 9] = [
    (
        "shorter",
        &["--audio-mode", "resize", "--audio-ratio", "0.92"],
        Expect::Resized(0.92),
    ),
    (
        "longer",
        &["--audio-mode", "resize", "--audio-ratio", "1.08"],
        Expect::Resized(1.08),
    ),
    (
        "too-short",
        &["--audio-mode", "resize", "--audio-ratio", "0.85"],
        Expect::Refused,
    ),
    (
        "too-long",
        &["--audio-mode", "resize", "--audio-ratio", "1.2"],
        Expect::Refused,
    ),
    ("silence", &["--audio-mode", "silence"], Expect::Silent),
    ("corrupt", &["--audio-mode", "corrupt"], Expect::Refused),
    (
        "wav",
        &["--audio-mode", "mark", "--audio-format", "wav"],
        Expect::Marked,
    ),
    (
        "pcm",
        &["--audio-mode", "mark", "--audio-format", "pcm_s16le"],
        Expect::Marked,
    ),
    (
        "voice-over",
        &[
            "--audio-mode",
            "resize",
            "--audio-ratio",
            "0.92",
            "--error-rules",
            ALONE_RULE,
        ],
        Expect::VoiceOver(0.92),
    ),
];

pub(crate) fn run(stage: &Context) -> Result<()> {
    let parts = PARTS.map(|part| (part.0, move || judge(&one(stage, &part)?, part.2)));
    let parts: Vec<runner::Part<'_>> = parts
        .iter()
        .map(|(name, part)| (*name, part as _))
        .collect();
    stage.parts(&parts)
}

fn one(stage: &Context, &(name, options, expect): &Part) -> Result<Evidence> {
    let pairs = options.chunks(2);
    let sts = pairs.fold(EchoStsOptions::default(), |sts, pair| {
        sts.with(pair[0], pair[1])
    });
    stage
        .part(
            name,
            cached(&ClipSpec::tone(TONE_HZ, CLIP).small())?,
            Duration::from_secs(CLIP.into()),
        )
        .sts(sts)
        .worker(move |options| {
            options.segment_duration = Some(SEGMENT);
            if matches!(expect, Expect::VoiceOver(_)) {
                options.set("WORKER_DUB_MIX", "duck");
                options.set("WORKER_DUB_DUCK_DB", UNDER_DB);
            }
        })
        .run(|_| Ok(()))
}

fn judge(evidence: &Evidence, expect: Expect) -> Result<()> {
    evidence.require_every_picture(ClipSpec::tone(TONE_HZ, CLIP).frames())?;
    evidence.require_every_coded_frame()?;
    let sound = evidence.sound()?;
    ensure!(
        sound.breaks().is_empty(),
        "audio timestamps are not continuous: {:?}",
        sound.breaks()
    );
    ensure!(
        (sound.end() - sound.start() - f64::from(CLIP)).abs() <= 0.1,
        "the sound lasts {:.3} s",
        sound.end() - sound.start()
    );
    match expect {
        Expect::Marked => wire::require_outcome(evidence, SEGMENTS, SEGMENT, &[])?,
        Expect::Resized(ratio) => {
            used(evidence)?;
            hears(evidence, TONE_HZ / ratio, Verdict::Dubbed)?;
            answered_with(evidence, ratio)?;
        }
        Expect::Silent => {
            used(evidence)?;
            hears(evidence, TONE_HZ, Verdict::Silent)?;
        }
        Expect::Refused => {
            refused(evidence)?;
            // The original, at its own pitch.
            hears(evidence, TONE_HZ, Verdict::Dubbed)?;
        }
        Expect::VoiceOver(ratio) => voice_over(evidence, &sound, ratio)?,
    }
    let clicks = audio::clicks(&sound);
    ensure!(clicks.is_empty(), "clicks in the output: {clicks:?}");
    // Bad audio says nothing about whether the service works.
    let breaker = wire::gauge(evidence, "worker_sts_breaker_state")?;
    ensure!(breaker == [0], "the breaker went {breaker:?}");
    Ok(())
}

/// Every answer went on air, by log, journal and metrics, and nothing was wrong.
fn used(evidence: &Evidence) -> Result<()> {
    outcome(evidence, true)?;
    let problems = evidence.log.problems();
    // A busy machine may be late; that is not the subject here.
    ensure!(
        problems.iter().all(|line| line.contains("event=\"stall\"")),
        "the worker logged trouble: {problems:?}"
    );
    Ok(())
}

/// Log, journal and metrics agree that all answers came, and that all were used or none.
fn outcome(evidence: &Evidence, dubbed: bool) -> Result<()> {
    let on_air: Vec<_> = evidence
        .log
        .events("pair_started")
        .map(|record| record.flag("dubbed"))
        .collect();
    ensure!(
        on_air == [Some(dubbed); SEGMENTS as usize],
        "the log says dubbed: {on_air:?}"
    );
    let (used, fell_back) = if dubbed { (SEGMENTS, 0) } else { (0, SEGMENTS) };
    let seen = evidence.journal.fragments();
    let applied = seen.iter().filter(|seen| seen.applied_ms.is_some()).count();
    ensure!(
        seen.len() as u64 == SEGMENTS && applied as u64 == used,
        "{applied} fragments were applied: {seen:?}"
    );
    for (status, wanted) in [
        ("sent", SEGMENTS),
        ("processed", SEGMENTS),
        ("fallback", fell_back),
    ] {
        let counted = evidence.count("worker_audio_fragments_total", &[("status", status)])?;
        ensure!(
            counted == wanted,
            "{counted} fragments were counted as {status}, not {wanted}"
        );
    }
    let bad = evidence.count("worker_fallback_total", &[("reason", "bad_audio")])?;
    ensure!(
        bad == fell_back,
        "{bad} answers were refused, not {fell_back}"
    );
    Ok(())
}

/// The answers really had another length.
fn answered_with(evidence: &Evidence, ratio: f64) -> Result<()> {
    let sound = evidence.sound()?;
    let silent: f64 = audio::dropouts(&sound)
        .iter()
        .map(|hole| hole.length_ms)
        .sum();
    let missing = (1.0 - ratio).max(0.0) * f64::from(CLIP) * 1_000.0;
    ensure!(
        (silent - missing).abs() <= 0.25 * missing + 1.0,
        "{silent:.0} ms are silent, {missing:.0} were missing"
    );
    Ok(())
}

/// No answer went on air, and there is one warning and one fallback for each.
fn refused(evidence: &Evidence) -> Result<()> {
    outcome(evidence, false)?;
    for batch in 0..SEGMENTS {
        let warned = wire::of_batch(&evidence.log, "bad_audio", batch)?;
        ensure!(
            warned.level == Level::Warn && warned.text("reason").is_some(),
            "the log says {warned:?}"
        );
        let reason = wire::of_batch(&evidence.log, "fallback", batch)?.text("reason");
        ensure!(
            reason == Some("bad_audio"),
            "segment {batch} fell back for {reason:?}"
        );
    }
    Ok(())
}

/// Fails unless every segment, judged by a tone of `hz`, sounds like this.
fn hears(evidence: &Evidence, hz: f64, wanted: Verdict) -> Result<()> {
    let length = SEGMENT.as_secs_f64();
    let stretches: Vec<_> = (0..SEGMENTS)
        .map(|n| (n as f64 * length, (n + 1) as f64 * length))
        .collect();
    let heard = audio::segments(&evidence.sound()?, &stretches, hz);
    ensure!(
        heard.iter().all(|segment| segment.verdict == wanted),
        "not all {wanted:?} at {hz:.0} Hz: {heard:?}"
    );
    Ok(())
}

/// Dub and original are heard at once, the original at its level, with ramps where it was alone.
fn voice_over(evidence: &Evidence, sound: &Sound, ratio: f64) -> Result<()> {
    let reason = wire::of_batch(&evidence.log, "fallback", ALONE)?.text("reason");
    ensure!(
        reason == Some("error"),
        "segment {ALONE} fell back for {reason:?}"
    );
    let length = SEGMENT.as_secs_f64();
    let stretches: Vec<_> = (0..SEGMENTS)
        .map(|n| (n as f64 * length, (n + 1) as f64 * length))
        .collect();
    let dub_hz = TONE_HZ / ratio;
    let heard: Vec<_> = audio::segments(sound, &stretches, dub_hz)
        .into_iter()
        .map(|segment| segment.verdict)
        .collect();
    use Verdict::{Dubbed, Original};
    ensure!(
        heard == [Dubbed, Dubbed, Original, Dubbed],
        "at {dub_hz:.0} Hz the segments sound {heard:?}"
    );

    let alone = ALONE as f64 * length;
    let full = audio::tone_db(sound, TONE_HZ, alone + length / 2.0, 0.1);
    for (start, end) in stretches {
        let wanted = if start == alone { 0.0 } else { UNDER_DB };
        // Where the answer has ended, the original goes on. A dub that ends within a window is no
        // steady tone and would be heard at every frequency.
        let answered = start + length * ratio;
        for (from, to) in [(start + RAMP, answered), (answered, end)] {
            let mut at = from + 0.065;
            while at < to - 0.065 {
                let level = audio::tone_db(sound, TONE_HZ, at, 0.1) - full;
                ensure!(
                    (level - wanted).abs() <= 1.0,
                    "the original is at {level:.2} dB after {at:.2} s, not {wanted}"
                );
                at += 0.02;
            }
        }
    }
    for share in [0.0, 0.25, 0.5, 0.75, 1.0] {
        let turned = 0.5 - 0.5 * (std::f64::consts::PI * share).cos();
        let after = share * RAMP;
        for (start, wanted) in [
            (alone, UNDER_DB * (1.0 - turned)),
            (alone + length, UNDER_DB * turned),
        ] {
            let level = audio::tone_db(sound, TONE_HZ, start + after, 0.05) - full;
            // A boundary is at the nearest audio frame, up to 11 ms away: 1 dB in mid-ramp.
            ensure!(
                (level - wanted).abs() <= 2.0,
                "the original is at {level:.2} dB {after:.3} s after {start} s, not {wanted:.2}"
            );
        }
    }
    let holes = audio::dropouts(sound);
    ensure!(holes.is_empty(), "holes in the sound: {holes:?}");
    Ok(())
}
