//! Dubs of every length through the mixer: what is heard, where, how fast, and without a click.

#![expect(
    clippy::unwrap_used,
    reason = "a test says what it expects by unwrapping it"
)]

mod bench;

use std::time::Duration;

use bench::{Bench, PART, RATE, budget, encode, tone};
use dub_engine::{DubFitMode, Event};
use dub_media::audio::{self, Label, Pcm};
use dub_media::mixer::{MixJob, MixTrouble};

const DUB_HZ: f64 = 1_500.0;
const ORIGINAL_HZ: f64 = 440.0;
/// Samples per segment.
const SLOT: usize = PART * 1024;

#[derive(Default)]
struct Run {
    left: Vec<f64>,
    events: Vec<String>,
    /// Whether the dub of each segment could not be fitted.
    unusable: Vec<bool>,
    /// The file of each dub, decoded: its left channel.
    files: Vec<Option<Vec<f64>>>,
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
    let run = through_with(mode, spill_ms, dubs, |_| {});
    assert!(!run.unusable.contains(&true));
    // The encoder's delay is gone: frame k of the output is frame k of the grid.
    assert!(run.left.len().abs_diff(dubs.len() * SLOT) <= 2_048);
    run
}

fn left(pcm: &Pcm) -> Vec<f64> {
    let frames = pcm.samples.chunks(2);
    frames.map(|frame| f64::from(frame[0])).collect()
}

fn through_with(
    mode: DubFitMode,
    spill_ms: u64,
    dubs: &[Option<f64>],
    change: impl Fn(&mut MixJob),
) -> Run {
    let mut bench = Bench::fitting(None, mode, Duration::from_millis(spill_ms));
    let original = tone((dubs.len() * PART + 2) * 1024, ORIGINAL_HZ, 0.25);
    let all = encode(&bench.format, &original);
    let mut run = Run::default();
    let mut frames = Vec::new();
    for (batch, dub) in dubs.iter().enumerate() {
        let own = &all[batch * PART..(batch + 1) * PART];
        let mut job = bench.job(batch, own, &all);
        job.dubbed = dub.map(|ratio| Pcm {
            samples: tone((SLOT as f64 * ratio) as usize, DUB_HZ, 0.25),
            channels: 2,
        });
        change(&mut job);
        let mixed = bench.mix(job);
        match &mixed.trouble {
            None | Some(MixTrouble::Dub(_)) => run.unusable.push(!mixed.is_dubbed()),
            other => panic!("{other:?}"),
        }
        run.files.push(mixed.dubbed_m4a.map(|m4a| {
            let label = Label {
                format: "m4a",
                rate: bench.format.rate,
                channels: bench.format.channels,
            };
            let want = mixed.frames.len() * 1024;
            left(&audio::decode(m4a, label, &bench.format, want, budget()).unwrap())
        }));
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
    run.left = left(&pcm);
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
fn a_dub_that_cannot_be_fitted_leaves_no_trace() {
    let dubs = [None, Some(1.6), Some(3.0), Some(1.0)];
    let run = through_with(DubFitMode::Stretch, 500, &dubs, |job| job.keep = true);
    assert_eq!(run.unusable, [false, false, true, false]);
    // What runs on of the one before is heard to its end, then the original.
    let spill = SLOT / 7;
    assert!(run.is_dubbed(2 * SLOT) && run.is_dubbed(2 * SLOT + spill - 2_400));
    assert!(!run.is_dubbed(2 * SLOT + spill + 960) && !run.is_dubbed(3 * SLOT - 2_400));
    // The next is where it belongs.
    assert!(run.is_dubbed(3 * SLOT + 960));
    let last = run.events.last().unwrap();
    assert!(last.contains("batch=3 how=exact"), "{last}");
    assert!(run.bend() < 0.02, "a click: {}", run.bend());
    let files: Vec<_> = run.files.iter().map(Option::is_some).collect();
    assert_eq!(files, [false, true, false, true], "a file for each dub");
}

#[test]
fn nothing_runs_on_over_a_hole() {
    let hole = Duration::from_millis(900);
    let late = |job: &mut MixJob| {
        if job.batch >= 2 {
            for time in [&mut job.start, &mut job.end] {
                *time = *time + hole;
            }
            job.audio_start = job.audio_start.map(|start| start + hole);
        }
    };
    let behind = 2 * SLOT + RATE * 9 / 10;
    let dubs = [None, Some(1.6), None, None];
    let run = through_with(DubFitMode::Stretch, 500, &dubs, late);
    assert!(run.is_dubbed(2 * SLOT - 2_400));
    assert!(!run.is_dubbed(behind + 960), "old speech behind the hole");

    let dubs = [None, Some(1.6), Some(1.0), None];
    let run = through_with(DubFitMode::Stretch, 500, &dubs, late);
    assert!(run.is_dubbed(behind + 960));
    let last = run.events.last().unwrap();
    assert!(last.contains("batch=2 how=exact"), "{last}");
}

/// The file that is kept of a dub is what went out, from its first sample to its last.
#[test]
fn the_file_of_a_dub_is_what_is_heard() {
    let run = through_with(DubFitMode::Refuse, 0, &[Some(1.0); 4], |job| {
        job.keep = job.batch != 2;
    });
    let kept: Vec<_> = run.files.iter().map(Option::is_some).collect();
    assert_eq!(kept, [true, true, false, true]);
    for (batch, file) in [1, 3].map(|batch| (batch, run.files[batch].as_ref().unwrap())) {
        // Frames come out of the encoder a little later than their segment goes in.
        let whole = 1024 * (SLOT / 1024 - 2)..=SLOT;
        assert!(whole.contains(&file.len()), "{batch}: {}", file.len());
        let heard = &run.left[(batch - 1) * SLOT..];
        let off = |at: usize| -> f64 {
            let pairs = file.iter().zip(&heard[at..]);
            pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
        };
        let at = (0..=2 * SLOT - file.len() - 1024)
            .step_by(1024)
            .find(|at| off(*at) < 1e-3);
        assert!(at.is_some(), "file {batch} is nowhere in what is heard");
    }
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
