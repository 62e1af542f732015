//! One track on its way out: what is sent when, and stamped how.

use crate::clip::{Audio, Codec, VIDEO_CLOCK, Video, rescale};
use crate::manner::{Manner, TrackManner};
use crate::payload;

/// Nanoseconds in a second.
pub(crate) const SECOND: i64 = 1_000_000_000;

/// Samples that leave together: one picture, or some audio frames in one packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unit {
    /// Which samples of the track.
    pub(crate) samples: Vec<usize>,
    /// RTP timestamp of the first, relative to the track's base.
    pub(crate) rtp: i64,
    /// When the first belongs, in nanoseconds of the clip.
    pub(crate) pts: i64,
    /// When it leaves, in nanoseconds of true time (0 is when second 0 of the clip happens).
    pub(crate) send: i64,
    /// When what it holds is over, on the same axis.
    pub(crate) end: i64,
    /// From here on the track has another SSRC.
    pub(crate) new_ssrc: bool,
    /// From here on its sequence numbers are so much further.
    pub(crate) sequence: i16,
}

/// When one sample is shown and coded, in ticks of the track.
#[derive(Debug, Clone, Copy)]
struct Times {
    pts: i64,
    dts: i64,
    ticks: i64,
    bytes: usize,
    /// Until it leaves after its decoding time: what its encoder looks ahead.
    ahead: i64,
}

/// The order and time of everything one track sends.
#[derive(Debug)]
pub(crate) struct Lane {
    samples: Vec<Times>,
    /// Ticks per second of the samples.
    rate: u32,
    /// Ticks per second of RTP.
    pub(crate) clock: u32,
    /// RTP timestamp of second 0.
    pub(crate) rtp_base: u32,
    manner: TrackManner,
    /// Audio: the duration every frame has, so that loops stay on the frame grid.
    grid: Option<i64>,
    /// Length of one loop in nanoseconds.
    period: Option<i64>,
    end_at: Option<i64>,
    frames_per_packet: usize,
    packets_wait: bool,
    room: usize,
    /// What each jump moves timestamps by, once it happened.
    jumped: Vec<Option<i64>>,
    /// The last period in which a stray timestamp was sent.
    strayed: i64,
    index: usize,
    /// Placed, but not yet part of a unit.
    waiting: Option<Unit>,
    upcoming: Option<Unit>,
}

impl Lane {
    pub(crate) fn video(
        video: &Video,
        period: Option<i64>,
        manner: &Manner,
        rtp_base: u32,
    ) -> Self {
        let looks_ahead = !manner.from_file;
        let ahead: Vec<i64> = (0..video.sets.len())
            .map(|sets| {
                let pictures = video.pictures.iter();
                let pictures = pictures.filter(|picture| looks_ahead && picture.sets == sets);
                pictures
                    .map(|picture| picture.pts - picture.dts)
                    .max()
                    .unwrap_or(0)
            })
            .collect();
        let pictures = video.pictures.iter();
        let samples = pictures
            .map(|picture| Times {
                pts: picture.pts,
                dts: picture.dts,
                ticks: picture.ticks,
                bytes: 0,
                ahead: ahead[picture.sets],
            })
            .collect();
        Self::new(
            samples,
            (VIDEO_CLOCK, VIDEO_CLOCK, rtp_base),
            period,
            manner,
            &manner.video,
        )
    }

