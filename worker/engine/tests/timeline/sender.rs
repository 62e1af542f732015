//! A sender that knows when everything really happened, and what the timeline makes of it.

use std::time::Duration;

use dub_engine::timeline::{Note, Picture, RtpTime};
use dub_engine::{At, Placed, Pts, Timeline, TimelineConfig, Track};

pub(crate) const MS: i64 = 1_000_000;
pub(crate) const SECOND: i64 = 1_000 * MS;
/// Length of an AAC frame of 48 kHz.
pub(crate) const FRAME: i64 = SECOND * 1024 / 48_000;
const VIDEO_CLOCK: u32 = 90_000;
const AUDIO_CLOCK: u32 = 48_000;
const START: i64 = 2 * SECOND;
/// The sender's wall clock at true time 0.
const WALL: i64 = 3_900_000_000 * SECOND;

/// What the reports say.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reports {
    None,
    Honest,
    /// When packets arrived at a server, by the quickest so far.
    Arrival,
    /// The same, by the last packet or keyframe.
    LastArrival,
}

/// A change of one track's RTP clock, or of the wall clock, at a true time.
#[derive(Clone, Copy)]
pub(crate) struct Step {
    pub(crate) at: i64,
    pub(crate) by: i64,
}

/// A sender. Times in nanoseconds of true time.
#[derive(Clone)]
pub(crate) struct Sender {
    pub(crate) seconds: i64,
    pub(crate) fps: i64,
    pub(crate) key_every: i64,
    /// From here on, groups of three B-frames (decoded P B B B, the middle one first).
    pub(crate) reordered_from: Option<i64>,
    pub(crate) bundle: Vec<usize>,
    pub(crate) reports: Reports,
    pub(crate) first_report: i64,
    pub(crate) report_every: i64,
    pub(crate) video_steps: Vec<Step>,
    pub(crate) audio_steps: Vec<Step>,
    pub(crate) wall_steps: Vec<Step>,
    /// The same in the audio's reports only.
    pub(crate) audio_wall: Vec<Step>,
    /// One video timestamp a second is off by this.
    pub(crate) stray: i64,
    /// Audio is sent only within these true times.
    pub(crate) audio_within: Vec<(i64, i64)>,
    pub(crate) audio_late: i64,
    /// A live encoder that reorders is late by what it looks ahead; a file is not.
    pub(crate) video_late: i64,
    /// Both tracks pause: nothing is captured meanwhile.
    pub(crate) pauses: Vec<(i64, i64)>,
    /// What is sent meanwhile comes through at its end.
    pub(crate) bursts: Vec<(i64, i64)>,
    /// Delay of each packet, by its number.
    pub(crate) jitter: fn(u64) -> i64,
    pub(crate) video_base: u32,
    pub(crate) audio_base: u32,
    /// Audio runs fast by so many parts per million.
    pub(crate) drift_ppm: i64,
    /// The same of video, within these true times: cameras that count pictures.
    pub(crate) video_ppm: Vec<(i64, i64, i64)>,
    pub(crate) slices_as_pictures: bool,
}

impl Default for Sender {
    fn default() -> Self {
        Self {
            seconds: 24,
            fps: 30,
            key_every: 30,
            reordered_from: None,
            bundle: vec![1],
            reports: Reports::Honest,
            first_report: 0,
            report_every: 5 * SECOND,
            video_steps: Vec::new(),
            audio_steps: Vec::new(),
            wall_steps: Vec::new(),
            audio_wall: Vec::new(),
            stray: 0,
            audio_within: vec![(i64::MIN, i64::MAX)],
            audio_late: 0,
            video_late: 0,
            pauses: Vec::new(),
            bursts: Vec::new(),
            jitter: |n| (n * 7919 % 13) as i64 * MS / 4,
            video_base: 1_000,
            audio_base: 77_000,
            drift_ppm: 0,
            video_ppm: Vec::new(),
            slices_as_pictures: false,
        }
    }
}

