//! Damage one can hear: clicks and holes.

use super::{Sound, decibels, median, rms};

/// Clicks are looked for above this share of the sample rate (7.2 kHz at
/// 48 kHz), where neither the clips' music nor their beeps have anything.
const CLICK_BAND: f64 = 0.15;
const CLICK_BIN_SECONDS: f64 = 0.001;
/// Quieter than this is not a click whatever surrounds it: encoders leave up to
/// -52 dB where a beep starts, a single sample off by a hundredth gives -42.
const CLICK_FLOOR_DB: f64 = -49.0;
/// How far above its surroundings' median a click stands.
const CLICK_RISE_DB: f64 = 20.0;
const CLICK_SURROUNDINGS_SECONDS: f64 = 0.1;
/// A click's echoes in the codec belong to it.
const CLICK_MERGE_SECONDS: f64 = 0.03;

const DROPOUT_BIN_SECONDS: f64 = 0.002;
/// A hole is this much below the level around it, …
const DROPOUT_FALL_DB: f64 = 25.0;
/// … lasts at least this long, …
const DROPOUT_LEAST_SECONDS: f64 = 0.006;
/// … and what is this quiet is a hole in any case.
const SILENCE_DB: f64 = -70.0;
const DROPOUT_SURROUNDINGS_SECONDS: f64 = 0.25;
/// Priming and padding are at most this long: two frames at 44.1 kHz.
const PRIMING_SECONDS: f64 = 0.05;

/// A sudden burst of high frequencies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Click {
    /// Where it is loudest, in seconds.
    pub at: f64,
    /// Peak of its high frequencies, dB re full scale.
    pub level_db: f64,
    /// How far it stands out from what surrounds it, in dB.
    pub rise_db: f64,
}

/// A hole in the sound.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dropout {
    /// Where it starts, in seconds.
    pub at: f64,
    /// How long it is, in milliseconds.
    pub length_ms: f64,
}

/// Clicks in sound that has nothing of its own above 7 kHz, such as the clips of
/// [`crate::clock`].
///
/// An encoder with temporal noise shaping (ffmpeg's default) adds bursts of its
/// own where a beep starts, up to -33 dB; they are heard, and reported, as clicks.
///
/// The very beginning and end are left out: sound that starts is not a click.
pub fn clicks(sound: &Sound) -> Vec<Click> {
    let rate = f64::from(sound.rate);
    let high = high_pass(&sound.samples, CLICK_BAND);
    let bin = (rate * CLICK_BIN_SECONDS).round().max(1.0) as usize;
    let peaks: Vec<f64> = high
        .chunks(bin)
        .map(|chunk| {
            chunk
                .iter()
                .fold(0.0_f64, |peak, value| peak.max(value.abs()))
        })
        .collect();
    let reach = (CLICK_SURROUNDINGS_SECONDS / CLICK_BIN_SECONDS) as usize;
    let merge = (CLICK_MERGE_SECONDS / CLICK_BIN_SECONDS) as usize;
    let floor = 10_f64.powf(CLICK_FLOOR_DB / 20.0);

    let mut found: Vec<(usize, Click)> = Vec::new();
    for (at, &peak) in peaks.iter().enumerate() {
        if peak < floor || at < 5 || at + 5 >= peaks.len() {
            continue;
        }
        let near = peaks[at.saturating_sub(reach)..(at + reach).min(peaks.len())].to_vec();
        let rise_db = decibels(peak) - decibels(median(near).max(1e-6));
        if rise_db < CLICK_RISE_DB {
            continue;
        }
        let click = Click {
            at: sound.time_of((at * bin + bin / 2) as f64),
            level_db: decibels(peak),
            rise_db,
        };
        match found.last_mut() {
            Some((last, known)) if at - *last <= merge => {
                *last = at;
                if click.level_db > known.level_db {
                    *known = click;
                }
            }
            _ => found.push((at, click)),
        }
    }
    found.into_iter().map(|(_, click)| click).collect()
}

/// Holes in sound that is never silent by itself: digital silence, or a sudden
/// fall far below the level around it. Gaps in the timestamps are not seen
/// here but in [`Sound::breaks`], and a codec's silence before the first and after
/// the last of the sound (priming and padding) is none.
pub fn dropouts(sound: &Sound) -> Vec<Dropout> {
    let bin = (f64::from(sound.rate) * DROPOUT_BIN_SECONDS)
        .round()
        .max(1.0) as usize;
    let levels: Vec<f64> = sound.samples.chunks_exact(bin).map(rms).collect();
    let reach = (DROPOUT_SURROUNDINGS_SECONDS / DROPOUT_BIN_SECONDS) as usize;
    let silence = 10_f64.powf(SILENCE_DB / 20.0);
    let fall = 10_f64.powf(-DROPOUT_FALL_DB / 20.0);
    let is_hole = |at: usize| {
        let near = levels[at.saturating_sub(reach)..(at + reach).min(levels.len())].to_vec();
        levels[at] < (median(near) * fall).max(silence)
    };
    let least = (DROPOUT_LEAST_SECONDS / DROPOUT_BIN_SECONDS).round() as usize;
    let priming = (PRIMING_SECONDS / DROPOUT_BIN_SECONDS) as usize;
    let mut found = Vec::new();
    let mut start = None;
    for at in 0..=levels.len() {
        let hole = at < levels.len() && is_hole(at);
        match (start, hole) {
            (None, true) => start = Some(at),
            (Some(from), false) => {
                let outside = (from == 0 || at == levels.len()) && at - from <= priming;
                if at - from >= least && !outside {
                    found.push(Dropout {
                        at: sound.time_of((from * bin) as f64),
                        length_ms: ((at - from) * bin) as f64 * 1000.0 / f64::from(sound.rate),
                    });
                }
                start = None;
            }
            _ => {}
        }
    }
    found
}

/// What is above a share of the sample rate: four poles, run forwards, then
/// backwards, so that nothing moves in time.
pub(crate) fn high_pass(samples: &[f32], share_of_rate: f64) -> Vec<f64> {
    let mut out: Vec<f64> = samples.iter().map(|&value| f64::from(value)).collect();
    // The two quality factors of a fourth-order Butterworth filter.
    for quality in [0.541_196, 1.306_563] {
        biquad(&mut out, share_of_rate, quality);
    }
    out.reverse();
    for quality in [0.541_196, 1.306_563] {
        biquad(&mut out, share_of_rate, quality);
    }
    out.reverse();
    out
}

fn biquad(samples: &mut [f64], share_of_rate: f64, quality: f64) {
    let (sin, cos) = (std::f64::consts::TAU * share_of_rate).sin_cos();
    let alpha = sin / (2.0 * quality);
    let scale = 1.0 / (1.0 + alpha);
    let b0 = f64::midpoint(1.0, cos) * scale;
    let (a1, a2) = (-2.0 * cos * scale, (1.0 - alpha) * scale);
    let (mut s1, mut s2) = (0.0, 0.0);
    for value in samples {
        let input = *value;
        let output = b0 * input + s1;
        s1 = -2.0 * b0 * input - a1 * output + s2;
        s2 = b0 * input - a2 * output;
        *value = output;
    }
}
