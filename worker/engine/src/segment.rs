//! Where boundaries fall, and which access unit and audio frame belongs to which segment.
//!
//! The grid starts at the first video keyframe, `T0`; what precedes it is dropped from both tracks.
//! Line `k` is `T0 + k * duration`, in whole nanoseconds, so the grid never drifts.
//!
//! - Segments end at the lines. With [`SegmentCut::Pause`] they end at the quietest moment between `min`
//!   and `max`, near the line that makes a segment of about `duration`; where there is no pause, at that
//!   line. It is always decided when both tracks have come as far as `max`: segments of changing length
//!   are then ready with the same delay, and the output never waits for a longer one.
//! - An audio frame belongs to the segment its midpoint falls in, so a cut is at the frame start
//!   nearest to the boundary.
//! - Video comes in decode order and stays in it: the cut is before the first unit whose PTS reaches
//!   the boundary. With B-frames, units that present before the boundary but are decoded after that
//!   unit go with it.
//! - A segment is complete when both tracks have reached its end. A track that is more than `max_wait`
//!   behind is not waited for; what it delivers later goes into the segment that is then open, so
//!   nothing is ever lost or reordered.
//! - Nothing is held for long: a backlog of a track that is far behind is cut off when it spans
//!   several segments.
//! - Cells of the grid in which neither track has media are skipped.

use crate::pause::{self, FrameLevel};
use crate::time::{Pts, nanos_of};
use std::collections::VecDeque;
use std::time::Duration;

/// A track never holds more than this many times `duration + max_wait`.
const BACKLOG: u32 = 5;

/// What decides where segments end.
#[derive(Copy, Clone, Debug, Default, Eq, PartialEq)]
pub enum SegmentCut {
    /// The clock.
    #[default]
    Grid,
    /// The speaker: the quietest moment, in a segment from `min` to `max` long.
    Pause {
        /// At most the configured duration.
        min: Duration,
        /// At least the configured duration.
        max: Duration,
    },
}

/// The rules of cutting.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SegmenterConfig {
    /// Length of a full segment; about that with [`SegmentCut::Pause`].
    pub duration: Duration,
    /// Where segments end.
    pub cut: SegmentCut,
    /// A remainder shorter than this is a tail and not worth sending.
    pub min_remainder: Duration,
    /// How far one track may run beyond a boundary before the segment is cut without the other.
    pub max_wait: Duration,
}

impl Default for SegmenterConfig {
    fn default() -> Self {
        Self {
            duration: Duration::from_secs(6),
            cut: SegmentCut::Grid,
            min_remainder: Duration::from_secs(1),
            max_wait: Duration::from_secs(6),
        }
    }
}

/// A video access unit.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct VideoUnit<V> {
    /// Presentation time.
    pub pts: Pts,
    /// Whether decoding can start here.
    pub keyframe: bool,
    /// The driver's own.
    pub payload: V,
}

/// An audio frame.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AudioFrame<A> {
    /// Presentation time of its first sample.
    pub pts: Pts,
    /// Length.
    pub duration: Duration,
    /// How loud it is; `None`: not measured.
    pub level: Option<FrameLevel>,
    /// The driver's own.
    pub payload: A,
}

impl<A> AudioFrame<A> {
    fn midpoint(&self) -> Pts {
        self.pts + self.duration / 2
    }

    fn end(&self) -> Pts {
        self.pts + self.duration
    }
}

/// How long a segment is.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub enum SegmentKind {
    /// At least the configured duration.
    Full,
    /// The end of the input, long enough to be sent.
    Remainder,
    /// The end of the input, too short to be sent: keeps its original audio.
    Tail,
}

/// Why a segment ends where it ends.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub enum CutAt {
    /// A line of the grid.
    Grid,
    /// A pause in the speech.
    Pause,
    /// Nothing follows.
    End,
}

/// A stretch of media between two cuts.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Segment<V, A> {
    /// Its number since the start of the worker.
    pub batch: u64,
    /// The boundary before it.
    pub start: Pts,
    /// The boundary; for the last one, where its media ends.
    pub end: Pts,
    /// What the boundary is.
    pub cut: CutAt,
    /// How long it is.
    pub kind: SegmentKind,
    /// Access units in decode order.
    pub video: VecDeque<VideoUnit<V>>,
    /// Audio frames in order of arrival.
    pub audio: Vec<AudioFrame<A>>,
}

