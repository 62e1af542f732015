//! One track on its way out: what is sent when, and stamped how, with its faults.

use super::options::{Options, StepReports};
use crate::media::clip::{Sample, rescale};

const SECOND: i64 = 1_000_000_000;

/// Which track a lane carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Media {
    /// The video track.
    Video,
    /// The audio track.
    Audio,
}

/// Samples that leave together: one access unit, or some AAC frames in one packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unit {
    /// Which samples of the track.
    pub(super) samples: Vec<usize>,
    /// RTP timestamp of the first, relative to second 0.
    pub(super) rtp: i64,
    /// When it leaves, in nanoseconds of true time (0 is when second 0 of the clip happens).
    pub(super) send: i64,
    /// When what it holds is over, on the same axis.
    pub(super) end: i64,
}

/// One frame placed in time, before frames are grouped into units.
#[derive(Debug, Clone, Copy)]
struct Placed {
    sample: usize,
    rtp: i64,
    send: i64,
    end: i64,
}

/// The order and time of everything one track sends.
#[derive(Debug)]
pub(super) struct Lane<'a> {
    pub(super) media: Media,
    samples: &'a [Sample],
    timescale: u32,
    clock: u32,
    /// Audio: the duration every frame has, so that loops stay on the frame grid.
    grid: Option<i64>,
    /// Length of one loop in nanoseconds; `None` without looping.
    period: Option<i64>,
    rate: f64,
    delay: i64,
    reorder: i64,
    step: i64,
    step_at: i64,
    step_reports: StepReports,
    gap: std::ops::Range<i64>,
    end_at: Option<i64>,
    per_unit: usize,
    /// Index of the next frame to place.
    index: usize,
    /// Placed, but not yet part of a unit.
    waiting: Option<Placed>,
    upcoming: Option<Unit>,
}

