//! Lays the audio's frames on media time without holes.
//!
//! A hole that is as long as a frame gets silence; where the audio comes later than video waits, silence
//! takes its place and the audio joins when it comes. Anything smaller is left to the slew.

use std::collections::VecDeque;
use std::time::Duration;

/// An alignment that moves by more than this is not slewed: 2 % of a segment is 120 ms.
const JUMP: i64 = 500_000_000;
/// Audio that begins so much after the picture has silence before it.
const LATE_BEGIN: i64 = 500_000_000;

/// An error that the output leaves as it is.
const LEFT_ALONE: i64 = 5_000_000;

/// What becomes of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fit {
    /// It goes where it belongs, after what silence there is to poll.
    Here {
        /// Silence that took its place before, where video had not waited.
        joined: Option<Duration>,
    },
    /// It precedes the line.
    Early,
    /// Its place is taken.
    Late,
}

/// The audio's place in media time.
#[derive(Debug)]
pub(super) struct Sound {
    frame: i64,
    /// Where the next frame belongs if nothing is missing.
    end: Option<i64>,
    /// Hole smaller than a frame that is still owed, or given too much (negative).
    debt: i64,
    /// By how much the alignment has moved since the last frame.
    moved: i64,
    /// What lies before `end` is taken, by silence or since the alignment jumped: what comes next goes by
    /// its place.
    taken: bool,
    /// Silence put since the audio went missing.
    filled: Option<Duration>,
    /// It comes again, still too late for its place: silence lets it catch up.
    returning: bool,
    silence: VecDeque<i64>,
}

impl Sound {
    pub(super) fn new(frame: i64) -> Self {
        Self {
            frame,
            end: None,
            debt: 0,
            moved: 0,
            taken: false,
            filled: None,
            returning: false,
            silence: VecDeque::new(),
        }
    }

    /// The alignment has moved.
    pub(super) fn moved(&mut self, by: i64) {
        self.moved = self.moved.saturating_add(by);
    }

    /// The audio is missing from the start.
    pub(super) fn missing(&mut self) {
        self.filled.get_or_insert(Duration::ZERO);
    }

    /// The next silent frame's place.
    pub(super) fn poll_silence(&mut self) -> Option<i64> {
        self.silence.pop_front()
    }

    /// A frame at `media`, after a hole in its track.
    pub(super) fn frame(&mut self, media: i64, hole: i64) -> Fit {
        self.taken |= std::mem::take(&mut self.moved).saturating_abs() > JUMP;
        match self.end {
            None if media < -self.frame / 2 => return Fit::Early,
            None if media >= LATE_BEGIN => self.owe(0, media),
            None => {}
            Some(end) => {
                let hole = if self.taken { media - end } else { hole };
                if hole < -self.frame / 2 {
                    self.returning = self.filled.is_some();
                    return Fit::Late;
                }
                self.owe(end, hole);
            }
        }
        self.taken = false;
        self.returning = false;
        self.end = Some(media + self.frame);
        Fit::Here {
            joined: self.filled.take(),
        }
    }

    /// Video has come to `media`. If pictures up to `overdue` have waited for audio as long as they do,
    /// or if audio is missing already, silence takes its place; tells when that begins.
    pub(super) fn keep_up(&mut self, media: i64, overdue: Option<i64>) -> bool {
        let end = self.end.unwrap_or(0);
        let waited_for = self.filled.is_none() || self.returning;
        if waited_for && overdue.is_none_or(|overdue| overdue < end) {
            return false;
        }
        let frames = (media - end) / self.frame;
        if frames <= 0 {
            return false;
        }
        self.returning = false;
        self.fill(end, frames);
        let silence = frames * self.frame;
        self.end = Some(end + silence);
        self.taken = true;
        let silence = Duration::from_nanos(silence.unsigned_abs());
        let before = self.filled.take();
        self.filled = Some(before.unwrap_or_default() + silence);
        before.is_none()
    }

    /// Fills a hole with whole frames and remembers the rest.
    fn owe(&mut self, end: i64, hole: i64) {
        // Less is scatter, or a clock that drifts: the slew's.
        if hole.abs() < self.frame / 2 {
            return;
        }
        // More than a little has been corrected since.
        let debt = if self.debt.abs() <= LEFT_ALONE {
            self.debt
        } else {
            0
        };
        let owed = hole + debt;
        let frames = (owed + self.frame / 2) / self.frame;
        self.debt = owed - frames * self.frame;
        self.fill(end, frames);
    }

