//! Voice-over: the original goes on under the dub, at its level, with ramps, and nothing clicks.
//!
//! A tone of 997 Hz is the original. It goes through the mixer in segments, and its level is read
//! out of the decoded output in windows of 20 ms.

#![expect(
    clippy::unwrap_used,
    reason = "a test says what it expects by unwrapping it"
)]

mod bench;

use bench::{Bench, PART, RATE, budget, encode, tone};
use dub_engine::{Event, Pts};
use dub_media::audio::{self, Pcm};
use dub_media::encoder::Encoder;
use dub_media::mixer::MixJob;
use dub_media::{AacFrame, fit};

const ORIGINAL_HZ: f64 = 997.0;
const ORIGINAL: f64 = 0.5;
const DUB_HZ: f64 = 2_600.0;
/// Level of the original under the dub, unless a test sets another.
const LEVEL_DB: f64 = -15.0;
/// Samples of a window, and of the whole ramp.
const WINDOW: usize = 960;
const RAMP: usize = 14_400;
const PART_SAMPLES: usize = PART * 1024;

/// What went out.
struct Out {
    frames: Vec<AacFrame>,
    /// Decoded; both channels are the same.
    left: Vec<f32>,
    events: Vec<Event>,
}

impl Out {
    /// Level of a tone in the window around a sample, in dB against `amplitude`.
    fn level(&self, hz: f64, amplitude: f64, around: usize) -> f64 {
        let window = &self.left[around - WINDOW / 2..][..WINDOW];
        let (mut re, mut im, mut weight) = (0.0, 0.0, 0.0);
        for (n, value) in window.iter().enumerate() {
            let turn = std::f64::consts::TAU * (n as f64 + 0.5);
            let hann = 0.5 - 0.5 * (turn / WINDOW as f64).cos();
            let (sin, cos) = (turn * hz / RATE as f64).sin_cos();
            re += hann * f64::from(*value) * cos;
            im += hann * f64::from(*value) * sin;
            weight += hann;
        }
        20.0 * (2.0 * re.hypot(im) / weight / amplitude + 1e-9).log10()
    }

    /// Level of the original against its own.
    fn original(&self, around: usize) -> f64 {
        self.level(ORIGINAL_HZ, ORIGINAL, around)
    }

    /// The largest second difference, which is what clicks, after the encoder has settled.
    fn bend(&self) -> f32 {
        self.left[4_096..self.left.len() - 4_096]
            .windows(3)
            .map(|w| (w[2] - 2.0 * w[1] + w[0]).abs())
            .fold(0.0, f32::max)
    }

    /// The original's level from one sample to another, every 10 ms.
    fn course(&self, from: usize, to: usize) -> Vec<f64> {
        (from..to)
            .step_by(WINDOW / 2)
            .map(|at| self.original(at))
            .collect()
    }
}

/// Runs the original through segments of so many AAC frames; `dub` says what each answer is, and
/// `change` moves segments in time.
fn through(
    duck_db: Option<f64>,
    original: f64,
    parts: &[usize],
    dub: impl Fn(usize, &Pcm) -> Option<Pcm>,
    change: impl Fn(usize, &mut MixJob),
) -> Out {
    let mut bench = Bench::new(duck_db);
    let total: usize = parts.iter().sum();
    let all = encode(
        &bench.format,
        &tone((total + 2) * 1024, ORIGINAL_HZ, original),
    );
    let (mut frames, mut events) = (Vec::new(), Vec::new());
    let mut first = 0;
    for (batch, part) in parts.iter().enumerate() {
        let own = &all[first..first + part];
        let mut job = bench.job_at(batch, first, own, &all);
        first += part;
        let own = audio::decode_frames(&bench.format, job.preroll.as_ref(), own, budget()).unwrap();
        job.dubbed = dub(batch, &own);
        change(batch, &mut job);
        let mixed = bench.mix(job);
        assert!(mixed.trouble.is_none(), "{:?}", mixed.trouble);
        frames.extend(mixed.frames);
        events.extend(mixed.events);
    }
    frames.extend(bench.finish().frames);
    for (k, (pts, _)) in frames.iter().enumerate() {
        let place = bench.format.nanos(k as u64 * 1024);
        assert_eq!(*pts, place, "frame {k} is off the grid");
    }
    let frames: Vec<AacFrame> = frames.into_iter().map(|(_, frame)| frame).collect();
    let pcm = audio::decode_frames(&bench.format, None, &frames, budget()).unwrap();
    Out {
        frames,
        left: pcm.samples.chunks(2).map(|frame| frame[0]).collect(),
        events,
    }
}