enum What {
    Video {
        rtp: Option<u32>,
        picture: Picture,
        truth: i64,
    },
    /// Frames by their true times.
    Audio {
        rtp: u32,
        frames: Vec<i64>,
    },
    Report {
        track: Track,
        rtp: u32,
        ntp: i64,
    },
}

/// What came out: where it was put, and when it happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Out {
    pub(crate) kind: char,
    pub(crate) pts: i64,
    pub(crate) truth: i64,
    /// When it left the timeline.
    pub(crate) at: i64,
}

/// Everything a run gave.
pub(crate) struct Run {
    pub(crate) out: Vec<Out>,
    pub(crate) notes: Vec<(i64, Note)>,
    pub(crate) pictures: usize,
    pub(crate) frames: usize,
    /// Units that came out or were dropped.
    gone: usize,
    pub(crate) most_waiting: usize,
}

impl Sender {
    fn paused(&self, truth: i64) -> bool {
        self.pauses
            .iter()
            .any(|(from, to)| (*from..*to).contains(&truth))
    }

    fn arrival(&self, sent: i64, n: u64) -> i64 {
        let held = self
            .bursts
            .iter()
            .find(|(from, to)| (*from..*to).contains(&sent));
        START + held.map_or(sent + (self.jitter)(n), |(_, to)| *to)
    }

    fn rtp(&self, track: Track, truth: i64) -> u32 {
        let (clock, base, steps, ppm) = match track {
            Track::Video => (VIDEO_CLOCK, self.video_base, &self.video_steps, 0),
            Track::Audio => (
                AUDIO_CLOCK,
                self.audio_base,
                &self.audio_steps,
                self.drift_ppm,
            ),
        };
        let by: i64 = steps
            .iter()
            .filter(|step| truth >= step.at)
            .map(|step| step.by)
            .sum();
        let mut drifted = truth + (i128::from(truth) * i128::from(ppm) / 1_000_000) as i64;
        for (from, to, ppm) in self.video_ppm.iter().filter(|_| track == Track::Video) {
            let within = truth.clamp(*from, *to) - from;
            drifted += (i128::from(within) * i128::from(*ppm) / 1_000_000) as i64;
        }
        let time = i128::from(drifted + by) * i128::from(clock) / i128::from(SECOND);
        base.wrapping_add(time as u32)
    }

    fn pictures(&self) -> Vec<(i64, i64, Picture)> {
        let (count, step) = (self.seconds * self.fps, SECOND / self.fps);
        let mut order = Vec::new();
        let mut shown = 0;
        while shown < count {
            let key = shown % self.key_every == 0;
            let group = self.reordered_from.is_some_and(|from| shown * step >= from);
            if !key
                && group
                && shown + 3 < count
                && (shown..shown + 4).all(|n| n % self.key_every != 0)
            {
                for (n, picture) in [
                    (3, Picture::Predicted),
                    (1, Picture::Bidirectional),
                    (0, Picture::Bidirectional),
                    (2, Picture::Bidirectional),
                ] {
                    order.push((shown + n, picture));
                }
                shown += 4;
            } else {
                let picture = if key {
                    Picture::Key
                } else {
                    Picture::Predicted
                };
                order.push((shown, picture));
                shown += 1;
            }
        }
        let lead = if self.reordered_from.is_some() {
            2 * step
        } else {
            0
        };
        order
            .into_iter()
            .zip(0..)
            .map(|((shown, picture), n)| (shown * step, n * step - lead, picture))
            .collect()
    }

