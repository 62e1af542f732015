//! Beeps found in sound: where each starts, to the sample, and which second it
//! says it is.
//!
//! ```text
//! 16 tones ─▶ how much of each in every 90 ms ─▶ places with one low and one high
//!          ─▶ the same, sample by sample ─▶ the waveform itself laid over it
//! ```
//!
//! A window as long as the beep holds most of it exactly where it starts, also
//! when a cross-fade changed its level on the way or another steady tone (the
//! marker of dubbed sound) runs through it.

use crate::clock::sound::{BEEP_SECONDS, HIGH_HZ, LOW_HZ, beep, second_of};
use crate::probe::audio::{Sound, high_pass, highest};
use rustfft::num_complex::Complex;
use std::f64::consts::TAU;

/// The search looks at a window every so often.
const HOP_SECONDS: f64 = 0.002;
/// The least peak of each of the two tones, of full scale.
const LEAST_LEVEL: f64 = 0.01;
/// How many times stronger the right tone is than the next of its group.
const LEAST_MARGIN: f64 = 2.0;
/// The first and the last third of a beep have at least this share of the
/// loudest third (a cross-fade to the dub's original is a quarter).
const LEAST_THIRD: f64 = 0.1;
/// Two beeps are further apart than this.
const APART_SECONDS: f64 = 0.15;
/// The music is taken away below this before a start is measured.
const MUSIC_ENDS_HZ: f64 = 1400.0;
/// The first estimate comes from the flanks of the window's contents, this far
/// from their summit (which the beep's soft edges make flat).
const FLANK_SECONDS: [f64; 2] = [0.002, 0.006];
/// The waveform is laid over the sound this far around the first estimate;
/// further away the beat of the two tones looks alike again.
const WAVEFORM_REACH_SECONDS: f64 = 0.000_5;
/// What a place at that reach must be more alike by to win over one without
/// shift.
const WAVEFORM_PRIOR: f64 = 0.01;
/// Below this likeness the waveform says nothing about the place.
const WAVEFORM_LIKENESS: f64 = 0.6;

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Beep {
    /// When it starts, in seconds on the file's timeline.
    pub at: f64,
    /// The second, 0 to 59, its pitch stands for; none for a pair of tones that
    /// no second has.
    pub second: Option<u32>,
    /// Mean peak of its two tones, of full scale.
    pub level: f64,
}

/// Every beep in the sound, in the order heard.
pub fn beeps(sound: &Sound) -> Vec<Beep> {
    let hop = f64::from(sound.rate) * HOP_SECONDS;
    let window = (BEEP_SECONDS / HOP_SECONDS).round() as usize;
    let low = levels(sound, &LOW_HZ, hop, window);
    let high = levels(sound, &HIGH_HZ, hop, window);

    // Loudest first, each silencing its neighbours.
    let score = |at: usize| low[at].level.min(high[at].level);
    let mut places: Vec<usize> = (0..low.len())
        .filter(|&at| score(at) > LEAST_LEVEL)
        .filter(|&at| low[at].margin.min(high[at].margin) > LEAST_MARGIN)
        .collect();
    places.sort_by(|&a, &b| score(b).total_cmp(&score(a)));
    let apart = (APART_SECONDS / HOP_SECONDS) as usize;
    let mut chosen: Vec<usize> = Vec::new();
    for at in places {
        if chosen.iter().all(|&other| at.abs_diff(other) > apart) {
            chosen.push(at);
        }
    }
    chosen.sort_unstable();
    chosen
        .into_iter()
        .filter_map(|at| {
            // Windows start one window before the sound does.
            let first = (at as f64 - window as f64) * hop;
            let start = refine(sound, first, low[at].tone, high[at].tone)?;
            Some(Beep {
                at: sound.time_of(start),
                second: second_of(low[at].tone, high[at].tone),
                level: f64::midpoint(low[at].level, high[at].level),
            })
        })
        .collect()
}

/// The strongest tone of a group in one window.
#[derive(Clone, Copy, Debug, Default)]
struct Strongest {
    tone: usize,
    level: f64,
    margin: f64,
}

/// The strongest tone of a group in every window. The first window ends where
/// the sound begins, so that a beep at the very start is found like any other.
fn levels(sound: &Sound, tones: &[f64; 8], hop: f64, window: usize) -> Vec<Strongest> {
    let hops = (sound.samples.len() as f64 / hop) as usize;
    let mut of_tone = Vec::new();
    for hz in tones {
        let sums = hop_sums(&sound.samples, hz / f64::from(sound.rate), hop, hops);
        let mut padded = vec![Complex::default(); window];
        padded.extend(sums);
        padded.extend(std::iter::repeat_n(Complex::default(), window));
        let scale = 2.0 / (hop * window as f64);
        let mut sum: Complex<f64> = padded[..window].iter().sum();
        let mut level = Vec::with_capacity(hops + window);
        for at in 0..padded.len() - window {
            level.push(sum.norm() * scale);
            sum += padded[at + window] - padded[at];
        }
        of_tone.push(level);
    }
    (0..hops + window)
        .map(|at| {
            let mut best = Strongest::default();
            let mut next = 0.0_f64;
            for (tone, level) in of_tone.iter().enumerate() {
                if level[at] > best.level {
                    next = best.level;
                    (best.tone, best.level) = (tone, level[at]);
                } else {
                    next = next.max(level[at]);
                }
            }
            best.margin = best.level / next.max(1e-9);
            best
        })
        .collect()
}

