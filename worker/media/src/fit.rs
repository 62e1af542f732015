//! Making audio fit: length, joins, speed. Plain arithmetic on samples.

use super::audio::{AudioError, Pcm};

/// Dubbed audio may differ from its segment by this much; beyond it, the service has
/// answered with something else than this segment's speech.
pub const TOLERANCE: f64 = 0.10;

/// Shorter than this, missing samples are the rounding of a resampler or codec.
const ROUNDING: usize = 64;

/// Makes `pcm` last exactly `want` sample frames, by trimming or padding its end.
///
/// # Errors
/// [`AudioError::WrongLength`] if it is more than 10 % off, [`AudioError::Empty`] if there
/// is nothing.
pub fn to_length(mut pcm: Pcm, want: usize, rate: u32) -> Result<Pcm, AudioError> {
    let got = pcm.frames();
    if got == 0 {
        return Err(AudioError::Empty);
    }
    if (got as f64 - want as f64).abs() > want as f64 * TOLERANCE {
        let ms = |frames: usize| frames as u64 * 1000 / u64::from(rate);
        return Err(AudioError::WrongLength {
            got_ms: ms(got),
            want_ms: ms(want),
        });
    }
    let channels = pcm.channels;
    if got > want {
        pcm.samples.truncate(want * channels);
        if got - want > ROUNDING {
            fade_out(&mut pcm, fade_frames(rate));
        }
    } else if want - got <= ROUNDING {
        // Holding the last sample is inaudible; a step to zero is a click.
        let last: Vec<f32> = pcm.samples[(got - 1) * channels..].to_vec();
        for _ in got..want {
            pcm.samples.extend(&last);
        }
    } else {
        fade_out(&mut pcm, fade_frames(rate));
        pcm.samples.resize(want * channels, 0.0);
    }
    Ok(pcm)
}

/// Frames of a short fade: 5 ms, too short to hear as a fade, long enough not to click.
pub fn fade_frames(rate: u32) -> usize {
    rate as usize / 200
}

fn fade_out(pcm: &mut Pcm, frames: usize) {
    let frames = frames.min(pcm.frames());
    let start = pcm.frames() - frames;
    for i in 0..frames {
        let gain = ramp(frames - i, frames + 1);
        for sample in &mut pcm.samples[(start + i) * pcm.channels..][..pcm.channels] {
            *sample *= gain;
        }
    }
}

/// Raised cosine from 0 to 1.
fn ramp(i: usize, n: usize) -> f32 {
    (0.5 - 0.5 * (std::f64::consts::PI * i as f64 / n as f64).cos()) as f32
}

/// Goes over from `from` to `to`, both starting at the same instant, over all of `from`.
///
/// Linear in amplitude with a cosine shape: where both carry the same sound, as with an
/// echoing service, the result is that sound exactly.
pub fn cross_fade(from: &[f32], to: &mut [f32], channels: usize) {
    let frames = from.len().min(to.len()) / channels;
    for i in 0..frames {
        let gain = ramp(i + 1, frames + 1);
        for c in i * channels..(i + 1) * channels {
            to[c] = from[c] + (to[c] - from[c]) * gain;
        }
    }
}

/// Softens the step where `next` follows `before`, if there is one.
///
/// A step that is large against how fast the sound moves on the calmer side is a click; its
/// height is added to the start of `next` and decays over 5 ms. After silence (a dub that was
/// too short, or faded out because it was too long) sound sets in at full swing: without a step
/// its bend alone clicks, so it fades in. Sound that simply goes on is left untouched, bit for
/// bit.
pub fn join(before: &[f32], next: &mut [f32], channels: usize, rate: u32) -> bool {
    let near = rate as usize / 1000;
    let length = fade_frames(rate).min(next.len() / channels);
    if before.len() < 2 * channels || length < 2 {
        return false;
    }
    let mut softened = false;
    for c in 0..channels {
        let last = before[before.len() - channels + c];
        let step = next[c] - last;
        let movement = |samples: &[f32]| {
            let values: Vec<f32> = samples.iter().skip(c).step_by(channels).copied().collect();
            values
                .windows(2)
                .map(|w| (w[1] - w[0]).abs())
                .fold(0.0_f32, f32::max)
        };
        let start = before.len().saturating_sub(near * channels);
        let usual = movement(&before[start / channels * channels..])
            .min(movement(&next[..(near * channels).min(next.len())]));
        let calm = before
            .iter()
            .skip(c)
            .step_by(channels)
            .rev()
            .take(near / 5)
            .all(|sample| sample.abs() < CLICK_FLOOR);
        if calm && movement(&next[..(near * channels).min(next.len())]) > CLICK_FLOOR {
            softened = true;
            for i in 0..length {
                next[i * channels + c] *= ramp(i + 1, length + 1);
            }
            continue;
        }
        if step.abs() > CLICK_FLOOR && step.abs() > 3.0 * usual {
            softened = true;
            for i in 0..length {
                next[i * channels + c] -= step * ramp(length - i, length);
            }
        }
    }
    softened
}