    fn sent(&self) -> Vec<(i64, What)> {
        let mut sent = Vec::new();
        let mut arrived: [Vec<(i64, i64, bool)>; 2] = Default::default();
        let mut n = 0;
        let mut strayed = 0;
        for (truth, dts, picture) in self.pictures() {
            n += 1;
            if self.paused(truth) {
                continue;
            }
            let at = self.arrival(dts + self.video_late, n);
            let second = truth / SECOND;
            let stray = if self.stray != 0 && second > strayed {
                strayed = second;
                self.stray
            } else {
                0
            };
            let ticks = (stray * i64::from(VIDEO_CLOCK) / SECOND) as u32;
            let rtp = self.rtp(Track::Video, truth).wrapping_add(ticks);
            arrived[0].push((at, truth, picture == Picture::Key));
            sent.push((
                at,
                What::Video {
                    rtp: Some(rtp),
                    picture,
                    truth,
                },
            ));
            if self.slices_as_pictures {
                let picture = Picture::Predicted;
                sent.push((
                    at,
                    What::Video {
                        rtp: None,
                        picture,
                        truth,
                    },
                ));
            }
        }
        let mut k = 0_usize;
        let mut frame = 0;
        let count = self.seconds * SECOND / FRAME;
        while frame < count {
            let size = self.bundle[k % self.bundle.len()];
            k += 1;
            let frames: Vec<i64> = (frame..(frame + size as i64).min(count))
                .map(|n| n * SECOND * 1024 / 48_000)
                .filter(|truth| {
                    !self.paused(*truth)
                        && self
                            .audio_within
                            .iter()
                            .any(|(from, to)| (*from..*to).contains(truth))
                })
                .collect();
            frame += size as i64;
            n += 1;
            let (Some(first), Some(last)) = (frames.first().copied(), frames.last().copied())
            else {
                continue;
            };
            // One frame leaves when it begins (as from a file), several when the last is over.
            let leaves = if size == 1 { first } else { last + FRAME };
            let at = self.arrival(leaves + self.audio_late, n);
            arrived[1].push((at, first, true));
            let rtp = self.rtp(Track::Audio, first);
            sent.push((at, What::Audio { rtp, frames }));
        }
        self.report_on(&mut sent, &arrived);
        sent.sort_by_key(|(at, _)| *at);
        sent
    }

    fn report_on(&self, sent: &mut Vec<(i64, What)>, arrived: &[Vec<(i64, i64, bool)>; 2]) {
        if self.reports == Reports::None {
            return;
        }
        let mut truth = self.first_report;
        while truth < self.seconds * SECOND {
            for (track, arrived) in [Track::Video, Track::Audio].into_iter().zip(arrived) {
                let at = truth + START;
                let mut before = arrived.iter().filter(|(arrival, ..)| *arrival <= at);
                let mut mapping = before.clone().map(|(arrival, truth, _)| arrival - truth);
                let late = match self.reports {
                    Reports::Arrival => mapping.min(),
                    Reports::LastArrival => {
                        let last = before.rfind(|(_, _, tells)| *tells);
                        last.map(|(arrival, truth, _)| arrival - truth)
                    }
                    _ => mapping.next().map(|_| START),
                };
                let Some(late) = late else { continue };
                let wall: i64 = self
                    .wall_steps
                    .iter()
                    .chain(self.audio_wall.iter().filter(|_| track == Track::Audio))
                    .filter(|step| truth >= step.at)
                    .map(|step| step.by)
                    .sum();
                let ntp = WALL + wall + truth + late - START;
                let rtp = self.rtp(track, truth);
                sent.push((at + 1, What::Report { track, rtp, ntp }));
            }
            truth += self.report_every;
        }
    }

