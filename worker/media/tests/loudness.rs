//! Dubs of any level through the mixer: how loud they are heard beside the original.

#![expect(
    clippy::unwrap_used,
    reason = "a test says what it expects by unwrapping it"
)]

mod bench;

use bench::{Bench, PART, RATE, budget, encode};
use dub_engine::{DubLoudness, Event};
use dub_media::audio::{self, Pcm};
use dub_media::loudness;

const SLOT: usize = PART * 1024;
/// Of the original's peaks.
const PEAK: f64 = 0.3;

/// Syllables: a buzz that swells and rests five times a second.
fn speech(frames: usize, peak: f64) -> Vec<f32> {
    let sample = |n: usize| {
        let time = n as f64 / RATE as f64;
        let swell = (time * std::f64::consts::PI * 5.0).sin().abs().powi(3);
        let voice: f64 = (1..=12)
            .map(|k| (std::f64::consts::TAU * 140.0 * f64::from(k) * time).cos() / 12.0)
            .sum();
        (peak * swell * voice) as f32
    };
    (0..frames).flat_map(|n| [sample(n); 2]).collect()
}

fn scaled(samples: &[f32], db: f64) -> Pcm {
    let gain = 10_f64.powf(db / 20.0) as f32;
    Pcm {
        samples: samples.iter().map(|x| x * gain).collect(),
        channels: 2,
    }
}

/// Segments of an original, `originals` and `dubs` in dB against speech; the levels that are heard, in dB
/// against it, the highest peak, and what is told.
fn through(loudness: DubLoudness, segments: &[(f64, Option<f64>)]) -> (Vec<f64>, f64, Vec<String>) {
    let mut bench = Bench::levelling(loudness);
    let plain = speech(segments.len() * SLOT, PEAK);
    let mut original = vec![];
    for (part, (level, _)) in plain.chunks(SLOT * 2).zip(segments) {
        original.extend(scaled(part, *level).samples);
    }
    original.extend([0.0; 4 * 1024]);
    let all = encode(&bench.format, &original);
    let (mut frames, mut told) = (vec![], vec![]);
    for (batch, (_, dub)) in segments.iter().enumerate() {
        let own = &all[batch * PART..(batch + 1) * PART];
        let mut job = bench.job(batch, own, &all);
        let part = &plain[batch * SLOT * 2..(batch + 1) * SLOT * 2];
        job.dubbed = dub.map(|level| scaled(part, level));
        let mixed = bench.mix(job);
        assert!(mixed.trouble.is_none(), "{:?}", mixed.trouble);
        frames.extend(mixed.frames);
        let levelled = |event: &&Event| matches!(event, Event::DubLevelled { .. });
        told.extend(
            mixed
                .events
                .iter()
                .filter(levelled)
                .map(ToString::to_string),
        );
    }
    frames.extend(bench.finish().frames);
    let frames: Vec<_> = frames.into_iter().map(|(_, frame)| frame).collect();
    let heard = audio::decode_frames(&bench.format, None, &frames, budget()).unwrap();
    let level = |samples: &[f32]| {
        let pcm = scaled(samples, 0.0);
        loudness::measure(&pcm, 0, RATE as u32).mean
    };
    let usual = level(&plain);
    let inner = heard.samples.chunks(SLOT * 2).take(segments.len());
    let levels = inner.map(|part| level(part) - usual).collect();
    (levels, loudness::measure(&heard, 0, RATE as u32).peak, told)
}

#[test]
fn what_is_too_loud_or_too_quiet_is_brought_within_and_the_rest_stays() {
    let dubs = [0.0, 5.0, -15.0, 9.0, 16.0, -24.0, -32.0, 40.0, 0.0];
    let expected = [0.0, 5.0, -15.0, 5.5, 5.5, -19.5, -19.5, 5.5, 0.0];
    let segments = dubs.map(|dub| (0.0, Some(dub)));
    let (levels, peak, told) = through(DubLoudness::Match, &segments);
    for ((dub, level), expected) in dubs.iter().zip(&levels).zip(expected) {
        assert!(
            (level - expected).abs() < 0.5,
            "{dub} dB: heard at {level:.1} dB"
        );
        assert!(
            (-20.0..=6.0).contains(level),
            "{dub} dB: heard at {level:.1} dB"
        );
    }
    assert!(peak < 0.0, "true peak {peak:.1} dB");
    assert_eq!(
        told,
        [
            "dub_levelled batch=3 change=lowered difference_db=9.0 gain_db=-3.5",
            "dub_levelled batch=4 change=lowered difference_db=16.0 gain_db=-10.5",
            "dub_levelled batch=5 change=raised difference_db=-24.0 gain_db=4.5",
            "dub_levelled batch=6 change=raised difference_db=-32.0 gain_db=12.5",
            "dub_levelled batch=7 change=lowered difference_db=40.0 gain_db=-34.5",
        ]
    );
    let (levels, _, told) = through(DubLoudness::Keep, &segments[..6]);
    assert!((levels[3] - 9.0).abs() < 0.5 && (levels[5] + 24.0).abs() < 0.5);
    assert_eq!(told, [] as [String; 0]);
}

#[test]
fn speech_that_runs_on_into_a_pause_is_heard_as_before() {
    const PAUSE: f64 = -45.0;
    let silent = f64::NEG_INFINITY;
    let (levels, _, told) = through(
        DubLoudness::Match,
        &[
            (0.0, None),
            (PAUSE, Some(0.0)),
            (silent, Some(2.0)),
            (silent, Some(12.0)),
            (PAUSE, Some(PAUSE)),
            (0.0, Some(silent)),
            (0.0, None),
        ],
    );
    for (at, expected) in [(0, 0.0), (1, 0.0), (2, 2.0), (3, 5.5), (6, 0.0)] {
        let level = levels[at];
        assert!(
            (level - expected).abs() < 1.0,
            "segment {at}: {level:.1} dB"
        );
    }
    // What is over the room's noise here is the end of the speech before it.
    assert!(levels[4] < -30.0, "turned up: {:.1} dB", levels[4]);
    assert!(
        levels[5] < -45.0,
        "a silent dub is silent: {:.1} dB",
        levels[5]
    );
    assert_eq!(told.len(), 1, "{told:?}");
}

#[test]
fn a_dub_over_full_scale_is_heard_under_it() {
    // The original peaks at full scale, the dub 5 dB over it: not too loud in the mean.
    let loud = 20.0 * (1.0 / PEAK).log10();
    let segments = [
        (loud, None),
        (loud, Some(loud + 5.0)),
        (loud, Some(loud + 15.0)),
    ];
    let (levels, peak, told) = through(DubLoudness::Match, &segments);
    assert!(
        peak < 0.3,
        "true peak {peak:.1} dB, the original's alone included"
    );
    assert!(levels[1] > levels[0], "turned down too far: {levels:?}");
    assert!(
        told[0].contains("change=limited") && told[1].contains("change=lowered"),
        "{told:?}"
    );
}
