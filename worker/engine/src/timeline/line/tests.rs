use super::*;
use crate::timeline::Picture::{Bidirectional, Key, Predicted};

/// Arrival of what lies at 0, without delay.
const START: i64 = 5_000;

/// A track that has come on time so far. Times in milliseconds: what is next is given and told from the
/// last unit on, as it was sent and where it was put.
struct Track {
    line: Line,
    last: i64,
}

impl Track {
    /// A camera that has sent a picture every so often for a while.
    fn video(every: i64) -> Self {
        let mut camera = Self {
            line: Line::video(),
            last: 0,
        };
        camera.picture(0, 0, Key);
        // Only shorter distances are learnt at once.
        for distance in [2 * every, every] {
            for _ in 0..60 {
                camera.follows(distance);
            }
        }
        camera
    }

    /// Three seconds of frames of 20 ms.
    fn audio() -> Self {
        let mut track = Self {
            line: Line::audio(20 * MS),
            last: 0,
        };
        track.frame(0, 0);
        for _ in 0..150 {
            assert_eq!(track.frame(20, 20), (20, 0, 0));
            track.last += 20;
        }
        track
    }

    fn at(&self, arrives: i64) -> At {
        At::from_millis((START + self.last + arrives).unsigned_abs())
    }

    /// Where the next picture is put, and what is added to its time and those after it from now on.
    fn picture(&mut self, arrives: i64, time: i64, picture: Picture) -> (i64, i64) {
        let raw = (self.last + time) * MS;
        let located = self.line.picture(self.at(arrives), Some(raw), picture);
        assert_eq!(located.hole, 0);
        (
            ms(located.time) - self.last,
            ms(located.stepped.unwrap_or(0)),
        )
    }

    /// The next picture comes on time, and later ones are told from it on.
    fn follows(&mut self, distance: i64) {
        let placed = self.picture(distance, distance, Predicted);
        assert_eq!(placed, (distance, 0));
        self.last += distance;
    }

    /// The next frame's place, the hole before it, and what is added from now on.
    fn frame(&mut self, arrives: i64, time: i64) -> (i64, i64, i64) {
        let raw = (self.last + time) * MS;
        let located = self.line.frame(self.at(arrives), Some(raw));
        let stepped = ms(located.stepped.unwrap_or(0));
        (ms(located.time) - self.last, ms(located.hole), stepped)
    }
}

fn ms(nanos: i64) -> i64 {
    assert_eq!(nanos % MS, 0, "whole milliseconds");
    nanos / MS
}

/// RTP time that has nothing to do with what was before.
const STEP: i64 = -1_000_000;

#[test]
fn video_leaps_to_600_ms_or_two_pictures_and_further_if_arrival_bears_it_out() {
    for (every, arrives, leap, placed) in [
        (40, 40, 600, 600),
        (40, 40, 601, 40),
        // To 300 ms.
        (40, 301, 601, 601),
        (40, 300, 601, 40),
        (1_000, 1_000, 2_000, 2_000),
        (1_000, 1_000, 2_001, 1_000),
    ] {
        let stepped = placed - leap;
        assert_eq!(
            Track::video(every).picture(arrives, leap, Predicted),
            (placed, stepped),
            "{leap} ms"
        );
    }
}

#[test]
fn in_the_first_second_video_leaps_to_1600_ms_further_than_arrival() {
    for (pictures, leap, placed) in [
        (0, 1_640, 1_640),
        (0, 1_641, 40),
        (24, 1_640, 1_640),
        (25, 601, 40),
    ] {
        let mut camera = Track {
            line: Line::video(),
            last: 0,
        };
        camera.picture(0, 0, Key);
        for _ in 0..pictures {
            camera.follows(40);
        }
        assert_eq!(
            camera.picture(40, leap, Predicted),
            (placed, placed - leap),
            "{leap} ms after {pictures}"
        );
    }
}

#[test]
fn a_step_of_video_leaves_a_hole_if_more_than_300_ms_have_gone_by() {
    for (arrives, placed) in [(0, 40), (40, 40), (340, 40), (341, 341), (5_000, 5_000)] {
        for picture in [Predicted, Bidirectional] {
            assert_eq!(
                Track::video(40).picture(arrives, STEP, picture),
                (placed, placed - STEP),
                "{arrives} ms after the last"
            );
        }
    }
}

