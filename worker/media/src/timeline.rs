//! Puts both tracks on one line of media time.
//!
//! Video is the master: its RTP time, shifted once, *is* the media time. Audio follows
//! through the sender reports, which say which instants of both tracks belong together;
//! without reports, through the arrival times of the first seconds. The line begins with
//! the first keyframe.
//!
//! Pure: facts in, units out.

use std::collections::VecDeque;
use std::time::Duration;

use dub_engine::{At, Pts};

use super::ingest::Track;

/// What the timeline needs to know.
#[derive(Debug, Clone)]
pub struct TimelineConfig {
    /// How long to wait for sender reports before arrival times must do.
    pub report_wait: Duration,
    /// Length of an audio frame.
    pub frame: Duration,
    /// A hole in the audio longer than this is filled with silent frames.
    pub gap: Duration,
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

/// How the tracks were brought together; for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alignment {
    /// By RTCP sender reports: exact.
    Reports,
    /// By arrival: a few milliseconds off, more if the sender bundles frames.
    Arrival,
}

/// Aligns one connection's tracks. After a reconnect, make another one.
pub struct Timeline<V, A> {
    config: TimelineConfig,
    /// Media time of the first keyframe.
    base: Pts,
    video: VideoTrack<V>,
    audio: AudioTrack<A>,
    reports: [Option<Report>; 2],
    /// Audio RTP time + this = video RTP time, in nanoseconds.
    offset: Option<i64>,
    alignment: Option<Alignment>,
    first_arrival: Option<At>,
    ready: VecDeque<Placed<V, A>>,
}

struct VideoTrack<V> {
    waiting: VecDeque<(i64, bool, V)>,
    /// RTP time of the first keyframe.
    origin: Option<i64>,
    transit: Option<i64>,
    /// Highest time seen, and how far units went back behind it by reordering.
    highest: Option<i64>,
    reorder: i64,
    /// Last step forward, the best guess at a frame's length.
    step: i64,
    /// What was added to RTP time because the sender's clock went back.
    absorbed: i64,
}

struct AudioTrack<A> {
    waiting: VecDeque<(i64, A)>,
    transit: Option<i64>,
    last: Option<i64>,
    /// Where the next frame belongs if nothing is missing.
    expected: Option<i64>,
}

#[derive(Clone, Copy)]
struct Report {
    time: i64,
    ntp: i64,
}

/// While B-frames may still show for the first time, going back is reordering.
const LEARNING: i64 = 2_000_000_000;
/// Frames kept for alignment at the start: far more than `report_wait` needs.
const MOST_WAITING: usize = 4096;

impl<V, A> Timeline<V, A> {
    /// A timeline whose first keyframe lies at `base`.
    pub fn new(config: TimelineConfig, base: Pts) -> Self {
        Self {
            config,
            base,
            video: VideoTrack {
                waiting: VecDeque::new(),
                origin: None,
                transit: None,
                highest: None,
                reorder: 0,
                step: 0,
                absorbed: 0,
            },
            audio: AudioTrack {
                waiting: VecDeque::new(),
                transit: None,
                last: None,
                expected: None,
            },
            reports: [None; 2],
            offset: None,
            alignment: None,
            first_arrival: None,
            ready: VecDeque::new(),
        }
    }

    /// An access unit arrived; `time` is its RTP time.
    pub fn video(&mut self, at: At, time: i64, keyframe: bool, payload: V) {
        self.first_arrival.get_or_insert(at);
        note_transit(&mut self.video.transit, at, time);
        if self.video.origin.is_none() && !keyframe {
            return; // Of no use to anyone who joins here.
        }
        let time = self.video.forward(time);
        self.video.origin.get_or_insert(time);
        if self.video.waiting.len() < MOST_WAITING {
            self.video.waiting.push_back((time, keyframe, payload));
        }
        self.settle(at);
    }

    /// An audio frame arrived; without a time it follows the one before.
    pub fn audio(&mut self, at: At, time: Option<i64>, payload: A) {
        self.first_arrival.get_or_insert(at);
        let frame = self.config.frame.as_nanos() as i64;
        let time = time.unwrap_or_else(|| self.audio.last.map_or(0, |last| last + frame));
        self.audio.last = Some(time);
        note_transit(&mut self.audio.transit, at, time);
        if self.audio.waiting.len() < MOST_WAITING {
            self.audio.waiting.push_back((time, payload));
        }
        self.settle(at);
    }

    /// A sender report arrived.
    pub fn report(&mut self, at: At, track: Track, time: i64, ntp: i64) {
        let (slot, time) = match track {
            Track::Video => (0, time + self.video.absorbed),
            Track::Audio => (1, time),
        };
        self.reports[slot] = Some(Report { time, ntp });
        if let [Some(video), Some(audio)] = self.reports {
            self.offset = Some(video.time - audio.time + (audio.ntp - video.ntp));
            self.alignment = Some(Alignment::Reports);
        }
        self.settle(at);
    }

