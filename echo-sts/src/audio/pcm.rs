//! Decoded sound and what the audio modes do to it.

use std::f64::consts::TAU;

use sts_protocol::mark;

/// Interleaved samples, full scale ±1.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Pcm {
    pub(crate) rate: u32,
    pub(crate) channels: u32,
    pub(crate) samples: Vec<f32>,
}

impl Pcm {
    /// Length in samples per channel.
    pub(crate) fn frames(&self) -> usize {
        self.samples.len() / self.channels.max(1) as usize
    }

    /// Length in ms, rounded.
    pub(crate) fn duration_ms(&self) -> u64 {
        (self.frames() as f64 * 1000.0 / f64::from(self.rate.max(1))).round() as u64
    }

    /// Drops `skip` frames, then keeps at most `keep`.
    pub(crate) fn trim(&mut self, skip: u64, keep: Option<u64>) {
        let channels = self.channels as usize;
        let skip = usize::try_from(skip)
            .unwrap_or(usize::MAX)
            .min(self.frames());
        self.samples.drain(..skip * channels);
        if let Some(keep) = keep.and_then(|keep| usize::try_from(keep).ok()) {
            self.samples.truncate(keep.saturating_mul(channels));
        }
    }

    /// The original quieter, under the marker tone of [`mark`].
    pub(crate) fn mark(&mut self) {
        let (frames, rate) = (self.frames() as f64, f64::from(self.rate));
        let gain = db(mark::ORIGINAL_GAIN_DB);
        let level = db(mark::TONE_DBFS);
        let ramp = (mark::RAMP_SECONDS * rate).min(frames / 2.0).max(1.0);
        for (i, frame) in self
            .samples
            .chunks_exact_mut(self.channels as usize)
            .enumerate()
        {
            let i = i as f64;
            let edge = ((i + 0.5).min(frames - i - 0.5) / ramp).min(1.0);
            let tone = level * edge * (TAU * mark::TONE_HZ * i / rate).sin();
            for sample in frame {
                *sample = (f64::from(*sample) * gain + tone) as f32;
            }
        }
    }

    /// Digital silence before and behind it; what is between fades in and out.
    pub(crate) fn surround(&mut self, before_ms: u64, behind_ms: u64) {
        let (frames, rate) = (self.frames() as f64, f64::from(self.rate));
        let ramp = (mark::RAMP_SECONDS * rate).max(1.0);
        let all = self.samples.chunks_exact_mut(self.channels as usize);
        for (i, frame) in all.enumerate() {
            let i = i as f64;
            let gain = ((i + 0.5).min(frames - i - 0.5) / ramp).min(1.0);
            for sample in frame {
                *sample *= gain as f32;
            }
        }
        let samples =
            |ms: u64| (ms * u64::from(self.rate) / 1_000 * u64::from(self.channels)) as usize;
        let (before, behind) = (samples(before_ms), samples(behind_ms));
        self.samples.splice(..0, std::iter::repeat_n(0.0, before));
        self.samples.extend(std::iter::repeat_n(0.0, behind));
    }

    /// As long, but digital silence.
    pub(crate) fn silence(&mut self) {
        self.samples.fill(0.0);
    }

    /// `ratio` times as long, by linear interpolation (the pitch moves with it).
    pub(crate) fn resize(&mut self, ratio: f64) {
        let (channels, old) = (self.channels as usize, self.frames());
        let new = (old as f64 * ratio).round() as usize;
        let mut samples = Vec::with_capacity(new * channels);
        for i in 0..new {
            let at = i as f64 / ratio;
            let left = (at as usize).min(old.saturating_sub(1));
            let right = (left + 1).min(old.saturating_sub(1));
            let share = (at - left as f64).clamp(0.0, 1.0) as f32;
            for channel in 0..channels {
                let a = self.samples[left * channels + channel];
                let b = self.samples[right * channels + channel];
                samples.push(a + (b - a) * share);
            }
        }
        self.samples = samples;
    }

    /// Interleaved 16-bit little-endian samples.
    pub(crate) fn to_s16le(&self) -> Vec<u8> {
        self.samples
            .iter()
            .flat_map(|s| {
                let scaled = (s * 32_768.0).round().clamp(-32_768.0, 32_767.0);
                (scaled as i16).to_le_bytes()
            })
            .collect()
    }

