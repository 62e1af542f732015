//! One track's RTP time as a line without steps.

use std::collections::VecDeque;
use std::time::Duration;

use super::Picture;
use crate::time::{At, nanos_of};

const MS: i64 = 1_000_000;
/// Audio timestamps that move by no more than this against the time that goes by are followed: the
/// slew takes care of them. Video goes that far ahead before it is doubted.
const SMALL_STEP: i64 = 300 * MS;
/// A decoder holds sixteen pictures, so none is further from its place than that.
const DEEPEST: i64 = 16;
/// Leaps of video that need no proof by arrival: B-frames that show for the first time at 25 pictures a
/// second and more.
const LEAP: i64 = 600 * MS;
/// The same of the first second, where arrival proves little: a decoder's pictures at ten a second.
const FIRST_LEAP: i64 = DEEPEST * 100 * MS;
/// What arrival may be early by without a step: clocks drift, and the least delay is not always seen.
const EARLY: i64 = 25 * MS;
/// Two pictures of one timestamp lie this far apart: the least that RTMP can tell.
const APART: i64 = MS;
/// Timestamps that stray are back after this long, or they have stepped.
const VISIT: Duration = Duration::from_secs(1);

/// Where a unit lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Located {
    /// On the line.
    pub(super) time: i64,
    /// Time before it in which nothing came, by RTP time and by arrival.
    pub(super) hole: i64,
    /// What is added to RTP time from here on, more than before.
    pub(super) stepped: Option<i64>,
}

/// The line of one track.
#[derive(Debug)]
pub(super) struct Line {
    /// Added to RTP time.
    shift: i64,
    /// What was added before the last step, and until when that may have been a visit only: a stray
    /// timestamp is followed by one of the old line.
    previous: Option<(i64, At)>,
    /// Furthest place so far, and the furthest before that.
    highest: Option<i64>,
    before: i64,
    /// Distance of neighbours.
    cadence: i64,
    /// How far a picture may lie ahead of all before it without proof by arrival.
    leap: i64,
    transit: Recent,
}

impl Line {
    pub(super) fn video() -> Self {
        Self::new(40 * MS)
    }

    pub(super) fn audio(frame: i64) -> Self {
        Self::new(frame)
    }

    fn new(cadence: i64) -> Self {
        Self {
            shift: 0,
            previous: None,
            highest: None,
            before: 0,
            cadence,
            leap: LEAP,
            transit: Recent::default(),
        }
    }

    /// The place of an RTP time that is not a unit's.
    pub(super) fn on_line(&self, time: i64) -> i64 {
        time.saturating_add(self.shift)
    }

    /// By how much a report's time is ahead of what arrives with it.
    pub(super) fn ahead(&self, at: At, place: i64) -> i64 {
        place.saturating_sub(self.transit.place_of(at, place))
    }

    /// Time goes on at another pace from here on: what went by before says nothing.
    pub(super) fn forget(&mut self) {
        self.previous = None;
        self.transit = Recent::default();
    }

    /// Places the next picture in decoding order.
    pub(super) fn picture(&mut self, at: At, time: Option<i64>, picture: Picture) -> Located {
        let Some(highest) = self.highest else {
            return self.begin(at, time);
        };
        let Some(raw) = time else {
            return self.went(at, highest, None);
        };
        let place = self.on_line(raw);
        let old = self.old(at, raw).filter(|old| *old > self.before);
        let expected = highest + self.cadence;
        if picture == Picture::Bidirectional {
            return self.reordered(at, raw, highest, old);
        }
        if let Some(old) = old
            && off(old, expected) < off(place, expected).min(SMALL_STEP)
        {
            return self.back_on(at, old);
        }
        let ahead = place.saturating_sub(highest);
        if ahead < 0 {
            // Behind the last one, but not behind the one before: one of the two strayed. If together
            // they are further on than two in a row, the last one did, and this one is shown before it.
            if place > self.before
                && (place - self.before) + (highest - self.before) > 3 * self.cadence
            {
                return self.went(at, place, None);
            }
            return self.step(at, raw, expected);
        }
        let arrived = self.transit.place_of(at, expected);
        if ahead > self.leap.max(2 * self.cadence)
            && place > arrived.saturating_add(self.transit.slack())
        {
            return self.step(at, raw, expected);
        }
        self.went(at, place, None)
    }

    /// A picture that may lie before earlier ones.
    fn reordered(&mut self, at: At, raw: i64, highest: i64, old: Option<i64>) -> Located {
        let place = self.on_line(raw);
        let deepest = DEEPEST * self.cadence.max(20 * MS);
        // The leap before it was no step, but the first picture of a reordered group.
        if let Some(old) = old
            && place <= self.before
            && off(old, self.before) <= deepest
        {
            self.leap = self.leap.max(deepest);
            return self.back_on(at, old);
        }
        if off(place, highest) > deepest {
            return self.step(at, raw, highest + self.cadence);
        }
        self.went(at, place, None)
    }

