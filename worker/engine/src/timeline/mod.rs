//! Puts both tracks on one line of media time.
//!
//! Four things tell when a unit belongs, and none of them alone is to be trusted:
//!
//! | evidence | good for | not to be trusted because |
//! |---|---|---|
//! | RTP time | distances within one track | it steps, strays, restarts, wraps |
//! | arrival | how much time really went by | it is late by network, bundling and reordering, never early |
//! | sender reports | which instants of both tracks belong together | clocks get set; some servers report arrival |
//! | decoding order | which pictures are only reordered | an encoder may begin with it at any time |
//!
//! So each track has a [`line::Line`] of its own, on which RTP time goes on without steps; [`evidence`]
//! says from arrivals how the two lines lie to each other, [`alignment`] weighs that against the
//! reports, and [`sound`] lays the audio on a grid without holes. Video is the master: its line, shifted
//! once, *is* the media time. The line begins with the first keyframe.
//!
//! No number of the peer sizes anything: silence is only put where arrival says that time has gone by.

mod alignment;
mod evidence;
mod line;
mod markers;
mod pace;
mod rtp_time;
mod sound;

use std::collections::VecDeque;
use std::time::Duration;

pub use self::alignment::AlignedBy;
use self::alignment::{Alignment, Finding};
use self::evidence::Evidence;
use self::line::Line;
pub use self::markers::Markers;
use self::pace::Pace;
pub use self::rtp_time::RtpTime;
use self::sound::{Fit, Sound};
use crate::time::{At, Pts, nanos_of};

/// Which track a fact is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Track {
    /// H.264 video.
    Video,
    /// The audio track.
    Audio,
}

impl Track {
    /// The word used in logs.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Video => "video",
            Self::Audio => "audio",
        }
    }
}

/// What kind of picture an access unit holds, as its slices say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Picture {
    /// Decoding can start here.
    Key,
    /// Refers to what was decoded before it.
    Predicted,
    /// May be shown before pictures that were decoded earlier.
    Bidirectional,
}

/// What the timeline needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimelineConfig {
    /// How long the start waits for sender reports before arrival times must do.
    pub report_wait: Duration,
    /// How long video waits for audio that does not come.
    pub patience: Duration,
    /// Length of an audio frame as the worker handles it.
    pub frame: Duration,
    /// Length of a frame of the codec on the wire where packets may carry several of them.
    pub bundled: Option<Duration>,
}

/// A unit with its place in media time.
#[expect(missing_docs, reason = "the fields say what they are")]
#[derive(Debug, PartialEq, Eq)]
pub enum Placed<V, A> {
    /// A video access unit, in decoding order.
    Video {
        pts: Pts,
        keyframe: bool,
        payload: V,
    },
    /// An audio frame of the input.
    Audio { pts: Pts, payload: A },
    /// A frame's length of silence, where the input has a hole.
    Silence { pts: Pts },
}

/// Why a unit that came in does not go out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DropReason {
    /// It precedes the first keyframe, where nobody can begin.
    BeforeKeyframe,
    /// Audio whose place was already given to silence.
    Late,
    /// More than is kept waiting for the other track.
    Overflow,
    /// The worker did not keep up with the input.
    Overrun,
    /// It was due while the output was away.
    OutputLost,
}

impl DropReason {
    /// All of them, which are the label values of `worker_media_dropped_total`.
    pub const ALL: [Self; 5] = [
        Self::BeforeKeyframe,
        Self::Late,
        Self::Overflow,
        Self::Overrun,
        Self::OutputLost,
    ];

    /// The word used in logs and as a metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::BeforeKeyframe => "before_keyframe",
            Self::Late => "late",
            Self::Overflow => "overflow",
            Self::Overrun => "overrun",
            Self::OutputLost => "output_lost",
        }
    }
}

