//! A file's sound as samples whose times are known.

use anyhow::{Context, Result, ensure};
use e2e_ffmpeg::Detail;
use serde::Deserialize;
use std::path::Path;

use crate::probe::ffprobe::{ask, fraction};

/// A step between two frames that is further than this from their length is a
/// break; less is rounding (FLV counts milliseconds) or a slew.
const BREAK_SECONDS: f64 = 0.003;
/// Frame times are averaged over this many neighbours either side, which takes
/// away the rounding and keeps slews.
const SMOOTH: usize = 16;

/// Decoded sound, mixed to mono, with the time of every sample.
#[derive(Clone, Debug)]
pub struct Sound {
    /// Sample rate in hertz.
    pub rate: u32,
    /// Channels in the file.
    pub channels: u16,
    /// Mean of the channels, full scale ±1.
    pub samples: Vec<f32>,
    frames: Vec<Frame>,
    breaks: Vec<Break>,
}

/// A place where the timestamps do not follow from the sample count.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Break {
    /// Where the sound before it ends, in seconds.
    pub at: f64,
    /// How much later than that it goes on, in milliseconds; negative: earlier.
    pub jump_ms: f64,
}

#[derive(Clone, Copy, Debug)]
struct Frame {
    first: usize,
    samples: usize,
    /// As written in the file, then smoothed.
    time: f64,
}

#[derive(Deserialize)]
struct Probed {
    #[serde(default)]
    frames: Vec<ProbedFrame>,
    #[serde(default)]
    streams: Vec<ProbedStream>,
}

#[derive(Deserialize)]
struct ProbedFrame {
    pts: Option<i64>,
    best_effort_timestamp: Option<i64>,
    nb_samples: usize,
}

#[derive(Deserialize)]
struct ProbedStream {
    sample_rate: String,
    channels: u16,
    time_base: String,
}

impl Sound {
    /// Decodes the first audio track of any file ffmpeg can read.
    ///
    /// Times are those of the container: an MP4's edit list is obeyed (its
    /// priming is not part of the sound), a container without one presents the
    /// priming as the sound it is.
    pub fn read(media: &Path) -> Result<Self> {
        Self::mixed(media, |channels| {
            channels.iter().sum::<f32>() / channels.len() as f32
        })
    }

    /// Half the difference between left and right, which is nothing where there is one channel.
    pub fn difference(media: &Path) -> Result<Self> {
        Self::mixed(media, |channels| match channels {
            [left, right, ..] => (left - right) / 2.0,
            _ => 0.0,
        })
    }

    fn mixed(media: &Path, mix: impl Fn(&[f32]) -> f32) -> Result<Self> {
        // The command line tool smooths timestamps by rules of its own, so they
        // are taken from ffprobe, which passes on what the file says.
        let path = media.to_path_buf();
        let times = std::thread::spawn(move || ask::<Probed>(&path, Detail::SoundFrames));
        let raw = e2e_ffmpeg::decode_sound(media).run();
        let probed = times
            .join()
            .map_err(|_| anyhow::anyhow!("reading timestamps panicked"))??;
        let raw = raw.with_context(|| format!("cannot decode the sound of {}", media.display()))?;

        let stream = probed
            .streams
            .first()
            .with_context(|| format!("{} has no sound", media.display()))?;
        let rate: u32 = stream.sample_rate.parse().context("bad sample rate")?;
        let tick = fraction(&stream.time_base).context("bad time base")?;
        let channels = usize::from(stream.channels.max(1));

        let mut frames = Vec::with_capacity(probed.frames.len());
        let mut first = 0;
        for frame in &probed.frames {
            let pts = frame
                .pts
                .or(frame.best_effort_timestamp)
                .context("a frame of sound has no timestamp")?;
            frames.push(Frame {
                first,
                samples: frame.nb_samples,
                time: pts as f64 * tick,
            });
            first += frame.nb_samples;
        }
        let value = |bytes: &[u8]| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        let samples: Vec<f32> = raw.chunks_exact(4).map(value).collect();
        let mono: Vec<f32> = samples.chunks_exact(channels).map(mix).collect();
        ensure!(
            mono.len() == first,
            "{}: {} samples decoded, {first} announced",
            media.display(),
            mono.len()
        );
        ensure!(first > 0, "{} has no sound", media.display());
        Ok(Self::new(rate, stream.channels, mono, frames))
    }