    pub(crate) fn run(&self) -> Run {
        let config = TimelineConfig {
            report_wait: Duration::from_millis(5500),
            patience: Duration::from_secs(6),
            frame: Duration::from_nanos(FRAME as u64),
            bundled: Some(Duration::from_nanos(FRAME as u64)),
        };
        let mut timeline = Timeline::new(config, Pts::ZERO);
        let mut clocks = [RtpTime::new(VIDEO_CLOCK), RtpTime::new(AUDIO_CLOCK)];
        let mut run = Run {
            out: Vec::new(),
            notes: Vec::new(),
            pictures: 0,
            frames: 0,
            gone: 0,
            most_waiting: 0,
        };
        let mut last = 0;
        for (at, what) in self.sent() {
            last = at;
            let now = At::new(Duration::from_nanos(at as u64));
            match what {
                What::Video {
                    rtp,
                    picture,
                    truth,
                } => {
                    run.pictures += 1;
                    let time = rtp.map(|rtp| clocks[0].packet(rtp));
                    timeline.video(now, time, picture, truth);
                }
                What::Audio { rtp, frames } => {
                    let time = clocks[1].packet(rtp);
                    timeline.packet(now, time);
                    for (index, truth) in frames.into_iter().enumerate() {
                        run.frames += 1;
                        timeline.audio(now, (index == 0).then_some(time), truth);
                    }
                }
                What::Report { track, rtp, ntp } => {
                    let clock = &clocks[usize::from(track == Track::Audio)];
                    if let Some(time) = clock.other(rtp) {
                        // A server that puts arrival into them leaves the description out.
                        let named = self.reports == Reports::Honest;
                        timeline.report(now, track, time, ntp, named);
                    }
                }
            }
            run.take(&mut timeline, at);
            let waiting = run.pictures + run.frames - run.gone;
            run.most_waiting = run.most_waiting.max(waiting);
        }
        timeline.finish(At::new(Duration::from_nanos(last as u64)));
        run.take(&mut timeline, last);
        run
    }
}

impl Run {
    fn take(&mut self, timeline: &mut Timeline<i64, i64>, at: i64) {
        let at = at - START;
        while let Some(placed) = timeline.poll() {
            let (kind, pts, truth) = match placed {
                Placed::Video { pts, payload, .. } => ('v', pts, payload),
                Placed::Audio { pts, payload } => ('a', pts, payload),
                Placed::Silence { pts } => ('s', pts, 0),
            };
            let pts = pts.nanos();
            self.gone += usize::from(kind != 's');
            self.out.push(Out {
                kind,
                pts,
                truth,
                at,
            });
        }
        while let Some(note) = timeline.poll_note() {
            self.gone += usize::from(matches!(note, Note::Dropped { .. }));
            self.notes.push((at, note));
        }
    }

    pub(crate) fn of(&self, kind: char) -> Vec<Out> {
        self.out
            .iter()
            .filter(|out| out.kind == kind)
            .copied()
            .collect()
    }

    pub(crate) fn dropped(&self, track: Track) -> usize {
        let dropped = |(_, note): &&(i64, Note)| matches!(note, Note::Dropped { track: t, .. } if *t == track);
        self.notes.iter().filter(dropped).count()
    }

    pub(crate) fn noted(&self, kind: &str) -> usize {
        self.notes
            .iter()
            .filter(|(_, note)| note.anomaly() == Some(kind))
            .count()
    }

    /// Milliseconds by which the sound that happened at `from..to` is late against the picture of the
    /// same time: the worst of all frames.
    pub(crate) fn skew(&self, from: i64, to: i64) -> f64 {
        let mut video = self.of('v');
        video.sort_by_key(|out| out.truth);
        let mut worst = 0_i64;
        let mut any = false;
        for sound in self
            .of('a')
            .iter()
            .filter(|out| (from..to).contains(&out.truth))
        {
            let next = video.partition_point(|out| out.truth <= sound.truth);
            let Some(picture) = next.checked_sub(1).map(|at| video[at]) else {
                continue;
            };
            if sound.truth - picture.truth > SECOND {
                continue;
            }
            any = true;
            let skew = (sound.pts - sound.truth) - (picture.pts - picture.truth);
            if skew.abs() > worst.abs() {
                worst = skew;
            }
        }
        assert!(any, "no sound there");
        worst as f64 / MS as f64
    }

    /// What every run must keep to.
    pub(crate) fn is_sane(&self) {
        assert_eq!(
            self.of('v').len() + self.dropped(Track::Video),
            self.pictures,
            "pictures"
        );
        assert_eq!(
            self.of('a').len() + self.dropped(Track::Audio),
            self.frames,
            "frames"
        );
    }
}