    /// The connection has ended: what still waits for a report must do with arrival times.
    pub fn finish(&mut self, at: At) {
        self.config.report_wait = Duration::ZERO;
        if self.video.transit.is_some() {
            // A track that never came cannot be waited for either.
            let video = self.video.transit;
            self.audio.transit = self.audio.transit.or(video);
        }
        self.settle(at);
    }

    /// Whether the first keyframe is still to come, so that [`Timeline::set_base`] counts.
    pub fn is_waiting(&self) -> bool {
        self.video.origin.is_none()
    }

    /// Moves the media time of the first keyframe, before it has come.
    pub fn set_base(&mut self, base: Pts) {
        if self.is_waiting() {
            self.base = base;
        }
    }

    /// The next unit in its place.
    pub fn poll(&mut self) -> Option<Placed<V, A>> {
        self.ready.pop_front()
    }

    /// How the tracks were aligned, once they are.
    pub fn alignment(&self) -> Option<Alignment> {
        self.alignment
    }

    fn settle(&mut self, at: At) {
        if self.offset.is_none() {
            let waited = self
                .first_arrival
                .map_or(Duration::ZERO, |first| at.since(first));
            let (Some(video), Some(audio)) = (self.video.transit, self.audio.transit) else {
                return;
            };
            if waited < self.config.report_wait {
                return;
            }
            self.offset = Some(audio - video);
            self.alignment = Some(Alignment::Arrival);
        }
        let (Some(offset), Some(origin)) = (self.offset, self.video.origin) else {
            return;
        };
        while let Some((time, keyframe, payload)) = self.video.waiting.pop_front() {
            let pts = place(self.base, time - origin);
            self.ready.push_back(Placed::Video {
                pts,
                keyframe,
                payload,
            });
        }
        while let Some((time, payload)) = self.audio.waiting.pop_front() {
            self.place_audio(time + offset - origin, payload);
        }
    }

    fn place_audio(&mut self, time: i64, payload: A) {
        let frame = self.config.frame.as_nanos() as i64;
        if let Some(expected) = self.audio.expected
            && time - expected > self.config.gap.as_nanos() as i64
        {
            let missing = (time - expected + frame / 2) / frame;
            for i in 0..missing {
                self.ready.push_back(Placed::Silence {
                    pts: place(self.base, expected + i * frame),
                });
            }
        }
        self.audio.expected = Some(time + frame);
        self.ready.push_back(Placed::Audio {
            pts: place(self.base, time),
            payload,
        });
    }
}

impl<V> VideoTrack<V> {
    /// Video time never goes back, except for reordered frames: where the sender's clock
    /// does, the line goes on by a frame, and sender reports are moved alike.
    fn forward(&mut self, time: i64) -> i64 {
        let mut time = time + self.absorbed;
        let Some(highest) = self.highest else {
            self.highest = Some(time);
            return time;
        };
        let back = highest - time;
        if back > 0 {
            let learning = self
                .origin
                .is_some_and(|origin| highest - origin < LEARNING);
            if learning && back < 500_000_000 {
                self.reorder = self.reorder.max(back);
            } else if back > 2 * self.reorder {
                let step = back + self.step.max(1);
                self.absorbed += step;
                time += step;
            }
        } else if back < 0 {
            self.step = -back;
        }
        self.highest = Some(highest.max(time));
        time
    }
}

/// The least of arrival minus RTP time: what got through with the least delay.
fn note_transit(transit: &mut Option<i64>, at: At, time: i64) {
    let now = at.as_duration().as_nanos() as i64 - time;
    *transit = Some(transit.map_or(now, |least| least.min(now)));
}

