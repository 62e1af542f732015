//! Fits every pair's audio to one continuous grid of output samples.
//!
//! The output is encoded as one unbroken stream: sample `n` is heard at `origin + n / rate`, for ever.
//! The input's timestamps need not agree: clocks drift, timestamps step, audio has holes. For each
//! pair [`AvSync::plan`] compares where the grid stands with where the pair's audio should be heard
//! and says how many samples to make of it:
//!
//! - within the dead band, as many as came in;
//! - beyond it, a little more or fewer (slew), so that the end of the pair is right or as near as
//!   the slew limit allows;
//! - a hole larger than `gap` is filled with silence at once.
//!
//! The grid never goes back and never jumps. Positions come from a sample count by one division, so
//! rounding does not add up.

use crate::event::Event;
use crate::time::{Pts, nanos_of};
use std::collections::VecDeque;
use std::time::Duration;

const NANOS: i128 = 1_000_000_000;
/// Pairs whose clock ratio is remembered. The median of five shrugs off two steps or gaps.
const RATIOS: usize = 5;
/// Ratios that must agree before drift is believed.
const EVIDENCE: usize = 3;
/// Ratios agree within this of their median. What is left of a hole after it was filled with whole
/// frames differs from hole to hole, a clock does not.
const AGREEMENT_PPM: u64 = 1_000;
/// Drift below this (parts per million) is left to the dead band: a pair of 6 s is off by 6 ms.
const DRIFT_FLOOR_PPM: i64 = 1_000;
/// Drift above this is no clock but a broken timeline.
const DRIFT_CEILING_PPM: i64 = 20_000;
/// A shorter piece says nothing about the clock: jitter of its timestamps weighs too much.
const SHORTEST_TELLING: Duration = Duration::from_secs(1);

/// The rules of fitting.
#[derive(Clone, Debug, PartialEq)]
pub struct AvSyncConfig {
    /// Samples per second of the output grid.
    pub rate: u32,
    /// Audio-minus-video error that is reported as over the threshold.
    pub threshold: Duration,
    /// Error that is left alone.
    pub deadband: Duration,
    /// Share by which a pair's audio may be stretched or compressed (0.02 = 2 %).
    pub max_slew: f64,
    /// A hole larger than this is filled with silence at once.
    pub gap: Duration,
}

impl Default for AvSyncConfig {
    fn default() -> Self {
        Self {
            rate: 48_000,
            threshold: Duration::from_millis(120),
            deadband: Duration::from_millis(5),
            max_slew: 0.02,
            gap: Duration::from_millis(500),
        }
    }
}

/// What to make of one pair's audio.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub struct AudioPlan {
    /// Samples of silence to put first.
    pub silence_before: u64,
    /// Samples that came in.
    pub input_samples: u64,
    /// Samples to make of them.
    pub output_samples: u64,
    /// Output position of the first sample, silence included.
    pub start: Pts,
    /// Audio minus video, ns, at the start of the pair's own audio as it will be heard; positive:
    /// audio is late.
    pub delta: i64,
}

/// The audio grid of one output. See the [module](self).
#[derive(Clone, Debug)]
pub struct AvSync {
    config: AvSyncConfig,
    origin: Option<Pts>,
    /// Samples put out since the origin.
    produced: u64,
    /// Start of the piece before, without the steps inside it, and its samples.
    last: Option<(Pts, u64)>,
    /// Media time per sample time of recent pieces, as parts per million above 1.
    drift_ppm: VecDeque<i64>,
    events: VecDeque<Event>,
}

