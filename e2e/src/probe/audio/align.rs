//! Output sound laid over input sound: how far apart, second by second.

use super::{Sound, highest, median};
use anyhow::{Result, ensure};
use rustfft::FftPlanner;
use rustfft::num_complex::Complex;
use std::sync::Arc;

/// The whole is laid over the whole at about this rate first.
const COARSE_HZ: u32 = 8000;

/// How two sounds lie over each other.
#[derive(Clone, Debug, PartialEq)]
pub struct Alignment {
    /// Where the output's content lies relative to the input's, in milliseconds
    /// (median over the seconds that correlate).
    pub offset_ms: f64,
    /// Each second of the input.
    pub seconds: Vec<SecondAlignment>,
}

/// One second of the input found in the output.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SecondAlignment {
    /// Where the second starts on the input's timeline, in seconds.
    pub at: f64,
    /// How much later it is heard on the output's timeline, in milliseconds.
    pub offset_ms: f64,
    /// How alike the two are there, -1 to 1; 1 is the same but for level.
    pub correlation: f64,
}

impl Alignment {
    /// The furthest any second is from the offset common to all, in milliseconds.
    pub fn worst_deviation_ms(&self) -> f64 {
        self.seconds
            .iter()
            .map(|second| (second.offset_ms - self.offset_ms).abs())
            .fold(0.0, f64::max)
    }
}

/// Finds every whole second of `input` in `output`, up to `search_ms` away from
/// where the whole fits best. The result is true to a few hundredths of a
/// millisecond where the two are alike.
pub fn align(input: &Sound, output: &Sound, search_ms: f64) -> Result<Alignment> {
    let resampled;
    let output = if input.rate == output.rate {
        output
    } else {
        resampled = resample(output, input.rate);
        &resampled
    };
    let rate = f64::from(input.rate);
    let window = input.rate as usize;
    ensure!(input.samples.len() >= window, "less than a second of input");
    ensure!(!output.samples.is_empty(), "no output");

    let mut matcher = Matcher(FftPlanner::new());
    // Samples by which the output's content is later in its array.
    let coarse = coarse_lag(&mut matcher, input, output);
    let search = (search_ms / 1000.0 * rate).ceil() as i64;
    let mut seconds = Vec::new();
    for first in (0..=input.samples.len() - window).step_by(window) {
        let needle = &input.samples[first..first + window];
        let from = first as i64 + coarse - search;
        let hay: Vec<f32> = (from..from + window as i64 + 2 * search)
            .map(|at| output.sample(at))
            .collect();
        let (lag, correlation) = matcher.best(needle, &hay);
        let heard = output.time_of(from as f64 + lag);
        let at = input.time_of(first as f64);
        seconds.push(SecondAlignment {
            at,
            offset_ms: (heard - at) * 1000.0,
            correlation,
        });
    }
    let alike = seconds.iter().filter(|second| second.correlation > 0.5);
    let offset_ms = median(alike.map(|second| second.offset_ms).collect());
    Ok(Alignment { offset_ms, seconds })
}

/// Where the whole input fits best in the whole output, in samples.
fn coarse_lag(matcher: &mut Matcher, input: &Sound, output: &Sound) -> i64 {
    let step = (input.rate / COARSE_HZ).max(1) as usize;
    let thin = |samples: &[f32]| -> Vec<f32> {
        samples
            .chunks_exact(step)
            .map(|chunk| chunk.iter().sum::<f32>() / step as f32)
            .collect()
    };
    let (needle, hay) = (thin(&input.samples), thin(&output.samples));
    // Room for an input that starts before the output and one that ends after.
    let mut padded = vec![0.0; needle.len()];
    padded.extend_from_slice(&hay);
    padded.extend(std::iter::repeat_n(0.0, needle.len()));
    let lag = matcher.best_overlap(&needle, &padded);
    (lag as i64 - needle.len() as i64) * step as i64
}

