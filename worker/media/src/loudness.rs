//! How loud a sound is, and making it so. Plain arithmetic on samples.

use dub_engine::loudness::CEILING_DB;
use dub_engine::{Correction, Loudness};

use super::audio::Pcm;
use super::fit;
use super::limiter::Limiter;

/// Windows in which it is loudest.
const WINDOW_MS: usize = 10;
/// Points between two samples that are looked at for peaks, as the ITU's true peak does.
const BETWEEN: usize = 3;
/// Between samples below this, no peak comes near full scale.
const LOW: f32 = 0.4;
/// How long a change of gain takes where the sound goes on.
const RAMP_MS: usize = 20;

fn db(power: f64) -> f64 {
    10.0 * power.log10()
}

/// Measures `pcm` as what is heard in a segment of `frames` frames.
pub fn measure(pcm: &Pcm, frames: usize, rate: u32) -> Loudness {
    let power = |samples: &[f32]| -> f64 {
        let squares = samples.iter().map(|x| f64::from(*x) * f64::from(*x));
        squares.sum()
    };
    let length = frames.max(pcm.frames()).max(1) * pcm.channels;
    let window = (rate as usize * WINDOW_MS / 1000).max(1) * pcm.channels;
    let loudest = pcm
        .samples
        .chunks(window)
        .map(|chunk| power(chunk) / chunk.len() as f64)
        .fold(0.0, f64::max);
    let peak = peaks(pcm).into_iter().fold(0.0, f32::max);
    Loudness {
        mean: db(power(&pcm.samples) / length as f64),
        loudest: db(loudest),
        peak: 2.0 * db(f64::from(peak)),
    }
}

/// The gain of a correction, as a factor.
pub fn factor(correction: Option<Correction>) -> f32 {
    correction.map_or(1.0, |correction| 10_f64.powf(correction.gain / 20.0) as f32)
}

/// Brings a dub to its level and its peaks under the ceiling. `before` is the factor of the sound
/// that it goes on from: from there to its own the change is gradual.
pub fn correct(pcm: &mut Pcm, correction: Option<Correction>, before: f32, rate: u32) {
    let gain = factor(correction);
    if gain.to_bits() != 1.0_f32.to_bits() || before.to_bits() != gain.to_bits() {
        let ramp = (rate as usize * RAMP_MS / 1000).max(1);
        for (at, frame) in pcm.samples.chunks_exact_mut(pcm.channels).enumerate() {
            let share = (at as f32 / ramp as f32).min(1.0);
            let gain = before + (gain - before) * share;
            for sample in frame {
                *sample *= gain;
            }
        }
    }
    if correction.is_some() {
        let ceiling = 10_f64.powf(CEILING_DB / 20.0) as f32;
        let peaks = peaks(pcm);
        if peaks.iter().any(|peak| *peak > ceiling) {
            pcm.samples = Limiter::whole(&pcm.samples, &peaks, pcm.channels, rate, ceiling);
        }
    }
}

/// The peak of each frame, and halfway to its neighbours, of all channels.
fn peaks(pcm: &Pcm) -> Vec<f32> {
    let channels = pcm.channels;
    let samples = pcm.samples.chunks_exact(channels);
    let mut peaks: Vec<f32> = samples
        .map(|frame| frame.iter().fold(0.0_f32, |peak, x| peak.max(x.abs())))
        .collect();
    let (Some(last), own) = (pcm.frames().checked_sub(1), peaks.clone()) else {
        return peaks;
    };
    if own.iter().all(|peak| *peak < LOW) {
        return peaks;
    }
    for channel in 0..channels {
        // The sound stands still before its begin and after its end.
        let line: Vec<f32> = (0..own.len() + fit::TAPS)
            .map(|at| at.saturating_sub(fit::TAPS / 2 - 1).min(last))
            .map(|at| pcm.samples[at * channels + channel])
            .collect();
        for (at, (pair, window)) in own.windows(2).zip(line.windows(fit::TAPS)).enumerate() {
            if pair[0].max(pair[1]) < LOW {
                continue;
            }
            let between = fit::between::<BETWEEN>(window).into_iter();
            let between = between.fold(0.0_f32, |peak, x| peak.max(x.abs()));
            peaks[at] = peaks[at].max(between);
            peaks[at + 1] = peaks[at + 1].max(between);
        }
    }
    peaks
}