impl AvSync {
    /// A grid whose origin will be the first audio.
    pub fn new(config: AvSyncConfig) -> Self {
        Self {
            config,
            origin: None,
            produced: 0,
            last: None,
            drift_ppm: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// Plans a pair's audio: `samples` at the output rate, the first at `audio_start` by its own
    /// timestamps, which step by `step` ns somewhere inside. The step is made up for in this pair, whose
    /// silence can take it up. A pair whose audio has a large hole inside is planned piece by piece.
    pub fn plan(&mut self, batch: u64, audio_start: Pts, samples: u64, step: i64) -> AudioPlan {
        let origin = *self.origin.get_or_insert(audio_start);
        let start = self.position(origin);
        let mut delta = start.offset_from(audio_start);

        let mut silence_before = 0;
        if delta < -nanos_of(self.config.gap) {
            silence_before = self.samples_in(delta.saturating_neg());
            self.produced += silence_before;
            delta = self.position(origin).offset_from(audio_start);
            let silence =
                Duration::from_nanos(self.position(origin).since(start).as_nanos() as u64);
            self.events.push_back(Event::AvGapFilled { batch, silence });
        }
        self.learn_drift(audio_start, samples, step);

        let change = self.change(delta.saturating_sub(step), samples);
        let output_samples = samples.saturating_add_signed(change);
        self.produced += output_samples;
        if change != 0 {
            let slewed_ns = self.nanos_in(change);
            self.events.push_back(Event::AvCorrection {
                batch,
                delta_ns: delta.saturating_sub(step),
                slewed_ns,
            });
        }
        if delta.unsigned_abs() > self.config.threshold.as_nanos() as u64 {
            self.events.push_back(Event::AvOverThreshold {
                batch,
                delta_ns: delta,
            });
        }
        AudioPlan {
            silence_before,
            input_samples: samples,
            output_samples,
            start,
            delta,
        }
    }

    /// The next event, oldest first.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn position(&self, origin: Pts) -> Pts {
        let nanos = i128::from(self.produced) * NANOS / i128::from(self.config.rate.max(1));
        origin.shifted(nanos as i64)
    }

    /// Samples by which the piece gets longer (or shorter, negative).
    fn change(&self, delta: i64, samples: u64) -> i64 {
        let limit = (samples as f64 * self.config.max_slew.clamp(0.0, 0.5)) as i64;
        let drift = i128::from(samples) * i128::from(self.believed_drift_ppm()) / 1_000_000;
        let correction = if delta.unsigned_abs() <= self.config.deadband.as_nanos() as u64 {
            0
        } else {
            -(i128::from(delta) * i128::from(self.config.rate) / NANOS)
        };
        (drift + correction).clamp(i128::from(-limit), i128::from(limit)) as i64
    }

    /// Compares the timestamps' advance with the samples that came in between.
    fn learn_drift(&mut self, audio_start: Pts, samples: u64, step: i64) {
        let previous = self.last.replace((audio_start.shifted(step), samples));
        let Some((start, count)) = previous else {
            return;
        };
        let played = self.nanos_in(count as i64);
        if played < nanos_of(SHORTEST_TELLING) {
            return;
        }
        let off = i128::from(audio_start.offset_from(start)) - i128::from(played);
        if self.drift_ppm.len() == RATIOS {
            self.drift_ppm.pop_front();
        }
        self.drift_ppm
            .push_back((off * 1_000_000 / i128::from(played)) as i64);
    }

    /// The median of the recent ratios where it is a clock's drift, else 0.
    fn believed_drift_ppm(&self) -> i64 {
        if self.drift_ppm.len() < EVIDENCE {
            return 0;
        }
        let mut sorted: Vec<i64> = self.drift_ppm.iter().copied().collect();
        sorted.sort_unstable();
        let median = sorted[sorted.len() / 2];
        let agreeing = sorted
            .iter()
            .filter(|ratio| ratio.abs_diff(median) <= AGREEMENT_PPM);
        if agreeing.count() >= EVIDENCE
            && (DRIFT_FLOOR_PPM..=DRIFT_CEILING_PPM).contains(&median.abs())
        {
            median
        } else {
            0
        }
    }

    fn samples_in(&self, nanos: i64) -> u64 {
        (i128::from(nanos.max(0)) * i128::from(self.config.rate) / NANOS) as u64
    }

    fn nanos_in(&self, samples: i64) -> i64 {
        (i128::from(samples) * NANOS / i128::from(self.config.rate.max(1))) as i64
    }
}