/// Steps below -46 dBFS are masked by anything.
const CLICK_FLOOR: f32 = 0.005;

/// Resamples `pcm` to `frames` sample frames: the slew that keeps lips in sync.
///
/// Windowed sinc, 32 taps; meant for ratios within a few percent of 1.
pub fn stretch(pcm: &Pcm, frames: usize) -> Pcm {
    let channels = pcm.channels;
    let input = pcm.frames();
    if frames == input || input == 0 {
        return if input == 0 {
            Pcm::silence(frames, channels)
        } else {
            pcm.clone()
        };
    }
    let table = sinc_table();
    let ratio = input as f64 / frames as f64;
    let mut samples = vec![0.0; frames * channels];
    for (n, out) in samples.chunks_exact_mut(channels).enumerate() {
        let position = n as f64 * ratio;
        let whole = position as usize;
        let phase = ((position - whole as f64) * PHASES as f64).round() as usize;
        let taps = &table[phase * TAPS..][..TAPS];
        for (k, tap) in taps.iter().enumerate() {
            let at = (whole + k).saturating_sub(TAPS / 2 - 1).min(input - 1);
            for (c, out) in out.iter_mut().enumerate() {
                *out += tap * pcm.samples[at * channels + c];
            }
        }
    }
    Pcm { samples, channels }
}

const TAPS: usize = 32;
const PHASES: usize = 1024;

