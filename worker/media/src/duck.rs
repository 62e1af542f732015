//! Voice-over: the original goes on, quieter, under the dub. Plain arithmetic on samples.
//!
//! ```text
//! original ─▶ Bed (gain, ramps) ─▶ Splicer ─┐
//!                                           ├─▶ sum ─▶ Limiter ─▶ what is heard
//! dub, or silence ───────────────▶ Splicer ─┘
//! ```
//!
//! Bed and dub are joined separately: the bed is one sound that never ends, whatever the dub does
//! above it, and a dub that sets in or ends does so as gently as if it were alone.

use super::audio::Pcm;
use super::limiter::Limiter;
use super::splice::{Splicer, Voice};

/// How long the original takes from full level to the level under a dub, and back. Much shorter
/// sounds like a switch; much longer, and the dub's first words compete with the original.
const RAMP_MS: usize = 300;

/// The original's gain, carried from segment to segment.
///
/// It is full under an original segment and at the set level under a dubbed one; it changes over
/// 300 ms from where a segment of the other kind begins, even in decibels at the middle and gently
/// at both ends. A segment too short for that leaves the rest to the next one.
#[derive(Debug)]
pub struct Bed {
    /// Gain by depth: full first, the level under a dub last.
    gains: Vec<f32>,
    /// Where the gain stands; `None` before anything was heard.
    depth: Option<usize>,
}

impl Bed {
    /// A bed that lies `level_db` under a dub (negative: quieter).
    pub fn new(level_db: f64, rate: u32) -> Self {
        let ramp = (rate as usize * RAMP_MS / 1000).max(1);
        let gain = |depth: usize| {
            let share = 0.5 - 0.5 * (std::f64::consts::PI * depth as f64 / ramp as f64).cos();
            10_f64.powf(level_db * share / 20.0) as f32
        };
        Self {
            gains: (0..=ramp).map(gain).collect(),
            depth: None,
        }
    }

    /// Gives the original of the next segment its gain. At full level it stays as it is, bit for
    /// bit.
    pub fn apply(&mut self, original: &mut [f32], channels: usize, dubbed: bool) {
        for frame in original.chunks_exact_mut(channels) {
            let gain = self.step(dubbed);
            for sample in frame {
                *sample *= gain;
            }
        }
    }

    /// `frames` of silence go before the next segment: the gain moves on unheard.
    pub fn rest(&mut self, frames: usize, dubbed: bool) {
        for _ in 0..frames {
            self.step(dubbed);
        }
    }

    /// The gain of one more frame, on its way to where it has to be.
    fn step(&mut self, dubbed: bool) -> f32 {
        let goal = if dubbed { self.gains.len() - 1 } else { 0 };
        let depth = match self.depth {
            // The first sound of all starts at its own level: there is nothing to come from.
            None => goal,
            Some(depth) if depth < goal => depth + 1,
            Some(depth) if depth > goal => depth - 1,
            Some(depth) => depth,
        };
        self.depth = Some(depth);
        self.gains[depth]
    }
}

/// Dubbed audio above the original.
#[derive(Debug)]
pub struct VoiceOver {
    bed: Bed,
    under: Splicer,
    over: Splicer,
    limiter: Limiter,
}

impl VoiceOver {
    /// The original lies `level_db` under the dub (negative: quieter).
    pub fn new(level_db: f64, rate: u32, channels: usize) -> Self {
        Self {
            bed: Bed::new(level_db, rate),
            under: Splicer::new(rate),
            over: Splicer::new(rate),
            limiter: Limiter::new(rate, channels),
        }
    }