/// The sound times a turning phasor, summed over every hop.
fn hop_sums(samples: &[f32], share_of_rate: f64, hop: f64, hops: usize) -> Vec<Complex<f64>> {
    let turn = Complex::from_polar(1.0, -share_of_rate * TAU);
    (0..hops)
        .map(|at| {
            let (from, to) = ((at as f64 * hop) as usize, ((at + 1) as f64 * hop) as usize);
            // Started afresh each hop: rounding never adds up.
            let phase = (from as f64 * share_of_rate).fract();
            let mut phasor = Complex::from_polar(1.0, -phase * TAU);
            let mut sum = Complex::default();
            for &value in &samples[from..to.min(samples.len())] {
                sum += phasor * f64::from(value);
                phasor *= turn;
            }
            sum
        })
        .collect()
}

/// The sample a beep starts at, from a place a few milliseconds around it. None
/// when its beginning or end is not there: then its place is anyone's guess.
fn refine(sound: &Sound, near: f64, low: usize, high: usize) -> Option<f64> {
    let rate = f64::from(sound.rate);
    let length = (BEEP_SECONDS * rate).round() as usize;
    let reach = ((2.0 * HOP_SECONDS + FLANK_SECONDS[1]) * rate) as usize;
    // A stretch around it without the music; zeros beyond the sound's ends.
    let margin = (0.03 * rate) as usize + reach;
    let from = near.round() as i64 - margin as i64;
    let stretch: Vec<f32> = (from..from + (2 * margin + length) as i64)
        .map(|at| sound.sample(at))
        .collect();
    let stretch = high_pass(&stretch, MUSIC_ENDS_HZ / rate);

    let first = margin - reach;
    let starts = 2 * reach;
    let turned = [LOW_HZ[low], HIGH_HZ[high]].map(|hz| -> Vec<Complex<f64>> {
        stretch
            .iter()
            .enumerate()
            .map(|(at, &value)| Complex::from_polar(value, -(at as f64 * hz / rate) * TAU))
            .collect()
    });
    let tones = [0, 1].map(|tone: usize| {
        let turned = &turned[tone];
        let mut sum: Complex<f64> = turned[first..first + length].iter().sum();
        (first..first + starts)
            .map(|at| {
                let now = sum.norm();
                sum += turned[at + length] - turned[at];
                now
            })
            .collect::<Vec<_>>()
    });
    let both: Vec<f64> = tones[0].iter().zip(&tones[1]).map(|(a, b)| a + b).collect();
    let coarse = first + summit(&both, FLANK_SECONDS.map(|away| (away * rate) as usize));

    // A third of a beep is long enough to tell its tones from the others.
    let third = length / 3;
    let thirds = [0, 1, 2].map(|part: usize| {
        let inside = coarse + part * third..coarse + (part + 1) * third;
        let level =
            |turned: &Vec<Complex<f64>>| turned[inside.clone()].iter().sum::<Complex<f64>>().norm();
        turned.iter().map(level).sum::<f64>()
    });
    let loudest = thirds.iter().copied().fold(0.0, f64::max);
    if thirds[0].min(thirds[2]) < LEAST_THIRD * loudest {
        return None;
    }

    // The waveform is known, so its place is known to the sample.
    let Some(second) = second_of(low, high) else {
        return Some(from as f64 + coarse as f64);
    };
    let shape: Vec<f64> = (0..length)
        .map(|at| beep(second, at as f64 / rate))
        .collect();
    let own: f64 = shape.iter().map(|value| value * value).sum();
    let reach = (WAVEFORM_REACH_SECONDS * rate) as usize;
    let likeness: Vec<f64> = (coarse - reach..=coarse + reach)
        .map(|at| {
            let part = &stretch[at..at + length];
            let product: f64 = part.iter().zip(&shape).map(|(a, b)| a * b).sum();
            let energy: f64 = part.iter().map(|value| value * value).sum();
            let shift = (at as f64 - coarse as f64) / reach as f64;
            product / (own * energy).sqrt().max(1e-12) - WAVEFORM_PRIOR * shift * shift
        })
        .collect();
    let best = highest(&likeness);
    Some(if likeness[best] > WAVEFORM_LIKENESS {
        from as f64 + (coarse - reach + best) as f64
    } else {
        from as f64 + coarse as f64
    })
}

/// Where the lines along both flanks of a roof meet, `near` to `far` from its
/// highest place.
fn summit(roof: &[f64], [near, far]: [usize; 2]) -> usize {
    let top = highest(roof);
    if top < far || top + far >= roof.len() {
        return top;
    }
    let (a0, a1) = line(&roof[top - far..top - near], (top - far) as f64);
    let (b0, b1) = line(&roof[top + near..top + far], (top + near) as f64);
    // A rise on the left and a fall on the right, or there is no roof.
    if a1 <= 0.0 || b1 >= 0.0 {
        return top;
    }
    let meet = ((b0 - a0) / (a1 - b1)).round().max(0.0) as usize;
    meet.clamp(top - near, top + near)
}

/// The straight line through values at `first`, `first + 1`, …: its value at 0
/// and its slope.
fn line(values: &[f64], first: f64) -> (f64, f64) {
    let count = values.len() as f64;
    let middle = (count - 1.0) / 2.0;
    let mean = values.iter().sum::<f64>() / count;
    let (mut above, mut below) = (0.0, 0.0);
    for (at, value) in values.iter().enumerate() {
        let x = at as f64 - middle;
        above += x * (value - mean);
        below += x * x;
    }
    let slope = above / below;
    (mean - slope * (first + middle), slope)
}