/// Segments of usual length and place.
fn ducked(level: f64, parts: usize, dub: impl Fn(usize, &Pcm) -> Option<Pcm>) -> Out {
    through(Some(level), ORIGINAL, &vec![PART; parts], dub, |_, _| ())
}

/// A dub that is another tone, which goes on from segment to segment.
fn other_tone(part: usize, own: &Pcm, amplitude: f64) -> Pcm {
    let first = part * own.frames();
    let mut samples = tone(first + own.frames(), DUB_HZ, amplitude);
    samples.drain(..2 * first);
    Pcm {
        samples,
        channels: 2,
    }
}

fn silent(own: &Pcm) -> Pcm {
    Pcm::silence(own.frames(), 2)
}

/// The same sound, 8 % shorter, with silence behind it.
fn short(own: &Pcm) -> Pcm {
    let frames = own.frames() * 92 / 100;
    let mut dub = other_tone(0, &Pcm::silence(frames, 2), 0.25);
    fit::fade_out(&mut dub, fit::fade_frames(48_000));
    dub.samples.resize(own.samples.len(), 0.0);
    dub
}

fn near(level: f64, wanted: f64, tolerance: f64) -> bool {
    (level - wanted).abs() <= tolerance
}

#[test]
fn the_original_lies_under_the_dub_at_the_set_level() {
    let is_dubbed = |part: usize| matches!(part, 1 | 2 | 4);
    for level in [-6.0, LEVEL_DB, -30.0] {
        let out = ducked(level, 6, |part, own| {
            is_dubbed(part).then(|| other_tone(part, own, 0.25))
        });
        for part in 0..6 {
            let (from, to) = (part * PART_SAMPLES, (part + 1) * PART_SAMPLES - WINDOW);
            let wanted = if is_dubbed(part) { level } else { 0.0 };
            for (n, heard) in out.course(from + RAMP + WINDOW, to).iter().enumerate() {
                // Under a dub that is 24 dB louder the codec leaves less of it.
                let tolerance = if wanted < -20.0 { 0.7 } else { 0.3 };
                assert!(
                    near(*heard, wanted, tolerance),
                    "the original is at {heard:.2} dB, not {wanted}: segment {part}, {n}0 ms"
                );
            }
            for at in (from + WINDOW..to).step_by(WINDOW) {
                let dub = out.level(DUB_HZ, 0.25, at);
                let as_wanted = if is_dubbed(part) {
                    near(dub, 0.0, 0.1)
                } else {
                    dub < -50.0
                };
                assert!(as_wanted, "the dub is at {dub:.2} dB in segment {part}");
            }
        }
    }
}

#[test]
fn the_original_takes_300_ms_down_and_as_long_back() {
    let out = ducked(LEVEL_DB, 4, |part, own| {
        (part % 2 == 1).then(|| silent(own))
    });
    for (part, from, to) in [(1, 0.0, LEVEL_DB), (2, LEVEL_DB, 0.0), (3, 0.0, LEVEL_DB)] {
        let start = part * PART_SAMPLES;
        for (ms, share) in [
            (-15, 0.0),
            (15, 0.006),
            (75, 0.146),
            (150, 0.5),
            (225, 0.854),
            (315, 1.0),
        ] {
            let at = (start as i64 + ms * 48) as usize;
            let (heard, wanted) = (out.original(at), from + (to - from) * share);
            assert!(
                near(heard, wanted, 0.4),
                "{ms} ms into segment {part}: {heard:.2} dB, not {wanted:.2}"
            );
        }
    }
}