    fn fill(&mut self, from: i64, frames: i64) {
        let places = (0..frames).map(|n| from + n * self.frame);
        self.silence.extend(places);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: i64 = 1_000_000;
    const FRAME: i64 = 20 * MS;
    const HERE: Fit = Fit::Here { joined: None };

    /// One frame has come, at 0.
    fn begun() -> Sound {
        let mut sound = Sound::new(FRAME);
        assert_eq!(sound.frame(0, 0), HERE);
        sound
    }

    fn silence(sound: &mut Sound) -> Vec<i64> {
        std::iter::from_fn(|| sound.poll_silence()).collect()
    }

    fn places(from: i64, frames: i64) -> Vec<i64> {
        (0..frames).map(|n| from + n * FRAME).collect()
    }

    #[test]
    fn sound_begins_where_half_a_frame_or_more_belongs_to_the_first_picture() {
        for (media, fit) in [(-10 * MS - 1, Fit::Early), (-10 * MS, HERE), (0, HERE)] {
            assert_eq!(Sound::new(FRAME).frame(media, 0), fit, "{media}");
        }
    }

    #[test]
    fn sound_that_begins_half_a_second_after_the_picture_has_silence_before_it() {
        for (media, frames) in [
            (500 * MS - 1, 0),
            (500 * MS, 25),
            (510 * MS - 1, 25),
            (510 * MS, 26),
        ] {
            let mut sound = Sound::new(FRAME);
            assert_eq!(sound.frame(media, 0), HERE);
            assert_eq!(silence(&mut sound), places(0, frames), "{media}");
        }
    }

    #[test]
    fn a_hole_gets_the_nearest_number_of_frames_and_up_to_5_ms_are_owed_to_the_next() {
        let rows = [
            (10 * MS - 1, 0, 20 * MS, 1),
            (10 * MS, 1, 20 * MS, 1),
            (30 * MS - 1, 1, 20 * MS, 1),
            (30 * MS, 2, 20 * MS, 1),
            // Five too few, five too many, and more, which the slew makes up for.
            (25 * MS, 1, 25 * MS, 2),
            (25 * MS, 1, 25 * MS - 1, 1),
            (25 * MS + 1, 1, 25 * MS, 1),
            (15 * MS, 1, 15 * MS, 1),
            (15 * MS, 1, 15 * MS - 1, 0),
            (15 * MS - 1, 1, 15 * MS - 1, 1),
        ];
        for (first, frames, second, then) in rows {
            let mut sound = begun();
            let mut end = FRAME;
            for (hole, frames) in [(first, frames), (0, 0), (0, 0), (second, then)] {
                assert_eq!(sound.frame(end + hole, hole), HERE);
                assert_eq!(silence(&mut sound), places(end, frames), "{first} {second}");
                end += hole + FRAME;
            }
        }
    }

    #[test]
    fn what_is_owed_is_left_alone_by_a_clock_that_drifts() {
        let mut sound = begun();
        sound.frame(45 * MS, 25 * MS);
        assert_eq!(silence(&mut sound).len(), 1);
        for n in 1..=100 {
            sound.frame(45 * MS + n * 21 * MS, MS);
        }
        assert_eq!(silence(&mut sound), []);
        sound.frame(2_190 * MS, 25 * MS);
        assert_eq!(silence(&mut sound).len(), 2);
    }

    #[test]
    fn an_alignment_that_moves_by_more_than_half_a_second_is_a_jump_and_no_slew() {
        for (by, fit, frames) in [
            (-250 * MS, HERE, 0),
            (-250 * MS - 1, Fit::Late, 0),
            (250 * MS, HERE, 0),
            (250 * MS + 1, HERE, 25),
        ] {
            let mut sound = begun();
            sound.moved(by);
            sound.moved(by);
            assert_eq!(sound.frame(FRAME + 2 * by, 0), fit, "{by}");
            assert_eq!(silence(&mut sound), places(FRAME, frames), "{by}");
        }
    }

    #[test]
    fn after_a_jump_back_sound_goes_on_where_it_was() {
        let mut sound = begun();
        sound.moved(-501 * MS);
        assert_eq!(sound.frame(-481 * MS, 0), Fit::Late);
        assert_eq!(sound.frame(10 * MS - 1, 0), Fit::Late);
        assert_eq!(sound.frame(10 * MS, 0), HERE);
        assert_eq!(sound.frame(30 * MS, 0), HERE);
        assert_eq!(silence(&mut sound), []);
    }

    #[test]
    fn silence_begins_once_and_only_when_pictures_behind_the_sound_are_overdue() {
        let mut sound = begun();
        assert!(!sound.keep_up(100 * MS, None));
        assert!(!sound.keep_up(100 * MS, Some(FRAME - 1)));
        // No place for a frame yet: reordered, or pictures that hardly go on.
        assert!(!sound.keep_up(0, Some(FRAME)));
        assert!(!sound.keep_up(2 * FRAME - 1, Some(FRAME)));
        assert_eq!(silence(&mut sound), []);
        assert!(sound.keep_up(5 * FRAME, Some(FRAME)));
        assert_eq!(silence(&mut sound), places(FRAME, 4));
        assert!(!sound.keep_up(7 * FRAME, None));
        assert_eq!(silence(&mut sound), places(5 * FRAME, 2));
    }

    #[test]
    fn sound_that_comes_back_too_late_is_waited_for_again_and_tells_how_long_it_was_missing() {
        let mut sound = begun();
        sound.keep_up(5 * FRAME, Some(FRAME));
        assert_eq!(sound.frame(4 * FRAME, 3 * FRAME), Fit::Late);
        assert!(!sound.keep_up(8 * FRAME, Some(5 * FRAME - 1)));
        assert_eq!(silence(&mut sound), places(FRAME, 4));
        assert!(!sound.keep_up(8 * FRAME, Some(5 * FRAME)));
        assert_eq!(silence(&mut sound), places(5 * FRAME, 3));
        let joined = Some(Duration::from_millis(140));
        assert_eq!(sound.frame(9 * FRAME, 0), Fit::Here { joined });
        assert_eq!(silence(&mut sound), places(8 * FRAME, 1));
        assert_eq!(sound.frame(10 * FRAME, 0), HERE);
        assert!(sound.keep_up(13 * FRAME, Some(11 * FRAME)));
    }

    #[test]
    fn sound_that_was_never_there_is_not_waited_for() {
        let mut sound = Sound::new(FRAME);
        sound.missing();
        assert!(!sound.keep_up(2 * FRAME, None));
        assert_eq!(silence(&mut sound), places(0, 2));
        let joined = Some(Duration::from_millis(40));
        assert_eq!(sound.frame(2 * FRAME, 0), Fit::Here { joined });
    }
}