fn place(base: Pts, time: i64) -> Pts {
    Pts::from_nanos(base.nanos() + time)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: i64 = 1_000_000;

    fn timeline() -> Timeline<u32, u32> {
        let config = TimelineConfig {
            report_wait: Duration::from_secs(5),
            frame: Duration::from_millis(20),
            gap: Duration::from_millis(500),
        };
        Timeline::new(config, Pts::from_nanos(0))
    }

    fn drain(timeline: &mut Timeline<u32, u32>) -> Vec<(char, i64)> {
        std::iter::from_fn(|| timeline.poll())
            .map(|placed| match placed {
                Placed::Video { pts, .. } => ('v', pts.nanos() / MS),
                Placed::Audio { pts, .. } => ('a', pts.nanos() / MS),
                Placed::Silence { pts } => ('s', pts.nanos() / MS),
            })
            .collect()
    }

    fn aligned() -> Timeline<u32, u32> {
        let mut t = timeline();
        t.report(At::ZERO, Track::Video, 0, 1_000 * MS);
        t.report(At::ZERO, Track::Audio, 0, 1_000 * MS);
        t
    }

    #[test]
    fn reports_place_audio_exactly_whatever_the_arrival() {
        let mut t = timeline();
        t.video(At::from_millis(0), 0, true, 0);
        t.audio(At::from_millis(90), Some(0), 0);
        t.report(At::from_millis(91), Track::Video, 0, 5_000 * MS);
        assert_eq!(drain(&mut t), [], "one report is not enough");
        t.report(At::from_millis(92), Track::Audio, 10 * MS, 5_040 * MS);
        assert_eq!(drain(&mut t), [('v', 0), ('a', 30)]);
        assert_eq!(t.alignment(), Some(Alignment::Reports));
    }

    #[test]
    fn without_reports_the_quickest_arrivals_decide() {
        let mut t = timeline();
        for i in 0..200_i64 {
            let late = if i == 50 { 0 } else { 30 };
            t.video(
                At::from_millis((100 + i * 40 + late) as u64),
                i * 40 * MS,
                true,
                0,
            );
            t.audio(
                At::from_millis((107 + i * 40 + late) as u64),
                Some(i * 40 * MS),
                0,
            );
        }
        let placed = drain(&mut t);
        assert_eq!(t.alignment(), Some(Alignment::Arrival));
        assert_eq!(
            placed.iter().find(|(track, _)| *track == 'a'),
            Some(&('a', 7))
        );
    }

    #[test]
    fn a_stream_that_ends_before_any_report_loses_nothing() {
        let mut t = timeline();
        for i in 0..20 {
            t.video(At::from_millis(i * 40), i as i64 * 40 * MS, i == 0, 0);
            t.audio(At::from_millis(i * 40), Some(i as i64 * 40 * MS), 0);
        }
        assert_eq!(drain(&mut t), []);
        t.finish(At::from_millis(800));
        assert_eq!(drain(&mut t).len(), 40);

        let mut t = timeline();
        t.video(At::ZERO, 0, true, 0);
        t.finish(At::ZERO);
        assert_eq!(drain(&mut t), [('v', 0)], "also without the other track");
    }

    #[test]
    fn what_precedes_the_first_keyframe_is_dropped_and_time_starts_there() {
        let mut t = aligned();
        t.video(At::ZERO, 40 * MS, false, 0);
        t.video(At::ZERO, 80 * MS, true, 0);
        t.audio(At::ZERO, Some(80 * MS), 0);
        assert_eq!(drain(&mut t), [('v', 0), ('a', 0)]);
    }

    #[test]
    fn frames_without_a_time_follow_the_one_before() {
        let mut t = aligned();
        t.video(At::ZERO, 0, true, 0);
        t.audio(At::ZERO, Some(0), 0);
        t.audio(At::ZERO, None, 0);
        t.audio(At::ZERO, None, 0);
        assert_eq!(drain(&mut t), [('v', 0), ('a', 0), ('a', 20), ('a', 40)]);
    }

    #[test]
    fn a_long_hole_is_filled_and_a_short_one_is_left_to_the_slew() {
        let mut t = aligned();
        t.video(At::ZERO, 0, true, 0);
        t.audio(At::ZERO, Some(0), 0);
        t.audio(At::ZERO, Some(220 * MS), 0);
        t.audio(At::ZERO, Some(840 * MS), 0);
        let placed = drain(&mut t);
        assert_eq!(placed[1..4], [('a', 0), ('a', 220), ('s', 240)]);
        assert_eq!(placed.iter().filter(|(track, _)| *track == 's').count(), 30);
        assert_eq!(placed.last(), Some(&('a', 840)));
    }

    #[test]
    fn a_later_report_moves_the_audio() {
        let mut t = aligned();
        t.video(At::ZERO, 0, true, 0);
        t.report(At::ZERO, Track::Audio, 1_000 * MS, 2_025 * MS);
        t.audio(At::ZERO, Some(1_020 * MS), 0);
        assert_eq!(drain(&mut t), [('v', 0), ('a', 1_045)]);
    }

    #[test]
    fn reordered_frames_keep_their_times() {
        let mut t = aligned();
        let times = [0, 120, 40, 80, 240, 160, 200];
        for time in times {
            t.video(At::ZERO, time * MS, time == 0, 0);
        }
        assert_eq!(
            drain(&mut t).iter().map(|(_, ms)| *ms).collect::<Vec<_>>(),
            times
        );
    }

    #[test]
    fn a_clock_that_goes_back_is_absorbed_together_with_its_reports() {
        let mut t = aligned();
        for i in 0..100 {
            t.video(At::ZERO, i * 40 * MS, i == 0, 0);
        }
        drain(&mut t);
        t.video(At::ZERO, 3_800 * MS, false, 0); // 4000 is due
        assert_eq!(drain(&mut t), [('v', 4_000)]);
        // The sender's wall clock did not step: its report now says 3.8 s where it would
        // have said 4.0 s, and the audio stays where it is.
        t.report(At::ZERO, Track::Video, 3_800 * MS, 5_000 * MS);
        t.report(At::ZERO, Track::Audio, 4_000 * MS, 5_000 * MS);
        t.audio(At::ZERO, Some(4_000 * MS), 0);
        assert_eq!(drain(&mut t), [('a', 4_000)]);
    }
}