/// A ramp goes on where the segment before it had to leave off.
#[test]
fn segments_shorter_than_the_ramp_make_no_step() {
    // 107 ms each: three with a dub, one without, three with, and on to the end.
    let parts = [47, 5, 5, 5, 5, 5, 5, 5, 47];
    let dubbed = |part: usize| (1..8).contains(&part) && part != 4;
    let out = through(
        Some(LEVEL_DB),
        ORIGINAL,
        &parts,
        |part, own| dubbed(part).then(|| silent(own)),
        |_, _| (),
    );
    let course = out.course(4_096, out.left.len() - 8_192);
    let quickest = course
        .windows(2)
        .map(|pair| (pair[1] - pair[0]).abs())
        .fold(0.0, f64::max);
    // 15 dB in 300 ms with round ends: 0.8 dB in 10 ms where it is steepest.
    assert!(
        quickest < 1.0,
        "{quickest:.2} dB within 10 ms: {course:.1?}"
    );
    let after = |frames: usize| out.original((47 + frames) * 1024);
    assert!(near(after(5), -4.2, 0.5), "{:.2}", after(5));
    assert!(near(after(10), -12.3, 0.5), "{:.2}", after(10));
    assert!(near(after(15), LEVEL_DB, 0.3), "{:.2}", after(15));
    assert!(near(after(20), -10.8, 0.5), "{:.2}", after(20));
    assert!(near(after(30), LEVEL_DB, 0.3), "{:.2}", after(30));
}

#[test]
fn no_change_in_either_direction_clicks() {
    // The original alone bends by 0.0085, the dub at 0.1 by 0.0115; the codec adds a little.
    for (name, limit, dub) in [("silent", 0.011, 0.0), ("loud", 0.024, 0.1)] {
        let out = ducked(LEVEL_DB, 12, |part, own| {
            // One alone, two in a row, three in a row.
            matches!(part, 1 | 3 | 4 | 6 | 7 | 8).then(|| other_tone(part, own, dub))
        });
        let bend = out.bend();
        assert!(bend < limit, "{name}: a bend of {bend}");
    }
}

#[test]
fn under_short_and_silent_dubs_the_original_goes_on_unmoved() {
    let out = ducked(LEVEL_DB, 6, |part, own| match part {
        0 | 1 | 4 => Some(short(own)),
        2 => Some(silent(own)),
        _ => Some(other_tone(part, own, 0.25)),
    });
    // The very first segment is dubbed: no ramp there either.
    for (n, heard) in out
        .course(4_096, 6 * PART_SAMPLES - WINDOW)
        .iter()
        .enumerate()
    {
        assert!(near(*heard, LEVEL_DB, 0.5), "{heard:.2} dB after {n}0 ms");
    }
    let end = 2 * PART_SAMPLES - 2 * WINDOW;
    assert!(out.level(DUB_HZ, 0.25, end) < -50.0, "the dub was short");
}

#[test]
fn under_slewed_dubs_the_original_goes_on_unmoved() {
    let out = through(
        Some(LEVEL_DB),
        ORIGINAL,
        &[PART; 8],
        |part, own| (part > 0).then(|| other_tone(part, own, 0.1)),
        |_, job| {
            // The sender's audio clock runs 0.5 % slow against its video.
            let stretch = |pts: Pts| Pts::from_nanos(pts.nanos() * 1_005 / 1_000);
            job.audio_start = job.audio_start.map(stretch);
            (job.start, job.end) = (stretch(job.start), stretch(job.end));
        },
    );
    let corrections = |event: &&Event| matches!(event, Event::AvCorrection { .. });
    assert!(out.events.iter().filter(corrections).count() >= 4);
    let end = out.left.len() - 4 * WINDOW;
    for (n, heard) in out
        .course(PART_SAMPLES + RAMP + WINDOW, end)
        .iter()
        .enumerate()
    {
        assert!(near(*heard, LEVEL_DB, 0.5), "{heard:.2} dB after {n}0 ms");
    }
    assert!(out.bend() < 0.024, "a bend of {}", out.bend());
}

#[test]
fn after_a_hole_in_the_input_the_original_is_where_it_was() {
    let out = through(
        Some(LEVEL_DB),
        ORIGINAL,
        &[PART; 5],
        |part, own| (part > 0).then(|| other_tone(part, own, 0.1)),
        |part, job| {
            let late = |pts: Pts| Pts::from_nanos(pts.nanos() + 900_000_000);
            if part > 2 {
                job.audio_start = job.audio_start.map(late);
                (job.start, job.end) = (late(job.start), late(job.end));
            }
        },
    );
    let filled = |event: &Event| matches!(event, Event::AvGapFilled { .. });
    assert!(out.events.iter().any(filled), "{:?}", out.events);
    let (hole, goes_on) = (3 * PART_SAMPLES, 3 * PART_SAMPLES + 43_200);
    assert!(near(out.original(hole - WINDOW), LEVEL_DB, 0.3));
    for heard in out.course(hole + 2 * WINDOW, goes_on - 2 * WINDOW) {
        assert!(heard < -60.0, "{heard:.1} dB in the hole");
    }
    for heard in out.course(goes_on + WINDOW, out.left.len() - 4 * WINDOW) {
        assert!(near(heard, LEVEL_DB, 0.3), "{heard:.2} dB behind the hole");
    }
    assert!(out.bend() < 0.024, "a bend of {}", out.bend());
}

