//! Making audio fit: length, joins, speed. Plain arithmetic on samples.

use std::ops::Range;

use dub_engine::{Answer, Placement};

use super::audio::Pcm;
use super::error::MediaError;
use super::tempo;

/// Shorter than this, missing samples are the rounding of a resampler or codec.
const ROUNDING: usize = 64;

/// Windows in which loudness is measured.
const WINDOW_MS: usize = 10;
/// Windows this much quieter than the loudest are no speech (40 dB): soft consonants are louder.
const SPEECH_RANGE: f32 = 0.01;
/// Quieter than this (-60 dBFS) is no speech, whatever the rest is.
const SILENCE: f32 = 0.001;
/// Left of the silence beside speech: sounds that set in softly begin before they are loud.
const MARGIN_WINDOWS: usize = 2;

/// How long an answer is, and how much of that is silence at its ends.
pub fn measure(pcm: &Pcm, rate: u32) -> Answer {
    let window = (rate as usize * WINDOW_MS / 1000).max(1) * pcm.channels;
    let levels: Vec<f32> = pcm
        .samples
        .chunks(window)
        .map(|chunk| (chunk.iter().map(|x| x * x).sum::<f32>() / chunk.len() as f32).sqrt())
        .collect();
    let loudest = levels.iter().copied().fold(0.0, f32::max);
    let floor = (loudest * SPEECH_RANGE).max(SILENCE);
    let speech = |level: &f32| *level > floor;
    let frames = pcm.frames();
    let (first, last) = (
        levels.iter().position(speech),
        levels.iter().rposition(speech),
    );
    let (head, tail) = match (first, last) {
        (Some(first), Some(last)) => {
            let per = window / pcm.channels;
            let head = first.saturating_sub(MARGIN_WINDOWS) * per;
            (
                head,
                frames.saturating_sub((last + 1 + MARGIN_WINDOWS) * per),
            )
        }
        _ => (0, frames),
    };
    Answer {
        frames: frames as u64,
        head: head as u64,
        tail: tail as u64,
    }
}

/// The sound of an answer as it was placed in a slot of `want` frames: cut, stretched in time, and
/// faded at every end that is not its own or is followed by silence.
///
/// # Errors
/// The time stretcher's.
pub fn lay(pcm: &Pcm, placed: &Placement, want: usize, rate: u32) -> Result<Pcm, MediaError> {
    let channels = pcm.channels;
    let (from, take) = (placed.from as usize, placed.take as usize);
    let (at, frames) = (placed.at as usize, placed.frames as usize);
    let mut sound = Pcm {
        samples: pcm.samples[from * channels..(from + take) * channels].to_vec(),
        channels,
    };
    if !placed.is_untouched() {
        sound = tempo::change(&sound, frames, rate)?;
    }
    let fade = fade_frames(rate);
    if from > 0 || at > 0 {
        fade_in(&mut sound, fade);
    }
    let missing = want.saturating_sub(at + frames);
    let surplus = pcm.frames() - from - take;
    if missing > ROUNDING || surplus > ROUNDING || !placed.is_untouched() {
        fade_out(&mut sound, fade);
    } else if missing > 0 && frames > 0 {
        // Holding the last sample is inaudible; a step to zero is a click.
        let last: Vec<f32> = sound.samples[(frames - 1) * channels..].to_vec();
        for _ in 0..missing {
            sound.samples.extend(&last);
        }
    }
    Ok(sound)
}

/// Frames of a short fade: 5 ms, too short to hear as a fade, long enough not to click.
pub fn fade_frames(rate: u32) -> usize {
    rate as usize / 200
}

/// Lets the last `frames` fade to nothing.
pub fn fade_out(pcm: &mut Pcm, frames: usize) {
    let frames = frames.min(pcm.frames());
    let start = pcm.frames() - frames;
    for i in 0..frames {
        let gain = ramp(frames - i, frames + 1);
        for sample in &mut pcm.samples[(start + i) * pcm.channels..][..pcm.channels] {
            *sample *= gain;
        }
    }
}