    /// Sound that starts at a time and runs on without a break.
    pub fn from_samples(rate: u32, start: f64, samples: Vec<f32>) -> Self {
        let frames = vec![Frame {
            first: 0,
            samples: samples.len(),
            time: start,
        }];
        Self::new(rate, 1, samples, frames)
    }

    fn new(rate: u32, channels: u16, samples: Vec<f32>, mut frames: Vec<Frame>) -> Self {
        let breaks = smooth(&mut frames, f64::from(rate));
        Self {
            rate,
            channels,
            samples,
            frames,
            breaks,
        }
    }

    /// A sample, full scale ±1; 0 before the first and after the last.
    pub(crate) fn sample(&self, index: i64) -> f32 {
        let index = usize::try_from(index).ok();
        let sample = index.and_then(|at| self.samples.get(at));
        sample.copied().unwrap_or_default()
    }

    /// When a sample is heard, in seconds.
    pub fn time_of(&self, index: f64) -> f64 {
        let at = self
            .frames
            .partition_point(|frame| (frame.first as f64) <= index)
            .saturating_sub(1);
        let Some(frame) = self.frames.get(at) else {
            return 0.0;
        };
        frame.time + (index - frame.first as f64) / f64::from(self.rate)
    }

    /// The sample heard at a time; before the first 0, after the last the
    /// number of samples, inside a gap the first sample after it.
    pub fn index_of(&self, time: f64) -> usize {
        let at = self.frames.partition_point(|frame| frame.time <= time);
        let Some(frame) = at.checked_sub(1).and_then(|at| self.frames.get(at)) else {
            return 0;
        };
        let within = ((time - frame.time) * f64::from(self.rate)).round() as usize;
        frame.first + within.min(frame.samples)
    }

    /// The samples heard between two times.
    pub fn between(&self, start: f64, end: f64) -> &[f32] {
        let (from, to) = (self.index_of(start), self.index_of(end));
        &self.samples[from.min(to)..to]
    }

    /// When the first sample is heard, in seconds.
    pub fn start(&self) -> f64 {
        self.time_of(0.0)
    }

    /// When the last sample has been heard, in seconds.
    pub fn end(&self) -> f64 {
        self.time_of(self.samples.len() as f64)
    }

    /// Gaps and overlaps in the timestamps; none in continuous sound.
    pub fn breaks(&self) -> &[Break] {
        &self.breaks
    }
}

/// Averages frame times within every unbroken run; returns the breaks between.
fn smooth(frames: &mut [Frame], rate: f64) -> Vec<Break> {
    let mut breaks = Vec::new();
    let mut runs = vec![0];
    for (at, pair) in frames.windows(2).enumerate() {
        let end = pair[0].time + pair[0].samples as f64 / rate;
        if (pair[1].time - end).abs() > BREAK_SECONDS {
            breaks.push(Break {
                at: end,
                jump_ms: (pair[1].time - end) * 1000.0,
            });
            runs.push(at + 1);
        }
    }
    runs.push(frames.len());
    for run in runs.windows(2) {
        let run = &mut frames[run[0]..run[1]];
        // What each frame says the run's sample zero would be.
        let origins: Vec<f64> = run
            .iter()
            .map(|frame| frame.time - frame.first as f64 / rate)
            .collect();
        for (at, frame) in run.iter_mut().enumerate() {
            // As many neighbours on one side as on the other, so that a slew
            // is not bent at the run's ends; but a run's ends need some.
            let reach = SMOOTH.min(at).min(origins.len() - 1 - at).max(SMOOTH / 2);
            let near = &origins[at.saturating_sub(reach)..(at + reach + 1).min(origins.len())];
            let origin = near.iter().sum::<f64>() / near.len() as f64;
            frame.time = origin + frame.first as f64 / rate;
        }
    }
    breaks
}
