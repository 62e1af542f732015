//! The limits of cutting, to the nanosecond.

use super::segment::{Cut, Frame, Unit, WAYS, cutting, feed, finish, frame, unit};
use dub_engine::{CutAt, Pts, SegmentCut};
use std::time::Duration;

fn video(nanos: i64, keyframe: bool) -> Unit {
    Unit {
        pts: Pts::from_nanos(nanos),
        keyframe,
        payload: 0,
    }
}

fn sound(n: u64, frame_ms: u64) -> Frame {
    Frame {
        pts: Pts::from_millis((n * frame_ms) as i64),
        duration: Duration::from_millis(frame_ms),
        level: Some(-2_000),
        payload: n,
    }
}

#[test]
fn audio_may_start_up_to_half_a_frame_early() {
    for (cut, audio_first) in WAYS.into_iter().flat_map(|cut| [(cut, true), (cut, false)]) {
        for (origin, first) in [(-10_666_666, 0), (-10_666_667, 1), (-11_000_000, 1)] {
            let mut segmenter = cutting(cut);
            if !audio_first {
                segmenter.video(unit(0, 0));
            }
            (0..3).for_each(|n| segmenter.audio(frame(n, origin)));
            if audio_first {
                segmenter.video(unit(0, 0));
            }
            let cuts = finish(&mut segmenter, Vec::new());
            assert_eq!(cuts[0].audio[0].payload, first, "origin {origin}");
            assert_eq!(segmenter.dropped().audio, first);
        }
    }
}

#[test]
fn a_step_inside_the_audio_is_more_than_five_milliseconds() {
    for (step, told) in [
        (5_000_000, 0),
        (5_000_001, 5_000_001),
        (-5_000_000, 0),
        (-5_000_001, -5_000_001),
    ] {
        let mut segmenter = cutting(SegmentCut::Grid);
        segmenter.video(unit(0, 0));
        segmenter.audio(sound(0, 20));
        segmenter.audio(Frame {
            pts: Pts::from_nanos(20_000_000 + step),
            ..sound(1, 20)
        });
        let cuts = finish(&mut segmenter, Vec::new());
        assert_eq!(cuts[0].audio_step(), told);
    }
}

#[test]
fn a_keyframe_more_than_a_segment_back_starts_anew() {
    let second = 1_000_000_000;
    for (back, starts) in [
        (6 * second, vec![10 * second]),
        (6 * second + 1, vec![10 * second, 4 * second - 1]),
    ] {
        let mut segmenter = cutting(SegmentCut::Grid);
        segmenter.video(video(10 * second, true));
        segmenter.video(video(10 * second - back, true));
        let cuts = finish(&mut segmenter, Vec::new());
        let found: Vec<i64> = cuts.iter().map(|cut| cut.start.nanos()).collect();
        assert_eq!(found, starts);
    }
}

#[test]
fn before_the_first_keyframe_six_seconds_of_audio_are_held_and_the_rest_is_counted() {
    let mut segmenter = cutting(SegmentCut::Grid);
    (0..8).for_each(|n| segmenter.audio(sound(n, 1_000)));
    assert_eq!(segmenter.dropped().audio, 2);
    segmenter.finish();
    assert_eq!(segmenter.dropped().audio, 8);
}

/// Where the second of two segments ends, in ms, if there is one pause, at `pause`.
fn second_end(min: u64, max: u64, pause: u64) -> i64 {
    let mut segmenter = cutting(SegmentCut::Pause {
        min: Duration::from_secs(min),
        max: Duration::from_secs(max),
    });
    let quiet = (pause - 80) / 20..(pause + 80) / 20;
    let audio: Vec<Frame> = (0..1_500)
        .map(|n| Frame {
            level: Some(if quiet.contains(&n) { -6_000 } else { -2_000 }),
            ..sound(n, 20)
        })
        .collect();
    let video: Vec<Unit> = (0..900).map(|n| unit(n, 0)).collect();
    let cuts: Vec<Cut> = feed(&mut segmenter, &video, &audio, 0);
    assert_eq!((cuts[0].cut, cuts[1].cut), (CutAt::Pause, CutAt::Grid));
    assert_eq!(cuts[0].end, Pts::from_millis(pause as i64));
    cuts[1].end.nanos() / 1_000_000
}

#[test]
fn after_a_pause_the_line_nearest_to_a_whole_segment_is_taken_if_it_is_within_the_limits() {
    for (min, max, pause, expected) in [
        (1, 10, 2_000, 6_000),
        // Both as near: the earlier.
        (1, 10, 3_000, 6_000),
        (1, 10, 3_020, 12_000),
        (1, 10, 4_000, 12_000),
        (3, 10, 9_000, 12_000),
        // The nearest is too far, or both are: 6 s then.
        (1, 7, 4_000, 6_000),
        (3, 7, 4_000, 10_000),
    ] {
        let found = second_end(min, max, pause);
        assert_eq!(found, expected, "{min} to {max} s after {pause} ms");
    }
}