impl<V, A> Segment<V, A> {
    /// Audio whose frames stand further apart, or closer, than this has a step; less is a time stamp's
    /// rounding.
    const STEP: i64 = 5_000_000;

    /// By how much (ns) the audio's timestamps step inside: what is left of holes that were filled with
    /// whole frames.
    pub fn audio_step(&self) -> i64 {
        let neighbours = self.audio.windows(2);
        let steps = neighbours.map(|pair| pair[1].pts.offset_from(pair[0].end()));
        steps.filter(|step| step.abs() > Self::STEP).sum()
    }
}

/// Media that preceded the first keyframe.
#[derive(Copy, Clone, Debug, Default, Eq, PartialEq)]
pub struct DroppedBeforeStart {
    /// Access units.
    pub video: u64,
    /// Audio frames.
    pub audio: u64,
}

/// The running grid.
#[derive(Clone, Debug)]
struct Grid {
    origin: Pts,
    /// Where the open segment starts.
    start: Pts,
    /// Largest video PTS so far.
    video_reach: Option<Pts>,
    /// Largest audio end so far.
    audio_reach: Option<Pts>,
}

impl Grid {
    /// The line at `pts` or before it.
    fn line_before(&self, pts: Pts, duration: Duration) -> Pts {
        let off = pts.offset_from(self.origin);
        let behind = off.rem_euclid(nanos_of(duration));
        self.origin.shifted(off.saturating_sub(behind))
    }
}

/// Cuts two tracks into segments. Feed it, then [`poll`](Self::poll) until `None`.
#[derive(Clone, Debug)]
pub struct Segmenter<V, A> {
    config: SegmenterConfig,
    grid: Option<Grid>,
    video: VecDeque<VideoUnit<V>>,
    audio: VecDeque<AudioFrame<A>>,
    done: VecDeque<Segment<V, A>>,
    next_batch: u64,
    dropped: DroppedBeforeStart,
}

impl<V, A> Segmenter<V, A> {
    /// Waits for the first keyframe. A duration of zero is taken as 1 ms.
    pub fn new(mut config: SegmenterConfig) -> Self {
        config.duration = config.duration.max(Duration::from_millis(1));
        if let SegmentCut::Pause { min, max } = &mut config.cut {
            *min = (*min).clamp(Duration::from_millis(1), config.duration);
            *max = (*max).max(config.duration);
        }
        Self {
            config,
            grid: None,
            video: VecDeque::new(),
            audio: VecDeque::new(),
            done: VecDeque::new(),
            next_batch: 0,
            dropped: DroppedBeforeStart::default(),
        }
    }

    /// Takes the next access unit in decode order.
    ///
    /// A keyframe more than a segment before the newest unit is a timeline that started anew: what
    /// is held is finished and a new grid starts there.
    pub fn video(&mut self, unit: VideoUnit<V>) {
        if unit.keyframe && self.is_restart(unit.pts) {
            self.finish();
        }
        if self.grid.is_none() {
            if !unit.keyframe {
                self.dropped.video += 1;
                return;
            }
            self.start_grid(unit.pts);
        }
        let Some(grid) = &mut self.grid else { return };
        // Leading pictures of an open GOP refer to what came before the keyframe.
        if unit.pts < grid.origin && !unit.keyframe && grid.start == grid.origin {
            self.dropped.video += 1;
            return;
        }
        grid.video_reach = grid.video_reach.max(Some(unit.pts));
        self.video.push_back(unit);
    }

    /// Takes the next audio frame.
    pub fn audio(&mut self, frame: AudioFrame<A>) {
        match &mut self.grid {
            None => {
                self.audio.push_back(frame);
                self.bound_early_audio();
            }
            Some(grid) => {
                if grid.audio_reach.is_none() && frame.midpoint() < grid.origin {
                    self.dropped.audio += 1;
                    return;
                }
                grid.audio_reach = grid.audio_reach.max(Some(frame.end()));
                self.audio.push_back(frame);
            }
        }
    }

    /// The next complete segment.
    pub fn poll(&mut self) -> Option<Segment<V, A>> {
        while self.cut_if_complete() {}
        self.done.pop_front()
    }