impl<'a> Lane<'a> {
    /// `period` is the length of a loop in nanoseconds, `per_unit` how many frames leave together.
    pub(super) fn new(
        media: Media,
        (samples, timescale, clock): (&'a [Sample], u32, u32),
        period: Option<i64>,
        per_unit: usize,
        options: &Options,
    ) -> Self {
        let audio = media == Media::Audio;
        let of_audio = |value: i64| if audio { value } else { 0 };
        let gap_at = nanos(options.gap_at);
        let first = samples.first().map_or(0, |sample| sample.duration);
        let regular = first > 0
            && samples
                .iter()
                .rev()
                .skip(1)
                .all(|sample| sample.duration == first);
        let reorder = samples
            .iter()
            .map(|sample| sample.pts - sample.dts)
            .max()
            .unwrap_or(0);
        let mut lane = Self {
            media,
            samples,
            timescale,
            clock,
            grid: (audio && regular).then_some(i64::from(first)),
            period,
            rate: if audio {
                1.0 + options.audio_drift.0
            } else {
                1.0
            },
            delay: of_audio(i64::from(options.audio_delay_ms) * 1_000_000),
            reorder: rescale(reorder, timescale, SECOND as u32),
            step: if audio {
                options.audio_step_ms
            } else {
                options.video_step_ms
            } * 1_000_000,
            step_at: nanos(options.step_at),
            step_reports: options.step_reports,
            gap: gap_at..gap_at + of_audio(i64::from(options.audio_gap_ms) * 1_000_000),
            end_at: options.end_at.map(nanos),
            per_unit,
            index: 0,
            waiting: None,
            upcoming: None,
        };
        lane.waiting = lane.advance();
        lane.upcoming = lane.gather();
        lane
    }

    /// When the next unit leaves, in nanoseconds of true time; `None` at the end.
    pub(super) fn peek(&self) -> Option<i64> {
        self.upcoming.as_ref().map(|unit| unit.send)
    }

    /// Takes the next unit.
    pub(super) fn pop(&mut self) -> Option<Unit> {
        let unit = self.upcoming.take();
        self.upcoming = self.gather();
        unit
    }

    /// Frames that leave together: those that follow each other without a seam, up to the limit.
    fn gather(&mut self) -> Option<Unit> {
        let first = self.waiting.take()?;
        let mut unit = Unit {
            samples: vec![first.sample],
            rtp: first.rtp,
            send: first.send,
            end: first.end,
        };
        self.waiting = self.advance();
        let mut last = first;
        while let Some(next) = self.waiting {
            let follows = self.grid.is_some_and(|ticks| {
                next.rtp - last.rtp == rescale(ticks, self.timescale, self.clock)
            });
            if unit.samples.len() >= self.per_unit || !follows {
                break;
            }
            unit.samples.push(next.sample);
            // A sender can only send a packet when the last frame in it is there.
            (unit.send, unit.end) = (next.send, next.end);
            last = next;
            self.waiting = self.advance();
        }
        Some(unit)
    }

    /// RTP timestamp, relative to second 0, that a sender report gives for a moment of true time.
    pub(super) fn report(&self, at: i64) -> i64 {
        let clip_time = (at as f64 * self.rate).round() as i64;
        let stepped = self.step_reports == StepReports::Follow && clip_time >= self.step_at;
        rescale(
            clip_time + if stepped { self.step } else { 0 },
            SECOND as u32,
            self.clock,
        )
    }

    /// The next frame that is really sent.
    fn advance(&mut self) -> Option<Placed> {
        loop {
            let (sample, pts, dts) = self.locate(self.index)?;
            self.index += 1;
            let (pts_nanos, dts_nanos) = (self.nanos(pts), self.nanos(dts));
            if self
                .end_at
                .is_some_and(|end| self.true_time(dts_nanos) >= end)
            {
                return None;
            }
            if self.gap.contains(&pts_nanos)
                || self
                    .end_at
                    .is_some_and(|end| self.true_time(pts_nanos) >= end)
            {
                continue;
            }
            let step = if pts_nanos >= self.step_at {
                rescale(self.step, SECOND as u32, self.clock)
            } else {
                0
            };
            let send = self.true_time(dts_nanos) + self.reorder + self.delay;
            let duration = self.nanos(i64::from(self.samples[sample].duration));
            return Some(Placed {
                sample,
                rtp: rescale(pts, self.timescale, self.clock) + step,
                send,
                end: send + duration,
            });
        }
    }

    /// The n-th frame of the endless stream: which sample it is, its PTS and DTS in ticks.
    fn locate(&self, index: usize) -> Option<(usize, i64, i64)> {
        let Some(period) = self.period else {
            return self
                .samples
                .get(index)
                .map(|sample| (index, sample.pts, sample.dts));
        };
        if let Some(frame) = self.grid {
            // Loops of audio begin on the nearest frame of one unbroken grid; a loop that comes out
            // one frame short repeats its last, one that is too long loses it.
            let loop_begin = |round: i64| {
                let ticks = rescale(round * period, SECOND as u32, self.timescale);
                (ticks + frame / 2).div_euclid(frame)
            };
            let at = index as i64;
            let mut round = self.nanos(at * frame) / period;
            while loop_begin(round + 1) <= at {
                round += 1;
            }
            while loop_begin(round) > at {
                round -= 1;
            }
            let sample = ((at - loop_begin(round)) as usize).min(self.samples.len() - 1);
            let pts = self.samples[0].pts + at * frame;
            return Some((sample, pts, pts));
        }
        let count = self.samples.len();
        let shift = rescale(
            (index / count) as i64 * period,
            SECOND as u32,
            self.timescale,
        );
        let sample = &self.samples[index % count];
        Some((index % count, sample.pts + shift, sample.dts + shift))
    }

    fn nanos(&self, ticks: i64) -> i64 {
        rescale(ticks, self.timescale, SECOND as u32)
    }

    /// When a moment of the clip happens by the clock of this track.
    fn true_time(&self, clip_nanos: i64) -> i64 {
        if (self.rate - 1.0).abs() < f64::EPSILON {
            clip_nanos
        } else {
            (clip_nanos as f64 / self.rate).round() as i64
        }
    }
}

/// Seconds as nanoseconds.
pub(super) fn nanos(seconds: f64) -> i64 {
    (seconds * SECOND as f64).round() as i64
}