/// What is worth a log line or a count. Times are nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Note {
    /// Both tracks are on one line.
    Aligned(AlignedBy),
    /// RTP time stepped by so much more than the time that went by.
    Stepped {
        /// Whose.
        track: Track,
        /// By how much.
        by: i64,
    },
    /// RTP time goes on otherwise than time does, and is multiplied from here on.
    Paced {
        /// Whose.
        track: Track,
        /// By so many thousandths.
        by: u32,
    },
    /// The sender's wall clock was set, by its reports.
    ClockSet {
        /// Whose reports say so.
        track: Track,
        /// By how much.
        by: i64,
    },
    /// Reports that would move the audio by more than is believed.
    ReportRefused {
        /// By how much.
        by: i64,
    },
    /// Reports tell when packets arrived somewhere, not when they were captured.
    ReportsByArrival {
        /// How late they would put the audio.
        late: i64,
    },
    /// The audio moves against the video.
    Realigned {
        /// By how much; positive: later.
        by: i64,
    },
    /// Video goes on with silence.
    AudioMissing {
        /// How long it waited.
        waited: Duration,
    },
    /// Audio is there (again).
    AudioJoined {
        /// How much silence took its place.
        silence: Duration,
    },
    /// A unit is dropped.
    Dropped {
        /// Of which track.
        track: Track,
        /// Why.
        reason: DropReason,
    },
}

impl Note {
    /// Label values of `worker_input_anomalies_total`; packet loss is seen by ingest.
    pub const ANOMALIES: [&'static str; 9] = [
        "rtp_step",
        "rtp_pace",
        "clock_set",
        "report_refused",
        "reports_by_arrival",
        "realigned",
        "audio_missing",
        "packets_lost",
        "no_keyframe",
    ];

    /// The label of this note if it is an anomaly of the input.
    pub const fn anomaly(&self) -> Option<&'static str> {
        match self {
            Self::Stepped { .. } => Some("rtp_step"),
            Self::Paced { .. } => Some("rtp_pace"),
            Self::ClockSet { .. } => Some("clock_set"),
            Self::ReportRefused { .. } => Some("report_refused"),
            Self::ReportsByArrival { .. } => Some("reports_by_arrival"),
            Self::Realigned { .. } => Some("realigned"),
            Self::AudioMissing { .. } => Some("audio_missing"),
            Self::Aligned(_) | Self::AudioJoined { .. } | Self::Dropped { .. } => None,
        }
    }
}

/// Units of either track kept for alignment at the start: at 60 pictures a second over a minute.
const MOST_WAITING: usize = 4096;

/// Audio that has been heard for so long tells how its packets are made.
const TELLING: Duration = Duration::from_millis(1200);
/// How finely it is remembered what waits since when.
const SAMPLED: Duration = Duration::from_millis(250);

/// Aligns one connection's tracks. After a reconnect, make another one.
pub struct Timeline<V, A> {
    config: TimelineConfig,
    /// Media time of the first keyframe.
    base: Pts,
    /// Place of the first keyframe on the video's line.
    origin: Option<i64>,
    video: Line,
    audio: Line,
    video_pace: Pace,
    audio_pace: Pace,
    evidence: Evidence,
    alignment: Alignment,
    sound: Sound,
    video_waiting: VecDeque<(i64, bool, V)>,
    audio_waiting: VecDeque<(i64, i64, A)>,
    /// When the first unit of either track came, and when the first audio packet did.
    first_arrival: Option<At>,
    heard: Option<At>,
    /// Arrival and place of recent pictures, some a second: what still waits, and since when.
    reach: VecDeque<(At, i64)>,
    /// Video flows, with or without audio.
    open: bool,
    finished: bool,
    ready: VecDeque<Placed<V, A>>,
    notes: VecDeque<Note>,
}

impl<V, A> Timeline<V, A> {
    /// A timeline whose first keyframe lies at `base`.
    pub fn new(config: TimelineConfig, base: Pts) -> Self {
        let frame = nanos_of(config.frame).max(1);
        Self {
            video: Line::video(),
            audio: Line::audio(frame),
            video_pace: Pace::new(),
            audio_pace: Pace::new(),
            evidence: Evidence::new(config.bundled.map(nanos_of)),
            alignment: Alignment::new(nanos_of(config.patience)),
            sound: Sound::new(frame),
            config,
            base,
            origin: None,
            video_waiting: VecDeque::new(),
            audio_waiting: VecDeque::new(),
            first_arrival: None,
            heard: None,
            reach: VecDeque::new(),
            open: false,
            finished: false,
            ready: VecDeque::new(),
            notes: VecDeque::new(),
        }
    }