/// Cross-correlation by Fourier transform; keeps plans between calls.
struct Matcher(FftPlanner<f32>);

impl Matcher {
    /// Sum of products of `needle` with `hay` at every lag where it fits.
    fn products(&mut self, needle: &[f32], hay: &[f32]) -> Vec<f32> {
        let size = hay.len().next_power_of_two();
        let forward = self.0.plan_fft_forward(size);
        let backward = self.0.plan_fft_inverse(size);
        let spectrum = |samples: &[f32], fft: &Arc<dyn rustfft::Fft<f32>>| {
            let mut buffer = vec![Complex::default(); size];
            for (slot, &value) in buffer.iter_mut().zip(samples) {
                slot.re = value;
            }
            fft.process(&mut buffer);
            buffer
        };
        let mut product = spectrum(hay, &forward);
        for (a, b) in product.iter_mut().zip(spectrum(needle, &forward)) {
            *a *= b.conj();
        }
        backward.process(&mut product);
        let scale = 1.0 / size as f32;
        product
            .iter()
            .take(hay.len() + 1 - needle.len())
            .map(|value| value.re * scale)
            .collect()
    }

    /// The lag of the greatest product: right where all is alike, robust where
    /// only parts are.
    fn best_overlap(&mut self, needle: &[f32], hay: &[f32]) -> usize {
        highest(&self.products(needle, hay))
    }

    /// The lag, with its fraction, and the value of the best normalised
    /// correlation.
    fn best(&mut self, needle: &[f32], hay: &[f32]) -> (f64, f64) {
        let products = self.products(needle, hay);
        let energy = |samples: &[f32]| -> f64 {
            samples.iter().map(|&value| f64::from(value).powi(2)).sum()
        };
        let own = energy(needle);
        let mut under = energy(&hay[..needle.len()]);
        let mut scores = Vec::with_capacity(products.len());
        for (lag, &product) in products.iter().enumerate() {
            if lag > 0 {
                under += f64::from(hay[lag + needle.len() - 1]).powi(2)
                    - f64::from(hay[lag - 1]).powi(2);
            }
            let scale = (own * under.max(0.0)).sqrt();
            scores.push(if scale > own * 1e-6 {
                f64::from(product) / scale
            } else {
                0.0
            });
        }
        let best = highest(&scores);
        let peak = scores[best];
        let (Some(&before), Some(&after)) = (
            best.checked_sub(1).and_then(|at| scores.get(at)),
            scores.get(best + 1),
        ) else {
            return (best as f64, peak);
        };
        // A parabola through the three highest points.
        let bend = before - 2.0 * peak + after;
        let shift = if bend < 0.0 {
            (0.5 * (before - after) / bend).clamp(-0.5, 0.5)
        } else {
            0.0
        };
        (best as f64 + shift, peak)
    }
}

/// The same sound at another rate, by a windowed sinc of 32 taps.
fn resample(sound: &Sound, rate: u32) -> Sound {
    const HALF: i64 = 16;
    let ratio = f64::from(sound.rate) / f64::from(rate);
    // Going down, what would fold back is cut off.
    let cut = (1.0 / ratio).min(1.0);
    let count = (sound.samples.len() as f64 / ratio) as usize;
    let samples = (0..count)
        .map(|at| {
            let place = at as f64 * ratio;
            let middle = place.floor() as i64;
            let mut sum = 0.0;
            for tap in middle - HALF + 1..=middle + HALF {
                let away = tap as f64 - place;
                let x = std::f64::consts::PI * away * cut;
                let sinc = if x.abs() < 1e-9 { 1.0 } else { x.sin() / x };
                let window = 0.5 + 0.5 * (std::f64::consts::PI * away / HALF as f64).cos();
                sum += f64::from(sound.sample(tap)) * sinc * window * cut;
            }
            sum as f32
        })
        .collect();
    Sound::from_samples(rate, sound.start(), samples)
}
