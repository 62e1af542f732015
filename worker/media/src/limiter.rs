//! Keeps a sum of sounds within full scale without a click. Plain arithmetic on samples.

/// What a sample of a sum may reach.
const FULL_SCALE: f32 = 1.0;

/// How long before and after a peak the gain moves. Longer than half a period of the lowest tones
/// (50 Hz), so the gain follows how loud it is and not the wave itself, which would distort.
const REACH_MS: usize = 10;

/// Turns peaks down, and a little around them.
///
/// Each sample over full scale is brought to full scale exactly, and what lies up to 10 ms before
/// and after it is lowered with it, the less the further away: the gain has no step. Where nothing
/// within 10 ms is over full scale, samples are not touched, bit for bit. What comes out lags
/// behind what goes in by those 10 ms.
#[derive(Debug)]
pub struct Limiter {
    channels: usize,
    /// What a sample may reach.
    ceiling: f32,
    /// Share of a peak's reduction by distance in frames: 1 at the peak, 0 out of reach.
    bump: Vec<f32>,
    /// Frames that a later one may still lower.
    waiting: Vec<f32>,
    /// How much of each waiting frame, and of those to come, is taken away: 0 to 1.
    less: Vec<f32>,
}

impl Limiter {
    /// For interleaved sound of `channels`, all lowered together so that nothing moves sideways.
    pub fn new(rate: u32, channels: usize) -> Self {
        let reach = rate as usize * REACH_MS / 1000;
        let bump = |distance: usize| {
            (0.5 + 0.5 * (std::f64::consts::PI * distance as f64 / reach as f64).cos()) as f32
        };
        Self {
            channels,
            ceiling: FULL_SCALE,
            bump: (0..reach).map(bump).collect(),
            waiting: Vec::new(),
            less: Vec::new(),
        }
    }

    /// A whole sound whose frames peak at `peaks`, brought to `ceiling`.
    pub fn whole(
        samples: &[f32],
        peaks: &[f32],
        channels: usize,
        rate: u32,
        ceiling: f32,
    ) -> Vec<f32> {
        let mut limiter = Self {
            ceiling,
            ..Self::new(rate, channels)
        };
        let mut out = limiter.take(samples, peaks.iter().copied());
        out.extend(limiter.finish());
        out
    }

    /// Takes sound in and returns what is final.
    pub fn push(&mut self, samples: &[f32]) -> Vec<f32> {
        let peaks = samples.chunks_exact(self.channels).map(|frame| {
            let peak = frame.iter();
            peak.fold(0.0_f32, |peak, sample| peak.max(sample.abs()))
        });
        self.take(samples, peaks)
    }

    fn take(&mut self, samples: &[f32], peaks: impl Iterator<Item = f32>) -> Vec<f32> {
        let first = self.waiting.len() / self.channels;
        self.waiting.extend(samples);
        let frames = self.waiting.len() / self.channels;
        self.less.resize(frames + self.bump.len(), 0.0);
        for (at, peak) in (first..frames).zip(peaks) {
            if peak > self.ceiling {
                self.lower(at, 1.0 - self.ceiling / peak);
            }
        }
        self.release(frames.saturating_sub(self.bump.len()))
    }

    /// Nothing follows: what is left.
    pub fn finish(&mut self) -> Vec<f32> {
        self.release(self.waiting.len() / self.channels)
    }

    fn lower(&mut self, at: usize, excess: f32) {
        if self.less[at] >= excess {
            return; // A higher peak nearby has seen to it.
        }
        for (distance, share) in self.bump.iter().enumerate() {
            let least = excess * share;
            if let Some(before) = at.checked_sub(distance) {
                self.less[before] = self.less[before].max(least);
            }
            self.less[at + distance] = self.less[at + distance].max(least);
        }
    }

