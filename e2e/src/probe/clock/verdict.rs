//! What the clock's readings mean: what is missing, double or out of order, and
//! how far apart picture and sound are.

use super::{Beep, Flash, Picture};
use crate::clock::sound::SECONDS;
use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;

/// Order and completeness of pictures, by the numbers they show.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sequence {
    pub pictures: usize,
    /// Numbers that ought to be there and are not.
    pub missing: Vec<u32>,
    /// Numbers seen again, once for each time too many.
    pub doubled: Vec<u32>,
    /// Numbers seen for the first time after a higher one.
    pub reordered: Vec<u32>,
    /// Those have only changed places with a neighbour.
    pub swapped: bool,
    /// Numbers that ought not to be there.
    pub unexpected: Vec<u32>,
    /// Places (counted from 0) of pictures without a readable number.
    pub unreadable: Vec<usize>,
}

impl Sequence {
    pub(super) fn judge(pictures: &[Picture], expected: Range<u32>) -> Self {
        let mut verdict = Self {
            pictures: pictures.len(),
            swapped: true,
            ..Self::default()
        };
        let mut seen = BTreeSet::new();
        for (place, picture) in pictures.iter().enumerate() {
            let Some(number) = picture.number else {
                verdict.unreadable.push(place);
                continue;
            };
            let late = seen.last().is_some_and(|&last| number < last);
            if !expected.contains(&number) {
                verdict.unexpected.push(number);
            }
            if !seen.insert(number) {
                verdict.doubled.push(number);
            } else if late {
                verdict.reordered.push(number);
                verdict.swapped &= seen.contains(&(number + 1)) && !seen.contains(&(number + 2));
            }
        }
        verdict.missing = expected.filter(|number| !seen.contains(number)).collect();
        verdict
    }

    /// The lowest number that something is wrong with.
    pub fn first_wrong(&self) -> Option<u32> {
        let all = [
            &self.missing,
            &self.doubled,
            &self.reordered,
            &self.unexpected,
        ];
        let lowest = all.into_iter().flatten().min().copied();
        lowest.or(self.unreadable.first().map(|place| *place as u32))
    }

    /// Every expected number exactly once, in order, and nothing else.
    pub fn is_perfect(&self) -> bool {
        let Self {
            pictures: _,
            missing,
            doubled,
            reordered,
            swapped: _,
            unexpected,
            unreadable,
        } = self;
        missing.is_empty()
            && doubled.is_empty()
            && reordered.is_empty()
            && unexpected.is_empty()
            && unreadable.is_empty()
    }
}

/// "1797 pictures; missing 3: 41 42 43; doubled 1: 90", or "…; all in order".
impl fmt::Display for Sequence {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 8;
        write!(out, "{} pictures", self.pictures)?;
        if self.is_perfect() {
            return write!(out, ", each once and in order");
        }
        let places: Vec<u32> = self.unreadable.iter().map(|&place| place as u32).collect();
        for (what, numbers) in [
            ("missing", &self.missing),
            ("doubled", &self.doubled),
            // One place only: its neighbour came first.
            (
                if self.swapped {
                    "swapped"
                } else {
                    "out of order"
                },
                &self.reordered,
            ),
            ("unexpected", &self.unexpected),
            ("unreadable at places", &places),
        ] {
            if numbers.is_empty() {
                continue;
            }
            write!(out, "; {what} {}:", numbers.len())?;
            for number in numbers.iter().take(SHOWN) {
                write!(out, " {number}")?;
            }
            if numbers.len() > SHOWN {
                write!(out, " …")?;
            }
        }
        Ok(())
    }
}

/// Times from one picture to the next, against their numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Steps {
    /// The furthest a step is from what the two numbers say, in milliseconds.
    pub worst_step_error_ms: f64,
    /// Where that step ends, in seconds.
    pub worst_step_at: f64,
    /// How much the whole is longer than the numbers say, in milliseconds.
    pub drift_ms: f64,
}