    /// An access unit came, in decoding order. `time` is its RTP time in nanoseconds, unwrapped; a
    /// unit without one follows the one before.
    pub fn video(&mut self, at: At, time: Option<i64>, picture: Picture, payload: V) {
        let keyframe = picture == Picture::Key;
        let time = time.map(|rtp| {
            let time = self.video_pace.time(rtp);
            if self.video_pace.note(at, time)
                && let Some(ratio) = self.video_pace.put_right(&self.audio_pace, rtp)
            {
                self.video.forget();
                self.paced(Track::Video, ratio);
            }
            time
        });
        let located = self.video.picture(at, time, picture);
        if self.origin.is_none() {
            if !keyframe {
                self.drop(Track::Video, DropReason::BeforeKeyframe);
                return;
            }
            self.origin = Some(located.time);
        }
        self.first_arrival.get_or_insert(at);
        self.stepped(at, Track::Video, located.stepped);
        self.evidence.picture(at, located.time, keyframe);
        if self.video_waiting.len() == MOST_WAITING {
            self.open_now(at);
        }
        self.video_waiting
            .push_back((located.time, keyframe, payload));
        self.settle(at);
    }

    /// An audio packet came, before the frames in it; `time` is its RTP time.
    pub fn packet(&mut self, at: At, time: i64) {
        self.heard.get_or_insert(at);
        let rtp = time;
        let time = self.audio_pace.time(rtp);
        if self.audio_pace.note(at, time)
            && let Some(ratio) = self.audio_pace.put_right(&self.video_pace, rtp)
        {
            self.audio.forget();
            self.paced(Track::Audio, ratio);
        }
        self.evidence.packet(at, self.audio.on_line(time));
    }

    /// An audio frame came at `at`; without a time of its own it follows the one before.
    pub fn audio(&mut self, at: At, time: Option<i64>, payload: A) {
        self.heard.get_or_insert(at);
        self.first_arrival.get_or_insert(at);
        let time = time.map(|rtp| self.audio_pace.time(rtp));
        let located = self.audio.frame(at, time);
        self.stepped(at, Track::Audio, located.stepped);
        if self.audio_waiting.len() == MOST_WAITING {
            self.audio_waiting.pop_front();
            let reason = match self.origin {
                None => DropReason::BeforeKeyframe,
                Some(_) => DropReason::Overflow,
            };
            self.drop(Track::Audio, reason);
        }
        self.audio_waiting
            .push_back((located.time, located.hole, payload));
        self.settle(at);
    }

    /// A sender report came: `time` on the track's RTP clock is `ntp` on the sender's. It is `named` if
    /// a source description came with it.
    pub fn report(&mut self, at: At, track: Track, time: i64, ntp: i64, named: bool) {
        let (line, pace) = match track {
            Track::Video => (&self.video, &self.video_pace),
            Track::Audio => (&self.audio, &self.audio_pace),
        };
        let time = line.on_line(pace.time(time));
        let ahead = line.ahead(at, time);
        let verdict = self
            .alignment
            .report(track, time, ahead, (ntp, named), &self.evidence);
        self.apply(verdict);
        self.settle(at);
    }

    /// The connection has ended: what still waits must do with what is known.
    pub fn finish(&mut self, at: At) {
        self.finished = true;
        self.settle(at);
        // Without a keyframe nothing has a place.
        while self.audio_waiting.pop_front().is_some() {
            self.drop(Track::Audio, DropReason::BeforeKeyframe);
        }
    }

    /// Moves the media time of the first keyframe, before it has come.
    pub fn set_base(&mut self, base: Pts) {
        if self.origin.is_none() {
            self.base = base;
        }
    }

    /// The next unit in its place.
    pub fn poll(&mut self) -> Option<Placed<V, A>> {
        self.ready.pop_front()
    }

    /// The next thing worth telling.
    pub fn poll_note(&mut self) -> Option<Note> {
        self.notes.pop_front()
    }

    fn drop(&mut self, track: Track, reason: DropReason) {
        self.notes.push_back(Note::Dropped { track, reason });
    }

