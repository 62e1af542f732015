//! A steady tone: how loud it is, and what remains when it is taken away, which is what was done
//! to it.

use super::segments::amplitude;
use super::{Sound, decibels, median};
use std::f64::consts::TAU;

/// The tone is fitted and removed in blocks of this length.
const BLOCK_SECONDS: f64 = 0.1;
/// At either end of the sound the encoder is still settling.
const SETTLING_SECONDS: f64 = 0.5;

/// Peak of a tone of `hz` in the `window` seconds around `at`, dB re full scale; -200 outside the
/// sound.
///
/// Another tone does not disturb, also where it is 20 dB louder, from `8 / window` Hz away on.
pub fn tone_db(sound: &Sound, hz: f64, at: f64, window: f64) -> f64 {
    let samples = sound.between(at - window / 2.0, at + window / 2.0);
    decibels(amplitude(samples, hz / f64::from(sound.rate)))
}

/// What remains of one block.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Residual {
    /// The block's middle, in seconds.
    pub at: f64,
    /// What remains (RMS) against the tone (RMS), in dB.
    pub db: f64,
}

/// What remains at the joins and elsewhere.
#[derive(Clone, Debug, PartialEq)]
pub struct ToneReport {
    /// One block centred on each join.
    pub joins: Vec<Residual>,
    /// Every block that touches no join.
    pub elsewhere: Vec<Residual>,
    /// Peak of the tone, dB re full scale (median of all blocks).
    pub tone_db: f64,
}

impl ToneReport {
    /// The middle value at the joins, in dB.
    pub fn median_at_joins(&self) -> f64 {
        median(self.joins.iter().map(|block| block.db).collect())
    }

    /// The middle value elsewhere, in dB.
    pub fn median_elsewhere(&self) -> f64 {
        median(self.elsewhere.iter().map(|block| block.db).collect())
    }

    /// The join with most left over.
    pub fn worst_join(&self) -> Option<Residual> {
        let by_db = |a: &&Residual, b: &&Residual| a.db.total_cmp(&b.db);
        self.joins.iter().max_by(by_db).copied()
    }

    /// The share of blocks elsewhere with less left over than `db`, 0 to 1.
    pub fn share_elsewhere_below(&self, db: f64) -> f64 {
        let below = self.elsewhere.iter().filter(|block| block.db < db).count();
        below as f64 / self.elsewhere.len().max(1) as f64
    }
}

/// Removes a tone of `hz` by least squares, block by block, and says what is
/// left at each join (seconds) and everywhere else.
///
/// Each block has its own amplitude and phase, so a slow slew leaves nothing;
/// a jump of phase or level inside a block, a click or a hole does.
pub fn residual_without_tone(sound: &Sound, hz: f64, joins: &[f64]) -> ToneReport {
    let rate = f64::from(sound.rate);
    let block = (BLOCK_SECONDS * rate) as usize;
    let mut tone = Vec::new();
    let mut measure = |first: usize| {
        let samples = sound.samples.get(first..first + block)?;
        let (amplitude, left) = fit(samples, hz / rate);
        tone.push(amplitude);
        Some(Residual {
            at: sound.time_of((first + block / 2) as f64),
            db: decibels(left) - decibels(amplitude / 2_f64.sqrt()),
        })
    };
    let at_joins = joins
        .iter()
        .filter_map(|&join| measure(sound.index_of(join).checked_sub(block / 2)?))
        .collect();

    let settle = (SETTLING_SECONDS * rate) as usize;
    let last = sound.samples.len().saturating_sub(settle + block);
    let elsewhere = (settle..last)
        .step_by(block)
        .filter(|&first| {
            let middle = sound.time_of((first + block / 2) as f64);
            joins
                .iter()
                .all(|join| (middle - join).abs() > BLOCK_SECONDS)
        })
        .filter_map(measure)
        .collect();
    ToneReport {
        joins: at_joins,
        elsewhere,
        tone_db: decibels(median(tone)),
    }
}

/// The peak of a tone (at a share of the sample rate) in a block, and the RMS of
/// what is left without it and without a constant.
fn fit(samples: &[f32], share_of_rate: f64) -> (f64, f64) {
    // Normal equations for cosine, sine and one.
    let mut normal = [[0.0_f64; 4]; 3];
    let basis = |at: usize| {
        let (sin, cos) = (at as f64 * share_of_rate * TAU).sin_cos();
        [cos, sin, 1.0]
    };
    for (at, &value) in samples.iter().enumerate() {
        let row = basis(at);
        for (i, line) in normal.iter_mut().enumerate() {
            for (j, cell) in line.iter_mut().take(3).enumerate() {
                *cell += row[i] * row[j];
            }
            line[3] += row[i] * f64::from(value);
        }
    }
    let weights = solve(normal);
    let sum: f64 = samples
        .iter()
        .enumerate()
        .map(|(at, &value)| {
            let row = basis(at);
            let fitted: f64 = row.iter().zip(weights).map(|(a, b)| a * b).sum();
            (f64::from(value) - fitted).powi(2)
        })
        .sum();
    let left = (sum / samples.len().max(1) as f64).sqrt();
    (weights[0].hypot(weights[1]), left)
}

/// Gauss-Jordan; the equations of [`fit`] are well conditioned.
fn solve(mut rows: [[f64; 4]; 3]) -> [f64; 3] {
    for pivot in 0..3 {
        let lead = rows[pivot][pivot];
        if lead.abs() < 1e-12 {
            return [0.0; 3];
        }
        for cell in &mut rows[pivot] {
            *cell /= lead;
        }
        let line = rows[pivot];
        for (at, row) in rows.iter_mut().enumerate() {
            if at != pivot {
                let factor = row[pivot];
                for (cell, value) in row.iter_mut().zip(line) {
                    *cell -= factor * value;
                }
            }
        }
    }
    [rows[0][3], rows[1][3], rows[2][3]]
}