    /// A 16-bit WAVE file.
    pub(crate) fn to_wav(&self) -> Vec<u8> {
        let data = self.to_s16le();
        let block = self.channels as u16 * 2;
        let mut out = Vec::with_capacity(44 + data.len());
        out.extend(b"RIFF");
        out.extend((36 + data.len() as u32).to_le_bytes());
        out.extend(b"WAVEfmt ");
        out.extend(16_u32.to_le_bytes());
        out.extend(1_u16.to_le_bytes());
        out.extend((self.channels as u16).to_le_bytes());
        out.extend(self.rate.to_le_bytes());
        out.extend((self.rate * u32::from(block)).to_le_bytes());
        out.extend(block.to_le_bytes());
        out.extend(16_u16.to_le_bytes());
        out.extend(b"data");
        out.extend((data.len() as u32).to_le_bytes());
        out.extend(data);
        out
    }
}

/// Decibels as a factor.
fn db(value: f64) -> f64 {
    10_f64.powf(value / 20.0)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A stereo tone at half scale; the right channel is inverted.
    pub(crate) fn tone(hz: f64, rate: u32, frames: usize) -> Pcm {
        let samples = (0..frames)
            .flat_map(|i| {
                let value = 0.5 * (TAU * hz * i as f64 / f64::from(rate)).sin() as f32;
                [value, -value]
            })
            .collect();
        Pcm {
            rate,
            channels: 2,
            samples,
        }
    }

    /// Peak of the component at `hz` in the first channel.
    pub(crate) fn level(pcm: &Pcm, hz: f64) -> f64 {
        let n = pcm.frames() as f64;
        let (mut re, mut im) = (0.0, 0.0);
        for (i, frame) in pcm.samples.chunks_exact(pcm.channels as usize).enumerate() {
            let (sin, cos) = (TAU * hz * i as f64 / f64::from(pcm.rate)).sin_cos();
            re += f64::from(frame[0]) * cos;
            im += f64::from(frame[0]) * sin;
        }
        re.hypot(im) * 2.0 / n
    }

    fn dbfs(level: f64) -> f64 {
        20.0 * level.log10()
    }

    #[test]
    fn mark_attenuates_the_original_and_adds_the_tone() {
        let mut pcm = tone(997.0, 48_000, 48_000);
        let before = dbfs(level(&pcm, 997.0));
        pcm.mark();
        assert_eq!(pcm.frames(), 48_000);
        assert!((dbfs(level(&pcm, 997.0)) - before - mark::ORIGINAL_GAIN_DB).abs() < 0.1);
        // The 10 ms ramps take a percent off the mean.
        assert!((dbfs(level(&pcm, mark::TONE_HZ)) - mark::TONE_DBFS).abs() < 0.2);
        let mut silent = tone(0.0, 48_000, 48_000);
        silent.mark();
        let loudest = |samples: &[f32]| samples.iter().fold(0.0_f32, |max, s| max.max(s.abs()));
        assert!(loudest(&silent.samples[..40]) < 0.01, "starts softly");
        assert!(loudest(&silent.samples[95_960..]) < 0.01, "ends softly");
        assert!(loudest(&silent.samples) > 0.12);
    }

    #[test]
    fn mark_survives_sound_shorter_than_its_ramps() {
        for frames in [0, 1, 3, 100] {
            let mut pcm = tone(997.0, 48_000, frames);
            pcm.mark();
            assert_eq!(pcm.frames(), frames);
            assert!(pcm.samples.iter().all(|s| s.is_finite()));
        }
    }

    #[test]
    fn resize_changes_the_length_and_the_pitch() {
        for (ratio, frames) in [(0.92, 44_160), (1.08, 51_840), (1.0, 48_000)] {
            let mut pcm = tone(500.0, 48_000, 48_000);
            pcm.resize(ratio);
            assert_eq!(pcm.frames(), frames);
            assert!(level(&pcm, 500.0 / ratio) > 0.49, "{ratio}");
        }
        let mut empty = tone(500.0, 48_000, 0);
        empty.resize(2.0);
        assert_eq!(empty.frames(), 0);
    }

    #[test]
    fn trim_never_asks_for_more_than_there_is() {
        let mut pcm = tone(500.0, 48_000, 10);
        pcm.trim(4, Some(3));
        assert_eq!(pcm.frames(), 3);
        pcm.trim(99, Some(u64::MAX));
        assert_eq!(pcm.frames(), 0);
    }

    #[test]
    fn a_wav_states_its_sizes_and_clips_instead_of_wrapping() {
        let pcm = Pcm {
            rate: 22_050,
            channels: 1,
            samples: vec![1.5, -1.5, 0.0],
        };
        let wav = pcm.to_wav();
        assert_eq!(wav.len(), 50);
        assert_eq!(wav[4..8], 42_u32.to_le_bytes());
        assert_eq!(wav[24..28], 22_050_u32.to_le_bytes());
        assert_eq!(wav[28..32], 44_100_u32.to_le_bytes());
        assert_eq!(wav[40..44], 6_u32.to_le_bytes());
        assert_eq!(wav[44..], [0xff, 0x7f, 0x00, 0x80, 0, 0]);
    }
}