    fn stepped(&mut self, at: At, track: Track, step: Option<i64>) {
        let Some(by) = step else { return };
        self.evidence.forget(track);
        self.alignment.stepped(at, track, by);
        self.notes.push_back(Note::Stepped { track, by: -by });
    }

    /// What was learnt of where the track lies is void.
    fn paced(&mut self, track: Track, ratio: f64) {
        self.evidence.forget(track);
        self.alignment.doubt(track);
        let by = (ratio * 1_000.0).round() as u32;
        self.notes.push_back(Note::Paced { track, by });
    }

    fn apply(&mut self, verdict: Finding) {
        self.notes.extend(verdict.notes.into_iter().flatten());
        self.sound.moved(verdict.moved);
    }

    fn settle(&mut self, at: At) {
        let waited = self.waited(at);
        let told = self.heard.is_some_and(|heard| at.since(heard) >= TELLING);
        let pressed = self.finished || (told && waited >= self.config.report_wait);
        let verdict = self.alignment.weigh(at, pressed, &self.evidence);
        self.apply(verdict);
        if self.finished {
            self.open_now(at);
        }
        if self.origin.is_none() {
            return;
        }
        if self.alignment.offset().is_some() {
            self.open = true;
        } else if self.heard.is_none() && waited >= self.config.patience {
            self.open_now(at);
        }
        if self.open {
            self.place(at);
        }
    }

    fn waited(&self, at: At) -> Duration {
        self.first_arrival
            .map_or(Duration::ZERO, |first| at.since(first))
    }

    /// No more waiting: audio, if there is any, is placed by what is known.
    fn open_now(&mut self, at: At) {
        if self.heard.is_some() {
            let verdict = self.alignment.force(&self.evidence);
            self.apply(verdict);
        } else if !self.open && !self.finished {
            let waited = self.waited(at);
            self.sound.missing();
            self.notes.push_back(Note::AudioMissing { waited });
        }
        self.open = true;
    }

    fn place(&mut self, at: At) {
        let Some(origin) = self.origin else { return };
        // What waited together leaves together: audio first, so that none of it looks missing.
        if let Some(offset) = self.alignment.offset() {
            while let Some((time, hole, payload)) = self.audio_waiting.pop_front() {
                self.lay(time.saturating_add(offset - origin), hole, payload);
            }
        }
        while let Some((time, keyframe, payload)) = self.video_waiting.pop_front() {
            let media = time - origin;
            let overdue = self.overdue(at, media);
            if self.sound.keep_up(media, overdue) {
                let waited = self.config.patience;
                self.notes.push_back(Note::AudioMissing { waited });
            }
            self.silence();
            let pts = self.base.shifted(media);
            self.ready.push_back(Placed::Video {
                pts,
                keyframe,
                payload,
            });
        }
    }

    /// The place up to which pictures have waited as long as they do; `media` came now.
    fn overdue(&mut self, at: At, media: i64) -> Option<i64> {
        let last = self.reach.back().map(|(at, _)| *at);
        if last.is_none_or(|last| at.since(last) >= SAMPLED) {
            self.reach.push_back((at, media));
        }
        let due = |(arrived, _): &(At, i64)| at.since(*arrived) >= self.config.patience;
        while self.reach.get(1).is_some_and(due) {
            self.reach.pop_front();
        }
        let (_, place) = self.reach.front().filter(|entry| due(entry))?;
        Some(*place)
    }

    fn lay(&mut self, media: i64, hole: i64, payload: A) {
        match self.sound.frame(media, hole) {
            Fit::Early => self.drop(Track::Audio, DropReason::BeforeKeyframe),
            Fit::Late => self.drop(Track::Audio, DropReason::Late),
            Fit::Here { joined } => {
                if let Some(silence) = joined {
                    self.notes.push_back(Note::AudioJoined { silence });
                }
                self.silence();
                let pts = self.base.shifted(media);
                self.ready.push_back(Placed::Audio { pts, payload });
            }
        }
    }

    fn silence(&mut self) {
        while let Some(media) = self.sound.poll_silence() {
            let pts = self.base.shifted(media);
            self.ready.push_back(Placed::Silence { pts });
        }
    }
}