    /// Places the next audio frame.
    pub(super) fn frame(&mut self, at: At, time: Option<i64>) -> Located {
        let Some(last) = self.highest else {
            return self.begin(at, time);
        };
        let expected = last + self.cadence;
        let Some(raw) = time else {
            self.highest = Some(expected);
            return Located {
                time: expected,
                hole: 0,
                stepped: None,
            };
        };
        if let Some(old) = self.old(at, raw)
            && off(old, expected) <= self.cadence / 2
        {
            let back = self.swap();
            return self.heard(at, old, 0, back);
        }
        // What is missing for as long as nothing came is a hole, not a step.
        let place = self.on_line(raw);
        let missing = place.saturating_sub(expected);
        let gone_by = self.transit.place_of(at, expected) - expected;
        let real = missing.min(gone_by + EARLY).max(0);
        if missing == real {
            return self.heard(at, place, missing, None);
        }
        if off(missing, real) <= SMALL_STEP {
            return self.heard(at, place, 0, None);
        }
        let hole = if gone_by > 2 * self.cadence + EARLY {
            gone_by
        } else {
            0
        };
        let stepped = self.shift_to(at, raw, expected + hole);
        self.heard(at, expected + hole, hole, stepped)
    }

    fn begin(&mut self, at: At, time: Option<i64>) -> Located {
        let time = time.unwrap_or(0);
        self.before = time;
        self.heard(at, time, 0, None)
    }

    fn heard(&mut self, at: At, time: i64, hole: i64, stepped: Option<i64>) -> Located {
        self.highest = Some(time);
        self.transit.note(at, time);
        Located {
            time,
            hole,
            stepped,
        }
    }

    fn went(&mut self, at: At, mut time: i64, stepped: Option<i64>) -> Located {
        if let Some(highest) = self.highest
            && time >= highest
        {
            time = time.max(highest + APART);
            let distance = time - highest;
            if distance > APART {
                // Neighbours in decoding order may be several frames apart: the distance is learnt from
                // short ones at once and from long ones slowly.
                let longer = (distance - self.cadence).min(self.cadence) / 16;
                self.cadence = distance.min(self.cadence + longer);
            }
            self.before = highest;
            self.highest = Some(time);
        }
        self.transit.note(at, time);
        Located {
            time,
            hole: 0,
            stepped,
        }
    }

    /// RTP time stepped: the line goes on by what arrival says.
    fn step(&mut self, at: At, raw: i64, expected: i64) -> Located {
        let arrived = self.transit.place_of(at, expected);
        let time = if arrived > expected + SMALL_STEP {
            arrived
        } else {
            expected
        };
        let stepped = self.shift_to(at, raw, time);
        self.went(at, time, stepped)
    }

    fn back_on(&mut self, at: At, old: i64) -> Located {
        let back = self.swap();
        self.went(at, old, back)
    }

    /// The place on the line before the last step.
    fn old(&self, at: At, raw: i64) -> Option<i64> {
        let (shift, _) = self.previous.filter(|(_, until)| at <= *until)?;
        Some(raw.saturating_add(shift))
    }

    /// Takes the shift before the last step.
    fn swap(&mut self) -> Option<i64> {
        let (shift, _) = self.previous.take()?;
        let visited = std::mem::replace(&mut self.shift, shift);
        Some(shift.saturating_sub(visited))
    }

    fn shift_to(&mut self, at: At, raw: i64, time: i64) -> Option<i64> {
        let shift = time.saturating_sub(raw);
        let visit = VISIT.max(Duration::from_nanos(self.cadence.unsigned_abs()) * 4);
        let before = std::mem::replace(&mut self.shift, shift);
        self.previous = Some((before, at + visit));
        Some(shift.saturating_sub(before))
    }
}

fn off(time: i64, from: i64) -> i64 {
    time.saturating_sub(from).saturating_abs()
}

/// The least of arrival minus place over the last seconds: what got through with the least delay.
#[derive(Debug, Default)]
struct Recent {
    /// Second of arrival, and the least in it.
    seconds: VecDeque<(u64, i64)>,
}

/// Seconds remembered: longer than the distance of keyframes, which take longest to send.
const REMEMBERED: usize = 10;

impl Recent {
    fn note(&mut self, at: At, time: i64) {
        let transit = nanos_of(at.as_duration()).saturating_sub(time);
        let second = at.as_duration().as_secs();
        match self.seconds.back_mut() {
            Some((last, least)) if *last == second => *least = (*least).min(transit),
            _ => {
                if self.seconds.len() == REMEMBERED {
                    self.seconds.pop_front();
                }
                self.seconds.push_back((second, transit));
            }
        }
    }

    fn least(&self) -> Option<i64> {
        self.seconds.iter().map(|(_, least)| *least).min()
    }

    /// Where a unit that arrives at `at` lies if it was as quick as the quickest.
    fn place_of(&self, at: At, unknown: i64) -> i64 {
        self.least().map_or(unknown, |least| {
            nanos_of(at.as_duration()).saturating_sub(least)
        })
    }

    /// By how much a unit may lie ahead of that: nobody can tell at the very start.
    fn slack(&self) -> i64 {
        if self.seconds.len() < 2 {
            FIRST_LEAP
        } else {
            SMALL_STEP
        }
    }
}

#[cfg(test)]
mod tests;
