//! Joins: what a viewer must not hear. A steady tone goes through the mixer in segments,
//! and what is left after taking the tone out is compared at the joins and elsewhere.

#![expect(
    clippy::unwrap_used,
    reason = "a test says what it expects by unwrapping it"
)]

mod bench;

use bench::{Bench, PART, RATE, budget, encode, tone};
use dub_engine::{DubFitHow, Event, Pts};
use dub_media::audio::{self, Pcm};
use dub_media::mixer::{MixTrouble, Part};
use dub_media::{AacFrame, fit};

/// Residual after removing the tone, in dB, per block of 20 ms.
fn residuals(samples: &[f32]) -> Vec<f64> {
    let w = 2.0 * std::f64::consts::PI * 997.0 / RATE as f64;
    let left: Vec<f64> = samples.chunks(2).map(|frame| f64::from(frame[0])).collect();
    left.chunks_exact(960)
        .map(|block| {
            // 997 Hz does not fit the block: solve for sine and cosine properly.
            let (mut ss, mut cc, mut sc, mut xs, mut xc) = (0.0, 0.0, 0.0, 0.0, 0.0);
            for (n, x) in block.iter().enumerate() {
                let (s, c) = (w * n as f64).sin_cos();
                ss += s * s;
                cc += c * c;
                sc += s * c;
                xs += x * s;
                xc += x * c;
            }
            let det = ss * cc - sc * sc;
            let (a, b) = ((xs * cc - xc * sc) / det, (xc * ss - xs * sc) / det);
            let rest: f64 = block
                .iter()
                .enumerate()
                .map(|(n, x)| (x - a * (w * n as f64).sin() - b * (w * n as f64).cos()).powi(2))
                .sum();
            10.0 * (rest / block.len() as f64 + 1e-12).log10()
        })
        .collect()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Runs the tone through `parts` segments; `dubbed` says what each answer is.
fn through(parts: usize, dubbed: impl Fn(usize, &Pcm) -> Option<Pcm>) -> (Vec<f32>, Vec<Event>) {
    let mut bench = Bench::new(None);
    let all = encode(&bench.format, &tone((parts * PART + 2) * 1024, 997.0, 0.5));
    let (mut out, mut events) = (Vec::new(), Vec::new());
    for batch in 0..parts {
        let frames = &all[batch * PART..(batch + 1) * PART];
        let mut job = bench.job(batch, frames, &all);
        let own =
            audio::decode_frames(&bench.format, job.preroll.as_ref(), frames, budget()).unwrap();
        job.dubbed = dubbed(batch, &own);
        let mixed = bench.mix(job);
        assert!(mixed.trouble.is_none(), "{:?}", mixed.trouble);
        out.extend(mixed.frames);
        events.extend(mixed.events);
    }
    out.extend(bench.finish().frames);
    for (k, (pts, _)) in out.iter().enumerate() {
        assert_eq!(
            *pts,
            bench.format.nanos(k as u64 * 1024),
            "frame {k} is off the grid"
        );
    }
    let frames: Vec<AacFrame> = out.into_iter().map(|(_, frame)| frame).collect();
    assert!(
        frames.len() >= parts * PART,
        "{} frames out for {} in",
        frames.len(),
        parts * PART
    );
    (
        audio::decode_frames(&bench.format, None, &frames, budget())
            .unwrap()
            .samples,
        events,
    )
}

fn at_joins_and_elsewhere(samples: &[f32], parts: usize) -> (f64, f64) {
    let residuals = residuals(samples);
    let is_join = |block: usize| {
        (1..parts).any(|join| {
            let at = join * PART * 1024;
            (block * 960).abs_diff(at) < 1_440
        })
    };
    let settled = 25..residuals.len() - 10;
    let (joins, rest): (Vec<_>, Vec<_>) = settled
        .map(|block| (is_join(block), residuals[block]))
        .partition(|(join, _)| *join);
    let values = |list: Vec<(bool, f64)>| list.into_iter().map(|(_, value)| value).collect();
    (median(values(joins)), median(values(rest)))
}

#[test]
fn no_join_is_heard_when_the_service_echoes() {
    let (samples, events) = through(10, |_, own| Some(own.clone()));
    let exact = |event: &Event| {
        matches!(
            event,
            Event::DubFitted {
                how: DubFitHow::Exact,
                ..
            }
        )
    };
    assert!(events.iter().all(exact), "{events:?}");
    let (joins, elsewhere) = at_joins_and_elsewhere(&samples, 10);
    assert!(
        elsewhere < -60.0,
        "the tone comes out clean: {elsewhere:.1} dB"
    );
    assert!(
        joins - elsewhere < 1.0,
        "{joins:.1} dB at joins, {elsewhere:.1} dB elsewhere"
    );
}

#[test]
fn no_join_is_heard_where_echo_and_original_alternate() {
    let (samples, _) = through(10, |batch, own| (batch % 3 != 1).then(|| own.clone()));
    let (joins, elsewhere) = at_joins_and_elsewhere(&samples, 10);
    assert!(
        joins - elsewhere < 1.0,
        "{joins:.1} dB at joins, {elsewhere:.1} dB elsewhere"
    );
}

/// The defect the two above are meant to catch: a service whose answers begin 20 ms late.
#[test]
fn a_join_that_is_off_is_seen_by_this_very_measure() {
    let (samples, _) = through(10, |_, own| {
        let mut shifted = vec![0.0; 1_920];
        shifted.extend(&own.samples[..own.samples.len() - 1_920]);
        Some(Pcm {
            samples: shifted,
            channels: 2,
        })
    });
    let (joins, elsewhere) = at_joins_and_elsewhere(&samples, 10);
    assert!(
        joins - elsewhere > 10.0,
        "{joins:.1} dB at joins, {elsewhere:.1} dB elsewhere"
    );
}

#[test]
fn a_change_from_loud_to_silent_dub_and_back_has_no_click() {
    let (samples, _) = through(6, |batch, own| {
        (batch % 2 == 1).then(|| Pcm::silence(own.frames(), 2))
    });
    let left: Vec<f32> = samples.chunks(2).map(|frame| frame[0]).collect();
    // A 997 Hz tone at half scale moves by at most 0.065 from sample to sample.
    let largest = left[4_096..left.len() - 4_096]
        .windows(2)
        .map(|w| (w[1] - w[0]).abs())
        .fold(0.0, f32::max);
    assert!(largest < 0.08, "a step of {largest}");
}

#[test]
fn audio_that_drifts_is_slewed_and_every_frame_stays_on_the_grid() {
    let mut bench = Bench::new(None);
    let all = encode(&bench.format, &tone(12 * PART * 1024, 997.0, 0.5));
    let mut corrections = 0;
    let mut worst = 0;
    let mut out = Vec::new();
    for batch in 0..12 {
        let mut job = bench.job(batch, &all[batch * PART..(batch + 1) * PART], &all);
        // The sender's audio clock runs 0.5 % slow against its video.
        let stretch = |pts: Pts| Pts::from_nanos(pts.nanos() * 1_005 / 1_000);
        job.audio_start = job.audio_start.map(stretch);
        (job.start, job.end) = (stretch(job.start), stretch(job.end));
        let mixed = bench.mix(job);
        corrections += mixed
            .events
            .iter()
            .filter(|event| matches!(event, Event::AvCorrection { .. }))
            .count();
        worst = worst.max(mixed.delta.abs());
        out.extend(mixed.frames);
    }
    assert!(corrections >= 8, "{corrections} corrections");
    assert!(worst < 40_000_000, "audio was {worst} ns off");
    for (k, (pts, _)) in out.iter().enumerate() {
        assert_eq!(*pts, bench.format.nanos(k as u64 * 1024));
    }
}

#[test]
fn timestamps_that_step_inside_a_segment_are_slewed_not_patched_with_silence() {
    let mut bench = Bench::new(None);
    let all = encode(&bench.format, &tone(12 * PART * 1024, 997.0, 0.5));
    let step = |pts: Pts| Pts::from_nanos(pts.nanos() + 300_000_000);
    let (mut slewed, mut deltas) = (0, Vec::new());
    for batch in 0..12 {
        let mut job = bench.job(batch, &all[batch * PART..(batch + 1) * PART], &all);
        // The video of segment 1 lasts 300 ms longer than its sound; all later sound is late.
        job.end = if batch > 0 { step(job.end) } else { job.end };
        if batch > 1 {
            (job.start, job.audio_start) = (step(job.start), job.audio_start.map(step));
        }
        let mixed = bench.mix(job);
        slewed += mixed
            .events
            .iter()
            .filter(|event| matches!(event, Event::AvCorrection { .. }))
            .count();
        deltas.push(mixed.delta / 1_000_000);
    }
    assert!(slewed >= 7, "{slewed} corrections: {deltas:?}");
    assert_eq!(
        (deltas[1], deltas[2], deltas[11]),
        (0, -300, 0),
        "{deltas:?}"
    );
    assert!(
        deltas[2..]
            .windows(2)
            .all(|w| (0..=45).contains(&(w[1] - w[0]))),
        "not gentle: {deltas:?}"
    );
}

#[test]
fn a_segment_without_audio_is_silent_and_as_long_as_its_video() {
    let mut bench = Bench::new(None);
    let all = encode(&bench.format, &tone(3 * PART * 1024, 997.0, 0.5));
    let mut frames = 0;
    for batch in 0..3 {
        let mut job = bench.job(batch, &all[batch * PART..(batch + 1) * PART], &all);
        if batch == 1 {
            job.frames.clear();
            job.audio_start = None;
        }
        let mixed = bench.mix(job);
        assert!(mixed.trouble.is_none());
        frames += mixed.frames.len();
    }
    frames += bench.finish().frames.len();
    assert!(frames.abs_diff(3 * PART) <= 2, "{frames}");
}

/// A service that was silent for two minutes is given up for all its segments in one moment.
#[test]
fn segments_that_are_decided_at_once_are_mixed_in_turn() {
    const LENGTH: usize = 10;
    const SEGMENTS: usize = 200;
    let mut bench = Bench::new(None);
    let all = encode(&bench.format, &tone((LENGTH + 2) * 1024, 997.0, 0.5));
    let job = |batch: usize| {
        let mut job = bench.job_at(batch, 0, &all[..LENGTH], &all);
        let length = job.end.since(job.start) * batch as u32;
        (job.start, job.end) = (job.start + length, job.end + length);
        job.audio_start = Some(job.start);
        job
    };
    let jobs: Vec<_> = (0..SEGMENTS).map(job).collect();
    let parts = bench.mix_at_once(jobs.into_iter());
    let each = (0..SEGMENTS as u64).flat_map(|batch| [Part::Begin(batch), Part::End(batch)]);
    let wanted: Vec<_> = each.chain([Part::Last]).collect();
    assert_eq!(parts, wanted);
}

#[test]
fn damaged_input_is_told_and_replaced_by_silence() {
    let mut bench = Bench::new(None);
    let garbage: Vec<AacFrame> = (0..PART)
        .map(|n| AacFrame::from(vec![n as u8; 40]))
        .collect();
    let job = bench.job(0, &garbage, &garbage);
    let mixed = bench.mix(job);
    // Whether the decoder gives up or conceals, the length is kept.
    assert!(matches!(
        mixed.trouble,
        None | Some(MixTrouble::Original(_))
    ));
    let frames = mixed.frames.len() + bench.finish().frames.len();
    assert!(frames.abs_diff(PART) <= 1, "{frames}");
}

#[test]
fn a_dub_that_was_resized_within_limits_keeps_the_segment_length() {
    for ratio in [0.92, 1.08] {
        let (samples, _) = through(4, |_, own| {
            let frames = (own.frames() as f64 * ratio) as usize;
            Some(fit::stretch(own, frames))
        });
        assert!(
            samples.len().abs_diff(4 * PART * 1024 * 2) <= 2 * 2_048,
            "{ratio}: {}",
            samples.len()
        );
    }
}