#[cfg(test)]
mod tests {
    use super::*;
    use dub_engine::LoudnessChange;

    const RATE: u32 = 48_000;

    /// A stereo tone that peaks at `peak`, with `phase` in eighths of a period.
    fn tone(frames: usize, hz: f64, peak: f64, phase: f64) -> Pcm {
        let w = std::f64::consts::TAU * hz / f64::from(RATE);
        let sample = |n: usize| (peak * (w * n as f64 + phase).sin()) as f32;
        Pcm {
            samples: (0..frames).flat_map(|n| [sample(n); 2]).collect(),
            channels: 2,
        }
    }

    fn correction(gain: f64) -> Option<Correction> {
        Some(Correction {
            change: LoudnessChange::Raised,
            difference: -gain,
            gain,
        })
    }

    #[test]
    fn levels_are_those_of_the_segment_and_peaks_those_between_samples() {
        let second = RATE as usize;
        let full = measure(&tone(second, 997.0, 1.0, 0.0), second, RATE);
        assert!(
            (full.mean + 3.01).abs() < 0.01 && full.peak.abs() < 0.05,
            "{full:?}"
        );
        // A quarter of the segment: 6 dB less of it, as loud where it is loudest.
        let part = measure(&tone(second / 4, 997.0, 1.0, 0.0), second, RATE);
        assert!((part.mean + 9.03).abs() < 0.01, "{part:?}");
        assert!((part.loudest - full.loudest).abs() < 0.1, "{part:?}");
        // A tone at a quarter of the rate whose samples all miss its peaks.
        let hidden = tone(second, 12_000.0, 1.0, std::f64::consts::FRAC_PI_4);
        let highest = hidden.samples[0].abs();
        assert!(highest < 0.71, "{highest}");
        let found = measure(&hidden, second, RATE).peak;
        // Where it sets in, the sound overshoots.
        assert!((-0.1..0.5).contains(&found), "{found}");
        // In the right channel alone as well.
        let mut right = hidden;
        right
            .samples
            .iter_mut()
            .step_by(2)
            .for_each(|left| *left = 0.0);
        let found = measure(&right, second, RATE).peak;
        assert!((-0.1..0.5).contains(&found), "{found}");
        let nothing = measure(&Pcm::silence(0, 2), second, RATE);
        assert_eq!(
            (nothing.mean, nothing.peak),
            (f64::NEG_INFINITY, f64::NEG_INFINITY)
        );
    }

    #[test]
    fn nothing_gets_over_the_ceiling_not_even_between_samples() {
        for (hz, phase) in [
            (997.0, 0.0),
            (12_000.0, std::f64::consts::FRAC_PI_4),
            (60.0, 0.3),
        ] {
            let mut pcm = tone(RATE as usize, hz, 0.5, phase);
            correct(&mut pcm, correction(20.0), 1.0, RATE);
            let loud = measure(&pcm, 0, RATE);
            assert!(loud.peak <= -0.9, "{hz}: {loud:?}");
            assert!(loud.mean > -4.3, "turned down too far at {hz}: {loud:?}");
        }
    }

    #[test]
    fn a_gain_sets_in_gradually_where_the_sound_goes_on() {
        let mut pcm = tone(RATE as usize, 997.0, 0.1, 0.0);
        let own = pcm.clone();
        correct(&mut pcm, correction(6.0), 1.0, RATE);
        let ratio = |at: usize| pcm.samples[at * 2] / own.samples[at * 2];
        assert!((ratio(12) - 1.0).abs() < 0.02 && (ratio(959) - 1.995).abs() < 0.01);
        assert!((ratio(480) - 1.5).abs() < 0.01, "{}", ratio(480));
        let mut echo = own.clone();
        correct(&mut echo, None, 1.0, RATE);
        assert_eq!(echo, own);
    }
}
