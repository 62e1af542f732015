//! Dubs of every length through the mixer: what is heard, where, how fast, and without a click.

#![expect(
    clippy::unwrap_used,
    reason = "a test says what it expects by unwrapping it"
)]

mod bench;

use std::time::Duration;

use bench::{Bench, PART, RATE, budget, encode, tone};
use dub_engine::{DubFitMode, Event};
use dub_media::audio::{self, Pcm};

const DUB_HZ: f64 = 1_500.0;
const ORIGINAL_HZ: f64 = 440.0;
/// Samples per segment.
const SLOT: usize = PART * 1024;

struct Run {
    left: Vec<f64>,
    events: Vec<String>,
}

impl Run {
    /// Level of a tone in 20 ms from `at`, in dB of full scale.
    fn level(&self, hz: f64, at: usize) -> f64 {
        let (s, c) = self.parts(hz, at);
        20.0 * (s.hypot(c) + 1e-9).log10()
    }

    /// How far the dub's tone is off, by how its phase moves within 20 ms.
    fn detune(&self, at: usize) -> f64 {
        let phase = |at: usize| {
            let (s, c) = self.parts(DUB_HZ, at);
            c.atan2(s)
        };
        let turn = (phase(at + 960) - phase(at)).rem_euclid(std::f64::consts::TAU);
        let turn = turn
            - if turn > std::f64::consts::PI {
                std::f64::consts::TAU
            } else {
                0.0
            };
        turn / std::f64::consts::TAU / 0.02 / DUB_HZ
    }

    fn parts(&self, hz: f64, at: usize) -> (f64, f64) {
        let block = &self.left[at..at + 960];
        let w = std::f64::consts::TAU * hz / RATE as f64;
        let (mut s, mut c) = (0.0, 0.0);
        for (n, x) in block.iter().enumerate() {
            s += x * (w * n as f64).sin();
            c += x * (w * n as f64).cos();
        }
        (s / 480.0, c / 480.0)
    }

    fn is_dubbed(&self, at: usize) -> bool {
        self.level(DUB_HZ, at) > -20.0
    }

    /// The second difference: what clicks.
    fn bend(&self) -> f64 {
        self.left[4_096..self.left.len() - 4_096]
            .windows(3)
            .map(|w| (w[2] - 2.0 * w[1] + w[0]).abs())
            .fold(0.0, f64::max)
    }
}

/// Segments of an original tone; `dub` gives each answer its length, as a share of the slot.
fn through(mode: DubFitMode, spill_ms: u64, dubs: &[Option<f64>]) -> Run {
    let mut bench = Bench::fitting(None, mode, Duration::from_millis(spill_ms));
    let original = tone((dubs.len() * PART + 2) * 1024, ORIGINAL_HZ, 0.25);
    let all = encode(&bench.format, &original);
    let mut run = Run {
        left: Vec::new(),
        events: Vec::new(),
    };
    let mut frames = Vec::new();
    for (batch, dub) in dubs.iter().enumerate() {
        let own = &all[batch * PART..(batch + 1) * PART];
        let mut job = bench.job(batch, own, &all);
        job.dubbed = dub.map(|ratio| Pcm {
            samples: tone((SLOT as f64 * ratio) as usize, DUB_HZ, 0.25),
            channels: 2,
        });
        let mixed = bench.mix(job);
        assert!(mixed.trouble.is_none(), "{:?}", mixed.trouble);
        frames.extend(mixed.frames);
        for event in mixed.events {
            if let Event::DubFitted { .. } = event {
                run.events.push(event.to_string());
            }
        }
    }
    frames.extend(bench.finish().frames);
    let frames: Vec<_> = frames.into_iter().map(|(_, frame)| frame).collect();
    let pcm = audio::decode_frames(&bench.format, None, &frames, budget()).unwrap();
    // The encoder's delay is gone: frame k of the output is frame k of the grid.
    assert!(pcm.frames().abs_diff(dubs.len() * SLOT) <= 2_048);
    run.left = pcm
        .samples
        .chunks(2)
        .map(|frame| f64::from(frame[0]))
        .collect();
    run
}

#[test]
fn longer_dubs_fill_their_slots_at_the_same_pitch() {
    let ratios = [1.0, 1.2, 1.35, 0.92, 1.08, 0.86, 1.4];
    let run = through(DubFitMode::Stretch, 0, &ratios.map(Some));
    for (part, ratio) in ratios.iter().enumerate() {
        let start = part * SLOT;
        for at in (start + 2_400..start + SLOT - 4_800).step_by(4_800) {
            let level = run.level(DUB_HZ, at);
            let detune = run.detune(at);
            assert!((level + 12.0).abs() < 1.0, "{ratio} at {at}: {level:.1} dB");
            assert!(detune.abs() < 0.01, "{ratio} at {at}: off by {detune:.4}");
        }
    }
    // The dub's own bend is 0.0097.
    assert!(run.bend() < 0.02, "a click: {}", run.bend());
    let told = run.events.join("\n");
    assert_eq!(told.matches("how=stretched").count(), 6, "{told}");
}

#[test]
fn speech_runs_on_over_an_original_that_comes_back_without_a_click() {
    let run = through(
        DubFitMode::Stretch,
        500,
        &[None, Some(1.6), None, Some(1.6), Some(1.0)],
    );
    let spill = SLOT / 7;
    assert!(run.is_dubbed(2 * SLOT + spill - 2_400) && run.is_dubbed(2 * SLOT));
    assert!(!run.is_dubbed(2 * SLOT + spill + 960));
    assert!(
        run.level(ORIGINAL_HZ, 2 * SLOT + 2_400) < -40.0,
        "replaced, not mixed"
    );
    assert!((run.level(ORIGINAL_HZ, 2 * SLOT + spill + 2_400) + 12.0).abs() < 1.0);
    // The next dub sets in behind it and is in its place again by its end.
    assert!(run.is_dubbed(4 * SLOT + spill + 2_400) && run.is_dubbed(5 * SLOT - 2_400));
    assert!(run.bend() < 0.02, "a click: {}", run.bend());
    assert_eq!(
        run.events,
        [
            "dub_fitted batch=1 how=spilled speed_permille=1400 spill_ms=286 cut_ms=0",
            "dub_fitted batch=3 how=spilled speed_permille=1400 spill_ms=286 cut_ms=0",
            "dub_fitted batch=4 how=stretched speed_permille=1167 spill_ms=0 cut_ms=0",
        ]
    );
}

#[test]
fn short_answers_end_in_silence() {
    let run = through(DubFitMode::Stretch, 0, &[Some(0.4), Some(0.6), Some(0.98)]);
    assert!(run.is_dubbed(SLOT * 3 / 10) && !run.is_dubbed(SLOT / 2));
    assert!(run.is_dubbed(SLOT + SLOT / 2) && !run.is_dubbed(SLOT + SLOT * 7 / 10));
    assert!(
        run.level(ORIGINAL_HZ, SLOT * 7 / 10) < -60.0,
        "the original stays away"
    );
    assert!(run.bend() < 0.02, "a click: {}", run.bend());
}
