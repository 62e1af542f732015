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
    /// What lies before `end` is taken: silence stands there.
    taken: bool,
    /// Silence put since the audio went missing.
    filled: Option<i64>,
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
        self.filled.get_or_insert(0);
    }

    /// The next silent frame's place.
    pub(super) fn poll_silence(&mut self) -> Option<i64> {
        self.silence.pop_front()
    }

    /// A frame at `media`, after a hole in its track.
    pub(super) fn frame(&mut self, media: i64, hole: i64) -> Fit {
        let moved = std::mem::take(&mut self.moved);
        let Some(end) = self.end else {
            if media < -self.frame / 2 {
                return Fit::Early;
            }
            if media >= LATE_BEGIN {
                self.fill(0, media / self.frame);
            }
            self.end = Some(media + self.frame);
            let joined = self.joined();
            return Fit::Here { joined };
        };
        if moved < -JUMP {
            self.taken = true;
        }
        if self.taken {
            if media < end - self.frame / 2 {
                self.returning = self.filled.is_some();
                return Fit::Late;
            }
            self.taken = false;
            self.debt = 0;
            self.owe(end, media - end);
        } else {
            let jump = if moved > JUMP { moved } else { 0 };
            self.owe(end, hole + jump);
        }
        self.end = Some(media + self.frame);
        let joined = self.joined();
        Fit::Here { joined }
    }

    /// Video has come to `media`. If pictures up to `overdue` have waited for audio as long as they do,
    /// or if audio is missing already, silence takes its place; tells when that begins.
    pub(super) fn keep_up(&mut self, media: i64, overdue: Option<i64>) -> bool {
        let end = self.end.unwrap_or(0);
        let waited_for = self.filled.is_none() || self.returning;
        if waited_for && overdue.is_none_or(|overdue| overdue < end) {
            return false;
        }
        self.returning = false;
        let begins = self.filled.is_none();
        let frames = (media - end) / self.frame;
        if frames > 0 {
            self.fill(end, frames);
            self.end = Some(end + frames * self.frame);
            self.taken = true;
            self.filled = Some(self.filled.unwrap_or(0) + frames * self.frame);
        }
        begins
    }

    fn joined(&mut self) -> Option<Duration> {
        self.returning = false;
        let filled = self.filled.take()?;
        Some(Duration::from_nanos(filled.unsigned_abs()))
    }

    /// Fills a hole with whole frames and remembers the rest.
    fn owe(&mut self, end: i64, hole: i64) {
        if hole.abs() < self.frame / 2 {
            return; // No hole: the debt waits for one.
        }
        // More than a little has been corrected since.
        let debt = if self.debt.abs() <= LEFT_ALONE {
            self.debt
        } else {
            0
        };
        let owed = hole + debt;
        let frames = ((owed + self.frame / 2) / self.frame).max(0);
        self.debt = owed - frames * self.frame;
        self.fill(end, frames);
    }

    fn fill(&mut self, from: i64, frames: i64) {
        let places = (0..frames).map(|n| from + n * self.frame);
        self.silence.extend(places);
    }
}