/// Lets the first `frames` grow from nothing.
pub fn fade_in(pcm: &mut Pcm, frames: usize) {
    let from = vec![0.0; frames.min(pcm.frames()) * pcm.channels];
    cross_fade(&from, &mut pcm.samples, pcm.channels);
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

/// Makes `pcm` `frames` sample frames long: the correction that keeps lips in sync. A pause takes it up
/// where there is one that is long enough; else all of it is resampled.
///
/// Windowed sinc, 32 taps; meant for ratios within a few percent of 1.
pub fn stretch(pcm: &Pcm, frames: usize) -> Pcm {
    stretch_parts(pcm, frames, std::slice::from_ref(&(0..frames)))
}

/// Like [`stretch`], but only the first and the last so many frames are sure to be there: all that is
/// heard of an original beneath a dub, at a tenth of the work.
pub fn stretch_ends(pcm: &Pcm, frames: usize, ends: usize) -> Pcm {
    let ends = ends.min(frames / 2);
    stretch_parts(pcm, frames, &[0..ends, frames - ends..frames])
}

fn stretch_parts(pcm: &Pcm, frames: usize, parts: &[Range<usize>]) -> Pcm {
    let channels = pcm.channels;
    let input = pcm.frames();
    if frames == input || input == 0 {
        return if input == 0 {
            Pcm::silence(frames, channels)
        } else {
            pcm.clone()
        };
    }
    if let Some(middle) = pause(pcm, 4 * input.abs_diff(frames)) {
        let mut samples = pcm.samples.clone();
        let at = middle * channels;
        if frames > input {
            let more = std::iter::repeat_n(0.0, (frames - input) * channels);
            samples.splice(at..at, more);
        } else {
            let half = (input - frames) / 2 * channels;
            samples.drain(at - half..at - half + (input - frames) * channels);
        }
        return Pcm { samples, channels };
    }
    let table = sinc_table();
    let ratio = input as f64 / frames as f64;
    let mut samples = vec![0.0; frames * channels];
    // Each channel by itself, so that what the taps meet lies side by side.
    let mut line = Vec::with_capacity(input + TAPS);
    for channel in 0..channels {
        let sound = pcm.samples[channel..].iter().step_by(channels).copied();
        line.clear();
        line.extend(std::iter::repeat_n(pcm.samples[channel], TAPS / 2 - 1));
        line.extend(sound);
        let last = pcm.samples[(input - 1) * channels + channel];
        line.extend(std::iter::repeat_n(last, TAPS / 2));
        for n in parts.iter().flat_map(Range::clone) {
            let position = n as f64 * ratio;
            let whole = position as usize;
            let phase = ((position - whole as f64) * PHASES as f64).round() as usize;
            samples[n * channels + channel] =
                weigh(&table[phase * TAPS..][..TAPS], &line[whole..][..TAPS]);
        }
    }
    Pcm { samples, channels }
}

/// The sum of the samples of a window, each by its tap.
fn weigh(taps: &[f32], window: &[f32]) -> f32 {
    // Sums side by side: one after the other takes six times as long.
    let mut sums = [0.0; LANES];
    let lanes = taps.chunks_exact(LANES).zip(window.chunks_exact(LANES));
    for (taps, samples) in lanes {
        for ((sum, tap), sample) in sums.iter_mut().zip(taps).zip(samples) {
            *sum += tap * sample;
        }
    }
    sums.iter().sum()
}

/// The middle of the longest stretch without a sound, if it is at least so many frames.
fn pause(pcm: &Pcm, least: usize) -> Option<usize> {
    let (mut longest, mut from) = (0..0, 0);
    let frames = pcm.samples.chunks_exact(pcm.channels);
    for (at, frame) in frames.enumerate() {
        if frame.iter().any(|sample| sample.abs() > INAUDIBLE) {
            from = at + 1;
        } else if at + 1 - from > longest.len() {
            longest = from..at + 1;
        }
    }
    (longest.len() >= least.max(1)).then_some(usize::midpoint(longest.start, longest.end))
}

/// -80 dBFS: the hiss of a codec between words is more.
const INAUDIBLE: f32 = 1e-4;

/// The sound at `N` points spread evenly between the two middle samples of a window of [`TAPS`].
pub(crate) fn between<const N: usize>(window: &[f32]) -> [f32; N] {
    let table = sinc_table();
    std::array::from_fn(|point| {
        let taps = &table[(point + 1) * PHASES / (N + 1) * TAPS..][..TAPS];
        weigh(taps, window)
    })
}

pub(crate) const TAPS: usize = 32;
const LANES: usize = 8;
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
    use dub_engine::{DubFit, DubFitConfig, DubFitMode};
    use std::time::Duration;

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

    /// `pcm` in a slot of 1 s, as `--dub-fit refuse` has it.
    fn to_length(pcm: &Pcm) -> Pcm {
        let config = DubFitConfig {
            mode: DubFitMode::Refuse,
            max_speed: 1.0,
            spill: Duration::ZERO,
            rate: RATE,
        };
        let placed = DubFit::new(config).place(measure(pcm, RATE), 48_000, 48_000);
        let placed = placed.unwrap();
        assert_eq!(placed.at, 0);
        let mut sound = lay(pcm, &placed, 48_000, RATE).unwrap();
        sound.samples.resize(48_000 * pcm.channels, 0.0);
        sound
    }

    #[test]
    fn within_ten_percent_fits_without_a_click() {
        for ratio in [0.91, 0.92, 1.0, 1.08] {
            let pcm = to_length(&tone((48_000.0 * ratio) as usize, 0));
            assert!(largest_step(&pcm.samples) < 0.07, "no click at {ratio}");
        }
    }

    #[test]
    fn silence_at_the_ends_is_measured_and_soft_sounds_are_not_cut() {
        let mut pcm = Pcm::silence(96_000, 1);
        pcm.samples[12_000..60_000].copy_from_slice(&tone(48_000, 0).samples);
        let answer = measure(&pcm, RATE);
        assert_eq!(
            answer,
            Answer {
                frames: 96_000,
                head: 11_040,
                tail: 35_040
            }
        );
        // 30 dB down is a soft consonant, 60 dB down the noise of a microphone.
        for (gain, head) in [(0.0316, 0), (0.001, 11_040)] {
            let mut pcm = pcm.clone();
            for (n, sample) in pcm.samples[..12_000].iter_mut().enumerate() {
                *sample = tone(1, n).samples[0] * gain;
            }
            assert_eq!(measure(&pcm, RATE).head, head, "{gain}");
        }
        // In stereo as in mono, one channel as loud as both.
        let both = |pcm: &Pcm, right: f32| Pcm {
            samples: pcm.samples.iter().flat_map(|x| [*x, right * x]).collect(),
            channels: 2,
        };
        for right in [-1.0, 0.0] {
            assert_eq!(measure(&both(&pcm, right), RATE), answer);
        }
        let silent = measure(&Pcm::silence(500, 2), RATE);
        assert_eq!(
            silent,
            Answer {
                frames: 500,
                head: 0,
                tail: 500
            }
        );
        assert_eq!(measure(&Pcm::silence(0, 2), RATE).frames, 0);
    }

    /// What was cut off is as if it had ended there: whatever follows, silence too, has no click.
    #[test]
    fn trimmed_and_padded_sound_fades_out_within_5_ms() {
        for frames in [45_000, 50_000] {
            let ones = Pcm {
                samples: vec![1.0; frames],
                channels: 1,
            };
            let fitted = to_length(&ones).samples;
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
        assert_eq!(to_length(&pcm).samples, vec![0.5; 48_000]);
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

    /// Each channel goes on from its own last sample.
    #[test]
    fn sound_that_goes_on_is_left_alone_in_every_channel() {
        let whole: Vec<f32> = (0..4_800)
            .flat_map(|n| {
                let turn = std::f64::consts::TAU * 997.0 * f64::from(n) / f64::from(RATE);
                [(0.5 * turn.sin()) as f32, (0.5 * turn.cos()) as f32]
            })
            .collect();
        let (before, next) = whole.split_at(4_800);
        let mut joined = next.to_vec();
        assert!(!join(before, &mut joined, 2, RATE));
        assert_eq!(joined, next);
        // A step in one of them is softened there, and the other is left.
        for channel in 0..2 {
            let mut joined: Vec<f32> = next.to_vec();
            joined
                .iter_mut()
                .skip(channel)
                .step_by(2)
                .for_each(|x| *x += 0.4);
            let stepped = joined.clone();
            assert!(join(before, &mut joined, 2, RATE));
            for (n, (is, was)) in joined.iter().zip(&stepped).enumerate() {
                let moved = is.to_bits() != was.to_bits();
                assert!(!moved || n % 2 == channel, "{n}");
            }
            assert!((joined[channel] - before[4_798 + channel]).abs() < 0.1);
        }
    }

    #[test]
    fn the_ends_are_what_they_are_in_the_whole() {
        let pcm = tone(48_000, 0);
        for (length, ends) in [
            (48_500, 240),
            (47_500, 240),
            (48_500, 30_000),
            (48_000, 240),
        ] {
            let (whole, out) = (stretch(&pcm, length), stretch_ends(&pcm, length, ends));
            let ends = ends.min(length / 2);
            assert_eq!(out.frames(), length);
            assert_eq!(out.samples[..ends], whole.samples[..ends]);
            let last = length - ends;
            assert_eq!(out.samples[last..], whole.samples[last..]);
        }
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

    #[test]
    fn a_pause_takes_up_the_correction_and_what_sounds_stays_as_it_is() {
        let sound = |range: std::ops::Range<usize>| range.map(|n| (n as f32 * 0.3).sin());
        let samples: Vec<f32> = sound(0..4_000)
            .chain(vec![0.0; 2_000])
            .chain(sound(0..4_000))
            .collect();
        let pcm = Pcm {
            samples,
            channels: 1,
        };
        for frames in [10_400, 9_600, 10_001, 9_999] {
            let out = stretch(&pcm, frames);
            assert_eq!(out.frames(), frames);
            assert_eq!(out.samples[..4_000], pcm.samples[..4_000], "{frames}");
            assert_eq!(
                out.samples[frames - 4_000..],
                pcm.samples[6_000..],
                "{frames}"
            );
        }
        // Too short for so much.
        let out = stretch(&pcm, 10_600);
        assert_eq!(out.frames(), 10_600);
        assert_ne!(out.samples[..4_000], pcm.samples[..4_000]);
    }
}