    /// Ends the grid, at the end of the input or at a discontinuity.
    ///
    /// What is held becomes full segments and a remainder or tail. Audio that runs on beyond the last
    /// video by less than `min_remainder` joins the last segment, as long as that is still held. The
    /// next media starts a new grid at its first keyframe; batches go on counting.
    pub fn finish(&mut self) {
        while self.cut_if_complete() {}
        while self.grid.is_some() && !(self.video.is_empty() && self.audio.is_empty()) {
            self.cut_remaining();
        }
        self.dropped.audio += self.audio.len() as u64;
        self.audio.clear();
        self.grid = None;
    }

    /// What was dropped for lack of a keyframe, since the start of the worker.
    pub fn dropped(&self) -> DroppedBeforeStart {
        self.dropped
    }

    /// How much media must still come before the open segment can be cut; `None` while a track has not
    /// begun.
    pub fn missing(&self) -> Option<Duration> {
        let grid = self.grid.as_ref()?;
        let reach = grid.video_reach?.min(grid.audio_reach?);
        Some(self.horizon(grid).since(reach))
    }

    /// Compared with the track itself, not with the grid: video that was held up somewhere and now
    /// delivers its backlog is late, not new.
    fn is_restart(&self, pts: Pts) -> bool {
        let reach = self.grid.as_ref().and_then(|grid| grid.video_reach);
        reach.is_some_and(|reach| pts + self.config.duration < reach)
    }

    fn start_grid(&mut self, origin: Pts) {
        while self
            .audio
            .front()
            .is_some_and(|frame| frame.midpoint() < origin)
        {
            self.audio.pop_front();
            self.dropped.audio += 1;
        }
        let audio_reach = self.audio.iter().map(AudioFrame::end).max();
        self.grid = Some(Grid {
            origin,
            start: origin,
            video_reach: None,
            audio_reach,
        });
    }

    /// Audio before the first keyframe is almost all dropped later; hold no more than `max_wait`.
    fn bound_early_audio(&mut self) {
        let held = |audio: &VecDeque<AudioFrame<A>>| match (audio.front(), audio.back()) {
            (Some(first), Some(last)) => last.end().since(first.pts),
            _ => Duration::ZERO,
        };
        while held(&self.audio) > self.config.max_wait {
            self.audio.pop_front();
            self.dropped.audio += 1;
        }
    }

    /// Cuts the open segment if it is complete; `false` if not.
    fn cut_if_complete(&mut self) -> bool {
        let Some(grid) = &self.grid else { return false };
        let horizon = self.horizon(grid);
        let reach = |reach: Option<Pts>, to: Pts| reach.is_some_and(|at| at >= to);
        let both = reach(grid.video_reach, horizon) && reach(grid.audio_reach, horizon);
        let patience = horizon + self.config.max_wait;
        let overdue = reach(grid.video_reach, patience) || reach(grid.audio_reach, patience);
        if (both || overdue || self.is_backlogged())
            && !(self.video.is_empty() && self.audio.is_empty())
        {
            self.cut(self.boundary(grid, horizon));
            return true;
        }
        false
    }

    /// The latest end of the open segment, where it is decided.
    fn horizon(&self, grid: &Grid) -> Pts {
        match self.config.cut {
            SegmentCut::Grid => grid.start + self.config.duration,
            SegmentCut::Pause { max, .. } => grid.start + max,
        }
    }

    /// Where the open segment ends, at `latest` at the latest.
    fn boundary(&self, grid: &Grid, latest: Pts) -> (Pts, CutAt) {
        let duration = self.config.duration;
        let whole = grid.start + duration;
        let SegmentCut::Pause { min, .. } = self.config.cut else {
            return (whole, CutAt::Grid);
        };
        let earliest = grid.start + min;
        let latest = latest.max(earliest);
        // Off the grid the lines may be too near or too far; then it is just the length.
        let before = grid.line_before(whole, duration);
        let aim = [before, before + duration]
            .into_iter()
            .filter(|line| (earliest..=latest).contains(line))
            .min_by_key(|line| line.offset_from(whole).abs())
            .unwrap_or(whole.min(latest));
        let frames = self.audio.iter().filter(|frame| frame.pts >= grid.start);
        let frames = frames.take_while(|frame| frame.pts <= latest);
        match pause::quietest(frames, earliest, latest, aim) {
            Some(pause) => (pause, CutAt::Pause),
            None => (aim, CutAt::Grid),
        }
    }