#[test]
fn without_a_dub_ducking_changes_nothing_bit_for_bit() {
    let run = |duck_db| through(duck_db, ORIGINAL, &[PART; 4], |_, _| None, |_, _| ()).frames;
    assert_eq!(run(Some(LEVEL_DB)), run(None));
}

/// How segments were joined before there was a choice, written out once more.
#[test]
fn replacing_is_what_it_was_bit_for_bit() {
    let answer = |part: usize, own: &Pcm| match part {
        1 | 6 => Some(own.clone()),
        2 => Some(short(own)),
        4 => Some(silent(own)),
        5 => Some(other_tone(part, own, 0.9)),
        _ => None,
    };
    let out = through(None, ORIGINAL, &[PART; 8], answer, |_, _| ());

    let format = dub_media::aac::AacFormat::lc(48_000, 2);
    let all = encode(&format, &tone((8 * PART + 2) * 1024, ORIGINAL_HZ, ORIGINAL));
    let mut encoder = Encoder::start(&format).unwrap();
    let mut wanted = Vec::new();
    let mut held: Option<(Vec<f32>, Vec<f32>, bool)> = None;
    let hold = 2 * fit::fade_frames(48_000);
    for part in 0..8 {
        let first = part * PART;
        let preroll = first.checked_sub(1).map(|before| all[before].clone());
        let frames = &all[first..first + PART];
        let own = audio::decode_frames(&format, preroll.as_ref(), frames, budget()).unwrap();
        let (dub, own) = (answer(part, &own), own.samples);
        let dubbed = dub.is_some();
        let mut chosen = dub.map_or_else(|| own.clone(), |dub| dub.samples);
        if let Some((tail, original, was_dubbed)) = held.take() {
            let last = match (was_dubbed, dubbed) {
                (true, false) => {
                    let mut last = original;
                    fit::cross_fade(&tail, &mut last, 2);
                    last
                }
                (false, true) => {
                    fit::cross_fade(&own[..hold], &mut chosen, 2);
                    tail
                }
                _ => {
                    fit::join(&tail, &mut chosen, 2, 48_000);
                    tail
                }
            };
            wanted.extend(encoder.push(&last).unwrap());
        }
        let end = chosen.len() - hold;
        wanted.extend(encoder.push(&chosen[..end]).unwrap());
        held = Some((chosen[end..].to_vec(), own[end..].to_vec(), dubbed));
    }
    wanted.extend(encoder.push(&held.unwrap().0).unwrap());
    wanted.extend(encoder.finish().unwrap());
    assert!(out.frames == wanted, "the output is another");
}

#[test]
fn full_scale_over_full_scale_stays_within_full_scale_and_clean() {
    let dub = |part: usize, own: &Pcm| (part % 2 == 1).then(|| other_tone(part, own, 1.0));
    let out = through(Some(-3.0), 1.0, &[PART; 4], dub, |_, _| ());
    let loudest = out.left.iter().fold(0.0_f32, |peak, x| peak.max(x.abs()));
    // The sum would be 1.7. The codec rings a little where the sound stops.
    assert!(loudest < 1.05, "{loudest}");
    let at = 2 * PART_SAMPLES - 4 * WINDOW;
    let (original, dub) = (out.level(ORIGINAL_HZ, 1.0, at), out.level(DUB_HZ, 1.0, at));
    // The codec takes 0.4 dB from a tone of full scale; the original went through it twice.
    assert!(
        near(original - dub, -3.0, 0.5) && near(dub, -4.6, 0.5),
        "{original:.2} under {dub:.2} dB"
    );
    // Cut off, the sum would have tones where the two mix.
    for hz in [2.0 * DUB_HZ - ORIGINAL_HZ, DUB_HZ + 2.0 * ORIGINAL_HZ] {
        let mixed = out.level(hz, 1.0, at);
        assert!(mixed < -60.0, "distortion at {hz} Hz: {mixed:.1} dB");
    }
}
