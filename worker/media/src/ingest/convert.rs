//! Input audio that is not plain AAC-LC, encoded once, so that the rest of the worker knows one kind of
//! audio only. Frames are cut by samples and stamped by the samples in them.

use std::collections::VecDeque;
use std::time::Duration;

use dub_engine::pause::FrameLevel;

use super::super::aac::{AacFormat, FRAME_SAMPLES};
use super::super::ear::level_of;
use super::super::encoder::Encoder;
use super::super::{AacFrame, MediaError};

/// Time stamps that go on this much earlier or later than the samples before them are another stretch of
/// sound: the encoder begins anew, so that no frame holds what lies on both sides of a hole.
const HOLE: Duration = Duration::from_millis(40);

/// A frame, the time of its first sample if it is known, and how loud it is.
pub(super) type Converted = (Option<i64>, AacFrame, FrameLevel);

/// Samples in, frames out.
pub(super) struct Converter {
    format: AacFormat,
    encoder: Encoder,
    /// Samples per channel that went in since the encoder began.
    fed: u64,
    /// Frames that came out since then.
    given: u64,
    /// Which sample had which time; those that no frame to come begins behind are gone.
    marks: VecDeque<(u64, i64)>,
    /// Levels of the frames to come.
    levels: VecDeque<FrameLevel>,
    /// Power and number of the samples of the frame that is being filled.
    power: f64,
    samples: usize,
}

impl Converter {
    pub(super) fn new(format: AacFormat) -> Result<Self, MediaError> {
        Ok(Self {
            encoder: Encoder::start(&format)?,
            format,
            fed: 0,
            given: 0,
            marks: VecDeque::new(),
            levels: VecDeque::new(),
            power: 0.0,
            samples: 0,
        })
    }

    /// Takes interleaved samples, the first of which is of `time` in ns; gives the frames that are whole.
    pub(super) fn push(
        &mut self,
        time: Option<i64>,
        samples: &[f32],
    ) -> Result<Vec<Converted>, MediaError> {
        let mut frames = Vec::new();
        if let Some(time) = time {
            let apart = |expected: i64| time.abs_diff(expected) > HOLE.as_nanos() as u64;
            if self.time_of(self.fed).is_some_and(apart) {
                frames = self.finish()?;
                *self = Self::new(self.format.clone())?;
            }
            self.marks.push_back((self.fed, time));
        }
        self.fed += (samples.len() / self.format.channels as usize) as u64;
        self.measure(samples);
        let encoded = self.encoder.push(samples)?;
        frames.extend(self.stamp(encoded));
        Ok(frames)
    }

    /// What is left, the last frame filled up with silence.
    pub(super) fn finish(&mut self) -> Result<Vec<Converted>, MediaError> {
        let whole = FRAME_SAMPLES as usize * self.format.channels as usize;
        if self.samples > 0 {
            self.measure(&vec![0.0; whole - self.samples]);
        }
        let encoded = self.encoder.finish()?;
        Ok(self.stamp(encoded))
    }

    fn measure(&mut self, samples: &[f32]) {
        let whole = FRAME_SAMPLES as usize * self.format.channels as usize;
        for sample in samples {
            self.power += f64::from(*sample).powi(2);
            self.samples += 1;
            if self.samples == whole {
                self.levels.push_back(level_of(self.power / whole as f64));
                (self.power, self.samples) = (0.0, 0);
            }
        }
    }

    fn stamp(&mut self, frames: Vec<AacFrame>) -> Vec<Converted> {
        frames
            .into_iter()
            .map(|frame| {
                let first = self.given * u64::from(FRAME_SAMPLES);
                self.given += 1;
                while self.marks.get(1).is_some_and(|(at, _)| *at <= first) {
                    self.marks.pop_front();
                }
                let level = self.levels.pop_front().unwrap_or(level_of(0.0));
                (self.time_of(first), frame, level)
            })
            .collect()
    }

    /// The time of a sample, by the last mark before it.
    fn time_of(&self, sample: u64) -> Option<i64> {
        let (at, time) = self.marks.iter().rev().find(|(at, _)| *at <= sample)?;
        Some(time + self.format.nanos(sample - at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: i64 = 1_000_000;

    fn converter() -> Converter {
        gst::init().unwrap();
        Converter::new(AacFormat::lc(48_000, 2)).unwrap()
    }

    /// So many ms of sound at half of full scale.
    fn sound(ms: usize) -> Vec<f32> {
        vec![0.5; 2 * 48 * ms]
    }

    fn times(frames: &[Converted]) -> Vec<i64> {
        frames.iter().map(|frame| frame.0.unwrap() / 1000).collect()
    }

    #[test]
    fn frames_have_the_time_of_their_first_sample_whatever_the_packets() {
        let mut converter = converter();
        let mut frames = Vec::new();
        for n in 0..10 {
            frames.extend(
                converter
                    .push(Some(5_000 * MS + n * 20 * MS), &sound(20))
                    .unwrap(),
            );
        }
        assert_eq!(frames.len(), 7, "two are in the encoder");
        frames.extend(converter.finish().unwrap());
        let expected: Vec<i64> = (0..10).map(|n| 5_000_000 + n * 1_024_000 / 48).collect();
        assert_eq!(times(&frames), expected);
    }

    #[test]
    fn a_hole_begins_another_frame_and_nothing_before_it_is_lost() {
        let mut converter = converter();
        let mut frames = converter.push(Some(0), &sound(30)).unwrap();
        frames.extend(converter.push(Some(530 * MS), &sound(30)).unwrap());
        frames.extend(converter.finish().unwrap());
        assert_eq!(times(&frames), [0, 21_333, 530_000, 551_333]);
        let levels: Vec<FrameLevel> = frames.iter().map(|frame| frame.2).collect();
        assert_eq!(levels[0], -602);
        // 8.7 of 21.3 ms.
        assert!((-1_000..-980).contains(&levels[1]), "{levels:?}");
        assert_eq!([levels[0], levels[1]], [levels[2], levels[3]]);
    }

    #[test]
    fn small_steps_of_time_stamps_are_followed_and_no_hole() {
        let mut converter = converter();
        let mut frames = converter.push(Some(0), &sound(100)).unwrap();
        // 10 ms late, 30 ms early, then none at all.
        frames.extend(converter.push(Some(110 * MS), &sound(100)).unwrap());
        frames.extend(converter.push(Some(180 * MS), &sound(100)).unwrap());
        frames.extend(converter.push(None, &sound(100)).unwrap());
        frames.extend(converter.finish().unwrap());
        assert_eq!(frames.len(), 19);
        let at = |n: usize| frames[n].0.unwrap() - n as i64 * 64_000_000 / 3;
        assert_eq!(
            [at(4), at(6), at(12), at(18)].map(|t| t / 100_000),
            [0, 100, -200, -200]
        );
    }
}