#[test]
fn pictures_of_one_time_lie_a_millisecond_apart() {
    for time in [Some(0), Some(MS / 2), Some(MS), None] {
        let mut camera = Track::video(32);
        let raw = time.map(|time| camera.last * MS + time);
        let located = camera.line.picture(camera.at(0), raw, Predicted);
        let doubled = ms(located.time) - camera.last;
        assert_eq!((doubled, located.stepped), (1, None));
        // That is no distance of neighbours.
        assert_eq!(camera.picture(0, STEP, Predicted), (33, 33 - STEP));
    }
}

/// Where RTP time steps and nothing has gone by, the next picture lies one distance on.
#[test]
fn the_distance_of_pictures_is_learnt_from_short_ones_at_once_and_from_long_ones_slowly() {
    for (distance, learnt) in [(2, 2), (16, 16), (32, 32), (48, 33), (64, 34), (600, 34)] {
        let mut camera = Track::video(32);
        camera.follows(distance);
        assert_eq!(
            camera.picture(0, STEP, Predicted),
            (learnt, learnt - STEP),
            "after {distance} ms"
        );
    }
}

#[test]
fn after_a_stray_picture_the_old_line_goes_on_if_the_next_lies_better_there() {
    let back = |at: i64| (at, true);
    let stays = |at: i64| (at, false);
    // The stray one is put at 40 in each case, where the one after it is due at 80.
    for (stray, next, (placed, goes_back)) in [
        (20_000, 80, back(80)),
        // To 300 ms from where it is due.
        (20_000, 379, back(379)),
        (20_000, 380, stays(80)),
        // What lies alike goes on where it is: 50 ms too early, or too late.
        (-60, 31, back(31)),
        (-60, 30, stays(130)),
        // No two pictures of one time.
        (20_000, 40, back(41)),
        (20_000, 0, stays(80)),
    ] {
        let mut camera = Track::video(40);
        let added = 40 - stray;
        assert_eq!(camera.picture(40, stray, Predicted), (40, added));
        let stepped = match (goes_back, placed == next + added) {
            (true, _) => -added,
            (false, true) => 0,
            (false, false) => placed - (next + added),
        };
        let name = format!("{stray}, then {next}");
        assert_eq!(
            camera.picture(80, next, Predicted),
            (placed, stepped),
            "{name}"
        );
    }
}

#[test]
fn timestamps_stray_for_a_second_or_four_pictures() {
    for (every, until) in [(40, 1_000), (250, 1_000), (1_000, 4_000)] {
        for (after, goes_back) in [(until, true), (until + 1, false)] {
            let mut camera = Track::video(every);
            camera.picture(every, 20_000, Predicted);
            let (_, stepped) = camera.picture(every + after, 2 * every, Predicted);
            assert_eq!(stepped == 20_000 - every, goes_back, "{after} ms after");
        }
    }
    for (after, placed) in [(1_000, (40, 0, 19_980)), (1_001, (1_021, 981, 20_961))] {
        let mut track = Track::audio();
        assert_eq!(track.frame(20, 20_000), (20, 0, -19_980));
        assert_eq!(track.frame(20 + after, 40), placed, "{after} ms after");
    }
}

#[test]
fn of_two_pictures_in_the_wrong_order_the_one_that_lies_worse_has_strayed() {
    // The one before both is at 0; neighbours lie 34 ms apart by then.
    for (last, next, placed) in [
        (64, 39, 39),
        (64, 38, 64 + 34),
        (64, 1, 64 + 34),
        (16, 15, 16 + 16),
        // Not at one time with the one before.
        (200, 1, 1),
        (200, 0, 200 + 34),
        (200, -1, 200 + 34),
    ] {
        let mut camera = Track::video(32);
        assert_eq!(camera.picture(last, last, Predicted), (last, 0));
        let (at, _) = camera.picture(last, next, Predicted);
        assert_eq!(at, placed, "{last}, then {next}");
    }
}

#[test]
fn a_reordered_picture_lies_within_sixteen_of_the_last() {
    for (apart, behind, placed) in [
        (40, 640, -640),
        (40, 641, 40),
        (40, -640, 640),
        (40, -641, 40),
        // A stray neighbour makes no step of those after it: at least 20 ms count for a picture.
        (5, 320, -320),
        (5, 321, 5),
    ] {
        let mut camera = Track::video(40);
        camera.follows(apart);
        assert_eq!(
            camera.picture(0, -behind, Bidirectional),
            (placed, placed + behind),
            "{behind} ms behind"
        );
    }
}