fn sinc_table() -> &'static [f32] {
    static TABLE: std::sync::OnceLock<Vec<f32>> = std::sync::OnceLock::new();
    TABLE.get_or_init(|| {
        let mut table = Vec::with_capacity((PHASES + 1) * TAPS);
        for phase in 0..=PHASES {
            let fraction = phase as f64 / PHASES as f64;
            let taps: Vec<f64> = (0..TAPS)
                .map(|k| {
                    let x = k as f64 - (TAPS / 2 - 1) as f64 - fraction;
                    let sinc = if x.abs() < 1e-12 {
                        1.0
                    } else {
                        (std::f64::consts::PI * x).sin() / (std::f64::consts::PI * x)
                    };
                    let w = std::f64::consts::PI * x / (TAPS as f64 / 2.0);
                    sinc * (0.42 + 0.5 * w.cos() + 0.08 * (2.0 * w).cos()).max(0.0)
                })
                .collect();
            let sum: f64 = taps.iter().sum();
            table.extend(taps.iter().map(|tap| (tap / sum) as f32));
        }
        table
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: u32 = 48_000;

    fn tone(frames: usize, offset: usize) -> Pcm {
        let samples = (0..frames)
            .map(|n| {
                (0.5 * (2.0 * std::f64::consts::PI * 997.0 * (n + offset) as f64 / f64::from(RATE))
                    .sin()) as f32
            })
            .collect();
        Pcm {
            samples,
            channels: 1,
        }
    }

    fn largest_step(samples: &[f32]) -> f32 {
        samples
            .windows(2)
            .map(|w| (w[1] - w[0]).abs())
            .fold(0.0, f32::max)
    }

    #[test]
    fn within_ten_percent_fits_and_beyond_is_refused() {
        for (ratio, fits) in [
            (0.85, false),
            (0.91, true),
            (0.92, true),
            (1.0, true),
            (1.08, true),
            (1.2, false),
        ] {
            let pcm = tone((48_000.0 * ratio) as usize, 0);
            let fitted = to_length(pcm, 48_000, RATE);
            assert_eq!(fitted.is_ok(), fits, "{ratio}");
            if let Ok(pcm) = fitted {
                assert_eq!(pcm.frames(), 48_000);
                assert!(largest_step(&pcm.samples) < 0.07, "no click at {ratio}");
            }
        }
        assert_eq!(
            to_length(Pcm::silence(0, 2), 10, RATE),
            Err(AudioError::Empty)
        );
    }

    /// What was cut off is as if it had ended there: whatever follows, silence too, has no click.
    #[test]
    fn trimmed_and_padded_sound_fades_out_within_5_ms() {
        for frames in [45_000, 50_000] {
            let ones = Pcm {
                samples: vec![1.0; frames],
                channels: 1,
            };
            let fitted = to_length(ones, 48_000, RATE).unwrap().samples;
            let end = frames.min(48_000);
            let (before, fade) = fitted[..end].split_at(end - 240);
            assert!(
                before
                    .iter()
                    .all(|sample| sample.to_bits() == 1.0_f32.to_bits())
            );
            assert!(fade[239] < 0.001 && largest_step(fade) < 0.01, "{frames}");
            assert!(fitted[end..].iter().all(|sample| *sample == 0.0));
        }
    }

    #[test]
    fn a_few_missing_samples_are_held_not_zeroed() {
        let pcm = Pcm {
            samples: vec![0.5; 47_990],
            channels: 1,
        };
        assert_eq!(
            to_length(pcm, 48_000, RATE).unwrap().samples,
            vec![0.5; 48_000]
        );
    }

    #[test]
    fn fading_over_between_equal_sounds_changes_nothing() {
        let from = tone(480, 0);
        let mut to = from.clone();
        cross_fade(&from.samples, &mut to.samples, 1);
        assert_eq!(from, to);
    }

    #[test]
    fn sound_that_goes_on_is_not_touched_and_a_click_is_softened() {
        let (before, next) = (tone(4_800, 0), tone(4_800, 4_800));
        let mut joined = next.clone();
        assert!(!join(&before.samples, &mut joined.samples, 1, RATE));
        assert_eq!(joined, next);

        let mut jump = tone(4_800, 4_800 + 12);
        assert!(join(&before.samples, &mut jump.samples, 1, RATE));
        let all = [before.samples, jump.samples].concat();
        assert!(largest_step(&all) < 0.15, "{}", largest_step(&all));
    }

    #[test]
    fn sound_after_silence_sets_in_gently_at_any_phase() {
        for phase in 0..48 {
            let before = Pcm::silence(240, 1);
            let mut next = tone(4_800, phase);
            assert!(join(&before.samples, &mut next.samples, 1, RATE), "{phase}");
            // A bend is what clicks: the second difference, 0.065 where a full swing sets in.
            let all = [before.samples, next.samples].concat();
            let bend = all
                .windows(3)
                .map(|w| (w[2] - 2.0 * w[1] + w[0]).abs())
                .fold(0.0, f32::max);
            assert!(bend < 0.012, "{phase}: {bend}");
        }
    }

    #[test]
    fn stretching_keeps_the_tone_clean() {
        let pcm = tone(48_000, 0);
        let out = stretch(&pcm, 48_960);
        assert_eq!(out.frames(), 48_960);
        // The tone, 2 % lower, taken away by a fit of sine and cosine: what is left is noise.
        let w = 2.0 * std::f64::consts::PI * 997.0 / 1.02 / f64::from(RATE);
        let inner = &out.samples[100..48_860];
        let (mut s, mut c) = (0.0, 0.0);
        for (n, x) in inner.iter().enumerate() {
            s += f64::from(*x) * (w * n as f64).sin();
            c += f64::from(*x) * (w * n as f64).cos();
        }
        let k = 2.0 / inner.len() as f64;
        let residual: f64 = inner
            .iter()
            .enumerate()
            .map(|(n, x)| {
                (f64::from(*x) - k * s * (w * n as f64).sin() - k * c * (w * n as f64).cos())
                    .powi(2)
            })
            .sum::<f64>()
            / inner.len() as f64;
        assert!(10.0 * (residual / 0.125).log10() < -60.0, "{residual}");
    }

    #[test]
    fn stereo_stays_interleaved() {
        let pcm = Pcm {
            samples: (0..2_000).flat_map(|_| [0.25, -0.5]).collect(),
            channels: 2,
        };
        let out = stretch(&pcm, 2_030);
        assert_eq!(out.frames(), 2_030);
        assert!(
            out.samples
                .chunks(2)
                .all(|f| (f[0] - 0.25).abs() < 1e-4 && (f[1] + 0.5).abs() < 1e-4)
        );
    }
}