    /// Puts `silence` frames and then a segment behind what came before, and returns what is
    /// final. `dub` is as long as `original` and heard for its first `until` frames, from where the
    /// original is alone; `None` leaves it alone throughout.
    pub fn push(
        &mut self,
        silence: usize,
        dub: Option<Pcm>,
        until: usize,
        mut original: Pcm,
    ) -> Vec<f32> {
        let dubbed = dub.is_some();
        self.bed.rest(silence, dubbed);
        let (channels, frames) = (original.channels, original.frames());
        let until = if dubbed { until.min(frames) } else { 0 };
        let (covered, alone) = original.samples.split_at_mut(until * channels);
        self.bed.apply(covered, channels, true);
        self.bed.apply(alone, channels, false);
        let nothing = Pcm::silence(frames, channels);
        let dub = dub.unwrap_or_else(|| nothing.clone());
        let voice = Voice {
            starts: dubbed,
            ends: dubbed && until == frames,
        };
        let over = self.over.push(silence, dub, &nothing, voice);
        let original_only = Voice::throughout(false);
        let under = self
            .under
            .push(silence, original.clone(), &original, original_only);
        self.limiter.push(&sum(under, &over))
    }

    /// Nothing follows: what is held back.
    pub fn finish(&mut self) -> Vec<f32> {
        let rest = sum(self.under.finish(), &self.over.finish());
        let mut out = self.limiter.push(&rest);
        out.extend(self.limiter.finish());
        out
    }
}