    pub(crate) fn audio(
        audio: &Audio,
        period: Option<i64>,
        manner: &Manner,
        rtp_base: u32,
    ) -> Self {
        let frames = audio.frames.iter();
        let samples: Vec<_> = frames
            .map(|frame| Times {
                pts: frame.pts,
                dts: frame.pts,
                ticks: frame.samples,
                bytes: frame.data.len(),
                ahead: 0,
            })
            .collect();
        let regular = samples.first().map(|first| first.ticks).filter(|ticks| {
            let mut others = samples.iter().rev().skip(1);
            *ticks > 0 && others.all(|sample| sample.ticks == *ticks)
        });
        let clock = if audio.codec == Codec::Mpeg {
            VIDEO_CLOCK
        } else {
            audio.rate
        };
        let mut lane = Self::new(
            samples,
            (audio.rate, clock, rtp_base),
            period,
            manner,
            &manner.audio,
        );
        lane.grid = regular;
        if matches!(audio.codec, Codec::Aac(_) | Codec::Mpeg) {
            lane.frames_per_packet = manner.frames_per_packet;
            lane.packets_wait = manner.packets_wait;
        }
        lane.fill();
        lane
    }

    fn new(
        samples: Vec<Times>,
        (rate, clock, rtp_base): (u32, u32, u32),
        period: Option<i64>,
        manner: &Manner,
        track: &TrackManner,
    ) -> Self {
        let mut lane = Self {
            samples,
            rate,
            clock,
            rtp_base,
            manner: track.clone(),
            grid: None,
            period,
            end_at: manner.end_at.map(nanos),
            frames_per_packet: 1,
            packets_wait: false,
            room: manner.max_packet - payload::HEADER,
            jumped: vec![None; track.jumps.len()],
            strayed: 0,
            index: 0,
            waiting: None,
            upcoming: None,
        };
        lane.fill();
        lane
    }

    /// Begins anew with the first sample.
    fn fill(&mut self) {
        (self.index, self.strayed) = (0, 0);
        self.jumped.fill(None);
        self.waiting = self.advance();
        self.upcoming = self.gather();
    }

    /// The next unit; `None` at the end.
    pub(crate) fn peek(&self) -> Option<&Unit> {
        self.upcoming.as_ref()
    }

    /// Takes the next unit.
    pub(crate) fn pop(&mut self) -> Option<Unit> {
        let unit = self.upcoming.take();
        self.upcoming = self.gather();
        unit
    }

    /// Frames that leave together: those that follow each other without a seam, up to the limit.
    fn gather(&mut self) -> Option<Unit> {
        let mut unit = self.waiting.take()?;
        self.waiting = self.advance();
        let mut last = unit.rtp;
        while let Some(next) = &self.waiting {
            let follows = self
                .grid
                .is_some_and(|ticks| next.rtp - last == rescale(ticks, self.rate, self.clock));
            let samples = unit.samples.iter().chain(&next.samples);
            let size = payload::aac_size(samples.map(|sample| self.samples[*sample].bytes));
            if unit.samples.len() >= self.frames_per_packet
                || !follows
                || size > self.room
                || next.new_ssrc
                || next.sequence != 0
            {
                break;
            }
            unit.samples.extend(&next.samples);
            // A packet can only leave when the last frame in it is there.
            (unit.send, unit.end, last) = (next.send, next.end, next.rtp);
            self.waiting = self.advance();
        }
        if self.packets_wait {
            unit.send = unit.end;
        }
        Some(unit)
    }

    /// RTP timestamp, relative to the track's base, that an honest sender report gives for a moment of
    /// true time.
    pub(crate) fn report(&self, at: i64) -> i64 {
        let clip_time = (at as f64 * (1.0 + self.manner.drift)).round() as i64;
        let jumps = self.manner.jumps.iter().zip(&self.jumped);
        let follows: i64 = jumps
            .filter(|(jump, _)| jump.reports_follow && clip_time >= nanos(jump.at))
            .filter_map(|(_, by)| *by)
            .sum();
        rescale(clip_time, SECOND as u32, self.clock) + follows
    }