    /// Whether a track that is far behind has piled up more than is worth holding.
    fn is_backlogged(&self) -> bool {
        let longest = match self.config.cut {
            SegmentCut::Grid => self.config.duration,
            SegmentCut::Pause { max, .. } => max,
        };
        let most = (longest + self.config.max_wait) * BACKLOG;
        let span = |first: Option<Pts>, last: Option<Pts>| match (first, last) {
            (Some(first), Some(last)) => last.since(first) >= most,
            _ => false,
        };
        let (video, audio) = (&self.video, &self.audio);
        span(
            video.front().map(|unit| unit.pts),
            video.back().map(|unit| unit.pts),
        ) || span(
            audio.front().map(|frame| frame.pts),
            audio.back().map(|frame| frame.pts),
        )
    }

    /// Cuts at `boundary`, or skips to the next line with media behind it if there is none before.
    fn cut(&mut self, (boundary, why): (Pts, CutAt)) {
        let units = self.video.iter().position(|unit| unit.pts >= boundary);
        let frames = self
            .audio
            .iter()
            .position(|frame| frame.midpoint() >= boundary);
        let units = units.unwrap_or(self.video.len());
        let frames = frames.unwrap_or(self.audio.len());
        if units == 0 && frames == 0 {
            self.skip_to_media(boundary);
            return;
        }
        self.emit(units, frames, (boundary, why), SegmentKind::Full);
        if let Some(grid) = &mut self.grid {
            grid.start = boundary;
        }
    }

    fn skip_to_media(&mut self, boundary: Pts) {
        let video = self.video.front().map(|unit| unit.pts);
        let audio = self.audio.front().map(AudioFrame::midpoint);
        let next = video.into_iter().chain(audio).min();
        let (Some(grid), Some(next)) = (&mut self.grid, next) else {
            return;
        };
        grid.start = grid.line_before(next, self.config.duration).max(boundary);
    }

    /// One step of [`finish`](Self::finish): a full segment, or everything that is left.
    fn cut_remaining(&mut self) {
        let Some(grid) = &self.grid else { return };
        let (start, horizon) = (grid.start, self.horizon(grid));
        let video_beyond = self.video.iter().any(|unit| unit.pts >= horizon);
        let audio_end = self
            .audio
            .iter()
            .map(AudioFrame::end)
            .max()
            .unwrap_or(start);
        let (joins, min) = match self.config.cut {
            SegmentCut::Grid => (self.config.min_remainder, Duration::ZERO),
            SegmentCut::Pause { min, .. } => (Duration::ZERO, min),
        };
        let audio_beyond = self.audio.iter().any(|frame| frame.midpoint() >= horizon)
            && audio_end >= horizon + joins;
        let end = audio_end.max(self.video_end()).max(start.shifted(1));
        if video_beyond || audio_beyond {
            // What is left then is worth sending too, if a pause allows it.
            let boundary = self.boundary(grid, horizon.min(end - min));
            self.cut(boundary);
            return;
        }
        let length = end.since(start);
        let kind = if length >= self.config.duration {
            SegmentKind::Full
        } else if length >= self.config.min_remainder {
            SegmentKind::Remainder
        } else {
            SegmentKind::Tail
        };
        let all = (self.video.len(), self.audio.len());
        self.emit(all.0, all.1, (end, CutAt::End), kind);
    }

    /// Where the held video ends: the last PTS plus the last frame interval.
    fn video_end(&self) -> Pts {
        let mut pts: Vec<Pts> = self.video.iter().map(|unit| unit.pts).collect();
        pts.sort_unstable();
        let Some(last) = pts.last() else {
            return Pts::from_nanos(i64::MIN);
        };
        let interval = match pts.len().checked_sub(2) {
            Some(before) => last.since(pts[before]),
            None => Duration::ZERO,
        };
        // A unit must lie before the end of its segment, so at least 1 ns.
        *last + interval.clamp(Duration::from_nanos(1), Duration::from_secs(1))
    }

    fn emit(&mut self, units: usize, frames: usize, end: (Pts, CutAt), kind: SegmentKind) {
        let Some(grid) = &self.grid else { return };
        self.done.push_back(Segment {
            batch: self.next_batch,
            start: grid.start,
            end: end.0,
            cut: end.1,
            kind,
            video: self.video.drain(..units).collect(),
            audio: self.audio.drain(..frames).collect(),
        });
        self.next_batch += 1;
    }
}