impl Steps {
    pub(super) fn judge(pictures: &[Picture], fps: u32) -> Self {
        let numbered: Vec<(f64, f64)> = pictures
            .iter()
            .filter_map(|picture| Some((picture.at, f64::from(picture.number?) / f64::from(fps))))
            .collect();
        let mut verdict = Self::default();
        for pair in numbered.windows(2) {
            let error = ((pair[1].0 - pair[0].0) - (pair[1].1 - pair[0].1)) * 1000.0;
            if error.abs() > verdict.worst_step_error_ms.abs() {
                verdict.worst_step_error_ms = error;
                verdict.worst_step_at = pair[1].0;
            }
        }
        if let (Some(first), Some(last)) = (numbered.first(), numbered.last()) {
            verdict.drift_ms = ((last.0 - first.0) - (last.1 - first.1)) * 1000.0;
        }
        verdict
    }
}

/// One second's flash and beep.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Skew {
    /// Which second, counted from the clip's start.
    pub second: u32,
    /// When its flash is seen, in seconds.
    pub flash_at: f64,
    /// When its beep is heard, in seconds.
    pub beep_at: f64,
    /// How much later the beep is than the flash, in milliseconds; negative: the
    /// sound is early.
    pub ms: f64,
}

/// Flashes and beeps paired by the second both stand for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sync {
    /// Seconds with both.
    pub skews: Vec<Skew>,
    /// Seconds with a flash and no beep.
    pub flash_only: Vec<u32>,
    /// Beeps whose second has no flash, or another beep nearer to it.
    pub stray_beeps: Vec<Beep>,
}

impl Sync {
    /// Pitches repeat each minute: a beep belongs to the nearest flash of its
    /// pitch, which is right while sound and picture are within half a minute.
    pub(super) fn judge(flashes: &[Flash], beeps: &[Beep]) -> Self {
        let mut verdict = Self::default();
        let mut used = vec![false; beeps.len()];
        // A flash with its first pictures missing says when it began only by
        // what follows, so it is no measure.
        for flash in flashes.iter().filter(|flash| flash.late_frames == 0) {
            let nearest = (0..beeps.len())
                .filter(|&at| !used[at] && beeps[at].second == Some(flash.second % SECONDS))
                .filter(|&at| (beeps[at].at - flash.at).abs() < f64::from(SECONDS) / 2.0)
                .min_by(|&a, &b| {
                    let away = |at: usize| (beeps[at].at - flash.at).abs();
                    away(a).total_cmp(&away(b))
                });
            let Some(at) = nearest else {
                verdict.flash_only.push(flash.second);
                continue;
            };
            used[at] = true;
            verdict.skews.push(Skew {
                second: flash.second,
                flash_at: flash.at,
                beep_at: beeps[at].at,
                ms: (beeps[at].at - flash.at) * 1000.0,
            });
        }
        let stray = beeps.iter().zip(used).filter(|(_, used)| !used);
        verdict.stray_beeps = stray.map(|(beep, _)| *beep).collect();
        verdict
    }

    /// The skew furthest from none, in milliseconds and with its sign.
    pub fn worst_ms(&self) -> f64 {
        let furthest = |a: &f64, b: &f64| a.abs().total_cmp(&b.abs());
        self.skews
            .iter()
            .map(|skew| skew.ms)
            .max_by(furthest)
            .unwrap_or(0.0)
    }

    /// The middle skew, in milliseconds.
    pub fn median_ms(&self) -> f64 {
        crate::probe::audio::median(self.skews.iter().map(|skew| skew.ms).collect())
    }

    /// The share of all seconds with a flash whose beep is within `limit_ms`, 0
    /// to 1. A missing beep counts against it.
    pub fn share_within(&self, limit_ms: f64) -> f64 {
        let within = self.skews.iter().filter(|skew| skew.ms.abs() <= limit_ms);
        let all = self.skews.len() + self.flash_only.len();
        within.count() as f64 / all.max(1) as f64
    }
}