    /// The next frame that is really sent, as a unit of its own.
    fn advance(&mut self) -> Option<Unit> {
        loop {
            let (sample, pts, dts) = self.locate(self.index)?;
            self.index += 1;
            let (at, coded) = (self.nanos(pts), self.nanos(dts));
            let is_over = |time| self.end_at.is_some_and(|end| self.true_time(time) >= end);
            if is_over(coded) {
                return None;
            }
            let manner = &self.manner;
            let hole = manner.holes.iter().any(|hole| {
                let begin = nanos(hole.at);
                (begin..begin + nanos(hole.seconds)).contains(&at)
            });
            let kept = manner.from.is_none_or(|from| at >= nanos(from))
                && manner.until.is_none_or(|until| at < nanos(until));
            if is_over(at) || hole || !kept {
                continue;
            }
            let times = self.samples[sample];
            let send = self.true_time(coded) + self.nanos(times.ahead) + nanos(manner.late);
            let plain = rescale(pts, self.rate, self.clock);
            let (new_ssrc, sequence) = self.jump(at, plain);
            let jumps = self.manner.jumps.iter().zip(&self.jumped);
            let moved: i64 = jumps
                .filter(|(jump, _)| at >= nanos(jump.at))
                .filter_map(|(_, by)| *by)
                .sum();
            return Some(Unit {
                samples: vec![sample],
                rtp: plain + moved + self.stray(at),
                pts: at,
                send,
                end: send + self.nanos(times.ticks),
                new_ssrc,
                sequence,
            });
        }
    }

    /// Lets the jumps happen that are due; whether one brings a new SSRC, and how far sequence numbers go.
    fn jump(&mut self, at: i64, plain: i64) -> (bool, i16) {
        let (mut new_ssrc, mut sequence) = (false, 0_i16);
        for index in 0..self.jumped.len() {
            let jump = &self.manner.jumps[index];
            if at >= nanos(jump.at) && self.jumped[index].is_none() {
                let so_far: i64 = self.jumped[..index].iter().flatten().sum();
                let base = i64::from(self.rtp_base);
                self.jumped[index] = Some(match jump.to {
                    Some(to) => i64::from(to) - base - plain - so_far,
                    None => rescale((jump.ms * 1e6).round() as i64, SECOND as u32, self.clock),
                });
                new_ssrc |= jump.new_ssrc;
                sequence = sequence.wrapping_add(jump.sequence);
            }
        }
        (new_ssrc, sequence)
    }

    /// What this frame's timestamp is off by.
    fn stray(&mut self, at: i64) -> i64 {
        let Some(stray) = self.manner.stray else {
            return 0;
        };
        let every = nanos(stray.every).max(1);
        let period = (at + every / 2).div_euclid(every);
        if period <= self.strayed {
            return 0;
        }
        self.strayed = period;
        rescale((stray.ms * 1e6).round() as i64, SECOND as u32, self.clock)
    }

    /// The n-th frame of the stream: which sample it is, its PTS and DTS in ticks.
    fn locate(&self, index: usize) -> Option<(usize, i64, i64)> {
        let Some(period) = self.period else {
            return self
                .samples
                .get(index)
                .map(|sample| (index, sample.pts, sample.dts));
        };
        if let Some(frame) = self.grid {
            // Loops of audio begin on the nearest frame of one unbroken grid; a loop that comes out one
            // frame short repeats its last, one that is too long loses it.
            let loop_begin = |round: i64| {
                let ticks = rescale(round * period, SECOND as u32, self.rate);
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
        let shift = rescale((index / count) as i64 * period, SECOND as u32, self.rate);
        let sample = self.samples[index % count];
        Some((index % count, sample.pts + shift, sample.dts + shift))
    }

    fn nanos(&self, ticks: i64) -> i64 {
        rescale(ticks, self.rate, SECOND as u32)
    }

    /// When a moment of the clip happens by the clock of this track.
    fn true_time(&self, clip_nanos: i64) -> i64 {
        if self.manner.drift == 0.0 {
            clip_nanos
        } else {
            (clip_nanos as f64 / (1.0 + self.manner.drift)).round() as i64
        }
    }
}

/// Seconds as nanoseconds.
pub(crate) fn nanos(seconds: f64) -> i64 {
    (seconds * SECOND as f64).round() as i64
}