    fn release(&mut self, frames: usize) -> Vec<f32> {
        let mut out: Vec<f32> = self.waiting.drain(..frames * self.channels).collect();
        for (frame, less) in out
            .chunks_exact_mut(self.channels)
            .zip(self.less.drain(..frames))
        {
            if less > 0.0 {
                for sample in frame {
                    // Rounding may leave a last bit too much.
                    *sample = (*sample * (1.0 - less)).clamp(-self.ceiling, self.ceiling);
                }
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: u32 = 48_000;
    const REACH: usize = 480;

    /// A tone whose level is `amplitude(n)`.
    fn tone(frames: usize, hz: f64, amplitude: impl Fn(usize) -> f64) -> Vec<f32> {
        let w = std::f64::consts::TAU * hz / f64::from(RATE);
        (0..frames)
            .map(|n| (amplitude(n) * (w * n as f64).sin()) as f32)
            .collect()
    }

    /// In pieces of this many frames.
    fn limited(samples: &[f32], channels: usize, piece: usize) -> Vec<f32> {
        let mut limiter = Limiter::new(RATE, channels);
        let mut out = Vec::new();
        for piece in samples.chunks(piece * channels) {
            out.extend(limiter.push(piece));
        }
        out.extend(limiter.finish());
        out
    }

    #[test]
    fn what_is_within_full_scale_is_not_touched() {
        let mut sound = tone(20_000, 997.0, |_| 1.0);
        sound[5_000] = 1.0;
        sound[5_001] = -1.0;
        for piece in [100, 7_001, 20_000] {
            assert_eq!(limited(&sound, 1, piece), sound, "in pieces of {piece}");
        }
    }

    #[test]
    fn a_peak_is_brought_to_full_scale_and_only_its_surroundings_follow() {
        let mut sound = tone(20_000, 997.0, |_| 0.5);
        sound[10_000] = -1.6;
        let out = limited(&sound, 1, 6_000);
        assert_eq!(out.len(), sound.len());
        assert!((out[10_000] + 1.0).abs() < 1e-6, "{}", out[10_000]);
        let touched: Vec<usize> = (0..sound.len())
            .filter(|n| out[*n].to_bits() != sound[*n].to_bits())
            .collect();
        assert!(touched.first() > Some(&(10_000 - REACH)));
        assert!(touched.last() < Some(&(10_000 + REACH)));
        assert!(touched.len() > REACH, "{} frames moved", touched.len());
    }

    #[test]
    fn the_gain_has_no_step_wherever_the_pieces_end() {
        // Loud from 0.1 s to 0.3 s.
        let loud = |n: usize| {
            if (4_800..14_400).contains(&n) {
                1.7
            } else {
                0.9
            }
        };
        let sound = tone(20_000, 997.0, loud);
        let whole = limited(&sound, 1, 20_000);
        for piece in [1, 479, 480, 481, 4_801] {
            assert_eq!(limited(&sound, 1, piece), whole, "in pieces of {piece}");
        }
        let gains: Vec<f64> = sound
            .iter()
            .zip(&whole)
            .map(|(before, after)| f64::from(*after) / f64::from(*before))
            .collect();
        // A zero has no gain: those next to it are compared.
        let gains: Vec<f64> = gains.into_iter().filter(|gain| gain.is_finite()).collect();
        let step = gains
            .windows(2)
            .map(|pair| (pair[1] - pair[0]).abs())
            .fold(0.0, f64::max);
        assert!(step < 0.003, "the gain steps by {step}");
        let steady = &gains[6_000..13_000];
        let (low, high) = steady.iter().fold((2.0_f64, 0.0_f64), |(low, high), gain| {
            (low.min(*gain), high.max(*gain))
        });
        // Of a steady tone the gain is steady: it is lowered, not bent.
        assert!(low > 0.586 && high < 0.592, "{low} to {high}");
    }

    #[test]
    fn nothing_gets_over_full_scale() {
        // Two full tones that beat, and noise on top of them.
        let mut seed = 1_u32;
        let sound: Vec<f32> = tone(48_000, 997.0, |_| 1.0)
            .into_iter()
            .zip(tone(48_000, 61.0, |_| 0.7))
            .map(|(a, b)| {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                a + b + (seed >> 8) as f32 / 16_777_216.0 - 0.5
            })
            .collect();
        let out = limited(&sound, 1, 9_999);
        assert!(out.iter().all(|sample| sample.abs() <= 1.0));
        let loudest = out
            .iter()
            .fold(0.0_f32, |peak, sample| peak.max(sample.abs()));
        assert!(loudest > 0.999, "lowered too far: {loudest}");
    }

    #[test]
    fn both_channels_are_lowered_alike() {
        let sound: Vec<f32> = tone(9_600, 997.0, |_| 1.5)
            .into_iter()
            .flat_map(|sample| [sample, sample * 0.25])
            .collect();
        let out = limited(&sound, 2, 1_000);
        assert!(
            out.chunks(2)
                .all(|frame| (frame[1] - frame[0] * 0.25).abs() < 1e-6)
        );
    }

    #[test]
    fn a_sound_shorter_than_its_reach_comes_out_whole() {
        let mut limiter = Limiter::new(RATE, 1);
        assert!(limiter.push(&[0.5, 2.0, 0.5]).is_empty());
        let out = limiter.finish();
        assert_eq!(out.len(), 3);
        assert!((out[1] - 1.0).abs() < 1e-6);
        assert!(limiter.finish().is_empty());
    }
}
