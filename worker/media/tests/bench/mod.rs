//! The mixer on a bench: coded segments go in, AAC frames come out.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "every test binary uses its own part"
)]

use std::time::Duration;

use dub_engine::{AvSyncConfig, DubFitConfig, DubFitMode, DubLoudness, Pts};
use dub_media::AacFrame;
use dub_media::aac::AacFormat;
use dub_media::audio::Budget;
use dub_media::encoder::Encoder;
use dub_media::mixer::{MixJob, Mixed, Mixer, Part};

pub const RATE: usize = 48_000;
/// Frames per segment: 2.005 s, so that a test has many joins.
pub const PART: usize = 94;

pub fn budget() -> Budget {
    Budget {
        time: Duration::from_secs(20),
        frames: 100 * RATE,
    }
}

/// A steady tone, the same in both channels.
pub fn tone(frames: usize, hz: f64, amplitude: f64) -> Vec<f32> {
    (0..frames)
        .flat_map(|n| {
            let x =
                (amplitude * (std::f64::consts::TAU * hz * n as f64 / RATE as f64).sin()) as f32;
            [x, x]
        })
        .collect()
}

pub fn encode(format: &AacFormat, samples: &[f32]) -> Vec<AacFrame> {
    let mut encoder = Encoder::start(format).unwrap();
    let mut frames = encoder.push(samples).unwrap();
    frames.extend(encoder.finish().unwrap());
    frames
}

pub struct Bench {
    pub format: AacFormat,
    mixer: Mixer,
    results: tokio::sync::mpsc::Receiver<Mixed>,
}

impl Bench {
    /// With `duck_db` the original stays under the dub. Dubs of another length are refused.
    pub fn new(duck_db: Option<f64>) -> Self {
        Self::fitting(duck_db, DubFitMode::Refuse, Duration::ZERO)
    }

    /// Dubs of another length are fitted.
    pub fn fitting(duck_db: Option<f64>, mode: DubFitMode, spill: Duration) -> Self {
        Self::start(duck_db, mode, spill, DubLoudness::Match)
    }

    /// Dubs are or are not changed in level.
    pub fn levelling(loudness: DubLoudness) -> Self {
        Self::start(None, DubFitMode::Refuse, Duration::ZERO, loudness)
    }

    fn start(
        duck_db: Option<f64>,
        mode: DubFitMode,
        spill: Duration,
        loudness: DubLoudness,
    ) -> Self {
        dub_media::init().expect("the machine has the plugins: cargo xtask setup");
        let format = AacFormat::lc(48_000, 2);
        let (sender, results) = tokio::sync::mpsc::channel(64);
        let sync = AvSyncConfig {
            rate: 48_000,
            ..AvSyncConfig::default()
        };
        let fit = DubFitConfig {
            mode,
            max_speed: 1.4,
            spill,
            rate: 48_000,
        };
        let mixer = Mixer::start(format.clone(), sync, fit, loudness, duck_db, sender).unwrap();
        Self {
            format,
            mixer,
            results,
        }
    }

    /// Both parts as one.
    pub fn mix(&mut self, job: MixJob) -> Mixed {
        let batch = job.batch;
        self.mixer.mix(job).unwrap();
        let mut mixed = self.next();
        assert_eq!(mixed.part, Part::Begin(batch));
        // Half a second, so that nothing waits for the rest.
        assert!(mixed.frames.len() <= 24, "{}", mixed.frames.len());
        let rest = self.next();
        assert_eq!(rest.part, Part::End(batch));
        assert!(rest.trouble.is_none(), "{:?}", rest.trouble);
        mixed.frames.extend(rest.frames);
        mixed.dubbed_m4a = rest.dubbed_m4a;
        mixed
    }

    /// All at once, and what comes of them in turn.
    pub fn mix_at_once(&mut self, jobs: impl Iterator<Item = MixJob>) -> Vec<Part> {
        for job in jobs {
            self.mixer.mix(job).unwrap();
        }
        self.mixer.finish().unwrap();
        let mut parts = Vec::new();
        while parts.last() != Some(&Part::Last) {
            parts.push(self.next().part);
            self.mixer.go_on().unwrap();
        }
        parts
    }

    fn next(&mut self) -> Mixed {
        self.results.blocking_recv().unwrap()
    }

    pub fn finish(&mut self) -> Mixed {
        self.mixer.finish().unwrap();
        self.next()
    }

    /// Segment `batch` of segments of [`PART`] frames.
    pub fn job(&self, batch: usize, frames: &[AacFrame], all: &[AacFrame]) -> MixJob {
        self.job_at(batch, batch * PART, frames, all)
    }

    /// A segment of any length whose first frame is number `first` of `all`.
    pub fn job_at(
        &self,
        batch: usize,
        first: usize,
        frames: &[AacFrame],
        all: &[AacFrame],
    ) -> MixJob {
        let at = |frame: usize| Pts::from_nanos(self.format.nanos(frame as u64 * 1024));
        MixJob {
            batch: batch as u64,
            start: at(first),
            end: at(first + frames.len()),
            audio_start: Some(at(first)),
            audio_step: 0,
            frames: frames.to_vec(),
            preroll: first.checked_sub(1).map(|before| all[before].clone()),
            dubbed: None,
            keep: false,
        }
    }
}