fn sum(mut under: Vec<f32>, over: &[f32]) -> Vec<f32> {
    for (sample, dub) in under.iter_mut().zip(over) {
        *sample += dub;
    }
    under
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fit;

    const RATE: u32 = 48_000;
    const RAMP: usize = 14_400;
    const LEVEL_DB: f64 = -15.0;

    /// The gain of each frame: what becomes of ones.
    fn gains(bed: &mut Bed, frames: usize, dubbed: bool) -> Vec<f32> {
        let mut ones = Pcm {
            samples: vec![1.0; frames],
            channels: 1,
        };
        bed.apply(&mut ones.samples, 1, dubbed);
        ones.samples
    }

    fn db(gain: f32) -> f64 {
        20.0 * f64::from(gain).log10()
    }

    fn largest_step(gains: &[f32]) -> f32 {
        gains
            .windows(2)
            .map(|pair| (pair[1] - pair[0]).abs())
            .fold(0.0, f32::max)
    }

    /// The steepest the ramp is: half as steep again as a straight one, and a little for decibels.
    const STEEPEST: f32 = 2.0 / RAMP as f32;

    #[test]
    fn the_level_under_a_dub_is_the_one_set_after_a_ramp_of_300_ms() {
        for level in [-3.0, -15.0, -60.0] {
            let mut bed = Bed::new(level, RATE);
            assert_eq!(gains(&mut bed, 100, false), vec![1.0; 100]);
            let down = gains(&mut bed, 96_000, true);
            assert!(
                down[RAMP / 50] < 1.0 && db(down[0]) > -0.01,
                "it starts at once, from where it was"
            );
            assert!(
                (db(down[RAMP / 2 - 1]) - level / 2.0).abs() < 0.01,
                "half way"
            );
            assert!(
                down[RAMP - RAMP / 50] > down[RAMP - 1],
                "it takes all of it"
            );
            assert!(
                down[RAMP - 1..]
                    .iter()
                    .all(|gain| (db(*gain) - level).abs() < 0.01)
            );
            assert!(largest_step(&down) < 2.0 * STEEPEST, "{level}");
            let mut up = gains(&mut bed, 96_000, false);
            assert!(
                up[RAMP - 1..]
                    .iter()
                    .all(|gain| gain.to_bits() == 1.0_f32.to_bits())
            );
            up.truncate(RAMP - 1);
            up.reverse();
            assert_eq!(up, down[..RAMP - 1], "the same way back");
        }
    }

    #[test]
    fn nothing_moves_between_two_segments_of_a_kind() {
        let mut bed = Bed::new(LEVEL_DB, RATE);
        let first = gains(&mut bed, 48_000, true);
        assert!((db(first[0]) - LEVEL_DB).abs() < 0.01, "no ramp at first");
        for _ in 0..3 {
            assert_eq!(gains(&mut bed, 48_000, true), first);
        }
    }

    #[test]
    fn a_short_segment_leaves_the_rest_of_the_ramp_to_the_next() {
        let mut whole = Bed::new(LEVEL_DB, RATE);
        whole.apply(&mut [0.0], 1, false);
        let whole = gains(&mut whole, 30_000, true);
        let mut bed = Bed::new(LEVEL_DB, RATE);
        bed.apply(&mut [0.0], 1, false);
        let parts: Vec<f32> = [1, 999, 5_000, 24_000]
            .into_iter()
            .flat_map(|frames| gains(&mut bed, frames, true))
            .collect();
        assert_eq!(parts, whole);

        // Back and forth within the ramp: never a step.
        let mut bed = Bed::new(LEVEL_DB, RATE);
        let all: Vec<f32> = (0..40)
            .flat_map(|n| gains(&mut bed, 1_000 + 300 * n, n % 2 == 1))
            .collect();
        assert!(largest_step(&all) < STEEPEST, "{}", largest_step(&all));
    }

    #[test]
    fn in_silence_the_gain_moves_unheard() {
        let mut bed = Bed::new(LEVEL_DB, RATE);
        gains(&mut bed, 10, false);
        bed.rest(RAMP, true);
        assert!((db(gains(&mut bed, 10, true)[0]) - LEVEL_DB).abs() < 0.01);
    }

    #[test]
    fn channels_share_one_gain() {
        let mut bed = Bed::new(LEVEL_DB, RATE);
        bed.apply(&mut [0.0; 2], 2, false);
        let mut pcm = Pcm {
            samples: [0.8, -0.4].repeat(RAMP),
            channels: 2,
        };
        bed.apply(&mut pcm.samples, 2, true);
        assert!(
            pcm.samples
                .chunks(2)
                .all(|frame| (frame[0] + 2.0 * frame[1]).abs() < 1e-6)
        );
        assert!((db(pcm.samples[2 * RAMP - 2] / 0.8) - LEVEL_DB).abs() < 0.01);
    }

    fn tone(from: usize, frames: usize, hz: f64, amplitude: f64) -> Pcm {
        let w = std::f64::consts::TAU * hz / f64::from(RATE);
        Pcm {
            samples: (from..from + frames)
                .map(|n| (amplitude * (w * n as f64).sin()) as f32)
                .collect(),
            channels: 1,
        }
    }

    /// The second difference: what clicks.
    fn largest_bend(samples: &[f32]) -> f32 {
        samples
            .windows(3)
            .map(|w| (w[2] - 2.0 * w[1] + w[0]).abs())
            .fold(0.0, f32::max)
    }

    /// 997 Hz at half scale, each part with the dub that `dub` gives it.
    fn voiced(parts: usize, dub: impl Fn(usize) -> Option<Pcm>) -> Vec<f32> {
        let mut voice_over = VoiceOver::new(LEVEL_DB, RATE, 1);
        let mut out = Vec::new();
        for part in 0..parts {
            let original = tone(part * PART, PART, 997.0, 0.5);
            out.extend(voice_over.push(0, dub(part), PART, original));
        }
        out.extend(voice_over.finish());
        assert_eq!(out.len(), parts * PART);
        out
    }

    const PART: usize = 24_007;

    #[test]
    fn without_a_dub_the_original_comes_out_bit_for_bit() {
        assert_eq!(voiced(5, |_| None), tone(0, 5 * PART, 997.0, 0.5).samples);
    }

    #[test]
    fn no_change_in_either_direction_has_a_step() {
        // The tone bends by 0.0085 at most, the dub by another 0.0097.
        for level in [0.0, 0.25] {
            let dub = |part: usize| {
                // Each sets in at full swing; every second is short, and ends in silence.
                let frames = PART - 2_000 * (part % 3 % 2);
                let mut dub = tone(12, frames, 1_500.0, level);
                if frames < PART {
                    fit::fade_out(&mut dub, fit::fade_frames(RATE));
                    dub.samples.resize(PART, 0.0);
                }
                (!part.is_multiple_of(3)).then_some(dub)
            };
            let out = voiced(9, dub);
            let (step, bend) = (largest_step(&out), largest_bend(&out));
            assert!(
                step < 0.12 && bend < 0.019,
                "dub at {level}: a step of {step}, a bend of {bend}"
            );
        }
    }

    #[test]
    fn under_a_dub_that_ends_early_the_bed_goes_on_unmoved() {
        let dub = |_| {
            let mut dub = tone(0, PART, 1_500.0, 0.4);
            dub.samples[PART - 2_000..].fill(0.0);
            Some(dub)
        };
        let out = voiced(3, dub);
        let gain = 10_f64.powf(LEVEL_DB / 20.0);
        let bed = tone(0, 3 * PART, 997.0, 0.5 * gain).samples;
        for part in 1..=3 {
            let end = part * PART;
            for n in end - 2_000..end {
                assert!((out[n] - bed[n]).abs() < 1e-6, "{part}: {n}");
            }
        }
    }

    #[test]
    fn what_runs_on_into_an_original_segment_lies_above_it_and_then_it_comes_back() {
        let mut voice_over = VoiceOver::new(LEVEL_DB, RATE, 1);
        let original = |part: usize| tone(part * PART, PART, 997.0, 0.5);
        let mut voice = tone(0, 2 * PART, 1_500.0, 0.25);
        voice.samples.truncate(PART + 5_000);
        fit::fade_out(&mut voice, fit::fade_frames(RATE));
        voice.samples.resize(2 * PART, 0.0);
        let half = |part: usize| Pcm {
            samples: voice.samples[part * PART..(part + 1) * PART].to_vec(),
            channels: 1,
        };
        let mut out = voice_over.push(0, Some(half(0)), PART, original(0));
        out.extend(voice_over.push(0, Some(half(1)), 5_000, original(1)));
        out.extend(voice_over.push(0, None, 0, original(2)));
        out.extend(voice_over.finish());
        assert!(largest_bend(&out) < 0.018, "{}", largest_bend(&out));
        let gain = 10_f64.powf(LEVEL_DB / 20.0);
        let bed = tone(0, 3 * PART, 997.0, 0.5 * gain).samples;
        for n in [PART - 100, PART, PART + 100, PART + 4_000] {
            assert!((out[n] - bed[n] - voice.samples[n]).abs() < 1e-5, "{n}");
        }
        let full = tone(0, 3 * PART, 997.0, 0.5).samples;
        for n in PART + 5_000 + RAMP..3 * PART {
            assert!((out[n] - full[n]).abs() < 1e-5, "{n}");
        }
    }

    #[test]
    fn full_scale_over_full_scale_stays_within() {
        let mut voice_over = VoiceOver::new(-3.0, RATE, 1);
        let mut out = Vec::new();
        for part in 0..4 {
            let dub = (part % 2 == 1).then(|| tone(part * PART, PART, 1_500.0, 1.0));
            out.extend(voice_over.push(0, dub, PART, tone(part * PART, PART, 997.0, 1.0)));
        }
        out.extend(voice_over.finish());
        assert!(out.iter().all(|sample| sample.abs() <= 1.0));
    }

    #[test]
    fn silence_between_segments_fades_and_is_silent() {
        let mut voice_over = VoiceOver::new(LEVEL_DB, RATE, 1);
        let mut out = voice_over.push(0, None, PART, tone(0, PART, 997.0, 0.5));
        let dub = tone(0, PART, 1_500.0, 0.25);
        out.extend(voice_over.push(30_000, Some(dub), PART, tone(0, PART, 997.0, 0.5)));
        out.extend(voice_over.finish());
        assert_eq!(out.len(), 2 * PART + 30_000);
        assert!(out[PART..PART + 30_000].iter().all(|sample| *sample == 0.0));
        assert!(largest_bend(&out) < 0.018, "{}", largest_bend(&out));
        // The ramp is over when it starts again.
        let after = &out[PART + 30_000 + 240..];
        let loudest = after.iter().fold(0.0_f32, |peak, x| peak.max(x.abs()));
        assert!(loudest < 0.25 + 0.5 * 0.178 + 0.001, "{loudest}");
    }
}