/// The first picture of a group leaps, which looks like a step: it is put at 200 for now.
#[test]
fn a_slow_camera_that_begins_to_reorder_has_not_stepped() {
    for (leap, next, placed, goes_back) in [
        (800, 400, 400, true),
        (800, 600, 600, true),
        (800, 601, 1, false),
        // Sixteen pictures are the deepest.
        (5_000, 3_200, 3_200, true),
        (5_000, 3_201, -1_599, false),
        // Not at one time with the one before the group.
        (800, 0, -600, false),
    ] {
        let mut camera = Track::video(200);
        let step = 200 - leap;
        assert_eq!(camera.picture(200, leap, Predicted), (200, step));
        let stepped = if goes_back { -step } else { 0 };
        assert_eq!(
            camera.picture(400, next, Bidirectional),
            (placed, stepped),
            "{leap}, then {next}"
        );
    }
}

#[test]
fn a_slow_camera_that_has_reordered_leaps_to_sixteen_pictures() {
    for (leap, followed) in [(3_200, true), (3_201, false)] {
        let mut camera = Track::video(200);
        camera.picture(200, 800, Predicted);
        assert_eq!(camera.picture(400, 400, Bidirectional), (400, 600));
        let (_, stepped) = camera.picture(600, 400 + leap, Predicted);
        assert_eq!(stepped == 0, followed, "{leap} ms");
    }
}

/// The network has been late by half a second for so long, and recovers while pictures are lost.
#[test]
fn the_quickest_of_ten_seconds_tells_how_much_time_has_gone_by() {
    for (congested, stepped) in [(1, 0), (8, 0), (12, -500)] {
        let mut camera = Track::video(40);
        for _ in 0..congested * 25 {
            assert_eq!(camera.picture(540, 40, Predicted), (40, 0));
            camera.last += 40;
        }
        let placed = (1_000 + stepped, stepped);
        assert_eq!(
            camera.picture(1_000, 1_000, Predicted),
            placed,
            "{congested} s"
        );
    }
}

#[test]
fn audio_that_is_missing_is_a_hole_if_that_time_has_gone_by_and_a_step_beyond_300_ms() {
    for (arrives, time, placed) in [
        // As much as has gone by, and 25 ms for a clock that drifts.
        (95, 120, (120, 100, 0)),
        (94, 120, (120, 0, 0)),
        (1_020, 1_020, (1_020, 1_000, 0)),
        // Followed.
        (195, 520, (520, 0, 0)),
        (20, 345, (345, 0, 0)),
        (20, -280, (-280, 0, 0)),
        (-180, 220, (220, 0, 0)),
        // Steps; the hole is what has gone by, if that is more than two frames and 25 ms.
        (194, 520, (194, 174, 194 - 520)),
        (20, 346, (20, 0, 20 - 346)),
        (20, -281, (20, 0, 20 + 281)),
        (85, STEP, (20, 0, 20 - STEP)),
        (86, STEP, (86, 66, 86 - STEP)),
    ] {
        assert_eq!(
            Track::audio().frame(arrives, time),
            placed,
            "{time} at {arrives}"
        );
    }
}

#[test]
fn a_stray_frame_is_followed_by_one_of_the_old_line_within_half_a_frame() {
    for (next, placed) in [
        (30, (30, 0, 19_980)),
        (40, (40, 0, 19_980)),
        (50, (50, 0, 19_980)),
        (29, (40, 0, 40 - 29 + 19_980)),
        (51, (40, 0, 40 - 51 + 19_980)),
    ] {
        let mut track = Track::audio();
        assert_eq!(track.frame(20, 20_000), (20, 0, -19_980));
        assert_eq!(track.frame(40, next), placed, "{next}");
    }
}

/// Each frame said for a second that it was half as long as it was.
#[test]
fn a_pace_that_is_put_right_leaves_nothing_of_what_arrival_said_before() {
    for time in [STEP, 10_000] {
        let mut track = Track::audio();
        for n in 1..=50 {
            track.frame(40 * n, 20 * n);
        }
        track.line.forget();
        assert_eq!(track.frame(2_020, time), (1_020, 0, 1_020 - time), "{time}");
    }
    let mut camera = Track::video(40);
    camera.line.forget();
    assert_eq!(camera.picture(40, 10_000, Predicted), (40, -9_960));
}
