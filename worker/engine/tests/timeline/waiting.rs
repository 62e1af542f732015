//! What waits: for the first keyframe, for the other track, for the end.

use std::time::Duration;

use dub_engine::timeline::{AlignedBy, DropReason, Note, Picture};
use dub_engine::{At, Placed, Pts, Timeline, TimelineConfig, Track};

use crate::sender::{FRAME as AAC, MS, SECOND, Sender};

const PICTURE: i64 = 40;
const FRAME: i64 = 20;
const BEFORE_KEYFRAME: DropReason = DropReason::BeforeKeyframe;

/// Both tracks of one sender without reports, each unit with its time (ms) as payload.
struct Stream(Timeline<i64, i64>);

impl Stream {
    fn new() -> Self {
        let config = TimelineConfig {
            report_wait: Duration::from_millis(5_500),
            patience: Duration::from_secs(6),
            frame: Duration::from_millis(FRAME as u64),
            bundled: None,
        };
        Self(Timeline::new(config, Pts::ZERO))
    }

    fn picture(&mut self, time: i64, picture: Picture) {
        self.stepped(time, 0, picture);
    }

    /// Its RTP time is off by `by`.
    fn stepped(&mut self, time: i64, by: i64, picture: Picture) {
        let rtp = (time + by) * 1_000_000;
        self.0.video(at(time), Some(rtp), picture, time);
    }

    fn sound(&mut self, time: i64) {
        self.0.packet(at(time), time * 1_000_000);
        self.0.audio(at(time), Some(time * 1_000_000), time);
    }

    /// A second of either track.
    fn pictures(&mut self) {
        self.picture(0, Picture::Key);
        for n in 1..25 {
            self.picture(n * PICTURE, Picture::Predicted);
        }
    }

    fn sounds(&mut self) {
        for n in 0..50 {
            self.sound(n * FRAME);
        }
    }

    /// Payload and place of what came out, of pictures, sound, silence.
    fn out(&mut self) -> [Vec<(i64, i64)>; 3] {
        let mut out: [Vec<_>; 3] = Default::default();
        while let Some(placed) = self.0.poll() {
            let (kind, pts, payload) = match placed {
                Placed::Video { pts, payload, .. } => (0, pts, payload),
                Placed::Audio { pts, payload } => (1, pts, payload),
                Placed::Silence { pts } => (2, pts, 0),
            };
            out[kind].push((payload, pts.nanos() / 1_000_000));
        }
        out
    }

    fn notes(&mut self) -> Vec<Note> {
        std::iter::from_fn(|| self.0.poll_note()).collect()
    }

    fn finish(&mut self) {
        self.0.finish(at(1_000));
    }
}

fn at(ms: i64) -> At {
    At::from_millis(ms.unsigned_abs())
}

/// So many units, each where its time says.
fn in_place(count: i64, apart: i64) -> Vec<(i64, i64)> {
    (0..count).map(|n| (n * apart, n * apart)).collect()
}

#[test]
fn what_waits_at_the_end_goes_out_by_what_is_known() {
    let mut stream = Stream::new();
    stream.pictures();
    stream.sounds();
    assert_eq!(stream.out(), [vec![], vec![], vec![]]);
    stream.finish();
    let expected = [in_place(25, PICTURE), in_place(50, FRAME), vec![]];
    assert_eq!(stream.out(), expected);
    assert_eq!(stream.notes(), [Note::Aligned(AlignedBy::Arrival)]);
}

#[test]
fn a_stream_that_ends_before_its_sound_comes_misses_none() {
    let mut stream = Stream::new();
    stream.finish();
    assert_eq!(stream.notes(), [], "nothing came at all");
    let mut stream = Stream::new();
    stream.pictures();
    stream.finish();
    assert_eq!(stream.out(), [in_place(25, PICTURE), vec![], vec![]]);
    assert_eq!(stream.notes(), []);
}

#[test]
fn sound_without_any_keyframe_is_dropped_and_counted() {
    let mut stream = Stream::new();
    stream.sounds();
    stream.finish();
    assert_eq!(stream.out(), [vec![], vec![], vec![]]);
    let (track, reason) = (Track::Audio, BEFORE_KEYFRAME);
    let dropped = vec![Note::Dropped { track, reason }; 50];
    let notes = stream.notes().into_iter();
    let notes = notes.filter(|note| !matches!(note, Note::Aligned(_)));
    assert_eq!(notes.collect::<Vec<_>>(), dropped);
}

#[test]
fn the_first_keyframe_lies_where_it_was_last_told_to() {
    let mut stream = Stream::new();
    for n in 0..5 {
        stream.sound(2 * n * FRAME);
        stream.sound((2 * n + 1) * FRAME);
        stream.picture(n * PICTURE, Picture::Predicted);
        stream.0.set_base(Pts::from_millis(7_000 + n));
    }
    stream.picture(200, Picture::Key);
    stream.sound(200);
    stream.0.set_base(Pts::from_millis(9_000));
    stream.finish();
    let begin = vec![(200, 7_004)];
    assert_eq!(stream.out(), [begin.clone(), begin, vec![]]);
    let notes = stream.notes();
    for (track, units) in [(Track::Video, 5), (Track::Audio, 10)] {
        let reason = BEFORE_KEYFRAME;
        let dropped = Note::Dropped { track, reason };
        let count = notes.iter().filter(|note| **note == dropped).count();
        assert_eq!(count, units, "{track:?}");
    }
}

#[test]
fn a_step_is_told_by_how_much_rtp_time_went_on_too_far() {
    for by in [10_000, -10_000] {
        let mut stream = Stream::new();
        stream.pictures();
        stream.sounds();
        stream.picture(1_000, Picture::Predicted);
        stream.stepped(1_040, by, Picture::Predicted);
        stream.finish();
        let (track, by) = (Track::Video, by * 1_000_000);
        assert_eq!(stream.notes().first(), Some(&Note::Stepped { track, by }));
        assert_eq!(stream.out()[0], in_place(27, PICTURE));
    }
}

#[test]
fn silence_leaves_when_the_pictures_have_waited_for_sound_as_long_as_they_do() {
    for fps in [2, 30] {
        for end in [0, 10] {
            let sender = Sender {
                fps,
                key_every: fps,
                audio_within: vec![(0, end * SECOND)],
                ..Sender::default()
            };
            let run = sender.run();
            let silent = (24 - end) * SECOND / AAC;
            let silence = run.of('s');
            assert!(
                (silence.len() as i64 - silent).abs() < 30,
                "{}",
                silence.len()
            );
            for out in run.of('v').iter().chain(&silence) {
                let waited = (out.at - out.pts) / MS;
                // From the next picture on, until one comes; they are remembered four times a second.
                let most = 6_000 + 2_000 / fps + 250;
                assert!(waited <= most, "{waited} ms at {fps} a second");
            }
        }
    }
}
